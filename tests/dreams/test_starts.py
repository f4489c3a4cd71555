"""Where dreams begin."""

import numpy as np
import pytest
import torch

from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from tests.toys import BlindWorld, CounterWorld, PictureWorld, PointState


def test_first_draws_only_episode_starts_and_any_draws_all_rows():
    for starts, expected in (("first", {0.0, 0.25, -0.25}), ("any", {0.0, 0.25, -0.25, 2.0})):
        obs, _ = DreamVectorEnv(CounterWorld(), 200, starts=starts).reset(seed=0)
        assert set(obs[:, 0].tolist()) == expected


def test_without_a_bank_dreams_start_from_the_initial_state():
    assert DreamEnv(CounterWorld(starts=())).reset(seed=0)[0] == 0.0


def test_a_bank_without_episode_starts_is_an_error_that_says_what_to_do():
    world = CounterWorld(starts=(1.0, 2.0), first=(False, False))
    with pytest.raises(ValueError, match="starts='any'"):
        DreamEnv(world, starts="first")
    assert DreamEnv(world, starts="any").reset(seed=0)[0] in (1.0, 2.0)


def test_initial_state_names_a_row_of_the_bank():
    assert DreamEnv(CounterWorld()).reset(options={"initial_state": 3})[0] == 2.0
    obs, _ = DreamVectorEnv(CounterWorld(), 3).reset(options={"initial_state": [3, 0, 1]})
    assert obs[:, 0].tolist() == [2.0, 0.0, 0.25]


def test_initial_state_may_be_a_state():
    assert DreamEnv(CounterWorld()).reset(options={"initial_state": PointState(torch.tensor([[1.5]]))})[0] == 1.5
    obs, _ = DreamVectorEnv(CounterWorld(), 2).reset(options={"initial_state": PointState(torch.tensor([[1.5], [0.5]]))})
    assert obs[:, 0].tolist() == [1.5, 0.5]


@pytest.mark.parametrize("wrong", [4, -1, PointState(torch.tensor([[torch.nan]])), PointState(torch.zeros(3, 1))], ids=str)
def test_initial_states_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError, match="initial"):
        DreamEnv(CounterWorld()).reset(options={"initial_state": wrong})


@pytest.mark.parametrize("wrong", ["first", 1.5, True, {"x": 1}, []], ids=str)
def test_initial_states_of_a_wrong_type_are_refused(wrong):
    with pytest.raises(TypeError, match="initial_state"):
        DreamEnv(CounterWorld()).reset(options={"initial_state": wrong})


def test_context_burns_real_frames_in():
    context = {"obs": [[1.0], [2.0]], "action": [[0.5]]}
    obs, _ = DreamEnv(CounterWorld()).reset(options={"context": context})
    assert obs == (1.0 + 0.5 + 2.0) / 2  # CounterWorld believes the mean of prediction and observation
    assert context == {"obs": [[1.0], [2.0]], "action": [[0.5]]}


def test_context_may_be_one_frame_and_may_differ_per_slot():
    frames = np.full((1, 36, 36, 3), 148, np.uint8)
    obs, _ = DreamEnv(PictureWorld(), obs_type="latent").reset(options={"context": {"obs": frames, "action": []}})
    assert obs[0] == 2.0
    obs, _ = DreamEnv(PictureWorld(), obs_type="latent").reset(options={"context": {"obs": frames}})
    assert obs[0] == 2.0
    each = {"obs": np.float32([[[1.0]], [[3.0]]]), "action": np.zeros((2, 0, 1), np.float32)}
    obs, _ = DreamVectorEnv(CounterWorld(), 2).reset(options={"context": each})
    assert obs[:, 0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"obs": [[1.0], [2.0]]},
        {"action": [[0.0]]},
        {"obs": [[1.0]], "action": [[0.0]]},
        {"obs": [], "action": []},
        {"obs": [[1.0, 2.0]], "action": []},
        {"obs": [[float("nan")]], "action": []},
        {"obs": [[["x"]]], "action": []},
        [[1.0]],
    ],
    ids=str,
)
def test_contexts_that_do_not_fit_are_refused(wrong):
    env = DreamEnv(CounterWorld())
    env.reset(seed=0)
    with pytest.raises(ValueError, match="context"):
        env.reset(options={"context": wrong})


def test_a_model_that_cannot_observe_says_so():
    with pytest.raises(ValueError, match="observe"):
        DreamEnv(BlindWorld()).reset(options={"context": {"obs": [[0.0]], "action": []}})


def test_a_refused_reset_leaves_the_dream_as_it_was():
    env, twin = (DreamEnv(CounterWorld(sigma=0.3)) for _ in range(2))
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(ValueError):
        env.reset(options={"initial_state": 99})
    action = np.zeros(1, np.float32)
    np.testing.assert_array_equal(env.step(action)[0], twin.step(action)[0])


def test_both_a_state_and_a_context_are_one_too_many():
    with pytest.raises(ValueError, match="both"):
        DreamEnv(CounterWorld()).reset(options={"initial_state": 0, "context": {"obs": [[1.0]], "action": []}})


def test_frames_that_were_not_preprocessed_are_told_the_shape_and_who_makes_it():
    raw = {"obs": np.zeros((2, 96, 96, 3), np.uint8), "action": [[0.0]]}
    with pytest.raises(ValueError) as caught:
        DreamEnv(PictureWorld()).reset(options={"context": raw})
    said = str(caught.value)
    assert "shape [2, 96, 96, 3]" in said and "expected [T, 36, 36, 3] uint8" in said
    assert "make_env(spec.env_id, preprocess=spec.preprocess)" in said
