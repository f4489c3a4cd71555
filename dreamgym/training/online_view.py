"""What a model dreams beside what happened: errors over growing horizons for the log, and a film of images for TensorBoard."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.data.replay import Replay
from dreamgym.evaluation.prediction_errors import open_loop_errors, open_loop_states, states_before
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import SequenceBatch
from dreamgym.training.logger import MetricsLog

__all__ = ["dream_film", "log_open_loop"]

HORIZONS = (1, 5, 10, 25, 50)
CONTEXT = 5  # rows that are seen before the dream runs on alone; danijar/dreamer shows as many
_SEQUENCES = 16  # over which errors are averaged
_FILMS = 3  # side by side
_SHOWN = ("obs_rmse", "obs_rmse_of_repeat", "reward_mae", "reward_correlation", "continue_brier")


def log_open_loop(log: MetricsLog, model: WorldModel, unseen: Replay, step: int) -> None:
    """Log open-loop errors on windows of `unseen`, and for image observations add a film; nothing where episodes are too short.

    The windows depend on the stored rows alone, so looking changes nothing in a run.
    """
    chosen = _windows(unseen)
    if chosen is None:
        return
    first, length = chosen
    rows, start = unseen.sample_windows(first, length).to(model.device), states_before(model, unseen, first)
    log.write("open_loop", step, _errors(model, rows, start))
    frames = dream_film(model, rows[:_FILMS], start[:_FILMS])
    if frames is not None:
        _add_film(log, "open_loop/film", step, frames, model.spec.fps)


def _errors(model: WorldModel, rows: SequenceBatch, start: Any) -> dict[str, float]:
    values: dict[str, float] = {}
    for horizon, found in open_loop_errors(model, rows, HORIZONS, CONTEXT, start=start).items():
        values |= {f"{name}_{horizon}": found[name] for name in _SHOWN if found.get(name) is not None}
    return values


def _windows(replay: Replay) -> tuple[NDArray[np.int64], int] | None:
    """First rows [B] and length T of windows inside episodes, as long as the longest allows, from among those that are as long."""
    episodes = np.asarray(replay.episodes, np.int64).reshape(-1, 2)
    lengths = episodes[:, 1] - episodes[:, 0]
    T = min(int(lengths.max(initial=0)), CONTEXT + HORIZONS[-1])
    if CONTEXT + HORIZONS[0] > T:
        return None
    rng = np.random.default_rng(len(replay))
    chosen = rng.choice(np.flatnonzero(lengths >= T), _SEQUENCES)
    return episodes[chosen, 0] + np.floor(rng.random(_SEQUENCES) * (lengths[chosen] - T + 1)).astype(np.int64), T


def dream_film(model: WorldModel, rows: SequenceBatch, start: Any = None) -> NDArray[np.uint8] | None:
    """Frames [T,Y,X,3] of rows [B,T]: reality above the dream above their difference, sequences side by side; None without images.

    start: the states [B] of `states_before`. The dream sees the first 5 rows, then only the actions, with mean noise. Images of a Dict
    observation stand beside each other.
    """
    seen = _images(model, rows.obs)
    if not seen:
        return None
    dreamt = _images(model, _dreamt_obs(model, rows, start))
    columns = []
    for real, dream in zip(seen, dreamt):
        difference = ((dream.astype(np.int16) - real.astype(np.int16) + 255) // 2).astype(np.uint8)
        columns += [np.concatenate([real[b], dream[b], difference[b]], 1) for b in range(len(real))]
    return np.concatenate(columns, 2)


@torch.no_grad()
def _dreamt_obs(model: WorldModel, rows: SequenceBatch, start: Any) -> Any:
    """What the model shows along rows [B,T]: reconstructions of the first 5, then open-loop predictions; as observations [B,T,...]."""
    shown = [model.decode(state) for state in open_loop_states(model, rows, CONTEXT, start=start)]
    if isinstance(shown[0], dict):
        return {key: torch.stack([obs[key] for obs in shown], 1) for key in shown[0]}
    return torch.stack(shown, 1)


def _add_film(log: MetricsLog, tag: str, step: int, frames: NDArray[np.uint8], fps: float) -> None:
    """An animated picture in TensorBoard, as Dreamer has it; skipped without TensorBoard or Pillow. add_video would need moviepy."""
    writer = log._writer
    try:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary
    except ImportError:
        return
    if writer is None:
        return
    pictures = [Image.fromarray(frame) for frame in frames]
    written = BytesIO()
    pictures[0].save(written, "GIF", save_all=True, append_images=pictures[1:], duration=max(20, round(1000 / fps)), loop=0)
    height, width = frames.shape[1:3]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=written.getvalue())
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def _images(model: WorldModel, obs: Any) -> list[NDArray[np.uint8]]:
    """The image parts of observations [B,T,...], as colour pictures [B,T,Y,X,3]; of stacked frames the last."""
    space = model.spec.observation_space
    parts = [(space, obs)] if not isinstance(space, spaces.Dict) else [(part, obs[key]) for key, part in sorted(space.spaces.items())]
    found = []
    for part, values in parts:
        if part.shape is None or len(part.shape) != 3 or part.dtype != np.uint8:
            continue
        picture = values.cpu().numpy()
        found.append(picture[..., :3] if picture.shape[-1] == 3 else np.repeat(picture[..., -1:], 3, -1))
    return found
