"""What laws need to try a policy: spaces that it takes, weights, observations, and all that may come of one of them."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from hypothesis import strategies as st
from torch import Tensor, nn

from ..contracts import Action, Evaluation, Inputs, Rollout
from ..errors import UsageError
from .law import Broken, Subject
from .strategies import elements

INFINITE = np.inf
OBSERVED: tuple["Space[Any]", ...] = (
    Discrete(3),
    Box(-1.0, 1.0, (2,)),
    Discrete(4, start=-1),
    Box(-INFINITE, INFINITE, (3,)),
    Box(0, 255, (2, 3), np.uint8),
    Box(-2.0, 3.0, (2, 2), np.float64),
    MultiDiscrete([2, 3]),
    MultiBinary(2),
    Box(0, 255, (36, 36, 3), np.uint8),  # a picture, no smaller than the usual three convolutions need
)
ACTED: tuple["Space[Any]", ...] = (
    Discrete(3),
    Box(-1.0, 1.0, (1,)),
    MultiDiscrete([2, 3]),
    Discrete(2, start=1),
    Box(-1.0, 3.0, (2,)),
    MultiDiscrete([3, 2], start=[1, -1]),
    MultiBinary(2),
    Box(-INFINITE, INFINITE, (1,)),
    Box(-2.0, 0.5, (1, 2)),
)
WIDE = 64  # numbers of an observation, from which on they are not drawn, counted on and shown one by one
MOST_CHOICES = 4096  # actions of a space that are all tried
FAR = 1000.0  # where a space has no bound
TRIES = 32  # actions by which it is seen whether a policy takes a space

Pair = tuple["Space[Any]", "Space[Any]"]


@frozen
class Scene:
    """Spaces, a seed of weights, and what is observed."""

    observation_space: "Space[Any]"
    action_space: "Space[Any]"
    weights: int
    observed: tuple[Any, ...]  # B observations, as nested lists

    @property
    def observations(self) -> Tensor:
        """[B, *O], in the dtype in which the runner hands them out."""
        space = self.observation_space
        array = np.array(self.observed, dtype=space.dtype)
        return torch.from_numpy(array.reshape(len(self.observed), *(space.shape or ())))

    def seeing(self, observations: Tensor) -> "Scene":
        """With other observations."""
        return evolve(self, observed=tuple(observations.tolist()))

    def rows(self, **more: Any) -> tuple[dict[str, Any], ...]:
        """A table of the observations, for people; `more` are columns to add."""
        columns = {
            "observation": [_brief(row) for row in self.observed],
            **{name: listed(column) for name, column in more.items()},
        }
        return tuple({name: column[b] for name, column in columns.items()} for b in range(len(self.observed)))

    def where(self) -> str:
        """The spaces, in words."""
        return f"{self.observation_space} → {self.action_space}"


def _brief(row: Any) -> Any:
    """An observation as it is shown."""
    return row if np.size(row) <= WIDE else f"{np.shape(row)}, mean {np.mean(row):.4g}"


def listed(column: Any) -> Any:
    """A tensor as a list."""
    return column.tolist() if isinstance(column, Tensor) else column


@frozen(eq=False)
class Player:
    """A policy, with or without memory, asked about first steps of episodes."""

    policy: Any
    scene: Scene
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

    def judge(
        self, observations: Tensor, actions: Tensor, masks: Tensor | None = None, entropies: bool = True
    ) -> Evaluation:
        """What `evaluate` says [B]."""
        inputs = self.inputs(observations, masks)
        if self.state is None:
            return self.policy.evaluate(inputs, actions, entropies)  # type: ignore[no-any-return]
        said = self.policy.evaluate(inputs, actions.unsqueeze(0), entropies)
        parts = (said.log_probs, said.entropies, said.values)
        return Evaluation(*(None if part is None else part.squeeze(0) for part in parts))  # type: ignore[arg-type]

    def values(self, observations: Tensor) -> Tensor:
        """What `values` says [B]."""
        valued: Tensor = self.policy.values(self.inputs(observations))
        return valued if self.state is None else valued.squeeze(0)

    def act(
        self, observations: Tensor, seed: int = 0, masks: Tensor | None = None, actor: Any = None, times: int = 1
    ) -> Action:
        """What `act` gives for first steps, copied: the same object may come again. Of several times, the last."""
        generator = torch.Generator().manual_seed(seed)
        actor = self.policy if actor is None else actor
        for _ in range(times):
            chosen = actor.act(Inputs(observations, masks), generator)
        parts = (chosen.actions, chosen.log_probs, chosen.state)
        return Action(*(None if part is None else part.detach().clone() for part in parts))  # type: ignore[arg-type]

    def translated(self, actions: Tensor) -> Tensor:
        """What the environment gets."""
        translate = getattr(self.policy, "environment_actions", None)
        return actions if translate is None else translate(actions)


def made(subject: Subject, scene: Scene, shaken: float = 1.0) -> Player:
    """A policy for the spaces of a scene, whose weights are `shaken`, away from where they begin, so that all count.

    Its weights come from the scene's seed, and torch's own generator is as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(scene.weights)
        policy = subject.make(scene.observation_space, scene.action_space)
        shake(policy, shaken)
        first = policy.act(Inputs(scene.observations[:1]), torch.Generator().manual_seed(0))
    return Player(policy, scene, None if first.state is None else torch.zeros_like(first.state))


def shake(policy: nn.Module, times: float = 1.0) -> None:
    """Add normal numbers to all parameters, `times` the size in which layers are usually initialised."""
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.is_floating_point():
                size = 0.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.2
                parameter.add_(times * size * torch.randn_like(parameter))


def pairs(subject: Subject) -> list[tuple[Pair, Exception | None]]:
    """Spaces of observations and actions that were tried, and what the policy raised; None: it takes them."""
    if "pairs" not in subject.memory:
        tried = [*itertools.product(OBSERVED, ACTED), *_neighbours(subject)]
        subject.memory["pairs"] = [(pair, _tried(subject, *pair)) for pair in tried]
    return subject.memory["pairs"]  # type: ignore[no-any-return]


def _neighbours(subject: Subject) -> Iterator[Pair]:
    """Spaces of the environments that the policy's own plugin offers, for which it was perhaps written."""
    for offered in subject.loaded.offers.get("environment", {}).values():
        if subject.part.plugin not in offered:
            continue
        try:
            lanes = offered[subject.part.plugin]().build(1, torch.device("cpu"))
        except Exception:  # the laws of environments say so
            continue
        pair = (lanes.observation_space, lanes.action_space)
        getattr(lanes, "close", lambda: None)()
        if all(isinstance(space, Discrete | Box | MultiDiscrete | MultiBinary) for space in pair):
            yield pair


def _tried(subject: Subject, seen: "Space[Any]", acted: "Space[Any]") -> Exception | None:
    """None as soon as it acts on some observation and judges that; else what it raised, or did wrong, at last."""
    raised: Exception | None = None
    for row in torch.cat([spread(seen, 1), edges(seen)]).tolist():
        scene = Scene(seen, acted, 0, (row,))
        try:
            player = made(subject, scene)
            many = scene.observations.expand(TRIES, *scene.observations.shape[1:])
            actions = player.act(many).actions
            is_of_its_space(player, actions)
            player.judge(many, actions)
        except Exception as error:
            raised = error
            if isinstance(error, UsageError):
                break
        else:
            return None
    return raised


def is_of_its_space(player: Player, actions: Tensor) -> None:
    """Raise `Broken` where what the environment gets of some actions `[B, *A]` is not of the action space."""
    space, got = player.scene.action_space, player.translated(actions)
    for b, row in enumerate(got):
        element = row.item() if isinstance(space, Discrete) and row.ndim == 0 else row.numpy()
        if tuple(row.shape) != tuple(space.shape or ()) or not space.contains(element):
            raise Broken(
                f"action {b} is not of its space",
                expected=str(space),
                got=row.tolist(),
                case=player.scene.rows(action=got),
            )
    if isinstance(space, Discrete) and got.dtype != torch.int64:
        raise Broken("actions of a Discrete space", expected=torch.int64, got=got.dtype, case=player.scene.rows())


def taken(subject: Subject, *kinds: Any) -> list[Pair]:
    """The pairs that the policy takes, whose actions are of these kinds."""
    return [pair for pair, error in pairs(subject) if error is None and (not kinds or isinstance(pair[1], kinds))]


def takes(*kinds: Any) -> Any:
    """Why a law about actions of these kinds does not concern a policy."""

    def reason(subject: Subject) -> str | None:
        if taken(subject, *kinds):
            return None
        names = " or ".join(kind.__name__ for kind in kinds)
        if kinds and taken(subject):
            return f"it takes no {names} actions"
        first = next((error for _, error in pairs(subject) if isinstance(error, UsageError)), None)
        tried = "small ones, and those of the environments that its plugin offers"
        return f"it takes none of the spaces that laws try ({tried}){'' if first is None else f': {first}'}"

    return reason


def only(name: str, holds: Callable[[Player], bool], *kinds: Any) -> Callable[[Subject], list[Pair]]:
    """Of the pairs that the policy takes, those for which something holds of it, found once under this name."""

    def found(subject: Subject) -> list[Pair]:
        if name not in subject.memory:
            subject.memory[name] = [pair for pair in taken(subject, *kinds) if holds(_at(subject, pair))]
        return subject.memory[name]  # type: ignore[no-any-return]

    return found


def some(pairs: Callable[[Subject], list[Pair]], why: str, *kinds: Any) -> Any:
    """Why a law about some of the pairs does not concern a policy: there are none."""
    return lambda subject: takes(*kinds)(subject) or (None if pairs(subject) else why)


def scenes(*kinds: Any, most: int = 4, of: Callable[[Subject], list[Pair]] | None = None) -> Any:
    """Cases: spaces that the policy takes (`of`: of these alone), weights, and a few observations."""

    def cases(subject: Subject) -> st.SearchStrategy[Scene]:
        @st.composite
        def draw_scene(draw: st.DrawFn) -> Scene:
            seen, acted = draw(st.sampled_from(taken(subject, *kinds) if of is None else of(subject)))
            count = draw(st.integers(1, most))
            wide = math.prod(seen.shape or ()) > WIDE
            rows = spread(seen, count, draw(st.integers(0, 2**16))) if wide else draw(elements(seen, count))
            return Scene(seen, acted, draw(st.integers(0, 2**16)), tuple(rows.tolist()))

        return draw_scene()

    return cases


def spread(space: "Space[Any]", count: int, seed: int = 0) -> Tensor:
    """Some elements of a space, drawn from all of it [count, *O]."""
    random = np.random.default_rng(seed)
    shape = (count, *(space.shape or ()))
    array: Any
    if isinstance(space, Discrete):
        array = int(space.start) + random.integers(int(space.n), size=shape)
    elif isinstance(space, Box) and np.isfinite(space.low).all():
        array = space.low + random.random(shape) * (space.high - space.low)
    elif isinstance(space, MultiDiscrete | MultiBinary):
        first, counts = _numbers(space)
        array = first + random.integers(counts, size=shape)
    else:
        array = random.standard_normal(shape)
    return torch.from_numpy(array.astype(space.dtype))


def edges(space: "Space[Any]") -> Tensor:
    """The elements at the ends of a space: all of a Discrete one; of others both corners, or what lies far out."""
    if isinstance(space, Discrete):
        return torch.arange(int(space.start), int(space.start) + int(space.n))
    if isinstance(space, MultiDiscrete | MultiBinary):
        first, counts = _numbers(space)
        return torch.from_numpy(np.stack([first, first + counts - 1]).astype(space.dtype))
    assert isinstance(space, Box)
    corners = np.stack([space.low, space.high])
    return torch.from_numpy(np.where(np.isfinite(corners), corners, np.sign(corners) * FAR).astype(space.dtype))


def _numbers(space: Any) -> tuple[Any, Any]:
    """The first number in each place of a MultiDiscrete or MultiBinary space, and how many there are `[*shape]`."""
    if isinstance(space, MultiBinary):
        return np.zeros(space.shape, np.int64), np.full(space.shape, 2)
    return np.asarray(space.start), np.asarray(space.nvec)


def choices(space: "Space[Any]") -> Tensor | None:
    """All actions of a finite space `[K, *A]`; None of another, or of a very large one."""
    if isinstance(space, Discrete):
        return torch.arange(int(space.start), int(space.start) + int(space.n))
    if not isinstance(space, MultiDiscrete | MultiBinary):
        return None
    first, counts = (part.reshape(-1) for part in _numbers(space))
    if math.prod(counts.tolist()) > MOST_CHOICES:
        return None
    numbers = itertools.product(*(range(int(f), int(f + n)) for f, n in zip(first, counts, strict=True)))
    return torch.tensor(list(numbers)).reshape(-1, *space.shape)


def story(scene: Scene, real: Tensor | None = None) -> Rollout:
    """A rollout of one lane that observed what the scene has, `real` [T] or padding."""
    observations = scene.observations.unsqueeze(1)
    shape = (len(observations), 1)
    mask = torch.ones(shape, dtype=torch.bool) if real is None else real.reshape(shape)
    number, flag = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    count, first = torch.zeros(shape, dtype=torch.int64), spread_actions(scene.action_space, len(observations))
    return Rollout(observations, first.unsqueeze(1), number, number, flag, flag, mask, count, count)


def spread_actions(space: "Space[Any]", count: int) -> Tensor:
    """Some actions, all alike [count, *A]."""
    every = choices(space)
    one = torch.zeros(space.shape or ()) if every is None else every[0]
    return one.expand(count, *one.shape)


def same(message: str, expected: Tensor, got: Tensor, scene: Scene, room: float = 0.0) -> None:
    """Raise `Broken` where two columns `[B, …]` differ by more than `room` of the size of the numbers."""
    if expected.shape != got.shape:
        raise Broken(message, expected=list(expected.shape), got=list(got.shape), case=scene.rows())
    expected, got = expected.detach().double(), got.detach().double()
    alike = (got == expected) | ((got - expected).abs() <= room * (1 + expected.abs()))
    if not alike.all():
        place = tuple((~alike).nonzero()[0].tolist())
        table = scene.rows(expected=expected, got=got) if len(expected) == len(scene.observed) else scene.rows()
        raise Broken(f"{message} ({scene.where()})", expected=float(expected[place]), got=float(got[place]), case=table)


def precision(scene: Scene) -> float:
    """What float32 may miss of a policy's outputs: 1e-5 for observations of the size of 1, and more of larger ones."""
    return 1e-5 * max(1.0, float(scene.observations.double().abs().max()))


ANY = takes()


def has(name: str, why: str) -> Any:
    """Why a law about an optional member does not concern a policy."""

    def reason(subject: Subject) -> str | None:
        none = ANY(subject)
        if none is not None:
            return none  # type: ignore[no-any-return]
        player = first(subject)
        member = getattr(player.policy, name, None)
        return why if member is None or (name == "actor" and member() is None and not _acts_faster(subject)) else None

    return reason


def _acts_faster(subject: Subject) -> bool:
    """Whether `actor` gives one for any of the spaces."""
    return any(_at(subject, pair).policy.actor() for pair in taken(subject))


def first(subject: Subject, *kinds: Any) -> Player:
    """For the first spaces that it takes."""
    return _at(subject, taken(subject, *kinds)[0])


def _at(subject: Subject, pair: Pair) -> Player:
    """For these spaces, with some observations."""
    return made(subject, Scene(*pair, 0, tuple(spread(pair[0], 4).tolist())))


def remembers(subject: Subject) -> str | None:
    """Why a law about memory does not concern a policy."""
    none = ANY(subject)
    if none is not None:
        return none  # type: ignore[no-any-return]
    return None if first(subject).state is not None else "it remembers nothing: act returns no state"


def every_part(said: Evaluation) -> dict[str, Tensor]:
    """What was said, by name."""
    parts = {"log_probs": said.log_probs, "entropies": said.entropies, "values": said.values}
    return {name: part for name, part in parts.items() if part is not None}
