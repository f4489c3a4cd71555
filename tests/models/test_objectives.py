"""What a joint objective adds up, and where its gradients may go."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from dreamgym.models.dreamer_heads import DreamerHeadsConfig
from dreamgym.models.imagination import observe_sequence
from dreamgym.models.kl import KLConfig
from dreamgym.models.latents import CategoricalLatent, GaussianLatent
from dreamgym.models.objectives import Contrastive, DreamerObjective, Losses, Reconstruction, RewardOnly
from dreamgym.models.observations import ObservationDecoderConfig, ObservationEncoderConfig, quantise
from dreamgym.models.rssm import BlockGRUConfig, LayerNormGRUConfig, RSSMConfig
from dreamgym.models.world_model import WorldModel, WorldModelConfig
from dreamgym.nn.convolutions import ConvConfig
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import SequenceBatch, Spec
from tests.models.builders import K, echo_world, noise_for

B, T = 4, 9
SMALL = MLPConfig(layers=1, units=16)
SMALL_IMAGES = ConvConfig(depth=2)
CONTRASTIVE = Contrastive(layers=1, units=16)
LATENTS = [GaussianLatent(size=4), CategoricalLatent(variables=3, classes=4, unimix=0.01)]
OBSERVATIONS = [Reconstruction(), CONTRASTIVE, Contrastive("state", "all", layers=1, units=16), RewardOnly()]


def model_for(objective: DreamerObjective, latent: Any = LATENTS[0], *, space: Any = None, core: Any = None, **heads: Any) -> WorldModel:
    torch.manual_seed(0)
    spec = Spec("Toy-v0", space or spaces.Box(-1.0, 2.0, (K,), np.float32), spaces.Discrete(K), max_episode_steps=50)
    config = WorldModelConfig(
        encoder=ObservationEncoderConfig(images=SMALL_IMAGES, vectors=SMALL, bits=5),
        core=RSSMConfig(**{"latent": latent, "deter": 12, "hidden": 16, **(core or {})}),
        heads=DreamerHeadsConfig(
            **{
                "decoder": ObservationDecoderConfig(images=SMALL_IMAGES, vectors=SMALL),
                "reward": SMALL,
                "continue_head": SMALL,
                **heads,
            }
        ),
        objective=objective,
    )
    return WorldModel(spec, config)


def losses_of(model: WorldModel, batch: SequenceBatch, start: Any = None) -> Losses:
    return model.loss(batch, noise_for(model, B, T), start)


def reached(module: nn.Module | None) -> bool:
    """Whether any gradient arrived."""
    assert module is not None
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize("latent", LATENTS, ids=["gaussian", "categorical"])
@pytest.mark.parametrize("observation", OBSERVATIONS, ids=lambda o: type(o).__name__)
def test_total_is_the_sum_of_finite_parts_and_every_gradient_is_finite(observation, latent):
    kl = KLConfig(global_prior=0.1, overshooting_distance=3, overshooting_scale=1.0, free_nats=0.0)
    model = model_for(DreamerObjective(observation, kl), latent, members=2)
    losses = losses_of(model, echo_world(B, T, seed=0))
    losses.total.backward()
    names = {"obs", "reward", "continue", "kl", "global_prior", "overshooting", "members"}
    assert set(losses.parts) == names | ({"contrastive"} if isinstance(observation, Contrastive) else set())
    assert float(losses.total.detach()) == pytest.approx(sum(float(part.detach()) for part in losses.parts.values()), rel=1e-5)
    assert math.isfinite(float(losses.total.detach()))
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("latent", LATENTS, ids=["gaussian", "categorical"])
def test_metrics_are_raw_nats_without_gradient(latent):
    model = model_for(DreamerObjective(kl=KLConfig(free_nats=50.0)), latent)
    losses = losses_of(model, echo_world(B, T, seed=0))
    assert float(losses.parts["kl"].detach()) == 100.0  # the floor, once for each half
    assert 0.0 < float(losses.metrics["kl"]) < 50.0
    assert set(losses.metrics) == {"kl", "prior_entropy", "posterior_entropy"}
    assert not any(metric.requires_grad for metric in losses.metrics.values())


@pytest.mark.parametrize("observation", OBSERVATIONS, ids=lambda o: type(o).__name__)
def test_who_shapes_the_representation(observation):
    model = model_for(DreamerObjective(observation))
    losses = losses_of(model, echo_world(B, T, seed=0))
    losses.parts["obs"].backward(retain_graph=True)
    assert reached(model.heads.decoder)  # it always learns, so that one can always look
    assert reached(model.core) == reached(model.encoder) == isinstance(observation, Reconstruction)
    if isinstance(observation, Contrastive):
        losses.parts["contrastive"].backward(retain_graph=True)
        assert reached(model.core) and reached(model.encoder) and reached(model.contrast)


@pytest.mark.parametrize("name", ["reward", "continue"])
def test_rewards_and_ends_shape_it_too(name):
    model = model_for(DreamerObjective(RewardOnly()))
    losses_of(model, echo_world(B, T, seed=0)).parts[name].backward()
    assert reached(model.core) and reached(model.encoder)


def test_members_do_not():
    model = model_for(DreamerObjective(), members=2)
    losses_of(model, echo_world(B, T, seed=0)).parts["members"].backward()
    assert reached(model.heads.members) and not reached(model.core) and not reached(model.encoder)


@pytest.mark.parametrize("observation", OBSERVATIONS, ids=lambda o: type(o).__name__)
def test_the_heads_miss_nothing_of_an_invalid_row_but_its_observation(observation):
    batch = echo_world(B, T, seed=0)
    hidden = torch.zeros_like(batch.valid)
    hidden[:, -1] = True  # the last row, so that no later state remembers it
    spoilt = dataclasses.replace(batch, valid=~hidden, obs=batch.obs.masked_fill(hidden.unsqueeze(-1), 1e3))
    clean = dataclasses.replace(batch, valid=~hidden)
    spoilt_parts, clean_parts = (losses_of(model_for(DreamerObjective(observation)), its).parts for its in (spoilt, clean))
    for name in {"obs", "contrastive"} & set(clean_parts):
        assert float(spoilt_parts[name].detach()) == pytest.approx(float(clean_parts[name].detach()), rel=1e-5)
    assert float(spoilt_parts["reward"].detach()) != pytest.approx(float(clean_parts["reward"].detach()), rel=1e-3)


def test_scales_multiply_their_parts():
    batch = echo_world(B, T, seed=0)
    plain = losses_of(model_for(DreamerObjective()), batch).parts
    scaled = losses_of(model_for(DreamerObjective(Reconstruction(0.5), reward_scale=10.0, continue_scale=5.0)), batch).parts
    for name, factor in (("obs", 0.5), ("reward", 10.0), ("continue", 5.0), ("kl", 1.0)):
        assert float(scaled[name].detach()) == pytest.approx(factor * float(plain[name].detach()), rel=1e-5)


def test_overshooting_of_distance_one_is_the_plain_kl():
    batch = echo_world(B, T, seed=0)
    plain = losses_of(model_for(DreamerObjective()), batch)
    one = losses_of(model_for(DreamerObjective(kl=KLConfig(overshooting_distance=1, overshooting_scale=1.0))), batch)
    assert torch.equal(plain.total, one.total) and "overshooting" not in one.parts


def test_a_head_without_ends_costs_nothing():
    parts = losses_of(model_for(DreamerObjective(), continue_head=None), echo_world(B, T, seed=0)).parts
    assert float(parts["continue"]) == 0.0


def test_states_carry_gradient():
    model = model_for(DreamerObjective())
    losses = losses_of(model, echo_world(B, T, seed=0))
    assert losses.states.stoch.shape[:2] == (B, T)
    losses.states.stoch.sum().backward()
    assert reached(model.encoder)


def test_start_is_the_memory_before_the_first_row():
    model = model_for(DreamerObjective())
    batch = echo_world(B, T, seed=0, episode=1000)
    batch = dataclasses.replace(batch, is_first=torch.zeros_like(batch.is_first))
    noise = torch.full((B, T, model.core.noise_lanes), 0.5)
    whole = model.loss(batch, noise).states
    embed = model.embed(batch.obs)
    states, _ = observe_sequence(model.core, embed[:, 4:], batch.prev_action[:, 4:], batch.is_first[:, 4:], noise[:, 4:], whole[:, 3])
    torch.testing.assert_close(states.deter, whole.deter[:, 4:])
    from_zero = losses_of(model, batch).total
    elsewhere = losses_of(model, batch, model.core.initial(B).map(lambda tensor: tensor + 0.5)).total
    assert float((from_zero - elsewhere).detach().abs()) > 1e-4


def test_dict_observations_have_a_part_each():
    space = spaces.Dict({"position": spaces.Box(-1.0, 2.0, (K,), np.float32), "reward": spaces.Box(-1.0, 1.0, (1,), np.float32)})
    batch = echo_world(B, T, seed=0)
    batch = dataclasses.replace(batch, obs={"position": batch.obs, "reward": batch.reward.unsqueeze(-1)})
    losses = losses_of(model_for(DreamerObjective(), space=space), batch)
    assert set(losses.parts) == {"obs.position", "obs.reward", "reward", "continue", "kl", "members"}
    assert float(losses.parts["obs.reward"].detach()) > 0.5 * math.log(2 * math.pi) * 0.99  # a unit normal's constant


def test_perfect_rewards_cost_the_constant_times_ten():
    model = model_for(DreamerObjective(reward_scale=10.0))
    with torch.no_grad():
        for parameter in model.heads.reward_net.parameters():
            parameter.zero_()
    batch = echo_world(B, T, seed=0)
    losses = losses_of(model, dataclasses.replace(batch, reward=torch.zeros_like(batch.reward)))
    assert float(losses.parts["reward"].detach()) == pytest.approx(9.189385, rel=1e-6)  # specs/planet.md 8.1-5


@pytest.mark.parametrize("wrong", [{"reward_scale": -1.0}, {"continue_scale": math.inf}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DreamerObjective(**wrong)
    with pytest.raises(ValueError, match="scale"):
        Reconstruction(-1.0)


CORES: list[dict[str, Any]] = [
    {"path": "deterministic"},
    {"path": "stochastic"},
    {"prior_members": 3},
    {"cell": LayerNormGRUConfig()},
    {"cell": BlockGRUConfig(blocks=4), "norm": "rms", "activation": "silu", "prior_layers": 2},
]


@pytest.mark.parametrize("core", CORES, ids=str)
@pytest.mark.parametrize("latent", LATENTS, ids=["gaussian", "categorical"])
def test_every_core_and_latent_learns_by_it(latent, core):
    kl = KLConfig(free_nats=0.0, overshooting_distance=3, overshooting_scale=1.0)
    model = model_for(DreamerObjective(CONTRASTIVE, kl), latent, core=core)
    optimiser = torch.optim.Adam(model.trainable_parameters(), 3e-3)
    totals = []
    for _ in range(4):
        losses = losses_of(model, echo_world(B, T, seed=0))
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < totals[0] and math.isfinite(totals[-1])
    assert all(torch.isfinite(p.grad).all() for p in model.trainable_parameters() if p.grad is not None)


def test_the_first_lane_draws_the_prior_member_in_training_too():
    model = model_for(DreamerObjective(kl=KLConfig(free_nats=0.0)), core={"prior_members": 3})
    batch = echo_world(B, T, seed=0)
    raw = []
    for member in range(3):
        noise = noise_for(model, B, T)
        noise[..., 0] = (member + 0.5) / 3
        losses = model.loss(batch, noise)
        expected = model.core.latent.kl(
            observe_sequence(model.core, model.embed(batch.obs), batch.prev_action, batch.is_first, noise)[1],
            model.core.prior_stats(losses.states.deter, torch.full((B, T), member)),
        )
        assert float(losses.metrics["kl"]) == pytest.approx(float(expected.mean().detach()), rel=1e-5)
        raw.append(float(losses.metrics["kl"]))
    assert len(set(raw)) == 3


@pytest.mark.parametrize("latent", LATENTS, ids=["gaussian", "categorical"])
def test_half_precision_leaves_the_loss_alone(latent):
    kl = KLConfig(free_nats=0.0, overshooting_distance=3, overshooting_scale=1.0)
    model = model_for(DreamerObjective(CONTRASTIVE, kl), latent)
    full = losses_of(model, echo_world(B, T, seed=0)).parts
    with torch.autocast("cpu", torch.bfloat16):
        half = losses_of(model, echo_world(B, T, seed=0)).parts
    for name, part in half.items():
        assert part.dtype == torch.float32 and float(part.detach()) == pytest.approx(float(full[name].detach()), rel=0.02, abs=1e-6)


def test_planets_images_are_quantised_with_the_same_noise_at_either_end():
    model = model_for(DreamerObjective(), space=spaces.Box(0, 255, (32, 32, 3), np.uint8))
    with torch.no_grad():
        for parameter in model.heads.decoder.parameters():
            parameter.zero_()
    images = torch.randint(256, (2, 3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = dataclasses.replace(echo_world(2, 3, seed=0), obs=images)
    noise, seen = noise_for(model, 2, 3), []
    (network,) = model.encoder.image_nets.children()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].permute(0, 2, 3, 1).clone()))
    part = model.loss(batch, noise).parts["obs"]
    target = quantise(images.flatten(0, 1), 5, noise[..., -1].flatten())
    torch.testing.assert_close(seen[0], target)
    expected = 0.5 * (target**2).flatten(1).sum(-1).mean() + 32 * 32 * 3 * 0.5 * math.log(2 * math.pi)
    assert float(part.detach()) == pytest.approx(float(expected), rel=1e-6)
