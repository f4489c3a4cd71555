"""Doom TakeCover as a plain image env with a time limit and an honest last picture."""

import numpy as np
import pytest

from dreamgym.envs import applied, make_env, make_spec
from dreamgym.structs import Preprocess

pytest.importorskip("vizdoom")

CROP = (28, 92, 0, 160)


def play(env, seed=3):
    obs, info = env.reset(seed=seed)
    seen, outcomes = [obs], [(0.0, False, False, info["obs_valid"])]
    rng = np.random.default_rng(seed)
    while not (outcomes[-1][1] or outcomes[-1][2]):
        obs, reward, terminated, truncated, info = env.step(rng.integers(3))
        seen.append(obs)
        outcomes.append((reward, terminated, truncated, info["obs_valid"]))
    env.close()
    return np.stack(seen), outcomes


def test_spec_counts_agent_steps_of_four_tics():
    env = make_env("VizdoomTakeCover-v1")
    spec = make_spec(env, "VizdoomTakeCover-v1")
    env.close()
    assert (spec.observation_space.shape, spec.action_size, spec.max_episode_steps, spec.fps) == ((64, 64, 3), 3, 525, 8.75)


def test_death_is_a_termination_whose_picture_is_marked_invalid():
    seen, outcomes = play(make_env("VizdoomTakeCover-v1"))
    assert outcomes[-1][1:] == (True, False, False) and seen[-1].max() == 0
    assert all(outcome[3] for outcome in outcomes[:-1]) and seen[:-1].reshape(len(seen) - 1, -1).max(1).min() > 0


def test_repeating_in_the_engine_equals_repeating_outside():
    seen, outcomes = play(make_env("VizdoomTakeCover-v1"))
    drawing_all = Preprocess(size=64, crop=CROP, action_repeat=4, skip_render=False)
    plain, plain_outcomes = play(make_env("VizdoomTakeCover-v1", preprocess=drawing_all))
    np.testing.assert_array_equal(seen, plain)
    assert outcomes == plain_outcomes


def test_time_limit_counts_tics_and_truncates():
    _, outcomes = play(make_env("VizdoomTakeCover-v1", max_episode_steps=10))
    assert [outcome[0] for outcome in outcomes[1:]] == [4.0, 4.0, 2.0] and outcomes[-1][1:] == (False, True, True)


def test_frame_skip_is_another_word_for_action_repeat():
    env = make_env("VizdoomTakeCover-v1", frame_skip=2)
    assert applied(env).action_repeat == 2 and make_spec(env, "VizdoomTakeCover-v1").max_episode_steps == 1050
    env.close()
    with pytest.raises(ValueError, match="frame_skip"):
        make_env("VizdoomTakeCover-v1", preprocess=Preprocess(), frame_skip=2)


def test_an_env_of_several_buttons_is_refused_with_advice():
    env = make_env("VizdoomTakeCover-MultiBinary-v1", max_episode_steps=100)
    with pytest.raises(TypeError, match="action space"):
        make_spec(env, "VizdoomTakeCover-MultiBinary-v1")
    env.close()
