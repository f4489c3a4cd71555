"""Presets small enough to train in a second or two."""

from __future__ import annotations

from dataclasses import replace

from dreamgym.agents.planning import CEMConfig
from dreamgym.models.ensemble import EnsembleConfig
from dreamgym.models.heads import ArrivalHeadsConfig, LatentHeadsConfig
from dreamgym.models.latents import GaussianLatent
from dreamgym.models.rssm import RSSMConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.structs import Spec
from dreamgym.training.online_config import OnlinePreset
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


def shrink(preset: OnlinePreset, spec: Spec) -> OnlinePreset:
    """A paper's preset with its networks and its rules, but only four episodes, the first of them random, and small batches."""
    training = replace(
        preset.training,
        env_steps=4 * spec.max_episode_steps * (preset.action_repeat or spec.preprocess.action_repeat),
        prefill=1,
        pretrain=1,
        train_every=0 if preset.training.train_every == 0 else 10,
        updates=1,
        batch=3,
        length=6,
        starts=None if preset.training.starts is None else 8,
        evaluate_every=1_000_000,
        evaluate_episodes=1,
        held_out_every=2,
    )
    agent = preset.agent
    if isinstance(agent, CEMConfig):
        agent = replace(agent, horizon=4, iterations=2, candidates=16, elites=4)
    return replace(preset, agent=agent, training=training, start_states=16)
