"""Agents in a world that is known exactly: they must learn to act well without any model learning (specs/dreamer.md F.4, step 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.recipes import dreamer_v1, dreamer_v2, dreamer_v3
from dreamgym.nn.policies import BoundedNormalConfig
from tests.agents.worlds import FREE, PointMass, awake_return, scattered, steer

RECIPES = {
    "compact": ActorCriticConfig(units=16, reward_scale=1.0),
    "v1": dreamer_v1(units=16),
    "v1, V_R": replace(dreamer_v1(units=16), estimator="reward_sum"),
    "v1, V_N": replace(dreamer_v1(units=16), estimator="n_step"),
    "v2, dynamics": replace(dreamer_v2(units=16), reinforce=0.0),
    "v2, reinforce": replace(dreamer_v2(units=16, entropy=1e-3), reinforce=1.0),
    "v2, half and half": replace(dreamer_v2(units=16), reinforce=0.5),
    "v3": dreamer_v3(units=16),
    "v3, dynamics": replace(dreamer_v3(units=16), reinforce=0.0, policy=BoundedNormalConfig(max_std=0.5)),
}


def _learn(config: ActorCriticConfig, world: PointMass, updates: int) -> ActorCritic:
    torch.manual_seed(0)
    agent = ActorCritic(world.spec, 2, replace(config, horizon=8))
    optimiser = torch.optim.Adam([*agent.actor.parameters(), *agent.critic.parameters()], 0.01)
    for update in range(updates):
        losses = agent.losses(world, scattered(32, seed=update), FREE, torch.Generator().manual_seed(update))
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        agent.update_slow_critic()
    return agent


@pytest.mark.parametrize("actions", ["box", "classes"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_mass_is_brought_to_rest(recipe, actions):
    """Doing nothing returns -266, a good controller -1."""
    world = PointMass(actions)
    agent = _learn(RECIPES[recipe], world, 80 if recipe.startswith("v1") else 60)
    with torch.no_grad():
        learned = awake_return(world, lambda features: agent.policy(features).mode)
    assert learned > 2.5 * awake_return(world, lambda features: steer(world, features))


@pytest.mark.parametrize("recipe", ["v2, dynamics", "v3"])
def test_two_choices_at_once_are_learned(recipe):
    """MultiDiscrete."""
    world = PointMass("pairs")
    agent = _learn(RECIPES[recipe], world, 60)
    with torch.no_grad():
        learned = awake_return(world, lambda features: agent.policy(features).mode)
    assert learned > 2.5 * awake_return(world, lambda features: steer(world, features))
    env_action, _ = agent.predict(torch.zeros(4, 2).numpy())
    assert env_action.shape == (4, 2) and world.spec.action_space.contains(env_action[0])
