"""Tiny models and batches for the model tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from dreamgym.models.dreamer_heads import DreamerHeadsConfig
from dreamgym.models.encoders import CodeStatsConfig, VectorConfig
from dreamgym.models.ensemble import EnsembleConfig
from dreamgym.models.heads import ArrivalHeadsConfig, LatentHeadsConfig
from dreamgym.models.latents import GaussianLatent
from dreamgym.models.mdn_heads import MDNHeadsConfig, MLPReward, SurvivalReward
from dreamgym.models.mdn_rnn import MDNRNNConfig
from dreamgym.models.mixture_objective import MixtureObjective
from dreamgym.models.objectives import (
    Contrastive,
    DreamerObjective,
    EnsembleObjective,
    KLConfig,
    LatentObjective,
    Reconstruction,
    RewardOnly,
)
from dreamgym.models.observations import ObservationDecoderConfig, ObservationEncoderConfig
from dreamgym.models.rssm import RSSMConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.models.world_model import WorldModel, WorldModelConfig
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import DreamDefaults, SequenceBatch, Spec

K = 3  # actions and codes of the toy worlds


def tiny_rssm(*, members: int = 3, seed: int = 0, **core: Any) -> WorldModel:
    """On a frozen autoencoder's codes; keywords go to RSSMConfig."""
    torch.manual_seed(seed)
    spec = Spec("Toy-v0", spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Discrete(K), max_episode_steps=50)
    return WorldModel(
        spec,
        WorldModelConfig(
            encoder=VAEConfig(code=K),
            core=RSSMConfig(**{"latent": GaussianLatent(size=6), "deter": 24, "hidden": 24, **core}),
            heads=LatentHeadsConfig(layers=1, units=24, members=members, member_units=16),
            objective=LatentObjective(free_nats=0.0),
        ),
    )


def tiny_dreamer(
    observation: Reconstruction | Contrastive | RewardOnly | None = None,
    kl: KLConfig | None = None,
    *,
    seed: int = 0,
    two_hot: bool = False,
    **core: Any,
) -> WorldModel:
    """Jointly trained on vectors; keywords go to RSSMConfig. No free nats: the echo world holds but one nat a step."""
    torch.manual_seed(seed)
    spec = Spec("Toy-v0", spaces.Box(-1.0, 2.0, (K,), np.float32), spaces.Discrete(K), max_episode_steps=50)
    small = MLPConfig(layers=1, units=32)
    heads = DreamerHeadsConfig(
        decoder=ObservationDecoderConfig(vectors=small),
        reward=small,
        reward_distribution="two-hot" if two_hot else "normal",
        continue_head=small,
    )
    objective = DreamerObjective(observation or Reconstruction(scale=5.0), kl=kl or KLConfig(free_nats=0.0), reward_scale=10.0)
    config = WorldModelConfig(
        encoder=ObservationEncoderConfig(vectors=small),
        core=RSSMConfig(**{"latent": GaussianLatent(size=6), "deter": 32, "hidden": 32, **core}),
        heads=heads,
        objective=objective,
    )
    return WorldModel(spec, config)


def tiny_ensemble(*, members: int = 3, seed: int = 0, obs_size: int = K) -> WorldModel:
    torch.manual_seed(seed)
    spec = Spec("Toy-v0", spaces.Box(-1.0, 2.0, (obs_size,), np.float32), spaces.Discrete(K), max_episode_steps=50)
    config = WorldModelConfig(
        encoder=VectorConfig(),
        core=EnsembleConfig(members=members, layers=1, units=32),
        heads=ArrivalHeadsConfig(layers=1, units=16),
        objective=EnsembleObjective(),
    )
    return WorldModel(spec, config)


def tiny_mdn(
    *, members: int = 3, seed: int = 0, reward: SurvivalReward | MLPReward | None = None, belief: str = "mean", **core: Any
) -> WorldModel:
    """An MDN-RNN on a frozen autoencoder's code statistics; keywords go to MDNRNNConfig."""
    torch.manual_seed(seed)
    spec = Spec("Toy-v0", spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Discrete(K), max_episode_steps=50)
    return WorldModel(
        spec,
        WorldModelConfig(
            encoder=CodeStatsConfig(VAEConfig(code=K)),
            core=MDNRNNConfig(**{"units": 24, "mixtures": 3, **core}),
            heads=MDNHeadsConfig(reward or MLPReward(layers=1, units=24), members=members, member_units=16),
            objective=MixtureObjective(reward_scale=10.0),
            defaults=DreamDefaults(belief=belief),  # type: ignore[arg-type]
        ),
    )


def coded(model: WorldModel, rows: SequenceBatch, log_var: float = -6.0) -> SequenceBatch:
    """Rows as the model's encoder would have left them: for an MDN-RNN, codes are the means of narrow normals."""
    if not isinstance(model.config.encoder, CodeStatsConfig) or rows.embed is None:
        return rows
    return replace(rows, embed=torch.cat([rows.embed, torch.full_like(rows.embed, log_var)], -1))


def echo_world(batch: int, length: int, *, seed: int, shift: int = 0, reward_shift: int = 0, episode: int = 7) -> SequenceBatch:
    """o_{t+1} = one-hot(a_t), reward 1 for action 0, episodes of fixed length; the shifts misalign actions or rewards on purpose."""
    generator = torch.Generator().manual_seed(seed)
    action = torch.randint(K, (batch, length + 2), generator=generator)
    taken = torch.nn.functional.one_hot(action, K).float()
    row = torch.arange(length).expand(batch, length) + torch.randint(episode, (batch, 1), generator=generator)
    is_first, is_last = row % episode == 0, row % episode == episode - 1
    led_here = taken[:, 1 : length + 1]
    reward = taken[:, 1 + reward_shift : length + 1 + reward_shift, 0] * ~is_first
    obs = led_here * ~is_first.unsqueeze(-1)
    prev_action = taken[:, 1 + shift : length + 1 + shift] * ~is_first.unsqueeze(-1)
    return SequenceBatch(
        obs=obs,
        prev_action=prev_action,
        reward=reward,
        is_first=is_first,
        is_last=is_last,
        is_terminal=is_last,
        valid=torch.ones_like(is_first),
        index=torch.arange(batch * length).view(batch, length) + 1000 * seed,
        embed=obs,
    )


def noise_for(model: WorldModel, *lead: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*lead, model.noise_lanes, generator=torch.Generator().manual_seed(seed)).clamp(1e-6, 1 - 1e-6)


def train(model: WorldModel, steps: int, *, rate: float = 3e-3, **shifts: int) -> dict[str, float]:
    """A few updates in the echo world, whose keywords `shifts` are; returns the last one's loss terms."""
    optimiser = torch.optim.Adam(model.trainable_parameters(), rate, fused=True)
    parts: dict[str, torch.Tensor] = {}
    for step in range(steps):
        losses = model.loss(coded(model, echo_world(16, 10, seed=step, **shifts)), noise_for(model, 16, 10, seed=step))
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        parts = losses.parts
    return {name: float(part.detach()) for name, part in parts.items()}


def see(model: WorldModel, state: Any, batch: SequenceBatch, t: int, noise: torch.Tensor) -> Any:
    """The belief after row t; a model whose encoder stands apart is shown the code."""
    if isinstance(model.config.encoder, (VAEConfig, CodeStatsConfig)):
        batch = coded(model, batch)
        assert batch.embed is not None
        return model.core.observe(state, batch.prev_action[:, t], batch.embed[:, t], batch.is_first[:, t], noise)[0]
    return model.observe(state, batch.prev_action[:, t], batch.obs[:, t], batch.is_first[:, t], noise)


@dataclass(frozen=True)
class EchoErrors:
    """Mean squared errors in the echo world."""

    seen: float  # reward of a row just observed
    dreamt: float  # rewards of four open-loop steps
    dreamt_obs: float  # observations of those, summed over the vector; NaN for pictures


@torch.no_grad()
def echo_errors(model: WorldModel, **shifts: int) -> EchoErrors:
    """Observe two rows of an episode, then dream four steps on the recorded actions, with mean noise."""
    batch = echo_world(256, 7, seed=10_000, episode=7, **shifts)
    batch = batch[batch.is_first[:, 0]]
    B = len(batch.reward)
    state = model.initial(B)
    middle = torch.full((B, model.noise_lanes), 0.5)
    for t in range(2):
        state = see(model, state, batch, t, middle)
    seen = (model.predict(state).reward - batch.reward[:, 1]).square()
    rewards, observations = [], []
    for t in range(2, 6):
        state = model.step(state, batch.prev_action[:, t], middle)
        rewards.append((model.predict(state).reward - batch.reward[:, t]).square())
        if not model.spec.is_image:
            observations.append((model.decode(state) - batch.obs[:, t]).square().sum(-1))
    dreamt_obs = torch.stack(observations).mean() if observations else torch.nan
    return EchoErrors(float(seen.mean()), float(torch.stack(rewards).mean()), float(dreamt_obs))
