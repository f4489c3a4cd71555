"""DeepMind Control Suite as plain gymnasium envs whose ids alone say what is seen, so that a Spec can rebuild them."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from dreamgym.errors import MissingDependencyError, require

__all__ = [
    "PLANET_ACTION_REPEAT",
    "DMControlEnv",
    "choose_renderer",
    "dm_control_spec",
    "planet_action_repeat",
    "register_dm_control",
]

# Hafner et al. 2019 (PlaNet), arXiv 1811.04551; cartpole-balance from its version 3.
PLANET_ACTION_REPEAT: Mapping[str, int] = MappingProxyType(
    {
        "ball_in_cup-catch": 4,
        "cartpole-balance": 8,
        "cartpole-swingup": 8,
        "cheetah-run": 4,
        "finger-spin": 2,
        "reacher-easy": 4,
        "walker-walk": 2,
    }
)

_PREFIX = "dm_control/"
_VARIANTS = {"": "state", "-pixels": "pixels", "-dict": "dict"}
_MAX_STEPS = 1000  # control steps; what the suite's own time limits come to, except lqr's, which is infinite
_PIXELS = (64, 64)
_CAMERA = {"quadruped": 2}  # as in the suite wrapper of danijar/dreamer; 0 elsewhere
_EGL, _OSMESA = ("libEGL.so.1",), ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")

_UNLIMITED = 10.0  # for actuators without bounds (lqr's); its optimal policy uses up to 5.3, by dm_control's lqr_solver

Pixels = NDArray[np.uint8]

_drawn_by: int | None = None  # the process that drew first: OpenGL does not survive a fork


def planet_action_repeat(env_id: str) -> int:
    """PlaNet's action repeat of a dm_control id, whichever its variant; 2, Dreamer's for all tasks, where PlaNet has none."""
    for task, repeat in PLANET_ACTION_REPEAT.items():
        if env_id.startswith(f"{_PREFIX}{task}-"):
            return repeat
    return 2


def dm_control_spec(env_id: str) -> EnvSpec:
    """Our gymnasium spec of a dm_control id, also where another package (shimmy) has registered the same id before us.

    `<domain>-<task>-v0` shows the task's observations as one float32 vector, in the task's order; `<domain>-<task>-pixels-v0` a
    picture [64,64,3]; `<domain>-<task>-dict-v0` both, as "state" and "pixels". Raises MissingDependencyError without dm_control,
    gymnasium's NameNotFound for an id that the suite has not.
    """
    require("dm_control", extra="dmc", purpose=env_id)
    register_dm_control()
    found = gym.spec(env_id)
    return _suite_specs().get(found.id, found)


def register_dm_control() -> None:
    """Give gymnasium an id for every task and variant of the suite, leaving alone the ids that are taken. Needs dm_control."""
    for env_id, spec in _suite_specs().items():
        gym.registry.setdefault(env_id, spec)


@lru_cache(1)
def _suite_specs() -> dict[str, EnvSpec]:
    specs = {}
    for domain, task in _suite().ALL_TASKS:
        for suffix, obs in _VARIANTS.items():
            env_id = f"{_PREFIX}{domain}-{task}{suffix}-v0"
            kwargs = {"domain": domain, "task": task, "obs": obs}
            specs[env_id] = EnvSpec(
                env_id, entry_point="dreamgym.envs.dm_control:DMControlEnv", max_episode_steps=_MAX_STEPS, kwargs=kwargs
            )
    return specs


def choose_renderer() -> bool:
    """Let MuJoCo draw where there is no display: sets MUJOCO_GL to egl, else osmesa, unless it is set or a display is there.

    Must come before the first import of mujoco or dm_control, which read it once. True if it chose.
    """
    if "MUJOCO_GL" in os.environ or not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return False
    for name, libraries in (("egl", _EGL), ("osmesa", _OSMESA)):
        if any(_loads(library) for library in libraries):
            os.environ["MUJOCO_GL"] = name
            return True
    os.environ["MUJOCO_GL"] = "disabled"
    return True


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _suite() -> Any:
    chosen = choose_renderer()
    require("dm_control", extra="dmc", purpose="dm_control")
    try:
        return importlib.import_module("dm_control.suite")
    except ImportError:
        if not chosen:
            raise
        os.environ["MUJOCO_GL"] = "disabled"  # the library is there but no device: physics works all the same
        return importlib.import_module("dm_control.suite")


class DMControlEnv(gym.Env[Any, Any]):
    """One task of the suite. One step is one control step; the task's own time limit is off, gymnasium's TimeLimit has it.

    Terminated means that the task says so with discount 0 (lqr alone does). Pictures, 64 x 64 by the camera Dreamer used, are drawn
    without shadows and multisampling, 8 times faster; films (`render()`) of the state variant are drawn with both. Episodes depend
    on reset's seed alone. A pickled or copied env is a fresh one that wants a reset; after close(), reset() opens it again.
    Raises ValueError for unknown words, MissingDependencyError if dm_control is missing or does not fit the mujoco installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 - gymnasium's convention

    def __init__(
        self,
        domain: str,
        task: str,
        obs: Literal["state", "pixels", "dict"] = "state",
        render_mode: str | None = None,
        render_size: tuple[int, int] = (240, 320),
    ) -> None:
        if obs not in _VARIANTS.values():
            raise ValueError(f"obs is {obs!r}; expected one of {', '.join(_VARIANTS.values())}.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; expected None or 'rgb_array'.")
        self._settings: dict[str, Any] = {"domain": domain, "task": task, "obs": obs, "render_mode": render_mode}
        self._settings["render_size"] = tuple(render_size)
        self._obs, self.render_mode, self._render_size = obs, render_mode, tuple(render_size)
        self._camera = _CAMERA.get(domain, 0)
        self._draws, self._picture = True, np.zeros((*_PIXELS, 3), np.uint8)
        self._playing = False
        self._loaded: Any = None
        self._cameras: dict[tuple[int, ...], Any] = {}  # by size [Y,X]
        world = self._world()
        self.metadata = {**type(self).metadata, "render_fps": round(1.0 / world.control_timestep(), 3)}
        actions = world.action_spec()
        unlimited = actions.maximum > 1e9
        self._low, self._high = np.where(unlimited, -_UNLIMITED, actions.minimum), np.where(unlimited, _UNLIMITED, actions.maximum)
        self.action_space = spaces.Box(self._low.astype(np.float32), self._high.astype(np.float32), dtype=np.float32)
        self.observation_space = self._space(world)

    def _space(self, world: Any) -> spaces.Space[Any]:
        size = sum(int(np.prod(entry.shape)) for entry in world.observation_spec().values())
        state = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        pixels = spaces.Box(0, 255, (*_PIXELS, 3), np.uint8)
        choices: dict[str, spaces.Space[Any]] = {
            "state": state,
            "pixels": pixels,
            "dict": spaces.Dict({"pixels": pixels, "state": state}),
        }
        return choices[self._obs]

    def _world(self) -> Any:
        """The suite's own env, loaded when first asked for and after close()."""
        if self._loaded is None:
            self._loaded = _load(self._settings["domain"], self._settings["task"])
            if self._obs != "state":
                quality = self._loaded.physics.model.vis.quality
                quality.shadowsize, quality.offsamples = 0, 0  # read once, when the first picture is drawn
        return self._loaded

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        world = self._world()
        world.task.random.seed(int(self.np_random.integers(2**32)))
        self._playing = True
        return self._see(world.reset().observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One control step. Finite actions are clipped to the bounds. Raises InvalidAction, or ResetNeeded outside an episode."""
        if not self._playing:
            raise ResetNeeded("step() was called outside an episode; call reset() first.")
        arrived = self._world().step(self._checked(action))
        ended = bool(arrived.last())
        self._playing = not ended
        terminated = ended and arrived.discount == 0.0
        return self._see(arrived.observation), float(arrived.reward), terminated, ended and not terminated, {}

    def _checked(self, action: Any) -> NDArray[np.float64]:
        array = np.asarray(action, np.float64)
        if array.shape != self._low.shape or not np.isfinite(array).all():
            raise InvalidAction(f"action is {action!r}; expected {self._low.shape[0]} finite numbers.")
        return np.minimum(np.maximum(array, self._low), self._high)  # a third of np.clip's time

    def _see(self, observation: Mapping[str, Any]) -> Any:
        if self._obs == "pixels":
            return self._pixels()
        state = np.concatenate([np.ravel(value) for value in observation.values()], dtype=np.float32, casting="unsafe")
        return state if self._obs == "state" else {"pixels": self._pixels(), "state": state}

    def _pixels(self) -> Pixels:
        if self._draws:
            self._picture = self._draw(_PIXELS)
        return self._picture.copy()

    def _draw(self, size: tuple[int, ...]) -> Pixels:
        if os.environ.get("MUJOCO_GL") == "disabled":
            raise MissingDependencyError(
                "drawing dm_control needs EGL or OSMesa; on Debian: apt-get install libegl1 libgl1-mesa-dri libopengl0"
            )
        global _drawn_by
        _drawn_by = _drawn_by or os.getpid()
        if _drawn_by != os.getpid():  # it would hang
            raise RuntimeError(
                "this process was forked from one that had drawn, and OpenGL does not survive that; "
                'use AsyncVectorEnv(..., context="spawn") or "forkserver", or draw nothing before.'
            )
        if size not in self._cameras:  # one camera for all frames is 2.3 times faster than physics.render, which builds one for each
            engine = importlib.import_module("dm_control.mujoco.engine")
            _awaken_display()
            self._cameras[size] = engine.Camera(self._world().physics, *size, camera_id=self._camera)
        return np.ascontiguousarray(self._cameras[size].render())

    def render(self) -> Any:
        """A picture [Y,X,3] uint8 of `render_size`; None without render_mode."""
        if self.render_mode is None:
            gym.logger.warn('render() was called without a render_mode; make the env with render_mode="rgb_array".')
            return None
        return self._draw(self._render_size)

    def undrawn(self) -> Undrawn:
        """For repeated actions: while it is entered, step() draws nothing."""
        return Undrawn(self)

    def close(self) -> None:
        """Free physics and graphics."""
        if self._loaded is not None:
            self._cameras.clear()
            self._loaded.physics.free()
            self._loaded, self._playing = None, False

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings, "spec": self.spec, "np_random": self._np_random, "np_random_seed": self._np_random_seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["settings"])  # type: ignore[misc]
        self.spec, self._np_random, self._np_random_seed = state["spec"], state["np_random"], state["np_random_seed"]


class Undrawn:
    """While entered, steps hand out the picture drawn last. `draw()` gives the observation of now, with its picture."""

    def __init__(self, env: DMControlEnv) -> None:
        self._env = env

    def __enter__(self) -> None:
        self._env._draws = False

    def __exit__(self, *_: object) -> None:
        self._env._draws = True

    def draw(self) -> Any:
        """The observation of now."""
        world = self._env._world()
        return self._env._see(world.task.get_observation(world.physics))


def _load(domain: str, task: str) -> Any:
    suite = _suite()
    if (domain, task) not in suite.ALL_TASKS:
        raise ValueError(f"the suite has no task {domain}-{task}; it has {', '.join('-'.join(pair) for pair in suite.ALL_TASKS)}.")
    try:
        # random=0 because lqr draws its very body from it: every env of an id must be the same world. Episodes are seeded by reset.
        return suite.load(domain, task, task_kwargs={"random": 0, "time_limit": float("inf")})
    except AttributeError as error:  # dm_control 1.0.50 with mujoco 4: no attribute 'flex_vertedge'; pip lets them meet
        raise MissingDependencyError(f'dm_control does not fit the mujoco installed ({error}): pip install "mujoco>=3.17,<4"') from error


def _awaken_display() -> None:
    """Initialise EGL once more: where there is no screen, a pygame window that closes ends it for the whole process."""
    renderer = sys.modules.get("dm_control._render.pyopengl.egl_renderer")
    if renderer is not None:
        renderer.EGL.eglInitialize(renderer.EGL_DISPLAY, None, None)  # changes nothing where it is awake
