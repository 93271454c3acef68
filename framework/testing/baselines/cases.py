"""Cases for laws of baselines, and calls of a baseline.

A baseline is called with a rollout and returns. Laws pass undiscounted rewards to go or the return of each episode,
computed again where rewards are changed. A baseline with state has usually been updated with another rollout before.
"""

from typing import Any

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from ...contracts import Rollout
from ...errors import PartError
from ...returns import continues, episode_sums, rewards_to_go
from ..counterexamples import rows
from ..law import Broken, Subject
from ..observations import with_supported_observations
from ..strategies import copied, rollouts

CONTRACT = "docs/reference/contracts.md#baseline"


def baseline_rollouts(subject: Subject, **options: Any) -> SearchStrategy[Rollout]:
    """Rollouts that the part may be given, with at least two episodes (in each group)."""
    whole, values, grouped = (subject.declares("needs", word) for word in ("complete_episodes", "values", "groups"))
    defaults = {"whole": whole or None, "values": values or None, "min_episodes": 2}
    grouping = st.just(True) if grouped else st.booleans()
    return with_supported_observations(
        subject, grouping.flatmap(lambda groups: rollouts(**defaults | {"groups": groups} | options))
    )


@st.composite
def baseline_cases(draw: DrawFn, subject: Subject, whole: bool = False) -> tuple[Rollout, Rollout | None, bool]:
    """A rollout; an earlier rollout of the same lanes, or None; and whether returns are those of whole episodes."""
    rollout = draw(baseline_rollouts(subject, whole=True) if whole else baseline_rollouts(subject))
    earlier = None
    if hasattr(subject.make(), "update") and draw(st.booleans()):
        lanes = rollout.mask.shape[1]
        same_lanes: dict[str, Any] = {"min_lanes": lanes, "max_lanes": lanes, "groups": rollout.groups is not None}
        earlier_rollouts = rollouts(whole=True, values=rollout.values is not None, min_episodes=2, **same_lanes)
        earlier = draw(with_supported_observations(subject, earlier_rollouts))
    return rollout, earlier, draw(st.booleans())


def returns_of(rollout: Rollout, total: bool = False) -> Tensor:
    """Undiscounted rewards to go `[T, N]` within the rollout, or each episode's return; 0 in padding."""
    continuing = continues(rollout.terminated, rollout.truncated, rollout.mask)
    returns = rewards_to_go(rollout.rewards, ~continuing, 1.0)
    if total:
        sums, _ = episode_sums(rollout.rewards, rollout.episodes, rollout.mask)
        returns = sums[rollout.episodes].to(returns.dtype)
    return returns.masked_fill(~rollout.mask, 0)


# Calling


def updated_baseline(subject: Subject, earlier: Rollout | None) -> Any:
    """A new baseline, updated with the earlier rollout if there is one and the baseline has `update`."""
    baseline = subject.make()
    if earlier is not None and hasattr(baseline, "update"):
        baseline.update(copied(earlier), returns_of(earlier))
    return baseline


def baseline_values(baseline: Any, rollout: Rollout, returns: Tensor) -> Tensor:
    """The result of a baseline; rejects the case if the baseline refuses it, for example for too few episodes."""
    try:
        values: Tensor = baseline(copied(rollout), returns.clone())
    except PartError:
        reject()
    if not isinstance(values, Tensor) or values.shape != returns.shape:
        shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise Broken("has another shape than the returns", expected=list(returns.shape), got=shape, case=rows(rollout))
    return values
