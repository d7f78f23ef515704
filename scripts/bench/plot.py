"""plot.py GROWTH.json OUT.svg: time of a step over length and batch, from growth.py."""
import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

rows = json.load(open(sys.argv[1]))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for axis, x, fixed, value in [(axes[0], "length", "batch", 4), (axes[1], "batch", "length", 128)]:
    chosen = sorted((row for row in rows if row[fixed] == value), key=lambda row: row[x])
    sizes, seconds = [row[x] for row in chosen], [row["seconds"] for row in chosen]
    axis.plot(sizes, seconds, marker="o", label="measured")
    # What the largest cell's rate would need
    rate = chosen[-1]["gflops"]
    axis.plot(sizes, [row["seconds"] * row["gflops"] / rate for row in chosen], linestyle="--", color="gray", label="arithmetic at one rate")
    axis.set(xscale="log", yscale="log", xticks=sizes, xticklabels=sizes, xlabel=f"{x} ({fixed} {value})", ylabel="seconds a step")
    axis.minorticks_off()
    axis.legend(fontsize="small")
figure.savefig(sys.argv[2], metadata={"Date": None})
