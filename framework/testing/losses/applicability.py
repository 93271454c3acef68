"""Why a law does not apply to a loss."""

import attrs

from ..applicability import Reason, allows, needs, set_to
from ..law import Subject
from ..steps import Steps, evaluate_loss
from ..variants import bounds

EXAMPLE_STEPS = Steps(  # both signs, small and large numbers
    advantages=(1.0, -1.0, 0.5, -0.5),
    log_probs=(-1.0, -0.5, -2.0, -1.5),
    log_ratios=(0.1, -0.1, 0.5, -0.5),
    entropies=(0.5, 1.0, 1.5, 2.0),
    values=(1.0, -1.0, 0.25, 2.0),
    value_changes=(0.5, -0.5, 0.05, -0.05),
    value_targets=(0.0, 0.0, 1.0, -1.0),
    returns=(1.0, -1.0, 0.5, -0.5),
)


def has_gradient_by(word: str) -> Reason:
    """Why a law about a gradient with respect to values or entropies does not apply: its coefficient may be 0."""

    def reason(subject: Subject) -> str | None:
        return needs(word)(subject) or (None if _has_gradient(subject, word) else _turned_off(subject, word))

    return reason


def _turned_off(subject: Subject, word: str) -> str | None:
    """The setting that is 0 or False, if a gradient exists with another value of it."""
    for field in attrs.fields(type(subject.settings)) if attrs.has(type(subject.settings)) else ():
        value = getattr(subject.settings, field.name)
        if not field.init or not isinstance(value, int | float) or value != 0:
            continue
        name, maximum = field.alias or field.name, bounds(field)[1]
        changed = {name: min(1.0, maximum / 2) if isinstance(value, float) else type(value)(1)}
        if allows(subject, **changed) and _has_gradient(set_to(subject, **changed), word):
            return f"{name} is {value}, which turns this off"
    return None


def _has_gradient(subject: Subject, word: str) -> bool:
    """Whether some step has a gradient with respect to values or entropies; True if the loss raises."""
    try:
        return bool(evaluate_loss(subject, EXAMPLE_STEPS).gradient(word).any())
    except Exception:
        return True


def values_matter(subject: Subject) -> str | None:
    """Why a law about the critic's term does not apply to a loss."""
    return None if subject.declares("needs", "values") or _has_gradient(subject, "values") else "it does not use values"


def has_metric(*names: str) -> Reason:
    """Why a law about metrics does not apply to a loss."""

    def reason(subject: Subject) -> str | None:
        try:
            known = evaluate_loss(subject, EXAMPLE_STEPS).loss.metrics
        except Exception:  # another law reports this
            known = {}
        return None if {*names} & {*known} else f"it has no metric {' or '.join(names)}"

    return reason
