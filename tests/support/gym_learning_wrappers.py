"""An environment that only normalised observations tell apart, and a wrapper that learns."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Far(gymnasium.Env):
    """Each episode shows 95 or 105, 20 times; the right action earns 1."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock, self.side = 0, int(self.np_random.integers(2))
        return self._seen(), {}

    def _seen(self):
        return np.array([105.0 if self.side else 95.0], np.float32)

    def step(self, action):
        self.clock += 1
        return self._seen(), float(action == self.side), False, self.clock >= 20, {}


class Centred(gymnasium.ObservationWrapper):
    """Subtracts the largest observation so far: a wrapper of one's own that learns."""

    def __init__(self, env):
        super().__init__(env)
        self.largest = 0.0

    def observation(self, observation):
        self.largest = max(self.largest, float(observation[0]))
        return observation - np.float32(self.largest)

    def state_dict(self):
        return {"largest": self.largest}

    def load_state_dict(self, state):
        self.largest = float(state["largest"])


class Mean:
    """Subtracts the mean of what it saw."""

    def __init__(self):
        self.mean, self.count = 0.0, 0

    def __call__(self, seen):
        self.count += 1
        self.mean += (seen - self.mean) / self.count
        return (seen - self.mean).astype(np.float32)


class Forgetful(gymnasium.ObservationWrapper):
    """Learns, and cannot say what."""

    def __init__(self, env):
        super().__init__(env)
        self.mean = Mean()

    def observation(self, observation):
        return self.mean(observation)


class Noisy(gymnasium.ObservationWrapper):
    """Learns nothing."""

    def observation(self, observation):
        return (observation + self.np_random.normal()).astype(np.float32)


class Episodic(Forgetful):
    """Begins anew with each episode."""

    def reset(self, **arguments):
        self.mean = Mean()
        return super().reset(**arguments)


def transformed(env):
    """By an object."""
    return gymnasium.wrappers.TransformObservation(env, Mean(), env.observation_space)


def closed_over(env):
    """By a function that keeps a mean of its own."""
    mean = Mean()
    return gymnasium.wrappers.TransformObservation(env, lambda seen: mean(seen), env.observation_space)


def pure(env):
    """By a function without state."""
    return gymnasium.wrappers.TransformObservation(env, lambda seen: seen / 2, env.observation_space)
