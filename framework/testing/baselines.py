"""Laws of baselines: what every one keeps to, what those with state do, and what the claims promise.

A baseline is handed a rollout and returns. The returns that laws hand over are undiscounted rewards to go, or each
episode's total, made anew where rewards are changed; a baseline with state has mostly seen another rollout before.
"""

from typing import Any

import torch
from attrs import evolve, fields
from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from ..contracts import Rollout
from ..errors import PartError
from ..returns import going_on, rewards_to_go
from .concerns import claims, needs
from .estimators import as_dtype, copied, following, in_order
from .law import Broken, Subject, law
from .seeing import as_box, needs_box, seen
from .strategies import Episode, assemble, permute_lanes, quarters, rollouts, tables_of
from .telling import ROUNDING, rows, same

CONTRACT = "docs/reference/contracts.md#baseline"
PADDING = "docs/reference/contracts.md#padding"
NEUTRALITY = "Sutton & Barto 2018, eq. 13.10; Greensmith et al. 2004, JMLR 5, theorem 8"


# What is drawn


def stories(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """Rollouts that the part may be handed, of at least two episodes (in each group)."""
    whole, values, grouped = (subject.says("needs", word) for word in ("complete_episodes", "values", "groups"))
    asked = {"whole": whole or None, "values": values or None, "min_episodes": 2}
    either = st.just(True) if grouped else st.booleans()
    return seen(subject, either.flatmap(lambda groups: rollouts(**asked | {"groups": groups} | options)))


@st.composite
def judged(draw: DrawFn, subject: Subject, whole: bool = False) -> tuple[Rollout, Rollout | None, bool]:
    """A rollout; an earlier one, of the same lanes, or None; and whether returns are totals."""
    rollout = draw(stories(subject, whole=True) if whole else stories(subject))
    earlier = None
    if hasattr(subject.make(), "update") and draw(st.booleans()):
        lanes = rollout.mask.shape[1]
        alike: dict[str, Any] = {"min_lanes": lanes, "max_lanes": lanes, "groups": rollout.groups is not None}
        before = rollouts(whole=True, values=rollout.values is not None, min_episodes=2, **alike)
        earlier = draw(seen(subject, before))
    return rollout, earlier, draw(st.booleans())


def returns_of(rollout: Rollout, total: bool = False) -> Tensor:
    """Undiscounted rewards to go `[T, N]`, to the rollout's edge at most; or each episode's total; 0 in padding."""
    going = going_on(rollout.terminated, rollout.truncated, rollout.mask)
    returns = rewards_to_go(rollout.rewards, ~going, 1.0)
    if total:
        index = (rollout.episodes * rollout.mask).flatten()
        sums = torch.bincount(index, (rollout.rewards * rollout.mask).flatten().double())
        returns = sums[rollout.episodes].to(returns.dtype)
    return returns.masked_fill(~rollout.mask, 0)


# Calling


def taught(subject: Subject, earlier: Rollout | None) -> Any:
    """A fresh baseline, after it has seen an earlier rollout, if there is one and it is of those that learn."""
    made = subject.make()
    if earlier is not None and hasattr(made, "update"):
        made.update(copied(earlier), returns_of(earlier))
    return made


def subtracted(made: Any, rollout: Rollout, returns: Tensor) -> Tensor:
    """What it says; a rollout that it refuses, as one with too few episodes, is no case."""
    try:
        told: Tensor = made(copied(rollout), returns.clone())
    except PartError:
        reject()
    if not isinstance(told, Tensor) or told.shape != returns.shape:
        shape = list(told.shape) if isinstance(told, Tensor) else type(told).__name__
        raise Broken("has another shape than the returns", expected=list(returns.shape), got=shape, case=rows(rollout))
    return told


# What it hands back


@law("baseline", source=CONTRACT, cases=judged)
def baselines_have_the_returns_shape(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """What is subtracted is a tensor `[T, N]`, time-major, as the returns are: nothing is broadcast later."""
    rollout, earlier, total = case
    subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))


@law("baseline", source=CONTRACT, cases=judged)
def baselines_are_finite(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """They are floating point, and no number is NaN or infinite, in padding either, nor before anything was learnt."""
    rollout, earlier, total = case
    told = subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))
    if not told.is_floating_point():
        raise Broken("is not floating point", expected="a floating dtype", got=told.dtype)
    off = (~told.isfinite()).nonzero()
    if len(off):
        t, n = off[0].tolist()
        raise Broken(
            f"is not finite at step {t} of lane {n}{'' if rollout.mask[t, n] else ', in padding'}",
            expected="a finite number",
            got=float(told[t, n]),
            case=rows(rollout, got=told),
        )


@law("baseline", source=CONTRACT, cases=judged, examples=20)
def baselines_carry_no_gradient(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """What is subtracted carries no gradient, not even one to parameters of the baseline's own."""
    rollout, earlier, total = case
    with torch.enable_grad():
        told = subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))
    if told.requires_grad:
        raise Broken("carries a gradient", expected="none", got=str(told.grad_fn), case=rows(rollout))


@law("baseline", source=CONTRACT, cases=judged)
def baselines_leave_what_they_are_handed(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Neither the rollout nor the returns are written to, by the call or by `update`."""
    rollout, earlier, total = case
    made, returns = taught(subject, earlier), returns_of(rollout, total)
    handed, given = copied(rollout), returns.clone()
    try:
        made(handed, given)
    except PartError:
        reject()
    if hasattr(made, "update"):
        made.update(handed, given)
    if not torch.equal(given, returns):
        raise Broken("writes into the returns", case=rows(rollout, expected=returns, got=given))
    for field in fields(Rollout):
        before, after = getattr(rollout, field.name), getattr(handed, field.name)
        if before is not None and not torch.equal(before, after):
            told = {"expected": before, "got": after} if before.shape == rollout.mask.shape else {}
            raise Broken(f"writes into the rollout's {field.name}", case=rows(rollout, **told))


@law("baseline", source=CONTRACT, cases=lambda subject: st.tuples(judged(subject), judged(subject)), examples=30)
def calling_teaches_nothing(subject: Subject, case: tuple[Any, Any]) -> None:
    """What it says does not change with what else it was asked meanwhile: only `update` teaches."""
    (rollout, earlier, total), (other, _, _) = case
    returns = returns_of(rollout, total)
    made = taught(subject, earlier)
    first = subtracted(made, rollout, returns).clone()
    subtracted(made, other, returns_of(other))
    again = subtracted(made, rollout, returns)
    same("at {step} says something else when asked again", rollout, first, again)


# What it may depend on


@law("baseline", source=PADDING, cases=lambda subject: st.tuples(judged(subject, whole=True), st.integers(0, 2)))
def padding_is_not_averaged(subject: Subject, case: tuple[Any, int]) -> None:
    """More padding, and whatever the returns are in it, change no real step: padding is no episode's."""
    (rollout, earlier, total), extra = case
    told: dict[str, Any] = {
        name: torch.cat([column, torch.zeros_like(column[:1]).expand(extra, *column.shape[1:])])
        for name, column in tables_of(rollout).items()
    }
    longer = evolve(rollout, **told)
    returns = returns_of(rollout, total)
    more = returns_of(longer, total).masked_fill(~longer.mask, 64.0)
    made = taught(subject, earlier)
    expected, got = subtracted(made, rollout, returns), subtracted(made, longer, more)[: len(returns)]
    message = f"at {{step}} changes with {extra} row(s) more of padding, in which returns are 64"
    same(message, rollout, expected, got)


@law("baseline", source=CONTRACT, cases=lambda subject: judged(subject).flatmap(_ordered))
def baselines_permute_with_lanes(subject: Subject, case: tuple[Any, list[int]]) -> None:
    """Lanes in another order, with their groups, have their own numbers in that order."""
    (rollout, earlier, total), order = case
    moved, returns = permute_lanes(rollout, order), returns_of(rollout, total)
    made = taught(subject, earlier)
    expected, got = subtracted(made, rollout, returns)[:, order], subtracted(made, moved, returns[:, order])
    same("at {step} changes with the order of lanes", moved, expected, got)


def _ordered(case: tuple[Rollout, Rollout | None, bool]) -> SearchStrategy[tuple[Any, list[int]]]:
    return st.tuples(st.just(case), in_order(st.just(case[0])).map(lambda drawn: drawn[1]))


@law(
    "baseline",
    source="Shao et al. 2024, arXiv:2402.03300, §4.1.1",
    cases=lambda subject: st.tuples(judged(subject), st.integers(0, 1)),
    applies=needs("groups"),
)
def nothing_leaks_between_groups(subject: Subject, case: tuple[Any, int]) -> None:
    """A step's baseline does not change with rewards of another group: they began elsewhere."""
    (rollout, earlier, total), group = case
    where = rollout.mask & (rollout.groups == group)
    changed = evolve(rollout, rewards=rollout.rewards + where.to(rollout.rewards.dtype))
    made = taught(subject, earlier)
    one, two = (subtracted(made, told, returns_of(told, total)) for told in (rollout, changed))
    message = f"at {{step}} changes with the rewards of group {group}"
    same(message, rollout, one, two, ~where, beside={"reward then": changed.rewards})


# Neutral: no part in what it judges


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
    last = later & (rollout.terminated | rollout.truncated)
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


# Linear, and rounding


@law("baseline", source="Sutton & Barto 2018, eq. 13.10", cases=judged, applies=claims("linear"))
def baselines_scale_with_returns(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Rewards (now and in earlier rollouts), returns and the critic's values times c: what is subtracted, times c."""
    rollout, earlier, total = case
    expected = subtracted(taught(subject, earlier), rollout, returns_of(rollout, total))
    for factor in (4.0, -0.5):
        now, before = (None if story is None else _scaled(story, factor) for story in (rollout, earlier))
        assert now is not None
        got = subtracted(taught(subject, before), now, returns_of(now, total))
        message = f"at {{step}} is not {factor} times as much, as the returns are"
        same(message, rollout, factor * expected, got)


def _scaled(rollout: Rollout, factor: float) -> Rollout:
    told: dict[str, Any] = {}
    for name in ("rewards", "values", "successor_values"):
        column = getattr(rollout, name)
        told[name] = None if column is None else factor * column
    return evolve(rollout, **told)


@law("baseline", source=CONTRACT, cases=judged)
def baselines_in_float32_are_near_float64(subject: Subject, case: tuple[Rollout, Rollout | None, bool]) -> None:
    """Of float32 returns it says what it says of the same in float64, to 1e-4 of the largest."""
    rollout, earlier, total = case
    told: list[Tensor] = []
    for dtype in (torch.float64, torch.float32):
        now, before = (None if story is None else as_dtype(story, dtype) for story in (rollout, earlier))
        assert now is not None
        told.append(subtracted(taught(subject, before), now, returns_of(now, total)))
    same("at {step} is another in float32", rollout, told[0], told[1], tolerance=1e-4)


# State


def _learns(subject: Subject) -> str | None:
    made = subject.make()
    has = any(hasattr(made, name) for name in ("update", "state_dict", "load_state_dict"))
    return None if has else "it has no state"


@st.composite
def _in_turn(draw: DrawFn, subject: Subject) -> list[Rollout]:
    """Three rollouts of the same lanes, as a run collects them."""
    first = draw(stories(subject, whole=True))
    lanes, groups, values = first.mask.shape[1], first.groups is not None, first.values is not None
    more = rollouts(whole=True, values=values, min_lanes=lanes, max_lanes=lanes, min_episodes=2, groups=groups)
    return [first, draw(seen(subject, more)), draw(seen(subject, more))]


@law("baseline", source=CONTRACT, cases=_in_turn, applies=_learns, examples=30)
def state_makes_the_round_trip(subject: Subject, stories: list[Rollout]) -> None:
    """A fresh one that loads the state says the same, then and after a further update; what was saved stays."""
    one, two = subject.make(), subject.make()
    missing = [name for name in ("update", "state_dict", "load_state_dict") if not hasattr(one, name)]
    if missing:
        raise Broken(f"has state, but no {missing[0]}")
    two.load_state_dict(one.state_dict())  # before there is any
    one.update(copied(stories[0]), returns_of(stories[0]))
    saved = one.state_dict()
    for name, entry in saved.items():
        if not isinstance(entry, Tensor):
            raise Broken(f"state_dict: '{name}' is no tensor", expected="a tensor", got=type(entry).__name__)
    kept = {name: entry.clone() for name, entry in saved.items()}
    two.load_state_dict(saved)
    for number, rollout in enumerate(stories[1:]):
        returns = returns_of(rollout)
        expected, got = subtracted(one, rollout, returns), subtracted(two, rollout, returns)
        after = "after loading" if number == 0 else "after a further update"
        same(f"at {{step}}, {after}, says something else than the one whose state it has", rollout, expected, got)
        for made in (one, two):
            made.update(copied(rollout), returns)
    changed = [name for name, entry in saved.items() if not torch.equal(entry, kept[name])]
    if changed:
        raise Broken(f"state_dict: '{changed[0]}' changes after it was saved: later updates write into it")


@law("baseline", source=CONTRACT, cases=_in_turn, applies=_learns, examples=30)
def baselines_of_two_runs_share_nothing(subject: Subject, stories: list[Rollout]) -> None:
    """What one `build` made learns nothing from what another one is taught."""
    one, two = subject.make(), subject.make()
    story, returns = stories[1], returns_of(stories[1])
    before = subtracted(two, story, returns).clone()
    one.update(copied(stories[0]), returns_of(stories[0]))
    same("at {step} knows what another one was taught", story, before, subtracted(two, story, returns))
