"""The learning curve, drawn when the run ends."""

from typing import TYPE_CHECKING

import numpy as np
from attrs import field, frozen, validators

from framework import Run, hookimpl
from framework.tools import CURVE, whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATED = "evaluation/mean_return"  # measured by the extension `evaluate`


@frozen
class Plot:
    """Draw the learning curve, mean return over environment steps, as learning_curve.png."""

    needs = frozenset({"directory"})
    smooth: int = field(default=10, validator=validators.ge(1))  # number of iterations that the line averages over

    def build(self, run: Run) -> "Plotter":
        """The extension for one run."""
        return Plotter(self)


class Plotter:
    """Draws once, at the end: matplotlib takes a third of a second to import."""

    def __init__(self, settings: Plot) -> None:
        """Keep the settings."""
        self.settings = settings

    @hookimpl
    def run_finished(self, run: Run) -> None:
        """Draw the history, if any episode ended."""
        figure = learning_curve(run, self.settings.smooth)
        if figure is not None and run.directory is not None:
            with whole(run.directory / CURVE) as temporary:
                figure.savefig(temporary, dpi=150, format="png")


def learning_curve(run: Run, smooth: int) -> "Figure | None":
    """A figure of mean return over environment steps: per iteration, its moving mean, and the spread of episodes.

    If the history has `evaluation/mean_return`, the evaluations are drawn, too.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ("steps", "mean_return", "std_return", "episodes")
    steps, mean, deviation, episodes = (np.array(run.history.get(name, ())) for name in names)
    has_episodes = ~np.isnan(mean)
    if not has_episodes.any():
        return None
    evaluated = np.array(run.history.get(EVALUATED, np.full(len(steps), np.nan)))
    evaluations = steps[~np.isnan(evaluated)], evaluated[~np.isnan(evaluated)]
    counts = np.diff(episodes, prepend=0)[has_episodes]
    steps, mean, deviation = steps[has_episodes], mean[has_episodes], np.nan_to_num(deviation[has_episodes])
    window = min(smooth, len(mean))
    line = _moving_sum(mean, window) / _moving_sum(np.ones(len(mean)), window)
    spread = spread_of(mean, deviation, counts, window)

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, mean, ".", color="0.65", markersize=3, label="one iteration")
    axes.fill_between(
        steps, line - spread, line + spread, alpha=0.2, linewidth=0, label="± one standard deviation of episodes"
    )
    axes.plot(steps, line, linewidth=1.8, label=f"mean of {window} iterations")
    if len(evaluations[0]):
        axes.plot(*evaluations, "D-", color="tab:red", markersize=4, linewidth=1.0, label="evaluation")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of an episode (undiscounted)")
    parts = (run.config.environment, run.config.policy, run.config.estimator, run.config.baseline)
    axes.set_title(" · ".join(part.title for part in parts) + f" · seed {run.config.seed}", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def spread_of(mean: np.ndarray, deviation: np.ndarray, counts: np.ndarray, window: int) -> np.ndarray:
    """The standard deviation (n − 1) of all episodes of the last `window` iterations `[K]`; 0 for a single episode.

    Computed from each iteration's mean, standard deviation (0 if there is none) and number of episodes.
    """
    total = _moving_sum(counts, window)
    centre = mean - mean.mean()  # squares of small numbers lose less precision
    mean_of_all = _moving_sum(counts * centre, window) / total
    squares = _moving_sum((counts - 1) * deviation**2 + counts * centre**2, window) - total * mean_of_all**2
    return np.asarray(np.sqrt(np.maximum(squares, 0) / np.maximum(total - 1, 1)))


def _moving_sum(numbers: np.ndarray, window: int) -> np.ndarray:
    """The sum of each number and those before it, `window` in all (fewer at the beginning)."""
    sums = np.cumsum(np.concatenate([np.zeros(1), numbers]))
    last = np.arange(len(numbers)) + 1
    return np.asarray(sums[last] - sums[np.maximum(last - window, 0)])
