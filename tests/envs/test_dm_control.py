"""dm_control's tasks are gymnasium envs: seeded, float32, whole after pickling, and drawn without a display."""

import copy
import os
import pickle
import subprocess
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv

from dreamgym.envs import (
    PLANET_ACTION_REPEAT,
    DMControlEnv,
    default_preprocess,
    dm_control,
    make_env,
    make_from_spec,
    make_spec,
    planet_action_repeat,
    register_dm_control,
)
from dreamgym.errors import MissingDependencyError
from dreamgym.structs import Preprocess

pytest.importorskip("dm_control")
SWINGUP, PIXELS, DICT = (f"dm_control/cartpole-swingup{variant}-v0" for variant in ("", "-pixels", "-dict"))
register_dm_control()
can_draw = pytest.mark.skipif(os.environ.get("MUJOCO_GL") == "disabled", reason="no EGL or OSMesa here")


@pytest.fixture
def env(request):
    made = gym.make(getattr(request, "param", SWINGUP))
    yield made
    made.close()


def play(env, seed, steps=12):
    """The observations [steps+1] and rewards of a seeded episode under seeded actions."""
    rng = np.random.default_rng(0)
    rows, rewards = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        obs, reward, *_ = env.step(rng.uniform(env.action_space.low, env.action_space.high))
        rows.append(obs)
        rewards.append(reward)
    return np.stack(rows), rewards


OTHERS = ["dm_control/reacher-easy-v0", "dm_control/lqr-lqr_2_1-v0", "dm_control/swimmer-swimmer6-v0"]  # they change their own models


@pytest.mark.parametrize("env", [SWINGUP, *OTHERS], indirect=True)
def test_equal_seeds_give_equal_episodes_in_an_old_env_and_a_new_one(env):
    play(env, seed=7)
    old, fresh = play(env, seed=1), play(gym.make(env.spec.id), seed=1)
    assert np.array_equal(old[0], fresh[0]) and old[1] == fresh[1]
    assert not np.array_equal(play(env, seed=2)[0], old[0])


def test_episodes_after_a_seeded_one_follow_from_its_seed(env):
    other = gym.make(SWINGUP)
    firsts = []
    for each in (env, other):
        each.reset(seed=3)
        firsts.append([each.reset()[0] for _ in range(2)])
    assert np.array_equal(*firsts) and not np.array_equal(*firsts[0])


def test_state_is_the_tasks_observations_one_after_the_other(env):
    obs, _ = env.reset(seed=0)
    task, physics = env.unwrapped._world().task, env.unwrapped._world().physics
    expected = np.concatenate([np.ravel(value) for value in task.get_observation(physics).values()])
    assert obs.dtype == np.float32 and obs in env.observation_space and np.allclose(obs, expected)


def test_an_episode_of_1000_control_steps_ends_truncated(env):
    env.reset(seed=0)
    for step in range(1, 1001):
        *_, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        assert not terminated and truncated == (step == 1000)


def test_lqr_at_rest_is_terminated_and_then_wants_a_reset():
    env = gym.make("dm_control/lqr-lqr_2_1-v0").unwrapped
    env.reset(seed=0)
    with env._world().physics.reset_context():
        env._world().physics.data.qpos[:] = 0.0
    *_, terminated, truncated, _ = env.step(np.zeros(1))
    assert terminated and not truncated
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(1))


def test_actions_are_clipped_to_the_bounds_and_nonsense_is_refused(env):
    env.reset(seed=0)
    beyond = env.step(np.array([5.0]))[0]
    env.reset(seed=0)
    assert np.array_equal(env.step(np.array([1.0]))[0], beyond)
    for nonsense in ([np.nan], [0.0, 0.0]):
        with pytest.raises(InvalidAction, match="1 finite"):
            env.unwrapped.step(np.array(nonsense))


def test_actuators_without_bounds_get_some():
    assert np.array_equal(gym.make("dm_control/lqr-lqr_6_2-v0").action_space.high, [10.0, 10.0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_is_a_fresh_env_with_the_same_spec_and_seeds(env, copied):
    env.reset(seed=0)
    twin = copied(env)
    assert twin.spec == env.spec and np.array_equal(twin.reset()[0], env.reset()[0])


def test_reset_opens_a_closed_env_again(env):
    before = play(env, seed=0)[0]
    env.close()
    env.close()
    assert np.array_equal(play(env, seed=0)[0], before)


@pytest.mark.parametrize("env_id", [SWINGUP, pytest.param(PIXELS, marks=can_draw), pytest.param(DICT, marks=can_draw)])
def test_checkers_are_content(env_id, recwarn):
    check_env(gym.make(env_id, render_mode="rgb_array").unwrapped, skip_render_check=os.environ.get("MUJOCO_GL") == "disabled")
    assert not [str(warning.message) for warning in recwarn if "infinity" not in str(warning.message)]
    pytest.importorskip("stable_baselines3.common.env_checker").check_env(gym.make(env_id))


@can_draw
def test_pixels_are_a_bright_moving_picture():
    env = gym.make(PIXELS)
    rows, _ = play(env, seed=0)
    assert rows.shape == (13, 64, 64, 3) and rows.dtype == np.uint8
    assert rows.mean() > 30 and rows.std() > 10 and (rows[0] != rows[-1]).any()


@can_draw
def test_pixels_are_what_dm_control_draws_without_shadows_and_multisampling():
    env = gym.make(PIXELS)
    rows, _ = play(env, seed=0)
    physics = env.unwrapped._world().physics
    assert physics.model.vis.quality.shadowsize == physics.model.vis.quality.offsamples == 0
    assert np.array_equal(physics.render(64, 64, camera_id=0), rows[-1])


@can_draw
def test_two_envs_drawn_in_turn_see_what_each_sees_alone():
    alone = play(gym.make(PIXELS), seed=0)[0]
    env, other = gym.make(PIXELS, render_mode="rgb_array"), gym.make("dm_control/walker-walk-pixels-v0")
    rng = np.random.default_rng(0)
    rows = [env.reset(seed=0)[0]]
    other.reset(seed=0)
    for _ in range(12):
        rows.append(env.step(rng.uniform(env.action_space.low, env.action_space.high))[0])
        other.step(np.zeros(6))
        env.render()
    assert np.array_equal(rows, alone)


@can_draw
def test_dict_holds_what_the_other_two_variants_show():
    both = gym.make(DICT).reset(seed=0)[0]
    assert np.array_equal(both["pixels"], gym.make(PIXELS).reset(seed=0)[0])
    assert np.array_equal(both["state"], gym.make(SWINGUP).reset(seed=0)[0])


@can_draw
def test_films_have_the_size_asked_for():
    env = gym.make(SWINGUP, render_mode="rgb_array", render_size=(48, 96))
    env.reset(seed=0)
    assert env.render().shape == (48, 96, 3) and env.render().mean() > 30


@can_draw
def test_frames_inside_a_repeat_are_not_drawn_and_the_rest_is_the_same(monkeypatch):
    drawn = []
    draw = DMControlEnv._draw
    monkeypatch.setattr(DMControlEnv, "_draw", lambda self, size: drawn.append(size) or draw(self, size))

    def episode(skip_render):  # the last repeat is cut short by the time limit
        settings = Preprocess(action_repeat=4, skip_render=skip_render)
        return play(make_env(PIXELS, preprocess=settings, max_episode_steps=38), seed=0, steps=10)

    seen, rewards = episode(skip_render=True)
    assert len(drawn) == 11
    plain, plain_rewards = episode(skip_render=False)
    assert np.array_equal(seen, plain) and rewards == plain_rewards and len(drawn) == 11 + 39


@can_draw
def test_spawned_workers_see_what_a_single_env_sees():
    alone = gym.make(PIXELS).reset(seed=1)[0]
    workers = AsyncVectorEnv([partial(make_env, PIXELS)], context="spawn")
    try:
        assert np.array_equal(workers.reset(seed=1)[0][0], alone)
    finally:
        workers.close()


@can_draw
def test_a_process_forked_from_one_that_drew_says_so_instead_of_hanging(monkeypatch):
    env = gym.make(PIXELS)
    env.reset(seed=0)
    monkeypatch.setattr(dm_control, "_drawn_by", os.getpid() + 1)
    with pytest.raises(RuntimeError, match="spawn"):
        env.reset(seed=0)


HEADLESS = """
import os
for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
    os.environ.pop(name, None)
from dreamgym.envs import dm_control, make_env
dm_control._loads = {loads}
for variant in ("", "-pixels"):
    try:
        print(abs(make_env(f"dm_control/cartpole-swingup{{variant}}-v0").reset(seed=0)[0]).mean() > 0)
    except ImportError as error:
        print(error)
print(os.environ["MUJOCO_GL"])
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="macOS and Windows draw without asking")


def headless(loads):
    ran = subprocess.run([sys.executable, "-c", HEADLESS.format(loads=loads)], capture_output=True, text=True, timeout=60)
    assert not ran.returncode, ran.stderr
    return ran.stdout.splitlines()


@can_draw
@linux
def test_pixels_need_neither_a_display_nor_an_environment_variable():
    assert headless("dm_control._loads") in (["True", "True", "egl"], ["True", "True", "osmesa"])


@linux
def test_without_graphics_libraries_states_work_and_pixels_say_what_to_install():
    state, pixels, chosen = headless("lambda library: False")
    assert (state, chosen) == ("True", "disabled") and "libegl1" in pixels


def test_a_choice_of_renderer_is_left_alone(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert not dm_control.choose_renderer() and os.environ["MUJOCO_GL"] == "osmesa"


def test_every_task_has_three_ids():
    suite = pytest.importorskip("dm_control.suite")
    ours = [name for name, spec in gym.registry.items() if spec.entry_point == "dreamgym.envs.dm_control:DMControlEnv"]
    assert len(ours) == 3 * len(suite.ALL_TASKS) and {"dm_control/humanoid_CMU-run-dict-v0", PIXELS} <= set(ours)


def test_ids_that_another_package_holds_stay_its_own_but_make_env_gives_ours(monkeypatch):
    theirs = gym.envs.registration.EnvSpec(SWINGUP, entry_point="shimmy.dm_control_compatibility:DmControlCompatibilityV0")
    monkeypatch.setitem(gym.registry, SWINGUP, theirs)
    register_dm_control()
    assert gym.spec(SWINGUP) is theirs and isinstance(make_env(SWINGUP).unwrapped, DMControlEnv)


def test_a_task_that_the_suite_has_not_is_refused():
    with pytest.raises(gym.error.NameNotFound, match="cartpole-swingup"):
        make_env("dm_control/cartpole-swingupp-v0")
    with pytest.raises(ValueError, match="cartpole-swingup"):
        DMControlEnv("cartpole", "swingdown")


@pytest.mark.parametrize("wrong", [{"obs": "pixel"}, {"render_mode": "human"}])
def test_unknown_words_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DMControlEnv("cartpole", "swingup", **wrong)


def test_a_mujoco_that_does_not_fit_is_named(monkeypatch):
    def broken(*_, **__):
        raise AttributeError("'MjModel' object has no attribute 'flex_vertedge'")

    monkeypatch.setattr(dm_control._suite(), "load", broken)
    with pytest.raises(MissingDependencyError, match=r"mujoco>=3\.17,<4"):
        DMControlEnv("cartpole", "swingup")


def test_spec_counts_agent_steps_and_rebuilds_its_env():
    env = make_env(SWINGUP)
    spec = make_spec(env, SWINGUP)
    assert (spec.max_episode_steps, spec.fps, spec.action_size, spec.preprocess) == (500, 50.0, 1, Preprocess(action_repeat=2))
    assert make_spec(make_from_spec(spec), SWINGUP) == spec
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert np.array_equal(play(twin, seed=0)[0], play(env, seed=0)[0])


def test_planets_repeats_hold_for_every_variant_and_dreamers_for_the_rest():
    ids = (SWINGUP, PIXELS, "dm_control/cheetah-run-v0", "dm_control/hopper-hop-v0")
    assert [planet_action_repeat(env_id) for env_id in ids] == [8, 8, 4, 2]
    assert planet_action_repeat("dm_control/cartpole-swingup_sparse-v0") == 2
    assert all(gym.spec(f"dm_control/{task}-v0") for task in PLANET_ACTION_REPEAT)
    assert default_preprocess(PIXELS).action_repeat == 2


WINDOW_BETWEEN = """
import pygame
from dreamgym.envs import make_env
for _ in range(2):
    env = make_env("dm_control/cartpole-swingup-pixels-v0")
    print(env.reset(seed=0)[0].mean() > 0)
    env.close()
    pygame.display.init()
    pygame.display.set_mode((64, 64))
    pygame.display.flip()
    pygame.quit()
"""


@can_draw
def test_a_window_that_was_closed_does_not_end_drawing():
    """Where there is no screen SDL draws its windows with EGL, and ends EGL with them."""
    pytest.importorskip("pygame")
    env = {**os.environ, "SDL_VIDEODRIVER": "offscreen"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WINDOW_BETWEEN], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-2:] == ["True", "True"], done.stderr[-2000:]
