"""Every place where a plugin can reach in. This is the one page that a plugin author reads.

Two kinds of hook, on two kinds of object:

* **Provider hooks** are functions of a plugin *module*. They are called once, when the plugin is loaded, and
  offer named parts. Installing a plugin therefore changes no run that does not name one of its parts.
* **Run hooks** are methods of an *extension*: an object made for one run by `settings.build(run)`, because
  the run's configuration names it (`--extensions`). Extensions work in the order in which they are named.

Run hooks come in three kinds. A **stage** is work of the run itself: the core does it, an extension may only
*wrap* it, with `@hookimpl(wrapper=True)` and a generator that yields once, gets what the inner ones made, and
returns what the outer ones shall get. (A plain implementation would replace the core's silently, so it is
refused.) The first-named extension is the innermost wrapper: its change is made first. An **observer** is
told, and what it returns is ignored. The two **collecting** hooks, `measure` and `should_stop`, ask everybody.

A part's settings are a frozen attrs class. Its fields, each with a default, are its options: flags and TOML keys. A
whole plugin:

    from attrs import frozen
    from framework import Estimate, hookimpl

    @frozen
    class Immediate:
        scale: float = 1.0  # factor of every reward

        def __call__(self, rollout):
            return Estimate(self.scale * rollout.rewards, rollout.rewards)

    @hookimpl
    def estimators():
        return {"immediate": Immediate}

What each role is handed and returns is in `contracts.py`; what settings may say that they need, give, imply and
claim, in `wiring.py`.

Mark every implementation with `framework.hookimpl`; leave out arguments that you do not use; give none a
default. Hooks are called once an iteration or minibatch, never per step or lane.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from .contracts import Advantages, Batch, Loss, Rollout
    from .run import Run

PROJECT = "framework"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Parts = Mapping[str, type[Any]]  # from name to settings class (a frozen attrs class)


class Providers:
    """Provider hooks: implemented by plugin modules, called once when the plugin is loaded."""

    @hookspec
    def environments(self) -> Parts:  # type: ignore[empty-body]
        """Offer environments: `{name: settings}`; `settings.build(num_envs, device)` gives an `Environment`."""

    @hookspec
    def policies(self) -> Parts:  # type: ignore[empty-body]
        """Offer policies: `{name: settings}`; `settings.build(observation_space, action_space)` gives a `Policy`."""

    @hookspec
    def estimators(self) -> Parts:  # type: ignore[empty-body]
        """Offer return estimators: `{name: settings}`; called with a rollout, they return an `Estimate`."""

    @hookspec
    def baselines(self) -> Parts:  # type: ignore[empty-body]
        """Offer baselines: `{name: settings}`; called with rollout and returns, they return what is subtracted."""

    @hookspec
    def losses(self) -> Parts:  # type: ignore[empty-body]
        """Offer losses: `{name: settings}`; called with a batch and its evaluation, they return a `Loss`."""

    @hookspec
    def extensions(self) -> Parts:  # type: ignore[empty-body]
        """Offer extensions: `{name: settings}`; `settings.build(run)` gives an object with run hooks."""

    @hookspec
    def recipes(self) -> Mapping[str, Mapping[str, Any]]:  # type: ignore[empty-body]
        """Offer configurations: `{name: tree}`, a tree being what a TOML file would hold; `--recipe` takes one."""


class RunHooks:
    """Run hooks: implemented by extensions, called during their run."""

    @hookspec
    def run_started(self, run: "Run") -> None:
        """Observe: everything is built and wired, nothing has been collected yet. Called once, by the loop."""

    @hookspec(firstresult=True)
    def collect_rollout(self, run: "Run") -> "Rollout":  # type: ignore[empty-body]
        """Stage, once an iteration: let the policy act; return the `Rollout`. Wrap it to scale rewards, say.

        The scores in the metrics stay the environment's own: they are counted while it is stepped.
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
        """Observe: the run ended (`run.stop_reasons` says why, an interrupt included); the policy is final."""

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
"""From each role to the provider hook that offers its parts."""

STAGES = ("collect_rollout", "estimate_advantages", "prepare_batch", "compute_loss", "apply_gradients")


def names(specs: type) -> tuple[str, ...]:
    """The hooks that a class of specifications declares, in its order.

    >>> names(Providers)[:2]
    ('environments', 'policies')
    """
    return tuple(name for name, value in vars(specs).items() if hasattr(value, f"{PROJECT}_spec"))
