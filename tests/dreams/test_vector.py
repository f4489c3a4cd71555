"""DreamVectorEnv: parity with single dreams, autoreset modes, partial resets, outputs, errors."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError, InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space

from dreamgym.dreams.alarm import Alarm
from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.errors import NonFiniteDreamError
from tests.toys import CorridorWorld, CounterWorld, PictureWorld

OPTIONS = {"sigma": 0.4, "drift": 0.2, "bound": 1.0, "steps": 6}


def _still(env):
    return np.zeros((env.num_envs, 1), np.float32)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("obs_type", ["vector", "latent", "dict"])
def test_a_batch_behaves_as_gymnasium_s_batch_of_single_dreams(mode, obs_type):
    ours = DreamVectorEnv(CounterWorld(**OPTIONS), 5, obs_type=obs_type, autoreset_mode=mode)
    fns = [lambda: DreamEnv(CounterWorld(**OPTIONS), obs_type=obs_type)] * 5
    theirs = SyncVectorEnv(fns, autoreset_mode=AutoresetMode(mode))
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    _same(ours.reset(seed=3), theirs.reset(seed=3))
    ended = 0
    ours.action_space.seed(0)
    for _ in range(30):
        actions = ours.action_space.sample()
        (obs, *flags, info), (obs_2, *flags_2, info_2) = ours.step(actions), theirs.step(actions)
        _same(obs, obs_2)
        for mine, its in zip(flags, flags_2):
            assert mine.dtype == its.dtype
            np.testing.assert_allclose(mine, its, atol=1e-5)
        assert set(info) == set(info_2)
        for key in ("uncertainty", "continue_prob", "dream_step", "halted", "_uncertainty"):
            np.testing.assert_allclose(info[key], info_2[key], atol=1e-5)
        if "final_obs" in info:
            np.testing.assert_array_equal(info["_final_obs"], info_2["_final_obs"])
            for row in info["_final_obs"].nonzero()[0]:
                _same(_row(info["final_obs"], row), info_2["final_obs"][row])
                assert info["final_info"]["dream_step"][row] == info_2["final_info"]["dream_step"][row]
        ended += int((flags[1] | flags[2]).sum())
    assert ended > 5


def test_next_step_returns_the_final_observation_then_begins_for_nothing():
    env = DreamVectorEnv(CounterWorld(starts=()), 2, horizon=2)
    env.reset(seed=0)
    ones = np.ones((2, 1), np.float32)
    env.step(ones)
    obs, _, _, truncated, _ = env.step(ones)
    assert obs.tolist() == [[2.0], [2.0]] and truncated.all()
    obs, reward, terminated, truncated, info = env.step(np.full((2, 1), np.nan))  # ignored, whatever it is
    assert obs.tolist() == [[0.0], [0.0]] and reward.tolist() == [0.0, 0.0] and not (terminated | truncated).any()
    assert info["dream_step"].tolist() == [0, 0]


def test_same_step_keeps_the_final_observations_dense_and_masked():
    env = DreamVectorEnv(CounterWorld(starts=()), 2, autoreset_mode="SameStep")
    env.reset(seed=0, options={"horizon": [1, 5]})
    obs, _, _, truncated, info = env.step(np.ones((2, 1), np.float32))
    assert truncated.tolist() == [True, False] and obs.tolist() == [[0.0], [1.0]]
    assert info["final_obs"].shape == (2, 1) and info["final_obs"][0] == 1.0 and info["_final_obs"].tolist() == [True, False]
    assert info["final_info"]["dream_step"][0] == 1 and info["final_info"]["_dream_step"].tolist() == [True, False]
    assert not np.shares_memory(info["final_obs"], obs)
    assert "final_obs" not in env.step(_still(env))[4]


def test_disabled_refuses_to_step_what_has_ended_until_it_is_reset():
    env = DreamVectorEnv(CounterWorld(starts=()), 3, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0, options={"horizon": [1, 5, 1]})
    env.step(_still(env))
    with pytest.raises(ResetNeeded, match=r"\[0, 2\]"):
        env.step(_still(env))
    env.reset(options={"reset_mask": np.array([True, False, True])})
    assert env.step(_still(env))[4]["dream_step"].tolist() == [1, 2, 1]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_mode_is_declared_where_libraries_look(mode):
    for given in (mode, mode.value):
        env = DreamVectorEnv(CounterWorld(), 2, autoreset_mode=given)
        assert env.metadata["autoreset_mode"] is mode and env.autoreset_mode is mode
    assert "autoreset_mode" not in DreamEnv.metadata


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    "choice", [{"reset_mask": np.array([False, True, False])}, {"env_idx": [1]}, {"env_idx": torch.tensor([1])}], ids=str
)
def test_partial_resets_begin_some_slots_and_leave_the_others(mode, choice):
    env = DreamVectorEnv(CounterWorld(starts=()), 3, autoreset_mode=mode)
    env.reset(seed=0)
    env.step(np.ones((3, 1), np.float32))
    given = dict(choice)
    obs, info = env.reset(options=given)
    assert list(given) == list(choice)  # read, not popped: RecordEpisodeStatistics around us looks too
    assert obs.tolist() == [[1.0], [0.0], [1.0]] and info["_dream_step"].tolist() == [False, True, False]
    assert env.step(_still(env))[4]["dream_step"].tolist() == [2, 1, 2]


def test_partial_resets_may_carry_seeds():
    env, one = DreamVectorEnv(CounterWorld(sigma=0.3), 3), DreamEnv(CounterWorld(sigma=0.3))
    env.reset(seed=0)
    env.reset(seed=[None, 42, None], options={"env_idx": [1]})
    one.reset(seed=42)
    np.testing.assert_allclose(env.step(_still(env))[0][1], one.step(np.zeros(1))[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"reset_mask": [1, 0]}, TypeError),
        ({"reset_mask": "ab"}, TypeError),
        ({"reset_mask": [True]}, ValueError),
        ({"reset_mask": np.array([1, 0])}, TypeError),
        ({"reset_mask": np.array([True])}, ValueError),
        ({"reset_mask": np.array([False, False])}, ValueError),
        ({"env_idx": [2]}, ValueError),
        ({"env_idx": []}, (TypeError, ValueError)),
        ({"env_idx": [0.5]}, TypeError),
        ({"env_idx": [0], "reset_mask": np.array([True, False])}, ValueError),
        ({"resetmask": 1}, ValueError),
    ],
    ids=str,
)
def test_wrong_partial_resets_are_refused(options, error):
    env = DreamVectorEnv(CounterWorld(), 2)
    env.reset(seed=0)
    with pytest.raises(error):
        env.reset(options=options)


def test_a_partial_reset_needs_a_whole_one_first():
    with pytest.raises(ResetNeeded):
        DreamVectorEnv(CounterWorld(), 2).reset(options={"env_idx": [0]})


def test_a_seed_gives_the_slots_consecutive_seeds_and_lists_may_hold_none():
    env = DreamVectorEnv(CounterWorld(sigma=0.3), 3)
    env.reset(seed=5)
    first = env.step(_still(env))[0]
    env.reset(seed=[5, 6, 7])
    np.testing.assert_array_equal(env.step(_still(env))[0], first)
    env.reset(seed=[5, None, 7])
    again = env.step(_still(env))[0]
    assert (again[[0, 2]] == first[[0, 2]]).all() and again[1] != first[1]


@pytest.mark.parametrize("seed", [[1, 2], [1, 2, 3, 4], [1, -2, 3], -1], ids=str)
def test_wrong_seeds_are_refused(seed):
    with pytest.raises((ValueError, gym.error.Error)):
        DreamVectorEnv(CounterWorld(), 3).reset(seed=seed)


def test_unseeded_batches_differ_between_slots():
    env = DreamVectorEnv(CounterWorld(sigma=1.0, starts=()), 8)
    env.reset()
    assert len(set(env.step(_still(env))[0].flatten().tolist())) == 8


def test_numpy_output_has_gymnasium_s_types_and_is_the_callers():
    env = DreamVectorEnv(CounterWorld(), 2)
    env.reset(seed=0)
    obs, reward, terminated, truncated, info = first = env.step(_still(env))
    assert (obs.dtype, reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.float64, np.bool_, np.bool_)
    kept = copy.deepcopy(first)
    twin = copy.deepcopy(env)
    for array in (obs, reward, terminated, truncated, *info.values()):
        array[:] = 1
    mine, its = env.step(_still(env)), twin.step(_still(env))
    np.testing.assert_array_equal(mine[0], its[0])
    assert kept[4]["dream_step"].tolist() == [1, 1] and mine[4]["dream_step"].tolist() == [2, 2]


@pytest.mark.parametrize("obs_type", ["vector", "latent", "dict"])
def test_torch_output_equals_numpy_output_and_can_be_trained_on(obs_type):
    arrays = DreamVectorEnv(CounterWorld(**OPTIONS), 4, obs_type=obs_type, autoreset_mode="SameStep")
    tensors = DreamVectorEnv(CounterWorld(**OPTIONS), 4, obs_type=obs_type, autoreset_mode="SameStep", output="torch")
    assert tensors.metadata["torch"] is True and tensors.device == torch.device("cpu")
    _same(arrays.reset(seed=0)[0], tensors.reset(seed=0)[0])
    for _ in range(10):
        mine, its = arrays.step(_still(arrays)), tensors.step(torch.zeros(4, 1))
        _same(mine[0], its[0])
        assert its[1].dtype == torch.float32 and its[2].dtype == torch.bool
        np.testing.assert_allclose(mine[1], its[1].numpy(), rtol=1e-6)
        np.testing.assert_array_equal(mine[3], its[3].numpy())
        np.testing.assert_array_equal(mine[4]["dream_step"], its[4]["dream_step"].numpy())
    weight = torch.ones(1, requires_grad=True)
    obs = its[0]["latent"] if obs_type == "dict" else its[0]
    ((obs * weight).sum() + (its[1] * weight).sum()).backward()
    assert weight.grad is not None


def test_spaces_are_the_single_ones_in_a_batch():
    env = DreamVectorEnv(CorridorWorld(), 3)
    assert env.single_action_space == env.model.spec.action_space and env.action_space == batch_space(env.single_action_space, 3)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[0] in env.observation_space


WRONG = [
    (CounterWorld, np.zeros(3, np.float32)),
    (CounterWorld, np.zeros((2, 1), np.float32)),
    (CounterWorld, np.float32([[0], [np.nan], [0]])),
    (CounterWorld, torch.tensor([[0.0], [float("inf")], [0.0]])),
    (CounterWorld, np.zeros((3, 1), bool)),
    (CounterWorld, "left"),
    (CorridorWorld, np.array([0, 3, 0])),
    (CorridorWorld, np.array([0.0, 1.0, 0.0])),
    (CorridorWorld, torch.tensor([0, -1, 0])),
    (CorridorWorld, np.array([[0], [1], [2]])),
]


@pytest.mark.parametrize(("world", "wrong"), WRONG, ids=str)
def test_invalid_actions_leave_all_dreams_as_they_were(world, wrong):
    env, twin = DreamVectorEnv(world(), 3), DreamVectorEnv(world(), 3)
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(InvalidAction, match=r"expected .*received"):
        env.step(wrong)
    env.action_space.seed(1)
    actions = env.action_space.sample()
    np.testing.assert_array_equal(env.step(actions)[0], twin.step(actions)[0])


def test_nan_from_the_model_names_the_slots_and_reset_recovers():
    env = DreamVectorEnv(CounterWorld(nan_at=1.0, starts=()), 3)
    env.reset(seed=0)
    with pytest.raises(NonFiniteDreamError, match=r"slots \[1\]"):
        env.step(np.float32([[0], [1], [0]]))
    with pytest.raises(ResetNeeded):
        env.step(_still(env))
    env.reset()
    env.step(_still(env))


def test_rows_that_begin_anew_may_have_ended_in_nonsense():
    env = DreamVectorEnv(CounterWorld(nan_at=1.9, bound=0.5, starts=()), 2)
    env.reset(seed=0)
    assert env.step(np.ones((2, 1), np.float32))[2].all()
    obs, reward, *_ = env.step(np.ones((2, 1), np.float32))  # x would be 2, which is NaN here; but these rows are reset
    assert obs.tolist() == [[0.0], [0.0]] and reward.tolist() == [0.0, 0.0]


def test_on_an_accelerator_what_was_wrong_is_finite_at_first_and_raised_by_the_next_step():
    env = DreamVectorEnv(CounterWorld(nan_at=1.0, starts=()), 2, output="torch", obs_type="latent")
    env._alarm = Alarm(torch.device("cpu"))  # what the constructor does for a device other than the CPU
    env.reset(seed=0)
    env._alarm = Alarm(torch.device("cpu"))
    obs, reward, *_ = env.step(torch.tensor([[1.0], [0.5]]))
    assert torch.isfinite(obs).all() and torch.isfinite(reward).all()
    with pytest.raises(NonFiniteDreamError):
        env.step(torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("flag", "error"), [("not_finite", NonFiniteDreamError), ("invalid_action", InvalidAction), ("stepped_past_end", ResetNeeded)]
)
def test_an_alarm_goes_off_once(flag, error):
    alarm = Alarm(torch.device("cpu"))
    alarm.check()
    flags = {"not_finite": torch.zeros(2, dtype=torch.bool), "invalid_action": None, "stepped_past_end": None}
    alarm.set(**{**flags, flag: torch.tensor([False, True])})
    with pytest.raises(error):
        alarm.check()
    alarm.check()


def test_step_after_close_is_an_error_until_reset_reopens():
    env = DreamVectorEnv(CounterWorld(), 2)
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.step(_still(env))
    env.reset()
    env.step(_still(env))


@pytest.mark.parametrize("what", ["step", "render", "get_state"])
def test_reset_comes_first(what):
    env = DreamVectorEnv(CounterWorld(), 2, render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.step(_still(env)) if what == "step" else getattr(env, what)()


def test_render_gives_one_picture_per_slot_and_call_finds_it():
    env = DreamVectorEnv(PictureWorld(), 3, render_mode="rgb_array", obs_type="latent")
    env.reset(seed=0)
    frames = env.render()
    assert isinstance(frames, tuple) and len(frames) == 3 and frames[0].shape == (288, 288, 3)
    np.testing.assert_array_equal(env.call("render"), frames)


def test_attributes_can_be_asked_for_and_set_as_in_gymnasium_s_batches():
    env = DreamVectorEnv(CounterWorld(sigma=1.0), 2, max_episode_steps=7)
    assert env.call("_max_episode_steps") == (7, 7) and env.get_attr("render_mode") == (None, None)
    env.set_attr("temperature", 0.0)
    assert env.get_attr("temperature") == (0.0, 0.0)
    env.reset(seed=0, options={"initial_state": 1})
    assert env.step(_still(env))[0].tolist() == [[0.25], [0.25]]
    with pytest.raises(ValueError, match="share"):
        env.set_attr("temperature", [0.0, 1.0])
    with pytest.raises(AttributeError):
        env.call("no_such_thing")


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2])
def test_saved_states_restore_with_their_pending_ends(mode):
    env = DreamVectorEnv(CounterWorld(**OPTIONS), 4, autoreset_mode=mode)
    env.reset(seed=0)
    for _ in range(6):
        env.step(_still(env))
    saved = env.get_state()
    future = [env.step(_still(env))[0] for _ in range(8)]
    other = DreamVectorEnv(CounterWorld(**OPTIONS), 4, autoreset_mode=mode)
    other.set_state(saved)
    np.testing.assert_array_equal([other.step(_still(env))[0] for _ in range(8)], future)


def test_one_dream_forks_into_a_batch():
    one = DreamEnv(CounterWorld(sigma=0.5, bound=99))
    one.reset(seed=0)
    seen = one.step(np.zeros(1))[0]
    many = DreamVectorEnv(CounterWorld(sigma=0.5, bound=99), 5)
    np.testing.assert_array_equal(many.set_state(one.get_state(), seed=100), np.tile(seen, (5, 1)))
    assert len(set(many.step(_still(many))[0].flatten().tolist())) == 5
    with pytest.raises(ValueError, match="slots"):
        DreamVectorEnv(CounterWorld(), 3).set_state(many.get_state())


def test_four_thousand_dreams_work():
    env = DreamVectorEnv(CounterWorld(**OPTIONS), 4096, obs_type="latent", autoreset_mode="SameStep")
    env.reset(seed=0)
    for _ in range(5):
        obs, reward, *_ = env.step(_still(env))
    assert obs.shape == (4096, 2) and np.isfinite(reward).all()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"num_envs": 0}, ValueError),
        ({"output": "jax"}, ValueError),
        ({"autoreset_mode": "Never"}, ValueError),
        ({"frameskip": 1}, TypeError),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(wrong, error):
    with pytest.raises(error, match=next(iter(wrong))):
        DreamVectorEnv(CounterWorld(), **wrong)


def test_only_rows_that_end_are_decoded_again():
    env = DreamVectorEnv(PictureWorld(starts=()), 8, autoreset_mode="SameStep")
    env.reset(seed=0, options={"horizon": [1] + [9] * 7})
    before = env.model.decoded
    env.step(_still(env))
    assert env.model.decoded - before == 8 + 1


def _row(obs, row):
    return {key: value[row] for key, value in obs.items()} if isinstance(obs, dict) else obs[row]


def _same(mine, its):
    if isinstance(mine, tuple):
        return [_same(a, b) for a, b in zip(mine, its)]
    if isinstance(mine, dict):
        assert set(mine) == set(its)
        return [_same(mine[key], its[key]) for key in mine]
    np.testing.assert_allclose(np.asarray(mine), np.asarray(its), atol=1e-5)
    return None
