"""The numeric fixtures of specs/dreamer.md F.1."""

import pytest
import torch

from dreamgym.agents.returns import (
    discount_weights,
    lambda_returns,
    n_step_returns,
    replay_lambda_returns,
    reward_sum,
    survival_weights,
)

REWARD = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
VALUE = torch.tensor([[10.0, 20.0, 30.0, 40.0]], dtype=torch.float64)
DISCOUNT = torch.full((1, 3), 0.9, dtype=torch.float64)


def _close(result, expected):
    torch.testing.assert_close(result[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("lambda_", "expected"), [(0.95, [33.274225, 36.695, 39.0]), (0.0, [19.0, 29.0, 39.0]), (1.0, [34.39, 37.1, 39.0])]
)
def test_lambda_returns_fixture(lambda_, expected):
    _close(lambda_returns(REWARD, DISCOUNT, VALUE, lambda_=lambda_), expected)


def test_n_step_estimates_and_their_mixture_equal_the_recursion():
    first = [float(n_step_returns(REWARD, VALUE, discount=0.9, steps=k)[0, 0]) for k in (1, 2, 3)]
    assert first == pytest.approx([19.0, 27.1, 34.39])
    mixed = 0.05 * (first[0] + 0.95 * first[1]) + 0.95**2 * first[2]
    assert mixed == pytest.approx(33.274225)
    assert mixed == pytest.approx(float(lambda_returns(REWARD, DISCOUNT, VALUE, lambda_=0.95)[0, 0]))


def test_n_step_estimates_know_of_ends():
    """Beyond a discount of zero nothing counts; near the horizon the last value serves."""
    discount = torch.tensor([[0.9, 0.0, 0.9]], dtype=torch.float64)
    _close(n_step_returns(REWARD, VALUE, discount=discount, steps=2), [1.0 + 0.9 * 2.0, 2.0, 3.0 + 0.9 * 40.0])


def test_sum_of_rewards():
    assert float(reward_sum(REWARD)[0, 0]) == pytest.approx(6.0)
    assert float(reward_sum(REWARD, discount=0.9)[0, 0]) == pytest.approx(5.23)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_constant_reward_and_its_value_are_a_fixed_point(lambda_):
    hundred = torch.full((2, 9), 100.0, dtype=torch.float64)
    returns = lambda_returns(torch.ones(2, 8).double(), torch.full((2, 8), 0.99, dtype=torch.float64), hundred, lambda_=lambda_)
    torch.testing.assert_close(returns, hundred[:, :8])


def test_unit_rewards_without_values():
    discount = torch.full((1, 14), 0.99, dtype=torch.float64)
    returns = lambda_returns(torch.ones(1, 14).double(), discount, torch.zeros(1, 15).double(), lambda_=0.95)
    assert float(returns[0, 0]) == pytest.approx(9.686292502541, rel=1e-9)


@pytest.mark.parametrize(
    ("last", "terminal", "expected"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], [33.274225, 36.695, 39.0]),
        ([0, 0, 1, 0], [0, 0, 1, 0], [3.61, 2.0, 39.0]),
        ([0, 0, 1, 0], [0, 0, 0, 0], [26.695, 29.0, 39.0]),
    ],
)
def test_replayed_returns_stop_at_terminations_and_bootstrap_at_truncations(last, terminal, expected):
    reward = torch.tensor([[9.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    flags = [torch.tensor([flag], dtype=torch.bool) for flag in (last, terminal)]
    _close(replay_lambda_returns(reward, VALUE, *flags, discount=0.9, lambda_=0.95), expected)


def test_weights_are_the_chance_of_living_that_long():
    assert discount_weights(torch.tensor([[0.9, 0.5, 1.0, 1.0]]))[0].tolist() == pytest.approx([1.0, 0.9, 0.45, 0.45])


def test_weights_counted_from_the_start_contain_its_own_survival():
    """F.1-7, with gamma inside c as with contdisc (gamma 1 here), and outside."""
    assert survival_weights(torch.tensor([[1.0, 0.9, 0.5, 1.0]]), 1.0)[0].tolist() == pytest.approx([1.0, 0.9, 0.45, 0.45])
    assert survival_weights(torch.tensor([[0.0, 0.9]]), 0.9)[0].tolist() == [0.0, 0.0]
    assert survival_weights(torch.tensor([[0.9, 0.45]]), 0.9)[0].tolist() == pytest.approx([1.0, 0.45])


def test_a_value_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="one more than reward"):
        lambda_returns(REWARD, DISCOUNT, VALUE[:, :3], lambda_=0.9)


def test_gradient_of_returns_matches_finite_differences():
    def objective(action):
        reward = 2.0 * action - 0.5 * action**2
        value = torch.cat([action.cumsum(1), action.sum(1, keepdim=True)], 1)
        discount = torch.full_like(reward, 0.9)
        return (discount_weights(discount) * lambda_returns(reward, discount, value, lambda_=0.95)).mean()

    action = torch.tensor([[0.1, -0.4, 0.7]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(objective, action)
