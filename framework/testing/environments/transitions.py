"""The step as a pure function: `transition` does what `step` does."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...contracts import Step
from ..law import Broken, Subject, law
from .applicability import has
from .stepping import Plan, lanes, plans, same, taken

SAMPLES = 128  # of each, where chance plays a part
SIGMAS = 7.0  # standard errors, estimated from so few samples, by which their means may lie apart
ROUNDING = 1e-5
ROWS = 40  # of a plan, over and over, at most
JUDGED = 2  # of them, one where an episode ended if there is one


@law(
    "environment",
    source="docs/reference/contracts.md#environment",
    cases=plans,
    applies=has("transition", "state_dict", "load_state_dict"),
    examples=20,
)
def transitions_are_steps(subject: Subject, plan: Plan) -> None:
    """From a state that steps have led to, `transition` gives what `step` gives, the state after it included: the same
    numbers, where nothing is left to chance; of 128 times each, means and spreads within seven standard errors. It
    depends on nothing but its arguments, and leaves them as they are."""
    with lanes(subject, plan.lanes) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        environment.reset(generator)
        judged, over = 0, False
        for t in range(ROWS):
            state, actions = environment.state_dict(), taken(environment, plan.row(t), None)
            step = environment.step(actions.clone(), generator)
            ends = bool((step.terminated | step.truncated).any())
            if judged < JUDGED - 1 or (ends and not over):
                after = environment.state_dict()
                _compare(environment, state, actions, generator, f"step {t} of {plan.lanes} lanes")
                environment.load_state_dict(after)
                judged, over = judged + 1, over or ends
            if judged >= JUDGED and over:
                break


def _compare(
    environment: Any, state: Mapping[str, Tensor], actions: Tensor, generator: torch.Generator, where: str
) -> None:
    """Raise where the one does not do what the other does, in this state."""
    kept = {name: column.clone() for name, column in state.items()}

    def stepped() -> dict[str, Tensor]:
        environment.load_state_dict(state)
        step = environment.step(actions.clone(), generator)
        return _numbers(step, environment.state_dict())

    def purely(noise: Tensor | None = None) -> dict[str, Tensor]:
        if noise is None:
            noise = _noise(environment, len(actions), generator)
        after, step = environment.transition(state, actions, noise)
        return _numbers(step, after)

    noise = _noise(environment, len(actions), generator)
    one, given = purely(noise), (noise.clone(), actions.clone())
    if not same(one, purely(noise)):
        raise Broken(f"{where}: transition of the same arguments", expected="the same step", got="another")
    if not same((noise, actions), given) or not same(dict(state), kept):
        raise Broken(f"{where}: transition changes its arguments", expected="a new state", got="the one handed in")
    expected, found = _sampled(stepped), _sampled(purely)
    if expected.keys() != found.keys():
        raise Broken(f"{where}: what there is after a transition", expected=sorted(expected), got=sorted(found))
    for name, numbers in expected.items():
        if numbers.shape != found[name].shape:
            raise Broken(f"{where}: numbers in {name}", expected=numbers.shape[1], got=found[name].shape[1])
        _same_means(f"{where}: {name}", numbers, found[name])
        middle = numbers.mean(0)
        _same_means(f"{where}: the spread of {name}", (numbers - middle).square(), (found[name] - middle).square())


def _noise(environment: Any, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, environment.transition_noise, dtype=torch.float64, generator=generator)


def _numbers(step: Step, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that there is after a step, copied."""
    columns = {
        name: getattr(step, name) for name in ("observations", "successors", "rewards", "terminated", "truncated")
    }
    columns |= {f"state '{name}'": column for name, column in state.items()}
    return {name: column.detach().double().flatten() for name, column in columns.items()}


def _sampled(draw: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """[SAMPLES, numbers] of each."""
    draws = [draw() for _ in range(SAMPLES)]
    return {name: torch.stack([one[name] for one in draws]) for name in draws[0]}


def _same_means(message: str, expected: Tensor, got: Tensor) -> None:
    room = SIGMAS * torch.sqrt((expected.var(0) + got.var(0)) / SAMPLES) + ROUNDING * (1 + expected.abs().amax(0))
    apart = (expected.mean(0) - got.mean(0)).abs()
    if not bool((apart <= room).all()):
        worst = int((apart - room).nan_to_num(torch.inf).argmax())
        raise Broken(
            f"{message} [{worst}], means of step and transition",
            expected=float(expected.mean(0)[worst]),
            got=float(got.mean(0)[worst]),
        )
