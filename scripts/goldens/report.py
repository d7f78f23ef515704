"""tests/goldens/report/statistics.json: aggregates and intervals of rliable 1.2.0 on fixed score tables.

    VENV/bin/pip install rliable==1.2.0
    VENV/bin/python scripts/goldens/report.py
"""
import json
import os

import numpy as np
from rliable import library, metrics

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "report", "statistics.json")
THRESHOLDS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]
TARGET = 1.0
FIGURES = ["mean", "median", "iqm", "optimality_gap"]


def figures(scores):
    return np.array([
        metrics.aggregate_mean(scores), metrics.aggregate_median(scores), metrics.aggregate_iqm(scores),
        metrics.aggregate_optimality_gap(scores, TARGET),
    ])


def main():
    rng = np.random.RandomState(0)
    tables = {
        # Runs × tasks; rounded, so that there are ties
        "strong": np.round(rng.normal(0.8, 0.3, (10, 5)), 2),
        "weak": np.round(rng.normal(0.6, 0.4, (7, 5)), 2),
        "single_task": np.round(rng.gamma(2.0, 0.3, (9, 1)), 2),
    }
    # rliable draws from numpy's global generator
    np.random.seed(1)
    points, intervals = library.get_interval_estimates(tables, figures, reps=10_000)
    out = {"thresholds": THRESHOLDS, "target": TARGET, "tables": {}}
    for name, scores in tables.items():
        low, high = intervals[name]
        out["tables"][name] = {
            "tasks": scores.T.tolist(),
            "profile": library.score_distributions(scores, np.array(THRESHOLDS)).tolist(),
            **{f: {"point": p, "low": l, "high": h} for f, p, l, h in zip(FIGURES, points[name].tolist(), low.tolist(), high.tolist())},
        }
    pair = {"pair": [tables["strong"], tables["weak"]]}
    points, intervals = library.get_interval_estimates(
        pair, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=2_000)
    low, high = intervals["pair"]
    out["strong_over_weak"] = {"point": points["pair"].item(), "low": low.item(), "high": high.item()}
    with open(OUT, "w") as file:
        json.dump(out, file, indent=1)
        file.write("\n")


main()
