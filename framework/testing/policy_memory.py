"""The laws of policies with memory: sequences say what stepping says, and nothing outlives its episode."""

import torch
from attrs import frozen
from hypothesis import strategies as st
from torch import Tensor

from ..contracts import Evaluation, Inputs
from .law import Subject, law
from .policy_harness import Player, Scene, every_part, made, precision, same
from .policy_spaces import remembers, scenes
from .spaces import spread


@frozen
class Told:
    """A scene whose observations are the rows of two lanes, and where episodes start."""

    scene: Scene
    starts: tuple[tuple[bool, bool], ...]  # [T, 2]


@st.composite
def stories(draw: st.DrawFn, subject: Subject) -> Told:
    """Two lanes of a few steps, which begin with or without an episode's start."""
    starts = draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4))
    scene = draw(scenes(most=1)(subject))
    rows = spread(scene.observation_space, 2 * len(starts), scene.weights)
    return Told(scene.seeing(rows), tuple(starts))


def sequences(player: Player, told: Told, state: Tensor) -> tuple[Inputs, Tensor]:
    """Inputs [T, 2, …], and actions that stepping took [T, 2, *A]; `started` says where to forget."""
    rows = player.scene.observations
    observations = rows.reshape(-1, 2, *rows.shape[1:])
    started = torch.tensor(told.starts)
    generator, actions, before = torch.Generator().manual_seed(1), [], state
    for t in range(len(started)):
        action = player.policy.act(Inputs(observations[t], None, before, started[t]), generator)
        actions.append(action.actions.clone())
        before = action.state.clone()
    return Inputs(observations, None, state, started), torch.stack(actions)


def stepped(player: Player, inputs: Inputs, actions: Tensor) -> Evaluation:
    """What `evaluate` says of sequences of one row each, with the memory that `act` leaves, one after the other."""
    said, before = [], inputs.state
    assert inputs.started is not None
    for t in range(len(actions)):
        row = Inputs(inputs.observations[t : t + 1], None, before, inputs.started[t : t + 1])
        said.append(every_part(player.policy.evaluate(row, actions[t : t + 1], True)))
        now = Inputs(inputs.observations[t], None, before, inputs.started[t])
        before = player.policy.act(now, torch.Generator()).state.clone()
    return Evaluation(**{name: torch.cat([part[name] for part in said]) for name in said[0]})


def remembered(player: Player, seed: int) -> Tensor:
    """Some memory of two lanes [2, *H], which steps have left."""
    assert player.state is not None
    state = player.state.expand(2, *player.state.shape[1:]).clone()
    rows = spread(player.scene.observation_space, 2, seed)
    action = player.policy.act(Inputs(rows, None, state, torch.zeros(2, dtype=torch.bool)), torch.Generator())
    return action.state.clone()  # type: ignore[no-any-return]


@law("policy", source="docs/reference/contracts.md#memory", cases=stories, applies=remembers)
def sequences_say_what_stepping_says(subject: Subject, case: Told) -> None:
    """`evaluate` of sequences [T, M], from the memory before them on, is that of single rows with the memory that each
    step of `act` has left: no state of another lane, step or episode.
    """
    player = made(subject, case.scene)
    state = remembered(player, case.scene.weights)
    inputs, actions = sequences(player, case, state)
    whole = every_part(player.policy.evaluate(inputs, actions, True))
    for name, part in every_part(stepped(player, inputs, actions)).items():
        same(f"{name} of sequences", part.flatten(), whole[name].flatten(), case.scene, precision(case.scene))


@law("policy", source="docs/reference/contracts.md#memory", cases=stories, applies=remembers)
def an_episodes_start_is_an_order_to_forget(subject: Subject, case: Told) -> None:
    """Where an episode starts, what was remembered changes nothing, in acting and judging; neither do other lanes."""
    player = made(subject, case.scene)
    state, other = remembered(player, 1), remembered(player, 2)
    starts = ((True, False), *case.starts[1:])
    inputs, actions = sequences(player, Told(case.scene, starts), state)
    assert inputs.started is not None
    lane = slice(0, 1)
    expected = every_part(player.policy.evaluate(inputs, actions, True))
    forgot = Inputs(inputs.observations, None, other, inputs.started)
    for name, part in every_part(player.policy.evaluate(forgot, actions, True)).items():
        same(
            f"{name} of an episode from its start on, with another memory before it",
            expected[name][:, lane],
            part[:, lane],
            case.scene,
            precision(case.scene),
        )
    acted = [
        player.policy.act(
            Inputs(inputs.observations[0], None, before, inputs.started[0]), torch.Generator().manual_seed(1)
        )
        for before in (state, other)
    ]
    kept = [action.state.clone() for action in acted]
    same(
        "the memory after a start", kept[0][lane].flatten(), kept[1][lane].flatten(), case.scene, precision(case.scene)
    )
