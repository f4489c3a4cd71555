"""Films: the real world above what the model makes of it, so that anybody can see what a model sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from dreamgym.dreams.drawing import enlarge, frame
from dreamgym.errors import require
from dreamgym.evaluation.comparison import awake_env
from dreamgym.evaluation.returns import REPORT_SEEDS_FROM
from dreamgym.structs import DreamableModel, Policy, map_obs

__all__ = ["Film", "compose", "film", "film_replay", "write_video"]

LABEL_HEIGHT = 16
OPEN_LOOP_AFTER = 5  # rows the open-loop dream may see before it is on its own, as in `open_loop_errors`
REPLAY = "replay.mp4"  # the name that the Hub plays on a model's page
REPLAY_BYTES = 10 * 1000**2
FASTEST = 8e6  # bits per second that a film is given at most, be it ever so short
KEPT_FREE = 0.2  # share of the bytes: containers and the encoder's rate control want some
Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Film:
    """A film that was written: where, of how many agent steps, and what the agent earned in it."""

    path: Path
    steps: int
    reward: float


def film(
    agent: Policy,
    awake_env: gym.Env[Any, Any],
    path: str | Path,
    *,
    seed: int,
    max_steps: int | None = None,
    size: int = 384,
    open_loop: bool = False,
    deterministic: bool = True,
    max_bytes: int | None = None,
) -> Film:
    """Film one episode: the real frame, below it the model's reconstruction and, if asked, the dream that ran on unseeing.

    awake_env is a `LatentObservation` whose env renders "rgb_array". Reconstructions are at least `size` pixels wide. The open-loop
    dream sees the first 5 rows, then only the agent's actions, with mean noise. Writes h264 (.mp4) or a .gif. max_bytes makes an .mp4
    coarser where it would grow beyond.
    Raises ValueError without render mode, for a model that cannot decode, or for a film that does not fit into max_bytes even so,
    MissingDependencyError without the extra `viz`.
    """
    if awake_env.render_mode != "rgb_array":
        raise ValueError(f"render_mode is {awake_env.render_mode!r}; make the real env with render_mode='rgb_array'.")
    model = awake_env.get_wrapper_attr("model")
    if not hasattr(model, "decode"):
        raise ValueError("this model has no decode, so it has nothing to show; film needs one.")
    scene = _Scene(agent, awake_env, model, size, open_loop, deterministic)
    seconds = (1 + (max_steps or model.spec.max_episode_steps)) / model.spec.fps
    rate = None if max_bytes is None else min(FASTEST, 8 * max_bytes * (1 - KEPT_FREE) / (seconds + 1))
    write_video(path, scene.frames(seed, max_steps), fps=model.spec.fps, bits_per_second=rate)
    if max_bytes is not None and (size := Path(path).stat().st_size) > max_bytes:
        Path(path).unlink()
        raise ValueError(
            f"a film of {scene.steps} steps takes {size} bytes, more than {max_bytes}; pass fewer max_steps or a smaller size."
        )
    return Film(Path(path), scene.steps, scene.reward)


def film_replay(
    agent: Policy,
    model: DreamableModel,
    folder: str | Path,
    *,
    seed: int = REPORT_SEEDS_FROM,
    max_steps: int | None = None,
    size: int = 384,
) -> Film:
    """Write the replay.mp4 that belongs beside a model's card: reality, what the model sees of it, and the dream that runs on unseeing.

    One episode of `agent`, who acts on the model's latents, in the real env of the model's Spec; at most 10 MB of h264 in yuv420p.
    Raises as `film`.
    """
    env = awake_env(model, render_mode="rgb_array")
    try:
        path = Path(folder) / REPLAY
        return film(agent, env, path, seed=seed, max_steps=max_steps, size=size, open_loop=True, max_bytes=REPLAY_BYTES)
    finally:
        env.close()


class _Scene:
    """One episode being played, as an iterator of frames."""

    def __init__(self, agent: Policy, env: gym.Env[Any, Any], model: Any, size: int, open_loop: bool, deterministic: bool) -> None:
        self.agent, self.env, self.model = agent, env, model
        self.size, self.open_loop, self.deterministic = size, open_loop, deterministic
        self.steps, self.reward = 0, 0.0
        self._dreamt: Any = None

    def frames(self, seed: int, max_steps: int | None) -> Iterator[Frame]:
        """The first observation's frame, then one for every agent step."""
        limit = max_steps or self.model.spec.max_episode_steps
        obs, _ = self.env.reset(seed=seed)
        memory, begins, ended = None, np.ones(1, bool), False
        yield self._draw()
        while not ended and self.steps < limit:
            actions, memory = self.agent.predict(
                map_obs(lambda value: value[None], obs), state=memory, episode_start=begins, deterministic=self.deterministic
            )
            obs, reward, terminated, truncated, _ = self.env.step(actions[0])
            begins, ended = np.zeros(1, bool), bool(terminated or truncated)
            self.steps += 1
            self.reward += float(reward)
            self._dream_on(actions)
            yield self._draw()

    def _dream_on(self, actions: Any) -> None:
        if not self.open_loop:
            return
        if self.steps < OPEN_LOOP_AFTER:
            self._dreamt = self._belief()
            return
        with torch.inference_mode():
            device = self._dreamt.items()[0][1].device
            action = self.model.spec.to_model_action(torch.as_tensor(np.asarray(actions), device=device))
            self._dreamt = self.model.step(self._dreamt, action, torch.full((1, self.model.noise_lanes), 0.5, device=device))

    def _draw(self) -> Frame:
        real = self.env.render()
        panels = [("real", enlarge(np.asarray(real), 1)), ("reconstruction", self._picture(self._belief()))]
        if self.open_loop and self._dreamt is not None:
            panels.append(("dream, unseeing" if self.steps >= OPEN_LOOP_AFTER else "dream, seeing", self._picture(self._dreamt)))
        elif self.open_loop:
            panels.append(("dream, seeing", panels[1][1]))
        return compose(panels, f"step {self.steps}   reward {self.reward:.1f}")

    def _belief(self) -> Any:
        return self.env.get_wrapper_attr("belief")

    def _picture(self, state: Any) -> Frame:
        with torch.inference_mode():
            decoded = map_obs(lambda values: values[0].cpu().numpy(), self.model.decode(state))
        spec = self.model.spec
        return frame(decoded, spec.observation_space, self.size, stack=spec.preprocess.stack)


def compose(panels: Sequence[tuple[str, Frame]], caption: str = "") -> Frame:
    """Stack labelled panels, all as wide as the widest of the lower ones; `caption` follows the first label. Even sizes, as h264 wants."""
    pillow = require("PIL.Image", extra="viz", purpose="drawing labels")
    drawing = require("PIL.ImageDraw", extra="viz", purpose="drawing labels")
    width = max(2 * (panel.shape[1] // 2) for _, panel in (panels[1:] or panels))
    height = 0
    images = []
    for _, panel in panels:
        image = pillow.fromarray(panel)
        image = image.resize((width, max(1, round(image.height * width / image.width))), pillow.Resampling.BILINEAR)
        images.append(image)
        height += LABEL_HEIGHT + image.height
    canvas = pillow.new("RGB", (width, height + height % 2))
    draw, top = drawing.Draw(canvas), 0
    for index, ((label, _), image) in enumerate(zip(panels, images)):
        draw.text((4, top + 2), f"{label}   {caption}" if index == 0 else label, fill=(255, 255, 255))
        canvas.paste(image, (0, top + LABEL_HEIGHT))
        top += LABEL_HEIGHT + image.height
    return np.asarray(canvas)


def write_video(path: str | Path, frames: Iterable[Frame], *, fps: float, bits_per_second: float | None = None) -> int:
    """Write frames [Y,X,3] uint8 of equal, even size; the suffix decides: .gif, else h264 in yuv420p, which browsers play.

    bits_per_second bounds the h264, averaged over a second. Returns the number of frames. Raises ValueError without any,
    MissingDependencyError without the extra `viz`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise ValueError(f"no frames to write to {path}.")
    if path.suffix == ".gif":
        return _write_gif(path, chain([first], rest), fps)
    encoder = require("imageio_ffmpeg", extra="viz", purpose="writing mp4")
    size = (first.shape[1], first.shape[0])
    bounds = [] if bits_per_second is None else ["-maxrate", f"{bits_per_second:.0f}", "-bufsize", f"{bits_per_second:.0f}"]
    options = {"codec": "libx264", "pix_fmt_out": "yuv420p", "macro_block_size": 2, "quality": 6, "output_params": bounds}
    writer = encoder.write_frames(str(path), size, fps=fps, **options)
    writer.send(None)
    count = 0
    try:
        for frame in chain([first], rest):
            writer.send(np.ascontiguousarray(frame))
            count += 1
    finally:
        writer.close()
    return count


def _write_gif(path: Path, frames: Iterable[Frame], fps: float) -> int:
    pillow = require("PIL.Image", extra="viz", purpose="writing gif")
    images = [pillow.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=max(20, round(1000 / fps)), loop=0)
    return len(images)
