"""`framework credit`: draws the credit that each estimator gives to the steps of one episode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import torch
import tyro
from attrs import frozen
from gymnasium.spaces import Discrete
from torch import Tensor

from ..config import RolloutSettings
from ..contracts import Estimate, Rollout
from ..errors import UsageError, say
from ..exact import action_probabilities, state_values
from ..parts import Loaded
from ..run import Run
from ..setup.building import build
from ..stages import Core
from .options import resolve
from .output import results
from .recorded_run import closing_run

SIGNS = {"gamma": "γ", "lam": "λ", "n": "n"}
FLAGS = ("environment", "policy", "estimator", "seed", "device", "threads")
MIN_STEPS, MAX_STEPS, TRIES = 5, 16, 1000  # steps of the episode to draw, and how many episodes are tried


@frozen
class Extra:
    """Flags of `credit` alone."""

    out: Annotated[Path, tyro.conf.arg(help="file for the picture", metavar="FILE.png")] = Path("credit.png")


def main(arguments: Sequence[str]) -> int:
    """Draw; exit code 0."""
    description = "Draw how each installed estimator credits the steps of one episode of a small tabular world."
    resolved = resolve("credit", description, arguments, Extra, offered=FLAGS, valued=True)
    config = attrs.evolve(resolved.config, extensions=(), reports=(), rollout=RolloutSettings(lanes=1, episodes=1))
    run = build(config, resolved.loaded, Core())
    run.needs -= {"values"}  # the exact values are used
    with closing_run(run):
        rollout = episode(run)
        credits = {name: (estimate, values) for name, estimate, values in estimates(run, rollout, resolved.loaded)}
        figure = draw(run, rollout, credits)
    try:
        figure.savefig(resolved.extra.out, dpi=150)
    except (OSError, ValueError) as error:  # a missing folder, an unknown format
        raise UsageError(
            f"{resolved.extra.out} cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None
    with results():
        print(resolved.extra.out)
    return 0


def episode(run: Run) -> Rollout:
    """The first terminated episode of the untrained policy that is neither trivial nor too long to draw."""
    for iteration in range(TRIES):
        run.iteration = iteration
        rollout: Rollout = run.hook.collect_rollout(run=run)
        if rollout.state is not None:
            raise UsageError(f"{run.config.policy.label}: has memory, and the values drawn are of policies without")
        if MIN_STEPS <= len(rollout.mask) <= MAX_STEPS and bool(rollout.terminated.any()):
            return rollout
    raise UsageError(
        f"none of {TRIES} episodes ended after {MIN_STEPS} to {MAX_STEPS} steps: choose another environment"
    )


def estimates(run: Run, rollout: Rollout, loaded: Loaded) -> Any:
    """For each estimator with its default settings: name, estimate, and the exact V(s) `[S]` for its γ."""
    environment = run.environment
    spaces = environment.observation_space, environment.action_space
    if not (hasattr(environment, "mdp") and all(isinstance(space, Discrete) for space in spaces)):
        raise UsageError(f"{run.config.environment.label}: has no mdp(), and the values drawn are exact ones")
    mdp = environment.mdp()
    if mdp.observations is not None:
        raise UsageError(f"{run.config.environment.label}: hides its states, and the values drawn are those of states")
    with torch.no_grad():
        probabilities = action_probabilities(mdp, run.policy)
    for name in loaded.names("estimator"):
        cls = next(iter(loaded.offers["estimator"][name].values()))
        settings = _settings(cls, run.config.estimator.settings)
        if settings is None:
            continue
        available = {"complete_episodes", "values", *(["groups"] if rollout.groups is not None else [])}
        if missing := set(getattr(settings, "needs", ())) - available:
            say(f"left out: {name} needs {' and '.join(sorted(missing))}")
            continue
        values = state_values(mdp, probabilities, getattr(settings, "gamma", 1.0)).float()
        step_values = values[rollout.observations]
        following = torch.cat([step_values[1:], torch.zeros(1, 1)])
        valued = attrs.evolve(rollout, values=step_values, successor_values=following * ~rollout.terminated)
        part = settings.build() if hasattr(settings, "build") else settings
        numbers = {sign: getattr(settings, word, None) for word, sign in SIGNS.items()}
        parameters = [f"{sign} = {number:g}" for sign, number in numbers.items() if isinstance(number, int | float)]
        yield "\n".join([name, *filter(None, [", ".join(parameters)])]), part(valued), values


def _settings(cls: type[Any], chosen: Any) -> Any:
    """The chosen settings; for another estimator its defaults, with the chosen values of shared settings."""
    if type(chosen) is cls:
        return chosen
    changed = {
        field.name: getattr(chosen, field.name)
        for field in attrs.fields(type(chosen))
        if field.name in attrs.fields_dict(cls) and getattr(chosen, field.name) != field.default
    }
    for arguments in (changed, {}):
        try:
            return cls(**arguments)
        except (TypeError, ValueError):  # other bounds, or required settings
            continue
    return None


def draw(run: Run, rollout: Rollout, credits: dict[str, tuple[Estimate, Tensor]]) -> Any:
    """A row per estimator: its returns, and its advantages over the exact values, step by step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = range(len(rollout.mask))
    names = getattr(run.environment, "action_names", None)
    labels = [
        f"{int(state)}\n{names[int(action)] if names else int(action)}"
        for state, action in zip(rollout.observations[:, 0], rollout.actions[:, 0], strict=True)
    ]
    figure = Figure(figsize=(9, 1.1 + 1.05 * len(credits)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(credits), 2, sharex=True, squeeze=False)
    for row, (name, (estimate, values)) in zip(grid, credits.items(), strict=True):
        returns = estimate.returns[:, 0]
        weights = torch.ones_like(returns) if estimate.weights is None else estimate.weights[:, 0]
        advantages = weights * (returns - values[rollout.observations[:, 0]])
        for axes, heights in zip(row, (returns.tolist(), advantages.tolist()), strict=True):
            axes.bar(steps, heights, color=["tab:blue" if height >= 0 else "tab:red" for height in heights])
            axes.axhline(0, color="0.3", linewidth=0.6)
            axes.tick_params(labelsize=7)
            axes.grid(axis="y", alpha=0.25)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    grid[0][0].set_title("return of each step", fontsize=9)
    grid[0][1].set_title("advantage over the exact V(s)", fontsize=9)
    for axes in grid[-1]:
        axes.set_xticks(list(steps), labels, fontsize=6)
        axes.set_xlabel("state and action of each step", fontsize=8)
    figure.suptitle(
        f"{run.config.environment.title}: one episode of the untrained policy, seed {run.config.seed}", fontsize=10
    )
    return figure
