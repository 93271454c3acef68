"""What parts return is checked once, where it enters the core; the message names the part."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from ..contracts import Advantages, Batch, Inputs, Loss, Rollout
from ..errors import PartError

NUMBERS = ("advantages", "returns", "value_targets", "log_probs", "values")  # of each step, and data: no gradient
COUNTED = [name for name in Batch.__match_args__ if name not in ("total_steps", "total_episodes", "sequences")]


def kind(label: str, given: Any, expected: type) -> None:
    """Refuse an object of another class; `label` names the part."""
    if not isinstance(given, expected):
        article = "an" if expected.__name__[0] in "AE" else "a"
        raise PartError(f"{label}: expected {article} {expected.__name__}, got {type(given).__name__}")


def tensor(label: str, given: Any, shape: Sequence[int], names: str, dtype: Any) -> None:
    """Refuse a tensor of the wrong type, shape or dtype; `dtype` is one, or "floating point", or None for any."""
    if not isinstance(given, Tensor):
        raise PartError(f"{label}: expected a tensor {list(shape)} {names}, got {type(given).__name__}")
    if tuple(given.shape) != tuple(shape):
        hint = ""
        if names == "[T, N]" and given.ndim == 2 and tuple(given.shape) == tuple(shape)[::-1]:
            hint = " (batch-major? this framework is time-major)"
        raise PartError(f"{label}: expected shape {list(shape)} {names}, got {list(given.shape)}{hint}")
    if dtype == "floating point":
        if not given.dtype.is_floating_point:
            raise PartError(f"{label}: expected floating point, got {given.dtype}")
    elif dtype is not None and given.dtype != dtype:
        raise PartError(f"{label}: expected {dtype}, got {given.dtype}")


def is_numbers(given: Any, shape: Sequence[int]) -> bool:
    """Whether it is a floating-point tensor of this shape: a cheap first check."""
    return isinstance(given, Tensor) and given.shape == shape and given.is_floating_point()


def place(index: Sequence[int]) -> str:
    """Where an element of a `[T, N, …]` or flat tensor is."""
    return f"step {index[0]}, lane {index[1]}" if len(index) > 1 else f"position {index[0]}"


def finite(label: str, given: Tensor, where: Callable[[Sequence[int]], str] = place) -> None:
    """Refuse NaN and infinity; `where` words the index of the first one."""
    given = given.detach()
    if math.isfinite(float(given.sum())):  # one kernel; an overflowing sum of finite numbers is looked at again
        return
    bad = (~torch.isfinite(given)).nonzero()
    if len(bad):
        first = bad[0].tolist()
        raise PartError(f"{label}: not finite ({float(given[tuple(first)])}) at {where(first)}")


def in_range(
    label: str, numbers: Tensor, space: "Discrete[Any]", where: Callable[[Sequence[int]], str] = place
) -> None:
    """Refuse elements outside a Discrete space; `where` words the index of the first one."""
    low, high = (int(bound) for bound in torch.aminmax(numbers))
    first = int(space.start)
    if low < first or high >= first + int(space.n):
        bad = ((numbers < first) | (numbers >= first + int(space.n))).nonzero()[0].tolist()
        raise PartError(f"{label}: {int(numbers[tuple(bad)])} is outside {space} at {where(bad)}")


def bounds(space: Any, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Least and largest element of a Box, as tensors; None where it has no bounds that a number could break."""
    if not isinstance(space, Box):
        return None
    whole = None if dtype.is_floating_point else torch.iinfo(dtype)
    least, most = (-math.inf, math.inf) if whole is None else (whole.min, whole.max)
    if (space.low <= least).all() and (space.high >= most).all():
        return None
    low, high = (torch.as_tensor(edge).to(device, dtype) for edge in (space.low, space.high))
    return low, high


def in_bounds(
    label: str, given: Tensor, limits: tuple[Tensor, Tensor], where: Callable[[Sequence[int]], str] = place
) -> None:
    """Refuse numbers outside a Box; `where` words the index of the first one."""
    low, high = limits
    if bool((given >= low).logical_and_(given <= high).all()):
        return
    first = ((given < low) | (given > high)).nonzero()[0].tolist()
    number, element = given[tuple(first)].item(), tuple(first[given.ndim - low.ndim :])
    raise PartError(
        f"{label}: {number} is outside its space, {low[element].item()} to {high[element].item()}, at {where(first)}"
    )


def per_step(label: str, given: Any, shape: tuple[int, ...]) -> None:
    """A number for each step, `[T, N]` or `[B]`: floating point, finite, without gradient."""
    number_a_step(label, given, shape)
    finite(label, given)


def number_a_step(label: str, given: Any, shape: tuple[int, ...]) -> None:
    """The same, finite or not."""
    if not is_numbers(given, shape):
        tensor(label, given, shape, "[T, N]" if len(shape) == 2 else "[B]", "floating point")
    if given.requires_grad:
        raise PartError(f"{label}: carries a gradient; only an evaluation and a loss may")


def columns(label: str, given: Any, inputs: Inputs) -> None:
    """A column of a policy's evaluation: [B], or of sequences [T, N]."""
    if inputs.state is None:
        tensor(label, given, inputs.observations.shape[:1], "[B]", "floating point")
    else:
        tensor(label, given, inputs.observations.shape[:2], "[T, N]", "floating point")


def loss(label: str, given: Any, shape: tuple[int, ...]) -> None:
    """Terms, each `[B]`. Whether they are finite shows in their sum."""
    kind(label, given, Loss)
    terms, stop = given.terms, given.stop_epochs
    if type(terms) is not dict and not isinstance(terms, Mapping):
        raise PartError(f"{label}: terms: expected a dict from name to tensor, got {type(terms).__name__}")
    if not terms:
        raise PartError(f"{label}: expected a Loss with at least one term, got none")
    for name, term in terms.items():
        if not is_numbers(term, shape):
            tensor(f"{label}: term '{name}'", term, shape, "[B]", "floating point")
    if not isinstance(stop, bool) and not _is_one(stop):
        got = f"shape {list(stop.shape)}" if isinstance(stop, Tensor) else repr(stop)
        raise PartError(f"{label}: stop_epochs: expected True, False or a tensor of one element, got {got}")
    for name, number in given.metrics.items():
        if not _is_one(number) and not isinstance(number, int | float):
            got = f"shape {list(number.shape)}" if isinstance(number, Tensor) else repr(number)
            raise PartError(f"{label}: metric '{name}': expected one number, got {got}")


def _is_one(given: Any) -> bool:
    return isinstance(given, Tensor) and given.numel() == 1


def stage_result(label: str, stage: str, result: Any, **arguments: Any) -> None:
    """What extensions that wrap a stage made of the core's result."""
    if stage == "collect_rollout":
        kind(label, result, Rollout)
        _columns(label, result, tuple(result.mask.shape), "[T, N, …]", ("groups", "state"))
        per_step(f"{label}: rewards", result.rewards, tuple(result.mask.shape))
    elif stage == "estimate_advantages":
        kind(label, result, Advantages)
        for name in ("advantages", "returns", "value_targets"):
            per_step(f"{label}: {name}", getattr(result, name), tuple(arguments["rollout"].mask.shape))
    elif stage == "prepare_batch":
        _prepared(label, result, arguments["batch"])
    elif stage == "compute_loss":
        loss(label, result, (len(arguments["batch"].actions),))


def _prepared(label: str, result: Any, given: Batch) -> None:
    """What extensions made of a minibatch. Once a minibatch, so that only what they changed is looked at.

    Whether its advantages are finite shows in the loss.
    """
    kind(label, result, Batch)
    count = len(result.actions)
    same_length = result.actions is given.actions or count == len(given.actions)
    for name in COUNTED:
        column = getattr(result, name)
        if column is None or (same_length and column is getattr(given, name)):
            continue
        if name in NUMBERS:
            number_a_step(f"{label}: {name}", column, (count,))
        elif column.shape[:1] != (count,):
            raise PartError(f"{label}: {name}: expected {[count]} first, [B, …], got {list(column.shape)}")
    if result.sequences is not None and not (same_length and result.sequences is given.sequences):
        got = int(result.sequences.real.sum())
        if got != count:
            raise PartError(f"{label}: sequences: expected {count} real steps, as in the other columns, got {got}")


def _columns(label: str, record: Any, leading: tuple[int, ...], names: str, but: tuple[str, ...]) -> None:
    """All columns of a rollout or batch begin with the same shape."""
    for name in type(record).__match_args__:
        column = getattr(record, name)
        if column is not None and name not in but and column.shape[: len(leading)] != leading:
            expected = f"{list(leading)} first, {names}"
            raise PartError(f"{label}: {name}: expected {expected}, got {list(column.shape)}")
