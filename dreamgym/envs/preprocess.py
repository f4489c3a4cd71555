"""Apply a recorded `Preprocess` to any real env, so that model, agent and film see exactly what the model was trained on."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dreamgym.envs.action_repeat import choose_repeat
from dreamgym.errors import require
from dreamgym.structs import Preprocess

__all__ = ["PreprocessedEnv", "applied", "preprocess"]


_FINITE = np.float32(1e6)


def preprocess(env: gym.Env[Any, Any], settings: Preprocess) -> gym.Env[Any, Any]:
    """Wrap a gymnasium env so that it looks as `settings` say; vectors become float32, images [Y,X,C] uint8, single numbers vectors [1].

    In a Dict observation that happens to each part; Discrete parts stay what they are.
    The env's own TimeLimit stays inside and counts frames, so an episode has ceil(limit / action_repeat) agent steps.
    An env that is already preprocessed in the same way is returned as it is. Raises ValueError if it is preprocessed
    otherwise or does not fit the settings, TypeError if its observations are not numbers, vectors, images or a flat Dict of those.
    """
    done = applied(env)
    if done == settings:
        return env
    if done is not None:
        raise ValueError(f"env is already preprocessed with {done}, expected a raw env or {settings}; pass the raw env.")
    return PreprocessedEnv(env, **asdict(settings))


def applied(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> Preprocess | None:
    """How an env, or every env of a vector, is preprocessed; None for a raw one."""
    if isinstance(env, VectorEnv):
        # Asking first: a missing attribute would kill the workers of an AsyncVectorEnv.
        if not all(env.call("has_wrapper_attr", "applied_preprocess")):  # type: ignore[attr-defined]
            return None
        found: Preprocess = env.call("applied_preprocess")[0]  # type: ignore[attr-defined]
        return found
    while isinstance(env, gym.Wrapper):
        if isinstance(env, PreprocessedEnv):
            return env.applied_preprocess
        env = env.env
    return None


class PreprocessedEnv(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The one wrapper behind `preprocess`; takes Preprocess's fields as keywords so that `env.spec` can be saved and rebuilt.

    With reward_clip, info["raw_reward"] holds the unclipped reward.
    """

    def __init__(self, env: gym.Env[Any, Any], **settings: Any) -> None:
        RecordConstructorArgs.__init__(self, **settings)
        gym.Wrapper.__init__(self, env)
        self.applied_preprocess = Preprocess(**{name: _tuples(value) for name, value in settings.items()})
        self._repeat = choose_repeat(env, self.applied_preprocess.action_repeat, skip_render=self.applied_preprocess.skip_render)
        self._view = _choose_view(env.observation_space, self.applied_preprocess)
        self.observation_space = self._view.space
        if self.applied_preprocess.merge_pedals:
            self.action_space = _merged_pedals(env.action_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._view.begin()
        return self._view(obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One agent step: `action_repeat` frames, rewards summed, less at an end."""
        settings = self.applied_preprocess
        if settings.merge_pedals:
            action = _split_pedals(action)
        obs, reward, terminated, truncated, info = self._repeat.step(action)
        if settings.success_truncates and terminated and info.get("lap_finished") is True:
            terminated, truncated = False, True
        if settings.reward_clip is not None:
            info = {**info, "raw_reward": reward}
            reward = max(-settings.reward_clip, min(settings.reward_clip, reward))
        return self._view(obs), reward, terminated, truncated, info


class _View(Protocol):
    """How observations look; `begin` comes before an episode's first."""

    space: spaces.Space[Any]

    def begin(self) -> None:
        """Forget."""

    def __call__(self, obs: Any, /) -> Any:
        """How it looks."""


class _ImageView:
    """Mask, crop, grey, resize and stack uint8 images [Y,X,C] or [Y,X] -> [Y,X,C]."""

    def __init__(self, space: spaces.Box, settings: Preprocess) -> None:
        self.settings = settings
        self.raw_shape = space.shape
        for name, box in [*(("mask", mask) for mask in settings.masks), ("crop", settings.crop)]:
            if box is not None:
                _check_inside(name, box, space.shape)
        if settings.grey and space.shape[2:] not in ((3,), (1,), ()):
            raise ValueError(f"grey needs images with 3 channels or 1; this env's are {space.shape}.")
        if settings.size is not None or settings.grey:
            self._cv2()
        self._last: deque[NDArray[np.uint8]] = deque(maxlen=settings.stack)
        Y, X, C = self._single(np.zeros(space.shape, np.uint8)).shape
        self.space: spaces.Space[Any] = spaces.Box(0, 255, (Y, X, C * settings.stack), np.uint8)

    def begin(self) -> None:
        self._last.clear()

    @staticmethod
    def _cv2() -> Any:
        return require("cv2", extra="car-racing", purpose="Resizing and greying images")

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        single = self._single(image)
        if self.settings.stack == 1:
            return single
        self._last.extend([single] * (1 if self._last else self.settings.stack))
        return np.concatenate(self._last, -1)

    def _single(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        settings = self.settings
        if settings.masks:
            image = image.copy()
            for top, bottom, left, right in settings.masks:
                image[top:bottom, left:right] = 0
        if settings.crop is not None:
            top, bottom, left, right = settings.crop
            image = np.ascontiguousarray(image[top:bottom, left:right])
        if settings.grey and image.shape[2:] == (3,):
            cv2 = self._cv2()
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if settings.size is not None:
            cv2 = self._cv2()
            image = cv2.resize(image, (settings.size, settings.size), interpolation=cv2.INTER_AREA)
        return image if image.ndim == 3 else image[..., None]  # cv2 drops a single channel


class _VectorView:
    """Vectors and single numbers of any type -> float32 vectors, the precision models compute in, with finite bounds.

    A dream predicts finite numbers, and gymnasium's checker warns of infinite spaces, so infinity becomes a million.
    """

    def __init__(self, space: spaces.Box) -> None:
        low, high = (np.clip(np.atleast_1d(bound), -_FINITE, _FINITE).astype(np.float32) for bound in (space.low, space.high))
        self.space: spaces.Space[Any] = spaces.Box(low, high, dtype=np.float32)

    def begin(self) -> None:
        """Nothing is remembered."""

    def __call__(self, vector: Any) -> NDArray[np.float32]:
        return np.clip(np.atleast_1d(np.asarray(vector, np.float32)), -_FINITE, _FINITE, dtype=np.float32)


class _ClassView:
    """Discrete as int64."""

    def __init__(self, space: spaces.Discrete) -> None:
        self.space: spaces.Space[Any] = spaces.Discrete(int(space.n), start=int(space.start))

    def begin(self) -> None:
        """Nothing is remembered."""

    def __call__(self, value: Any) -> np.int64:
        return np.int64(value)


class _DictView:
    """Each part in its own view."""

    def __init__(self, views: dict[str, _View]) -> None:
        self.views = dict(sorted(views.items()))
        self.space: spaces.Space[Any] = spaces.Dict({name: view.space for name, view in self.views.items()})

    def begin(self) -> None:
        for view in self.views.values():
            view.begin()

    def __call__(self, obs: Any) -> dict[str, Any]:
        return {name: view(obs[name]) for name, view in self.views.items()}


def _choose_view(space: spaces.Space[Any], settings: Preprocess) -> _View:
    parts = dict(space.items()) if isinstance(space, spaces.Dict) else {"": space}
    views = {name: _view_of_part(part, space, settings) for name, part in parts.items()}
    if settings.reads_images and not any(isinstance(view, _ImageView) for view in views.values()):
        raise ValueError(f"size, crop, masks, grey and stack are for images, but this env's observations are vectors: {space}.")
    return _DictView(views) if isinstance(space, spaces.Dict) else views[""]


def _view_of_part(part: spaces.Space[Any], whole: spaces.Space[Any], settings: Preprocess) -> _View:
    if isinstance(part, spaces.Box) and part.dtype == np.uint8 and len(part.shape) in (2, 3):
        return _ImageView(part, settings)
    if isinstance(part, spaces.Box) and len(part.shape) < 2:
        return _VectorView(part)
    if isinstance(part, spaces.Discrete) and part is not whole:
        return _ClassView(part)
    raise TypeError(
        f"observation space {whole} is not supported; expected a vector, a uint8 image [Y,X,C], or a flat Dict of those and Discrete. "
        "Wrap the env first, for example in gymnasium.wrappers.FlattenObservation or FilterObservation."
    )


def _check_inside(name: str, box: tuple[int, int, int, int], shape: tuple[int, ...]) -> None:
    top, bottom, left, right = box
    if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
        raise ValueError(f"{name} (top, bottom, left, right) is {box}, outside images of {shape[0]} rows and {shape[1]} columns.")


def _merged_pedals(space: spaces.Space[Any]) -> spaces.Box:
    if not isinstance(space, spaces.Box) or space.low.tolist() != [-1, 0, 0] or space.high.tolist() != [1, 1, 1]:
        raise ValueError(f"merge_pedals needs CarRacing's actions (steer, gas, brake); this env's are {space}.")
    return spaces.Box(-1.0, 1.0, (2,), np.float32)


def _split_pedals(action: Any) -> NDArray[np.float32]:
    """(steer, accelerate) -> (steer, gas, brake): above 0 is gas, below is brake."""
    merged = np.asarray(action, np.float32)
    if merged.shape != (2,):
        raise InvalidAction(f"action has shape {merged.shape}; expected (2,): steer and accelerate, each -1 to 1.")
    steer, accelerate = merged
    return np.array([steer, max(accelerate, 0.0), max(-accelerate, 0.0)], np.float32)


def _tuples(value: Any) -> Any:
    """Lists, as JSON returns them, back to tuples."""
    return tuple(_tuples(entry) for entry in value) if isinstance(value, (list, tuple)) else value
