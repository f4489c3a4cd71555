"""Spatial sizes of specs/dreamer.md A.2 and planet.md 8.1-1, both styles, all sizes, all channel counts."""

import pytest
import torch
from torch import nn

from dreamgym.nn.convolutions import ConvConfig, build_conv_decoder, build_conv_encoder

POOLED = ConvConfig("pooled", depth=2, activation="silu", norm="rms")
STYLES = [ConvConfig(depth=4), ConvConfig(depth=4, activation="elu", norm="layer"), POOLED]


def maps(network: nn.Module, kinds: tuple[type[nn.Module], ...], x: torch.Tensor) -> list[tuple[int, ...]]:
    """[side, channels] of what every layer of those kinds gives."""
    found: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _module, _inputs, out: found.append((out.shape[2], out.shape[1])))
    network(x)
    return found


def test_encoder_of_v1_halves_64_pixels_to_31_14_6_2():
    encoder = build_conv_encoder(64, 3, ConvConfig())
    assert maps(encoder, (nn.Conv2d,), torch.zeros(1, 3, 64, 64)) == [(31, 32), (14, 64), (6, 128), (2, 256)]
    assert encoder.outputs == 1024


def test_decoder_of_v1_grows_to_5_13_30_64():
    decoder = build_conv_decoder(64, 3, ConvConfig(), stoch_size=30, deter_size=200)
    first = decoder._first(decoder.dense(torch.zeros(1, 230)))
    assert first.shape == (1, 128, 5, 5)
    assert maps(decoder, (nn.ConvTranspose2d,), torch.zeros(1, 230)) == [(13, 64), (30, 32), (64, 3)]


def test_first_deconvolution_as_a_product_equals_the_convolution():
    torch.manual_seed(0)
    decoder = build_conv_decoder(32, 1, ConvConfig(depth=4), stoch_size=3, deter_size=5)
    nn.init.normal_(decoder.deconvs[0].bias)
    x = torch.randn(2, decoder.deconvs[0].in_channels)
    torch.testing.assert_close(decoder._first(x), decoder.deconvs[0](x[..., None, None]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "kernels"), [(32, [5, 6, 6]), (64, [5, 5, 6, 6]), (128, [5, 5, 5, 6, 6])])
def test_kernels_of_the_decoder_fit_every_size(size, kernels):
    decoder = build_conv_decoder(size, 1, ConvConfig(depth=2), stoch_size=3, deter_size=5)
    assert [deconv.kernel_size[0] for deconv in decoder.deconvs] == kernels
    assert decoder(torch.zeros(2, 8)).shape == (2, 1, size, size)


@pytest.mark.parametrize("config", STYLES, ids=["valid", "valid-norm", "pooled"])
@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 12), (64, 3), (128, 3)])
def test_images_of_every_size_and_channel_count_go_in_and_out(config, size, channels):
    encoder = build_conv_encoder(size, channels, config)
    decoder = build_conv_decoder(size, channels, config, stoch_size=6, deter_size=16)
    assert encoder(torch.zeros(2, channels, size, size)).shape == (2, encoder.outputs)
    assert decoder(torch.zeros(2, 22)).shape == (2, channels, size, size)


def test_pooled_maps_are_those_of_v3():
    encoder = build_conv_encoder(64, 3, POOLED)
    assert maps(encoder, (nn.MaxPool2d,), torch.zeros(1, 3, 64, 64)) == [(32, 4), (16, 6), (8, 8), (4, 8)]
    decoder = build_conv_decoder(64, 3, POOLED, stoch_size=6, deter_size=16)
    assert maps(decoder, (nn.Conv2d,), torch.zeros(1, 22)) == [(8, 8), (16, 6), (32, 4), (64, 3)]


def test_pooled_images_of_96_pixels_end_in_a_map_of_6():
    assert build_conv_encoder(96, 1, POOLED).outputs == 8 * 6 * 6
    assert build_conv_decoder(96, 1, POOLED, stoch_size=6, deter_size=16)(torch.zeros(1, 22)).shape == (1, 1, 96, 96)


def test_a_block_of_the_memory_feeds_only_its_own_channels():
    torch.manual_seed(0)
    config = ConvConfig("pooled", depth=4, activation="silu", norm="rms")
    decoder = build_conv_decoder(32, 1, config, stoch_size=3, deter_size=16)
    seen = []
    decoder.stages.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    features = torch.zeros(2, 19)
    features[1, 3 + 2 * 5] = 1.0  # the sixth block of two units
    decoder(features)
    changed = (seen[0][1] != seen[0][0]).any(-1).any(-1)
    assert changed.nonzero().flatten().tolist() == [10, 11]  # of 16 channels, two a block


def test_features_without_memory_are_decoded_too():
    assert build_conv_decoder(32, 3, POOLED, stoch_size=6, deter_size=0)(torch.zeros(2, 6)).shape == (2, 3, 32, 32)


def test_a_pixel_s_norm_knows_only_its_own_channels():
    encoder = build_conv_encoder(32, 1, ConvConfig(depth=4, norm="rms"))
    x = torch.randn(1, 4, 15, 15, generator=torch.Generator().manual_seed(0))
    normed = encoder[1](x)
    torch.testing.assert_close(normed.square().mean(1), torch.ones(1, 15, 15), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("size", "config"), [(84, ConvConfig()), (96, ConvConfig()), (16, POOLED), (256, ConvConfig())])
def test_other_sizes_are_refused_with_the_next_move(size, config):
    with pytest.raises(ValueError, match="size=64"):
        build_conv_encoder(size, 3, config)


@pytest.mark.parametrize("wrong", [{"style": "same"}, {"depth": 0}, {"style": "pooled", "depth": 3}, {"activation": "tanh"}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        ConvConfig(**wrong)
