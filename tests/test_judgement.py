"""A finished World Models run is judged, tabled and filmed on a toy world as benchmarks/ does it on Doom TakeCover."""

from __future__ import annotations

import shutil

import pytest

from benchmarks import clone_controller, film_cheating, judge_take_cover, world_models_table
from benchmarks.judge_take_cover import Judgement, judge
from dreamgym.agents.loading import load_agent
from dreamgym.hub import bundle
from dreamgym.training.gradient_start import dreamt_states
from dreamgym.training.loop import fit
from dreamgym.training.temperature import StudyConfig, controller_config, temperature_study
from tests.training.fall import FALL, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(FALL, tiny(), seed=2, out=tmp_path_factory.mktemp("fall") / "run", progress=False)


@pytest.fixture(scope="module")
def judged(run, tmp_path_factory):
    records = tmp_path_factory.mktemp("records")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_take_cover, "SWEEPS", (2, 4))
        linear = run.folder / "rounds" / "0" / "agent-0"
        return records, judge(run.folder, episodes=3, dreams=4, search_episodes=1, records=records, linear=linear)


def test_every_controller_is_judged_and_the_chosen_one_named(run, judged):
    controllers = judged[1]["run"]["controllers"]
    best = run.metrics["validation"]
    assert len(controllers) == 2 * 3 and {one["kind"] for one in controllers} == {"LinearController", "ActorCritic"}
    assert (best["round"], f"agent-{best['attempt']}") in [(one["round"], one["attempt"]) for one in controllers if one["chosen"]]
    assert len({one["round"] for one in controllers if one["chosen"]}) == 1


def test_nine_blind_policies_play_in_both_worlds_and_ends_are_judged_on_fresh_lives(judged):
    records, parts = judged
    fidelity = parts["fidelity"]
    assert len(fidelity["fixed_policies"]["policies"]) == 9
    assert fidelity["reliability"]["n"] > 2 * 3 * 7  # three random lives and three of the agent's, none shorter than a fall
    assert (records / "reliability.png").exists()


def test_what_is_recorded_is_not_judged_again(run, judged, monkeypatch):
    for part in ("controllers", "controls", "fidelity", "linear_twins"):
        monkeypatch.setattr(Judgement, part, lambda self: pytest.fail("judged again"))
    assert judge(run.folder, episodes=3, records=judged[0], linear=run.folder) == judged[1]


def test_the_page_tells_what_was_judged(judged, monkeypatch):
    records, parts = judged
    monkeypatch.setattr(world_models_table, "RECORDS", records)
    assert "| 0 | actor-critic |" in "\n".join(world_models_table.run_table())
    assert "yoked twins" in "\n".join(world_models_table.controls_table())
    assert parts["linear-twins"]["yoked"]["pairs"] == 3 and parts["linear-twins"]["kind"] == "LinearController"
    assert "of 3, the unseen one in" in "\n".join(world_models_table.linear_twins())
    assert world_models_table._setting("tau-1.15-dropout-0.05-1") == "tau 1.15, dropout 0.05, search 1"
    assert "| always 1 |" in "\n".join(world_models_table.fidelity_table())


def test_of_a_bundle_the_bundled_pair_is_judged(run, tmp_path):
    other = load_agent(run.folder / "rounds" / "0" / "agent-2", run.model)
    bundle.save(bundle.load(run.folder / "rounds" / "0" / "model"), tmp_path)
    other.save(tmp_path / "agent")
    judgement = Judgement(run.folder, tmp_path)
    assert type(judgement._agent) is type(other)
    assert judgement._model.state_dict()["core.cell.recurrent.weight"].equal(
        bundle.load(tmp_path).state_dict()["core.cell.recurrent.weight"]
    )


def test_the_film_of_cheating_shows_the_game_above_the_cold_dream(run, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    shutil.copytree(run.folder / "model", tmp_path / "model")
    config = StudyConfig(controller_config(run.model), generations=1, rollouts=1, judge_dreams=2, episodes=1, bfloat16=False)
    temperature_study(run.model, config, taus=(0.1,), seeds=[0], folder=tmp_path / "study", baselines=False, progress=False)
    monkeypatch.setattr(film_cheating, "PAGE_FILM", tmp_path / "cheating.mp4")
    film_cheating.film_cheating(model=tmp_path / "model", study=tmp_path / "study", steps=12)
    assert (tmp_path / "cheating.mp4").stat().st_size > 0
    with pytest.raises(FileNotFoundError, match=r"temperature 0\.5"):
        film_cheating.film_cheating(model=tmp_path / "model", study=tmp_path / "study", tau=0.5)


def test_a_clone_mostly_goes_where_its_teacher_goes():
    world = bundle.load_bundled("DoomTakeCover")
    teacher = load_agent("DoomTakeCover", world)
    clone = clone_controller.clone(world, teacher, dreams=64, steps=60)
    features = world.features(dreamt_states(world, teacher, dreams=32, steps=60, seed=7).state).numpy()
    wanted, done = teacher.predict(features, deterministic=True)[0], clone.predict(features)[0]
    moving = wanted != 0
    assert moving.mean() > 0.5 and (wanted == done)[moving].mean() > 0.75  # by chance a half
