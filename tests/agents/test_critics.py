"""Slow critics and the scale of returns: what they follow, how fast, and that a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.critics import Critic, SlowAverage, SlowCopy, SlowCritic, value_loss
from dreamgym.agents.recipes import dreamer_v2, dreamer_v3
from dreamgym.agents.returns import PercentileScale, ReturnScale
from dreamgym.nn.distributions import TwoHot, UnitNormal
from tests.agents.worlds import PointMass


def _critic(weight):
    network = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.weight, weight)
    return Critic(network, "normal")


def _value_after(slow, critic, updates):
    for _ in range(updates):
        slow.follow(critic)
    return float(slow.critic.network.weight)


def test_a_hard_copy_is_renewed_exactly_every_so_many_updates():
    slow, critic = SlowCritic(_critic(0.0), SlowCopy(every=100)), _critic(1.0)
    assert _value_after(slow, critic, 99) == 0.0
    assert _value_after(slow, critic, 1) == 1.0


def test_an_average_closes_a_fiftieth_of_the_gap_per_update():
    slow, critic = SlowCritic(_critic(0.0), SlowAverage(0.02)), _critic(1.0)
    assert _value_after(slow, critic, 10) == pytest.approx(1.0 - 0.98**10, rel=1e-5)


def test_a_resumed_agent_copies_when_an_uninterrupted_one_would():
    world = PointMass()
    agents = [ActorCritic(world.spec, 2, replace(dreamer_v2(units=8), slow_critic=SlowCopy(every=10))) for _ in range(2)]
    for _ in range(7):
        agents[0].update_slow_critic()
    agents[1].load_state_dict(agents[0].state_dict())
    for agent in agents:
        with torch.no_grad():
            agent.critic.network[-1].bias.fill_(5.0)
        for _ in range(3):
            agent.update_slow_critic()
    assert float(agents[1].slow_critic.critic.network[-1].bias) == 5.0 == float(agents[0].slow_critic.critic.network[-1].bias)


@pytest.mark.parametrize(("updates", "gap"), [(1, 0.1), (10, 0.956), (100, 6.34)])
def test_percentiles_start_at_zero_and_are_not_debiased(updates, gap):
    """specs/dreamer.md C.6: with a range of 10 the scale stays 1 for about ten updates."""
    scale, returns = ReturnScale(PercentileScale()), torch.tensor([-3.0, 7.0]).repeat(8, 50)
    for _ in range(updates):
        divisor = scale.update(returns)
    assert float(scale.high - scale.low) == pytest.approx(gap, rel=1e-3)
    assert float(divisor) == pytest.approx(max(1.0, gap), rel=1e-3)


def test_percentiles_are_those_of_the_batch():
    scale = ReturnScale(PercentileScale(rate=1.0))
    assert float(scale.update(torch.linspace(0.0, 100.0, 1001))) == pytest.approx(90.0, rel=1e-4)
    assert (float(scale.low), float(scale.high)) == (pytest.approx(5.0, rel=1e-3), pytest.approx(95.0, rel=1e-3))


def test_the_scale_of_returns_is_saved_with_the_agent():
    """A resumed run without it degrades (sheeprl #339)."""
    world = PointMass()
    agents = [ActorCritic(world.spec, 2, dreamer_v3(units=8)) for _ in range(2)]
    for _ in range(300):
        agents[0].return_scale.update(torch.tensor([0.0, 50.0]))
    agents[1].load_state_dict(agents[0].state_dict())
    assert float(agents[1].return_scale.high) == float(agents[0].return_scale.high) > 40.0


def test_value_losses_are_half_the_squared_error_or_the_cross_entropy():
    target = torch.tensor([3.0], requires_grad=True)
    assert float(value_loss(UnitNormal(torch.tensor([1.0])), target)) == pytest.approx(2.0)
    loss = value_loss(TwoHot(torch.zeros(1, 255, requires_grad=True)), target)
    assert loss.item() == pytest.approx(5.5412635, rel=1e-6)
    loss.sum().backward()
    assert target.grad is None


@pytest.mark.parametrize("build", [lambda: SlowCopy(every=0), lambda: SlowAverage(rate=0.0), lambda: PercentileScale(low=0.9, high=0.1)])
def test_impossible_settings_are_refused(build):
    with pytest.raises(ValueError, match="expected"):
        build()
