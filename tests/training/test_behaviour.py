"""An actor-critic learned in a finished model: repeatable, in bfloat16 nearly the same, and the model stays as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.models.bfloat16 import Bfloat16Dreamer
from dreamgym.structs import StartBank
from dreamgym.training.behaviour import learn_behaviour
from tests.models.builders import tiny_mdn

CONFIG = ActorCriticConfig(layers=1, units=16, horizon=5, reinforce=1.0)


@pytest.fixture
def model():
    made = tiny_mdn(units=64, members=1).eval()
    state = replace(made.initial(32), stoch=torch.randn(32, made.core.stoch_size, generator=torch.Generator().manual_seed(0)))
    made.initial_states = StartBank(state, torch.ones(32, dtype=torch.bool))
    return made


def _weights(agent):
    return torch.cat([parameter.detach().flatten() for parameter in agent.parameters()])


def test_the_same_seed_gives_the_same_agent_and_another_another(model):
    agents = [learn_behaviour(model, CONFIG, updates=3, starts=16, seed=seed, bfloat16=True) for seed in (0, 0, 1)]
    assert torch.equal(_weights(agents[0]), _weights(agents[1]))
    assert not torch.equal(_weights(agents[0]), _weights(agents[2]))


def test_dreams_in_bfloat16_teach_nearly_the_same_and_leave_the_model_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half, full, fresh = (
        _weights(learn_behaviour(model, CONFIG, updates=updates, starts=256, seed=0, bfloat16=bfloat16))
        for updates, bfloat16 in ((20, True), (20, False), (0, False))
    )
    learned = (full - fresh).norm()
    assert 0.0 < (half - full).norm() < 0.3 * learned  # not equal: bfloat16 was used
    assert all(torch.equal(value, before[name]) and value.dtype == before[name].dtype for name, value in model.state_dict().items())


def test_a_bfloat16_dreamer_answers_in_float32_and_about_the_same(model):
    half, state = Bfloat16Dreamer(model), model.initial_states.state
    noise = torch.rand(32, model.noise_lanes, generator=torch.Generator().manual_seed(1)).clamp(1e-6, 1 - 1e-6)
    action = torch.nn.functional.one_hot(torch.arange(32) % model.spec.action_size).float()
    there = half.step(state, action, noise)
    for found, exact in zip((half.features(there), *half.outcome(there)), (model.features(there), *model.outcome(there))):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)
    torch.testing.assert_close(
        half.features(there)[:, -64:], model.features(model.step(state, action, noise))[:, -64:], rtol=0.05, atol=0.05
    )
    torch.testing.assert_close(half.predict(there).continue_prob, model.predict(there).continue_prob, rtol=0.05, atol=0.05)
    assert torch.equal(half.in_range(there), model.in_range(there))


def test_gradients_through_dreams_are_not_to_be_had_in_bfloat16(model):
    with pytest.raises(ValueError, match="passes through dreams"):
        learn_behaviour(model, replace(CONFIG, reinforce=0.5), updates=1, bfloat16=True)


def test_a_model_without_start_states_is_refused(model):
    model.initial_states = None
    with pytest.raises(ValueError, match="no start states"):
        learn_behaviour(model, CONFIG, updates=1)
