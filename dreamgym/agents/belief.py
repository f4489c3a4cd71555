"""Acting awake: a filter that turns real observations into the latent features an agent was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Policy

__all__ = ["BeliefPolicy"]


class BeliefPolicy:
    """A latent agent made to act on (preprocessed) real observations [B,...] or [...], with Stable-Baselines3's `predict`.

    Keeps the model's posterior mean and the action actually returned, so any noise is added here and not by the caller:
    explore_noise is the std of Gaussian noise on model actions (for classes: the chance of a uniform one).
    """

    def __init__(self, agent: Policy, model: WorldModel, *, explore_noise: float = 0.0, seed: int = 0) -> None:
        self.agent, self.model, self.explore_noise = agent, model, explore_noise
        self._belief: Any = None
        self._prev_action: Tensor | None = None
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Restart the exploration noise, and the agent's own where it can be."""
        self._rng = np.random.default_rng(seed)
        if hasattr(self.agent, "reseed"):
            self.agent.reseed(seed)

    @torch.inference_mode()
    def predict(
        self,
        observation: NDArray[Any],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Env actions; rows where episode_start is true begin from an empty belief. Without it, the first call starts all rows."""
        spec, model = self.model.spec, self.model
        assert spec.observation_space.shape is not None
        single = np.ndim(observation) == len(spec.observation_space.shape)
        obs = torch.as_tensor(np.asarray(observation)[None] if single else np.asarray(observation)).to(model.device)
        B = len(obs)
        if self._belief is None or self._prev_action is None or len(self._prev_action) != B:
            self._belief, self._prev_action = model.initial(B), torch.zeros(B, spec.action_size, device=model.device)
            episode_start = np.ones(B, bool)
        is_first = torch.as_tensor(np.broadcast_to(False if episode_start is None else episode_start, (B,)).copy(), device=model.device)
        noise = torch.full((B, model.noise_lanes), 0.5, device=model.device)
        self._belief = model.observe(self._belief, self._prev_action, obs, is_first, noise)
        features = model.features(self._belief).cpu().numpy()
        action, state = self.agent.predict(features, state, episode_start, deterministic)
        model_action = self._explore(spec.to_model_action(torch.as_tensor(action)))
        self._prev_action = model_action.to(model.device)
        env_action = spec.to_env_action(model_action).numpy()
        return (env_action[0] if single else env_action), state

    def _explore(self, action: Tensor) -> Tensor:
        if self.explore_noise == 0.0:
            return action
        if self.model.spec.is_discrete:
            uniform = torch.eye(action.shape[-1])[self._rng.integers(action.shape[-1], size=len(action))]
            swap = torch.as_tensor(self._rng.random(len(action)) < self.explore_noise)
            return torch.where(swap.unsqueeze(-1), uniform, action)
        wiggle = self._rng.normal(0.0, self.explore_noise, action.shape).astype(np.float32)
        return (action + torch.as_tensor(wiggle)).clamp(-1.0, 1.0)
