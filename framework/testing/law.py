"""A law: something that every part of a role must keep to, whatever it is; and the registry of all of them.

A law is a small function, named for what it says, whose docstring states it. It is handed a `Subject` (the part that is
judged) and one drawn case, and raises `Broken` where the part breaks it:

    @law("estimator", cases=rollouts_for)
    def returns_have_the_rollouts_shape(subject, rollout):
        \"""Returns, value targets and weights are [T, N], as the rollout is.\"""

`cases(subject)` is the Hypothesis strategy that the cases are drawn from; without it the law is asked once. Where a law
does not concern a part, `applies(subject)` says why not.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..parts import Loaded, Part

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LAWS: dict[str, "Law"] = {}  # by name, in the order in which they are stated


class Broken(AssertionError):  # noqa: N818 - a law is broken; nothing is in error
    """A part breaks a law.

    `expected` and `got` are the two sides, as words or numbers; `case` is what is told of the counterexample: rows
    of a small table (column name → cell), such as the steps of a rollout.
    """

    def __init__(
        self, message: str, *, expected: Any = None, got: Any = None, case: tuple[Mapping[str, Any], ...] = ()
    ) -> None:
        super().__init__(message)
        self.expected, self.got, self.case = expected, got, case


@frozen(eq=False)
class Subject:
    """The part that is judged, and what it may be wired with."""

    part: Part
    loaded: Loaded
    cache: dict[str, Any] = field(factory=dict)  # what laws have made of it and others may use again

    @property
    def settings(self) -> Any:
        """The part's settings."""
        return self.part.settings

    @property
    def role(self) -> str:
        """What it is."""
        return self.part.role

    def make(self, *arguments: Any) -> Any:
        """A fresh working object: what `build` returns, or the settings themselves."""
        build = getattr(self.settings, "build", None)
        return self.settings if build is None else build(*arguments)

    def declares(self, attribute: str, word: str) -> bool:
        """Whether `needs`, `gives` or `claims` of its settings has a word."""
        return word in getattr(self.settings, attribute, ())


@frozen(eq=False)
class Law:
    """One law of the registry."""

    name: str
    roles: tuple[str, ...]
    check: Callable[..., None]  # check(subject, case), or check(subject)
    source: str  # paper with section or equation, or the page of the contract
    cases: "Callable[[Subject], SearchStrategy[Any]] | None" = None
    applies: Callable[[Subject], str | None] = lambda subject: None  # why it does not concern a part; None: it does
    examples: int | None = None  # at most so many cases, where one takes long

    @property
    def statement(self) -> str:
        """The law in words: its function's docstring."""
        return " ".join((self.check.__doc__ or "").split())


def law(
    *roles: str,
    source: str = "docs/reference/contracts.md",
    cases: "Callable[[Subject], SearchStrategy[Any]] | None" = None,
    applies: Callable[[Subject], str | None] = lambda subject: None,
    examples: int | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a function into the registry as a law of these roles; the function itself stays as it is."""

    def register(check: Callable[..., None]) -> Callable[..., None]:
        name = check.__name__
        if name in LAWS:
            raise ValueError(f"two laws are named {name}")
        if not check.__doc__:
            raise ValueError(f"law {name} has no docstring that states it")
        LAWS[name] = Law(name, roles, check, source, cases, applies, examples)
        return check

    return register
