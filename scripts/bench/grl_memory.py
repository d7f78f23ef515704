"""What the particle memory costs beside a training step of a GPT-2: seconds a step that memory, fits and baselines take.

    python3 scripts/bench/grl_memory.py --collimate target/release/collimate --model MODEL --work FOLDER

First the memory is filled to its default capacity with completions of one token, then the run goes on from that checkpoint with
the default batch and length, and the steps after the first of those are reported. Python's standard library only.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

PARTICLES = 512
THINGS = "house river garden winter engine letter mountain picture market window soldier island captain kitchen".split()
PLACES = "north south city valley harbour desert forest village castle station market bridge".split()


def prompts(path):
    rows = [f"About the {thing} in the {place}, part {i}:" for thing in THINGS for place in PLACES for i in range(1, 5)]
    path.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows), encoding="utf-8")


def run(arguments, work, *flags):
    command = [
        arguments.collimate, "grl", "--model_name_or_path", arguments.model, "--dataset_name", str(work / "prompts.jsonl"),
        "--output_dir", str(work / "run"), "--reward_funcs", "length", "--logging_steps", "1", "--report_to", "none",
        *flags,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collimate", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    prompts(arguments.work / "prompts.jsonl")
    # 64 prompts a step, none twice, and not so many steps that the first ones are forgotten (`replay_max_age`)
    fill = PARTICLES // 64
    run(arguments, arguments.work, "--overwrite_output_dir", "true", "--per_device_train_batch_size", "128",
        "--max_completion_length", "1", "--max_steps", str(fill), "--save_steps", str(fill))
    run(arguments, arguments.work, "--resume_from_checkpoint", "true", "--max_steps", str(fill + 1 + arguments.steps),
        "--save_strategy", "no")
    rows = [json.loads(line) for line in (arguments.work / "run" / "metrics.jsonl").open(encoding="utf-8")]
    rows = [row for row in rows if row.get("step", 0) > fill + 1 and "time/memory" in row]
    memory = statistics.median(row["time/memory"] for row in rows)
    step = statistics.median(row["time/step"] for row in rows)
    print(f"particles {rows[-1]['memory/size']:.0f}, steps {len(rows)}, medians: memory {memory:.4f} s of a step of {step:.2f} s, "
          f"{100 * memory / step:.2f} %")


if __name__ == "__main__":
    main()
