"""V of specs/world-models.md 3 and its checks in 11.1."""

import pytest
import torch

from dreamgym.models.vae import VAE, VAEConfig, kl_to_standard_normal
from dreamgym.nn.networks import ConvDecoder, ConvEncoder, to_unit_images


@pytest.mark.parametrize(("code", "parameters"), [(32, 4_348_547), (64, 4_446_915)])
def test_parameter_counts_are_the_papers(code, parameters):
    assert sum(p.numel() for p in VAE(VAEConfig(code=code)).parameters()) == parameters


def test_encoder_maps_have_the_papers_sizes():
    x, sizes = torch.zeros(1, 3, 64, 64), []
    for layer in ConvEncoder():
        x = layer(x)
        if x.dim() == 4 and isinstance(layer, torch.nn.Conv2d):
            sizes.append(x.shape[-1])
    assert sizes == [31, 14, 6, 2] and x.shape == (1, 1024)


def test_decoder_equals_plain_transposed_convolutions():
    torch.manual_seed(0)
    decoder = ConvDecoder(32)
    codes = torch.randn(3, 32)
    x = decoder.dense(codes).view(3, 1024, 1, 1)
    sizes = [x.shape[-1]]
    for number, layer in enumerate([decoder.deconv1, decoder.deconv2, decoder.deconv3, decoder.deconv4]):
        x = layer(x)
        sizes.append(x.shape[-1])
        x = torch.relu(x) if number < 3 else x
    assert sizes == [1, 5, 13, 30, 64]
    torch.testing.assert_close(decoder(codes), x, atol=1e-5, rtol=1e-4)


def test_kl_of_a_shifted_unit_normal_is_half_per_dimension():
    kl = kl_to_standard_normal(torch.ones(2, 32), torch.zeros(2, 32))
    torch.testing.assert_close(kl, torch.full((2,), 16.0))


@pytest.mark.parametrize("code", [32, 64])
def test_kl_term_at_the_floor_is_half_a_nat_per_dimension_and_has_no_gradient(code):
    vae = VAE(VAEConfig(code=code))
    with torch.no_grad():
        for head in (vae.mean, vae.log_var):
            head.weight.zero_()
            head.bias.zero_()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    _, kl = vae.loss(images, torch.full((2, code), 0.5))
    kl.backward()
    assert float(kl.detach()) == 0.5 * code
    assert float(vae.mean.bias.grad.abs().sum()) == 0.0 and float(vae.log_var.bias.grad.abs().sum()) == 0.0


def test_reconstruction_sums_squared_error_over_pixels():
    vae = VAE(VAEConfig())
    with torch.no_grad():
        vae.decoder.deconv4.weight.zero_()
        vae.decoder.deconv4.bias.zero_()  # every pixel is painted 0.5
    black = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    reconstruction, _ = vae.loss(black, torch.full((2, 32), 0.5))
    assert float(reconstruction.detach()) == pytest.approx(64 * 64 * 3 * 0.25)


def test_row_weights_count_rows_more():
    vae = VAE(VAEConfig())
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    weight = torch.ones(64)
    plain = vae.loss(images, torch.full((2, 32), 0.5), row_weight=weight)[0]
    weight[56:] = 3.0
    assert float(vae.loss(images, torch.full((2, 32), 0.5), row_weight=weight)[0]) > float(plain)


def test_images_keep_their_layout_through_the_border():
    image = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    image[0, 5, 9, 2] = 255
    assert float(to_unit_images(image)[0, 2, 5, 9]) == 1.0


def test_autoencoder_learns_a_constant_image():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(code=4))
    optimiser = torch.optim.Adam(vae.parameters(), 1e-3)
    images = torch.full((4, 64, 64, 3), 40, dtype=torch.uint8)
    images[:, 20:40] = 200
    losses = []
    for _ in range(25):
        reconstruction, kl = vae.loss(images, torch.rand(4, 4).clamp(1e-6, 1 - 1e-6))
        optimiser.zero_grad()
        (reconstruction + kl).backward()
        optimiser.step()
        losses.append(float(reconstruction))
    assert losses[-1] < 0.3 * losses[0]
