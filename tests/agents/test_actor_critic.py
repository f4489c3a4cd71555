"""The actor-critic that learns by backpropagation through the dream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.belief import BeliefPolicy
from dreamgym.data.replay import Replay
from dreamgym.models.guard import Guard
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import Spec
from dreamgym.training.learners import AgentLearner, Randomness, linear_decay
from tests.models.builders import echo_world, noise_for, tiny_ensemble, tiny_rssm, train
from tests.training.tiny import tiny_ensemble as tiny_preset

FREE = Guard(max_uncertainty=None, uncertainty_penalty=0.0, range_guard=False, reward_low=0.0, max_episode_steps=50)
SMALL = ActorCriticConfig(layers=1, units=16, horizon=4, reward_scale=1.0, entropy=0.01)


def _starts(model, n=12):
    batch = echo_world(n, 3, seed=0)
    return model.loss(batch, noise_for(model, n, 3)).states.flatten().detach()


@pytest.mark.parametrize("build", [tiny_rssm, tiny_ensemble])
def test_only_the_actor_and_the_critic_receive_gradients(build):
    """F.1-8: the world model learns nothing from behaviour, the critic nothing from the actor's loss."""
    model = build()
    agent = ActorCritic(model.spec, model.core.feature_size, SMALL)
    preset = tiny_preset()
    learner = AgentLearner(agent, model, preset, Randomness(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    critic = [parameter.clone() for parameter in agent.critic.parameters()]
    states = _starts(model).map(lambda x: x.unflatten(0, (12, 3)))
    learner.step(states, torch.ones(12, 3, dtype=torch.bool), 0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(old, new) for old, new in zip(critic, agent.critic.parameters()))
    actor_loss = agent.losses(model, _starts(model), FREE, torch.Generator().manual_seed(0)).actor
    agent.zero_grad()
    actor_loss.backward(inputs=list(agent.actor.parameters()))
    assert all(parameter.grad is None for parameter in agent.critic.parameters())


@pytest.mark.parametrize("build", [tiny_rssm, tiny_ensemble])
def test_the_action_that_pays_is_found_in_the_dream(build):
    """Action 0 pays 1 in the echo world, whatever came before."""
    model = build()
    train(model, 150)
    agent = ActorCritic(model.spec, model.core.feature_size, SMALL, seed=0)
    optimiser = torch.optim.Adam(agent.actor.parameters(), 0.01)
    for step in range(40):
        actor_loss = agent.losses(model, _starts(model), FREE, torch.Generator().manual_seed(step)).actor
        for parameter, gradient in zip(agent.actor.parameters(), torch.autograd.grad(actor_loss, list(agent.actor.parameters()))):
            parameter.grad = gradient
        optimiser.step()
    action, _ = agent.predict(model.features(_starts(model)).detach().numpy(), deterministic=True)
    assert (action == 0).mean() > 0.9


def test_a_halt_is_worse_than_living_on():
    """Guarded and unguarded imagination differ exactly where the guard halts."""
    model = tiny_ensemble()
    with torch.no_grad():
        model.heads.continue_net[-1].bias.fill_(9.0)  # no predicted ends, which would go before the guard
    agent = ActorCritic(model.spec, model.core.feature_size, SMALL)
    always = Guard(max_uncertainty=1e-9, uncertainty_penalty=0.0, range_guard=False, reward_low=-1.0, max_episode_steps=50)
    free, guarded = (
        agent.losses(model, _starts(model), guard, torch.Generator().manual_seed(0)).metrics["imagined_return"] for guard in (FREE, always)
    )
    worst_life = -(1.0 - 0.99**50) / 0.01
    assert float(guarded) == pytest.approx(worst_life, rel=1e-3) and float(free) > worst_life + 30.0


def test_predict_gives_the_environments_actions_single_and_batched():
    spec = Spec("Toy-v0", spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(-2.0, 2.0, (2,), np.float32), 10)
    agent = ActorCritic(spec, 3, SMALL)
    single, _ = agent.predict(np.zeros(3, np.float32), deterministic=True)
    batch, _ = agent.predict(np.zeros((4, 3), np.float32), deterministic=True)
    assert spec.action_space.contains(single) and batch.shape == (4, 2)
    np.testing.assert_allclose(batch[0], single, atol=1e-6)
    assert float(np.abs(batch).max()) <= 2.0


def test_exploring_repeats_after_reseeding():
    spec = Spec("Toy-v0", spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(5), 10)
    agent = ActorCritic(spec, 3, SMALL, seed=4)
    drawn = [agent.predict(np.zeros((20, 3), np.float32))[0] for _ in range(2)]
    agent.reseed(4)
    np.testing.assert_array_equal(agent.predict(np.zeros((20, 3), np.float32))[0], drawn[0])
    assert not np.array_equal(*drawn)


def test_raw_observations_are_refused_with_the_next_move():
    spec = Spec("Toy-v0", spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(5), 10)
    with pytest.raises(ValueError, match="LatentObservation"):
        ActorCritic(spec, 3, SMALL).predict(np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"horizon": 1}, "at least 2"),
        ({"discount": 0.0}, "discount"),
        ({"lambda_": 1.5}, "lambda_"),
        ({"reward_scale": 0.0}, "reward_scale"),
        ({"reinforce": 1.5}, "reinforce"),
        ({"indexing": "v4"}, "expected one of v1, v2, v3"),
        ({"slow_critic": None}, "take 'fast'"),
        ({"replay_value": 0.3}, "indexing 'v3'"),
        ({"critic": MLPConfig(2, 16, "silu", "rms")}, "init='paper'"),
        ({"critic_distribution": "two-hot"}, "take init='paper'"),
    ],
)
def test_impossible_settings_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        ActorCriticConfig(**value)


def test_rate_falls_linearly_at_the_end():
    rates = [linear_decay(step, 100, 0.4, floor=0.1) for step in (0, 60, 80, 100)]
    assert rates == pytest.approx([1.0, 1.0, 0.55, 0.1])


class _Recorder:
    """An agent that remembers what it saw and always answers the same."""

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.append(observation)
        return np.array([self.answer] * len(observation)), state


def test_belief_policy_sees_what_filtering_the_whole_episode_gives():
    model = tiny_ensemble()
    policy = BeliefPolicy(_Recorder(1), model)
    obs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    for t in range(4):
        action, _ = policy.predict(obs[t], episode_start=np.array([t == 0]))
        assert action == 1
    expected = model.encoder.encode(torch.from_numpy(obs)).numpy()
    np.testing.assert_allclose(np.concatenate(policy.agent.seen), expected, atol=1e-6)


def test_belief_policy_rows_start_anew_where_told():
    model = tiny_rssm()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    policy, fresh = (BeliefPolicy(_Recorder(0), model) for _ in range(2))
    policy.predict(images, episode_start=np.array([True, True]))
    policy.predict(images[::-1].copy(), episode_start=np.array([False, True]))
    fresh.predict(images[::-1].copy(), episode_start=np.array([True, True]))
    again, first = policy.agent.seen[-1], fresh.agent.seen[-1]
    np.testing.assert_allclose(again[1], first[1], atol=1e-6)
    assert not np.allclose(again[0], first[0], atol=1e-4)


def test_exploration_noise_is_what_the_belief_remembers():
    model = tiny_ensemble()
    policy = BeliefPolicy(_Recorder(0), model, explore_noise=1.0, seed=0)
    taken = [int(policy.predict(np.zeros(3, np.float32), episode_start=np.array([False]))[0]) for _ in range(40)]
    assert set(taken) == {0, 1, 2}
    assert int(policy._prev_action.argmax()) == taken[-1]


def test_agents_collect_through_their_belief(tmp_path):
    """The stored actions are those the environment saw, noise included."""
    import gymnasium as gym

    from dreamgym.data import collect
    from dreamgym.envs import make_env, make_spec

    env = make_env("CartPole-v1", max_episode_steps=20)
    assert isinstance(env.unwrapped, gym.Env)
    spec = make_spec(env, "CartPole-v1")
    model = tiny_ensemble(obs_size=4)
    object.__setattr__(model, "spec", spec)
    replay = Replay(spec)
    recorder = _Recorder(1)
    collect(env, BeliefPolicy(recorder, model, explore_noise=0.3), replay, episodes=3, seed=0)
    actions = replay.column("prev_action")[~replay.column("is_first")]
    assert 0.0 < actions[:, 0].mean() < 0.6  # about 15 % zeros among ones
