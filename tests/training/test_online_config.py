"""Settings of online runs: plain data that refuses what cannot work."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from dreamgym.agents.planning import CEMConfig
from dreamgym.training.online_config import OnlineTraining, OptimiserConfig
from tests.training.online_toys import tiny_planet, tiny_preset, tiny_v3


@pytest.mark.parametrize("preset", [tiny_preset(), tiny_planet(), tiny_v3()])
def test_a_preset_is_plain_json(preset):
    assert json.loads(json.dumps(asdict(preset)))["training"]["batch"] == 3


def test_a_stored_memory_takes_one_row_more():
    assert OnlineTraining(length=50).window == 50 and OnlineTraining(length=64, carry="stored").window == 65


@pytest.mark.parametrize(
    "wrong",
    [
        {"env_steps": 0},
        {"length": 1},
        {"prefill": -1},
        {"updates": 0},
        {"held_out_every": 1},
        {"sampling": "steps"},
        {"carry": "learned"},
        {"starts": 0},
        {"capacity": 49},
        {"explore_noise": float("nan")},
    ],
)
def test_impossible_training_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OnlineTraining(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"kind": "sgd"}, {"learning_rate": 0.0}, {"eps": -1.0}, {"clip": 0.0}, {"weight_decay": 1.0}, {"warmup": -1}]
)
def test_impossible_optimisers_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OptimiserConfig(**wrong)


def test_an_actor_critic_needs_optimisers_unless_all_is_updated_together():
    with pytest.raises(ValueError, match="critic_optimiser"):
        replace(tiny_preset(), critic_optimiser=None)
    assert tiny_v3().critic_optimiser is None


def test_a_planner_has_nothing_to_update_jointly():
    with pytest.raises(ValueError, match="plans"):
        replace(tiny_v3(), agent=CEMConfig())


def test_a_replayed_value_needs_joint_updates_and_a_dream_from_every_row():
    agent = tiny_v3().agent
    with pytest.raises(ValueError, match="replay_value"):
        replace(tiny_preset(), agent=agent)
    with pytest.raises(ValueError, match="replay_value"):
        replace(tiny_v3(), training=replace(tiny_v3().training, starts=8))
