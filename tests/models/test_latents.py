"""Latents against the fixtures of specs/dreamer.md F.2-1 to 4, F.2-8 and F.3, and of specs/planet.md 8.1-2."""

import math

import pytest
import torch

from dreamgym.models.kl import balanced_kl
from dreamgym.models.latents import CategoricalLatent, CategoricalStats, GaussianLatent, GaussianStats
from dreamgym.noise import uniform

SOFT = torch.tensor([1.0, 0.0, -1.0])
LATENTS = {
    "softplus": GaussianLatent(size=4),
    "sigmoid2": GaussianLatent(size=4, std="sigmoid2"),
    "categorical": CategoricalLatent(variables=3, classes=5),
    "unimix": CategoricalLatent(variables=3, classes=5, unimix=0.01),
}
latents = pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)


def raw_for(latent, *lead: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*lead, latent.raw_size, generator=torch.Generator().manual_seed(seed)) * 2.0


def noise_for(latent, *lead: int, seed: int = 0) -> torch.Tensor:
    lanes = uniform(torch.tensor(seed), torch.tensor(0), torch.arange(math.prod(lead)), latent.noise_lanes)
    return lanes.reshape(*lead, latent.noise_lanes)


def draws(latent: CategoricalLatent, raw: torch.Tensor, count: int = 1_000_000) -> torch.Tensor:
    """How often each class comes up: raw [K] is given to 1000 variables at once."""
    latent = CategoricalLatent(1000, latent.classes, latent.unimix)
    counts = torch.zeros(latent.classes)
    for part in range(count // 50_000):
        noise = noise_for(latent, 50, seed=part)
        counts += latent.sample(latent.stats(raw.repeat(50, 1000)), noise).view(-1, latent.classes).sum(0)
    return counts


# ---- Gaussian -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("std", "expected"), [("softplus", 0.7931471806), ("sigmoid2", 1.1)])
def test_std_at_raw_zero(std, expected):
    assert float(GaussianLatent(size=1, std=std).stats(torch.zeros(2)).std) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("std", ["softplus", "sigmoid2"])
def test_std_never_falls_below_its_floor(std):
    assert float(GaussianLatent(size=1, std=std).stats(torch.tensor([0.0, -1e4])).std) == pytest.approx(0.1, rel=1e-6)


def test_gaussian_kl_fixtures():
    def kl(mean: float, std: float, size: int = 1) -> float:
        latent = GaussianLatent(size=size)
        stats = GaussianStats(torch.full((size,), mean).double(), torch.full((size,), std).double())
        unit = GaussianStats(torch.zeros(size).double(), torch.ones(size).double())
        assert float(latent.kl_to_standard(stats)) == pytest.approx(float(latent.kl(stats, unit)), rel=1e-9)
        return float(latent.kl(stats, unit))

    assert kl(1.0, 0.5) == pytest.approx(0.8181471806, rel=1e-9)
    assert kl(1.0, 1.0) == pytest.approx(0.5, rel=1e-9)
    assert kl(0.0, 0.1) == pytest.approx(1.807585, rel=1e-6)
    assert kl(0.0, 0.1, size=30) == pytest.approx(54.2276, rel=1e-6)


def test_gaussian_kl_and_entropy_agree_with_torch():
    torch.manual_seed(0)
    a, b = (GaussianStats(torch.randn(4, 5), torch.rand(4, 5) + 0.1) for _ in range(2))
    latent = GaussianLatent(size=5)
    normals = [torch.distributions.Normal(stats.mean, stats.std) for stats in (a, b)]
    torch.testing.assert_close(latent.kl(a, b), torch.distributions.kl_divergence(*normals).sum(-1))
    torch.testing.assert_close(latent.entropy(a), normals[0].entropy().sum(-1))


def test_temperature_scales_the_variance():
    stats = GaussianStats(torch.zeros(20_000, 1), torch.ones(20_000, 1))
    noise = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    latent = GaussianLatent(size=1)
    assert float(latent.sample(stats, noise, 0.25).var()) == pytest.approx(0.25, rel=0.05)
    assert torch.equal(latent.sample(stats, noise, 0.0), stats.mean)


def test_temperature_may_differ_by_row():
    stats = GaussianStats(torch.zeros(2, 3), torch.ones(2, 3))
    sample = GaussianLatent(size=3).sample(stats, torch.full((2, 3), 0.9), torch.tensor([0.0, 4.0]))
    assert float(sample[0].abs().sum()) == 0.0 and float(sample[1, 0]) == pytest.approx(2 * 1.2815515, rel=1e-4)


# ---- categorical: KL ----------------------------------------------------------------------------------------------------


def test_categorical_kl_and_its_gradients():
    latent = CategoricalLatent(variables=1, classes=3)
    post, prior = SOFT.clone().requires_grad_(), torch.zeros(3, requires_grad=True)
    kl = latent.kl(latent.stats(post), latent.stats(prior))
    kl.backward()
    assert float(kl.detach()) == pytest.approx(0.2662167068, rel=1e-5)
    torch.testing.assert_close(latent.mean(latent.stats(SOFT)), torch.tensor([0.6652409558, 0.2447284711, 0.0900305732]))
    torch.testing.assert_close(post.grad, torch.tensor([0.2825874511, -0.1407703575, -0.1418170936]))
    torch.testing.assert_close(prior.grad, torch.tensor([-0.3319076224, 0.0886048623, 0.2433027602]))


def test_balanced_categorical_kl_has_a_fifth_of_the_posteriors_and_four_fifths_of_the_priors_gradient():
    latent = CategoricalLatent(variables=1, classes=3)
    post, prior = SOFT.clone().requires_grad_(), torch.zeros(3, requires_grad=True)
    balanced_kl(latent, latent.stats(post), latent.stats(prior), balance=0.8, free_nats=0.0).backward()
    assert float(post.grad[0]) == pytest.approx(0.0565174902, rel=1e-5)
    assert float(prior.grad[0]) == pytest.approx(-0.265526098, rel=1e-5)


def test_balanced_kl_splits_the_gradient_and_floors_each_half():
    post_mean, prior_mean = torch.tensor([[2.0]], requires_grad=True), torch.tensor([[0.0]], requires_grad=True)
    ones = torch.ones(1, 1)
    latent = GaussianLatent(size=1)
    loss = balanced_kl(latent, GaussianStats(post_mean, ones), GaussianStats(prior_mean, ones), balance=0.8, free_nats=0.0)
    loss.backward()
    assert float(post_mean.grad) == pytest.approx(0.2 * 2.0) and float(prior_mean.grad) == pytest.approx(0.8 * -2.0)
    floored = balanced_kl(latent, GaussianStats(post_mean, ones), GaussianStats(prior_mean, ones), balance=0.8, free_nats=3.0)
    assert float(floored.detach()) == 3.0 and not any(torch.autograd.grad(floored, [post_mean, prior_mean]))


@latents
def test_kl_is_zero_when_posterior_equals_prior(latent):
    stats = latent.stats(raw_for(latent, 4))
    assert torch.allclose(latent.kl(stats, stats), torch.zeros(4), atol=1e-6)


def test_categorical_kl_sums_over_variables_and_agrees_with_torch():
    latent = CategoricalLatent(variables=3, classes=5)
    a, b = (latent.stats(raw_for(latent, 2, seed=seed)) for seed in (0, 1))
    theirs = [torch.distributions.Categorical(logits=stats.logits) for stats in (a, b)]
    torch.testing.assert_close(latent.kl(a, b), torch.distributions.kl_divergence(*theirs).sum(-1))
    torch.testing.assert_close(latent.entropy(a), theirs[0].entropy().sum(-1))
    even = latent.stats(torch.zeros(2, 15))
    torch.testing.assert_close(latent.kl_to_standard(a), latent.kl(a, even))


# ---- categorical: unimix ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "floor", "highest"),
    [(4, 0.0025, 5.983936), (16, 0.000625, 7.368340), (32, 0.0003125, 8.061171), (64, 0.00015625, 8.754161)],
)
def test_unimix_sets_a_floor_that_bounds_the_kl(classes, floor, highest):
    latent = CategoricalLatent(variables=1, classes=classes, unimix=0.01)
    raw = torch.zeros(2, classes)
    raw[0, 0] = raw[1, 1] = 1000.0
    stats = latent.stats(raw)
    probs = latent.mean(stats)
    assert float(probs[0, 1]) == pytest.approx(floor, rel=1e-5)
    assert float(probs[0, 0] / probs[0, 1]) == pytest.approx(math.exp(highest), rel=1e-4)
    assert float(stats.logits[0, 0, 0] - stats.logits[1, 0, 0]) == pytest.approx(highest, rel=1e-5)
    assert float(latent.kl(stats[0], stats[1])) < highest


def test_unimix_fixture_and_its_straight_through_gradient():
    latent = CategoricalLatent(variables=1, classes=4, unimix=0.01)
    raw = torch.tensor([5.0, 0.0, 0.0, 0.0], requires_grad=True)
    stats = latent.stats(raw)
    torch.testing.assert_close(latent.mean(stats).detach(), torch.tensor([0.9728847960] + 3 * [0.0090384013]))
    latent.sample(stats, torch.tensor([0.3]))[0].backward()
    torch.testing.assert_close(raw.grad, torch.tensor([0.0192265613] + 3 * [-0.0064088538]), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("classes", [4, 64])
def test_the_floor_of_unimix_is_drawn_as_often_as_it_says(classes):
    raw = torch.zeros(classes)
    raw[0] = 1000.0
    floor = 0.01 / classes
    counts = draws(CategoricalLatent(1, classes, 0.01), raw)
    sigma = math.sqrt(1_000_000 * floor * (1.0 - floor))
    assert float((counts[1:] - 1_000_000 * floor).abs().max()) < 5.0 * sigma


# ---- categorical: sampling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [4, 64])
def test_the_sampler_draws_from_the_softmax(classes):
    """Chi-square of a million draws; 5 sigma of its normal limit."""
    raw = torch.randn(classes, generator=torch.Generator().manual_seed(classes))
    expected = torch.softmax(raw, -1) * 1_000_000
    statistic = float(((draws(CategoricalLatent(1, classes), raw) - expected) ** 2 / expected).sum())
    freedom = classes - 1
    assert abs(statistic - freedom) < 5.0 * math.sqrt(2.0 * freedom)


@pytest.mark.parametrize("noise", [0.1, 0.8, 0.95])
def test_straight_through_gradient_does_not_depend_on_the_class_drawn(noise):
    latent = CategoricalLatent(variables=1, classes=3)
    raw = SOFT.clone().requires_grad_()
    sample = latent.sample(latent.stats(raw), torch.tensor([noise]))
    (sample * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
    assert int(sample.argmax()) == {0.1: 0, 0.8: 1, 0.95: 2}[noise]
    torch.testing.assert_close(raw.grad, torch.tensor([-0.3424794756, 0.1187373129, 0.2237421627]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("unimix", [0.0, 0.01])
def test_samples_with_gradient_are_bitwise_one_hot(dtype, unimix):
    latent = CategoricalLatent(variables=32, classes=32, unimix=unimix)
    raw = (raw_for(latent, 64) * 3.0).to(dtype).requires_grad_()
    sample = latent.sample(latent.stats(raw), noise_for(latent, 64)).detach().to(dtype).view(64, 32, 32)
    assert torch.equal(sample.sum(-1), torch.ones(64, 32, dtype=dtype))
    assert bool(((sample == 0) | (sample == 1)).all())


@pytest.mark.parametrize("noise", [0.0, 2.0**-24, 1.0 - 2.0**-24, 1.0])
def test_the_ends_of_the_uniforms_draw_a_class_that_exists(noise):
    latent = CategoricalLatent(variables=1, classes=3)
    stats = CategoricalStats(torch.tensor([[-math.inf, -0.01, -math.inf]]))  # a sum that rounding left below 1
    sample = latent.sample(stats, torch.tensor([noise]))
    assert float(sample.sum()) == 1.0 and (noise == 1.0 or float(sample[1]) == 1.0)


@latents
def test_noise_of_a_half_gives_the_mean_or_the_mode(latent):
    stats = latent.stats(raw_for(latent, 6))
    sample = latent.sample(stats, torch.full((6, latent.noise_lanes), 0.5))
    if isinstance(latent, GaussianLatent):
        assert torch.equal(sample, latent.mean(stats))
    else:
        assert torch.equal(sample.view(6, 3, 5).argmax(-1), stats.logits.argmax(-1))


def test_noise_of_a_half_in_one_variable_leaves_the_others_random():
    latent = CategoricalLatent(variables=2, classes=3)
    raw = SOFT.repeat(2)
    assert latent.sample(latent.stats(raw), torch.tensor([0.5, 0.95])).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_uniforms_are_never_exactly_a_half():
    """So that a random draw is never mistaken for the wish to see the mode: they are (k + 0.5) / 2**23."""
    lanes = uniform(torch.tensor(0), torch.tensor(0), torch.arange(1000), 100)
    assert bool(((lanes * 2.0**24) % 2.0 == 1.0).all())  # odd multiples of 2**-24; a half is an even one


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits_before_the_uniform_share_is_mixed_in(temperature):
    latent, raw = CategoricalLatent(1, 4, 0.1), torch.tensor([2.0, 1.0, 0.0, -3.0])
    probs, _ = latent._tempered(latent.stats(raw).logits.exp(), torch.tensor([0.3]), temperature)
    torch.testing.assert_close(probs[0], 0.9 * torch.softmax(raw / temperature, -1) + 0.025, rtol=1e-4, atol=1e-6)


def test_categorical_temperature_may_differ_by_row_and_zero_gives_the_mode():
    latent = CategoricalLatent(1, 4, 0.1)
    stats = latent.stats(torch.tensor([2.0, 1.9, 0.0, -3.0]).repeat(2, 1))
    noise = torch.full((2, 1), 0.9999)
    sample = latent.sample(stats, noise, torch.tensor([0.0, 1.0]))
    assert sample.argmax(-1).tolist() == [0, 3]
    assert int(latent.sample(stats, noise, 0.0)[1].argmax()) == 0


@latents
def test_gradients_at_any_temperature_are_finite(latent):
    raw = (raw_for(latent, 4) * 50.0).requires_grad_()
    weight = torch.linspace(-1.0, 1.0, latent.flat_size)
    for temperature in (0.3, 1.0, 4.0, torch.tensor([0.5, 1.0, 2.0, 3.0])):
        (latent.sample(latent.stats(raw), noise_for(latent, 4), temperature) @ weight).sum().backward()
    assert bool(raw.grad.isfinite().all())


# ---- both ---------------------------------------------------------------------------------------------------------------


@latents
def test_statistics_are_float32_whatever_comes_in(latent):
    stats = latent.stats(raw_for(latent, 2).bfloat16())
    assert all(tensor.dtype == torch.float32 for _, tensor in stats.items())


@latents
def test_sizes_are_what_the_methods_give(latent):
    stats = latent.stats(raw_for(latent, 2, 3))
    assert latent.sample(stats, noise_for(latent, 2, 3)).shape == (2, 3, latent.flat_size)
    assert latent.mean(stats).shape == (2, 3, latent.flat_size)
    assert latent.network_input(stats).shape == (2, 3, latent.raw_size)
    assert latent.kl(stats, stats).shape == latent.entropy(stats).shape == latent.kl_to_standard(stats).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianLatent(std="exp"), "std is 'exp'"),
        (lambda: GaussianLatent(min_std=0.0), "min_std is 0.0"),
        (lambda: CategoricalLatent(classes=1), "classes 1"),
        (lambda: CategoricalLatent(unimix=1.0), "unimix is 1.0"),
    ],
)
def test_impossible_latents_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
