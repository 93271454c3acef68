"""Numbers that occur in float32."""

import torch
from attrs import evolve
from hypothesis import strategies as st

from ..law import Broken, Subject, law
from ..steps import Steps, evaluate_loss, require_close, step_cases

LARGE = st.sampled_from([0.0, 20.0, 10.0, -10.0, -20.0, -100.0, -1000.0, -10000.0])
RARE = st.sampled_from([0.0, -200.0])  # as of one of many numbers, or of many at once


@st.composite
def extreme_ratios(draw: st.DrawFn, subject: Subject) -> Steps:
    """Steps that the policy that acted chose often or hardly ever, and the one that is learnt hardly ever or often."""
    steps = draw(step_cases(subject))
    log_ratios = tuple(draw(LARGE) for _ in range(len(steps)))
    return evolve(
        steps, log_ratios=log_ratios, log_probs=tuple(min(0.0, log_ratio) + draw(RARE) for log_ratio in log_ratios)
    )


@law(
    "loss",
    source="Markov's inequality: E ρ = 1 under the policy that acted, so P(ρ ≥ e²⁰) ≤ e⁻²⁰",
    cases=extreme_ratios,
)
def losses_are_finite_for_log_ratios_that_occur(subject: Subject, steps: Steps) -> None:
    """In float32, terms and gradients are finite for log-ratios from −10,000, as of a normal distribution far out, to
    20, which one action in 5·10⁸ exceeds: never π/π_old of probabilities that are 0.
    """
    result = evaluate_loss(subject, steps, torch.float32)
    columns = {"loss": result.per_step()}
    for name in ("log_probs", "values", "entropies"):
        if getattr(result.evaluation, name) is not None:
            columns[f"gradient by {name}"] = result.gradient(name)
    for name, numbers in columns.items():
        if not torch.isfinite(numbers).all():
            b = int((~torch.isfinite(numbers)).nonzero()[0])
            raise Broken(f"{name} of step {b}", expected="finite", got=float(numbers[b]), case=steps.rows(**columns))


@law("loss", cases=step_cases)
def losses_in_float32_are_near_float64(subject: Subject, steps: Steps) -> None:
    """Terms, up to 1e-5 of their size: some ten operations that are each rounded by 6e-8, on numbers that both hold."""
    single, double = (evaluate_loss(subject, steps, dtype).per_step() for dtype in (torch.float32, torch.float64))
    require_close("float32", double, single, steps, 1e-5)
