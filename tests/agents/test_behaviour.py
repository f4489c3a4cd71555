"""How dreams are scored and what they teach: numbers known by hand, gradients that go where they should and nowhere else."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.behaviour import align_v1, align_v2, align_v3, outlook
from dreamgym.agents.critics import SlowAverage
from dreamgym.agents.recipes import dreamer_v1, dreamer_v2, dreamer_v3
from dreamgym.agents.returns import lambda_returns, reward_sum
from dreamgym.models.guard import Guard
from dreamgym.nn.networks import MLPConfig
from dreamgym.nn.policies import BoundedNormalConfig, TanhNormalConfig
from dreamgym.structs import SequenceBatch
from tests.agents.worlds import FREE, LearntMass, MassState, PointMass, scattered

RECIPES = {"compact": ActorCriticConfig(units=16), "v1": dreamer_v1(units=16), "v2": dreamer_v2(units=16), "v3": dreamer_v3(units=16)}


def _agent(config, actions="box", **changes):
    torch.manual_seed(0)
    world = LearntMass(actions)
    return ActorCritic(world.spec, 2, replace(config, horizon=4, **changes)), world


def _losses(agent, world, *, count=6, start_alive=None, seed=0):
    return agent.losses(world, scattered(count), FREE, torch.Generator().manual_seed(seed), start_alive=start_alive)


def _row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


def _lambda(reward, discount, value):
    return lambda_returns(reward, discount, value, lambda_=0.95)


# ---- which return belongs to which action (specs/dreamer.md A.6, B.4, C.6) ----------------------------------------------


def test_v1_scores_imagined_states_only():
    """F.1-1 behind a start whose numbers must not matter; the last state only bootstraps."""
    scores = align_v1(_row(7, 1, 2, 3, 8), _row(0, 0.9, 0.9, 0.9, 0), _row(5, 10, 20, 30, 40), _lambda, 0.9, True)
    assert scores.returns[0].tolist() == pytest.approx([33.274225, 36.695, 39.0])
    assert scores.action_returns is scores.returns and scores.first == 1
    assert scores.weight[0].tolist() == pytest.approx([1.0, 0.9, 0.81]) == scores.action_weight[0].tolist()
    assert scores.baseline[0].tolist() == [5.0, 10.0, 20.0]


def test_v2_pairs_an_action_with_the_next_states_return_and_this_states_weight():
    """The same fixture; two states are lost to the actor, one to the critic."""
    scores = align_v2(_row(1, 2, 3, 8), _row(0.9, 0.9, 0.9, 0), _row(10, 20, 30, 40), _lambda, 0.9, True)
    assert scores.returns[0].tolist() == pytest.approx([33.274225, 36.695, 39.0]) and scores.first == 0
    assert scores.action_returns[0].tolist() == pytest.approx([36.695, 39.0])
    assert scores.weight[0].tolist() == pytest.approx([1.0, 0.9, 0.81]) and scores.action_weight[0].tolist() == pytest.approx([1.0, 0.9])
    assert scores.baseline[0].tolist() == [10.0, 20.0]


def test_v3_begins_a_return_with_the_next_reward():
    """F.1-6 without ends, and F.1-7's weights: c = 1, 0.9, 0.5, 1."""
    reward, value = _row(9, 1, 2, 3), _row(10, 20, 30, 40)
    scores = align_v3(reward, _row(0.9, 0.9, 0.9, 0.9), value, _lambda, 0.9, True)
    assert scores.returns[0].tolist() == pytest.approx([33.274225, 36.695, 39.0])
    assert scores.baseline[0].tolist() == [10.0, 20.0, 30.0]
    assert scores.weight[0].tolist() == pytest.approx([1.0, 0.9, 0.81])
    weight = align_v3(reward, _row(1.0, 0.9, 0.5, 1.0), value, _lambda, 1.0, True).weight
    assert weight[0].tolist() == pytest.approx([1.0, 0.9, 0.45])


def test_a_terminal_start_weighs_nothing_in_v3():
    scores = align_v3(_row(9, 1, 2, 3), _row(0.0, 0.9, 0.9, 0.9), _row(10, 20, 30, 40), _lambda, 0.9, True)
    assert scores.weight[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("align", "expected"), [(align_v1, [6.0, 5.0, 3.0]), (align_v2, [7.0, 6.0, 5.0, 3.0]), (align_v3, [6.0, 5.0, 3.0])]
)
def test_sums_of_rewards_reach_the_horizon(align, expected):
    """V_R needs no bootstrap, so the last state counts like any other; values must not matter."""
    value, alive = _row(math.nan, math.nan, math.nan, math.nan), _row(1, 1, 1, 1)
    scores = align(_row(1, 1, 2, 3), alive, value, lambda reward, discount, _: reward_sum(reward, discount=discount), 1.0, False)
    assert scores.returns[0].tolist() == expected
    assert scores.action_returns[0].tolist() == [6.0, 5.0, 3.0]


def test_dead_starts_teach_v3_nothing():
    """start_alive overrules the model."""
    agent, world = _agent(RECIPES["v3"])
    none = _losses(agent, world, start_alive=torch.zeros(6))
    assert none.critic.item() == 0.0 and none.actor.item() == 0.0
    some, everyone = (_losses(agent, world, start_alive=torch.tensor(flags)) for flags in ([True, False] * 3, [True] * 6))
    assert 0.0 < some.critic.item() < everyone.critic.item()


def test_a_dead_start_is_worth_its_own_reward_in_v2():
    """discount_0 = gamma * (1 - is_terminal) from data: nothing is bootstrapped through an end."""
    agent, world = _agent(RECIPES["v2"])
    losses = _losses(agent, world, start_alive=torch.zeros(6, dtype=torch.bool))
    torch.testing.assert_close(losses.imagined_return, world.predict(scattered(6)).reward)


# ---- where gradients go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("actions", ["box", "classes", "pairs"])
@pytest.mark.parametrize("reinforce", [0.0, 0.3, 1.0])
def test_each_loss_reaches_its_own_network_only(recipe, actions, reinforce):
    """F.1-8, by plain backward passes: the world model and the critic keep no gradient from the actor's loss, nor the actor from theirs."""
    agent, world = _agent(RECIPES[recipe], actions, reinforce=reinforce)
    torch.nn.init.normal_(agent.critic.network[-1].weight, std=0.1)  # a zero layer would hide a leak
    losses = _losses(agent, world)
    losses.actor.backward()
    assert all(float(parameter.grad.abs().sum()) > 0.0 for parameter in agent.actor.parameters())
    assert all(parameter.grad is None for module in (world, agent.critic) for parameter in module.parameters())
    agent.actor.zero_grad()
    losses.critic.backward()
    assert all(parameter.grad is not None for parameter in agent.critic.parameters())
    assert all(parameter.grad is None for module in (world, agent.actor) for parameter in module.parameters())
    if agent.slow_critic is not None:
        assert all(parameter.grad is None for parameter in agent.slow_critic.parameters())
    assert world.strength.requires_grad and all(parameter.requires_grad for parameter in agent.critic.parameters())


@pytest.mark.parametrize("actions", ["box", "classes"])
def test_pure_reinforce_dreams_without_recording(actions):
    agent, world = _agent(RECIPES["v3"], actions)
    _losses(agent, world)
    assert world.recorded == [False] * 4
    agent, world = _agent(RECIPES["v3"], actions, reinforce=0.9)
    _losses(agent, world)
    assert world.recorded == [True] * 4


@pytest.mark.parametrize("recipe", RECIPES)
def test_dynamics_gradient_matches_finite_differences(recipe):
    """F.1-8, through rewards, values and dynamics, for a policy that ignores what it sees: what an actor sees is detached."""
    plain = {"actor": MLPConfig(1, 16), "critic": MLPConfig(1, 16), "critic_distribution": "normal", "return_scale": None}
    if recipe == "v3":  # so that no action is clipped: V3's gradient passes the clipping straight through
        plain["policy"] = BoundedNormalConfig(max_std=0.2)
    agent, world = _agent(RECIPES[recipe], reinforce=0.0, entropy=0.1, actor_output_scale=0.0, **plain)
    agent.double(), world.double()
    for critic in (agent.critic, *([agent.slow_critic.critic] if agent.slow_critic else [])):
        torch.nn.init.normal_(critic.network[-1].weight, std=0.3, generator=torch.Generator().manual_seed(1))
    action = agent.actor.network[-1].bias

    def loss():
        return agent.losses(world, scattered(5, dtype=torch.float64), FREE, torch.Generator().manual_seed(0)).actor

    (gradient,) = torch.autograd.grad(loss(), [action])
    for number in range(len(action)):
        with torch.no_grad():
            action[number] += 1e-5
            above = loss()
            action[number] -= 2e-5
            slope = float(above - loss()) / 2e-5
            action[number] += 1e-5
        assert float(gradient[number]) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("actions", ["box", "classes"])
def test_reinforce_and_dynamics_agree_in_the_mean(actions):
    """Both estimate the gradient of one expected reward, here of the first action: no values, but a baseline of -4."""
    world, start = PointMass(actions), MassState(torch.full((60_000, 1), 2.0), torch.zeros(60_000, 1))
    gradients = []
    for reinforce in (0.0, 1.0):
        torch.manual_seed(0)
        config = replace(RECIPES["v1"], horizon=2, discount=1e-6, reinforce=reinforce, policy=TanhNormalConfig(init_std=0.5))
        agent = ActorCritic(world.spec, 2, replace(config, critic_output_scale=0.0))
        torch.nn.init.constant_(agent.critic.network[-1].bias, -4.0)
        losses = agent.losses(world, start, FREE, torch.Generator().manual_seed(3))
        gradients.append(torch.autograd.grad(losses.actor, [agent.actor.network[-1].bias])[0])
    # A straight-through gradient takes the reward for linear in the action, which it is but for a fiftieth.
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.05, atol=2e-3 if actions == "box" else 5e-3)
    assert float(gradients[0].abs().max()) > 0.05


# ---- what the losses are ------------------------------------------------------------------------------------------------


def test_v3_begins_with_zero_values_and_the_chance_level_of_its_bins():
    """F.2-13: cross-entropy ln 255 against the return and again against the slow critic."""
    agent, world = _agent(RECIPES["v3"])
    losses = _losses(agent, world)
    weight = (1.0 - 1.0 / 333.0) ** torch.arange(4)
    assert float(losses.metrics["value"]) == 0.0
    assert losses.critic.item() == pytest.approx(2.0 * 5.5412635 * float(weight.mean()), rel=1e-5)


def test_entropy_is_summed_over_dimensions_unless_told_to_average():
    summed, averaged = (
        float(_losses(*_agent(RECIPES["v2"], "pairs", entropy_per_dimension=flag)).metrics["entropy"]) for flag in (False, True)
    )
    assert summed == pytest.approx(2.0 * averaged) and summed == pytest.approx(2.0 * math.log(2.0), rel=0.05)


def test_normalised_returns_leave_the_actor_indifferent_to_the_size_of_rewards():
    """Once the percentiles are known, rewards of ten times the size give the same gradient, in both kinds of it."""
    for reinforce in (0.0, 1.0):
        gradients = []
        for scale in (0.1, 0.01):
            agent, world = _agent(RECIPES["v3"], reinforce=reinforce, reward_scale=scale, entropy=0.0, critic_distribution="normal")
            for _ in range(1500):
                agent.return_scale.update(torch.linspace(0.0, 10.0 / scale, 50))
            losses = _losses(agent, world)
            gradients.append(torch.autograd.grad(losses.actor, [agent.actor.network[-1].bias])[0])
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-8)


def test_the_regulariser_pulls_the_critic_towards_the_slow_one():
    plain, pulled = (_agent(RECIPES["v3"], critic_distribution="normal", slow_critic=SlowAverage(0.02, weight)) for weight in (0.0, 2.0))
    for agent, _ in (plain, pulled):
        with torch.no_grad():
            agent.slow_critic.critic.network[-1].bias.fill_(3.0)
    weight = ((1.0 - 1.0 / 333.0) ** torch.arange(4)).mean()
    assert (_losses(*pulled).critic - _losses(*plain).critic).item() == pytest.approx(2.0 * 0.5 * 9.0 * float(weight), rel=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_are_finite_under_bfloat16(recipe):
    agent, world = _agent(RECIPES[recipe])
    with torch.autocast("cpu", torch.bfloat16):
        losses = _losses(agent, world)
    losses.total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in (*agent.actor.parameters(), *agent.critic.parameters()))


def test_an_idle_guard_asks_for_the_outcome_alone():
    """predict would compute the uncertainty that nobody needs."""
    states = scattered(3)
    model = SimpleNamespace(outcome=lambda states: (states.place[:, 0], states.speed[:, 0]))
    reward, continue_prob = outlook(model, states, FREE)
    assert torch.equal(reward, states.place[:, 0]) and torch.equal(continue_prob, states.speed[:, 0])
    busy = Guard(max_uncertainty=None, uncertainty_penalty=0.5, range_guard=False, reward_low=0.0, max_episode_steps=50)
    with pytest.raises(AttributeError, match="predict"):
        outlook(model, states, busy)


# ---- the critic's loss on replayed rows (specs/dreamer.md C.6) ----------------------------------------------------------


def _rows(*, last=(0, 0, 0, 0), terminal=(0, 0, 0, 0)):
    flags = [torch.tensor([row], dtype=torch.bool) for row in (last, terminal)]
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    return SequenceBatch(
        obs=torch.zeros(1, 4, 2),
        prev_action=torch.zeros(1, 4, 1),
        reward=torch.tensor([[9.0, 1.0, 2.0, 3.0]]),
        is_first=nothing,
        is_last=flags[0],
        is_terminal=flags[1],
        valid=~nothing,
        index=torch.arange(4).unsqueeze(0),
    )


@pytest.mark.parametrize(
    ("last", "terminal", "returns"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), [33.274225, 36.695, 39.0]),
        ((0, 0, 1, 0), (0, 0, 1, 0), [3.61, 2.0, 0.0]),
        ((0, 0, 1, 0), (0, 0, 0, 0), [26.695, 29.0, 0.0]),
    ],
)
def test_replay_value_loss_regresses_the_fixtures_and_skips_last_rows(last, terminal, returns):
    """F.1-6: a critic that says 0 pays half the squared return; nothing is learnt of what follows an episode's last row."""
    agent, _ = _agent(RECIPES["v3"], critic_distribution="normal", slow_critic=None, discount=0.9)
    imagined = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    loss = agent.replay_value_loss(torch.zeros(1, 4, 2), _rows(last=last, terminal=terminal), imagined)
    assert loss.item() == pytest.approx(0.3 * 0.5 * sum(value**2 for value in returns) / 3.0, rel=1e-6)


def test_replay_value_loss_reaches_features_and_critic_but_not_its_target():
    agent, _ = _agent(RECIPES["v3"])
    torch.nn.init.normal_(agent.critic.network[-1].weight, std=0.1)
    features = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    imagined = torch.ones(1, 4, requires_grad=True)
    agent.replay_value_loss(features, _rows(), imagined).backward()
    assert float(features.grad[:, :-1].abs().min()) > 0.0 and float(features.grad[:, -1].abs().max()) == 0.0
    assert all(parameter.grad is not None for parameter in agent.critic.parameters())
    assert imagined.grad is None and all(parameter.grad is None for parameter in agent.slow_critic.parameters())
