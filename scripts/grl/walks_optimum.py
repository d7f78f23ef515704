"""What can be had on the walks at a KL weight: the exact optimum of J = E reward - tau KL over all policies.

    python3 scripts/grl/walks_optimum.py TAU ...          (from the repository's root)

The reward reads a walk up to its first visit of the goal, so all walks that earn anything can be written down. With their
probabilities under the base model, V*(x) = tau log E e^(r/tau). COLLIMATE is the program (default target/release/collimate).
Python's standard library only.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data"))

import walks  # noqa: E402


def rewarded(graph, start):
    """Walks from a start to the first visit of the goal, short enough to earn something."""
    found, open_walks = [], [start]
    while open_walks:
        walk = open_walks.pop()
        if walk[-1] == graph["goal"]:
            found.append(walk)
        elif len(walk) + 1 < graph["max_length"]:
            open_walks.extend(walk + node for node in graph["edges"][walk[-1]])
    return found


def log_probabilities(texts):
    """Of each walk after its first letter, under the base model."""
    program = os.environ.get("COLLIMATE", str(ROOT / "target" / "release" / "collimate"))
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        file.flush()
        command = [program, "--quiet", "logprobs", "--model", str(ROOT / "data" / "walks" / "base"), "--texts", file.name]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(len(row["token_ids"]) == len(text) for row, text in zip(rows, texts, strict=True)), "a token a letter"
    return [sum(row["logprobs"]) for row in rows]


def main():
    taus = [float(word) for word in sys.argv[1:]]
    if not taus:
        sys.exit(__doc__)
    graph = json.loads((ROOT / "data" / "walks" / "graph.json").read_text(encoding="utf-8"))
    prompts = [json.loads(line)["prompt"] for line in (ROOT / "data" / "walks" / "prompts.jsonl").open(encoding="utf-8")]
    all_walks = [rewarded(graph, prompt) for prompt in prompts]
    flat = [walk for own in all_walks for walk in own]
    logs = dict(zip(flat, log_probabilities(flat), strict=True))
    print("| tau | J of the base model | J of the optimum | reward there | KL there |\n|---|---|---|---|---|")
    for tau in taus:
        base = best = reward = 0.0
        for own in all_walks:
            scores = [(math.exp(logs[walk]), walks.optimality(graph, walk)) for walk in own]
            base += sum(p * r for p, r in scores) / len(prompts)
            total = 1.0 + sum(p * math.expm1(r / tau) for p, r in scores)
            best += tau * math.log(total) / len(prompts)
            reward += sum(p * math.exp(r / tau) * r for p, r in scores) / total / len(prompts)
        print(f"| {tau:g} | {base:.4f} | {best:.4f} | {reward:.4f} | {(reward - best) / tau:.3f} |")


if __name__ == "__main__":
    main()
