"""rl_returns.py --work WORK [--collimate BIN] [--peer PYTHON] [--only ours|peer] [--tasks ...] [--seeds 0-9] [--jobs 1] [--table]

Returns of ten seeds of this program and of Stable-Baselines3, from the same configs (configs/rl, RL-Zoo's hyperparameters): the mean
of 100 episodes without chance for each seed, their interquartile mean and its 95 % bootstrap interval. DQN in CartPole and PPO in
MountainCar do not settle (docs/classical.md): the best policy of evaluations during training (10 episodes each) stands beside the last.

Ours trains and plays through the command line (`rl train`, `rl eval`), on one thread. Each cell is a file WORK/TASK/PROGRAM-SEED.json;
one that is there is kept, so that a run may be stopped and go on, and `--table` only collects. Writes WORK/returns.json and
WORK/returns.md. PYTHON has stable_baselines3, and gymnasium's box2d for LunarLander.
"""
import argparse
import concurrent.futures as cf
import json
import os
import random
import shutil
import statistics as st
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIGS = os.path.join(HERE, "..", "..", "configs", "rl")
# Config: what must be reached, and how often a policy is tried during training where the best one is kept
TASKS = {
    "ppo-CartPole-v1": (475, None), "dqn-CartPole-v1": (475, 10_000), "ppo-Acrobot-v1": (-100, None), "ppo-MountainCar-v0": (-115, 50_000),
    "sac-Pendulum-v1": (-200, None), "td3-Pendulum-v1": (-200, None), "ppo-LunarLander-v3": (200, None)}
EPISODES = 100


def run(command):
    """Standard output and processor seconds"""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{err[-2000:]}")
    return out, usage.ru_utime + usage.ru_stime


def ours(args, task, seed):
    folder = os.path.join(args.work, task, f"run-{seed}")
    shutil.rmtree(folder, ignore_errors=True)
    eval_freq = TASKS[task][1]
    command = [args.collimate, "rl", "train", "--config", os.path.join(CONFIGS, f"{task}.yaml"), "--seed", str(seed), "--threads", "1",
               "--output_dir", folder, "--quiet"]
    if eval_freq:
        command += ["--eval_freq", str(eval_freq), "--n_eval_episodes", "10"]
    _, cpu = run(command)

    def played(policy):
        out, _ = run([args.collimate, "rl", "eval", "--policy", policy, "--episodes", str(EPISODES), "--deterministic", "true", "--threads", "1",
                      "--seed", str(seed + 1_000_000)])
        return json.loads(out.strip().splitlines()[-1])["mean"]

    cell = dict(program=run([args.collimate, "--version"])[0].strip(), cpu_s=cpu, last=played(folder))
    if eval_freq:
        cell["best"] = played(os.path.join(folder, "best"))
    return cell


def theirs(args, task, seed):
    command = [args.peer, os.path.join(HERE, "rl_peer.py"), "--config", os.path.join(CONFIGS, f"{task}.yaml"), "--seed", str(seed),
               "--episodes", str(EPISODES)]
    if TASKS[task][1]:
        command += ["--eval_freq", str(TASKS[task][1])]
    cell = json.loads(run(command)[0].strip().splitlines()[-1])
    return dict(cell, **{which: st.mean(cell[which]) for which in ("last", "best") if which in cell})


def place(args, program, task, seed):
    return os.path.join(args.work, task, f"{program}-{seed}.json")


def cell(args, program, task, seed):
    """Runs one cell and puts it into its place at once"""
    started, path = time.time(), place(args, program, task, seed)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    found = dict((ours if program == "ours" else theirs)(args, task, seed), seed=seed, wall_s=time.time() - started)
    with open(path + ".part", "w") as f:
        json.dump(found, f)
    os.replace(path + ".part", path)
    return f"{task} {program} seed {seed}: {found['last']:.1f}" + (f", best {found['best']:.1f}" if "best" in found else "") + f", {found['cpu_s']:.0f} s"


def iqm(scores):
    scores, cut = sorted(scores), len(scores) // 4
    return st.mean(scores[cut:len(scores) - cut])


def interval(scores, resamples=10_000):
    draw = random.Random(0)
    means = sorted(iqm(draw.choices(scores, k=len(scores))) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]


def table(args, seeds):
    rows, everything = [], {}
    for task in args.tasks.split(","):
        for which in ("last", "best") if TASKS[task][1] else ("last",):
            line = [task + (f" ({which} policy)" if TASKS[task][1] else ""), str(TASKS[task][0])]
            for program in ("ours", "peer"):
                cells = [json.load(open(path)) for path in (place(args, program, task, seed) for seed in seeds) if os.path.exists(path)]
                cells = [found for found in cells if which in found]
                scores = [found[which] for found in cells]
                if not scores:
                    line += ["", ""]
                    continue
                low, high = interval(scores)
                everything.setdefault(task, {})[f"{program} {which}"] = dict(
                    scores=scores, iqm=iqm(scores), low=low, high=high, cpu_s=st.mean(found["cpu_s"] for found in cells), program=cells[0]["program"])
                line += [f"{iqm(scores):.1f} [{low:.1f}, {high:.1f}]", ", ".join(f"{score:.0f}" for score in scores)]
            rows.append(line)
    heads = ["task", "gate", "ours: IQM [95 %]", "all seeds", "Stable-Baselines3: IQM [95 %]", "all seeds"]
    text = "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads)] + rows) + "\n"
    with open(os.path.join(args.work, "returns.json"), "w") as f:
        json.dump(everything, f, indent=1)
    with open(os.path.join(args.work, "returns.md"), "w") as f:
        f.write(text)
    print(text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True), parser.add_argument("--peer"), parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--collimate", default=os.path.join(HERE, "..", "..", "target", "release", "collimate"))
    parser.add_argument("--tasks", default=",".join(TASKS)), parser.add_argument("--seeds", default="0-9"), parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="run nothing, collect what is there")
    args = parser.parse_args()
    first, last = (int(end) for end in (args.seeds.split("-") * 2)[:2])
    seeds, programs = range(first, last + 1), [args.only] if args.only else ["ours", "peer"]
    if "peer" in programs and not args.peer and not args.table:
        parser.error("--peer PYTHON is missing; or say --only ours")
    # Seed by seed, so that what is stopped early has a few of everything
    todo = [(program, task, seed) for seed in seeds for task in args.tasks.split(",") for program in programs]
    todo = [] if args.table else [at for at in todo if not os.path.exists(place(args, *at))]
    failed = 0
    with cf.ThreadPoolExecutor(args.jobs) as pool:
        for done in cf.as_completed([pool.submit(cell, args, *at) for at in todo]):
            if done.exception():
                failed += 1
                print(done.exception(), file=sys.stderr, flush=True)
            else:
                print(done.result(), flush=True)
    os.makedirs(args.work, exist_ok=True)
    table(args, seeds)
    sys.exit(f"{failed} of {len(todo)} cells failed" if failed else 0)


if __name__ == "__main__":
    main()
