"""Blind policies are blind, repeatable and inside the action space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamgym.evaluation.policies import OpenLoopPolicy, open_loop_policies, random_policy

SPACES = (
    spaces.Discrete(3),
    spaces.Discrete(2, start=-1),
    spaces.MultiDiscrete([2, 3], start=[-1, 4]),
    spaces.Box(-2.0, 2.0, (1,), np.float32),
    spaces.Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32)),
)


def play(policy: OpenLoopPolicy, obs: Any, steps: int, begins_at: dict[int, list[int]] | None = None) -> np.ndarray:
    state, actions = None, []
    for step in range(steps):
        begins = np.zeros(len(obs), bool)
        begins[(begins_at or {}).get(step, [])] = True
        action, state = policy.predict(obs, state, begins)
        actions.append(action)
    return np.stack(actions)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_there_are_at_least_six_and_all_actions_are_legal(space: spaces.Space) -> None:
    policies = open_loop_policies(space, seed=3)
    assert len(policies) >= 6
    for policy in policies.values():
        for action in play(policy, np.zeros((4, 7)), 20).reshape(80, *(space.shape or ())):
            assert space.contains(action)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_actions_depend_on_the_seed_and_never_on_the_observation(space: spaces.Space) -> None:
    for name, policy in open_loop_policies(space, seed=1).items():
        seen = play(policy, np.random.default_rng(0).normal(size=(5, 2)), 30)
        assert np.array_equal(seen, play(policy, np.zeros((5, 9, 9)), 30))
        other = play(open_loop_policies(space, seed=2)[name], np.zeros((5, 2)), 30)
        assert np.array_equal(seen, other) != ("random" in name)


def test_switching_reverses_after_its_period() -> None:
    policy = open_loop_policies(spaces.Discrete(2))["switch 4"]
    assert play(policy, np.zeros((1, 1)), 12)[:, 0].tolist() == [0] * 4 + [1] * 4 + [0] * 4


def test_a_new_episode_starts_its_row_over_and_leaves_the_others() -> None:
    policy = open_loop_policies(spaces.Discrete(2))["switch 4"]
    actions = play(policy, np.zeros((2, 1)), 8, {2: [1]})
    assert actions[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert actions[:, 1].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


def test_random_episodes_differ_from_each_other() -> None:
    actions = play(random_policy(spaces.Discrete(2)), np.zeros((3, 1)), 64, {32: [0]})
    episodes = {tuple(part) for part in (actions[:32, 0], actions[32:, 0], actions[:32, 1], actions[:32, 2])}
    assert len(episodes) == 4


def test_random_actions_use_the_whole_space_evenly() -> None:
    actions = play(random_policy(SPACES[4]), np.zeros((200, 1)), 20).reshape(-1, 2)
    assert np.allclose(actions.mean(0), [0.0, 1.5], atol=0.1)
    assert np.allclose(actions.std(0), [2 / 12**0.5, 3 / 12**0.5], atol=0.1)


def test_sticky_actions_stay_for_their_period_on_average() -> None:
    actions = play(open_loop_policies(SPACES[3])["sticky random 8"], np.zeros((50, 1)), 200)[..., 0]
    changes = (np.diff(actions, axis=0) != 0).mean()
    assert changes == pytest.approx(1 / 8, abs=0.005)
    assert len({int(np.flatnonzero(np.diff(row))[0]) for row in actions.T}) == 8  # phases differ between episodes


def test_unbounded_spaces_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="no blind policies for action space"):
        open_loop_policies(spaces.Box(-np.inf, np.inf, (1,)))


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize(
    "obs",
    [
        np.zeros(3, np.float32),
        np.zeros((8, 9, 3), np.uint8),
        np.int64(4),
        {"latent": np.zeros(5)},
        {"gear": np.int64(1), "speed": np.zeros(5)},
    ],
    ids=["vector", "image", "class", "dict", "parts"],
)
def test_a_single_observation_gives_a_single_action(space: spaces.Space, obs: Any) -> None:
    policy, state, actions = open_loop_policies(space)["switch 4"], None, []
    for step in range(8):
        action, state = policy.predict(obs, state, np.array([step == 0]))
        assert space.contains(action)
        actions.append(action)
    batch = play(policy, np.zeros((1, 2)), 8)[:, 0]
    assert np.array_equal(np.stack(actions), batch)


def test_what_may_be_one_observation_or_many_is_refused_unless_flags_tell() -> None:
    policy = random_policy(spaces.Discrete(3))
    for obs in (np.zeros(4, np.int64), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 6))):
        with pytest.raises(ValueError, match="may be one or a batch; pass episode_start"):
            policy.predict(obs)
        assert policy.predict(obs, episode_start=np.ones(4, bool))[0].shape == (4,)
