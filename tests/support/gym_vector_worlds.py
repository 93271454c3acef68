"""Vectorised environments as users register them."""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Counting(VectorEnv):
    """Counts to 3, all lanes alike, in the same buffers for ever. An action that changes later costs the reward."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
    high = np.inf

    def __init__(self, num_envs=1, declare=True, shape="[N]", **_):
        self.num_envs, self.shape = num_envs, shape
        if not declare:
            self.metadata = {}
        self.single_observation_space = spaces.Box(0.0, self.high, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.seen, self.kept = np.zeros((num_envs, 1), np.float32), []

    def reset(self, *, seed=None, options=None):
        self.seen[:] = 0
        return self.seen, self._info(False)

    def _info(self, over):
        return {}

    def step(self, actions):
        self.kept.append((actions, actions.copy()))
        whole = all(np.array_equal(one, copy) for one, copy in self.kept)
        rewards = np.full(self.num_envs, float(whole))
        if self.shape == "[N, 1]":
            rewards = rewards[:, None]
        if self.shape == "[2, N]":
            rewards = np.ones((2, self.num_envs))
        self.seen += 1
        over = self.seen[:, 0] >= 3
        info = self._info(over.all())
        if over.all():
            info["final_obs"] = self.seen.copy()
            self.seen[:] = 0
        return self.seen, rewards, over, np.zeros_like(over), info


class Other(Counting):
    """Not the world that `gymnasium.make` makes."""

    high = 9.0


class Masked(Counting):
    """Says which actions are allowed, and two numbers of an episode that ended."""

    def _info(self, over):
        masks = np.zeros((self.num_envs, 2), np.int8)
        masks[:, int(self.seen[0, 0]) % 2] = 1
        info = {"action_mask": masks}
        if over:
            info["final_info"] = {"episode": {"r": np.arange(self.num_envs) + 0.5}, "_episode": np.ones(2, bool)}
        return info


class Single(gymnasium.Env):
    """One lane of it."""

    observation_space = spaces.Box(0.0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.clock += 1
        return np.array([self.clock], np.float32), 1.0, self.clock == 3, False, {}


for name in ("Counting", "Other", "Masked"):
    gymnasium.register(
        f"{name}-v0",
        entry_point="gym_vector_worlds:Single",
        vector_entry_point=f"gym_vector_worlds:{name}",
        disable_env_checker=True,
    )

gymnasium.register("Alone-v0", vector_entry_point="gym_vector_worlds:Counting")  # there are no single lanes
