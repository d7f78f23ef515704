"""plot.py OUT FIGURE.svg: gold and proxy reward and the KL of the three arms of reviews.sh, over the steps."""
import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ARMS = [("ppo-kl", "reward", "steered to 6 nats"), ("ppo-free", "reward", "no KL"), ("ppo-weak", "weak", "no KL, judge of 100 pairs")]
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for folder, judge, label in ARMS:
    rows = [json.loads(line) for line in open(f"{sys.argv[1]}/{folder}/metrics.jsonl")]
    steps = [row["step"] for row in rows]
    for axis, name in zip(axes, [f"rewards/{judge}/mean", "rewards/lexicon/mean", "objective/kl"]):
        axis.plot(steps, [row[name] for row in rows], label=label)
for axis, title in zip(axes, ["proxy reward", "gold reward", "KL, nats a completion"]):
    axis.set(title=title, xlabel="step")
axes[0].legend(fontsize="small")
figure.savefig(sys.argv[2], metadata={"Date": None})
