"""The data that flows through a run, and the protocols of the parts that make it.

Time-major throughout: T time steps, N lanes, `*O` the shape of one observation, `*A` of one action,
B real steps flattened. Fields that may be absent are None, so that older plugins keep working when a
field is added.

Nothing here carries a gradient except an `Evaluation` and the `Loss` made from it, and nothing is to be
mutated by whoever is handed it. A `Step` and an `Action` are valid until the next `step`, `reset` or `act`:
an environment may hand out the same object each time, because the runner copies at once.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from attrs import field, frozen
from gymnasium.spaces import Space
from torch import Tensor, nn

Array = np.ndarray[Any, Any]  # on the host


@frozen(eq=False)
class Step:
    """What one step of all lanes gave.

    Where an episode ended, `observations` is the first of the next episode and `successors` the true
    last state. Both flags may be set; the world's end then wins.
    """

    observations: Tensor  # [N, *O] what the policy sees next
    successors: Tensor  # [N, *O] the true next state
    rewards: Tensor  # [N] floating point
    terminated: Tensor  # [N] bool: the world ended, nothing more is to be earned
    truncated: Tensor  # [N] bool: time ran out, the world would have gone on
    valid: Tensor | None = None  # [N] bool; False: no real step (Gymnasium's NEXT_STEP reset row)
    action_masks: Tensor | None = None  # [N, actions] bool; True: allowed in `observations`
    metrics: Mapping[str, Tensor] | None = None  # each [N]: of the episodes that ended here; NaN where there is none


@frozen(eq=False)
class Inputs:
    """What a policy decides from. Fields are added here; the signatures of policies never grow."""

    observations: Tensor  # [..., *O]
    action_masks: Tensor | None = None  # [..., actions] bool
    state: Tensor | None = None  # [N, *H] a policy's memory before (the first of) these steps; None: nothing yet
    started: Tensor | None = None  # [...] bool: first step of an episode, before which nothing is remembered


@frozen(eq=False)
class Action:
    """What a policy chose, without gradient."""

    actions: Tensor  # [N, *A]
    log_probs: Tensor | None = None  # [N]; left out: computed for the whole rollout in one batch
    state: Tensor | None = None  # [N, *H] the policy's memory after this step; None: it has none


@frozen(eq=False)
class Evaluation:
    """A policy's evaluation of actions already taken, with gradient; of sequences, [T, N] instead of [B]."""

    log_probs: Tensor  # [B] log π(a|s)
    entropies: Tensor | None = None  # [B] nats; given when requested
    values: Tensor | None = None  # [B] V(s), from a critic


@frozen(eq=False)
class Rollout:
    """What was collected. `mask` is True for real steps; padding has False flags and finite numbers.

    Episodes are numbered from 0 within the rollout, in the order in which they began.
    """

    observations: Tensor  # [T, N, *O]
    actions: Tensor  # [T, N, *A] as the policy sampled them
    log_probs: Tensor  # [T, N] log π(a|s) of the parameters that acted
    rewards: Tensor  # [T, N]
    terminated: Tensor  # [T, N] bool
    truncated: Tensor  # [T, N] bool
    mask: Tensor  # [T, N] bool
    times: Tensor  # [T, N] int64: step index within its episode
    episodes: Tensor  # [T, N] int64: episode number
    values: Tensor | None = None  # [T, N] V(s), when a part needs values
    successor_values: Tensor | None = None  # [T, N] V(s′); 0 where the world ended
    target_log_probs: Tensor | None = None  # [T, N] log-probs under the policy being learnt
    groups: Tensor | None = None  # [N] int64: lanes that share a start
    action_masks: Tensor | None = None  # [T, N, actions] bool
    state: Tensor | None = None  # [N, *H] the policy's memory before the first row; 0 where it had none yet


@frozen(eq=False)
class Estimate:
    """What a return estimator makes of a rollout."""

    returns: Tensor  # [T, N] the estimate of what each action led to
    value_targets: Tensor  # [T, N] what a critic should predict
    weights: Tensor | None = None  # [T, N] factors of the advantages (γᵗ, V-trace's ρ)


@frozen(eq=False)
class Advantages:
    """advantages = weights · (returns − baseline)."""

    advantages: Tensor  # [T, N]
    returns: Tensor  # [T, N]
    value_targets: Tensor  # [T, N]


@frozen(eq=False)
class Sequences:
    """The lanes of a batch with their rows in order: what a policy with memory is evaluated on.

    An episode starts where `inputs.started`; padding does, too, in every row, so that nothing follows from it.
    """

    inputs: Inputs  # [T, M, …], and the state [M, *H] before the first row
    actions: Tensor  # [T, M, *A]
    real: Tensor  # [T, M] bool; where True, in time-major order, are the batch's rows


@frozen(eq=False)
class Batch:
    """Real steps only, flat, as one optimizer step uses them.

    `total_steps` and `total_episodes` are the denominators of the whole optimizer step, so that the losses of
    micro-batches, which keep them, add up to the whole batch's exactly.
    """

    observations: Tensor  # [B, *O]
    actions: Tensor  # [B, *A]
    log_probs: Tensor  # [B] of the parameters that acted
    advantages: Tensor  # [B]
    returns: Tensor  # [B]
    value_targets: Tensor  # [B]
    total_steps: int
    total_episodes: float
    values: Tensor | None = None  # [B] of the parameters that acted
    action_masks: Tensor | None = None  # [B, actions]
    sequences: Sequences | None = None  # the same steps lane by lane, for a policy with memory


@frozen(eq=False)
class Loss:
    """Named terms, one number a step, unreduced, coefficients applied; the core divides and sums."""

    terms: Mapping[str, Tensor]  # each [B], with gradient
    metrics: Mapping[str, float | Tensor] = field(factory=dict)  # scalars, without gradient
    stop_epochs: bool | Tensor = False  # [] skip this update and the iteration's remaining ones (a KL limit, say)


@frozen(eq=False)
class TabularMDP:
    """A finite Markov decision process: S states, A actions.

    In a partially observed environment, `observations` has the element of the observation space that each state
    shows.
    A terminal state's rows of `transitions` and `rewards` are never used. `rewards` depends on the successor
    because real worlds' do; r(s, a) is its mean under `transitions`.
    """

    transitions: Tensor  # [S, A, S] P(s′ | s, a); rows sum to 1
    rewards: Tensor  # [S, A, S] r(s, a, s′)
    start: Tensor  # [S] probability of each first state
    terminal: Tensor  # [S] bool
    time_limit: int | None = None  # steps until truncation; None: no limit
    observations: Tensor | None = None  # [S] int64 what each state shows; None: itself

    @property
    def seen(self) -> Tensor:
        """What each state shows `[S]`, itself by default."""
        return (
            torch.arange(len(self.start), device=self.start.device) if self.observations is None else self.observations
        )


@runtime_checkable
class Stateful(Protocol):
    """State that changes during a run can be saved: any part with attributes that change has both methods."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that changes, by name: copies, which later changes do not reach."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        ...


@runtime_checkable
class Environment(Protocol):
    """N independent lanes of one Markov decision process, stepped together.

    All its tensors, and the generator that it is handed, live on the device it was built for. Discrete actions come as
    int64; observations may have any dtype that the policy takes.

    What it may have besides is in `capabilities.py`.
    """

    observation_space: Space[Any]  # of one lane
    action_space: Space[Any]  # of one lane

    def reset(self, generator: torch.Generator) -> Tensor:
        """Begin a new episode in every lane; return its first observations [N, *O]."""
        ...

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """Step all lanes; a lane whose episode ended starts the next one by itself."""
        ...


@runtime_checkable
class Actor(Protocol):
    """Whatever samples actions: a policy, or the faster snapshot that its `actor()` returns."""

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """Sample one action a lane, all randomness drawn from `generator`, without gradient."""
        ...


@runtime_checkable
class Policy(Actor, Protocol):
    """An `nn.Module` that acts and evaluates.

    A policy whose `act` returns a state has memory: it gets that state with the next step, and must forget it where
    an episode `started`. Its `evaluate` and `values` are given sequences, rows [T, M, …] from `state` [M, *H] on,
    and return [T, M].

    What it may have besides is in `capabilities.py`.
    """

    def evaluate(self, inputs: Inputs, actions: Tensor, entropies: bool) -> Evaluation:
        """Log-probs (and entropies if `entropies`, and values with a critic) of `actions`, with gradient."""
        ...


class PolicyModule(Policy, nn.Module):
    """A run's policy: an `nn.Module` that is a `Policy`. It is for type checkers: nothing needs to inherit from it."""


@runtime_checkable
class Estimator(Protocol):
    """Settings that are called with a rollout, or whose `build()` returns what is called."""

    def __call__(self, rollout: Rollout) -> Estimate:
        """Returns, value targets and perhaps weights of every step."""
        ...


@runtime_checkable
class Baseline(Protocol):
    """Likewise. One that learns has `update` (`capabilities.HasUpdate`) and the methods of `Stateful`."""

    def __call__(self, rollout: Rollout, returns: Tensor) -> Tensor:
        """What is subtracted from `returns` [T, N], of the same shape."""
        ...


@runtime_checkable
class LossFunction(Protocol):
    """Likewise."""

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        """The loss of each step of `batch`, by named term."""
        ...
