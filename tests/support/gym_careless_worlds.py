"""Environments of Gymnasium that are written as some users write them: with buffers of their own, and odd returns."""

import array
import collections
import ctypes
import multiprocessing
import os
import signal
import threading
import time

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

CONTAINERS = {
    "list": (lambda: [0.0, 0.0], (2,)),
    "array": (lambda: np.zeros(2, np.float32), (2,)),
    "float64": (lambda: np.zeros(2), (2,)),
    "deque": (lambda: collections.deque([0.0, 0.0]), (2,)),
    "array.array": (lambda: array.array("d", [0.0, 0.0]), (2,)),
    "tensor": (lambda: torch.zeros(2), (2,)),
    "nested": (lambda: [[0.0, 0.0]], (1, 2)),
    "arrays": (lambda: (np.zeros(2, np.float32),), (1, 2)),
    "dict": (lambda: {"a": np.zeros(2, np.float32)}, None),
}


class Reused(gymnasium.Env):
    """Hands out one container for ever, and keeps every action it is handed. Observations: step, then episode."""

    def __init__(self, container="list", limit=3, actions="box"):
        make, shape = CONTAINERS[container]
        self.container, self.limit, self.seen = container, limit, make()
        box = spaces.Box(-np.inf, np.inf, shape or (2,), np.float32)
        self.observation_space = box if shape else spaces.Dict(a=box)
        self.action_space = spaces.Box(-1e9, 1e9, (1,)) if actions == "box" else spaces.Discrete(2)
        self.info, self.actions, self.episode, self.clock = {"clock": [0.0]}, [], 0, 0

    def show(self):
        inner = {"nested": lambda: self.seen[0], "arrays": lambda: self.seen[0], "dict": lambda: self.seen["a"]}
        numbers = inner.get(self.container, lambda: self.seen)()
        numbers[0], numbers[1] = float(self.clock), float(self.episode)
        self.info["clock"][0] = float(self.clock)
        return self.seen, self.info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.clock = self.episode + 1, 0
        return self.show()

    def step(self, action):
        self.actions.append((action, np.array(action)))
        kept = all(np.array_equal(one, copy) for one, copy in self.actions)
        self.clock += 1
        seen, info = self.show()
        return seen, float(kept), False, self.clock >= self.limit, info


class Odd(gymnasium.Env):
    """One step an episode; what it returns is asked for."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, reward=1.0, info=None, how="", limit=1):
        self.given, self.info, self.how, self.limit = reward, info, how, limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        seen = np.zeros(2, np.float32)
        return {
            "bare": seen,
            "info none": (seen, None),
            "three": (seen, {}, {}),
            "hangs in reset": (seen, {}),
        }.get(self.how, (seen, self.info(self) if callable(self.info) else {}))

    def step(self, action):
        self.clock += 1
        seen, over = np.full(2, float(self.clock), np.float32), self.clock >= self.limit
        info = self.info(self) if callable(self.info) else {}
        reward = self.given(self) if callable(self.given) else self.given
        if self.how == "bug":
            [].pop()
        if self.how == "exits":
            raise SystemExit(0)
        odd = {
            "four": (seen, reward, over, info),
            "none": None,
            "info none": (seen, reward, over, False, None),
            "flag": (seen, reward, over, {}, info),
            "text": ("seen", reward, over, False, info),
            "ragged": ([[1.0], [1.0, 2.0]], reward, over, False, info),
        }
        return odd.get(self.how, (seen, reward, over, False, info))


class Whole(gymnasium.Env):
    """Observations of a whole-numbered space, as they are given."""

    action_space = spaces.Discrete(2)

    def __init__(self, dtype="uint8", seen=(1, 2)):
        self.observation_space = spaces.Box(0, np.iinfo(dtype).max, (2,), np.dtype(dtype).type)
        self.seen = seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen, {}

    def step(self, action):
        return self.seen, 1.0, True, False, {}


class Beyond(gymnasium.Env):
    """At step `when` an observation is finite in float64 and not in float32; at step 2 each episode is cut."""

    action_space = spaces.Discrete(2)

    def __init__(self, when, dtype="float64"):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.dtype(dtype).type)
        self.when, self.clock = when, 0

    def see(self):
        return np.array([0.0, -1e300 if self.clock == self.when else 1.0])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return self.see(), {}

    def step(self, action):
        self.clock += 1
        return self.see(), 1.0, False, self.clock == 2, {}


class NoSpace(Odd):
    """Forgot its space of actions."""

    action_space = None


class NoSeed(Odd):
    """The old way to reset."""

    def reset(self):
        return np.zeros(2, np.float32), {}


class OnlySeed(Odd):
    """A reset without options, which nobody asks for."""

    def reset(self, seed=None):
        return super().reset(seed=seed)


class OwnLimit(Odd):
    """Has a keyword of its own that this framework has, too."""

    def __init__(self, max_episode_steps=1):
        super().__init__(limit=max_episode_steps)


class Hanging(Odd):
    """Does not return from its fourth step, in one lane; or dies there."""

    made = 0

    def __init__(self, how="sleep", where="step", lane=1):
        super().__init__(limit=3)
        number = str(Hanging.made)
        if multiprocessing.parent_process() is not None:  # Gymnasium numbers its workers
            number = multiprocessing.current_process().name.rpartition("-")[2]
        self.bad, self.how, self.where = number == str(lane), how, where
        Hanging.made += 1
        self.total = 0

    def _hang(self):
        if self.how == "sleep":
            time.sleep(600)
        if self.how == "loop":
            while True:
                pass
        if self.how == "exit":
            os._exit(7)
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "c":  # a call into C that no signal interrupts, and that lets other threads work
            libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)

    def reset(self, *, seed=None, options=None):
        if self.bad and self.where == "reset" and self.total >= 3:
            self._hang()
        return super().reset(seed=seed)

    def step(self, action):
        self.total += 1
        if self.bad and self.where == "step" and self.total == 5:
            self._hang()
        return super().step(action)


class Unclosable(Odd):
    """Cannot be closed; says how many were tried."""

    tried = 0

    def close(self):
        Unclosable.tried += 1
        raise RuntimeError("the simulator is gone")


def odd(reward=None, info=None, **kwargs):
    """Functions by name: what comes of TOML is plain."""
    return Odd(REWARDS[reward] if reward else 1.0, INFOS[info] if info else None, **kwargs)


def no_environment():
    return 3


REWARDS = {
    "array": np.array([2.0]),
    "numpy": np.float32(2.0),
    "int": 2,
    "bool": True,
    "tensor": torch.tensor(2.0),
    "0-d": np.array(2.0),
    "none": None,
    "text": "2.0",
    "two": np.array([1.0, 2.0]),
    "list": [1.0, 2.0],
}


def _mixed(env):
    """An int in one lane and a float in another."""
    return {"score": 1 if env.np_random.random() < 0.5 else 1.75}


INFOS = {
    "lengths": lambda env: {"path": np.zeros(env.np_random.integers(1, 5))},
    "mixed": _mixed,
    "some lanes": lambda env: {"score": 0.5, "goal": {"at": None}} if env.np_random.random() < 0.5 else {"goal": 3},
    "lock": lambda env: {"env": env, "score": 0.5},
    "array": lambda env: {"success": np.array([True]), "score": np.array([[0.25]])},
    "two": lambda env: {"success": np.array([True, False])},
    "dict": lambda env: {"success": {"left": True, "right": False}},
    "none": lambda env: {"success": None, "is_success": None},
}

gymnasium.register("OwnLimit-v0", entry_point="gym_careless_worlds:OwnLimit")


class UnsendableError(Exception):
    """Cannot be sent to another process."""

    def __init__(self, code, why):
        super().__init__(why)
        self.lock = threading.Lock()


class Panic(BaseException):
    """No `Exception`, as what a library in Rust raises."""


class Alone(Odd):
    """A simulator that takes one client: no process of its own can make it."""

    def __init__(self, how="raise"):
        super().__init__()
        if multiprocessing.parent_process() is not None:
            why = "the simulator takes no second client"
            if how == "die":
                os._exit(3)
            raise {
                "raise": ConnectionError(why),
                "unpicklable": UnsendableError(3, why),
                "panic": Panic(why),
                "exit": SystemExit(0),
            }[how]
