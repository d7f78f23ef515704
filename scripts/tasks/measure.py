"""Mean score of completions that `collimate generate --json` printed, computed without the program.

    collimate generate --model_name_or_path MODEL --prompts data/walks/prompts.jsonl --json ... \
        | python3 scripts/tasks/measure.py walks
    collimate generate --model_name_or_path MODEL --prompts data/sums/test.jsonl --json ... \
        | python3 scripts/tasks/measure.py sums

Prints the mean optimality of walks, or the share of right sums, and its standard error. Python's standard library only.
"""

import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "data"))

import walks  # noqa: E402


def main():
    if sys.argv[1:] == ["walks"]:
        graph = json.loads((ROOT / "data" / "walks" / "graph.json").read_text(encoding="utf-8"))
        score = lambda row: walks.optimality(graph, row["prompt"] + row["completion"])
    elif sys.argv[1:] == ["sums"]:
        score = lambda row: float(right(row))
    else:
        sys.exit(__doc__)
    scores = [score(json.loads(line)) for line in sys.stdin]
    error = statistics.stdev(scores) / len(scores) ** 0.5
    print(f"{statistics.fmean(scores):.3f} ± {error:.3f} ({len(scores)} samples)")


def right(row):
    first, second = row["prompt"].removesuffix("=").split("+")
    return row["completion"].strip() == str(int(first) + int(second))


if __name__ == "__main__":
    main()
