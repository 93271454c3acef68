"""One run: what it holds."""

from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import pluggy
import torch
from attrs import define, field

from .collecting.episodes import EpisodeStats
from .config import Config
from .contracts import Baseline, Batch, Environment, Estimator, Loss, LossFunction, PolicyModule, Rollout
from .guards.interrupts import Interrupts
from .guards.last_good import LastGood
from .parts import Loaded
from .state import load_state, state_of

if TYPE_CHECKING:
    from .collecting.shard import Shard
    from .flat_parameters import FlatParameters
    from .guards.gradient_flow import Norms
    from .learning.batches import Minibatch
    from .stages import Core

RECENT = 100  # episodes that the running means of return and length are taken over, as the field does

LIVE = {"live": True}  # metadata of fields that work only in the process in which they were built


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

    # the configuration, and where the run works
    config: Config
    loaded: Loaded = field(metadata=LIVE)
    directory: Path | None  # where the record goes, if anywhere; absolute, and set before run_started
    device: torch.device
    # the working parts
    shards: "list[Shard]" = field(metadata=LIVE)
    policy: PolicyModule
    estimator: Estimator = field(metadata=LIVE)
    baseline: Baseline = field(metadata=LIVE)
    loss: LossFunction = field(metadata=LIVE)
    parameters: "FlatParameters" = field(metadata=LIVE)  # the policy's parameters
    optimizer: torch.optim.Optimizer = field(metadata=LIVE)
    collector: Collects = field(metadata=LIVE)
    updater: Updates = field(metadata=LIVE)
    # stages, the extensions that wrap them, and what all of these are called
    stages: "Core" = field(metadata=LIVE)
    manager: pluggy.PluginManager = field(metadata=LIVE)  # of extensions
    wrappers: dict[str, list[str]] = field(factory=dict)  # stage → the extensions that wrap it
    extensions: dict[str, object] = field(factory=dict, metadata=LIVE)  # name → working object, reports included
    reports: set[int] = field(
        factory=set, metadata=LIVE
    )  # ids of the reports among them that have not been switched off
    labels: dict[int, str] = field(factory=dict, metadata=LIVE)  # id of each working object → its label, as in errors
    needs: frozenset[str] = frozenset()  # all that the parts need
    loss_needs: frozenset[str] = frozenset()  # what the loss needs of them
    quiet: bool = False  # nothing is to be printed
    # how far the run has come
    iteration: int = 0  # counted from 0; of the one that is under way
    steps: int = 0  # real environment steps, in all
    episodes: int = 0  # finished episodes, in all
    seconds: float = 0.0  # since run_started
    recent_returns: deque[float] = field(factory=lambda: deque(maxlen=RECENT))
    recent_lengths: deque[int] = field(factory=lambda: deque(maxlen=RECENT))  # of the same episodes
    history: dict[str, list[float]] = field(factory=dict)  # one list a metric, an entry an iteration
    stop_reasons: list[str] = field(factory=list)
    interrupted: bool = False  # by Ctrl-C
    # of this iteration
    finished: EpisodeStats = field(factory=EpisodeStats.none)  # the episodes that ended
    # the minibatch that is worked on, prepared; between updates the last one, or (`compile`) the whole batch
    batch: Batch | None = field(default=None, metadata=LIVE)
    minibatch: "Minibatch | None" = field(default=None, metadata=LIVE)  # the rows that the batch was made of
    loss_metrics: list[dict[str, Any]] = field(factory=list, metadata=LIVE)  # of the minibatches so far
    # guards
    traced: "Norms | None" = None  # gradient norms by term of the loss and group of parameters, of the first update
    interrupts: Interrupts = field(factory=Interrupts, metadata=LIVE)
    last_good: LastGood = field(factory=LastGood, metadata=LIVE)
    checksums: "tuple[object, dict[str, int]] | None" = field(
        default=None, metadata=LIVE
    )  # of what a stage made: guards.mutation
    resources: ExitStack = field(factory=ExitStack, metadata=LIVE)  # closes all that was built and has close()
    unwritten: dict[str, str] = field(factory=dict)  # file of the record → why it could not be written
    unwritten_directory: Path | None = None  # the temporary folder where such files are instead

    @property
    def hook(self) -> Any:
        """What run hooks are called through."""
        return self.manager.hook

    @property
    def environment(self) -> Environment:
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
        """What a pickle or a copy holds: settings, policy and numbers; LIVE fields are None."""
        return {one.name: None if one.metadata else getattr(self, one.name) for one in attrs.fields(Run)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take them."""
        for name, value in state.items():
            setattr(self, name, value)

    def close(self) -> None:
        """Close extensions and environments, each once; one whose close() raises is named in a warning."""
        self.resources.close()
