"""Which of Gymnasium's environments, and how its lanes are stepped and reset."""

import re
from typing import Any, Literal

import torch
from attrs import field, frozen, validators

from .infos import DEFAULT_METRICS, Wanted
from .lanes import GymnasiumLanes
from .making import make_lanes

VECTORIZATION = ("auto", "vector_entry_point", "sync", "async")
MASKS = ("auto", "info", "method", "none")
AUTORESET = ("auto", "next_step", "same_step", "disabled")


@frozen
class Gymnasium:
    """Any environment of Gymnasium, by its registered id or a function that makes one."""

    id: str = "CartPole-v1"  # a registered id, module:id (imported first), or module:function that makes one
    vectorization_mode: Literal["auto", "vector_entry_point", "sync", "async"] = field(
        default="auto", validator=validators.in_(VECTORIZATION)
    )
    """its own vectorised version, lanes in this process, or one process a lane; auto: its own, else sync"""
    autoreset: Literal["auto", "next_step", "same_step", "disabled"] = field(
        default="auto", validator=validators.in_(AUTORESET)
    )
    """Gymnasium's AutoresetMode: when a lane begins its next episode; auto: same_step, where there is a choice"""
    kwargs: dict[str, Any] = field(factory=dict)  # arguments of the environment itself; lists and tables as in TOML
    wrappers: tuple[str, ...] = ()
    """put around each lane, the first innermost: names of gymnasium.wrappers or module:Class, with arguments in
    brackets, such as FrameStackObservation(stack_size=4)"""
    max_episode_steps: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    """time limit, a truncation; None: the environment's own"""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """numbers of `info` at each episode's last step, columns environment/… of metrics.csv; nested: episode.r"""
    action_masks: Literal["auto", "info", "method", "none"] = field(default="auto", validator=validators.in_(MASKS))
    """which actions are allowed: `info["action_mask"]`, or the method `action_masks()`; auto: whichever there is"""
    render_mode: str | None = None  # as Gymnasium's: human, rgb_array …; None: nothing is drawn

    @property
    def title(self) -> str:
        """What summaries call it: a registered id without its module, or `module:function`."""
        name = self.id.rpartition(":")[2]
        return name if re.search(r"-v\d+$", name) else self.id

    def build(self, num_envs: int, device: torch.device) -> GymnasiumLanes:
        """`num_envs` lanes, whose tensors live on `device`; they are stepped on the host.

        Raises:
            UsageError: no such environment or wrapper, a package that it needs is missing, or a space that no policy
                here takes.
        """
        lanes, mode, autoreset = make_lanes(self, num_envs)
        made = GymnasiumLanes(lanes, autoreset, Wanted(self.metrics, self.action_masks), device)
        made.resolved = {"vectorization_mode": mode}
        return made
