"""Discounted sums over time: pure functions on `[T, N]` tensors, whatever the estimator.

Padding is inert because it holds zero rewards and follows an end. Nothing here knows of auto-reset.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

FEW_LANES = 256  # up to here doubling is faster than stepping, on the CPU


def discounted_sums(terms: Tensor, discounts: Tensor) -> Tensor:
    """Sums of all later terms, each discounted on its way: Gₜ = xₜ + dₜ·Gₜ₊₁, with G_T = 0.

    Every return of this framework is such a sum: rewards-to-go with xₜ = rₜ and dₜ = γ(1 − endₜ), and the λ-return too
    (Sutton & Barto 2018, eq. 12.18–12.20, solved for one linear recursion).

    Args:
        terms: xₜ `[T, N]`, floating point.
        discounts: dₜ `[T, N]`, the same dtype; 0 where nothing later counts.

    Returns:
        `[T, N]`, dtype and device of `terms`, without gradient.

    Raises:
        ValueError: the shapes or dtypes differ, or are not two-dimensional floating point.

    Complexity: step by step, two kernels a time step; at few lanes, and away from the CPU, where kernels cost more than
    numbers, by doubling: three kernels each for spans of 1, 2, 4, … time steps.

    >>> discounted_sums(torch.ones(3, 1), torch.full((3, 1), 0.9)).flatten().tolist()
    [2.71..., 1.89..., 1.0]
    """
    if terms.shape != discounts.shape or terms.ndim != 2:
        raise ValueError(f"expected two equal shapes [T, N], got {list(terms.shape)} and {list(discounts.shape)}")
    if terms.dtype != discounts.dtype or not terms.dtype.is_floating_point:
        raise ValueError(f"expected one floating dtype, got {terms.dtype} and {discounts.dtype}")
    terms, discounts = terms.detach(), discounts.detach()
    if terms.device.type != "cpu":
        sums = terms.clone()
        _double(sums, discounts.clone())
    elif terms.shape[1] <= FEW_LANES and discounts.numpy().max(initial=0) <= 1:  # products of larger ones may overflow
        sums = terms.clone()
        _double(sums.numpy(), discounts.numpy().copy())
    else:
        sums = torch.empty_like(terms)
        _step(terms.numpy(), discounts.numpy(), sums.numpy())
    return sums


def _step(terms: Array, discounts: Array, sums: Array) -> None:
    """The recursion itself, into `sums`."""
    later = np.zeros_like(terms[:1]).reshape(-1)
    for t in range(len(terms) - 1, -1, -1):
        row = sums[t]
        np.multiply(discounts[t], later, out=row)
        later = np.add(row, terms[t], out=row)


def _double(sums: Any, factors: Any) -> None:
    """The same, in place, for arrays and tensors: each sum over a span, and the discount across it, from two halves.

    Source: Blelloch 1990, Prefix sums and their applications, CMU-CS-90-190, §1.4 (first-order recurrences).
    """
    span = 1
    while span < len(sums):
        sums[:-span] += factors[:-span] * sums[span:]
        factors[:-span] = factors[:-span] * factors[span:]
        span *= 2


def rewards_to_go(rewards: Tensor, ends: Tensor, gamma: float) -> Tensor:
    """Gₜ = rₜ + γ(1 − endₜ)·Gₜ₊₁: what was earned from each step to its episode's end.

    Args:
        rewards: `[T, N]`, 0 in padding.
        ends: `[T, N]` bool: terminated or truncated.
        gamma: discount a step, in [0, 1].

    Source: Sutton & Barto 2018, eq. 3.8 and 3.9.
    """
    discounts = torch.full(ends.shape, gamma, dtype=rewards.dtype, device=rewards.device).masked_fill_(ends, 0)
    return discounted_sums(rewards, discounts)


def continues(terminated: Tensor, truncated: Tensor, mask: Tensor) -> Tensor:
    """Whether the trace goes on to the next row, `[T, N]` bool: not after an end, not past the rollout's edge."""
    continues = (terminated | truncated).logical_not_().logical_and_(mask)
    continues[-1] = False
    return continues


def lambda_returns(rewards: Tensor, successor_values: Tensor, continues: Tensor, gamma: float, lam: float) -> Tensor:
    """Gₜ = rₜ + γ[(1 − λ)·V(s′ₜ) + λ·Gₜ₊₁], and rₜ + γ·V(s′ₜ) where the trace does not go on.

    λ = 0 is TD(0), λ = 1 Monte Carlo. Less V(sₜ) it is the generalised advantage estimate of Schulman et al. 2016,
    arXiv:1506.02438, eq. 16. Source: Sutton & Barto 2018, eq. 12.18.

    Args:
        rewards: `[T, N]`.
        successor_values: V(s′ₜ) `[T, N]`; 0 where the world ended.
        continues: whether the trace goes on `[T, N]` bool, as the function `continues` returns.
        gamma: discount a step, in [0, 1].
        lam: λ, in [0, 1].
    """
    rewards, successor_values = rewards.detach(), successor_values.detach()
    trace = continues.to(rewards.dtype)
    terms = torch.addcmul(rewards, torch.rsub(trace, 1, alpha=lam), successor_values, value=gamma)
    return discounted_sums(terms, trace.mul_(gamma * lam))


def n_step_returns(rewards: Tensor, successor_values: Tensor, continues: Tensor, gamma: float, n: int) -> Tensor:
    """Gₜ = rₜ + γ·rₜ₊₁ + … + γⁿ·V(sₜ₊ₙ); where the trace ends before, with V of its last successor.

    Arguments as of `lambda_returns`, and n ≥ 1. Source: Sutton & Barto 2018, eq. 7.1.

    Complexity: n passes over the arrays while n ≤ 5, then some more each time n doubles: a pass adds longer spans.
    """
    rewards, successor_values = rewards.detach(), successor_values.detach()
    factors = continues.to(rewards.dtype).mul_(gamma)
    returns = torch.add(rewards, successor_values, alpha=gamma)
    sums = torch.where(continues, rewards, returns)
    missing, span = min(n, len(rewards)) - 1, 1
    while missing:
        spans = missing if missing <= 4 else missing & 1  # so few are added one by one sooner than doubled
        if spans:
            returns = _extended(sums, factors, returns, span, spans)
        missing = (missing - spans) >> 1
        if missing:
            sums = torch.addcmul(sums, factors, sums.roll(-span, 0))
            factors = factors.roll(-span, 0).mul_(factors)
            span *= 2
    return returns


def _extended(sums: Tensor, factors: Tensor, returns: Tensor, span: int, times: int) -> Tensor:
    """Returns of so many spans more; the last `span` rows, where factors are 0, see only zeros below."""
    steps = len(returns)
    here = torch.nn.functional.pad(returns, (0, 0, 0, span))
    there = here.clone()
    for _ in range(times):
        torch.addcmul(sums, factors, here[span:], out=there[:steps])
        here, there = there, here
    return here[:steps]


def vtrace_targets(
    rewards: Tensor,
    values: Tensor,
    successor_values: Tensor,
    continues: Tensor,
    ratios: Tensor,
    traces: Tensor,
    gamma: float,
) -> Tensor:
    """vₜ = V(sₜ) + ρₜδₜ + γ·cₜ·(vₜ₊₁ − V(sₜ₊₁)), with δₜ = rₜ + γ·V(s′ₜ) − V(sₜ).

    Args:
        rewards, values, successor_values: `[T, N]`.
        continues: whether the trace goes on `[T, N]` bool.
        ratios: ρₜ = min(ρ̄, π/μ) `[T, N]`.
        traces: cₜ = min(c̄, π/μ) `[T, N]`.
        gamma: discount a step, in [0, 1].

    Source: Espeholt et al. 2018, arXiv:1802.01561, eq. 1 and remark 1 (the recursion).
    """
    rewards, values, successor_values = rewards.detach(), values.detach(), successor_values.detach()
    errors = torch.add(rewards, successor_values, alpha=gamma).sub_(values).mul_(ratios.detach())
    return discounted_sums(errors, torch.mul(traces.detach(), continues).mul_(gamma)).add_(values)


def episode_sums(values: Tensor, episodes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Per episode, the sum of `values` over its real steps, and their number; both `[E]`, in float64.

    Args:
        values: `[T, N]`.
        episodes: `[T, N]` int64, numbered from 0.
        mask: `[T, N]` bool: True for real steps.

    float64 because differences between episodes may be small against what they share.
    """
    weights = mask.reshape(-1).to(torch.float64)
    index = (episodes * mask).reshape(-1)
    counts = torch.bincount(index, weights)
    return torch.bincount(index, values.reshape(-1) * weights), counts


def episode_means(values: Tensor, episodes: Tensor, mask: Tensor) -> Tensor:
    """Per episode, the mean of `values` over its real steps: `[E]`, in float64."""
    sums, counts = episode_sums(values, episodes, mask)
    return sums / counts.clamp(min=1)


def episode_groups(groups: Tensor | None, episodes: Tensor, mask: Tensor) -> Tensor:
    """Per episode, the group of its lane: `[E]` int64. Without groups, all episodes are of one, 0.

    Args:
        groups: `[N]` int64, of each lane, or None.
        episodes, mask: `[T, N]`, as above.
    """
    counts = torch.bincount((episodes * mask).reshape(-1))
    if groups is None:
        return torch.zeros_like(counts)
    found = torch.zeros_like(counts)
    found[episodes[mask]] = groups.expand_as(episodes)[mask]
    return found
