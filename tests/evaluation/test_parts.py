"""Models of Dict observations and MultiDiscrete actions are judged and filmed like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from dreamgym.data import Replay, StickyRandom, collect
from dreamgym.dreams.awake import LatentObservation
from dreamgym.dreams.env import DreamEnv
from dreamgym.evaluation.comparison import compare
from dreamgym.evaluation.fidelity import measure
from dreamgym.evaluation.player import film_dream, keyboard
from dreamgym.evaluation.policies import constant_policies, open_loop_policies, random_policy
from dreamgym.evaluation.prediction_errors import one_step_errors, open_loop_errors
from dreamgym.evaluation.video import film
from dreamgym.structs import SequenceBatch
from tests.toys import PartsWorld, RealParts

ENV_ID = "toy/Parts"


@pytest.fixture(autouse=True)
def real_parts_are_registered() -> Iterator[None]:
    gym.register(ENV_ID, RealParts, max_episode_steps=20, kwargs={"steps": 4})
    yield
    gym.registry.pop(ENV_ID, None)


def lived(episodes: int, steps: int) -> SequenceBatch:
    """Whole episodes [B,T] of random choices."""
    replay = Replay(PartsWorld().spec)
    collect(RealParts(steps), StickyRandom(replay.spec.action_space), replay, episodes=episodes, seed=0)
    return SequenceBatch.cat([replay.sequence(start, stop) for start, stop in replay.episodes])


def test_errors_of_parts_are_those_known_by_hand() -> None:
    """The toy believes the first row, then lags by 0.1: a grey level, a tenth of place, and the wrong side where it expects 0."""
    rows = lived(20, 1)
    found = one_step_errors(PartsWorld(), rows, context=1)["obs_parts"]
    place, side = rows.obs["place"][:, 1, 0].numpy(), rows.obs["side"][:, 1].numpy()
    wrong = np.sign(np.rint(place - 0.1)) + 1 != side
    assert 0 < wrong.mean() < 1
    assert found["camera"]["obs_rmse"] == pytest.approx(1 / 255, rel=1e-4)
    assert found["place"]["obs_rmse"] == pytest.approx(0.1 / rows.obs["place"][..., 0].std(correction=0).item(), rel=1e-4)
    assert found["side"]["obs_rmse"] == pytest.approx(np.sqrt(wrong.mean()))
    assert found["side"]["obs_rmse_of_repeat"] == pytest.approx(np.sqrt((side != 2).mean()))


def test_the_error_of_all_is_the_mean_over_parts_before_the_root() -> None:
    found = open_loop_errors(PartsWorld(), lived(6, 4), horizons=(1, 3), context=1)["3"]
    for name in ("obs_rmse", "obs_rmse_of_mean", "obs_rmse_of_repeat"):
        squares = [part[name] ** 2 for part in found["obs_parts"].values()]
        assert found[name] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)


def test_a_dream_of_parts_is_measured_whole() -> None:
    model = PartsWorld(sigma=0.1)
    measured = measure(model, lived(4, 4), agent=random_policy(model.spec.action_space), episodes=2, context=1)
    assert measured["open_loop"]["mean_noise"]["1"]["obs_parts"]["place"]["obs_rmse"] > 0
    assert set(measured["fixed_policies"]["policies"]) == set(open_loop_policies(model.spec.action_space))


def test_an_agent_may_read_the_parts_themselves() -> None:
    agent = constant_policies(PartsWorld().spec.action_space)["always 2,0"]
    found = compare(agent, PartsWorld(starts=()), episodes=2, obs_type=None)
    assert found.awake.lengths == (4, 4)
    assert found.dream.lengths == (6, 6) and found.dream.returns == (21.0, 21.0)  # 1 + 2 + ... + 6, where the dream ends


def test_constants_vary_one_choice_at_a_time() -> None:
    assert list(constant_policies(spaces.MultiDiscrete([3, 2], start=[0, 5]))) == ["always 0,5", "always 2,5", "always 0,6"]


def test_switching_swaps_the_first_choice_and_lets_the_others_rest() -> None:
    policy = open_loop_policies(spaces.MultiDiscrete([3, 2], start=[0, 5]))["switch 1"]
    assert policy.actions[0].tolist() == [0, 5] and policy.actions[1].tolist() == [2, 5]


def test_keys_choose_the_ends_of_the_first_two_choices() -> None:
    keys, idle = keyboard(spaces.MultiDiscrete([3, 2], start=[0, 5]))
    assert idle.tolist() == [1, 5] and idle.dtype == np.int64
    assert {key: keys[key].tolist() for key in ("a", "d", "w", "ds")} == {"a": [0, 5], "d": [2, 5], "w": [1, 6], "ds": [2, 5]}


@pytest.mark.parametrize("obs_type", ["latent", "dict"])
def test_reality_and_dream_of_parts_are_filmed(tmp_path: Path, obs_type: str) -> None:
    pytest.importorskip("imageio_ffmpeg")
    model = PartsWorld()
    agent = constant_policies(model.spec.action_space)["always 2,0"]
    env = LatentObservation(RealParts(8, render_mode="rgb_array"), model, obs_type=obs_type)
    assert film(agent, env, tmp_path / "awake.mp4", seed=0, open_loop=True, size=64).steps == 8
    dream = DreamEnv(model, render_mode="rgb_array", render_size=64)
    assert film_dream(dream, agent, tmp_path / "dream.mp4", seed=0, steps=3).steps == 3
