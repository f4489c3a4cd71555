"""The ablations of World Models measure what their names say, on a toy world; the table is made from their records."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamgym.agents.linear import LinearController
from dreamgym.evaluation.returns import Returns, report_seeds
from dreamgym.training import world_models_collection as collection
from dreamgym.training.loop import fit
from dreamgym.training.temperature_table import StudyCell, TemperatureStudy
from dreamgym.training.world_models_config import Iterations
from tests.gates import world_models as gates
from tests.gates.world_models import BELIEFS, ENDS, INPUTS, MEMORIES, Budget, World, belief_cell, ends_cell, inputs_cell, memory_cell
from tests.training.fall import FALL, tiny

SCRIPT = runpy.run_module("benchmarks.world_models_table")
SMALL = Budget(generations=1, population=4, rollouts=1, judged=2, episodes=2)


@pytest.fixture(scope="module")
def fallen(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("fall") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "CHUNK", 7)
        fit(FALL, tiny(iterations=Iterations(count=0)), out=out, progress=False)
    return out


@pytest.fixture
def nowhere(tmp_path, monkeypatch, fallen):
    """Records and searches that are thrown away; both worlds are the toy."""
    monkeypatch.setattr(gates, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(gates, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(gates, "WORLDS", {name: World(fallen, SMALL, SMALL, (0,)) for name in gates.WORLDS})
    return tmp_path / "records"


# ---- cells --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "parameters"), [("z", 12), ("z-hidden", 4 * 40 + 41 * 3), ("zh", 36), ("zch", 60)])
def test_a_controller_reads_what_its_variant_says(nowhere, variant, parameters):
    record = inputs_cell("take-cover", variant, 0)
    assert record == json.loads((nowhere / f"take-cover-inputs-{variant}-0.json").read_text())
    assert record["settings"]["parameters"] == parameters  # a code of 3, a memory of 8, 3 classes, biases
    assert record["comparison"]["awake"]["seeds"] == list(report_seeds(2)) and record["comparison"]["dream"]["n"] == 2
    assert record["settings"]["temperature"] == 1.15  # of the run's preset


def test_other_features_are_of_the_same_model(fallen):
    model = gates.model_of(fallen / "model")
    shown = gates.with_features(model, "zch")
    state = model.initial_states.state
    z, c, h = shown.features(state).split([3, 8, 8], -1)
    assert torch.equal(torch.cat([z, h], -1), model.features(state))
    assert torch.equal(c, state.cell)


def test_an_untrained_memory_keeps_the_eyes(fallen):
    model = gates.model_of(fallen / "model")
    first, again, other = (gates.untrained(model, seed) for seed in (0, 0, 1))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.encoder.parameters(), other.encoder.parameters()))
    trained, ours, same, theirs = (
        torch.cat([values.flatten() for values in each.core.parameters() if values.dim() > 1]) for each in (model, first, again, other)
    )
    assert torch.equal(ours, same) and not torch.isclose(ours, trained).all() and not torch.isclose(ours, theirs).all()


@pytest.mark.parametrize("variant", MEMORIES)
def test_a_memory_cell_learns_awake_and_has_no_dream(nowhere, variant, monkeypatch):
    monkeypatch.setattr(gates, "DreamRollouts", lambda *a, **k: pytest.fail("it dreamt"))
    record = memory_cell("car-racing", variant, 0)
    assert record["comparison"]["dream"] is None and record["comparison"]["awake"]["n"] == 2
    assert record["comparison"]["baselines"]["random actions"]["n"] == 2


def test_a_belief_cell_shows_the_runs_controller_samples_or_means(nowhere, fallen, monkeypatch):
    asked = []
    monkeypatch.setattr(
        gates, "judge_awake", lambda agent, model, build, *, seeds: asked.append((agent, model)) or Returns((1.0,), (1,), (0,))
    )
    for variant in BELIEFS:
        belief_cell("take-cover", variant, 1, episodes=1)
    assert [model.defaults.belief for _, model in asked] == ["sample", "mean"]
    expected = LinearController.load(fallen / "rounds" / "0" / "agent-1", asked[0][1].spec)
    assert all(np.array_equal(agent.vector, expected.vector) for agent, _ in asked)


@pytest.mark.parametrize("variant", ENDS)
def test_an_ends_cell_says_how_its_dreams_end(nowhere, variant):
    assert ends_cell("take-cover", variant, 0)["settings"]["termination"] == variant


def test_the_bundled_rssm_stands_only_beside_a_dream_of_its_own_world(nowhere):
    with pytest.raises(ValueError, match="compares nothing"):
        gates.dreams_cell("car-racing", "mdn-rnn", 0)


def test_the_bundled_rssm_teaches_the_same_controller(nowhere, monkeypatch):
    monkeypatch.setattr(gates, "judge_awake", lambda *a, **k: Returns((1.0,), (1,), (0,)))
    monkeypatch.setattr(gates, "chance", lambda *a: {})
    short = partial_options(gates.DreamRollouts, max_episode_steps=3)
    monkeypatch.setattr(gates, "DreamRollouts", short)
    monkeypatch.setattr(gates, "judging_dream", partial_options(gates.judging_dream, max_episode_steps=3))
    record = gates.dreams_cell("car-racing", "rssm", 0)
    assert record["settings"]["parameters"] == 289 * 2  # pedals are merged
    assert record["model"] == gates.fingerprint(gates.RSSM)


def partial_options(function, **options):
    return lambda *args, **others: function(*args, **others, **options)


def test_a_missing_run_is_named(nowhere, tmp_path):
    with pytest.raises(FileNotFoundError, match="world-models-fast"):
        inputs_cell("take-cover", "z", 0, run=tmp_path / "nothing")


def test_random_actions_are_played_once_for_all_cells(nowhere, monkeypatch):
    memory_cell("take-cover", "z", 0)
    monkeypatch.setattr(gates, "random_policy", lambda *a: pytest.fail("played again"))
    memory_cell("take-cover", "trained", 0)
    assert (nowhere / "take-cover-random.json").exists()


# ---- the queue ----------------------------------------------------------------------------------------------------------------------


def test_cells_and_records_bear_the_same_names(monkeypatch):
    asked = []
    monkeypatch.setattr(gates, "recorded", lambda folder, name, measure: asked.append(name) or {})
    for cell in gates.cells():
        cell.run()
    assert asked == [cell.name for cell in gates.cells()] and len(set(asked)) == len(asked)
    assert len(asked) == 3 * (2 * (len(BELIEFS) + len(INPUTS)) + 2 + 2) + (3 + 2) * len(MEMORIES)


def test_the_queue_lists_cells_without_a_record_as_commands(nowhere, capsys, fallen, tmp_path):
    nowhere.mkdir()
    (nowhere / "take-cover-belief-sample-0.json").write_text("{}")
    gates.missing(take_cover=fallen, car_racing=tmp_path / "nothing")
    printed = capsys.readouterr()
    commands = printed.out.splitlines()
    assert commands[0].endswith(f"-m tests.gates.world_models belief --world take-cover --variant mean --seed 0 --run {fallen}")
    assert not any("car-racing" in command for command in commands) and "car-racing: no model" in printed.err


def test_a_short_run_of_car_racing_is_the_preset_with_less_of_everything(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(gates, "fit", lambda *world, **options: asked.update(world=world, **options))
    gates.short_run(tmp_path)
    env_id, preset = asked["world"]
    assert (env_id, asked["out"], asked["preprocess"].action_repeat) == ("CarRacing-v3", tmp_path, 4)
    assert (preset.name, preset.collection.episodes, preset.controller_training.attempts) == ("world-models-fast", 600, 1)
    assert (preset.code_training.steps, preset.memory_training.steps, preset.memory_training.batch) == (3000, 2500, 48)


def test_the_command_line_knows_every_kind_of_cell(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["world_models", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(gates.__file__, run_name="__main__")
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in ("inputs", "memory", "belief", "ends", "dreams", "missing", "all"))


# ---- the tables ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "make"), list(SCRIPT["blocks"]()))
def test_the_pages_tables_are_made_from_the_records(start, make):
    if SCRIPT["PAGE"].exists():
        text = SCRIPT["PAGE"].read_text()
        assert SCRIPT["written"](text, start, make()) == text
    assert make()


@pytest.mark.parametrize("world", gates.WORLDS)
def test_all_records_of_a_world_come_from_one_run(world):
    paths = [path for path in gates.RECORDS.glob(f"{world}-*-[0-9].json") if "rssm" not in path.name]
    assert len({json.loads(path.read_text())["model"] for path in paths}) <= 1


def write(folder, name, variant, awake, dream=None):
    comparison = {"env_id": "toy", "awake": {"mean": awake, "n": 10}, "dream": dream and {"mean": dream}}
    comparison["baselines"] = {"random actions": {"mean": 5.0, "n": 10}}
    (folder / f"{name}.json").write_text(json.dumps({"settings": {"variant": variant}, "comparison": comparison, "cpu_seconds": 90.0}))


def test_the_table_of_inputs_has_both_worlds_and_the_papers_numbers(tmp_path):
    write(tmp_path, "car-racing-inputs-z-0", "z", 100.0, 200.0)
    write(tmp_path, "car-racing-inputs-z-1", "z", 300.0, 400.0)
    lines = SCRIPT["cells_table"]("car-racing", "inputs", tmp_path)
    assert "| z | **200** (100, 300) | **300** (200, 400) | 2 |" in lines
    assert lines[-1] == "toy, 10 episodes a seed; random actions: 5."


def test_the_table_of_memories_has_no_dream_and_stands_beside_what_was_published(tmp_path):
    write(tmp_path, "car-racing-memory-untrained-0", "untrained", 100.0)
    lines = SCRIPT["cells_table"]("car-racing", "memory", tmp_path)
    assert "| z and h, random memory | **100** (100) | | 870 ± 120 | 2 |" in lines


def test_the_table_of_temperatures_is_the_studys(tmp_path):
    returns = Returns((100.0, 200.0), (1, 2), (0, 1))
    study = TemperatureStudy("VizdoomTakeCover-v1", 4, (StudyCell(1.15, 0.0, 0, returns, returns, 1, 1, 1.0),))
    path = tmp_path / "temperature.json"
    assert SCRIPT["temperature_table"](path) == SCRIPT["NOTHING"]
    path.write_text(json.dumps(study.to_json()))
    lines = SCRIPT["temperature_table"](path)
    assert lines[2].startswith("| 1.15 | 0 | 150 ± 50 | 150 ± 50 |") and lines[2].endswith("| 918 ± 546 | 1092 ± 556 |")
    assert replace(study, cells=()).groups == []
