"""Mixture densities and tempered samples: specs/world-models.md 4.2, 4.5, and 4 and 5 of 11.1."""

import math

import pytest
import torch

from dreamgym.models.mixtures import choice_entropy, log_prob, mixture_mean, mixture_stats, noise_size, raw_size, sample, tempered

Z, K = 4, 5
KINDS = ["per_dim", "shared"]
kinds = pytest.mark.parametrize("kind", KINDS)
WEIGHTS = (0.7, 0.1, 0.1, 0.05, 0.05)


def raw_output(kind, *lead, seed=0, scale=1.0):
    return torch.randn(*lead, raw_size(Z, K, kind), generator=torch.Generator().manual_seed(seed)) * scale


def uniforms(kind, *lead, size=Z, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*lead, noise_size(size, kind), generator=generator).clamp(1e-6, 1 - 1e-6)


def one_dimension(weights=WEIGHTS, means=(0.0, 1.0, 2.0, 3.0, 4.0), std=1.0):
    raw = torch.cat([torch.tensor(weights).log(), torch.tensor(means), torch.full((len(weights),), math.log(std))])
    return mixture_stats(raw, 1, len(weights))


@pytest.mark.parametrize(("kind", "expected"), [("per_dim", 960), ("shared", 645)])
def test_output_widths_at_take_covers_size(kind, expected):
    assert raw_size(64, 5, kind) == expected


@kinds
def test_all_zero_outputs_are_standard_normals(kind):
    stats = mixture_stats(torch.zeros(3, raw_size(Z, K, kind)), Z, K, kind)
    nll = -log_prob(stats, torch.zeros(3, Z)) / Z
    torch.testing.assert_close(nll, torch.full((3,), 0.918939), atol=1e-6, rtol=0)
    target = torch.randn(20_000, Z, generator=torch.Generator().manual_seed(0))
    stats = mixture_stats(torch.zeros(raw_size(Z, K, kind)), Z, K, kind)
    assert float(-log_prob(stats, target).mean() / Z) == pytest.approx(1.418939, abs=0.01)


@kinds
def test_log_prob_equals_torchs_mixture(kind):
    stats, target = mixture_stats(raw_output(kind, 6, seed=1), Z, K, kind), torch.randn(6, Z, generator=torch.Generator().manual_seed(2))
    choice = torch.distributions.Categorical(logits=stats.logits.squeeze(-2) if kind == "shared" else stats.logits)
    normals = torch.distributions.Normal(stats.mean, stats.log_std.exp())
    if kind == "shared":
        expected = torch.distributions.MixtureSameFamily(choice, torch.distributions.Independent(_components_first(normals), 1))
        torch.testing.assert_close(log_prob(stats, target), expected.log_prob(target), atol=1e-5, rtol=1e-5)
    else:
        expected = torch.distributions.MixtureSameFamily(choice, normals)
        torch.testing.assert_close(log_prob(stats, target), expected.log_prob(target).sum(-1), atol=1e-5, rtol=1e-5)


def _components_first(normals):
    return torch.distributions.Normal(normals.mean.mT, normals.stddev.mT)


@kinds
def test_likelihood_ignores_the_order_of_components_and_the_level_of_logits(kind):
    raw, target = raw_output(kind, 6), torch.randn(6, Z, generator=torch.Generator().manual_seed(2))
    stats = mixture_stats(raw, Z, K, kind)
    expected, order = log_prob(stats, target), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(log_prob(stats.map(lambda part: part[..., order]), target), expected)
    choices = K * (Z if kind == "per_dim" else 1)
    louder = torch.cat([raw[:, :choices] + 3.0, raw[:, choices:]], -1)
    torch.testing.assert_close(log_prob(mixture_stats(louder, Z, K, kind), target), expected)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (0.1, (1.0, 0.0, 0.0, 0.0, 0.0)),
        (0.5, (0.9515, 0.0194, 0.0194, 0.0049, 0.0049)),
        (1.0, WEIGHTS),
        (1.15, (0.6370, 0.1173, 0.1173, 0.0642, 0.0642)),
        (1.3, (0.5847, 0.1309, 0.1309, 0.0768, 0.0768)),
    ],
)
def test_temperature_divides_the_logits(temperature, expected):
    stats = one_dimension()
    torch.testing.assert_close(tempered(stats, temperature)[0], torch.tensor(expected), atol=5e-5, rtol=0)
    many = stats.map(lambda part: part.expand(40_000, *part.shape))
    narrow = type(many)(many.logits, many.mean, many.log_std - 20.0)
    drawn = sample(narrow, uniforms("per_dim", 40_000, size=1), temperature).round().long().flatten()
    shares = drawn.bincount(minlength=5) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor(expected), atol=0.01, rtol=0)


@pytest.mark.parametrize(("temperature", "root"), [(0.1, 0.3162), (0.5, 0.7071), (1.15, 1.0724), (1.3, 1.1402)])
def test_variance_of_one_component_scales_as_the_temperature(temperature, root):
    stats = one_dimension((1.0,), (2.0,), std=0.5).map(lambda part: part.expand(20_000, *part.shape))
    drawn = sample(stats, uniforms("per_dim", 20_000, size=1), temperature)
    assert float(drawn.std()) == pytest.approx(0.5 * root, rel=0.02) and float(drawn.mean()) == pytest.approx(2.0, abs=0.02)


@kinds
@pytest.mark.parametrize("temperature", [0.0, torch.zeros(6)])
def test_temperature_zero_gives_the_likeliest_components_mean(kind, temperature):
    stats = mixture_stats(raw_output(kind, 6), Z, K, kind)
    best = stats.logits.argmax(-1, keepdim=True).expand(6, Z, 1)
    torch.testing.assert_close(sample(stats, uniforms(kind, 6), temperature), stats.mean.gather(-1, best).squeeze(-1))


@kinds
def test_noise_of_one_half_gives_the_likeliest_components_mean(kind):
    stats = mixture_stats(raw_output(kind, 6), Z, K, kind)
    middle = torch.full((6, noise_size(Z, kind)), 0.5)
    torch.testing.assert_close(sample(stats, middle, 1.3), sample(stats, middle, 0.0))


@kinds
def test_a_tiny_temperature_over_extreme_logits_stays_finite(kind):
    """The released code subtracted one maximum for the whole batch, so that rows could become 0/0."""
    raw = raw_output(kind, 6)
    raw[:, : K * (Z if kind == "per_dim" else 1)] *= 1e4
    stats = mixture_stats(raw, Z, K, kind)
    assert torch.isfinite(sample(stats, uniforms(kind, 6), 1e-6)).all()


@kinds
def test_a_temperature_for_each_row_equals_each_row_alone(kind):
    stats, noise = mixture_stats(raw_output(kind, 3), Z, K, kind), uniforms(kind, 3)
    temperatures = [0.0, 0.7, 1.3]
    together = sample(stats, noise, torch.tensor(temperatures))
    alone = torch.cat([sample(stats[i : i + 1], noise[i : i + 1], temperature) for i, temperature in enumerate(temperatures)])
    torch.testing.assert_close(together, alone)


def test_a_shared_choice_moves_all_dimensions_together():
    means = torch.tensor([[-5.0] * Z, [5.0] * Z])
    raw = torch.cat([torch.zeros(2), means.flatten(), torch.full((2 * Z,), -3.0)])
    shared = sample(mixture_stats(raw, Z, 2, "shared")[None].map(lambda x: x.expand(50, *x.shape[1:])), uniforms("shared", 50))
    assert bool((shared.sign().sum(-1).abs() == Z).all()) and bool((shared.sign()[:, 0] != shared.sign()[0, 0]).any())


def test_the_spread_has_a_floor():
    raw = torch.cat([torch.zeros(2), torch.full((1,), -50.0)])
    assert float(mixture_stats(raw, 1, 1, log_std_floor=-7.0).log_std) == -7.0


def test_entropy_and_mean_of_a_mixture():
    even = one_dimension((0.2,) * 5)
    assert float(choice_entropy(even)) == pytest.approx(math.log(5)) and float(mixture_mean(even)) == pytest.approx(2.0)
    assert float(choice_entropy(one_dimension((1.0 - 4e-9, 1e-9, 1e-9, 1e-9, 1e-9)))) == pytest.approx(0.0, abs=1e-6)


@kinds
def test_samples_have_the_likelihoods_mean(kind):
    stats = mixture_stats(raw_output(kind, 1, scale=0.5), Z, K, kind)
    many = stats.map(lambda part: part.expand(40_000, *part.shape[1:]))
    drawn = sample(many, uniforms(kind, 40_000))
    torch.testing.assert_close(drawn.mean(0), mixture_mean(stats)[0], atol=0.03, rtol=0)
