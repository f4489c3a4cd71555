"""Behaviours that fill a first dataset: random, but coherent in time, because white noise explores next to nothing.

All have Stable-Baselines3's `predict`. What an episode needs lies in the state that `predict` returns; pass it back, or every
call starts anew. Observations [F] and [Y,X,C] are single, [B,F] and [B,Y,X,C] are batches, and so are the parts of Dict
observations. Source: specs/world-models.md 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.structs import Observation, Spec, map_obs

__all__ = ["Brownian", "DrivingRandom", "Mixture", "RandomNetwork", "RowPolicy", "StickyRandom", "default_collector"]


class RowPolicy(ABC):
    """A random policy told by how one row begins and acts; episode k since `reseed` is a pure function of (seed, k)."""

    def __init__(self, action_space: spaces.Space[Any], *, seed: int = 0) -> None:
        self.action_space = action_space
        self._key: tuple[int, ...] = (seed,)
        self._begun = 0

    def reseed(self, seed: int) -> None:
        """Start over with other random numbers; `collect` does so for every episode."""
        self._key = (self._key[0], seed)
        self._begun = 0

    def predict(
        self,
        observation: Observation,
        state: list[Any] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], list[Any]]:
        """Actions [B,...] (or one) and the rows' states. deterministic changes nothing: there is no best random action."""
        observation = map_obs(np.asarray, observation)
        batched = _is_batch(observation)
        batch = _rows(observation) if batched else [observation]
        state = [None] * len(batch) if state is None else list(state)
        actions = []
        for row, obs in enumerate(batch):
            if state[row] is None or (episode_start is not None and np.atleast_1d(episode_start)[row]):
                state[row] = self.begin(np.random.default_rng([*self._key, self._begun]))
                self._begun += 1
            actions.append(self.act(state[row], obs))
        action = np.stack(actions).astype(self.action_space.dtype)
        return (action if batched else action[0]), state

    @abstractmethod
    def begin(self, rng: np.random.Generator) -> Any:
        """A row's state at an episode's start; it owns `rng`."""

    @abstractmethod
    def act(self, row: Any, obs: Observation) -> NDArray[Any]:
        """Its next env action; `row` may change."""


class StickyRandom(RowPolicy):
    """Uniform actions, each held for a uniform number of steps in `hold` (both ends included). World Models' Doom collector."""

    def __init__(self, action_space: spaces.Space[Any], hold: tuple[int, int] = (1, 10), seed: int = 0) -> None:
        super().__init__(action_space, seed=seed)
        if not 1 <= hold[0] <= hold[1]:
            raise ValueError(f"hold is {hold}; expected (least, most) steps, at least 1.")
        self.hold = hold

    def begin(self, rng: np.random.Generator) -> dict[str, Any]:
        """Nothing held yet."""
        return {"rng": rng, "left": 0}

    def act(self, row: dict[str, Any], obs: Observation) -> NDArray[Any]:
        """The held action."""
        if row["left"] == 0:
            row["action"] = _uniform(self.action_space, row["rng"])
            row["left"] = int(row["rng"].integers(self.hold[0], self.hold[1] + 1))
        row["left"] -= 1
        return row["action"]  # type: ignore[no-any-return]


class Brownian(RowPolicy):
    """A random walk over a Box, a' = clip(a + sqrt(dt) N(0,1)) in units of half the range. Tallec et al. 2018, dt = 1/50."""

    def __init__(self, action_space: spaces.Space[Any], dt: float = 1 / 50, seed: int = 0) -> None:
        super().__init__(_box(action_space, "Brownian"), seed=seed)
        self.dt = dt

    def begin(self, rng: np.random.Generator) -> dict[str, Any]:
        """Start anywhere."""
        return {"rng": rng, "action": _uniform(self.action_space, rng)}

    def act(self, row: dict[str, Any], obs: Observation) -> NDArray[Any]:
        """One step of the walk."""
        action, space = row["action"], _box(self.action_space, "Brownian")
        step = np.sqrt(self.dt) * row["rng"].standard_normal(space.shape) * (space.high - space.low) / 2
        row["action"] = np.clip(action + step, space.low, space.high)
        return action  # type: ignore[no-any-return]


class RandomNetwork(RowPolicy):
    """A random linear map of the observation (images at 8 x 8), squashed into the action space, drawn anew each episode.

    Classes are those with the largest outputs.

    State-dependent and smooth, unlike noise. gain bounds the weights' scale, drawn log-uniformly.
    """

    def __init__(self, action_space: spaces.Space[Any], gain: tuple[float, float] = (0.3, 3.0), seed: int = 0) -> None:
        super().__init__(action_space, seed=seed)
        self._counts = _class_counts(action_space)
        self._width = sum(self._counts) or _box(action_space, "RandomNetwork").shape[0]
        self.gain = gain

    def begin(self, rng: np.random.Generator) -> dict[str, Any]:
        """Weights are drawn at the first observation, whose size they need."""
        return {"rng": rng, "weights": None, "gain": float(np.exp(rng.uniform(*np.log(self.gain))))}

    def act(self, row: dict[str, Any], obs: Observation) -> NDArray[Any]:
        """The map's action."""
        features = _features(obs)
        if row["weights"] is None:
            row["weights"] = row["gain"] * row["rng"].standard_normal((self._width, len(features)))
        outputs = row["weights"] @ features
        if self._counts:
            chosen = [choice.argmax() for choice in np.split(outputs, np.cumsum(self._counts)[:-1])]
            start: Any = self.action_space.start  # type: ignore[attr-defined]
            return np.asarray(chosen).reshape(np.shape(start)) + start  # type: ignore[no-any-return]
        return _scaled(_box(self.action_space, "RandomNetwork"), np.tanh(outputs))


class DrivingRandom(RowPolicy):
    """CarRacing without a driver: piecewise-constant, AR(1) or a random map of the image, all inclined to accelerate.

    One kind is drawn per episode. The map reads green minus red at 8 x 8 (grass is green, road grey) with weights that are
    antisymmetric in left and right, so that some draws steer to the road. For actions (steer, accelerate), see
    Preprocess.merge_pedals, and images [Y,X,3]. Source: prototypes/carracing.md.
    """

    KINDS = ("piecewise", "autoregressive", "map")

    def __init__(self, action_space: spaces.Space[Any], accelerate: tuple[float, float] = (0.0, 0.6), seed: int = 0) -> None:
        super().__init__(_box(action_space, "DrivingRandom"), seed=seed)
        if action_space.shape != (2,):
            raise TypeError(f"DrivingRandom acts in (steer, accelerate), not in {action_space}; set merge_pedals in the preprocessing.")
        self.accelerate = accelerate

    def begin(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a kind and its character."""
        row = {
            "rng": rng,
            "kind": self.KINDS[rng.integers(len(self.KINDS))],
            "accelerate": rng.uniform(*self.accelerate),
            "spread": rng.uniform(0.1, 0.6),  # of steering
            "noise": np.zeros(2),
            "left": 0,
            "memory": rng.uniform(0.7, 0.95),
        }
        weights = rng.standard_normal((8, 4))
        row["weights"] = np.concatenate([weights, -weights[:, ::-1]], 1) * np.exp(rng.uniform(np.log(0.2), np.log(2.0)))
        return row

    def act(self, row: dict[str, Any], obs: Observation) -> NDArray[Any]:
        """Steer and accelerate."""
        rng = row["rng"]
        if row["kind"] == "piecewise":
            if row["left"] == 0:
                row["noise"], row["left"] = rng.standard_normal(2), int(rng.integers(1, 11))
            row["left"] -= 1
        else:  # AR(1) with unit variance; the map adds its steering to it
            row["noise"] = row["memory"] * row["noise"] + np.sqrt(1 - row["memory"] ** 2) * rng.standard_normal(2)
        steer, accelerate = row["noise"] * (row["spread"], 0.2)
        if row["kind"] == "map":
            steer = 0.3 * steer + np.tanh((row["weights"] * _green_minus_red(_image_of(obs))).sum())
        return np.clip([steer, row["accelerate"] + accelerate], -1.0, 1.0)


class Mixture(RowPolicy):
    """One of several collectors per episode, drawn with the given probabilities (equal by default)."""

    def __init__(self, policies: Sequence[RowPolicy], probabilities: Sequence[float] | None = None, seed: int = 0) -> None:
        super().__init__(policies[0].action_space, seed=seed)
        self.policies = tuple(policies)
        weights = np.ones(len(policies)) if probabilities is None else np.asarray(probabilities, float)
        if len(weights) != len(policies) or (weights < 0).any() or not weights.sum() > 0:
            raise ValueError(f"probabilities are {probabilities}; expected one of at least 0 for each of {len(policies)} policies.")
        self.probabilities = weights / weights.sum()

    def begin(self, rng: np.random.Generator) -> tuple[RowPolicy, Any]:
        """Draw who acts."""
        chosen = self.policies[rng.choice(len(self.policies), p=self.probabilities)]
        return chosen, chosen.begin(rng)

    def act(self, row: tuple[RowPolicy, Any], obs: Observation) -> NDArray[Any]:
        """Let them act."""
        return row[0].act(row[1], obs)


def default_collector(spec: Spec, seed: int = 0) -> RowPolicy:
    """The collector to begin with in a world: driving where there are pedals, else sticky random of several tempers."""
    space = spec.action_space
    if spec.preprocess.merge_pedals:
        return DrivingRandom(space, seed=seed)
    sticky: list[RowPolicy] = [StickyRandom(space, (1, most)) for most in (2, 4, 8, 16)]
    if isinstance(space, spaces.Box):
        sticky += [Brownian(space), RandomNetwork(space)]
    return Mixture(sticky, seed=seed)


def _box(space: spaces.Space[Any], who: str) -> spaces.Box:
    if not isinstance(space, spaces.Box) or not np.isfinite([space.low, space.high]).all():
        raise TypeError(f"{who} needs a Box of actions with finite bounds, not {space}.")
    return space


def _class_counts(space: spaces.Space[Any]) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return space.nvec.tolist() if isinstance(space, spaces.MultiDiscrete) else []


def _uniform(space: spaces.Space[Any], rng: np.random.Generator) -> NDArray[Any]:
    if isinstance(space, spaces.Discrete):
        return np.asarray(rng.integers(space.n) + space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(space.nvec) + space.start
    box = _box(space, "a random policy")
    return rng.uniform(box.low, box.high)


def _scaled(box: spaces.Box, action: NDArray[Any]) -> NDArray[Any]:
    """From [-1,1] to the box."""
    return box.low + (action + 1) / 2 * (box.high - box.low)


def _is_batch(obs: Observation) -> bool:
    """Parts tell by their dimensions; one dimension alone is a vector, or a batch of classes if it holds integers."""
    if not isinstance(obs, dict):
        return obs.ndim in (2, 4)
    dimensions = {part.ndim for part in obs.values()}
    return bool(dimensions & {2, 4}) or (dimensions == {1} and all(part.dtype.kind in "iu" for part in obs.values()))


def _rows(obs: Observation) -> list[Any]:
    if not isinstance(obs, dict):
        return list(obs)
    return [{name: part[row] for name, part in obs.items()} for row in range(len(next(iter(obs.values()))))]


def _image_of(obs: Observation) -> NDArray[Any]:
    return next(part for part in obs.values() if part.ndim == 3) if isinstance(obs, dict) else obs


def _blocks(image: NDArray[Any]) -> NDArray[np.float64]:
    """Average an image [Y,X,C] to [8,8,C] in [0,1], leaving out what does not divide by 8."""
    Y, X, C = image.shape[0] // 8, image.shape[1] // 8, image.shape[2]
    return image[: 8 * Y, : 8 * X].reshape(8, Y, 8, X, C).mean((1, 3)) / 255.0


def _green_minus_red(image: NDArray[Any]) -> NDArray[np.float64]:
    blocks = _blocks(image)
    return blocks[..., 1] - blocks[..., 0]


def _features(obs: Observation) -> NDArray[np.float64]:
    """Something of order one: images at 8 x 8 around their mean, vectors and classes softly bounded; with a constant for the bias."""
    if isinstance(obs, dict):
        return np.concatenate([_features(np.atleast_1d(part)) for _, part in sorted(obs.items())])
    if obs.ndim == 3:
        blocks = _blocks(obs).ravel()
        values = (blocks - blocks.mean()) / (blocks.std() + 1e-3)
    else:
        values = obs / (1.0 + np.abs(obs))
    return np.append(values / np.sqrt(len(values)), 1.0 / np.sqrt(len(values)))
