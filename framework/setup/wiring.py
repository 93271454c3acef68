"""What parts need of each other: read from their settings, refused before the first step where it does not fit.

`hookspecs.Declarations` has what settings may declare, and the words for it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..config import DEFAULTS, PART_ROLES, Config
from ..errors import UsageError, unknown
from ..hookspecs import CLAIMS, GIVES, NEEDS
from ..kinds import shown
from ..parts import Loaded, Part
from .optimizers import options

GIVER = {"values": "policy", "groups": "environment"}


def words(part: Part, attribute: str, allowed: Iterable[str]) -> frozenset[str]:
    """The words that a part's settings declare; an unknown one is a `UsageError`."""
    declared = _declared(part, attribute, ())
    plain = isinstance(declared, Iterable) and not isinstance(declared, str | Mapping)
    listed = tuple(declared) if plain else ()
    if not plain or not all(isinstance(word, str) for word in listed):
        raise UsageError(f"{part.label}: {attribute} must be a set of words, got {shown(declared)}")
    declared = listed
    for word in declared:
        if word not in allowed:
            raise UsageError(f"{part.label}: {unknown(f'word for {attribute}', word, allowed)}")
    return frozenset(declared)


def wire(config: Config, loaded: Loaded, chosen: Iterable[str] = (), valued: bool = False) -> Config:
    """Apply what parts imply, then refuse a combination that cannot work.

    Args:
        config: as configured.
        loaded: the plugins, to take an implied part from and to offer better ones in the message.
        chosen: the roles whose part was chosen on purpose; the others hold defaults, which may give way.
        valued: values are given, and none are learnt: who gives them, and whether a loss trains a critic, is all one.

    Raises:
        UsageError: with the reason and the fix.
    """
    options(config.optimizer)
    observers = [part.name for part in (*config.extensions, *config.reports)]
    for name in observers:
        if observers.count(name) > 1:
            raise UsageError(f"extension '{name}' is chosen twice, in extensions or reports: leave one of them out")
    config = imply(config, loaded, chosen)
    given = {word for part in config.parts for word in words(part, "gives", GIVES)} | {"entropies", "directory"}
    if config.rollout.fixed_steps is None:
        given.add("complete_episodes")
    if valued:
        given.add("values")
    for part in config.parts:
        for word in sorted(words(part, "needs", NEEDS) - given):
            raise UsageError(_refusal(part, word, config, loaded))
    bootstraps, trained = ("values" in words(part, "needs", NEEDS) for part in (config.estimator, config.loss))
    if bootstraps and not trained and not valued:
        losses = [name for name in loaded.names("loss") if _declares(loaded, "loss", name, "needs", "values")]
        others = [n for n in loaded.names("estimator") if not _declares(loaded, "estimator", n, "needs", "values")]
        raise UsageError(
            f"estimator '{config.estimator.name}' bootstraps from the critic, and loss '{config.loss.name}' trains "
            f"none: choose a loss that does ({', '.join(losses) or 'none is installed'}) "
            f"or an estimator that needs none ({', '.join(others)})"
        )
    return config


def imply(config: Config, loaded: Loaded, chosen: Iterable[str] = ()) -> Config:
    """Take the parts that others imply for roles that were not chosen; refuse a contradiction. As in `wire`."""
    implied: dict[str, Part] = {}  # role → the part that implies one for it
    waiting = list(config.parts)
    while waiting:
        part = waiting.pop(0)
        words(part, "claims", CLAIMS)
        wanted = _declared(part, "implies", {})
        if not isinstance(wanted, Mapping):
            raise UsageError(f"{part.label}: implies must be a dict from role to name, got {shown(wanted)}")
        for role, name in wanted.items():
            if role not in PART_ROLES:
                raise UsageError(f"{part.label}: implies a part for '{role}', which is no role")
            if not isinstance(name, str):
                raise UsageError(f"{part.label}: implies must name a {role}, got {shown(name)}")
            plugin, name, cls = loaded.pick(role, name)
            current: Part = getattr(config, role)
            if (current.name, current.plugin) != (name, plugin):
                if role in chosen:
                    raise UsageError(
                        f"{part.label} implies {role} '{name}', and {role} '{current.name}' is chosen: "
                        f"leave {role} out, or choose another {part.role}"
                    )
                if role in implied:
                    raise UsageError(
                        f"{part.label} implies {role} '{name}', and {implied[role].label} implies '{current.name}': "
                        f"choose another {part.role} or {implied[role].role}"
                    )
                taken = Part(role, name, plugin, cls())
                changed: dict[str, Any] = {role: taken}
                config = attrs.evolve(config, **changed)
                waiting.append(taken)
            implied[role] = part
    return config


def _declared(part: Part, attribute: str, default: Any) -> Any:
    """What a part's settings say of themselves; it may be a property, and raise."""
    try:
        return getattr(part.settings, attribute, default)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"{part.label}: {attribute} raised {type(error).__name__}: {error}") from error


def needed(config: Config) -> frozenset[str]:
    """All that the chosen parts need."""
    return frozenset(word for part in config.parts for word in words(part, "needs", NEEDS))


def chosen_roles(*trees: Any) -> set[str]:
    """The roles whose part a tree (of a recipe, file or flags) names, other than by repeating the default."""
    return {role for tree in trees for role in DEFAULTS if isinstance(tree.get(role), dict) and "name" in tree[role]}


def _refusal(part: Part, word: str, config: Config, loaded: Loaded) -> str:
    others = [name for name in loaded.names(part.role) if not _declares(loaded, part.role, name, "needs", word)]
    without = f" or {_article(part.role)} that needs none ({', '.join(others)})" if others else ""
    if word == "complete_episodes":
        return (
            f"{part.label.split(' (')[0]} needs complete episodes, and rollout.fixed_steps cuts them: "
            f"use rollout.steps or rollout.episodes{without}"
        )
    role = GIVER[word]
    givers = [name for name in loaded.names(role) if _declares(loaded, role, name, "gives", word)]
    giver = f"choose {_article(role)} that gives them ({', '.join(givers) or 'none does with its default settings'})"
    other = f"{role} '{getattr(config, role).name}'"
    return f"{part.role} '{part.name}' needs {word}, and {other} gives none: {giver}{without}"


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"


def _declares(loaded: Loaded, role: str, name: str, attribute: str, word: str) -> bool:
    """Whether some plugin's part of this name, with default settings, declares a word."""
    for cls in loaded.offers[role][name].values():
        try:
            if word in getattr(cls(), attribute, ()):
                return True
        except KeyboardInterrupt:
            raise
        except BaseException:  # settings without defaults declare nothing before they are made
            continue
    return False
