"""How wrong a model is about real sequences it never trained on: one step ahead, and open loop over longer and longer horizons.

Every error stands beside what a trivial guess would get, because an error without a yardstick says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamgym import noise as streams
from dreamgym.data.replay import Replay
from dreamgym.structs import ObsTensors, SequenceBatch, map_obs

__all__ = ["one_step_errors", "open_loop_errors", "open_loop_states", "states_before"]

HORIZONS = (1, 5, 10, 25, 50)
SAMPLES_SEED = 7_000_000


def one_step_errors(model: Any, rows: SequenceBatch, *, context: int = 5, start: Any = None) -> dict[str, Any]:
    """Errors of predicting the next row from the posterior of all rows before it; rows [B,T] of held-out real experience.

    The first `context` rows of each sequence are only observed. start: the states [B] that `states_before` says; without, memory is empty
    at the first row even in mid-episode, where models that always remember are at a loss. Steps take mean noise. Keys as in
    `open_loop_errors`. Raises ValueError unless T > context.
    """
    _check(rows, context, 1)
    rows = rows.to(home(model))
    found = _Errors(model, rows, _yardsticks(rows))
    with torch.inference_mode(), evaluating(model):
        state = model.initial(len(rows.reward)) if start is None else start
        for t in range(rows.reward.shape[1] - 1):
            state = _observe(model, state, rows, t)
            if t + 1 >= context:
                arrived = model.step(state, rows.prev_action[:, t + 1], _mean_noise(model, len(rows.reward)))
                found.add(arrived, t + 1, last=t, counts=~rows.is_first[:, t + 1])
    return found.summary()


def open_loop_errors(
    model: Any,
    rows: SequenceBatch,
    horizons: Sequence[int] = HORIZONS,
    context: int = 5,
    *,
    sampled: bool = False,
    seed: int = SAMPLES_SEED,
    start: Any = None,
) -> dict[str, dict[str, Any]]:
    """Errors after h steps of dreaming with the real actions, for each h: {"5": {...}, ...}. rows [B,T], start as in `one_step_errors`.

    The first `context` rows are observed with mean noise, then the prior runs without seeing anything, with mean noise or, if `sampled`,
    with noise drawn from `seed`. An episode that ends leaves the later horizons; those that do not fit into T, or that no episode
    reaches, are left out. Observation errors are root mean squares: images in [0,1], vectors in standard deviations of `rows`, classes
    1 where wrong; those of a Dict observation are averaged over its parts before the root, which also stand alone in obs_parts.

    Keys: n; reward_mae, reward_mae_of_mean (guessing the mean), reward_correlation; obs_rmse, obs_rmse_of_mean, obs_rmse_of_repeat
    (guessing the last seen observation); for a Dict, obs_parts: {name: those three}; continue_brier, ends, and where there are ends,
    end_precision and end_recall at 0.5.
    A quantity that is undefined is None.
    """
    _check(rows, context, min(horizons))
    rows = rows.to(home(model))
    B, T = rows.reward.shape
    yardsticks = _yardsticks(rows)
    wanted = [horizon for horizon in sorted(set(horizons)) if context - 1 + horizon < T]
    seeds = torch.arange(B, device=rows.reward.device) + seed
    errors: dict[str, dict[str, Any]] = {}

    def drawn(horizon: int) -> Tensor:
        return streams.uniform(seeds, torch.zeros_like(seeds), torch.full_like(seeds, horizon), model.noise_lanes)

    with torch.inference_mode(), evaluating(model):
        alive = torch.ones_like(rows.is_first[:, 0])
        states = open_loop_states(model, rows, context, noise=drawn if sampled else None, start=start)
        for row, state in islice(enumerate(states), context, context + wanted[-1]):
            horizon = row - context + 1
            alive = alive & ~rows.is_first[:, row]
            if horizon in wanted and bool(alive.any()):
                found = _Errors(model, rows, yardsticks)
                found.add(state, row, last=context - 1, counts=alive)
                errors[str(horizon)] = found.summary()
    return errors


def open_loop_states(
    model: Any, rows: SequenceBatch, context: int, *, noise: Callable[[int], Tensor] | None = None, start: Any = None
) -> Iterator[Any]:
    """The state [B] at each of rows [B,T], in turn: posteriors of the first `context`, then what the prior makes of the real actions.

    Looking takes mean noise, and so does dreaming unless noise(h) gives the uniforms [B,lanes] of step h = 1, 2, ... after the context.
    rows must lie where the model does; start as in `one_step_errors`. Nothing is computed before it is asked for, and gradients are
    recorded if the caller lets them.
    """
    B, T = rows.reward.shape
    state = model.initial(B) if start is None else start
    for t in range(T):
        if t < context:
            state = _observe(model, state, rows, t)
        else:
            state = model.step(state, rows.prev_action[:, t], _mean_noise(model, B) if noise is None else noise(t - context + 1))
        yield state


def states_before(model: Any, replay: Replay, first_rows: NDArray[np.integer[Any]]) -> Any:
    """What a model remembers just before each of the rows [B]: the posterior of its episode so far, with mean noise; any, where none is.

    Awake, memory is never empty in mid-episode. Raises IndexError for rows outside the replay.
    """
    first = np.asarray(first_rows, np.int64)
    begins = np.array([start for start, _ in replay.episodes], np.int64)
    if first.ndim != 1 or ((first < 0) | (first >= len(replay))).any():
        raise IndexError(f"rows {first_rows} are not inside 0 to {len(replay)}.")
    begin = begins[np.searchsorted(begins, first, side="right") - 1]
    with torch.inference_mode(), evaluating(model):
        state = model.initial(len(first))
        for before in range(int((first - begin).max(initial=0)), 0, -1):
            # who has not begun looks at the first row of all, which empties the memory each time
            row = replay.sample_windows(np.maximum(first - before, begin), 1).to(home(model))
            state = _observe(model, state, row, 0)
    return state


@dataclass(frozen=True)
class _Yardstick:
    """How to judge one part of the observation."""

    mean: Tensor  # [...] the guess of who sees nothing: the mean, or the commonest class
    scale: Tensor  # [...] what an error of 1 means
    classes: bool = False

    def squares(self, guess: Tensor, real: Tensor) -> Tensor:
        """Mean square error of each row, [B]."""
        if self.classes:
            return (guess.round() != real).float()
        return ((guess - real) / self.scale).square().flatten(1).mean(1)


@dataclass
class _Errors:
    """Collects predictions beside what happened."""

    model: Any
    rows: SequenceBatch
    yardsticks: dict[str, _Yardstick]
    reward: list[NDArray[Any]] = field(default_factory=list)  # [2,N]: predicted, real
    ends: list[NDArray[Any]] = field(default_factory=list)  # [2,N]: continue_prob, whether it went on
    squares: list[NDArray[Any]] = field(default_factory=list)  # [3,P,N], P parts: of the model, of the mean, of repeating

    def add(self, state: Any, row: int, *, last: int, counts: Tensor) -> None:
        """Judge `state` against row `row`; `last` is the row seen last; `counts` [B] says which sequences count."""
        if not bool(counts.any()):
            return
        told = self.model.predict(state)
        self.reward.append(_pair(told.reward, self.rows.reward[:, row], counts))
        self.ends.append(_pair(told.continue_prob, (~self.rows.is_terminal[:, row]).float(), counts))
        visible = counts & self.rows.valid[:, row] & self.rows.valid[:, last]
        if hasattr(self.model, "decode") and bool(visible.any()):
            real, seen = (_named(self.rows.obs, (visible, at)) for at in (row, last))
            blind = {name: stick.mean.expand_as(real[name]) for name, stick in self.yardsticks.items()}
            guesses = (_named(self.model.decode(state[visible])), blind, seen)
            errors = [
                torch.stack([stick.squares(guess[name].float(), real[name].float()) for name, stick in self.yardsticks.items()])
                for guess in guesses
            ]
            self.squares.append(torch.stack(errors).cpu().numpy())

    def summary(self) -> dict[str, Any]:
        """The keys that `open_loop_errors` documents."""
        if not self.reward:
            return {"n": 0}
        guess, real = np.concatenate(self.reward, 1).astype(np.float64)
        mean_reward = float(self.rows.reward[~self.rows.is_first].mean())
        summary: dict[str, Any] = {
            "n": len(real),
            "reward_mae": float(np.abs(guess - real).mean()),
            "reward_mae_of_mean": float(np.abs(mean_reward - real).mean()),
            "reward_correlation": correlation(guess, real),
        }
        if self.squares:
            names = ("obs_rmse", "obs_rmse_of_mean", "obs_rmse_of_repeat")
            squares = np.concatenate(self.squares, 2).mean(2)
            summary |= zip(names, np.sqrt(squares.mean(1)).tolist())
            if isinstance(self.rows.obs, dict):
                roots = zip(self.yardsticks, np.sqrt(squares).T.tolist())
                summary["obs_parts"] = {part: dict(zip(names, errors)) for part, errors in roots}
        return summary | self._end_summary()

    def _end_summary(self) -> dict[str, Any]:
        continue_prob, went_on = np.concatenate(self.ends, 1).astype(np.float64)
        said, ended = continue_prob < 0.5, went_on < 0.5
        hits = int((said & ended).sum())
        return {
            "continue_brier": float(np.square(continue_prob - went_on).mean()),
            "ends": int(ended.sum()),
            "end_precision": hits / int(said.sum()) if said.any() and ended.any() else None,
            "end_recall": hits / int(ended.sum()) if ended.any() else None,
        }


def _yardsticks(rows: SequenceBatch) -> dict[str, _Yardstick]:
    """Errors count in units of 255 for images, of each dimension's standard deviation for vectors."""
    return {name: _yardstick(part, rows.valid, isinstance(rows.obs, dict)) for name, part in _named(rows.obs).items()}


def _yardstick(obs: Tensor, valid: Tensor, of_dict: bool) -> _Yardstick:
    if of_dict and obs.dtype == torch.int64:
        return _Yardstick(obs[valid].mode().values, torch.ones(()), classes=True)
    sums = [sequence[seen].float().sum(0) for sequence, seen in zip(obs, valid)]  # one sequence at a time: images as floats are big
    mean = torch.stack(sums).sum(0) / valid.sum().clamp(min=1)
    if obs.dtype == torch.uint8:
        return _Yardstick(mean, torch.full_like(mean, 255.0))
    return _Yardstick(mean, obs[valid].float().std(0, correction=0).clamp(min=1e-6))


def _named(obs: ObsTensors, index: Any = ...) -> dict[str, Tensor]:
    """Observations by the names of their parts, indexed."""
    return {name: part[index] for name, part in (obs.items() if isinstance(obs, dict) else [("obs", obs)])}


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Pearson's; None where one of the two does not vary."""
    if len(first) < 2 or np.std(first) < 1e-12 or np.std(second) < 1e-12:
        return None
    return float(np.corrcoef(first, second)[0, 1])


class evaluating:
    """Switch dropout and the like off, and back to what it was."""

    def __init__(self, model: Any) -> None:
        self.model, self.was = model, bool(getattr(model, "training", False))

    def __enter__(self) -> None:
        if self.was:
            self.model.eval()

    def __exit__(self, *_: object) -> None:
        if self.was:
            self.model.train()


def _observe(model: Any, state: Any, rows: SequenceBatch, t: int) -> Any:
    noise = _mean_noise(model, len(rows.reward))
    return model.observe(state, rows.prev_action[:, t], map_obs(lambda values: values[:, t], rows.obs), rows.is_first[:, t], noise)


def _mean_noise(model: Any, rows: int) -> Tensor:
    return torch.full((rows, model.noise_lanes), 0.5, device=home(model))


def home(model: Any) -> torch.device:
    """Where a model's parameters live; the CPU if it has none."""
    like = next(model.parameters(), None) if hasattr(model, "parameters") else None
    return torch.device("cpu") if like is None else like.device


def _pair(guess: Tensor, real: Tensor, counts: Tensor) -> NDArray[Any]:
    return torch.stack([guess[counts].float(), real[counts].float()]).cpu().numpy()


def _check(rows: SequenceBatch, context: int, horizon: int) -> None:
    length = rows.reward.shape[1]
    if context < 1 or horizon < 1:
        raise ValueError(f"context is {context} and the shortest horizon {horizon}; expected at least 1 row of each.")
    if length < context + horizon:
        raise ValueError(f"sequences have {length} rows; expected at least context + horizon = {context + horizon}.")
