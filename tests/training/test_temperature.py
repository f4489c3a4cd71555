"""The study of temperatures: what a cell is, that recorded ones are not done again, and what its table and plot say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import dreamgym
from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import ArgmaxActions, LinearController, LinearControllerConfig, PedalActions, ThresholdActions
from dreamgym.errors import ModelNotFoundError
from dreamgym.evaluation.returns import Returns
from dreamgym.hub import bundle
from dreamgym.training import temperature
from dreamgym.training.gradient_start import GradientStart, gradient_start
from dreamgym.training.temperature import StudyConfig, controller_config, dropouts_of, temperature_study
from dreamgym.training.temperature_table import StudyCell, TemperatureStudy, published
from tests.training.fall import dropping

LINEAR = LinearControllerConfig(bias=True)
SMALL = StudyConfig(
    LINEAR, CMAESConfig(population=4), generations=2, rollouts=2, evaluate_every=1, judge_dreams=4, bfloat16=False, episodes=3
)


@pytest.fixture(scope="module")
def cartpole():
    return bundle.load_bundled("CartPole")


def study(model, folder, taus=(0.5, 1.0), config=SMALL, **options):
    return temperature_study(model, config, taus=taus, folder=folder, baselines=False, progress=False, **{"seeds": [0], **options})


# ---- cells ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(cartpole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, study(cartpole, folder)


def test_every_setting_is_judged_in_its_dream_and_awake(done):
    folder, result = done
    assert [(cell.tau, cell.dropout, cell.seed) for cell in result.cells] == [(0.5, 0.0, 0), (1.0, 0.0, 0)]
    assert all(cell.dream.n == cell.awake.n == 3 and cell.awake.seeds[0] == 1_000_000 for cell in result.cells)
    cell = json.loads((folder / "cells" / "tau-0.5-dropout-0-0.json").read_text())
    assert StudyCell.from_json(cell) == result.cells[0]


def test_the_recorded_controller_earned_what_is_recorded(done, cartpole):
    folder, result = done
    agent = LinearController.load(folder / "searches" / "tau-1-dropout-0-0" / "agent", cartpole.spec)
    again = dreamgym.compare(agent, cartpole, episodes=3)  # at the model's temperature, which is 1
    assert again.awake.returns == result.cells[1].awake.returns
    assert again.dream.returns == result.cells[1].dream.returns


def test_what_is_recorded_is_not_done_again(done, cartpole, monkeypatch):
    folder, result = done
    monkeypatch.setattr(temperature, "evolve", lambda *a, **k: pytest.fail("searched again"))
    assert study(cartpole, folder) == result
    assert study(cartpole, folder, taus=(0.5,)) == result  # the folder's other cells are told too


def test_a_killed_search_goes_on_to_the_same_controller(done, cartpole, tmp_path, monkeypatch):
    judged = temperature.judge_awake
    monkeypatch.setattr(temperature, "judge_awake", lambda *a, **k: pytest.fail("the power went out"))
    with pytest.raises(pytest.fail.Exception):
        study(cartpole, tmp_path, taus=(0.5,))
    monkeypatch.setattr(temperature, "judge_awake", judged)
    resumed = study(cartpole, tmp_path, taus=(0.5,)).cells[0]
    assert replace(resumed, seconds=0.0) == replace(done[1].cells[0], seconds=0.0)
    assert len((tmp_path / "searches" / "tau-0.5-dropout-0-0" / "metrics.jsonl").read_text().splitlines()) == 2


# ---- where searches begin ---------------------------------------------------------------------------------------------------

GRADIENT = GradientStart(updates=2, starts=8, dreams=4, steps=6)


def test_searches_may_begin_where_gradients_lead_at_the_same_setting(tmp_path, monkeypatch):
    begun = []

    def learned(model, agent, settings, **options):
        begun.append(options)
        return gradient_start(model, agent, settings, **options)

    monkeypatch.setattr(temperature, "gradient_start", learned)
    model, config = dropping(0.05), replace(SMALL, begin=GRADIENT)
    result = study(model, tmp_path, taus=(0.5, 1.0), config=config, dropouts=(0.1,), seeds=[3])
    assert [(options["temperature"], options["dropout"], options["seed"]) for options in begun] == [(0.5, 0.1, 3), (1.0, 0.1, 3)]
    for cell, place in zip(result.cells, sorted((tmp_path / "searches").iterdir())):
        start, end = (LinearController.load(place / name, model.spec).vector for name in ("begin", "agent"))
        assert np.abs(start).max() > 0.0
        judged, first = map(json.loads, (place / "metrics.jsonl").read_text().splitlines()[:2])
        assert judged["step"] == 0 and "centre" in judged  # the start itself
        assert first["sigma"] == pytest.approx(GRADIENT.spread * np.sqrt(np.square(start).mean()), rel=0.5)  # adapted once since
        assert (cell.best_generation == 0) == np.array_equal(start, end)
    cells = [path.unlink() for path in (tmp_path / "cells").iterdir()]
    again = study(model, tmp_path, taus=(0.5, 1.0), config=config, dropouts=(0.1,), seeds=[3])
    assert len(cells) == len(begun) == 2  # the starts were read, not learned again
    assert [replace(cell, seconds=0.0) for cell in again.cells] == [replace(cell, seconds=0.0) for cell in result.cells]


def test_a_study_that_begins_elsewhere_needs_a_folder_of_its_own(done, cartpole):
    assert "begin" not in json.loads((done[0] / "settings.json").read_text())  # as in folders that are older than this
    with pytest.raises(ValueError, match="another begin"):
        study(cartpole, done[0], config=replace(SMALL, begin=GRADIENT))


def test_generations_and_episodes_may_be_added(tmp_path):
    def asked(folder, **changes):
        return study(dropping(0.0), folder, taus=(1.0,), config=replace(SMALL, **changes)).cells[0]

    first, more = asked(tmp_path), asked(tmp_path, episodes=4)
    assert more.awake.returns[:3] == first.awake.returns and more.awake.n == 4
    longer = asked(tmp_path, generations=3)
    assert longer.generations == 3
    assert replace(longer, seconds=0.0) == replace(asked(tmp_path / "fresh", generations=3), seconds=0.0)


def test_a_folder_of_other_settings_or_another_model_is_refused(done, cartpole):
    with pytest.raises(ValueError, match="another rollouts"):
        study(cartpole, done[0], config=replace(SMALL, rollouts=3))
    with pytest.raises(ValueError, match="another model"):
        study(bundle.load_bundled("CartPoleBalance"), done[0])


def test_baselines_stand_below_the_table_and_are_kept(cartpole, tmp_path, monkeypatch):
    def asked():
        return temperature_study(
            cartpole, SMALL, taus=(1.0,), seeds=[0], folder=tmp_path, periods=(1, 4), search_episodes=2, progress=False
        )

    result = asked()
    assert result.best_blind in result.baselines and result.baselines["random"].n == 3
    assert "random actions, awake" in result.table() and "best blind policy (" in result.table()
    monkeypatch.setattr(temperature, "open_loop_baselines", lambda *a, **k: pytest.fail("played again"))
    assert asked() == result


def test_the_best_setting_is_judged_again_on_seeds_that_did_not_choose_it(done, cartpole, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    result = study(cartpole, folder, fresh_episodes=4)
    [cell] = result.best.cells
    assert cell.fresh.seeds == tuple(range(1_000_003, 1_000_007))
    assert all(other.fresh is None for other in result.cells if other.tau != cell.tau)
    assert replace(result, cells=tuple(replace(cell, fresh=None) for cell in result.cells)) == done[1]
    agent = LinearController.load(folder / "searches" / f"tau-{cell.tau:g}-dropout-0-0" / "agent", cartpole.spec)
    assert dreamgym.compare(agent, cartpole, episodes=7).awake.returns[3:] == cell.fresh.returns
    assert "; on fresh seeds " in result.table().splitlines()[-1]
    assert TemperatureStudy.from_json(json.loads(json.dumps(result.to_json()))) == result
    monkeypatch.setattr(temperature, "judge_awake", lambda *a, **k: pytest.fail("judged again"))
    assert study(cartpole, folder, fresh_episodes=4) == result == study(cartpole, folder)  # kept, and told by later calls


# ---- dropout ----------------------------------------------------------------------------------------------------------------


def test_without_dropout_in_training_there_is_one_rate_and_others_are_refused(cartpole):
    for model in (cartpole, dropping(0.0)):
        assert dropouts_of(model) == (0.0,) == dropouts_of(model, (0.0,))
        with pytest.raises(ValueError, match="trained without dropout"):
            dropouts_of(model, (0.0, 0.05))


def test_with_dropout_in_training_any_rate_can_be_dreamt():
    model = dropping(0.05)
    assert dropouts_of(model) == (0.05,)
    assert dropouts_of(model, (0.0, 0.1)) == (0.0, 0.1)
    with pytest.raises(ValueError, match="below 1"):
        dropouts_of(model, (1.0,))


def test_rates_of_dropout_make_other_dreams(tmp_path):
    config = replace(SMALL, episodes=2, generations=1)
    result = study(dropping(0.2), tmp_path, taus=(1.0,), dropouts=(0.0, 0.5), config=replace(config, controller=LINEAR))
    assert [(cell.dropout, cell.awake.n) for cell in result.cells] == [(0.0, 2), (0.5, 2)]
    assert result.dropouts == [0.0, 0.5]


def test_each_cell_is_searched_and_judged_in_its_own_dream_from_its_own_seed(tmp_path, monkeypatch):
    asked = {"DreamRollouts": [], "judging_dream": [], "evolve": []}
    for name, calls in asked.items():
        monkeypatch.setattr(temperature, name, overheard(getattr(temperature, name), calls))
    config = replace(SMALL, episodes=1, generations=1)
    study(dropping(0.2), tmp_path, taus=(0.1, 1.3), dropouts=(0.1,), seeds=[0, 1], config=config)
    cells = [(tau, 0.1) for _ in range(2) for tau in (0.1, 1.3)]
    assert [(each["temperature"], each["dropout"]) for each in asked["DreamRollouts"]] == [cell for cell in cells for _ in range(2)]
    assert [(each["temperature"], each["dropout"]) for each in asked["judging_dream"]] == cells
    assert [each["seed"] for each in asked["evolve"]] == [0, 0, 1, 1]


def overheard(call, kept):
    return lambda *args, **kwargs: kept.append(kwargs) or call(*args, **kwargs)


# ---- the controller ---------------------------------------------------------------------------------------------------------


def test_the_controller_is_built_as_the_run_built_it(cartpole, tmp_path):
    (tmp_path / "model").mkdir()
    config = LinearControllerConfig(hidden=3, bias=True, actions=ThresholdActions())
    LinearController(cartpole.spec, cartpole.core.feature_size, config).save(tmp_path / "agent")
    assert controller_config(cartpole, tmp_path / "model") == config
    assert controller_config(cartpole, agent=tmp_path / "agent") == config
    with pytest.raises(ModelNotFoundError):
        controller_config(cartpole, agent=tmp_path / "model")


def test_elsewhere_the_action_space_decides(cartpole, tmp_path):
    assert controller_config(cartpole, tmp_path / "model") == LinearControllerConfig(bias=True, actions=ArgmaxActions())
    racing = bundle.load_bundled("CarRacing")
    assert not isinstance(controller_config(racing).actions, PedalActions)  # its pedals are merged


# ---- the table --------------------------------------------------------------------------------------------------------------


def cell(tau, dream, awake, seed=0, dropout=0.0):
    made = [Returns(tuple(returns), (1,) * len(returns), tuple(range(len(returns)))) for returns in (dream, awake)]
    return StudyCell(tau, dropout, seed, *made, 10, 10, 1.0)


TAKE_COVER = TemperatureStudy(
    "VizdoomTakeCover-v1",
    4,
    (
        cell(0.1, [2100, 2100], [600, 800]),
        cell(1.15, [1200, 1400], [800, 1000]),
        cell(1.15, [1000, 1200], [900, 1300], seed=1),
    ),
    {"random": Returns((200.0, 400.0), (50, 100), (0, 1)), "sweep": Returns((800.0, 900.0), (50, 100), (0, 1))},
    "sweep",
)


def test_a_setting_is_the_mean_of_its_searches_with_the_spread_of_their_episodes():
    group = TAKE_COVER.groups[1]
    assert (group.mean("dream"), group.mean("awake"), group.ratio) == (1200, 1000, 1.2)
    assert group.std("awake") == np.std([800, 1000, 900, 1300])
    assert group.error("awake") == np.std([800, 1000, 900, 1300], ddof=1) / 2  # episodes differ more; two searches: 100
    assert np.isnan(TemperatureStudy("x", 1, (cell(1, [1], [1]),)).groups[0].error("awake"))


def test_the_papers_numbers_stand_beside_ours():
    lines = TAKE_COVER.table().splitlines()
    assert lines[0].startswith("VizdoomTakeCover-v1, frame skip 4, 2 episodes")
    assert " ".join(lines[2].split()) == "0.1 0 2100 ± 0 700 ± 100 100 700 3.00 2086 ± 140 193 ± 58"
    assert lines[3].endswith("918 ± 546    1092 ± 556") and "900, 1100" in lines[3]
    assert "random actions, awake: 300 ± 100 (s.e. 100, n=2)" in lines
    assert "the dream's score falls with every rise in temperature (dropout 0): yes" in lines
    assert lines[-1] == "best awake: tau 1.15, dropout 0"
    fresh = replace(TAKE_COVER, cells=tuple(replace(cell, fresh=cell.dream) for cell in TAKE_COVER.cells))
    assert fresh.table().splitlines()[-1] == "best awake: tau 1.15, dropout 0; on fresh seeds 1200 (1300, 1100; n=2 each)"


def test_other_worlds_have_no_published_column():
    other = replace(TAKE_COVER, env_id="CartPole-v1")
    assert "paper" not in other.table() and not published("CartPole-v1", 1.0)
    assert not published("VizdoomTakeCover-v1", 1.15, dropout=0.1)


def test_a_hotter_dream_that_pays_more_is_noticed():
    rising = replace(TAKE_COVER, cells=(cell(0.1, [1], [1]), cell(0.5, [2], [1])))
    assert not rising.dream_falls(0.0) and "(dropout 0): no" in rising.table()


def test_the_mean_over_rates_of_dropout_may_fall_where_a_rate_does_not():
    def at(rate, *dreamt):
        return tuple(cell(tau, [value], [1], dropout=rate) for tau, value in zip((0.5, 1.0, 1.3), dreamt))

    both = replace(TAKE_COVER, cells=(*at(0.0, 30, 10, 12), *at(0.1, 20, 15, 11)))
    assert [both.dream_falls(rate) for rate in (0.0, 0.1, None)] == [False, True, True]  # 25, 12.5, 11.5
    assert "(mean over all rates of dropout): yes" in both.table() and both.to_json()["dream_falls"]["mean"]
    rising = replace(both, cells=(*at(0.0, 30, 10, 14), *at(0.1, 20, 15, 12)))
    assert not rising.dream_falls() and "(mean over all rates of dropout): no" in rising.table()
    partly = replace(both, cells=(*at(0.0, 30, 10), *at(0.1, 20, 15, 99)))
    assert partly.dream_falls()  # 1.3 was tried at one rate only
    assert "mean over all rates" not in replace(both, cells=at(0.0, 30, 10, 5)).table()


def test_a_study_survives_json():
    assert TemperatureStudy.from_json(json.loads(json.dumps(TAKE_COVER.to_json()))) == TAKE_COVER


def test_the_plot_has_a_panel_per_rate_of_dropout(tmp_path):
    pytest.importorskip("matplotlib")
    wide = replace(TAKE_COVER, cells=(*TAKE_COVER.cells, cell(1.0, [5], [5], dropout=0.1)))
    sizes = [path.stat().st_size for path in (TAKE_COVER.plot(tmp_path / "one.png"), wide.plot(tmp_path / "two.png"))]
    assert min(sizes) > 5_000
