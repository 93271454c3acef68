"""A copy of a network's weights, evaluated in numpy: for `actor()` where observations are a Box."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from framework import Action, Inputs

from .layers import is_plain
from .network import ACTIVATIONS, CLIP, EPSILON, Network, Normalizer, Unchanged

Array = np.ndarray[Any, Any]

FIRST_ROWS, MOST_ROWS = 8, 64  # noise is drawn for this number of steps at once, doubled each time
MOST_NUMBERS = 2**15  # limit, so that the noise fits the processor's cache
# From this number of multiplications per layer on, numpy's BLAS (OpenBLAS: interface/gemm.c, and interface/gemv.c for
# one lane) starts threads of its own, which torch's number of threads does not limit: torch multiplies there.
MOST_PRODUCTS, MOST_PRODUCTS_OF_ONE_LANE = 4 * 65536, 4 * 2304 - 1

quiet = np.errstate(all="ignore")  # the core refuses numbers that are not finite, and names the part


class Snapshot:
    """From observations `[N, *O]` to the outputs `[N, outputs]` that a network had when this was made.

    All results are in buffers that the next call overwrites.
    """

    def __init__(
        self,
        weights: list[Array],
        biases: list[Array],
        activations: list[nn.Module],
        statistics: tuple[Array, Array] | None = None,
    ) -> None:
        """For each layer, weights `[before, after]` and biases `[after]`; observations' means and deviations `[O]`."""
        self.weights, self.biases = weights, biases
        self._activations, self._statistics = activations, statistics
        self._seen: Tensor | None = None
        self._lanes = -1

    @classmethod
    def of(
        cls, policy: Any, kind: type[nn.Module], network: Network, outputs: slice | Tensor | None = None
    ) -> "Snapshot | None":
        """A copy of a policy's normalizer and network, with all or some of the outputs.

        None if numpy cannot evaluate it fast and exactly: another device, a subclass, an exchanged layer, a hook, a
        dtype other than float32 and float64, or a Discrete space.
        """
        if network.states or not is_plain(network.network, nn.Sequential) or len(network.network) % 2 == 0:
            return None
        linear = cast("list[nn.Linear]", list(network.network)[::2])
        activations = list(network.network)[1::2]
        if not (
            is_plain(policy, kind)
            and "act" not in policy.__dict__
            and (network is policy or is_plain(network, Network))
            and is_plain(policy.normalizer, Normalizer, Unchanged)
            and all(is_plain(layer, nn.Linear) for layer in linear)
            and all(is_plain(layer, *ACTIVATIONS.values()) for layer in activations)
        ):
            return None
        weights, biases = [layer.weight for layer in linear], [layer.bias for layer in linear]
        dtype = weights[0].dtype
        if dtype not in (torch.float32, torch.float64) or not all(
            parameter is not None and parameter.dtype == dtype and parameter.is_cpu for parameter in (*weights, *biases)
        ):
            return None
        copies = [weight.detach().numpy().T.copy() for weight in weights], [b.detach().numpy().copy() for b in biases]
        if outputs is not None:
            places = outputs.numpy() if isinstance(outputs, Tensor) else outputs
            for parts in copies:
                parts[-1] = parts[-1][..., places].copy()
        if isinstance(policy.normalizer, Unchanged):
            return cls(*copies, activations)
        means, variances = policy.normalizer.mean, policy.normalizer.variance
        # numpy's flatten copies
        return cls(*copies, activations, (means.numpy().flatten(), torch.sqrt(variances + EPSILON).numpy().flatten()))

    def __call__(self, observations: Tensor) -> Array:
        """The outputs for each observation."""
        if observations is not self._seen:
            self._look_at(observations)
        self._shaped[:] = self._observed
        if self._statistics is not None:
            features, (means, deviations) = self._features, self._statistics
            np.subtract(features, means, features)
            np.divide(features, deviations, features)
            np.minimum(features, CLIP, out=features)
            np.maximum(features, -CLIP, out=features)
        for run, arguments in self._calls:
            run(*arguments)
        return self._outputs

    def _look_at(self, observations: Tensor) -> None:
        lanes = len(observations)
        if lanes != self._lanes:
            self._lanes = lanes
            self._lay_out(lanes)
        self._seen, self._observed = observations, observations.numpy()
        # not the observations in the features' shape, which may be a copy: the same tensor may come again, rewritten
        self._shaped = self._features.reshape(observations.shape)

    def _lay_out(self, lanes: int) -> None:
        """Allocate buffers for this number of lanes, and prepare the calls."""
        before = self._features = np.empty((lanes, len(self.weights[0])), self.weights[0].dtype)
        limit = MOST_PRODUCTS if lanes > 1 else MOST_PRODUCTS_OF_ONE_LANE
        self._calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        for weights, biases, activation in zip(self.weights, self.biases, [*self._activations, None], strict=True):
            after = np.empty((lanes, len(biases)), weights.dtype)
            if lanes * weights.size <= limit:
                self._calls.append((np.dot, (before, weights, after)))
                # numpy adds two arrays of one shape in half the time that it takes to repeat the smaller one
                self._calls.append((np.add, (after, np.tile(biases, (lanes, 1)), after)))
            else:
                multiply = partial(torch.addmm, out=torch.from_numpy(after))
                self._calls.append((multiply, tuple(torch.from_numpy(part) for part in (biases, before, weights))))
            if activation is not None:
                self._calls.append(_in_place(activation, after))
            before = after
        self._outputs = before


def _in_place(activation: nn.Module, numbers: Array) -> tuple[Callable[..., object], tuple[Any, ...]]:
    """The call that applies an activation in place."""
    if isinstance(activation, nn.Tanh):
        return np.tanh, (numbers, numbers)
    if isinstance(activation, nn.ReLU):
        return partial(np.maximum, out=numbers), (numbers, 0)
    shared = torch.from_numpy(numbers)
    if isinstance(activation, nn.SiLU):
        return partial(functional.silu, inplace=True), (shared,)
    return lambda: shared.copy_(activation(shared)), ()


class Noise:
    """A row of random numbers for each step, drawn in blocks."""

    def __init__(self, draw: Callable[[tuple[int, ...], torch.Generator], Array], *shape: int) -> None:
        """`draw` returns a block of a shape; `shape` is that of a row."""
        self._draw, self._shape = draw, shape
        self._most = min(MOST_ROWS, max(1, MOST_NUMBERS // max(1, int(np.prod(shape)))))
        self._generator: torch.Generator | None = None
        self._rows: Iterator[Array] = iter(())

    def row(self, generator: torch.Generator) -> Array:
        """The next row of this generator; another generator's remaining rows are discarded: each shard has its own."""
        if generator is not self._generator:
            self._generator, self._rows = generator, iter(())
            self._count = min(FIRST_ROWS, self._most)  # few at first, for rollouts of a few steps
        for row in self._rows:
            return row
        self._rows = iter(self._draw((self._count, *self._shape), generator))
        self._count = min(2 * self._count, self._most)
        return next(self._rows)


def log_exponential(shape: tuple[int, ...], generator: torch.Generator) -> Array:
    """log e of e ~ Exp(1), in float64: −log u of a uniform u, which is a multiple of 2⁻⁵³ below 1; 0 counts as 2⁻⁵⁴.

    Three times as fast as torch's exponential_. With float32, logits of 10⁴ and more would swallow the noise.
    """
    numbers: Array = torch.rand(shape, dtype=torch.float64, generator=generator).numpy()
    np.maximum(numbers, 2.0**-54, out=numbers)
    np.log(numbers, numbers)
    np.negative(numbers, numbers)
    np.log(numbers, numbers)
    return numbers


class GumbelMaxActor:
    """Samples one action per lane, or several components, from the logits of a snapshot.

    By exponential races: argmax p/e with e ~ Exp(1) is argmax of logit − log e, for unnormalised logits, too.
    Log-probs are computed later, for the whole rollout at once; the same `Action` is returned each time.
    """

    def __init__(
        self, snapshot: Snapshot, first: int | Array, shape: tuple[int, ...] = (), options: Array | None = None
    ) -> None:
        """`shape` `[]` or `[K]` and first numbers of a lane's actions; `options` `[outputs]`: places in masks."""
        self._snapshot, self._first = snapshot, first
        self._shape, self._options = shape, options
        self._logits: Array | None = None

    @quiet
    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One allowed action per lane."""
        logits = self._snapshot(inputs.observations)
        if logits is not self._logits:
            self._lay_out(logits)
        if inputs.action_masks is not None:
            allowed = inputs.action_masks.numpy()
            if self._options is not None:
                allowed = allowed[:, self._options]
            np.copyto(logits, -np.inf, where=~allowed)
        np.subtract(logits, self._noise.row(generator), self._race)
        self._races.argmax(-1, out=self._chosen)
        if self._moved:
            self._chosen += self._first
        return self._action

    def _lay_out(self, logits: Array) -> None:
        """Allocate buffers for this number of lanes."""
        self._logits = logits
        actions = torch.zeros((len(logits), *self._shape), dtype=torch.int64)
        self._action, self._chosen = Action(actions), actions.numpy()
        self._race = np.empty(logits.shape)
        self._races = self._race.reshape(*actions.shape, -1)
        self._moved = np.any(self._first)
        self._noise = Noise(log_exponential, *logits.shape)
