"""Which replay rows a batch is made of, and the latent states that are kept beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.data.replay import Replay
from dreamgym.structs import SequenceBatch
from dreamgym.training.online_config import OnlineTraining

__all__ = ["LatentRows", "WindowSampler"]


class WindowSampler:
    """Draws windows of consecutive rows; its only memory is which rows the online queue has handed out, `fresh_from`."""

    def __init__(self, replay: Replay, settings: OnlineTraining) -> None:
        self.replay, self.settings = replay, settings
        self.fresh_from = 0
        self._episodes: NDArray[np.int64] = np.empty((0, 2), np.int64)

    @property
    def ready(self) -> bool:
        """Whether there is a window to draw."""
        return len(self.replay) >= self.settings.window

    def draw(self, rng: np.random.Generator) -> SequenceBatch:
        """A batch [B,window] of rows on the CPU. Raises ValueError before there are enough."""
        if not self.ready:
            raise ValueError(f"the replay has {len(self.replay)} rows; a window needs {self.settings.window}: raise prefill.")
        fresh = self._fresh() if self.settings.online_queue else []
        count = self.settings.batch - len(fresh)
        drawn = self._by_episode(count, rng) if self.settings.sampling == "episodes" else self._anywhere(count, rng)
        return self.replay.sample_windows(np.concatenate([np.asarray(fresh, np.int64), drawn]), self.settings.window)

    @property
    def _oldest(self) -> int:
        capacity = self.settings.capacity
        return 0 if capacity is None else max(0, len(self.replay) - capacity)

    def _fresh(self) -> list[int]:
        """Windows of rows that no batch has seen, in the order they were lived and without overlap (specs/dreamer.md C.8)."""
        window = self.settings.window
        self.fresh_from = max(self.fresh_from, self._oldest)
        count = min(self.settings.batch, (len(self.replay) - self.fresh_from) // window)
        first = [self.fresh_from + i * window for i in range(count)]
        self.fresh_from += count * window
        return first

    def _anywhere(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(self._oldest, len(self.replay) - self.settings.window + 1, size=count)

    def _by_episode(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """An episode, then a window in it. One too short for that is seen from its start, together with what follows it.

        The last row can be drawn, unlike in the released Dreamer V1, whose terminal flags are never seen (specs/dreamer.md A.7).
        """
        episodes, window = self._known_episodes(), self.settings.window
        oldest = min(int(np.searchsorted(episodes[:, 0], self._oldest)), len(episodes) - 1)
        start, stop = episodes[rng.integers(oldest, len(episodes), size=count)].T
        first = start + np.floor(rng.random(count) * np.maximum(stop - start - window + 1, 1)).astype(np.int64)
        return np.minimum(first, len(self.replay) - window)

    def _known_episodes(self) -> NDArray[np.int64]:
        if len(self._episodes) == 0 or self._episodes[-1, 1] != len(self.replay):
            self._episodes = np.asarray(self.replay.episodes, np.int64)
        return self._episodes


class LatentRows:
    """The latest known posterior state of every replay row, in half precision. Rows nobody has inferred yet hold the initial state.

    A GRU's memory lies in [-1,1] and classes are 0 or 1, which half precision keeps to 5e-4 and exactly.
    """

    def __init__(self, template: Any) -> None:
        """template: the model's initial state [1]."""
        self._template = template
        self._arrays = {name: np.empty((0, *tensor.shape[1:]), np.float16) for name, tensor in template.items()}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, rows: int, states: list[Any] | None = None) -> None:
        """Add rows; the first of them take `states`, each [1], those of the agent that lived them."""
        start, self._length = self._length, self._length + rows
        for name, initial in self._template.items():
            array = _grown(self._arrays[name], start, self._length)
            array[start : self._length] = initial[0].float().cpu().numpy()
            self._arrays[name] = array
        for row, state in enumerate(states or []):
            for name, tensor in state.items():
                self._arrays[name][start + row] = tensor[0].float().cpu().numpy()

    def read(self, index: Tensor, device: torch.device) -> Any:
        """States at rows index [...], in float32."""
        rows = index.cpu().numpy()
        found = {name: torch.from_numpy(array[rows]).to(device).float() for name, array in self._arrays.items()}
        names = iter([name for name, _ in self._template.items()])  # map visits the tensors in the order of items
        return self._template.map(lambda like: found[next(names)].to(like.dtype))

    def write(self, index: Tensor, states: Any) -> None:
        """Replace the states at rows index [B,T]. Where a batch holds a row twice, the later one stays: NumPy assigns in order."""
        rows = index.cpu().numpy()
        for name, tensor in states.items():
            self._arrays[name][rows] = tensor.detach().float().cpu().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {name: torch.from_numpy(array[: self._length].copy()) for name, array in self._arrays.items()}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Undo `state_dict`."""
        self._arrays = {name: tensor.cpu().numpy().copy() for name, tensor in saved.items()}
        self._length = len(next(iter(self._arrays.values())))


def _grown(array: NDArray[Any], used: int, needed: int) -> NDArray[Any]:
    if needed <= len(array):
        return array
    larger = np.zeros((max(needed, 2 * len(array), 1024), *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger
