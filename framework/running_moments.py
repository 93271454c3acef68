"""Mean and variance of all samples so far, from those of the earlier ones and some more."""

import torch
from torch import Tensor


def merged(count: Tensor, mean: Tensor, variance: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """n = n₁ + n₂, m = m₁ + δ·n₂/n, v = (n₁v₁ + n₂v₂ + δ²·n₁n₂/n)/n, with δ = m₂ − m₁.

    Args:
        count: n₁, int64: how many samples there were; with 0 the other two do not count.
        mean, variance: m₁ and v₁ `[*O]` of those; the variance divides by n₁.
        samples: n₂ more, `[n₂, *O]`; without any, nothing changes.

    Returns:
        n, m and v: int64 and float64, whatever the dtypes given, without gradient.

    Source: Chan, Golub & LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances,
    Stanford CS-TR-79-773, eq. 2.1.

    >>> three = merged(torch.tensor(2), torch.tensor(1.0), torch.tensor(0.25), torch.tensor([4.0]))
    >>> [float(number) for number in three]
    [3.0, 2.0, 2.1666...]
    """
    samples, mean, variance = samples.detach().double(), mean.detach().double(), variance.detach().double()
    total = count + len(samples)
    if not len(samples):
        return total, mean, variance
    others = samples.mean(0)
    difference, share = others - mean, len(samples) / total.double()
    spread = (samples - others).square().mean(0)
    between = difference.square() * share * (1 - share)
    return total, mean + difference * share, torch.lerp(variance, spread, share) + between
