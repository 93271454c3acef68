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
