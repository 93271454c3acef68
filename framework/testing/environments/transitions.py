"""The law of the pure step function: `transition` does the same as `step`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...contracts import Step
from ..law import Broken, Subject, law
from .applicability import has_members
from .stepping import ActionPlan, allowed_actions, equal, make_environment, plans

SAMPLES = 128  # of `step` and of `transition`
SIGMAS = 7.0  # allowed difference of means, in standard errors estimated from so few samples
ROUNDING = 1e-5
ROWS = 40  # maximum number of steps, repeating the plan
MAX_CHECKED = 2  # steps that are checked, including one at the end of an episode if there is one


@law(
    "environment",
    source="docs/reference/contracts.md#environment",
    cases=plans,
    applies=has_members("transition", "state_dict", "load_state_dict"),
    examples=20,
)
def transition_matches_step(subject: Subject, plan: ActionPlan) -> None:
    """From the same state, `transition` gives the same as `step`, including the state after it: equal numbers if the
    step is deterministic; otherwise, over 128 samples of each, means and variances within seven standard errors. It
    depends on its arguments only, and does not change them.
    """
    with make_environment(subject, plan.lanes) as environment:
        generator = torch.Generator().manual_seed(plan.seed)
        environment.reset(generator)
        checked, seen_end = 0, False
        for t in range(ROWS):
            state, actions = environment.state_dict(), allowed_actions(environment, plan.row(t), None)
            step = environment.step(actions.clone(), generator)
            ends = bool((step.terminated | step.truncated).any())
            if checked < MAX_CHECKED - 1 or (ends and not seen_end):
                after = environment.state_dict()
                _require_same_step(environment, state, actions, generator, f"step {t} of {plan.lanes} lanes")
                environment.load_state_dict(after)
                checked, seen_end = checked + 1, seen_end or ends
            if checked >= MAX_CHECKED and seen_end:
                break


def _require_same_step(
    environment: Any, state: Mapping[str, Tensor], actions: Tensor, generator: torch.Generator, place: str
) -> None:
    """Raise `Broken` if `step` and `transition` differ in this state."""
    state_copy = {name: column.clone() for name, column in state.items()}

    def stepped() -> dict[str, Tensor]:
        environment.load_state_dict(state)
        step = environment.step(actions.clone(), generator)
        return _numbers(step, environment.state_dict())

    def transitioned(noise: Tensor | None = None) -> dict[str, Tensor]:
        if noise is None:
            noise = _noise(environment, len(actions), generator)
        after, step = environment.transition(state, actions, noise)
        return _numbers(step, after)

    noise = _noise(environment, len(actions), generator)
    first, arguments = transitioned(noise), (noise.clone(), actions.clone())
    if not equal(first, transitioned(noise)):
        raise Broken(
            f"{place}: transition called twice with the same arguments", expected="the same step", got="another"
        )
    if not equal((noise, actions), arguments) or not equal(dict(state), state_copy):
        raise Broken(
            f"{place}: transition changes its arguments", expected="a new state", got="the one that was passed in"
        )
    expected, got = _sampled(stepped), _sampled(transitioned)
    if expected.keys() != got.keys():
        raise Broken(f"{place}: columns after a transition", expected=sorted(expected), got=sorted(got))
    for name, numbers in expected.items():
        if numbers.shape != got[name].shape:
            raise Broken(f"{place}: numbers in {name}", expected=numbers.shape[1], got=got[name].shape[1])
        _require_same_means(f"{place}: {name}", numbers, got[name])
        middle = numbers.mean(0)
        _require_same_means(
            f"{place}: the variance of {name}", (numbers - middle).square(), (got[name] - middle).square()
        )


def _noise(environment: Any, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, environment.transition_noise, dtype=torch.float64, generator=generator)


def _numbers(step: Step, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All columns after a step, copied."""
    columns = {
        name: getattr(step, name) for name in ("observations", "successors", "rewards", "terminated", "truncated")
    }
    columns |= {f"state '{name}'": column for name, column in state.items()}
    return {name: column.detach().double().flatten() for name, column in columns.items()}


def _sampled(draw: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Samples of each column, [SAMPLES, numbers]."""
    draws = [draw() for _ in range(SAMPLES)]
    return {name: torch.stack([sample[name] for sample in draws]) for name in draws[0]}


def _require_same_means(message: str, expected: Tensor, got: Tensor) -> None:
    tolerance = SIGMAS * torch.sqrt((expected.var(0) + got.var(0)) / SAMPLES) + ROUNDING * (1 + expected.abs().amax(0))
    difference = (expected.mean(0) - got.mean(0)).abs()
    if not bool((difference <= tolerance).all()):
        worst = int((difference - tolerance).nan_to_num(torch.inf).argmax())
        raise Broken(
            f"{message} [{worst}], means of step and transition",
            expected=float(expected.mean(0)[worst]),
            got=float(got.mean(0)[worst]),
        )
