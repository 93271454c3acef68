"""What plugins may use besides `framework`, `framework.returns` and, to write a record, `framework.recording`.

| name | what it is |
|---|---|
| `Section` | base class of settings that know which of them were given |
| `warn`, `unknown` | a warning of one line; the message for an unknown name, with the nearest |
| `own_line` | the line of the user's own code that an error passed |
| `derived_seed` | a seed from the run's, a purpose and numbers |
| `merge_moments` | mean and variance of all samples so far |
| `inverse_cdf_edges` | the edges by which a uniform number picks an outcome |
| `build_environment`, `close` | another environment like the run's, and its end |
| `play`, `refuse_without_greedy` | whole episodes of a policy |
| `RECENT` | episodes that a run's running means are taken over |
| `keep_statistics` | what an environment learnt goes with its policy |
| `keep_policy`, `copied`, `BEST` | writing a policy's file; copies of its tensors; the best one's name |
| `whole`, `CURVE` | a file that is written whole or not at all; the learning curve's name |
| `Bar`, `so_far` | a progress bar |
| `ENDING` | the signals that end a run |
"""

from .config import Section
from .errors import unknown, warn
from .evaluation import play, refuse_without_greedy
from .guards.interrupts import ENDING
from .places import own_line
from .records.environment_state import keep as keep_statistics
from .records.files import whole
from .records.record import BEST, CURVE, copied
from .records.rescue import keep_policy
from .reporting.progress_bar import Bar, so_far
from .run import RECENT
from .running_moments import merged as merge_moments
from .setup.building import build_environment, close
from .streams import derived_seed
from .tabular.tables import inverse_cdf_edges

__all__ = [
    "BEST",
    "CURVE",
    "ENDING",
    "RECENT",
    "Bar",
    "Section",
    "build_environment",
    "close",
    "copied",
    "derived_seed",
    "inverse_cdf_edges",
    "keep_policy",
    "keep_statistics",
    "merge_moments",
    "own_line",
    "play",
    "refuse_without_greedy",
    "so_far",
    "unknown",
    "warn",
    "whole",
]
