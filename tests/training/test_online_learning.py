"""That the loop as a whole teaches something: rows, updates, dreams and acting must agree, or an agent stays as bad as chance."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dreamgym.nn.networks import MLPConfig
from tests.training.online_toys import STEPS, TRAINING, Line, tiny_planet, tiny_preset, trainer_of

UNITS = MLPConfig(layers=1, units=32)


def _able(preset):
    """With room for the two numbers of the world, and updates at every step."""
    model = preset.model
    heads = replace(model.heads, decoder=replace(model.heads.decoder, vectors=UNITS), reward=UNITS, continue_head=None, members=1)
    encoder, core = replace(model.encoder, vectors=UNITS), replace(model.core, deter=32, hidden=32)
    preset = replace(preset, model=replace(model, encoder=encoder, core=core, heads=heads))
    return replace(preset, model_optimiser=replace(preset.model_optimiser, learning_rate=3e-3))


def _actor_critic(training):
    preset = _able(tiny_preset(replace(training, train_every=1)))
    return replace(preset, agent=replace(preset.agent, units=32, reward_scale=1.0, entropy=1e-2, horizon=6))


def _planner(training):
    return _able(tiny_planet(replace(training, updates=STEPS)))


@pytest.mark.parametrize(("recipe", "episodes"), [(_planner, 20), (_actor_critic, 14)])
def test_after_a_few_episodes_the_agent_stays_near_the_middle_of_the_line(recipe, episodes, tmp_path):
    """12 random episodes, then one update a step; at best a return is 12, at random about 7."""
    training = replace(TRAINING, env_steps=(12 + episodes) * STEPS, prefill=12 * STEPS, pretrain=60, updates=1, batch=8, length=8)
    training = replace(training, evaluate_every=0, held_out_every=20, checkpoint_every=10_000)
    trainer_of(tmp_path, recipe(training), Line(), seed=2).run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    returns = {stage: [line["return"] for line in lines if line["stage"] == stage] for stage in ("prefill", "explore")}
    assert np.mean(returns["prefill"]) < 8.0
    assert np.mean(returns["explore"][-8:]) > 9.0
