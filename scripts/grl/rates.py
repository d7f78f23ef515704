"""Which learning rate each arm takes on each task, from the runs of configs/grl/language_tuning.yaml.

    python3 scripts/grl/rates.py OUTPUT_DIR          (OUTPUT_DIR of `collimate compare`)

Tasks named TASK@RATE are one task at several rates. A run's score is the area under `eval_objective` over the logarithm of the
reward queries from 256 on, straight lines between evaluations, divided by the width: what the comparison itself scores. Of each
arm and task the rate with the largest mean score over the seeds is taken (marked), and printed as `runs` of a task at the end.
Python's standard library only.
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path

FIRST = 256.0


def curve(run):
    points = []
    for line in (run / "metrics.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        if "eval_objective" in row:
            points.append((row.get("eval_reward_queries", 0.0), row["eval_objective"]))
    return points


def area(points):
    at_first = None
    inside = [point for point in points if point[0] > FIRST]
    for (left, low), (right, high) in zip(points, points[1:]):
        if left <= FIRST <= right:
            at_first = low + (high - low) * (FIRST - left) / (right - left)
    inside.insert(0, (FIRST, at_first))
    pieces = [
        (low + high) / 2 * math.log(right / left) for (left, low), (right, high) in zip(inside, inside[1:])
    ]
    return sum(pieces) / math.log(inside[-1][0] / FIRST)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    arguments = parser.parse_args()
    scores = defaultdict(lambda: defaultdict(list))
    for summary in sorted(arguments.output_dir.glob("cells/*/*/*/summary.json")):
        arm, place, _ = summary.parent.relative_to(arguments.output_dir / "cells").parts
        # A folder's name has a dash where the task's has what no folder name can hold
        task, _, rate = place.replace("@", "-", 1).partition("-")
        scores[task, arm][float(rate)].append(area(curve(summary.parent)))
    chosen = defaultdict(dict)
    for task in sorted({task for task, _ in scores}):
        arms = {arm: rates for (of, arm), rates in scores.items() if of == task}
        rates = sorted({rate for means in arms.values() for rate in means})
        print(f"\n| {task} | " + " | ".join(f"{rate:g}" for rate in rates) + " | seeds |\n|---|" + "---|" * (len(rates) + 1))
        for arm, by_rate in arms.items():
            means = {rate: statistics.fmean(found) for rate, found in by_rate.items()}
            best = max(means, key=means.get)
            chosen[task][arm] = best
            cells = [
                "–" if rate not in means else f"**{means[rate]:.3f}**" if rate == best else f"{means[rate]:.3f}"
                for rate in rates
            ]
            print(f"| `{arm}` | " + " | ".join(cells) + f" | {min(map(len, by_rate.values()))} |")
    for task, rates in chosen.items():
        print(f"\n  {task}:\n    runs:")
        for arm, rate in rates.items():
            print(f"      {arm}: {{learning_rate: {rate:.1e}}}")


if __name__ == "__main__":
    main()
