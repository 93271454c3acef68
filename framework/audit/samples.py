"""Statistics of gradient samples: mean, variance, bias and others.

A *sample* is the ascent direction of one update, G = −∇ Σ terms / E, over a batch of E whole episodes. For n samples:

* variance: E · tr Cov G. Unless a baseline couples episodes, it is the variance of one episode's gradient.
* bias: ‖mean G − ∇J‖, with exact ∇J. An unbiased estimate would have √(tr Cov G / n), the `noise`.
* mean squared error: mean ‖G − ∇J‖² for a batch.
* signal-to-noise: ‖E G‖ / √variance for an episode; that of a batch is √E times larger.
* cosine: of mean G and ∇J; that of a batch is the mean of cos(G, ∇J).
"""

import math

import torch
from attrs import define, field, frozen
from torch import Tensor

from ..running_moments import merged

BIASED = 4.0  # times the noise: unbiased estimates exceed it in less than one of 10,000 audits, for any distribution


@frozen(eq=False)
class Audited:
    """The results for one combination: n batches with E episodes each, and P parameters."""

    batches: int  # n
    episodes: int  # E
    steps: float  # per batch, on average
    seconds: float  # per batch, on average: collecting (its share), estimator, baseline and loss
    mean: Tensor  # [P] float64, mean G
    variance: float  # E · tr Cov G
    variance_error: float  # its standard error
    gradient: Tensor | None = None  # [P] ∇J, exact; None: unknown
    expected: Tensor | None = None  # [P] E G, exact; None: too many rollouts to enumerate
    batch_cosine: float | None = None  # mean of cos(G, ∇J)

    @property
    def noise(self) -> float:
        """√(tr Cov G / n): the root mean square distance of the mean of n samples from E G."""
        return math.sqrt(self.variance / self.episodes / self.batches)

    @property
    def bias(self) -> float | None:
        """‖mean G − ∇J‖."""
        return None if self.gradient is None else float((self.mean - self.gradient).norm())

    @property
    def relative_bias(self) -> float | None:
        """The bias divided by ‖∇J‖."""
        return None if self.bias is None or self.gradient is None else _ratio(self.bias, float(self.gradient.norm()))

    @property
    def expected_bias(self) -> float | None:
        """‖E G − ∇J‖, exact."""
        if self.gradient is None or self.expected is None:
            return None
        return float((self.expected - self.gradient).norm())

    @property
    def is_biased(self) -> bool | None:
        """Whether the estimate is certainly biased: by its exact bias, or by a multiple of the noise. None: unknown."""
        if self.gradient is None or self.bias is None:
            return None
        if self.expected_bias is not None:
            return self.expected_bias > 1e-5 * float(self.gradient.norm())  # parts may compute in float32
        return self.bias > BIASED * self.noise

    @property
    def mean_squared_error(self) -> float | None:
        """Mean ‖G − ∇J‖² for a batch: (n − 1)/n · tr Cov G + bias²."""
        if self.bias is None:
            return None
        return (self.batches - 1) / self.batches * self.variance / self.episodes + self.bias**2

    @property
    def signal_to_noise(self) -> float:
        """‖E G‖ / √variance; ‖E G‖² is estimated as ‖mean G‖² minus the squared noise."""
        signal = max(0.0, float(self.mean.square().sum()) - self.noise**2)
        return _ratio(math.sqrt(signal), math.sqrt(self.variance))

    @property
    def cosine(self) -> float | None:
        """cos(mean G, ∇J)."""
        return None if self.gradient is None else float(_cosines(self.mean[None], self.gradient))


@define(eq=False)
class Samples:
    """Accumulates the samples of one combination."""

    gradient: Tensor | None = None  # [P] ∇J
    expected: Tensor | None = None  # [P] E G
    count: Tensor = field(factory=lambda: torch.tensor(0))
    mean: Tensor = field(factory=lambda: torch.zeros(()))
    spread: Tensor = field(factory=lambda: torch.zeros(()))  # [P] variances (divided by n)
    center: Tensor | None = None  # the mean of the first samples
    distances: list[Tensor] = field(factory=list)  # each [n]: ‖G − center‖²
    cosines: list[Tensor] = field(factory=list)  # each [n]
    seconds: float = 0.0

    def add(self, gradients: Tensor) -> None:
        """Add samples `[n, P]`."""
        self.count, self.mean, self.spread = merged(self.count, self.mean, self.spread, gradients)
        if self.center is None:
            self.center = self.mean
        self.distances.append((gradients - self.center).square().sum(1))
        if self.gradient is not None:
            self.cosines.append(_cosines(gradients, self.gradient))

    def audited(self, episodes: int, steps: float, seconds: float) -> Audited:
        """The statistics, for batches of so many episodes; `steps` and `seconds` are those of collecting a batch."""
        n = int(self.count)
        return Audited(
            n,
            episodes,
            steps,
            seconds + self.seconds / n,
            self.mean,
            episodes * float(self.spread.sum()) * n / (n - 1),
            episodes * float(torch.cat(self.distances).std()) / math.sqrt(n),
            self.gradient,
            self.expected,
            float(torch.cat(self.cosines).mean()) if self.cosines else None,
        )


def _cosines(gradients: Tensor, exact: Tensor) -> Tensor:
    """Cosine of each row of `[n, P]` and `[P]`; 0 if one of them is 0."""
    norms = gradients.norm(dim=1) * exact.norm()
    return (gradients @ exact) / torch.where(norms > 0, norms, 1.0)


def _ratio(number: float, other: float) -> float:
    return number / other if other else math.nan
