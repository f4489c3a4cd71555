"""The engine: noise per slot, clocks, ends, options."""

import numpy as np
import pytest
import torch

from dreamgym.dreams.engine import DreamEngine
from dreamgym.structs import DreamDefaults
from tests.toys import BlindWorld, CorridorWorld, CounterWorld


def _run(engine, actions):
    return torch.stack([engine.step(action).reward for action in actions])


def _still(engine, steps):
    return [torch.zeros(engine.num_envs, engine.model.spec.action_size)] * steps


def test_reward_belongs_to_the_state_arrived_at():
    engine = DreamEngine(CounterWorld(starts=()), 1)
    engine.reset(seeds=[0])
    assert _run(engine, [torch.tensor([[0.5]]), torch.tensor([[1.0]])]).flatten().tolist() == [0.5, 1.5]


def test_equal_seeds_give_equal_dreams_bit_by_bit():
    runs = []
    for _ in range(2):
        engine = DreamEngine(CounterWorld(sigma=0.3, drift=0.2), 4)
        engine.reset(seeds=[1, 2, 3, 4])
        runs.append(_run(engine, _still(engine, 10)))
    assert torch.equal(*runs)


def test_a_slot_does_not_depend_on_its_neighbours():
    worlds = [CounterWorld(sigma=0.3, drift=0.2, steps=50) for _ in range(2)]
    one, other = (DreamEngine(world, 3) for world in worlds)
    one.reset(seeds=[7, 8, 9])
    other.reset(seeds=[7, 100, 200])
    mask = torch.tensor([False, True, True])
    for _ in range(5):
        mine, its = one.step(torch.zeros(3, 1)), other.step(torch.tensor([[0.0], [0.4], [-0.4]]))
        assert mine.reward[0] == its.reward[0]
        other.reset(mask)


@pytest.mark.parametrize("slot", [0, 5, 39])
def test_slot_seeded_s_dreams_what_a_single_dream_seeded_s_dreams(slot):
    many, one = DreamEngine(CounterWorld(sigma=0.3, drift=0.2), 40), DreamEngine(CounterWorld(sigma=0.3, drift=0.2), 1)
    many.reset(seeds=list(range(40)))
    one.reset(seeds=[slot])
    for episode in range(3):
        batch, single = _run(many, _still(many, 7)), _run(one, _still(one, 7))
        torch.testing.assert_close(batch[:, slot], single[:, 0], msg=f"episode {episode}")
        many.reset()
        one.reset()


def test_episodes_of_one_seed_differ_and_are_reproducible():
    engine = DreamEngine(CounterWorld(sigma=0.3, starts=()), 1)
    engine.reset(seeds=[3])
    first = _run(engine, _still(engine, 5))
    engine.reset()
    second = _run(engine, _still(engine, 5))
    engine.reset(seeds=[3])
    again = _run(engine, _still(engine, 5))
    engine.reset()
    assert torch.equal(first, again) and torch.equal(second, _run(engine, _still(engine, 5))) and not torch.equal(first, second)


def test_global_generators_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    engine = DreamEngine(CounterWorld(sigma=0.3), 3, termination="sample")
    engine.reset(seeds=[1, 2, 3])
    _run(engine, _still(engine, 3))
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize(("hold", "steady"), [("episode", True), ("step", False)])
def test_a_held_member_stays_for_the_episode(hold, steady):
    engine = DreamEngine(CounterWorld(drift=1.0, starts=(), bound=99), 1, hold=hold)
    engine.reset(seeds=[4])
    x = _run(engine, _still(engine, 6)).flatten()
    drifts = torch.diff(x)
    assert bool(torch.allclose(drifts, x[0].expand(5), atol=1e-5)) == steady
    engine.reset()
    if steady:
        assert abs(float(_run(engine, _still(engine, 1))) - float(x[0])) > 1e-3


def test_temperature_multiplies_the_variance():
    moves = {}
    for temperature in (0.0, 1.0, 4.0):
        engine = DreamEngine(CounterWorld(sigma=0.5, starts=()), 8, temperature=temperature)
        engine.reset(seeds=list(range(8)))
        moves[temperature] = _run(engine, _still(engine, 1))
    assert torch.equal(moves[0.0], torch.zeros(1, 8))
    torch.testing.assert_close(moves[4.0], 2 * moves[1.0])


def test_a_temperature_range_is_drawn_per_episode_and_may_be_set_for_one_slot():
    engine = DreamEngine(CounterWorld(sigma=0.5), 64, temperature=(0.5, 1.5))
    engine.reset(seeds=list(range(64)))
    drawn = engine.snapshot().temperature
    assert drawn.min() >= 0.5 and drawn.max() <= 1.5 and drawn.unique().numel() > 32
    mask = torch.arange(64) == 3
    engine.reset(mask, temperature=0.25)
    now = engine.snapshot().temperature
    assert now[3] == 0.25 and torch.equal(now[~mask], drawn[~mask])


def test_predicted_end_becomes_terminated_not_truncated():
    engine = DreamEngine(CounterWorld(bound=1.5, starts=()), 1)
    engine.reset(seeds=[0])
    results = [engine.step(torch.ones(1, 1)) for _ in range(2)]
    assert [(bool(r.terminated), bool(r.truncated)) for r in results] == [(False, False), (True, False)]


def test_a_model_that_never_ends_runs_to_exactly_the_time_limit():
    """specs/world-models.md 11.1 (8)."""
    engine = DreamEngine(CounterWorld(steps=2100, starts=()), 2)
    engine.reset(seeds=[0, 1])
    steps = 0
    while not bool((result := engine.step(torch.zeros(2, 1))).truncated.any()):
        steps += 1
        assert not bool(result.terminated.any())
    assert steps + 1 == 2100 and result.truncated.all() and not result.terminated.any()


@pytest.mark.parametrize(("continue_prob", "ends"), [(0.499999, True), (0.500001, False)])
def test_threshold_lies_at_one_half(continue_prob, ends):
    """specs/world-models.md 11.1 (6): done is logit > 0, whatever the temperature."""
    for temperature in (0.1, 2.0):
        engine = DreamEngine(CounterWorld(alive=continue_prob, starts=()), 1, temperature=temperature)
        engine.reset(seeds=[0])
        assert bool(engine.step(torch.zeros(1, 1)).terminated) == ends


def test_sampled_ends_come_as_often_as_predicted():
    engine = DreamEngine(CounterWorld(alive=0.8, starts=()), 4096, termination="sample")
    engine.reset(seeds=list(range(4096)))
    share = engine.step(torch.zeros(4096, 1)).terminated.float().mean()
    assert abs(float(share) - 0.2) < 0.03  # 5 standard errors


def test_never_ignores_the_continue_head():
    engine = DreamEngine(CounterWorld(alive=0.0, starts=()), 1, termination="never")
    engine.reset(seeds=[0])
    assert not engine.step(torch.zeros(1, 1)).terminated


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 20),
        ({"max_episode_steps": 8}, 8),
        ({"horizon": 30}, 30),
        ({"horizon": 30, "max_episode_steps": 20}, 20),
        ({"horizon": 5, "max_episode_steps": 20}, 5),
    ],
)
def test_horizon_is_the_callers_else_the_models_else_the_time_limit(given, expected):
    assert DreamEngine(CounterWorld(), 1, **given).horizon == expected
    trained_short = CounterWorld(defaults=DreamDefaults(horizon=3))
    assert DreamEngine(trained_short, 1, **given).horizon == expected
    trained = DreamEngine(trained_short, 1, training=True, **given)
    assert trained.horizon == min(given.get("horizon", 3), given.get("max_episode_steps", 99))


def test_defaults_come_from_the_model():
    defaults = DreamDefaults(uncertainty_penalty=2.0, termination="never", starts="any", temperature=0.0, hold="episode")
    engine = DreamEngine(CounterWorld(sigma=1.0, defaults=defaults, alive=0.0, starts=(1.0,), first=(False,)), 1, training=True)
    engine.reset(seeds=[0])
    result = engine.step(torch.zeros(1, 1))
    assert float(result.reward) == 1.0 - 2.0 * 1.0 and not result.terminated


def test_a_minimal_model_can_be_dreamt():
    engine = DreamEngine(BlindWorld(), 2)
    engine.reset(seeds=[0, 1])
    assert engine.step(torch.ones(2, 2)).reward.tolist() == [2.0, 2.0]
    assert engine.features().shape == (2, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_envs": 0},
        {"horizon": 0},
        {"horizon": 2.5},
        {"max_episode_steps": 0},
        {"temperature": -1.0},
        {"temperature": (2.0, 1.0)},
        {"temperature": "hot"},
        {"starts": "last"},
        {"hold": "forever"},
        {"termination": "maybe"},
        {"max_uncertainty": 0.0},
        {"uncertainty_penalty": -1.0},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DreamEngine(CounterWorld(), **{"num_envs": 1, **wrong})


def test_non_finite_outputs_are_marked_in_their_row_only():
    engine = DreamEngine(CounterWorld(nan_at=1.0, starts=()), 2)
    engine.reset(seeds=[0, 1])
    assert engine.step(torch.tensor([[1.0], [0.5]])).finite.tolist() == [False, True]


def test_a_snapshot_continues_bit_by_bit_and_shares_nothing():
    engine = DreamEngine(CounterWorld(sigma=0.3, drift=0.2, bound=99), 20, hold="episode", temperature=(0.5, 2.0))
    engine.reset(seeds=list(range(20)))
    _run(engine, _still(engine, 3))
    saved = engine.snapshot()
    first = _run(engine, _still(engine, 5))
    engine.reset()
    engine.restore(saved)
    assert torch.equal(_run(engine, _still(engine, 5)), first)
    engine.restore(saved)
    assert torch.equal(_run(engine, _still(engine, 5)), first)


def test_a_fork_with_seeds_has_futures_of_its_own_from_the_same_present():
    engine = DreamEngine(CounterWorld(sigma=0.3, bound=99), 1)
    engine.reset(seeds=[0])
    _run(engine, _still(engine, 2))
    forked = DreamEngine(CounterWorld(sigma=0.3, bound=99), 4)
    forked.restore(engine.snapshot(), seeds=[10, 11, 12, 12])
    assert torch.equal(forked.state.x, engine.state.x.expand(4, 1))
    futures = _run(forked, _still(forked, 3))
    assert torch.equal(futures[:, 2], futures[:, 3]) and not torch.equal(futures[:, 0], futures[:, 1])


def test_only_training_dreams_start_and_last_as_the_model_wants_to_be_trained_in():
    defaults = DreamDefaults(horizon=3, starts="any", uncertainty_penalty=2.0)
    worlds = {training: CounterWorld(defaults=defaults, starts=(1.0, 2.0), first=(True, False)) for training in (False, True)}
    for training, expected in ((False, (20, {1.0})), (True, (3, {1.0, 2.0}))):
        engine = DreamEngine(worlds[training], 64, training=training)
        engine.reset(seeds=list(range(64)))
        assert (engine.horizon, set(engine.state.x.flatten().tolist())) == expected
        assert engine.step(torch.zeros(64, 1)).reward.unique().tolist() == [-x for x in sorted(expected[1], reverse=True)]
    given = DreamEngine(worlds[True], 64, starts="any", horizon=5)
    given.reset(seeds=list(range(64)))
    assert given.horizon == 5 and set(given.state.x.flatten().tolist()) == {1.0, 2.0}


@pytest.mark.parametrize("stranger", [CorridorWorld, BlindWorld], ids=["other world", "other shape"])
def test_another_models_snapshot_is_refused_before_anything_changes(stranger):
    engine, other = DreamEngine(CounterWorld(sigma=0.3), 1), DreamEngine(stranger(), 1)
    engine.reset(seeds=[0])
    other.reset(seeds=[0])
    before = engine.snapshot()
    with pytest.raises(ValueError, match="the saved state is of a model of toy/"):
        engine.restore(other.snapshot(), seeds=[9])
    with pytest.raises(TypeError, match="get_state"):
        engine.restore(engine.state)
    after = engine.snapshot()
    assert torch.equal(after.state.x, before.state.x) and torch.equal(after.seed, before.seed)


def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device is 'cuda', but PyTorch sees 0 CUDA devices"):
        DreamEngine(CounterWorld(), 1, device="cuda")
