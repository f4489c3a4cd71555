"""Hardening: the model meets what a stranger's agent does in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dreamgym.data import Replay
from dreamgym.envs import make_env
from dreamgym.training.harden import Hardening, harden
from dreamgym.training.logger import MetricsLog
from dreamgym.training.loop import fit
from tests.training.tiny import tiny_ensemble


class _AlwaysLeft:
    def __init__(self, action):
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.tile(self.action, (len(observation), 1)), state


def test_a_model_improves_where_it_was_exploited(tmp_path):
    """Pendulum with full torque to one side, which random data seldom holds for long."""
    preset = tiny_ensemble()
    preset = replace(preset, model_training=replace(preset.model_training, warmup_steps=60, batch=16))
    run = fit("Pendulum-v1", preset, seed=0, out=tmp_path / "run", progress=False)
    replay, held_out = (Replay(run.model.spec, run.folder / "replay" / part) for part in ("train", "held_out"))
    before, episodes = len(replay), len(replay.episodes)
    rounds: list[int] = []

    def learn(model, number):
        rounds.append(number)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        return _AlwaysLeft(np.array([-2.0], np.float32))

    log = MetricsLog(tmp_path, progress=False)
    settings = Hardening(rounds=2, greedy_episodes=2, sampled_episodes=1, first_steps=0, model_steps=300, last_steps=400, rate=1.0)

    def error():
        rows = replay.sequence(*replay.episodes[episodes])
        noise = torch.full((200, run.model.noise_lanes), 0.5)
        state = run.model.observe(run.model.initial(200), None, rows.obs[0, :-1], None, noise)
        return float((run.model.decode(run.model.step(state, rows.prev_action[0, 1:], noise)) - rows.obs[0, 1:]).abs().mean())

    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    env = make_env("Pendulum-v1")
    driven = harden(
        run.model, replay, held_out, learn=learn, env=env, preset=preset, settings=settings, recent_from=before, log=log, seed=0
    )
    after = error()
    run.model.load_state_dict(weights)
    assert rounds == [0, 1] and driven == 2 * 3 * 200
    assert len(replay) > before and after < 0.8 * error()
