"""Fixtures of specs/dreamer.md F.2 for the tanh-normal actor, and the one-hot actor's gradients."""

import pytest
import torch

from dreamgym.nn.distributions import OneHotPolicy, TanhNormal, tanh_log_det


def test_tanh_normal_fixture():
    policy = TanhNormal(torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64))
    pre_tanh = torch.tensor([0.5], dtype=torch.float64)
    assert float(torch.tanh(pre_tanh)) == pytest.approx(0.4621171573, rel=1e-9)
    assert float(tanh_log_det(pre_tanh)) == pytest.approx(-0.2402290139, rel=1e-8)
    assert float(policy.log_prob(pre_tanh)) == pytest.approx(-0.3628509019, rel=1e-8)


def test_std_at_raw_zero_is_that_of_dreamer_v1():
    assert float(TanhNormal.from_raw(torch.zeros(2)).std) == pytest.approx(5.0001, rel=1e-6)


def test_log_prob_integrates_to_one():
    policy = TanhNormal(torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    action = torch.linspace(-0.999999, 0.999999, 200_001, dtype=torch.float64)
    density = policy.log_prob(torch.atanh(action).unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density, action)) == pytest.approx(1.0, abs=1e-4)


def test_log_det_is_finite_far_out():
    assert torch.isfinite(tanh_log_det(torch.tensor([-60.0, 60.0]))).all()


def test_one_hot_samples_are_exact_and_follow_the_softmax():
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(60_000, 3)
    noise = torch.rand(60_000, 3, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    sample = OneHotPolicy(logits).sample(noise)
    assert torch.equal(sample.sum(-1), torch.ones(60_000))
    torch.testing.assert_close(sample.mean(0), torch.tensor([0.66524, 0.24473, 0.09003]), atol=0.006, rtol=0)


def test_straight_through_gradient_is_that_of_the_probabilities():
    logits = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64, requires_grad=True)
    sample = OneHotPolicy(logits).sample(torch.tensor([0.2, 0.9, 0.5], dtype=torch.float64))
    (sample * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)).sum().backward()
    assert logits.grad.tolist() == pytest.approx([-0.3424794756, 0.1187373129, 0.2237421627], rel=1e-6)
