"""Hold an action for several frames without drawing the frames nobody sees: on CarRacing drawing is 98% of a frame's cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, TimeLimit

__all__ = ["LastFrameRepeat", "NativeRepeat", "PlainRepeat", "StepResult", "Undrawn", "choose_repeat"]

StepResult: TypeAlias = "tuple[Any, float, bool, bool, dict[str, Any]]"

# Wrappers that hand observations on untouched, so that a late-drawn frame may replace what they returned.
_TRANSPARENT = (OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, TimeLimit)


class PlainRepeat:
    """Step an env `repeat` times, sum the rewards and stop at an end."""

    def __init__(self, env: gym.Env[Any, Any], repeat: int) -> None:
        self.env, self.repeat = env, repeat

    def step(self, action: Any) -> StepResult:
        """One agent step."""
        total = 0.0
        for _ in range(self.repeat):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, bool(terminated), bool(truncated), info


class NativeRepeat:
    """Let the env repeat by itself, through `step_frames(action, frames)` which sums rewards and stops at an end."""

    def __init__(self, env: gym.Env[Any, Any], repeat: int) -> None:
        self.env, self.repeat = env, repeat

    def step(self, action: Any) -> StepResult:
        """One agent step."""
        return self.env.step_frames(action, self.repeat)  # type: ignore[attr-defined,no-any-return]


class Undrawn(Protocol):
    """While entered, an env's steps draw nothing. `draw()` makes up for the last one: the observation that step would have given."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def draw(self) -> Any:
        """The observation of now."""


class LastFrameRepeat:
    """PlainRepeat that draws only the frame the agent gets; what is seen equals the plain env's pixel by pixel.

    On CarRacing physics costs 0.045 ms a frame, drawing 3.7 ms (prototypes/carracing.md).
    """

    def __init__(self, env: gym.Env[Any, Any], repeat: int, undrawn: Callable[[], Undrawn]) -> None:
        self.env, self.repeat, self._undrawn = env, repeat, undrawn

    def step(self, action: Any) -> StepResult:
        """One agent step."""
        total, undrawn = 0.0, self._undrawn()
        for frame in range(1, self.repeat + 1):
            if frame == self.repeat:
                obs, reward, terminated, truncated, info = self.env.step(action)
                return obs, total + float(reward), bool(terminated), bool(truncated), info
            with undrawn:
                obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return undrawn.draw(), total, bool(terminated), bool(truncated), info


class _UndrawnCarRacing:
    """While entered, CarRacing's state frames are not drawn. `draw()` makes up for the last one.

    The patch lives only inside the `with`: an env copied or pickled between steps is an unpatched env.
    """

    def __init__(self, base: Any) -> None:
        self._base = base
        self._score: float | None = None

    def __enter__(self) -> None:
        self._patch = self._base.__dict__.get("_render")
        self._original: Callable[[str], Any] = self._base._render
        self._base._render = self._render

    def __exit__(self, *_: object) -> None:
        if self._patch is None:
            del self._base._render
        else:
            self._base._render = self._patch

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels":
            return self._original(mode)
        self._score = self._base.reward
        return self._base.state.copy()  # a copy, since gymnasium's checker warns of arrays handed out twice

    def draw(self) -> np.ndarray[Any, Any]:
        """Draw the frame that was skipped last, as it would have looked: with the score of the moment it was skipped."""
        score, self._base.reward = self._base.reward, self._score
        try:
            self._base.state = self._original("state_pixels")
        finally:
            self._base.reward = score
        return self._base.state  # type: ignore[no-any-return]


def choose_repeat(env: gym.Env[Any, Any], repeat: int, *, skip_render: bool) -> PlainRepeat | NativeRepeat | LastFrameRepeat:
    """The quickest way to repeat actions in `env` that gives the same results."""
    if skip_render and repeat > 1:
        if callable(getattr(type(env), "step_frames", None)):
            return NativeRepeat(env, repeat)
        if _hands_obs_through(env):
            base: Any = env.unwrapped
            if _is_car_racing(base):
                return LastFrameRepeat(env, repeat, partial(_UndrawnCarRacing, base))
            if callable(getattr(type(base), "undrawn", None)):
                return LastFrameRepeat(env, repeat, base.undrawn)
    return PlainRepeat(env, repeat)


def _is_car_racing(base: Any) -> bool:
    # By name, because importing the class would load pygame and Box2D for every other env too.
    return any(kind.__module__ == "gymnasium.envs.box2d.car_racing" and kind.__name__ == "CarRacing" for kind in type(base).__mro__)


def _hands_obs_through(env: gym.Env[Any, Any]) -> bool:
    while isinstance(env, gym.Wrapper):
        if type(env) not in _TRANSPARENT:
            return False
        env = env.env
    return True
