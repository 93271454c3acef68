"""A video of one episode: the environment's frames, written as it is played."""

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

DEFAULT_FPS = 30  # of environments without render_fps


def film(
    path: Path, policy: Any, part: Part, label: str, *, seed: int, greedy: bool, device: torch.device
) -> Performance:
    """Play one episode and write its frames, one at the start and one after each step, as an mp4.

    Args:
        path: the file, in an existing folder. It is written whole or not at all, and replaces an existing file.
        policy: the policy that plays.
        part: the environment; one lane is built.
        label: the policy's name in errors.
        seed: of all random numbers; an evaluation with the same seed plays other episodes.
        greedy: as in `play`.
        device: the policy's device.

    Raises:
        UsageError: the environment cannot be rendered, the encoder is not installed, or the file cannot be written.
        PartError: a frame is not an image, or a part broke its contract.
    """
    encoder, temporary = _encoder(path), path.with_name(path.stem + ".part.mp4")
    environment = renderable_environment(part, device)
    try:
        # the codec needs even sides
        rate = _frames_per_second(environment, part.label)
        writer = encoder.get_writer(temporary, format="FFMPEG", fps=rate, macro_block_size=2)
        try:
            filmed, labels = Filmed(environment, writer, part.label, path), (part.label, label)
            film_seed = derived_seed(seed, "film")
            performance = play(policy, filmed, 1, 1, seed=film_seed, greedy=greedy, device=device, labels=labels)
        finally:
            with _encoder_errors(path):
                writer.close()
        with _encoder_errors(path):
            temporary.replace(path)
        return performance
    finally:
        temporary.unlink(missing_ok=True)
        close(environment, part.label)


def renderable_environment(part: Part, device: torch.device) -> Any:
    """One lane of an environment with `render()`; its setting `render_mode`, if it has one, is set to "rgb_array"."""
    if "render_mode" in attrs.fields_dict(type(part.settings)):
        part = attrs.evolve(part, settings=attrs.evolve(part.settings, render_mode="rgb_array"))
    environment = build_environment(part, 1, device)
    if not hasattr(environment, "render"):
        close(environment, part.label)
        raise UsageError(f"{part.label} cannot be filmed: it has no render()")
    return environment


class Filmed:
    """Wraps an environment and writes a frame after each reset and step. It hides the environment's tables."""

    size: tuple[int, ...] | None = None  # of the first frame, and so of the video

    def __init__(self, environment: Any, writer: Any, label: str, path: Path) -> None:
        """Wrap an environment; `label` is its name in errors, `path` the file that is written."""
        self.environment, self.writer, self.label, self.path = environment, writer, label, path
        self.observation_space, self.action_space = environment.observation_space, environment.action_space

    @property
    def action_masks(self) -> Tensor | None:
        """The environment's own."""
        masks: Tensor | None = getattr(self.environment, "action_masks", None)
        return masks

    def __getattr__(self, name: str) -> Any:
        if name in ("statistics", "load_statistics"):  # and nothing else: no tables
            return getattr(self.environment, name)
        raise AttributeError(name)

    def reset(self, generator: torch.Generator) -> Tensor:
        """As the environment's, and write a frame."""
        observations: Tensor = self.environment.reset(generator)
        self._write_frame()
        return observations

    def step(self, actions: Tensor, generator: torch.Generator) -> Step:
        """As the environment's, and write a frame."""
        step: Step = self.environment.step(actions, generator)
        self._write_frame()
        return step

    def _write_frame(self) -> None:
        picture = self.environment.render()
        is_image = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)
        if not is_image or not picture.size:
            got = (
                f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
            )
            raise PartError(f"{self.label}: render: expected a numpy array uint8 [H, W, 3], got {got}")
        self.size = self.size or picture.shape
        if picture.shape != self.size:
            raise PartError(
                f"{self.label}: render: all frames of a video must have the same size: expected {list(self.size)} as "
                f"the first one, got {list(picture.shape)}"
            )
        with _encoder_errors(self.path):
            self.writer.append_data(picture)


@contextmanager
def _encoder_errors(path: Path) -> Iterator[None]:
    """Turn errors of the encoder, which is another program, into `UsageError`."""
    try:
        yield
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be written: {reason} (the encoder's own message is above)") from error


def _frames_per_second(environment: Any, label: str) -> float:
    metadata = getattr(environment, "metadata", None) or {}
    rate = getattr(environment, "render_fps", None) or metadata.get("render_fps") or DEFAULT_FPS
    if not (isinstance(rate, int | float | np.number) and 0 < rate < math.inf):
        raise PartError(f"{label}: render_fps: expected a number of frames per second above 0, got {rate!r}")
    return float(rate)


def _encoder(path: Path) -> Any:
    """The module that writes videos; refuses a path that cannot be written."""
    if path.suffix != ".mp4":
        raise UsageError(f"a video's name ends in .mp4: {path}")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        importlib.import_module("imageio_ffmpeg")
        return importlib.import_module("imageio.v2")
    except ImportError as error:
        raise UsageError(f'videos need an encoder ({error}): pip install "framework-rl[video]"') from None
