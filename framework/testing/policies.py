"""The laws of policies: what every policy keeps to, over whatever spaces it takes.

A law tries the small spaces of `playing.py` that the policy's `build` does not refuse, with weights and observations
that are drawn. What is sampled is judged with bounds that a right policy passes but for one case in 10⁹.
"""

import copy
import math
from typing import Any

import torch
from attrs import evolve, frozen
from gymnasium.spaces import Discrete
from hypothesis import strategies as st
from torch import Tensor

from .. import checks
from ..contracts import Evaluation, Inputs
from ..errors import FrameworkError, PartError, UsageError
from .law import Broken, Subject, law
from .playing import (
    Outcomes,
    Player,
    Scene,
    choices,
    edges,
    made,
    outcomes,
    pairs,
    precision,
    same,
    scenes,
    spread,
    story,
    taken,
    takes,
)

SAMPLES = 8192
APART = math.sqrt(math.log(2e9) / (2 * SAMPLES))  # 0.036: Dvoretzky–Kiefer–Wolfowitz, at 10⁻⁹
SUMS, DENSITIES = 1e-5, 0.03  # how exact sums over actions, and integrals over a grid, are

ANY = takes()


def room(player: Player) -> float:
    """How exact what is summed over all outcomes of this policy is."""
    return SUMS if choices(player.scene.action_space) is not None else DENSITIES


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
    return any(
        made(subject, Scene(*pair, 0, tuple(spread(pair[0], 1).tolist()))).policy.actor() for pair in taken(subject)
    )


def first(subject: Subject, *kinds: Any) -> Player:
    """For the first spaces that it takes."""
    seen, acted = taken(subject, *kinds)[0]
    return made(subject, Scene(seen, acted, 0, tuple(spread(seen, 4).tolist())))


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


# Form


@law("policy", source="docs/reference/errors.md")
def policies_take_spaces_or_say_why_not(subject: Subject) -> None:
    """For each pair of small spaces, `build` makes a policy that acts, or raises a UsageError, which names them."""
    for (seen, acted), error in pairs(subject):
        if error is not None and not isinstance(error, UsageError):
            raise Broken(
                f"{seen} → {acted}: {type(error).__name__}: {error}",
                expected="a policy, or a UsageError that says which spaces it takes",
                got=type(error).__name__,
            ) from error


@law("policy", cases=scenes(), applies=ANY)
def policies_take_every_observation(subject: Subject, scene: Scene) -> None:
    """The first and last of a Discrete space, the corners of a Box, what lies 1000 out where it has no bound: actions
    are of the action space, once translated; log-probs, entropies and values are finite, one number a row.
    """
    space = scene.observation_space
    scene = scene.seeing(torch.cat([edges(space), scene.observations]))
    observations, count = scene.observations, len(scene.observed)
    try:
        player = made(subject, scene)
        action = player.act(observations)
        got, said = player.translated(action.actions), player.judge(observations, action.actions)
        values = player.values(observations) if subject.says("gives", "values") else None
    except Exception as error:
        raise Broken(
            f"raises {type(error).__name__}: {error} ({scene.where()})",
            expected="an action of each row, and what is said of it",
            got=type(error).__name__,
            case=scene.rows(),
        ) from error
    for b, row in enumerate(got):
        shape, whole = scene.action_space.shape or (), isinstance(scene.action_space, Discrete)
        element = row.numpy() if not whole else row.item()
        if tuple(row.shape) != tuple(shape) or not scene.action_space.contains(element):
            raise Broken(
                f"action {b} is not of its space",
                expected=str(scene.action_space),
                got=row.tolist(),
                case=scene.rows(action=got),
            )
    if isinstance(scene.action_space, Discrete) and action.actions.dtype != torch.int64:
        raise Broken("actions of a Discrete space", expected=torch.int64, got=action.actions.dtype, case=scene.rows())
    parts, wanted = every_part(said), {"log_probs", "entropies"}
    if values is not None:
        parts["values"], wanted = values, {*wanted, "values"}
    for name in sorted(wanted | parts.keys()):
        part = parts.get(name)
        try:
            checks.tensor(f"{name}", part, (count,), "[B]", "floating point")
            assert part is not None
            checks.finite(name, part)
        except PartError as error:
            raise Broken(f"{error} ({scene.where()})", case=scene.rows(action=action.actions)) from error


# A distribution


def told(subject: Subject, scene: Scene) -> list[tuple[Player, Outcomes]]:
    """What may come of each observation of a scene; nothing where that cannot be told."""
    player = made(subject, scene)
    found = [outcomes(player, observation) for observation in scene.observations]
    return [(player, one) for one in found if one is not None]


@law("policy", source="Kolmogorov 1933, axiom 2", cases=scenes(most=2), applies=ANY)
def probabilities_sum_to_one(subject: Subject, scene: Scene) -> None:
    """Over all actions of a finite space; a density integrates to 1, as one of what is sampled or of what the
    environment gets (of actions of one or two numbers, smooth on a twentieth of its deviation).
    """
    for player, every in told(subject, scene):
        total = float(every.shares.sum()) + every.missing
        if not abs(total - 1) <= room(player):
            raise Broken(
                f"probabilities of all actions ({scene.where()}) sum to", expected=1.0, got=total, case=scene.rows()
            )


@law("policy", source="Cover & Thomas 2006, eq. 2.1 and 8.1", cases=scenes(most=2), applies=ANY)
def entropies_are_those_of_the_probabilities(subject: Subject, scene: Scene) -> None:
    """−Σ p·log p of what `evaluate` says of all actions, or −∫ p·log p of a density, in nats, with the gradient that
    this has; the same for every action.
    """
    for player, every in told(subject, scene):
        assert every.said.entropies is not None
        if every.missing:
            continue
        log_probs = every.said.log_probs.double()
        known = log_probs.detach() > -700  # below, p·log p is 0
        surprise = torch.where(known, log_probs.exp() * log_probs, 0.0)
        expected, got = -(surprise * every.weights).sum(), every.said.entropies.double()
        limit = room(player) * (1 if room(player) == SUMS else 2) * (1 + abs(float(expected.detach())))
        if not (
            (got - expected).abs() <= 10 * limit if room(player) == SUMS else (got - expected).abs() <= limit
        ).all():
            raise Broken(
                f"entropy ({scene.where()})",
                expected=float(expected.detach()),
                got=float(got[0].detach()),
                case=scene.rows(),
            )
        if room(player) == SUMS:
            _slopes_agree("entropy", player, expected, got[0], scene)


def gradients(total: Tensor, parameters: list[Tensor]) -> tuple[Tensor | None, ...]:
    """By each parameter; None where it has no part."""
    if not total.requires_grad:
        return (None,) * len(parameters)
    return torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)


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


@law("policy", source="Williams 1992, doi:10.1007/BF00992696, proof of theorem 1", cases=scenes(most=2), applies=ANY)
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
            limit = (100 * precision(scene) if room(player) == SUMS else 2 * DENSITIES) * (1 + float(scale.abs().max()))
            if not float(slope.abs().max()) <= limit:
                raise Broken(
                    f"the mean of ∇log π by parameter {name} ({scene.where()})",
                    expected=0.0,
                    got=float(slope.abs().max()),
                    case=scene.rows(),
                )


# Acting


@law("policy", cases=scenes(), applies=ANY)
def acting_and_judging_agree(subject: Subject, scene: Scene) -> None:
    """Log-probs that `act` returns are what `evaluate` says of the same actions: ratios begin at 1."""
    player = made(subject, scene)
    action = player.act(scene.observations, scene.weights)
    if action.log_probs is not None:
        said = player.judge(scene.observations, action.actions, entropies=False)
        same("log-prob from act, against evaluate's", said.log_probs, action.log_probs, scene, precision(scene))


def often(player: Player, every: Outcomes, drawn: Tensor, what: str) -> None:
    """Raise `Broken` where samples `[SAMPLES, *A]` are not distributed as all outcomes say."""
    if every.places is None:
        hits = drawn.reshape(len(drawn), 1, -1) == every.actions.reshape(1, len(every.actions), -1)
        found = hits.all(-1).double().mean(0).cumsum(0)
        expected, limit, names = every.shares.cumsum(0), APART, every.actions
    else:
        places, order = torch.unique(every.places, return_inverse=True)
        shares = torch.zeros(len(places), dtype=torch.float64).index_add(0, order, every.shares)
        expected = shares.cumsum(0) - shares / 2
        numbers = drawn.reshape(len(drawn), -1)[:, 0].double().sort().values
        found = torch.searchsorted(numbers, places).double() / len(drawn)
        limit, names = APART + DENSITIES + float(shares.max()), places
    apart = (found - expected).abs()
    if not float(apart.max()) <= limit:
        worst = int(apart.argmax())
        raise Broken(
            f"{what} ({player.scene.where()}): of {len(drawn)} samples, the share up to {names[worst].tolist()}",
            expected=float(expected[worst]),
            got=float(found[worst]),
            case=player.scene.rows(),
        )


@law(
    "policy",
    source="Massart 1990, doi:10.1214/aop/1176990746: the Dvoretzky–Kiefer–Wolfowitz inequality",
    cases=scenes(most=1),
    applies=ANY,
    examples=20,
)
def acting_samples_what_judging_says(subject: Subject, scene: Scene) -> None:
    """Of 8192 actions in one observation, the shares up to each (of densities, of their first number) are those of
    the probabilities, within 0.036: farther than one right sampler in 10⁹ gets.
    """
    for player, every in told(subject, scene):
        if not every.missing:
            many = scene.observations[0].expand(SAMPLES, *scene.observations.shape[1:])
            often(player, every, player.act(many, scene.weights).actions, "act")


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
    for player, every in told(subject, scene)[:1]:
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
        many = scene.observations[:1].expand(SAMPLES, *scene.observations.shape[1:]).contiguous()
        if not every.missing:
            often(player, every, player.act(many, scene.weights, actor=actor).actions, "the actor")
        before = player.act(scene.observations, 5, actor=player.policy.actor()).actions
        later = player.policy.actor()
        for parameter in player.policy.parameters():
            parameter.data.add_(10 * torch.randn_like(parameter))
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


# Judging


@law("policy", cases=scenes(most=4), applies=ANY)
def rows_of_policies_do_not_know_each_other(subject: Subject, scene: Scene) -> None:
    """What is said of a row does not depend on the others of its batch, nor on its place in it."""
    player, observations = made(subject, scene), scene.observations
    actions = player.act(observations, scene.weights).actions
    whole = every_part(player.judge(observations, actions))
    if subject.says("gives", "values"):
        whole["valued"] = player.values(observations)
    order = torch.arange(len(observations)).flip(0)
    for index in (order, *order.unsqueeze(1)):
        part = every_part(player.judge(observations[index], actions[index]))
        if subject.says("gives", "values"):
            part["valued"] = player.values(observations[index])
        for name, column in whole.items():
            together = column.detach().clone()
            apart = together.clone().index_copy(0, index, part[name].detach().to(together.dtype))
            same(f"{name} of a row, apart from others", together, apart, scene, precision(scene))


@law("policy", cases=scenes(), applies=ANY)
def acting_and_judging_change_nothing(subject: Subject, scene: Scene) -> None:
    """Parameters and buffers are the same before and after `act`, `evaluate` and `values`: statistics move in
    `observe`. Nothing that was handed in is changed, and actions carry no gradient.
    """
    player, observations = made(subject, scene), scene.observations
    before = {name: part.clone() for name, part in player.policy.state_dict().items()}
    handed = observations.clone()
    action = player.policy.act(Inputs(handed), torch.Generator().manual_seed(0))
    for name in ("actions", "log_probs", "state"):
        part = getattr(action, name)
        if part is not None and part.requires_grad:
            raise Broken(f"{name} from act carry a gradient", expected="none", case=scene.rows())
    actions = action.actions.clone()
    player.judge(handed, actions)
    if subject.says("gives", "values"):
        player.values(handed)
    same("an observation that was handed in", observations, handed, scene)
    for name, part in player.policy.state_dict().items():
        if not torch.equal(part, before[name]):
            raise Broken(
                f"{name} has changed ({scene.where()})",
                expected=before[name].tolist(),
                got=part.tolist(),
                case=scene.rows(),
            )


@law("policy", cases=scenes(most=1), applies=ANY, examples=20)
def every_parameter_of_a_policy_is_learnt(subject: Subject, scene: Scene) -> None:
    """The gradient of log-probs, entropies and values together reaches every parameter that requires one, for some
    weights and observations: a deviation that is detached, or a layer that nobody reads, stays as it was made.
    """
    missing: set[str] | None = None
    for seed in range(scene.weights, scene.weights + 3):
        rows = spread(scene.observation_space, 16, seed)
        player = made(subject, evolve(scene.seeing(rows), weights=seed))
        if player.state is None:
            said = every_part(player.judge(rows, player.act(rows, seed).actions))
        else:
            lasting = Told(player.scene, ((False, False),) * 8)
            inputs, actions = sequences(player, lasting, remembered(player, seed))
            said = every_part(player.policy.evaluate(inputs, actions, True))
        generator = torch.Generator().manual_seed(seed)
        total = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in said.values())
        parameters = {name: p for name, p in player.policy.named_parameters() if p.requires_grad}
        if not isinstance(total, Tensor) or not total.requires_grad:
            raise Broken("evaluate carries no gradient", expected="a graph", got="none", case=scene.rows())
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        unread = {name for name, slope in zip(parameters, found, strict=True) if slope is None or not slope.any()}
        missing = unread if missing is None else missing & unread
    if missing:
        raise Broken(
            f"no gradient reaches {', '.join(sorted(missing))} ({scene.where()})",
            expected="a gradient",
            got="none, or 0",
            case=scene.rows(),
        )


@law("policy", source="docs/howto/run-and-record.md", cases=scenes(), applies=ANY)
def a_state_dict_is_the_whole_policy(subject: Subject, scene: Scene) -> None:
    """Loaded into a policy that was made with another seed, it makes that one the same, bit for bit, also in what
    `observe` has gathered; so does `copy.deepcopy`.
    """
    player = made(subject, scene)
    if hasattr(player.policy, "observe"):
        player.policy.observe(story(scene))
    other = made(subject, Scene(scene.observation_space, scene.action_space, scene.weights + 1, scene.observed))
    other.policy.load_state_dict({name: part.clone() for name, part in player.policy.state_dict().items()})
    copied = Player(copy.deepcopy(player.policy), scene, player.state)
    actions = player.act(scene.observations, 3).actions
    for one, what in ((other, "loaded"), (copied, "copied")):
        same(f"an action of the policy that was {what}", actions, one.act(scene.observations, 3).actions, scene)
        expected, got = (every_part(p.judge(scene.observations, actions)) for p in (player, one))
        for name, part in expected.items():
            same(f"{name} of the policy that was {what}", part, got[name], scene)


@law("policy", cases=scenes(), applies=has("observe", "it has no observe"))
def observing_looks_at_real_steps_only(subject: Subject, scene: Scene) -> None:
    """`observe` takes a rollout in where its `mask` is True; what stands in padding changes nothing."""
    padding = edges(scene.observation_space)
    longer = scene.seeing(torch.cat([scene.observations, padding]))
    real = torch.arange(len(longer.observed)) < len(scene.observed)
    one, other = made(subject, scene), made(subject, scene)
    one.policy.observe(story(scene))
    other.policy.observe(story(longer, real))
    for (name, a), b in zip(one.policy.state_dict().items(), other.policy.state_dict().values(), strict=True):
        if not torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6):
            raise Broken(f"{name}, with padding", expected=a.tolist(), got=b.tolist(), case=longer.rows(real=real))


# Masks


@frozen
class Masked:
    """A scene, and which actions are allowed in it."""

    scene: Scene
    allowed: tuple[tuple[bool, ...], ...]


@st.composite
def masked(draw: st.DrawFn, subject: Subject) -> Masked:
    """Some masks, each with something allowed."""
    scene = draw(scenes(Discrete)(subject))
    count = int(scene.action_space.n)
    row = st.lists(st.booleans(), min_size=count, max_size=count).filter(any).map(tuple)
    rows = draw(st.lists(row, min_size=len(scene.observed), max_size=len(scene.observed)))
    return Masked(scene, tuple(rows))


@law(
    "policy",
    source="Huang & Ontañón 2022, arXiv:2006.14171, §3",
    cases=masked,
    applies=takes(Discrete),
)
def what_a_mask_forbids_is_never_done(subject: Subject, case: Masked) -> None:
    """Where an action is not allowed its probability is 0, and neither `act`, nor the actor, nor `greedy` takes it; the
    rest sums to 1, with the entropy and finite gradients of the rest. Or masks are refused, by the framework's errors.
    """
    scene, masks = case.scene, torch.tensor(case.allowed)
    player, observations = made(subject, scene), scene.observations
    try:
        player.act(observations, masks=masks)
    except (FrameworkError, NotImplementedError):
        return
    many, allowed = (column.repeat_interleave(64, 0) for column in (observations, masks))
    actors = {"act": player.policy}
    for name in ("actor", "greedy"):
        offered = getattr(player.policy, name, None)
        other = None if offered is None else offered()
        if other is not None:
            actors[name] = other
    first_action = int(scene.action_space.start)  # type: ignore[attr-defined]
    for name, actor in actors.items():
        chosen = player.act(many, scene.weights, allowed, actor).actions
        done = allowed.gather(1, (chosen - first_action).unsqueeze(1)).squeeze(1)
        if not done.all():
            b = int((~done).nonzero()[0])
            raise Broken(
                f"{name} takes action {int(chosen[b])} ({scene.where()})",
                expected="an allowed one",
                got=int(chosen[b]),
                case=scene.rows(allowed=case.allowed),
            )
    for b, observation in enumerate(observations):
        every = outcomes(player, observation, masks[b : b + 1])
        if every is None:
            return
        shares, entropies = every.shares, every.said.entropies
        assert entropies is not None
        forbidden = float(shares[~masks[b]].sum())
        if forbidden or not abs(float(shares.sum()) - 1) <= SUMS:
            raise Broken(
                f"probabilities of what is forbidden, and of all, in row {b} ({scene.where()})",
                expected=[0.0, 1.0],
                got=[forbidden, float(shares.sum())],
                case=scene.rows(allowed=case.allowed),
            )
        surprise = -(shares[shares > 0] * shares[shares > 0].log()).sum()
        same("entropy under a mask", surprise.expand(len(shares)), entropies, scene, 10 * SUMS)
        total = (every.said.log_probs[masks[b]].sum() + entropies.sum()).sum()
        for slope in torch.autograd.grad(total, [*player.policy.parameters()], allow_unused=True):
            if slope is not None and not torch.isfinite(slope).all():
                raise Broken(
                    "a gradient under a mask", expected="finite", got="not", case=scene.rows(allowed=case.allowed)
                )


# Memory


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
