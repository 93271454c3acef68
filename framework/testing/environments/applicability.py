"""Why a law does not apply to an environment."""

from collections.abc import Callable

from ..law import Subject
from .randomness import is_stochastic
from .stepping import lane_counts, make_environment


def is_deterministic(subject: Subject) -> str | None:
    """The law applies only to deterministic environments."""
    return "it is stochastic" if is_stochastic(subject) else None


def is_random(subject: Subject) -> str | None:
    """The law applies only to stochastic environments."""
    return None if is_stochastic(subject) else "it is deterministic"


def several_lanes(subject: Subject) -> str | None:
    """The law applies only to environments with several lanes."""
    return None if max(lane_counts(subject)) > 1 else "it cannot be built for several lanes"


def has_members(*names: str) -> Callable[[Subject], str | None]:
    """The law applies only to environments with these members."""

    def reason(subject: Subject) -> str | None:
        with make_environment(subject, lane_counts(subject)[0]) as environment:
            missing = [name for name in names if getattr(environment, name, None) is None]
        return f"it has no {missing[0]}" if missing else None

    return reason
