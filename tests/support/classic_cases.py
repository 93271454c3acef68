"""Gymnasium's classic control environments, one lane each: the oracle of ours."""

import math

import framework_classic
import gymnasium
import numpy as np
import torch
from attrs import frozen
from hypothesis import strategies as st

CPU = torch.device("cpu")
PI = math.pi


@frozen
class World:
    cls: str  # of our settings
    module: str
    gymnasium: str  # the id
    states: tuple  # lowest and highest number of each variable, as far as steps are compared
    starts: tuple  # likewise, of first states: Gymnasium's `reset`
    actions: st.SearchStrategy


WORLDS = {
    "cartpole": World(
        "CartPole",
        "framework_classic.cartpole",
        "CartPole-v1",
        ((-2.6, 2.6), (-4, 4), (-0.25, 0.25), (-4, 4)),
        ((-0.05, 0.05),) * 4,
        st.integers(0, 1),
    ),
    "pendulum": World(
        "Pendulum",
        "framework_classic.pendulum",
        "Pendulum-v1",
        ((-20, 20), (-8, 8)),
        ((-PI, PI), (-1, 1)),
        # eighths, so that Gymnasium's 3u, which it takes in float32, is exact
        st.integers(-32, 32).map(lambda eighths: [eighths / 8]),
    ),
    "mountain_car": World(
        "MountainCar",
        "framework_classic.mountain_car",
        "MountainCar-v0",
        ((-1.2, 0.6), (-0.07, 0.07)),
        ((-0.6, -0.4), (0, 0)),
        st.integers(0, 2),
    ),
    "acrobot": World(
        "Acrobot",
        "framework_classic.acrobot",
        "Acrobot-v1",
        ((-PI, PI), (-PI, PI), (-4 * PI, 4 * PI), (-9 * PI, 9 * PI)),
        ((-0.1, 0.1),) * 4,
        st.integers(0, 2),
    ),
}


def settings_class(name):
    return getattr(framework_classic, WORLDS[name].cls)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tensors(actions):
    """Actions as a policy hands them over: int64 or float32."""
    actions = torch.tensor(actions)
    return actions.float() if actions.is_floating_point() else actions


class Oracle:
    """One of Gymnasium's environments with its TimeLimit, put where ours stands."""

    def __init__(self, name, limit=None):
        self.name = name
        self.limited = gymnasium.make(WORLDS[name].gymnasium, max_episode_steps=limit or None, disable_env_checker=True)
        if not limit:
            self.limited = self.limited.unwrapped
        self.world = self.limited.unwrapped

    def put(self, state, clock=0):
        self.limited.reset(seed=0)
        self.world.state = np.array([float(number) for number in state])
        if self.limited is not self.world:
            self.limited.env._elapsed_steps = self.limited._elapsed_steps = clock

    def seen(self):
        for method in ("_get_obs", "_get_ob"):
            if hasattr(self.world, method):
                return getattr(self.world, method)()
        return np.array(self.world.state, np.float32)

    def step(self, action):
        if isinstance(action, list):
            action = np.array(action, np.float32)
        return self.limited.step(action)[:4]


def near(ours, theirs):
    """float32 of the same number in float64."""
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-6, atol=1e-6)


def step_rows(world, rows, draw):
    """What the steps of `rows` [T] of actions give, copied before the next."""
    fields = ("observations", "successors", "rewards", "terminated", "truncated")
    story = []
    for row in rows:
        step = world.step(tensors(row), draw)
        story.append({field: getattr(step, field).clone() for field in fields})
    return story


# Strategies, by the name of the world


def states(name):
    return st.tuples(*(st.floats(low, high) for low, high in WORLDS[name].states)).map(list)
