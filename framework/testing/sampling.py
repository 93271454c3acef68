"""The laws of what policies sample: probabilities and densities, acting and actors, and what masks forbid.

Samples are judged with bounds that a right policy passes but for one case in 10⁹.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from attrs import frozen
from gymnasium.spaces import Discrete
from hypothesis import strategies as st
from torch import Tensor

from ..errors import PartError, UsageError
from .law import Broken, Subject, law
from .outcomes import DENSITIES, SUMS, Outcomes, can_be_told, gradients, outcomes
from .playing import (
    ANY,
    WIDE,
    Player,
    Scene,
    choices,
    edges,
    every_part,
    has,
    made,
    only,
    precision,
    same,
    scenes,
    some,
)

SAMPLES = 8192  # actions that are asked for at once
TIMES = 16  # as often, where actions can be counted
ALARM = 1e-9  # probability with which a right sampler is taken for a wrong one
APART = math.sqrt(math.log(2 / ALARM) / (2 * SAMPLES))  # 0.036: Dvoretzky–Kiefer–Wolfowitz
DECIDED = 3.0  # times the usual weights: exploration hides in a policy that is all but uniform

TELLABLE = only("told", can_be_told)
TOLD = some(
    TELLABLE, "what may come of an observation cannot be told: not of one or two numbers, nor of a finite space"
)


# A distribution


def told(subject: Subject, scene: Scene, shaken: float = 1.0) -> list[tuple[Player, Outcomes]]:
    """What may come of each observation of a scene; nothing where that cannot be told."""
    player = made(subject, scene, shaken)
    found = [outcomes(player, observation) for observation in scene.observations]
    return [(player, one) for one in found if one is not None]


@law("policy", source="docs/reference/contracts.md#evaluation", cases=scenes(most=2, of=TELLABLE), applies=TOLD)
def probabilities_sum_to_one(subject: Subject, scene: Scene) -> None:
    """Over all actions of a finite space; a density integrates to 1, as one of what is sampled or of what the
    environment gets (of actions of one or two numbers, smooth on half of their deviation).
    """
    for _, every in told(subject, scene):
        total = float(every.shares.sum()) + every.missing
        if not abs(total - 1) <= (SUMS if every.places is None else DENSITIES):
            raise Broken(
                f"probabilities of all actions ({scene.where()}) sum to", expected=1.0, got=total, case=scene.rows()
            )


@law("policy", source="Cover & Thomas 2006, §2.1 and §8.1", cases=scenes(most=2, of=TELLABLE), applies=TOLD)
def entropies_are_those_of_the_probabilities(subject: Subject, scene: Scene) -> None:
    """−Σ p·log p of what `evaluate` says of all actions, or −∫ p·log p of a density, in nats, with the gradient that
    this has; the same for every action.
    """
    for player, every in told(subject, scene):
        if every.missing or every.said.entropies is None:
            continue
        log_probs = every.said.log_probs.double()
        known = log_probs.detach() > -700  # below, p·log p is 0
        surprise = torch.where(known, log_probs.exp() * log_probs, 0.0)
        expected, got = -(surprise * every.weights).sum(), every.said.entropies.double()
        exact = every.places is None
        limit = (10 * SUMS if exact else 2 * DENSITIES) * (1 + abs(float(expected.detach())))
        if not ((got - expected).abs() <= limit).all():
            raise Broken(
                f"entropy ({scene.where()})",
                expected=float(expected.detach()),
                got=float(got[0].detach()),
                case=scene.rows(),
            )
        if exact:
            _slopes_agree("entropy", player, expected, got[0], scene)


def _slopes_agree(what: str, player: Player, expected: Tensor, got: Tensor, scene: Scene) -> None:
    """Both have the same gradient by every parameter."""
    parameters = [p for p in player.policy.parameters() if p.requires_grad]
    one, other = (gradients(total, parameters) for total in (expected, got))
    names = [name for name, p in player.policy.named_parameters() if p.requires_grad]
    for name, left, right in zip(names, one, other, strict=True):
        a, b = (torch.zeros(()) if slope is None else slope for slope in (left, right))
        apart = float((a - b).abs().max())
        if not apart <= 100 * precision(scene) * (1 + float(a.abs().max())):
            raise Broken(
                f"the gradient of the {what} by parameter {name} ({scene.where()})",
                expected=float(a.abs().max()),
                got=float(b.abs().max()),
                case=scene.rows(),
            )


@law("policy", source="Sutton & Barto 2018, §13.4", cases=scenes(most=2, of=TELLABLE), applies=TOLD)
def the_score_has_mean_zero(subject: Subject, scene: Scene) -> None:
    """Σ π(a|s)·∇log π(a|s) = ∇ Σ π(a|s) = 0 for every parameter: why a baseline costs nothing. A part of the log-prob
    that is cut from its graph (a normaliser, a deviation) shows here.
    """
    for player, every in told(subject, scene):
        if every.missing:
            continue
        parameters = [p for p in player.policy.parameters() if p.requires_grad]
        score = (every.shares * every.said.log_probs.double()).sum()
        spreads = (every.shares * every.said.log_probs.double().square()).sum()  # how large a gradient may be
        names = [name for name, p in player.policy.named_parameters() if p.requires_grad]
        found = gradients(score, parameters)
        scales = gradients(spreads, parameters)
        for name, slope, scale in zip(names, found, scales, strict=True):
            if slope is None or scale is None:
                continue
            limit = (100 * precision(scene) if every.places is None else 2 * DENSITIES) * (1 + float(scale.abs().max()))
            if not float(slope.abs().max()) <= limit:
                raise Broken(
                    f"the mean of ∇log π by parameter {name} ({scene.where()})",
                    expected=0.0,
                    got=float(slope.abs().max()),
                    case=scene.rows(),
                )


# Acting


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


# Masks


def choosers(player: Player) -> dict[str, Any]:
    """All that chooses actions for a policy, by name, but for what refuses masks."""
    offered = {"act": player.policy}
    for name in ("actor", "greedy"):
        member = getattr(player.policy, name, None)
        other = None if member is None else member()
        if other is not None:
            offered[name] = other
    return {name: actor for name, actor in offered.items() if not refused(player, actor)}


def refused(player: Player, actor: Any) -> bool:
    """Whether it raises an error of ours when some masks come, which allow everything."""
    rows = player.scene.observations[:1]
    try:
        player.act(rows, masks=torch.ones(1, int(player.scene.action_space.n), dtype=torch.bool), actor=actor)  # type: ignore[attr-defined]
    except (UsageError, PartError):
        return True
    except Exception:  # no refusal: the law meets it again
        return False
    return False


MASKABLE = only("masks", lambda player: bool(choosers(player)), Discrete)
MEND = (
    "if it knows no masks, it refuses them: "
    "if inputs.action_masks is not None: raise UsageError(\"policy '…' takes no action masks\")"
)


@frozen
class Masked:
    """A scene, and which actions are allowed in it."""

    scene: Scene
    allowed: tuple[tuple[bool, ...], ...]


@st.composite
def masked(draw: st.DrawFn, subject: Subject) -> Masked:
    """Some masks, each with something allowed."""
    scene = draw(scenes(of=MASKABLE)(subject))
    count = int(scene.action_space.n)
    row = st.lists(st.booleans(), min_size=count, max_size=count).filter(any).map(tuple)
    rows = draw(st.lists(row, min_size=len(scene.observed), max_size=len(scene.observed)))
    return Masked(scene, tuple(rows))


@law(
    "policy",
    source="docs/reference/contracts.md#policy; Huang & Ontañón 2020, arXiv:2006.14171",
    cases=masked,
    applies=some(MASKABLE, "it refuses masks", Discrete),
)
def what_a_mask_forbids_is_never_done(subject: Subject, case: Masked) -> None:
    """Where an action is not allowed its probability is 0, and neither `act`, nor the actor, nor `greedy` takes it; the
    rest sums to 1, with the entropy and finite gradients of the rest. Or each of the three refuses masks, by a
    UsageError: what ignores them, does what is forbidden.
    """
    scene, masks = case.scene, torch.tensor(case.allowed)
    player, observations = made(subject, scene), scene.observations
    many, allowed = (column.repeat_interleave(64, 0) for column in (observations, masks))
    actors = choosers(player)
    first_action = int(scene.action_space.start)  # type: ignore[attr-defined]
    for name, actor in actors.items():
        chosen = player.act(many, scene.weights, allowed, actor).actions
        done = allowed.gather(1, (chosen - first_action).unsqueeze(1)).squeeze(1)
        if not done.all():
            b = int((~done).nonzero()[0])
            raise Broken(
                f"{name} takes action {int(chosen[b])}, which is forbidden ({scene.where()}); {MEND}",
                expected="an allowed one",
                got=int(chosen[b]),
                case=scene.rows(allowed=case.allowed),
            )
    if "act" not in actors:
        return
    for b, observation in enumerate(observations):
        every = outcomes(player, observation, masks[b : b + 1])
        if every is None:
            return
        shares, entropies = every.shares, every.said.entropies
        forbidden = float(shares[~masks[b]].sum())
        if forbidden or not abs(float(shares.sum()) - 1) <= SUMS:
            raise Broken(
                f"probabilities of what is forbidden, and of all, in row {b} ({scene.where()})",
                expected=[0.0, 1.0],
                got=[forbidden, float(shares.sum())],
                case=scene.rows(allowed=case.allowed),
            )
        total = every.said.log_probs[masks[b]].sum()
        if entropies is not None:
            surprise = -(shares[shares > 0] * shares[shares > 0].log()).sum()
            same("entropy under a mask", surprise.expand(len(shares)), entropies, scene, 10 * SUMS)
            total = total + entropies.sum()
        for slope in torch.autograd.grad(total, [*player.policy.parameters()], allow_unused=True):
            if slope is not None and not torch.isfinite(slope).all():
                raise Broken(
                    "a gradient under a mask", expected="finite", got="not", case=scene.rows(allowed=case.allowed)
                )
