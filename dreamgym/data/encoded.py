"""Experience kept as codes: a frozen autoencoder's statistics take 256 bytes where a picture takes 12,288, so 10,000 episodes fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.data.replay import Replay, copy_episode
from dreamgym.structs import SequenceBatch, Spec

__all__ = [
    "Dealer",
    "Encode",
    "EncodedSink",
    "EpisodeStreams",
    "LongEnough",
    "PaddedEpisodes",
    "check_codes_vary",
    "encode_episodes",
    "encoded_spec",
    "padded_episodes",
]

# Images uint8 [N,Y,X,C] -> what is kept of them, float [N,E].
Encode: TypeAlias = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]


def encoded_spec(spec: Spec, size: int) -> Spec:
    """The same world seen as vectors [size], in half precision as the paper stored its codes (specs/world-models.md 3.2)."""
    return replace(spec, observation_space=spaces.Box(-np.inf, np.inf, (size,), np.float16))


class Dealer:
    """Takes episodes like a replay, and keeps every n-th one out of training.

    Which one that is depends on how many are stored, so that a run that is resumed deals as one that never stopped.
    """

    def __init__(self, train: Replay, held_out: Replay, *, every: int) -> None:
        self.train, self.held_out, self.every = train, held_out, every
        self.spec = train.spec

    def add_episode(self, *args: Any, **kwargs: Any) -> None:
        """As Replay.add_episode."""
        number = len(self.train.episodes) + len(self.held_out.episodes) + 1
        (self.held_out if number % self.every == 0 else self.train).add_episode(*args, **kwargs)


class LongEnough:
    """Hands on episodes of at least `least` steps, and forgets the others."""

    def __init__(self, sink: Any, least: int) -> None:
        self.sink, self.least, self.spec = sink, least, sink.spec

    def add_episode(self, obs: Any, action: NDArray[Any], *args: Any, **kwargs: Any) -> None:
        """As Replay.add_episode."""
        if len(action) >= self.least:
            self.sink.add_episode(obs, action, *args, **kwargs)


class EncodedSink:
    """Takes episodes of pictures as `collect` gives them, and hands their codes on.

    Observations that mean nothing (valid False) are not encoded; their rows hold zeros.
    """

    def __init__(self, spec: Spec, encode: Encode, sink: Any) -> None:
        self.spec, self.encode, self.sink = spec, encode, sink

    def add_episode(
        self,
        obs: NDArray[np.uint8],
        action: NDArray[Any],
        reward: NDArray[Any],
        terminated: bool,
        truncated: bool,
        valid: NDArray[np.bool_] | None = None,
        policy: str = "",
    ) -> None:
        """As Replay.add_episode; obs [T+1,Y,X,C] uint8."""
        meant = np.ones(len(obs), np.bool_) if valid is None else valid
        encoded = self.encode(obs[meant])
        codes = np.zeros((len(obs), encoded.shape[1]), np.float16)
        codes[meant] = encoded
        self.sink.add_episode(codes, action, reward, terminated, truncated, valid, policy)


def encode_episodes(pixels: Replay, encode: Encode, sink: Any) -> None:
    """Encode all episodes of a replay, in order."""
    encoded = EncodedSink(pixels.spec, encode, sink)
    for (start, stop), policy in zip(pixels.episodes, pixels.policies):
        copy_episode(pixels.sequence(start, stop), encoded, policy)


def check_codes_vary(replay: Replay, *, rows: int = 20_000, least_std: float = 0.001) -> None:
    """Raises ValueError where a dimension of the code, drawn as V's statistics say, is the same in all rows: blank or frozen pictures.

    Of such a dimension the likelihood has no bound (specs/world-models.md 11.4). Looks at `rows` rows, evenly spread.
    """
    chosen = np.unique(np.linspace(0, len(replay) - 1, min(rows, len(replay))).round().astype(np.int64))
    chosen = chosen[np.asarray(replay.column("valid"))[chosen]]
    if len(chosen) < 2:
        return
    stats = np.asarray(replay.obs_rows(chosen), np.float64)
    mean, log_var = np.split(stats, 2, axis=1)
    still = np.flatnonzero(np.sqrt(mean.var(0) + np.exp(log_var).mean(0)) < least_std)
    if len(still):
        raise ValueError(
            f"{len(still)} of {mean.shape[1]} dimensions of the code are the same in all of {len(chosen)} rows (the first: {still[0]}), so "
            "there is nothing to foretell; are the pictures blank or frozen?"
        )


def padded_episodes(replay: Replay, chosen: Sequence[int] | NDArray[np.int64]) -> SequenceBatch:
    """Whole episodes [B,T], all from their first row, T that of the longest. Shorter ones are followed by padding.

    Padding repeats the episode's last row, not valid and with no flag set; its `index` is -1. Observations become `embed`, float32.
    """
    return _padded(replay, _spans(replay)[np.asarray(chosen)])


def _spans(replay: Replay) -> NDArray[np.int64]:
    """Rows [start, stop) of each episode, [N,2]; worth keeping, for there may be 10,000."""
    return np.array(replay.episodes, np.int64).reshape(-1, 2)


def _padded(replay: Replay, spans: NDArray[np.int64]) -> SequenceBatch:
    lengths = spans[:, 1] - spans[:, 0]
    steps = np.arange(int(lengths.max()))
    return _batch(replay, spans[:, :1] + np.minimum(steps, lengths[:, None] - 1), steps >= lengths[:, None])


def _batch(replay: Replay, rows: NDArray[np.int64], padding: NDArray[np.bool_]) -> SequenceBatch:
    """Rows by number [B,T]; where padding is true, nothing is there."""
    obs = replay.obs_rows(rows)
    assert not isinstance(obs, dict)
    columns = {name: np.ascontiguousarray(replay.column(name)[rows]) for name in ("prev_action", "reward", *_FLAGS)}
    for name in _FLAGS:
        columns[name] &= ~padding
    tensors = {name: torch.from_numpy(values) for name, values in columns.items()}
    codes = torch.from_numpy(obs)
    return SequenceBatch(obs=codes, index=torch.from_numpy(np.where(padding, -1, rows)), embed=codes.float(), **tensors)


_FLAGS = ("is_first", "is_last", "is_terminal", "valid")


class PaddedEpisodes:
    """Batches of whole padded episodes; each pass over the data takes every episode once, those of like lengths together.

    Batch number n is a pure function of (seed, n) and of what the replay holds. `times` says how often each episode is taken in a
    pass (None: once). Lengths are sorted within `blocks` batches, which saves padding and leaves the order random enough.
    """

    def __init__(self, replay: Replay, batch: int, *, seed: int, times: NDArray[np.int64] | None = None, blocks: int = 16) -> None:
        if not replay.episodes:
            raise ValueError("the replay holds no episode; collect some first.")
        self.replay, self.batch, self.seed, self.blocks = replay, batch, seed, blocks
        self._spans = _spans(replay)
        self._pool = _pool(len(self._spans), times)
        self._pass, self._order = -1, np.zeros(0, np.int64)

    @property
    def batches_per_pass(self) -> int:
        """Batches until every episode was seen."""
        return max(1, len(self._pool) // self.batch)

    def __getitem__(self, number: int) -> SequenceBatch:
        """Batch `number`, [batch,T]."""
        which, place = divmod(number, self.batches_per_pass)
        if which != self._pass:
            self._pass, self._order = which, self._draw(which)
        return _padded(self.replay, self._spans[self._order[place]])

    def _draw(self, which: int) -> NDArray[np.int64]:
        """Episode numbers of a pass, [batches, batch]. A remainder that fills no batch waits for the next pass."""
        rng = np.random.default_rng([self.seed, which])
        pool = rng.permutation(np.resize(self._pool, max(self.batch, len(self._pool))))[: self.batches_per_pass * self.batch]
        block = self.blocks * self.batch
        parts = [pool[start : start + block] for start in range(0, len(pool), block)]
        lengths = self._spans[:, 1] - self._spans[:, 0]
        pool = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        return rng.permutation(pool.reshape(-1, self.batch))


class EpisodeStreams:
    """Episodes in random order, one after another, cut into `batch` streams of chunks that follow on each other: [batch, length].

    World Models' Doom training (specs/world-models.md 4.4): the memory is carried from chunk to chunk within a pass; is_first tells
    where episodes begin inside a chunk. `begins(n)` says whether chunk n is the first of its pass, where memories start from zeros.
    """

    def __init__(self, replay: Replay, batch: int, length: int, *, seed: int, times: NDArray[np.int64] | None = None) -> None:
        self.replay, self.batch, self.length, self.seed = replay, batch, length, seed
        self._spans = _spans(replay)
        self._pool = _pool(len(self._spans), times)
        rows = int((self._spans[:, 1] - self._spans[:, 0])[self._pool].sum())
        self.batches_per_pass = rows // (batch * length)
        if self.batches_per_pass < 1:
            raise ValueError(f"{rows} rows do not fill {batch} streams of {length}; collect more, or make them shorter.")
        self._pass, self._rows = -1, np.zeros((0, 0), np.int64)

    def begins(self, number: int) -> bool:
        """Whether batch `number` is the first of its pass."""
        return number % self.batches_per_pass == 0

    def __getitem__(self, number: int) -> SequenceBatch:
        """Batch `number`, [batch,length]."""
        which, place = divmod(number, self.batches_per_pass)
        if which != self._pass:
            self._pass, self._rows = which, self._draw(which)
        rows = self._rows[:, place * self.length : (place + 1) * self.length]
        return _batch(self.replay, rows, np.zeros(rows.shape, np.bool_))

    def _draw(self, which: int) -> NDArray[np.int64]:
        """Row numbers of a pass, [batch, length * batches]."""
        order = np.random.default_rng([self.seed, which]).permutation(self._pool)
        rows = np.concatenate([np.arange(*self._spans[number]) for number in order])
        most = self.batch * self.length * self.batches_per_pass
        return rows[:most].reshape(self.batch, -1)


def _pool(episodes: int, times: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Episode numbers, each as often as it is taken in a pass."""
    return np.repeat(np.arange(episodes), 1 if times is None else times)
