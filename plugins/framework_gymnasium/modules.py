"""The modules whose code an environment runs: those that settings name, and those of a registered id."""

from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from .settings import Gymnasium

GYM_IDS = (
    "GymV21Environment-v0",
    "GymV26Environment-v0",
)  # of the package gym, which imports a module that an id names


def named_modules(settings: "Gymnasium") -> tuple[str, ...]:
    """The modules that `id` and `wrappers` name, as module:id, module:function and module:Class."""
    names = [settings.id, *(wrapper.partition("(")[0] for wrapper in settings.wrappers)]
    if settings.id in GYM_IDS:
        names.append(str(settings.kwargs.get("env_id", "")))
    modules = [name.strip().rpartition(":")[0] for name in names]
    return tuple(dict.fromkeys(module for module in modules if module))


def registered_modules(settings: "Gymnasium") -> tuple[str, ...]:
    """The modules that a registered id runs: its environment's, its vectorised version's, its wrappers'."""
    spec = gymnasium.registry.get(settings.id.rpartition(":")[2])
    if spec is None:
        return ()
    points: list[Any] = [spec.entry_point, spec.vector_entry_point]
    points += [wrapper.entry_point for wrapper in spec.additional_wrappers]
    modules = [
        point.partition(":")[0] if isinstance(point, str) else getattr(point, "__module__", "") for point in points
    ]
    return tuple(dict.fromkeys(module for module in modules if module))
