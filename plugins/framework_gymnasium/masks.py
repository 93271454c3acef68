"""The action masks of all lanes, read from `info`."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from framework.tools import warn

from .infos import INFO_KEY, Array, MisuseError, mask_size
from .vectorised import read_masks, unused_mask_reason


class LaneMasks:
    """Holds `tensor` `[N, actions]` bool on the host; None until a reset of all lanes returned masks."""

    tensor: Tensor | None = None

    def __init__(self, space: spaces.Space[Any], lanes: int, mode: str, guarded: bool) -> None:
        """`mode` is the setting `action_masks`; `guarded`: each lane has its `Guard`, which reads the masks."""
        self._space, self._lanes, self._mode, self._guarded = space, lanes, mode, guarded
        self._size = mask_size(space)
        self._rows: Array | None = None  # the memory of `tensor`
        self.may_warn = mode == "auto" and self._size is not None  # if masks come that are not used

    def reset(self, info: Any) -> None:
        """Read the masks of the first observations; the first reset decides whether there are any."""
        if self._rows is None and self._are_in(info):
            assert self._size is not None
            self.tensor = torch.ones((self._lanes, self._size), dtype=torch.bool)
            self._rows = self.tensor.numpy()
        if self._rows is not None:
            self.update(info, np.ones(self._lanes, bool))
        elif self.may_warn:
            self.warn(info, "at reset")

    def allow_all(self, lanes: Array) -> None:
        """Allow every action in these lanes."""
        assert self._rows is not None
        self._rows[lanes] = True

    def update(self, info: Any, which: Array) -> None:
        """Read the masks of the lanes `which` [N] bool; a lane without a mask may take any action."""
        assert self._rows is not None
        if not self._guarded:
            rows = read_masks(info, *self._rows.shape)
            if rows is None and self._mode == "info":
                raise MisuseError(f"info has no 'action_mask' of shape {list(self._rows.shape)}")
            self._rows[which] = True if rows is None else rows[which]
            return
        entries = info.get(INFO_KEY)
        for lane in which.nonzero()[0].tolist():
            mask = None if entries is None or entries[lane] is None else entries[lane][1]
            if isinstance(mask, str):
                raise MisuseError(f"lane {lane}: {mask}: environment.action_masks none trains without")
            self._rows[lane] = True if mask is None else mask

    def warn(self, info: Any, when: str) -> None:
        """Warn once of a mask that is not used: it is malformed, or came only after the reset of all lanes."""
        reason = unused_mask_reason(info, self._guarded, self._lanes, self._space)
        if reason is None:
            return
        self.may_warn = False
        reason = (
            reason or f"info has an 'action_mask' {when}, and had none at the reset of all lanes: return it there, too"
        )
        off = "environment.action_masks none stops this warning"
        warn(f"environment 'gymnasium': no action masks are used. {reason}. {off}")

    def _are_in(self, info: Any) -> bool:
        if self._guarded:
            return any(entry is not None and not isinstance(entry[1], str) for entry in info.get(INFO_KEY, ()))
        return (
            self._size is not None
            and self._mode != "none"
            and (self._mode == "info" or read_masks(info, self._lanes, self._size) is not None)
        )
