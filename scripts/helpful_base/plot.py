"""plot.py CURVE.jsonl OUT.svg: held-out accuracy of reward models over the number of pairs, from reward.sh."""
import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

SIZES = [250, 500, 1000, 2072]
rows = [json.loads(line) for line in open(sys.argv[1])]
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, label in [("accuracy", "all held-out pairs"), ("accuracy_equal_length", "lengths within a tenth")]:
    values = [row[name] for row in rows]
    low, high = ([row[f"{name}_{end}"] for row in rows] for end in ("low", "high"))
    axes.plot(SIZES, values, marker="o", label=label)
    axes.fill_between(SIZES, low, high, alpha=0.15)
axes.axhline(rows[0]["longer_wins"], linestyle="--", color="gray", label="the longer answer wins")
axes.axhline(0.5, linestyle=":", color="gray")
axes.set(xscale="log", xticks=SIZES, xticklabels=SIZES, xlabel="pairs trained on", ylabel="accuracy", ylim=(0.3, 0.8))
axes.legend(fontsize="small")
figure.savefig(sys.argv[2], metadata={"Date": None})
