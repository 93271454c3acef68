"""Runs with compiled updates, and their comparison with Python's."""

import contextlib

import framework_classic
import pytest
import torch
from attrs import frozen
from framework_line_world import LineWorld
from framework_losses import ActorCritic as ActorCriticLoss
from framework_losses import Ppo
from framework_policies import ActorCritic, Gaussian, Recurrent, Tabular
from framework_reinforce import Categorical
from framework_returns import Gae
from framework_standardize import Standardize

import framework
from framework import Loss, OptimizerSettings, RolloutSettings, UpdateSettings, hookimpl
from framework.compile import adam
from framework.compile import updates as compiled_module

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


def scheduled(module, schedule="linear"):
    optimizer = OptimizerSettings("AdamW", lr=1e-2, options={"eps": 1e-2, "weight_decay": 0.1}, schedule=schedule)
    runs = (ran("ppo, actor_critic", "minibatches", *how, optimizer=optimizer) for how in ((True, module), (False,)))
    assert_same(*runs)


def watched(module):
    steps = []

    def watch(run):
        if run.iteration == 1:
            run.optimizer.register_step_post_hook(lambda *arguments: steps.append(run.iteration))

    ran("ppo, actor_critic", "minibatches", True, module, extensions=[After(watch)])
    assert steps == [2] * 4 + [3] * 4 + [4] * 4


def snapshot_of(run):
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
            rows.append(snapshot_of(run))
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


def replaced_step(module):
    calls = []

    def replace(run):
        if run.iteration == 2:
            step = run.optimizer.step
            run.optimizer.step = lambda: (calls.append(run.iteration), step())

    seen_alike(OFTEN, replace, module)
    assert calls == [number for number in range(3, 9) for _ in range(4)] * 2


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


@frozen
class Unlucky:
    """A loss that is no number by chance."""

    limit: float

    def __call__(self, batch, evaluation):
        broken = torch.rand(()) < self.limit
        return Loss({"policy": torch.where(broken, torch.nan, -batch.advantages * evaluation.log_probs)})


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


def leads_elsewhere(module):
    """Where Adam steps otherwise than torch's."""
    with pytest.MonkeyPatch.context() as patch:
        moved = adam.Adam.moved
        patch.setattr(adam.Adam, "moved", lambda self, vector, *more: moved(self, vector * 1.01, *more))
        with pytest.warns(RuntimeWarning, match="Adam's compiled step leads .* from the other"):
            one = ran("ppo, actor_critic", "minibatches", True, module)
    assert_same(one, ran("ppo, actor_critic", "minibatches", False))


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
        return Notified(self.tensor)


class Notified(Warming):
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
    """A policy with a buffer that may be exchanged."""

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


def freeze(run):
    next(run.policy.parameters()).requires_grad_(False)


def hook(run):
    next(run.policy.parameters()).register_hook(lambda gradient: None)


def add(run):
    run.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})


SHORT = {"environment": framework_classic.CartPole(max_steps=4), "rollout": FIXED_EPISODES}  # minibatches of one size
FIXED = RolloutSettings(lanes=4, fixed_steps=16)
CRITIC = {"environment": framework_classic.CartPole(), "estimator": Gae(), "rollout": FIXED}
CHANGED = "term 'policy' is .* compiled and .* in Python"
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
    "term 'policy' is .* compiled and .* in Python ": {
        **SHORT,
        "loss": WarmUp(),
        "update": UpdateSettings(epochs=4),
        "extensions": [Each(lambda run, count: setattr(run.loss, "factor", 1.0 if count % 4 == 0 else 0.0))],
    },
    "policy 'Norm' .* moves its buffers while it evaluates": {**SHORT, "policy": Norm()},
    "metric 'factor' is 2.0 compiled and 3.0 in Python": {**SHORT, "loss": Telling(), "extensions": [Raising()]},
    "metric 'factor' is (1|2).0 compiled and .* in Python": {
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


def falls_back(reason, module=None):
    """It is said once, and the numbers are those of a run without compiling."""
    arguments = {"iterations": 3, "optimizer": MOVES, **FALLBACKS[reason]}
    expected = f"compile: the updates go on in Python: .*{reason.strip()}"
    with replaced(module), pytest.warns(RuntimeWarning, match=expected) as said:
        one = framework.train(**arguments, compile=True)
    assert len(said) == 1
    assert_same(one, framework.train(**arguments))


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


def agrees(case, update):
    """A law of a module: its run is Python's."""
    return lambda module: assert_same(ran(case, update, True, module), ran(case, update, False))


def kl_limit(module):
    assert_same(limited(True, "Adam", module), limited(False, "Adam"))
