"""Many blind policies in one batch of episodes, because a hundred sweeps played one after another would leave most rows idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dreamgym.evaluation.policies import OpenLoopPolicy, advance, count_episodes
from dreamgym.evaluation.returns import Returns, evaluate

__all__ = ["evaluate_blind"]


def evaluate_blind(
    policies: Mapping[str, OpenLoopPolicy],
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    *,
    seeds: Sequence[int],
    progress: bool = False,
) -> dict[str, Returns]:
    """Score each blind policy on every seed: what `evaluate` gives for one after another, with the rows of a vector env kept busy.

    Raises ValueError without policies or seeds. The env is left open.
    """
    if not policies:
        raise ValueError("there are no policies to score; expected at least one.")
    n = len(seeds)
    panel = _Panel(tuple(policies.values()), n)
    played = evaluate(panel, env, seeds=[*seeds] * len(policies), progress=progress)
    parts = (slice(begin, begin + n) for begin in range(0, n * len(policies), n))
    return {name: Returns(played.returns[part], played.lengths[part], played.seeds[part]) for name, part in zip(policies, parts)}


class _Panel:
    """Plays each policy for `episodes` episodes, then the next; episodes are numbered as `evaluate` begins them."""

    def __init__(self, policies: Sequence[OpenLoopPolicy], episodes: int) -> None:
        self.policies, self.episodes = policies, episodes

    def predict(
        self,
        observation: Any,
        state: NDArray[np.int64] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        assert episode_start is not None
        counters = count_episodes(len(episode_start), state, episode_start)
        whose, episode = np.divmod(counters[:, 0], self.episodes)
        whose = np.minimum(whose, len(self.policies) - 1)  # idle rows go on with the last
        space = self.policies[0].action_space
        actions = np.empty((len(whose), *(space.shape or ())), space.dtype)
        for index in np.unique(whose).tolist():
            rows = whose == index
            actions[rows] = self.policies[index].act(episode[rows], counters[rows, 1])
        return actions, advance(counters)
