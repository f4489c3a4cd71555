"""A toy world of pictures with an end, and World Models presets small enough to run through every stage in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.agents.evolution import CMAESConfig
from dreamgym.models.encoders import CodeStatsConfig
from dreamgym.models.mdn_heads import MDNHeadsConfig, MLPReward, SurvivalReward
from dreamgym.models.mdn_rnn import MDNRNNConfig
from dreamgym.models.mixture_objective import MixtureObjective
from dreamgym.models.mixture_overshooting import MixtureOvershooting
from dreamgym.models.vae import VAEConfig
from dreamgym.models.world_model import WorldModel, WorldModelConfig
from dreamgym.structs import Spec, StartBank
from dreamgym.training import world_models as stages
from dreamgym.training.learners import seeded
from dreamgym.training.loop import Run, fit
from dreamgym.training.world_models_config import (
    BehaviourTraining,
    Calibration,
    CodeTraining,
    ControllerTraining,
    EpisodeCollection,
    Iterations,
    MemoryTraining,
    WorldModelsPreset,
)
from dreamgym.training.world_models_presets import world_models_preset

FALL = "DreamgymTests/Fall-v0"


class Fall(gym.Env):
    """A 64x64 picture of a falling ball; left, stay and right move a paddle, and who is under the ball when it lands dies."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.height = 3, 0
        self.ball = int(self.np_random.integers(8))
        return self._paint(), {"obs_valid": True}

    def step(self, action):
        self.at = int(np.clip(self.at + action - 1, 0, 7))
        self.height += 1
        dead = self.height == 8 and abs(self.at - self.ball) <= 1
        if self.height == 8:
            self.ball, self.height = int(self.np_random.integers(8)), 0
        image = np.zeros((64, 64, 3), np.uint8) if dead else self._paint()
        return image, 1.0, dead, False, {"obs_valid": not dead}

    def render(self):
        return self._paint()

    def _paint(self):
        image = np.full((64, 64, 3), 40, np.uint8)
        image[56:, 8 * self.at : 8 * self.at + 8, 1] = 255
        image[7 * self.height : 7 * self.height + 8, 8 * self.ball : 8 * self.ball + 8, 0] = 255
        return image


gym.register(FALL, entry_point=Fall, max_episode_steps=30)
SPEC = Spec(FALL, Fall.observation_space, Fall.action_space, max_episode_steps=30, fps=20.0)


def tiny(**changes: object) -> WorldModelsPreset:
    """Every stage: two searches and an actor-critic a round, one iteration."""
    base = world_models_preset("world-models-fast", SPEC)
    preset = replace(
        base,
        model=replace(
            base.model,
            encoder=CodeStatsConfig(vae=VAEConfig(code=3)),
            core=MDNRNNConfig(units=8, mixtures=2, features="zh"),
            heads=MDNHeadsConfig(reward=MLPReward(layers=1, units=8), members=2, member_units=4),
        ),
        collection=EpisodeCollection(episodes=14, pixel_frames=60, holds=(2, 4), held_out_every=4),
        code_training=CodeTraining(steps=4, batch=8, reconstruction_weight=(3.0, 1.0), rate="cosine"),
        memory_training=MemoryTraining(
            steps=6,
            batch=4,
            evaluate_every=2,
            rate="cosine",
            clip_norm=1.0,
            clip_value=None,
            overshooting=MixtureOvershooting(steps=3, starts=8),
            overshooting_share=0.5,
        ),
        calibration=Calibration(periods=(2, 4), real_episodes=3, dream_episodes=4),
        evolution=CMAESConfig(population=4),
        controller_training=ControllerTraining(
            generations=3, rollouts=2, attempts=2, evaluate_every=2, judge_dreams=4, validation_episodes=3
        ),
        behaviour_training=BehaviourTraining(
            updates=2, starts=4, states=12, episodes=4, config=ActorCriticConfig(units=8, horizon=3, reinforce=1.0)
        ),
        iterations=Iterations(count=1, episodes=4, burst_chance=0.3, burst_steps=3, memory_steps=4),
        start_states=16,
        bfloat16=False,
    )
    return replace(preset, **changes)  # type: ignore[arg-type]


def killed_and_resumed(preset: WorldModelsPreset, place: list[int], out: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """What comes of a run that dies right after the checkpoint of `place`, its [stage, step], and is called again."""
    write = stages.write_checkpoint

    def killed_after(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        if content["counters"][:2] == place:
            raise InterruptedError

    monkeypatch.setattr(stages, "write_checkpoint", killed_after)
    with pytest.raises(InterruptedError):
        fit(FALL, preset, seed=2, out=out, progress=False)
    monkeypatch.setattr(stages, "write_checkpoint", write)
    return fit(FALL, preset, seed=2, out=out, progress=False)


def dropping(rate):
    """An MDN-RNN trained with this rate of dropout, or rather not trained."""
    config = WorldModelConfig(
        encoder=CodeStatsConfig(vae=VAEConfig(code=3)),
        core=MDNRNNConfig(units=8, mixtures=2, features="zh", input_dropout=rate, recurrent_dropout=rate),
        heads=MDNHeadsConfig(reward=SurvivalReward(1.0), members=1),
        objective=MixtureObjective(),
    )
    with seeded(0):
        model = WorldModel(SPEC, config).eval()
    model.initial_states = StartBank(model.initial(4), torch.ones(4, dtype=torch.bool))
    return model
