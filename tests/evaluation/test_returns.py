"""Whole episodes, the right seeds, no bias towards short ones."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamgym.evaluation.returns import REPORT_SEEDS_FROM, VALIDATION_SEEDS_FROM, Returns, evaluate, report_seeds, validation_seeds
from tests.evaluation.counting import AlwaysOne, CountingEnv

MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)


def lengths_by_hand(seeds: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(2 + seed % 5 for seed in seeds)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_every_seed_is_played_once_and_in_order_in_every_autoreset_mode(rows: int, mode: AutoresetMode) -> None:
    env = SyncVectorEnv([CountingEnv] * rows, autoreset_mode=mode)
    seeds = (4, 0, 0, 3, 1, 2, 4, 9, 5, 7)
    found = evaluate(AlwaysOne(), env, seeds=seeds)
    assert found.seeds == seeds
    assert found.lengths == lengths_by_hand(seeds)
    assert found.returns == tuple(map(float, found.lengths))


def test_single_env_and_vector_env_agree() -> None:
    single = evaluate(AlwaysOne(), CountingEnv(), 12)
    vector = evaluate(AlwaysOne(), SyncVectorEnv([CountingEnv] * 5), 12)
    assert single == vector
    assert single.lengths == lengths_by_hand(report_seeds(12))


def test_agents_are_told_of_every_beginning() -> None:
    agent = AlwaysOne()
    evaluate(agent, CountingEnv(), 7)
    assert agent.begun == 7


def test_memory_is_carried_and_episode_start_resets_it() -> None:
    class Counting:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):  # type: ignore[no-untyped-def]
            state = np.zeros(len(observation)) if state is None else np.where(episode_start, 0, state)
            assert (state == observation[:, 0]).all()
            return np.zeros(len(observation), np.int64), state + 1

    assert evaluate(Counting(), CountingEnv(), 4).mean == 0.0
    assert evaluate(Counting(), SyncVectorEnv([CountingEnv] * 3), 7).mean == 0.0


def test_deterministic_is_passed_on() -> None:
    class Curious(AlwaysOne):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):  # type: ignore[no-untyped-def]
            return np.full(len(observation), int(deterministic)), state

    assert evaluate(Curious(), CountingEnv(), 3, deterministic=False).mean == 0.0
    assert evaluate(Curious(), CountingEnv(), 3).mean > 0.0


def test_sb3_agents_and_real_environments_fit() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = gym.make("CartPole-v1")
    agent = sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0)
    single = evaluate(agent, env, 3)
    vector = evaluate(agent, SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2), 3)
    assert single.returns == vector.returns == tuple(map(float, single.lengths))


def test_dict_observations_reach_the_agent_as_a_batch() -> None:
    class Wrapped(CountingEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gym.spaces.Dict({"count": self.observation_space})

        def _obs(self):  # type: ignore[no-untyped-def]
            return {"count": super()._obs()}

    class Reader:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):  # type: ignore[no-untyped-def]
            assert observation["count"].shape == (1, 2)
            return np.ones(1, np.int64), None

    assert evaluate(Reader(), Wrapped(), seeds=[3]).lengths == (5,)


def test_no_episode_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        evaluate(AlwaysOne(), CountingEnv(), 0)


def test_seeds_of_training_validation_and_report_never_meet() -> None:
    assert max(validation_seeds(1000)) < REPORT_SEEDS_FROM == report_seeds(3)[0]
    assert min(validation_seeds(5)) == VALIDATION_SEEDS_FROM


def test_statistics_are_those_of_the_numbers() -> None:
    returns = Returns((1.0, 2.0, 6.0), (10, 20, 30), (0, 1, 2))
    assert (returns.mean, returns.median, returns.n, returns.mean_length) == (3.0, 2.0, 3, 20.0)
    assert returns.std == pytest.approx((14 / 3) ** 0.5)
    assert returns.standard_error == pytest.approx((14 / 2) ** 0.5 / 3**0.5)
    assert returns.share_at_least(2.0) == pytest.approx(2 / 3)
    assert str(returns) == "3 ± 2.16 (n=3, median 2)"
    assert Returns.from_json(returns.to_json()) == returns


def test_returns_without_as_many_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="expected as many"):
        Returns((1.0, 2.0), (1, 2), (0,))


def test_returns_print_short_in_a_notebook_too() -> None:
    assert repr(Returns((1.0, 2.0, 6.0), (10, 20, 30), (0, 1, 2))) == "Returns(3 ± 2.16 (n=3, median 2))"
