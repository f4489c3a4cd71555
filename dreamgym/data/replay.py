"""What was lived: an append-only store of arrival-aligned rows, sampled in windows that may cross episode ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamgym.data.storage import FolderStorage, Layout, MemoryStorage, Storage
from dreamgym.structs import SequenceBatch, Spec

__all__ = ["HoldOut", "Replay"]

_COLUMNS = ("prev_action", "reward", "is_first", "is_last", "is_terminal", "valid")


class Replay:
    """Episodes of one world, in memory or, given a folder, in memory-mapped files that a kill in mid-write cannot spoil.

    Row t holds obs_t, reward_t and the flags that arrived with it, and the model action that led there (see structs.py).
    Reopening a folder keeps every episode whose `add_episode` returned and drops a torn tail with a RuntimeWarning. Raises
    ValueError if the folder holds rows of another shape or is damaged before its end.
    """

    def __init__(self, spec: Spec, folder: Path | str | None = None) -> None:
        self.spec = spec
        space = spec.observation_space
        if space.shape is None or space.dtype is None:
            raise TypeError(f"observation space {space} is not supported; expected a Box.")
        layout = Layout(tuple(space.shape), np.dtype(space.dtype).str, spec.action_size)
        self.folder = None if folder is None else Path(folder)
        self._row_dtype = layout.row_dtype
        self._storage: Storage = MemoryStorage(layout) if self.folder is None else FolderStorage(layout, self.folder)

    def __len__(self) -> int:
        return self._storage.commits[-1].stop if self._storage.commits else 0

    @property
    def episodes(self) -> tuple[tuple[int, int], ...]:
        """Rows [start, stop) of each episode."""
        return tuple((commit.start, commit.stop) for commit in self._storage.commits)

    @property
    def policies(self) -> tuple[str, ...]:
        """Who acted in each episode."""
        return tuple(commit.policy for commit in self._storage.commits)

    @property
    def num_steps(self) -> int:
        """Actions taken: rows without the first ones."""
        return len(self) - len(self._storage.commits)

    def add_episode(
        self,
        obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        terminated: bool,
        truncated: bool,
        valid: NDArray[np.bool_] | None = None,
        policy: str = "",
    ) -> None:
        """Store an episode: obs [T+1,...] with the final one, env actions [T] or [T,A] and the rewards [T] they brought.

        Only `terminated` makes the final row terminal; whatever else cut the episode, it is last. valid [T+1] is False where an
        observation means nothing. Raises ValueError for lengths, shapes, types or actions that do not fit, NaN and infinity.
        """
        obs, reward = np.asarray(obs), np.asarray(reward, np.float32)
        actions = self._model_actions(action)
        T = len(actions)
        if T < 1 or reward.shape != (T,) or len(obs) != T + 1:
            raise ValueError(
                f"episode has {len(obs)} observations, {T} actions and {reward.shape} rewards; expected T+1, T and (T,), T at least 1."
            )
        rows = np.zeros(T + 1, self._row_dtype)
        rows["prev_action"][1:] = actions
        rows["reward"][1:] = _finite("reward", reward)
        rows["is_first"][0] = True
        rows["is_last"][-1] = True
        rows["is_terminal"][-1] = terminated
        rows["valid"] = True if valid is None else self._flags(valid, T + 1)
        self._storage.append(self._checked_obs(obs), rows, policy)

    def sample(
        self, batch_size: int, length: int, rng: np.random.Generator, *, rows: tuple[int, int] | None = None
    ) -> SequenceBatch:
        """Windows [B,T] drawn uniformly, with replacement, from all windows inside `rows` [start, stop) (None: everything).

        Raises ValueError if that range is not inside the replay or shorter than a window.
        """
        start, stop = (0, len(self)) if rows is None else rows
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"rows are {start} to {stop}; this replay has 0 to {len(self)}.")
        if batch_size < 1 or length < 1 or stop - start < length:
            raise ValueError(f"cannot draw {batch_size} windows of {length} rows from {stop - start}; collect more or shorten the windows.")
        first = rng.integers(start, stop - length + 1, size=batch_size)
        return self._gather(first[:, None] + np.arange(length))

    def sequence(self, start: int, stop: int) -> SequenceBatch:
        """Rows [start, stop) in order, [1,T]. Raises IndexError outside the replay."""
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"rows {start} to {stop} are not inside 0 to {len(self)}.")
        return self._gather(np.arange(start, stop)[None])

    def obs_rows(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Copies of the observations at row numbers of any shape, [*indices.shape, ...]."""
        return np.take(self._storage.obs, indices, axis=0)

    def column(self, name: str) -> NDArray[Any]:
        """Read-only view of one column over all rows, [N,...]; in a folder it is valid until the next episode is added."""
        if name == "obs":
            return self._storage.obs
        if name not in _COLUMNS:
            raise KeyError(f"no column {name!r}; there are obs, {', '.join(_COLUMNS)}.")
        return self._storage.rows[name]  # type: ignore[no-any-return]

    def keep(self, episodes: int) -> None:
        """Forget all but the first episodes, for resuming from a checkpoint that knew no more."""
        if not 0 <= episodes <= len(self._storage.commits):
            raise ValueError(f"cannot keep {episodes} episodes of {len(self._storage.commits)}.")
        self._storage.keep(episodes)

    def _gather(self, index: NDArray[np.int64]) -> SequenceBatch:
        rows = self._storage.rows[index]
        columns = {name: torch.from_numpy(np.ascontiguousarray(rows[name])) for name in _COLUMNS}
        return SequenceBatch(obs=torch.from_numpy(self.obs_rows(index)), index=torch.from_numpy(index.astype(np.int64)), **columns)

    def _model_actions(self, action: NDArray[Any]) -> NDArray[np.float32]:
        action = np.asarray(action)
        if self.spec.is_discrete:
            low = int(self.spec.action_space.start)  # type: ignore[attr-defined]
            if action.ndim != 1 or action.dtype.kind not in "iu" or not ((action >= low) & (action < low + self.spec.action_size)).all():
                raise ValueError(f"actions {action.dtype}{action.shape} do not fit; expected integers [T] in {self.spec.action_space}.")
        elif action.ndim != 2 or action.shape[1] != self.spec.action_size:
            raise ValueError(f"actions have shape {action.shape}; expected [T,{self.spec.action_size}].")
        else:
            action = _finite("action", action.astype(np.float32))
        return self.spec.to_model_action(torch.from_numpy(np.ascontiguousarray(action))).numpy()

    def _checked_obs(self, obs: NDArray[Any]) -> NDArray[Any]:
        space = self.spec.observation_space
        if obs.shape[1:] != space.shape:
            raise ValueError(f"observations have shape {obs.shape[1:]}; expected {space.shape}.")
        if space.dtype == np.uint8:
            if obs.dtype != np.uint8:
                raise ValueError(f"observations are {obs.dtype}; expected uint8 images.")
            return obs
        return _finite("observation", obs.astype(space.dtype))

    @staticmethod
    def _flags(valid: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
        valid = np.asarray(valid)
        if valid.shape != (length,) or valid.dtype != np.bool_:
            raise ValueError(f"valid is {valid.dtype}{valid.shape}; expected bool ({length},), one flag per observation.")
        return valid


class HoldOut:
    """Takes episodes like a replay, and keeps every n-th one out of training."""

    def __init__(self, train: Replay, held_out: Replay, every: int) -> None:
        self.train, self.held_out, self.every = train, held_out, every
        self.spec = train.spec
        self._count = 0

    def add_episode(self, *args: Any, **kwargs: Any) -> None:
        """As Replay.add_episode."""
        self._count += 1
        (self.held_out if self._count % self.every == 0 else self.train).add_episode(*args, **kwargs)


def _finite(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """One NaN would poison every weight that ever sees it."""
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is NaN or infinite at step {int(np.argwhere(~np.isfinite(values))[0][0])}.")
    return values
