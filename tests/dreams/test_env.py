"""DreamEnv: spaces, laziness, errors, options, saving, rendering."""

import math
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded

from dreamgym.dreams.awake import LatentObservation
from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.errors import NonFiniteDreamError
from tests.toys import BlindWorld, CorridorWorld, CounterWorld, PictureWorld, RealCounter

STILL = np.zeros(1, np.float32)


@pytest.mark.parametrize(("world", "kind"), [(CounterWorld, "vector"), (PictureWorld, "pixels")])
def test_the_models_own_kind_is_the_default_with_the_real_space(world, kind):
    env = DreamEnv(world())
    assert env.obs_type == kind
    assert env.observation_space == env.model.spec.observation_space and env.action_space == env.model.spec.action_space


def test_latent_and_dict_spaces_have_the_features_bounds():
    env = DreamEnv(PictureWorld(), obs_type="dict")
    latent = spaces.Box(np.float32([-20, -1]), np.float32([20, 1]))
    assert env.observation_space == spaces.Dict({"pixels": env.model.spec.observation_space, "latent": latent})
    assert DreamEnv(PictureWorld(), obs_type="latent").observation_space == latent


@pytest.mark.parametrize(
    ("world", "wrong"), [(CounterWorld, "pixels"), (PictureWorld, "vector"), (BlindWorld, "vector"), (CounterWorld, "x")]
)
def test_an_obs_type_that_the_model_lacks_is_refused_with_the_choices(world, wrong):
    with pytest.raises(ValueError, match=r"offers .*'latent'"):
        DreamEnv(world(), obs_type=wrong)


def test_a_model_that_cannot_decode_is_latent():
    assert DreamEnv(BlindWorld()).obs_type == "latent"


def test_nothing_is_decoded_unless_somebody_looks():
    env = DreamEnv(PictureWorld(), obs_type="latent", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(STILL)
    assert env.model.decoded == 0
    env.render()
    assert env.model.decoded == 1


def test_observations_are_the_state_that_the_model_decodes():
    env = DreamEnv(PictureWorld(starts=()), obs_type="dict")
    env.reset(seed=0)
    obs = env.step(np.ones(1, np.float32))[0]
    assert (obs["pixels"] == 138).all() and obs["latent"].tolist() == [1.0, np.tanh(np.float32(1.0))]


def test_info_has_small_fixed_keys():
    env = DreamEnv(CounterWorld(starts=(), alive=0.75))
    assert env.reset(seed=0)[1] == {"uncertainty": 0.0, "continue_prob": 1.0, "dream_step": 0, "halted": False}
    assert env.step(np.float32([0.5]))[4] == {"uncertainty": 0.5, "continue_prob": 0.75, "dream_step": 1, "halted": False}


def test_a_halt_is_told_in_info():
    env = DreamEnv(CounterWorld(starts=()), max_uncertainty=0.5)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(np.ones(1, np.float32))
    assert (terminated, truncated, info["halted"]) == (True, False, True)


def test_seeds_make_whole_histories_reproducible():
    histories = []
    for _ in range(2):
        env = DreamEnv(CounterWorld(sigma=0.2))
        starts = [env.reset(seed=11)[0], env.reset()[0], env.reset()[0]]
        histories.append(np.concatenate([*starts, env.step(STILL)[0]]))
    np.testing.assert_array_equal(*histories)


def test_without_a_seed_dreams_differ():
    starts = set()
    for _ in range(4):
        env = DreamEnv(CounterWorld(sigma=1.0))
        env.reset()
        starts.add(float(env.step(STILL)[0][0]))
    assert len(starts) == 4


@pytest.mark.parametrize("what", ["step", "render", "get_state"])
def test_reset_comes_first(what):
    env = DreamEnv(CounterWorld(), render_mode="rgb_array")
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(STILL) if what == "step" else getattr(env, what)()


def test_close_twice_then_reset_reopens():
    env = DreamEnv(CounterWorld())
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(ResetNeeded):
        env.step(STILL)
    env.reset()
    env.step(STILL)


WRONG_BOX = [
    np.float32([np.nan]),
    np.float32([np.inf]),
    np.zeros(2, np.float32),
    np.float32(0.0),
    [[0.0]],
    "left",
    None,
    [True],
    [1j],
    {"a": 1},
    torch.tensor([float("nan")]),
]
WRONG_CLASS = [3, -1, 0.0, [0], np.array([1]), "left", None, torch.tensor([1.0]), np.float32(1)]


@pytest.mark.parametrize(("world", "wrong"), [(CounterWorld, w) for w in WRONG_BOX] + [(CorridorWorld, w) for w in WRONG_CLASS], ids=str)
def test_invalid_actions_name_what_was_expected_and_leave_the_dream_as_it_was(world, wrong):
    env, twin = DreamEnv(world()), DreamEnv(world())
    env.reset(seed=1)
    twin.reset(seed=1)
    with pytest.raises(InvalidAction, match=r"expected .*(Box|Discrete).*received"):
        env.step(wrong)
    env.action_space.seed(0)
    action = env.action_space.sample()
    (mine, *rest), (its, *others) = env.step(action), twin.step(action)
    assert (mine == its).all() and rest == others


@pytest.mark.parametrize(
    "action",
    [np.float16([0.5]), np.float64([0.5]), [0.5], (0.5,), torch.tensor([0.5]), torch.tensor([0.5], requires_grad=True).double()],
    ids=str,
)
def test_actions_of_many_types_are_accepted(action):
    env = DreamEnv(CounterWorld(starts=()))
    env.reset(seed=0)
    assert env.step(action)[1] == 0.5


@pytest.mark.parametrize("action", [2, np.int64(2), np.array(2), torch.tensor(2), np.uint8(2)], ids=str)
def test_classes_of_many_types_are_accepted(action):
    env = DreamEnv(CorridorWorld())
    env.reset(seed=0)
    assert env.step(action)[0] == 1.0


@pytest.mark.parametrize("action", [np.float32([9.0]), np.float64([1e300]), [7]], ids=str)
def test_finite_actions_out_of_bounds_are_clipped_in_a_copy(action):
    env = DreamEnv(CounterWorld(starts=()))
    env.reset(seed=0)
    if isinstance(action, np.ndarray):
        action.setflags(write=False)
    assert env.step(action)[1] == 1.0


def test_predictions_beyond_the_observation_space_are_clipped_to_it():
    env = DreamEnv(CounterWorld(starts=(9.5,), first=(True,), bound=99))
    env.reset(seed=0)
    assert env.step(np.ones(1, np.float32))[0] == 10.0


def test_options_hold_for_one_episode():
    env = DreamEnv(CounterWorld(sigma=1.0, bound=99))
    env.reset(seed=0, options={"horizon": 1, "temperature": 0.0, "initial_state": 1})
    obs, _, _, truncated, _ = env.step(STILL)
    assert obs == 0.25 and truncated
    env.reset(seed=0)
    obs, _, _, truncated, _ = env.step(STILL)
    assert abs(obs) != 0.25 and not truncated


def test_unknown_options_are_refused_with_the_known():
    with pytest.raises(ValueError, match=r"\['horizn'\].*initial_state.*context.*temperature.*horizon"):
        DreamEnv(CounterWorld()).reset(options={"horizn": 3})


def test_options_are_neither_changed_nor_kept():
    options = {"initial_state": 1, "horizon": 2}
    DreamEnv(CounterWorld()).reset(options=options)
    assert options == {"initial_state": 1, "horizon": 2}


def test_unknown_arguments_are_type_errors_that_name_them():
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        DreamEnv(CounterWorld(), frameskip=1)


def test_nan_from_the_model_is_raised_at_once_and_reset_recovers():
    env = DreamEnv(CounterWorld(nan_at=1.0, starts=()))
    env.reset(seed=0)
    with pytest.raises(NonFiniteDreamError):
        env.step(np.ones(1, np.float32))
    with pytest.raises(ResetNeeded):
        env.step(STILL)
    env.reset()
    assert env.step(STILL)[1] == 0.0


def test_stepping_past_the_end_warns():
    env = DreamEnv(CounterWorld(), horizon=1)
    env.reset(seed=0)
    env.step(STILL)
    with pytest.warns(UserWarning, match="ended"):
        env.step(STILL)


def test_saved_states_restore_and_fork():
    env, other = DreamEnv(CounterWorld(sigma=0.3, bound=99)), DreamEnv(CounterWorld(sigma=0.3, bound=99))
    env.reset(seed=0)
    seen = env.step(STILL)[0]
    saved = env.get_state()
    future = [env.step(STILL)[0] for _ in range(3)]
    np.testing.assert_array_equal(other.set_state(saved), seen)
    np.testing.assert_array_equal([other.step(STILL)[0] for _ in range(3)], future)
    other.set_state(saved, seed=99)
    assert (other.step(STILL)[0] != future[0]).all()


def test_a_saved_end_is_still_an_end():
    env = DreamEnv(CounterWorld(), horizon=1)
    env.reset(seed=0)
    env.step(STILL)
    saved = env.get_state()
    env.reset()
    env.set_state(saved)
    with pytest.warns(UserWarning, match="ended"):
        env.step(STILL)


@pytest.mark.parametrize("world", [CounterWorld, PictureWorld, BlindWorld])
def test_rendering_is_a_new_picture_of_display_size_and_changes_nothing(world):
    env, twin = DreamEnv(world(), render_mode="rgb_array"), DreamEnv(world())
    env.reset(seed=0)
    twin.reset(seed=0)
    first, second = env.render(), env.render()
    assert first.dtype == np.uint8 and first.shape[2] == 3 and min(first.shape[:2]) >= 256
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, second)
    action = np.zeros(env.action_space.shape, np.float32)
    np.testing.assert_array_equal(env.step(action)[0], twin.step(action)[0])


def test_pictures_are_enlarged_by_whole_pixels_and_bars_show_signs():
    env = DreamEnv(PictureWorld(starts=()), render_mode="rgb_array", render_size=100)
    env.reset(seed=0)
    assert env.render().shape == (108, 108, 3) and (env.render() == 128).all()
    bars = {}
    for start, x in ((1, 0.25), (2, -0.25)):
        env = DreamEnv(CounterWorld(), render_mode="rgb_array")
        env.reset(options={"initial_state": start})
        bars[x] = env.render()
    paper = bars[0.25][0, 0]
    assert (bars[0.25][126, 128] != paper).any() and (bars[0.25][130, 128] == paper).all()
    assert (bars[-0.25][126, 128] == paper).all() and (bars[-0.25][130, 128] != paper).any()


def test_render_without_a_mode_warns_and_unknown_modes_are_refused():
    env = DreamEnv(CounterWorld())
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None
    with pytest.raises(ValueError, match="rgb_array"):
        DreamEnv(CounterWorld(), render_mode="ascii")


def test_metadata_tells_the_real_frame_rate():
    assert DreamEnv.metadata["render_modes"] == ["rgb_array"] and DreamEnv(CounterWorld()).metadata["render_fps"] == 10.0
    assert DreamEnv.metadata["render_fps"] == 30


def test_spaces_are_not_shared_between_environments():
    world = CounterWorld()
    one, other = DreamEnv(world), DreamEnv(world)
    one.action_space.seed(0)
    first = one.action_space.sample()
    one.action_space.seed(0)
    other.action_space.sample()
    np.testing.assert_array_equal(one.action_space.sample(), first)


def test_gymnasium_s_time_limit_and_ours_agree():
    env = gym.wrappers.TimeLimit(DreamEnv(CounterWorld(), max_episode_steps=4), 4)
    env.reset(seed=0)
    assert [env.step(STILL)[3] for _ in range(4)] == [False, False, False, True]


def test_uncertainty_limit_infinity_is_allowed():
    DreamEnv(CounterWorld(), max_uncertainty=math.inf)


def test_a_policy_may_train_on_what_get_state_returns():
    env = DreamEnv(CounterWorld())
    env.reset(seed=0)
    env.step(STILL)
    weight = torch.ones(1, requires_grad=True)
    (env.get_state().state.x * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.slow
def test_a_single_latent_dream_of_a_small_model_makes_three_thousand_steps_a_second():
    env = DreamEnv(CounterWorld(sigma=0.1, steps=10_000, bound=1e9), obs_type="latent")
    env.reset(seed=0)
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(500):
            env.step(STILL)
        best = max(best, 500 / (time.perf_counter() - begin))
    assert best >= 3_000


@pytest.mark.parametrize("door", [DreamEnv, DreamVectorEnv, lambda model: LatentObservation(RealCounter(), model)])
@pytest.mark.parametrize("name", ["Pendulum", Path("Pendulum")], ids=repr)
def test_a_name_where_a_model_is_expected_says_how_to_load_it(door, name):
    with pytest.raises(TypeError, match=r"expected a model.*WorldModel\.from_pretrained\('Pendulum'\)"):
        door(name)


def test_what_is_not_a_model_is_told_what_it_lacks():
    with pytest.raises(TypeError, match="a RealCounter, which lacks noise_lanes, initial, predict, features"):
        DreamEnv(RealCounter())
