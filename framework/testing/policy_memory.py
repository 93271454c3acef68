"""Laws of policies with memory: sequences are evaluated as single steps, and memory ends with its episode."""

import torch
from attrs import frozen
from hypothesis import strategies as st
from torch import Tensor

from ..contracts import Evaluation, Inputs
from .law import Subject, law
from .policy_harness import BuiltPolicy, PolicyCase, build_policy, evaluation_columns, precision, require_same
from .policy_spaces import has_memory, policy_cases
from .spaces import spread


@frozen
class SequenceCase:
    """A case whose observations are the rows of two lanes, and where episodes start."""

    base: PolicyCase
    starts: tuple[tuple[bool, bool], ...]  # [T, 2]


@st.composite
def sequence_cases(draw: st.DrawFn, subject: Subject) -> SequenceCase:
    """Two lanes of a few steps, whose first steps may or may not start an episode."""
    starts = draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4))
    case = draw(policy_cases(most=1)(subject))
    rows = spread(case.observation_space, 2 * len(starts), case.weight_seed)
    return SequenceCase(case.with_observations(rows), tuple(starts))


def sequences(built: BuiltPolicy, case: SequenceCase, state: Tensor) -> tuple[Inputs, Tensor]:
    """Inputs [T, 2, …], and the actions [T, 2, *A] that `act` took step by step; `started` marks where memory ends."""
    rows = built.case.observations
    observations = rows.reshape(-1, 2, *rows.shape[1:])
    started = torch.tensor(case.starts)
    generator, actions, memory = torch.Generator().manual_seed(1), [], state
    for t in range(len(started)):
        action = built.policy.act(Inputs(observations[t], None, memory, started[t]), generator)
        actions.append(action.actions.clone())
        memory = action.state.clone()
    return Inputs(observations, None, state, started), torch.stack(actions)


def evaluate_stepwise(built: BuiltPolicy, inputs: Inputs, actions: Tensor) -> Evaluation:
    """`evaluate` on sequences of one row each, with the memory that `act` returned in the step before."""
    evaluations, memory = [], inputs.state
    assert inputs.started is not None
    for t in range(len(actions)):
        row = Inputs(inputs.observations[t : t + 1], None, memory, inputs.started[t : t + 1])
        evaluations.append(evaluation_columns(built.policy.evaluate(row, actions[t : t + 1], True)))
        step_inputs = Inputs(inputs.observations[t], None, memory, inputs.started[t])
        memory = built.policy.act(step_inputs, torch.Generator()).state.clone()
    return Evaluation(**{name: torch.cat([part[name] for part in evaluations]) for name in evaluations[0]})


def memory_after_step(built: BuiltPolicy, seed: int) -> Tensor:
    """Memory of two lanes [2, *H], as it is after one step."""
    assert built.state is not None
    state = built.state.expand(2, *built.state.shape[1:]).clone()
    rows = spread(built.case.observation_space, 2, seed)
    action = built.policy.act(Inputs(rows, None, state, torch.zeros(2, dtype=torch.bool)), torch.Generator())
    return action.state.clone()  # type: ignore[no-any-return]


@law("policy", source="docs/reference/contracts.md#memory", cases=sequence_cases, applies=has_memory)
def sequences_are_evaluated_as_single_steps(subject: Subject, case: SequenceCase) -> None:
    """`evaluate` on sequences [T, M], which start from a given memory, equals `evaluate` on single rows with the memory
    that `act` returned in the step before: no state of another lane, step or episode is used.
    """
    built = build_policy(subject, case.base)
    state = memory_after_step(built, case.base.weight_seed)
    inputs, actions = sequences(built, case, state)
    whole = evaluation_columns(built.policy.evaluate(inputs, actions, True))
    for name, part in evaluation_columns(evaluate_stepwise(built, inputs, actions)).items():
        require_same(f"{name} of sequences", part.flatten(), whole[name].flatten(), case.base, precision(case.base))


@law("policy", source="docs/reference/contracts.md#memory", cases=sequence_cases, applies=has_memory)
def memory_is_cleared_at_the_start_of_an_episode(subject: Subject, case: SequenceCase) -> None:
    """Where an episode starts, earlier memory has no effect on `act` and `evaluate`; neither have other lanes."""
    built = build_policy(subject, case.base)
    state, other_state = memory_after_step(built, 1), memory_after_step(built, 2)
    starts = ((True, False), *case.starts[1:])
    inputs, actions = sequences(built, SequenceCase(case.base, starts), state)
    assert inputs.started is not None
    lane = slice(0, 1)
    expected = evaluation_columns(built.policy.evaluate(inputs, actions, True))
    with_other_state = Inputs(inputs.observations, None, other_state, inputs.started)
    for name, part in evaluation_columns(built.policy.evaluate(with_other_state, actions, True)).items():
        require_same(
            f"{name} of an episode from its start, with different memory before it",
            expected[name][:, lane],
            part[:, lane],
            case.base,
            precision(case.base),
        )
    actions_at_start = [
        built.policy.act(
            Inputs(inputs.observations[0], None, before, inputs.started[0]), torch.Generator().manual_seed(1)
        )
        for before in (state, other_state)
    ]
    memories = [action.state.clone() for action in actions_at_start]
    require_same(
        "the memory after a start",
        memories[0][lane].flatten(),
        memories[1][lane].flatten(),
        case.base,
        precision(case.base),
    )
