"""Laws of seeds: all randomness comes from the generator that is passed in, and no other state is kept or changed."""

import random
from typing import Any

import numpy as np
import torch

from ..law import Broken, Subject, law
from .randomness import globally_seeded
from .stepping import (
    ActionPlan,
    Recording,
    clone_step,
    equal,
    make_environment,
    plans,
    require_same_recording,
    run_plan,
)


@law("environment", cases=plans, source="docs/reference/contracts.md; Henderson et al. 2018, arXiv:1709.06560")
def the_same_seed_gives_the_same_steps(subject: Subject, plan: ActionPlan) -> None:
    """Two environments that are reset with equal generators and take the same actions give bit for bit the same steps,
    whatever the state of the global generators: all randomness comes from the generator that is passed in."""
    recordings = []
    for global_seed in (1, 2):
        with globally_seeded(global_seed), make_environment(subject, plan.lanes) as environment:
            recordings.append(run_plan(environment, plan))
    require_same_recording(recordings[0], recordings[1], "built twice, with the same seed")


@law("environment", cases=plans)
def reset_clears_all_state(subject: Subject, plan: ActionPlan) -> None:
    """After a reset, an environment gives the same steps as a new one: step counts and random streams start anew."""
    with make_environment(subject, plan.lanes) as environment:
        fresh = run_plan(environment, plan)
        again = run_plan(environment, plan)
    require_same_recording(fresh, again, "reset with the same seed after use")


@law("environment", cases=plans)
def the_global_generators_are_left_alone(subject: Subject, plan: ActionPlan) -> None:
    """Building, resetting and stepping do not use the global generators of torch, numpy and Python."""
    with globally_seeded(3):
        before = _global_states()
        with make_environment(subject, plan.lanes) as environment:
            run_plan(environment, plan)
        after = _global_states()
    for name, state in before.items():
        if not equal(state, after[name]):
            raise Broken(
                f"it uses the global generator of {name}: all randomness must come from the one that is passed in"
            )


def _global_states() -> dict[str, Any]:
    _, keys, position, *_ = np.random.get_state()
    return {"torch": torch.get_rng_state(), "numpy": (keys, position), "Python": random.getstate()}


@law("environment", cases=plans)
def actions_are_only_read(subject: Subject, plan: ActionPlan) -> None:
    """The environment does not change the actions, and does not read them after the step: the policy may write the next
    actions into the same tensor."""
    with make_environment(subject, plan.lanes) as environment:
        fresh = run_plan(environment, plan)
    with make_environment(subject, plan.lanes) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        first = environment.reset(generator).clone()
        again = Recording(first, fresh.actions, [], [])
        buffer = torch.empty_like(fresh.actions[0])
        for t, actions in enumerate(fresh.actions):
            buffer.copy_(actions)
            step = environment.step(buffer, generator)
            if not equal(buffer, actions):
                raise Broken(f"step {t} changed the actions that it was given", expected=actions, got=buffer)
            again.steps.append(clone_step(step))
            buffer.copy_(fresh.actions[(t + 1) % len(fresh.actions)].flip(0))
    require_same_recording(fresh, again, "with actions passed in one tensor that is overwritten")
