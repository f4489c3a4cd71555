"""A bound on wall-clock time: where an online run stops, what it leaves then, and that stopping changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import dreamgym
from dreamgym.data import Replay
from dreamgym.training.loop import fit
from dreamgym.training.online import OnlineTrainer
from tests.training.online_toys import TRAINING, Line, spec_of, tiny_planet, tiny_preset, tiny_v3, trainer_of
from tests.training.test_online import _assert_identical, _checkpoint, _lines

RECIPES = {"v1": tiny_preset, "planet": tiny_planet, "v3": tiny_v3}
AT_ONCE = 1e-9  # minutes


def _bounded(folder, preset, env, minutes=AT_ONCE):
    folder.mkdir(parents=True, exist_ok=True)
    return OnlineTrainer(spec_of(Line()), preset, seed=3, device="cpu", folder=folder, progress=False, env=env, max_minutes=minutes)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_cut_into_sessions_of_one_episode_is_the_whole_run(recipe, tmp_path):
    metrics = trainer_of(tmp_path / "whole", RECIPES[recipe](), Line()).run()
    sessions = []
    for session in range(6):
        trainer = _bounded(tmp_path / "cut", RECIPES[recipe](), Line())
        if session:
            trainer.resume()
        sessions.append(trainer.run())
    assert [each["episodes"] for each in sessions] == [1, 2, 3, 4, 5, 6]
    assert [each["finished"] for each in sessions] == [False] * 5 + [True] and sessions[-1] == metrics
    _assert_identical(_checkpoint(tmp_path / "whole"), _checkpoint(tmp_path / "cut"))
    assert _lines(tmp_path / "whole") == _lines(tmp_path / "cut")


def test_a_run_with_time_to_spare_ends_as_it_would_without_a_bound(tmp_path):
    metrics = trainer_of(tmp_path / "whole", tiny_preset(), Line()).run()
    assert _bounded(tmp_path / "bounded", tiny_preset(), Line(), minutes=60.0).run() == metrics


def test_a_stopped_run_leaves_a_model_that_can_be_dreamt_and_is_not_judged(tmp_path):
    for session in range(3):
        trainer = _bounded(tmp_path, tiny_preset(), Line())
        if session:
            trainer.resume()
        metrics = trainer.run()
        assert (tmp_path / "model").exists() == (session == 2)  # two random episodes come before the first update
    assert metrics["updates"] > 0 and not metrics["finished"]
    model = dreamgym.WorldModel.from_pretrained(tmp_path / "model")
    assert dreamgym.load_agent(tmp_path / "agent", model).feature_size == model.core.feature_size


def test_an_offline_run_stops_at_a_checkpoint_and_goes_on_from_it(tmp_path):
    trainer_of(tmp_path / "lived", tiny_preset(), Line()).run()
    dataset = Replay(spec_of(Line()), tmp_path / "lived" / "replay" / "train")
    preset = tiny_preset(replace(TRAINING, env_steps=24, checkpoint_every=6))  # 3 + 4 * 2 updates
    whole = fit(dataset, preset, out=tmp_path / "whole", progress=False)
    cut = fit(dataset, preset, out=tmp_path / "cut", progress=False, max_minutes=AT_ONCE)
    assert (cut.metrics["updates"], cut.metrics["finished"]) == (6, False)
    cut = fit(dataset, preset, out=tmp_path / "cut", progress=False)
    assert cut.metrics == whole.metrics and cut.metrics["finished"]
    weights = whole.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in cut.model.state_dict().items())


@pytest.mark.parametrize(("preset", "minutes", "message"), [("ensemble", 1.0, "staged"), (tiny_preset(), 0.0, "positive number")])
def test_a_bound_that_cannot_be_kept_is_refused(preset, minutes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit("Pendulum-v1", preset, max_minutes=minutes, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
