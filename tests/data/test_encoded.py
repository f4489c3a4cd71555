"""Codes instead of pictures: what is kept, who is kept out, and how batches of episodes are cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.data.encoded import (
    Dealer,
    EncodedSink,
    EpisodeStreams,
    LongEnough,
    PaddedEpisodes,
    check_codes_vary,
    encode_episodes,
    encoded_spec,
    padded_episodes,
)
from dreamgym.data.replay import Replay
from tests.data.toys import IMAGE, VECTOR, add


def brightness(images):
    """Codes (b, -b)."""
    mean = images.reshape(len(images), -1).mean(1, dtype=np.float32)
    return np.stack([mean, -mean], 1)


def pictures(steps, first=0):
    return np.broadcast_to(np.arange(first, first + steps + 1, dtype=np.uint8)[:, None, None, None], (steps + 1, 8, 8, 1))


def coded():
    return Replay(encoded_spec(IMAGE, 2))


def vectors(*lengths):
    replay = Replay(VECTOR)
    for mark, steps in enumerate(lengths):
        add(replay, steps, mark=mark, terminated=mark % 2 == 0)
    return replay


def test_codes_are_stored_in_half_precision_beside_the_same_actions():
    spec = encoded_spec(IMAGE, 2)
    assert spec.observation_space == spaces.Box(-np.inf, np.inf, (2,), np.float16)
    assert spec.action_space == IMAGE.action_space


def test_an_episode_of_pictures_is_stored_as_codes_and_meaningless_rows_as_zeros():
    replay = coded()
    valid = np.array([True, True, True, False])
    EncodedSink(IMAGE, brightness, replay).add_episode(
        pictures(3, first=5), np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0]), True, False, valid, "who"
    )
    rows = replay.sequence(0, 4)
    assert rows.obs[0].tolist() == [[5, -5], [6, -6], [7, -7], [0, 0]]
    assert rows.reward[0].tolist() == [0, 1, 2, 3]
    assert rows.is_terminal[0].tolist() == [False, False, False, True]
    assert rows.valid[0].tolist() == valid.tolist()
    assert replay.policies == ("who",)


def _lived(mean, log_var, valid=None):
    """One episode of codes with these statistics, [T+1,2] each."""
    replay = Replay(encoded_spec(IMAGE, 4))
    steps = len(mean) - 1
    stats = np.concatenate([mean, log_var], 1).astype(np.float16)
    replay.add_episode(stats, np.zeros(steps, np.int64), np.zeros(steps), False, True, valid)
    return replay


def test_codes_that_never_change_are_refused_and_those_that_only_spread_are_not():
    moving, still = np.linspace(-1, 1, 10)[:, None], np.zeros((10, 1))
    wide, narrow = np.zeros((10, 1)), np.full((10, 1), -20.0)
    for mean, log_var in ((still, wide), (moving, narrow), (moving, wide)):  # an unused dimension is noise, an exact one moves
        check_codes_vary(_lived(np.hstack([moving, mean]), np.hstack([wide, log_var])))
    with pytest.raises(ValueError, match=r"1 of 2 dimensions .* all of 10 rows \(the first: 1\)"):
        check_codes_vary(_lived(np.hstack([moving, still]), np.hstack([wide, narrow])))
    with pytest.raises(ValueError, match="all of 4 rows"):
        check_codes_vary(_lived(np.hstack([moving, still]), np.hstack([wide, narrow])), rows=4)


def test_rows_without_a_picture_do_not_make_a_code_change():
    valid = np.array([True] * 9 + [False])
    mean = np.full((10, 2), 3.0)
    mean[-1] = 0.0
    with pytest.raises(ValueError, match=r"2 of 2 dimensions .* all of 9 rows"):
        check_codes_vary(_lived(mean, np.full((10, 2), -20.0), valid))
    check_codes_vary(_lived(mean[:2], np.full((2, 2), -20.0), np.array([True, False])))  # one row tells nothing


def test_stored_pictures_are_encoded_as_if_they_had_come_in_just_now():
    pixels, one, other = Replay(IMAGE), coded(), coded()
    episode = (pictures(3), np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0]), True, False, np.array([True, True, True, False]), "a")
    pixels.add_episode(*episode)
    encode_episodes(pixels, brightness, one)
    EncodedSink(IMAGE, brightness, other).add_episode(*episode)
    stored, direct = one.sequence(0, 4), other.sequence(0, 4)
    for (name, mine), (_, its) in zip(stored.items(), direct.items()):
        assert torch.equal(mine, its), name
    assert one.policies == other.policies


def test_every_third_episode_is_kept_out_and_short_ones_are_dropped():
    train, held_out = Replay(VECTOR), Replay(VECTOR)
    dealer = LongEnough(Dealer(train, held_out, every=3), 2)
    for mark, steps in enumerate((4, 1, 5, 3, 6)):
        add(dealer, steps, mark=mark)
    assert [stop - start - 1 for start, stop in train.episodes] == [4, 5, 6]
    assert [stop - start - 1 for start, stop in held_out.episodes] == [3]


def test_a_dealer_that_begins_anew_deals_as_one_that_never_stopped():
    train, held_out = Replay(VECTOR), Replay(VECTOR)
    for mark in range(6):
        add(Dealer(train, held_out, every=3), 2, mark=mark)
    assert (len(train.episodes), len(held_out.episodes)) == (4, 2)


def test_padding_is_marked_and_carries_no_flag():
    replay = vectors(4, 2)
    batch = padded_episodes(replay, [1, 0])
    assert batch.reward.shape == (2, 5)
    assert batch.index[0].tolist() == [5, 6, 7, -1, -1]
    assert batch.valid[0].tolist() == [True, True, True, False, False]
    assert batch.is_last[0].tolist() == [False, False, True, False, False]
    assert batch.is_terminal[1].tolist() == [False, False, False, False, True]
    assert batch.is_first.sum() == 2
    assert torch.equal(batch.embed[0, 2], batch.embed[0, 4])


def test_a_pass_takes_every_episode_once_and_like_lengths_together():
    replay = vectors(*[2, 9] * 8)
    batches = PaddedEpisodes(replay, 4, seed=0)
    seen = [batches[number] for number in range(batches.batches_per_pass)]
    first_rows = sorted(int(row) for batch in seen for row in batch.index[:, 0])
    assert first_rows == [start for start, _ in replay.episodes]
    assert {batch.reward.shape[1] for batch in seen} == {3, 10}  # no short episode beside a long one


def test_batches_are_a_function_of_seed_and_number():
    replay = vectors(*range(2, 14))
    ahead, anew = PaddedEpisodes(replay, 4, seed=1), PaddedEpisodes(replay, 4, seed=1)
    expected = [ahead[number].index for number in range(7)]
    assert torch.equal(anew[6].index, expected[6])
    assert not torch.equal(PaddedEpisodes(replay, 4, seed=2)[0].index, expected[0])


def test_episodes_are_taken_as_often_as_asked():
    replay = vectors(3, 3, 3)
    batches = PaddedEpisodes(replay, 5, seed=0, times=np.array([1, 1, 3]))
    assert sorted(batches[0].index[:, 0].tolist()) == [0, 4, 8, 8, 8]


def test_streams_go_on_from_chunk_to_chunk_and_take_each_row_once():
    replay = vectors(*[5] * 8)  # 48 rows
    streams = EpisodeStreams(replay, 2, 6, seed=0)
    assert streams.batches_per_pass == 4
    rows = torch.cat([streams[number].index for number in range(4)], 1)
    assert sorted(rows.flatten().tolist()) == list(range(48))
    crossing = rows[:, 1:] - rows[:, :-1] != 1
    begins = torch.cat([streams[number].is_first for number in range(4)], 1)[:, 1:]
    assert not (crossing & ~begins).any()
    assert [streams.begins(number) for number in (0, 1, 4)] == [True, False, True]


def test_too_few_rows_for_the_streams_say_so():
    with pytest.raises(ValueError, match="do not fill"):
        EpisodeStreams(vectors(3), 4, 10, seed=0)
