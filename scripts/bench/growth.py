"""growth.py --work WORK [--collimate BIN] [--out FILE.json] [--steps 4]

How the time of an SFT step grows with the length of its rows (batch of 4) and with the batch (rows of 128 tokens), beside
the arithmetic that the step needs: 6 FLOPs a body weight and token, 6 a head weight and predicted token, and attention.
WORK/model is a GPT-2 124M. Median of the steps after the first. `plot.py` of this folder draws the figure.
"""
import argparse
import json
import os
import shutil
import statistics as st
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
LAYERS, WIDTH, VOCABULARY = 12, 768, 50257


def arithmetic(batch, length):
    """FLOPs of forward and backward over `batch` rows of `length` tokens"""
    body = 6 * 12 * WIDTH * WIDTH * LAYERS * batch * length
    head = 6 * WIDTH * VOCABULARY * batch * (length - 1)
    # Causal scores and their products with the values, twice 2 FLOPs each forward; backward computes the scores anew
    attention = 2 * (2 + 5) * WIDTH * LAYERS * batch * length * (length + 1) / 2
    return body + head + attention


def measure(args, batch, length):
    folder = tempfile.mkdtemp(dir=args.work)
    try:
        data, out = os.path.join(folder, "rows.jsonl"), os.path.join(folder, "out")
        with open(data, "w") as f:
            f.writelines(json.dumps(dict(text=" the" * (length - 1))) + "\n" for _ in range(batch * args.steps))
        subprocess.run([args.collimate, "sft", "--model_name_or_path", f"{args.work}/model", "--dataset_name", data, "--output_dir", out,
                        "--per_device_train_batch_size", str(batch), "--max_steps", str(args.steps), "--logging_steps", "1", "--save_strategy", "no",
                        "--report_to", "none", "--disable_dropout", "true", "--threads", "2", "--quiet"], check=True)
        rows = [json.loads(line) for line in open(os.path.join(out, "metrics.jsonl"))]
        seconds = st.median(row["time/step"] for row in rows[1:])
        assert rows[-1]["num_tokens"] == batch * length * args.steps, rows[-1]["num_tokens"]
        return dict(batch=batch, length=length, seconds=seconds, gflops=arithmetic(batch, length) / seconds / 1e9)
    finally:
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--collimate", default=os.path.join(HERE, "..", "..", "target", "release", "collimate"))
    parser.add_argument("--out"), parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    cells = [(4, length) for length in (64, 128, 256, 512, 1024)] + [(batch, 128) for batch in (1, 2, 8, 16)]
    rows = []
    for batch, length in cells:
        rows.append(measure(args, batch, length))
        print("batch {batch:2d}, length {length:4d}: {seconds:7.3f} s a step, {gflops:6.1f} GFLOP/s".format(**rows[-1]), flush=True)
    if args.out:
        with open(args.out, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
