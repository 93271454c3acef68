"""One run: what it holds."""

from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import pluggy
import torch
from attrs import define, field, frozen

from .collecting.episodes import EpisodeStats
from .config import Config
from .contracts import Batch, Loss, Rollout
from .guards.interrupts import Interrupts
from .guards.last_good import LastGood
from .parts import Loaded
from .state import load_state, state_of

if TYPE_CHECKING:
    from .collecting.shard import Shard
    from .guards.gradient_flow import Norms
    from .learning.parameters import FlatParameters

RECENT = 100  # episodes that the running means of return and length are taken over, as the field does

LIVE = (
    *(
        "loaded",
        "shards",
        "estimator",
        "baseline",
        "loss",
        "parameters",
        "optimizer",
        "stages",
        "manager",
        "extensions",
    ),
    *("reports", "labels", "interrupts", "opened", "last_good", "checksums", "collector", "updater", "batch"),
    *("minibatch", "loss_metrics"),
)  # of a run: what works only in the process in which it was built


class Collects(Protocol):
    """How rollouts come about: the seam behind which faster ways stand."""

    def collect(self, run: "Run") -> Rollout:
        """The next rollout; the episodes that ended in it become the run's `finished`."""
        ...


class Updates(Protocol):
    """How a batch is learnt from: the other seam."""

    def update(self, run: "Run", whole: Batch) -> None:
        """Do all updates of an iteration; their numbers become the run's `loss_metrics`."""
        ...

    def apply_gradients(self, run: "Run", loss: Loss) -> None:
        """The core's stage of that name, for the run's `batch`."""
        ...


@define(eq=False)
class Run:
    """What hooks are handed: the configuration, the working parts, and how far the run has come."""

    config: Config
    loaded: Loaded
    directory: Path | None  # where the record goes, if anywhere; absolute, and set before run_started
    device: torch.device
    shards: "list[Shard]"
    policy: Any  # an nn.Module that is a Policy
    estimator: Any
    baseline: Any
    loss: Any
    parameters: "FlatParameters"  # the policy's parameters
    optimizer: torch.optim.Optimizer
    stages: Any  # the core's own, which extensions wrap
    manager: pluggy.PluginManager  # of extensions
    collector: Collects
    updater: Updates
    wrappers: dict[str, list[str]] = field(factory=dict)  # stage → the extensions that wrap it
    extensions: dict[str, object] = field(factory=dict)  # name → working object, reports included
    reports: set[int] = field(factory=set)  # ids of the reports among them that have not been switched off
    labels: dict[int, str] = field(factory=dict)  # id of each working object → its label, as in errors
    needs: frozenset[str] = frozenset()  # all that the parts need
    quiet: bool = False  # nothing is to be printed
    loss_needs: frozenset[str] = frozenset()  # what the loss needs of them
    interrupts: Interrupts = field(factory=Interrupts)
    opened: ExitStack = field(factory=ExitStack)  # closes all that was built and has close()
    last_good: LastGood = field(factory=LastGood)
    unwritten: dict[str, str] = field(factory=dict)  # file of the record → why it could not be written
    elsewhere: Path | None = None  # the temporary folder where such files lie
    checksums: tuple[Any, dict[str, int]] | None = None  # what a stage made, with its checksums: see guards.mutation
    iteration: int = 0  # counted from 0; of the one that is under way
    steps: int = 0  # real environment steps, in all
    episodes: int = 0  # finished episodes, in all
    seconds: float = 0.0  # since run_started
    finished: EpisodeStats = field(factory=EpisodeStats.none)  # this iteration's episodes
    recent_returns: deque[float] = field(factory=lambda: deque(maxlen=RECENT))
    recent_lengths: deque[int] = field(factory=lambda: deque(maxlen=RECENT))  # of the same episodes
    history: dict[str, list[float]] = field(factory=dict)  # one list a metric, an entry an iteration
    # the minibatch that is worked on, prepared; between updates the last one, or (`compile`) the whole batch
    batch: Batch | None = None
    minibatch: Any = None  # the rows that the batch was made of
    loss_metrics: list[dict[str, Any]] = field(factory=list)  # of this iteration's minibatches
    traced: "Norms | None" = None  # gradient norms by term of the loss and group of parameters, of the first update
    stop_reasons: list[str] = field(factory=list)
    interrupted: bool = False  # by Ctrl-C

    @property
    def hook(self) -> Any:
        """What run hooks are called through."""
        return self.manager.hook

    @property
    def environment(self) -> Any:
        """The environment of the first shard."""
        return self.shards[0].environment

    def label_of(self, part: object) -> str:
        """What errors call this working part: its role, name and plugin."""
        return self.labels[id(part)]

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that the run needs to go on: see `state.state_of`."""
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, if this run was just built: see `state.load_state`."""
        load_state(self, state)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds: settings, policy and numbers; what is at work (LIVE) is left out, as None."""
        return {one.name: None if one.name in LIVE else getattr(self, one.name) for one in attrs.fields(Run)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take them."""
        for name, value in state.items():
            setattr(self, name, value)

    def close(self) -> None:
        """Close extensions and environments, each once; one whose close() raises is named in a warning."""
        self.opened.close()


@frozen(eq=False)
class Result:
    """What a run left behind. It can be pickled and copied, as a process pool does: then without what is at work.

    In a copy, `run` has its settings, numbers and policy; environments, optimizer, working parts and hooks are None.
    """

    policy: Any  # trained, an nn.Module
    metrics: dict[str, Any]  # each a float64 array with an entry an iteration
    recent_returns: Any  # float64, of the last (at most 100) training episodes
    recent_lengths: Any  # int64, steps of the same episodes
    stop_reasons: tuple[str, ...]
    directory: Path | None
    config: Config
    run: Run  # how far it came, and its working parts

    def __repr__(self) -> str:
        """In a notebook: what came out, in a line."""
        recent = self.recent_returns
        mean = ""
        if len(recent):
            spread = f" ± {recent.std(ddof=1):.2f}" if len(recent) > 1 else ""
            mean = f"mean return {recent.mean():.2f}{spread} over the last {len(recent)} episodes, "
        return f"<Result: {self.run.iteration} iterations, {mean}record: {self.directory or 'none'}>"
