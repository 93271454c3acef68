"""The conformance kit: laws that every part must keep to, and strategies that draw the cases which try them.

Needs Hypothesis: `pip install framework-rl[testing]`.
"""

from .checking import Report, Verdict, check, judge, laws, part, replay
from .law import LAWS, Broken, Law, Subject, law

__all__ = ["LAWS", "Broken", "Law", "Report", "Subject", "Verdict", "check", "judge", "law", "laws", "part", "replay"]
