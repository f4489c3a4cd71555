"""Real envs come by id, preprocessed by default, and their Spec says what a dream must know."""

import dataclasses
import importlib

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dreamgym.envs import DEFAULT_PREPROCESS, applied, default_preprocess, make_env, make_from_spec, make_spec, preprocess
from dreamgym.errors import MissingDependencyError
from dreamgym.structs import Preprocess


def test_classic_control_is_float32_and_its_spec_is_the_envs():
    env = make_env("Pendulum-v1")
    spec = make_spec(env, "Pendulum-v1")
    assert (spec.max_episode_steps, spec.fps, spec.preprocess) == (200, 30.0, Preprocess())
    assert spec.observation_space == env.observation_space and spec.observation_space.dtype == np.float32


def test_car_racing_comes_with_its_default_preprocessing():
    pytest.importorskip("Box2D")
    env = make_env("CarRacing-v3")
    spec = make_spec(env, "CarRacing-v3")
    assert applied(env) == DEFAULT_PREPROCESS["CarRacing-v3"] == spec.preprocess
    assert (spec.observation_space.shape, spec.action_size, spec.max_episode_steps, spec.fps) == ((64, 64, 3), 2, 250, 12.5)


def test_score_on_car_racings_dashboard_is_hidden():
    pytest.importorskip("Box2D")
    env = make_env("CarRacing-v3", preprocess=dataclasses.replace(DEFAULT_PREPROCESS["CarRacing-v3"], size=None))
    assert env.reset(seed=0)[0][84:96, 0:11].max() == 0


def test_car_racing_with_discrete_actions_needs_no_pedals():
    pytest.importorskip("Box2D")
    env = make_env("CarRacing-v3", continuous=False)
    assert make_spec(env, "CarRacing-v3").action_size == 5 and not applied(env).merge_pedals


def test_episode_steps_are_frames_divided_by_repeat_rounded_up():
    env = make_env("Pendulum-v1", preprocess=Preprocess(action_repeat=3), max_episode_steps=10)
    spec = make_spec(env, "Pendulum-v1")
    env.reset(seed=0)
    steps = 1
    while not env.step(np.zeros(1, np.float32))[3]:
        steps += 1
    assert steps == spec.max_episode_steps == 4 and spec.fps == 10.0


def test_a_spec_rebuilds_its_env():
    spec = make_spec(make_env("Pendulum-v1", preprocess=Preprocess(action_repeat=2)), "Pendulum-v1")
    assert make_spec(make_env(spec.env_id, preprocess=spec.preprocess), spec.env_id) == spec


def test_gymnasium_rebuilds_a_preprocessed_env_from_its_json():
    env = make_env("Pendulum-v1", preprocess=Preprocess(action_repeat=2))
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert applied(twin) == Preprocess(action_repeat=2)


def test_gymnasiums_checker_is_content(recwarn):
    check_env(preprocess(gym.make("MountainCarContinuous-v0").unwrapped, Preprocess(action_repeat=2)))
    assert not [str(warning.message) for warning in recwarn if "wrapped" not in str(warning.message)]


def test_an_id_that_would_import_a_module_is_refused():
    with pytest.raises(ValueError, match="import"):
        make_env("os:Pendulum-v1")


def test_unknown_id_gives_gymnasiums_advice():
    with pytest.raises(gym.error.NameNotFound):
        make_env("Pendulom-v1")


@pytest.mark.parametrize(
    "env_id,module,extra",
    [
        ("CarRacing-v3", "Box2D", "car-racing"),
        ("VizdoomTakeCover-v1", "vizdoom.gymnasium_wrapper", "doom"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("HalfCheetah-v5", "mujoco", "dmc"),
        ("dm_control/cartpole-swingup-v0", "dm_control", "dmc"),
    ],
)
def test_missing_package_is_named_with_its_extra(env_id, module, extra, monkeypatch):
    original = importlib.import_module

    def without(name, *rest):
        if name == module:
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingDependencyError, match=rf"dreamgym\[{extra}\]"):
        make_env(env_id)


@pytest.mark.parametrize(
    "env_id,expected",
    [
        ("CarRacing-v3", DEFAULT_PREPROCESS["CarRacing-v3"]),
        ("dm_control/walker-walk-pixels-v0", Preprocess(action_repeat=2)),
        ("ALE/Breakout-v5", Preprocess(size=64, grey=True, action_repeat=4)),
        ("Pendulum-v1", Preprocess()),
        ("mine/ALE-v0", Preprocess()),
    ],
)
def test_default_preprocessing_goes_by_id_and_then_by_namespace(env_id, expected):
    assert default_preprocess(env_id) == expected


def test_gymnasiums_mujoco_draws_without_a_display(monkeypatch):
    pytest.importorskip("mujoco")
    chosen = []
    monkeypatch.setattr("dreamgym.envs.make.choose_renderer", lambda: chosen.append(True))
    make_env("InvertedPendulum-v5").close()
    assert chosen


def test_spec_of_an_env_without_time_limit_is_refused():
    with pytest.raises(ValueError, match="max_episode_steps"):
        make_spec(make_env("Pendulum-v1", max_episode_steps=-1), "Pendulum-v1")


def test_spec_with_other_preprocessing_than_the_envs_is_refused():
    with pytest.raises(ValueError, match="preprocessed"):
        make_spec(make_env("Pendulum-v1"), "Pendulum-v1", Preprocess(action_repeat=2))


def test_atari_is_an_image_env():
    pytest.importorskip("ale_py")
    env = make_env("ALE/Pong-v5", preprocess=Preprocess(size=64), max_episode_steps=100)
    spec = make_spec(env, "ALE/Pong-v5")
    assert spec.is_image and env.reset(seed=0)[0].shape == (64, 64, 3)
    env.close()


class Undrawn(gym.Env):
    """Never ends by itself, and knows no render_mode."""

    observation_space = action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.fixture
def undrawn():
    gym.register("Undrawn-v0", entry_point=Undrawn)
    yield "Undrawn-v0"
    gym.registry.pop("Undrawn-v0")


def test_an_env_that_knows_no_render_mode_is_made_and_its_missing_limit_told(undrawn):
    with pytest.raises(ValueError, match=r"register it with max_episode_steps=.*make_env \(env_kwargs"):
        make_spec(make_env(undrawn), undrawn)


def test_an_env_made_from_a_spec_has_the_limit_of_the_spec(undrawn):
    for env_id, repeat, frames in ((undrawn, 2, 8), ("Pendulum-v1", 3, 10), ("Pendulum-v1", 1, 200)):
        kwargs = {"preprocess": Preprocess(action_repeat=repeat)}
        spec = make_spec(make_env(env_id, max_episode_steps=frames, **kwargs), env_id)
        env = make_from_spec(spec)
        env.reset(seed=0)
        steps = 1
        while not env.step(np.zeros(1, np.float32))[3]:
            steps += 1
        assert steps == spec.max_episode_steps
