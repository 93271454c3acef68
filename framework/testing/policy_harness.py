"""A policy is tried: made for some spaces, with weights and observations, asked what it does and says."""

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
    """Spaces, a seed of weights, and what is observed."""

    observation_space: "Space[Any]"
    action_space: "Space[Any]"
    weight_seed: int
    observed: tuple[Any, ...]  # B observations, as nested lists

    @property
    def observations(self) -> Tensor:
        """[B, *O], in the dtype in which the runner hands them out."""
        space = self.observation_space
        array = np.array(self.observed, dtype=space.dtype)
        return torch.from_numpy(array.reshape(len(self.observed), *(space.shape or ())))

    def with_observations(self, observations: Tensor) -> "PolicyCase":
        """With other observations."""
        return evolve(self, observed=tuple(observations.tolist()))

    def rows(self, **more: Any) -> tuple[dict[str, Any], ...]:
        """A table of the observations, for people; `more` are columns to add."""
        columns = {
            "observation": [_brief(row) for row in self.observed],
            **{name: column.tolist() if isinstance(column, Tensor) else column for name, column in more.items()},
        }
        return tuple({name: column[b] for name, column in columns.items()} for b in range(len(self.observed)))

    def spaces(self) -> str:
        """The spaces, in words."""
        return f"{self.observation_space} → {self.action_space}"


def _brief(row: Any) -> Any:
    """An observation as it is shown."""
    return row if np.size(row) <= WIDE else f"{np.shape(row)}, mean {np.mean(row):.4g}"


@frozen(eq=False)
class BuiltPolicy:
    """A policy, with or without memory, asked about first steps of episodes."""

    policy: Any
    case: PolicyCase
    state: Tensor | None  # [1, *H] zeros: what one lane remembers at first; None: the policy has no memory

    def inputs(self, observations: Tensor, masks: Tensor | None = None) -> Inputs:
        """Of one step each; with memory, sequences of one row that each begin an episode."""
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
        """What `evaluate` says [B]."""
        inputs = self.inputs(observations, masks)
        if self.state is None:
            return self.policy.evaluate(inputs, actions, entropies)  # type: ignore[no-any-return]
        evaluation = self.policy.evaluate(inputs, actions.unsqueeze(0), entropies)
        columns = (evaluation.log_probs, evaluation.entropies, evaluation.values)
        return Evaluation(*(None if part is None else part.squeeze(0) for part in columns))  # type: ignore[arg-type]

    def values(self, observations: Tensor) -> Tensor:
        """What `values` says [B]."""
        valued: Tensor = self.policy.values(self.inputs(observations))
        return valued if self.state is None else valued.squeeze(0)

    def act(self, observations: Tensor, seed: int = 0, masks: Tensor | None = None, actor: Any = None) -> Action:
        """What `act` gives for first steps, copied: the same object may come again."""
        actor = self.policy if actor is None else actor
        action = actor.act(Inputs(observations, masks), torch.Generator().manual_seed(seed))
        parts = (action.actions, action.log_probs, action.state)
        return Action(*(None if part is None else part.detach().clone() for part in parts))  # type: ignore[arg-type]

    def environment_actions(self, actions: Tensor) -> Tensor:
        """What the environment gets."""
        translate = getattr(self.policy, "environment_actions", None)
        return actions if translate is None else translate(actions)


def build_policy(subject: Subject, case: PolicyCase, perturbation: float = 1.0) -> BuiltPolicy:
    """A policy for the spaces of a scene, whose weights are `shaken`, away from where they begin, so that all count.

    Its weights come from the scene's seed, and torch's own generator is as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.weight_seed)
        policy = subject.make(case.observation_space, case.action_space)
        perturb(policy, perturbation)
        first = policy.act(Inputs(case.observations[:1]), torch.Generator().manual_seed(0))
    return BuiltPolicy(policy, case, None if first.state is None else torch.zeros_like(first.state))


def perturb(policy: nn.Module, scale: float = 1.0) -> None:
    """Add normal numbers to all parameters, `times` the size in which layers are usually initialised."""
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.is_floating_point():
                size = 0.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.2
                parameter.add_(scale * size * torch.randn_like(parameter))


def one_lane_rollout(case: PolicyCase, real: Tensor | None = None) -> Rollout:
    """A rollout of one lane that observed what the scene has, `real` [T] or padding."""
    observations = case.observations.unsqueeze(1)
    shape = (len(observations), 1)
    mask = torch.ones(shape, dtype=torch.bool) if real is None else real.reshape(shape)
    number, flag = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    count, actions = torch.zeros(shape, dtype=torch.int64), spread_actions(case.action_space, len(observations))
    return Rollout(observations, actions.unsqueeze(1), number, number, flag, flag, mask, count, count)


def require_same(message: str, expected: Tensor, got: Tensor, case: PolicyCase, tolerance: float = 0.0) -> None:
    """Raise `Broken` where two columns `[B, …]` differ by more than `room` of the size of the numbers."""
    if expected.shape != got.shape:
        raise Broken(message, expected=list(expected.shape), got=list(got.shape), case=case.rows())
    expected, got = expected.detach().double(), got.detach().double()
    close = (got == expected) | ((got - expected).abs() <= tolerance * (1 + expected.abs()))
    if not close.all():
        place = tuple((~close).nonzero()[0].tolist())
        table = case.rows(expected=expected, got=got) if len(expected) == len(case.observed) else case.rows()
        raise Broken(f"{message} ({case.spaces()})", expected=float(expected[place]), got=float(got[place]), case=table)


def precision(case: PolicyCase) -> float:
    """What float32 may miss of a policy's outputs: 1e-5 for observations of the size of 1, and more of larger ones."""
    return 1e-5 * max(1.0, float(case.observations.double().abs().max()))


def evaluation_columns(evaluation: Evaluation) -> dict[str, Tensor]:
    """What was said, by name."""
    columns = {"log_probs": evaluation.log_probs, "entropies": evaluation.entropies, "values": evaluation.values}
    return {name: column for name, column in columns.items() if column is not None}


def require_in_action_space(built: BuiltPolicy, actions: Tensor) -> None:
    """Raise `Broken` where what the environment gets of some actions `[B, *A]` is not of the action space."""
    space, received = built.case.action_space, built.environment_actions(actions)
    for b, row in enumerate(received):
        element = row.item() if isinstance(space, Discrete) and row.ndim == 0 else row.numpy()
        if tuple(row.shape) != tuple(space.shape or ()) or not space.contains(element):
            raise Broken(
                f"action {b} is not of its space",
                expected=str(space),
                got=row.tolist(),
                case=built.case.rows(action=received),
            )
    if isinstance(space, Discrete) and received.dtype != torch.int64:
        raise Broken("actions of a Discrete space", expected=torch.int64, got=received.dtype, case=built.case.rows())
