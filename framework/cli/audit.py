"""`framework audit`: bias and variance of the gradient that estimators, baselines and losses make, by the numbers."""

import csv
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import torch
import tyro
from attrs import field, frozen, validators

from ..audit import Audit, audit, objective
from ..audit.gradients import finite_spaces
from ..audit.samples import Audited
from ..bars import Bar
from ..config import RolloutSettings, validate
from ..errors import UsageError
from ..plugins import Loaded, Part
from ..record import read_config, read_policy
from ..run import Run, blamed, build, build_environment, choose_device, close, judges, owners
from ..training import Core
from ..wiring import NEEDS, needed, words
from .options import HELP, Resolved, is_terminal, resolve

JUDGES = ("estimator", "baseline", "loss")
FLAGS = ("environment", "policy", *JUDGES, "seed", "device", "threads")
FROM_RECORD = ("plugins", *FLAGS)
DESCRIPTION = (
    "Sample gradients at one fixed policy, and say of each combination how far their mean lies from the exact gradient "
    "(bias) and how much they scatter (variance). --estimator, --baseline and --loss take lists: a,b,c; a setting such "
    "as --estimator.gamma is that of all that have it. The policy is that of the record RUN, where one is named, else "
    "an untrained one: over finite spaces a table of logits, all 0, which is uniform. Only what reaches the "
    "log-probs counts: entropy bonus, critic, extensions and optimizer play no part."
)


@frozen
class Extra:
    """Flags of `audit` alone."""

    episodes: Annotated[int, tyro.conf.arg(help="whole episodes, the same ones for all combinations")] = field(
        default=100_000, validator=validators.ge(1)
    )
    batch: Annotated[int, tyro.conf.arg(help="episodes that one gradient is made of, as in an update")] = field(
        default=16, validator=validators.ge(1)
    )
    critic: Annotated[
        Literal["exact", "policy"], tyro.conf.arg(help="whose V(s) parts are given: the exact one, or the policy's own")
    ] = field(default="exact", validator=validators.in_(("exact", "policy")))
    out: Annotated[Path, tyro.conf.arg(help="PATH.csv and PATH.png are written", metavar="PATH")] = Path("audit")


@frozen(eq=False)
class Words:
    """A command's words, sorted: lists of names and settings of the three roles, and the rest."""

    rest: list[str]
    names: dict[str, list[str]]
    settings: dict[str, list[list[str]]]  # of each flag, itself and its values

    @classmethod
    def sorted(cls, arguments: Sequence[str]) -> "Words":
        """Take `--estimator a,b`, `--estimator.gamma 1` and the like from the others."""
        rest: list[str] = []
        names: dict[str, list[str]] = {}
        settings: dict[str, list[list[str]]] = {role: [] for role in JUDGES}
        left = list(arguments)
        while left:
            word = left.pop(0)
            flag, given, value = word.partition("=")
            role, _, setting = flag.removeprefix("--").partition(".")
            if not flag.startswith("--") or role not in JUDGES:
                rest.append(word)
            elif setting:
                settings[role].append([word])
                while left and not left[0].startswith("--"):
                    settings[role][-1].append(left.pop(0))
            elif given or left:
                listed = value if given else left.pop(0)
                names[role] = list(dict.fromkeys(name for name in listed.split(",") if name))
            else:
                rest.append(word)  # without a value: refused like any other flag
        return cls(rest, names, settings)

    def of(self, chosen: Mapping[str, str], loaded: Loaded | None = None) -> list[str]:
        """The words that configure these names; of settings, once parts are `loaded`, those that theirs have."""
        made = list(self.rest)
        for role, name in chosen.items():
            made += [f"--{role}", name]
        for role, flags in self.settings.items():
            for flag in flags:
                owned = (
                    [] if loaded is None else [one for one in self.names.get(role, ()) if _has(loaded, role, one, flag)]
                )
                if loaded is None or role not in chosen or chosen[role] in owned or not owned:
                    made += flag
        return made


def _has(loaded: Loaded, role: str, name: str, flag: list[str]) -> bool:
    setting = flag[0].partition("=")[0].split(".")[1].replace("-", "_")
    fields = attrs.fields_dict(loaded.pick(role, name)[2])
    return setting in fields or setting.removeprefix("no_") in fields


@frozen(eq=False)
class Combination:
    """Names of an estimator, a baseline and a loss, and how they are wired or why they are not."""

    names: dict[str, str]
    resolved: Resolved | None
    refused: str = ""


def main(arguments: Sequence[str]) -> int:
    """Audit; exit code 0."""
    given = list(arguments)
    named = bool(given) and not given[0].startswith("-")
    directory = Path(given.pop(0)) if named else None
    below = {} if directory is None else {k: v for k, v in read_config(directory).items() if k in FROM_RECORD}
    combinations = wired(given, below)
    kept = [one for one in combinations if one.resolved is not None]
    if not kept:
        raise UsageError(
            "no combination can be wired: " + "; ".join(dict.fromkeys(one.refused for one in combinations))
        )
    assert kept[0].resolved is not None
    extra: Extra = kept[0].resolved.extra
    if not extra.out.parent.is_dir():
        raise UsageError(f"{extra.out} cannot be written: there is no folder {extra.out.parent}")
    runs = built([one.resolved for one in kept if one.resolved is not None], extra.batch)
    first = runs[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(first.config.threads)
    bar = Bar("episode", extra.episodes)
    try:
        if directory is not None:
            read_policy(directory, first.policy)
        found = audit(runs, episodes=extra.episodes, critic=extra.critic, told=bar.show)
    except Exception as error:
        named_error = blamed(first, error)
        raise named_error from named_error.__cause__
    finally:
        bar.stop()
        torch.set_num_threads(threads)
        first.close()
    summary = summarised(found, runs, kept, [one for one in combinations if one.resolved is None])
    summary["policy"] = first.config.policy.name if directory is None else str(directory)
    summary |= {"csv": str(extra.out) + ".csv", "picture": str(extra.out) + ".png"}
    _write(summary)
    if is_terminal():
        from .audit_table import show

        show(summary)
    else:
        print(json.dumps(summary))
    return 0


def wired(arguments: Sequence[str], below: Mapping[str, Any]) -> list[Combination]:
    """Every combination of the lists, wired as a run's parts would be; the first that is there decides of flags."""
    sorted_words = Words.sorted([word for word in arguments if word not in HELP])
    plain = resolve("audit", DESCRIPTION, sorted_words.rest, Extra, below, FLAGS)
    validate("", plain.extra)
    names = {
        role: [_qualified(plain.loaded, role, name) for name in sorted_words.names[role]] for role in sorted_words.names
    }
    if "policy" not in below and "tabular" in plain.loaded.names("policy") and _is_finite(plain):
        below = {**below, "policy": {"name": "tabular"}}
    if set(HELP) & set(arguments):  # help: the first combination's flags, and exit
        first = {role: listed[0] for role, listed in names.items()}
        resolve("audit [RUN]", DESCRIPTION, [*sorted_words.of(first, plain.loaded), "--help"], Extra, below, FLAGS)
    found = []
    for chosen in itertools.product(*names.values()):
        combination = dict(zip(names, chosen, strict=True))
        refused, resolved = "", None
        try:
            flags = sorted_words.of(combination, plain.loaded)
            resolved = resolve("audit", DESCRIPTION, flags, Extra, below, FLAGS)
        except UsageError as error:
            refused = str(error)
        taken = plain if resolved is None else resolved
        every = {role: combination.get(role, getattr(taken.config, role).name) for role in JUDGES}
        found.append(Combination(every, resolved, refused))
    return found


def _qualified(loaded: Loaded, role: str, name: str) -> str:
    """The name itself, once it is known."""
    loaded.pick(role, name)
    return name


def _is_finite(resolved: Resolved) -> bool:
    config = resolved.config
    environment = build_environment(config.environment, resolved.extra.batch, choose_device(config.device))
    try:
        return finite_spaces(environment) is not None
    finally:
        close(environment)


def built(resolved: Sequence[Resolved], batch: int) -> list[Run]:
    """A run for each combination; environment and policy are made once."""
    rollout = RolloutSettings(lanes=batch, episodes=batch)
    configs = [attrs.evolve(one.config, extensions=(), reports=(), rollout=rollout) for one in resolved]
    first = build(configs[0], resolved[0].loaded, Core())
    runs = [first]
    for config in configs[1:]:
        working = judges(config)
        first.owners |= owners(config, working)
        working |= {"needs": needed(config), "loss_needs": words(config.loss, "needs", NEEDS)}
        runs.append(attrs.evolve(first, config=config, **working))
    return runs


def summarised(
    found: Audit, runs: Sequence[Run], kept: Sequence[Combination], refused: Sequence[Combination]
) -> dict[str, Any]:
    """All that there is to say, as JSON has it."""
    first = runs[0].config
    rows = [_row(one, run.config.estimator, audited) for one, run, audited in zip(kept, runs, found.rows, strict=True)]
    episodes = found.rows[0].batches * found.rows[0].episodes
    return {
        "environment": first.environment.name,
        "policy": first.policy.name,
        "seed": first.seed,
        "episodes": episodes,
        "batch": found.rows[0].episodes,
        "parameters": len(found.rows[0].mean),
        "critic": found.critic,
        "missing": found.missing,
        "seconds": round(found.seconds, 3),
        "episodes_per_second": round(episodes * len(rows) / found.seconds),
        "combinations": rows,
        "refused": [{**one.names, "reason": one.refused} for one in refused],
    }


def _row(combination: Combination, estimator: Part, audited: Audited) -> dict[str, Any]:
    kind, gamma = objective(estimator.settings)
    known = audited.gradient is not None
    numbers: dict[str, float | None] = {
        "bias": audited.bias,
        "noise": audited.noise,
        "relative_bias": audited.relative_bias,
        "expected_bias": audited.expected_bias,
        "biased": audited.is_biased,
        "gradient": None if audited.gradient is None else float(audited.gradient.norm()),
        "variance": audited.variance,
        "variance_error": audited.variance_error,
        "mean_squared_error": audited.mean_squared_error,
        "signal_to_noise": audited.signal_to_noise,
        "cosine": audited.cosine,
        "batch_cosine": audited.batch_cosine,
        "steps": audited.steps,
        "seconds": audited.seconds,
    }
    told = {name: None if number is None or math.isnan(number) else number for name, number in numbers.items()}
    return {**combination.names, "objective": kind if known else None, "gamma": gamma if known else None, **told}


def _write(summary: Mapping[str, Any]) -> None:
    """The CSV file and the picture."""
    from .audit_picture import draw

    rows = [*summary["combinations"], *({**row, "refused": row["reason"]} for row in summary["refused"])]
    columns = [*summary["combinations"][0], "refused"]
    try:
        with open(summary["csv"], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        draw(summary).savefig(summary["picture"], dpi=150)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from None
