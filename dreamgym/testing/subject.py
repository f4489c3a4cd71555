"""The model under examination, and inputs for it that are a function of the seed and of nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.noise import uniform
from dreamgym.structs import ObsTensors, Spec, TensorStruct

__all__ = ["BATCHES", "Inputs", "NotApplicable", "Subject", "extreme_actions", "sampled_actions", "shown"]

BATCHES = (1, 2, 5)  # that shapes are looked at with

_WARM_UP = 3  # steps after which rows that began alike differ
_FLOAT_REACH = 3.0  # of sampled observations; boxes are often unbounded


class NotApplicable(Exception):
    """Raised by a check that has nothing to look at; says why."""


@dataclass(frozen=True)
class Inputs(TensorStruct):
    """Arguments for every method of the contract, leading [B], so that rows can be chosen and permuted together."""

    state: Any
    action: Tensor  # [B,A] model action; for observe the one that led here
    noise: Tensor  # [B,L]
    obs: ObsTensors
    is_first: Tensor  # [B] bool


class Subject:
    """A model, how long to examine it, and which checks it passed so far."""

    def __init__(self, model: Any, *, seed: int, steps: int, real_env: Any = None) -> None:
        self.model = model
        self.seed = seed
        self.steps = steps
        self.real_env = real_env
        self.passed: list[str] = []
        self.trace: Any = None  # what check_finite saw on its way

    # ---- what it is ---------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        """What the real world looks like."""
        return self.model.spec

    @property
    def device(self) -> torch.device:
        """Where the model lives; what is no Module lives on the CPU."""
        if not isinstance(self.model, torch.nn.Module):
            return torch.device("cpu")
        tensor = next(iter([*self.model.parameters(), *self.model.buffers()]), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def held_lanes(self) -> int:
        """How many of the first lanes choose what an episode may keep."""
        return int(getattr(self.model, "episode_lanes", 0))

    def needs(self, *members: str) -> None:
        """Raises NotApplicable where the model lacks one of the optional members."""
        for member in members:
            if not hasattr(self.model, member):
                raise NotApplicable(f"the model has no {member}")

    def calls(self) -> dict[str, Callable[[Inputs], Any]]:
        """The model's methods as functions of Inputs; optional ones where their own check passed."""
        model = self.model
        known: dict[str, Callable[[Inputs], Any]] = {
            "step": lambda given: model.step(given.state, given.action, given.noise, 1.0),
            "predict": lambda given: model.predict(given.state),
            "features": lambda given: model.features(given.state),
            "decode": lambda given: model.decode(given.state),
            "in_range": lambda given: model.in_range(given.state),
            "observe": lambda given: model.observe(given.state, given.action, given.obs, given.is_first, given.noise),
        }
        optional = ("decode", "in_range", "observe")
        return {name: call for name, call in known.items() if name not in optional or name in self.passed}

    # ---- what it is given ---------------------------------------------------------------------------------------------

    def inputs(self, batch: int, name: str) -> Inputs:
        """Inputs [B]; `name` picks other numbers."""
        return Inputs(
            state=self.states(batch, name),
            action=self.actions(batch, name),
            noise=self.noise(batch, name),
            obs=self.observations(batch, name),
            is_first=torch.zeros(batch, dtype=torch.bool, device=self.device),
        )

    def initial(self, batch: int) -> Any:
        """The model's state before the first observation, where the model lives."""
        return self.model.initial(batch).to(self.device)

    def states(self, batch: int, name: str) -> Any:
        """States [B] a few dreamt steps from the initial one, each row on a way of its own."""
        state = self.initial(batch)
        for step in range(_WARM_UP):
            there = f"{name}, on the way {step}"
            state = self.model.step(state, self.actions(batch, there), self.noise(batch, there), 1.0)
        return state

    def noise(self, batch: int, name: str) -> Tensor:
        """Uniforms [B,L]."""
        seed, episode = torch.full((batch,), self.seed), torch.full((batch,), zlib.crc32(name.encode()))
        return uniform(seed, episode, torch.arange(batch), self.model.noise_lanes).to(self.device)

    def actions(self, batch: int, name: str) -> Tensor:
        """Random model actions [B,A]."""
        return self.model_action(sampled_actions(self.spec.action_space, batch, self.generator(name)))

    def model_action(self, action: NDArray[Any]) -> Tensor:
        """Env actions [B,...] as the model is given them."""
        return self.spec.to_model_action(torch.from_numpy(action)).to(self.device)

    def observations(self, batch: int, name: str) -> ObsTensors:
        """Observations [B,...] of the spec's space, as observe is given them: uint8 images, float32 vectors, int64 classes."""
        space, rng = self.spec.observation_space, self.generator(name)
        if isinstance(space, spaces.Dict):
            return {key: _sampled_part(space[key], batch, rng).to(self.device) for key in sorted(space)}
        return _sampled_part(space, batch, rng).to(self.device)

    def generator(self, name: str) -> np.random.Generator:
        """Random numbers of that name."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])


def sampled_actions(space: spaces.Space[Any], batch: int, rng: np.random.Generator) -> NDArray[Any]:
    """Env actions [B,...], uniform over the space."""
    if isinstance(space, spaces.Discrete):
        return rng.integers(int(space.start), int(space.start + space.n), size=batch)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + rng.integers(0, space.nvec, size=(batch, *space.nvec.shape))
    assert isinstance(space, spaces.Box)
    return rng.uniform(space.low, space.high, size=(batch, *space.shape)).astype(np.float32)


def extreme_actions(space: spaces.Space[Any], batch: int, rng: np.random.Generator) -> NDArray[Any]:
    """Env actions [B,...] in the corners of a Box, every dimension at one of its ends; of other spaces any."""
    if not isinstance(space, spaces.Box):
        return sampled_actions(space, batch, rng)
    high = rng.integers(0, 2, size=(batch, *space.shape)).astype(bool)
    high[0], high[-1] = False, True  # all low and all high are the corners where things break
    return np.where(high, space.high, space.low).astype(np.float32)


def _sampled_part(space: spaces.Space[Any], batch: int, rng: np.random.Generator) -> Tensor:
    if isinstance(space, spaces.Discrete):
        return torch.from_numpy(rng.integers(int(space.start), int(space.start + space.n), size=batch))
    assert isinstance(space, spaces.Box)
    shape = (batch, *space.shape)
    if space.dtype == np.uint8:
        return torch.from_numpy(rng.integers(0, 256, size=shape, dtype=np.uint8))
    lowest, highest = space.low.astype(np.float64), space.high.astype(np.float64)
    middle = np.clip(0.0, lowest, highest)
    values = rng.uniform(np.maximum(lowest, middle - _FLOAT_REACH), np.minimum(highest, middle + _FLOAT_REACH), size=shape)
    whole = np.issubdtype(space.dtype, np.integer)
    return torch.from_numpy(values.round().astype(space.dtype) if whole else values.astype(np.float32))


def shown(value: Any) -> str:
    """What kind of thing a value is: "[8, 3] float32"."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else f"a {type(value).__name__}"
