"""The replay keeps rows as they arrived and draws every one of them."""

import numpy as np
import pytest
import torch

from dreamgym.data import Replay
from tests.data import toys


@pytest.fixture(params=["memory", "folder"])
def folder(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "replay"


def test_rows_hold_what_arrived_together(folder):
    replay = Replay(toys.VECTOR, folder)
    toys.add(replay, 3, mark=1, terminated=True)
    rows = replay.sequence(0, 4)
    assert rows.obs[0, :, 1].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(rows.prev_action[0, :, 0], [0, 0.05, 0.1, 0.15], rtol=1e-6)  # actions 0.1, 0.2, 0.3 of -2 to 2
    assert rows.reward[0].tolist() == [0, 101, 102, 103]
    assert rows.is_first[0].tolist() == [True, False, False, False]
    assert rows.is_last[0].tolist() == rows.is_terminal[0].tolist() == [False, False, False, True]
    assert rows.valid.all() and rows.index[0].tolist() == [0, 1, 2, 3]


def test_truncation_is_last_but_not_terminal(folder):
    replay = Replay(toys.VECTOR, folder)
    toys.add(replay, 2, terminated=False)
    rows = replay.sequence(0, 3)
    assert rows.is_last[0].tolist() == [False, False, True] and not rows.is_terminal.any()


def test_classes_are_stored_one_hot():
    replay = Replay(toys.CLASSES)
    replay.add_episode(np.zeros((4, 3)), np.array([1, 4, 2]), np.zeros(3), True, False)
    assert replay.column("prev_action").argmax(1).tolist() == [0, 0, 3, 1]
    assert replay.column("prev_action").sum(1).tolist() == [0, 1, 1, 1]  # the first row has no action


def test_images_and_their_validity_are_kept(folder):
    replay = Replay(toys.IMAGE, folder)
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    replay.add_episode(frames, np.array([0, 1, 0, 1]), np.ones(4), True, False, valid=np.array([1, 1, 1, 1, 0], bool))
    batch = replay.sequence(0, 5)
    assert batch.obs.dtype == torch.uint8 and (batch.obs[0].numpy() == frames).all()
    assert batch.valid[0].tolist() == [True, True, True, True, False]


def test_parts_keep_their_types_and_choices_are_one_hots(folder):
    replay = Replay(toys.CHOICES, folder)
    toys.add_parts(replay, 4, mark=7)
    rows = replay.sequence(0, 5)[0]
    assert {name: (part.dtype, tuple(part.shape)) for name, part in rows.obs.items()} == {
        "camera": (torch.uint8, (5, 8, 8, 3)), "gear": (torch.int64, (5,)), "speed": (torch.float32, (5, 3))
    }  # fmt: skip
    assert rows.obs["gear"].tolist() == [-1, 0, 1, -1, 0] and (rows.obs["camera"] == 7).all()
    assert rows.prev_action.tolist() == [[0] * 5, [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]


def test_windows_of_parts_are_windows_of_each_part(folder):
    replay = Replay(toys.CHOICES, folder)
    for mark in range(3):
        toys.add_parts(replay, 3, mark=mark)
    batch = replay.sample(16, 5, np.random.default_rng(0))
    assert torch.equal(batch.obs["speed"][..., 0], (batch.index // 4).float())
    assert torch.equal(batch.obs["camera"][:, :, 0, 0, 0], batch.index // 4)
    assert torch.equal(batch.obs["gear"], batch.index % 4 % 3 - 1)


def test_columns_and_rows_of_parts_are_dicts(folder):
    replay = Replay(toys.CHOICES, folder)
    toys.add_parts(replay, 5)
    assert replay.column("obs")["speed"][:, 1].tolist() == [0, 1, 2, 3, 4, 5]
    rows = replay.obs_rows(np.array([[5, 0], [2, 2]]))
    assert rows["speed"][..., 1].tolist() == [[5, 0], [2, 2]]
    rows["speed"][:] = 9
    assert replay.column("obs")["speed"].max() == 5
    with pytest.raises(ValueError, match="read-only"):
        replay.column("obs")["speed"][0] = 0


@pytest.mark.parametrize(
    "change,word",
    [
        ({"speed": np.zeros((3, 3))}, r"\[3, 4\] rows"),
        ({"speed": np.full((4, 3), np.nan)}, "'speed' is NaN"),
        ({"camera": np.zeros((4, 8, 8, 3))}, "'camera' is float64"),
        ({"gear": np.full(4, 2)}, "'gear' is int64"),
        ({"gear": np.zeros(4)}, "'gear' is float64"),
        ({"sound": np.zeros(4)}, "camera', 'gear', 'speed'"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(change, word):
    replay = Replay(toys.CHOICES)
    with pytest.raises(ValueError, match=word):
        replay.add_episode({**toys.parts(3), **change}, np.full((3, 2), [1, 5]), np.zeros(3), False, True)
    assert len(replay) == 0


@pytest.mark.parametrize("action", [np.full((3, 2), [1, 8]), np.full((3, 2), [2, 5]), np.full((3, 2), 5.0), np.full((3, 1), 5)])
def test_choices_outside_the_space_are_refused(action):
    with pytest.raises(ValueError, match="actions"):
        Replay(toys.CHOICES).add_episode(toys.parts(3), action, np.zeros(3), False, True)


def test_windows_begin_where_they_are_asked_to(folder):
    replay = Replay(toys.VECTOR, folder)
    toys.add(replay, 9)
    assert replay.sample_windows(np.array([7, 0]), 3).index.tolist() == [[7, 8, 9], [0, 1, 2]]
    for outside in ([8], [-1]):
        with pytest.raises(IndexError, match="3 rows"):
            replay.sample_windows(np.array(outside), 3)


def test_every_window_is_drawn_equally_often_and_every_row_is_reached(folder):
    replay = Replay(toys.VECTOR, folder)
    for mark, steps in enumerate((3, 2, 4)):
        toys.add(replay, steps, mark=mark)
    batch = replay.sample(9000, 4, np.random.default_rng(0))
    starts, counts = np.unique(batch.index[:, 0].numpy(), return_counts=True)
    assert starts.tolist() == list(range(9)) and counts.min() > 850 and counts.max() < 1150
    assert sorted(set(batch.index.flatten().tolist())) == list(range(len(replay)))


def test_windows_cross_episode_ends_and_is_first_tells(folder):
    replay = Replay(toys.VECTOR, folder)
    for mark in range(3):
        toys.add(replay, 2, mark=mark)
    batch = replay.sample(64, 4, np.random.default_rng(0))
    assert (batch.index[:, 1:] - batch.index[:, :-1] == 1).all()
    assert (batch.is_first == (batch.obs[..., 1] == 0)).all()
    assert (batch.obs[..., 0] == batch.index // 3).all() and (batch.is_first[:, 1:]).any()


def test_sampling_is_reproducible_and_restricted_to_rows():
    replay = Replay(toys.VECTOR)
    toys.add(replay, 20)
    first, again = (replay.sample(5, 3, np.random.default_rng(7), rows=(4, 9)) for _ in range(2))
    assert torch.equal(first.index, again.index)
    assert first.index.min() >= 4 and first.index.max() < 9


def test_a_range_as_long_as_the_window_is_enough_and_a_shorter_one_is_refused():
    replay = Replay(toys.VECTOR)
    toys.add(replay, 4)
    assert replay.sample(2, 5, np.random.default_rng(0)).index.tolist() == [[0, 1, 2, 3, 4]] * 2
    with pytest.raises(ValueError, match="windows of 6"):
        replay.sample(2, 6, np.random.default_rng(0))
    with pytest.raises(ValueError, match="0 to 5"):
        replay.sample(2, 2, np.random.default_rng(0), rows=(0, 6))


def test_episodes_rows_and_steps_are_counted(folder):
    replay = Replay(toys.VECTOR, folder)
    toys.add(replay, 3, policy="sticky")
    toys.add(replay, 1)
    assert (replay.episodes, len(replay), replay.num_steps, replay.policies) == (((0, 4), (4, 6)), 6, 4, ("sticky", ""))


def test_obs_rows_copies_any_shape_of_indices(folder):
    replay = Replay(toys.VECTOR, folder)
    toys.add(replay, 5)
    rows = replay.obs_rows(np.array([[5, 0], [2, 2]]))
    assert rows[..., 1].tolist() == [[5, 0], [2, 2]]
    rows[:] = 9
    assert replay.column("obs").max() == 5


def test_columns_are_read_only_views(folder):
    replay = Replay(toys.VECTOR, folder)
    toys.add(replay, 5)
    for name in ("obs", "reward", "is_first"):
        with pytest.raises(ValueError, match="read-only"):
            replay.column(name)[0] = 0
    with pytest.raises(KeyError, match="prev_action"):
        replay.column("action")


def test_growing_keeps_what_was_there():
    replay = Replay(toys.VECTOR)
    for mark in range(300):  # past the first thousand rows twice
        toys.add(replay, 9, mark=mark)
    assert (replay.column("obs")[:, 0] == np.repeat(np.arange(300), 10)).all()


def test_keep_forgets_later_episodes(folder):
    replay = Replay(toys.VECTOR, folder)
    for mark in range(3):
        toys.add(replay, 2, mark=mark)
    replay.keep(1)
    toys.add(replay, 1, mark=9)
    assert replay.column("obs")[:, 0].tolist() == [0, 0, 0, 9, 9]


@pytest.mark.parametrize(
    "change,word",
    [
        ({"obs": np.zeros((3, 3))}, "T\\+1"),
        ({"obs": np.zeros((4, 2))}, "shape"),
        ({"obs": np.full((4, 3), np.nan)}, "NaN"),
        ({"action": np.zeros((3, 2))}, "shape"),
        ({"action": np.full((3, 1), np.inf)}, "infinite"),
        ({"reward": np.array([0, np.nan, 0])}, "step 1"),
        ({"reward": np.zeros(2)}, "T\\+1"),
        ({"valid": np.ones(3, bool)}, "valid"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_and_leaves_no_trace(change, word):
    replay = Replay(toys.VECTOR)
    episode = {"obs": np.zeros((4, 3)), "action": np.zeros((3, 1)), "reward": np.zeros(3), "terminated": False, "truncated": True}
    with pytest.raises(ValueError, match=word):
        replay.add_episode(**{**episode, **change})
    assert len(replay) == 0


@pytest.mark.parametrize("action", [np.array([0, 1]), np.array([1, 5]), np.array([1.0, 2.0])])
def test_classes_outside_the_space_are_refused(action):
    with pytest.raises(ValueError, match="actions"):
        Replay(toys.CLASSES).add_episode(np.zeros((3, 3)), action, np.zeros(2), False, True)
