"""Cases for laws of losses: batches of a few steps with random numbers, and the loss on them."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from attrs import evolve, fields, frozen
from hypothesis import strategies as st
from torch import Tensor

from ..contracts import Batch, Evaluation, Loss
from ..errors import PartError
from ..guards import checks
from .law import Broken, Subject
from .strategies import quarters

EXACT = 1e-9  # numbers up to 100 in float64 have rounding errors of 1e-14; real errors are far larger
EPISODES, CONSTANT = 2.0, 3.0  # denominators that differ from the number of steps

Column = tuple[float, ...]


@frozen
class Steps:
    """B steps of a batch, in columns of B numbers."""

    advantages: Column
    log_probs: Column  # of the current policy
    log_ratios: Column  # log-probs minus those of the policy that acted
    entropies: Column
    values: Column  # of the current critic
    value_changes: Column  # values minus those of the critic at collection time
    value_targets: Column
    returns: Column
    with_optional: bool = True  # False: values and entropies are None unless the loss needs them

    def __len__(self) -> int:
        """The number of steps B."""
        return len(self.advantages)

    def at(self, index: Iterable[int]) -> "Steps":
        """The steps at these positions."""
        chosen = list(index)
        columns: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in chosen) for name in COLUMNS}
        return evolve(self, **columns)

    def filled(self, **numbers: float) -> "Steps":
        """With columns that hold one number everywhere."""
        columns: dict[str, Any] = {name: (number,) * len(self) for name, number in numbers.items()}
        return evolve(self, **columns)

    def rows(self, **more: Any) -> tuple[Mapping[str, Any], ...]:
        """A table of the steps for reports; `more` are extra columns."""
        columns = {
            "advantage": self.advantages,
            "log π": self.log_probs,
            "log-ratio": self.log_ratios,
            "value": self.values,
            "value before": [v - d for v, d in zip(self.values, self.value_changes, strict=True)],
            "value target": self.value_targets,
            "entropy": self.entropies,
            **{name: numbers.tolist() if isinstance(numbers, Tensor) else numbers for name, numbers in more.items()},
        }
        return tuple({"step": b, **{name: column[b] for name, column in columns.items()}} for b in range(len(self)))


COLUMNS = tuple(field.name for field in fields(Steps) if field.name != "with_optional")


@st.composite
def draw_steps(draw: st.DrawFn, least: int = 1, most: int = 4) -> Steps:
    """Steps with log-ratios within ±1 and other numbers within ±2; drawn row by row, so that whole rows shrink away.

    (Each row takes few draws, because Hypothesis deletes at most five at once.)
    """
    row = st.tuples(quarters(4), quarters(4)).map(lambda halves: [*halves[0], *halves[1]])
    rows = draw(st.lists(row, min_size=least, max_size=most))
    columns: dict[str, Any] = dict(zip(COLUMNS, map(tuple, zip(*rows, strict=True)), strict=True))
    columns["log_probs"] = tuple(-abs(number) for number in columns["log_probs"])
    columns["log_ratios"] = tuple(number / 2 for number in columns["log_ratios"])
    columns["entropies"] = tuple(map(abs, columns["entropies"]))
    return Steps(**columns, with_optional=draw(st.booleans()))


def step_cases(subject: Subject, least: int = 1, most: int = 4) -> st.SearchStrategy[Steps]:
    """Steps for any loss."""
    return draw_steps(least, most)


def several_step_cases(subject: Subject) -> st.SearchStrategy[Steps]:
    """At least two steps."""
    return step_cases(subject, least=2)


def batches(
    *, min_steps: int = 1, max_steps: int = 4, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[tuple[Batch, Evaluation]]:
    """A batch of real steps and its evaluation by the current policy: `[B]` each, the evaluation with gradient.

    Log-probs of the policy that acted differ from the current ones by at most 1: ratios are from 0.37 to 2.7, beyond
    the usual clip range on both sides. Values and entropies are both given, or both None.
    """
    return draw_steps(min_steps, max_steps).map(
        lambda steps: batch_of(steps, dtype, None, steps.with_optional, steps.with_optional)
    )


@frozen(eq=False)
class LossResult:
    """A loss, and its inputs."""

    loss: Loss
    batch: Batch
    evaluation: Evaluation

    @property
    def total(self) -> Tensor:
        """The sum of all terms."""
        return torch.stack([term.sum() for term in self.loss.terms.values()]).sum()

    def per_step(self) -> Tensor:
        """The sum of all terms for each step [B], without gradient."""
        return torch.stack([term.detach().double() for term in self.loss.terms.values()]).sum(0)

    def gradient(self, name: str, total: Tensor | None = None) -> Tensor:
        """∂ total/∂ a column of the evaluation [B], without gradient; 0 where the total does not depend on it."""
        leaf = getattr(self.evaluation, name)
        return gradient_by(self.total if total is None else total, leaf).detach().double()


def gradient_by(total: Tensor, leaf: Tensor, create_graph: bool = False) -> Tensor:
    """∂ total/∂ leaf; 0 where the total does not depend on it. `create_graph`: for second derivatives."""
    if not total.requires_grad:
        return torch.zeros_like(leaf)
    (result,) = torch.autograd.grad(total, leaf, allow_unused=True, retain_graph=True, create_graph=create_graph)
    return torch.zeros_like(leaf) if result is None else result


def tensors(steps: Steps, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every column [B]."""
    return {name: torch.tensor(getattr(steps, name), dtype=dtype) for name in COLUMNS}


def batch_of(
    steps: Steps,
    dtype: torch.dtype = torch.float64,
    totals: tuple[int, float] | None = None,
    with_values: bool = True,
    with_entropies: bool = True,
) -> tuple[Batch, Evaluation]:
    """The batch, and its evaluation by the current policy, with gradient."""
    columns = tensors(steps, dtype)
    index = torch.arange(len(steps))
    batch = Batch(
        index,
        index,
        columns["log_probs"] - columns["log_ratios"],
        columns["advantages"],
        columns["returns"],
        columns["value_targets"],
        *(totals or (len(steps), EPISODES)),
        values=columns["values"] - columns["value_changes"] if with_values else None,
    )
    evaluation = Evaluation(
        columns["log_probs"].requires_grad_(),
        columns["entropies"].requires_grad_() if with_entropies else None,
        columns["values"].requires_grad_() if with_values else None,
    )
    return batch, evaluation


def evaluate_loss(
    subject: Subject, steps: Steps, dtype: torch.dtype = torch.float64, totals: tuple[int, float] | None = None
) -> LossResult:
    """A new loss on these steps; raises `Broken` if the result has the wrong form."""
    with_values = steps.with_optional or subject.declares("needs", "values")
    with_entropies = steps.with_optional or subject.declares("needs", "entropies")
    batch, evaluation = batch_of(steps, dtype, totals, with_values, with_entropies)
    loss = subject.make()(batch, evaluation)
    try:
        checks.loss(subject.part.label, loss, (len(steps),))
    except PartError as error:
        raise Broken(str(error), case=steps.rows()) from error
    return LossResult(loss, batch, evaluation)


def require_close(message: str, expected: Tensor, got: Tensor, steps: Steps, tolerance: float = EXACT) -> None:
    """Raise `Broken` if two columns [B] differ by more than the tolerance, relative to numbers above 1."""
    allowed = tolerance * (1 + expected.abs())
    wrong = ~((got - expected).abs() <= allowed)  # NaN is wrong, too
    if wrong.any():
        b = int(wrong.nonzero()[0])
        raise Broken(
            f"{message}, in step {b}",
            expected=float(expected[b]),
            got=float(got[b]),
            case=steps.rows(expected=expected, got=got),
        )
