"""A run's state: copies of all that it needs to go on, and how a run that was built anew takes them over.

Random numbers have no entry. Every generator is seeded from the run's seed, a purpose and the iteration (`streams`),
and so are the global ones at the beginning of each iteration: the iteration's number is all that there is to keep.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .contracts import Stateful
from .errors import PartError, UsageError

if TYPE_CHECKING:
    from .run import Run

COUNTERS = ("iteration", "steps", "episodes", "seconds")


def state_of(run: "Run") -> dict[str, Any]:
    """All that a run needs to go on after its last whole iteration, as docs/reference/state.md lists it.

    To be taken between iterations: before or after `execute`, or in the hooks `iteration_finished` and `should_stop`.

    Returns:
        Dicts, lists, tensors, numbers and strings; nothing in it changes when the run goes on.

    Raises:
        PartError: a part's `state_dict` raised, or returned something other than a dict of tensors.
    """
    counters = {name: getattr(run, name) for name in COUNTERS}
    counters["iteration"] = len(run.history.get("iteration", ()))  # hooks see the number of the one under way
    state: dict[str, Any] = copied(
        {
            **counters,
            "history": run.history,
            "recent_returns": list(run.recent_returns),
            "recent_lengths": list(run.recent_lengths),
            "traced": run.traced,
            "policy": run.policy.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "parts": {name: part_state(part, run.label_of(part)) for name, part in stateful(run).items()},
            "shards": [shard.state_dict() for shard in run.shards],
        }
    )
    return state


def load_state(run: "Run", state: Mapping[str, Any]) -> None:
    """Let a run that was just built with the same configuration go on from a state; the state is only read.

    Raises:
        UsageError: the state is that of another configuration: other parts with state, parameters or lanes.
        PartError: a part's `load_state_dict` raised.
    """
    parts = stateful(run)
    _refuse_others("parts with state", sorted(state["parts"]), sorted(parts))
    _refuse_others("lanes", [len(one["episode_step"]) for one in state["shards"]], [one.lanes for one in run.shards])
    state = copied(state)
    try:
        run.policy.load_state_dict(state["policy"])
        run.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UsageError(f"the state does not fit this run: {error}") from error
    for name, part in parts.items():
        load_part(part, state["parts"][name], run.label_of(part))
    for shard, lanes in zip(run.shards, state["shards"], strict=True):
        shard.load_state_dict(lanes)
    for name in (*COUNTERS, "history", "traced"):
        setattr(run, name, state[name])
    for name in ("recent_returns", "recent_lengths"):
        recent = getattr(run, name)
        recent.clear()
        recent.extend(state[name])


def stateful(run: "Run") -> dict[str, Stateful]:
    """The parts with state: estimator, baseline and loss by role, extensions as extensions.NAME."""
    named = {"estimator": run.estimator, "baseline": run.baseline, "loss": run.loss}
    named |= {f"extensions.{name}": extension for name, extension in run.extensions.items()}
    return {name: part for name, part in named.items() if isinstance(part, Stateful)}


def part_state(part: Any, label: str) -> dict[str, Tensor]:
    """What a part's `state_dict()` returned.

    Raises:
        PartError: it raised, or is no dict of tensors; `label` names the part.
    """
    try:
        state = dict(part.state_dict())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PartError(f"{label}: state_dict raised {type(error).__name__}: {error}") from error
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise PartError(f"{label}: state_dict: '{key}': expected a tensor, got {type(tensor).__name__}")
    return state


def load_part(part: Any, state: Mapping[str, Tensor], label: str) -> None:
    """Let a part take over its state; `PartError` where it raises, which `label` names."""
    try:
        part.load_state_dict(state)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PartError(f"{label}: load_state_dict raised {type(error).__name__}: {error}") from error


def copied(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples and of the tensors in them, each with storage of its own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(one) for key, one in value.items()}
    return type(value)(map(copied, value)) if isinstance(value, list | tuple) else value


def _refuse_others(what: str, saved: list[Any], built: list[Any]) -> None:
    if saved != built:
        raise UsageError(
            f"the state does not fit this run: {what}: {saved or 'none'} in the state, {built or 'none'} here"
        )
