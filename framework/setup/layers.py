"""Layers of a configuration, put together as plain dicts: defaults, a recipe, a file, flags or Python's arguments."""

from collections.abc import Mapping, Sequence
from typing import Any

Tree = dict[str, Any]

PART_ROLES = ("environment", "policy", "estimator", "baseline", "loss")
COLLECT = ("steps", "episodes", "fixed_steps")  # the ways to collect, of which there is one
LENGTHS = ("iterations", "steps")  # what ends a run


def merge(*layers: Mapping[str, Any]) -> Tree:
    """Later layers win, key by key; one that names a different part drops the lower layers' settings of that role.

    Extensions that a layer names are added to those of the layers below; `name = false` takes one out again.

    >>> merge({"estimator": {"name": "gae", "lam": 0.9}}, {"estimator": {"name": "rewards_to_go"}})
    {'estimator': {'name': 'rewards_to_go'}}
    >>> merge({"extensions": {"names": ["a", "b"]}}, {"extensions": {"names": ["c"], "a": False}})
    {'extensions': {'names': ['b', 'c'], 'a': False}}
    """
    merged: Tree = {}
    for layer in layers:
        if any(_is_given(layer, name) for name in LENGTHS):
            merged = {key: value for key, value in merged.items() if key not in LENGTHS}
        for key, value in layer.items():
            below = merged.get(key)
            if not isinstance(value, Mapping):
                merged[key] = value
                continue
            below = dict(below) if isinstance(below, Mapping) else {}
            if key in PART_ROLES and value.get("name", below.get("name")) != below.get("name"):
                below = {}
            if key == "rollout" and any(_is_given(value, name) for name in COLLECT):
                below = {name: number for name, number in below.items() if name not in COLLECT}
            if key == "optimizer" and value.get("name", below.get("name")) != below.get("name"):
                below.pop("options", None)
            merged[key] = _extended(below, value) if key == "extensions" else deepened(below, value)
        _drop_left_out(merged, layer)
    return merged


def _is_given(section: Mapping[str, Any], key: str) -> bool:
    return key in section and section[key] is not None and section[key] != "None"


def deepened(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """A table over another: the upper one's keys win, and tables in both are put together likewise."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(lower, Mapping)
        merged[key] = deepened(lower, value) if both else value  # type: ignore[arg-type]
    return merged


def _extended(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """A layer's table of extensions over that of the layers below: its names are added, and those with false go."""
    merged = deepened(below, above)
    lower, names = below.get("names", ()), above.get("names", ())
    if not (isinstance(names, list | tuple) and isinstance(lower, list | tuple)):
        return merged  # refused by `configure`
    added = [*names, *(name for name, value in above.items() if value is True)]
    out = [name for name, value in above.items() if value is False]
    listed = [*lower, *(name for name in added if name not in lower)]
    if added or "names" in merged:
        merged["names"] = listed = [name for name in listed if str(name).rpartition(":")[2] not in out]
    return {key: value for key, value in merged.items() if value is not True and not (value is False and key in listed)}


def _drop_left_out(merged: Tree, layer: Mapping[str, Any]) -> None:
    """Where a layer lists other reports, the lower layers' settings of those left out go, too."""
    section, mine = merged.get("extensions"), layer.get("extensions", {})
    if "reports" not in layer or not isinstance(section, Mapping) or not isinstance(mine, Mapping):
        return
    kept = ["names", *_listed(section.get("names")), *_listed(merged.get("reports")), *mine]
    merged["extensions"] = {key: value for key, value in section.items() if key in kept or value is False}


def _listed(names: Any) -> Sequence[str]:
    return names if isinstance(names, list | tuple) else ()
