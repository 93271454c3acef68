"""Build a policy for given spaces, weights and observations, and call it."""

from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from gymnasium.spaces import Discrete, Space
from torch import Tensor, nn

from ..contracts import Action, Evaluation, Inputs, Rollout
from .law import Broken, Subject
from .spaces import WIDE, spread_actions


@frozen
class PolicyCase:
    """Spaces, a seed for the weights, and observations."""

    observation_space: "Space[Any]"
    action_space: "Space[Any]"
    weight_seed: int
    observed: tuple[Any, ...]  # B observations, as nested lists

    @property
    def observations(self) -> Tensor:
        """[B, *O], in the dtype that the runner passes to policies."""
        space = self.observation_space
        array = np.array(self.observed, dtype=space.dtype)
        return torch.from_numpy(array.reshape(len(self.observed), *(space.shape or ())))

    def with_observations(self, observations: Tensor) -> "PolicyCase":
        """The same case with other observations."""
        return evolve(self, observed=tuple(observations.tolist()))

    def rows(self, **more: Any) -> tuple[dict[str, Any], ...]:
        """A table of the observations for reports; `more` are extra columns."""
        columns = {
            "observation": [_brief(row) for row in self.observed],
            **{name: column.tolist() if isinstance(column, Tensor) else column for name, column in more.items()},
        }
        return tuple({name: column[b] for name, column in columns.items()} for b in range(len(self.observed)))

    def spaces(self) -> str:
        """The spaces, in words."""
        return f"{self.observation_space} → {self.action_space}"


def _brief(row: Any) -> Any:
    """An observation as it is printed."""
    return row if np.size(row) <= WIDE else f"{np.shape(row)}, mean {np.mean(row):.4g}"


@frozen(eq=False)
class BuiltPolicy:
    """A policy, with or without memory, that is called on the first steps of episodes."""

    policy: Any
    case: PolicyCase
    state: Tensor | None  # [1, *H] zeros: initial memory of one lane; None: the policy has no memory

    def inputs(self, observations: Tensor, masks: Tensor | None = None) -> Inputs:
        """Inputs of single steps; with memory, sequences of one row that each start an episode."""
        if self.state is None:
            return Inputs(observations, masks)
        lanes = len(observations)
        return Inputs(
            observations.unsqueeze(0),
            None if masks is None else masks.unsqueeze(0),
            self.state.expand(lanes, *self.state.shape[1:]).clone(),
            torch.ones(1, lanes, dtype=torch.bool),
        )

    def evaluate(
        self, observations: Tensor, actions: Tensor, masks: Tensor | None = None, entropies: bool = True
    ) -> Evaluation:
        """The result of `evaluate` [B]."""
        inputs = self.inputs(observations, masks)
        if self.state is None:
            return self.policy.evaluate(inputs, actions, entropies)  # type: ignore[no-any-return]
        evaluation = self.policy.evaluate(inputs, actions.unsqueeze(0), entropies)
        columns = (evaluation.log_probs, evaluation.entropies, evaluation.values)
        return Evaluation(*(None if part is None else part.squeeze(0) for part in columns))  # type: ignore[arg-type]

    def values(self, observations: Tensor) -> Tensor:
        """The result of `values` [B]."""
        valued: Tensor = self.policy.values(self.inputs(observations))
        return valued if self.state is None else valued.squeeze(0)

    def act(self, observations: Tensor, seed: int = 0, masks: Tensor | None = None, actor: Any = None) -> Action:
        """The result of `act` on first steps, copied: the policy may return the same object again."""
        actor = self.policy if actor is None else actor
        action = actor.act(Inputs(observations, masks), torch.Generator().manual_seed(seed))
        parts = (action.actions, action.log_probs, action.state)
        return Action(*(None if part is None else part.detach().clone() for part in parts))  # type: ignore[arg-type]

    def environment_actions(self, actions: Tensor) -> Tensor:
        """The actions that are passed to the environment."""
        translate = getattr(self.policy, "environment_actions", None)
        return actions if translate is None else translate(actions)


def build_policy(subject: Subject, case: PolicyCase, perturbation: float = 1.0) -> BuiltPolicy:
    """A policy for the spaces of a case, with weights perturbed away from their initial values, so that all matter.

    The weights come from the case's seed; torch's global generator is restored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.weight_seed)
        policy = subject.make(case.observation_space, case.action_space)
        perturb(policy, perturbation)
        first = policy.act(Inputs(case.observations[:1]), torch.Generator().manual_seed(0))
    return BuiltPolicy(policy, case, None if first.state is None else torch.zeros_like(first.state))


def perturb(policy: nn.Module, scale: float = 1.0) -> None:
    """Add normal noise to all parameters, `scale` times the usual size of initial weights."""
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.is_floating_point():
                size = 0.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.2
                parameter.add_(scale * size * torch.randn_like(parameter))


def one_lane_rollout(case: PolicyCase, real: Tensor | None = None) -> Rollout:
    """A rollout of one lane with the observations of a case; `real` [T] marks real steps, the others are padding."""
    observations = case.observations.unsqueeze(1)
    shape = (len(observations), 1)
    mask = torch.ones(shape, dtype=torch.bool) if real is None else real.reshape(shape)
    number, flag = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    count, actions = torch.zeros(shape, dtype=torch.int64), spread_actions(case.action_space, len(observations))
    return Rollout(observations, actions.unsqueeze(1), number, number, flag, flag, mask, count, count)


def require_same(message: str, expected: Tensor, got: Tensor, case: PolicyCase, tolerance: float = 0.0) -> None:
    """Raise `Broken` if two columns `[B, …]` differ by more than a relative tolerance."""
    if expected.shape != got.shape:
        raise Broken(message, expected=list(expected.shape), got=list(got.shape), case=case.rows())
    expected, got = expected.detach().double(), got.detach().double()
    close = (got == expected) | ((got - expected).abs() <= tolerance * (1 + expected.abs()))
    if not close.all():
        place = tuple((~close).nonzero()[0].tolist())
        table = case.rows(expected=expected, got=got) if len(expected) == len(case.observed) else case.rows()
        raise Broken(f"{message} ({case.spaces()})", expected=float(expected[place]), got=float(got[place]), case=table)


def precision(case: PolicyCase) -> float:
    """Error that float32 may cause in a policy's outputs: 1e-5 for observations of size 1, more for larger ones."""
    return 1e-5 * max(1.0, float(case.observations.double().abs().max()))


def evaluation_columns(evaluation: Evaluation) -> dict[str, Tensor]:
    """The columns of an evaluation by name, without those that are None."""
    columns = {"log_probs": evaluation.log_probs, "entropies": evaluation.entropies, "values": evaluation.values}
    return {name: column for name, column in columns.items() if column is not None}


def require_in_action_space(built: BuiltPolicy, actions: Tensor) -> None:
    """Raise `Broken` if one of the actions `[B, *A]`, as passed to the environment, is not in the action space."""
    space, received = built.case.action_space, built.environment_actions(actions)
    for b, row in enumerate(received):
        element = row.item() if isinstance(space, Discrete) and row.ndim == 0 else row.numpy()
        if tuple(row.shape) != tuple(space.shape or ()) or not space.contains(element):
            raise Broken(
                f"action {b} is not in the action space",
                expected=str(space),
                got=row.tolist(),
                case=built.case.rows(action=received),
            )
    if isinstance(space, Discrete) and received.dtype != torch.int64:
        raise Broken("actions of a Discrete space", expected=torch.int64, got=received.dtype, case=built.case.rows())
