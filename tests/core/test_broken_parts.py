"""A part that breaks its contract is named with what it should have returned."""

import itertools
import math
import re

import attrs
import pytest
import torch
from attrs import evolve, frozen
from counting_parts import Rewards, Spy
from gymnasium.spaces import Box, Discrete

import framework.api
import framework.learning.batches
from framework import (
    Action,
    Estimate,
    Evaluation,
    FrameworkError,
    Loss,
    PartError,
    RolloutSettings,
    Step,
    TabularMDP,
    hookimpl,
)

pytestmark = pytest.mark.usefixtures("plugins_found_once")


# Broken parts: what each returns is checked where it enters the core, and the message names the part.


def as_it_is(given_out):
    return given_out


@frozen(eq=False)
class World:
    """Episodes of three steps over two Box numbers, or three Discrete states; what it returns can be broken."""

    step: object = as_it_is
    reset: object = as_it_is
    discrete: bool = False
    masks: object = None  # of the first masks; without, there are none
    tables: object = None

    def build(self, num_envs, device):
        return WorldLanes(self, num_envs)


class WorldLanes:
    action_space = Discrete(2)

    def __init__(self, settings, count):
        self.settings, self.count, self.time = settings, count, 0
        self.observation_space = Discrete(3) if settings.discrete else Box(-9.0, 9.0, (2,))
        self.masks = None if settings.masks is None else torch.ones(count, 2, dtype=torch.bool)
        if settings.masks is not None:
            self.action_masks = settings.masks(self.masks)
        if settings.tables is not None:
            self.mdp = lambda: settings.tables(mdp_of_three_states())

    def observe(self):
        states = torch.full((self.count,), self.time)
        return states if self.settings.discrete else states.float()[:, None].expand(-1, 2).clone()

    def reset(self, generator):
        self.time = 0
        return self.settings.reset(self.observe())

    def step(self, actions, generator):
        self.time = (self.time + 1) % 3
        over, rewards = torch.full((self.count,), self.time == 0), torch.ones(self.count)
        step = Step(self.observe(), self.observe(), rewards, over & False, over, action_masks=self.masks)
        return self.settings.step(step)


def mdp_of_three_states():
    transitions = torch.eye(3, dtype=torch.float64).roll(1, 1)[:, None].expand(3, 2, 3).clone()
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return TabularMDP(transitions, torch.ones(3, 2, 3), start, torch.zeros(3, dtype=torch.bool), 3)


@frozen(eq=False)
class Chooser:
    """A policy with a critic, after whose `act`, `evaluate` and `values` something can be broken."""

    act: object = as_it_is
    evaluate: object = as_it_is
    values: object = as_it_is
    gives = frozenset({"values"})

    def build(self, observation_space, action_space):
        return ChoosingPolicy(self)


class ChoosingPolicy(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.logits = torch.nn.Parameter(torch.zeros(2))
        self.value = torch.nn.Parameter(torch.zeros(()))

    def act(self, inputs, generator):
        actions = torch.randint(0, 2, (len(inputs.observations),), generator=generator)
        return self.settings.act(Action(actions, self.logits.log_softmax(0).detach()[actions]))

    def evaluate(self, inputs, actions, entropies):
        table = self.logits.log_softmax(0)
        entropy = -(table.exp() * table).sum().expand(len(actions)) if entropies else None
        return self.settings.evaluate(Evaluation(table[actions], entropy, self.value.expand(len(actions))))

    def values(self, inputs):
        return self.settings.values(self.value.detach().expand(len(inputs.observations)))


@frozen(eq=False)
class Critical:
    """An estimator that bootstraps from successors' values; what it returns can be broken."""

    harm: object = as_it_is
    needs = frozenset({"values"})

    def __call__(self, rollout):
        returns = rollout.rewards + rollout.successor_values
        return self.harm(Estimate(returns, returns.clone(), torch.ones_like(returns)))


@frozen(eq=False)
class Level:
    """A baseline of 0, which can be broken."""

    harm: object = as_it_is

    def __call__(self, rollout, returns):
        return self.harm(torch.zeros_like(returns))


@frozen(eq=False)
class Terms:
    """Policy, value and entropy terms; what is returned can be broken."""

    harm: object = as_it_is
    needs = frozenset({"entropies", "values"})

    def __call__(self, batch, evaluation):
        policy = -batch.advantages * evaluation.log_probs
        value = (evaluation.values - batch.value_targets).square()
        return self.harm(Loss({"policy": policy, "value": value, "entropy": -0.1 * evaluation.entropies}))


INTACT = {
    "environment": World(),
    "policy": Chooser(),
    "estimator": Critical(),
    "baseline": Level(),
    "loss": Terms(),
    "rollout": RolloutSettings(lanes=2, steps=14),  # at least seven steps a lane
}


def run_with(**parts):
    return framework.train(**{**INTACT, **parts}, iterations=1)


def changed(name, change):
    """A spoiler that changes one field, where it is given."""

    def harm(given_out):
        value = getattr(given_out, name)
        return given_out if value is None else evolve(given_out, **{name: change(value)})

    return harm


def replaced(name, value):
    """A spoiler that puts something else into a field."""
    return lambda given_out: evolve(given_out, **{name: value})


def later(harm):
    """A spoiler that leaves the first two times alone."""
    times = iter(range(10**9))
    return lambda given_out: harm(given_out) if next(times) > 1 else given_out


def with_number(tensor, number):
    """A copy whose last number is another."""
    copy = tensor.clone()
    copy.view(-1)[-1] = number
    return copy


def learnable(tensor):
    """A copy that asks for a gradient."""
    return tensor.clone().requires_grad_()


def without_log_probs(action):
    return Action(action.actions)


# What a tensor can be instead, and what the message says of it; after a part's label and the field's name
SHAPES = {
    "no tensor": (lambda tensor: tensor.tolist(), "expected a tensor .*, got list"),
    "too short": (lambda tensor: tensor[:1], "expected shape .*, got"),
    "with an axis more": (lambda tensor: tensor[..., None], "expected shape .*, got"),
}
INTEGERS = {"of integers": (lambda tensor: tensor.long(), "expected .*, got torch.int64")}
OTHERS_LATER = {"of integers": (lambda tensor: tensor.long(), "expected torch.int64, got torch.float32")}
NOT_FINITE = {
    "of NaN": (lambda tensor: with_number(tensor, math.nan), r"not finite \(nan\)"),
    "of infinity": (lambda tensor: with_number(tensor, -math.inf), r"not finite \(-inf\)"),
}
LEARNABLE = {"with a gradient": (learnable, "carries a gradient")}
NUMBERS = SHAPES | INTEGERS | NOT_FINITE
FLAGS = SHAPES | {"of numbers": (lambda tensor: tensor.float(), "expected torch.bool, got torch.float32")}
STATES = {"outside the space": (lambda tensor: tensor + 7, r"\d is outside Discrete\(3\)")}
CHOICES = SHAPES | {
    "of numbers": (lambda tensor: tensor.float(), "expected torch.int64 .*, got torch.float32"),
    "outside the space": (lambda tensor: tensor + 5, r"\d is outside Discrete\(2\)"),
}
ESTIMATES = NUMBERS | LEARNABLE | {"batch-major": (lambda tensor: tensor.T, r"\(batch-major\? .* is time-major\)")}
MISSING = {"left out": (lambda _: None, "expected a tensor .*, got NoneType")}


def world(hook, name=None, **settings):
    """Makes runs in an environment where what `hook` hands out, or a field of it, is broken."""
    return lambda harm: {"environment": World(**{hook: changed(name, harm) if name else harm}, **settings)}


def policy(hook, name=None, **others):
    """Makes runs with a broken policy."""
    return lambda harm: {"policy": Chooser(**{hook: changed(name, harm) if name else harm}, **others)}


def estimator(name):
    return lambda harm: {"estimator": Critical(changed(name, harm))}


def loss(harm):
    return {"loss": Terms(harm)}


def term(name):
    return lambda harm: loss(changed("terms", lambda terms: {**terms, name: harm(terms[name])}))


def no(kind, field):
    """Instead of an object of this kind, only what one of its fields holds."""
    return {f"is no {kind}": (lambda given_out: getattr(given_out, field), f"expected an? {kind}, got ")}


def constant(evaluation):
    return Evaluation(
        *(None if tensor is None else tensor.detach() for tensor in attrs.astuple(evaluation, recurse=False))
    )


def constant_terms(terms):
    return {name: tensor.detach() for name, tensor in terms.items()}


TWO, MASKS = torch.ones(2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
BREAKS = [  # role, place (ending with the field), what can stand there instead, how to make such a run
    ("environment", "reset: observations", SHAPES | NOT_FINITE, world("reset")),
    ("environment", "reset: observations", OTHERS_LATER, world("reset")),
    ("environment", "reset: observations", STATES, world("reset", discrete=True)),
    ("environment", "reset: action_masks", FLAGS, world("masks")),
    ("environment", "step", no("Step", "rewards"), world("step")),
    ("environment", "step: observations", SHAPES | NOT_FINITE, world("step", "observations")),
    ("environment", "step: observations", STATES, world("step", "observations", discrete=True)),
    ("environment", "step: successors", SHAPES | NOT_FINITE, world("step", "successors")),
    ("environment", "step: successors", STATES, world("step", "successors", discrete=True)),
    ("environment", "step: rewards", NUMBERS, world("step", "rewards")),
    ("environment", "later: rewards", NUMBERS, lambda harm: world("step")(later(changed("rewards", harm)))),
    ("environment", "step: terminated", FLAGS, world("step", "terminated")),
    ("environment", "step: truncated", FLAGS, world("step", "truncated")),
    ("environment", "step: valid", FLAGS, lambda harm: world("step")(replaced("valid", harm(TWO)))),
    ("environment", "step: action_masks", FLAGS | MISSING, world("step", "action_masks", masks=as_it_is)),
    ("policy", "act", no("Action", "actions"), policy("act")),
    ("policy", "act: actions", CHOICES, policy("act", "actions")),
    ("policy", "later: actions", CHOICES, lambda harm: policy("act")(later(changed("actions", harm)))),
    ("policy", "act: log_probs", NUMBERS, policy("act", "log_probs")),
    (
        "policy",
        "later: log_probs",
        NUMBERS | MISSING,
        lambda harm: policy("act")(later(changed("log_probs", harm))),
    ),
    ("policy", "evaluate", no("Evaluation", "log_probs"), policy("evaluate")),
    ("policy", "evaluate", {"is constant": (constant, "no gradient")}, policy("evaluate")),
    ("policy", "evaluate: log_probs", NUMBERS | MISSING, policy("evaluate", "log_probs")),
    ("policy", "evaluate: entropies", NUMBERS | MISSING, policy("evaluate", "entropies")),
    ("policy", "evaluate: values", NUMBERS, policy("evaluate", "values")),
    ("policy", "rollout: evaluate", no("Evaluation", "log_probs"), policy("evaluate", act=without_log_probs)),
    ("policy", "rollout: log_probs", NUMBERS | MISSING, policy("evaluate", "log_probs", act=without_log_probs)),
    ("policy", "values", NUMBERS | LEARNABLE, policy("values")),
    ("estimator", "", no("Estimate", "returns"), lambda harm: {"estimator": Critical(harm)}),
    ("estimator", "returns", ESTIMATES, estimator("returns")),
    ("estimator", "value_targets", ESTIMATES, estimator("value_targets")),
    ("estimator", "weights", ESTIMATES, estimator("weights")),
    ("baseline", "", ESTIMATES, lambda harm: {"baseline": Level(harm)}),
    ("loss", "", no("Loss", "terms"), loss),
    ("loss", "", {"without terms": (replaced("terms", {}), "expected a Loss with at least one term")}, loss),
    ("loss", "terms", {"in a list": (changed("terms", lambda terms: [*terms.values()]), "got list")}, loss),
    ("loss", "terms", {"that are constant": (changed("terms", constant_terms), "carry no gradient")}, loss),
    ("loss", "term 'policy'", NUMBERS, term("policy")),
    ("loss", "term 'value'", NUMBERS, term("value")),
    ("loss", "term 'entropy'", NUMBERS, term("entropy")),
    (
        "loss",
        "stop_epochs",
        {
            "of two numbers": (replaced("stop_epochs", torch.zeros(2, dtype=torch.bool)), r"shape \[2\]"),
            "that is None": (replaced("stop_epochs", None), "got None"),
        },
        loss,
    ),
    ("loss", "metric 'kl'", {"of two numbers": (replaced("metrics", {"kl": torch.zeros(2)}), "")}, loss),
]
BROKEN = {
    f"{role}: {place} {how}": (role, place.split(": ")[-1], message, change, make)
    for role, place, changes, make in BREAKS
    for how, (change, message) in changes.items()
}


def test_intact_parts_run():
    """The parts that are broken below, unbroken: so it is the break that tells."""
    for parts in (
        {},
        world("step", discrete=True)(as_it_is),
        world("masks")(as_it_is),
        policy("act")(without_log_probs),
    ):
        assert run_with(**parts).run.steps >= 14


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_part_is_named(case):
    """A `PartError` begins with role, name and plugin (here: the class's module), and says what was wrong where."""
    role, field_name, message, change, make = BROKEN[case]
    parts = make(change)
    with pytest.raises(PartError) as caught:
        run_with(**parts)
    label = f"{role} '{type(parts[role]).__name__}' (plugin {__name__})"
    assert str(caught.value).startswith(label)
    assert re.search(f"{re.escape(field_name)}.*{message}", str(caught.value).removeprefix(label))


def test_masks_that_the_first_observations_lack_are_refused():
    """They would be known too late for the rollout's first row."""
    with pytest.raises(PartError, match=rf"environment 'World' \(plugin {__name__}\).*action_masks"):
        run_with(**world("step")(replaced("action_masks", MASKS)))


SOURCES = {
    "reset": world("reset"),
    "step: observations": world("step", "observations"),
    "step: successors": world("step", "successors"),
    "step: rewards": world("step", "rewards"),
    "act: log_probs": policy("act", "log_probs"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_gradient_ends_where_the_rollout_begins(source):
    """What environments and `act` hand out is copied, without it: nothing in a rollout carries one."""
    spy = Spy()
    run_with(**SOURCES[source](learnable), extensions=(spy,))
    for rollout in spy.of("rollout"):
        for name, column in attrs.asdict(rollout, recurse=False).items():
            assert column is None or not column.requires_grad, name


def test_a_policy_may_compute_in_float64():
    """Log-probs from `act` are of the policy's own dtype, as those from `evaluate` are."""
    run_with(**policy("act", "log_probs")(torch.Tensor.double))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rewards", lambda rewards: with_number(rewards, math.nan)),
        ("rewards", lambda rewards: rewards[..., 0]),
        ("transitions", lambda transitions: transitions * 0.5),
        ("transitions", lambda transitions: transitions * 2 - transitions.roll(1, -1)),
        ("start", lambda start: start * 0),
        ("terminal", lambda terminal: terminal[:2]),
    ],
    ids=["NaN", "no reward a successor", "rows of one half", "negative probabilities", "no start", "a state too few"],
)
def test_tables_that_describe_no_world_are_refused(name, change):
    """`mdp()` is trusted with the sampling, so what it says is checked, and the message names the part."""
    broken = World(tables=changed(name, change), discrete=True)
    with pytest.raises(FrameworkError, match=rf"environment 'World' \(plugin {__name__}\): mdp.*{name}"):
        framework.train(environment=broken, estimator=Rewards(), iterations=2)
    intact = World(tables=as_it_is, discrete=True)
    assert len(framework.train(environment=intact, estimator=Rewards(), iterations=2).metrics["steps"]) == 2


def test_where_nothing_is_allowed_the_environment_is_named():
    nothing = r"action_masks: no action is allowed at step 0, lane 0"
    with pytest.raises(PartError, match=rf"environment 'World' \(plugin {__name__}\): {nothing}"):
        run_with(**world("masks")(lambda masks: masks.logical_and(torch.tensor(False))))


def test_log_probs_are_given_always_or_never():
    times = itertools.count()
    sometimes = policy("act")(lambda action: without_log_probs(action) if next(times) == 0 else action)
    with pytest.raises(PartError, match=r"policy 'Chooser' .*: act: log_probs: expected None, as before"):
        run_with(**sometimes)


@pytest.mark.parametrize("left_out", [False, True], ids=["log-probs of act", "log-probs of evaluate"])
def test_values_are_those_of_values(left_out):
    """Whatever `evaluate` says of them: what a loss wants may be scaled otherwise (PopArt, say)."""
    collected = []

    class Looking:
        @hookimpl(wrapper=True)
        def collect_rollout(self):
            collected.append((yield))
            return collected[-1]

    @frozen
    class Look:
        def build(self, run):
            return Looking()

    scaled = Chooser(
        act=without_log_probs if left_out else as_it_is,
        evaluate=lambda evaluation: evolve(evaluation, values=evaluation.values + 5),
        values=lambda values: values + 1,
    )
    run_with(policy=scaled, extensions=[Look()])
    assert collected
    for rollout in collected:
        assert (rollout.values[rollout.mask] > 0.5).all()
        assert (rollout.values < 1.5).all()
