"""What a Spec says of spaces, and structs whose fields are dicts."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.structs import SequenceBatch, Spec, map_obs

IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
VECTOR = spaces.Box(-1, 1, (2,), np.float32)


def spec(observation: spaces.Space = VECTOR, action: spaces.Space = VECTOR) -> Spec:
    return Spec("toy/Spaces", observation, action, max_episode_steps=10)


def batch(obs: object) -> SequenceBatch:
    flags = torch.zeros(2, 3, dtype=torch.bool)
    return SequenceBatch(obs, torch.zeros(2, 3, 1), torch.zeros(2, 3), flags, flags, flags, flags, flags.long())


def test_a_multi_discrete_action_becomes_one_hots_side_by_side_and_returns():
    one = spec(action=spaces.MultiDiscrete([2, 3], start=[5, -1]))
    assert (one.action_sizes, one.action_size, one.is_discrete) == ((2, 3), 5, True)
    actions = torch.tensor([[[5, -1], [6, 1]], [[6, 0], [5, 1]]])
    hot = one.to_model_action(actions)
    assert hot.tolist() == [[[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]], [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]]]
    assert torch.equal(one.to_env_action(hot), actions)


def test_every_multi_discrete_action_survives_the_round_trip():
    space = spaces.MultiDiscrete([3, 1, 4], start=[1, 2, 3], seed=0)
    actions = torch.from_numpy(np.stack([space.sample() for _ in range(50)]))
    one = spec(action=space)
    returned = one.to_env_action(one.to_model_action(actions))
    assert torch.equal(returned, actions) and space.contains(returned[0].numpy())


@pytest.mark.parametrize(
    ("action", "sizes", "size"),
    [(spaces.Discrete(4, start=2), (4,), 4), (spaces.MultiDiscrete([2, 5]), (2, 5), 7), (VECTOR, (), 2)],
)
def test_action_sizes_count_classes(action, sizes, size):
    assert (spec(action=action).action_sizes, spec(action=action).action_size) == (sizes, size)


@pytest.mark.parametrize("action", [spaces.MultiDiscrete([[2, 2], [3, 3]]), spaces.MultiBinary(3), spaces.Dict(a=VECTOR)])
def test_unsupported_actions_are_refused_by_name(action):
    with pytest.raises(TypeError, match="is not supported; expected Discrete"):
        _ = spec(action=action).action_size


def test_observation_parts_are_sorted_by_name():
    space = spaces.Dict(OrderedDict(speed=VECTOR, camera=IMAGE, gear=spaces.Discrete(3), depth=IMAGE))
    one = spec(space)
    assert list(one.observation_parts) == ["camera", "depth", "gear", "speed"]
    assert one.image_names == ("camera", "depth") and not one.is_image


@pytest.mark.parametrize(("space", "images"), [(IMAGE, ("obs",)), (VECTOR, ())])
def test_a_box_is_the_one_part_obs(space, images):
    assert spec(space).observation_parts == {"obs": space} and spec(space).image_names == images


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Dict(),
        spaces.Dict(inner=spaces.Dict(a=VECTOR)),
        spaces.Dict(a=spaces.MultiDiscrete([2, 2])),
        spaces.Dict(a=spaces.Box(0, 1, (2, 2), np.float32)),
        spaces.Dict(a=spaces.Box(0, 9, (2,), np.int64)),
        spaces.Box(0, 1, (), np.float32),
        spaces.Box(0, 1, (0,), np.float32),
        spaces.Dict(a=VECTOR, b=spaces.Box(0, 1, (0,), np.float32)),
    ],
)
def test_unsupported_observations_are_refused_with_the_next_move(space):
    with pytest.raises(TypeError, match="FlattenObservation"):
        _ = spec(space).observation_parts


@pytest.mark.parametrize("name", ["", "camera/left", "x" * 65, "naïve", 3])
def test_names_that_no_file_may_hold_are_refused(name):
    with pytest.raises(ValueError, match="1 to 64 letters"):
        _ = spec(spaces.Dict({name: VECTOR})).observation_parts


def test_structs_act_on_every_tensor_of_a_dict():
    rows = batch({"a": torch.arange(6).reshape(2, 3), "b": torch.zeros(2, 3, 4)})
    assert rows[:, 1].obs["a"].tolist() == [1, 4]
    assert rows.flatten().obs["b"].shape == (6, 4)
    assert [name for name, _ in rows.items()][:2] == ["obs.a", "obs.b"]
    assert SequenceBatch.cat([rows, rows]).obs["b"].shape == (4, 3, 4)
    assert SequenceBatch.stack([rows, rows], 1).obs["a"].shape == (2, 2, 3)


def test_where_picks_rows_of_dicts():
    mine, its = (batch({"a": torch.full((2, 3), value)}) for value in (1, 2))
    assert mine.where(torch.tensor([True, False]), its).obs["a"].tolist() == [[1, 1, 1], [2, 2, 2]]


def test_map_obs_takes_a_tensor_or_a_dict():
    assert map_obs(len, {"a": [1, 2], "b": []}) == {"a": 2, "b": 0}
    assert map_obs(len, [1, 2, 3]) == 3


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (0,), np.float32),
        spaces.MultiDiscrete([]),
        spaces.Box(np.array([-1, 2], np.float32), np.array([1, 2], np.float32)),
        spaces.Box(-np.inf, 1, (2,), np.float32),
    ],
)
def test_actions_without_room_are_refused(space):
    """An empty action chooses nothing, and one number alone has no scale: it would become NaN."""
    with pytest.raises(TypeError, match="action space"):
        found = Spec("Toy-v0", VECTOR, space, 10)
        found.to_model_action(found.to_env_action(torch.zeros(found.action_size)))
