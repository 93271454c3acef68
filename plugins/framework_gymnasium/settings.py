"""Which of Gymnasium's environments, and how its lanes are stepped and reset."""

import re
from typing import Any, Literal

import torch
from attrs import field, frozen, validators

from framework.tools import Section

from .infos import DEFAULT_METRICS, InfoSettings
from .lanes import GymnasiumLanes
from .making import make_lanes
from .modules import named_modules, registered_modules

VECTORIZATION = ("auto", "vector_entry_point", "sync", "async")
MASKS = ("auto", "info", "method", "none")
AUTORESET = ("auto", "next_step", "same_step", "disabled")


@frozen
class Gymnasium(Section):
    """An environment of Gymnasium, by its registered id or by a function that makes one."""

    id: str = "CartPole-v1"  # registered id, module:id (the module is imported first) or module:function
    vectorization_mode: Literal["auto", "vector_entry_point", "sync", "async"] = field(
        default="auto", validator=validators.in_(VECTORIZATION)
    )
    """how lanes are stepped: vectorised by Gymnasium, one by one (sync), or each in a process of its own (async)"""
    autoreset: Literal["auto", "next_step", "same_step", "disabled"] = field(
        default="auto", validator=validators.in_(AUTORESET)
    )
    """when a lane begins its next episode (Gymnasium's AutoresetMode); auto: same_step, where there is a choice"""
    kwargs: dict[str, Any] = field(factory=dict)  # keyword arguments of the environment; lists and tables as in TOML
    wrappers: tuple[str, ...] = ()
    """wrappers of each lane, the first innermost, such as FrameStackObservation(stack_size=4) or module:Class"""
    max_episode_steps: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """time limit in steps, after which an episode is truncated; None: the environment's own limit"""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """keys of `info` in each episode's last step, columns environment/… of metrics.csv; nested: episode.r"""
    action_masks: Literal["auto", "info", "method", "none"] = field(default="auto", validator=validators.in_(MASKS))
    """source of the mask of allowed actions: `info["action_mask"]` or `action_masks()`; auto: whichever there is"""
    render_mode: str | None = None  # Gymnasium's render_mode: human, rgb_array …; None: no rendering

    @property
    def title(self) -> str:
        """Its name in summaries: a registered id without its module, or `module:function`."""
        name = self.id.rpartition(":")[2]
        return name if re.search(r"-v\d+$", name) else self.id

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules that building the environment imports because the settings name them."""
        return named_modules(self)

    @property
    def sources(self) -> tuple[str, ...]:
        """The modules whose code a registered id runs."""
        return registered_modules(self)

    def build(self, num_envs: int, device: torch.device) -> GymnasiumLanes:
        """`num_envs` lanes, whose tensors live on `device`; they are stepped on the host.

        Raises:
            UsageError: no such environment or wrapper, a package that it needs is missing, or a space that no policy
                here takes.
        """
        lanes, mode, autoreset = make_lanes(self, num_envs)
        environment = GymnasiumLanes(lanes, autoreset, InfoSettings(self.metrics, self.action_masks), device)
        environment.resolved = {"vectorization_mode": mode}
        return environment
