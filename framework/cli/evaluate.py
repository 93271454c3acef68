"""`framework evaluate`: evaluates a recorded policy and reports its returns."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import tyro
from attrs import field, frozen, validators

from ..config import RolloutSettings
from ..errors import UsageError
from ..evaluation import CONFIDENCE, Performance, play, refuse_without_greedy
from ..guards.episode_limit import MOST, EpisodeLimit
from ..records.record import BEST, LAST, POLICY, policy_file, read_policy, read_spaces
from ..reporting.progress_bar import Bar, so_far
from ..reporting.video import film
from ..run import Run
from ..setup.building import build
from ..setup.tree import validate
from ..spaces import compare
from ..stages import Core
from . import output
from .choices import flag
from .help import HELP
from .options import resolve
from .output import is_terminal, results
from .recorded_run import closing_run, take_record

FLAGS = ("environment", "policy", "seed", "device", "threads", "step_timeout")
PATIENCE = 1.0  # seconds before a bar is shown


@frozen
class Extra:
    """Flags of `evaluate` alone."""

    episodes: Annotated[int, tyro.conf.arg(help="number of whole episodes to play")] = field(
        default=100, validator=validators.ge(1)
    )
    lanes: Annotated[int, tyro.conf.arg(help="number of episodes played at the same time")] = field(
        default=16, validator=validators.ge(1)
    )
    greedy: Annotated[bool, tyro.conf.arg(help="take the most probable action instead of sampling one")] = False
    best: Annotated[bool, tyro.conf.arg(help=f"evaluate {BEST}, kept by the extension `evaluate`, not {POLICY}")] = (
        False
    )
    last: Annotated[bool, tyro.conf.arg(help=f"evaluate {LAST}, the parameters before the run failed")] = False
    max_episode_steps: Annotated[int, tyro.conf.arg(help="an episode with more steps is an error")] = field(
        default=MOST, validator=validators.ge(1)
    )
    video: Annotated[
        Path | None, flag("file for a video of one more episode; needs framework-rl[video]", "FILE.mp4", "no video")
    ] = None


def main(arguments: Sequence[str]) -> int:
    """Evaluate; exit code 0."""
    record, rest, below = take_record(arguments, FLAGS)
    if record is None and not set(HELP) & set(rest):
        raise UsageError("which run? Its folder comes first: framework evaluate runs/NAME [OPTIONS]")
    description = (
        "Play whole episodes with the policy of the record RUN, such as runs/first, and report their returns.\n\n"
        "Environment, policy and seed are the record's unless you give others. The same seed repeats an evaluation "
        "and never repeats a training run's episodes."
    )
    resolved = resolve("evaluate RUN", description, rest, Extra, below, FLAGS, record=record)
    assert record is not None  # help exits
    extra = resolved.extra
    validate("", extra)
    rollout = RolloutSettings(lanes=min(extra.lanes, extra.episodes), episodes=1)
    config = attrs.evolve(resolved.config, extensions=(), reports=(), rollout=rollout)
    path = record.directory / policy_file(extra.best, extra.last, record.directory)
    run = build(config, resolved.loaded, Core())
    with closing_run(run):
        _read(run, path)
        refuse_without_greedy(run.policy, extra.greedy, config.policy.label)
        if extra.video is not None:
            _film(run, extra.video, extra.greedy)
        began = time.perf_counter()
        performance = _play(run, extra)
        seconds = time.perf_counter() - began
    summary = _summary(performance, run, extra, path, seconds)
    with results():
        if is_terminal():
            _print(summary)
        else:
            print(json.dumps({name: _number(value) for name, value in summary.items()}))
    return 0


def _read(run: Run, path: Path) -> None:
    environment = run.environment
    trained = read_spaces(path.parent)
    if trained is not None:
        compare(trained, environment, str(path), run.config.environment.label)
    try:
        read_policy(path.parent, run.policy, path.name)
    except UsageError as error:
        if error.__cause__ is None:  # the file does not exist
            raise
        raise UsageError(
            f"{path} does not fit {run.config.policy.label} in {run.config.environment.label}, whose spaces are "
            f"{environment.observation_space} and {environment.action_space}: "
            f"{' '.join(str(error.__cause__).split())}"
        ) from error.__cause__


def _play(run: Run, extra: Extra) -> Performance:
    config = run.config
    with Bar("episode", extra.episodes, "{task.fields[steps]}", patience=PATIENCE) as bar:
        return play(
            run.policy,
            run.environment,
            config.rollout.lanes,
            extra.episodes,
            seed=config.seed,
            greedy=extra.greedy,
            device=run.device,
            labels=(config.environment.label, config.policy.label),
            limit=run.shards[0].limit,
            working=lambda count, steps: bar.show(count, steps=so_far(count, steps)),
            episode_limit=EpisodeLimit(
                extra.max_episode_steps, "give the environment a time limit, or raise --max-episode-steps"
            ),
        )


def _film(run: Run, path: Path, greedy: bool) -> None:
    part, label = run.config.environment, run.config.policy.label
    film(path, run.policy, part, label, seed=run.config.seed, greedy=greedy, device=run.device)


def _summary(performance: Performance, run: Run, extra: Extra, path: Path, seconds: float) -> dict[str, Any]:
    return {
        "policy": str(path),
        "environment": run.config.environment.title,
        **(getattr(run.environment, "resolved", None) or {}),
        "actions": "greedy" if extra.greedy else "sampled",
        "seed": run.config.seed,
        "episodes": len(performance.returns),
        "steps": int(performance.lengths.sum()),
        "seconds": round(seconds, 3),
        "mean_return": performance.mean,
        "std_return": performance.std,
        "standard_error": performance.standard_error,
        "interval": performance.interval,
        "median_return": performance.median,
        "min_return": performance.min,
        "max_return": performance.max,
        "mean_length": performance.mean_length,
        **{f"environment/{name}": number for name, number in performance.mean_metrics.items()},
        "video": None if extra.video is None else str(extra.video),
    }


def _number(value: Any) -> Any:
    """A value for JSON: null for NaN."""
    if isinstance(value, tuple):
        return [_number(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _print(summary: dict[str, Any]) -> None:
    from rich.table import Table

    console = output.console()
    count = summary["episodes"]
    table = Table("return of an episode", f"{count} episode{'s' * (count != 1)}")
    low, high = summary["interval"]
    table.add_row("mean", f"{summary['mean_return']:.2f}")
    if count > 1:
        table.add_row(f"{CONFIDENCE:.0%} interval of the mean", f"{low:.2f} to {high:.2f}")
        table.add_row("standard error of the mean", f"{summary['standard_error']:.3f}")
        table.add_row("standard deviation", f"{summary['std_return']:.2f}")
        table.add_row("median", f"{summary['median_return']:.2f}")
        table.add_row("worst and best", f"{summary['min_return']:.2f} and {summary['max_return']:.2f}")
    table.add_row("mean length", f"{summary['mean_length']:.1f} steps")
    for name, value in summary.items():
        if name.startswith("environment/"):
            table.add_row(name, f"{value:.3f}")
    console.print(table)
    policy, environment = summary["policy"], summary["environment"]
    console.print(f"{policy} in {environment}, {summary['actions']}, seed {summary['seed']}", soft_wrap=True)
    if summary["video"]:
        console.print(f"video: {summary['video']}", soft_wrap=True)
