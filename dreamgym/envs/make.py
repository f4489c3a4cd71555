"""Make real envs by id, with the preprocessing their models expect, and write down what they look like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from dreamgym.envs.atari import make_atari
from dreamgym.envs.dm_control import choose_renderer, dm_control_spec
from dreamgym.envs.preprocess import applied, preprocess
from dreamgym.envs.take_cover import make_take_cover
from dreamgym.errors import require
from dreamgym.structs import Preprocess, Spec

__all__ = ["DEFAULT_PREPROCESS", "default_preprocess", "make_env", "make_from_spec", "make_spec"]

_preprocess = preprocess  # make_env's keyword bears the same name

_TAKE_COVER = "VizdoomTakeCover-v1"
_ATARI, _DM_CONTROL = "ALE/", "dm_control/"

DEFAULT_PREPROCESS: Mapping[str, Preprocess] = MappingProxyType(
    {
        # The mask hides the score, which is drawn into the image and would leak the return.
        "CarRacing-v3": Preprocess(size=64, masks=((84, 96, 0, 11),), action_repeat=4, merge_pedals=True, success_truncates=True),
        # The 64 rows at the horizon show fireballs twice as high as the whole screen would.
        _TAKE_COVER: Preprocess(size=64, crop=(28, 92, 0, 160), action_repeat=4),
        # Whole namespaces. Dreamer V1 and V2 repeat 2 in every task of the suite; PlaNet's own numbers are PLANET_ACTION_REPEAT.
        _DM_CONTROL: Preprocess(action_repeat=2),
        _ATARI: Preprocess(size=64, grey=True, action_repeat=4),
    }
)

# Packages that register their ids on import, and gymnasium's own families that need a package: (module, extra).
_REGISTERED_BY = {"Vizdoom": ("vizdoom.gymnasium_wrapper", "doom"), _ATARI: ("ale_py", "atari")}
_FAMILY_NEEDS = {"gymnasium.envs.box2d": ("Box2D", "car-racing"), "gymnasium.envs.mujoco": ("mujoco", "dmc")}


def make_env(env_id: str, *, preprocess: Preprocess | None = None, render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make any gymnasium env, preprocessed as given or, by default, as `default_preprocess` says for its id.

    Keywords go to gym.make; max_episode_steps counts frames. For TakeCover `frame_skip` is another word for action_repeat.
    `dm_control/` ids need no registering; see `dm_control_spec` for what they show. `ALE/` ids get `make_atari`'s protocol.
    Raises ValueError for an id that would import a module ("module:id"): ids also come with models from strangers;
    MissingDependencyError, naming the extra, if a package is missing; gymnasium's NameNotFound for an unknown id.
    """
    registered = _find(env_id)
    if render_mode is not None:
        kwargs["render_mode"] = render_mode  # an env that draws nothing need not know the word
    settings = preprocess if preprocess is not None else default_preprocess(registered.id)
    if env_id == _TAKE_COVER and "frame_skip" in kwargs:
        settings = _with_frame_skip(settings, kwargs.pop("frame_skip"), fixed=preprocess is not None)
    if env_id == _TAKE_COVER:
        env: gym.Env[Any, Any] = make_take_cover(env_id, **kwargs)
    elif env_id.startswith(_ATARI):
        env = make_atari(env_id, grey=settings.grey, **kwargs)
    else:
        env = gym.make(registered, **kwargs)
    try:
        if preprocess is None and isinstance(env.action_space, spaces.Discrete):
            settings = replace(settings, merge_pedals=False)  # CarRacing(continuous=False) has one pedal at a time anyway
        return _preprocess(env, settings)
    except BaseException:
        env.close()  # ViZDoom would leave its engine running
        raise


def default_preprocess(env_id: str) -> Preprocess:
    """DEFAULT_PREPROCESS of an id, else of the namespace it begins with, else none; a preset may `replace` fields of it."""
    namespace = env_id[: env_id.find("/") + 1]
    return DEFAULT_PREPROCESS.get(env_id) or DEFAULT_PREPROCESS.get(namespace) or Preprocess()


def make_from_spec(spec: Spec, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make the env that a Spec describes, preprocessed and with the Spec's time limit, whichever its id was registered with.

    Raises what make_env raises.
    """
    repeat, registered = spec.preprocess.action_repeat, _find(spec.env_id).max_episode_steps
    fits = registered is not None and math.ceil(registered / repeat) == spec.max_episode_steps
    limit = {} if fits else {"max_episode_steps": spec.max_episode_steps * repeat}
    return make_env(spec.env_id, preprocess=spec.preprocess, render_mode=render_mode, **limit)


def make_spec(env: gym.Env[Any, Any], env_id: str, preprocess: Preprocess | None = None) -> Spec:
    """Describe an env made by `make_env`; its time limit in agent steps, its speed in agent steps per second.

    Raises ValueError if the env has no time limit or was not preprocessed as `preprocess` says (None: as it was),
    TypeError for observation or action spaces that models cannot use.
    """
    done = applied(env)
    settings = preprocess if preprocess is not None else done or Preprocess()
    if done is None:
        done = applied(_preprocess(env, Preprocess()))  # also refuses spaces that models cannot use
    if done != settings:
        raise ValueError(f"env was preprocessed with {done}, expected {settings}; make it with make_env(id, preprocess=...).")
    limit = env.spec.max_episode_steps if env.spec is not None else None
    if limit is None or limit < 1:
        raise ValueError(
            f"{env_id} has no time limit, but a dream needs one; register it with max_episode_steps=... (in frames), "
            "or pass max_episode_steps to make_env (env_kwargs of fit)."
        )
    spec = Spec(
        env_id=env_id,
        observation_space=env.observation_space,
        action_space=env.action_space,
        max_episode_steps=math.ceil(limit / settings.action_repeat),
        fps=float(env.metadata.get("render_fps") or 30) / settings.action_repeat,
        preprocess=settings,
    )
    spec.to_model_action(spec.to_env_action(torch.zeros(spec.action_size)))  # raises on spaces that models cannot use
    return spec


def _with_frame_skip(settings: Preprocess, frame_skip: int, *, fixed: bool) -> Preprocess:
    if fixed and settings.action_repeat != frame_skip:
        raise ValueError(f"frame_skip is {frame_skip} but action_repeat is {settings.action_repeat}; pass one of them.")
    return replace(settings, action_repeat=frame_skip)


def _find(env_id: str) -> EnvSpec:
    """What an id stands for. Refuses what would import a module, names the packages that are missing, registers what they bring."""
    if ":" in env_id:
        raise ValueError(f"env id {env_id!r} would import a module; import it yourself, then pass {env_id.split(':')[-1]!r}.")
    if env_id.startswith(_DM_CONTROL):
        return dm_control_spec(env_id)
    for prefix, (module, extra) in _REGISTERED_BY.items():
        if env_id.startswith(prefix):
            gym.register_envs(require(module, extra=extra, purpose=env_id))
    found = gym.spec(env_id)
    for family, (module, extra) in _FAMILY_NEEDS.items():
        if isinstance(found.entry_point, str) and found.entry_point.startswith(family):
            if module == "mujoco":
                choose_renderer()
            require(module, extra=extra, purpose=env_id)
    return found
