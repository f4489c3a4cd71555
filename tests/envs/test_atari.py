"""Atari follows the protocol of the published scores, whichever way the frames are repeated."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import AtariPreprocessing

from dreamgym.envs import Atari, default_preprocess, make_atari, make_env, make_from_spec, make_spec
from dreamgym.structs import Preprocess

ale_py = pytest.importorskip("ale_py")
pytest.importorskip("cv2")
PONG = "ALE/Pong-v5"


@pytest.fixture
def env():
    made = make_env(PONG)
    yield made
    made.close()


def play(env, seed, steps):
    env.action_space.seed(0)
    rows, rewards = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        obs, reward, *_ = env.step(env.action_space.sample())
        rows.append(obs)
        rewards.append(reward)
    return np.stack(rows), rewards


@pytest.mark.parametrize("grey", [True, False])
def test_frames_and_rewards_equal_gymnasiums_atari_preprocessing(grey):
    gym.register_envs(ale_py)
    game = gym.make(PONG, frameskip=1, repeat_action_probability=0.25)
    theirs = AtariPreprocessing(game, noop_max=30, screen_size=64, grayscale_obs=grey, grayscale_newaxis=True)
    ours = make_env(PONG, preprocess=Preprocess(size=64, grey=grey, action_repeat=4))
    (seen, rewards), (expected, their_rewards) = play(ours, 3, 120), play(theirs, 3, 120)
    assert seen.shape == (121, 64, 64, 1 if grey else 3) and np.array_equal(seen, expected)
    assert rewards == their_rewards and any(rewards)


def test_equal_seeds_give_equal_games(env):
    first = play(env, 5, 30)
    assert np.array_equal(play(env, 5, 30)[0], first[0])
    assert not np.array_equal(play(env, 6, 30)[0], first[0])


def test_spec_is_the_papers_27000_agent_steps_at_15_a_second_in_grey(env):
    spec = make_spec(env, PONG)
    assert (spec.max_episode_steps, spec.fps, spec.observation_space.shape) == (27_000, 15.0, (64, 64, 1))
    assert spec.preprocess == default_preprocess(PONG) == Preprocess(size=64, grey=True, action_repeat=4)
    again = make_from_spec(spec)
    assert make_spec(again, PONG) == spec and np.array_equal(play(again, 1, 5)[0], play(env, 1, 5)[0])


def test_actions_stick_with_probability_a_quarter(env):
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.25


def test_games_begin_after_one_to_thirty_idle_frames(env):
    frames = [env.reset(seed=None if game else 0)[1]["episode_frame_number"] for game in range(40)]
    assert min(frames) >= 1 and max(frames) <= 30 and len(set(frames)) > 10


def test_without_no_ops_games_begin_at_once():
    assert make_atari(PONG, no_ops=0).reset(seed=0)[1]["episode_frame_number"] == 0
    with pytest.raises(ValueError, match="no_ops"):
        Atari(gym.make(PONG), no_ops=-1)


def test_the_brighter_of_two_frames_is_shown_even_without_action_repeat():
    env = make_env(PONG, preprocess=Preprocess(grey=True))
    raw = []
    inner = env.env.env.step
    env.env.env.step = lambda action: raw.append(inner(action)) or raw[-1]
    env.reset(seed=0)
    shown = [env.step(2)[0][..., 0] for _ in range(20)]
    frames = [step[0] for step in raw][-21:]
    assert all(np.array_equal(picture, np.maximum(old, new)) for picture, old, new in zip(shown, frames, frames[1:], strict=False))


def test_a_lost_life_is_no_end():
    env = make_env("ALE/Breakout-v5")
    _, info = env.reset(seed=0)
    lives, step = info["lives"], 0
    while info["lives"] == lives:
        _, _, terminated, truncated, info = env.step(1 if step % 2 else 2)
        assert not terminated and not truncated
        step += 1
    assert not env.step(0)[2]


def test_the_time_limit_counts_frames_and_truncates():
    env = make_env(PONG, max_episode_steps=100)
    assert make_spec(env, PONG).max_episode_steps == 25
    frames, truncated = env.reset(seed=0)[1]["episode_frame_number"], False
    while not truncated:
        *_, terminated, truncated, info = env.step(0)
        assert not terminated
    assert frames < 100 and info["episode_frame_number"] == 100


@pytest.mark.parametrize("word,field", [("frameskip", "action_repeat"), ("obs_type", "grey")])
def test_what_preprocess_decides_is_not_taken_twice(word, field):
    with pytest.raises(ValueError, match=field):
        make_env(PONG, **{word: 4})


def test_unknown_games_are_named():
    with pytest.raises(gym.error.NameNotFound):
        make_env("ALE/Pongg-v5")


def test_gymnasiums_checker_is_content_and_json_rebuilds_the_env(env, recwarn):
    check_env(env, skip_render_check=True)
    assert not [str(warning.message) for warning in recwarn if "wrapped" not in str(warning.message)]
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert np.array_equal(play(twin, 2, 5)[0], play(env, 2, 5)[0])


def test_films_are_the_whole_screen_in_colour():
    env = make_env(PONG, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (210, 160, 3)
