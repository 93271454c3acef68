"""Steps do not know each other, and the core divides."""

from typing import Any

import torch
from hypothesis import strategies as st

from ...learning.batches import reduce
from ..law import Subject, law
from ..steps import CONSTANT, EPISODES, Steps, ask, compare, several, steps


@law("loss", source="docs/reference/contracts.md#denominators", cases=several)
def each_term_is_its_steps_own(subject: Subject, given: Steps) -> None:
    """A step's terms are the same alone as beside others: no mean, no standardising over the batch, no [B] against
    [B, 1], which would give every step all the others' numbers.
    """
    whole = ask(subject, given).loss.terms
    for b in range(len(given)):
        for name, term in ask(subject, given.at([b])).loss.terms.items():
            together = whole[name].detach().double()
            alone = together.clone()
            alone[b] = float(term.detach())
            compare(f"term '{name}' depends on other steps", alone, together, given)


@law("loss", cases=lambda subject: st.tuples(several(subject), st.randoms(use_true_random=False)))
def steps_of_a_loss_may_come_in_any_order(subject: Subject, case: tuple[Steps, Any]) -> None:
    """Minibatches are shuffled: terms of the same steps in another order are the same terms in that order."""
    given, random = case
    order = random.sample(range(len(given)), len(given))
    moved = given.at(order)
    one, other = ask(subject, given), ask(subject, moved)
    for name, term in one.loss.terms.items():
        compare(f"term '{name}'", term.detach().double()[order], other.loss.terms[name].detach().double(), moved)


@law("loss", source="docs/decisions/0007-denominators-of-minibatches.md", cases=several)
def losses_of_micro_batches_add_up(subject: Subject, given: Steps) -> None:
    """With the whole batch's denominators, the losses and gradients of its pieces sum to its own: per step, per
    episode, and by a constant.
    """
    totals = (len(given), EPISODES)
    cuts = ([0], list(range(1, len(given))))
    for denominator in ("per_step", "per_episode", "constant"):
        sums, pulls = [], []
        for index in (range(len(given)), *cuts):
            asked = ask(subject, given.at(index), totals=totals)
            total = torch.stack(list(reduce(asked.loss, asked.batch, denominator, CONSTANT).values())).sum()
            sums.append(total.detach().double())
            names = [name for name in ("log_probs", "values") if getattr(asked.evaluation, name) is not None]
            pulls.append(torch.stack([asked.gradients(name, total) for name in names]))
        whole, pieces = sums[0].expand(len(given)), torch.stack(sums[1:]).sum().expand(len(given))
        compare(f"{denominator}: pieces do not sum to the whole", whole, pieces, given)
        for name, one, other in zip(names, pulls[0], torch.cat(pulls[1:], 1), strict=True):
            compare(f"{denominator}: gradient by {name}", one, other, given)


@law("loss", source="docs/reference/contracts.md#denominators", cases=steps)
def the_core_alone_divides_losses(subject: Subject, given: Steps) -> None:
    """Terms do not depend on total_steps and total_episodes: the configuration's denominator would count twice."""
    one = ask(subject, given)
    for totals in ((7 * len(given), EPISODES), (len(given), 7 * EPISODES)):
        compare("the terms depend on the denominators", one.each(), ask(subject, given, totals=totals).each(), given)
