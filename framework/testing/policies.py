"""Laws of policies that hold for all spaces. Those of probabilities and sampling are in `probabilities.py`,
`sampling.py` and `sampling_masks.py`, those of memory in `policy_memory.py`.

Laws are checked on the small spaces of `spaces.py` that the policy's `build` does not refuse, with random weights and
observations.
"""

import copy

import torch
from attrs import evolve
from torch import Tensor

from ..contracts import Inputs
from ..errors import PartError, UsageError
from ..guards import checks
from . import probabilities, sampling, sampling_masks  # noqa: F401 - imported to register their laws
from .law import Broken, Subject, law
from .policy_harness import (
    BuiltPolicy,
    PolicyCase,
    build_policy,
    evaluation_columns,
    one_lane_rollout,
    precision,
    require_in_action_space,
    require_same,
)
from .policy_memory import SequenceCase, memory_after_step, sequences
from .policy_spaces import SUPPORTED, has_member, policy_cases, tried_pairs
from .spaces import edges, spread
from .verdicts import describe

# Form


def _refuses_all_spaces(subject: Subject) -> str | None:
    """Why the law cannot be checked: all spaces are refused with a UsageError."""
    crashed = any(error is not None and not isinstance(error, UsageError) for _, error in tried_pairs(subject))
    return None if crashed else SUPPORTED(subject)


@law("policy", source="docs/reference/errors.md", applies=_refuses_all_spaces)
def policies_support_spaces_or_say_why_not(subject: Subject) -> None:
    """For each pair of small spaces, and for the spaces of the environments in its plugin, `build` either returns a
    policy that acts in them or raises a UsageError.
    """
    for (observation_space, action_space), error in tried_pairs(subject):
        if error is not None and not isinstance(error, UsageError):
            if isinstance(error, Broken):
                raise Broken(
                    f"{observation_space} → {action_space}: {error}",
                    expected=error.expected,
                    got=error.got,
                    case=error.case,
                )
            raise Broken(
                f"{observation_space} → {action_space}: {describe(error)}",
                expected="a policy, or a UsageError that says which spaces it supports",
                got=type(error).__name__,
            ) from error


@law("policy", cases=policy_cases(), applies=SUPPORTED)
def policies_accept_every_observation(subject: Subject, case: PolicyCase) -> None:
    """Also at the edges of a space (the first and last element of a Discrete space, the corners of a Box, ±1000 where
    it has no bound) actions, as passed to the environment, are in the action space, and log-probs, entropies and values
    are finite, one number per row.
    """
    space = case.observation_space
    case = case.with_observations(torch.cat([edges(space), case.observations]))
    observations, count = case.observations, len(case.observed)
    try:
        built = build_policy(subject, case)
        action = built.act(observations)
        evaluation = built.evaluate(observations, action.actions)
        values = built.values(observations) if subject.declares("gives", "values") else None
    except Exception as error:
        raise Broken(
            f"{describe(error)} ({case.spaces()})",
            expected="an action for each row, and its evaluation",
            got=type(error).__name__,
            case=case.rows(),
        ) from error
    require_in_action_space(built, action.actions)
    parts, wanted = evaluation_columns(evaluation), {"log_probs", "entropies"}
    if values is not None:
        parts["values"], wanted = values, {*wanted, "values"}
    for name in sorted(wanted | parts.keys()):
        part = parts.get(name)
        try:
            checks.tensor(f"{name}", part, (count,), "[B]", "floating point")
            assert part is not None
            checks.finite(name, part)
        except PartError as error:
            raise Broken(f"{error} ({case.spaces()})", case=case.rows(action=action.actions)) from error


# Evaluating


@law("policy", cases=policy_cases(most=4), applies=SUPPORTED)
def rows_of_policies_are_independent(subject: Subject, case: PolicyCase) -> None:
    """The evaluation of a row does not depend on the other rows of its batch, nor on its position."""
    built, observations = build_policy(subject, case), case.observations
    actions = built.act(observations, case.weight_seed).actions
    whole = evaluation_columns(built.evaluate(observations, actions))
    if subject.declares("gives", "values"):
        whole["valued"] = built.values(observations)
    order = torch.arange(len(observations)).flip(0)
    for index in (order, *order.unsqueeze(1)):
        part = evaluation_columns(built.evaluate(observations[index], actions[index]))
        if subject.declares("gives", "values"):
            part["valued"] = built.values(observations[index])
        for name, column in whole.items():
            together = column.detach().clone()
            alone = together.clone().index_copy(0, index, part[name].detach().to(together.dtype))
            require_same(f"{name} of a row, without the other rows", together, alone, case, precision(case))


@law("policy", cases=policy_cases(), applies=SUPPORTED)
def act_and_evaluate_change_nothing(subject: Subject, case: PolicyCase) -> None:
    """`act`, `evaluate` and `values` change no parameters and buffers (running statistics are updated in `observe`) and
    none of their arguments; actions carry no gradient.
    """
    built, observations = build_policy(subject, case), case.observations
    before = {name: part.clone() for name, part in built.policy.state_dict().items()}
    passed = observations.clone()
    action = built.policy.act(Inputs(passed), torch.Generator().manual_seed(0))
    for name in ("actions", "log_probs", "state"):
        part = getattr(action, name)
        if part is not None and part.requires_grad:
            raise Broken(f"{name} from act carry a gradient", expected="no gradient", case=case.rows())
    actions = action.actions.clone()
    built.evaluate(passed, actions)
    if subject.declares("gives", "values"):
        built.values(passed)
    require_same("an observation that was passed in", observations, passed, case)
    for name, part in built.policy.state_dict().items():
        if not torch.equal(part, before[name]):
            raise Broken(
                f"{name} has changed ({case.spaces()})",
                expected=before[name].tolist(),
                got=part.tolist(),
                case=case.rows(),
            )


@law("policy", cases=policy_cases(most=1), applies=SUPPORTED, examples=20)
def every_parameter_of_a_policy_gets_a_gradient(subject: Subject, case: PolicyCase) -> None:
    """The gradient of log-probs, entropies and values together reaches every parameter that requires one, for some
    weights and observations: a detached standard deviation, or an unused layer, would never be trained.
    """
    missing: set[str] | None = None
    for seed in range(case.weight_seed, case.weight_seed + 3):
        rows = spread(case.observation_space, 16, seed)
        built = build_policy(subject, evolve(case.with_observations(rows), weight_seed=seed))
        if built.state is None:
            columns = evaluation_columns(built.evaluate(rows, built.act(rows, seed).actions))
        else:
            sequence_case = SequenceCase(built.case, ((False, False),) * 8)
            inputs, actions = sequences(built, sequence_case, memory_after_step(built, seed))
            columns = evaluation_columns(built.policy.evaluate(inputs, actions, True))
        generator = torch.Generator().manual_seed(seed)
        total = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in columns.values())
        parameters = {name: p for name, p in built.policy.named_parameters() if p.requires_grad}
        if not isinstance(total, Tensor) or not total.requires_grad:
            raise Broken("evaluate carries no gradient", expected="a graph", got="none", case=case.rows())
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        unreached = {
            name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None or not gradient.any()
        }
        missing = unreached if missing is None else missing & unreached
    if missing:
        raise Broken(
            f"no gradient reaches {', '.join(sorted(missing))} ({case.spaces()})",
            expected="a gradient",
            got="none, or 0",
            case=case.rows(),
        )


@law("policy", source="docs/howto/run-and-record.md", cases=policy_cases(), applies=SUPPORTED)
def a_state_dict_is_the_whole_policy(subject: Subject, case: PolicyCase) -> None:
    """Loading it into a policy with other weights makes that policy bit for bit the same, including the statistics that
    `observe` has collected; `copy.deepcopy` gives the same policy, too.
    """
    built = build_policy(subject, case)
    if hasattr(built.policy, "observe"):
        built.policy.observe(one_lane_rollout(case))
    loaded = build_policy(
        subject, PolicyCase(case.observation_space, case.action_space, case.weight_seed + 1, case.observed)
    )
    loaded.policy.load_state_dict({name: part.clone() for name, part in built.policy.state_dict().items()})
    copied_policy = BuiltPolicy(copy.deepcopy(built.policy), case, built.state)
    actions = built.act(case.observations, 3).actions
    for restored, how in ((loaded, "loaded"), (copied_policy, "copied")):
        require_same(f"an action of the {how} policy", actions, restored.act(case.observations, 3).actions, case)
        expected, got = (evaluation_columns(p.evaluate(case.observations, actions)) for p in (built, restored))
        for name, part in expected.items():
            require_same(f"{name} of the {how} policy", part, got[name], case)


@law("policy", cases=policy_cases(), applies=has_member("observe", "it has no observe"))
def observe_ignores_padding(subject: Subject, case: PolicyCase) -> None:
    """`observe` uses only the steps of a rollout where `mask` is True; the contents of padding have no effect."""
    padding = edges(case.observation_space)
    longer = case.with_observations(torch.cat([case.observations, padding]))
    real = torch.arange(len(longer.observed)) < len(case.observed)
    without_padding, with_padding = build_policy(subject, case), build_policy(subject, case)
    without_padding.policy.observe(one_lane_rollout(case))
    with_padding.policy.observe(one_lane_rollout(longer, real))
    for (name, a), b in zip(
        without_padding.policy.state_dict().items(), with_padding.policy.state_dict().values(), strict=True
    ):
        if not torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6):
            raise Broken(f"{name}, with padding", expected=a.tolist(), got=b.tolist(), case=longer.rows(real=real))
