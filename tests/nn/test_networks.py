"""MLPs as configured: their shape, their first weights, their first outputs."""

import math

import pytest
import torch
from torch import nn

from dreamgym.nn.networks import MLPConfig, build_mlp, initialise


def test_hidden_layers_have_a_bias_a_norm_and_an_activation():
    network = build_mlp(5, 3, MLPConfig(layers=2, units=8, activation="silu", norm="layer"))
    assert [type(module) for module in network] == [nn.Linear, nn.LayerNorm, nn.SiLU] * 2 + [nn.Linear]
    assert all(module.bias is not None for module in network if isinstance(module, nn.Linear))


def test_without_outputs_the_last_hidden_layer_is_the_output():
    assert build_mlp(5, None, MLPConfig(layers=3, units=8))(torch.zeros(2, 4, 5)).shape == (2, 4, 8)


def test_no_layers_is_a_linear_map():
    assert [type(module) for module in build_mlp(5, 3, MLPConfig(layers=0))] == [nn.Linear]


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_output_scale_zero_gives_exact_zeros(norm):
    torch.manual_seed(0)
    network = build_mlp(5, 7, MLPConfig(layers=2, units=16, norm=norm), output_scale=0.0)
    assert torch.equal(network(torch.randn(9, 5)), torch.zeros(9, 7))


def test_rms_networks_start_from_the_cut_normal_of_v3():
    torch.manual_seed(0)
    weight = build_mlp(400, 300, MLPConfig(layers=0, norm="rms"))[0].weight.detach()
    assert float(weight.std()) == pytest.approx(1.0 / math.sqrt(400), rel=0.01)
    assert float(weight.abs().max()) <= 2.0 * 1.1368 / math.sqrt(400) * (1 + 1e-6)


def test_other_networks_start_from_xavier_with_zero_biases():
    torch.manual_seed(0)
    layer = build_mlp(100, 200, MLPConfig(layers=0))[0]
    bound = math.sqrt(6.0 / 300.0)
    assert 0.99 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert not bool(layer.bias.any())


def test_a_transposed_convolution_s_fan_in_is_its_input_channels_times_its_kernel():
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(64, 16, 5)
    initialise(layer, "trunc")
    assert float(layer.weight.detach().std()) == pytest.approx(1.0 / math.sqrt(64 * 25), rel=0.02)


@pytest.mark.parametrize("wrong", [{"layers": -1}, {"units": 0}, {"activation": "gelu"}, {"norm": "batch"}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        MLPConfig(**wrong)
