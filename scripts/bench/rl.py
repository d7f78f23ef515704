"""rl.py --peer PYTHON --work WORK [--collimate BIN] [--tasks ppo,dqn,sac,td3] [--threads 1,2] [--peer_threads 1] [--rounds 3] [--seed 0]

Environment steps a second of this program and of Stable-Baselines3 in turn, from the same configs (configs/rl, RL-Zoo's
hyperparameters), on PPO and DQN in CartPole, SAC and TD3 in Pendulum. PYTHON has stable_baselines3. Ours is the time of the whole
process, theirs that of `learn` without its imports. TD3 starts learning after 100 steps here, not 10 000, on both sides, or half of
what is measured would be random steps. Prints wall-clock steps/s, processor seconds and ratios, medians over the rounds, and appends
a line of JSON for each round to WORK/rl.jsonl. Rounds of one seed do the same work again.
"""
import argparse
import json
import os
import shutil
import statistics as st
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIGS = os.path.join(HERE, "..", "..", "configs", "rl")
# Config, and what is set beside it: 10 to 40 seconds of the peer each
TASKS = dict(
    ppo=("ppo-CartPole-v1", dict(total_timesteps=50_000)), dqn=("dqn-CartPole-v1", dict(total_timesteps=15_000)),
    sac=("sac-Pendulum-v1", dict(total_timesteps=2500)), td3=("td3-Pendulum-v1", dict(total_timesteps=2500, learning_starts=100)))


def run(command):
    """Standard output, wall and processor seconds"""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{err[-2000:]}")
    return out, time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def ours(args, task, threads):
    config, settings = TASKS[task]
    out = os.path.join(args.work, f"ours-{task}")
    shutil.rmtree(out, ignore_errors=True)
    flags = [part for key, entry in settings.items() for part in (f"--{key}", str(entry))]
    _, wall, cpu = run([args.collimate, "rl", "train", "--config", os.path.join(CONFIGS, f"{config}.yaml"), "--seed", str(args.seed),
                        "--threads", str(threads), "--output_dir", out, "--quiet"] + flags)
    with open(os.path.join(out, "summary.json")) as f:
        steps = json.load(f)["timesteps"]
    return dict(threads=threads, env_steps=steps, wall_s=wall, cpu_s=cpu)


def theirs(args, task):
    config, settings = TASKS[task]
    out, _, _ = run([args.peer, os.path.join(HERE, "rl_peer.py"), "--config", os.path.join(CONFIGS, f"{config}.yaml"), "--seed", str(args.seed),
                     "--threads", str(args.peer_threads)] + [f"{key}={entry}" for key, entry in settings.items()])
    return json.loads(out.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True), parser.add_argument("--work", required=True)
    parser.add_argument("--collimate", default=os.path.join(HERE, "..", "..", "target", "release", "collimate"))
    parser.add_argument("--tasks", default=",".join(TASKS)), parser.add_argument("--threads", default="1,2")
    parser.add_argument("--peer_threads", type=int, default=1), parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    rounds = {}
    for i in range(args.rounds):
        for task in args.tasks.split(","):
            row = {f"ours x{threads}": ours(args, task, int(threads)) for threads in args.threads.split(",")}
            row[f"theirs x{args.peer_threads}"] = theirs(args, task)
            rounds.setdefault(task, []).append(row)
            with open(os.path.join(args.work, "rl.jsonl"), "a") as f:
                f.write(json.dumps(dict(task=task, seed=args.seed, when=time.strftime("%Y-%m-%dT%H:%M:%S"), load=os.getloadavg()[0], **row)) + "\n")
            show = lambda v: f"{v['env_steps'] / v['wall_s']:.0f} steps/s, {v['wall_s']:.1f} s, {v['cpu_s']:.1f} s of processor"
            print(f"round {i + 1} {task}: " + "; ".join(f"{name} {show(v)}" for name, v in row.items()), flush=True)
    print("\nours / theirs, median of the rounds (smallest to largest); by the clock, then by processor time")
    for task, rows in rounds.items():
        peer = f"theirs x{args.peer_threads}"
        for name in (name for name in rows[0] if name != peer):
            line = [f"{task:4s} {name:8s} / {peer:10s}"]
            for key in ("wall_s", "cpu_s"):
                pace = lambda v: v["env_steps"] / v[key]
                ratios = [pace(row[name]) / pace(row[peer]) for row in rows]
                ours_pace, theirs_pace = (st.median(pace(row[which]) for row in rows) for which in (name, peer))
                line.append(f"{ours_pace:8.0f} / {theirs_pace:6.0f} = {st.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            print("   ".join(line))


if __name__ == "__main__":
    main()
