"""Advantages and returns of a rollout with ends and time limits, from Stable-Baselines3's own buffer.

    python scripts/goldens/rl_rollout.py > tests/goldens/rl/rollout.json

Stable-Baselines3 adds the value behind a time limit to the reward (`on_policy_algorithm.py`) and treats it as an end.
"""

import json
import sys

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

STEPS, ENVS, GAMMA, LAMBDA = 24, 3, 0.97, 0.9


def main() -> None:
    rng = np.random.default_rng(11)
    column = lambda: rng.normal(size=(STEPS, ENVS)).astype(np.float32).round(3)
    rewards, values, final_values = column(), column(), column()
    kind = rng.choice(["goes on", "terminated", "truncated"], size=(STEPS, ENVS), p=[0.8, 0.1, 0.1])
    terminated, truncated = kind == "terminated", kind == "truncated"
    last_values = rng.normal(size=ENVS).astype(np.float32).round(3)
    # What a step led to: the next state of the same episode, the last state of an episode, or that of the rollout
    next_values = np.vstack([values[1:], last_values[None]])
    next_values = np.where(truncated, final_values, next_values)

    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(STEPS, box, box, gae_lambda=LAMBDA, gamma=GAMMA, n_envs=ENVS)
    starts = np.ones(ENVS)
    for t in range(STEPS):
        reward = rewards[t] + GAMMA * np.where(truncated[t], final_values[t], 0)
        zeros = np.zeros((ENVS, 1))
        buffer.add(zeros, zeros, reward, starts, torch.as_tensor(values[t]), torch.zeros(ENVS))
        starts = terminated[t] | truncated[t]
    buffer.compute_returns_and_advantage(torch.as_tensor(last_values), starts)

    flat = lambda array: array.flatten().tolist()
    json.dump(
        {
            "num_envs": ENVS,
            "gamma": GAMMA,
            "lambda": LAMBDA,
            "rewards": flat(rewards),
            "values": flat(values),
            "next_values": flat(next_values),
            "terminated": flat(terminated),
            "truncated": flat(truncated),
            "advantages": flat(buffer.advantages),
            "returns": flat(buffer.returns),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
