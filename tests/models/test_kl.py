"""One KL, two gradients, a floor: specs/dreamer.md F.2-1 and F.2-2, specs/planet.md 8.1-2 and 8.1-3."""

import pytest
import torch

from dreamgym.models.kl import KLConfig, balanced_kl, floored_mean, split_kl
from dreamgym.models.latents import CategoricalLatent, GaussianLatent, GaussianStats

POSTERIOR_GRADIENT = torch.tensor([0.2825874511, -0.1407703575, -0.1418170936])  # p (ln p/q - KL)
PRIOR_GRADIENT = torch.tensor([-0.3319076224, 0.0886048623, 0.2433027602])  # q - p
V1 = KLConfig(1.0, 1.0, free_nats=0.0)
V2 = KLConfig(0.8, 0.2, free_nats=0.0)
V3 = KLConfig(1.0, 0.1, free_nats=1.0, free_mode="element")


def fixture_gradients(settings: KLConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Raw KL of posterior logits (1, 0, -1) to prior logits 0, and the loss's gradients on either."""
    posterior, prior = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    latent = CategoricalLatent(variables=1, classes=3)
    loss, raw = split_kl(latent, latent.stats(posterior), latent.stats(prior), settings)
    loss.backward()
    assert posterior.grad is not None and prior.grad is not None
    return raw, posterior.grad[0], prior.grad[0]


@pytest.mark.parametrize(("settings", "prior_share", "posterior_share"), [(V1, 1.0, 1.0), (V2, 0.8, 0.2)])
def test_scales_share_the_gradient_between_prior_and_posterior(settings, prior_share, posterior_share):
    raw, on_posterior, on_prior = fixture_gradients(settings)
    assert float(raw) == pytest.approx(0.2662167068, rel=1e-5)
    torch.testing.assert_close(on_posterior, posterior_share * POSTERIOR_GRADIENT, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(on_prior, prior_share * PRIOR_GRADIENT, rtol=1e-5, atol=1e-7)


def test_v3_pulls_neither_side_below_one_nat():
    raw, on_posterior, on_prior = fixture_gradients(V3)
    assert float(raw) == pytest.approx(0.2662167068, rel=1e-5)  # logged although the floor hides it
    assert not on_posterior.any() and not on_prior.any()


def test_v3_shares_above_the_floor():
    _, on_posterior, on_prior = fixture_gradients(KLConfig(1.0, 0.1, free_nats=0.2, free_mode="element"))
    torch.testing.assert_close(on_posterior, 0.1 * POSTERIOR_GRADIENT, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(on_prior, PRIOR_GRADIENT, rtol=1e-5, atol=1e-7)


def test_equal_scales_are_the_ordinary_kls_gradient():
    torch.manual_seed(0)
    means = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    stats = [GaussianStats(mean, torch.full((4, 3), 0.7)) for mean in means]
    latent = GaussianLatent(size=3)
    ordinary = torch.autograd.grad(latent.kl(*stats).mean(), means)
    split = torch.autograd.grad(split_kl(latent, *stats, V1)[0], means)
    for expected, found in zip(ordinary, split):
        torch.testing.assert_close(found, expected)


def test_raw_kl_counts_once_and_has_no_gradient():
    mean = torch.ones(2, 3, requires_grad=True)
    unit = GaussianStats(torch.zeros(2, 3), torch.ones(2, 3))
    loss, raw = split_kl(GaussianLatent(size=3), GaussianStats(mean, torch.ones(2, 3)), unit, V1)
    assert float(raw) == pytest.approx(1.5) and float(loss.detach()) == pytest.approx(3.0)  # 0.5 a dimension, and its two halves
    assert not raw.requires_grad


@pytest.mark.parametrize(("mean", "std", "expected"), [(1.0, 1.0, 15.0), (0.0, 0.1, 54.2276)])
def test_thirty_dimensions_add_up(mean, std, expected):
    posterior = GaussianStats(torch.full((30,), mean), torch.full((30,), std))
    unit = GaussianStats(torch.zeros(30), torch.ones(30))
    _, raw = split_kl(GaussianLatent(), posterior, unit, V1)
    assert float(raw) == pytest.approx(expected, rel=1e-5)


def test_planet_floors_every_row():
    kl = torch.tensor([0.0, 6.0], requires_grad=True)
    loss = floored_mean(kl, KLConfig(free_mode="element"))
    loss.backward()
    assert float(loss.detach()) - 3.0 == 1.5  # PlaNet reports max(0, KL - 3); the floor itself is no gradient
    assert kl.grad.tolist() == [0.0, 0.5]


def test_dreamer_v1_floors_the_mean():
    kl = torch.tensor([0.0, 6.0], requires_grad=True)
    assert float(floored_mean(kl, KLConfig(free_mode="mean")).detach()) == 3.0
    above = torch.tensor([0.0, 6.2], requires_grad=True)
    floored_mean(above, KLConfig(free_mode="mean")).backward()
    assert above.grad.tolist() == [0.5, 0.5]  # above the floor every row is pulled, even the one at 0


@pytest.mark.parametrize(("kl", "over_floor", "gradient"), [(2.9, 0.0, 0.0), (4.0, 1.0, 1.0)])
@pytest.mark.parametrize("mode", ["mean", "element"])
def test_three_free_nats(kl, over_floor, gradient, mode):
    row = torch.tensor([kl], requires_grad=True)
    loss = floored_mean(row, KLConfig(free_mode=mode))
    loss.backward()
    assert float(loss.detach()) - 3.0 == pytest.approx(over_floor) and float(row.grad) == gradient


@pytest.mark.parametrize("mode", ["mean", "element"])
def test_masked_rows_do_not_count_however_wild(mode):
    kl = torch.tensor([5.0, float("nan"), 7.0], requires_grad=True)
    loss = floored_mean(kl, KLConfig(free_mode=mode), torch.tensor([True, False, True]))
    loss.backward()
    assert float(loss.detach()) == 6.0 and kl.grad[0] == kl.grad[2] == 0.5


def test_balanced_kl_is_the_v2_split():
    torch.manual_seed(1)
    posterior, prior = (GaussianStats(torch.randn(5, 3), torch.rand(5, 3) + 0.1) for _ in range(2))
    latent = GaussianLatent(size=3)
    split, _ = split_kl(latent, posterior, prior, KLConfig(0.8, 0.2, free_nats=1.0))
    torch.testing.assert_close(balanced_kl(latent, posterior, prior, balance=0.8, free_nats=1.0), split)


@pytest.mark.parametrize(
    "wrong", [{"dynamics": -1.0}, {"free_nats": float("nan")}, {"free_mode": "row"}, {"overshooting_distance": 0}, {"global_prior": -0.1}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KLConfig(**wrong)


def test_overshooting_needs_a_distance_and_a_scale():
    assert not KLConfig().overshoots and not KLConfig(overshooting_scale=1.0).overshoots
    assert not KLConfig(overshooting_distance=5).overshoots
    assert KLConfig(overshooting_distance=5, overshooting_scale=1.0).overshoots
