"""The papers' ablations: their directions (make ablations), and that the cells measure what their names say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from dreamgym.envs import make_env, make_spec
from dreamgym.models.contrastive import Contrastive
from dreamgym.models.objectives import RewardOnly
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Preprocess
from tests.gates import ablations
from tests.gates.ablations import (
    BLINKING,
    ESTIMATORS,
    HORIZONS,
    OBJECTIVES,
    PATHS,
    SEEDS,
    BlinkingPendulum,
    Budget,
    horizon_cell,
    model_only,
    objective_cell,
    path_cell,
)

SCRIPT = runpy.run_module("benchmarks.ablations_table")
PENDULUM = Path(ablations.ROOT) / "dreamgym" / "pretrained" / "Pendulum"
SMALL = Budget(env_steps=400, model_updates=1, behaviour_updates=1, starts=2, episodes=1)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Records and runs that are thrown away."""
    monkeypatch.setattr(ablations, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(ablations, "RUNS", tmp_path / "runs")
    return tmp_path / "records"


def awake(cell, *settings):
    """Mean of the seeds' mean returns awake."""
    return float(np.mean([cell(*settings, seed)["comparison"]["awake"]["mean"] for seed in SEEDS]))


# ---- the published directions -------------------------------------------------------------------------------------------------------


def by_horizon(gradient, estimator):
    """Mean returns awake, one for each horizon."""

    def cell(horizon, seed):
        return horizon_cell(estimator, horizon, seed, gradient)

    return [awake(cell, horizon) for horizon in ESTIMATORS[gradient, estimator]]


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_short_dreams_are_enough_for_lambda_returns_and_not_for_sums_of_rewards(gradient):
    assert by_horizon(gradient, "lambda")[0] > by_horizon(gradient, "reward_sum")[0] + 500.0


@pytest.mark.slow
def test_lambda_returns_are_robust_to_the_horizon_where_sums_of_rewards_are_not():
    """With REINFORCE. Gradients that flow through 25 and more steps of an unstable pendulum teach nothing, whatever they are of."""
    values, rewards = by_horizon("reinforce", "lambda"), by_horizon("reinforce", "reward_sum")
    assert max(values) - min(values) < 0.5 * (max(rewards) - min(rewards))


@pytest.mark.slow
def test_a_memory_is_needed():
    assert awake(path_cell, "both") > awake(path_cell, "stochastic") + 200.0


@pytest.mark.slow
def test_dreams_that_know_one_future_promise_too_much():
    """The RSSM earns awake what the deterministic model earns (not as published); but its dreams do not lie."""

    def promised_too_much(variant):
        cells = [path_cell(variant, seed)["comparison"] for seed in SEEDS]
        return np.mean([cell["dream"]["mean"] - cell["awake"]["mean"] for cell in cells])

    assert promised_too_much("deterministic") > 300.0 > 50.0 > promised_too_much("both")


NOISE = 25.0  # of a mean of three seeds of 20 pendulum episodes each, which differ by a hundred from start to start


@pytest.mark.slow
def test_reconstruction_is_no_worse_than_contrast():
    assert awake(objective_cell, "reconstruction") > awake(objective_cell, "contrastive") - NOISE


@pytest.mark.slow
def test_contrast_beats_rewards_alone():
    assert awake(objective_cell, "contrastive") > awake(objective_cell, "reward-only")


# ---- the task that must be remembered -----------------------------------------------------------------------------------------------


def glances(steps, seed=0):
    env = gym.make(BLINKING, max_episode_steps=10_000)
    seen = [env.reset(seed=seed)[0]]
    seen += [env.step(np.zeros(1, np.float32))[0] for _ in range(steps)]
    return np.stack(seen)


def test_the_blinking_pendulum_is_a_proper_environment():
    check_env(BlinkingPendulum(), skip_render_check=True)


def test_a_quarter_of_its_observations_are_missing():
    assert np.mean((glances(2000) == 0.0).all(-1)) == pytest.approx(BlinkingPendulum.BLANK, abs=0.03)


def test_what_it_shows_is_the_angle_and_noise():
    seen = glances(2000)
    bare = gym.make("Pendulum-v1", max_episode_steps=10_000)
    angle = np.stack([bare.reset(seed=0)[0]] + [bare.step(np.zeros(1, np.float32))[0] for _ in range(2000)])[:, :2]
    there = (seen != 0.0).any(-1)
    assert seen.shape == (2001, 2)
    assert np.std((seen - angle)[there]) == pytest.approx(BlinkingPendulum.NOISE, rel=0.1)


def test_its_seed_decides_what_it_shows():
    assert np.array_equal(glances(20, seed=3), glances(20, seed=3)) and not np.array_equal(glances(20, seed=3), glances(20, seed=4))


# ---- the variants -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec():
    return make_spec(make_env(BLINKING, preprocess=Preprocess(action_repeat=2)), BLINKING)


def test_variants_of_the_path_share_everything_but_core_and_kl(spec):
    presets = {name: ablations.path_preset(name, spec) for name in PATHS}
    assert [preset.model.core.path for preset in presets.values()] == ["both", "deterministic", "stochastic", "deterministic"]
    assert presets["both"].model.objective.kl == presets["stochastic"].model.objective.kl
    assert {str((preset.model.encoder, preset.model.heads, preset.training)) for preset in presets.values()} == {
        str((presets["both"].model.encoder, presets["both"].model.heads, presets["both"].training))
    }


@pytest.mark.parametrize(("name", "dynamics"), [("deterministic", 1.0), ("literal", 0.0)])
def test_deterministic_variants_leave_the_posterior_alone(spec, name, dynamics):
    kl = ablations.path_preset(name, spec).model.objective.kl
    assert (kl.dynamics, kl.representation, kl.free_nats) == (dynamics, 0.0, 0.0)


def test_variants_of_the_objective_differ_in_what_is_observed(spec):
    observed = [ablations.objective_preset(name, spec).model.objective.observation for name in OBJECTIVES]
    assert [type(part) for part in observed[1:]] == [Contrastive, RewardOnly]
    assert observed[0] == ablations.online_preset("dreamer-v1", spec, "tiny").model.objective.observation


def test_offline_the_model_has_the_updates_to_itself(spec):
    preset = model_only(ablations.path_preset("both", spec), spec, updates=7)
    assert preset.training.env_steps // spec.preprocess.action_repeat == 7
    assert preset.training.pretrain == 0 and preset.actor_optimiser is None


# ---- cells --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", PATHS)
def test_a_path_cell_learns_is_judged_and_recorded(nowhere, variant):
    record = path_cell(variant, 0, budget=SMALL)
    assert record == json.loads((nowhere / f"path-{variant}-0.json").read_text())
    assert record["comparison"]["env_id"] == BLINKING and record["comparison"]["awake"]["n"] == 1
    assert set(record["reward_error"]) == {"1", "5", "15", "40"}


@pytest.mark.parametrize("variant", OBJECTIVES)
def test_an_objective_cell_learns_is_judged_and_recorded(nowhere, variant):
    record = objective_cell(variant, 0, budget=SMALL)
    assert record["settings"]["variant"] == variant and record["comparison"]["env_id"] == "Pendulum-v1"


def test_variants_of_a_seed_learn_from_the_same_experience(nowhere):
    path_cell("both", 0, budget=SMALL)
    path_cell("stochastic", 0, budget=SMALL)
    path_cell("both", 1, budget=SMALL)
    rows = [(ablations.RUNS / f"ablation-path-{name}" / "replay" / "train").rglob("*") for name in ("both-0", "stochastic-0", "both-1")]
    first, other_variant, other_seed = ([path.read_bytes() for path in sorted(paths) if path.is_file()] for paths in rows)
    assert first == other_variant and first != other_seed


def test_every_horizon_imagines_as_many_steps(nowhere):
    for horizon in HORIZONS:
        assert round(ablations.IMAGINED / horizon) * horizon == ablations.IMAGINED


def test_a_horizon_cell_says_which_model_it_dreamt_in(nowhere):
    record = horizon_cell("reward_sum", 40, 0, model=PENDULUM, updates=1, episodes=1)
    assert record["model"] == ablations.fingerprint(PENDULUM)
    assert record["settings"]["starts"] == 30


def test_a_missing_model_is_named():
    with pytest.raises(FileNotFoundError, match=r"test_learning\.py"):
        ablations.load(Path("nowhere"))


def test_what_is_recorded_is_not_measured_again(tmp_path):
    first = ablations.recorded(tmp_path, "x", lambda: {"comparison": {"awake": {"mean": 1.0}}})
    assert ablations.recorded(tmp_path, "x", lambda: pytest.fail("measured again")) == first


def test_the_queue_lists_cells_without_a_record_as_commands(nowhere, capsys):
    nowhere.mkdir()
    first, *rest = ablations.cells()
    (nowhere / f"{first.name}.json").write_text("{}")
    ablations.missing()
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == len(rest) and len({cell.name for cell in rest}) == len(rest)
    assert commands[0].endswith("-m tests.gates.ablations path --variant deterministic --seed 0")


def test_cells_and_records_bear_the_same_names(nowhere, monkeypatch):
    asked = []
    monkeypatch.setattr(ablations, "recorded", lambda folder, name, measure: asked.append(name) or {})
    for cell in ablations.cells():
        cell.run()
    assert asked == [cell.name for cell in ablations.cells()]


# ---- the page -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "make"), list(SCRIPT["blocks"]()))
def test_the_pages_tables_are_made_from_the_records(start, make):
    text = SCRIPT["PAGE"].read_text()
    assert start in text and SCRIPT["written"](text, start, make()) == text


@pytest.mark.parametrize("pattern", ["ablations/horizon-*", "gates/strangers-*"])
def test_all_records_of_a_table_come_from_one_model(pattern):
    records = [json.loads(path.read_text()) for path in (ablations.ROOT / "benchmarks" / "results").glob(f"{pattern}.json")]
    assert len({record["model"] for record in records}) <= 1


def write(folder, name, mean, **content):
    returns = {"mean": mean, "n": 10}
    comparison = {"env_id": "toy", "awake": returns, "dream": returns, "baselines": {"random actions": {"mean": 5.0}}}
    (folder / f"{name}.json").write_text(json.dumps({"comparison": comparison, "cpu_seconds": 60.0, **content}))


def test_the_horizon_table_has_a_line_for_each_estimator_and_gradient(tmp_path):
    for horizon, seed, mean in [(5, 0, 10.0), (5, 1, 20.0), (40, 0, 60.0), (40, 1, 60.0)]:
        write(tmp_path, f"horizon-reward_sum-{horizon:02d}-{seed}", mean, settings={"estimator": "reward_sum", "horizon": horizon})
    settings = {"estimator": "reward_sum", "horizon": 40, "gradient": "reinforce"}
    write(tmp_path, "horizon-reinforce-reward_sum-40-0", 70.0, settings=settings)
    lines = SCRIPT["horizon_table"](tmp_path)
    assert "| V_R, backpropagation | **15** (10, 20) | **60** (60, 60) |" in lines
    assert "| V_R, REINFORCE |  | **70** (70) |" in lines


def test_the_table_of_parts_gives_errors_as_shares_of_guessing(tmp_path):
    settings = {"variant": "both", "online": False}
    write(tmp_path, "path-both-0", -200.0, settings=settings, reward_error={"1": [1.0, 2.0], "5": [2.0, 2.0]})
    assert "| both (RSSM) | **-200** (-200) | **-200** (-200) | 0.50 | 1.00 |" in SCRIPT["parts_table"]("path", SCRIPT["PATHS"], tmp_path)


def test_online_cells_bring_their_curves(tmp_path):
    for seed in (0, 1):
        settings = {"variant": "stochastic", "online": True}
        write(tmp_path, f"path-online-stochastic-{seed}", -300.0, settings=settings, curve=[[4800, -900.0 - seed * 100], [10000, -400.0]])
    lines = SCRIPT["parts_table"]("path", SCRIPT["PATHS"], tmp_path)
    assert "| stochastic | -950 | -400 |  |  | **-300** (-300, -300) |" in lines
    (picture, drawing), *others = SCRIPT["pictures"](tmp_path)
    assert not others and f"({picture.relative_to(SCRIPT['PAGE'].parent)})" in lines[3]
    assert drawing.count("<polyline") == 2 and "stochastic" in drawing


def test_pictures_of_online_cells_are_drawn_from_the_records():
    for picture, drawing in SCRIPT["pictures"]():
        assert picture.read_text() == drawing


def test_deterministic_paths_keep_the_mean(spec):
    model = WorldModel(spec, ablations.path_preset("deterministic", spec).model)
    state, noise = model.initial(2), torch.tensor([[0.1], [0.9]]).expand(2, model.noise_lanes)
    stepped = model.step(state, torch.zeros(2, 1), noise)
    assert torch.equal(stepped.stoch[0], stepped.stoch[1])
