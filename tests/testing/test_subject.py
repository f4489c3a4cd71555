"""The inputs of an examination are of the model's spaces, and a function of seed and name alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.testing.subject import Subject, extreme_actions, sampled_actions
from tests.testing.broken import Sound

OBSERVATIONS = [
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(100.0, 200.0, (2,), np.float32),
    spaces.Box(np.float32([-9.0, 0.5]), np.float32([-8.0, np.inf]), dtype=np.float32),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(-7, 9, (2,), np.int64),
    spaces.Dict(side=spaces.Discrete(3, start=1), place=spaces.Box(-1.0, 1.0, (2,), np.float32)),
]
ACTIONS = [
    spaces.Discrete(3, start=2),
    spaces.MultiDiscrete([3, 2], start=[1, 0]),
    spaces.Box(np.float32([-2.0, 0.0]), np.float32([2.0, 1.0]), dtype=np.float32),
]


@pytest.mark.parametrize("space", OBSERVATIONS, ids=str)
def test_sampled_observations_are_in_their_space_and_differ(space):
    model = Sound()
    model.spec = replace(model.spec, observation_space=space)
    subject = Subject(model, seed=0, steps=1)
    obs, again, other = (subject.observations(4, name) for name in ("a", "a", "b"))
    parts = [obs, again, other] if isinstance(obs, dict) else [{"": each} for each in (obs, again, other)]
    for row in range(4):
        rows = {name: np.asarray(part[row]) for name, part in parts[0].items()}
        assert space.contains({name: value[()] for name, value in rows.items()} if isinstance(obs, dict) else rows[""])
    assert all(torch.equal(parts[0][name], parts[1][name]) for name in parts[0])
    assert any(not torch.equal(parts[0][name], parts[2][name]) for name in parts[0])


@pytest.mark.parametrize("space", ACTIONS, ids=str)
@pytest.mark.parametrize("sampler", [sampled_actions, extreme_actions])
def test_sampled_actions_are_in_their_space(space, sampler):
    actions = sampler(space, 8, np.random.default_rng(0))
    assert all(space.contains(action) for action in actions)


def test_extreme_actions_are_corners_all_low_and_all_high_among_them():
    space = ACTIONS[2]
    corners = extreme_actions(space, 6, np.random.default_rng(0))
    assert ((corners == space.low) | (corners == space.high)).all()
    np.testing.assert_array_equal(corners[[0, -1]], [space.low, space.high])
