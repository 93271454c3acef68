"""The combinations that `framework audit` compares: parses the arguments, and wires and builds each combination."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import tyro
from attrs import field, frozen, validators

from ..audit.gradients import finite_spaces
from ..config import RolloutSettings
from ..errors import UsageError
from ..guards.process_state import working
from ..hookspecs import NEEDS
from ..parts import Loaded
from ..records.provenance import imports
from ..records.reading import Recorded
from ..run import Run
from ..setup.building import (
    build,
    build_environment,
    build_learning_parts,
    choose_device,
    close,
    closed_on_error,
    labels_of,
)
from ..setup.tree import validate
from ..setup.wiring import needed, words
from ..stages import Core
from .consent import UnresolvedError
from .help import HELP
from .options import Resolved, resolve

COMPARED = ("estimator", "baseline", "loss")
FLAGS = ("environment", "policy", *COMPARED, "seed", "device", "threads")
DESCRIPTION = (
    "Sample gradients of one fixed policy, and report for each combination of estimator, baseline and loss how far "
    "their mean lies from the exact gradient (bias) and how much they vary (variance).\n\n"
    "--estimator, --baseline and --loss take lists: a,b,c. A setting such as --estimator.gamma applies to every "
    "estimator that has it. The policy is that of the record RUN, if you name one; otherwise an untrained one, in "
    "finite spaces the uniform policy. The gradient is that of the log-probabilities alone: without entropy bonus and "
    "critic, and before the optimizer."
)


@frozen
class Extra:
    """Flags of `audit` alone."""

    episodes: Annotated[int, tyro.conf.arg(help="number of whole episodes, the same for all combinations")] = field(
        default=100_000, validator=validators.ge(1)
    )
    batch: Annotated[int, tyro.conf.arg(help="number of episodes per gradient, as in an update")] = field(
        default=16, validator=validators.ge(1)
    )
    critic: Annotated[
        Literal["exact", "policy"],
        tyro.conf.arg(help="source of V(s): exact values, or the policy's critic"),
    ] = field(default="exact", validator=validators.in_(("exact", "policy")))
    out: Annotated[
        Path,
        tyro.conf.arg(help="path of PATH.csv and PATH.png, the results", metavar="PATH"),
    ] = Path("audit")


@frozen(eq=False)
class SplitArguments:
    """The command's arguments, split into names and settings of the three compared roles, and the rest."""

    rest: list[str]
    names: dict[str, list[str]]
    settings: dict[str, list[list[str]]]  # by role: each flag with its values

    @classmethod
    def split(cls, arguments: Sequence[str]) -> "SplitArguments":
        """Separate arguments such as `--estimator a,b` and `--estimator.gamma 1` from the rest."""
        rest: list[str] = []
        names: dict[str, list[str]] = {}
        settings: dict[str, list[list[str]]] = {role: [] for role in COMPARED}
        remaining = list(arguments)
        while remaining:
            argument = remaining.pop(0)
            flag, equals, value = argument.partition("=")
            role, _, setting = flag.removeprefix("--").partition(".")
            if not flag.startswith("--") or role not in COMPARED:
                rest.append(argument)
            elif setting:
                settings[role].append([argument])
                while remaining and not remaining[0].startswith("--"):
                    settings[role][-1].append(remaining.pop(0))
            elif equals or remaining:
                value_list = value if equals else remaining.pop(0)
                names[role] = list(dict.fromkeys(name for name in value_list.split(",") if name))
            else:
                rest.append(argument)  # without a value: refused like any other flag
        return cls(rest, names, settings)

    def of(self, chosen: Mapping[str, str], loaded: Loaded | None = None) -> list[str]:
        """The arguments for these names; once parts are `loaded`, only the settings that they have."""
        arguments = list(self.rest)
        for role, name in chosen.items():
            arguments += [f"--{role}", name]
        for role, flags in self.settings.items():
            for flag in flags:
                owners = (
                    []
                    if loaded is None
                    else [
                        candidate
                        for candidate in self.names.get(role, ())
                        if _has_setting(loaded, role, candidate, flag)
                    ]
                )
                if loaded is None or role not in chosen or chosen[role] in owners or not owners:
                    arguments += flag
        return arguments


def _has_setting(loaded: Loaded, role: str, name: str, flag: list[str]) -> bool:
    setting = flag[0].partition("=")[0].split(".")[1].replace("-", "_")
    fields = attrs.fields_dict(loaded.pick(role, name)[2])
    return setting in fields or setting.removeprefix("no_") in fields


@frozen(eq=False)
class Combination:
    """Names of an estimator, a baseline and a loss, with the wired configuration or the reason for refusal."""

    names: dict[str, str]
    resolved: Resolved | None
    refused: str = ""


def resolve_combinations(
    arguments: Sequence[str], record_settings: Mapping[str, Any], record: Recorded | None = None
) -> list[Combination]:
    """Every combination of the lists, wired as in a run.

    `record` is the source of `record_settings`.
    """
    split_arguments = SplitArguments.split([word for word in arguments if word not in HELP])
    wants_help = bool(set(HELP) & set(arguments))

    def resolve_arguments(args: Sequence[str], command: str = "audit [RUN]") -> Resolved:
        return resolve(command, DESCRIPTION, args, Extra, record_settings, FLAGS, True, record, imports=not wants_help)

    try:
        plain = resolve_arguments(split_arguments.rest)
    except UnresolvedError:  # help then leaves the record out
        resolve_arguments([*split_arguments.rest, "--help"])
        raise
    if plain.trusted:
        split_arguments.rest.append("--trust")  # do not ask the user again
    validate("", plain.extra)
    names = {
        role: [_known_name(plain.loaded, role, name) for name in split_arguments.names[role]]
        for role in split_arguments.names
    }
    if "policy" not in record_settings and "tabular" in plain.loaded.names("policy") and _is_finite(plain, wants_help):
        record_settings = {**record_settings, "policy": {"name": "tabular"}}
    if wants_help:  # the first combination's flags, and exit
        first = {role: listed[0] for role, listed in names.items()}
        resolve_arguments([*split_arguments.of(first, plain.loaded), "--help"])
    combinations = []
    for chosen in itertools.product(*names.values()):
        combination = dict(zip(names, chosen, strict=True))
        refused, resolved = "", None
        try:
            flags = split_arguments.of(combination, plain.loaded)
            resolved = resolve_arguments(flags)
        except UsageError as error:
            refused = str(error)
        resolved_or_plain = plain if resolved is None else resolved
        all_names = {role: combination.get(role, getattr(resolved_or_plain.config, role).name) for role in COMPARED}
        combinations.append(Combination(all_names, resolved, refused))
    return combinations


def _known_name(loaded: Loaded, role: str, name: str) -> str:
    """The name, if a plugin offers it."""
    loaded.pick(role, name)
    return name


def _is_finite(resolved: Resolved, wants_help: bool) -> bool:
    config = resolved.config
    if wants_help and imports(config.environment):  # --help does not run foreign code
        return False
    with working(config.threads):
        environment = build_environment(config.environment, resolved.extra.batch, choose_device(config.device))
        try:
            return finite_spaces(environment) is not None
        finally:
            close(environment, config.environment.label)


def build_runs(resolved: Sequence[Resolved], batch: int) -> list[Run]:
    """A run for each combination; they share environment and policy."""
    rollout = RolloutSettings(lanes=batch, episodes=batch)
    configs = [attrs.evolve(combination.config, extensions=(), reports=(), rollout=rollout) for combination in resolved]
    first = build(configs[0], resolved[0].loaded, Core())
    runs = [first]
    with closed_on_error(first):
        for config in configs[1:]:
            with working(config.threads):
                learning_parts = build_learning_parts(config)
            first.labels |= labels_of(config, learning_parts)
            learning_parts |= {"needs": needed(config), "loss_needs": words(config.loss, "needs", NEEDS)}
            runs.append(attrs.evolve(first, config=config, **learning_parts))
    return runs
