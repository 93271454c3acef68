"""The laws of policies: what every policy keeps to, over whatever spaces it takes; those of what is sampled stand in
`probabilities.py`, `sampling.py` and `sampling_masks.py`, those of memory in `memory.py`.

A law tries the small spaces of `spaces.py` that the policy's `build` does not refuse, with weights and observations
that are drawn.
"""

import copy

import torch
from attrs import evolve
from torch import Tensor

from ..contracts import Inputs
from ..errors import PartError, UsageError
from ..guards import checks
from . import probabilities, sampling, sampling_masks  # noqa: F401 - their laws, too
from .law import Broken, Subject, law
from .policy_harness import Player, Scene, every_part, is_of_its_space, made, precision, same, story
from .policy_memory import Told, remembered, sequences
from .policy_spaces import ANY, has, pairs, scenes
from .spaces import edges, spread
from .verdicts import words

# Form


def _tells_nothing(subject: Subject) -> str | None:
    """Why it cannot be told: all spaces are refused, each as it should be."""
    raised = any(error is not None and not isinstance(error, UsageError) for _, error in pairs(subject))
    return None if raised else ANY(subject)


@law("policy", source="docs/reference/errors.md", applies=_tells_nothing)
def policies_take_spaces_or_say_why_not(subject: Subject) -> None:
    """For each pair of small spaces, and those of the environments that its plugin offers, `build` makes a policy that
    acts in them, or raises a UsageError naming them.
    """
    for (seen, acted), error in pairs(subject):
        if error is not None and not isinstance(error, UsageError):
            if isinstance(error, Broken):
                raise Broken(f"{seen} → {acted}: {error}", expected=error.expected, got=error.got, case=error.case)
            raise Broken(
                f"{seen} → {acted}: {words(error)}",
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
        said = player.judge(observations, action.actions)
        values = player.values(observations) if subject.says("gives", "values") else None
    except Exception as error:
        raise Broken(
            f"{words(error)} ({scene.where()})",
            expected="an action of each row, and what is said of it",
            got=type(error).__name__,
            case=scene.rows(),
        ) from error
    is_of_its_space(player, action.actions)
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
