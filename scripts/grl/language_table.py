"""Each arm on each task, from the runs of configs/grl/language.yaml: a Markdown table a task.

    python3 scripts/grl/language_table.py OUTPUT_DIR          (OUTPUT_DIR of `collimate compare`)

Area: under J = reward - tau KL over the logarithm of the reward queries from 256 on, J as a share of the task's `range`;
interquartile mean over the seeds, lowest and highest. Reward and KL: means of the last evaluations. Queries to 0.8: until J, in
straight lines between evaluations, first reaches 0.8 of the range; median over the seeds that reach it, and how many do.
Python's standard library only.
"""

import argparse
import json
import statistics
from pathlib import Path

from rates import area

RANGES = {"walks": (0.348, 0.909), "reviews": (0.0, 0.3)}
TARGET = 0.8


def evaluations(run):
    rows = (json.loads(line) for line in (run / "metrics.jsonl").open(encoding="utf-8"))
    return [row for row in rows if "eval_objective" in row]


def interquartile_mean(values):
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def reached(points):
    for (left, low), (right, high) in zip(points, points[1:]):
        if low < TARGET <= high:
            return left + (right - left) * (TARGET - low) / (high - low)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    cells = parser.parse_args().output_dir / "cells"
    for task, (low, high) in RANGES.items():
        print(f"\n| {task} | area: IQM (lowest to highest of the seeds) | reward | KL | queries to {TARGET} |\n|---|---|---|---|---|")
        rows = []
        for arm in sorted(path.name for path in cells.iterdir()):
            areas, rewards, kls, queries = [], [], [], []
            for run in sorted((cells / arm / task).glob("seed-*/summary.json")):
                seen = evaluations(run.parent)
                points = [(row.get("eval_reward_queries", 0.0),
                           (row["eval_objective"] - low) / (high - low)) for row in seen]
                areas.append(area(points))
                rewards.append(seen[-1]["eval_reward"])
                kls.append(seen[-1]["eval_sequence_kl"])
                queries.append(reached(points))
            if not areas:
                continue
            there = [query for query in queries if query is not None]
            spent = f"{statistics.median(there):.0f} ({len(there)}/{len(queries)})" if there else f"– (0/{len(queries)})"
            rows.append((interquartile_mean(areas), f"| `{arm}` | {interquartile_mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f}) | "
                         f"{statistics.fmean(rewards):.3f} | {statistics.fmean(kls):.2f} | {spent} |"))
        print("\n".join(row for _, row in sorted(rows, reverse=True)))


if __name__ == "__main__":
    main()
