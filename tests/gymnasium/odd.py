"""Environments that are unusual, or wrong, on purpose; `tests/rl_gymnasium.rs` says what should come of each"""

import os
import signal

import gymnasium
import numpy as np
from gymnasium import spaces

print("a banner on stdout")
os.write(1, b"a banner past Python\n")


class Odd(gymnasium.Env):
    """Shows how many steps it has made; at the third it does what `mode` says"""

    def __init__(self, mode="nothing"):
        self.mode = mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        print("a step")
        self.steps += 1
        seen, reward, mode = np.array([self.steps, action]), 1.0, self.mode
        if self.steps == 3:
            if mode == "raise":
                raise ValueError("three is too many")
            elif mode == "exit":
                print("good bye")
                os._exit(7)
            elif mode == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif mode == "hang":
                with open("hangs", "w") as file:
                    file.write(str(os.getpid()))
                while True:
                    pass
            elif mode == "nan":
                seen = np.array([0.0, np.nan])
            elif mode == "shape":
                seen = np.zeros(1)
            elif mode == "reward":
                reward = None
            elif mode == "four":
                return seen, reward, False, {}
        return seen, reward, self.steps == 4, False, {}


class Named(gymnasium.Env):
    """With observations of several kinds, or actions of one that no agent takes"""

    def __init__(self, kind):
        parts = {"flag": spaces.Discrete(3), "place": spaces.Box(-1, 1, (2,), np.float32)}
        self.observation_space = {
            "dict": spaces.Dict(parts),
            "state": spaces.Discrete(4, start=10),
            "image": spaces.Box(0, 255, (6, 6, 3), np.uint8),
            "matrix": spaces.Box(0, 1, (2, 3), np.float32),
            "sequence": spaces.Sequence(spaces.Discrete(2)),
            "actions": spaces.Discrete(2),
        }[kind]
        self.action_space = spaces.MultiDiscrete([3, 2]) if kind == "actions" else spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


class Forgetful(gymnasium.Env):
    """Counts its episodes, which neither a seed nor its actions tell"""

    observation_space = spaces.Box(0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)
    episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        self.steps = 0
        return np.array([self.episodes], np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.array([self.episodes], np.float32), 1.0, self.steps == 10, False, {}


class Scaled(gymnasium.RewardWrapper):
    """Multiplies rewards"""

    def __init__(self, env, factor=2.0):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward


gymnasium.register("Odd-v0", entry_point=Odd)
gymnasium.register("Named-v0", entry_point=Named, max_episode_steps=3)
gymnasium.register("Forgetful-v0", entry_point=Forgetful)
