"""Where searches may begin: dreamt states to start from, repeatable starts, and a study whose searches end no worse than they begin."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.linear import LinearController, LinearControllerConfig
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.training.gradient_start import GradientStart, chances, dreamt_states, gradient_start
from tests.training.fall import SPEC, dropping

CONFIG = ActorCriticConfig(layers=1, units=8, horizon=5, reinforce=1.0)
QUICK = GradientStart(updates=4, starts=16, renew_every=2, dreams=8, steps=12, config=CONFIG)


@pytest.fixture(scope="module")
def model():
    """Its dreams end by chance; nothing is trained."""
    made = dropping(0.1)
    made.config = replace(made.config, defaults=replace(made.defaults, termination="sample"))
    return made


def controller(model, **options):
    return LinearController(model.spec, model.core.feature_size, LinearControllerConfig(**options))


def started(model, settings=QUICK, **options):
    made = controller(model)
    gradient_start(model, made, settings, **options)
    return made.vector


def test_the_same_seed_gives_the_same_start_and_seed_temperature_and_dropout_another(model):
    first = started(model)
    assert np.abs(first).max() > 0.0
    np.testing.assert_array_equal(first, started(model))
    for other in ({"seed": 1}, {"temperature": 2.0}, {"dropout": 0.5}):
        assert not np.array_equal(first, started(model, **other)), other


def test_starts_are_those_of_the_agents_own_lives_anew_every_few_updates(model, monkeypatch):
    from dreamgym.training import gradient_start as module

    asked = []

    def counting(model, agent, **options):
        asked.append((torch.cat([weights.detach().flatten() for weights in agent.actor.parameters()]), options["seed"]))
        return dreamt_states(model, agent, **options)

    monkeypatch.setattr(module, "dreamt_states", counting)
    started(model)
    assert len({seed for _, seed in asked}) == len(asked) == 3  # before updates 0 and 2, and after the last
    assert not any(torch.equal(one, other) for (one, _), (other, _) in itertools.pairwise(asked))


def test_the_controller_is_the_map_closest_to_what_the_actor_critic_would_do(model):
    made = controller(model, bias=True)
    teacher = gradient_start(model, made, QUICK)
    features = model.features(dreamt_states(model, teacher, dreams=64, steps=20, seed=5).state)
    closest = controller(model, bias=True)
    assert closest.imitate(features, chances(teacher, features)) > 0.9  # chances of an actor that has hardly learned are about linear
    width = features.shape[1] * model.spec.action_size
    outputs = [features @ torch.from_numpy(one.vector)[:width].unflatten(0, (-1, features.shape[1])).T for one in (made, closest)]
    assert torch.corrcoef(torch.stack([output.flatten() for output in outputs]))[0, 1] > 0.9


def test_dreamt_states_are_before_the_end_of_each_dream(model):
    agent = ActorCritic(model.spec, model.core.feature_size, CONFIG)
    bank = dreamt_states(model, agent, dreams=32, steps=400, every=1, seed=3)
    env = DreamVectorEnv(model, 32, obs_type="latent")
    obs, _ = env.reset(seed=3)
    agent.reseed(3)
    lengths = np.zeros(32, int)
    for step in range(1, SPEC.max_episode_steps + 1):
        action, _ = agent.predict(obs)
        obs, _, terminated, truncated, _ = env.step(action)
        lengths = np.where((lengths == 0) & (terminated | truncated), step, lengths)
    assert len(set(lengths)) > 3 and lengths.min() < SPEC.max_episode_steps  # dreams of this model do end
    assert len(bank.is_first) == lengths.sum() and not bank.is_first.any()
    few = dreamt_states(model, agent, dreams=32, steps=11, every=5, seed=3)
    assert len(few.is_first) <= 3 * 32  # of steps 0, 5 and 10


def test_hotter_starts_are_dreamt_hotter(model):
    agent = ActorCritic(model.spec, model.core.feature_size, CONFIG)

    def spread(temperature):
        state = dreamt_states(model, agent, dreams=256, steps=11, temperature=temperature, seed=3).state
        return state.stoch[256:].std()  # the first are where dreams begin

    assert spread(0.1) < 0.8 * spread(1.0) < 0.8 * spread(2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": 0}, "updates is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"spread": 0.0}, "spread is 0.0"),
        ({"ridge": -1.0}, "ridge is -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_settings_without_a_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GradientStart(**options)


def test_a_controller_that_is_not_linear_is_refused_before_anything_is_learned(model):
    with pytest.raises(ValueError, match="hidden units"):
        gradient_start(model, controller(model, hidden=3), replace(QUICK, updates=10**9))
