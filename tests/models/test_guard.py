"""The guard: halting where the model knows nothing, and never making that worth an agent's while."""

import math

import pytest
import torch

from dreamgym.agents.planning import CEMConfig, MPPIConfig
from dreamgym.dreams.engine import DreamEngine
from dreamgym.models.guard import Guard
from dreamgym.structs import DreamDefaults
from tests.toys import BlindWorld, CounterWorld


def _walk(steps=1, **options):
    world = CounterWorld(starts=(), **{key: options.pop(key) for key in list(options) if key in ("bound", "data_range", "reward_low")})
    engine = DreamEngine(world, 1, **options)
    engine.reset(seeds=[0])
    return [engine.step(torch.ones(1, 1)) for _ in range(steps)][-1]


def test_uncertainty_beyond_the_limit_halts_as_a_termination():
    before, after = _walk(1, max_uncertainty=1.5), _walk(2, max_uncertainty=1.5)
    assert not before.terminated and not before.halted
    assert after.terminated and after.halted and not after.truncated


def test_leaving_the_range_of_the_data_halts_if_asked():
    assert _walk(2, data_range=1.5, range_guard=True).halted
    assert not _walk(2, data_range=1.5).halted


def test_a_predicted_end_goes_before_the_guard():
    result = _walk(2, bound=1.5, max_uncertainty=1.5, range_guard=True, data_range=1.5)
    assert result.terminated and not result.halted and float(result.reward) == 2.0


def test_a_halt_pays_the_worst_reward_for_all_remaining_steps():
    result = _walk(2, max_uncertainty=1.5, reward_low=-5.0)
    remaining = 20 - 1  # one of 20 steps was lived; the one that halted is not
    assert float(result.reward) == pytest.approx(-5.0 * sum(0.99**k for k in range(remaining)), rel=1e-5)


def test_a_halt_pays_nothing_where_rewards_are_not_negative():
    assert float(_walk(2, max_uncertainty=1.5, reward_low=1.0).reward) == 0.0


@pytest.mark.parametrize("reward_low", [-5.0, -0.1, 0.0, 1.0])
@pytest.mark.parametrize("penalty", [0.0, 0.5])
@pytest.mark.parametrize("step", [1, 10, 20])
def test_halting_is_never_better_than_living(reward_low, penalty, step):
    guard = Guard(1.0, penalty, False, reward_low, 20)
    worst_life = sum(0.99**k * (reward_low - 3.0 * penalty) for k in range(20 - step + 1))
    assert float(guard.pessimistic_value(torch.tensor([step]))) <= worst_life + 1e-5 * abs(worst_life)


@pytest.mark.parametrize(("steps", "charge"), [(1, 1.0), (3, 3.0), (4, 3.0)])
def test_uncertainty_is_charged_up_to_three(steps, charge):
    assert float(_walk(steps, uncertainty_penalty=0.5).reward) == pytest.approx(steps - 0.5 * charge)


def test_infinity_switches_a_models_own_limit_off():
    assert not _walk(4, max_uncertainty=math.inf).halted


class _Unread(CounterWorld):
    """A world whose lowest reward must not be asked for."""

    reward_low = property(lambda self: pytest.fail("reward_low was read"), lambda self, value: None)  # type: ignore[assignment]


@pytest.mark.parametrize("settings", [DreamDefaults(), DreamDefaults(max_uncertainty=math.inf), CEMConfig(uncertainty_penalty=0.5)])
def test_a_guard_that_never_halts_does_not_ask_for_the_lowest_reward(settings):
    assert not Guard.by(_Unread(), settings).halts


@pytest.mark.parametrize("settings", [DreamDefaults(range_guard=True), MPPIConfig(max_uncertainty=2.0)])
def test_a_guard_that_halts_knows_the_lowest_reward(settings):
    assert Guard.by(CounterWorld(reward_low=-2.5), settings).reward_low == -2.5


@pytest.mark.parametrize("option", [{"range_guard": True}, {"max_uncertainty": 1.0}])
def test_a_model_that_cannot_be_guarded_says_what_it_lacks(option):
    with pytest.raises(ValueError, match="lacks"):
        DreamEngine(BlindWorld(), 1, **option)
