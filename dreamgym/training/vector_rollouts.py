"""Judges many candidate controllers in any gymnasium vector environment, dreamt or real: whole episodes, the same seeds for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from dreamgym.agents.linear import LinearController
from dreamgym.dreams.rollouts import RolloutResult

__all__ = ["VectorRollouts"]


class VectorRollouts:
    """P candidates, R whole episodes each, played in the slots of `envs` as they fall free.

    Rollout r begins from seed + r for every candidate, as in DreamRollouts, so that candidates differ by what they do. Observations are
    the features that the policy reads: wrap a real environment in LatentVectorObservation(envs, model). Slots are refilled one by one if
    the environments reset themselves never (autoreset_mode "Disabled"), else all together once the last episode has ended.
    max_episode_steps: where an episode is cut (None: the policy's spec).
    Raises ValueError where envs and policy do not fit.
    """

    def __init__(
        self, envs: VectorEnv[Any, Any, Any], policy: LinearController, *, rollouts: int, max_episode_steps: int | None = None
    ) -> None:
        if rollouts < 1:
            raise ValueError(f"rollouts is {rollouts}; expected at least 1.")
        _check_fit(envs, policy)
        self.envs, self.policy, self.rollouts = envs, policy, rollouts
        self.max_episode_steps = policy.spec.max_episode_steps if max_episode_steps is None else max_episode_steps
        mode = envs.metadata.get("autoreset_mode")
        self._refills = mode is not None and AutoresetMode(mode) == AutoresetMode.DISABLED

    @torch.inference_mode()
    def returns(self, parameters: Any, seed: int) -> RolloutResult:
        """Play candidates `parameters` [P,N] (tensor or array, any P), each R times."""
        parameters = torch.as_tensor(np.asarray(parameters)).float()
        slots = _Slots(len(parameters), self.rollouts, self.envs.num_envs)
        obs: Any = None
        assigned = parameters
        while True:
            if slots.free.all() or (self._refills and slots.ended.any()):
                reset = slots.ended.copy() if self._refills else np.ones_like(slots.ended)
                slots.assign(reset)
                if slots.free.all():
                    return slots.result()
                obs = self._reset(slots, reset, seed)
                assigned = parameters[slots.candidate]
            obs, reward, terminated, truncated, _ = self.envs.step(self._actions(assigned, obs))
            slots.count(np.asarray(reward), np.asarray(terminated), np.asarray(truncated), self.max_episode_steps)

    def _reset(self, slots: _Slots, rows: NDArray[np.bool_], seed: int) -> Any:
        seeds: Any = [seed + int(rollout) for rollout in slots.rollout]
        options = None if rows.all() else {"reset_mask": rows}
        return self.envs.reset(seed=seeds, options=options)[0]

    def _actions(self, parameters: torch.Tensor, obs: Any) -> NDArray[Any]:
        """Env actions [B] of each slot's own candidate, parameters [B,N]."""
        features = torch.as_tensor(np.asarray(obs), dtype=torch.float32).unsqueeze(1)
        actions = self.policy.act_many(parameters, features).squeeze(1)
        array: NDArray[Any] = self.policy.spec.to_env_action(actions).numpy()
        return array


class _Slots:
    """Which episode each slot plays, and what came of all. Episode e is rollout e % R of candidate e // R."""

    def __init__(self, candidates: int, rollouts: int, num_slots: int) -> None:
        self._rollouts = rollouts
        self._left = list(range(candidates * rollouts))[::-1]
        self._returns = np.zeros(candidates * rollouts)
        self._lengths = np.zeros(candidates * rollouts, np.int64)
        self._ended = np.zeros(candidates * rollouts, np.bool_)
        self._episode = np.full(num_slots, -1)  # -1: plays nothing that counts
        self._steps = np.zeros(num_slots, np.int64)
        self.ended = np.ones(num_slots, np.bool_)  # must be reset before they can go on

    @property
    def free(self) -> NDArray[np.bool_]:
        """Slots that play nothing that counts, [B]."""
        return self._episode < 0

    @property
    def candidate(self) -> NDArray[np.int64]:
        """Who plays in each slot, [B]; idle ones repeat candidate 0."""
        return np.maximum(self._episode, 0) // self._rollouts

    @property
    def rollout(self) -> NDArray[np.int64]:
        """Which rollout each slot plays, [B]."""
        return np.maximum(self._episode, 0) % self._rollouts

    def assign(self, rows: NDArray[np.bool_]) -> None:
        """Give these slots [B] the next episodes, as long as there are any."""
        for slot in rows.nonzero()[0]:
            self._episode[slot] = self._left.pop() if self._left else -1
        self._steps[rows] = 0
        self.ended &= ~rows

    def count(self, reward: NDArray[Any], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_], max_episode_steps: int) -> None:
        """Book one step of every slot, each [B]."""
        self._steps += 1
        playing = ~self.free
        episode = self._episode[playing]
        self._returns[episode] += reward[playing]
        self._lengths[episode] += 1
        self._ended[episode] = terminated[playing]
        self.ended |= terminated | truncated | (self._steps >= max_episode_steps)
        self._episode[self.ended] = -1

    def result(self) -> RolloutResult:
        """Of all episodes."""
        shape = (-1, self._rollouts)
        returns, lengths, ended = (torch.from_numpy(values.reshape(shape)) for values in (self._returns, self._lengths, self._ended))
        with torch.inference_mode(False):
            return RolloutResult(returns.float().clone(), lengths.clone(), ended.clone())


def _check_fit(envs: VectorEnv[Any, Any, Any], policy: LinearController) -> None:
    found, wanted = envs.single_observation_space.shape, (policy.feature_size,)
    if found != wanted:
        raise ValueError(
            f"the environments show observations of shape {found}, the policy reads features of shape {wanted}: "
            "wrap them in dreamgym.dreams.awake.LatentVectorObservation(envs, model)."
        )
    if envs.single_action_space != policy.spec.action_space:
        raise ValueError(f"the environments take {envs.single_action_space}, the policy gives {policy.spec.action_space}.")
