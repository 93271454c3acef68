"""Settings of Gymnasium's environments whose numbers are known."""

from pathlib import Path

import torch
from framework_gymnasium import Gymnasium

from framework import Action, Evaluation
from framework.collecting.rollout import collect
from framework.collecting.shard import Shard

CPU = torch.device("cpu")
SUPPORT = Path(__file__).parents[1] / "support"
MODES = ("next_step", "same_step", "disabled")
WAYS = [*((mode, "sync") for mode in MODES), *((mode, "async") for mode in MODES)]


class Chooser(torch.nn.Module):
    """Draws among the first `count` actions alike; V(s) = Σ weights · observation, different for every state."""

    def __init__(self, count=3, width=3):
        super().__init__()
        self.count = count
        self.weights = torch.tensor([1000.0, 10.0, 1.0, 0.1][:width])

    def act(self, inputs, generator):
        return Action(torch.randint(self.count, (len(inputs.observations),), generator=generator))

    def evaluate(self, inputs, actions, entropies):
        return Evaluation(torch.zeros(actions.shape))

    def values(self, inputs):
        return inputs.observations.float() @ self.weights


class Sum(Chooser):
    """V(s) is the sum of the observation's numbers."""

    def values(self, inputs):
        return inputs.observations.double().reshape(len(inputs.observations), -1).sum(1).float()


def shards(part, lanes, **amount):
    amounts = {"steps": None, "episodes": None, "fixed_steps": None, **amount}
    labels = ("environment 'gymnasium' (plugin gymnasium)", "policy 'chooser' (plugin tests)")
    environment = part.build(lanes, CPU) if isinstance(part, Gymnasium) else part
    return Shard(environment, lanes, *amounts.values(), seed=5, number=0, device=CPU, labels=labels)


def gather(part, lanes, iterations=1, policy=None, **amount):
    """Rollouts with values, and the episodes that ended; the lanes are closed."""
    policy = policy or Chooser()
    shard = shards(part, lanes, **amount)
    try:
        return [collect([shard], policy, policy, i, True) for i in range(iterations)]
    finally:
        shard.environment.close()


def story(mode, vectorization="sync", lengths="3", ends="t", **settings):
    kwargs = {"lengths": lengths, "ends": ends, "reuse": True}
    return Gymnasium("gym_worlds:story", vectorization, mode, kwargs, **settings)
