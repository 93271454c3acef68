"""Laws of baselines with state."""

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from torch import Tensor

from ...contracts import Rollout
from ..counterexamples import require_close
from ..law import Broken, Subject, law
from ..observations import with_supported_observations
from ..strategies import copied, rollouts
from .cases import CONTRACT, baseline_rollouts, baseline_values, returns_of


def _has_state(subject: Subject) -> str | None:
    baseline = subject.make()
    stateful = any(hasattr(baseline, name) for name in ("update", "state_dict", "load_state_dict"))
    return None if stateful else "it has no state"


@st.composite
def _successive_rollouts(draw: DrawFn, subject: Subject) -> list[Rollout]:
    """Three rollouts of the same lanes, as collected in a run."""
    first = draw(baseline_rollouts(subject, whole=True))
    lanes, groups, values = first.mask.shape[1], first.groups is not None, first.values is not None
    more = rollouts(whole=True, values=values, min_lanes=lanes, max_lanes=lanes, min_episodes=2, groups=groups)
    return [first, draw(with_supported_observations(subject, more)), draw(with_supported_observations(subject, more))]


@law("baseline", source=CONTRACT, cases=_successive_rollouts, applies=_has_state, examples=30)
def state_survives_saving_and_loading(subject: Subject, rollouts: list[Rollout]) -> None:
    """A new baseline that loads the state has the same values, also after another update; saved states never change."""
    original, loaded = subject.make(), subject.make()
    missing = [name for name in ("update", "state_dict", "load_state_dict") if not hasattr(original, name)]
    if missing:
        raise Broken(f"has state, but lacks {missing[0]}")
    loaded.load_state_dict(original.state_dict())  # before the first update
    original.update(copied(rollouts[0]), returns_of(rollouts[0]))
    saved = original.state_dict()
    for name, entry in saved.items():
        if not isinstance(entry, Tensor):
            raise Broken(f"state_dict: '{name}' is not a tensor", expected="a tensor", got=type(entry).__name__)
    copies = {name: entry.clone() for name, entry in saved.items()}
    loaded.load_state_dict(saved)
    for number, rollout in enumerate(rollouts[1:]):
        returns = returns_of(rollout)
        expected, got = baseline_values(original, rollout, returns), baseline_values(loaded, rollout, returns)
        after = "after loading" if number == 0 else "after a further update"
        require_close(f"at {{step}}, {after}, differs from the baseline whose state was loaded", rollout, expected, got)
        for baseline in (original, loaded):
            baseline.update(copied(rollout), returns)
    changed = [name for name, entry in saved.items() if not torch.equal(entry, copies[name])]
    if changed:
        raise Broken(f"state_dict: '{changed[0]}' changes after it was saved: later updates write into it")


@law("baseline", source=CONTRACT, cases=_successive_rollouts, applies=_has_state, examples=30)
def baselines_of_two_runs_share_no_state(subject: Subject, rollouts: list[Rollout]) -> None:
    """Updating one baseline does not change another one that the same settings built."""
    first, second = subject.make(), subject.make()
    rollout, returns = rollouts[1], returns_of(rollouts[1])
    before = baseline_values(second, rollout, returns).clone()
    first.update(copied(rollouts[0]), returns_of(rollouts[0]))
    require_close(
        "at {step} changes when another baseline is updated", rollout, before, baseline_values(second, rollout, returns)
    )
