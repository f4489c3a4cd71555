"""What was lived: an append-only store of arrival-aligned rows, sampled in windows that may cross episode ends."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.data.storage import FolderStorage, Layout, MemoryStorage, Storage
from dreamgym.structs import Observation, SequenceBatch, Spec, map_obs

__all__ = ["HoldOut", "Replay", "all_or_none", "copy_episode"]

_COLUMNS = ("prev_action", "reward", "is_first", "is_last", "is_terminal", "valid")


class Replay:
    """Episodes of one world, in memory or, given a folder, in memory-mapped files that a kill in mid-write cannot spoil.

    Row t holds obs_t, reward_t and the flags that arrived with it, and the model action that led there (see structs.py).
    Where obs stands for arrays below, those of a Dict observation are a dict of arrays, one per part.
    Reopening a folder keeps every episode whose `add_episode` returned and drops a torn tail with a RuntimeWarning. Raises
    ValueError if the folder holds rows of another shape or is damaged before its end.
    """

    def __init__(self, spec: Spec, folder: Path | str | None = None) -> None:
        self.spec = spec
        self.source: str | None = None  # where it was loaded from, as "user/repo@commit"; a model trained on it can say so
        self._parts = spec.observation_parts if isinstance(spec.observation_space, spaces.Dict) else None
        layout = _layout(spec)
        self.folder = None if folder is None else Path(folder)
        self._obs_dtype, self._row_dtype = layout.obs_type, layout.row_dtype
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
        obs: Observation,
        action: NDArray[Any],
        reward: NDArray[Any],
        terminated: bool,
        truncated: bool,
        valid: NDArray[np.bool_] | None = None,
        policy: str = "",
    ) -> None:
        """Store an episode: obs [T+1,...] with the final one, env actions [T], [T,N] or [T,A] and the rewards [T] they brought.

        Only `terminated` makes the final row terminal; whatever else cut the episode, it is last. valid [T+1] is False where an
        observation means nothing. Raises ValueError for lengths, shapes, types or actions that do not fit, NaN and infinity.
        """
        packed, reward = self._packed(obs), np.asarray(reward, np.float32)
        actions = self._model_actions(action)
        T = len(actions)
        if T < 1 or reward.shape != (T,) or len(packed) != T + 1:
            raise ValueError(
                f"episode has {len(packed)} observations, {T} actions and {reward.shape} rewards; expected T+1, T and (T,), T at least 1."
            )
        rows = np.zeros(T + 1, self._row_dtype)
        rows["prev_action"][1:] = actions
        rows["reward"][1:] = _finite("reward", reward)
        rows["is_first"][0] = True
        rows["is_last"][-1] = True
        rows["is_terminal"][-1] = terminated
        rows["valid"] = True if valid is None else self._flags(valid, T + 1)
        self._storage.append(packed, rows, policy)

    def add_rows(self, obs: Observation, columns: Mapping[str, NDArray[Any]], policy: str = "") -> None:
        """Store an episode as `column` shows one, bit for bit: obs [T+1,...] and every other column [T+1,...] by its name.

        Raises ValueError for types, shapes or values that do not fit the spec, and for rows that are not one aligned episode.
        """
        packed = self._packed(obs)
        if len(packed) < 2 or set(columns) != set(_COLUMNS):
            raise ValueError(f"episode has {len(packed)} rows of {sorted(columns)}; expected at least 2 rows of {', '.join(_COLUMNS)}.")
        rows = np.zeros(len(packed), self._row_dtype)
        for name in _COLUMNS:
            values, expected = columns[name], rows[name]
            if values.dtype != expected.dtype or values.shape != expected.shape:
                raise ValueError(f"{name} is {values.dtype}{values.shape}; expected {expected.dtype}{expected.shape}.")
            rows[name] = values
        _check_alignment(rows)
        _check_model_actions(rows["prev_action"][1:], self.spec)
        self._storage.append(packed, rows, policy)

    def push_to_hub(self, repo_id: str, *, license: str, **options: Any) -> Any:
        """Share the episodes as a dataset on the Hugging Face Hub; see dreamgym.hub.datasets.push_dataset_to_hub."""
        return _hub("push")(self, repo_id, license=license, **options)

    @classmethod
    def from_hub(cls, repo_id: str, **options: Any) -> Replay:
        """A replay of a dataset that `push_to_hub` wrote; see dreamgym.hub.datasets.from_hub."""
        pulled: Replay = _hub("pull")(repo_id, **options)
        return pulled

    def sample(self, batch_size: int, length: int, rng: np.random.Generator, *, rows: tuple[int, int] | None = None) -> SequenceBatch:
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

    def sample_windows(self, first_rows: NDArray[np.integer[Any]], length: int) -> SequenceBatch:
        """The windows [B,T] of `length` rows that begin at first_rows [B]. Raises IndexError where one is not inside the replay."""
        first = np.asarray(first_rows, np.int64)
        if first.ndim != 1 or length < 1 or ((first < 0) | (first > len(self) - length)).any():
            raise IndexError(f"windows of {length} rows from {first_rows} are not inside 0 to {len(self)}.")
        return self._gather(first[:, None] + np.arange(length))

    def sequence(self, start: int, stop: int) -> SequenceBatch:
        """Rows [start, stop) in order, [1,T]. Raises IndexError outside the replay."""
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"rows {start} to {stop} are not inside 0 to {len(self)}.")
        return self._gather(np.arange(start, stop)[None])

    def obs_rows(self, indices: NDArray[np.integer[Any]]) -> Observation:
        """Copies of the observations at row numbers of any shape, [*indices.shape, ...]."""
        if self._parts is None:
            return np.take(self._storage.obs, indices, axis=0)
        return {name: self._storage.obs[name][indices] for name in self._parts}  # np.take would copy the whole column first

    def column(self, name: str) -> Any:
        """Read-only view of one column over all rows, [N,...]; in a folder it is valid until the next episode is added."""
        if name == "obs":
            return self._storage.obs if self._parts is None else {part: self._storage.obs[part] for part in self._parts}
        if name not in _COLUMNS:
            raise KeyError(f"no column {name!r}; there are obs, {', '.join(_COLUMNS)}.")
        return self._storage.rows[name]

    def keep(self, episodes: int) -> None:
        """Forget all but the first episodes, for resuming from a checkpoint that knew no more."""
        if not 0 <= episodes <= len(self._storage.commits):
            raise ValueError(f"cannot keep {episodes} episodes of {len(self._storage.commits)}.")
        self._storage.keep(episodes)

    def _gather(self, index: NDArray[np.int64]) -> SequenceBatch:
        rows = self._storage.rows[index]
        columns = {name: torch.from_numpy(np.ascontiguousarray(rows[name])) for name in _COLUMNS}
        return SequenceBatch(obs=map_obs(torch.from_numpy, self.obs_rows(index)), index=torch.from_numpy(index.astype(np.int64)), **columns)

    def _model_actions(self, action: NDArray[Any]) -> NDArray[np.float32]:
        action, space = np.asarray(action), self.spec.action_space
        if isinstance(space, spaces.Discrete):
            if action.ndim != 1 or not _are_classes(action, space.start, space.n):
                raise ValueError(f"actions {action.dtype}{action.shape} do not fit; expected integers [T] in {space}.")
        elif isinstance(space, spaces.MultiDiscrete):
            if action.ndim != 2 or action.shape[1:] != space.shape or not _are_classes(action, space.start, space.nvec):
                raise ValueError(f"actions {action.dtype}{action.shape} do not fit; expected integers [T,{space.shape[0]}] in {space}.")
        elif action.ndim != 2 or action.shape[1] != self.spec.action_size:
            raise ValueError(f"actions have shape {action.shape}; expected [T,{self.spec.action_size}].")
        else:
            action = _finite("action", action.astype(np.float32))
        return self.spec.to_model_action(torch.from_numpy(np.ascontiguousarray(action))).numpy()

    def _packed(self, obs: Observation) -> NDArray[Any]:
        """Observations as they are stored, [T+1,...], checked."""
        if self._parts is None:
            if isinstance(obs, dict):
                raise ValueError(f"observations are a dict of {sorted(obs)}; expected arrays in {self.spec.observation_space}.")
            return _checked("observation", np.asarray(obs), self.spec.observation_space)
        if not isinstance(obs, dict) or set(obs) != set(self._parts):
            found = f"a dict of {sorted(obs)}" if isinstance(obs, dict) else type(obs).__name__
            raise ValueError(f"observations are {found}; expected a dict of arrays {sorted(self._parts)}.")
        checked = {name: _checked(f"observation {name!r}", np.asarray(obs[name]), part) for name, part in self._parts.items()}
        lengths = {len(values) for values in checked.values()}
        if len(lengths) != 1:
            raise ValueError(f"the observation's parts have {sorted(lengths)} rows; expected equally many.")
        packed = np.zeros(lengths.pop(), self._obs_dtype)  # padding has a checksum, too
        for name, values in checked.items():
            packed[name] = values
        return packed

    @staticmethod
    def _flags(valid: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
        valid = np.asarray(valid)
        if valid.shape != (length,) or valid.dtype != np.bool_:
            raise ValueError(f"valid is {valid.dtype}{valid.shape}; expected bool ({length},), one flag per observation.")
        return valid


_HUB_DOOR: dict[str, Callable[..., Any]] = {}


def _hub(name: str) -> Callable[..., Any]:
    """The hub layer lies above data, so it hands its functions down when it is imported: here, by whoever first asks for one."""
    if name not in _HUB_DOOR:
        importlib.import_module("dreamgym.hub.datasets")
    return _HUB_DOOR[name]


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


@contextmanager
def all_or_none(replay: Replay) -> Iterator[None]:
    """A replay that could not be filled is left empty, so that nobody mistakes half a dataset for one."""
    try:
        yield
    except BaseException:
        replay.keep(0)
        raise


def copy_episode(rows: SequenceBatch, target: Any, policy: str = "") -> None:
    """Add the rows [1,T] of one whole episode to another replay of the same spec, or to what takes episodes like one."""
    row = rows[0]
    obs = map_obs(torch.Tensor.numpy, row.obs)
    actions = target.spec.to_env_action(row.prev_action[1:]).numpy()
    terminated = bool(row.is_terminal[-1])
    target.add_episode(obs, actions, row.reward[1:].numpy(), terminated, not terminated, row.valid.numpy(), policy)


def _layout(spec: Spec) -> Layout:
    space = spec.observation_space
    if isinstance(space, spaces.Dict):
        parts = tuple((name, np.dtype(part.dtype).str, tuple(part.shape or ())) for name, part in spec.observation_parts.items())
        return Layout((), parts, spec.action_size)
    if not isinstance(space, spaces.Box):
        raise TypeError(f"observation space {space} is not supported; expected a Box or a Dict.")
    return Layout(tuple(space.shape), np.dtype(space.dtype).str, spec.action_size)


def _checked(name: str, values: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """Observations [T+1,...] of one part in its own type. Raises ValueError for a shape, type or value that does not fit."""
    if values.shape[1:] != space.shape:
        raise ValueError(f"{name} has shape {values.shape[1:]}; expected {space.shape}.")
    if space.dtype == np.uint8:
        if values.dtype != np.uint8:
            raise ValueError(f"{name} is {values.dtype}; expected uint8 images.")
        return values
    if isinstance(space, spaces.Discrete):
        if values.ndim != 1 or not _are_classes(values, space.start, space.n):
            raise ValueError(f"{name} is {values.dtype}{values.shape}; expected integers in {space}.")
        return values.astype(space.dtype)
    return _finite(name, values.astype(space.dtype))


def _check_alignment(rows: NDArray[Any]) -> None:
    """Raises ValueError unless the rows are one episode, arrival-aligned (see structs.py)."""
    first, last = np.arange(len(rows)) == 0, np.arange(len(rows)) == len(rows) - 1
    if (rows["is_first"] != first).any():
        raise ValueError("is_first is not true of the first row alone.")
    if (rows["is_last"] != last).any():
        raise ValueError("is_last is not true of the last row alone.")
    if (rows["is_terminal"] & ~last).any():
        raise ValueError(f"is_terminal is true at row {int(rows['is_terminal'].argmax())}, before the last.")
    _finite("reward", rows["reward"])
    if rows["reward"][0] != 0 or rows["prev_action"][0].any():
        raise ValueError("the first row has a reward or an action; nothing led there, so both must be 0.")


def _check_model_actions(actions: NDArray[np.float32], spec: Spec) -> None:
    """Raises ValueError unless actions [T,A] are what `to_model_action` gives: one-hots, or numbers in [-1,1]."""
    if not spec.is_discrete:
        if not (np.abs(_finite("prev_action", actions)) <= 1.0 + 1e-5).all():  # scaling rounds
            raise ValueError(f"prev_action reaches {float(np.abs(actions).max())}; model actions lie in [-1,1].")
        return
    choices = np.split(actions, np.cumsum(spec.action_sizes)[:-1], axis=1)
    if not np.isin(actions, (0.0, 1.0)).all() or not all((choice.sum(1) == 1).all() for choice in choices):
        raise ValueError(f"prev_action is not one-hot in {spec.action_space}.")


def _are_classes(values: NDArray[Any], start: Any, count: Any) -> bool:
    return values.dtype.kind in "iu" and bool(((values >= start) & (values < start + count)).all())


def _finite(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """One NaN would poison every weight that ever sees it."""
    if not np.isfinite(values).all():
        raise ValueError(f"{name} is NaN or infinite at step {int(np.argwhere(~np.isfinite(values))[0][0])}.")
    return values
