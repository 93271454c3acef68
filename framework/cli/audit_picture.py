"""The picture of `framework audit`: bias and variance of each combination, side by side."""

from collections.abc import Mapping
from typing import Any

from .audit_table import format_number, group_by_objective, is_varied

# Okabe & Ito's colours, distinguishable with any colour vision (https://jfly.uni-koeln.de/color/); one per baseline
COLOURS = ("#999999", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def draw(summary: Mapping[str, Any]) -> Any:
    """Bars: variance and, where ∇J is known, bias with the noise floor, and the cosine of one batch's gradient."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = summary["combinations"]
    baselines = list(dict.fromkeys(row["baseline"] for row in rows))
    colours = [COLOURS[baselines.index(row["baseline"]) % len(COLOURS)] for row in rows]
    places, centers = _places(rows)
    known = summary["missing"] is None
    figure = Figure(figsize=(10.5 if known else 7.5, 1.9 + 0.34 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, 3 if known else 2, sharey=True, squeeze=False)[0]

    variances = [row["variance"] for row in rows]
    _bars(grid[0], places, variances, colours, [format_number(number) for number in variances])
    _title(grid[0], "variance", "of one episode's gradient")
    if known:
        biases = [row["relative_bias"] or 0.0 for row in rows]
        floors = [row["noise"] / row["gradient"] if row["gradient"] else 0.0 for row in rows]
        texts = [f"{bias:.1%}{' *' * bool(row['biased'])}" for bias, row in zip(biases, rows, strict=True)]
        ends = [max(pair) for pair in zip(biases, floors, strict=True)]
        _bars(grid[1], places, biases, colours, texts, ends)
        grid[1].barh(places, floors, 0.8, facecolor="none", edgecolor="0.25", hatch="////", linewidth=0, alpha=0.6)
        grid[1].xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
        _title(grid[1], "bias, of ‖∇J‖", "hatched: bias caused by chance; *: biased")
        cosines = [row["batch_cosine"] or 0.0 for row in rows]
        _bars(grid[2], places, cosines, colours, [f"{cosine:.2f}" for cosine in cosines])
        _title(grid[2], "cosine to ∇J", f"of the gradient of {summary['batch']} episodes")
    else:
        ratios = [row["signal_to_noise"] or 0.0 for row in rows]
        _bars(grid[1], places, ratios, colours, [f"{ratio:.3g}" for ratio in ratios])
        _title(grid[1], "signal-to-noise", "of one episode's gradient")
    _label_figure(figure, grid[0], summary, centers, places[-1])
    handles = {row["baseline"]: bar for row, bar in zip(rows, grid[0].patches, strict=False)}
    figure.legend(
        handles.values(),
        [f"baseline {name}" for name in handles],
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
    )
    return figure


def _places(rows: list[dict[str, Any]]) -> tuple[list[float], dict[str, float]]:
    """The positions of the bars, with a gap between estimators, and the centre of each group."""
    several_losses = is_varied(rows, "loss")
    labels = [row["estimator"] + (f"\n{row['loss']}" if several_losses else "") for row in rows]
    order = list(dict.fromkeys(labels))
    places = [number + 0.7 * order.index(label) for number, label in zip(_ranks(labels, order), labels, strict=True)]
    groups = {label: [place for place, other in zip(places, labels, strict=True) if other == label] for label in order}
    return places, {label: sum(group) / len(group) for label, group in groups.items()}


def _ranks(labels: list[str], order: list[str]) -> list[int]:
    """The row of each bar, with equal labels together."""
    ranked = sorted(range(len(labels)), key=lambda number: (order.index(labels[number]), number))
    return [ranked.index(number) for number in range(len(labels))]


def _bars(
    axes: Any, places: list[float], lengths: list[float], colours: list[str], texts: list[str], ends: Any = None
) -> None:
    axes.barh(places, lengths, 0.8, color=colours)
    highest = max([*lengths, *(ends or ())], default=0.0)
    lowest = min([*lengths, 0.0])
    for place, end, text in zip(places, ends or lengths, texts, strict=True):
        axes.text(max(end, 0.0) + 0.02 * (highest - lowest), place, text, va="center", fontsize=8, color="0.2")
    axes.set_xlim(1.05 * lowest, (1.22 * highest) or 1.0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.get_major_locator().set_params(nbins=5)


def _title(axes: Any, title: str, subtitle: str) -> None:
    axes.set_title(f"{title}\n", fontsize=10, fontweight="bold", loc="left")
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, fontsize=8.5, color="0.3")


def _label_figure(figure: Any, axes: Any, summary: Mapping[str, Any], centers: dict[str, float], last: float) -> None:
    axes.set_yticks(list(centers.values()), list(centers), fontsize=9)
    axes.set_ylim(last + 0.7, -0.7)
    objectives = group_by_objective(summary["combinations"]) if summary["missing"] is None else {}
    returns = [kind if kind == "undiscounted" else f"return discounted by {gamma:g}" for kind, gamma, _ in objectives]
    returns = [f"{word} return" if word == "undiscounted" else word for word in returns]
    reference = f", against ∇J of the {' or '.join(dict.fromkeys(returns))}" if returns else ""
    figure.suptitle(
        f"{summary['environment']}, policy {summary['policy']}: {summary['episodes']:,} episodes{reference}",
        fontsize=11,
    )
