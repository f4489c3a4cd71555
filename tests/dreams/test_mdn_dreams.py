"""Dreams of an MDN-RNN, and the options that came with it: when a dream ends, and with which dropout."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch

from dreamgym.dreams.engine import DreamEngine
from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.models.mdn_heads import SurvivalReward
from dreamgym.registration import register_all
from dreamgym.structs import DreamDefaults, StartBank
from tests.models.builders import tiny_mdn
from tests.toys import CounterWorld


def _run(engine, steps=8):
    engine.reset(seeds=list(range(engine.num_envs)))
    actions = torch.eye(3)[torch.arange(steps * engine.num_envs) % 3].unflatten(0, (steps, -1))
    for action in actions:
        engine.step(action)
    return engine.state.deter


@pytest.mark.parametrize(("chance", "threshold", "ends"), [(0.4, 0.5, False), (0.4, 0.39, True), (0.6, 0.61, False), (0.6, 0.5, True)])
def test_a_dream_ends_where_the_chance_of_an_end_is_above_the_threshold(chance, threshold, ends):
    world = CounterWorld(alive=1.0 - chance, defaults=DreamDefaults(end_probability=threshold))
    other = CounterWorld(alive=1.0 - chance)
    for engine in (DreamEngine(world, 1), DreamEngine(other, 1, end_probability=threshold)):
        engine.reset(seeds=[0])
        assert engine.step(torch.zeros(1, 1)).terminated.item() is ends


def test_every_door_has_the_threshold():
    from dreamgym.dreams.sb3 import DreamVecEnv

    register_all()
    world, options = CounterWorld(alive=0.6), {"end_probability": 0.3}
    single = [DreamEnv(world, **options), gym.make("dreamgym/Dream-v0", model=world, **options)]
    batch = [DreamVectorEnv(world, 2, **options), gym.make_vec("dreamgym/Dream-v0", num_envs=2, model=world, **options)]
    for env in single:
        env.reset(seed=0)
        assert env.step(np.zeros(1, np.float32))[2]
    for env in batch:
        env.reset(seed=0)
        assert env.step(np.zeros((2, 1), np.float32))[2].all()
    sb3 = DreamVecEnv(world, 2, **options)
    sb3.reset()
    assert sb3.step(np.zeros((2, 1), np.float32))[2].all()


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1.5])
def test_thresholds_that_are_no_chance_are_refused(threshold):
    with pytest.raises(ValueError, match="end_probability"):
        DreamEnv(CounterWorld(), end_probability=threshold)


def test_dropout_makes_another_dream_and_leaves_the_model_as_it_was():
    model = tiny_mdn()
    plain, dropped = _run(DreamEngine(model, 4)), _run(DreamEngine(model, 4, dropout=0.4))
    assert not torch.equal(plain, dropped) and model.episode_lanes == 0
    assert torch.equal(dropped, _run(DreamEngine(model.with_dropout(0.4), 4)))
    assert torch.equal(plain, _run(DreamEngine(model, 4, dropout=0.0)))


def test_a_model_trained_with_dropout_can_dream_without():
    model = tiny_mdn(recurrent_dropout=0.4, input_dropout=0.4)
    assert torch.equal(_run(DreamEngine(model, 4, dropout=0.0)), _run(DreamEngine(tiny_mdn(), 4)))


def test_masks_are_held_for_a_step_or_an_episode():
    model = tiny_mdn(recurrent_dropout=0.5)
    engine = DreamEngine(model, 3, hold="episode")
    engine.reset(seeds=[0, 1, 2])
    lanes = torch.stack([engine.draw()[0][:, 0] for _ in range(4)])
    assert (lanes == lanes[0]).all() and len(lanes[0].unique()) == 3
    engine = DreamEngine(model, 3, hold="step")
    engine.reset(seeds=[0, 1, 2])
    assert len(torch.stack([engine.draw()[0][:, 0] for _ in range(4)]).unique()) == 12


def test_a_pickled_dream_goes_on_with_its_dropout():
    env = DreamVectorEnv(tiny_mdn(), 3, obs_type="latent", dropout=0.4)
    env.reset(seed=0)
    twin = pickle.loads(pickle.dumps(env))
    actions = np.array([0, 1, 2])
    for _ in range(3):
        np.testing.assert_array_equal(env.step(actions)[0], twin.step(actions)[0])


def test_dropout_is_refused_by_models_without():
    with pytest.raises(ValueError, match=r"dropout is 0\.1"):
        DreamEnv(CounterWorld(), dropout=0.1)
    with pytest.raises(ValueError, match="dropout"):
        DreamEnv(tiny_mdn(), dropout=1.0)


def test_a_dream_begins_as_its_bank_says_with_an_empty_memory_and_the_first_flag():
    model = tiny_mdn()
    state = model.observe(
        model.initial(1),
        torch.zeros(1, 3),
        torch.zeros(1, 64, 64, 3, dtype=torch.uint8),
        torch.ones(1, dtype=bool),
        torch.full((1, model.noise_lanes), 0.5),
    )
    model.initial_states = StartBank(state.map(torch.Tensor.detach), torch.ones(1, dtype=torch.bool))
    engine = DreamEngine(model, 2)
    engine.reset(seeds=[0, 1])
    assert not engine.state.deter.any() and not engine.state.cell.any() and engine.state.first.tolist() == [1.0, 1.0]
    engine.step(torch.eye(3)[:2])
    assert engine.state.deter.any(1).all() and engine.state.first.tolist() == [0.0, 0.0]


def test_an_end_that_never_comes_is_a_truncation_after_exactly_the_time_limit():
    model = tiny_mdn()
    with torch.no_grad():
        model.heads.end.weight.zero_()
        model.heads.end.bias.fill_(-10.0)
    env = DreamEnv(model)
    env.reset(seed=0)
    flags = [env.step(0)[2:4] for _ in range(50)]
    assert flags[:-1] == [(False, False)] * 49 and flags[-1] == (False, True)


def test_a_take_cover_dream_without_an_end_pays_one_for_each_of_2100_steps():
    """specs/world-models.md 11.1-8."""
    model = tiny_mdn(reward=SurvivalReward(1.0))
    with torch.no_grad():
        model.heads.end.weight.zero_()
        model.heads.end.bias.fill_(-10.0)
    env = DreamVectorEnv(model, 1, obs_type="latent", max_episode_steps=2100, termination="threshold", end_probability=1.0 / 11.0)
    env.reset(seed=0)
    steps = [env.step(np.zeros(1, np.int64))[1:4] for _ in range(2100)]
    assert sum(float(reward[0]) for reward, _, _ in steps) == 2100.0
    assert not any(terminated[0] for _, terminated, _ in steps)
    assert [bool(truncated[0]) for *_, truncated in steps] == [False] * 2099 + [True]


def test_temperature_zero_is_certain_and_one_for_an_episode_only():
    env = DreamEnv(tiny_mdn(), temperature=0.0, obs_type="latent")

    def lived(seed, **options):
        env.reset(seed=seed, options=options)
        return np.stack([env.step(1)[0] for _ in range(4)])

    assert np.array_equal(lived(0), lived(1)) and not np.array_equal(lived(0, temperature=1.0), lived(1, temperature=1.0))
    assert np.array_equal(lived(2), lived(3))
