"""Fixtures of specs/dreamer.md F.2-5, F.2-6 and F.2-13 for symlog, two-hot and the unit normal."""

import math

import pytest
import torch

from dreamgym.nn.distributions import TwoHot, UnitNormal, symexp, symlog, two_hot, two_hot_bins

CPU = torch.device("cpu")


def two_hot_logits(target: torch.Tensor) -> torch.Tensor:
    """Logits whose softmax is the two-hot code of target [N]."""
    below, above, weight = two_hot(target)
    probs = torch.zeros(len(target), 255)
    probs.scatter_add_(1, below.unsqueeze(1), 1.0 - weight.unsqueeze(1))
    probs.scatter_add_(1, above.unsqueeze(1), weight.unsqueeze(1))
    return probs.clamp(min=1e-38).log()


@pytest.mark.parametrize(("x", "expected"), [(1.0, 0.6931471806), (-1.0, -0.6931471806), (10.0, 2.3978952728), (1e4, 9.2104403670)])
def test_symlog_fixtures(x, expected):
    assert float(symlog(torch.tensor(x))) == pytest.approx(expected, rel=1e-6)


def test_symexp_undoes_symlog_up_to_a_million():
    x = torch.cat([-torch.logspace(-3, 6, 200), torch.zeros(1), torch.logspace(-3, 6, 200)])
    torch.testing.assert_close(symexp(symlog(x.double())), x.double(), rtol=1e-9, atol=0)
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-6, atol=0)


def test_bins_are_antisymmetric_and_rise_from_the_spec_s_ends():
    bins = two_hot_bins(CPU)
    assert torch.equal(bins, -bins.flip(0)) and float(bins[127]) == 0.0
    assert bool((bins.diff() > 0).all())
    assert bins[[0, 128, 129]].tolist() == pytest.approx([-485165194.41, 0.170557715, 0.370205365], rel=1e-6)


@pytest.mark.parametrize(
    ("target", "index", "weights"),
    [
        (1.0, 131, (0.6173290787, 0.3826709213)),
        (-3.7, 117, (0.8155677006, 0.1844322994)),
        (500.0, 166, (0.5441534301, 0.4558465699)),
        (0.0, 127, (1.0, 0.0)),
    ],
)
def test_two_hot_fixtures(target, index, weights):
    below, above, weight = two_hot(torch.tensor([target]))
    assert (int(below), int(above)) == (index, index + 1)
    assert (1.0 - float(weight), float(weight)) == pytest.approx(weights, abs=1e-5)


def test_the_preprints_even_bins_code_500_otherwise():
    """The last fixture of F.2-6: even bins in symlog space, 0.1574803150 apart."""
    bins = torch.linspace(-20.0, 20.0, 255, dtype=torch.float64)
    assert float(bins[1] - bins[0]) == pytest.approx(0.1574803150, rel=1e-9)
    below, above, weight = two_hot(symlog(torch.tensor([500.0])), bins.float())
    assert (int(below), int(above)) == (166, 167)
    assert (1.0 - float(weight), float(weight)) == pytest.approx((0.5245512581, 0.4754487419), abs=1e-4)


def test_targets_beyond_the_bins_saturate():
    assert [int(x) for x in two_hot(torch.tensor([1e9]))] == [254, 254, 0]
    assert [int(x) for x in two_hot(torch.tensor([-1e9]))[::2]] == [0, 0]


@pytest.mark.parametrize("uniform", [0.0, 3.7, -50.0])
def test_uniform_logits_mean_exactly_zero(uniform):
    assert TwoHot(torch.full((7, 255), uniform)).mean.tolist() == [0.0] * 7


def test_first_loss_is_the_log_of_the_number_of_bins():
    loss = TwoHot(torch.zeros(3, 255)).loss(torch.tensor([0.0, -3.7, 1e6]))
    assert loss.tolist() == pytest.approx([5.5412635] * 3, rel=1e-6)


def test_mean_of_a_coded_target_is_the_target():
    target = torch.cat([-torch.logspace(-2, 7, 60), torch.logspace(-2, 7, 60)])
    torch.testing.assert_close(TwoHot(two_hot_logits(target)).mean, target, rtol=1e-4, atol=1e-5)


def test_loss_is_the_cross_entropy_of_the_two_hot_target_with_gradient():
    logits = torch.randn(5, 255, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([0.0, 1.0, -3.7, 500.0, 1e9])
    code = two_hot_logits(target).softmax(-1)
    loss = TwoHot(logits).loss(target)
    torch.testing.assert_close(loss, -(code * logits.log_softmax(-1)).sum(-1), rtol=1e-5, atol=1e-5)
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1) - code, rtol=1e-4, atol=1e-5)


def test_bins_made_while_dreaming_can_be_trained_with():
    two_hot_bins.cache_clear()
    with torch.inference_mode():
        TwoHot(torch.zeros(1, 255)).loss(torch.ones(1))
    logits = torch.zeros(1, 255, requires_grad=True)
    TwoHot(logits).mean.sum().backward()
    assert float(logits.grad.abs().sum()) > 0.0


def test_unit_normal_at_its_mean_costs_the_constant():
    loss = UnitNormal(torch.tensor([2.0, 2.0])).loss(torch.tensor([2.0, 4.0]))
    assert loss.tolist() == pytest.approx([0.918939, 2.918939], abs=1e-6)


def test_unit_normal_log_prob_integrates_to_one():
    x = torch.linspace(-9.0, 11.0, 2001)
    assert float(torch.trapezoid(UnitNormal(torch.ones(())).log_prob(x).exp(), x)) == pytest.approx(1.0, abs=1e-4)
    assert math.isclose(float(UnitNormal(torch.ones(())).mean), 1.0)
