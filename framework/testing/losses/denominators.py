"""Laws of denominators: terms are per step, and the core divides them."""

from typing import Any

import torch
from hypothesis import strategies as st

from ...learning.batches import reduce
from ..law import Subject, law
from ..steps import CONSTANT, EPISODES, Steps, evaluate_loss, require_close, several_step_cases, step_cases


@law("loss", source="docs/reference/contracts.md#denominators", cases=several_step_cases)
def each_term_depends_on_its_step_only(subject: Subject, steps: Steps) -> None:
    """A step's terms do not depend on the other steps of the batch: losses take no mean, do not standardise over the
    batch, and do not broadcast [B] against [B, 1], which would mix the steps.
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
    """If the steps of a batch are permuted, as in shuffled minibatches, terms are permuted in the same way."""
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
    """With the denominators of the whole batch, losses and gradients of micro-batches sum to those of the batch:
    divided per step, per episode, and by a constant.
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
        require_close(f"{denominator}: micro-batches do not sum to the batch", whole, pieces, steps)
        for name, expected, got in zip(names, gradients[0], torch.cat(gradients[1:], 1), strict=True):
            require_close(f"{denominator}: gradient with respect to {name}", expected, got, steps)


@law("loss", source="docs/reference/contracts.md#denominators", cases=step_cases)
def losses_do_not_divide_by_the_totals(subject: Subject, steps: Steps) -> None:
    """Terms do not depend on total_steps and total_episodes: the core would divide a second time."""
    original = evaluate_loss(subject, steps)
    for totals in ((7 * len(steps), EPISODES), (len(steps), 7 * EPISODES)):
        require_close(
            "the terms depend on the denominators",
            original.per_step(),
            evaluate_loss(subject, steps, totals=totals).per_step(),
            steps,
        )
