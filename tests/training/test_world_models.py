"""World Models from end to end on a toy world: what a run leaves behind, and that being killed changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamgym.data.collection import collect
from dreamgym.data.collectors import StickyRandom
from dreamgym.data.encoded import encoded_spec
from dreamgym.data.replay import Replay
from dreamgym.training import world_models as stages
from dreamgym.training import world_models_collection as collection
from dreamgym.training import world_models_search as searching
from dreamgym.training.checkpoints import read_checkpoint
from dreamgym.training.loop import fit
from dreamgym.training.world_models_config import Iterations
from tests.training.fall import FALL, SPEC, Fall, killed_and_resumed, tiny


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
    validation, candidates = fallen.metrics["validation"], fallen.metrics["candidates"]
    (best,) = [one for one in candidates if (one["round"], one["attempt"]) == (validation["round"], validation["attempt"])]
    assert validation["mean"] == best["mean"] == np.mean(validation["returns"])
    assert best["mean"] == max(one["mean"] for one in candidates if one["round"] == best["round"])
    judged = read_checkpoint(fallen.folder / "checkpoint.pt", torch.device("cpu"))["candidates"]
    taken = searching.best_pair([searching.Candidate(**one) for one in judged])
    assert (taken.round, taken.attempt, taken.returns) == (best["round"], best["attempt"], validation["returns"])
    assert len(fallen.metrics["candidates"]) == 2 * 3
    folder = fallen.folder / "rounds" / str(best["round"])
    chosen = (fallen.folder / "agent" / "agent.safetensors").read_bytes()
    assert chosen == (folder / f"agent-{best['attempt']}" / "agent.safetensors").read_bytes()
    assert (fallen.folder / "model" / "model.safetensors").read_bytes() == (folder / "model" / "model.safetensors").read_bytes()


def test_codes_that_never_change_end_the_run_before_m_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(
        stages, "encoder_of", lambda *a, **k: lambda pictures: np.tile(np.float16([0, 0, 0, -20, -20, -20]), (len(pictures), 1))
    )
    monkeypatch.setattr(stages, "MemoryLearner", lambda *a, **k: pytest.fail("M learned from nothing"))
    with pytest.raises(ValueError, match="3 of 3 dimensions of the code are the same"):
        fit(FALL, tiny(), seed=2, out=tmp_path / "run", progress=False)


def test_pictures_are_few_and_codes_are_many(fallen):
    pixels = Replay(SPEC, fallen.folder / "replay" / "pictures")
    codes = Replay(encoded_spec(SPEC, 6), fallen.folder / "replay" / "codes")
    held_out = Replay(encoded_spec(SPEC, 6), fallen.folder / "replay" / "held_out")
    assert 60 <= len(pixels) < 14 * 31 / 2
    assert len(codes.episodes) + len(held_out.episodes) == 14 + 4
    assert len(held_out.episodes) == 4
    assert {*codes.policies[-3:], *held_out.policies[-1:]} == {"LinearController", "ActorCritic"}  # half of the lives each


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


ORDER = ["collect pictures", "autoencoder", "encode", "collect codes", "round 0: memory", "round 0: calibrate"]
ORDER += [
    "round 0: controller 0",
    "round 0: controller 1",
    "round 0: actor-critic",
    "round 1: live",
    "round 1: memory",
    "round 1: calibrate",
]
KILLED = {
    "collect pictures": 1,
    "autoencoder": 2,
    "round 0: memory": 2,
    "round 0: controller 1": 0,
    "round 0: actor-critic": 0,
    "round 1: live": 1,
}


@pytest.mark.parametrize("stage", KILLED)
def test_a_killed_run_resumes_to_the_same_end(fallen, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_CHECKPOINT_EVERY", 2)
    resumed = killed_and_resumed(tiny(), [ORDER.index(stage), KILLED[stage]], tmp_path / "run", monkeypatch)
    for name, value in fallen.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert type(resumed.agent) is type(fallen.agent)
    for name, value in fallen.agent.state_dict().items():
        assert torch.equal(value, resumed.agent.state_dict()[name]), name
    assert resumed.metrics == fallen.metrics


def test_a_finished_run_is_loaded(fallen):
    again = fit(FALL, tiny(), seed=2, out=fallen.folder, progress=False)
    assert again.metrics == fallen.metrics
    features = fallen.model.features(fallen.model.initial_states.state).numpy()
    assert np.array_equal(again.agent.predict(features)[0], fallen.agent.predict(features)[0])


def test_pictures_that_somebody_brings_are_learned_from_without_a_step_in_the_world(tmp_path):
    dataset = Replay(SPEC)
    collect(Fall(), StickyRandom(SPEC.action_space), dataset, episodes=6, seed=0, max_episode_steps=20)
    run = fit(dataset, tiny(), seed=0, out=tmp_path / "run", progress=False)
    assert run.metrics["env_steps"] == 0
    assert {one["round"] for one in run.metrics["candidates"]} == {0}
    assert run.metrics["validation"]["returns"] == []
    assert len(dataset.episodes) == 6


def test_a_search_may_be_judged_awake(tmp_path):
    settings = replace(tiny().controller_training, generations=1, attempts=1, judge_awake=2)
    fit(FALL, tiny(controller_training=settings, iterations=Iterations(count=0)), out=tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "rounds" / "0" / "search-0" / "metrics.jsonl").read_text().splitlines()
    centre = json.loads(lines[-1])["centre"]
    assert 8 <= centre <= 30 and 2 * centre == int(2 * centre)  # two lives, a reward of 1 a step; dreams pay what M makes of that


def test_an_interrupted_run_leaves_the_model_as_it_stands(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "evolve", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(FALL, tiny(iterations=Iterations(count=0)), out=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "model" / "config.json").exists()
