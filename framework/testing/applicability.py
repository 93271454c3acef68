"""Why a law does not apply to a part, from the part's claims, needs and settings."""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from ..errors import FrameworkError
from .law import Subject

Reason = Callable[[Subject], str | None]  # why a law does not apply to a part; None: it applies


def claims(word: str) -> Reason:
    """The law applies only to parts that make this claim."""
    return lambda subject: None if subject.declares("claims", word) else f"it does not claim '{word}'"


def needs(word: str) -> Reason:
    """The law applies only to parts that need this."""
    return lambda subject: None if subject.declares("needs", word) else f"it does not need {word}"


def settings_named(*names: str, also: Sequence[Reason] = (), **limit: Any) -> Reason:
    """The law applies only to parts whose settings of these names allow these limits, if `also` has no objection."""

    def reason(subject: Subject) -> str | None:
        missing = [name for name in names if not hasattr(subject.settings, name)]
        if missing:
            return f"it has no setting '{missing[0]}'"
        for other_reason in also:
            if (why := other_reason(subject)) is not None:
                return why
        limits = " and ".join(f"{name} = {value:g}" for name, value in limit.items())
        return None if allows(subject, **limit) else f"its settings do not allow {limits}"

    return reason


def set_to(subject: Subject, **settings: Any) -> Subject:
    """The same part with changed settings."""
    return evolve(subject, part=evolve(subject.part, settings=evolve(subject.settings, **settings)))


def allows(subject: Subject, **settings: Any) -> bool:
    """Whether the validators of the part's settings accept this change."""
    try:
        set_to(subject, **settings)
    except (ValueError, TypeError, FrameworkError):
        return False
    return True
