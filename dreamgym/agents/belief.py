"""Acting awake: a filter that turns real observations into what an agent was trained on, the model's features or states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.models.world_model import WorldModel
from dreamgym.noise import hash_counters, uniform
from dreamgym.structs import Policy, TensorStruct

__all__ = ["BeliefPolicy", "StateAgent", "StepKey"]


@dataclass(frozen=True)
class StepKey(TensorStruct):
    """Which random numbers belong to this step of each row; step is 0 exactly where an episode begins."""

    seed: Tensor  # [B] int64
    episode: Tensor  # [B] int64
    step: Tensor  # [B] int64

    @classmethod
    def of(cls, seed: int, batch_size: int, *, device: torch.device | str = "cpu") -> StepKey:
        """First steps of episodes 0 to batch_size - 1."""
        episode = torch.arange(batch_size, device=device)
        return cls(torch.full_like(episode, seed), episode, torch.zeros_like(episode))

    def seeds(self, lane: int) -> Tensor:
        """[B] int64: the seed of an independent stream for this step; lanes differ."""
        return hash_counters(self.seed, self.episode, self.step, lane + 1)[:, lane]


class StateAgent(Protocol):
    """An agent that reads the model's states instead of features, as planners do. It has no `predict`: that tells it from a Policy."""

    def act(self, state: Any, memory: Any, key: StepKey, deterministic: bool = False) -> tuple[Tensor, Any]:
        """Model actions [B,A] for states [B], and what the agent wants back at the next step (None before the first)."""
        ...


class BeliefPolicy:
    """An agent made to act on (preprocessed) real observations [B,...] or [...], with Stable-Baselines3's `predict`.

    The agent is a Policy over features or a StateAgent. Keeps the model's posterior and the action actually returned, so any noise is
    added here and not by the caller: explore_noise is the std of Gaussian noise on model actions, clipped to [-1,1] (for classes: the
    chance of a uniform one, in each factor). It replaces a StateAgent's own exploration and comes on top of a Policy's.
    posterior "sample" acts from a sampled belief, as PlaNet's training does; "mean" from the posterior's mean; None as the model wants
    it (DreamDefaults.belief). The k-th row to begin an
    episode since `reseed` draws from the streams of (seed, k), whatever the batch.
    """

    def __init__(
        self,
        agent: Policy | StateAgent,
        model: WorldModel,
        *,
        explore_noise: float = 0.0,
        posterior: Literal["mean", "sample"] | None = None,
        seed: int = 0,
    ) -> None:
        if posterior is None:
            posterior = getattr(getattr(model, "defaults", None), "belief", "mean")  # a third party's model may have none
        if posterior not in ("mean", "sample"):
            raise ValueError(f"posterior is {posterior!r}; expected 'mean' or 'sample'.")
        if not explore_noise >= 0.0:
            raise ValueError(f"explore_noise is {explore_noise}; expected at least 0.")
        self.agent, self.model, self.explore_noise, self.posterior = agent, model, explore_noise, posterior
        self._belief: Any = None
        self._prev_action: Tensor | None = None
        self._reads_states = not hasattr(agent, "predict")
        self._clock = _Clock()
        self._mean_noise = torch.empty(0)
        self.memory: Any = None  # what a StateAgent wants back, such as a planner's last Plan
        self.reseed(seed)

    @property
    def belief(self) -> Any:
        """The model's states [B] that the last actions were chosen from, as inference tensors; None before the first call."""
        return self._belief

    def reseed(self, seed: int) -> None:
        """Restart all noise, and the agent's own where it can be."""
        self._rng = np.random.default_rng(seed)
        self._clock.restart(seed)
        if hasattr(self.agent, "reseed"):
            self.agent.reseed(seed)

    @torch.inference_mode()
    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Env actions; rows where episode_start is true begin from an empty belief. Without it, the first call starts all rows.

        observation is an array, or a dict of arrays for a Dict space.
        """
        spec, model, device = self.model.spec, self.model, self._device
        obs, B, single = _to_tensors(observation, spec.observation_space, device)
        if self._belief is None or self._prev_action is None or len(self._prev_action) != B:
            self._belief, self._prev_action = model.initial(B), torch.zeros(B, spec.action_size, device=device)
            self.memory = None
            episode_start = np.ones(B, bool)
        begins = np.broadcast_to(False if episode_start is None else episode_start, (B,)).copy()
        self._clock.tick(begins)
        is_first = torch.as_tensor(begins, device=device)
        self._belief = model.observe(self._belief, self._prev_action, obs, is_first, self._noise(B))
        if self._reads_states:
            quiet = deterministic or self.explore_noise > 0.0
            action, self.memory = self.agent.act(self._belief, self.memory, self._key(), quiet)  # type: ignore[union-attr]
        else:
            features = model.features(self._belief).cpu().numpy()
            asked, state = self.agent.predict(features, state, episode_start, deterministic)  # type: ignore[union-attr]
            action = spec.to_model_action(torch.as_tensor(asked))
        model_action = self._explore(action.cpu())
        self._prev_action = model_action.to(device)
        env_action = spec.to_env_action(model_action).numpy()
        return (env_action[0] if single else env_action), state

    def _noise(self, B: int) -> Tensor:
        if self.posterior == "sample":
            key = self._key()
            return uniform(key.seed, key.episode, key.step, self.model.noise_lanes)
        if len(self._mean_noise) != B or self._mean_noise.device != self._device:
            self._mean_noise = torch.full((B, self.model.noise_lanes), 0.5, device=self._device)
        return self._mean_noise

    def _key(self) -> StepKey:
        return self._clock.key().to(self._device)

    @property
    def _device(self) -> torch.device:
        return getattr(self.model, "device", _CPU)  # a third party's model may have none

    def _explore(self, action: Tensor) -> Tensor:
        if self.explore_noise == 0.0:
            return action
        if sizes := self.model.spec.action_sizes:
            return torch.cat([self._swapped(factor) for factor in action.split(list(sizes), -1)], -1)
        wiggle = self._rng.normal(0.0, self.explore_noise, action.shape).astype(np.float32)
        return (action + torch.as_tensor(wiggle)).clamp(-1.0, 1.0)

    def _swapped(self, classes: Tensor) -> Tensor:
        """One-hot classes [B,K], some of them replaced by uniform ones."""
        uniform_class = torch.eye(classes.shape[-1])[self._rng.integers(classes.shape[-1], size=len(classes))]
        swap = torch.as_tensor(self._rng.random(len(classes)) < self.explore_noise)
        return torch.where(swap.unsqueeze(-1), uniform_class, classes)


_CPU = torch.device("cpu")


class _Clock:
    """Counts every row's episode and step since the last seed."""

    def restart(self, seed: int) -> None:
        self._seed, self._begun = seed, 0
        self._episode = self._step = np.zeros(0, np.int64)

    def tick(self, begins: NDArray[np.bool_]) -> None:
        """Move on. begins [B]: rows that start an episode get the next free episode number."""
        if len(self._step) != len(begins):  # after a seed, or with another batch
            self._episode, self._step = np.zeros((2, len(begins)), np.int64)
            begins = np.ones_like(begins)
        self._step += 1
        if begins.any():
            self._episode[begins] = self._begun + np.arange(begins.sum())
            self._step[begins] = 0
            self._begun += int(begins.sum())

    def key(self) -> StepKey:
        """The key of this step, on the CPU."""
        return StepKey(*torch.from_numpy(np.stack([np.full_like(self._step, self._seed), self._episode, self._step])))


def _to_tensors(observation: Any, space: spaces.Space[Any], device: torch.device) -> tuple[Any, int, bool]:
    """Batched tensors (a dict of them for a Dict space) on `device`, their batch size, and whether one observation was given."""
    if isinstance(space, spaces.Dict):
        parts = {key: _to_tensors(observation[key], part, device) for key, part in sorted(space.spaces.items())}
        _, B, single = next(iter(parts.values()))
        return {key: tensor for key, (tensor, _, _) in parts.items()}, B, single
    assert space.shape is not None
    array = np.asarray(observation)
    single = array.ndim == len(space.shape)
    tensor = torch.as_tensor(array[None] if single else array).to(device)
    return tensor, len(tensor), single
