"""tests/goldens/rl/*.json: numpy's random numbers and Gymnasium's trajectories.

    VENV/bin/python scripts/goldens/rl_env.py

VENV holds gymnasium==1.4.0 with box2d (Box2D 2.3.10, pygame) and numpy.
"""
import json
import os

import gymnasium
import numpy as np
from gymnasium.envs.box2d.lunar_lander import heuristic

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "goldens", "rl")
VERSIONS = {"gymnasium": gymnasium.__version__, "numpy": np.__version__}
EVERY = 10

swing = lambda obs: 2 if obs[1] >= 0 else 0
balance = lambda obs: int(obs[2] + 0.3 * obs[3] + 0.05 * obs[0] + 0.1 * obs[1] > 0)
# id, arguments, seed, steps, what chooses the actions
CASES = [
    ("CliffWalking-v1", {}, 1, 300, "random"),
    ("CliffWalkingSlippery-v1", {}, 2, 300, "random"),
    ("FrozenLake-v1", {}, 3, 300, "random"),
    ("FrozenLake-v1", {"is_slippery": False}, 4, 200, "random"),
    ("FrozenLake-v1", {"success_rate": 0.8, "map_name": "8x8"}, 5, 300, "random"),
    ("FrozenLake8x8-v1", {}, 6, 500, "random"),
    ("Taxi-v4", {}, 7, 500, "random"),
    ("CartPole-v1", {}, 8, 300, "random"),
    ("CartPole-v1", {}, 9, 1100, balance),
    ("CartPole-v1", {"sutton_barto_reward": True}, 10, 100, "random"),
    ("MountainCar-v0", {}, 11, 450, "random"),
    ("MountainCar-v0", {}, 12, 300, swing),
    ("MountainCarContinuous-v0", {}, 13, 1100, "random"),
    ("MountainCarContinuous-v0", {"goal_velocity": 0.01}, 14, 300, lambda obs: 0.9 if obs[1] >= 0 else -0.9),
    ("Acrobot-v1", {}, 15, 600, "random"),
    ("Acrobot-v1", {}, 16, 300, lambda obs: 2 if obs[4] < 0 else 0),
    ("Pendulum-v1", {}, 17, 450, "random"),
    ("Pendulum-v1", {"g": 9.81}, 18, 220, "random"),
]
FLIGHTS = [
    ("LunarLander-v3", {}, seed, name) for seed, name in [(0, "none"), (1, "random"), (2, "heuristic"), (3, "random"), (42, "heuristic")]
] + [
    ("LunarLanderContinuous-v3", {}, 4, "random"),
    ("LunarLanderContinuous-v3", {}, 5, "heuristic"),
    ("LunarLander-v3", {"enable_wind": True, "wind_power": 10.0}, 6, "random"),
    ("LunarLander-v3", {"gravity": -5.0}, 7, "heuristic"),
]


def chooser(env, name, seed):
    """From an observation to an action as the file holds it: a number, or a list of thousandths"""
    rng = np.random.default_rng([seed, 1])
    space = env.action_space
    if callable(name):
        return lambda obs: name(obs) if hasattr(space, "n") else [round(1000 * name(obs))]
    if hasattr(space, "n"):
        return {
            "none": lambda obs: 0,
            "random": lambda obs: int(rng.integers(space.n)),
            "heuristic": lambda obs: int(heuristic(env, obs)),
        }[name]
    thousandths = lambda numbers: [round(1000 * float(number)) for number in numbers]
    return {
        # Beyond the bounds now and then
        "random": lambda obs: thousandths(rng.uniform(-1.3, 1.3, space.shape) * space.high),
        "heuristic": lambda obs: thousandths(heuristic(env, obs)),
    }[name]


def number(x):
    """The shortest text of an f32"""
    return float(str(np.float32(x)))


def row(obs):
    return [number(x) for x in np.atleast_1d(obs)]


def trajectory(id, kwargs, seed, steps, name, stops=lambda obs, ended: False):
    env = gymnasium.make(id, **kwargs)
    choose = chooser(env, name, seed)
    obs, _ = env.reset(seed=seed)
    actions, sampled, resets, ends, rewards, weighted = [], [[0] + row(obs)], [], [], [], 0.0
    for t in range(1, steps + 1):
        action = choose(obs)
        played = action if isinstance(action, int) else np.array([x / 1000 for x in action], np.float32)
        obs, reward, terminated, truncated, _ = env.step(played)
        if stops(obs, terminated or truncated):
            break
        actions.append(action)
        rewards.append(float(reward))
        weighted += (1 + t % 7) * float(np.sum(np.atleast_1d(obs), dtype=np.float64))
        if t % EVERY == 0:
            sampled.append([t] + row(obs))
        if terminated or truncated:
            ends.append([t, bool(terminated), bool(truncated)])
            obs, _ = env.reset()
            resets.append([t] + row(obs))
    if actions and isinstance(actions[0], int):
        actions = "".join(map(str, actions))
    return {
        "id": id, "kwargs": kwargs, "seed": seed, "actions": actions, "observations": sampled, "resets": resets, "ends": ends,
        "rewards": [float(f"{x:.12g}") for x in np.add.reduceat(rewards, range(0, len(rewards), EVERY))],
        "weighted_sum": weighted,
    }


def score(seed):
    env = gymnasium.make("LunarLander-v3")
    obs, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(heuristic(env, obs))
        total += float(reward)
        ended = terminated or truncated
    return round(total, 2)


def random_numbers(seed):
    rng = np.random.default_rng(seed)
    bounds = [(0, 1), (0, 2), (-9999, 9999), (0, 2**31), (0, 2**32 - 1), (0, 2**32), (-5, 2**40), (-2**62, 2**62), (1, 24), (0, 3 * 2**30)]
    integers = [[low, high, [int(rng.integers(low, high)) for _ in range(6)]] for low, high in bounds]
    return {
        "seed": seed,
        "state": [str(x) for x in np.random.SeedSequence(seed).generate_state(4, np.uint64)],
        "integers": integers,
        "random": [rng.random() for _ in range(6)],
        "uniform": [[low, high, rng.uniform(low, high)] for low, high in [(-0.05, 0.05), (-np.pi, np.pi), (0.0, 1e300)]],
    }


def write(name, content):
    lines = json.dumps(content, separators=(",", ":")).replace('{"id"', '\n{"id"').replace('{"seed"', '\n{"seed"')
    with open(os.path.join(OUT, name), "w") as file:
        file.write(lines + "\n")


os.makedirs(OUT, exist_ok=True)
write("random.json", {"versions": VERSIONS, "cases": [random_numbers(s) for s in [0, 42, 123, 2**40 + 7, 2**64 - 1]]})
write("trajectories.json", {"versions": VERSIONS, "every": EVERY, "cases": [trajectory(*case) for case in CASES]})
touches = lambda obs, ended: ended or obs[6] > 0 or obs[7] > 0
flights = [trajectory(id, kwargs, seed, 400, name, touches) for id, kwargs, seed, name in FLIGHTS]
write("lunar_lander.json", {
    "versions": VERSIONS | {"box2d": "2.3.10"}, "every": EVERY, "cases": flights, "heuristic_scores": [score(s) for s in range(100)],
})
