"""Observations in and out: PlaNet's quantisation (planet.md 8.1-4, -5), V3's squashing, Dict spaces, and the chance levels of F.2-13."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.formats import codec
from dreamgym.models.observations import (
    ObservationDecoder,
    ObservationDecoderConfig,
    ObservationEncoder,
    ObservationEncoderConfig,
    quantise,
    restore,
)
from dreamgym.nn.convolutions import ConvConfig
from dreamgym.nn.distributions import symlog
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import Spec

TINY_CONV = ConvConfig(depth=2)
TINY_MLP = MLPConfig(layers=1, units=8)
MIXED = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (32, 32, 3), np.uint8),
        "left.eye": spaces.Box(0, 255, (32, 32, 1), np.uint8),
        "items": spaces.Discrete(3, start=2),
        "position": spaces.Box(-2.0, 2.0, (2,), np.float32),
        "speed": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    }
)


def spec_of(space: spaces.Space) -> Spec:
    return Spec("Toy-v0", space, spaces.Discrete(2), max_episode_steps=50)


def pair(space: spaces.Space, likelihood: str = "normal", **encoder: object) -> tuple[ObservationEncoder, ObservationDecoder]:
    torch.manual_seed(0)
    reads = ObservationEncoder(spec_of(space), ObservationEncoderConfig(TINY_CONV, TINY_MLP, **encoder))
    config = ObservationDecoderConfig(TINY_CONV, TINY_MLP, likelihood)
    return reads, ObservationDecoder(spec_of(space), config, 4, 8, scaling=reads.scaling)


def mixed_rows(*lead: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "camera": torch.randint(256, (*lead, 32, 32, 3), generator=generator, dtype=torch.uint8),
        "left.eye": torch.randint(256, (*lead, 32, 32, 1), generator=generator, dtype=torch.uint8),
        "items": torch.randint(2, 5, lead, generator=generator),
        "position": torch.rand(*lead, 2, generator=generator),
        "speed": torch.randn(*lead, 3, generator=generator) * 10.0,
    }


def say(decoder: ObservationDecoder, value: float = 0.0) -> None:
    """Make every net of the decoder say `value` whatever the features."""
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)
    last = [net.deconvs[-1] for net in decoder.image_nets] + ([] if decoder.vector_net is None else [decoder.vector_net[-1]])
    for layer in last:
        torch.nn.init.constant_(layer.bias, value)


# ---- quantisation ------------------------------------------------------------------------------------------------------


def test_five_bits_put_values_into_the_bins_of_planet():
    images = torch.tensor([[0, 7, 8, 255]], dtype=torch.uint8)
    for dither in (torch.tensor([1e-6]), torch.tensor([0.7]), torch.tensor([1 - 1e-6])):
        y = quantise(images, 5, dither)[0]
        assert (torch.floor((y + 0.5) * 32)).tolist() == [0, 0, 1, 31]
        assert -0.5 <= float(y[0]) < -0.46875 and -0.46875 <= float(y[2]) < -0.4375 and 0.46875 <= float(y[3]) < 0.5


def test_without_noise_every_value_lies_in_the_middle_of_its_bin():
    images = torch.tensor([[0, 8, 255]], dtype=torch.uint8)
    middle = [0.5 / 32 - 0.5, 1.5 / 32 - 0.5, 31.5 / 32 - 0.5]
    assert quantise(images, 5).tolist() == [middle]
    assert quantise(images, 5, torch.tensor([0.5])).tolist() == [middle]


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_restoring_loses_only_the_low_bits(bits):
    images = torch.arange(256, dtype=torch.uint8).repeat(40, 8)
    dither = torch.rand(40, generator=torch.Generator().manual_seed(bits))
    kept = images - images % 2 ** (8 - bits)
    assert torch.equal(restore(quantise(images, bits, dither), bits), kept)
    assert torch.equal(restore(quantise(images, bits), bits), kept)


def test_restored_predictions_beyond_the_range_are_clipped():
    assert restore(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


def test_quantised_uniform_images_have_a_mean_of_zero_and_uniform_noise():
    images = torch.arange(256, dtype=torch.uint8).repeat(64, 16)
    y = quantise(images, 5, torch.rand(64, generator=torch.Generator().manual_seed(0)))
    assert abs(float(y.mean())) < 1e-3
    noise = (y + 0.5) * 32 - images.div(8, rounding_mode="floor")
    histogram = torch.histc(noise, bins=16, min=0.0, max=1.0)
    chi_squared = float(((histogram - noise.numel() / 16) ** 2 / (noise.numel() / 16)).sum())
    assert chi_squared < 37.7  # the 0.1 % point of 15 degrees of freedom


def test_noise_is_a_function_of_the_dither_and_differs_between_pixels_and_rows():
    images = torch.zeros(3, 32, 32, 1, dtype=torch.uint8)
    y = quantise(images, 5, torch.tensor([0.25, 0.25, 0.75]))
    assert torch.equal(y[0], y[1]) and not torch.equal(y[0], y[2])
    assert y[0].unique().numel() > 1000
    assert torch.equal(y[2:], quantise(images[2:], 5, torch.tensor([0.75])))


# ---- encoder -----------------------------------------------------------------------------------------------------------


def test_images_are_read_between_minus_and_plus_one_half():
    encoder, _ = pair(spaces.Box(0, 255, (32, 32, 3), np.uint8))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 32, 32, 3)
    assert encoder.scaling.image(images).flatten(1).mean(1).tolist() == [-0.5, 0.5]


def test_a_dict_is_embedded_part_by_part_with_one_mlp_for_all_that_is_no_image():
    encoder, _ = pair(MIXED)
    assert encoder.encode(mixed_rows(5)).shape == (5, encoder.embed_size)
    assert encoder.embed_size == 2 * encoder.image_nets[0].outputs + 8
    assert encoder.vector_net[0].in_features == 2 + 3 + 3


@pytest.mark.parametrize("name", list(MIXED))
def test_every_part_of_a_dict_reaches_the_embedding_of_its_own_row_only(name):
    encoder, _ = pair(MIXED)
    rows = mixed_rows(2)
    before = encoder.encode(rows)
    other = rows[name].clone()
    other[1] = 4 if name == "items" and int(other[1]) != 4 else mixed_rows(2, seed=1)[name][1]
    after = encoder.encode(rows | {name: other})
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_gradients_reach_every_parameter_of_the_encoder():
    encoder, _ = pair(MIXED)
    encoder.encode(mixed_rows(4)).square().sum().backward()
    assert all(bool(parameter.grad.any()) for name, parameter in encoder.named_parameters() if name.endswith("weight"))


def test_symlog_squashes_what_the_encoder_reads():
    encoder, _ = pair(spaces.Box(-np.inf, np.inf, (3,), np.float32), symlog=True)
    x = torch.tensor([[1e4, -1.0, 0.0]])
    torch.testing.assert_close(encoder.scaling.vector({"obs": x}), symlog(x))


def test_standardised_vectors_have_mean_zero_and_std_one_and_come_back():
    encoder, _ = pair(MIXED, standardise=True, symlog=True)
    rows = mixed_rows(500)
    encoder.fit({name: value.numpy() for name, value in rows.items()})
    inside = encoder.scaling.vector(rows)
    torch.testing.assert_close(inside.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std(0, correction=0), torch.ones(5), atol=1e-4, rtol=0)
    own = torch.cat([rows["position"], rows["speed"]], -1)
    torch.testing.assert_close(encoder.scaling.restore_vector(inside), own, rtol=1e-4, atol=1e-4)


def test_a_constant_dimension_stays_finite_when_standardised():
    encoder, _ = pair(spaces.Box(-9.0, 9.0, (2,), np.float32), standardise=True)
    encoder.fit(np.array([[3.0, 1.0], [3.0, 2.0]], np.float32))
    assert encoder.scaling.vector({"obs": torch.tensor([[3.0, 1.5]])}).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("shape", [(48, 64, 3), (84, 84, 1)])
def test_images_of_other_shapes_are_refused_with_the_next_move(shape):
    with pytest.raises(ValueError, match="size=64"):
        ObservationEncoder(spec_of(spaces.Box(0, 255, shape, np.uint8)), ObservationEncoderConfig())


def test_a_tensor_where_a_dict_is_expected_is_refused():
    with pytest.raises(TypeError, match="a dict"):
        pair(MIXED)[0].encode(torch.zeros(2, 3))


# ---- decoder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "chance"), [(3, 11291.917), (1, 3763.972)])
def test_chance_level_of_images_holds_the_constant_and_half_the_squared_error(channels, chance):
    _, decoder = pair(spaces.Box(0, 255, (64, 64, channels), np.uint8))
    say(decoder)
    images = torch.stack([torch.full((64, 64, channels), value, dtype=torch.uint8) for value in (0, 255)])
    loss = decoder.losses(torch.zeros(2, 12), images)["obs"]
    squared = 64 * 64 * channels * 0.25
    assert loss.tolist() == pytest.approx([chance + 0.5 * squared] * 2, rel=1e-6)
    assert float(loss.detach().min()) >= chance


def test_perfect_image_costs_the_constant_of_planet():
    _, decoder = pair(spaces.Box(0, 255, (64, 64, 3), np.uint8), bits=5)
    say(decoder, 10.5 / 32 - 0.5)
    loss = decoder.losses(torch.zeros(1, 12), torch.full((1, 64, 64, 3), 80, dtype=torch.uint8))["obs"]
    assert loss.tolist() == pytest.approx([11291.917], rel=1e-6)


def test_quantisation_noise_alone_costs_half_a_nat():
    _, decoder = pair(spaces.Box(0, 255, (64, 64, 3), np.uint8), bits=5)
    say(decoder, 10.5 / 32 - 0.5)
    dither = torch.rand(8, generator=torch.Generator().manual_seed(0))
    loss = decoder.losses(torch.zeros(8, 12), torch.full((8, 64, 64, 3), 80, dtype=torch.uint8), dither)["obs"]
    assert float(loss.detach().mean()) - 11291.917 == pytest.approx(0.5, abs=0.01)


def test_squared_images_go_through_a_sigmoid_against_zero_to_one_without_half_or_constant():
    _, decoder = pair(spaces.Box(0, 255, (32, 32, 1), np.uint8), "squared")
    say(decoder)
    images = torch.stack([torch.full((32, 32, 1), value, dtype=torch.uint8) for value in (0, 255)])
    assert decoder.losses(torch.zeros(2, 12), images)["obs"].tolist() == pytest.approx([1024 * 0.25] * 2, rel=1e-6)
    assert decoder.predict(torch.zeros(1, 12)).unique().tolist() == [128]


def test_vectors_are_regressed_in_symlog_space_and_predicted_in_their_own():
    encoder, decoder = pair(spaces.Box(-1e6, 1e6, (2,), np.float32), "squared", symlog=True)
    say(decoder, 3.0)
    obs = torch.tensor([[1e4, 0.0]])
    expected = float(((3.0 - symlog(obs)) ** 2).sum())
    assert decoder.losses(torch.zeros(1, 12), obs)["obs"].tolist() == pytest.approx([expected], rel=1e-6)
    assert decoder.predict(torch.zeros(1, 12)).tolist()[0] == pytest.approx([np.expm1(3.0)] * 2, rel=1e-6)
    assert encoder.scaling is decoder.scaling


def test_predicted_vectors_are_clipped_to_the_space():
    _, decoder = pair(MIXED)
    say(decoder, 5.0)
    assert decoder.predict(torch.zeros(1, 12))["position"].tolist() == [[2.0, 2.0]]


def test_classes_cost_their_cross_entropy_and_are_predicted_with_their_start():
    _, decoder = pair(MIXED)
    say(decoder)
    rows = mixed_rows(6)
    assert decoder.losses(torch.zeros(6, 12), rows)["items"].tolist() == pytest.approx([np.log(3.0)] * 6, rel=1e-6)
    decoder.vector_net[-1].bias.data[-1] = 1.0
    assert decoder.predict(torch.zeros(2, 12))["items"].tolist() == [4, 4]


def test_losses_keep_leading_dimensions_and_rows_apart():
    _, decoder = pair(MIXED)
    features = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
    rows = mixed_rows(2, 3)
    losses = decoder.losses(features, rows)
    assert list(losses) == sorted(MIXED) and all(loss.shape == (2, 3) for loss in losses.values())
    one = decoder.losses(features[1, 2:], {name: value[1, 2:] for name, value in rows.items()})
    for name, loss in losses.items():
        torch.testing.assert_close(loss[1, 2:], one[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", [MIXED, spaces.Box(0, 255, (32, 32, 9), np.uint8), spaces.Box(-1.0, 1.0, (4,), np.float32)])
def test_predictions_lie_in_the_observation_space(space):
    _, decoder = pair(space, bits=5)
    predicted = decoder.predict(torch.randn(1, 12, generator=torch.Generator().manual_seed(0)) * 100.0)
    if isinstance(space, spaces.Dict):
        assert all(part.contains(predicted[name][0].detach().numpy().astype(part.dtype)) for name, part in space.items())
    else:
        assert space.contains(predicted[0].detach().numpy())


def test_gradients_reach_features_and_every_weight_of_the_decoder():
    _, decoder = pair(MIXED)
    features = torch.randn(4, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.stack([loss.sum() for loss in decoder.losses(features, mixed_rows(4)).values()]).sum().backward()
    assert bool(features.grad.any())
    assert all(bool(parameter.grad.any()) for parameter in decoder.parameters())


def test_range_is_that_of_the_data_widened_by_a_tenth():
    encoder, decoder = pair(spaces.Box(-9.0, 9.0, (1,), np.float32))
    say(decoder, 1.05)
    assert decoder.in_range(torch.zeros(2, 12)).tolist() == [True, True]  # nothing is known before fit
    encoder.fit(np.array([[0.0], [1.0]], np.float32))
    assert decoder.in_range(torch.zeros(1, 12)).tolist() == [True]
    say(decoder, 1.15)
    assert decoder.in_range(torch.zeros(1, 12)).tolist() == [False]


def test_images_are_always_in_range():
    assert pair(spaces.Box(0, 255, (32, 32, 1), np.uint8))[1].in_range(torch.full((2, 12), 1e9)).tolist() == [True, True]


def test_the_scaling_is_saved_once_and_stays_shared_in_a_copy():
    both = torch.nn.ModuleList(pair(MIXED))
    assert not any("scaling" in name for name in both[1].state_dict())
    copied = copy.deepcopy(both)
    assert copied[1].scaling is copied[0].scaling and copied[0].scaling is not both[0].scaling


def test_a_trained_symlog_model_predicts_in_the_units_it_read():
    torch.manual_seed(0)
    spec = spec_of(spaces.Box(-np.inf, np.inf, (2,), np.float32))
    mlp = MLPConfig(1, 32, "silu", "rms")
    encoder = ObservationEncoder(spec, ObservationEncoderConfig(vectors=mlp, symlog=True))
    decoder = ObservationDecoder(spec, ObservationDecoderConfig(vectors=mlp, likelihood="squared"), 32, 0, scaling=encoder.scaling)
    obs = torch.tensor([[1.0, -200.0], [0.3, 50.0], [-5.0, 0.0], [20.0, 3.0]])
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        decoder.losses(encoder.encode(obs), obs)["obs"].mean().backward()
        optimiser.step()
    torch.testing.assert_close(decoder.predict(encoder.encode(obs)), obs, rtol=0.1, atol=0.1)


def test_configs_survive_json():
    for config in (ObservationEncoderConfig(ConvConfig("pooled", 4), TINY_MLP, symlog=True, bits=5), ObservationDecoderConfig()):
        assert codec.decode(type(config), codec.encode(config)) == config


@pytest.mark.parametrize("bits", [0, 9])
def test_impossible_bits_are_refused(bits):
    with pytest.raises(ValueError, match=str(bits)):
        ObservationEncoderConfig(bits=bits)
