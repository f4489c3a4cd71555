"""Errors of models whose errors are known by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from dreamgym.data.replay import Replay
from dreamgym.evaluation.prediction_errors import one_step_errors, open_loop_errors, open_loop_states, states_before
from dreamgym.structs import Prediction, TensorStruct
from tests.data import toys
from tests.evaluation.line import LineModel, lived

WALKS = [[1, 2, 2, 0, 1, 0, 2, 1, 0, 0, 2, 2], [0, 0, 2, 1, 2, 1, 1, 0, 2, 0, 0, 1]]


def test_a_perfect_model_makes_no_errors() -> None:
    rows = lived(WALKS)
    one = one_step_errors(LineModel(), rows, context=2)
    assert one["n"] == 2 * (13 - 2)
    assert one["reward_mae"] == pytest.approx(0.0, abs=1e-6)
    assert one["reward_correlation"] == pytest.approx(1.0)
    for found in open_loop_errors(LineModel(), rows, (1, 4, 8), context=3).values():
        assert found["n"] == 2
        assert found["obs_rmse"] == pytest.approx(0.0, abs=1e-5)


def test_a_bias_grows_with_the_horizon_and_not_one_step_ahead() -> None:
    rows = lived(WALKS)
    model = LineModel(bias=0.1)
    assert one_step_errors(model, rows, context=1)["reward_mae"] == pytest.approx(0.1, abs=1e-6)
    errors = open_loop_errors(model, rows, (1, 3, 5), context=2)
    assert list(errors) == ["1", "3", "5"]
    for horizon, found in errors.items():
        assert found["reward_mae"] == pytest.approx(0.1 * int(horizon), abs=1e-5)
        assert found["obs_rmse"] == pytest.approx(0.1 * int(horizon) / float(rows.obs.std(correction=0)), rel=1e-4)


def test_yardsticks_are_those_of_the_data() -> None:
    rows = lived(WALKS)
    found = open_loop_errors(LineModel(), rows, (4,), context=2)["4"]
    real, seen, scale = rows.obs[:, 5, 0], rows.obs[:, 1, 0], rows.obs.std(correction=0)
    assert found["obs_rmse_of_repeat"] == pytest.approx(float((((real - seen) / scale) ** 2).mean().sqrt()), rel=1e-5)
    assert found["obs_rmse_of_mean"] == pytest.approx(float((((real - rows.obs.mean()) / scale) ** 2).mean().sqrt()), rel=1e-5)
    mean_reward = rows.reward[:, 1:].mean()
    assert found["reward_mae_of_mean"] == pytest.approx(float((real - mean_reward).abs().mean()), rel=1e-5)


def test_horizons_stop_at_the_end_of_an_episode() -> None:
    rows = lived(WALKS, restart_at=6)
    assert set(open_loop_errors(LineModel(), rows, (1, 3, 4, 5), context=2)) == {"1", "3", "4"}  # row 6 would be horizon 5
    assert one_step_errors(LineModel(), rows, context=2)["n"] == 2 * (13 - 2 - 1)


def test_horizons_that_do_not_fit_are_left_out_and_none_is_an_error() -> None:
    rows = lived(WALKS)
    assert set(open_loop_errors(LineModel(), rows, (1, 11, 12), context=2)) == {"1", "11"}
    with pytest.raises(ValueError, match="13 rows; expected at least context"):
        open_loop_errors(LineModel(), rows, (10,), context=5)


def test_ends_are_counted_with_precision_and_recall() -> None:
    rows = lived([[2, 2, 2, 2, 2], [1, 1, 1, 1, 1]])  # the first walk reaches the goal in its last row
    right = open_loop_errors(LineModel(), rows, (4,), context=2)["4"]
    assert (right["ends"], right["end_precision"], right["end_recall"]) == (1, 1.0, 1.0)
    assert right["continue_brier"] == pytest.approx(0.01)
    gloomy = open_loop_errors(LineModel(always_ends=True), rows, (4,), context=2)["4"]
    assert (gloomy["end_precision"], gloomy["end_recall"]) == (0.5, 1.0)
    assert gloomy["continue_brier"] == pytest.approx((0.1**2 + 0.9**2) / 2, abs=1e-6)
    endless = open_loop_errors(LineModel(), rows, (2,), context=2)["2"]
    assert (endless["ends"], endless["end_recall"]) == (0, None)


def test_mean_noise_is_silent_and_sampled_noise_depends_on_its_seed() -> None:
    rows, model = lived(WALKS), LineModel(spread=0.3)
    assert open_loop_errors(model, rows, (5,), context=2)["5"]["reward_mae"] == pytest.approx(0.0, abs=1e-6)
    first, again, other = (open_loop_errors(model, rows, (5,), context=2, sampled=True, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first["5"]["reward_mae"] > 0.05


def test_an_open_loop_follows_what_it_sees_and_then_the_actions_alone() -> None:
    rows = lived(WALKS)
    shown = torch.stack([state.obs for state in open_loop_states(LineModel(bias=0.1), rows, 3)], 1)
    drift = 0.1 * torch.arange(rows.reward.shape[1] - 2).float()  # none in the last row seen
    torch.testing.assert_close(shown[:, :3], rows.obs[:, :3])
    torch.testing.assert_close(shown[:, 2:], rows.obs[:, 2:] + drift[:, None])


def test_meaningless_observations_count_for_rewards_only() -> None:
    rows = lived(WALKS)
    valid = rows.valid.clone()
    valid[:, 5] = False
    spoilt = replace(rows, valid=valid, obs=torch.where(valid.unsqueeze(-1), rows.obs, torch.tensor(99.0)))
    found = open_loop_errors(LineModel(), spoilt, (4, 6), context=2)
    assert "obs_rmse" not in found["4"] and found["4"]["n"] == 2
    assert found["6"]["obs_rmse"] == pytest.approx(0.0, abs=1e-5)


def test_a_constant_reward_has_no_correlation() -> None:
    rows = lived([[1] * 6, [1] * 6])
    assert one_step_errors(LineModel(), rows, context=2)["reward_correlation"] is None


# ---- windows that begin in mid-episode ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard(TensorStruct):
    rows: torch.Tensor  # [B] how many of this episode were seen
    mark: torch.Tensor  # [B] what its first row said


class Rememberer:
    """Foretells what only an episode's first row tells."""

    spec, noise_lanes = toys.VECTOR, 1

    def initial(self, batch_size):
        return Heard(torch.zeros(batch_size), torch.full((batch_size,), -1.0))

    def observe(self, state, prev_action, obs, is_first, noise):
        mark = torch.where(is_first, obs[:, 0], state.mark)
        return Heard(torch.where(is_first, 1.0, state.rows + 1.0), mark)

    def step(self, state, action, noise, temperature=1.0):
        return Heard(state.rows + 1.0, state.mark)

    def predict(self, state):
        return Prediction(100.0 * state.mark + state.rows - 1.0, torch.ones_like(state.mark), torch.zeros_like(state.mark))

    def decode(self, state):
        return torch.stack([state.mark, state.rows - 1.0, torch.zeros_like(state.mark)], 1)


def told() -> Replay:
    replay = Replay(toys.VECTOR)
    for mark, steps in ((3, 9), (5, 6), (7, 12)):
        toys.add(replay, steps, mark=mark)
    return replay


def test_what_is_remembered_before_a_row_is_its_own_episode_so_far() -> None:
    state = states_before(Rememberer(), told(), np.array([4, 11, 16, 27]))  # episodes begin at 0, 10 and 17
    assert state.rows.tolist() == [4.0, 1.0, 6.0, 10.0]
    assert state.mark.tolist() == [3.0, 5.0, 5.0, 7.0]


def test_errors_in_mid_episode_are_those_of_a_model_that_remembers() -> None:
    replay, first = told(), np.array([3, 20])
    rows = replay.sample_windows(first, 7)
    start = states_before(Rememberer(), replay, first)
    assert one_step_errors(Rememberer(), rows, context=1, start=start)["reward_mae"] == 0.0
    assert one_step_errors(Rememberer(), rows, context=1)["reward_mae"] > 100.0
    assert open_loop_errors(Rememberer(), rows, (1, 5), context=1, start=start)["5"]["obs_rmse"] == 0.0


def test_rows_outside_the_replay_have_no_before() -> None:
    with pytest.raises(IndexError, match="not inside 0 to 30"):
        states_before(Rememberer(), told(), np.array([30]))
