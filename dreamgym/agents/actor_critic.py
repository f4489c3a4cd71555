"""Dreamer's actor-critic, compact: the actor climbs lambda-returns by backpropagation through the dream."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamgym.agents.returns import discount_weights, lambda_returns
from dreamgym.errors import ModelNotFoundError
from dreamgym.models.guard import Guard
from dreamgym.models.imagination import imagine
from dreamgym.models.world_model import WorldModel
from dreamgym.nn.distributions import OneHotPolicy, TanhNormal
from dreamgym.nn.networks import MLP
from dreamgym.noise import to_normal
from dreamgym.structs import Spec

__all__ = ["ActorCritic", "ActorCriticConfig"]


@dataclass(frozen=True)
class ActorCriticConfig:
    """Defaults: the measured CPU recipe (docs/log.md); Dreamer V1 prints horizon 15, lambda 0.95, discount 0.99, 3 layers of 300.

    reward_scale divides rewards, so that entropy (per action dimension, in nats) has a comparable size in every environment.
    """

    layers: int = 2
    units: int = 200
    horizon: int = 15
    discount: float = 0.98
    lambda_: float = 0.95
    entropy: float = 0.02
    reward_scale: float = 5.0
    init_std: float = 1.0
    min_std: float = 0.05
    learning_rate: float = 3e-4
    gradient_clip: float = 10.0
    slow_critic: float = 0.02  # rate of the averaged critic that bootstraps

    def __post_init__(self) -> None:
        if self.horizon < 2:
            raise ValueError(f"horizon is {self.horizon}; expected at least 2 (the last step only bootstraps).")
        if not 0.0 < self.discount <= 1.0 or not 0.0 <= self.lambda_ <= 1.0:
            raise ValueError(f"discount {self.discount} and lambda_ {self.lambda_} must lie in (0,1] and [0,1].")


class ActorCritic(nn.Module):
    """Acts on features [B,F]; `predict` has Stable-Baselines3's signature and returns the environment's actions.

    Source: Hafner et al. 2020 (Dreamer), section 3; specs/dreamer.md A.6. The world model receives no gradient.
    """

    def __init__(self, spec: Spec, feature_size: int, config: ActorCriticConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.spec, self.config = spec, config or ActorCriticConfig()
        self.feature_size = feature_size
        layers, units = self.config.layers, self.config.units
        self.actor = MLP(feature_size, spec.action_size * (1 if spec.is_discrete else 2), layers=layers, units=units)
        self.critic = MLP(feature_size, 1, layers=layers, units=units)
        with torch.no_grad():
            self.actor[-1].weight.mul_(0.1)  # type: ignore[operator,union-attr]  # start near the middle of the action box
            self.critic[-1].weight.zero_()  # type: ignore[operator,union-attr]
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self._generator = torch.Generator().manual_seed(seed)

    # ---- acting -------------------------------------------------------------------------------------------------------

    def policy(self, features: Tensor) -> TanhNormal | OneHotPolicy:
        """Distribution over model actions given features [..., F]."""
        raw = self.actor(features).float()
        if self.spec.is_discrete:
            return OneHotPolicy(raw)
        return TanhNormal.from_raw(raw, init_std=self.config.init_std, min_std=self.config.min_std)

    def reseed(self, seed: int) -> None:
        """Restart the generator that `predict` explores with."""
        self._generator.manual_seed(seed)

    @torch.no_grad()
    def predict(
        self,
        observation: NDArray[Any],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Latent observations [F] or [B,F] -> the environment's actions. deterministic takes the mode, else samples."""
        device = self.actor[0].weight.device
        features = torch.as_tensor(np.asarray(observation), dtype=torch.float32, device=device)  # type: ignore[arg-type]
        if features.shape[-1] != self.feature_size:
            raise ValueError(
                f"observation has {features.shape[-1]} numbers, this agent reads {self.feature_size} latent features: "
                "wrap the real environment in dreamgym.LatentObservation(env, model)."
            )
        policy = self.policy(features)
        if deterministic:
            action = policy.mode
        else:
            noise = torch.rand((*features.shape[:-1], self.spec.action_size), generator=self._generator)
            action = policy.sample(noise.clamp_(1e-6, 1.0 - 1e-6).to(features.device))
        return self.spec.to_env_action(action.cpu()).numpy(), state

    # ---- learning -----------------------------------------------------------------------------------------------------

    def losses(self, model: WorldModel, start: Any, guard: Guard, generator: torch.Generator) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Actor loss, critic loss and metrics from `horizon` imagined steps of every start state [N].

        Only imagined states count (not the start): their rewards, discounts and values give lambda-returns, weighted by the chance of
        living that long. The actor's loss reaches the actor through rewards, values and dynamics.
        """
        config = self.config
        N, H, A = len(start.items()[0][1]), config.horizon, self.spec.action_size
        device = model.device
        noise = torch.rand(N, H, model.noise_lanes + A, generator=generator).to(device).clamp_(1e-6, 1.0 - 1e-6)
        entropies: list[Tensor] = []

        def act(features: Tensor, h: int) -> Tensor:
            action, entropy = self._sample(features.detach(), noise[:, h, model.noise_lanes :])
            entropies.append(entropy)
            return action

        states, _ = imagine(model, start, act, H, noise[..., : model.noise_lanes])
        flat = states.flatten()
        features = model.features(flat)
        reward, continue_prob = (part.unflatten(0, (N, H)) for part in self._judge(model, flat, guard))
        value = self.critic(features).float().view(N, H)
        slow_value = self.slow_critic(features).float().view(N, H)
        discount = config.discount * continue_prob
        returns = lambda_returns(reward[:, :-1], discount[:, :-1], slow_value, lambda_=config.lambda_)
        weight = discount_weights(discount[:, :-1]).detach()
        entropy = torch.stack(entropies, 1)
        # Step h's action leads to state h, whose return is returns[h]: the entropy of the same step joins it.
        actor_loss = -(weight * (returns + config.entropy * entropy[:, :-1])).mean()
        values = self.critic(features.detach()).float().view(N, H)[:, :-1]
        critic_loss = 0.5 * (weight * (values - returns.detach()) ** 2).mean()
        metrics = {
            "actor_loss": actor_loss,
            "critic_loss": critic_loss,
            "entropy": entropy.mean(),
            "imagined_return": returns.mean() * config.reward_scale,
            "imagined_reward": reward.mean() * config.reward_scale,
            "value": value.mean() * config.reward_scale,
        }
        return actor_loss, critic_loss, {name: metric.detach() for name, metric in metrics.items()}

    def _sample(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A differentiable action and the policy's entropy there, per action dimension."""
        policy = self.policy(features)
        if isinstance(policy, OneHotPolicy):
            return policy.sample(noise), policy.entropy()
        pre_tanh = policy.mean + policy.std * to_normal(noise)
        return torch.tanh(pre_tanh), policy.entropy(pre_tanh) / self.spec.action_size

    def _judge(self, model: WorldModel, states: Any, guard: Guard) -> tuple[Tensor, Tensor]:
        """Scaled reward and continue probability of imagined states [N], guarded as in the dream environments."""
        prediction = model.predict(states)
        first_step = torch.ones_like(prediction.reward, dtype=torch.int64)  # imagined states have no clock: a whole life lies ahead
        reward, halted = guard.judge(model, states, prediction, prediction.continue_prob < 0.5, first_step)
        continue_prob = torch.where(halted, torch.zeros_like(reward), prediction.continue_prob)
        return reward / self.config.reward_scale, continue_prob

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """Move the averaged critic towards the critic."""
        for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters()):
            slow.lerp_(fast, self.config.slow_critic)

    # ---- keeping ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write agent.json and agent.safetensors."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agent.json").write_text(json.dumps({"feature_size": self.feature_size, "config": asdict(self.config)}, indent=2) + "\n")
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "agent.safetensors")

    @classmethod
    def load(cls, folder: str | Path, spec: Spec) -> ActorCritic:
        """Read what `save` wrote; spec is the world model's. Raises ModelNotFoundError."""
        folder = Path(folder)
        if not (folder / "agent.json").is_file():
            raise ModelNotFoundError(f"no agent at {str(folder)!r}: expected a folder with agent.json, as fit writes it.")
        written = json.loads((folder / "agent.json").read_text())
        agent = cls(spec, int(written["feature_size"]), ActorCriticConfig(**written["config"]))
        agent.load_state_dict(load_file(folder / "agent.safetensors"))
        return agent
