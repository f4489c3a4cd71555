"""Learning without gradients: CMA-ES by ask and tell, exactly resumable from plain arrays, over the `cma` package."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["CMAES", "CMAESConfig"]


@dataclass(frozen=True)
class CMAESConfig:
    """Defaults: Ha & Schmidhuber 2018 (specs/world-models.md 6): start at zero, no bounds, everything else as `cma` has it.

    step_size says how sigma adapts: by the length of the path of past shifts ("csa", as in the paper), or by which of two looks along
    the last shift was fitter ("tpa", which `cma` 4 takes from 300 parameters on). On quadratics of 448 parameters "tpa" came closer
    where evaluations were exact, and equally close where they were as noisy as 16 dreams are.
    """

    population: int = 64
    sigma: float = 0.1
    step_size: Literal["csa", "tpa"] = "csa"

    def __post_init__(self) -> None:
        if not 4 <= self.population <= 1_000_000:
            raise ValueError(f"population is {self.population}; expected 4 to a million candidates.")
        if not 0.0 < self.sigma < float("inf"):
            raise ValueError(f"sigma is {self.sigma}; expected a positive number.")
        if self.step_size not in ("csa", "tpa"):
            raise ValueError(f"step_size is {self.step_size!r}; expected 'csa' or 'tpa'.")


class CMAES:
    """Covariance matrix adaptation: ask for candidates, tell how fit they were; only their ranking counts.

    The candidates of generation g are a function of (seed, g) and of what was told before, and no global generator is touched, so a
    run continued from `state_dict` equals one that was never interrupted. mean [N] is where the search starts (None: zero).
    Source: Hansen 2016, arXiv 1604.00772.
    """

    def __init__(self, config: CMAESConfig | None, size: int, seed: int = 0, *, mean: ArrayLike | None = None) -> None:
        if size < 2:
            raise ValueError(f"size is {size}; CMA-ES needs at least 2 parameters.")
        if seed < 0:
            raise ValueError(f"seed is {seed}; expected a number of at least 0.")
        self.config, self.size, self.seed = config or CMAESConfig(), size, seed
        self._start = np.zeros(size) if mean is None else np.asarray(mean, np.float64)
        if self._start.shape != (size,) or not np.isfinite(self._start).all():
            raise ValueError(f"mean has shape {self._start.shape}; expected ({size},), all finite.")
        self._asked: list[NDArray[np.float64]] | None = None
        self._strategy = self._begin()

    @property
    def generation(self) -> int:
        """How many populations were told."""
        return int(self._strategy.countiter)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The distribution's centre [N]: the best guess, unlike the best candidate, which was lucky too."""
        return np.array(self._strategy.mean)

    @property
    def sigma(self) -> float:
        """The overall step size."""
        return float(self._strategy.sigma)

    def ask(self) -> NDArray[np.float64]:
        """This generation's candidates [P,N]; the same ones until they are told."""
        if self._asked is None:
            self._asked = self._strategy.ask()
        return np.array(self._asked)

    def tell(self, parameters: ArrayLike, fitness: ArrayLike) -> None:
        """Learn from what was asked, parameters [P,N], and how fit each was, [P]: more is better.

        Raises ValueError if these are not the candidates asked for, or if a fitness is not a finite number.
        """
        if self._asked is None or not np.array_equal(np.asarray(parameters), np.asarray(self._asked)):
            raise ValueError("these are not the candidates of the last ask(); tell() wants them back unchanged, in float64.")
        cost = -np.asarray(fitness, np.float64)
        if cost.shape != (self.config.population,) or not np.isfinite(cost).all():
            shown = (
                f"shape {cost.shape}" if cost.shape != (self.config.population,) else f"{np.count_nonzero(~np.isfinite(cost))} not finite"
            )
            raise ValueError(f"fitness has {shown}; expected {self.config.population} finite numbers.")
        self._strategy.tell(self._asked, cost.tolist())
        self._asked = None

    def state_dict(self) -> dict[str, Any]:
        """All that the next generations depend on: numbers and tensors, no code. Raises ValueError between ask() and tell()."""
        if self._asked is not None:
            raise ValueError("state_dict() between ask() and tell(): tell the fitness of the candidates first.")
        state: dict[str, Any] = {"population": self.config.population, "size": self.size, "seed": self.seed}
        for part, values in self._parts().items():
            plain = {f"{part}.{name}": _stored(value) for name, value in values.items() if _is_plain(value)}
            state |= {key: value for key, value in plain.items() if key not in _SKIPPED}
        directions = np.array(self._strategy.pop_injection_directions, np.float64).reshape(-1, self.size)
        return {**state, _INJECTIONS: torch.from_numpy(directions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`. Raises ValueError if it is of another search."""
        ours = (self.config.population, self.size, self.seed)
        found = tuple(state.get(name) for name in ("population", "size", "seed"))
        if found != ours:
            raise ValueError(f"the saved search has (population, size, seed) {found}; this one has {ours}.")
        self._asked, self._strategy = None, self._begin()
        self._strategy.ask()  # makes what the package builds at its first call
        parts = self._parts()
        for key, value in state.items():
            part, _, name = key.partition(".")
            if name:
                parts[part][name] = _restored(value)
        self._strategy.pop_injection_directions = list(_restored(state[_INJECTIONS]))
        self._strategy._updateBDfromSM()  # the strategy's C, B and D are the sampler's

    def _begin(self) -> Any:
        import cma  # late: it takes a second, for scipy

        adaptation = cma.sigma_adaptation.CMAAdaptSigmaCSA if self.config.step_size == "csa" else cma.sigma_adaptation.CMAAdaptSigmaTPA
        # With a seed, or without randn, it would use NumPy's global generator.
        options = {"popsize": self.config.population, "AdaptSigma": adaptation, "randn": self._normals, "seed": np.nan, "verbose": -9}
        strategy = cma.CMAEvolutionStrategy(self._start, self.config.sigma, options)
        if self.config.step_size == "csa":
            # The textbook's damping (Hansen 2016, eq. 54), and the paper's; `cma` 4 more than doubles it where P is about N or above.
            parents, damped = strategy.sp.weights.mueff, strategy.adapt_sigma
            damped.damps = 1.0 + 2.0 * max(0.0, math.sqrt((parents - 1.0) / (self.size + 1.0)) - 1.0) + damped.cs
        else:
            strategy.adapt_sigma.check_consistency = _unchecked  # it would pick what to check by the global generator
        return strategy

    def _normals(self, *shape: int) -> NDArray[np.float64]:
        """Normals of this generation; draws of one row, by which the package rescales its looks along the shift, have their own."""
        generation = self.generation if hasattr(self, "_strategy") else 0
        return np.random.default_rng((self.seed, generation, shape[0])).standard_normal(shape)

    def _parts(self) -> dict[str, dict[str, Any]]:
        """Attributes of the package's objects that hold state."""
        strategy = self._strategy
        return {"strategy": vars(strategy), "sampler": vars(strategy.sm), "sigma": vars(strategy.adapt_sigma)}


_INJECTIONS = "injections"  # where the next generation looks along the last shift, [M,N]
_SKIPPED = ("strategy.C", "strategy.B", "strategy.D", "strategy.dC", "strategy.ary", "strategy.pop_sorted")  # the sampler's, or the past's


def _unchecked(strategy: Any) -> None:
    """No check."""


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_, np.ndarray)) and not (
        isinstance(value, np.ndarray) and value.dtype.hasobject
    )


def _stored(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy(order="K"))  # another layout would round otherwise
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    return value.cpu().numpy().copy(order="K") if isinstance(value, Tensor) else value
