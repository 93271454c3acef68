"""How a counterexample is reported: as rows of a small table, and as Python code that reproduces it."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor

from ..contracts import Rollout
from ..parts import Loaded, Part
from .law import Broken

if TYPE_CHECKING:
    from .verdicts import Verdict

Row = dict[str, Any]
# Rollouts have some twenty numbers of size 2 at most. A part may compute in float32, as in a run, where sums up to 40
# have rounding errors of a few times 2e-6; real errors are multiples of 1/4, times γ or λ to the power of a few steps.
ROUNDING = 1e-5


def rows(rollout: Rollout, **columns: Tensor | None) -> tuple[Row, ...]:
    """The real steps of a rollout, lane by lane, with further columns `[T, N]` unless they are None."""
    table = []
    for n, t in rollout.mask.T.nonzero().tolist():
        flags = (bool(rollout.terminated[t, n]), bool(rollout.truncated[t, n]))
        row: Row = {"lane": n, "step": t, "reward": float(rollout.rewards[t, n])}
        row["end"] = {(True, False): "terminated", (False, True): "truncated", (True, True): "both"}.get(flags, "")
        if rollout.groups is not None:
            row["group"] = int(rollout.groups[n])
        if rollout.values is not None and rollout.successor_values is not None:
            row["V(s)"], row["V(s′)"] = float(rollout.values[t, n]), float(rollout.successor_values[t, n])
        table.append(row | {name: float(column[t, n]) for name, column in columns.items() if column is not None})
    return tuple(table)


def require_close(
    message: str,
    rollout: Rollout,
    expected: Tensor,
    got: Tensor,
    where: Tensor | None = None,
    tolerance: float = ROUNDING,
    extra_columns: Mapping[str, Tensor | None] | None = None,
) -> None:
    """Raise `Broken` if numbers `[T, N]` are not as expected at the real steps (those at `where`).

    `tolerance` is absolute for numbers below 1, and relative to the largest number otherwise. `{step}` in the message
    is replaced by the first wrong step. `extra_columns` are added to the table.
    """
    where = rollout.mask if where is None else where & rollout.mask
    expected, got = expected.double(), got.double()
    scale = max(1.0, float(expected[where].abs().max())) if bool(where.any()) else 1.0
    close = (expected - got).abs() <= tolerance * scale
    wrong = (where & ~close).nonzero()
    if len(wrong):
        t, n = wrong[0].tolist()
        table = rows(rollout, **(extra_columns or {}), expected=expected, got=got)
        message = message.replace("{step}", f"step {t} of lane {n}")
        raise Broken(message, expected=float(expected[t, n]), got=float(got[t, n]), case=table)


def require_finite(message: str, rollout: Rollout, got: Tensor) -> None:
    """Raise `Broken` if one of the numbers `[T, N]` is NaN or infinite, in padding too; the place is added."""
    wrong = (~got.isfinite()).nonzero()
    if len(wrong):
        t, n = wrong[0].tolist()
        raise Broken(
            f"{message} not finite at step {t} of lane {n}{'' if rollout.mask[t, n] else ', in padding'}",
            expected="a finite number",
            got=float(got[t, n]),
            case=rows(rollout, got=got),
        )


def require_unchanged(rollout: Rollout, passed: Rollout) -> None:
    """Raise `Broken` if a part has modified the rollout that it was passed."""
    for field in attrs.fields(Rollout):
        before, after = getattr(rollout, field.name), getattr(passed, field.name)
        if before is not None and not torch.equal(before, after):
            columns = {"expected": before, "got": after} if before.shape == rollout.mask.shape else {}
            raise Broken(f"writes into the rollout's {field.name}", case=rows(rollout, **columns))


# Python code that reproduces it


MAX_SOURCE = 20_000  # characters; nobody would read more


class NoSourceError(Exception):
    """A value that cannot be written as Python code."""


def source(value: Any, imports: set[str], indent: str = "") -> str:
    """Python code that creates an equal value; the imports that it needs are added to `imports`."""
    inner = indent + "    "
    if isinstance(value, Tensor):
        return _tensor(value, imports)
    if value is None or isinstance(value, bool | str | int):
        return repr(value)
    if isinstance(value, float):
        return _number(value, imports)
    if isinstance(value, Discrete | MultiDiscrete | MultiBinary | Box):
        return _space(value, imports)
    if isinstance(value, Mapping):
        pairs = [f"{key!r}: {source(entry, imports, inner)}" for key, entry in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, tuple | list | set | frozenset):
        sources = [source(entry, imports, inner) for entry in value]
        if any("\n" in entry for entry in sources):
            entries = "\n" + "".join(f"{inner}{entry},\n" for entry in sources) + indent
        else:
            entries = ", ".join(sources)
        if isinstance(value, tuple):
            return f"({entries}{',' * (len(sources) == 1 and entries == sources[0])})"
        return f"[{entries}]" if isinstance(value, list) else f"{type(value).__name__}([{entries}])"
    if attrs.has(type(value)):
        return _attrs(value, imports, indent)
    raise NoSourceError(type(value).__name__)


def _attrs(value: Any, imports: set[str], indent: str) -> str:
    cls, inner = type(value), indent + "    "
    if cls.__module__ == "__main__" or "<" in cls.__qualname__:
        raise NoSourceError(f"{cls.__qualname__} of {cls.__module__}")
    home = "framework" if cls.__module__ == "framework.contracts" else cls.__module__
    imports.add(f"from {home} import {cls.__qualname__.split('.')[0]}")
    arguments = []
    for field in attrs.fields(cls):
        entry = getattr(value, field.name)
        if field.init and not (entry is None and field.default is None):
            arguments.append(f"{field.alias or field.name}={source(entry, imports, inner)}")
    if sum(map(len, arguments)) < 80 and not any("\n" in entry for entry in arguments):
        return f"{cls.__qualname__}({', '.join(arguments)})"
    return f"{cls.__qualname__}(\n" + "".join(f"{inner}{entry},\n" for entry in arguments) + f"{indent})"


def _tensor(value: Tensor, imports: set[str]) -> str:
    imports.add("import torch")
    if not value.numel():
        return f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
    numbers = _numbers(value.detach().tolist(), imports)
    known = value.dtype in (torch.bool, torch.int64, torch.float32)
    text = f"torch.tensor({numbers}{'' if known else f', dtype={value.dtype}'})"
    return f"{text}.requires_grad_()" if value.requires_grad else text


def _numbers(value: Any, imports: set[str]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_numbers(entry, imports) for entry in value)}]"
    return _number(value, imports) if isinstance(value, float) else repr(value)


def _number(value: float, imports: set[str]) -> str:
    if math.isfinite(value):
        return repr(value)
    imports.add("import math")
    return "math.nan" if math.isnan(value) else "math.inf" if value > 0 else "-math.inf"


def _space(value: Any, imports: set[str]) -> str:
    imports.add("import numpy as np")
    imports.add(f"from gymnasium.spaces import {type(value).__name__}")
    if isinstance(value, Discrete):
        return f"Discrete({int(value.n)}, start={int(value.start)})"
    if isinstance(value, MultiDiscrete):
        return f"MultiDiscrete({value.nvec.tolist()}, start={value.start.tolist()})"
    if isinstance(value, MultiBinary):
        return f"MultiBinary({value.n})"
    kind = f"np.{np.dtype(value.dtype).name}"
    ends = [f"np.array({_numbers(edge.tolist(), imports)}, {kind})" for edge in (value.low, value.high)]
    return f"Box({ends[0]}, {ends[1]}, {value.shape}, {kind})"


def snippet(law: str, part: Part, case: Sequence[Any], loaded: Loaded, seed: int, examples: int) -> str:
    """A Python script that checks the law on this case again, or searches again if the case cannot be written."""
    imports: set[str] = set()
    part_source = _part(part, loaded, imports)
    lines = []
    try:
        names = [f"case{number or ''}" for number in range(len(case))]
        lines = [f"{name} = {source(entry, imports)}" for name, entry in zip(names, case, strict=True)]
        if sum(map(len, lines)) > MAX_SOURCE:
            raise NoSourceError("too long")
        imports.add("from framework.testing import replay")
        lines.append(f"replay({', '.join([repr(law), 'tested', *names])})  # raises the law's error")
    except NoSourceError:
        imports.add("from framework.testing import check")
        lines = [
            f"report = check(tested, only=[{law!r}], seed={seed}, examples={examples})",
            "raise next(verdict.error for verdict in report.failed)",
        ]
    return "\n".join([*_sorted(imports), "", f"tested = {part_source}", *lines])


def _sorted(imports: set[str]) -> list[str]:
    """`import …` first, then one `from … import …` for each module."""
    plain = sorted(line for line in imports if not line.startswith("from"))
    names: dict[str, list[str]] = {}
    for line in sorted(imports - set(plain)):
        module, _, name = line.removeprefix("from ").partition(" import ")
        names.setdefault(module, []).append(name)
    return plain + [f"from {module} import {', '.join(imported)}" for module, imported in names.items()]


def _part(part: Part, loaded: Loaded, imports: set[str]) -> str:
    """Code that creates the part: from its plugin or, if no plugin offers its settings, from their class."""
    plugin = next((plugin for plugin in loaded.plugins if plugin.name == part.plugin), None)
    if plugin is None:
        imports.add("from framework.parts import Part")
        try:
            settings, comment = source(part.settings, imports), ""
        except NoSourceError:
            settings, comment = f"{type(part.settings).__name__}(...)", "  # define it above"
        return f"Part({part.role!r}, {part.name!r}, {part.plugin!r}, {settings}){comment}"
    imports.add("from framework.testing import part")
    name = f"{part.plugin}:{part.name}"
    changed, without_source = [], []
    for key, value in _changed(part.settings).items():
        try:
            changed.append(f", {key}={source(value, imports)}")
        except NoSourceError:
            without_source.append(" ".join(f"{key}={value!r}".split()))
    comment = f"  # and with {', '.join(without_source)}, which cannot be written as code" if without_source else ""
    return f"part({part.role!r}, {name!r}, [{plugin.source!r}]{''.join(changed)}){comment}"


def _changed(settings: Any) -> Row:
    """The settings that differ from their defaults, by argument name."""
    fresh = type(settings)()
    pairs = {
        field.alias or field.name: (getattr(settings, field.name), getattr(fresh, field.name))
        for field in attrs.fields(type(settings))
        if field.init
    }
    return {key: value for key, (value, default) in pairs.items() if not _equal(value, default)}


def _equal(value: Any, default: Any) -> bool:
    try:
        return value is default or (type(value) is type(default) and bool(torch.as_tensor(value == default).all()))
    except Exception:  # different shapes, or a custom comparison
        return False


# Reports


def as_text(verdict: "Verdict", loaded: Loaded, seed: int, examples: int, also: Sequence[str] = ()) -> str:
    """The report of a failure: what is wrong, expected and actual result, the steps, and code that reproduces it.

    `also` are the names of other laws that the same error breaks.
    """
    lines = [f"{verdict.law.name}: {verdict.reason}"]
    if also:
        lines += textwrap.wrap(", ".join(also), 100, initial_indent="  also broken: ", subsequent_indent="    ")
    lines.append(f"  the law: {verdict.law.statement}")
    if verdict.subject is not None:
        lines.append(f"  part: {verdict.subject.part.label}, {verdict.subject.settings}")
    error = verdict.error
    if isinstance(error, Broken):
        if error.expected is not None or error.got is not None:
            lines.append(f"  expected {error.expected}, got {error.got}")
        if error.case:
            lines += ["", *as_table(error.case)]
    if verdict.subject is not None:
        python = snippet(verdict.law.name, verdict.subject.part, verdict.case, loaded, seed, examples)
        lines += ["", "# to reproduce it:", python]
    return "\n".join(lines)


MAX_ROWS = 40  # rows of a table that are printed


def as_table(case: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as lines with aligned columns."""
    names = list(dict.fromkeys(name for row in case for name in row))
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in case[:MAX_ROWS])]
    widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
    lines = ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return lines if len(case) <= MAX_ROWS else [*lines, f"  … {len(case) - MAX_ROWS} more"]


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
