"""Worlds and presets so small that an online run takes a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamgym.agents import recipes
from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.agents.critics import SlowCopy
from dreamgym.agents.planning import CEMConfig
from dreamgym.models.dreamer_heads import DreamerHeadsConfig
from dreamgym.models.latents import CategoricalLatent, GaussianLatent
from dreamgym.models.objectives import DreamerObjective
from dreamgym.models.observations import ObservationDecoderConfig, ObservationEncoderConfig
from dreamgym.models.rssm import LayerNormGRUConfig, RSSMConfig
from dreamgym.models.world_model import WorldModelConfig
from dreamgym.nn.convolutions import ConvConfig
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import Preprocess, Spec
from dreamgym.training.online import OnlineTrainer
from dreamgym.training.online_config import OnlinePreset, OnlineTraining, OptimiserConfig

STEPS = 12  # an episode's agent steps, where nothing ends it sooner


class Line(gym.Env):
    """A point that actions push along a line; reward for being near the middle. `edge`: beyond it the episode terminates."""

    observation_space: spaces.Space = spaces.Box(-5.0, 5.0, (2,), np.float32)
    action_space: spaces.Space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, edge: float = 9.0) -> None:
        self.edge, self.at, self.steps = edge, 0.0, 0
        self.seeds: list[int | None] = []
        self.fails_at: int | None = None  # the step of its life in which it breaks
        self.lived = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.at, self.steps = float(self.np_random.uniform(-0.5, 0.5)), 0
        return self._look(), {}

    def step(self, action: Any) -> Any:
        if self.lived == self.fails_at:
            raise RuntimeError("killed")
        self.lived += 1
        self.steps += 1
        self.at = float(np.clip(self.at + 0.3 * self._push(action) + 0.05 * self.np_random.normal(), -5.0, 5.0))
        return self._look(), 1.0 - abs(self.at), abs(self.at) > self.edge, self.steps >= STEPS, {}

    def _push(self, action: Any) -> float:
        return float(np.asarray(action).reshape(-1)[0])

    def _look(self) -> Any:
        return np.array([self.at, self.steps / STEPS], np.float32)


class ClassLine(Line):
    """The same with two actions."""

    action_space = spaces.Discrete(2)

    def _push(self, action: Any) -> float:
        return 2.0 * float(action) - 1.0


class SeenLine(Line):
    """The same as a 32x32 picture and a number."""

    observation_space = spaces.Dict({"camera": spaces.Box(0, 255, (32, 32, 3), np.uint8), "at": spaces.Box(-5.0, 5.0, (1,), np.float32)})

    def _look(self) -> Any:
        picture = np.zeros((32, 32, 3), np.uint8)
        column = int(np.clip(16 + 3 * self.at, 0, 30))
        picture[14:18, column : column + 2] = 255
        return {"camera": picture, "at": np.array([self.at], np.float32)}


def spec_of(env: Line, *, action_repeat: int = 1) -> Spec:
    return Spec("Toys/Line", env.observation_space, env.action_space, STEPS, preprocess=Preprocess(action_repeat=action_repeat))


_SMALL = MLPConfig(layers=1, units=8)
_CONV = ConvConfig(depth=2)


def tiny_model(latent: Any = GaussianLatent(size=3), *, members: int = 2) -> WorldModelConfig:  # noqa: B008
    return WorldModelConfig(
        encoder=ObservationEncoderConfig(images=_CONV, vectors=_SMALL),
        core=RSSMConfig(latent=latent, deter=6, hidden=6),
        heads=DreamerHeadsConfig(
            decoder=ObservationDecoderConfig(images=_CONV, vectors=_SMALL),
            reward=_SMALL,
            continue_head=_SMALL,
            members=members,
            member_units=4,
        ),
        objective=DreamerObjective(),
    )


TRAINING = OnlineTraining(
    env_steps=6 * STEPS,
    prefill=2 * STEPS,
    pretrain=3,
    train_every=5,
    updates=2,
    batch=3,
    length=6,
    evaluate_every=20,
    evaluate_episodes=2,
    held_out_every=3,
    checkpoint_every=1,
)


def tiny_preset(training: OnlineTraining = TRAINING, **changes: Any) -> OnlinePreset:
    """Dreamer V1 in small."""
    preset = OnlinePreset(
        name="toy",
        size="tiny",
        model=tiny_model(),
        agent=ActorCriticConfig(units=8, horizon=4),
        training=replace(training, explore_noise=0.3),
        model_optimiser=OptimiserConfig(learning_rate=1e-3),
        actor_optimiser=OptimiserConfig(learning_rate=1e-3),
        critic_optimiser=OptimiserConfig(learning_rate=1e-3),
        start_states=16,
    )
    return replace(preset, **changes)


def tiny_planet(training: OnlineTraining = TRAINING) -> OnlinePreset:
    planner = CEMConfig(horizon=3, iterations=2, candidates=8, elites=3)
    return tiny_preset(replace(training, train_every=0, pretrain=0, belief_sample=True), agent=planner)


def tiny_v2(training: OnlineTraining = TRAINING) -> OnlinePreset:
    """Classes in a layer-norm memory, and a critic's copy whose age must survive a checkpoint."""
    preset = tiny_preset(replace(training, belief_sample=True), model=tiny_model(CategoricalLatent(variables=2, classes=3)))
    model = replace(preset.model, core=replace(preset.model.core, cell=LayerNormGRUConfig()))
    agent = replace(recipes.dreamer_v2(units=8), horizon=4, slow_critic=SlowCopy(every=7))
    return replace(preset, model=model, agent=agent, model_optimiser=OptimiserConfig(learning_rate=1e-3, weight_decay=1e-6))


def tiny_v3(training: OnlineTraining = TRAINING) -> OnlinePreset:
    changes = {"carry": "stored", "online_queue": True, "updates_joint": True}
    optimiser = OptimiserConfig(kind="laprop", learning_rate=1e-3, eps=1e-20, clip=None, adaptive_clip=0.3, warmup=4)
    preset = tiny_preset(replace(training, **changes), model=tiny_model(CategoricalLatent(variables=2, classes=3)))
    agent = replace(recipes.dreamer_v3(units=8), horizon=4)
    return replace(preset, agent=agent, model_optimiser=optimiser, actor_optimiser=None, critic_optimiser=None)


def trainer_of(folder: Path, preset: OnlinePreset, env: Line | None = None, *, seed: int = 3, spec: Spec | None = None) -> OnlineTrainer:
    folder.mkdir(parents=True, exist_ok=True)
    spec = spec_of(env) if env is not None and spec is None else spec
    assert spec is not None
    return OnlineTrainer(spec, preset, seed=seed, device="cpu", folder=folder, progress=False, env=env)
