"""`framework run`: trains, then prints a summary."""

import ctypes
import json
import math
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import attrs
import torch
import tyro
from attrs import frozen
from gymnasium.spaces import Discrete

from ..contracts import Inputs
from ..errors import UsageError, say
from ..guards.process_state import working
from ..records.record import create_next_run_directory, create_run_directory
from ..records.rescue import missing
from ..result import Result
from ..setup.building import build, closed_on_error
from ..stages import Core
from ..training import execute
from . import output
from .choices import flag
from .options import resolve
from .output import OutputError, is_terminal, results

ROOT = Path("runs")
STATES_SHOWN = 32
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


DESCRIPTION = """\
Train a policy and record the run in runs/.

Flags win over --config, --config over --recipe, and --recipe over the defaults. The chosen parts decide which further
options there are: name them before --help to see theirs.

examples:
  framework run
  framework run --recipe ppo \\
      --environment gymnasium --environment.id CartPole-v1
  framework run --recipe ppo_continuous --environment.id Pendulum-v1
  framework run --baseline leave_one_out --environment.goal 8 --name first"""


@frozen
class Extra:
    """Flags of `run` alone."""

    name: Annotated[
        str | None, flag("name of the record's folder in runs/", "NAME", "ENVIRONMENT-LOSS-1, or the next free number")
    ] = None
    quiet: Annotated[bool, tyro.conf.arg(help="print nothing but errors")] = False


def main(arguments: Sequence[str]) -> int:
    """Train; exit code 0, 128 + S after signal S (130 after Ctrl-C), or 1 where the record is not complete."""
    resolved = resolve("run", DESCRIPTION, arguments, Extra)
    config, extra = resolved.config, resolved.extra
    if extra.name is not None and (
        Path(extra.name).is_absolute() or not Path(extra.name).parts or ".." in Path(extra.name).parts
    ):
        raise UsageError(f"--name must be a folder below {ROOT}/, such as first or sweep/3: {extra.name!r}")
    if resolved.lists_plugins and not extra.quiet:
        from .plugins import print_table

        with results() if is_terminal() else nullcontext():
            print_table(resolved.loaded)
    keep_memory()
    run = build(config, resolved.loaded, Core())
    run.quiet = extra.quiet
    directory = None
    if "directory" in run.needs:
        stem = "-".join(_as_folder(part.title) for part in (config.environment, config.loss))
        with closed_on_error(run):
            directory = create_run_directory(ROOT / extra.name) if extra.name else create_next_run_directory(ROOT, stem)
            run.directory = directory.absolute()
    result = attrs.evolve(execute(run), directory=directory)  # relative: runs/NAME
    output_error: OutputError | None = None
    if not extra.quiet:
        try:
            with working(config.threads):  # a table of five states takes two threads 0.1 s, and one thread 0.3 ms
                (_print if is_terminal() else _print_json)(result)
        except OutputError as error:
            output_error = error
    run = result.run
    if run.unwritten:
        say(f"error: {missing(run)}")
    if output_error is not None:
        if directory is not None and not run.unwritten:
            output_error.add_note(f"the run is complete, and its record is {directory}")
        raise output_error
    if run.interrupted:
        return 128 + run.interrupts.signal
    return 1 if run.unwritten else 0


def _as_folder(title: str) -> str:
    """A part's title, as part of a folder's name.

    >>> _as_folder("ALE/Pong-v5"), _as_folder("my_worlds:make")
    ('ALE-Pong-v5', 'my_worlds-make')
    """
    return re.sub(r"[^\w.+-]+", "-", title).strip("-.") or "run"


def keep_memory() -> None:
    """Let the C library keep freed memory for the next update.

    glibc returns large blocks to the system at once, and each new one comes in pages of 4 KiB that must be zeroed: at
    512 lanes, a tenth of a run's time.
    """
    keep = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if keep is not None:
        for option, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**31 - 1)):
            keep(option, size)


def action_probabilities(result: Result) -> tuple[list[int], dict[str, list[float]]]:
    """The observations of the non-terminal states, and π(a|s) for each, by the action's name.

    Empty where the spaces are not small and Discrete, or where π also depends on the policy's memory. Where actions are
    masked: only the states of the last minibatch, whose masks are known.
    """
    run, policy = result.run, result.policy
    environment = run.environment
    states, actions = environment.observation_space, environment.action_space
    if not (isinstance(states, Discrete) and isinstance(actions, Discrete) and int(states.n) <= STATES_SHOWN):
        return [], {}
    if run.batch is not None and run.batch.sequences is not None:
        return [], {}
    observations = torch.arange(int(states.n), device=run.device) + int(states.start)
    if hasattr(environment, "mdp"):
        mdp = environment.mdp()
        observations = mdp.seen[~mdp.terminal].unique()
    masks = None
    if getattr(environment, "action_masks", None) is not None:
        known = _masks(result)
        observations = torch.tensor([state for state in observations.tolist() if state in known], device=run.device)
        if not len(observations):
            return [], {}
        masks = torch.stack([known[state] for state in observations.tolist()])
    names = getattr(environment, "action_names", None) or [str(int(actions.start) + a) for a in range(int(actions.n))]
    table = {}
    with torch.no_grad():
        for number, name in enumerate(names, int(actions.start)):
            evaluation = policy.evaluate(Inputs(observations, masks), torch.full_like(observations, number), False)
            table[name] = evaluation.log_probs.exp().tolist()
    return observations.tolist(), table


def _masks(result: Result) -> dict[int, torch.Tensor]:
    """The mask `[actions]` of each state of the last minibatch that had only one mask there."""
    batch = result.run.batch
    if batch is None or batch.action_masks is None:
        return {}
    known: dict[int, torch.Tensor] = {}
    for state in torch.unique(batch.observations).tolist():
        masks = torch.unique(batch.action_masks[batch.observations == state], dim=0)
        if len(masks) == 1:
            known[state] = masks[0]
    return known


def _summary(result: Result) -> dict[str, Any]:
    recent = result.recent_returns
    return {
        "environment": result.config.environment.title,
        **(getattr(result.run.environment, "resolved", None) or {}),
        "iterations": len(next(iter(result.metrics.values()), ())),
        "steps": result.run.steps,
        "episodes": result.run.episodes,
        "seconds": round(result.run.seconds, 3),
        "mean_return": float(recent.mean()) if len(recent) else None,
        "std_return": float(recent.std(ddof=1)) if len(recent) > 1 else None,
        "mean_length": float(result.recent_lengths.mean()) if len(recent) else None,
        "of_last_episodes": len(recent),
        "stopped": list(result.stop_reasons),
        "record": None if result.directory is None else str(result.directory),
    }


def _print_json(result: Result) -> None:
    states, probabilities = action_probabilities(result)
    details: dict[str, Any] = {"states": states, "action_probabilities": probabilities}
    if result.config.trace_gradients:
        details["gradients"] = result.run.traced
    text = json.dumps({**_summary(result), **details})
    with results():
        print(text)


def gradient_rows(result: Result) -> list[tuple[str, ...]]:
    """Gradient norms, first update → last iteration: a row per term of the loss, a column per parameter group.

    A dash where a term does not reach a group.
    """
    first, last = result.run.traced or {}, result.metrics
    groups = dict.fromkeys(name.partition(".")[0] for name, _ in result.policy.named_parameters())
    rows = [("term of the loss", *groups)]
    for term, norms in first.items():
        cells = []
        for group in groups:
            last_norm = last.get(f"gradient/{term}/{group}", [math.nan])[-1]
            cells.append(f"{norms[group]:.3g} → {last_norm:.3g}" if group in norms else "–")
        rows.append((term, *cells))
    return rows


def _print_gradients(result: Result, console: Any) -> None:
    from rich.table import Table

    head, *rows = gradient_rows(result)
    table = Table(*head, title="gradient norms by term, first update → last iteration", title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print(result: Result) -> None:
    states, probabilities = action_probabilities(result)
    with results():
        _print_tables(result, states, probabilities)


def _print_tables(result: Result, states: list[int], probabilities: dict[str, list[float]]) -> None:
    from rich.table import Table

    console = output.console()
    if probabilities:
        table = Table("state", *(f"P({name})" for name in probabilities))
        for state, *row in zip(states, *probabilities.values(), strict=True):
            table.add_row(str(state), *(f"{probability:.3f}" for probability in row))
        console.print(table)
    if result.config.trace_gradients:
        _print_gradients(result, console)
    summary = _summary(result)
    if summary["mean_return"] is not None:
        spread = "" if summary["std_return"] is None else f" ± {summary['std_return']:.2f}"
        console.print(
            f"mean return {summary['mean_return']:.2f}{spread}, mean length {summary['mean_length']:.1f} "
            f"(last {summary['of_last_episodes']} episodes)"
        )
    speed = summary["steps"] / summary["seconds"] if summary["seconds"] else 0
    count = summary["iterations"]
    chosen = "".join(f" ({value})" for value in (getattr(result.run.environment, "resolved", None) or {}).values())
    console.print(
        f"{summary['environment']}{chosen}: {count} iteration{'s' * (count != 1)}, {summary['steps']:,} steps in "
        f"{summary['seconds']:.2f} s ({speed:,.0f} steps/s)"
    )
    if summary["stopped"]:
        console.print(f"stopped: {'; '.join(summary['stopped'])}", soft_wrap=True)
    if summary["record"]:
        console.print(f"record: {summary['record']}", soft_wrap=True)
