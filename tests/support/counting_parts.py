"""Parts that count what is done with them."""

import numpy as np
import torch
from attrs import field, frozen
from gymnasium.spaces import Box, Discrete
from hypothesis import settings
from hypothesis import strategies as st

import framework
import framework.api
import framework.learning.batches
from framework import Action, Estimate, Evaluation, OptimizerSettings, Step, hookimpl
from framework.tabular.shard import TabularShard

DENOMINATORS = ("per_step", "per_episode", "constant")
fewer = settings(max_examples=settings().max_examples // 3)  # where an example is several runs


# Parts of our own


@frozen
class Counting:
    """Each lane shows a number that it never shows again; its episodes are 1, 2, … `longest`, 1, 2, … steps long."""

    longest: int = 4

    def build(self, num_envs, device):
        return CountingLanes(self, num_envs)


class CountingLanes:
    observation_space = Box(0.0, np.inf, (1,), np.float64)
    action_space = Discrete(2)

    def __init__(self, settings, count):
        self.episode_limit = settings.longest
        self.lane, self.time = torch.arange(count), torch.zeros(count, dtype=torch.int64)
        self.shown, self.long = torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.int64)

    def observe(self):
        return (self.lane * 10_000 + self.shown).double()[:, None]

    def reset(self, generator):
        self.time = torch.zeros_like(self.time)
        return self.observe()

    def step(self, actions, generator):
        self.shown, self.time = self.shown + 1, self.time + 1
        over = self.time >= self.long
        self.time = torch.where(over, 0, self.time)
        self.long = torch.where(over, self.long % self.episode_limit + 1, self.long)
        rewards = (2.0 * actions - 1 + self.lane).double()
        return Step(self.observe(), self.observe(), rewards, over, torch.zeros_like(over))


@frozen
class Coin:
    """A policy that sees nothing: one logit an action, in float64, so that gradients are easily had by hand."""

    logits: tuple[float, ...] = (0.3, -0.2)

    def build(self, observation_space, action_space):
        return CoinPolicy(self)


class CoinPolicy(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(settings.logits, dtype=torch.float64))

    def act(self, inputs, generator):
        probabilities = self.logits.detach().softmax(0).expand(len(inputs.observations), -1)
        return Action(torch.multinomial(probabilities, 1, generator=generator).squeeze(1))

    def evaluate(self, inputs, actions, entropies):
        table = self.logits.log_softmax(0)
        entropy = -(table.exp() * table).sum().expand(len(actions))
        return Evaluation(table[actions], entropy if entropies else None)


@frozen
class Shown:
    """An estimator without episodes: a step's return is the number that was observed, its target that and a half."""

    padding: float = 0.0  # what stands where no step was

    def __call__(self, rollout):
        returns = torch.where(rollout.mask, rollout.observations[..., 0], self.padding)
        return Estimate(returns, returns + 0.5)


@frozen
class Rewards:
    """An estimator without episodes: a step's return is its reward."""

    def __call__(self, rollout):
        return Estimate(rollout.rewards, rollout.rewards)


@frozen(eq=False)
class Spy:
    """Keeps what passes by, in order: (stage, result); after an update, also the gradients and the new weights."""

    events: list = field(factory=list)
    few_lanes: int = 64  # of tables: up to this many lanes are sampled one after the other

    def build(self, run):
        for shard in run.shards:
            if isinstance(shard, TabularShard):
                shard.few_lanes = self.few_lanes
        return Watching(self)

    def of(self, name):
        return [result for event, result in self.events if event == name]


class Watching:
    def __init__(self, settings):
        self.events = settings.events

    @hookimpl(wrapper=True)
    def collect_rollout(self, run):
        rollout = yield
        self.events.append(("rollout", rollout))
        self.events.append(("finished", run.finished))
        return rollout

    @hookimpl(wrapper=True)
    def estimate_advantages(self, rollout):
        advantages = yield
        self.events.append(("advantages", advantages))
        return advantages

    @hookimpl(wrapper=True)
    def prepare_batch(self):
        batch = yield
        self.events.append(("batch", batch))
        return batch

    @hookimpl(wrapper=True)
    def apply_gradients(self, run):
        done = yield
        self.events.append(("gradient", [parameter.grad.clone() for parameter in run.policy.parameters()]))
        self.events.append(("weights", [parameter.detach().clone() for parameter in run.policy.parameters()]))
        return done

    @hookimpl
    def iteration_finished(self, metrics):
        self.events.append(("metrics", dict(metrics)))


def watched(**arguments):
    """A run of our own parts, and what a spy saw."""
    spy = Spy(few_lanes=arguments.pop("few_lanes", 64))
    chosen = {"environment": Counting(), "policy": Coin(), "estimator": Rewards(), "iterations": 1, **arguments}
    extensions = (*chosen.pop("extensions", ()), spy)
    return framework.train(**chosen, extensions=extensions), spy


def weights_of(result):
    return [parameter.detach() for parameter in result.policy.parameters()]


SGD = OptimizerSettings("SGD", lr=1.0)
WAYS_TO_COLLECT = st.one_of(
    st.builds(lambda n: {"steps": n}, st.integers(1, 30)),
    st.builds(lambda n: {"episodes": n}, st.integers(4, 12)),
    st.builds(lambda n: {"fixed_steps": n}, st.integers(1, 9)),
)
