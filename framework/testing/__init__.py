"""The conformance kit: laws that every part must satisfy, and strategies that draw test cases for them.

Needs Hypothesis: `pip install framework-rl[testing]`.
"""

from .checking import Report, check, laws, part, replay
from .conformance import conforms
from .law import LAWS, Broken, Law, Subject, law
from .verdicts import Verdict, judge

__all__ = [  # noqa: RUF022
    "check", "conforms", "part", "replay",
    "LAWS", "Broken", "Law", "Subject", "judge", "law", "laws",
    "Report", "Verdict",
]  # fmt: skip
