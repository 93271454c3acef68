"""Seeds: all chance comes from the generator that is handed in, and nothing else is remembered or changed."""

import random
from typing import Any

import numpy as np
import torch

from ..law import Broken, Subject, law
from .randomness import globally_seeded
from .stepping import Plan, Told, compare, copied, lanes, plans, play, same


@law("environment", cases=plans, source="docs/reference/contracts.md; Henderson et al. 2018, arXiv:1709.06560")
def the_same_seed_tells_the_same(subject: Subject, plan: Plan) -> None:
    """Two environments that are reset with equal generators and take the same actions tell the same, bit for bit,
    whatever the global generators hold: all chance comes from the generator that is handed in."""
    stories = []
    for other in (1, 2):
        with globally_seeded(other), lanes(subject, plan.lanes) as environment:
            stories.append(play(environment, plan))
    compare(stories[0], stories[1], "built twice, with the same seed")


@law("environment", cases=plans)
def reset_forgets_what_was_before(subject: Subject, plan: Plan) -> None:
    """After a reset an environment that was played tells what a new one does: nothing counts on (a clock, a stream)."""
    with lanes(subject, plan.lanes) as environment:
        fresh = play(environment, plan)
        again = play(environment, plan)
    compare(fresh, again, "reset with the same seed after it was played")


@law("environment", cases=plans)
def the_global_generators_are_left_alone(subject: Subject, plan: Plan) -> None:
    """Building, resetting and stepping move none of the global generators of torch, numpy and Python."""
    with globally_seeded(3):
        before = _global_states()
        with lanes(subject, plan.lanes) as environment:
            play(environment, plan)
        after = _global_states()
    for name, state in before.items():
        if not same(state, after[name]):
            raise Broken(f"it moves the global generator of {name}: all chance comes from the one that is handed in")


def _global_states() -> dict[str, Any]:
    _, keys, position, *_ = np.random.get_state()
    return {"torch": torch.get_rng_state(), "numpy": (keys, position), "Python": random.getstate()}


@law("environment", cases=plans)
def actions_are_only_read(subject: Subject, plan: Plan) -> None:
    """Actions are left as they were, and not looked at again after the step: the policy may write the next ones into
    the same tensor."""
    with lanes(subject, plan.lanes) as environment:
        fresh = play(environment, plan)
    with lanes(subject, plan.lanes) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        first = environment.reset(generator).clone()
        again = Told(first, fresh.actions, [], [])
        buffer = torch.empty_like(fresh.actions[0])
        for t, actions in enumerate(fresh.actions):
            buffer.copy_(actions)
            step = environment.step(buffer, generator)
            if not same(buffer, actions):
                raise Broken(f"step {t} changed the actions that it was handed", expected=actions, got=buffer)
            again.steps.append(copied(step))
            buffer.copy_(fresh.actions[(t + 1) % len(fresh.actions)].flip(0))
    compare(fresh, again, "with actions handed over in one tensor that is written again")
