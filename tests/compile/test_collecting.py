"""Rollouts of a compiled program against an oracle that takes the same steps in Python, one after the other.

C++ is made in the slow tests only; elsewhere the traced loop itself is run.
"""

import shutil
from types import SimpleNamespace

import framework_classic
import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from framework_classic.lanes import FloatLanes
from framework_gymnasium import Gymnasium
from framework_losses import ActorCritic as ActorCriticLoss
from framework_losses import Ppo
from framework_policies import ActorCritic, Gaussian, Recurrent
from framework_policies.actor_critic import ActorCriticPolicy
from framework_reinforce import Categorical, Reinforce
from framework_returns import Gae
from mutants import mutate, mutate_either

import framework
from framework import Inputs, OptimizerSettings, RolloutSettings, UpdateSettings, hookimpl, streams
from framework.compile import rollout_program
from framework.compile import rollouts as collecting
from framework.compile.rollouts import offers

SMALL = {"hidden": (5,), "activation": "tanh"}
CASES = {
    "cartpole": (framework_classic.CartPole(max_steps=9), ActorCritic(**SMALL)),
    "shared and normalised": (framework_classic.CartPole(), ActorCritic(shared=True, normalize=True, hidden=(4, 3))),
    "mountain_car": (framework_classic.MountainCar(max_steps=7), ActorCritic(**SMALL)),
    "acrobot": (framework_classic.Acrobot(max_steps=11), ActorCritic(hidden=(3,), activation="silu")),
    "pendulum": (framework_classic.Pendulum(max_steps=10), Gaussian(**SMALL, normalize=True)),
    "pendulum, squashed": (framework_classic.Pendulum(), Gaussian(**SMALL, squash=True, deviation="state")),
}
CARTPOLE = framework_classic.CartPole()
STEPS = 37  # no multiple of a program's rows


@frozen
class EpisodeWatch:
    """Keeps each rollout, what it came from, and the episodes that ended in it."""

    kept: list

    def build(self, run):
        return Watching(self.kept)


class Watching:
    def __init__(self, kept):
        self.kept = kept

    @hookimpl(wrapper=True)
    def collect_rollout(self, run):
        shard, done = run.shards[0], run.collector.done
        before = SimpleNamespace(
            state=run.environment.state_dict() if hasattr(run.environment, "state_dict") else None,
            seen=None if shard.inputs is None else shard.inputs.observations.clone(),
            episode_step=shard.episode_step.copy(),
            episode_return=shard.episode_return.copy(),
            policy={name: tensor.clone() for name, tensor in run.policy.state_dict().items()},
        )
        rollout = yield
        before.compiled = run.collector.done > done
        self.reported(run, before, rollout)
        return rollout

    def reported(self, run, before, rollout):
        self.kept.append((run, before, rollout, run.finished))


def train(case, kept, lanes=4, steps=STEPS, module=None, **more):
    environment, policy = CASES[case] if isinstance(case, str) else case
    with pytest.MonkeyPatch.context() as patch:
        if module is not None:
            patch.setattr(collecting, "CompiledCollector", module.CompiledCollector)
        return framework.train(
            **{
                "environment": environment,
                "policy": policy,
                "loss": ActorCriticLoss(),
                "estimator": Gae(),
                "rollout": RolloutSettings(lanes=lanes, fixed_steps=steps),
                "optimizer": OptimizerSettings("SGD", lr=1e-2),
                "iterations": 4,
                "extensions": [EpisodeWatch(kept)],
                "compile": True,
                **more,
            }
        )


def near(one, other, room=1e-5):
    return np.allclose(np.asarray(one, np.float64), np.asarray(other, np.float64), room, room)


def is_what_python_does(run, before, rollout, finished):
    """The oracle: lane by lane, row by row."""
    environment, policy = run.environment, run.policy
    after = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    policy.load_state_dict(before.policy)
    steps, lanes = rollout.mask.shape
    pieces = -(-steps // rollout_program.ROWS)
    rows = -(-steps // pieces)
    draws = {}
    for name, width in (("environment", environment.transition_noise), ("act", policy.choice_noise)):
        generator = streams.generator(run.config.seed, name, run.iteration)
        drawn = torch.rand(pieces, rows, lanes, width, dtype=torch.float64, generator=generator)
        fewer = [max(0, rows * (piece + 1) - steps) for piece in range(pieces)]
        draws[name] = torch.cat([part[begin:] for part, begin in zip(drawn, fewer, strict=True)])
    state, seen, clock, earned = before.state, before.seen, before.episode_step.copy(), before.episode_return.copy()
    number, scores, lengths, going = -1, [], [], [None] * lanes
    with torch.no_grad():
        for t in range(steps):
            assert torch.allclose(rollout.observations[t], seen, 1e-5, 1e-5)
            chosen = policy.choose(Inputs(seen), draws["act"][t])
            assert torch.allclose(chosen.double(), rollout.actions[t].double(), 1e-4, 1e-4)
            actions = rollout.actions[t]
            said = policy.evaluate(Inputs(seen), actions, False)
            assert near(said.log_probs, rollout.log_probs[t], 1e-4)
            assert near(policy.values(Inputs(seen)), rollout.values[t], 1e-4)
            translate = getattr(policy, "environment_actions", lambda some: some)
            state, step = environment.transition(state, translate(actions), draws["environment"][t])
            over = step.terminated | step.truncated
            for name in ("rewards", "terminated", "truncated"):
                assert near(getattr(step, name), getattr(rollout, name)[t]), name
            successors = policy.values(Inputs(step.successors)).masked_fill(step.terminated, 0)
            assert near(successors, rollout.successor_values[t], 1e-4)
            for lane in range(lanes):
                if going[lane] is None:
                    number += 1
                    going[lane] = number
                assert rollout.episodes[t, lane] == going[lane]
                assert rollout.times[t, lane] == clock[lane]
                clock[lane] += 1
                earned[lane] += float(step.rewards[lane])
                if over[lane]:
                    scores.append(earned[lane])
                    lengths.append(clock[lane])
                    clock[lane], earned[lane], going[lane] = 0, 0.0, None
            seen = step.observations
    policy.load_state_dict(after)
    assert bool(rollout.mask.all())
    assert near(finished.returns, scores)
    assert finished.lengths.tolist() == lengths
    shard = run.shards[0]
    assert torch.allclose(shard.inputs.observations, seen, 1e-5, 1e-5)


@frozen
class Comparing:
    """Holds each rollout that a program collected against the oracle."""

    def build(self, run):
        return ComparingRollouts([])


class ComparingRollouts(Watching):
    def reported(self, run, before, rollout):
        if before.compiled:
            is_what_python_does(run, before, rollout, run.finished)
            assert run.environment.state_dict()["clock"].tolist() == run.shards[0].episode_step.tolist()


def compared(case, module=None, **more):
    result = train(case, [], module=module, extensions=[Comparing()], **more)
    assert result.run.collector.done == 3  # all but the first
    assert not result.run.collector.given_up


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_program_does_what_python_does_with_the_same_random_numbers(case, graphs):
    compared(case)
    assert len(graphs) == 2  # and the update's


def minibatches(module=None):
    train("cartpole", [], module=module, update=UpdateSettings(minibatches=2))


@pytest.mark.slow
def test_the_updates_of_rollouts_that_python_collected_are_the_same_program(graphs):
    """The second update of the first iteration, and all others."""
    minibatches()
    assert len(graphs) == 2


@pytest.mark.slow
def test_they_are_not_where_steps_are_laid_out_otherwise(graphs):
    minibatches(mutate("framework.compile.rollouts", ("column.contiguous()", "column")))
    assert len(graphs) == 3


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
@pytest.mark.parametrize("case", ["cartpole", "pendulum"])
def test_so_does_its_cpp(case):
    compared(case)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, rollout_program.ROWS, rollout_program.ROWS + 1])
def test_any_number_of_steps_is_collected(steps, graphs):
    compared("cartpole", steps=steps)


@pytest.mark.slow
def test_episodes_go_on_from_rollout_to_rollout(graphs):
    """Also from the first one, which is collected in Python."""
    kept = []
    train("cartpole", kept, steps=5)
    lengths = np.concatenate([finished.lengths for *_, finished in kept])
    assert len(lengths) > 0
    assert all(length <= 9 for length in lengths)
    (_, before, rollout, _), (_, following, *_) = kept[1:3]
    assert (rollout.times[0] == torch.from_numpy(before.episode_step)).all()
    assert (following.episode_step > 0).any()


@pytest.mark.slow
def test_without_a_critic_nothing_is_valued(graphs):
    kept = []
    environment = framework_classic.CartPole(max_steps=4)
    train(
        (environment, Categorical(**SMALL)),
        kept,
        loss=Reinforce(),
        estimator=TotalOfAll(),
    )
    rollout = kept[-1][2]
    assert kept[-1][1].compiled
    assert rollout.values is None
    assert rollout.log_probs.shape == rollout.mask.shape


@frozen
class TotalOfAll:
    """Rewards themselves."""

    def __call__(self, rollout):
        return framework.Estimate(rollout.rewards, rollout.rewards)


@pytest.mark.slow
def test_the_same_seed_collects_the_same(graphs):
    one, other = ([], [])
    train("cartpole", one)
    train("cartpole", other)
    for (*_, first, _), (*_, second, _) in zip(one, other, strict=True):
        assert torch.equal(first.observations, second.observations)
        assert torch.equal(first.log_probs, second.log_probs)


def test_observations_outside_their_space_are_named_as_in_python(graphs):
    @frozen
    class Narrow(framework_classic.CartPole):
        def build(self, num_envs, device):
            lanes = super().build(num_envs, device)
            space = lanes.observation_space
            lanes.observation_space = type(space)(-space.high / 40, space.high / 40)
            return lanes

    with pytest.raises(framework.PartError, match="environment 'Narrow'.*observations.*outside|Narrow.*successors"):
        train((Narrow(), ActorCritic(**SMALL)), [], steps=200)


class Parity(ActorCriticPolicy):
    """Chooses by a whole number that float32 cannot tell from its neighbours."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.register_buffer("seen", torch.tensor(2**24))

    def act(self, inputs, generator):
        return super().act(inputs, generator)

    def choose(self, inputs, noise):
        return torch.where(self.seen % 2 == 1, 1, super().choose(inputs, noise))

    def observe(self, rollout):
        self.seen += 1


@frozen
class Even(ActorCritic):
    def build(self, observation_space, action_space):
        return Parity(self, observation_space, action_space)


@pytest.mark.slow
def test_whole_numbers_of_a_policy_stay_whole(graphs):
    compared((CARTPOLE, Even(**SMALL)))


class Metered(FloatLanes):
    def step(self, actions, generator):
        return self.metered(super().step(actions, generator))

    def transition(self, state, actions, noise):
        state, step = super().transition(state, actions, noise)
        return state, self.metered(step)

    def metered(self, step):
        return evolve(step, metrics={"pay": step.rewards})


@frozen
class Meter(framework_classic.CartPole):
    def build(self, num_envs, device):
        lanes = super().build(num_envs, device)
        lanes.__class__ = Metered
        return lanes


class OtherStep(FloatLanes):
    def step(self, actions, generator):
        return evolve(super().step(actions, generator))


class OtherAct(ActorCriticPolicy):
    def act(self, inputs, generator):
        return super().act(inputs, generator)


class OwnChoice(OtherAct):
    def choose(self, inputs, noise):
        return super().choose(inputs, noise)


def test_who_writes_a_new_act_or_step_is_asked_for_it():
    """And not for what the pure function of its parent does."""
    assert offers(FloatLanes.__new__(FloatLanes), "transition", "step")
    assert not offers(OtherStep.__new__(OtherStep), "transition", "step")
    assert not offers(OtherAct.__new__(OtherAct), "choose", "act")
    assert offers(OwnChoice.__new__(OwnChoice), "choose", "act")
    exchanged = ActorCriticPolicy.__new__(ActorCriticPolicy)
    exchanged.__dict__["act"] = None
    assert not offers(exchanged, "choose", "act")


IN_PYTHON = {
    "whole episodes": {"rollout": RolloutSettings(lanes=4, episodes=4), "optimizer": OptimizerSettings("SGD", lr=0.0)},
    "many lanes": {"rollout": RolloutSettings(lanes=rollout_program.FEW + 1, fixed_steps=2)},
    "shards": {"rollout": RolloutSettings(lanes=4, fixed_steps=8, shards=2)},
    "another environment": {
        "environment": Gymnasium(id="CartPole-v1", vectorization_mode="sync"),
        "rollout": RolloutSettings(lanes=4, fixed_steps=8),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("why", IN_PYTHON)
@pytest.mark.filterwarnings("ignore:compile. the updates go on in Python:RuntimeWarning")
def test_all_else_is_collected_in_python_without_a_word(why, graphs):
    kept = []
    train("cartpole", kept, **IN_PYTHON[why])
    assert not any(before.compiled for _, before, *_ in kept)


@pytest.mark.filterwarnings("ignore:compile. the updates go on in Python:RuntimeWarning")
def test_so_is_what_remembers(graphs):
    kept = []
    train((CARTPOLE, Recurrent(**SMALL)), kept, loss=Ppo())
    assert not any(before.compiled for _, before, *_ in kept)


class Waning(ActorCriticPolicy):
    """Takes the first action more often from iteration to iteration, by a number of Python's."""

    threshold = 0.0

    def act(self, inputs, generator):
        return super().act(inputs, generator)

    def choose(self, inputs, noise):
        chosen = super().choose(inputs, noise)
        return torch.where(noise[:, 0] < self.threshold, 0, chosen)

    def observe(self, rollout):
        self.threshold += 0.3


@frozen
class Wane(ActorCritic):
    def build(self, observation_space, action_space):
        return Waning(self, observation_space, action_space)


class Heavier(FloatLanes):
    """Pays less from step to step, by a number of Python's."""

    pay = 1.0

    def step(self, actions, generator):
        return self.paid(super().step(actions, generator))

    def transition(self, state, actions, noise):
        state, step = super().transition(state, actions, noise)
        return state, self.paid(step)

    def paid(self, step):
        return evolve(step, rewards=step.rewards * self.pay)

    def load_state_dict(self, state):
        self.pay *= 0.5
        super().load_state_dict(state)


@frozen
class Heavy(framework_classic.CartPole):
    def build(self, num_envs, device):
        lanes = super().build(num_envs, device)
        lanes.__class__ = Heavier
        return lanes


class Asking(ActorCriticPolicy):
    """Looks at its numbers while it chooses."""

    def act(self, inputs, generator):
        return super().act(inputs, generator)

    def choose(self, inputs, noise):
        return super().choose(inputs, noise if float(noise.sum()) > 0 else 1 - noise)


@frozen
class Ask(ActorCritic):
    def build(self, observation_space, action_space):
        return Asking(self, observation_space, action_space)


CHANGED = {
    "policy 'Wane' .*: different actions are chosen when compiled": (CARTPOLE, Wane(**SMALL)),
    "environment 'Heavy' .*: rewards are different when compiled": (Heavy(), ActorCritic(**SMALL)),
    "environment 'Meter' .* gives more than steps": (Meter(), ActorCritic(**SMALL)),
    "value out of a tracing tensor|DataDependent|data-dependent|item": (CARTPOLE, Ask(**SMALL)),
}


def falls_back(reason, module=None):
    with pytest.warns(RuntimeWarning, match=f"compile: rollouts are collected in Python: .*{reason}") as said:
        result = train(CHANGED[reason], [], module=module, iterations=5)
    assert len(said) == 1
    assert result.run.iteration == 5


@pytest.mark.slow
@pytest.mark.parametrize("reason", CHANGED)
def test_what_a_program_does_not_see_ends_it(reason, graphs):
    falls_back(reason)


@pytest.mark.slow
def test_without_a_compiler_rollouts_are_collected_in_python(monkeypatch):
    from torch import _inductor

    def missing(graph, inputs, options):
        raise OSError("no C++ compiler\nand a long story")

    monkeypatch.setattr(_inductor, "compile", missing)
    with pytest.warns(RuntimeWarning, match="compile: .* in Python: OSError: no C\\+\\+ compiler$") as said:
        train("cartpole", [])
    assert len(said) == 2  # of updates and of rollouts


MUTANTS = {
    "keeps what is seen next": (
        lambda m: compared("cartpole", m),
        '"observations": seen, "actions"',
        '"observations": step.observations, "actions"',
    ),
    "begins at another row": (
        lambda m: compared("cartpole", m),
        "max(0, program.rows * (number + 1) - steps)",
        "0",
    ),
    "forgets to hand the state back": (
        lambda m: compared("cartpole", m),
        "environment.load_state_dict(dict(zip(state, after, strict=True)))",
        "pass",
    ),
    "draws the same for both": (
        lambda m: compared("cartpole", m),
        "dtype=torch.float64, generator=act)",
        "dtype=torch.float64, generator=world)",
    ),
    "forgets to translate actions": (
        lambda m: compared("pendulum, squashed", m),
        "environment_actions(run.policy, actions), world)\n    return",
        "actions, world)\n    return",
    ),
    "takes biases for weights": (lambda m: compared("cartpole", m), ".sum(1) + bias", ".sum(1)"),
    "turns weights round": (
        lambda m: compared("shared and normalised", m),
        "next(parts).view(tensor.shape[::-1]).t()",
        "next(parts).view(tensor.shape)",
    ),
    "never compares": (
        lambda m: falls_back("policy 'Wane' .*: different actions are chosen when compiled", m),
        "if self.done == self.due else None",
        "if False else None",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_that(name, graphs):
    law, *change = MUTANTS[name]
    law(None)
    with pytest.raises((AssertionError, framework.FrameworkError, RuntimeWarning, pytest.fail.Exception)):
        law(mutate_either("framework.compile.rollouts", "framework.compile.rollout_program", tuple(change)))
