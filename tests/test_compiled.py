"""Compiled updates against those in Python.

What a recording holds is what can be wrong; C++ is made of it in the slow tests only, elsewhere the recorded graph
itself is run. Where the two differ the run warns, which is an error in these tests unless it is expected.
"""

import contextlib
import inspect
import shutil
import warnings

import framework_classic
import pytest
import torch
from attrs import evolve, frozen
from framework_gymnasium import Gymnasium
from framework_line_world import LineWorld
from framework_losses import ActorCritic as ActorCriticLoss
from framework_losses import Ppo
from framework_policies import ActorCritic, Gaussian, Recurrent, Tabular
from framework_reinforce import Categorical
from framework_returns import Gae
from framework_standardize import Standardize
from mutants import mutate

import framework
from framework import Loss, OptimizerSettings, RolloutSettings, UpdateSettings, hookimpl
from framework.compile import rollouts as collecting
from framework.compile import update_program as programs
from framework.compile import updates as compiled_module
from framework.learning import optimizers

SMALL = {"hidden": (5,), "activation": "tanh"}
CASES = {
    "ppo, actor_critic": (framework_classic.CartPole(), ActorCritic(**SMALL), Ppo(entropy=0.1, value_clip=0.2)),
    "ppo, shared and normalised": (framework_classic.CartPole(), ActorCritic(shared=True, normalize=True), Ppo()),
    "actor_critic, categorical states": (LineWorld(), ActorCritic(), ActorCriticLoss(entropy=0.1)),
    "actor_critic, tabular": (LineWorld(), Tabular(), ActorCriticLoss()),
    "ppo, gaussian": (framework_classic.Pendulum(), Gaussian(**SMALL, normalize=True), Ppo(entropy=0.1)),
    "ppo, squashed": (framework_classic.Pendulum(), Gaussian(**SMALL, squash=True, deviation="state"), Ppo()),
}
UPDATES = {
    "plain": UpdateSettings(),
    "minibatches": UpdateSettings(epochs=2, minibatches=2, max_grad_norm=0.5),
    "uneven": UpdateSettings(minibatches=3, denominator="per_episode"),
    "constant": UpdateSettings(denominator="constant", constant=7.0, max_grad_norm=1e9),
}
FIXED_EPISODES = RolloutSettings(lanes=4, episodes=4)
MOVES = OptimizerSettings("SGD", lr=1e-4)  # stepped in Python: a program does one update
AT_ONCE = OptimizerSettings(
    "Adam", lr=1e-3, options={"eps": 1e-2}
)  # a program does an iteration's; rounding stays small


@pytest.fixture(autouse=True)
def collected_in_python(monkeypatch):
    """Compiled rollouts have other random numbers; tests/test_collecting.py is about them."""
    monkeypatch.setattr(collecting, "FEW", 0)


@contextlib.contextmanager
def replaced(module):
    """Run with a mutant of `compiled`."""
    with pytest.MonkeyPatch.context() as patch:
        if module is not None:
            patch.setattr(compiled_module, "CompiledUpdater", module.CompiledUpdater)
        yield


def ran(case, update, compile, module=None, **more):
    """A run of five iterations."""
    environment, policy, loss = CASES[case]
    arguments = {
        "estimator": Gae(),
        "rollout": RolloutSettings(lanes=4, fixed_steps=16),
        "optimizer": AT_ONCE,
        "iterations": 5,
        **more,
    }
    with replaced(module):
        return framework.train(
            environment=environment, policy=policy, loss=loss, update=UPDATES[update], compile=compile, **arguments
        )


def assert_same(one, other):
    """Policies, optimizers, last gradients, metrics but times; sums of some dozen float32 may be in another order."""
    states = [run.run.optimizer.state_dict()["state"] for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        for name, ours in state.items():
            theirs = states[1][number][name]
            assert ours is theirs or torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4), name
    for ours, theirs in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    for (name, ours), theirs in zip(one.policy.state_dict().items(), other.policy.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5), name
    assert one.metrics.keys() == other.metrics.keys()
    for name in one.metrics.keys() - {"seconds", "steps_per_second"}:
        numbers = [torch.from_numpy(run.metrics[name]) for run in (one, other)]
        assert torch.allclose(*numbers, rtol=1e-3, atol=1e-4, equal_nan=True), name


EACH = [(case, update) for case in CASES for update in UPDATES]
QUICK = [(case, update) for case, update in EACH if update == "minibatches" and "gaussian" in case]


@pytest.mark.parametrize(
    ("case", "update"),
    [pytest.param(*one, marks=[] if one in QUICK else [pytest.mark.slow]) for one in EACH],
)
def test_compiled_updates_are_those_of_python(case, update, graphs):
    """Terms, metrics, gradients, clipping, denominators and buffers that move: recorded once for each size."""
    assert_same(ran(case, update, True), ran(case, update, False))
    assert len(graphs) == (2 if update == "uneven" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("update", UPDATES)
def test_so_they_are_where_the_optimizer_steps_in_python(update, graphs):
    assert_same(*(ran("ppo, actor_critic", update, compile, optimizer=MOVES) for compile in (True, False)))
    assert len(graphs) == (2 if update == "uneven" else 1)


def scheduled(module, schedule="linear"):
    optimizer = OptimizerSettings("AdamW", lr=1e-2, options={"eps": 1e-2, "weight_decay": 0.1}, schedule=schedule)
    runs = (ran("ppo, actor_critic", "minibatches", *how, optimizer=optimizer) for how in ((True, module), (False,)))
    assert_same(*runs)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_learning_rate_with_a_schedule_is_no_constant(schedule, graphs):
    scheduled(None, schedule)
    assert len(graphs) == 1


@pytest.mark.slow
def test_an_iteration_is_one_call(graphs, monkeypatch):
    """But where an update is compared."""
    calls, real = [], programs.compiled

    def counting(graph, inputs):
        program = real(graph, inputs)
        return lambda *given: (calls.append(int(given[1]) - int(given[0])), program(*given))[1]

    monkeypatch.setattr(programs, "compiled", counting)
    ran("ppo, actor_critic", "minibatches", True, iterations=6)
    # the very first update is Python's; then those numbered 0, 1, 2, 3, 4, 6, 9, 14, 22 are compared
    assert calls == [1, 1, 1, *[1, 1, 1, 1], *[2, 1, 1], *[3, 1], 4, *[3, 1]]


def watched(module):
    steps = []

    def watch(run):
        if run.iteration == 1:
            run.optimizer.register_step_post_hook(lambda *arguments: steps.append(run.iteration))

    ran("ppo, actor_critic", "minibatches", True, module, extensions=[After(watch)])
    assert steps == [2] * 4 + [3] * 4 + [4] * 4


@pytest.mark.slow
def test_who_watches_the_optimizer_sees_each_step(graphs):
    watched(None)


def told(run):
    """What others see of a run after an iteration."""
    state = run.optimizer.state_dict()["state"].get(0, {})
    grads = [one.grad.clone() for one in run.policy.parameters()]
    assert run.batch.advantages.ndim == 1
    return [*grads, *(one.clone() for one in state.values() if torch.is_tensor(one))]


def seen_alike(arguments, changed=None, module=None):
    """A batch, gradients and the optimizer's state after each iteration, in which something may be `changed`."""
    seen = {}
    for compile in (True, False):
        seen[compile] = []

        def look(run, rows=seen[compile]):
            rows.append(told(run))
            if changed is not None:
                changed(run)

        with replaced(module if compile else None):
            extensions = [*arguments.get("extensions", []), After(look)]
            framework.train(
                **{**CRITIC, "optimizer": AT_ONCE, **arguments, "extensions": extensions, "compile": compile}
            )
    assert len(seen[True]) == len(seen[False])
    for ours, theirs in zip(seen[True], seen[False], strict=True):
        assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(ours, theirs, strict=True))


OFTEN = {"policy": ActorCritic(**SMALL), "loss": Ppo(), "update": UPDATES["minibatches"], "iterations": 9}
STOPPING = {**OFTEN, "loss": Ppo(target_kl=1e-5), "update": UpdateSettings(epochs=4, minibatches=2), "iterations": 12}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [OFTEN, STOPPING], ids=["all", "some"])
def test_what_others_see_is_as_in_python(arguments, graphs):
    seen_alike(arguments)


@pytest.mark.parametrize("more", [{}, {"minibatches": 2}], ids=["whole", "minibatches"])
def test_updates_that_end_in_python_are_seen_as_well(more, graphs):
    """After a fallback, and with a loss that ends its first update."""
    arguments = {**STOPPING, "update": UpdateSettings(epochs=3, **more), "extensions": [Wrapping()]}
    with pytest.warns(RuntimeWarning, match="wraps compute_loss"):
        seen_alike(arguments)


def options(run):
    group = run.optimizer.param_groups[0]
    group["betas"] = [0.8 - 0.02 * run.iteration, 0.99]
    group["eps"], group["weight_decay"], group["lr"] = (
        1e-2 / (1 + run.iteration),
        0.1 / (1 + run.iteration),
        0.01 / (1 + run.iteration),
    )


def test_an_optimizer_s_numbers_may_change(graphs):
    """Without another program for each."""
    seen_alike({**OFTEN, "optimizer": OptimizerSettings("AdamW", lr=1e-3, options={"eps": 1e-2})}, options)
    assert len(graphs) == 1


def replaced_step(module):
    calls = []

    def replace(run):
        if run.iteration == 2:
            step = run.optimizer.step
            run.optimizer.step = lambda: (calls.append(run.iteration), step())

    seen_alike(OFTEN, replace, module)
    assert calls == [number for number in range(3, 9) for _ in range(4)] * 2


@pytest.mark.slow
def test_what_a_step_is_replaced_by_is_called(graphs):
    replaced_step(None)


def exchanging(module):
    """Who watches exchanges parameters in the middle of an iteration."""

    def shrink(optimizer, *arguments):
        for parameter in optimizer.policy.parameters():
            parameter.data = parameter.data * 0.9

    def watch(run):
        if run.iteration == 2:
            run.optimizer.policy = run.policy
            run.optimizer.register_step_post_hook(shrink)

    seen_alike(OFTEN, watch, module)


@pytest.mark.slow
def test_who_watches_may_exchange_parameters(graphs):
    exchanging(None)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_hook_of_the_optimizer_raises_is_its_own(when, graphs):
    def fail(*arguments):
        raise ValueError("boom")

    def watch(run):
        getattr(run.optimizer, f"register_step_{'pre' if when == 'before' else 'post'}_hook")(fail)

    with pytest.raises((framework.PartError, ValueError), match="boom"):
        ran("ppo, actor_critic", "minibatches", True, extensions=[After(watch)])


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5, 9])
def test_what_an_extension_raises_as_it_prepares_is_its_own(number, graphs):
    def fail(run, count):
        if count == number:
            raise ValueError("boom")

    with pytest.raises((framework.PartError, ValueError), match="boom"):
        ran("ppo, actor_critic", "minibatches", True, extensions=[Each(fail)])


@frozen
class Unlucky:
    """A loss that is no number by chance."""

    limit: float

    def __call__(self, batch, evaluation):
        broken = torch.rand(()) < self.limit
        return Loss({"policy": torch.where(broken, torch.nan, -batch.advantages * evaluation.log_probs)})


@frozen
class UnluckyGradient:
    """A loss that is a number, and its gradient by chance is none."""

    limit: float

    def __call__(self, batch, evaluation):
        factor = (torch.rand(()) >= self.limit).float()
        near = (factor * evaluation.log_probs).abs().sqrt()
        return Loss({"policy": -batch.advantages * evaluation.log_probs, "near": near})


def unlucky(seed, module=None, loss=Unlucky(0.03), words="Unlucky.*: term 'policy': not finite"):
    counts = []
    for compile in (True, False):
        kept = []
        with replaced(module), pytest.raises(framework.PartError, match=words) as said:
            framework.train(
                environment=framework_classic.CartPole(),
                policy=ActorCritic(**SMALL),
                loss=loss,
                rollout=RolloutSettings(lanes=4, episodes=4),
                update=UpdateSettings(epochs=16),
                optimizer=AT_ONCE,
                iterations=50,
                seed=seed,
                compile=compile,
                extensions=[After(lambda run, kept=kept: kept.append(len(run.loss_metrics)))],
            )
        counts.append((kept, str(said.value)))
    assert counts[0] == counts[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_what_is_no_number_by_chance_is_so_at_the_same_update(seed, graphs):
    unlucky(seed)


def test_a_gradient_that_is_no_number_by_chance_is_so_at_the_same_update(graphs):
    """Its step is not taken, compiled or not."""
    unlucky(0, loss=UnluckyGradient(0.03), words="loss 'UnluckyGradient' .*: .*gradient")


@frozen
class Large:
    """A loss whose terms are numbers of float32, and whose sum is none."""

    def __call__(self, batch, evaluation):
        term = 0 * evaluation.log_probs + 4e37
        return Loss({"policy": -batch.advantages * evaluation.log_probs, "one": term, "two": term})


def beyond_float32(module):
    """Python looks at a sum's terms, in float64."""
    update = UpdateSettings(epochs=2, minibatches=2, denominator="constant", constant=1.0)  # 8 steps of 4e37 each
    arguments = {**SHORT, "loss": Large(), "optimizer": AT_ONCE, "update": update, "iterations": 4}
    with replaced(module):
        runs = [framework.train(**arguments, compile=compile) for compile in (True, False)]
    assert all(run.metrics["updates"].tolist() == [4.0] * 4 for run in runs)
    assert_same(*runs)


def test_a_sum_beyond_float32_ends_nothing(graphs):
    beyond_float32(None)


def leads_elsewhere(module):
    """Where Adam steps otherwise than torch's."""
    with pytest.MonkeyPatch.context() as patch:
        moved = optimizers.Adam.moved
        patch.setattr(optimizers.Adam, "moved", lambda self, vector, *more: moved(self, vector * 1.01, *more))
        with pytest.warns(RuntimeWarning, match="Adam's compiled step leads .* from the other"):
            one = ran("ppo, actor_critic", "minibatches", True, module)
    assert_same(one, ran("ppo, actor_critic", "minibatches", False))


@pytest.mark.slow
def test_a_step_that_is_not_torch_s_ends_it(graphs):
    leads_elsewhere(None)


@pytest.mark.slow
def test_the_batch_is_not_held_while_the_next_one_is_collected(graphs):
    held = []
    ran("ppo, actor_critic", "minibatches", True, extensions=[After(lambda run: held.append(run.updater.columns))])
    assert held == [{}] * 5


@frozen
class Halving:
    """A loss with a tensor that it makes anew, which a recording holds."""

    def __call__(self, batch, evaluation):
        return Loss({"policy": evaluation.log_probs * -batch.advantages * torch.tensor([0.5, 2.0])[:1]})


def test_a_tensor_that_a_loss_makes_is_held(graphs):
    arguments = {**SHORT, "loss": Halving(), "optimizer": AT_ONCE, "iterations": 3}
    assert_same(*(framework.train(**arguments, compile=compile) for compile in (True, False)))
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
@pytest.mark.parametrize("case", ["ppo, actor_critic", "actor_critic, categorical states", "ppo, squashed"])
def test_so_are_those_in_cpp(case):
    assert_same(ran(case, "minibatches", True), ran(case, "minibatches", False))


KL_LIMITS = {"SGD": (OptimizerSettings("SGD", lr=0.03), 1e-4), "Adam": (AT_ONCE, 1e-5)}


def limited(compile, optimizer, module=None):
    settings, limit = KL_LIMITS[optimizer]
    arguments = {
        "environment": framework_classic.CartPole(),
        "policy": ActorCritic(**SMALL),
        "estimator": Gae(),
        "loss": Ppo(target_kl=limit),
        "rollout": RolloutSettings(lanes=4, fixed_steps=16),
        "update": UpdateSettings(epochs=4, minibatches=2),
        "extensions": [Standardize(within="minibatch")],
        "optimizer": settings,
        "iterations": 8,
    }
    with replaced(module):
        return framework.train(**arguments, compile=compile)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", KL_LIMITS)
def test_a_kl_limit_ends_the_updates_as_in_python(optimizer, graphs):
    one, other = (limited(compile, optimizer) for compile in (True, False))
    assert 8 < one.metrics["updates"].sum() < 64
    assert len(set(one.metrics["updates"])) > 2
    assert_same(one, other)


class Dropout(torch.nn.Module):
    """A policy that forgets half of what it saw while it learns."""

    def __init__(self, policy):
        super().__init__()
        self.policy, self.dropout = policy, torch.nn.Dropout(0.5)

    def act(self, inputs, generator):
        return self.policy.act(inputs, generator)

    def evaluate(self, inputs, actions, entropies):
        if torch.is_grad_enabled():
            inputs = framework.Inputs(self.dropout(inputs.observations))
        return self.policy.evaluate(inputs, actions, entropies)


@frozen
class Forgetful:
    def build(self, observation_space, action_space):
        return Dropout(Categorical(**SMALL).build(observation_space, action_space))


def forgetful(compile, module=None):
    with replaced(module):
        return framework.train(
            environment=framework_classic.CartPole(),
            policy=Forgetful(),
            rollout=FIXED_EPISODES,
            update=UpdateSettings(epochs=3),
            optimizer=MOVES,
            iterations=2,
            compile=compile,
        )


@pytest.mark.slow
def test_random_numbers_are_those_of_python(graphs):
    """Also after recording, and after the updates that were done both ways."""
    assert_same(forgetful(True), forgetful(False))


@frozen
class Wrapping:
    def build(self, run):
        return WrappingLoss()


class WrappingLoss:
    @hookimpl(wrapper=True)
    def compute_loss(self):
        return (yield)


@frozen
class Asking:
    """A loss that looks at its numbers while it is made."""

    def __call__(self, batch, evaluation):
        terms = evaluation.log_probs * -batch.advantages
        return Loss({"policy": terms if float(terms.detach().sum()) > 0 else 2 * terms})


class Warming:
    """A loss whose factor is a number of Python's that grows."""

    def __init__(self):
        self.factor = 1.0

    def __call__(self, batch, evaluation):
        return Loss({"policy": evaluation.log_probs * batch.advantages * -self.factor})


@frozen
class WarmUp:
    def build(self):
        return Warming()


@frozen
class Raising:
    """After each iteration, the loss's factor goes up."""

    def build(self, run):
        return Raiser()


class Raiser:
    @hookimpl
    def iteration_finished(self, run, metrics):
        run.loss.factor += 1


@frozen
class After:
    """An extension that calls a function of the run after each iteration."""

    function: object

    def build(self, run):
        return Afterwards(self.function)


class Afterwards:
    def __init__(self, function):
        self.function = function

    @hookimpl
    def iteration_finished(self, run, metrics):
        self.function(run)


@frozen
class Each:
    """An extension that calls a function of the run and a count as each minibatch is prepared."""

    function: object

    def build(self, run):
        return Preparing(self.function)


class Preparing:
    def __init__(self, function):
        self.function, self.count = function, 0

    @hookimpl(wrapper=True)
    def prepare_batch(self, run):
        batch = yield
        self.function(run, self.count)
        self.count += 1
        return batch


class Normed(torch.nn.Module):
    """A policy whose buffers move when it evaluates."""

    def __init__(self, policy):
        super().__init__()
        self.policy, self.norm = policy, torch.nn.BatchNorm1d(4)

    def act(self, inputs, generator):
        return self.policy.act(inputs, generator)

    def evaluate(self, inputs, actions, entropies):
        return self.policy.evaluate(framework.Inputs(self.norm(inputs.observations)), actions, entropies)


@frozen
class Norm:
    def build(self, observation_space, action_space):
        return Normed(Categorical(**SMALL).build(observation_space, action_space))


@frozen
class Telling:
    """A loss with a metric that is a number of Python's, or was one."""

    tensor: bool = False

    def build(self):
        return Told(self.tensor)


class Told(Warming):
    def __init__(self, tensor):
        super().__init__()
        self.tensor = tensor

    def __call__(self, batch, evaluation):
        factor = torch.tensor(self.factor) if self.tensor else self.factor
        return Loss({"policy": evaluation.log_probs * -batch.advantages}, {"factor": factor})


@frozen
class Counting:
    """A loss that counts its calls, and turns round after some."""

    def build(self):
        return Counted()


class Counted(Warming):
    def __call__(self, batch, evaluation):
        self.factor += 1
        return Loss({"policy": evaluation.log_probs * batch.advantages * (-1 if self.factor < 4 else 1)})


class Scaled(Normed):
    """A policy with a buffer that somebody may exchange."""

    def __init__(self, policy):
        super().__init__(policy)
        self.norm = torch.nn.Identity()
        self.register_buffer("scale", torch.ones(4))

    def evaluate(self, inputs, actions, entropies):
        return self.policy.evaluate(framework.Inputs(inputs.observations * self.scale), actions, entropies)


@frozen
class Scale:
    def build(self, observation_space, action_space):
        return Scaled(Categorical(**SMALL).build(observation_space, action_space))


def flatten_buffer(run):
    """What broadcasts in Python, and is of another shape, once a program has been made."""
    if run.iteration == 1:
        run.policy.scale = torch.full((1,), 0.5)


@frozen
class Strided:
    """From the second iteration on, advantages are every second number of a tensor, or all one number."""

    expanded: bool

    def build(self, run):
        return Striding(self.expanded)


class Striding:
    def __init__(self, expanded):
        self.expanded = expanded

    @hookimpl(wrapper=True)
    def prepare_batch(self, run):
        batch = yield
        if not run.iteration:
            return batch
        given = batch.advantages
        changed = given.mean().expand(given.shape) if self.expanded else torch.stack([given, given * 9], 1)[:, 0]
        return evolve(batch, advantages=changed)


def strided(expanded, compile):
    return ran("ppo, actor_critic", "minibatches", compile, extensions=[Strided(expanded)])


def freeze(run):
    next(run.policy.parameters()).requires_grad_(False)


def hook(run):
    next(run.policy.parameters()).register_hook(lambda gradient: None)


def add(run):
    run.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})


SHORT = {"environment": framework_classic.CartPole(max_steps=4), "rollout": FIXED_EPISODES}  # minibatches of one size
FIXED = RolloutSettings(lanes=4, fixed_steps=16)
CRITIC = {"environment": framework_classic.CartPole(), "estimator": Gae(), "rollout": FIXED}
CHANGED = "term 'policy' is .* compiled and .* otherwise"
FALLBACKS = {
    "extension 'Wrapping' .* wraps compute_loss": {
        **CRITIC,
        "policy": ActorCritic(**SMALL),
        "loss": Ppo(),
        "extensions": [Wrapping()],
    },
    "policy 'recurrent' .* has a memory": {**CRITIC, "policy": Recurrent(**SMALL), "loss": Ppo()},
    "other sizes: collect fixed steps": {"iterations": 9},
    "value out of a tracing tensor|DataDependent|data-dependent|item": {
        "loss": Asking(),
        "rollout": FIXED_EPISODES,
    },
    CHANGED: {
        **SHORT,
        "loss": WarmUp(),
        "extensions": [Raising()],
    },
    # the first minibatch of each iteration is as it was recorded
    "term 'policy' is .* compiled and .* otherwise ": {
        **SHORT,
        "loss": WarmUp(),
        "update": UpdateSettings(epochs=4),
        "extensions": [Each(lambda run, count: setattr(run.loss, "factor", 1.0 if count % 4 == 0 else 0.0))],
    },
    "policy 'Norm' .* moves its buffers while it evaluates": {**SHORT, "policy": Norm()},
    "metric 'factor' is 2.0 compiled and 3.0 otherwise": {**SHORT, "loss": Telling(), "extensions": [Raising()]},
    "metric 'factor' is (1|2).0 compiled and .* otherwise": {
        **SHORT,
        "loss": Telling(tensor=True),
        "extensions": [Raising()],
    },
    "loss 'Counting' .* changes while it works": {**SHORT, "loss": Counting()},
    "policy 'Scale' .* has parameters or buffers of other shapes": {
        **SHORT,
        "policy": Scale(),
        "extensions": [After(flatten_buffer)],
    },
    "parameters have been frozen": {**SHORT, "extensions": [After(freeze)]},
    "a parameter has a hook": {**SHORT, "extensions": [After(hook)]},
    "an extension added parameters to the optimizer": {
        **SHORT,
        "extensions": [After(add)],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("expanded", [False, True])
def test_columns_that_are_laid_out_otherwise_have_a_program_of_their_own(expanded, graphs):
    assert_same(strided(expanded, True), strided(expanded, False))
    assert len(graphs) == 2


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
@pytest.mark.parametrize("expanded", [False, True])
def test_so_they_have_in_cpp(expanded):
    """Which reads their memory as it was told when it was made."""
    assert_same(strided(expanded, True), strided(expanded, False))


def test_a_run_whose_rows_do_not_all_count_is_not_compiled_at_all(graphs):
    """Rather than after some programs that were each made for a minibatch's size."""
    environment = Gymnasium(id="CartPole-v1", vectorization_mode="sync", autoreset="next_step")
    arguments = {**CRITIC, "policy": ActorCritic(**SMALL), "loss": Ppo(), "environment": environment}
    arguments["rollout"] = RolloutSettings(lanes=4, fixed_steps=64)
    with pytest.warns(RuntimeWarning, match="ever other sizes"):
        framework.train(**arguments, iterations=2, compile=True)
    assert graphs == []


def falls_back(reason, module=None):
    """It is said once, and the numbers are those of a run without compiling."""
    arguments = {"iterations": 3, "optimizer": MOVES, **FALLBACKS[reason]}
    expected = f"compile: the updates go on in Python: .*{reason.strip()}"
    with replaced(module), pytest.warns(RuntimeWarning, match=expected) as said:
        one = framework.train(**arguments, compile=True)
    assert len(said) == 1
    assert_same(one, framework.train(**arguments))


@pytest.mark.slow
@pytest.mark.parametrize("reason", FALLBACKS)
def test_what_cannot_be_compiled_runs_in_python(reason, graphs):
    falls_back(reason)


@pytest.mark.slow
def test_without_a_compiler_it_runs_in_python(monkeypatch):
    from torch import _inductor

    def missing(graph, inputs, options):
        raise OSError("no C++ compiler\nand a long story")

    monkeypatch.setattr(_inductor, "compile", missing)
    with pytest.warns(RuntimeWarning, match="the updates go on in Python: OSError: no C\\+\\+ compiler$"):
        one = ran("ppo, gaussian", "minibatches", True)
    assert_same(one, ran("ppo, gaussian", "minibatches", False))


@frozen
class Cancelling:
    """A loss of what should cancel: rounding is all that it is made of."""

    def __call__(self, batch, evaluation):
        return Loss({"policy": 1e6 * (evaluation.log_probs - batch.log_probs).square()})


def cancelling(module=None):
    with replaced(module):
        return framework.train(
            environment=framework_classic.CartPole(max_steps=4),
            policy=Categorical(**SMALL),
            rollout=FIXED_EPISODES,
            loss=Cancelling(),
            optimizer=MOVES,
            iterations=4,
            compile=True,
        )


def test_what_only_rounding_tells_apart_is_the_same(graphs):
    """As a critic's error, once it says what comes."""
    cancelling()
    assert len(graphs) == 1


def test_a_loss_that_is_not_finite_is_named_all_the_same(graphs):
    huge = {"optimizer": OptimizerSettings("SGD", lr=1e30), "iterations": 30}
    with pytest.raises(framework.PartError, match="loss 'ppo' .*: term 'value': not finite"):
        ran("ppo, actor_critic", "plain", True, **huge)


def agrees(case, update):
    """A law of a module: its run is Python's."""
    return lambda module: assert_same(ran(case, update, True, module), ran(case, update, False))


def kl_limit(module):
    assert_same(limited(True, "Adam", module), limited(False, "Adam"))


MUTANTS = {
    "forgets the denominator": (
        agrees("ppo, gaussian", "uneven"),
        "term.sum() / count.to(term.dtype) for",
        "term.sum() for",
    ),
    "records the denominator as a number": (
        agrees("actor_critic, categorical states", "uneven"),
        "term.sum() / count.to(term.dtype) for",
        "term.sum() / float(job.inputs[-3]) for",
    ),
    "does not clip": (
        agrees("ppo, gaussian", "minibatches"),
        "        if most is not None:\n            gradient =",
        "        if False:\n            gradient =",
    ),
    "descends the first term only": (
        agrees("ppo, gaussian", "plain"),
        "total = functools.reduce(operator.add, terms)",
        "total = terms[0]",
    ),
    "mixes the parameters up": (
        agrees("ppo, gaussian", "plain"),
        "parts[learnt[id(tensor)]]",
        "parts[-learnt[id(tensor)]]",
    ),
    "draws while it records": (
        lambda module: assert_same(forgetful(True, module), forgetful(False)),
        "with undisturbed():",
        "with quiet():",
    ),
    "never compares": (
        lambda module: falls_back(CHANGED, module),
        "        if batch is not None:\n            with",
        "        if False:\n            with",
    ),
    "goes on when the loss has ended the epochs": (kl_limit, "stop | ~row[", "~row["),
    "moves where the loss ends the epochs": (kl_limit, "torch.where(halts, old, new)", "new"),
    "counts what ended them as an update": (kl_limit, "t + 1 - halts.long()", "t + 1"),
    "does not count the optimizer's steps": (
        agrees("ppo, gaussian", "minibatches"),
        'job.state["step"] += count',
        "pass",
    ),
    "does each update with the first minibatch": (
        agrees("ppo, gaussian", "minibatches"),
        "given[which] = given[which].index_select(0, place)",
        "given[which] = given[which].index_select(0, place * 0)",
    ),
    "scales each step as the first": (
        agrees("ppo, gaussian", "minibatches"),
        "given[scales] = given[scales].index_select(0, place)",
        "given[scales] = given[scales].index_select(0, place * 0)",
    ),
    "begins to scale anew with each call": (
        agrees("ppo, gaussian", "minibatches"),
        "rule.scales(rate, done - (at - first), last - first)",
        "rule.scales(rate, 0 - (at - first), last - first)",
    ),
    "leaves the gradient before the last": (
        agrees("ppo, gaussian", "minibatches"),
        "learnt.take(gradient)",
        "compared and learnt.take(gradient)",
    ),
    "records the learning rate": (
        scheduled,
        'optimizer.param_groups[0]["lr"], int',
        "run.config.optimizer.lr, int",
    ),
    "takes all minibatches for as large as the next": (
        agrees("ppo, gaussian", "uneven"),
        "while last < len(sizes) and sizes[last] == sizes[at]",
        "while last < len(sizes)",
    ),
    "steps at once behind a watcher's back": (watched, "is_watched(optimizer) or", "False or"),
    "steps at once in place of a step that was replaced": (
        lambda module: replaced_step(module),
        ' or "step" in vars(optimizer)',
        "",
    ),
    "does not look at steps": (
        leads_elsewhere,
        "if job.rule is not None and apart > NEAR",
        "if False and apart > NEAR",
    ),
    "takes a sum beyond float32 for no number": (
        beyond_float32,
        "~row[: 2 + len(terms)].sum().isfinite()",
        "~row[: 2 + len(terms)].float().sum().isfinite()",
    ),
    "shows no batch": (
        lambda module: seen_alike(OFTEN, module=module),
        "            run.batch = whole",
        "            pass",
    ),
    "leaves the gradient of a comparison": (
        lambda module: seen_alike(STOPPING, module=module),
        "            learnt.gradient.copy_(last)",
        "            pass",
    ),
    "draws other random numbers when it does an update again": (
        lambda module: [unlucky(seed, module) for seed in range(3)],
        "            torch.set_rng_state(random)\n            again",
        "            again",
    ),
    "does not look again when somebody was told of a step": (
        lambda module: exchanging(module),
        "before, self.iteration = vector.clone(), -1",
        "before = vector.clone()",
    ),
    "takes rounding for a difference": (cancelling, "4 * rounding()", "0 * rounding()"),
    "asks the loss itself while it records": (
        lambda module: falls_back("loss 'Counting' .* changes while it works", module),
        "run.loss, copy.deepcopy(run.loss)",
        "run.loss, run.loss",
    ),
}


@contextlib.contextmanager
def quiet():
    """Torch's warnings are not said, and nothing else is put right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def mutant_of(change):
    """`compiled`, with a place changed that stands there, or in `programs`."""
    if change[0] in inspect.getsource(programs):
        return mutate("framework.compile.updates", record=mutate("framework.compile.update_program", change).record)
    return mutate("framework.compile.updates", change, quiet=quiet)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_that(name, graphs):
    """By its own comparison, which warns, or by the one with a run in Python."""
    law, *change = MUTANTS[name]
    law(None)
    with pytest.raises((AssertionError, AttributeError, framework.PartError, RuntimeWarning, pytest.fail.Exception)):
        law(mutant_of(tuple(change)))
