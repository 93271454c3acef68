"""Why a law does not concern an environment."""

from collections.abc import Callable

from ..law import Subject
from .randomness import leaves_to_chance
from .stepping import counts, lanes


def certain(subject: Subject) -> str | None:
    """It is no world without chance."""
    return "leaves something to chance" if leaves_to_chance(subject) else None


def uncertain(subject: Subject) -> str | None:
    """It is a world without chance."""
    return None if leaves_to_chance(subject) else "leaves nothing to chance"


def several(subject: Subject) -> str | None:
    """It has but one lane."""
    return None if max(counts(subject)) > 1 else "cannot be built for several lanes"


def has(*names: str) -> Callable[[Subject], str | None]:
    """Why an environment without these members is not concerned."""

    def reason(subject: Subject) -> str | None:
        with lanes(subject, counts(subject)[0]) as environment:
            missing = [name for name in names if getattr(environment, name, None) is None]
        return f"has no {missing[0]}" if missing else None

    return reason
