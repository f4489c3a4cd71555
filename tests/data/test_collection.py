"""Collected rows are what happened, and episode i depends on (seed, i) alone."""

import os

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.data import CollectStats, EpisodeLengths, Replay, StickyRandom, collect, collect_parallel, default_collector
from dreamgym.structs import Spec
from tests.data import toys


class Constant:
    """Always the same action; remembers what it was told."""

    def __init__(self, value=1.0):
        self.value, self.starts, self.states = value, [], []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.starts.append(bool(episode_start[0]))
        self.states.append(state)
        return np.full((len(observation), 1), self.value, np.float32), (state or 0) + 1


class FromTorch:
    """Samples as SB3's policies do: from torch's global generator."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return torch.rand(len(observation), 1).numpy(), None


class FixedChoice:
    """Always the second class of each choice."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.array([[1, 6]]), None


def rows(replay):
    return {name: replay.column(name) for name in ("obs", "prev_action", "reward", "is_first", "is_last", "is_terminal", "valid")}


def assert_equal(one, other):
    for name, column in rows(one).items():
        np.testing.assert_array_equal(column, rows(other)[name], err_msg=name)
    assert one.episodes == other.episodes and one.policies == other.policies


def test_actions_rewards_and_ends_are_stored_where_they_arrived():
    replay = Replay(toys.VECTOR)
    stats = collect(toys.Counting(end=3), Constant(0.5), replay, episodes=2, seed=0)
    assert replay.column("obs")[:, 1].tolist() == [0, 1, 2, 3] * 2
    assert replay.column("obs")[:, 2].tolist() == [0, 0.5, 0.5, 0.5] * 2  # the env saw the action the policy chose
    assert replay.column("prev_action")[:, 0].tolist() == [0, 0.25, 0.25, 0.25] * 2  # of -2 to 2
    assert replay.column("reward").tolist() == [0, 0.5, 0.5, 0.5] * 2
    assert replay.column("is_terminal").tolist() == [False, False, False, True] * 2
    assert replay.column("valid").tolist() == [True, True, True, False] * 2
    assert replay.policies == ("Constant", "Constant")
    assert stats == CollectStats(returns=(15.0, 15.0), lengths=(3, 3)) and stats.steps == 6  # returns are raw: ten times the reward


def test_an_episode_cut_short_is_last_but_not_terminal():
    replay = Replay(toys.VECTOR)
    collect(toys.Counting(end=5), Constant(), replay, episodes=1, seed=0, max_episode_steps=2)
    assert replay.column("is_last").tolist() == [False, False, True] and not replay.column("is_terminal").any()


def test_steps_are_a_budget_kept_exactly():
    replay = Replay(toys.VECTOR)
    stats = collect(toys.Counting(end=4), Constant(), replay, steps=10, seed=0)
    assert stats.lengths == (4, 4, 2) and replay.num_steps == 10
    assert [bool(replay.column("is_terminal")[stop - 1]) for _, stop in replay.episodes] == [True, True, False]


def test_policies_are_told_of_starts_and_get_their_state_back():
    policy = Constant()
    collect(toys.Counting(end=3), policy, Replay(toys.VECTOR), episodes=2, seed=0)
    assert policy.starts == [True, False, False] * 2 and policy.states == [None, 1, 2] * 2


def test_a_policy_may_be_chosen_per_episode():
    replay = Replay(toys.VECTOR)
    collect(toys.Counting(end=2), lambda number: Constant(0.1 * number), replay, episodes=3, seed=0)
    np.testing.assert_allclose(replay.column("reward"), [0, 0, 0, 0, 0.1, 0.1, 0, 0.2, 0.2], atol=1e-7)


def test_actions_beyond_the_space_are_clipped_before_the_env_sees_them():
    replay = Replay(toys.VECTOR)
    collect(toys.Counting(end=1), Constant(7.0), replay, episodes=1, seed=0)
    assert replay.column("obs")[1, 2] == 2.0 and replay.column("prev_action")[1, 0] == 1.0


def test_noise_is_in_units_of_half_the_range_and_recorded():
    replay = Replay(toys.VECTOR)
    collect(toys.Counting(end=2000), Constant(0.0), replay, episodes=1, seed=0, noise=0.1)
    taken = replay.column("prev_action")[1:, 0]
    assert abs(taken.std() - 0.1) < 0.01 and abs(taken.mean()) < 0.01
    np.testing.assert_allclose(replay.column("obs")[1:, 2], 2 * taken, atol=1e-6)


def test_noise_on_classes_is_a_share_of_uniform_actions():
    env = gym.make("CartPole-v1")
    env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = np.inf
    spec = Spec("CartPole-v1", env.observation_space, env.action_space, 500)
    replay = Replay(spec)

    class Left:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros(len(observation), np.int64), None

    collect(env, Left(), replay, steps=500, seed=0, noise=0.4)
    assert 0.15 < replay.column("prev_action")[:, 1].mean() < 0.25


@pytest.mark.parametrize("policy", [StickyRandom(toys.VECTOR.action_space), FromTorch()], ids=["sticky", "torch"])
def test_collection_is_a_function_of_the_seed(policy):
    first, again, other = (Replay(toys.VECTOR) for _ in range(3))
    for replay, seed in ((first, 3), (again, 3), (other, 4)):
        collect(toys.Counting(), policy, replay, episodes=3, seed=seed)
    assert_equal(first, again)
    assert (first.column("obs") != other.column("obs")).any()


def test_torchs_global_generator_is_left_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    collect(toys.Counting(), FromTorch(), Replay(toys.VECTOR), episodes=2, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_episode_lengths_are_drawn_with_their_probabilities():
    replay = Replay(toys.VECTOR)
    lengths = EpisodeLengths((1, 3), (0.25, 0.75))
    stats = collect(toys.Counting(end=9), Constant(), replay, episodes=200, seed=0, max_episode_steps=lengths)
    assert set(stats.lengths) == {1, 3} and 0.65 < np.mean(np.equal(stats.lengths, 3)) < 0.85


def test_episode_lengths_may_be_a_sequence():
    stats = collect(toys.Counting(end=9), Constant(), Replay(toys.VECTOR), episodes=30, seed=0, max_episode_steps=[2, 4])
    assert set(stats.lengths) == {2, 4}


def test_several_processes_give_the_same_replay_as_one():
    """Each process takes seconds to start, so this one test has the budget, the drawn lengths and the noise in it."""

    def lengths(rng):
        return int(rng.integers(2, 9))

    def make():
        return toys.Counting(end=7)

    replays, stats = [Replay(toys.VECTOR), Replay(toys.VECTOR)], []
    for replay, workers in zip(replays, (1, 3)):
        policy = default_collector(toys.VECTOR)
        stats.append(collect_parallel(make, policy, replay, workers=workers, steps=40, seed=5, max_episode_steps=lengths, noise=0.1))
    assert_equal(*replays)
    assert stats[0] == stats[1] and stats[0].steps == 40 and len(stats[0].lengths) > 5


def test_a_dead_worker_is_reported_with_advice():
    with pytest.raises(RuntimeError, match="__main__"):
        collect_parallel(lambda: os._exit(3), Constant(), Replay(toys.VECTOR), workers=2, episodes=2, seed=0)


def test_an_sb3_model_can_collect():
    sb3 = pytest.importorskip("stable_baselines3")
    env = gym.make("Pendulum-v1")
    model = sb3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu")
    first, again = (Replay(Spec("Pendulum-v1", env.observation_space, env.action_space, 200)) for _ in range(2))
    for replay in (first, again):
        collect(env, model, replay, steps=30, seed=0)
    assert_equal(first, again)
    assert first.column("prev_action").std() > 0.1


def test_an_env_that_differs_from_the_spec_is_refused():
    with pytest.raises(ValueError, match="preprocess=spec"):
        collect(gym.make("Pendulum-v1"), Constant(), Replay(toys.VECTOR), episodes=1, seed=0)


@pytest.mark.parametrize(
    "arguments,word",
    [
        ({}, "steps="),
        ({"episodes": -1}, "episodes"),
        ({"episodes": 1, "seed": -1}, "seed"),
        ({"episodes": 1, "max_episode_steps": 0}, "at least 1"),
    ],
)
def test_senseless_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        collect(toys.Counting(), Constant(), Replay(toys.VECTOR), **{"seed": 0, **arguments})


def test_unsupported_actions_are_refused():
    spec = Spec("x", toys.VECTOR.observation_space, spaces.MultiBinary(2), 9)
    with pytest.raises(TypeError, match="action space"):
        Replay(spec)


def test_parts_and_choices_are_remembered_as_the_env_saw_them():
    replay = Replay(toys.CHOICES)
    collect(toys.CountingParts(), default_collector(toys.CHOICES), replay, steps=8, seed=0)
    rows = replay.sequence(0, len(replay))[0]
    assert rows.obs["speed"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2] == rows.obs["camera"][:, 0, 0, 0].tolist()
    done = replay.spec.to_env_action(rows.prev_action)[~rows.is_first]
    assert torch.equal(rows.obs["speed"][:, 1:][~rows.is_first], done.float())
    assert torch.equal(rows.obs["gear"][~rows.is_first], done[:, 1] - 6) and len(set(done[:, 1].tolist())) > 1


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_exploration_draws_every_choice_by_itself(noise):
    replay = Replay(toys.CHOICES)
    collect(toys.CountingParts(), FixedChoice(), replay, episodes=20, seed=0, noise=noise)
    done = replay.spec.to_env_action(torch.tensor(replay.column("prev_action")))[~replay.column("is_first")]
    pairs = set(map(tuple, done.tolist()))
    assert pairs == ({(1, 6)} if noise == 0.0 else {(a, b) for a in (0, 1) for b in (5, 6, 7)})
