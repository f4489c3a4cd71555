"""World Models' iterations on a pendulum that hangs at first: their directions (slow), and that the cells measure what their names say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dreamgym.envs import make_env, make_spec
from dreamgym.models.mdn_heads import MDNHeadsConfig
from tests.gates import swingup_iterations as swingup
from tests.gates.swingup_iterations import HANGING, SEEDS, SEEN, VARIANTS, Budget, HangingPendulum, iterations_cell, preset_of


@pytest.fixture(scope="module")
def spec():
    return make_spec(make_env(HANGING, preprocess=SEEN), HANGING)


# ---- the published directions -------------------------------------------------------------------------------------------------------


def means(variant, number):
    """Mean return awake of each seed's controller after iteration `number`."""
    return [iterations_cell(variant, seed)["rounds"][number]["awake"]["mean"] for seed in SEEDS]


@pytest.mark.slow
def test_the_last_iteration_beats_the_first_pass_in_every_seed():
    assert all(last > first for first, last in zip(means("plain", 0), means("plain", -1)))


@pytest.mark.slow
def test_iterations_beat_as_much_random_play():
    assert np.mean(means("plain", -1)) > np.mean(means("random", 0))


# ---- the task -----------------------------------------------------------------------------------------------------------------------


def height(env):
    return float(np.cos(env.unwrapped._pendulum.state[0]))


def test_the_hanging_pendulum_is_a_proper_environment():
    check_env(HangingPendulum(), skip_render_check=True)


def test_it_hangs_at_first_and_random_torques_do_not_bring_it_up():
    env = HangingPendulum()
    rng, highest = np.random.default_rng(0), []
    for seed in range(10):
        env.reset(seed=seed)
        assert height(env) < -0.99
        torques = np.repeat(rng.uniform(-2.0, 2.0, 25), 8)[:, None].astype(np.float32)
        highest.append(max(height(env) for torque in torques if env.step(torque)))
    assert np.mean(highest) < 0.5


def test_who_knows_the_state_brings_it_up_before_the_probe_begins():
    env = make_env(HANGING, preprocess=SEEN)
    for seed in range(8):
        _, actions, rewards = swingup._brought_up(env, seed)
        assert rewards[swingup.PROBE_CONTEXT - 2] > -0.5
        assert len(np.unique(actions[swingup.PROBE_CONTEXT - 1 :])) == max(swingup.PROBED) + 1


def test_the_rod_is_drawn_where_it_points():
    env = HangingPendulum()
    shown = {}
    for angle in (0.0, np.pi, np.pi / 2):
        env._pendulum.state = np.array([angle, 0.0])
        lit = env.render()[..., 0] > 150
        shown[angle] = np.argwhere(lit).mean(0) - 31.5  # row, column of its middle
    assert shown[0.0][0] < -10 and shown[np.pi][0] > 10
    assert abs(shown[np.pi / 2][0]) < 1 and abs(shown[np.pi / 2][1]) > 10


# ---- the cells ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_variants_live_as_many_episodes_and_learn_as_many_updates(variant, spec):
    preset = preset_of(variant, spec, Budget(count=3, random_episodes=7, episodes=5))
    again = preset.iterations
    assert preset.collection.episodes + again.count * again.episodes == 22
    assert preset.code_training.steps + again.count * again.code_steps == 600 + 3 * 250
    assert preset.memory_training.steps + again.count * again.memory_steps == 1000 + 3 * 600


def test_variants_differ_in_what_their_names_say(spec):
    plain = preset_of("plain", spec)
    curious, imitating = preset_of("curious", spec), preset_of("imitating", spec)
    assert plain.iterations.curiosity == 0.0 and curious.iterations.curiosity > 0.0
    assert replace(curious, iterations=plain.iterations) == plain
    assert isinstance(imitating.model.heads, MDNHeadsConfig) and imitating.model.heads.next_action
    assert replace(imitating, model=plain.model) == plain


SMALL = Budget(count=1, random_episodes=3, episodes=2, judged=2)


def hasty(variant, spec, budget):
    preset = preset_of(variant, spec, budget)
    return replace(
        preset,
        bfloat16=False,
        collection=replace(preset.collection, held_out_every=2),
        code_training=replace(preset.code_training, steps=1, batch=4),
        memory_training=replace(preset.memory_training, steps=1, batch=2),
        evolution=replace(preset.evolution, population=4),
        controller_training=replace(preset.controller_training, generations=1, rollouts=1, judge_dreams=1, validation_episodes=1),
        iterations=replace(preset.iterations, memory_steps=1, code_steps=1, explorer_generations=1),
    )


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swingup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swingup, "RECORDS", folder / "records")
        patch.setattr(swingup, "RUNS", folder / "runs")
        patch.setattr(swingup, "preset_of", hasty)
        iterations_cell("curious", 0, SMALL)
        yield json.loads((folder / "records" / "iterations-curious-0.json").read_text())


def test_a_record_holds_every_round_awake_and_what_m_knows_of_the_top(record):
    assert [one["round"] for one in record["rounds"]] == [0, 1]
    assert all(len(one["awake"]["returns"]) == 2 and set(one["upright"]) == {"1", "5"} for one in record["rounds"])
    assert record["env_steps"] == 5 * 200
    assert len(record["lived"]["random"]) == len(record["lived"]["live"]) == 1
    assert record["comparison"]["baselines"]["random actions"]["mean"] < -1000


def test_the_table_has_a_row_for_each_variant_that_is_recorded(record, tmp_path):
    assert swingup.iterations_table(tmp_path) == swingup.NOTHING
    for seed in (0, 1):
        (tmp_path / f"iterations-curious-{seed}.json").write_text(json.dumps(record))
    heading, _, row, _, told = swingup.iterations_table(tmp_path)
    mean = round(record["rounds"][1]["awake"]["mean"])
    assert "iteration 1" in heading and f"**{mean}** ({mean}, {mean})" in row and "random actions" in told


def test_the_page_has_a_place_for_the_table():
    assert swingup.PAGE.read_text().count(swingup.MARK) == 1
