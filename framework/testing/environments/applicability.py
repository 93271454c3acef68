"""Why a law does not concern an environment."""

from collections.abc import Callable

from ..law import Subject
from .randomness import is_stochastic
from .stepping import lane_counts, make_environment


def is_deterministic(subject: Subject) -> str | None:
    """It is no world without chance."""
    return "leaves something to chance" if is_stochastic(subject) else None


def is_random(subject: Subject) -> str | None:
    """It is a world without chance."""
    return None if is_stochastic(subject) else "leaves nothing to chance"


def several_lanes(subject: Subject) -> str | None:
    """It has but one lane."""
    return None if max(lane_counts(subject)) > 1 else "cannot be built for several lanes"


def has_members(*names: str) -> Callable[[Subject], str | None]:
    """Why an environment without these members is not concerned."""

    def reason(subject: Subject) -> str | None:
        with make_environment(subject, lane_counts(subject)[0]) as environment:
            missing = [name for name in names if getattr(environment, name, None) is None]
        return f"has no {missing[0]}" if missing else None

    return reason
