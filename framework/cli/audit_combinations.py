"""The combinations that `framework audit` is asked for: its words, and each combination wired and built."""

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

JUDGES = ("estimator", "baseline", "loss")
FLAGS = ("environment", "policy", *JUDGES, "seed", "device", "threads")
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


def wired(arguments: Sequence[str], below: Mapping[str, Any], record: Recorded | None = None) -> list[Combination]:
    """Every combination of the lists, wired as a run's parts would be; the first that is there decides of flags.

    `record` is where `below` comes from.
    """
    sorted_words = Words.sorted([word for word in arguments if word not in HELP])
    helps = bool(set(HELP) & set(arguments))

    def resolved_of(words: Sequence[str], command: str = "audit [RUN]") -> Resolved:
        return resolve(command, DESCRIPTION, words, Extra, below, FLAGS, True, record, imports=not helps)

    try:
        plain = resolved_of(sorted_words.rest)
    except UnresolvedError:  # help then shows what there is without the record
        resolved_of([*sorted_words.rest, "--help"])
        raise
    if plain.trusted:
        sorted_words.rest.append("--trust")  # the user is not asked again
    validate("", plain.extra)
    names = {
        role: [_qualified(plain.loaded, role, name) for name in sorted_words.names[role]] for role in sorted_words.names
    }
    if "policy" not in below and "tabular" in plain.loaded.names("policy") and _is_finite(plain, helps):
        below = {**below, "policy": {"name": "tabular"}}
    if helps:  # the first combination's flags, and exit
        first = {role: listed[0] for role, listed in names.items()}
        resolved_of([*sorted_words.of(first, plain.loaded), "--help"])
    found = []
    for chosen in itertools.product(*names.values()):
        combination = dict(zip(names, chosen, strict=True))
        refused, resolved = "", None
        try:
            flags = sorted_words.of(combination, plain.loaded)
            resolved = resolved_of(flags)
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


def _is_finite(resolved: Resolved, helps: bool) -> bool:
    config = resolved.config
    if helps and imports(config.environment):  # no help is worth running somebody's code
        return False
    with working(config.threads):
        environment = build_environment(config.environment, resolved.extra.batch, choose_device(config.device))
        try:
            return finite_spaces(environment) is not None
        finally:
            close(environment, config.environment.label)


def built(resolved: Sequence[Resolved], batch: int) -> list[Run]:
    """A run for each combination; environment and policy are made once."""
    rollout = RolloutSettings(lanes=batch, episodes=batch)
    configs = [attrs.evolve(one.config, extensions=(), reports=(), rollout=rollout) for one in resolved]
    first = build(configs[0], resolved[0].loaded, Core())
    runs = [first]
    with closed_on_error(first):
        for config in configs[1:]:
            with working(config.threads):
                judging = build_learning_parts(config)
            first.labels |= labels_of(config, judging)
            judging |= {"needs": needed(config), "loss_needs": words(config.loss, "needs", NEEDS)}
            runs.append(attrs.evolve(first, config=config, **judging))
    return runs
