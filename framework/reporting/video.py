"""A video of one episode: the environment's pictures, written one by one as it is played."""

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from ..contracts import Step
from ..errors import PartError, UsageError
from ..evaluation import Performance, play
from ..parts import Part
from ..setup.building import build_environment, close
from ..streams import derived_seed

FRAMES_A_SECOND = 30  # of environments that do not say


def film(
    path: Path, policy: Any, part: Part, label: str, *, seed: int, greedy: bool, device: torch.device
) -> Performance:
    """Play one episode and write a picture of its beginning, and one after each step, as an mp4.

    Args:
        path: where to; its folder exists. It is written whole or not at all, over a file that is there.
        policy: who plays.
        part: the environment, of which one lane is built.
        label: what errors call the policy.
        seed: of all randomness; the episode is none of those that an evaluation with this seed plays.
        greedy: as in `play`.
        device: where the policy lives.

    Raises:
        UsageError: the environment cannot be pictured, the encoder is not installed, or the file cannot be written.
        PartError: a picture is none, or a part broke its contract.
    """
    encoder, temporary = _encoder(path), path.with_name(path.stem + ".part.mp4")
    environment = pictured(part, device)
    try:
        # sides are made even, as the codec wants them, and no further
        rate = _frames_a_second(environment, part.label)
        writer = encoder.get_writer(temporary, format="FFMPEG", fps=rate, macro_block_size=2)
        try:
            filmed, labels = Filmed(environment, writer, part.label, path), (part.label, label)
            own = derived_seed(seed, "film")
            performance = play(policy, filmed, 1, 1, seed=own, greedy=greedy, device=device, labels=labels)
        finally:
            with _writing(path):
                writer.close()
        with _writing(path):
            temporary.replace(path)
        return performance
    finally:
        temporary.unlink(missing_ok=True)
        close(environment, part.label)


def pictured(part: Part, device: torch.device) -> Any:
    """One lane of an environment that has `render()`; its setting `render_mode`, if there is one, is "rgb_array"."""
    if "render_mode" in attrs.fields_dict(type(part.settings)):
        part = attrs.evolve(part, settings=attrs.evolve(part.settings, render_mode="rgb_array"))
    environment = build_environment(part, 1, device)
    if not hasattr(environment, "render"):
        close(environment, part.label)
        raise UsageError(f"{part.label} cannot be filmed: it has no render()")
    return environment


class Filmed:
    """An environment whose every state is written as a picture when it is reached. It is stepped, and has no tables."""

    size: tuple[int, ...] | None = None  # of the first picture, which that of a video is

    def __init__(self, environment: Any, writer: Any, label: str, path: Path) -> None:
        """Of a working environment; `label` says whose a wrong picture is, `path` what is written."""
        self.environment, self.writer, self.label, self.path = environment, writer, label, path
        self.observation_space, self.action_space = environment.observation_space, environment.action_space

    @property
    def action_masks(self) -> Tensor | None:
        """The environment's own."""
        masks: Tensor | None = getattr(self.environment, "action_masks", None)
        return masks

    def __getattr__(self, name: str) -> Any:
        if name in ("statistics", "load_statistics"):  # and nothing else: it has no tables
            return getattr(self.environment, name)
        raise AttributeError(name)

    def reset(self, generator: torch.Generator) -> Tensor:
        """As the environment does, and a picture."""
        observations: Tensor = self.environment.reset(generator)
        self._take()
        return observations

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """As the environment does, and a picture."""
        step: Step = self.environment.step(actions, generator)
        self._take()
        return step

    def _take(self) -> None:
        picture = self.environment.render()
        right = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)
        if not right or not picture.size:
            got = (
                f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
            )
            raise PartError(f"{self.label}: render: expected a numpy array uint8 [H, W, 3], got {got}")
        self.size = self.size or picture.shape
        if picture.shape != self.size:
            raise PartError(
                f"{self.label}: render: all pictures of a video have one size: expected {list(self.size)} as the first "
                f"one, got {list(picture.shape)}"
            )
        with _writing(self.path):
            self.writer.append_data(picture)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """The encoder is another program: where it cannot write, it ends."""
    try:
        yield
    except OSError as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be written: {said} (what the encoder says of it is above)") from error


def _frames_a_second(environment: Any, label: str) -> float:
    metadata = getattr(environment, "metadata", None) or {}
    rate = getattr(environment, "render_fps", None) or metadata.get("render_fps") or FRAMES_A_SECOND
    if not (isinstance(rate, int | float | np.number) and 0 < rate < math.inf):
        raise PartError(f"{label}: render_fps: expected a number of pictures a second above 0, got {rate!r}")
    return float(rate)


def _encoder(path: Path) -> Any:
    """What writes videos; refuses one that cannot be written."""
    if path.suffix != ".mp4":
        raise UsageError(f"a video's name ends in .mp4: {path}")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        importlib.import_module("imageio_ffmpeg")
        return importlib.import_module("imageio.v2")
    except ImportError as error:
        raise UsageError(f'videos need an encoder ({error}): pip install "framework-rl[video]"') from None
