"""The papers' actor-critics as configs, every number with its source; specs/dreamer.md has the tables."""

from __future__ import annotations

from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.agents.critics import SlowAverage, SlowCopy
from dreamgym.agents.returns import PercentileScale
from dreamgym.nn.networks import MLPConfig
from dreamgym.nn.policies import BoundedNormalConfig, TanhNormalConfig, TruncatedNormalConfig

__all__ = ["dreamer_v1", "dreamer_v2", "dreamer_v3"]


def dreamer_v1(*, units: int = 400) -> ActorCriticConfig:
    """Dreamer V1: backpropagation through the dream for every action space, no entropy bonus, no target network.

    Source: danijar/dreamer (A.3, A.6, A.7), whose layers (4 and 3 of 400) differ from the paper's text (3 of 300).
    """
    return ActorCriticConfig(
        actor=MLPConfig(layers=4, units=units, activation="elu"),
        critic=MLPConfig(layers=3, units=units, activation="elu"),
        init="paper",
        actor_output_scale=1.0,
        critic_output_scale=1.0,
        policy=TanhNormalConfig(mean_scale=5.0, init_std=5.0, min_std=1e-4),
        indexing="v1",
        horizon=15,
        discount=0.99,
        lambda_=0.95,
        reinforce=0.0,
        entropy=0.0,
        entropy_per_dimension=False,
        reward_scale=1.0,
        slow_critic=None,
        critic_target="fast",
        learning_rate=8e-5,  # actor and value alike; Adam
        gradient_clip=100.0,
    )


def dreamer_v2(*, units: int = 400, discount: float = 0.99, entropy: float = 1e-4, learning_rate: float = 8e-5) -> ActorCriticConfig:
    """Dreamer V2: REINFORCE for classes, dynamics for a Box, a critic's copy every 100 updates for targets and baseline.

    Defaults are DeepMind Control's (B.6); Atari has discount 0.999, entropy 1e-3, and rates 4e-5 (actor) and 1e-4 (critic).
    Source: danijar/dreamerv2 (B.4).
    """
    return ActorCriticConfig(
        actor=MLPConfig(layers=4, units=units, activation="elu"),
        critic=MLPConfig(layers=4, units=units, activation="elu"),
        init="paper",
        actor_output_scale=1.0,
        critic_output_scale=1.0,
        policy=TruncatedNormalConfig(min_std=0.1),
        indexing="v2",
        horizon=15,
        discount=discount,
        lambda_=0.95,
        reinforce=None,
        entropy=entropy,
        entropy_per_dimension=False,
        reward_scale=1.0,
        slow_critic=SlowCopy(every=100),
        critic_target="slow",
        learning_rate=learning_rate,
        gradient_clip=100.0,
    )


def dreamer_v3(*, units: int = 64) -> ActorCriticConfig:
    """Dreamer V3: REINFORCE on normalised returns for every action space, two-hot critic, also trained on replayed rows.

    units is d of the model size (64 for size1m to 1536 for size400m). Source: DreamerV3's released code (C.3, C.4, C.6, C.7).
    """
    network = MLPConfig(layers=3, units=units, activation="silu", norm="rms")
    return ActorCriticConfig(
        actor=network,
        critic=network,
        init="paper",
        actor_output_scale=0.01,
        critic_output_scale=0.0,  # first values exactly 0
        policy=BoundedNormalConfig(min_std=0.1, max_std=1.0),
        unimix=0.01,
        critic_distribution="two-hot",
        indexing="v3",
        horizon=15,
        discount=1.0 - 1.0 / 333.0,
        lambda_=0.95,
        reinforce=1.0,
        entropy=3e-4,
        entropy_per_dimension=False,
        reward_scale=1.0,
        return_scale=PercentileScale(rate=0.01, low=0.05, high=0.95, floor=1.0),
        slow_critic=SlowAverage(rate=0.02, regulariser=1.0),
        critic_target="fast",
        replay_value=0.3,
        learning_rate=4e-5,  # LaProp; the optimiser's own clipping is adaptive (C.7)
    )
