"""What a dataset's card tells of its episodes, computed from the rows, so that no number of it was typed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.data.replay import Replay
from dreamgym.structs import Spec

__all__ = ["rollout_statistics"]

_BINS = 20
_MOST_CHOICES = 32  # of an action, in a card that people read
_MOST_CLASSES = 100
_CHUNK = 100_000  # rows


def rollout_statistics(replay: Replay) -> dict[str, Any]:
    """JSON values: lengths and returns of episodes, reward and action histograms, ends, and what each policy contributed.

    Lengths are in agent steps, returns and rewards in the replay's own units, actions in the environment's. Histograms have `edges`
    one longer than `counts`; of classes there are `counts` from the first class on.
    """
    spans = np.array(replay.episodes, np.int64).reshape(-1, 2)
    lengths = spans[:, 1] - spans[:, 0] - 1
    taken = ~replay.column("is_first")  # rows that an action led to
    rewards = replay.column("reward").astype(np.float64)
    returns = np.add.reduceat(rewards, spans[:, 0])  # the first row's reward is 0
    terminated = int(replay.column("is_terminal").sum())
    return {
        "episode_length": _summary(lengths),
        "episode_return": _summary(returns),
        "reward": {**_summary(rewards[taken]), "histogram": _histogram(rewards[taken])},
        "terminated": terminated,
        "truncated": len(spans) - terminated,
        "invalid_observations": int((~replay.column("valid")).sum()),
        "actions": _actions(replay.spec, replay.column("prev_action"), taken),
        "policies": _by_policy(replay.policies, lengths),
    }


def _summary(values: NDArray[Any]) -> dict[str, float]:
    values = values.astype(np.float64)
    low, middle, high = np.quantile(values, (0.0, 0.5, 1.0)).tolist()
    return {"mean": float(values.mean()), "std": float(values.std()), "min": low, "median": middle, "max": high}


def _histogram(values: NDArray[np.floating[Any]], limits: tuple[float, float] | None = None) -> dict[str, list[Any]]:
    counts, edges = np.histogram(values, _BINS, limits)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _actions(spec: Spec, actions: NDArray[np.float32], taken: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """One entry per choice, or per dimension of a Box, of the first 32."""
    if spec.is_discrete:
        firsts = np.cumsum((0, *spec.action_sizes))[: _MOST_CHOICES + 1]
        starts = np.atleast_1d(spec.action_space.start)  # type: ignore[attr-defined]
        sums = actions.sum(0, dtype=np.float64)  # one-hots; the first rows have none
        counts = [sums[low:high][:_MOST_CLASSES].astype(np.int64).tolist() for low, high in pairwise(firsts)]
        return [{"first": int(start), "counts": count} for start, count in zip(starts, counts)]
    space = spec.action_space
    assert isinstance(space, spaces.Box)
    columns = _in_env_units(actions[taken], spec)
    return [
        _histogram(columns[:, number], (float(space.low[number]), float(space.high[number])))
        for number in range(min(columns.shape[1], _MOST_CHOICES))
    ]


def _in_env_units(actions: NDArray[np.float32], spec: Spec) -> NDArray[np.float64]:
    parts = [actions[start : start + _CHUNK] for start in range(0, len(actions), _CHUNK)]
    env_actions = [spec.to_env_action(torch.from_numpy(np.ascontiguousarray(part))).numpy() for part in parts]
    return np.concatenate(env_actions).astype(np.float64)


def _by_policy(policies: tuple[str, ...], lengths: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    names = np.array(policies)
    found = {}
    for name in dict.fromkeys(policies):
        chosen = names == name
        found[name] = {"episodes": int(chosen.sum()), "steps": int(lengths[chosen].sum())}
    return found
