"""Judge an agent by its returns, always with their spread and number: in any environment, in a dream, awake.

Seeds are kept apart so that nobody is judged on what he was chosen by: training uses seeds below 500,000, the choice among
checkpoints 500,000 and up, the search for blind policies 700,000 and up, reports 1,000,000 and up, unseen twins 2,000,000 and up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dreamgym.structs import Policy

__all__ = [
    "REPORT_SEEDS_FROM",
    "SEARCH_SEEDS_FROM",
    "TWIN_SEEDS_FROM",
    "VALIDATION_SEEDS_FROM",
    "Returns",
    "evaluate",
    "report_seeds",
    "validation_seeds",
]

VALIDATION_SEEDS_FROM = 500_000
SEARCH_SEEDS_FROM = 700_000
REPORT_SEEDS_FROM = 1_000_000
TWIN_SEEDS_FROM = 2_000_000


def validation_seeds(episodes: int) -> tuple[int, ...]:
    """Seeds for choosing among checkpoints: never trained on, never reported."""
    return tuple(range(VALIDATION_SEEDS_FROM, VALIDATION_SEEDS_FROM + episodes))


def report_seeds(episodes: int) -> tuple[int, ...]:
    """Seeds for numbers that are shown to somebody: neither trained on nor chosen by."""
    return tuple(range(REPORT_SEEDS_FROM, REPORT_SEEDS_FROM + episodes))


@dataclass(frozen=True)
class Returns:
    """Undiscounted returns of whole episodes. Entry k of each tuple belongs to seed k; lengths are agent steps."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    seeds: tuple[int, ...]
    unit: str = "reward"

    def __post_init__(self) -> None:
        if not self.returns or not len(self.returns) == len(self.lengths) == len(self.seeds):
            raise ValueError(
                f"{len(self.returns)} returns, {len(self.lengths)} lengths, {len(self.seeds)} seeds; "
                "expected as many of each, and at least one."
            )

    @property
    def n(self) -> int:
        """Number of episodes."""
        return len(self.returns)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation over the episodes (population: divided by n)."""
        return float(np.std(self.returns))

    @property
    def median(self) -> float:
        """Median return."""
        return float(np.median(self.returns))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean (from the sample deviation); nan for one episode."""
        return float(np.std(self.returns, ddof=1) / np.sqrt(self.n)) if self.n > 1 else float("nan")

    @property
    def mean_length(self) -> float:
        """Mean episode length in agent steps."""
        return float(np.mean(self.lengths))

    def share_at_least(self, threshold: float) -> float:
        """Share of the episodes whose return is `threshold` or more."""
        return float(np.mean(np.asarray(self.returns) >= threshold))

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.std:.3g} (n={self.n}, median {self.median:.4g})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def brief(self) -> dict[str, Any]:
        """The least that says what was measured, for tables of many."""
        return {"mean": self.mean, "std": self.std, "n": self.n, "mean_length": self.mean_length, "first_seed": self.seeds[0]}

    def to_json(self) -> dict[str, Any]:
        """Numbers for a report: the summary and every episode. What is undefined is None, since JSON knows no nan."""
        error = self.standard_error if self.n > 1 else None
        summary = {"mean": self.mean, "std": self.std, "median": self.median, "standard_error": error, "n": self.n}
        episodes = {"returns": list(self.returns), "lengths": list(self.lengths), "seeds": list(self.seeds)}
        return {**summary, "mean_length": self.mean_length, "unit": self.unit, **episodes}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Returns:
        """Undo `to_json`."""
        return cls(tuple(saved["returns"]), tuple(saved["lengths"]), tuple(saved["seeds"]), saved["unit"])


def evaluate(
    agent: Policy,
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    episodes: int = 20,
    *,
    seeds: Sequence[int] | None = None,
    deterministic: bool = True,
    progress: bool = False,
) -> Returns:
    """Play whole episodes and return their returns, one per seed and in the order of the seeds.

    `agent` is anything with SB3's `predict`; it always gets batches (of one for a single env). In a vector env free rows take the next
    seed until all are used and every begun episode is played to its end, so that short episodes are not counted more often than
    long ones. `seeds` replaces `episodes`; the default is `report_seeds(episodes)`. deterministic is passed to the agent.
    Raises ValueError without a seed. The env must end its episodes, be it by a time limit, and is left open.
    """
    chosen = report_seeds(episodes) if seeds is None else tuple(int(seed) for seed in seeds)
    if not chosen:
        raise ValueError(f"episodes is {episodes} and seeds is {seeds!r}; expected at least one episode to play.")
    with tqdm(total=len(chosen), desc="evaluate", unit="episode", disable=not progress) as bar:
        if isinstance(env, VectorEnv):
            returns, lengths = _play_rows(agent, env, chosen, deterministic, bar.update)
        else:
            returns, lengths = _play_one_by_one(agent, env, chosen, deterministic, bar.update)
    return Returns(tuple(returns.tolist()), tuple(lengths.tolist()), chosen)


def _play_one_by_one(
    agent: Policy, env: gym.Env[Any, Any], seeds: Sequence[int], deterministic: bool, tick: Callable[[], Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    returns, lengths, state = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64), None
    for episode, seed in enumerate(seeds):
        obs, _ = env.reset(seed=seed)
        begins, ended = np.ones(1, bool), False
        while not ended:
            action, state = agent.predict(batch_of_one(obs), state=state, episode_start=begins, deterministic=deterministic)
            obs, reward, terminated, truncated, _ = env.step(np.asarray(action)[0])
            begins, ended = np.zeros(1, bool), bool(terminated or truncated)
            returns[episode] += float(reward)
            lengths[episode] += 1
        tick()
    return returns, lengths


def _play_rows(
    agent: Policy, env: VectorEnv[Any, Any, Any], seeds: Sequence[int], deterministic: bool, tick: Callable[[], Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows reset with their next seed as soon as they end, which `reset_mask` allows in every autoreset mode."""
    N, B = len(seeds), env.num_envs
    returns, lengths, state = np.zeros(N), np.zeros(N, np.int64), None
    episode = np.arange(B)  # N and above: an idle row, which is stepped along and not counted
    begun = min(N, B)
    first_seeds: Any = [_seed_of(seeds, index) for index in episode.tolist()]
    obs, _ = env.reset(seed=first_seeds)
    begins = np.ones(B, bool)
    while True:
        action, state = agent.predict(to_numpy(obs), state=state, episode_start=begins, deterministic=deterministic)
        obs, reward, terminated, truncated, _ = env.step(action)
        counts = episode < N
        returns[episode[counts]] += to_numpy(reward)[counts]
        lengths[episode[counts]] += 1
        begins = np.asarray(to_numpy(terminated) | to_numpy(truncated), dtype=bool)
        for row in np.flatnonzero(begins):
            if counts[row]:
                tick()
            episode[row] = begun if begun < N else N
            begun += 1
        if (episode >= N).all():
            return returns, lengths
        if begins.any():
            next_seeds: Any = [_seed_of(seeds, index) if ended else None for index, ended in zip(episode.tolist(), begins)]
            obs, _ = env.reset(seed=next_seeds, options={"reset_mask": begins.copy()})


def _seed_of(seeds: Sequence[int], episode: int) -> int:
    return seeds[min(episode, len(seeds) - 1)]  # idle rows play the last episode again


def batch_of_one(obs: Any) -> Any:
    if isinstance(obs, dict):
        return {key: batch_of_one(value) for key, value in obs.items()}
    return np.asarray(to_numpy(obs))[None]


def to_numpy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: to_numpy(entry) for key, entry in value.items()}
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value
