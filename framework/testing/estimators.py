"""Laws of return estimators: what every one keeps to, what some claim, and what names of settings promise."""

from typing import Any

import torch
from attrs import evolve, fields
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ..contracts import Estimate, Rollout
from ..returns import discounted_sums, going_on
from .concerns import allows, claims, needs, set_to, settings_named
from .law import Broken, Subject, law
from .seeing import seen
from .strategies import excerpt, permute_lanes, quarters, rollouts, tables_of
from .telling import ROUNDING, rows, same

CONTRACT = "docs/reference/contracts.md#estimator"
FLAGS = "docs/reference/contracts.md#terminated-and-truncated"
PADDING = "docs/reference/contracts.md#padding"
TIME_LIMITS = "Pardo et al. 2018, arXiv:1712.00378, §2 and §3"
BEYOND = 20  # steps, more than any rollout has here
COLUMNS = ("returns", "value_targets", "weights")


# What is drawn


def stories(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """Rollouts that the part may be handed: whole episodes, or with a critic's values, where it needs them."""
    asked = {"whole": subject.says("needs", "complete_episodes") or None, "values": _bootstraps(subject) or None}
    return seen(subject, rollouts(**asked | options))


def complete(subject: Subject) -> SearchStrategy[Rollout]:
    """Of whole episodes."""
    return stories(subject, whole=True)


def on_policy(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """Of the policy that is learnt: nothing is corrected for. Where episodes must be whole, the world ends each."""

    def told(rollout: Rollout) -> Rollout:
        ends = rollout.terminated | rollout.truncated
        columns: dict[str, Any] = {}
        if rollout.target_log_probs is not None:
            columns["target_log_probs"] = rollout.log_probs.clone()
        if subject.says("needs", "complete_episodes") and rollout.successor_values is not None:
            columns |= {"terminated": ends, "truncated": ends & False}
            columns["successor_values"] = rollout.successor_values.masked_fill(ends, 0)
        return evolve(rollout, **columns)

    return stories(subject, **options).map(told)


def with_another(subject: Subject) -> SearchStrategy[tuple[Rollout, Rollout]]:
    """A rollout, and the same one with other numbers (rewards; values; log-probs) in all its steps."""
    return stories(subject).flatmap(lambda rollout: st.tuples(st.just(rollout), _retold(rollout)))


@st.composite
def followed(draw: st.DrawFn, subject: Subject, end: str) -> tuple[Rollout, Rollout]:
    """With another: all episodes end in this way, and one of them is followed by a further one in its lane."""
    rollout = draw(stories(subject, min_episodes=3, max_lanes=2))
    ends, never = rollout.terminated | rollout.truncated, torch.zeros_like(rollout.terminated)
    flags: dict[str, Any] = {"terminated": never, "truncated": never, end: ends}
    if rollout.successor_values is not None:
        flags["successor_values"] = rollout.successor_values.masked_fill(flags["terminated"], 0)
    rollout = evolve(rollout, **flags)
    return rollout, draw(_retold(rollout))


@st.composite
def _retold(draw: st.DrawFn, rollout: Rollout) -> Rollout:
    mask, count = rollout.mask, int(rollout.mask.sum())
    names = ("rewards", "values", "successor_values", "log_probs", "target_log_probs")
    numbers = torch.tensor(draw(quarters(count * len(names))), dtype=rollout.rewards.dtype)
    numbers = numbers.reshape(count, len(names)).T  # step by step: fewer steps have the same numbers
    told: dict[str, Any] = {}
    for name, row in zip(names, numbers, strict=True):
        column = getattr(rollout, name)
        if column is not None:
            told[name] = column.clone()
            told[name][mask] += -row.abs() if name.endswith("log_probs") else row
    if rollout.values is not None:
        told["successor_values"] = following(rollout, told["values"], told["successor_values"])
    return evolve(rollout, **told)


def following(rollout: Rollout, values: Tensor, beyond: Tensor) -> Tensor:
    """V(s′) `[T, N]`: the next row's value, `beyond` where the trace is cut, 0 where the world ended."""
    shifted = torch.cat([values[1:], torch.zeros_like(values[:1])])
    going = going_on(rollout.terminated, rollout.truncated, rollout.mask)
    return torch.where(going, shifted, beyond).masked_fill(rollout.terminated | ~rollout.mask, 0)


def mixed(rollout: Rollout, other: Rollout, where: Tensor) -> Rollout:
    """`rollout` with the numbers of `other` at the steps `where` [T, N], its successors' values to match."""
    told: dict[str, Any] = {}
    for name in ("rewards", "values", "successor_values", "log_probs", "target_log_probs"):
        mine, theirs = getattr(rollout, name), getattr(other, name)
        if mine is not None:
            told[name] = torch.where(where, theirs, mine)
    if rollout.values is not None:
        told["successor_values"] = following(rollout, told["values"], told["successor_values"])
    return evolve(rollout, **told)


# Calling, and whom a law concerns


def copied(rollout: Rollout) -> Rollout:
    """The same, in tensors of its own: whoever writes into them changes no counterexample."""
    columns: dict[str, Any] = {field.name: getattr(rollout, field.name) for field in fields(Rollout)}
    mine: dict[str, Any] = {name: None if column is None else column.clone() for name, column in columns.items()}
    return Rollout(**mine)


def estimate(subject: Subject, rollout: Rollout) -> Estimate:
    """What the part makes of a rollout."""
    made: Estimate = subject.make()(copied(rollout))
    if not isinstance(made, Estimate):
        raise Broken(f"returns {type(made).__name__}, not an Estimate", expected="Estimate", got=type(made).__name__)
    return made


def columns_of(made: Estimate) -> dict[str, Tensor]:
    """Returns, value targets, and weights where there are some."""
    return {name: getattr(made, name) for name in COLUMNS if getattr(made, name) is not None}


def alike(
    message: str, rollout: Rollout, expected: Estimate, got: Estimate, where: Tensor | None = None, **options: Any
) -> None:
    """Refuse an estimate that is not as expected; `{column}` in the message is which of its columns."""
    for name, column in columns_of(expected).items():
        other = getattr(got, name)
        if other is None or other.shape != column.shape:
            shape = None if other is None else list(other.shape)
            raise Broken(f"{name} change their shape", expected=list(column.shape), got=shape, case=rows(rollout))
        same(message.replace("{column}", name.replace("_", " ")), rollout, column, other, where, **options)


def _bootstraps(subject: Subject) -> bool:
    return subject.says("needs", "values")


def _cuts_traces(subject: Subject) -> str | None:
    if not _bootstraps(subject):
        return "it does not bootstrap: it needs no values"
    if subject.says("needs", "complete_episodes"):
        return "it needs complete episodes, and takes every end for the end of the rewards"
    return "it discounts what follows to nothing" if getattr(subject.settings, "gamma", 1) == 0 else None


# What it hands back


@law("estimator", source=CONTRACT, cases=stories)
def estimates_have_the_rollouts_shape(subject: Subject, rollout: Rollout) -> None:
    """Returns, value targets and weights are tensors `[T, N]`, time-major, as the rollout is."""
    for name, column in columns_of(estimate(subject, rollout)).items():
        shape = list(column.shape) if isinstance(column, Tensor) else type(column).__name__
        if shape != list(rollout.mask.shape):
            raise Broken(f"{name} have another shape", expected=list(rollout.mask.shape), got=shape, case=rows(rollout))


@law("estimator", source=CONTRACT, cases=stories)
def estimates_have_the_rewards_dtype(subject: Subject, rollout: Rollout) -> None:
    """Returns, value targets and weights have the dtype of the rewards, float32 and float64 alike."""
    for dtype in (torch.float32, torch.float64):
        for name, column in columns_of(estimate(subject, as_dtype(rollout, dtype))).items():
            if column.dtype != dtype:
                raise Broken(f"{name} of {dtype} rewards have another dtype", expected=dtype, got=column.dtype)


@law("estimator", source=CONTRACT, cases=stories)
def estimates_are_finite(subject: Subject, rollout: Rollout) -> None:
    """No number is NaN or infinite, also in padding, where it is not used but would spoil sums that are masked."""
    for name, column in columns_of(estimate(subject, rollout)).items():
        off = (~column.isfinite()).nonzero()
        if len(off):
            t, n = off[0].tolist()
            place = "" if rollout.mask[t, n] else ", in padding"
            raise Broken(
                f"{name} are not finite at step {t} of lane {n}{place}",
                expected="a finite number",
                got=float(column[t, n]),
                case=rows(rollout, got=column),
            )


@law("estimator", source=CONTRACT, cases=stories, examples=20)
def estimates_carry_no_gradient(subject: Subject, rollout: Rollout) -> None:
    """Nothing that comes out carries a gradient, not even one to parameters of the estimator's own."""
    with torch.enable_grad():
        made = estimate(subject, rollout)
    for name, column in columns_of(made).items():
        if column.requires_grad:
            raise Broken(f"{name} carry a gradient", expected="none", got=str(column.grad_fn), case=rows(rollout))


@law("estimator", source=CONTRACT, cases=stories)
def estimators_leave_the_rollout_as_it_was(subject: Subject, rollout: Rollout) -> None:
    """Nothing of what is handed in is written to."""
    handed = copied(rollout)
    subject.make()(handed)
    for field in fields(Rollout):
        before, after = getattr(rollout, field.name), getattr(handed, field.name)
        if before is not None and not torch.equal(before, after):
            told = {"expected": before, "got": after} if before.shape == rollout.mask.shape else {}
            raise Broken(f"writes into the rollout's {field.name}", case=rows(rollout, **told))


@law("estimator", source=CONTRACT, cases=with_another, examples=30)
def estimators_remember_nothing(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The same rollout gives the same estimate, whatever other one came between."""
    rollout, other = case
    made = subject.make()
    first = made(copied(rollout))
    first = Estimate(**{name: column.clone() for name, column in columns_of(first).items()})
    made(copied(other))
    alike("{column} at {step} are others when asked again", rollout, first, made(copied(rollout)))


# What a step's numbers may depend on


@law("estimator", source="Sutton & Barto 2018, §3.4", cases=lambda subject: followed(subject, "terminated"))
def nothing_leaks_over_a_termination(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """Where the world ended, nothing of the next episode in the lane reaches back."""
    _leak(subject, case, case[0].terminated, "a termination")


@law("estimator", source=TIME_LIMITS, cases=lambda subject: followed(subject, "truncated"))
def nothing_leaks_over_a_truncation(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """Where time ran out, nothing of the next episode in the lane reaches back: both flags cut the trace."""
    _leak(subject, case, case[0].truncated & ~case[0].terminated, "a truncation")


def _then(changed: Rollout) -> dict[str, Tensor | None]:
    """Beside a story, what is told otherwise."""
    return {"reward then": changed.rewards, "V(s) then": changed.values}


def _leak(subject: Subject, case: tuple[Rollout, Rollout], ends: Tensor, what: str) -> None:
    """Change all that follows the first of `ends` in each lane; what came up to it keeps its numbers."""
    rollout, other = case
    after = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]]).cumsum(0) > 0
    before = ends.any(0) & ~after
    changed = mixed(rollout, other, after & rollout.mask)
    message = f"{{column}} at {{step}} change with what follows {what}"
    told = _then(changed)
    alike(message, rollout, estimate(subject, rollout), estimate(subject, changed), before, beside=told)


@law("estimator", source=CONTRACT, cases=with_another)
def nothing_leaks_between_lanes(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """A lane's numbers do not change with those of another lane."""
    rollout, other = case
    where = torch.zeros_like(rollout.mask)
    where[:, -1] = True
    changed = mixed(rollout, other, where & rollout.mask)
    message = "{column} at {step} change with another lane's numbers"
    told = _then(changed)
    alike(message, rollout, estimate(subject, rollout), estimate(subject, changed), ~where, beside=told)


@law("estimator", source=CONTRACT, cases=with_another)
def value_targets_do_not_look_back(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """What a critic should predict of a state does not depend on the rewards that came before it."""
    _looks_back(subject, case, ("value_targets",))


@law("estimator", source="Sutton & Barto 2018, eq. 3.8 and §13.3", cases=with_another, applies=claims("causal"))
def returns_do_not_look_back(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """The return at t does not depend on what came before t: an action cannot change the past."""
    _looks_back(subject, case, ("returns", "weights"))


def _looks_back(subject: Subject, case: tuple[Rollout, Rollout], names: tuple[str, ...]) -> None:
    rollout, other = case
    for t in range(1, len(rollout.mask)):
        earlier = torch.arange(len(rollout.mask))[:, None] < t
        changed = mixed(rollout, other, earlier & rollout.mask)
        one, two = columns_of(estimate(subject, rollout)), columns_of(estimate(subject, changed))
        for name in (name for name in names if name in one):
            message = f"{name.replace('_', ' ')} at {{step}} change with what came before step {t}"
            told = _then(changed)
            same(message, rollout, one[name], two[name], ~earlier.expand_as(rollout.mask), beside=told)


def in_order(stories: SearchStrategy[Rollout]) -> SearchStrategy[tuple[Rollout, list[int]]]:
    """A rollout, and an order of its lanes."""
    return stories.flatmap(lambda told: st.tuples(st.just(told), st.permutations(range(told.mask.shape[1]))))


@law("estimator", source=CONTRACT, cases=lambda subject: in_order(stories(subject)))
def lanes_permute(subject: Subject, case: tuple[Rollout, list[int]]) -> None:
    """Lanes in another order have their own numbers in that order."""
    rollout, order = case
    moved = permute_lanes(rollout, order)
    made = {name: column[:, order] for name, column in columns_of(estimate(subject, rollout)).items()}
    alike("{column} at {step} change with the order of lanes", moved, Estimate(**made), estimate(subject, moved))


@law("estimator", source=CONTRACT, cases=stories, examples=15)
def how_many_lanes_there_are_changes_nothing(subject: Subject, rollout: Rollout) -> None:
    """A lane alone, and one of three hundred, has the numbers that it has among a few."""
    lanes = rollout.mask.shape[1]
    whole = estimate(subject, rollout)
    for chosen in ([0], [n % lanes for n in range(300)]):
        some = excerpt(rollout, lanes=chosen)
        made = Estimate(**{name: column[:, chosen] for name, column in columns_of(whole).items()})
        message = f"{{column}} at {{step}} of {len(chosen)} lanes are others than of {lanes}"
        alike(message, some, made, estimate(subject, some))


@law("estimator", source=PADDING, cases=lambda subject: st.tuples(complete(subject), st.integers(1, 3)))
def padding_is_inert(subject: Subject, case: tuple[Rollout, int]) -> None:
    """More padding below changes no real step."""
    rollout, extra = case
    told: dict[str, Any] = {
        name: torch.cat([column, torch.zeros_like(column[:1]).expand(extra, *column.shape[1:])])
        for name, column in tables_of(rollout).items()
    }
    longer = estimate(subject, evolve(rollout, **told))
    cut = Estimate(**{name: column[: len(rollout.mask)] for name, column in columns_of(longer).items()})
    message = f"{{column}} at {{step}} change with {extra} row(s) more of padding"
    alike(message, rollout, estimate(subject, rollout), cut)


@st.composite
def _pieces(draw: st.DrawFn, subject: Subject) -> tuple[Rollout, Rollout]:
    """One rollout in whose last row every lane ends, and another one of the same lanes."""
    first = draw(stories(subject))
    lengths = (first.mask * torch.arange(1, len(first.mask) + 1)[:, None]).amax(0)
    first = excerpt(first, rows=slice(0, int(lengths.min())))
    ended = first.terminated.clone()
    ended[-1] |= first.mask[-1] & ~first.truncated[-1]
    told = {"terminated": ended}
    if first.values is not None:
        told["successor_values"] = first.successor_values.masked_fill(ended, 0)  # type: ignore[union-attr]
    lanes = first.mask.shape[1]
    second = draw(stories(subject, min_lanes=lanes, max_lanes=lanes, values=first.values is not None))
    begun = second.episodes == second.episodes[:1]  # nothing is carried over into it
    return evolve(first, **told), evolve(second, times=(second.times - second.times[:1] * begun) * second.mask)


@law("estimator", source=CONTRACT, cases=_pieces)
def a_long_rollout_is_its_pieces(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """Two rollouts, one below the other, have the numbers that each has alone, where every lane ends in between."""
    first, second = case
    numbers = int(first.episodes.max()) + 1
    tables = {"episodes": (second.episodes + numbers) * second.mask}
    told: dict[str, Any] = {
        name: torch.cat([column, tables.get(name, getattr(second, name))]) for name, column in tables_of(first).items()
    }
    together = evolve(first, **told)
    alone = [columns_of(estimate(subject, piece)) for piece in case]
    expected = Estimate(**{name: torch.cat([column, alone[1][name]]) for name, column in alone[0].items()})
    message = f"{{column}} at {{step}} are others where {len(first.mask)} rows and {len(second.mask)} are told at once"
    alike(message, together, expected, estimate(subject, together))


# How an episode ends


@law("estimator", source=FLAGS, cases=stories)
def the_worlds_end_wins(subject: Subject, rollout: Rollout) -> None:
    """Terminated and truncated at once is terminated."""
    ended = evolve(rollout, truncated=rollout.truncated & ~rollout.terminated)
    both = evolve(rollout, truncated=rollout.truncated | rollout.terminated)
    message = "{column} at {step} are others where time ran out in the step that ended the world"
    alike(message, both, estimate(subject, ended), estimate(subject, both))


@law(
    "estimator",
    source=FLAGS,
    cases=stories,
    applies=lambda subject: (
        "it bootstraps: it needs values, and no complete episodes"
        if _bootstraps(subject) and not subject.says("needs", "complete_episodes")
        else None
    ),
)
def a_truncation_ends_what_it_sums(subject: Subject, rollout: Rollout) -> None:
    """An estimator without a critic takes a truncation for the end: its objective is the return within the limit.

    So does one that needs complete episodes: where its critic expects nothing beyond, either end is the same to it.
    """
    ends = rollout.terminated | rollout.truncated
    if rollout.successor_values is not None:
        rollout = evolve(rollout, successor_values=rollout.successor_values.masked_fill(ends, 0))
    terminated = evolve(rollout, terminated=ends, truncated=ends & False)
    truncated = evolve(rollout, terminated=ends & False, truncated=ends)
    message = "{column} at {step} are others where episodes are truncated than where they terminate"
    alike(message, truncated, estimate(subject, terminated), estimate(subject, truncated))


@law(
    "estimator",
    source=f"{TIME_LIMITS}; {FLAGS}",
    cases=lambda subject: stories(subject, values=True),
    applies=_cuts_traces,
)
def a_truncation_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """Where time ran out, what the critic says of the true successor counts: a higher value there, a higher return."""
    _bootstrapped(subject, rollout, rollout.truncated & ~rollout.terminated, "a truncation")


@law(
    "estimator",
    source=FLAGS,
    cases=lambda subject: stories(subject, values=True, whole=False),
    applies=_cuts_traces,
)
def the_edge_bootstraps(subject: Subject, rollout: Rollout) -> None:
    """Where a rollout is cut and the episode goes on, what the critic says of the next state counts."""
    going = rollout.mask & ~rollout.terminated & ~rollout.truncated
    going[:-1] = False
    _bootstrapped(subject, rollout, going, "the rollout's edge")


def _bootstrapped(subject: Subject, rollout: Rollout, where: Tensor, what: str) -> None:
    assert rollout.successor_values is not None
    raised = evolve(rollout, successor_values=rollout.successor_values + where.to(rollout.rewards.dtype))
    one, two = (estimate(subject, told).returns for told in (rollout, raised))
    off = (where & ~(two > one + 1e-9)).nonzero()
    if len(off):
        t, n = off[0].tolist()
        raise Broken(
            f"the return at step {t} of lane {n}, {what}, does not rise by one more for its successor's value",
            expected=f"more than {float(one[t, n])}",
            got=float(two[t, n]),
            case=rows(rollout, **{"V(s′) then": raised.successor_values, "return": one, "return then": two}),
        )


# In what it is linear


@law("estimator", source="Sutton & Barto 2018, eq. 3.8", cases=stories, applies=claims("linear"))
def estimates_scale_with_rewards(subject: Subject, rollout: Rollout) -> None:
    """Rewards and the critic's values times c: returns and value targets times c, and weights as they were."""
    made = estimate(subject, rollout)
    for factor in (4.0, 0.5, -1.0):
        told = {"rewards": factor * rollout.rewards}
        for name in ("values", "successor_values"):
            column = getattr(rollout, name)
            told |= {} if column is None else {name: factor * column}
        expected = Estimate(factor * made.returns, factor * made.value_targets, made.weights)
        message = f"{{column}} at {{step}} are not {factor} times as much, as the rewards are"
        alike(message, rollout, expected, estimate(subject, evolve(rollout, **told)))


def _two_columns(subject: Subject) -> SearchStrategy[tuple[Rollout, Rollout]]:
    def sum_of(rollout: Rollout) -> SearchStrategy[Rollout]:
        told = _retold(rollout)
        return told.map(lambda o: evolve(o, log_probs=rollout.log_probs, target_log_probs=rollout.target_log_probs))

    return stories(subject).flatmap(lambda rollout: st.tuples(st.just(rollout), sum_of(rollout)))


@law("estimator", source="Sutton & Barto 2018, eq. 3.8", cases=_two_columns, applies=claims("linear"))
def estimates_of_a_sum_are_the_sum_of_estimates(subject: Subject, case: tuple[Rollout, Rollout]) -> None:
    """Rewards (and values) that are the sum of two tables have the sum of their returns and value targets.

    So does a constant that is added to every reward: it adds its own return, whatever the others are.
    """
    first, second = case
    told: dict[str, Any] = {"rewards": first.rewards + second.rewards}
    for name in ("values", "successor_values"):
        if getattr(first, name) is not None:
            told[name] = getattr(first, name) + getattr(second, name)
    one, two, both = (estimate(subject, story) for story in (first, second, evolve(first, **told)))
    expected = Estimate(one.returns + two.returns, one.value_targets + two.value_targets)
    got = Estimate(both.returns, both.value_targets)
    alike("{column} at {step} of a sum are not the sum", first, expected, got, beside={"second reward": second.rewards})


# What names of settings promise


def to_go(rollout: Rollout, gamma: float) -> Tensor:
    """Σₖ γᵏ·rₜ₊ₖ to the end of the trace `[T, N]`, and γᵏ·V of the state beyond it, where there is a critic."""
    going = going_on(rollout.terminated, rollout.truncated, rollout.mask).to(rollout.rewards.dtype)
    beyond = 0 if rollout.successor_values is None else (1 - going) * rollout.successor_values
    return discounted_sums(rollout.rewards + gamma * beyond, gamma * going)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 3.8",
    cases=on_policy,
    applies=settings_named("gamma", also=[claims("causal")], gamma=0.0),
)
def gamma_zero_is_the_immediate_reward(subject: Subject, rollout: Rollout) -> None:
    """γ = 0: each step's return is its reward."""
    got = estimate(set_to(subject, gamma=0.0), rollout).returns
    same("with gamma = 0 the return at {step} is not its reward", rollout, rollout.rewards, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 3.8",
    cases=lambda subject: on_policy(subject, whole=True),
    applies=settings_named("gamma", also=[needs("complete_episodes"), claims("causal")]),
)
def a_reward_is_discounted_once_a_step(subject: Subject, rollout: Rollout) -> None:
    """A reward k steps ahead counts γᵏ times, up to the end of its own episode; with γ = 1, as it is."""
    gamma = subject.settings.gamma
    expected = to_go(evolve(rollout, successor_values=None), gamma)
    got = estimate(subject, rollout).returns
    same(f"the return at {{step}} is not the sum of γᵏ·r with γ = {gamma}", rollout, expected, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 12.18",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "lam", also=[needs("values")], lam=1.0),
)
def lambda_one_is_monte_carlo(subject: Subject, rollout: Rollout) -> None:
    """λ = 1: all rewards to the end of the trace, and the critic's word on what lies beyond it."""
    gamma = subject.settings.gamma
    got = estimate(set_to(subject, lam=1.0), rollout).returns
    same(f"with lam = 1 and gamma = {gamma} the return at {{step}} is not the sum", rollout, to_go(rollout, gamma), got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 12.18 and 6.2",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "lam", also=[needs("values")], lam=0.0),
)
def lambda_zero_is_one_step(subject: Subject, rollout: Rollout) -> None:
    """λ = 0: one reward, and γ·V of its successor. With weights, as V-trace has, that may be the value target instead.

    There the return is one reward and γ times the next state's value target (Espeholt et al. 2018, arXiv:1802.01561,
    §4.2).
    """
    _one_step(set_to(subject, lam=0.0), rollout, "lam = 0")


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 7.1 and 6.2",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "n", also=[needs("values")], n=1),
)
def n_of_one_is_one_step(subject: Subject, rollout: Rollout) -> None:
    """n = 1: one reward, and γ·V of its successor."""
    _one_step(set_to(subject, n=1), rollout, "n = 1")


def _one_step(subject: Subject, rollout: Rollout, what: str) -> None:
    assert rollout.successor_values is not None
    expected = rollout.rewards + subject.settings.gamma * rollout.successor_values
    made = estimate(subject, rollout)
    targets = made.weights is not None and bool(((made.value_targets - expected)[rollout.mask].abs() <= ROUNDING).all())
    got = made.value_targets if targets else made.returns
    message = f"with {what} and gamma = {subject.settings.gamma} the return at {{step}} is not r + γ·V(s′)"
    same(message, rollout, expected, got)


@law(
    "estimator",
    source="Sutton & Barto 2018, eq. 7.1",
    cases=lambda subject: on_policy(subject, values=True),
    applies=settings_named("gamma", "n", also=[needs("values")], n=BEYOND),
)
def n_beyond_the_end_is_monte_carlo(subject: Subject, rollout: Rollout) -> None:
    """n no less than the rollout's steps: all rewards, and the critic's word on what lies beyond them."""
    gamma, expected = subject.settings.gamma, to_go(rollout, subject.settings.gamma)
    for n in (n for n in (len(rollout.mask), BEYOND) if allows(subject, n=n)):
        got = estimate(set_to(subject, n=n), rollout).returns
        same(f"with n = {n} and gamma = {gamma} the return at {{step}} is not the sum", rollout, expected, got)


# Rounding


def as_dtype(rollout: Rollout, dtype: torch.dtype) -> Rollout:
    """Rewards, values and log-probs in another dtype."""
    told: dict[str, Any] = {}
    for name in ("rewards", "values", "successor_values", "log_probs", "target_log_probs"):
        column = getattr(rollout, name)
        told[name] = None if column is None else column.to(dtype)
    return evolve(rollout, **told)


@law("estimator", source=CONTRACT, cases=stories)
def float32_is_near_float64(subject: Subject, rollout: Rollout) -> None:
    """In float32 the numbers are those of float64, to 1e-4 of the largest: stories have ten steps of size 2 at most."""
    single, double = (estimate(subject, as_dtype(rollout, dtype)) for dtype in (torch.float32, torch.float64))
    alike("{column} at {step} are others in float32", rollout, double, single, tolerance=1e-4)
