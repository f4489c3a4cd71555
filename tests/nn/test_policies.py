"""Fixtures of specs/dreamer.md F.2 for actors, and what the closed forms must agree with."""

import math

import pytest
import torch

from dreamgym.nn.policies import (
    BoundedNormalConfig,
    OneHotFamily,
    OneHotPolicy,
    TanhNormal,
    TanhNormalConfig,
    TruncatedNormal,
    TruncatedNormalConfig,
    tanh_log_det,
)

FAMILIES = [TanhNormalConfig(), TruncatedNormalConfig(), BoundedNormalConfig(), OneHotFamily((4,)), OneHotFamily((3, 2), unimix=0.01)]


def _noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp_(1e-6, 1.0 - 1e-6)


def _size(family):
    return sum(family.sizes) if isinstance(family, OneHotFamily) else 2


def test_tanh_normal_fixture():
    """F.2-7."""
    policy = TanhNormal(torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64))
    pre_tanh = torch.tensor([0.5], dtype=torch.float64)
    assert float(torch.tanh(pre_tanh)) == pytest.approx(0.4621171573, rel=1e-9)
    assert float(tanh_log_det(pre_tanh)) == pytest.approx(-0.2402290139, rel=1e-8)
    assert float(policy.log_prob(pre_tanh)) == pytest.approx(-0.3628509019, rel=1e-8)


@pytest.mark.parametrize(
    ("family", "std"), [(TanhNormalConfig(), 5.0001), (TruncatedNormalConfig(), 1.1), (BoundedNormalConfig(), 0.8927173702)]
)
def test_std_at_raw_zero_is_that_of_the_paper(family, std):
    """F.2-8."""
    policy = family.distribution(torch.zeros(2, dtype=torch.float64))
    assert float(policy.std) == pytest.approx(std, rel=1e-9) and float(policy.mode) == 0.0


def test_bounded_normals_entropy_at_raw_zero():
    assert float(BoundedNormalConfig().distribution(torch.zeros(2)).entropy()) == pytest.approx(1.305453, abs=1e-6)


def test_tanh_normal_log_prob_integrates_to_one():
    policy = TanhNormal(torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    action = torch.linspace(-0.999999, 0.999999, 200_001, dtype=torch.float64)
    density = policy.log_prob(torch.atanh(action).unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density, action)) == pytest.approx(1.0, abs=1e-4)


def test_log_det_is_finite_far_out():
    assert torch.isfinite(tanh_log_det(torch.tensor([-60.0, 60.0]))).all()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.1), (0.9, 0.3), (-0.999, 0.1), (0.6, 2.1)])
def test_truncated_normals_density_entropy_and_samples_agree(mean, std):
    """The density integrates to one, to the entropy that the formula gives, and to the distribution that samples follow."""
    policy = TruncatedNormal(torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64))
    action = torch.linspace(-1.0, 1.0, 20_001, dtype=torch.float64)
    log_prob = policy.log_prob(action.unsqueeze(-1))
    assert float(torch.trapezoid(log_prob.exp(), action)) == pytest.approx(1.0, abs=1e-4)
    assert float(-torch.trapezoid(log_prob.exp() * log_prob, action)) == pytest.approx(float(policy.entropy()), abs=1e-4)
    quantile = policy.sample(torch.tensor([[0.2], [0.5], [0.9]], dtype=torch.float64)).flatten()
    share = [float(torch.trapezoid(torch.where(action <= q, log_prob.exp(), 0.0), action)) for q in quantile]
    assert share == pytest.approx([0.2, 0.5, 0.9], abs=2e-3)


@pytest.mark.parametrize("raw", [-30.0, -3.0, 0.0, 3.0, 30.0])
def test_truncated_normal_is_finite_at_every_corner_in_float32(raw):
    inputs = torch.tensor([[raw, spread] for spread in (-40.0, 0.0, 40.0)], requires_grad=True)
    policy = TruncatedNormalConfig().distribution(inputs)
    for noise in (1e-6, 0.5, 1.0 - 1e-6):
        uniform = torch.full((3, 1), noise)
        sample = policy.sample(uniform)
        assert float(sample.detach().abs().max()) <= 1.0 - 0.9e-6
        numbers = [sample.sum(), policy.log_prob(policy.draw(uniform).detach()).sum(), policy.entropy().sum()]
        assert all(torch.isfinite(number) for number in numbers)
        (gradient,) = torch.autograd.grad(sum(numbers), inputs, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_truncated_samples_are_reparameterised_by_the_inverse_distribution_function():
    noise = _noise(6, 2)
    raw = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    family = TruncatedNormalConfig()
    assert torch.autograd.gradcheck(lambda raw: family.distribution(raw).sample(noise), raw)
    assert torch.autograd.gradcheck(lambda raw: family.distribution(raw).entropy(), raw)


def test_bounded_samples_are_clipped_but_their_log_probs_are_not():
    policy = BoundedNormalConfig().distribution(torch.tensor([1.0, 0.0]))
    noise = torch.tensor([0.99])
    unclipped = math.tanh(1.0) + 0.8927173702 * 2.3263479
    assert float(policy.sample(noise)) == 1.0 and unclipped > 2.0
    expected = torch.distributions.Normal(math.tanh(1.0), 0.8927173702).log_prob(torch.tensor(unclipped))
    assert float(policy.log_prob(policy.draw(noise))) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_log_probs_of_samples_average_to_minus_the_entropy(family):
    """True of any distribution; it ties the three methods together."""
    raw = torch.linspace(-1.0, 0.8, family.raw_size(_size(family)), dtype=torch.float64)
    noise = _noise(20_000, _size(family))
    policy = family.distribution(raw.expand(20_000, -1))
    log_prob, entropy = policy.log_prob(policy.draw(noise)), policy.entropy(noise)
    assert log_prob.shape == entropy.shape == (20_000,)
    assert float(-log_prob.mean()) == pytest.approx(float(entropy.mean()), abs=0.03)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_score_has_mean_zero(family):
    """E grad log p = 0 with the draw held fixed, or REINFORCE would be biased."""
    raw = torch.linspace(-0.5, 0.4, family.raw_size(_size(family)), dtype=torch.float64, requires_grad=True)
    noise = _noise(20_000, _size(family), seed=1)
    policy = family.distribution(raw.expand(20_000, -1))
    policy.log_prob(policy.draw(noise).detach()).mean().backward()
    assert float(raw.grad.abs().max()) < 0.03


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_noise_of_a_half_is_close_to_the_mode(family):
    raw = torch.linspace(-1.0, 1.0, family.raw_size(_size(family)), dtype=torch.float64)
    policy = family.distribution(raw)
    if isinstance(policy, TruncatedNormal):  # its median lies between the mode and the middle
        assert (policy.sample(torch.full((2,), 0.5)) - policy.mode).abs().max() < 0.7
    else:
        torch.testing.assert_close(policy.sample(torch.full((_size(family),), 0.5, dtype=torch.float64)), policy.mode)


def test_one_hot_samples_are_exact_and_follow_the_softmax():
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(60_000, 3)
    sample = OneHotPolicy(logits).sample(_noise(60_000, 3).float())
    assert torch.equal(sample.sum(-1), torch.ones(60_000))
    torch.testing.assert_close(sample.mean(0), torch.tensor([0.66524, 0.24473, 0.09003]), atol=0.006, rtol=0)


def test_straight_through_gradient_is_that_of_the_probabilities():
    """F.2-3: whatever class is drawn."""
    for seed in range(5):
        logits = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
        sample = OneHotPolicy(logits).sample(_noise(3, seed=seed))
        (sample * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)).sum().backward()
        assert logits.grad.tolist() == pytest.approx([-0.3424794756, 0.1187373129, 0.2237421627], rel=1e-6)


def test_unimix_fixture():
    """F.2-4: probabilities, and a straight-through gradient with the factor 0.99."""
    raw = torch.tensor([5.0, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    policy = OneHotPolicy.from_raw(raw, unimix=0.01)
    assert policy.logits.softmax(-1).tolist() == pytest.approx([0.9728847960] + [0.0090384013] * 3, rel=1e-7)
    policy.sample(_noise(4))[0].backward()
    assert raw.grad.tolist() == pytest.approx([0.0192265613] + [-0.0064088538] * 3, rel=1e-6)


def test_factors_are_drawn_apart_and_add_up():
    raw = torch.tensor([2.0, 0.0, -1.0, 0.5, -0.5])
    both = OneHotFamily((3, 2)).distribution(raw)
    apart = [OneHotPolicy(raw[:3]), OneHotPolicy(raw[3:])]
    noise = _noise(5).float()
    torch.testing.assert_close(both.sample(noise), torch.cat([apart[0].sample(noise[:3]), apart[1].sample(noise[3:])]))
    assert float(both.entropy()) == pytest.approx(sum(float(part.entropy()) for part in apart), rel=1e-6)
    assert both.mode.tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("config", "value"),
    [(TanhNormalConfig, {"init_std": 0.0}), (TruncatedNormalConfig, {"min_std": 0.0}), (BoundedNormalConfig, {"max_std": 0.05})],
)
def test_impossible_spreads_are_refused(config, value):
    with pytest.raises(ValueError, match="std"):
        config(**value)
