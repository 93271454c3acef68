"""Environments of Gymnasium whose every number is known, and some that break."""

import os
import signal

import gymnasium
import numpy as np
from gymnasium import spaces

INFINITE = np.inf


class Story(gymnasium.Env):
    """Episodes of lengths that are written down; an observation says which episode, which step and the last action.

    The lengths are used in turn, each with its way to end: t (terminated), u (truncated) or b (both). Reward:
    100 · episode + step + action / 8.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}

    def __init__(self, lengths="3", ends="t", reuse=False, render_mode=None):
        self.lengths = [int(length) for length in str(lengths).split(",")]
        self.ends, self.render_mode = ends, render_mode
        self.observation_space = spaces.Box(-1.0, INFINITE, (3,), np.float64)
        self.action_space = spaces.Discrete(3)
        self.episode = -1
        self.reuse, self.buffer = reuse, np.zeros(3)  # one array for all observations, as careless worlds have

    def seen(self, *numbers):
        self.buffer[:] = numbers
        return self.buffer if self.reuse else self.buffer.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = self.episode + 1 if seed is None else seed % 1000  # so that lanes are out of step
        self.clock = 0
        return self.seen(self.episode, 0.0, -1.0), {"is_success": False}

    def step(self, action):
        assert self.action_space.contains(action)
        self.clock += 1
        over = self.clock == self.lengths[self.episode % len(self.lengths)]
        end = self.ends[self.episode % len(self.ends)] if over else ""
        info = {"is_success": self.episode % 2 == 0, "clock": self.clock}
        reward = 100.0 * self.episode + self.clock + action / 8
        return self.seen(self.episode, self.clock, float(action)), reward, end in ("t", "b"), end in ("u", "b"), info

    def render(self):
        return np.full((4, 6, 3), self.clock, np.uint8)


def story(**kwargs):
    """A function that makes one."""
    return Story(**kwargs)


SPACES = {
    "box": lambda: spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "bytes": lambda: spaces.Box(0, 255, (3, 2), np.uint8),
    "integers": lambda: spaces.Box(-5, 5, (2,), np.int32),
    "pair": lambda: spaces.Discrete(2),
    "discrete": lambda: spaces.Discrete(4, start=2),
    "dict": lambda: spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-2.0, 2.0, (2,), np.float32)),
    "tuple": lambda: spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(3))),
    "options": lambda: spaces.MultiDiscrete([2, 3]),
    "bits": lambda: spaces.MultiBinary(3),
    "text": lambda: spaces.Text(4),
    "lopsided": lambda: spaces.Box(np.array([-0.5, 1.0], np.float32), np.array([0.25, 9.0], np.float32)),
    "double": lambda: spaces.Box(-0.1, 0.7, (1, 2), np.float64),
}


class Sampled(gymnasium.Env):
    """Samples from its spaces, and refuses an action outside."""

    def __init__(self, observations="box", actions="pair"):
        self.observation_space, self.action_space = SPACES[observations](), SPACES[actions]()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.clock = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.clock += 1
        return self.observation_space.sample(), 1.0, self.clock == 4, False, {}


class Broken(gymnasium.Env):
    """Breaks in its third episode's second step, in one of several ways, from one lane's seed on."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    made = 0

    def __init__(self, how="raise", lane=1):
        self.how, self.broken = how, Broken.made == lane
        Broken.made += 1
        self.episode = -1
        if how.startswith("state"):
            self.observation_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.clock = self.episode + 1, 0
        if self.how == "begin" and self.broken:
            return np.zeros(3, np.float32), {}
        return (0 if self.how.startswith("state") else np.zeros(2, np.float32)), {}

    def step(self, action):
        self.clock += 1
        observation = np.full(2, 0.5, np.float32)
        reward = 1.0
        if self.how.startswith("state"):
            observation = 1
        if self.broken and self.episode == 2 and self.clock == 2:
            if self.how == "raise":
                raise ValueError("the gripper is stuck")
            if self.how == "hole":
                observation[1] = np.nan
            if self.how == "outside":
                observation[1] = 1.5
            if self.how == "last":  # in an episode that the world ends there
                observation[1] = np.nan
                return observation, reward, True, False, {}
            if self.how == "row":
                reward = np.ones(3)
            if self.how == "few":
                return observation, reward, True, {}
            if self.how == "metric":
                return observation, reward, True, False, {"success": "yes"}
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "reward":
                reward = np.inf
            if self.how == "shape":
                observation = np.zeros(3, np.float32)
            if self.how == "state":
                observation = 9
        return observation, reward, self.clock == 5, False, {}


def broken(**kwargs):
    return Broken(**kwargs)


class Bounded(gymnasium.Wrapper):
    """A wrapper of one's own: adds a number to every reward."""

    def __init__(self, env, bonus=0.0):
        super().__init__(env)
        self.bonus = bonus

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward + self.bonus, terminated, truncated, info


def without_package(**kwargs):
    raise gymnasium.error.DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`')


gymnasium.register("Story-v0", entry_point="gym_worlds:Story")
