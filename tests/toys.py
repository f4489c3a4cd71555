"""Tiny worlds whose answers are known by hand; they satisfy DreamableModel, and importable factories make envs of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.noise import to_normal
from dreamgym.structs import DreamDefaults, Prediction, Spec, StartBank, TensorStruct


@dataclass(frozen=True)
class PointState(TensorStruct):
    """Where we are."""

    x: Tensor  # [B,N]


class CounterWorld:
    """x' = x + a + sigma * sqrt(temperature) * normal + drift * (u - 0.5), u held per episode; the reward is x'.

    continue_prob is `alive` up to |x| <= bound and 0.1 beyond; uncertainty is |x|; in range up to |x| <= data_range.
    Features are (x, tanh x). Awake it believes the mean of prediction and observation. Actions in [-1,1], scaled by nothing.
    """

    noise_lanes = 2
    episode_lanes = 1

    def __init__(
        self,
        *,
        sigma: float = 0.0,
        drift: float = 0.0,
        bound: float = 5.0,
        alive: float = 1.0,
        data_range: float = 100.0,
        steps: int = 20,
        reward_low: float = -5.0,
        starts: tuple[float, ...] = (0.0, 0.25, -0.25, 2.0),
        first: tuple[bool, ...] = (True, True, True, False),
        defaults: DreamDefaults | None = None,
        nan_at: float = 1e9,
    ) -> None:
        self.sigma, self.drift, self.bound, self.alive, self.data_range = sigma, drift, bound, alive, data_range
        self.reward_low, self.nan_at = reward_low, nan_at
        self.spec = Spec("toy/Counter", _box(10.0, 1), _box(1.0, 1), max_episode_steps=steps, fps=10.0)
        self.feature_low, self.feature_high = np.float32([-20.0, -1.0]), np.float32([20.0, 1.0])
        self.defaults = defaults or DreamDefaults()
        self.source: str | None = None
        self.initial_states: StartBank | None = None
        if starts:
            self.initial_states = StartBank(PointState(torch.tensor(starts).unsqueeze(1)), torch.tensor(first))

    def initial(self, batch_size: int) -> PointState:
        return PointState(torch.zeros(batch_size, 1))

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        root = torch.as_tensor(temperature).sqrt().reshape(-1, 1)
        x = state.x + action + self.sigma * root * to_normal(noise[:, 1:]) + self.drift * (noise[:, :1] - 0.5)
        return PointState(torch.where(x.abs() >= self.nan_at, torch.nan, x))

    def predict(self, state: PointState) -> Prediction:
        x = state.x[:, 0]
        return Prediction(x, torch.where(x.abs() <= self.bound, self.alive, 0.1), x.abs())

    def features(self, state: PointState) -> Tensor:
        return torch.cat([state.x, state.x.tanh()], 1)

    def decode(self, state: PointState) -> Tensor:
        return state.x

    def in_range(self, state: PointState) -> Tensor:
        return state.x[:, 0].abs() <= self.data_range

    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return PointState(torch.where(is_first.unsqueeze(1), obs, 0.5 * (state.x + prev_action + obs)))


class PictureWorld(CounterWorld):
    """The counter seen as a 36x36 picture whose brightness is 128 + 10 x; counts how many pictures it drew."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
        self.spec = Spec("toy/Picture", space, _box(1.0, 1), max_episode_steps=self.spec.max_episode_steps)
        self.decoded = 0

    def decode(self, state: PointState) -> Tensor:
        self.decoded += len(state.x)
        grey = (128.0 + 10.0 * state.x).clamp(0, 255).to(torch.uint8)
        return grey.reshape(-1, 1, 1, 1).expand(-1, 36, 36, 3)

    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        seen = (obs[:, 0, 0, :1].float() - 128.0) / 10.0
        return super().observe(state, prev_action, seen, is_first, noise)


class PartsWorld(CounterWorld):
    """The counter seen in parts: a 64x64 camera of brightness 128 + 10 x, a vector (x, -x) and the sign of x as a class.

    Actions are two choices: left, stay or right, and a pace of 1 or 2. All classes count from 0, as SB3 asks for.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        camera = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        parts = spaces.Dict(camera=camera, place=_box(10.0, 2), side=spaces.Discrete(3))
        choices = spaces.MultiDiscrete([3, 2])
        self.spec = Spec("toy/Parts", parts, choices, max_episode_steps=self.spec.max_episode_steps)

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return super().step(state, self._move(action), noise, temperature)

    def decode(self, state: PointState) -> dict[str, Tensor]:
        grey = (128.0 + 10.0 * state.x).clamp(0, 255).to(torch.uint8)
        camera = grey.reshape(-1, 1, 1, 1).expand(-1, 64, 64, 3)
        return {"camera": camera, "place": torch.cat([state.x, -state.x], 1), "side": state.x[:, 0].sign().long() + 1}

    def observe(  # type: ignore[override]
        self, state: PointState, prev_action: Tensor, obs: dict[str, Tensor], is_first: Tensor, noise: Tensor
    ) -> PointState:
        return super().observe(state, self._move(prev_action), obs["place"][:, :1], is_first, noise)

    @staticmethod
    def _move(action: Tensor) -> Tensor:
        return (action[:, 2:3] - action[:, :1]) * (action[:, 3:4] + 2.0 * action[:, 4:5])


class CorridorWorld:
    """Seven cells, actions left, stay, right; reward 1 for each step in the last cell. Everything is certain."""

    noise_lanes = 0
    reward_low = 0.0
    initial_states = None

    def __init__(self, steps: int = 16) -> None:
        self.spec = Spec("toy/Corridor", _box(3.0, 1), spaces.Discrete(3), max_episode_steps=steps)
        self.feature_low, self.feature_high = np.float32([-3.0]), np.float32([3.0])
        self.defaults = DreamDefaults()

    def initial(self, batch_size: int) -> PointState:
        return PointState(torch.zeros(batch_size, 1))

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState((state.x + action[:, 2:] - action[:, :1]).clamp(-3.0, 3.0))

    def predict(self, state: PointState) -> Prediction:
        x = state.x[:, 0]
        return Prediction((x >= 3.0).float(), torch.ones_like(x), torch.zeros_like(x))

    def features(self, state: PointState) -> Tensor:
        return state.x

    def decode(self, state: PointState) -> Tensor:
        return state.x


class BlindWorld:
    """The least of a model: no decoder, no bounds, no bank, no guard."""

    noise_lanes = 1

    def __init__(self) -> None:
        self.spec = Spec("toy/Blind", _box(1.0, 1), _box(1.0, 2), max_episode_steps=10)

    def initial(self, batch_size: int) -> PointState:
        return PointState(torch.zeros(batch_size, 2))

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(state.x + action)

    def predict(self, state: PointState) -> Prediction:
        total = state.x.sum(1)
        return Prediction(total, torch.ones_like(total), torch.zeros_like(total))

    def features(self, state: PointState) -> Tensor:
        return state.x


class RealCounter(gym.Env[Any, Any]):
    """The real world behind CounterWorld: x' = x + a + 0.1, so that a belief differs from a prediction. Ends after `steps`."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, steps: int = 3, invalid_at: int = -1) -> None:
        self.observation_space, self.action_space = _box(10.0, 1), _box(1.0, 1)
        self._steps, self._invalid_at = steps, invalid_at

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._x, self._t = 1.0, 0
        return np.float32([self._x]), {"obs_valid": True}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._x, self._t = self._x + float(action[0]) + 0.1, self._t + 1
        valid = self._t != self._invalid_at
        return np.float32([self._x if valid else 0.0]), 1.0, self._t >= self._steps, False, {"obs_valid": valid}


class RealParts(gym.Env[Any, Any]):
    """The real world behind PartsWorld, 0.1 faster, with numbers in types that preprocessing must bring into form."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, steps: int = 3, render_mode: str | None = None) -> None:
        spec = PartsWorld().spec
        self.observation_space, self.action_space = spec.observation_space, spec.action_space
        self._steps, self.render_mode = steps, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._x, self._t = 1.0, 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._x, self._t = self._x + float((action[0] - 1) * (action[1] + 1)) + 0.1, self._t + 1
        return self._obs(), 1.0, self._t >= self._steps, False, {}

    def render(self) -> Any:
        return self._obs()["camera"]

    def _obs(self) -> dict[str, Any]:
        camera = np.full((64, 64, 3), np.clip(128 + 10 * self._x, 0, 255), np.uint8)
        return {"camera": camera, "place": np.float32([self._x, -self._x]), "side": np.int64(np.sign(self._x) + 1)}


def make_counter_env(obs_type: str | None = None, render_mode: str | None = None, **options: Any) -> gym.Env[Any, Any]:
    """For workers, which import and call it by name."""
    from dreamgym.dreams.env import DreamEnv

    return DreamEnv(CounterWorld(sigma=0.1), obs_type=obs_type, render_mode=render_mode, **options)


def make_picture_env(obs_type: str | None = None, render_mode: str | None = None) -> gym.Env[Any, Any]:
    from dreamgym.dreams.env import DreamEnv

    return DreamEnv(PictureWorld(sigma=0.1), obs_type=obs_type, render_mode=render_mode)


def make_parts_env(obs_type: str | None = None, render_mode: str | None = None) -> gym.Env[Any, Any]:
    from dreamgym.dreams.env import DreamEnv

    return DreamEnv(PartsWorld(sigma=0.1), obs_type=obs_type, render_mode=render_mode)


def make_corridor_env(obs_type: str | None = None, render_mode: str | None = None) -> gym.Env[Any, Any]:
    from dreamgym.dreams.env import DreamEnv

    return DreamEnv(CorridorWorld(), obs_type=obs_type, render_mode=render_mode)


def _box(bound: float, size: int) -> spaces.Box:
    return spaces.Box(-bound, bound, (size,), np.float32)
