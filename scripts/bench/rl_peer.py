"""rl_peer.py --config FILE.yaml --seed N [--threads 1] [--episodes 0] [--eval_freq N] [KEY=VALUE...]

Stable-Baselines3 with the settings of one of `configs/rl`, whose names are its own; what differs between the two programs'
names is translated here. Prints one JSON object: steps, wall and processor seconds of `learn` alone (without imports), and the returns of `--episodes` episodes without chance, of the last policy and, with `--eval_freq`, of the best.
"""
import argparse
import json
import os
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--config", required=True), parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--threads", type=int, default=1), parser.add_argument("--episodes", type=int, default=0)
parser.add_argument("--eval_freq", type=int), parser.add_argument("settings", nargs="*")
args = parser.parse_args()

import numpy as np
import torch

torch.set_num_threads(args.threads)
import stable_baselines3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize

OURS_ALONE = {"output_dir", "log_interval"}


def value(text):
    """A value of the flat YAML of these configs, or a schedule that falls to 0"""
    text = text.split(" #")[0].strip()
    if text.startswith("lin_"):
        first = float(text[4:])
        return lambda left: left * first
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


with open(args.config) as f:
    lines = [line.split(":", 1) for line in f if ":" in line and not line.startswith("#")]
settings = {key.strip(): value(text) for key, text in lines + [setting.split("=", 1) for setting in args.settings]}
settings = {key: entry for key, entry in settings.items() if key not in OURS_ALONE}
agent, env_id, steps = settings.pop("agent"), settings.pop("env"), settings.pop("total_timesteps")
n_envs, normalize = settings.pop("n_envs", 1), settings.pop("normalize", False)
if "net_arch" in settings:
    settings["policy_kwargs"] = dict(net_arch=settings.pop("net_arch"))


def make(n, seed, **normalization):
    env = make_vec_env(env_id, n, seed=seed)
    return VecNormalize(env, gamma=settings.get("gamma", 0.99), **normalization) if normalize else env


env = make(n_envs, args.seed)
noise = settings.pop("noise_std", None)
if noise:
    # Theirs is added in the units of the unscaled action's bounds of ±1, as ours is
    size = env.action_space.shape
    settings["action_noise"] = NormalActionNoise(np.zeros(size), noise * np.ones(size))
model = getattr(stable_baselines3, agent.upper())("MlpPolicy", env, seed=args.seed, device="cpu", **settings)
out = dict(program=f"Stable-Baselines3 {stable_baselines3.__version__}, torch {torch.__version__}", threads=args.threads)


def returns(model, statistics):
    test = make(10, args.seed + 1_000_000, training=False, norm_reward=False)
    if normalize:
        test.obs_rms = statistics
    return [float(score) for score in evaluate_policy(model, test, args.episodes, deterministic=True, return_episode_rewards=True)[0]]


with tempfile.TemporaryDirectory() as folder:
    callback = None
    if args.eval_freq:
        test = make(1, args.seed + 2_000_000, training=False, norm_reward=False)
        callback = EvalCallback(test, n_eval_episodes=10, eval_freq=max(args.eval_freq // n_envs, 1), best_model_save_path=folder, verbose=0)
    started = time.perf_counter(), time.process_time()
    model.learn(steps, callback=callback)
    out["wall_s"], out["cpu_s"] = time.perf_counter() - started[0], time.process_time() - started[1]
    out["env_steps"] = model.num_timesteps
    if args.episodes:
        out["last"] = returns(model, env.obs_rms if normalize else None)
    if args.episodes and args.eval_freq:
        # Statistics of observations go on while the best policy stays: tasks that are normalised are not asked for their best
        assert not normalize, "the best policy of a normalised task is not kept with its statistics"
        out["best"] = returns(type(model).load(os.path.join(folder, "best_model"), device="cpu"), None)
print(json.dumps(out))
