"""Every place where a plugin can reach in. This is the one page that a plugin author reads.

Two kinds of hook, on two kinds of object:

* **Provider hooks** are functions of a plugin *module*. They are called once, when the plugin is loaded, and
  offer named parts. Installing a plugin therefore changes no run that does not name one of its parts.
* **Run hooks** are methods of an *extension*: an object made for one run by `settings.build(run)`, because
  the run's configuration names it (`--extensions`). Extensions work in the order in which they are named.

A part's settings are a frozen attrs class; its fields, each with a default, are flags and TOML keys. The example
below each provider hook is a part that works and keeps the laws of its role. Together they are a plugin: save them
in one file after these imports, and `framework check FILE.py` and `framework run --plugins FILE.py` take it.

    import torch
    from attrs import frozen
    from gymnasium.spaces import Discrete
    from framework import Action, Estimate, Evaluation, Loss, Step, UsageError, hookimpl
    from framework.returns import rewards_to_go

What each role is given and returns is in `contracts.py`, what it may have besides in `capabilities.py`. Mark every
implementation with `framework.hookimpl`, leave out arguments that you do not use, and give none a default. Hooks are
called once an iteration or minibatch, never per step or lane.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy

if TYPE_CHECKING:
    from .contracts import Advantages, Batch, Loss, Rollout
    from .run import Run

PROJECT = "framework"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Parts = Mapping[str, type[Any]]  # from name to settings class (a frozen attrs class)
Role = Literal["environment", "policy", "estimator", "baseline", "loss"]
Need = Literal["values", "complete_episodes", "groups", "entropies", "directory"]
Gift = Literal["values", "groups"]
# fmt: off
Claim = Literal["unbiased:discounted", "unbiased:undiscounted", "neutral", "policy_gradient", "pessimistic",
                "surrogate", "causal", "linear", "pure"]
# fmt: on

NEEDS: dict[Need, str] = {
    "values": "a policy with a critic: V(s) of each step and successor",
    "complete_episodes": "rollouts of whole episodes (rollout.steps or rollout.episodes)",
    "groups": "an environment that starts groups of lanes from the same state",
    "entropies": "the policy's entropies, of every batch",
    "directory": "a folder to write to: runs/NAME",
}
GIVES: dict[Gift, str] = {"values": "policies with a critic", "groups": "environments with groups"}
CLAIMS: dict[Claim, str] = {
    "unbiased:discounted": "the expected gradient is that of the discounted objective",
    "unbiased:undiscounted": "the expected gradient is that of the undiscounted objective",
    "neutral": "subtracting it leaves the expected gradient unchanged",
    "policy_gradient": "on the policy that acted, its gradient by each log-prob is minus the advantage",
    "pessimistic": "it is nowhere lower than -ratio·advantage",
    "surrogate": "its gradient is meant, not its value: it holds some factors constant",
    "causal": "a step's return does not depend on what came before it",
    "linear": "the estimate of a sum of rewards and values is the sum of the estimates, and likewise for multiples",
    "pure": "what its `prepare_batch` makes of a minibatch depends on nothing else, so that `compile` may record it",
}


class Declarations(Protocol):
    """What settings may declare, as class attributes or properties; each may be left out."""

    needs: frozenset[Need]
    """What must be there for the part to work; a run without it is refused, and the error names parts that give it."""
    gives: frozenset[Gift]
    """What the part brings."""
    implies: Mapping[Role, str]
    """Names of parts to take for roles that were not chosen; if another one was chosen, the run is refused."""
    claims: frozenset[Claim]
    """Properties of the part's mathematics, which `framework check` proves or refutes."""


class Providers:
    """Provider hooks: implemented by plugin modules, called once when the plugin is loaded."""

    @hookspec
    def environments(self) -> Parts:  # type: ignore[empty-body]
        """Offer environments: `{name: settings}`; `settings.build(num_envs, device)` gives an `Environment`.

        @frozen
        class Guess:
            'Name the coin that is shown; an episode is one step.'
            def build(self, num_envs, device):
                return GuessLanes(num_envs, device)

        class GuessLanes:
            def __init__(self, num_envs, device):
                self.observation_space = self.action_space = Discrete(2)
                self.coins = torch.zeros(num_envs, dtype=torch.int64, device=device)
            def reset(self, generator):
                self.coins = torch.randint(2, self.coins.shape, generator=generator, device=self.coins.device)
                return self.coins
            def step(self, actions, generator):
                shown, ended = self.coins, torch.ones_like(actions, dtype=torch.bool)
                return Step(self.reset(generator), shown, (actions == shown).float(), ended, ~ended)

        @hookimpl
        def environments():
            return {"guess": Guess}
        """

    @hookspec
    def policies(self) -> Parts:  # type: ignore[empty-body]
        """Offer policies: `{name: settings}`; `settings.build(observation_space, action_space)` gives a `Policy`.

        @frozen
        class Lookup:
            'A logit for each state and action.'
            def build(self, observation_space, action_space):
                for space in (observation_space, action_space):
                    if not isinstance(space, Discrete) or space.start:
                        raise UsageError(f"policy 'lookup' takes Discrete spaces that begin at 0, not {space}")
                return LookupPolicy(int(observation_space.n), int(action_space.n))

        class LookupPolicy(torch.nn.Module):
            def __init__(self, states, actions):
                super().__init__()
                self.logits = torch.nn.Parameter(torch.zeros(states, actions))
            def log_probs(self, inputs):
                if inputs.action_masks is not None:
                    raise UsageError("policy 'lookup' takes no action masks")
                return self.logits[inputs.observations].log_softmax(-1)
            def act(self, inputs, generator):
                return Action(self.log_probs(inputs).exp().multinomial(1, generator=generator).squeeze(-1))
            def evaluate(self, inputs, actions, entropies):
                log_probs = self.log_probs(inputs)
                taken = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
                return Evaluation(taken, -(log_probs.exp() * log_probs).sum(-1) if entropies else None)

        @hookimpl
        def policies():
            return {"lookup": Lookup}
        """

    @hookspec
    def estimators(self) -> Parts:  # type: ignore[empty-body]
        """Offer return estimators: `{name: settings}`; called with a rollout, they return an `Estimate`.

        @frozen
        class ToGo:
            'Discounted rewards from each step to the end of its episode.'
            needs = frozenset({"complete_episodes"})
            claims = frozenset({"causal", "linear"})
            gamma: float = 0.99
            def __call__(self, rollout):
                returns = rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, self.gamma)
                return Estimate(returns, returns)

        @hookimpl
        def estimators():
            return {"to_go": ToGo}
        """

    @hookspec
    def baselines(self) -> Parts:  # type: ignore[empty-body]
        """Offer baselines: `{name: settings}`; called with rollout and returns, they return what is subtracted.

        @frozen
        class Constant:
            'The same number everywhere.'
            claims = frozenset({"neutral"})
            value: float = 0.5  # what is subtracted
            def __call__(self, rollout, returns):
                return torch.full_like(returns, self.value)

        @hookimpl
        def baselines():
            return {"constant": Constant}
        """

    @hookspec
    def losses(self) -> Parts:  # type: ignore[empty-body]
        """Offer losses: `{name: settings}`; called with a batch and its evaluation, they return a `Loss`.

        @frozen
        class ScoreFunction:
            'Minus advantage times log-prob: REINFORCE.'
            claims = frozenset({"policy_gradient"})
            def __call__(self, batch, evaluation):
                return Loss({"policy": -batch.advantages * evaluation.log_probs})

        @hookimpl
        def losses():
            return {"score_function": ScoreFunction}
        """

    @hookspec
    def extensions(self) -> Parts:  # type: ignore[empty-body]
        """Offer extensions: `{name: settings}`; `settings.build(run)` gives an object with run hooks.

        @frozen
        class GoodEnough:
            'Stop when the mean return of an iteration reaches a goal.'
            goal: float = 0.9  # the mean return
            def build(self, run):
                return Stopper(self.goal)

        class Stopper:
            def __init__(self, goal):
                self.goal = goal
            @hookimpl
            def should_stop(self, metrics):
                return "good enough" if metrics["mean_return"] >= self.goal else None

        @hookimpl
        def extensions():
            return {"good_enough": GoodEnough}
        """

    @hookspec
    def recipes(self) -> Mapping[str, Mapping[str, Any]]:  # type: ignore[empty-body]
        """Offer configurations: `{name: tree}`, a tree being what a TOML file would hold; `--recipe` takes one.

        @hookimpl
        def recipes():
            return {"guessing": {"environment": {"name": "guess"}, "policy": {"name": "lookup"}, "iterations": 50}}
        """


class RunHooks:
    """Run hooks: implemented by extensions, called during their run. There are three kinds.

    A **stage** is work of the run itself: the core does it, an extension may only *wrap* it, with
    `@hookimpl(wrapper=True)` and a generator that yields once, gets what the inner ones made, and returns what the
    outer ones shall get. (A plain implementation would replace the core's silently, so it is refused.) The first-named
    extension is the innermost wrapper: its change is made first. An **observer** is called, and what it returns is
    ignored. The two **collecting** hooks, `measure` and `should_stop`, gather what all extensions return.
    """

    @hookspec
    def run_started(self, run: "Run") -> None:
        """Observe: everything is built and wired, nothing has been collected yet. Called once, by the loop."""

    @hookspec(firstresult=True)
    def collect_rollout(self, run: "Run") -> "Rollout":  # type: ignore[empty-body]
        """Stage, once an iteration: let the policy act; return the `Rollout`. Wrap it to scale rewards, say.

        The returns in the metrics stay the environment's own: they are summed while it is stepped.
        """

    @hookspec(firstresult=True)
    def estimate_advantages(self, run: "Run", rollout: "Rollout") -> "Advantages":  # type: ignore[empty-body]
        """Stage, once an iteration: estimator and baseline; return `Advantages` [T, N]. Wrap it to standardise."""

    @hookspec(firstresult=True)
    def prepare_batch(self, run: "Run", batch: "Batch") -> "Batch":  # type: ignore[empty-body]
        """Stage, once a minibatch: return the `Batch` that the loss gets. Wrap it to standardise within minibatches."""

    @hookspec(firstresult=True)
    def compute_loss(self, run: "Run", batch: "Batch") -> "Loss":  # type: ignore[empty-body]
        """Stage, once a minibatch: evaluate the policy, return the `Loss`. Wrap it to add a term, say."""

    @hookspec(firstresult=True)
    def apply_gradients(self, run: "Run", loss: "Loss") -> bool:  # type: ignore[empty-body]
        """Stage, once a minibatch: divide, go backward, clip, step the optimizer; return True.

        Wrap it to look at gradients. Clipping them is a setting (`update.max_grad_norm`), no wrapper.
        """

    @hookspec
    def measure(self, run: "Run") -> Mapping[str, float] | None:
        """Collect, after each iteration's updates: further numbers for this iteration's row, by name; or None.

        The iteration's steps and episodes are counted already. A name is the run's own, the loss's or one extension's.
        """

    @hookspec
    def iteration_finished(self, run: "Run", metrics: Mapping[str, float]) -> None:
        """Observe, after each iteration: `metrics` is its row of numbers, the same that metrics.csv gets."""

    @hookspec
    def should_stop(self, run: "Run", metrics: Mapping[str, float]) -> str | None:
        """Collect, after each iteration: return a reason to stop, or None; every reason is recorded."""

    @hookspec
    def run_finished(self, run: "Run") -> None:
        """Observe: the run ended (`run.stop_reasons` has the reasons, an interrupt included); the policy is final."""

    @hookspec
    def run_failed(self, run: "Run", error: BaseException) -> None:
        """Observe: a part, extension or the core raised `error`. Called once; the error is raised again after it."""


ROLES = {
    "environment": "environments",
    "policy": "policies",
    "estimator": "estimators",
    "baseline": "baselines",
    "loss": "losses",
    "extension": "extensions",
}
STAGES = ("collect_rollout", "estimate_advantages", "prepare_batch", "compute_loss", "apply_gradients")
