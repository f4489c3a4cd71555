"""Exact tests and intervals in a few lines, because whether an agent sees is decided by a p-value and SciPy is no dependency.

A p-value is the chance of data at least this lopsided if nothing were going on. It is not the chance that nothing is going on, says
nothing of the size of an effect, and holds for one question asked once: who looks twice, or picks the best of many, needs fresh data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["binomial_tail", "proportion_interval", "shuffle_test", "sign_flip_test", "sign_test"]

ENUMERATED = 12  # differences up to which all 2^n sign flips are counted rather than drawn
DRAWS = 20_000
_CHUNK = 2_000_000  # numbers drawn at once
_TINY = 1e-9  # rounding that must not turn a tie into a difference


def binomial_tail(successes: int, n: int, chance: float = 0.5) -> float:
    """P(X >= successes) for X ~ Binomial(n, chance), exactly (a sum of terms in logs). Raises ValueError for impossible arguments."""
    if not 0 <= successes <= n or not 0.0 <= chance <= 1.0:
        raise ValueError(f"successes is {successes} of {n} with chance {chance}; expected 0 to n, and a chance in [0,1].")
    if successes == 0 or chance == 1.0:
        return 1.0
    if chance == 0.0:
        return 0.0
    whole, yes, no = math.lgamma(n + 1), math.log(chance), math.log1p(-chance)
    terms = (whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * yes + (n - k) * no for k in range(successes, n + 1))
    return min(1.0, math.fsum(map(math.exp, terms)))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of `wins` against `losses` if either were as likely as the other; ties are left out before. 1 without any.

    Exact if the cases are independent. It counts who won, never by how much.
    """
    if wins + losses == 0:
        return 1.0
    return min(1.0, 2.0 * binomial_tail(max(wins, losses), wins + losses))


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a chance after `successes` of n independent cases; (0, 1) if n is 0.

    It covers the true chance in at least `confidence` of all repetitions, usually in somewhat more.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1.")
    if n == 0:
        return 0.0, 1.0
    half = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else _rising_root(lambda chance: binomial_tail(successes, n, chance) - half)
    high = 1.0 if successes == n else _rising_root(lambda chance: binomial_tail(successes + 1, n, chance) - (1.0 - half))
    return low, high


def sign_flip_test(differences: Sequence[float] | NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of a mean of paired differences at least this far from 0, had the two of every pair been swapped by coin flips.

    All 2^n flips up to n = 12; above, `draws` seeded ones, with the data themselves counted among them, which keeps the test valid and
    the p at least 1 / (draws + 1). Exact for the hypothesis that the two of a pair are exchangeable; of the hypothesis that only
    their means are equal it is a good approximation where n is in the dozens. 1 without any difference.
    """
    values = np.asarray(differences, np.float64)
    values = values[values != 0.0]  # a flip does not change them
    if not len(values):
        return 1.0
    reached = abs(values.sum()) - _TINY * np.abs(values).sum()
    if len(values) <= ENUMERATED:
        codes = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float(np.mean(np.abs((2 * codes - 1) @ values) >= reached))
    rng = np.random.default_rng(seed)
    hits = sum(
        int((np.abs((2.0 * rng.integers(0, 2, (rows, len(values)), np.int8) - 1.0) @ values) >= reached).sum())
        for rows in _chunks(draws, len(values))
    )
    return (1 + hits) / (1 + draws)


def shuffle_test(
    first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0
) -> float:
    """Two-sided p of two independent samples' means at least this far apart, had all values been dealt out at random.

    `draws` seeded deals, the data among them, so that p is at least 1 / (draws + 1). Exact for the hypothesis that both samples come
    from one distribution; where only the spreads differ it is approximate.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    pooled = np.concatenate([a, b]) - np.concatenate([a, b]).mean()
    share = len(a) / len(pooled)
    reached = abs(pooled[: len(a)].sum()) - _TINY * np.abs(pooled).sum()
    if not 0.0 < share < 1.0:
        raise ValueError(f"samples have {len(a)} and {len(b)} values; expected at least one each.")
    rng = np.random.default_rng(seed)
    hits = 0
    for rows in _chunks(draws, len(pooled)):
        dealt = rng.permuted(np.broadcast_to(pooled, (rows, len(pooled))), axis=1)
        hits += int((np.abs(dealt[:, : len(a)].sum(1)) >= reached).sum())
    return (1 + hits) / (1 + draws)


def _chunks(draws: int, width: int) -> list[int]:
    size = max(1, _CHUNK // width)
    return [min(size, draws - begun) for begun in range(0, draws, size)]


def _rising_root(function: Callable[[float], float]) -> float:
    """Where a rising function of [0,1] crosses 0, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (low, middle) if function(middle) > 0.0 else (middle, high)
    return (low + high) / 2.0
