"""Laws of precision: losses in float32."""

import torch
from attrs import evolve
from hypothesis import strategies as st

from ..law import Broken, Subject, law
from ..steps import Steps, evaluate_loss, require_close, step_cases

LARGE = st.sampled_from([0.0, 20.0, 10.0, -10.0, -20.0, -100.0, -1000.0, -10000.0])
RARE = st.sampled_from([0.0, -200.0])  # as for actions of many numbers


@st.composite
def extreme_ratios(draw: st.DrawFn, subject: Subject) -> Steps:
    """Steps with extreme log-ratios between the current policy and the one that acted."""
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
    """In float32, terms and gradients are finite for log-ratios from −10,000, as in the tail of a normal distribution,
    to 20, which one action in 5·10⁸ exceeds: ratios must not be computed from probabilities, which may round to 0.
    """
    result = evaluate_loss(subject, steps, torch.float32)
    columns = {"loss": result.per_step()}
    for name in ("log_probs", "values", "entropies"):
        if getattr(result.evaluation, name) is not None:
            columns[f"gradient with respect to {name}"] = result.gradient(name)
    for name, numbers in columns.items():
        if not torch.isfinite(numbers).all():
            b = int((~torch.isfinite(numbers)).nonzero()[0])
            raise Broken(f"{name} of step {b}", expected="finite", got=float(numbers[b]), case=steps.rows(**columns))


@law("loss", cases=step_cases)
def losses_in_float32_are_near_float64(subject: Subject, steps: Steps) -> None:
    """Terms in float32 equal those in float64 up to a relative error of 1e-5 (some ten operations, each with rounding
    errors of 6e-8, on numbers that are exact in both).
    """
    single, double = (evaluate_loss(subject, steps, dtype).per_step() for dtype in (torch.float32, torch.float64))
    require_close("float32", double, single, steps, 1e-5)
