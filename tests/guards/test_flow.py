"""Which term of the loss reaches which parameters: the numbers, and what is refused."""

import json

import attrs
import framework_classic
import pytest
import torch
from attrs import frozen
from framework_line_world import LineWorld
from framework_losses import Ppo
from framework_policies import ActorCritic
from framework_reinforce.score_function import Reinforce
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import is_killed, mutate

import framework
from framework import Estimate, Evaluation, Loss, PartError, UpdateSettings, hookimpl
from framework.cli import main
from framework.config import DEFAULTS
from framework.guards import gradient_flow as flow
from framework.learning.batches import flatten, reduce
from framework.learning.evaluate import evaluate_batch
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.stages import Core

LOADED = load()


def a_run(policy, loss, seed):
    """A run that has one batch, and its loss with a graph."""
    config = configure(LOADED, {**DEFAULTS, "reports": [], "seed": seed, "rollout": {"lanes": 2, "episodes": 2}})
    parts = {"policy": LOADED.part_of("policy", policy), "loss": LOADED.part_of("loss", loss)}
    run = build(attrs.evolve(config, **parts), LOADED, Core())
    rollout = run.stages.collect_rollout(run)
    run.batch = flatten(rollout, run.stages.estimate_advantages(run, rollout))
    return run, reduce(run.stages.compute_loss(run, run.batch), run.batch, "per_step")


def law_norms_are_of_each_term_s_own_gradient(module, shared, entropy, seed):
    """By a backward pass of each term alone; a group that a term does not reach is not there, one of gradient 0 is."""
    run, terms = a_run(ActorCritic(shared=shared), Ppo(entropy=entropy), seed)
    norms = module.norms_by_term(run, terms, lambda: evaluate_batch(run, run.batch))
    assert list(norms) == list(terms)
    for term, value in terms.items():
        run.policy.zero_grad(set_to_none=True)
        value.backward(retain_graph=True)
        groups = {}
        for name, parameter in run.policy.named_parameters():
            if parameter.grad is not None:
                groups.setdefault(name.split(".")[0], []).append(parameter.grad.flatten())
        expected = {group: float(torch.cat(gradients).norm()) for group, gradients in groups.items()}
        assert norms[term] == pytest.approx(expected, rel=1e-5, abs=1e-9)


@frozen
class Lopsided:
    """A policy term, and one that leads nowhere."""

    def __call__(self, batch, evaluation):
        return Loss({"policy": evaluation.log_probs * -batch.advantages, "reported": evaluation.log_probs.detach()})


def law_a_constant_term_leads_nowhere(module, seed):
    run, terms = a_run(framework_policies_categorical(), Lopsided(), seed)
    norms = module.norms_by_term(run, terms, lambda: evaluate_batch(run, run.batch))
    assert norms["reported"] == {}
    assert set(norms["policy"]) == {"embedding", "network"}


def framework_policies_categorical():
    return LOADED.pick("policy", "categorical")[2]()


@frozen
class Idle:
    """A policy with a parameter more, which is used as `use` says."""

    gives = frozenset({"values"})
    use: str = "never"

    def build(self, observation_space, action_space):
        policy = ActorCritic().build(observation_space, action_space)
        policy.extra = torch.nn.Parameter(torch.ones(()), requires_grad=self.use != "frozen")
        whole, use = policy.evaluate, self.use

        def evaluate(inputs, actions, entropies):
            said = whole(inputs, actions, entropies)
            log_probs, values = said.log_probs, said.values
            if use == "log_probs":
                log_probs = log_probs * policy.extra
            if use == "values":
                values = values * policy.extra
            return Evaluation(log_probs, said.entropies, values)

        policy.evaluate = evaluate
        return policy


@frozen
class Cut:
    """PPO without a gradient of one of its inputs."""

    what: str = "values"
    needs = frozenset({"values"})

    def __call__(self, batch, evaluation):
        return Ppo()(batch, attrs.evolve(evaluation, **{self.what: getattr(evaluation, self.what).detach()}))


def train(policy, loss, **more):
    return framework.train(environment=LineWorld(), policy=policy, loss=loss, iterations=1, **more)


def law_what_is_used_for_nothing_is_the_policy_s_fault(module, seed):
    run, terms = a_run(Idle(), Ppo(), seed)
    with pytest.raises(PartError, match=r"policy 'Idle'.*'extra', and what evaluate returns does not depend on it"):
        module.norms_by_term(run, terms, lambda: evaluate_batch(run, run.batch))


def law_what_the_loss_cuts_off_is_its_fault(module, seed):
    for what, parameter in (("values", "critic"), ("log_probs", "network")):
        run, terms = a_run(ActorCritic(), Cut(what), seed)
        expected = rf"loss 'Cut'.*no term \(policy, value\) reaches parameter '{parameter}\..*moves its {what}"
        with pytest.raises(PartError, match=expected):
            module.norms_by_term(run, terms, lambda run=run: evaluate_batch(run, run.batch))


def law_a_critic_that_the_loss_does_not_ask_for_is_left_alone(module, seed):
    for policy in (ActorCritic(), Idle("values"), Idle("frozen")):
        run, terms = a_run(policy, Reinforce(), seed)
        norms = module.norms_by_term(run, terms, lambda run=run: evaluate_batch(run, run.batch))
        assert set(norms["policy"]) == {"network"}


SEEDS = st.integers(0, 2**31)
LAWS = {
    law_norms_are_of_each_term_s_own_gradient: (st.booleans(), st.sampled_from([0.0, 0.1]), SEEDS),
    law_a_constant_term_leads_nowhere: (SEEDS,),
    law_what_is_used_for_nothing_is_the_policy_s_fault: (SEEDS,),
    law_what_the_loss_cuts_off_is_its_fault: (SEEDS,),
    law_a_critic_that_the_loss_does_not_ask_for_is_left_alone: (SEEDS,),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    settings(max_examples=10)(given(st.tuples(*LAWS[law]))(lambda drawn: law(flow, *drawn)))()


MUTANTS = {
    "adds norms instead of squares": (
        law_norms_are_of_each_term_s_own_gradient,
        ("float(gradient.square().sum())", "float(gradient.norm())"),
    ),
    "tells of the last parameter only": (
        law_norms_are_of_each_term_s_own_gradient,
        ("squares.get(group, 0.0) + square", "square"),
    ),
    "groups by the last word": (
        law_norms_are_of_each_term_s_own_gradient,
        ('name.partition(".")', 'name.rpartition(".")'),
    ),
    "differentiates a constant": (law_a_constant_term_leads_nowhere, ("if value.requires_grad:", "if True:")),
    "forgives everything": (law_what_is_used_for_nothing_is_the_policy_s_fault, ("    if missed:", "    if False:")),
    "looks at log-probs only": (
        law_what_the_loss_cuts_off_is_its_fault,
        ('("log_probs", "entropies", "values")', '("log_probs",)'),
    ),
    "forgives the loss": (law_what_the_loss_cuts_off_is_its_fault, ("        if wanted:", "        if False:")),
    "wants every critic trained": (
        law_a_critic_that_the_loss_does_not_ask_for_is_left_alone,
        ('{"log_probs", *run.loss_needs}', "what"),
    ),
    "looks at frozen parameters": (
        law_a_critic_that_the_loss_does_not_ask_for_is_left_alone,
        (
            "for name, one in run.policy.named_parameters() if one.requires_grad]",
            "for name, one in run.policy.named_parameters()]",
        ),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    mutant = mutate("framework.guards.gradient_flow", change)

    def fails_or_raises(*arguments):
        try:
            law(*arguments)
        except (RuntimeError, pytest.fail.Exception, PartError) as error:
            raise AssertionError from error

    is_killed(fails_or_raises, *LAWS[law], arguments=(mutant,))


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


# In a run


class Scaled(torch.nn.Module):
    """An estimator or baseline with a scale of its own, which it means to learn through the loss."""

    def __init__(self, made, insists):
        super().__init__()
        self.made, self.insists, self.scale = made, insists, torch.nn.Parameter(torch.ones(()))

    def forward(self, rollout, returns=None):
        with torch.set_grad_enabled(self.insists):
            return self.made(self.scale * (rollout.rewards if returns is None else returns))


@frozen
class ScaledReturns:
    """Settings of an estimator whose returns depend on a parameter of its own."""

    insists: bool = True

    def build(self):
        return Scaled(lambda returns: Estimate(returns, returns.detach()), self.insists)


@frozen
class ScaledBaseline:
    """The same of a baseline."""

    insists: bool = True

    def build(self):
        return Scaled(lambda returns: returns, self.insists)


@frozen
class Relabels:
    """An extension that puts a parameter of its own into one column of each batch."""

    column: str = "returns"

    def build(self, run):
        return Relabelling(self.column)


class Relabelling:
    def __init__(self, column):
        self.column, self.scale = column, torch.nn.Parameter(torch.ones(()))

    @hookimpl(wrapper=True)
    def prepare_batch(self, run, batch):
        batch = yield
        return attrs.evolve(batch, **{self.column: getattr(batch, self.column) * self.scale})


@pytest.mark.parametrize(
    ("parts", "label"),
    [
        ({"estimator": ScaledReturns()}, "estimator 'ScaledReturns'.*: returns"),
        ({"baseline": ScaledBaseline()}, "baseline 'ScaledBaseline'.*"),
        *(
            ({"extensions": [Relabels(column)]}, f"'Relabels'.*: prepare_batch: {column}")
            for column in ("advantages", "returns", "value_targets", "log_probs")
        ),
    ],
)
def test_a_gradient_into_what_is_learnt_from_is_an_error(parts, label):
    """Returns and their like are data: what a gradient would flow into is named, with its plugin, before any update."""
    with pytest.raises(PartError, match=f"{label}: carries a gradient; only an evaluation and a loss may"):
        train(ActorCritic(), Ppo(), **parts)


def test_what_does_not_insist_on_a_gradient_has_none():
    """The core asks for returns and baselines without a graph: a parameter in them is a number like others."""
    train(ActorCritic(), Ppo(), estimator=ScaledReturns(insists=False), baseline=ScaledBaseline(insists=False))


@pytest.mark.parametrize("compile", [False, True])
def test_a_run_looks_at_its_first_update(compile):
    with pytest.raises(PartError, match="policy 'Idle'.*'extra'"):
        train(Idle(), Ppo(), compile=compile)
    with pytest.raises(PartError, match="loss 'Cut'.*'critic"):
        train(ActorCritic(), Cut(), compile=compile)
    assert train(Idle("log_probs"), Ppo()).run.traced["policy"].keys() == {"network", "extra"}


def test_later_updates_are_looked_at_on_request_only():
    result = train(ActorCritic(), Ppo(), update=UpdateSettings(epochs=3))
    assert not any(name.startswith("gradient/") for name in result.metrics)
    reported = train(ActorCritic(), Ppo(), update=UpdateSettings(epochs=3), trace_gradients=True)
    assert {name for name in reported.metrics if name.startswith("gradient/")} == {
        "gradient/policy/network",
        "gradient/value/critic",
    }
    once = train(ActorCritic(), Ppo(), trace_gradients=True)
    assert once.metrics["gradient/value/critic"][0] == pytest.approx(once.run.traced["value"]["critic"])
    assert reported.metrics["gradient/value/critic"][0] != once.metrics["gradient/value/critic"][0]  # the mean of three


def test_looking_changes_no_bit():
    one, other = (
        framework.train(recipe="ppo", environment=framework_classic.CartPole(), iterations=2, trace_gradients=traced)
        for traced in (False, True)
    )
    for mine, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert all((one.metrics[name] == other.metrics[name]).all() for name in one.metrics if "second" not in name)


def test_the_norm_of_all_terms_together_is_what_is_clipped():
    """One term, one group: its norm is that of the whole gradient, before clipping."""
    update = UpdateSettings(max_grad_norm=0.01)
    result = train(LOADED.pick("policy", "tabular")[2](), Reinforce(), update=update, trace_gradients=True)
    (name,) = [name for name in result.metrics if name.startswith("gradient/")]
    assert result.metrics[name][0] == pytest.approx(result.metrics["grad_norm"][0], rel=1e-5)


def test_with_compile_tracing_goes_on_in_python():
    with pytest.warns(RuntimeWarning, match="compile: the updates go on in Python: trace_gradients looks at each term"):
        framework.train(
            environment=LineWorld(),
            policy=ActorCritic(),
            loss=Ppo(),
            iterations=2,
            compile=True,
            trace_gradients=True,
        )


def test_the_command_tells_and_records_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["run", "--recipe", "ppo", "--environment", "cartpole", "--iterations", "2", "--name", "one"]
    assert main([*words, "--trace-gradients", "--reports", "record"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert reported["gradients"] == json.loads((tmp_path / "runs/one/gradients.json").read_text())
    assert reported["gradients"].keys() == {"policy", "value"}
    header, first, _ = (tmp_path / "runs/one/metrics.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(row["gradient/value/critic"]) > 0
    assert "trace_gradients = true" in (tmp_path / "runs/one/config.toml").read_text()


@pytest.mark.slow
def test_a_person_sees_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("framework.cli.run.is_terminal", lambda: True)
    words = ["run", "--recipe", "ppo", "--environment", "cartpole", "--iterations", "2", "--reports", "None"]
    assert main([*words, "--trace-gradients"]) == 0
    lines = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    policy, value = (next(line for line in lines if len(line) > 1 and line[1] == term) for term in ("policy", "value"))
    assert " → " in policy[2]
    assert policy[3] == "–"
    assert value[2] == "–"
