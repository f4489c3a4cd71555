"""Presets: every number of a training run as data, each with its source. Papers are presets here, not code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.models.encoders import VectorConfig
from dreamgym.models.ensemble import EnsembleConfig
from dreamgym.models.heads import ArrivalHeadsConfig, LatentHeadsConfig
from dreamgym.models.latents import GaussianLatent
from dreamgym.models.objectives import EnsembleObjective, LatentObjective
from dreamgym.models.rssm import RSSMConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.models.world_model import WorldModelConfig
from dreamgym.structs import DreamDefaults

__all__ = ["PRESETS", "AgentTraining", "AutoencoderTraining", "Collection", "ModelTraining", "Preset"]


@dataclass(frozen=True)
class Collection:
    """How real experience is gathered. env_steps counts the environment's own steps (frames), all of them, also those of validation.

    The share prefill is random; the rest is divided among the rounds, whose episodes are part greedy (they validate) and part explored.
    episode_steps are lengths of random episodes in agent steps with their probabilities; None runs every episode to its end.
    """

    env_steps: int = 10_000
    prefill: float = 1.0
    collector: Literal["sticky", "driving"] = "sticky"
    hold: tuple[int, int] = (1, 10)
    episode_steps: tuple[tuple[int, float], ...] | None = None
    rounds: int = 1
    explore_share: float = 0.4
    finalists: int = 1
    final_share: float = 0.0  # of env_steps, kept to decide between the finalists
    held_out_every: int = 10  # each such episode of random data is kept out of training


@dataclass(frozen=True)
class AutoencoderTraining:
    """Stage one: the VAE. emphasis weighs image rows [top, bottom) more, as (top, bottom, weight)."""

    steps: int = 4500
    batch: int = 64
    learning_rate: float = 1e-3
    decay_share: float = 0.4  # of the steps, over which the rate falls linearly to zero
    kl_scale: float = 0.5
    kl_tolerance: float = 0.0
    emphasis: tuple[int, int, float] | None = None


@dataclass(frozen=True)
class ModelTraining:
    """Stage two: core and heads on sequences. recent_share of each batch comes from rows collected by agents, once there are any."""

    warmup_steps: int = 600
    steps_per_round: int = 400
    batch: int = 32
    length: int = 25
    learning_rate: float = 6e-4
    gradient_clip: float = 100.0
    recent_share: float = 0.5


@dataclass(frozen=True)
class AgentTraining:
    """The built-in agent: `starts` posterior states of a model batch are imagined from in every step."""

    steps_per_round: int = 400
    starts: int = 192
    decay_share: float = 0.4  # of all agent steps, over which the rate falls linearly to a tenth


@dataclass(frozen=True)
class Preset:
    """A whole recipe: what to build, what to collect, how long to learn."""

    name: str
    model: WorldModelConfig
    agent: ActorCriticConfig
    collection: Collection
    model_training: ModelTraining
    agent_training: AgentTraining
    autoencoder: AutoencoderTraining | None = None
    bfloat16: bool = False
    start_states: int = 1024
    notes: str = ""


def _ensemble() -> Preset:
    return Preset(
        name="ensemble",
        model=WorldModelConfig(
            encoder=VectorConfig(range_margin=0.1),
            core=EnsembleConfig(),
            heads=ArrivalHeadsConfig(layers=2, units=64),
            objective=EnsembleObjective(),
            # The range guard is what takes CartPole from 44 to 500. A limit of 3 on uncertainty closed Acrobot's goal off, which lies
            # where data is rare: -500 against -86 at 6 (docs/log.md).
            defaults=DreamDefaults(max_uncertainty=6.0, range_guard=True),
        ),
        agent=ActorCriticConfig(layers=2, units=64, horizon=15, discount=0.99, entropy=0.003, reward_scale=1.0, learning_rate=1e-3),
        collection=Collection(env_steps=10_000, prefill=1.0, hold=(1, 16), rounds=1, explore_share=0.0),
        model_training=ModelTraining(warmup_steps=4000, steps_per_round=0, batch=128, length=3, learning_rate=1e-3, gradient_clip=1e3),
        agent_training=AgentTraining(steps_per_round=600, starts=128),
        notes="PETS-style ensemble with MOReL-style halting; seconds on a CPU.",
    )


def _vae_rssm() -> Preset:
    return Preset(
        name="vae-rssm",
        model=WorldModelConfig(
            encoder=VAEConfig(code=32),
            core=RSSMConfig(latent=GaussianLatent(size=32), deter=256, hidden=200),
            heads=LatentHeadsConfig(reward_scale=5.0, reward_clip=20.0),
            objective=LatentObjective(),
            defaults=DreamDefaults(horizon=60, starts="any", uncertainty_penalty=0.5),
        ),
        agent=ActorCriticConfig(),
        collection=Collection(
            env_steps=250_000,
            prefill=0.36,
            collector="driving",
            episode_steps=((60, 0.35), (100, 0.35), (160, 0.2), (250, 0.1)),
            rounds=10,
            finalists=3,
            final_share=0.1,
            held_out_every=20,
        ),
        model_training=ModelTraining(warmup_steps=1000, steps_per_round=500),
        agent_training=AgentTraining(steps_per_round=500),
        autoencoder=AutoencoderTraining(emphasis=(56, 64, 3.0)),
        bfloat16=True,
        notes="Two stages: a VAE, then an RSSM on its frozen codes; pixels on a CPU.",
    )


PRESETS: dict[str, Preset] = {preset.name: preset for preset in (_ensemble(), _vae_rssm())}
