"""Steps do not know each other, and the core divides."""

from typing import Any

import torch
from hypothesis import strategies as st

from ...learning.batches import reduce
from ..law import Subject, law
from ..steps import CONSTANT, EPISODES, Steps, evaluate_loss, require_close, several_step_cases, step_cases


@law("loss", source="docs/reference/contracts.md#denominators", cases=several_step_cases)
def each_term_depends_on_its_step_only(subject: Subject, steps: Steps) -> None:
    """A step's terms are the same alone as beside others: no mean, no standardising over the batch, no [B] against
    [B, 1], which would give every step all the others' numbers.
    """
    whole = evaluate_loss(subject, steps).loss.terms
    for b in range(len(steps)):
        for name, term in evaluate_loss(subject, steps.at([b])).loss.terms.items():
            together = whole[name].detach().double()
            alone = together.clone()
            alone[b] = float(term.detach())
            require_close(f"term '{name}' depends on other steps", alone, together, steps)


@law("loss", cases=lambda subject: st.tuples(several_step_cases(subject), st.randoms(use_true_random=False)))
def steps_of_a_loss_may_come_in_any_order(subject: Subject, case: tuple[Steps, Any]) -> None:
    """Minibatches are shuffled: terms of the same steps in another order are the same terms in that order."""
    steps, random = case
    order = random.sample(range(len(steps)), len(steps))
    permuted_steps = steps.at(order)
    original, permuted = evaluate_loss(subject, steps), evaluate_loss(subject, permuted_steps)
    for name, term in original.loss.terms.items():
        require_close(
            f"term '{name}'", term.detach().double()[order], permuted.loss.terms[name].detach().double(), permuted_steps
        )


@law("loss", source="docs/decisions/0007-denominators-of-minibatches.md", cases=several_step_cases)
def losses_of_micro_batches_add_up(subject: Subject, steps: Steps) -> None:
    """With the whole batch's denominators, the losses and gradients of its pieces sum to its own: per step, per
    episode, and by a constant.
    """
    totals = (len(steps), EPISODES)
    micro_batches = ([0], list(range(1, len(steps))))
    for denominator in ("per_step", "per_episode", "constant"):
        sums, gradients = [], []
        for index in (range(len(steps)), *micro_batches):
            result = evaluate_loss(subject, steps.at(index), totals=totals)
            total = torch.stack(list(reduce(result.loss, result.batch, denominator, CONSTANT).values())).sum()
            sums.append(total.detach().double())
            names = [name for name in ("log_probs", "values") if getattr(result.evaluation, name) is not None]
            gradients.append(torch.stack([result.gradient(name, total) for name in names]))
        whole, pieces = sums[0].expand(len(steps)), torch.stack(sums[1:]).sum().expand(len(steps))
        require_close(f"{denominator}: pieces do not sum to the whole", whole, pieces, steps)
        for name, expected, got in zip(names, gradients[0], torch.cat(gradients[1:], 1), strict=True):
            require_close(f"{denominator}: gradient by {name}", expected, got, steps)


@law("loss", source="docs/reference/contracts.md#denominators", cases=step_cases)
def losses_do_not_divide_by_the_totals(subject: Subject, steps: Steps) -> None:
    """Terms do not depend on total_steps and total_episodes: the configuration's denominator would count twice."""
    original = evaluate_loss(subject, steps)
    for totals in ((7 * len(steps), EPISODES), (len(steps), 7 * EPISODES)):
        require_close(
            "the terms depend on the denominators",
            original.per_step(),
            evaluate_loss(subject, steps, totals=totals).per_step(),
            steps,
        )
