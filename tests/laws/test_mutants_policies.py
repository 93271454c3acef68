"""Bugs that were found in policies elsewhere break the law that they should."""

import copy
import math

import pytest
import torch
from correct_policies import (
    Greedy,
    Normal,
    PolicySettings,
    PureNormal,
    PureSoftmax,
    RecurrentSoftmax,
    SeveralSoftmax,
    Softmax,
    Squashed,
)
from gymnasium.spaces import Discrete
from mutants import EXAMPLES, is_killed
from policy_cases import LAWS, LOADED
from torch import nn

from framework import Action, Evaluation
from framework.parts import Part
from framework.testing.checking import check
from framework.testing.law import Subject


@pytest.mark.slow
@pytest.mark.parametrize("cls", [PureSoftmax, SeveralSoftmax, PureNormal, Squashed, RecurrentSoftmax])
def test_the_policies_for_mutants_are_correct(cls):
    report = check(PolicySettings(cls), "policy", examples=EXAMPLES, loaded=LOADED)
    assert [(verdict.law.name, verdict.reason, verdict.case) for verdict in report.failed] == []


# Mutants: policies with bugs that were found elsewhere

MUTANTS = {}


def mutant(law, source):
    """Register a bug: the law that kills it, and where it was found."""

    def enter(cls):
        MUTANTS[cls.__doc__.rstrip(".")] = (law, source, cls)
        return cls

    return enter


@mutant(
    "rows_of_policies_are_independent",
    "DeepReinforcementLearning/DeepReinforcementLearningInAction issue 32: Softmax(dim=0) on a batch",
)
class SoftmaxOverTheBatch(Softmax):
    """a softmax over the batch."""

    def table(self, inputs):
        return self.logits(inputs).log_softmax(0)


@mutant(
    "policies_support_spaces_or_say_why_not",
    "DLR-RM/stable-baselines3 issue 2052: using the start value of Discrete spaces has no effect",
)
class ActionsFromZero(Softmax):
    """actions that are numbered from 0 whatever the space."""

    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        self.first = 0


@mutant(
    "policies_accept_every_observation",
    "DLR-RM/stable-baselines3 issue 1797: one_hot of a Discrete(19, 2) observation fails",
)
class ObservationsFromZero(Softmax):
    """observations that are numbered from 0 whatever the space."""

    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        if isinstance(observations, Discrete):
            self.features.space = Discrete(int(observations.n))


@mutant(
    "policies_accept_every_observation",
    "the notebook that this framework began with: an embedding without the last state",
)
class AnEmbeddingTooShort(Softmax):
    """an embedding one row short."""

    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        if isinstance(observations, Discrete):
            self.features.rows = nn.Embedding(int(observations.n) - 1, self.features.width)
            self.features.forward = lambda seen: self.features.rows(seen - int(observations.start))


@mutant(
    "policies_accept_every_observation",
    "thu-ml/tianshou issue 40: missing sum over log_prob, [B, A] instead of [B]",
)
class LogProbsUnsummed(Normal):
    """log-probs of each number."""

    def density(self, normal, actions):
        return normal.log_prob(actions)


@mutant(
    "policies_accept_every_observation",
    "PacktPublishing/Tensorflow-2-Reinforcement-Learning-Cookbook PR 46: the sum runs over the batch, too",
)
class LogProbsSummedOverTheBatch(Normal):
    """log-probs summed over the batch."""

    def density(self, normal, actions):
        return normal.log_prob(actions).sum()


@mutant("probabilities_sum_to_one", "no source found; one word from the right one")
class LogProbsAveraged(Normal):
    """log-probs averaged over the numbers of an action."""

    def density(self, normal, actions):
        return normal.log_prob(actions).mean(-1)


@mutant(
    "act_samples_the_evaluated_probabilities",
    "hill-a/stable-baselines issue 1058: the deviation is taken for its logarithm and exponentiated once more",
)
class DeviationsExponentiatedTwice(Normal):
    """standard deviations exponentiated twice."""

    def density(self, normal, actions):
        return torch.distributions.Normal(normal.loc, normal.scale.exp()).log_prob(actions).sum(-1)


@mutant(
    "act_samples_the_evaluated_probabilities",
    "hill-a/stable-baselines issue 1059: std mistaken for the variance, logstd for its logarithm",
)
class DeviationsAsVariances(Normal):
    """standard deviations used as variances."""

    def density(self, normal, actions):
        return torch.distributions.Normal(normal.loc, normal.scale.sqrt()).log_prob(actions).sum(-1)


@mutant("choose_samples_as_act_does", "no source found; a start of the space that is forgotten")
class ChoosesFromZero(PureSoftmax):
    """choices that are numbered from 0 whatever the space."""

    def choose(self, inputs, noise):
        return super().choose(inputs, noise) - self.first


@mutant("choose_samples_as_act_does", "no source found; one edge of the cumulative sum too many")
class ChoosesBeyond(PureSoftmax):
    """choices by other probabilities."""

    def choose(self, inputs, noise):
        return super().choose(inputs, noise.square())


@mutant("choose_samples_as_act_does", "no source found; the logarithm of a number that may be 0")
class ChoosesNothing(PureNormal):
    """a choice that is NaN at the edge."""

    def choose(self, inputs, noise):
        first, angle = (2 * torch.log(noise[:, ::2])).neg().sqrt(), 2 * math.pi * noise[:, 1::2]
        return self.chosen(inputs, first * torch.cos(angle))


@mutant("choose_samples_as_act_does", "no source found; a habit of actors")
class ChoosesByItself(PureSoftmax):
    """choices drawn from torch's own generator."""

    def choose(self, inputs, noise):
        return super().choose(inputs, torch.rand_like(noise))


@mutant("act_samples_the_evaluated_probabilities", "no source found; ε-greedy habits of value-based methods")
class ExplorationNobodyKnowsOf(Softmax):
    """5 % uniform actions in act."""

    share = 0.05

    def act(self, inputs, generator):
        action = super().act(inputs, generator)
        count = len(action.actions)
        anything = self.first + torch.randint(self.count, (count,), generator=generator)
        return Action(torch.where(torch.rand(count, generator=generator) < self.share, anything, action.actions))


@mutant(
    "entropies_are_those_of_the_probabilities",
    "ray-project/ray issue 6393: ½·log σ instead of log σ in the entropy of a diagonal normal distribution",
)
class HalfTheLogDeviation(Normal):
    """half the log standard deviation in the entropy."""

    def entropy(self, normal):
        return (0.5 * normal.scale.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).expand(len(normal.loc))


@mutant(
    "probabilities_sum_to_one",
    "openai/spinningup issue 314: the density ignores act_limit, by which the squashed action is multiplied",
)
class SquashingWithoutItsScale(Squashed):
    """squashing without the scale of the bounds."""

    def correction(self, actions):
        return torch.log(1 - torch.tanh(actions).square() + 1e-12)


@mutant(
    "probabilities_sum_to_one",
    "boyu-ai/Hands-on-RL issue 121: 1 − tanh² of the action that tanh was applied to already",
)
class SquashedTwice(Squashed):
    """the tanh of a tanh in the correction."""

    def correction(self, actions):
        return super().correction(torch.tanh(actions))


@mutant(
    "probabilities_sum_to_one",
    "haarnoja/sac issue 18: it should be added, not subtracted, says its author, and withdraws that",
)
class TheCorrectionAdded(Squashed):
    """the correction of squashing added."""

    def density(self, normal, actions):
        return (normal.log_prob(actions) + self.correction(actions)).sum(-1)


@mutant(
    "entropies_are_those_of_the_probabilities",
    "Denys88/rl_games issue 153: the entropy of a squashed normal is assumed to be that of the normal",
)
class TheEntropyOfWhatIsNotSquashed(Squashed):
    """the entropy of the distribution before squashing."""

    def entropy(self, normal):
        return normal.entropy().sum(-1)


@mutant(
    "act_and_evaluate_agree",
    "thu-ml/tianshou issue 312 and ray-project/ray issue 8889: clipped actions are stored, with unclipped log-probs",
)
class ClippedActionsStored(Normal):
    """clipped actions with the log-probs of unclipped ones."""

    def act(self, inputs, generator):
        action = super().act(inputs, generator)
        with torch.no_grad():
            log_probs = self.evaluate(inputs, action.actions, False).log_probs
        return Action(action.actions.clamp(self.low, self.high), log_probs)


@mutant(
    "every_parameter_of_a_policy_gets_a_gradient",
    "openai/baselines issue 262: logstd was not included in var_list, and never trained",
)
class DeviationsNeverTrained(Normal):
    """standard deviations that are never trained."""

    def normal(self, inputs):
        normal = super().normal(inputs)
        return torch.distributions.Normal(normal.loc, normal.scale.detach())


@mutant(
    "the_score_has_mean_zero",
    "alexhernandezgarcia/gflownet PR 251: a clone of the outputs was detached in get_logprobs; here in the normaliser",
)
class NormalisedByADetachedSum(Softmax):
    """a normaliser that is detached."""

    def table(self, inputs):
        logits = self.logits(inputs)
        return logits - logits.logsumexp(-1, keepdim=True).detach()


@mutant(
    "every_parameter_of_a_policy_gets_a_gradient",
    "kengz/SLM-Lab PR 133: torch.tensor makes a new tensor, detached from the graph; no update was done",
)
class JudgedWithoutAGraph(Softmax):
    """an evaluation without a graph."""

    def evaluate(self, inputs, actions, entropies):
        with torch.no_grad():
            return super().evaluate(inputs, actions, entropies)


@mutant(
    "entropies_are_those_of_the_probabilities",
    "Unity-Technologies/ml-agents PR 3607: the entropy of several choices used the sampled action, and was constant",
)
class EntropiesOfTheChosen(SeveralSoftmax):
    """entropies made from the sampled actions."""

    def uncertain(self, tables, chosen):
        return -(chosen.exp() * chosen).sum(-1)


@mutant(
    "masked_actions_are_never_taken",
    "ray-project/ray issue 24055: a logit of 0 is no probability of 0; masked actions are sampled",
)
class MasksThatMultiply(Softmax):
    """masks that are multiplied by logits."""

    def logits(self, inputs):
        logits = self.layer(self.features(inputs.observations))
        return logits if inputs.action_masks is None else logits * inputs.action_masks


@mutant(
    "masked_actions_are_never_taken",
    "hill-a/stable-baselines PR 453: actions are taken with masks, and no masking is used in training",
)
class MasksForActingOnly(Softmax):
    """masks that evaluate ignores."""

    def evaluate(self, inputs, actions, entropies):
        return super().evaluate(type(inputs)(inputs.observations), actions, entropies)


@mutant(
    "masked_actions_are_never_taken",
    "pytorch/pytorch issue 40553: the entropy of logits with −inf is NaN",
)
class EntropiesOfNothing(Softmax):
    """0·log 0 in the entropy."""

    def entropy(self, table):
        return -(table.exp() * table).sum(-1)


@mutant(
    "masked_actions_are_never_taken",
    "pytorch/rl issue 4112: the mode of a masked categorical can be an action that the mask excludes",
)
class GreedyPastTheMask(Softmax):
    """a greedy action that is masked."""

    def greedy(self):
        policy = self

        class Blind(Greedy):
            def act(self, inputs, generator):
                return super().act(type(inputs)(inputs.observations), generator)

        return Blind(policy)


@mutant(
    "greedy_takes_the_most_probable_action",
    "ikostrikov/pytorch-a2c-ppo-acktr-gail issue 74: `deterministic` is never applied, test actions are sampled",
)
class GreedyThatSamples(Softmax):
    """a greedy that samples."""

    def greedy(self):
        return self


@mutant(
    "all_randomness_of_policies_is_the_generators",
    "bytedance/GRN issue 27: the sampler ignores its seed and uses the global generator",
)
class TheGlobalGenerator(Softmax):
    """the global generator."""

    def act(self, inputs, generator):
        return super().act(inputs, None)


@mutant(
    "all_randomness_of_policies_is_the_generators",
    "huggingface/trl issue 4 and DLR-RM/stable-baselines3 PR 537: dropout is on when log-probs are computed again",
)
class DropoutWhileJudging(Softmax):
    """dropout in evaluate."""

    def evaluate(self, inputs, actions, entropies):
        said = super().evaluate(inputs, actions, entropies)
        return Evaluation(nn.functional.dropout(said.log_probs, 0.5, self.training), said.entropies, said.values)


class Normalising(Softmax):
    """Centres observations by those that it has observed."""

    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        self.register_buffer("mean", torch.zeros(self.features.width))

    def logits(self, inputs):
        logits = self.layer(self.features(inputs.observations) - self.mean)
        return logits if inputs.action_masks is None else logits.masked_fill(~inputs.action_masks, -torch.inf)

    def observe(self, rollout):
        self.mean.copy_(self.features(rollout.observations[rollout.mask]).mean(0))


def test_a_normalising_policy_is_correct():
    assert not check(PolicySettings(Normalising), "policy", examples=EXAMPLES, loaded=LOADED).failed


@mutant(
    "act_and_evaluate_change_nothing",
    "leggedrobotics/rsl_rl PR 225: normalisers move after every step, so that the first ratio is not 1",
)
class StatisticsThatMoveInAct(Normalising):
    """statistics that are updated while acting."""

    def act(self, inputs, generator):
        action = super().act(inputs, generator)
        self.mean.lerp_(self.features(inputs.observations).mean(0), 0.1)
        return action


@mutant(
    "a_state_dict_is_the_whole_policy",
    "chainer/chainerrl issue 376: the PPO agent does not save its obs_normalizer",
)
class StatisticsThatAreNotSaved(Normalising):
    """statistics that are not saved."""

    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        del self.mean
        self.mean = torch.zeros(self.features.width)


@mutant("observe_ignores_padding", "no source found; the mask is there to be forgotten")
class StatisticsOfPadding(Normalising):
    """statistics of padding."""

    def observe(self, rollout):
        self.mean.copy_(self.features(rollout.observations.flatten(0, 1)).mean(0))


class Table:
    """Samples from a table."""

    def __init__(self, policy):
        with torch.no_grad():
            space = policy.features.space
            states = torch.arange(int(space.start), int(space.start) + int(space.n))
            self.first, self.first_state = policy.first, int(space.start)
            self.log_probs = policy.layer(policy.features(states)).log_softmax(-1)

    def act(self, inputs, generator):
        rows = self.log_probs[inputs.observations - self.first_state]
        if inputs.action_masks is not None:
            rows = rows.masked_fill(~inputs.action_masks, -torch.inf)
        return Action(torch.multinomial(rows.exp(), 1, generator=generator).squeeze(1) + self.first)


class Acting(Softmax):
    """Has a table as actor, for finite spaces."""

    def actor(self):
        return Table(self) if isinstance(self.features.space, Discrete) else None


def test_a_policy_with_an_actor_is_correct():
    assert not check(PolicySettings(Acting), "policy", examples=EXAMPLES, loaded=LOADED).failed


@mutant(
    "actors_do_what_the_policy_does",
    "ray-project/ray issue 58697: learnt weights do not reach the EnvRunner, which acts by the first ones",
)
class AnActorOfTheFirstWeights(Acting):
    """an actor with the initial weights."""

    def __init__(self, observations, actions):
        super().__init__(observations, actions)
        self.kept = Table(self) if isinstance(observations, Discrete) else None

    def actor(self):
        return self.kept


@mutant("actors_do_what_the_policy_does", "no source found; the actor's own exploration")
class AnActorThatExplores(Softmax):
    """4 % uniform actions in the actor."""

    def actor(self):
        explorer = copy.deepcopy(self)
        explorer.__class__ = type("Explorer", (ExplorationNobodyKnowsOf,), {"share": 0.04})
        return explorer


@mutant("actors_do_what_the_policy_does", "no source found; an actor of several shards that is the policy itself")
class AnActorThatLearns(Acting):
    """an actor that changes when the policy is updated."""

    def actor(self):
        return type("Alias", (), {"act": staticmethod(self.act)})()


@mutant(
    "memory_is_cleared_at_the_start_of_an_episode",
    "ikostrikov/pytorch-a2c-ppo-acktr-gail issue 206: a recurrent policy of one's own does not reset its state",
)
class MemoryThatIsNeverForgotten(RecurrentSoftmax):
    """a memory that outlives its episode."""

    def forget(self, state, started):
        return state


@mutant(
    "sequences_are_evaluated_as_single_steps",
    "instadeepai/Mava issue 1006 and luchris429/purejaxrl issue 23: reset by the flag of another step",
)
class MemoryForgottenAStepLate(RecurrentSoftmax):
    """a memory that is forgotten one step late."""

    def starts(self, inputs, t):
        return inputs.started[t - 1] if t else torch.zeros_like(inputs.started[0])


@mutant(
    "sequences_are_evaluated_as_single_steps",
    "vwxyzjn/cleanrl PR 83: the unit is given (batch, sequence) where it takes (sequence, batch)",
)
class LanesTakenForSteps(RecurrentSoftmax):
    """lanes and steps exchanged."""

    def states(self, inputs):
        rows = inputs.observations
        turned = (
            rows.reshape(-1, *rows.shape[2:]).reshape(rows.shape[1], rows.shape[0], *rows.shape[2:]).transpose(0, 1)
        )
        return super().states(type(inputs)(turned, inputs.action_masks, inputs.state, inputs.started))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_law_kills_the_mutant_with(name):
    law, _, cls = MUTANTS[name]
    subject = Subject(Part("policy", name, "tests", PolicySettings(cls)), LOADED)
    assert LAWS[law].applies(subject) is None
    cases = () if LAWS[law].cases is None else (LAWS[law].cases(subject),)
    is_killed(LAWS[law].check, *cases, arguments=(subject,))
