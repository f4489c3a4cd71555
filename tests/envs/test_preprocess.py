"""Preprocessing changes exactly what it says, and skipping the drawing of unseen frames changes nothing."""

import copy
import pickle
import sys
import types

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import InvalidAction
from gymnasium.wrappers import RecordVideo, TimeLimit

from dreamgym.envs import applied, preprocess
from dreamgym.structs import Preprocess, Spec


class Pictures(gym.Env):
    """Frame t is a picture of known pixels; pays t; ends at frame `end`."""

    def __init__(self, shape=(20, 30, 3), end=6, info=None):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(2)
        self.end, self.info = end, info or {}

    def _obs(self):
        pixels = np.arange(np.prod(self.observation_space.shape)).reshape(self.observation_space.shape)
        return ((pixels + self.t) % 256).astype(np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        return self._obs(), float(self.t), self.t == self.end, False, dict(self.info) if self.t == self.end else {}


class Vectors(Pictures):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def _obs(self):
        return np.array([0.1, 0.2, self.t])


def test_masked_pixels_are_black_and_the_others_untouched():
    raw, env = Pictures(), preprocess(Pictures(), Preprocess(masks=((2, 5, 0, 4), (0, 1, 29, 30))))
    expected = raw.reset()[0].copy()
    expected[2:5, 0:4] = 0
    expected[0, 29] = 0
    np.testing.assert_array_equal(env.reset()[0], expected)


def test_masking_leaves_the_envs_own_array_alone():
    env = Pictures()
    wrapped = preprocess(env, Preprocess(masks=((0, 20, 0, 30),)))
    kept = np.full((20, 30, 3), 7, np.uint8)
    env._obs = lambda: kept
    assert wrapped.reset()[0].max() == 0 and kept.min() == 7


def test_crop_keeps_the_named_rows_and_columns():
    obs = preprocess(Pictures(), Preprocess(crop=(3, 13, 5, 25))).reset()[0]
    np.testing.assert_array_equal(obs, Pictures().reset()[0][3:13, 5:25])


def test_resize_averages_areas():
    env = Pictures(shape=(16, 16, 3))
    obs = preprocess(env, Preprocess(size=8)).reset()[0]
    raw = env.reset()[0].astype(float)
    np.testing.assert_allclose(obs, raw.reshape(8, 2, 8, 2, 3).mean((1, 3)), atol=0.51)


@pytest.mark.parametrize("settings", [Preprocess(grey=True), Preprocess(grey=True, size=8), Preprocess(grey=True, crop=(0, 9, 0, 9))])
def test_grey_keeps_a_channel_axis(settings):
    env = preprocess(Pictures(), settings)
    assert env.reset()[0].shape == env.observation_space.shape and env.observation_space.shape[2] == 1


def test_grey_image_without_channel_gains_one():
    assert preprocess(Pictures(shape=(10, 12)), Preprocess()).reset()[0].shape == (10, 12, 1)


def test_action_repeat_sums_rewards_and_shows_the_last_frame():
    env = preprocess(Pictures(end=6), Preprocess(action_repeat=4))
    env.reset()
    obs, reward, terminated, _, _ = env.step(0)
    assert (reward, terminated, obs[0, 0, 0]) == (1 + 2 + 3 + 4, False, 4)
    obs, reward, terminated, _, _ = env.step(0)
    assert (reward, terminated, obs[0, 0, 0]) == (5 + 6, True, 6)


def test_time_limit_inside_counts_frames():
    env = preprocess(TimeLimit(Pictures(end=99), 10), Preprocess(action_repeat=4))
    env.reset()
    flags = [env.step(0)[2:4] for _ in range(3)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_reward_clip_bounds_the_sum_and_tells_the_raw_reward():
    env = preprocess(Pictures(), Preprocess(action_repeat=2, reward_clip=5.0))
    env.reset()
    steps = [env.step(0) for _ in range(3)]
    assert [step[1] for step in steps] == [3.0, 5.0, 5.0]
    assert [step[4]["raw_reward"] for step in steps] == [3.0, 7.0, 11.0]


@pytest.mark.parametrize("finished,expected", [(True, (False, True)), (False, (True, False))])
def test_success_is_a_truncation_and_failure_a_termination(finished, expected):
    env = preprocess(Pictures(end=2, info={"lap_finished": finished}), Preprocess(success_truncates=True))
    env.reset()
    env.step(0)
    assert env.step(0)[2:4] == expected


def test_float64_vectors_become_float32():
    env = preprocess(Vectors(), Preprocess())
    obs = env.reset()[0]
    assert obs.dtype == np.float32 and env.observation_space.contains(obs)


def test_a_stack_shows_the_last_images_oldest_first():
    raw, env = Pictures(), preprocess(Pictures(), Preprocess(stack=3))
    images = [raw.reset()[0], raw.step(0)[0], raw.step(0)[0]]
    for expected in ([0, 0, 0], [0, 0, 1], [0, 1, 2]):
        obs = env.reset()[0] if expected == [0, 0, 0] else env.step(0)[0]
        np.testing.assert_array_equal(obs, np.concatenate([images[t] for t in expected], -1))
    assert env.observation_space == spaces.Box(0, 255, (20, 30, 9), np.uint8)


def test_a_stack_begins_anew_with_every_episode():
    env = preprocess(Pictures(), Preprocess(stack=2, grey=True, size=8))
    first = env.reset()[0]
    env.step(0)
    np.testing.assert_array_equal(env.reset()[0], first)
    assert (first[..., 0] == first[..., 1]).all() and first.shape == (8, 8, 2)


def test_a_stack_skips_repeated_frames():
    raw, env = Pictures(), preprocess(Pictures(), Preprocess(stack=2, action_repeat=2))
    start = raw.reset()[0]
    raw.step(0)
    second = raw.step(0)[0]
    env.reset()
    np.testing.assert_array_equal(env.step(0)[0], np.concatenate([start, second], -1))


@pytest.mark.parametrize("stack", [0, 65])
def test_a_senseless_stack_is_refused(stack):
    with pytest.raises(ValueError, match="1 to 64"):
        Preprocess(stack=stack)


def test_stacks_of_a_dict_are_each_their_own():
    env = preprocess(Parts(), Preprocess(stack=2))
    env.reset()
    obs = env.step(0)[0]
    assert obs["front"][0, 0].tolist() == [0, 0, 0, 10, 10, 10] and obs["back"][0, 0].tolist() == [0, 10]
    assert env.observation_space.contains(obs)


class Parts(Pictures):
    """Two cameras, a wide integer vector, a single number and a class."""

    def __init__(self):
        super().__init__()
        camera = self.observation_space
        self.observation_space = spaces.Dict(
            front=camera,
            back=spaces.Box(0, 255, (20, 30), np.uint8),
            lidar=spaces.Box(-np.inf, np.inf, (2,), np.float64),
            clock=spaces.Box(0, 9, (), np.float64),
            gear=spaces.Discrete(3, start=-1, dtype=np.int32),
        )

    def _obs(self):
        front = np.full((20, 30, 3), 10 * self.t, np.uint8)
        return {"front": front, "back": front[..., 0], "lidar": np.array([0.1, np.inf]), "clock": np.float64(self.t), "gear": -1}


def test_every_part_of_a_dict_looks_as_it_would_alone():
    env = preprocess(Parts(), Preprocess(size=10, grey=True))
    env.reset()
    obs, *_ = env.step(0)
    assert env.observation_space.contains(obs) and list(obs) == ["back", "clock", "front", "gear", "lidar"]
    assert obs["front"].shape == obs["back"].shape == (10, 10, 1) and (obs["back"] == 10).all()
    assert obs["clock"].tolist() == [1.0] and obs["clock"].dtype == np.float32
    assert obs["lidar"].tolist() == [np.float32(0.1), 1e6]
    assert obs["gear"] == -1 and env.observation_space["gear"] == spaces.Discrete(3, start=-1)


def test_a_model_knows_what_to_do_with_every_preprocessed_part():
    spec = Spec("x", preprocess(Parts(), Preprocess()).observation_space, spaces.Discrete(2), 9)
    assert list(spec.observation_parts) == ["back", "clock", "front", "gear", "lidar"] and spec.image_names == ("back", "front")


def test_a_single_number_becomes_a_vector():
    env = Vectors()
    env.observation_space = spaces.Box(-np.inf, 5, (), np.float64)
    env._obs = lambda: 2.5
    env = preprocess(env, Preprocess())
    assert env.reset()[0].tolist() == [2.5] and env.observation_space == spaces.Box(-1e6, 5, (1,), np.float32)


@pytest.mark.parametrize(
    "space", [spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2))), spaces.Dict(a=spaces.MultiDiscrete([2])), spaces.Discrete(3)]
)
def test_other_observations_are_refused_with_advice(space):
    env = Pictures()
    env.observation_space = space
    with pytest.raises(TypeError, match="FlattenObservation"):
        preprocess(env, Preprocess())


def test_a_dict_without_images_refuses_settings_of_images():
    env = Pictures()
    env.observation_space = spaces.Dict(a=spaces.Box(0, 1, (2,)))
    with pytest.raises(ValueError, match="are for images"):
        preprocess(env, Preprocess(size=16))


@pytest.mark.parametrize(
    "settings,word",
    [(Preprocess(crop=(0, 21, 0, 5)), "crop"), (Preprocess(masks=((0, 5, 9, 9),)), "mask"), (Preprocess(merge_pedals=True), "pedals")],
)
def test_settings_that_do_not_fit_the_env_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        preprocess(Pictures(), settings)


def test_image_settings_on_vectors_are_refused():
    with pytest.raises(ValueError, match="images"):
        preprocess(Vectors(), Preprocess(size=64))


def test_applied_tells_a_raw_env_from_a_preprocessed_one():
    settings = Preprocess(size=16)
    env = preprocess(Pictures(), settings)
    assert applied(Pictures()) is None
    assert applied(TimeLimit(env, 5)) == settings
    assert preprocess(env, settings) is env
    with pytest.raises(ValueError, match="already"):
        preprocess(env, Preprocess(size=32))


@pytest.mark.parametrize("vector", [gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv])
def test_applied_looks_into_vector_envs(vector):
    settings = Preprocess(size=16)
    for make, expected in ((lambda: preprocess(Pictures(), settings), settings), (Pictures, None)):
        envs = vector([make, make])
        assert applied(envs) == expected
        envs.reset(seed=0)  # still alive
        envs.close()


def drive(env, seed, steps, *, steer=0.4, gas=1.0):
    """Observations and outcomes of driving (steer, gas)."""
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    seen, outcomes = [obs], []
    for _ in range(steps):
        action = np.array([steer * rng.uniform(-1, 1), gas * rng.uniform(0.5, 1)], np.float32)
        obs, *outcome = env.step(action)
        seen.append(obs)
        outcomes.append(outcome)
        if outcome[1] or outcome[2]:
            break
    return np.stack(seen), outcomes


def racing(render_mode=None, **settings):
    pytest.importorskip("Box2D")
    limit = settings.pop("max_episode_steps", 1000)
    env = gym.make("CarRacing-v3", render_mode=render_mode, max_episode_steps=limit)
    return preprocess(env, Preprocess(merge_pedals=True, **settings))


def test_skipping_frames_shows_what_the_plain_env_shows():
    seen, outcomes = drive(racing(action_repeat=4, max_episode_steps=18), 3, 8)  # the limit cuts the fifth step after two frames
    plain, plain_outcomes = drive(racing(action_repeat=4, skip_render=False, max_episode_steps=18), 3, 8)
    np.testing.assert_array_equal(seen, plain)
    assert outcomes == plain_outcomes and len(outcomes) == 5 and outcomes[-1][2]


@pytest.mark.parametrize("frame", [1, 2, 3, 4])
def test_the_frame_after_a_termination_is_really_drawn(frame):
    """Leaving the field at any of the four frames."""

    def leave(skip):
        env = racing(action_repeat=4, skip_render=skip)
        drive(env, 5, 2)
        base = env.unwrapped
        step, count = base.step, iter(range(1, 9))

        def jump(action):
            if next(count) == frame:
                base.car.hull.position = (2000.0, 0.0)
                base.reward = base.prev_reward = 10.55  # drawn as 11; the frame's cost of 0.1, taken later, must not make it 10
            return step(action)

        base.step = jump
        obs, reward, terminated, truncated, info = env.step(np.array([0.0, 0.5], np.float32))
        return obs, (reward, terminated, truncated, info), base.state

    skipped, plain = leave(True), leave(False)
    np.testing.assert_array_equal(skipped[0], plain[0])
    np.testing.assert_array_equal(skipped[0], skipped[2])
    assert skipped[1] == plain[1] and skipped[1][1] and skipped[1][3] == {"lap_finished": False}


def test_skipping_draws_once_per_agent_step(monkeypatch):
    env = racing(action_repeat=4)
    env.reset(seed=0)
    drawn = []
    original = type(env.unwrapped)._render
    monkeypatch.setattr(type(env.unwrapped), "_render", lambda self, mode: (drawn.append(mode), original(self, mode))[1])
    for _ in range(3):
        env.step(np.array([0.0, 0.3], np.float32))
    assert drawn == ["state_pixels"] * 3


def test_skipping_survives_copies_and_pickles():
    env = racing(action_repeat=3)
    seen, _ = drive(env, 1, 3)
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        np.testing.assert_array_equal(drive(twin, 1, 3)[0], seen)
    assert "_render" not in env.unwrapped.__dict__


def test_a_wrapper_that_changes_observations_inside_is_respected():
    inner = gym.wrappers.GrayscaleObservation(gym.make("CarRacing-v3", max_episode_steps=6), keep_dim=True)
    env = preprocess(inner, Preprocess(merge_pedals=True, action_repeat=4))
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    obs, _, _, truncated, _ = env.step(np.zeros(2, np.float32))  # ends after two frames
    assert truncated and obs.shape == (96, 96, 1)


def test_record_video_films_the_same_frames_with_and_without_skipping(tmp_path, monkeypatch):
    films = []

    class Clip:  # stands in for moviepy, which would only encode
        def __init__(self, frames, fps):
            films.append(np.stack(frames))

        def write_videofile(self, path, logger):
            pass

    for name in ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(ImageSequenceClip=Clip))
    for skip in (True, False):
        env = racing(render_mode="rgb_array", action_repeat=4, skip_render=skip, max_episode_steps=10)
        recorder = RecordVideo(env, str(tmp_path / str(skip)), episode_trigger=lambda _: True)
        drive(recorder, 2, 8)
        recorder.close()
    assert len(films[0]) == 4 and films[0].std() > 0  # the reset and three steps
    np.testing.assert_array_equal(films[0], films[1])


@pytest.mark.parametrize("action,expected", [((0.5, 0.25), (0.5, 0.25, 0.0)), ((-1.0, -0.5), (-1.0, 0.0, 0.5)), ((0, 0), (0, 0, 0))])
def test_merged_pedal_is_gas_above_zero_and_brake_below(action, expected, monkeypatch):
    env = racing()
    env.reset(seed=0)
    given = []
    step = env.unwrapped.step
    monkeypatch.setattr(env.unwrapped, "step", lambda action: (given.append(action), step(action))[1])
    env.step(np.array(action, np.float32))
    np.testing.assert_allclose(given[0], expected)


def test_merged_action_of_the_wrong_shape_is_named():
    env = racing()
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match=r"\(3,\)"):
        env.step(np.zeros(3, np.float32))
