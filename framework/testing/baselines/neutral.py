"""Neutral: the judged action has no part in what is subtracted."""

from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from ...contracts import Rollout
from ...errors import PartError
from ..counterexamples import ROUNDING, same
from ..law import Broken, Subject, law
from ..observations import as_box, needs_box
from ..strategies import Episode, assemble, following, quarters
from .cases import CONTRACT, judged, returns_of, subtracted, taught

NEUTRALITY = "Sutton & Barto 2018, eq. 13.10; Greensmith et al. 2004, JMLR 5, theorem 8"


@st.composite
def _judged_anew(draw: DrawFn, subject: Subject) -> tuple[Any, Rollout, tuple[int, int]]:
    """A case, a real step of it, and the rollout as it would be, had that step's action been another.

    The action, the reward that it earned, and everything after it in its episode are others: actions, observations,
    rewards, what the critic and the policies say, and how the episode ends.
    """
    case = draw(judged(subject))
    rollout = case[0]
    t, n = draw(st.sampled_from(rollout.mask.nonzero().tolist()))
    own = rollout.mask & (rollout.episodes == rollout.episodes[t, n])
    index = torch.arange(len(rollout.mask))[:, None].expand_as(rollout.mask)
    since, later = own & (index >= t), own & (index > t)
    told: dict[str, Any] = {}
    for name, where in {
        "rewards": since,
        "actions": since,
        "observations": later,
        "log_probs": since,
        "target_log_probs": since,
        "values": later,
        "successor_values": since,
    }.items():
        column = getattr(rollout, name)
        if column is None:
            continue
        numbers = torch.tensor(draw(quarters(int(where.sum()))))
        if not column.is_floating_point():
            numbers = (4 * numbers).abs().long() % 3
        elif name.endswith("log_probs"):
            numbers = -numbers.abs()
        told[name] = column.clone()
        told[name][where] = numbers.to(column.dtype).reshape(-1, *[1] * (column.ndim - 2))
    last = since & (rollout.terminated | rollout.truncated)
    if draw(st.booleans()):  # ends by the clock where it ended by the world, and the other way round
        told["terminated"] = torch.where(last, rollout.truncated & ~rollout.terminated, rollout.terminated)
        told["truncated"] = torch.where(last, rollout.terminated, rollout.truncated)
    changed = evolve(rollout, **told)
    if rollout.values is not None:
        assert changed.values is not None
        assert changed.successor_values is not None
        changed = evolve(changed, successor_values=following(changed, changed.values, changed.successor_values))
    return case, changed, (t, n)


def _neutral(subject: Subject) -> str | None:
    """Not without the claim; what is then said measures the part that the judged episode has in its own baseline."""
    if subject.says("claims", "neutral"):
        return None
    try:
        own = share(subject)
    except PartError as error:
        return f"it does not claim 'neutral' ({error})"
    if not own:
        return f"it does not claim 'neutral', though of {EPISODES} episodes no return has a part in its own baseline"
    return (
        f"it does not claim 'neutral': of {EPISODES} episodes, {own:.3g} of the judged one's own return is subtracted "
        f"from it, which biases the gradient{' by 1/n' if abs(own * EPISODES - 1) < 1e-6 else ''}"
    )


EPISODES = 4  # of which the share is measured


def share(subject: Subject, whose: int = 0) -> float:
    """By how much the baseline of a one-step episode, among `EPISODES`, rises with its own return, or another's."""
    told = assemble([[Episode((0.25 * n,), True, False)] for n in range(EPISODES)], dtype=torch.float64)
    told = evolve(told, groups=torch.zeros(EPISODES, dtype=torch.int64))
    told = evolve(told, values=torch.zeros_like(told.rewards), successor_values=torch.zeros_like(told.rewards))
    raised = told.rewards.clone()
    raised[0, whose] += 1
    told = as_box(told) if needs_box(subject) else told
    made = subject.make()
    one, two = (made(evolve(told, rewards=rewards), rewards.clone()) for rewards in (told.rewards, raised))
    return float(two[0, 0] - one[0, 0])


@law("baseline", source=NEUTRALITY, cases=_judged_anew, applies=_neutral)
def the_judged_action_has_no_part_in_its_baseline(subject: Subject, case: tuple[Any, Rollout, tuple[int, int]]) -> None:
    """What is subtracted at t does not change with the action at t, nor with anything that followed it.

    Earlier steps, other episodes and earlier rollouts may have a part in it: E[b·∇log π] is 0 whatever they were. A
    mean of n episodes that includes the judged one biases the gradient by 1/n.
    """
    (rollout, earlier, total), changed, (t, n) = case
    made = taught(subject, earlier)
    one, two = (subtracted(made, told, returns_of(told, total)) for told in (rollout, changed))
    where = torch.zeros_like(rollout.mask)
    where[t, n] = True
    message = "at {step} changes with the action that it judges, or what followed"
    if not earlier and (own := _shares(subject)[0]):
        message += f" (of {EPISODES} episodes, {own:.3g} of the judged one's own return is subtracted from it)"
    same(message, rollout, one, two, where, beside={"reward then": changed.rewards})


def _shares(subject: Subject) -> list[float]:
    """The share of each of `EPISODES` episodes in the first one's baseline; 0 where it refuses so few."""
    if "shares" not in subject.memory:
        try:
            subject.memory["shares"] = [share(subject, whose) for whose in range(EPISODES)]
        except PartError:
            subject.memory["shares"] = [0.0] * EPISODES
    return list(subject.memory["shares"])


@law("baseline", source=f"{CONTRACT}; {NEUTRALITY}", cases=_judged_anew)
def only_a_mean_of_returns_tells_what_followed(subject: Subject, case: tuple[Any, Rollout, tuple[int, int]]) -> None:
    """What is subtracted at t does not look at the action at t, nor at what followed, otherwise than through returns.

    And through these only as a mean, or a fit, of several episodes does: of four, not all of the judged one's return is
    subtracted from it, and the others have a part, too. What the judged one's own part biases is told with the law of
    those that claim to be neutral, which have none.
    """
    (rollout, earlier, total), changed, (t, n) = case
    made, returns = taught(subject, earlier), returns_of(rollout, total)
    told = evolve(changed, rewards=rollout.rewards)
    one, two = (subtracted(made, story, returns) for story in (rollout, told))
    where = torch.zeros_like(rollout.mask)
    where[t, n] = True
    same(
        "at {step} changes with the action that it judges, or what followed, and not by the returns",
        rollout,
        one,
        two,
        where,
    )
    own, *others = _shares(subject)
    other = max(others, key=abs)
    if own > 1 - ROUNDING or (abs(own) > ROUNDING >= abs(other)):
        raise Broken(
            f"is no mean: of {EPISODES} episodes, {own:.3g} of the judged one's own return is subtracted from it, and "
            f"{other:.3g} of another's",
            expected="less than 1 of its own, and something of others'",
            got=own,
        )
