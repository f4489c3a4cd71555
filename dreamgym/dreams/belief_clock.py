"""Which random numbers a sampled belief uses: a stream for each row and episode, so that a seed repeats what was believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.noise import uniform

__all__ = ["BeliefClock"]

# Beliefs about a dream (the "real" world may be one) must not be drawn from the numbers that the dream itself is made of.
_BELIEFS = 0x5EED_0F_BE11EF


class BeliefClock:
    """Seed, episode and step of B rows. Rows that no seed was given for draw from numbers nobody can repeat."""

    def __init__(self, num_rows: int) -> None:
        self._seed = np.random.default_rng().integers(2**62, size=num_rows)
        self._episode = np.full(num_rows, -1, np.int64)
        self._step = np.zeros(num_rows, np.int64)

    def reseed(self, seeds: Sequence[int | None]) -> None:
        """Restart the streams of rows with a seed; the others go on. Call before `begin`."""
        for row, seed in enumerate(seeds):
            if seed is not None:
                self._seed[row], self._episode[row] = (seed % 2**62) ^ _BELIEFS, -1

    def begin(self, rows: NDArray[np.bool_]) -> None:
        """First step of another episode in the rows of a mask [B]."""
        self._episode[rows] += 1
        self._step[rows] = 0

    def tick(self) -> None:
        """One step on, in all rows."""
        self._step += 1

    def noise(self, lanes: int, device: torch.device) -> Tensor:
        """Uniforms [B, lanes] of this step; asking twice gives the same."""
        seed, episode, step = (torch.from_numpy(each).to(device) for each in (self._seed, self._episode, self._step))
        return uniform(seed, episode, step, lanes)
