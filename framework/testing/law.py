"""A law: a property that every part of a role must have; and the registry of all laws.

A law is a small function, named after what it states, whose docstring states it. It is called with a `Subject` (the
part that is checked) and one drawn case, and raises `Broken` if the part breaks it:

    @law("estimator", cases=rollouts_for)
    def returns_have_the_rollouts_shape(subject, rollout):
        \"""Returns, value targets and weights are [T, N], as the rollout is.\"""

`cases(subject)` is the Hypothesis strategy that the cases are drawn from; without it the law is checked once. If a law
does not apply to a part, `applies(subject)` returns the reason.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..parts import Loaded, Part

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

LAWS: dict[str, "Law"] = {}  # by name, in the order in which they are defined


class Broken(AssertionError):  # noqa: N818 - a law is broken; nothing is in error
    """A part breaks a law.

    `expected` and `got` are words or numbers; `case` describes the counterexample as rows of a small table (column
    name → cell), such as the steps of a rollout.
    """

    def __init__(
        self, message: str, *, expected: Any = None, got: Any = None, case: tuple[Mapping[str, Any], ...] = ()
    ) -> None:
        super().__init__(message)
        self.expected, self.got, self.case = expected, got, case


@frozen(eq=False)
class Subject:
    """The part that is checked, and the plugins that it may be combined with."""

    part: Part
    loaded: Loaded
    cache: dict[str, Any] = field(factory=dict)  # results that several laws use

    @property
    def settings(self) -> Any:
        """The part's settings."""
        return self.part.settings

    @property
    def role(self) -> str:
        """The part's role."""
        return self.part.role

    def make(self, *arguments: Any) -> Any:
        """A new working object: the result of `build`, or the settings themselves."""
        build = getattr(self.settings, "build", None)
        return self.settings if build is None else build(*arguments)

    def declares(self, attribute: str, word: str) -> bool:
        """Whether `needs`, `gives` or `claims` of its settings contains a word."""
        return word in getattr(self.settings, attribute, ())


@frozen(eq=False)
class Law:
    """One law of the registry."""

    name: str
    roles: tuple[str, ...]
    check: Callable[..., None]  # check(subject, case), or check(subject)
    source: str  # paper with section or equation, or page of the contracts
    cases: "Callable[[Subject], SearchStrategy[Any]] | None" = None
    applies: Callable[[Subject], str | None] = lambda subject: None  # why it does not apply to a part; None: it applies
    examples: int | None = None  # maximum number of cases, for slow laws

    @property
    def statement(self) -> str:
        """The law in words: the docstring of its function."""
        return " ".join((self.check.__doc__ or "").split())


def law(
    *roles: str,
    source: str = "docs/reference/contracts.md",
    cases: "Callable[[Subject], SearchStrategy[Any]] | None" = None,
    applies: Callable[[Subject], str | None] = lambda subject: None,
    examples: int | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a law of these roles; returns the function unchanged."""

    def register(check: Callable[..., None]) -> Callable[..., None]:
        name = check.__name__
        if name in LAWS:
            raise ValueError(f"two laws are named {name}")
        if not check.__doc__:
            raise ValueError(f"law {name} has no docstring that states it")
        LAWS[name] = Law(name, roles, check, source, cases, applies, examples)
        return check

    return register
