"""Random behaviours are coherent in time, stay in their space and are a function of their seed."""

import numpy as np
import pytest
from gymnasium import spaces

from dreamgym.data import Brownian, DrivingRandom, Mixture, RandomNetwork, StickyRandom, default_collector
from dreamgym.structs import Preprocess, Spec

BOX = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32))
CLASSES = spaces.Discrete(5, start=2)
CAR = spaces.Box(-1, 1, (2,), np.float32)
IMAGES = spaces.Box(0, 255, (64, 64, 3), np.uint8)
VECTORS = spaces.Box(-9, 9, (4,), np.float32)
PARTS = spaces.Dict(camera=IMAGES, speed=VECTORS, gear=spaces.Discrete(3))
CHOICES = spaces.MultiDiscrete([4, 3], start=[1, -2])

EVERY = [
    (StickyRandom, CLASSES, VECTORS),
    (StickyRandom, BOX, IMAGES),
    (Brownian, BOX, VECTORS),
    (RandomNetwork, CLASSES, IMAGES),
    (RandomNetwork, BOX, VECTORS),
    (DrivingRandom, CAR, IMAGES),
    (StickyRandom, CHOICES, PARTS),
    (RandomNetwork, CHOICES, PARTS),
    (RandomNetwork, BOX, PARTS),
    (DrivingRandom, CAR, PARTS),
]
every = pytest.mark.parametrize("kind,actions,observations", EVERY)


def run(policy, observations, steps=50, rows=3, seed=0):
    """Actions [T,B,...] on random observations, in episodes of 25 steps."""
    observations.seed(seed)
    state, taken = None, []
    for step in range(steps):
        obs = stack([observations.sample() for _ in range(rows)])
        action, state = policy.predict(obs, state, np.full(rows, step % 25 == 0))
        taken.append(action)
    return np.stack(taken)


def stack(rows):
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} if isinstance(rows[0], dict) else np.stack(rows)


@every
def test_actions_lie_in_the_space_and_vary(kind, actions, observations):
    taken = run(kind(actions, seed=1), observations)
    assert all(actions.contains(action) for row in taken for action in row)
    assert len(np.unique(taken.reshape(150, -1), axis=0)) > 2


@every
def test_equal_seeds_act_equally_and_others_differ(kind, actions, observations):
    one, same, other = (run(kind(actions, seed=seed), observations) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@every
def test_reseeding_starts_over(kind, actions, observations):
    policy = kind(actions, seed=1)
    policy.reseed(5)
    first = run(policy, observations)
    policy.reseed(5)
    np.testing.assert_array_equal(run(policy, observations), first)


@every
def test_a_single_observation_gives_a_single_action(kind, actions, observations):
    batch, _ = kind(actions, seed=1).predict(stack([observations.sample()]))
    single, _ = kind(actions, seed=1).predict(observations.sample())
    assert batch.shape[1:] == single.shape == actions.shape and batch.dtype == actions.dtype


def test_sticky_actions_are_held_as_long_as_said():
    taken = run(StickyRandom(BOX, hold=(3, 5), seed=0), VECTORS, steps=25, rows=1)[:, 0, 0]
    changes = np.flatnonzero(np.diff(taken)) + 1
    assert set(np.diff(changes)) <= {3, 4, 5} and len(changes) >= 4


def test_an_episode_start_restarts_its_row_only():
    policy = StickyRandom(BOX, hold=(100, 100), seed=0)
    obs = np.zeros((2, 4), np.float32)
    before, state = policy.predict(obs)
    after, _ = policy.predict(obs, state, np.array([False, True]))
    assert (before[0] == after[0]).all() and (before[1] != after[1]).all()


def test_brownian_steps_have_the_spread_of_their_time_step():
    taken = run(Brownian(spaces.Box(-100, 100, (1,), np.float32), seed=0), VECTORS, steps=25, rows=40)
    assert abs(np.diff(taken, axis=0).std() / 100 - np.sqrt(1 / 50)) < 0.01


def test_random_network_reacts_to_what_it_sees():
    policy = RandomNetwork(BOX, seed=0)
    state = None
    taken = []
    for value in (0, 3, 0):
        action, state = policy.predict(np.full((1, 4), value, np.float32), state)
        taken.append(action)
    assert (taken[0] == taken[2]).all() and (taken[0] != taken[1]).any()


def test_driving_is_inclined_to_accelerate_without_a_side():
    taken = run(DrivingRandom(CAR, seed=0), IMAGES, steps=50, rows=60)
    assert 0.2 < taken[..., 1].mean() < 0.4 and abs(taken[..., 0].mean()) < 0.1


def test_driving_map_steers_oppositely_in_a_mirrored_view():
    policy = DrivingRandom(CAR, seed=0)
    row = policy.begin(np.random.default_rng(0))
    grass_left = np.zeros((64, 64, 3), np.uint8)
    grass_left[:, :32, 1] = 200
    steers = []
    for view in (grass_left, grass_left[:, ::-1]):
        row |= {"kind": "map", "noise": np.zeros(2), "memory": 1.0}  # memory 1 leaves no noise
        steers.append(policy.act(row, view)[0])
    assert steers[0] == pytest.approx(-steers[1]) and abs(steers[0]) > 0.01


def test_driving_needs_merged_pedals():
    with pytest.raises(TypeError, match="merge_pedals"):
        DrivingRandom(spaces.Box(-1, 1, (3,), np.float32))


def test_mixture_draws_one_policy_per_episode_with_its_probability():
    held, free = StickyRandom(BOX, (50, 50)), StickyRandom(BOX, (1, 1))
    taken = run(Mixture([held, free], [0.8, 0.2], seed=0), VECTORS, steps=20, rows=300)
    constant = (np.diff(taken, axis=0) == 0).all((0, 2))
    changing = (np.diff(taken, axis=0) != 0).any(2).all(0)
    assert (constant | changing).all() and 0.72 < constant.mean() < 0.88


@pytest.mark.parametrize("kind", [Brownian, DrivingRandom])
def test_continuous_collectors_refuse_classes(kind):
    with pytest.raises(TypeError, match="Box"):
        kind(CLASSES)


@pytest.mark.parametrize("actions,observations", [(CLASSES, IMAGES), (BOX, VECTORS), (CHOICES, PARTS), (BOX, PARTS)])
def test_default_collector_fits_any_world(actions, observations):
    taken = run(default_collector(Spec("x", observations, actions, 9), seed=3), observations, rows=8)
    assert all(actions.contains(action) for row in taken for action in row)


def test_default_collector_drives_where_there_are_pedals():
    assert isinstance(default_collector(Spec("x", IMAGES, CAR, 9, preprocess=Preprocess(merge_pedals=True))), DrivingRandom)
