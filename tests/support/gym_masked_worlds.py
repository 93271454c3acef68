"""An environment of Gymnasium with masks of its own."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Locks(gymnasium.Env):
    """Two dials; of the first one choice is locked in turn. From its step `stuck` on, both are."""

    observation_space = spaces.Box(0.0, np.inf, (1,), np.float32)
    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self, stuck=99):
        self.stuck = stuck

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def action_masks(self):
        first = np.array([self.clock % 2 == 0, self.clock % 2 == 1])
        return first & (self.clock < self.stuck), np.ones(3, bool)

    def step(self, action):
        self.clock += 1
        return np.array([self.clock], np.float32), 1.0, self.clock == 4, False, {}


class Said(gymnasium.Env):
    """Four steps an episode; `how` says what is wrong with the masks in `info`, where anything is."""

    observation_space = spaces.Box(0.0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(3)
    made = 0

    def __init__(self, how):
        self.how, self.resets, self.clock = how, 0, 0
        self.lane, Said.made = Said.made, Said.made + 1

    def see(self, first=False):
        masks = {"length": np.ones(4, np.int8), "logits": np.array([0.0, -np.inf, 0.0])}
        info = {"action_mask": masks.get(self.how, np.array([1, 0, 1], np.int8))}
        silent = first and (self.how == "steps" or (self.how == "one lane" and self.lane % 2 and self.resets == 1))
        return np.array([self.clock], np.float32), {} if silent else info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock, self.resets = 0, self.resets + 1
        return self.see(first=True)

    def step(self, action):
        self.clock += 1
        seen, info = self.see()
        return seen, 1.0, self.clock == 4, False, info
