"""Simple policies that satisfy every law; mutants are made from them."""

import math

import torch
from attrs import frozen
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import nn

from framework import Action, Evaluation, UsageError

# Correct policies


class Features(nn.Module):
    """Observations as numbers: one-hot or flat, and small."""

    def __init__(self, space):
        super().__init__()
        self.space = space
        self.width = int(space.n) if isinstance(space, Discrete) else min(64, math.prod(space.shape))  # of an image

    def forward(self, observations):
        if isinstance(self.space, Discrete):
            return nn.functional.one_hot(observations - int(self.space.start), self.width).float()
        return observations.reshape(len(observations), -1)[:, : self.width].float()


class Softmax(nn.Module):
    """A linear softmax policy over Discrete or, independently, MultiDiscrete actions; and a critic."""

    kinds = (Discrete,)

    def __init__(self, observations, actions):
        super().__init__()
        if not isinstance(actions, self.kinds):
            raise UsageError(f"takes other actions than {actions}")
        self.features, self.space = Features(observations), actions
        self.count = int(actions.n) if isinstance(actions, Discrete) else 0
        self.first = int(actions.start) if isinstance(actions, Discrete) else torch.as_tensor(actions.start)
        self.layer = nn.Linear(self.features.width, self.count or int(sum(actions.nvec)))
        self.critic = nn.Linear(self.features.width, 1)

    def logits(self, inputs):
        logits = self.layer(self.features(inputs.observations))
        return logits if inputs.action_masks is None else logits.masked_fill(~inputs.action_masks, -torch.inf)

    def table(self, inputs):
        return self.logits(inputs).log_softmax(-1)

    def act(self, inputs, generator):
        with torch.no_grad():
            table = self.table(inputs)
            drawn = torch.multinomial(table.exp(), 1, generator=generator)
            return Action(drawn.squeeze(1) + self.first, table.gather(1, drawn).squeeze(1))

    def entropy(self, table):
        return -(table.exp() * table.clamp(min=-1000)).sum(-1)

    def evaluate(self, inputs, actions, entropies):
        table = self.table(inputs)
        chosen = table.gather(1, (actions - self.first).unsqueeze(1)).squeeze(1)
        return Evaluation(chosen, self.entropy(table) if entropies else None, self.values(inputs))

    def values(self, inputs):
        return self.critic(self.features(inputs.observations)).squeeze(-1)

    def greedy(self):
        return Greedy(self)


class PureSoftmax(Softmax):
    """The same with a pure `choose`, by the cumulative sum."""

    @property
    def choice_noise(self):
        return 1

    def choose(self, inputs, noise):
        edges = self.table(inputs).double().exp().cumsum(-1)
        return (edges[:, :-1] <= noise * edges[:, -1:]).sum(-1) + self.first


class Greedy:
    def __init__(self, policy):
        self.policy = policy

    def act(self, inputs, generator):
        with torch.no_grad():
            return Action(self.policy.logits(inputs).argmax(-1) + self.policy.first)


class SeveralSoftmax(Softmax):
    kinds = (MultiDiscrete,)
    greedy = None

    def tables(self, inputs):
        return [part.log_softmax(-1) for part in self.logits(inputs).split([int(n) for n in self.space.nvec], -1)]

    def act(self, inputs, generator):
        with torch.no_grad():
            parts = [torch.multinomial(table.exp(), 1, generator=generator) for table in self.tables(inputs)]
            return Action(torch.cat(parts, 1) + self.first)

    def evaluate(self, inputs, actions, entropies):
        tables = self.tables(inputs)
        numbers = (actions - self.first).unsqueeze(-1).unbind(1)
        chosen = torch.cat([table.gather(1, number) for table, number in zip(tables, numbers, strict=True)], 1)
        uncertain = self.uncertain(tables, chosen) if entropies else None
        return Evaluation(chosen.sum(-1), uncertain, self.values(inputs))

    def uncertain(self, tables, chosen):
        return sum(self.entropy(table) for table in tables)


class Normal(nn.Module):
    """A linear normal policy; `squash`ed into the bounds by tanh, or clipped."""

    squash = False

    def __init__(self, observations, actions):
        super().__init__()
        if not isinstance(actions, Box) or (self.squash and not actions.is_bounded()):
            raise UsageError(f"takes other actions than {actions}")
        self.features, self.shape = Features(observations), actions.shape
        self.low, self.high = torch.as_tensor(actions.low), torch.as_tensor(actions.high)
        self.layer = nn.Linear(self.features.width, math.prod(self.shape))
        with torch.no_grad():  # small, for observations up to 255
            self.layer.weight.div_(300)
        self.log_std = nn.Parameter(torch.full((math.prod(self.shape),), -0.5))

    def normal(self, inputs):
        return torch.distributions.Normal(
            torch.tanh(self.layer(self.features(inputs.observations))), self.log_std.exp()
        )

    def act(self, inputs, generator):
        with torch.no_grad():
            normal = self.normal(inputs)
            noise = torch.randn(normal.loc.shape, generator=generator)
            return Action((normal.loc + normal.scale * noise).reshape(-1, *self.shape))

    def evaluate(self, inputs, actions, entropies):
        normal, actions = self.normal(inputs), actions.reshape(len(actions), -1)
        return Evaluation(self.density(normal, actions), self.entropy(normal) if entropies else None)

    def density(self, normal, actions):
        return (normal.log_prob(actions) - self.correction(actions)).sum(-1)

    def correction(self, actions):
        if not self.squash:
            return torch.zeros(())
        half = ((self.high - self.low) / 2).flatten()
        return torch.log(half * (1 - torch.tanh(actions).square()) + 1e-12)

    def entropy(self, normal):
        if not self.squash:
            return normal.entropy().sum(-1)
        points = torch.linspace(-5, 5, 101)  # of a standard normal
        weights = torch.exp(-points.square() / 2)
        places = normal.loc.unsqueeze(-1) + normal.scale.unsqueeze(-1) * points
        gradients = self.correction(places.transpose(1, 2)).transpose(1, 2)
        return (normal.entropy() + gradients @ (weights / weights.sum())).sum(-1)

    def environment_actions(self, actions):
        if self.squash:
            return (self.low + (self.high - self.low) * (torch.tanh(actions) + 1) / 2).clamp(self.low, self.high)
        return actions.clamp(self.low, self.high)


class PureNormal(Normal):
    """The same with a pure `choose`, by the Box–Muller transform."""

    @property
    def choice_noise(self):
        return 2 * math.prod(self.shape)

    def choose(self, inputs, noise):
        first, angle = (2 * torch.log1p(-noise[:, ::2])).neg().sqrt(), 2 * math.pi * noise[:, 1::2]
        return self.chosen(inputs, first * torch.cos(angle))

    def chosen(self, inputs, noise):
        normal = self.normal(inputs)
        return (normal.loc + normal.scale * noise.float()).reshape(-1, *self.shape).detach()


class Squashed(Normal):
    squash = True


class RecurrentSoftmax(Softmax):
    """A softmax over a leaky sum of observations."""

    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        self.into = nn.Linear(2 * self.features.width, self.features.width)

    def step(self, observations, state, started):
        features = self.features(observations).clamp(-1, 1)
        state = torch.zeros_like(features) if state is None else state
        if started is not None:
            state = self.forget(state, started)
        return torch.tanh(self.into(torch.cat([features, state], -1)))

    def forget(self, state, started):
        return state.masked_fill(started.unsqueeze(-1), 0)

    def act(self, inputs, generator):
        with torch.no_grad():
            state = self.step(inputs.observations, inputs.state, inputs.started)
            logits = self.layer(state)
            if inputs.action_masks is not None:
                logits = logits.masked_fill(~inputs.action_masks, -torch.inf)
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
            return Action(drawn + self.first, state=state)

    def states(self, inputs):
        state, states = inputs.state, []
        for t in range(len(inputs.observations)):
            state = self.step(inputs.observations[t], state, self.starts(inputs, t))
            states.append(state)
        return torch.stack(states)

    def starts(self, inputs, t):
        return inputs.started[t]

    def evaluate(self, inputs, actions, entropies):
        states = self.states(inputs)
        logits = self.layer(states)
        if inputs.action_masks is not None:
            logits = logits.masked_fill(~inputs.action_masks, -torch.inf)
        table = logits.log_softmax(-1)
        chosen = table.gather(-1, (actions - self.first).unsqueeze(-1)).squeeze(-1)
        return Evaluation(chosen, self.entropy(table) if entropies else None, self.critic(states).squeeze(-1))

    def values(self, inputs):
        return self.critic(self.states(inputs)).squeeze(-1)

    greedy = None


@frozen
class PolicySettings:
    """Settings that build a policy of a class."""

    cls: type

    @property
    def gives(self):
        return frozenset({"values"} if hasattr(self.cls, "values") else ())

    def build(self, observations, actions):
        return self.cls(observations, actions)
