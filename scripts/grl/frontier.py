"""Reward against KL of finished runs: each arm's points, and what it earns at the same KLs.

    python3 scripts/grl/frontier.py OUTPUT_DIR TASK [--at 2,4,6] [--gold COLUMN --gold_at 0.5,0.6]          (OUTPUT_DIR of `collimate compare`)

Runs named ARM@TAU are one arm at several KL weights. Of each run the last evaluation counts. Between the KLs of an arm's
weights the reward is interpolated for each seed; outside them there is none, and the number of seeds stands beside. --gold:
another reward of the evaluation (`eval_rewards/NAME/mean`) beside the one that was trained on, and with --gold_at what it is
where the trained one has these values. Python's standard library only.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path


def last_evaluation(run, columns):
    """(KL, rewards) of the last row that has them all"""
    found = None
    for line in (run / "metrics.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        if all(column in row for column in ("eval_sequence_kl", *columns)):
            found = (row["eval_sequence_kl"], *(row[column] for column in columns))
    return found


def at(points, place):
    points = sorted(points)
    for (left, low), (right, high) in zip(points, points[1:]):
        if left <= place <= right and left < right:
            return low + (high - low) * (place - left) / (right - left)
    return None


def numbers(text):
    return [float(word) for word in text.split(",")]


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("task")
    parser.add_argument("--gold")
    parser.add_argument("--gold_at", help="rewards")
    parser.add_argument("--at", default="1,2,4,8", help="nats")
    arguments = parser.parse_args()
    columns = ["eval_reward", *([arguments.gold] if arguments.gold else [])]
    names = ["reward", "gold"][: len(columns)]
    arms = defaultdict(lambda: defaultdict(dict))  # arm -> seed -> weight -> (KL, rewards)
    for summary in sorted(arguments.output_dir.glob(f"cells/*/{arguments.task}/*/summary.json")):
        run = summary.parent
        # The folder's name has a dash where the run's has what no folder name can hold
        arm, _, tau = run.relative_to(arguments.output_dir / "cells").parts[0].replace("@", "-").rpartition("-")
        point = last_evaluation(run, columns)
        if point:
            arms[arm][run.name][float(tau)] = point

    rows = []
    for arm, seeds in sorted(arms.items()):
        for tau in sorted({tau for points in seeds.values() for tau in points}):
            values = zip(*(points[tau] for points in seeds.values() if tau in points))
            rows.append([f"`{arm}`", f"{tau:g}"] + [f"{statistics.fmean(v):.3g} ({min(v):.3g} to {max(v):.3g})" for v in values])
    table(["arm", "KL weight", "KL", *names], rows)
    print()

    def common(places, x, ys, unit):
        """Of each arm the columns `ys` where column `x` is at a place, and of how many seeds that is the mean"""
        rows = []
        for arm, seeds in sorted(arms.items()):
            row = [f"`{arm}`"]
            for place in places:
                found = [[at([(p[x], p[y]) for p in points.values()], place) for y in ys] for points in seeds.values()]
                found = [values for values in found if None not in values]
                means = " / ".join(f"{statistics.fmean(values):.3f}" for values in zip(*found))
                row.append(f"{means} ({len(found)})" if found else "–")
            rows.append(row)
        wanted = " / ".join(names[y - 1] for y in ys)
        table(["arm"] + [f"{wanted} at {place:g} {unit} (seeds)" for place in places], rows)

    common(numbers(arguments.at), 0, range(1, len(columns) + 1), "nats")
    if arguments.gold and arguments.gold_at:
        print()
        common(numbers(arguments.gold_at), 1, [2], "of reward")


if __name__ == "__main__":
    main()
