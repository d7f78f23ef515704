"""compare.py --peer PYTHON --scripts DIR --work WORK [--collimate BIN] [--jobs sft,dpo,reward,grpo,rloo,generate] [--bf16] [--rounds 3] [--steps 8]

Runs this program and the peer on the same work in turn and prints a table of ratios (ours / theirs; memory too).

PYTHON has TRL, transformers and torch; DIR holds `trl_bench.py` and `generate_bench.py`; WORK holds `model`,
`reward_model`, `sft.jsonl`, `pref.jsonl`, `prompts.jsonl` (GPT-2 124M with random weights, real pairs). Medians over the steps after two of warm-up,
then over the rounds. `--jemalloc LIB` adds the peer with that allocator preloaded. Writes every figure to WORK/compare.json.
"""
import argparse
import json
import os
import resource
import shutil
import statistics as st
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WARM = 2
# Batches of a process that generates, the first one in new memory; the peer's figure is the median of five after a warm one
BATCHES = 6


BATCH = dict(sft=8, dpo=4, reward=4, grpo=8, rloo=8)
DATA = dict(sft="sft", dpo="pref", reward="pref", grpo="prompts", rloo="prompts")


def ours_training(args, kind, bf16):
    out = os.path.join(args.work, "ours")
    shutil.rmtree(out, ignore_errors=True)
    model = "reward_model" if kind == "reward" else "model"
    command = [args.collimate, kind, "--model_name_or_path", f"{args.work}/{model}", "--dataset_name", f"{args.work}/{DATA[kind]}.jsonl", "--output_dir", out,
               "--per_device_train_batch_size", str(BATCH[kind]), "--max_steps", str(args.steps),
               "--logging_steps", "1", "--save_strategy", "no", "--report_to", "none", "--lr_scheduler_type", "constant",
               "--learning_rate", "1e-5", "--train_sampling_strategy", "sequential", "--disable_dropout", "true",
               "--bf16", "true" if bf16 else "false", "--threads", "2", "--quiet"]
    if kind in ("grpo", "rloo"):
        command += ["--num_generations", "8", "--max_completion_length", "64", "--shuffle_dataset", "false", "--reward_funcs", "length"]
    else:
        command += ["--max_length", "512"]
    peak = run(command)[1]
    rows = [json.loads(line) for line in open(os.path.join(out, "metrics.jsonl"))]
    steps = [row["time/step"] for row in rows[WARM:]]
    tokens = [b["num_tokens"] - a["num_tokens"] for a, b in zip(rows[WARM - 1:], rows[WARM:])]
    return dict(step_s=st.median(steps), samples_per_s=BATCH[kind] / st.median(steps), tokens_per_s=sum(tokens) / sum(steps),
                peak_rss_mb=peak, first_step_s=rows[0]["time/since_start"], steps_s=steps, losses=[row["loss"] for row in rows])


def ours_generation(args, batch, bf16):
    prompts = os.path.join(args.work, f"prompts{batch}.jsonl")
    text = " the" * 48
    with open(prompts, "w") as f:
        f.writelines(json.dumps(dict(prompt=text)) + "\n" for _ in range(batch * BATCHES))
    metrics = os.path.join(args.work, "generate.json")
    peak = run([args.collimate, "generate", "--model", f"{args.work}/model", "--prompts", prompts, "--max_new_tokens", "64", "--ignore_eos",
                "--batch_size", str(batch), "--bf16", "true" if bf16 else "false", "--threads", "2", "--json", "--metrics", metrics])[1]
    times = json.load(open(metrics))
    return dict(tokens_per_s=times["tokens_per_second"], prefill_s=times["time/prefill"], decode_s=times["time/decode"], peak_rss_mb=peak)


def theirs(args, script, variant, kind=None, preload=None):
    env = dict(os.environ, BENCH_T0=str(time.time()))
    if preload:
        env.update(LD_PRELOAD=preload, MALLOC_CONF="thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1")
    command = [args.peer, os.path.join(args.scripts, script), args.work] + ([kind] if kind else []) + [variant] + ([str(args.steps)] if kind else [])
    return json.loads(run(command, env)[0].strip().splitlines()[-1])


def run(command, env=None):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def training_round(args, kind):
    row = {"ours f32": isolated(ours_training, args, kind, False)}
    if args.bf16:
        row["ours bf16"] = isolated(ours_training, args, kind, True)
    variants = [(variant, None) for variant in args.variants.split(",")] + ([("fp32", args.jemalloc)] if args.jemalloc else [])
    for variant, preload in variants:
        figures = theirs(args, "trl_bench.py", variant, kind, preload)
        row[f"theirs {variant}" + (" jemalloc" if preload else "")] = dict(
            step_s=figures["median_step_s"], samples_per_s=figures["samples_per_s"], tokens_per_s=figures["useful_tokens_per_s"],
            peak_rss_mb=figures["peak_rss_mb"], first_step_s=figures["first_step_done_s"], losses=figures["losses"])
    return row


def generation_round(args):
    row = {}
    for name, variant in [("f32", "fp32")] + ([("bf16", "bf16")] if args.bf16 else []):
        both = theirs(args, "generate_bench.py", variant)
        for batch in (1, 16):
            row[f"ours {name} x{batch}"] = isolated(ours_generation, args, batch, name == "bf16")
            row[f"theirs {variant} x{batch}"] = dict(tokens_per_s=both[f"batch{batch}_tokens_per_s"], peak_rss_mb=both["peak_rss_mb"])
    return row


def isolated(function, *arguments):
    """In a child of its own, so that the peak memory of its children is its own"""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, json.dumps(function(*arguments)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True), parser.add_argument("--scripts", required=True), parser.add_argument("--work", required=True)
    parser.add_argument("--collimate", default=os.path.join(HERE, "..", "..", "target", "release", "collimate"))
    parser.add_argument("--jobs", default="sft,dpo,generate"), parser.add_argument("--variants", default="fp32,default")
    parser.add_argument("--rounds", type=int, default=3), parser.add_argument("--steps", type=int, default=8), parser.add_argument("--jemalloc")
    parser.add_argument("--bf16", action="store_true", help="this program in bfloat16 too")
    args = parser.parse_args()
    rounds = {}
    for i in range(args.rounds):
        for job in args.jobs.split(","):
            row = generation_round(args) if job == "generate" else training_round(args, job)
            rounds.setdefault(job, []).append(row)
            show = lambda v: f"{v['samples_per_s']:.3f} rows/s" if v.get("samples_per_s") else f"{v['tokens_per_s']:.1f} tok/s"
            with open(os.path.join(args.work, "compare.json"), "w") as f:
                json.dump(rounds, f, indent=1)
            print(f"round {i + 1} {job}: " + "; ".join(f"{k} {show(v)} {v['peak_rss_mb']:.0f} MB" for k, v in row.items()), flush=True)
    for job, rows in rounds.items():
        for mine in (name for name in rows[0] if name.startswith("ours")):
            for name in (name for name in rows[0] if name.startswith("theirs")):
                # Generation is compared at one batch size and one precision
                if (" x" in mine) and (mine.split()[-1] != name.split()[-1] or (mine.split()[1] == "bf16") != (name.split()[1] == "bf16")):
                    continue
                for key in ("tokens_per_s", "samples_per_s", "peak_rss_mb", "first_step_s"):
                    if rows[0][name].get(key) and rows[0][mine].get(key):
                        ratios = [row[mine][key] / row[name][key] for row in rows]
                        print(f"{job:9s} {mine:14s} / {name:22s} {key:14s} {st.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
