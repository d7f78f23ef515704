"""builds.py --work WORK [--jobs sft,dpo,reward,generate] [--precisions f32,bf16] [--rounds 5] [--steps 6] BINARY BINARY...

Runs builds of this program on the same work in turn, so that what a change is worth is seen on a machine whose hours differ. WORK is as
for compare.py. Prints each build's seconds by medians over the rounds and at best, with the ratio to the first build: for training the
sum of the steps after two of warm-up and the time to the end of the first step, for generation prefill and decoding.
"""
import argparse
import statistics as st

from compare import isolated, ours_generation, ours_training


def figures(args, binary, job, precision):
    args.collimate = binary
    bf16 = precision == "bf16"
    if job == "generate":
        return {f"x{batch} {part}": [row[part]] for batch in (1, 16) for row in [isolated(ours_generation, args, batch, bf16)] for part in ("prefill_s", "decode_s")}
    row = isolated(ours_training, args, job, bf16)
    return {"steps": row["steps_s"], "first step": [row["first_step_s"]]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binaries", nargs="+"), parser.add_argument("--work", required=True)
    parser.add_argument("--jobs", default="sft,generate"), parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--rounds", type=int, default=5), parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    for job in args.jobs.split(","):
        for precision in args.precisions.split(","):
            rounds = [[figures(args, binary, job, precision) for binary in args.binaries] for _ in range(args.rounds)]
            for part in rounds[0][0]:
                for name, pick in (("median", st.median), ("best", min)):
                    # Step by step over the rounds: steps of one run differ in their rows
                    seconds = [sum(pick(times) for times in zip(*(row[i][part] for row in rounds))) for i in range(len(args.binaries))]
                    print(f"{job} {precision} {part:12s} {name:6s} " + "  ".join(f"{s:8.3f} s ({s / seconds[0]:.3f})" for s in seconds), flush=True)


if __name__ == "__main__":
    main()
