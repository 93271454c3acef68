"""Laws of an iteration: stopping epochs early, and the metrics that this depends on."""

import math

from attrs import evolve
from hypothesis import strategies as st

from ..law import Broken, Subject, law
from ..steps import EXACT, Steps, evaluate_loss, step_cases
from .applicability import has_metric


@law("loss", source="Schulman et al. 2017, arXiv:1707.06347, algorithm 1", cases=step_cases)
def the_first_update_is_never_skipped(subject: Subject, steps: Steps) -> None:
    """stop_epochs is False while the policy equals the one that acted: otherwise nothing would ever be learned."""
    steps = steps.filled(log_ratios=0.0)
    if bool(evaluate_loss(subject, steps).loss.stop_epochs):
        raise Broken("stop_epochs before the policy has changed", expected=False, got=True, case=steps.rows())


@st.composite
def small_policy_changes(draw: st.DrawFn, subject: Subject) -> tuple[Steps, float]:
    """Steps with exactly the action frequencies of the policy that acted, for a slightly changed policy; and the KL."""
    counts = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    tilts = draw(st.lists(st.integers(-4, 4), min_size=len(counts), max_size=len(counts)))
    old = [count / sum(counts) for count in counts]
    weights = [p * math.exp(tilt / 40) for p, tilt in zip(old, tilts, strict=True)]
    new = [weight / sum(weights) for weight in weights]
    actions = [action for action, count in enumerate(counts) for _ in range(count)]
    steps = draw(step_cases(subject, most=1)).at([0] * len(actions))
    divergence = sum(p * math.log(p / q) for p, q in zip(old, new, strict=True))
    log_probs = tuple(math.log(new[a]) for a in actions)
    return evolve(steps, log_probs=log_probs, log_ratios=tuple(math.log(new[a] / old[a]) for a in actions)), divergence


@law(
    "loss",
    source="Schulman 2020, http://joschu.net/blog/kl-approx.html",
    cases=small_policy_changes,
    applies=has_metric("kl", "approx_kl"),
)
def a_metric_called_kl_is_the_kl_divergence(subject: Subject, case: tuple[Steps, float]) -> None:
    """Metrics `kl` and `approx_kl` equal KL(π_old ‖ π) up to 10 %, for a small change of the policy and a batch whose
    actions have the frequencies of π_old: this is what a KL limit is compared with. The usual three estimators pass.
    """
    steps, expected = case
    for name in ("kl", "approx_kl"):
        number = evaluate_loss(subject, steps).loss.metrics.get(name)
        if number is not None and abs(float(number) - expected) > 0.1 * expected + EXACT:
            raise Broken(f"metric '{name}'", expected=expected, got=float(number), case=steps.rows())
