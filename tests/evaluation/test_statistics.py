"""Tests and intervals against values worked out by hand or taken from tables."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from dreamgym.evaluation.statistics import binomial_tail, proportion_interval, shuffle_test, sign_flip_test, sign_test


@pytest.mark.parametrize("n, k, chance", [(10, 7, 0.5), (9, 1, 0.2), (40, 40, 0.9), (300, 150, 0.5), (5, 0, 0.3)])
def test_the_binomial_tail_is_the_sum_of_its_terms(n: int, k: int, chance: float) -> None:
    by_hand = math.fsum(math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(k, n + 1))
    assert binomial_tail(k, n, chance) == pytest.approx(by_hand, rel=1e-10)


def test_the_binomial_tail_of_certainties_is_certain() -> None:
    assert binomial_tail(3, 3, 1.0) == 1.0
    assert binomial_tail(1, 3, 0.0) == 0.0
    with pytest.raises(ValueError, match="successes is 4 of 3"):
        binomial_tail(4, 3)


def test_the_sign_test_doubles_the_smaller_tail_and_ignores_who_is_called_first() -> None:
    assert sign_test(9, 1) == pytest.approx(2 * 11 / 1024)
    assert sign_test(9, 1) == sign_test(1, 9)
    assert sign_test(5, 5) == sign_test(0, 0) == 1.0
    assert sign_test(270, 219) == pytest.approx(0.0236, abs=5e-4)  # the prototype's yoked control


def test_the_interval_of_a_proportion_is_clopper_and_pearsons() -> None:
    assert proportion_interval(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert proportion_interval(10, 10) == pytest.approx((0.025**0.1, 1.0))
    low, high = proportion_interval(8, 20)
    assert binomial_tail(8, 20, low) == pytest.approx(0.025)
    assert binomial_tail(9, 20, high) == pytest.approx(0.975)
    assert proportion_interval(0, 0) == (0.0, 1.0)


def test_few_differences_are_flipped_in_all_ways() -> None:
    differences = [1.0, 2.0, -0.5, 4.0, 3.0]
    sums = [abs(sum(sign * value for sign, value in zip(signs, differences))) for signs in product((-1, 1), repeat=5)]
    assert sign_flip_test(differences) == pytest.approx(np.mean([total >= 9.5 for total in sums]))
    assert sign_flip_test([*differences, 0.0, 0.0]) == sign_flip_test(differences)
    assert sign_flip_test([0.0, 0.0]) == 1.0


def test_drawn_flips_agree_with_the_exact_binomial_where_all_differences_are_equal() -> None:
    differences = np.array([1.0] * 25 + [-1.0] * 12)
    assert sign_flip_test(differences) == pytest.approx(sign_test(25, 12), abs=0.004)
    assert sign_flip_test(differences) == sign_flip_test(differences)


def test_no_p_is_smaller_than_the_draws_can_tell() -> None:
    assert sign_flip_test(np.ones(80), draws=999) == pytest.approx(1 / 1000)
    assert shuffle_test(np.zeros(40), np.ones(40), draws=999) == pytest.approx(1 / 1000)


def test_flips_of_pure_noise_are_rejected_as_often_as_they_should_be() -> None:
    rng = np.random.default_rng(3)
    p = [sign_flip_test(rng.normal(size=15), draws=199, seed=trial) for trial in range(400)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.045)


def test_dealing_out_two_small_samples_counts_the_deals_that_part_them_as_far() -> None:
    """Of the 20 ways to choose 3 of 6 only the best and the worst part 1,2,3 and 4,5,6 as far."""
    assert shuffle_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == pytest.approx(0.1, abs=0.01)
    assert shuffle_test([1.0, 1.0], [1.0, 1.0, 1.0]) == 1.0
    with pytest.raises(ValueError, match="2 and 0 values"):
        shuffle_test([1.0, 2.0], [])
