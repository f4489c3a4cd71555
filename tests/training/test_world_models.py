"""World Models from end to end on a toy world: what a run leaves behind, that a kill changes nothing, and the presets' numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.agents.evolution import CMAESConfig
from dreamgym.data.encoded import encoded_spec
from dreamgym.data.replay import Replay
from dreamgym.models.encoders import CodeStatsConfig
from dreamgym.models.mdn_heads import MDNHeadsConfig, MLPReward
from dreamgym.models.mdn_rnn import MDNRNNConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.training import world_models as stages
from dreamgym.training import world_models_collection as collection
from dreamgym.training.loop import fit
from dreamgym.training.world_models_config import (
    Calibration,
    CodeTraining,
    ControllerTraining,
    EpisodeCollection,
    Iterations,
    MemoryTraining,
    WorldModelsPreset,
)
from dreamgym.training.world_models_presets import world_models_preset


class Fall(gym.Env):
    """A 64x64 picture of a ball that falls; left, stay and right move a paddle, and who is under the ball when it lands dies."""

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

    def _paint(self):
        image = np.full((64, 64, 3), 40, np.uint8)
        image[56:, 8 * self.at : 8 * self.at + 8, 1] = 255
        image[7 * self.height : 7 * self.height + 8, 8 * self.ball : 8 * self.ball + 8, 0] = 255
        return image


gym.register("DreamgymTests/Fall-v0", entry_point=Fall, max_episode_steps=30)
FALL = "DreamgymTests/Fall-v0"


def tiny(**changes) -> WorldModelsPreset:
    """Every stage in seconds: two searches, one iteration."""
    from dreamgym.envs import make_env, make_spec

    env = make_env(FALL)
    base = world_models_preset("world-models-fast", make_spec(env, FALL))
    env.close()
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
        memory_training=MemoryTraining(steps=6, batch=4, evaluate_every=2, rate="cosine", clip_norm=1.0, clip_value=None),
        calibration=Calibration(periods=(2, 4), real_episodes=3, dream_episodes=4),
        evolution=CMAESConfig(population=4),
        controller_training=ControllerTraining(
            generations=3, rollouts=2, attempts=2, evaluate_every=2, judge_dreams=4, validation_episodes=3
        ),
        iterations=Iterations(count=1, episodes=4, burst_chance=0.3, burst_steps=3, memory_steps=4),
        start_states=16,
        bfloat16=False,
    )
    return replace(preset, **changes)


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "CHUNK", 3)  # so that there are pictures, then codes, and checkpoints between
        yield


@pytest.fixture(scope="module")
def fallen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fall") / "run"
    return fit(FALL, tiny(), seed=2, out=folder, progress=False)


def test_a_run_leaves_the_best_pair_of_model_and_controller(fallen):
    best = max(fallen.metrics["candidates"], key=lambda one: one["mean"])
    assert fallen.metrics["validation"]["mean"] == best["mean"]
    assert len(fallen.metrics["candidates"]) == 4
    folder = fallen.folder / "rounds" / str(best["round"])
    chosen = (fallen.folder / "agent" / "agent.safetensors").read_bytes()
    assert chosen == (folder / f"agent-{best['attempt']}" / "agent.safetensors").read_bytes()
    assert (fallen.folder / "model" / "model.safetensors").read_bytes() == (folder / "model" / "model.safetensors").read_bytes()


def test_pictures_are_few_and_codes_are_many(fallen):
    spec = fallen.model.spec
    pixels = Replay(spec, fallen.folder / "replay" / "pictures")
    codes = Replay(encoded_spec(spec, 6), fallen.folder / "replay" / "codes")
    held_out = Replay(encoded_spec(spec, 6), fallen.folder / "replay" / "held_out")
    assert 60 <= len(pixels) < 14 * 31 / 2
    assert len(codes.episodes) + len(held_out.episodes) == 14 + 4
    assert len(held_out.episodes) == 4
    assert codes.policies[-1] == "LinearController"


def test_dreams_end_where_the_search_found_and_the_table_says_how_well(fallen):
    lines = [json.loads(line) for line in (fallen.folder / "metrics.jsonl").read_text().splitlines()]
    found = [line["end_probability"] for line in lines if line["stage"] == "calibrate" and "end_probability" in line]
    assert fallen.metrics["end_probability"] == found[fallen.metrics["validation"]["round"]]
    assert fallen.metrics["fidelity"]["policies"].keys() >= {"random", "always 0"}


def test_start_states_are_mostly_true_beginnings(fallen):
    bank = fallen.model.initial_states
    assert 0.5 <= float(bank.is_first.float().mean()) < 1.0
    assert (bank.state.deter[bank.is_first] == 0).all() and (bank.state.first[bank.is_first] == 1).all()
    assert (bank.state.deter[~bank.is_first] != 0).any(1).all()


STAGES = [
    "collect pictures",
    "autoencoder",
    "collect codes",
    "round 0: memory",
    "round 0: controller 1",
    "round 1: live",
    "round 1: calibrate",
]


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_resumes_to_the_same_end(fallen, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_CHECKPOINT_EVERY", 2)
    write, seen = stages.write_checkpoint, []

    def killed_after(path, content):
        write(path, content)
        reached = STAGE_NUMBERS[stage]
        if content["counters"][0] == reached and (content["counters"][1] > 0 or "controller" in stage or "calibrate" in stage):
            seen.append(reached)
            raise InterruptedError

    monkeypatch.setattr(stages, "write_checkpoint", killed_after)
    with pytest.raises(InterruptedError):
        fit(FALL, tiny(), seed=2, out=tmp_path / "run", progress=False)
    monkeypatch.setattr(stages, "write_checkpoint", write)
    resumed = fit(FALL, tiny(), seed=2, out=tmp_path / "run", progress=False)
    for name, value in fallen.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert torch.equal(fallen.agent.weights, resumed.agent.weights)
    assert resumed.metrics == fallen.metrics


STAGE_NUMBERS = {
    name: number
    for number, name in enumerate(
        [
            "collect pictures",
            "autoencoder",
            "encode",
            "collect codes",
            "round 0: memory",
            "round 0: calibrate",
            "round 0: controller 0",
            "round 0: controller 1",
            "round 1: live",
            "round 1: memory",
            "round 1: calibrate",
        ]
    )
}
