"""Writes data/walks: a random graph, random walks on it, and the nodes from which a model is to reach the goal.

    python3 scripts/data/walks.py [--output_dir data/walks] [--start FOLDER]

Python's standard library only, and a fixed seed: the same bytes each time. With --start also the tokenizer and the shape
of the model, for scripts/data/train_tasks.sh. The task is the one known from trlx's `randomwalks`; the graph is our own.
"""

import argparse
import json
import random
from collections import deque
from pathlib import Path

import char_model

SEED = 1002
NODES = "abcdefghijklmnopqrstu"
GOAL = "a"
EDGE_PROBABILITY = 0.1
# Nodes of a walk, its start included
MAX_LENGTH = 10
WALKS = 1000


def draw_graph(rng):
    """Node -> nodes that follow; drawn again until the goal can be reached from everywhere within MAX_LENGTH."""
    while True:
        edges = {
            node: [other for other in NODES if other != node and rng.random() < EDGE_PROBABILITY]
            for node in NODES
            if node != GOAL
        }
        lengths = shortest_lengths(edges, GOAL)
        if len(lengths) == len(NODES) and max(lengths.values()) < MAX_LENGTH:
            return edges


def shortest_lengths(edges, goal):
    """Nodes on the shortest walk to the goal, both ends counted."""
    lengths = {goal: 1}
    queue = deque([goal])
    while queue:
        node = queue.popleft()
        for before, after in edges.items():
            if node in after and before not in lengths:
                lengths[before] = lengths[node] + 1
                queue.append(before)
    return lengths


def draw_walk(rng, edges):
    """From any node but the goal, to the goal or until the walk is full."""
    walk = rng.choice(sorted(edges))
    while walk[-1] != GOAL and len(walk) < MAX_LENGTH:
        walk += rng.choice(edges[walk[-1]])
    return walk


def optimality(graph, walk):
    """1 for a shortest walk to the goal, less for a longer one, 0 where an edge is missing or the goal is not reached."""
    edges, goal, longest = graph["edges"], graph["goal"], graph["max_length"]
    shortest = shortest_lengths(edges, goal)[walk[0]]
    length = longest
    for index, node in enumerate(walk):
        if index > 0 and node not in edges[walk[index - 1]]:
            break
        if node == goal:
            length = index + 1
            break
    return max(0, longest - length) / (longest - shortest)


def main():
    parser = argparse.ArgumentParser()
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--output_dir", type=Path, default=root / "data" / "walks")
    parser.add_argument("--start", type=Path, help="folder for the tokenizer and the shape of the model")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    edges = draw_graph(rng)
    lines = ",\n".join(f"    {json.dumps(node)}: {json.dumps(after)}" for node, after in edges.items())
    (options.output_dir / "graph.json").write_text(
        f'{{\n  "goal": "{GOAL}",\n  "max_length": {MAX_LENGTH},\n  "edges": {{\n{lines}\n  }}\n}}\n', encoding="utf-8"
    )
    char_model.write_rows(options.output_dir / "walks.jsonl", ({"text": draw_walk(rng, edges)} for _ in range(WALKS)))
    char_model.write_rows(options.output_dir / "prompts.jsonl", ({"prompt": node} for node in edges))
    if options.start:
        char_model.write(options.start, NODES, layers=2, width=64, heads=4, positions=16)


if __name__ == "__main__":
    main()
