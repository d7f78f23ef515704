"""Reward against KL of finished runs: what each arm earns at 1, 2, 4 and 8 nats.

    python3 scripts/grl/frontier.py OUTPUT_DIR TASK [--gold COLUMN]          (OUTPUT_DIR of `collimate compare`)

Runs named ARM@TAU are one arm at several KL weights. Of each run the last evaluation counts. Between the KLs of an arm's
weights the reward is interpolated for each seed; outside them there is none. With --gold, another reward of the evaluation
(`eval_rewards/NAME/mean`) in place of the one that was trained on. Python's standard library only.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

PLACES = (1.0, 2.0, 4.0, 8.0)


def last_evaluation(run, column):
    found = None
    for line in (run / "metrics.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        if "eval_sequence_kl" in row and column in row:
            found = (row["eval_sequence_kl"], row[column])
    return found


def at(points, place):
    points = sorted(points)
    for (left, low), (right, high) in zip(points, points[1:]):
        if left <= place <= right and left < right:
            return low + (high - low) * (place - left) / (right - left)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("task")
    parser.add_argument("--gold", default="eval_reward")
    arguments = parser.parse_args()
    arms = defaultdict(lambda: defaultdict(list))
    for summary in sorted(arguments.output_dir.glob(f"cells/*/{arguments.task}/*/summary.json")):
        run = summary.parent
        # The folder's name has a dash where the run's has what no folder name can hold
        arm, _, tau = run.relative_to(arguments.output_dir / "cells").parts[0].replace("@", "-").rpartition("-")
        point = last_evaluation(run, arguments.gold)
        if point:
            arms[arm][run.name].append((*point, float(tau)))
    print("| arm | seeds | " + " | ".join(f"at {place:g} nats" for place in PLACES) + " | KL at each weight |")
    print("|---|---|" + "---|" * (len(PLACES) + 1))
    for arm, seeds in sorted(arms.items()):
        cells = []
        for place in PLACES:
            values = [at([(kl, reward) for kl, reward, _ in points], place) for points in seeds.values()]
            known = [value for value in values if value is not None]
            cells.append(f"{statistics.fmean(known):.3f} ({len(known)})" if known else "–")
        by_tau = defaultdict(list)
        for points in seeds.values():
            for kl, _, tau in points:
                by_tau[tau].append(kl)
        kls = ", ".join(f"{tau:g}: {statistics.fmean(kl):.1f}" for tau, kl in sorted(by_tau.items()))
        print(f"| {arm} | {len(seeds)} | " + " | ".join(cells) + f" | {kls} |")


if __name__ == "__main__":
    main()
