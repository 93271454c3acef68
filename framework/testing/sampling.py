"""The laws of what policies sample: acting, actors and greedy ones do what `evaluate` says.

Samples are judged with bounds that a right policy passes but for one case in 10⁹.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ..contracts import Action, Inputs
from .action_distributions import DENSITIES, Outcomes, outcomes
from .law import Broken, Subject, law
from .policy_harness import Player, Scene, every_part, made, precision, same
from .policy_spaces import ANY, has, only, scenes, some
from .probabilities import TELLABLE, TOLD, told
from .spaces import WIDE, choices, edges

SAMPLES = 8192  # actions that are asked for at once
TIMES = 16  # as often, where actions can be counted
ALARM = 1e-9  # probability with which a right sampler is taken for a wrong one
APART = math.sqrt(math.log(2 / ALARM) / (2 * SAMPLES))  # 0.036: Dvoretzky–Kiefer–Wolfowitz
DECIDED = 3.0  # times the usual weights: exploration hides in a policy that is all but uniform

SAYING = only("log_probs", lambda player: player.act(player.scene.observations).log_probs is not None)


@law("policy", cases=scenes(of=SAYING), applies=some(SAYING, "its act leaves log-probs to evaluate"))
def acting_and_judging_agree(subject: Subject, scene: Scene) -> None:
    """Log-probs that `act` returns are what `evaluate` says of the same actions: ratios begin at 1."""
    player = made(subject, scene)
    action = player.act(scene.observations, scene.weights)
    if action.log_probs is None:  # with other weights; it is free to
        return
    said = player.judge(scene.observations, action.actions, entropies=False)
    same("log-prob from act, against evaluate's", said.log_probs, action.log_probs, scene, precision(scene))


def decided(scene: Scene) -> float:
    """How much weights are shaken where samples are judged: more, where they are counted."""
    return 1.0 if choices(scene.action_space) is None else DECIDED


def often(player: Player, every: Outcomes, actor: Any, what: str) -> None:
    """Raise `Broken` where samples of one observation are not distributed as all outcomes say."""
    scene = player.scene
    many = scene.observations[:1].expand(SAMPLES, *scene.observations.shape[1:]).contiguous()
    times = TIMES if every.places is None and many[0].numel() <= WIDE else 1
    draws = (player.act(many, scene.weights + 2**17 * time, actor=actor).actions for time in range(times))
    if every.places is None:
        counted(scene, every, draws, what)
    else:
        laid_out(scene, every, next(draws), what)


def counted(scene: Scene, every: Outcomes, draws: Iterable[Tensor], what: str) -> None:
    """Count each action, and hold its share against Chernoff's bound: P(n·kl(share, p) ≥ c) ≤ e⁻ᶜ on either side."""
    counts, among = (
        torch.zeros(len(every.actions), dtype=torch.float64),
        every.actions.reshape(1, len(every.actions), -1),
    )
    total = 0
    for drawn in draws:
        total += len(drawn)
        counts += (drawn.reshape(len(drawn), 1, -1) == among).all(-1).sum(0)
    found, room = counts / total, precision(scene)
    expected = found.clamp(every.shares - room, every.shares + room)  # the nearest that rounding allows
    surprise = total * (_relative(found, expected) + _relative(1 - found, 1 - expected))
    if not float(surprise.max()) <= math.log(2 * len(found) / ALARM):
        worst = int(surprise.argmax())
        raise Broken(
            f"{what} ({scene.where()}): of {total} samples, the share of action {every.actions[worst].tolist()}",
            expected=float(every.shares[worst]),
            got=float(found[worst]),
            case=scene.rows(),
        )


def _relative(found: Tensor, expected: Tensor) -> Tensor:
    """f·log(f/p), 0 for f = 0."""
    return torch.where(found > 0, found * (found / expected).log(), 0.0)


def laid_out(scene: Scene, every: Outcomes, drawn: Tensor, what: str) -> None:
    """Hold the distribution of the first number `[SAMPLES, *A]` against that of a density."""
    assert every.places is not None
    places, order = torch.unique(every.places, return_inverse=True)
    shares = torch.zeros(len(places), dtype=torch.float64).index_add(0, order, every.shares)
    expected = shares.cumsum(0) - shares / 2
    numbers = drawn.reshape(len(drawn), -1)[:, 0].double().sort().values
    found = torch.searchsorted(numbers, places).double() / len(drawn)
    apart = (found - expected).abs()
    if not float(apart.max()) <= APART + DENSITIES:
        worst = int(apart.argmax())
        raise Broken(
            f"{what} ({scene.where()}): of {len(drawn)} samples, the share up to {places[worst].tolist()}",
            expected=float(expected[worst]),
            got=float(found[worst]),
            case=scene.rows(),
        )


@law(
    "policy",
    source="Hoeffding 1963, doi:10.1080/01621459.1963.10500830, theorem 1; Massart 1990, doi:10.1214/aop/1176990746",
    cases=scenes(most=1, of=TELLABLE),
    applies=TOLD,
    examples=20,
)
def acting_samples_what_judging_says(subject: Subject, scene: Scene) -> None:
    """Of 131,072 actions in one observation, the share of each is its probability, within Chernoff's bound (0.009 of
    0.5, 0.002 of 0.01): exploration of 2 % that `evaluate` does not know of is found. Of densities, and of observations
    of more than 64 numbers, 8192 actions: the share up to each place (of the first number) within 0.066, by the
    inequality of Dvoretzky, Kiefer and Wolfowitz and the grid, and that of each action within 0.04. A right sampler
    fails in one case of 10⁹.
    """
    for player, every in told(subject, scene, decided(scene)):
        if not every.missing:
            often(player, every, player.policy, "act")


@law(
    "policy",
    source="docs/reference/contracts.md#policy",
    cases=scenes(most=2),
    applies=has("actor", "it has no actor"),
    examples=20,
)
def actors_do_what_the_policy_does(subject: Subject, scene: Scene) -> None:
    """A table of an actor is what `evaluate` says of each state and action; any other actor is sampled, and must be
    as far from the probabilities as `act` may be. It is a snapshot: what is learnt later does not reach it.
    """
    for player, every in told(subject, scene, decided(scene))[:1]:
        actor = player.policy.actor()
        if actor is None:
            return
        space, acted = scene.observation_space, scene.action_space
        table = getattr(actor, "log_probs", None)
        if isinstance(table, Tensor) and isinstance(space, Discrete) and isinstance(acted, Discrete):
            states, actions = edges(space), choices(acted)
            assert actions is not None
            said = player.judge(states.repeat_interleave(len(actions)), actions.repeat(len(states)))
            expected = said.log_probs.reshape(len(states), len(actions))
            same("the actor's table", expected, table, scene.seeing(states), precision(scene))
        if not every.missing:
            often(player, every, actor, "the actor")
        before = player.act(scene.observations, 5, actor=player.policy.actor()).actions
        later = player.policy.actor()
        for parameter in player.policy.parameters():
            count = parameter.numel()
            parameter.data.add_(torch.linspace(-5, 5, count, dtype=parameter.dtype).reshape(parameter.shape))
        after = player.act(scene.observations, 5, actor=later).actions
        same("an actor's action after the policy has changed", before, after, scene)


class Chooser:
    """What `choose` makes of uniform numbers, as an actor."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One action a row."""
        shape = (len(inputs.observations), self.policy.choice_noise)
        noise = torch.rand(shape, dtype=torch.float64, generator=generator)
        return Action(self.policy.choose(inputs, noise))


@law(
    "policy",
    source="docs/reference/contracts.md#policy",
    cases=scenes(most=2),
    applies=has("choose", "it has no choose"),
    examples=20,
)
def choosing_is_acting(subject: Subject, scene: Scene) -> None:
    """What `choose` makes of uniform numbers is as near to the probabilities as `act` must be, in the dtype of its
    actions, and depends on nothing but its arguments; the edges of [0, 1) are numbers like others.
    """
    for player, every in told(subject, scene, decided(scene))[:1]:
        chooser, acted = Chooser(player.policy), player.act(scene.observations).actions
        chosen, again = (player.act(scene.observations, 3, actor=chooser).actions for _ in range(2))
        if chosen.dtype != acted.dtype:
            raise Broken("the dtype of chosen actions", expected=acted.dtype, got=chosen.dtype, case=scene.rows())
        same("an action that is chosen once more", chosen, again, scene)
        for edge in (0.0, 1 - 2.0**-53):
            noise = torch.full((len(scene.observations), player.policy.choice_noise), edge, dtype=torch.float64)
            actions = player.policy.choose(Inputs(scene.observations), noise)
            if not actions.double().isfinite().all():
                raise Broken(
                    f"an action chosen by {edge}", expected="a number", got=actions.tolist(), case=scene.rows()
                )
        if not every.missing:
            often(player, every, chooser, "choose")


@law("policy", cases=scenes(), applies=has("greedy", "it has no greedy"))
def greedy_takes_the_most_probable_action(subject: Subject, scene: Scene) -> None:
    """Of a finite space, no other action has a higher log-prob; and nothing is drawn, whatever the space."""
    player = made(subject, scene)
    chosen, again = (player.act(scene.observations, seed, actor=player.policy.greedy()).actions for seed in (1, 2))
    same("a greedy action, with another generator", chosen, again, scene)
    for b, observation in enumerate(scene.observations):
        every = outcomes(player, observation) if choices(scene.action_space) is not None else None
        if every is not None:
            _is_the_best(every, chosen[b], scene)


def _is_the_best(every: Outcomes, chosen: Tensor, scene: Scene) -> None:
    mine = every.shares[(every.actions.reshape(len(every.actions), -1) == chosen.reshape(1, -1)).all(1)]
    best = float(every.shares.max())
    if not len(mine) or float(mine[0]) < best - precision(scene):
        raise Broken(
            f"the probability of the greedy action {chosen.tolist()} ({scene.where()})",
            expected=best,
            got=float(mine[0]) if len(mine) else "no action of the space",
            case=scene.rows(),
        )


@law("policy", source="docs/reference/contracts.md", cases=scenes(), applies=ANY)
def all_randomness_of_policies_is_the_generators(subject: Subject, scene: Scene) -> None:
    """Generators in the same state give the same actions, whatever torch's own generator does, which is not moved;
    what is said of actions is drawn from nothing: twice the same, in training and in evaluation mode.
    """
    player = made(subject, scene)
    answers, judged = [], []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            answers.append(player.act(scene.observations, 7).actions)
            judged.append(every_part(player.judge(scene.observations, answers[0])))
            if not torch.equal(before, torch.get_rng_state()):
                raise Broken("torch's own generator is read", expected="the generator handed in", case=scene.rows())
    same("an action, from a generator in the same state", answers[0], answers[1], scene)
    player.policy.eval()
    judged.append(every_part(player.judge(scene.observations, answers[0])))
    for other, when in zip(judged[1:], ("the second time", "in evaluation mode"), strict=True):
        for name, part in judged[0].items():
            same(f"{name}, {when}", part, other[name], scene)
