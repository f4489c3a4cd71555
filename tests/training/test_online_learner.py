"""One online update: what it moves, what it leaves alone, and the latents it writes back."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.models.calibration import filter_episode
from dreamgym.models.world_model import WorldModel
from dreamgym.training.gradient_step import GradientStep
from dreamgym.training.learners import Randomness
from dreamgym.training.online_config import OptimiserConfig
from dreamgym.training.online_learner import OnlineLearner, fit_scaling
from dreamgym.training.rows import WindowSampler
from tests.training.online_toys import STEPS, TRAINING, Line, spec_of, tiny_planet, tiny_preset, tiny_v3, trainer_of


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A V3 trainer that acted for 5 episodes and has not learned yet."""
    training = replace(TRAINING, env_steps=5 * STEPS, pretrain=0, train_every=1000, evaluate_every=0, prefill=STEPS)
    trainer = trainer_of(tmp_path_factory.mktemp("lived"), tiny_v3(training), Line(edge=0.6))
    trainer.run()
    return trainer


def _batch(lived, length=TRAINING.length):
    settings = replace(TRAINING, batch=8, length=length)
    return WindowSampler(lived.replay, settings).draw(np.random.default_rng(0))


def _learner(preset, *, planner=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(spec_of(Line()), preset.model)
        agent = planner or ActorCritic(model.spec, model.core.feature_size, preset.agent)
    return OnlineLearner(model, agent, preset, Randomness(0))


def _weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def _same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# ---- what moves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reinforce", [0.0, 1.0])
def test_the_agents_update_never_touches_the_model(lived, reinforce):
    """A planner, which has no update, and an actor-critic leave the same model behind."""
    preset = tiny_preset()
    preset = replace(preset, agent=replace(preset.agent, reinforce=reinforce))
    acting, planning = _learner(preset), _learner(tiny_planet(), planner=object())
    before = _weights(acting.agent)
    for number in range(3):
        acting.update(_batch(lived), None, number)
        planning.update(_batch(lived), None, number)
    assert _same(_weights(acting.model), _weights(planning.model))
    after = _weights(acting.agent)
    for network in ("actor", "critic", "slow_critic"):
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith(network)), network


def test_actor_and_critic_losses_reach_their_own_network_only(lived):
    preset = tiny_preset()
    for still in ("actor", "critic"):
        learner = _learner(preset)
        learner.steps[still].minimise = lambda loss, rate: torch.zeros(())
        before = _weights(getattr(learner.agent, still))
        learner.update(_batch(lived), None, 0)
        assert _same(before, _weights(getattr(learner.agent, still)))


def test_a_joint_update_is_one_step_of_one_optimiser_over_everything(lived):
    learner = _learner(tiny_v3())
    assert list(learner.steps) == ["model"]
    before = _weights(learner.model), _weights(learner.agent)
    metrics, _ = learner.update(_batch(lived), None, 0)
    assert learner.steps["model"].steps == 1 and {"kl", "actor_loss", "critic_loss", "replay_value", "norm"} <= metrics.keys()
    after = _weights(learner.model), _weights(learner.agent)
    for mine, its in zip(before, after):
        moved = {name.split(".")[0] for name in mine if not torch.equal(mine[name], its[name])}
        assert moved >= ({"encoder", "core", "heads"} if mine is before[0] else {"actor", "critic", "slow_critic"})


def test_the_replayed_value_loss_reaches_the_model_and_dreams_do_not(lived):
    """The critic is not zero here, or its gradient would not reach the features either."""
    preset = tiny_v3()
    weights = {}
    for name, scale in (("without", 0.0), ("with", 0.3)):
        learner = _learner(replace(preset, agent=replace(preset.agent, replay_value=scale, critic_output_scale=1.0)))
        learner.update(_batch(lived), None, 0)
        weights[name] = _weights(learner.model)
    planning = _learner(replace(tiny_planet(), model=preset.model, model_optimiser=preset.model_optimiser), planner=object())
    planning.update(_batch(lived), None, 0)
    assert _same(weights["without"], _weights(planning.model))
    assert not _same(weights["with"], weights["without"])


def test_what_an_update_draws_depends_on_its_number_alone(lived):
    once, other, again = _learner(tiny_preset()), _learner(tiny_preset()), _learner(tiny_preset())
    torch.manual_seed(7)  # the global generator has no say
    first, _ = once.update(_batch(lived), None, 5)
    torch.manual_seed(8)
    second, _ = again.update(_batch(lived), None, 5)
    third, _ = other.update(_batch(lived), None, 6)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["kl"] != third["kl"] and first["actor_loss"] != third["actor_loss"]


def test_bfloat16_losses_move_float32_weights(lived):
    learner = _learner(replace(tiny_preset(), bfloat16=True))
    metrics, states = learner.update(_batch(lived), None, 0)
    assert all(torch.isfinite(value) for value in metrics.values()) and states.deter.dtype == torch.float32
    assert {value.dtype for value in learner.model.parameters()} == {torch.float32}


# ---- starts ---------------------------------------------------------------------------------------------------------------


def _starts_given(lived, preset):
    learner, given = _learner(preset), {}
    losses = learner.agent.losses

    def spy(model, start, guard, generator, *, start_alive):
        given.update(count=len(start.deter), alive=start_alive)
        return losses(model, start, guard, generator, start_alive=start_alive)

    learner.agent.losses = spy
    batch = _batch(lived, length=12)
    learner.update(batch, None, 0)
    return batch, given


def test_v1_dreams_from_every_row_but_the_last_of_an_episode(lived):
    batch, given = _starts_given(lived, tiny_preset())
    assert batch.is_last.any() and given["count"] == int((~batch.is_last).sum()) and given["alive"].all()


@pytest.mark.parametrize("indexing", ["v2", "v3"])
def test_later_dreamers_dream_from_every_row_and_are_told_which_have_ended(lived, indexing):
    preset = tiny_preset()
    batch, given = _starts_given(lived, replace(preset, agent=replace(preset.agent, indexing=indexing)))
    assert batch.is_terminal.any() and given["count"] == batch.reward.numel()
    assert torch.equal(given["alive"], ~batch.is_terminal.flatten())


def test_a_number_of_starts_is_drawn_from_the_batch(lived):
    _, given = _starts_given(lived, tiny_preset(replace(TRAINING, starts=7)))
    assert given["count"] == 7


# ---- one gradient step ----------------------------------------------------------------------------------------------------


def _step(config, *values):
    """Weights after gradients of 1 in every step."""
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    step = GradientStep([weight], config)
    found = []
    for _ in range(int(values[0]) if values else 1):
        step.minimise(weight.sum())
        found.append(float(weight.detach()))
    return found


def test_weights_decay_by_a_share_that_the_rate_does_not_scale():
    plain, decayed = (_step(OptimiserConfig(learning_rate=0.01, weight_decay=share))[0] for share in (0.0, 0.1))
    assert plain == pytest.approx(1.99) and decayed == pytest.approx(2.0 * 0.9 - 0.01)


def test_the_rate_rises_linearly_over_the_warmup():
    after = _step(OptimiserConfig(learning_rate=0.1, warmup=4), 6)
    assert np.diff([2.0, *after]) == pytest.approx([-0.025, -0.05, -0.075, -0.1, -0.1, -0.1], rel=1e-3)


def test_laprop_of_constant_gradients_moves_by_the_rate():
    config = OptimiserConfig(kind="laprop", learning_rate=0.1, eps=1e-20, clip=None)
    assert np.diff([2.0, *_step(config, 3)]) == pytest.approx([-0.1, -0.1, -0.1], rel=1e-3)


def test_the_reported_norm_is_that_before_clipping():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    for config in (OptimiserConfig(clip=0.5), OptimiserConfig(kind="laprop", clip=None, adaptive_clip=0.3)):
        step = GradientStep([weight], config)
        assert float(step.minimise(3.0 * weight.sum())) == pytest.approx(3.0)


def test_parameters_that_a_loss_does_not_reach_stay():
    reached, other = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    GradientStep([reached, other], OptimiserConfig(learning_rate=0.1)).minimise(reached.sum())
    assert other == 1.0 and reached < 1.0


@pytest.mark.parametrize("kind", ["adam", "laprop"])
def test_a_saved_step_goes_on_as_if_nothing_had_happened(kind):
    def minimise(step, times):
        for _ in range(times):
            step.minimise((step.parameters[0] ** 2).sum())

    config = OptimiserConfig(kind=kind, learning_rate=0.1, warmup=8)
    whole = GradientStep([torch.nn.Parameter(torch.ones(3))], config)
    minimise(whole, 3)
    resumed = GradientStep([torch.nn.Parameter(whole.parameters[0].detach().clone())], config)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in (whole, resumed):
        minimise(step, 3)
    assert torch.equal(whole.parameters[0], resumed.parameters[0])


# ---- stored latents (specs/dreamer.md F.2, 14) ----------------------------------------------------------------------------


def test_the_latents_of_lived_rows_are_those_the_agent_acted_on(lived):
    assert lived.counters.updates == 0  # or they would have been written back
    start, stop = lived.replay.episodes[lived.replay.policies.index("Explorer")]
    expected, _ = filter_episode(lived.model, lived.replay.sequence(start, stop))
    stored = lived.latents.read(torch.arange(start, stop - 1), torch.device("cpu"))
    assert torch.allclose(stored.deter, expected.deter[0, :-1], atol=1e-3) and torch.equal(stored.stoch, expected.stoch[0, :-1])


def test_an_update_writes_latents_back_and_a_frozen_model_writes_the_same_again(lived):
    latents, sampler = copy.deepcopy(lived.latents), WindowSampler(lived.replay, lived.settings)
    learner = _learner(tiny_v3())
    window = sampler.draw(np.random.default_rng(3))
    learner.steps["model"].minimise = lambda loss, rate: torch.zeros(())
    versions = [latents.state_dict()]
    for _ in range(2):
        carry = latents.read(window.index[:, 0], torch.device("cpu"))
        _, states = learner.update(window[:, 1:], carry, 0)
        latents.write(window.index[:, 1:], states)
        versions.append(latents.state_dict())
    touched = torch.zeros(len(latents), dtype=torch.bool)
    touched[window.index[:, 1:].flatten()] = True
    for name in ("deter", "stoch"):
        changed = (versions[0][name] != versions[1][name]).any(-1)
        assert changed[touched].any() and not changed[~touched].any()
        assert torch.equal(versions[1][name], versions[2][name])


def test_a_stored_carry_is_what_the_window_begins_from(lived):
    """With the true state before it, a window's posteriors are those of the whole episode; from zeros they are not."""
    learner = _learner(tiny_v3())
    start, stop = lived.replay.episodes[0]
    rows = lived.replay.sequence(start, stop)
    half = torch.full((1, stop - start, learner.model.noise_lanes), 0.5)
    whole = learner.model.loss(rows, half).states.detach()
    later = learner.model.loss(rows[:, 4:], half[:, 4:], whole[:, 3]).states
    blind = learner.model.loss(rows[:, 4:], half[:, 4:]).states
    assert torch.allclose(later.deter, whole.deter[:, 4:], atol=1e-6)
    assert not torch.allclose(blind.deter[:, 0], whole.deter[:, 4], atol=1e-3)


# ---- scaling --------------------------------------------------------------------------------------------------------------


def test_vectors_are_standardised_once_and_their_range_follows_the_data(lived):
    preset = tiny_preset()
    model = _learner(replace(preset, model=replace(preset.model, encoder=replace(preset.model.encoder, standardise=True)))).model
    obs = lived.replay.column("obs")
    fit_scaling(model, lived.replay, before_learning=True)
    scaling = model.encoder.scaling
    assert scaling.mean.tolist() == pytest.approx(obs.mean(0).tolist(), abs=1e-5)
    scaling.mean.add_(1.0)
    scaling.low.sub_(9.0)
    fit_scaling(model, lived.replay, before_learning=False)
    assert scaling.mean.tolist() == pytest.approx((obs.mean(0) + 1.0).tolist(), abs=1e-5)
    assert np.array_equal(scaling.low.numpy(), obs.min(0))
