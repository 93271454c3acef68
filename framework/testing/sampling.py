"""Laws of sampling: `act`, actors and `greedy` agree with the probabilities that `evaluate` reports.

Samples are tested with bounds that a correct policy exceeds in one case of 10⁹.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from ..contracts import Action, Inputs
from .action_distributions import DENSITY_TOLERANCE, ActionDistribution, action_distribution
from .law import Broken, Subject, law
from .policy_harness import BuiltPolicy, PolicyCase, build_policy, evaluation_columns, precision, require_same
from .policy_spaces import SUPPORTED, has_member, policy_cases, requires_pairs, supported_where
from .probabilities import ENUMERABLE, HAS_ENUMERABLE, distributions
from .spaces import WIDE, choices, edges

SAMPLES = 8192  # actions per call
REPEATS = 16  # calls, where actions are counted
ALARM = 1e-9  # probability of rejecting a correct sampler
CDF_TOLERANCE = math.sqrt(math.log(2 / ALARM) / (2 * SAMPLES))  # 0.036: Dvoretzky–Kiefer–Wolfowitz
STRONG_PERTURBATION = 3.0  # times the usual weights: a nearly uniform policy would hide exploration

RETURNS_LOG_PROBS = supported_where("log_probs", lambda built: built.act(built.case.observations).log_probs is not None)


@law(
    "policy",
    cases=policy_cases(pairs=RETURNS_LOG_PROBS),
    applies=requires_pairs(RETURNS_LOG_PROBS, "its act leaves log-probs to evaluate"),
)
def act_and_evaluate_agree(subject: Subject, case: PolicyCase) -> None:
    """Log-probs returned by `act` equal those of `evaluate` for the same actions, so that ratios start at 1."""
    built = build_policy(subject, case)
    action = built.act(case.observations, case.weight_seed)
    if action.log_probs is None:  # allowed: they are optional for each call
        return
    evaluation = built.evaluate(case.observations, action.actions, entropies=False)
    require_same(
        "log-prob from act, compared with evaluate's", evaluation.log_probs, action.log_probs, case, precision(case)
    )


def perturbation_for(case: PolicyCase) -> float:
    """How much weights are perturbed for tests of samples: more where actions are counted."""
    return 1.0 if choices(case.action_space) is None else STRONG_PERTURBATION


def require_samples_match(built: BuiltPolicy, distribution: ActionDistribution, actor: Any, what: str) -> None:
    """Raise `Broken` if samples for one observation do not follow the distribution."""
    case = built.case
    observations = case.observations[:1].expand(SAMPLES, *case.observations.shape[1:]).contiguous()
    repeats = REPEATS if distribution.positions is None and observations[0].numel() <= WIDE else 1
    draws = (
        built.act(observations, case.weight_seed + 2**17 * repeat, actor=actor).actions for repeat in range(repeats)
    )
    if distribution.positions is None:
        require_frequencies(case, distribution, draws, what)
    else:
        require_cdf(case, distribution, next(draws), what)


def require_frequencies(case: PolicyCase, distribution: ActionDistribution, draws: Iterable[Tensor], what: str) -> None:
    """Count each action, and test its frequency with Chernoff's bound: P(n·kl(share, p) ≥ c) ≤ e⁻ᶜ on either side."""
    counts, all_actions = (
        torch.zeros(len(distribution.actions), dtype=torch.float64),
        distribution.actions.reshape(1, len(distribution.actions), -1),
    )
    total = 0
    for actions in draws:
        total += len(actions)
        counts += (actions.reshape(len(actions), 1, -1) == all_actions).all(-1).sum(0)
    shares, tolerance = counts / total, precision(case)
    expected = shares.clamp(
        distribution.probabilities - tolerance, distribution.probabilities + tolerance
    )  # the closest that rounding allows
    surprise = total * (_relative_entropy(shares, expected) + _relative_entropy(1 - shares, 1 - expected))
    if not float(surprise.max()) <= math.log(2 * len(shares) / ALARM):
        worst = int(surprise.argmax())
        raise Broken(
            f"{what} ({case.spaces()}): of {total} samples, the share of action {distribution.actions[worst].tolist()}",
            expected=float(distribution.probabilities[worst]),
            got=float(shares[worst]),
            case=case.rows(),
        )


def _relative_entropy(share: Tensor, expected: Tensor) -> Tensor:
    """f·log(f/p), 0 for f = 0."""
    return torch.where(share > 0, share * (share / expected).log(), 0.0)


def require_cdf(case: PolicyCase, distribution: ActionDistribution, samples: Tensor, what: str) -> None:
    """Compare the empirical CDF of the samples' first number `[SAMPLES, *A]` with that of the density."""
    assert distribution.positions is not None
    positions, order = torch.unique(distribution.positions, return_inverse=True)
    shares = torch.zeros(len(positions), dtype=torch.float64).index_add(0, order, distribution.probabilities)
    expected = shares.cumsum(0) - shares / 2
    numbers = samples.reshape(len(samples), -1)[:, 0].double().sort().values
    empirical = torch.searchsorted(numbers, positions).double() / len(samples)
    difference = (empirical - expected).abs()
    if not float(difference.max()) <= CDF_TOLERANCE + DENSITY_TOLERANCE:
        worst = int(difference.argmax())
        raise Broken(
            f"{what} ({case.spaces()}): of {len(samples)} samples, the share up to {positions[worst].tolist()}",
            expected=float(expected[worst]),
            got=float(empirical[worst]),
            case=case.rows(),
        )


@law(
    "policy",
    source="Hoeffding 1963, doi:10.1080/01621459.1963.10500830, theorem 1; Massart 1990, doi:10.1214/aop/1176990746",
    cases=policy_cases(most=1, pairs=ENUMERABLE),
    applies=HAS_ENUMERABLE,
    examples=20,
)
def act_samples_the_evaluated_probabilities(subject: Subject, case: PolicyCase) -> None:
    """Of 131,072 actions sampled in one observation, the frequency of each action is its probability, within Chernoff's
    bound (0.009 for p = 0.5, 0.002 for p = 0.01): this detects 2 % exploration that `evaluate` does not include. For
    densities, and for observations of more than 64 numbers, 8192 actions are sampled: the empirical CDF of the first
    number is within 0.066, by the Dvoretzky–Kiefer–Wolfowitz inequality and the error of the grid, and the frequency of
    each action within 0.04. A correct sampler fails in one case of 10⁹.
    """
    for built, distribution in distributions(subject, case, perturbation_for(case)):
        if not distribution.unresolved:
            require_samples_match(built, distribution, built.policy, "act")


@law(
    "policy",
    source="docs/reference/contracts.md#policy",
    cases=policy_cases(most=2),
    applies=has_member("actor", "it has no actor"),
    examples=20,
)
def actors_do_what_the_policy_does(subject: Subject, case: PolicyCase) -> None:
    """The table of a tabular actor holds the log-probs that `evaluate` reports for each state and action. Any other
    actor is sampled, and must be as close to the probabilities as `act` must be. An actor is a snapshot: later updates
    of the policy do not change it.
    """
    for built, distribution in distributions(subject, case, perturbation_for(case))[:1]:
        actor = built.policy.actor()
        if actor is None:
            return
        observation_space, action_space = case.observation_space, case.action_space
        table = getattr(actor, "log_probs", None)
        if isinstance(table, Tensor) and isinstance(observation_space, Discrete) and isinstance(action_space, Discrete):
            states, actions = edges(observation_space), choices(action_space)
            assert actions is not None
            evaluation = built.evaluate(states.repeat_interleave(len(actions)), actions.repeat(len(states)))
            expected = evaluation.log_probs.reshape(len(states), len(actions))
            require_same("the actor's table", expected, table, case.with_observations(states), precision(case))
        if not distribution.unresolved:
            require_samples_match(built, distribution, actor, "the actor")
        before = built.act(case.observations, 5, actor=built.policy.actor()).actions
        later = built.policy.actor()
        for parameter in built.policy.parameters():
            count = parameter.numel()
            parameter.data.add_(torch.linspace(-5, 5, count, dtype=parameter.dtype).reshape(parameter.shape))
        after = built.act(case.observations, 5, actor=later).actions
        require_same("an actor's action after the policy has changed", before, after, case)


class ChoosingActor:
    """An actor that calls `choose` with uniform numbers."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def act(self, inputs: Inputs, generator: torch.Generator) -> Action:
        """One action per row."""
        shape = (len(inputs.observations), self.policy.choice_noise)
        noise = torch.rand(shape, dtype=torch.float64, generator=generator)
        return Action(self.policy.choose(inputs, noise))


@law(
    "policy",
    source="docs/reference/contracts.md#policy",
    cases=policy_cases(most=2),
    applies=has_member("choose", "it has no choose"),
    examples=20,
)
def choose_samples_as_act_does(subject: Subject, case: PolicyCase) -> None:
    """`choose`, called with uniform numbers, is as close to the probabilities as `act` must be. Its actions have the
    same dtype and depend on its arguments only; the smallest and largest number in [0, 1) give finite actions, too.
    """
    for built, distribution in distributions(subject, case, perturbation_for(case))[:1]:
        chooser, sampled = ChoosingActor(built.policy), built.act(case.observations).actions
        chosen, again = (built.act(case.observations, 3, actor=chooser).actions for _ in range(2))
        if chosen.dtype != sampled.dtype:
            raise Broken("the dtype of chosen actions", expected=sampled.dtype, got=chosen.dtype, case=case.rows())
        require_same("an action that is chosen again", chosen, again, case)
        for edge in (0.0, 1 - 2.0**-53):
            noise = torch.full((len(case.observations), built.policy.choice_noise), edge, dtype=torch.float64)
            actions = built.policy.choose(Inputs(case.observations), noise)
            if not actions.double().isfinite().all():
                raise Broken(f"an action chosen by {edge}", expected="a number", got=actions.tolist(), case=case.rows())
        if not distribution.unresolved:
            require_samples_match(built, distribution, chooser, "choose")


@law("policy", cases=policy_cases(), applies=has_member("greedy", "it has no greedy"))
def greedy_takes_the_most_probable_action(subject: Subject, case: PolicyCase) -> None:
    """In a finite space no other action has a higher log-prob; in any space, `greedy` is deterministic."""
    built = build_policy(subject, case)
    chosen, again = (built.act(case.observations, seed, actor=built.policy.greedy()).actions for seed in (1, 2))
    require_same("a greedy action, with another generator", chosen, again, case)
    for b, observation in enumerate(case.observations):
        distribution = action_distribution(built, observation) if choices(case.action_space) is not None else None
        if distribution is not None:
            _require_most_probable(distribution, chosen[b], case)


def _require_most_probable(distribution: ActionDistribution, chosen: Tensor, case: PolicyCase) -> None:
    probabilities = distribution.probabilities[
        (distribution.actions.reshape(len(distribution.actions), -1) == chosen.reshape(1, -1)).all(1)
    ]
    best = float(distribution.probabilities.max())
    if not len(probabilities) or float(probabilities[0]) < best - precision(case):
        raise Broken(
            f"the probability of the greedy action {chosen.tolist()} ({case.spaces()})",
            expected=best,
            got=float(probabilities[0]) if len(probabilities) else "not an action of the space",
            case=case.rows(),
        )


@law("policy", source="docs/reference/contracts.md", cases=policy_cases(), applies=SUPPORTED)
def all_randomness_of_policies_is_the_generators(subject: Subject, case: PolicyCase) -> None:
    """Generators in the same state give the same actions, whatever the state of torch's global generator, which is not
    used. `evaluate` is deterministic: calling it twice gives the same, and so does evaluation mode.
    """
    built = build_policy(subject, case)
    actions, evaluations = [], []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            actions.append(built.act(case.observations, 7).actions)
            evaluations.append(evaluation_columns(built.evaluate(case.observations, actions[0])))
            if not torch.equal(before, torch.get_rng_state()):
                raise Broken(
                    "torch's global generator is used",
                    expected="only the generator that is passed in",
                    case=case.rows(),
                )
    require_same("an action, from a generator in the same state", actions[0], actions[1], case)
    built.policy.eval()
    evaluations.append(evaluation_columns(built.evaluate(case.observations, actions[0])))
    for evaluation, occasion in zip(evaluations[1:], ("the second time", "in evaluation mode"), strict=True):
        for name, part in evaluations[0].items():
            require_same(f"{name}, {occasion}", part, evaluation[name], case)
