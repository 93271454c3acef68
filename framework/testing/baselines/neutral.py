"""Laws of neutral baselines: they do not depend on the action that is evaluated."""

from typing import Any

import torch
from attrs import evolve
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from ...contracts import Rollout
from ...errors import PartError
from ..counterexamples import ROUNDING, require_close
from ..law import Broken, Subject, law
from ..observations import as_box, needs_box
from ..strategies import Episode, assemble, next_values, quarters
from .cases import CONTRACT, baseline_cases, baseline_values, returns_of, updated_baseline

NEUTRALITY = "Sutton & Barto 2018, eq. 13.10; Greensmith et al. 2004, JMLR 5, theorem 8"


@st.composite
def _changed_from_a_step(draw: DrawFn, subject: Subject) -> tuple[Any, Rollout, tuple[int, int]]:
    """A case, a real step of it, and the rollout as if another action had been taken in that step.

    The action, its reward, and everything after it in its episode are changed: actions, observations, rewards, values,
    log-probs, and how the episode ends.
    """
    case = draw(baseline_cases(subject))
    rollout = case[0]
    t, n = draw(st.sampled_from(rollout.mask.nonzero().tolist()))
    in_episode = rollout.mask & (rollout.episodes == rollout.episodes[t, n])
    index = torch.arange(len(rollout.mask))[:, None].expand_as(rollout.mask)
    since, later = in_episode & (index >= t), in_episode & (index > t)
    columns: dict[str, Any] = {}
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
        columns[name] = column.clone()
        columns[name][where] = numbers.to(column.dtype).reshape(-1, *[1] * (column.ndim - 2))
    last = since & (rollout.terminated | rollout.truncated)
    if draw(st.booleans()):  # swap terminated and truncated
        columns["terminated"] = torch.where(last, rollout.truncated & ~rollout.terminated, rollout.terminated)
        columns["truncated"] = torch.where(last, rollout.terminated, rollout.truncated)
    changed = evolve(rollout, **columns)
    if rollout.values is not None:
        assert changed.values is not None
        assert changed.successor_values is not None
        changed = evolve(changed, successor_values=next_values(changed, changed.values, changed.successor_values))
    return case, changed, (t, n)


def _claims_neutral(subject: Subject) -> str | None:
    """Why the law does not apply. The reason includes the share of an episode's own return in its baseline."""
    if subject.declares("claims", "neutral"):
        return None
    try:
        share = share_of_return(subject)
    except PartError as error:
        return f"it does not claim 'neutral' ({error})"
    if not share:
        return f"it does not claim 'neutral', though with {NUM_EPISODES} episodes no return is part of its own baseline"
    return (
        f"it does not claim 'neutral': with {NUM_EPISODES} episodes, {share:.3g} of an episode's own return is "
        f"subtracted from it, which biases the gradient{' by 1/n' if abs(share * NUM_EPISODES - 1) < 1e-6 else ''}"
    )


NUM_EPISODES = 4  # for which the share is measured


def share_of_return(subject: Subject, episode: int = 0) -> float:
    """How much the baseline of the first of `NUM_EPISODES` one-step episodes rises with the return of an episode."""
    rollout = assemble([[Episode((0.25 * n,), True, False)] for n in range(NUM_EPISODES)], dtype=torch.float64)
    rollout = evolve(rollout, groups=torch.zeros(NUM_EPISODES, dtype=torch.int64))
    rollout = evolve(
        rollout, values=torch.zeros_like(rollout.rewards), successor_values=torch.zeros_like(rollout.rewards)
    )
    raised = rollout.rewards.clone()
    raised[0, episode] += 1
    rollout = as_box(rollout) if needs_box(subject) else rollout
    baseline = subject.make()
    before, after = (
        baseline(evolve(rollout, rewards=rewards), rewards.clone()) for rewards in (rollout.rewards, raised)
    )
    return float(after[0, 0] - before[0, 0])


@law("baseline", source=NEUTRALITY, cases=_changed_from_a_step, applies=_claims_neutral)
def baselines_do_not_depend_on_the_action(subject: Subject, case: tuple[Any, Rollout, tuple[int, int]]) -> None:
    """The baseline at step t does not change with the action at t, nor with anything that happened afterwards.

    It may depend on earlier steps, other episodes and earlier rollouts: E[b·∇log π] is 0 whatever they are. A mean over
    n episodes that includes the step's own episode biases the gradient by 1/n.
    """
    (rollout, earlier, total), changed, (t, n) = case
    baseline = updated_baseline(subject, earlier)
    expected, got = (baseline_values(baseline, each, returns_of(each, total)) for each in (rollout, changed))
    where = torch.zeros_like(rollout.mask)
    where[t, n] = True
    message = "at {step} changes with the action of that step, or with what followed it"
    if not earlier and (share := _shares_of_episodes(subject)[0]):
        message += f" (with {NUM_EPISODES} episodes, {share:.3g} of an episode's own return is subtracted from it)"
    require_close(message, rollout, expected, got, where, extra_columns={"changed reward": changed.rewards})


def _shares_of_episodes(subject: Subject) -> list[float]:
    """The share of each of `NUM_EPISODES` episodes in the first one's baseline; 0 if it refuses so few."""
    if "shares" not in subject.cache:
        try:
            subject.cache["shares"] = [share_of_return(subject, episode) for episode in range(NUM_EPISODES)]
        except PartError:
            subject.cache["shares"] = [0.0] * NUM_EPISODES
    return list(subject.cache["shares"])


@law("baseline", source=f"{CONTRACT}; {NEUTRALITY}", cases=_changed_from_a_step)
def baselines_see_the_future_only_through_mean_returns(
    subject: Subject, case: tuple[Any, Rollout, tuple[int, int]]
) -> None:
    """The baseline at step t depends on the action at t, and on what happened afterwards, only through the returns.

    And it depends on returns only as a mean over several episodes, or a fit to them, does: with four episodes, less
    than the whole return of an episode is subtracted from it, and the other episodes contribute, too. The bias that
    this causes is reported by the law of neutral baselines, which do not depend on their own return at all.
    """
    (rollout, earlier, total), changed, (t, n) = case
    baseline, returns = updated_baseline(subject, earlier), returns_of(rollout, total)
    future_changed = evolve(changed, rewards=rollout.rewards)
    expected, got = (baseline_values(baseline, each, returns) for each in (rollout, future_changed))
    where = torch.zeros_like(rollout.mask)
    where[t, n] = True
    require_close(
        "at {step} changes with the action of that step, or with what followed it, other than through the returns",
        rollout,
        expected,
        got,
        where,
    )
    share, *other_shares = _shares_of_episodes(subject)
    largest = max(other_shares, key=abs)
    if share > 1 - ROUNDING or (abs(share) > ROUNDING >= abs(largest)):
        raise Broken(
            f"is not a mean: with {NUM_EPISODES} episodes, {share:.3g} of an episode's own return is subtracted from "
            f"it, and {largest:.3g} of another's",
            expected="less than 1 of its own return, and a share of the others'",
            got=share,
        )
