"""Numbers that occur in float32."""

import torch
from attrs import evolve
from hypothesis import strategies as st

from ..law import Broken, Subject, law
from ..steps import Steps, ask, compare, steps

LARGE = st.sampled_from([0.0, 20.0, 10.0, -10.0, -20.0, -100.0, -1000.0, -10000.0])
RARE = st.sampled_from([0.0, -200.0])  # as of one of many numbers, or of many at once


@st.composite
def far(draw: st.DrawFn, subject: Subject) -> Steps:
    """Steps that the policy that acted chose often or hardly ever, and the one that is learnt hardly ever or often."""
    given = draw(steps(subject))
    moved = tuple(draw(LARGE) for _ in range(len(given)))
    return evolve(given, moved=moved, log_probs=tuple(min(0.0, move) + draw(RARE) for move in moved))


@law("loss", source="Markov's inequality: E ρ = 1 under the policy that acted, so P(ρ ≥ e²⁰) ≤ e⁻²⁰", cases=far)
def losses_are_finite_for_log_ratios_that_occur(subject: Subject, given: Steps) -> None:
    """In float32, terms and gradients are finite for log-ratios from −10,000, as of a normal distribution far out, to
    20, which one action in 5·10⁸ exceeds: never π/π_old of probabilities that are 0.
    """
    asked = ask(subject, given, torch.float32)
    found = {"loss": asked.each()}
    for name in ("log_probs", "values", "entropies"):
        if getattr(asked.evaluation, name) is not None:
            found[f"gradient by {name}"] = asked.gradients(name)
    for name, numbers in found.items():
        if not torch.isfinite(numbers).all():
            b = int((~torch.isfinite(numbers)).nonzero()[0])
            raise Broken(f"{name} of step {b}", expected="finite", got=float(numbers[b]), case=given.rows(**found))


@law("loss", cases=steps)
def losses_in_float32_are_near_float64(subject: Subject, given: Steps) -> None:
    """Terms, up to 1e-5 of their size: some ten operations that are each rounded by 6e-8, on numbers that both hold."""
    single, double = (ask(subject, given, dtype).each() for dtype in (torch.float32, torch.float64))
    compare("float32", double, single, given, 1e-5)
