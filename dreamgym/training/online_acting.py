"""How an online run acts in its real env: the agent, between whose steps the updates are done, and episodes that are only judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dreamgym.agents.belief import BeliefPolicy
from dreamgym.agents.planning import Plan
from dreamgym.data import collection
from dreamgym.structs import Policy, Spec

__all__ = ["Explorer", "play"]


class Explorer:
    """The agent in one episode. `before_step` runs ahead of every action: updates that are due, counters."""

    def __init__(self, policy: BeliefPolicy, before_step: Callable[[], None], *, remember: bool) -> None:
        self.policy, self._before_step, self._remember = policy, before_step, remember
        self.beliefs: list[Any] = []
        self.first_plan: Plan | None = None  # of the episode, if the agent plans

    def reseed(self, seed: int) -> None:
        """Forget the last episode's beliefs and restart all noise."""
        self.beliefs, self.first_plan = [], None
        self.policy.reseed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: NDArray[np.bool_] | None = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], Any]:
        """As BeliefPolicy's; keeps the belief [1] that it acted on."""
        self._before_step()
        action, state = self.policy.predict(observation, state, episode_start, deterministic)
        if self.first_plan is None and isinstance(self.policy.memory, Plan):
            self.first_plan = self.policy.memory
        if self._remember:
            self.beliefs.append(self.policy.belief)
        return action, state


class _Nowhere:
    """Takes episodes and keeps none: what is only played to be judged must not be learned from."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def add_episode(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""


def play(env: gym.Env[Any, Any], policy: Policy, spec: Spec, *, episodes: int, seed: int) -> collection.CollectStats:
    """Whole deterministic episodes that are not stored; returns in the env's own units, before any clipping of rewards."""
    return collection.collect(env, policy, _Nowhere(spec), episodes=episodes, seed=seed, deterministic=True)
