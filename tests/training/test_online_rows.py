"""Which rows a batch holds, and the latents kept beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.data import Replay
from dreamgym.structs import Spec, TensorStruct
from dreamgym.training.online_config import OnlineTraining
from dreamgym.training.rows import LatentRows, WindowSampler

SPEC = Spec("Numbers", spaces.Box(-1e6, 1e6, (1,), np.float32), spaces.Discrete(2), max_episode_steps=50)


@dataclass(frozen=True)
class _State(TensorStruct):
    deter: Tensor
    stoch: Tensor


def _replay(*lengths: int) -> Replay:
    """Episodes of so many rows; every observation is its row's number."""
    replay = Replay(SPEC)
    for rows in lengths:
        obs = len(replay) + np.arange(rows, dtype=np.float32)[:, None]
        replay.add_episode(obs, np.arange(rows - 1) % 2, np.ones(rows - 1), True, False)
    return replay


def _firsts(replay: Replay, settings: OnlineTraining, draws: int = 60) -> np.ndarray:
    sampler = WindowSampler(replay, settings)
    rng = np.random.default_rng(0)
    return np.concatenate([sampler.draw(rng).index[:, 0].numpy() for _ in range(draws)])


SETTINGS = OnlineTraining(batch=16, length=4)


def test_windows_reach_every_offset_and_cross_episode_ends():
    assert set(_firsts(_replay(6, 6), SETTINGS)) == set(range(9))


def test_a_window_holds_the_rows_its_index_names():
    batch = WindowSampler(_replay(6, 6), SETTINGS).draw(np.random.default_rng(0))
    assert torch.equal(batch.obs[..., 0].long(), batch.index)
    assert torch.equal(batch.is_first, (batch.index == 0) | (batch.index == 6))
    inside = ~batch.is_first
    assert torch.equal(batch.prev_action.argmax(-1)[inside], ((batch.index % 6 - 1) % 2)[inside])
    assert (batch.reward == inside.float()).all() and (batch.prev_action[batch.is_first] == 0).all()


def test_episodes_are_drawn_whatever_their_length_and_every_offset_inside_them_is_reached():
    replay = _replay(4, 20)
    firsts = _firsts(replay, replace(SETTINGS, sampling="episodes"), draws=200)
    assert set(firsts) == {0} | set(range(4, 21))  # the last row of each episode is among them
    assert (firsts == 0).mean() == pytest.approx(0.5, abs=0.03)


def test_an_episode_shorter_than_a_window_is_seen_with_what_follows_it():
    assert set(_firsts(_replay(2, 3, 2, 2), replace(SETTINGS, sampling="episodes"))) == {0, 2, 5}


@pytest.mark.parametrize("sampling", ["windows", "episodes"])
def test_capacity_forgets_the_oldest_rows(sampling):
    settings = replace(SETTINGS, sampling=sampling, capacity=10)
    assert _firsts(_replay(10, 10, 10), settings).min() == 20


def test_fresh_rows_come_first_once_in_order_and_without_overlap():
    replay = _replay(6, 6)
    sampler = WindowSampler(replay, replace(SETTINGS, batch=2, online_queue=True))
    rng = np.random.default_rng(0)
    assert sampler.draw(rng).index[:, 0].tolist() == [0, 4]
    assert sampler.draw(rng).index[0, 0] == 8
    assert sampler.fresh_from == 12
    replay.add_episode(np.zeros((4, 1), np.float32), np.zeros(3, int), np.zeros(3), False, True)
    assert sampler.draw(rng).index[0, 0] == 12


def test_a_stored_carry_takes_one_row_more():
    sampler = WindowSampler(_replay(6), replace(SETTINGS, carry="stored"))
    assert sampler.draw(np.random.default_rng(0)).reward.shape == (16, 5)


def test_nothing_can_be_drawn_before_there_is_a_window():
    sampler = WindowSampler(_replay(3), SETTINGS)
    assert not sampler.ready
    with pytest.raises(ValueError, match="prefill"):
        sampler.draw(np.random.default_rng(0))


# ---- latents --------------------------------------------------------------------------------------------------------------


def _states(*values: float) -> _State:
    column = torch.tensor(values).unsqueeze(-1)
    return _State(column.expand(-1, 3).clone(), column.expand(-1, 2).clone())


def _latents() -> LatentRows:
    latents = LatentRows(_states(0.0))
    latents.extend(4, [_states(0.25), _states(0.5)])
    return latents


def test_rows_hold_what_their_agent_believed_and_else_the_initial_state():
    read = _latents().read(torch.arange(4), torch.device("cpu"))
    assert read.deter[:, 0].tolist() == [0.25, 0.5, 0.0, 0.0] and read.stoch.shape == (4, 2) and read.stoch.dtype == torch.float32


def test_written_latents_are_read_back_and_others_stay():
    latents = _latents()
    index = torch.tensor([[1, 2]])
    latents.write(index, _states(-1.0, 0.125).map(lambda x: x.unsqueeze(0)))
    assert latents.read(torch.arange(4), torch.device("cpu")).stoch[:, 1].tolist() == [0.25, -1.0, 0.125, 0.0]


def test_of_a_row_that_a_batch_holds_twice_the_later_state_stays():
    latents = _latents()
    latents.write(torch.tensor([[0, 1], [1, 2]]), _states(1.0, 2.0, 3.0, 4.0).map(lambda x: x.unflatten(0, (2, 2))))
    assert latents.read(torch.arange(3), torch.device("cpu")).deter[:, 0].tolist() == [1.0, 3.0, 4.0]


def test_latents_survive_saving_and_growing():
    latents, again = _latents(), LatentRows(_states(0.0))
    again.load_state_dict(latents.state_dict())
    again.extend(2000, [_states(7.0)])
    read = again.read(torch.tensor([0, 1, 4, 5, 2003]), torch.device("cpu"))
    assert len(again) == 2004 and read.deter[:, 2].tolist() == [0.25, 0.5, 7.0, 0.0, 0.0]
