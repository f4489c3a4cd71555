"""Presets small enough to train in a second."""

from __future__ import annotations

from dataclasses import replace

from dreamgym.models.ensemble import EnsembleConfig
from dreamgym.models.heads import ArrivalHeadsConfig, LatentHeadsConfig
from dreamgym.models.latents import GaussianLatent
from dreamgym.models.rssm import RSSMConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.training.presets import PRESETS, AutoencoderTraining, Preset


def tiny_ensemble(**collection: object) -> Preset:
    base = PRESETS["ensemble"]
    return replace(
        base,
        model=replace(base.model, core=EnsembleConfig(members=2, layers=1, units=8), heads=ArrivalHeadsConfig(layers=1, units=8)),
        agent=replace(base.agent, layers=1, units=8, horizon=3),
        collection=replace(base.collection, env_steps=1600, prefill=0.25, rounds=2, explore_share=0.4, **collection),
        model_training=replace(base.model_training, warmup_steps=4, steps_per_round=6, batch=8),
        agent_training=replace(base.agent_training, steps_per_round=5, starts=8),
        start_states=32,
    )


def tiny_vae_rssm() -> Preset:
    base = PRESETS["vae-rssm"]
    return replace(
        base,
        model=replace(
            base.model,
            encoder=VAEConfig(code=4),
            core=RSSMConfig(latent=GaussianLatent(size=4), deter=8, hidden=8),
            heads=LatentHeadsConfig(layers=1, units=8, members=2, member_units=8, reward_scale=5.0, reward_clip=20.0),
        ),
        agent=replace(base.agent, layers=1, units=8, horizon=3),
        collection=replace(base.collection, env_steps=600, prefill=0.4, episode_steps=((12, 1.0),), rounds=2, finalists=2, final_share=0.2),
        model_training=replace(base.model_training, warmup_steps=2, steps_per_round=3, batch=4, length=5),
        agent_training=replace(base.agent_training, steps_per_round=3, starts=6),
        autoencoder=AutoencoderTraining(steps=3, batch=4, emphasis=(56, 64, 3.0)),
        start_states=32,
    )
