"""Registers the gymnasium ids, without importing torch; loads models when somebody makes an environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym

if TYPE_CHECKING:
    from dreamgym.dreams.env import DreamEnv
    from dreamgym.dreams.vector import DreamVectorEnv

__all__ = ["BUNDLED", "ids", "load_model", "make_dream", "make_dream_vec", "register_all"]

# Bundled models and the real time limit, in agent steps (after action repeat); gymnasium must know it before a model is loaded.
BUNDLED = {"Pendulum": 200, "CartPole": 500, "CarRacing": 250, "CartPoleSwingup": 250, "CartPoleBalance": 250, "DoomTakeCover": 525}

_BUNDLED = "bundled:"  # what model.source says of a bundled model; a folder of that name in the way does not matter then
_models: dict[tuple[str, tuple[int, ...]], Any] = {}


def register_all() -> None:
    """Register `dreamgym/Dream-v0` (model=...) and two ids for each bundled model. Calling it again changes nothing."""
    _register("dreamgym/Dream-v0", None, {})
    for name, steps in BUNDLED.items():
        _register(f"dreamgym/Dream-{name}-v0", steps, {"model": _BUNDLED + name})
        _register(f"dreamgym/Dream-{name}-Latent-v0", steps, {"model": _BUNDLED + name, "obs_type": "latent"})


def ids() -> list[str]:
    """The registered ids."""
    return sorted(name for name in gym.registry if name.startswith("dreamgym/"))


def make_dream(
    model: Any = None,
    obs_type: str | None = None,
    render_mode: str | None = None,
    render_size: int = 256,
    training: bool = False,
    device: str | None = None,
    horizon: int | None = None,
    starts: str | None = None,
    temperature: float | Sequence[float] | None = None,
    max_uncertainty: float | None = None,
    uncertainty_penalty: float | None = None,
    range_guard: bool | None = None,
    hold: str | None = None,
    termination: str | None = None,
    end_probability: float | None = None,
    dropout: float | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> DreamEnv:
    """What gymnasium.make calls: a DreamEnv of what `load_model` finds. Raises ModelLoadError and DreamEnv's errors.

    gymnasium keeps all arguments in env.spec, so a token is better given as HF_TOKEN or by `hf auth login`.
    """
    from dreamgym.dreams.env import DreamEnv

    return DreamEnv(
        load_model(model, revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only),
        obs_type=obs_type,
        render_mode=render_mode,
        render_size=render_size,
        training=training,
        device=device,
        horizon=horizon,
        starts=starts,
        temperature=temperature,
        max_uncertainty=max_uncertainty,
        uncertainty_penalty=uncertainty_penalty,
        range_guard=range_guard,
        hold=hold,
        termination=termination,
        end_probability=end_probability,
        dropout=dropout,
    )


def make_dream_vec(
    model: Any = None,
    num_envs: int = 1,
    obs_type: str | None = None,
    output: str = "numpy",
    training: bool = False,
    device: str | None = None,
    render_mode: str | None = None,
    render_size: int = 256,
    autoreset_mode: Any = "NextStep",
    max_episode_steps: int | None = None,
    horizon: int | None = None,
    starts: str | None = None,
    temperature: float | Sequence[float] | None = None,
    max_uncertainty: float | None = None,
    uncertainty_penalty: float | None = None,
    range_guard: bool | None = None,
    hold: str | None = None,
    termination: str | None = None,
    end_probability: float | None = None,
    dropout: float | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> DreamVectorEnv:
    """What gymnasium.make_vec calls: a DreamVectorEnv of what `load_model` finds, else as `make_dream`."""
    from dreamgym.dreams.vector import DreamVectorEnv

    return DreamVectorEnv(
        load_model(model, revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only),
        num_envs,
        obs_type=obs_type,
        output=output,
        training=training,
        device=device,
        render_mode=render_mode,
        render_size=render_size,
        autoreset_mode=autoreset_mode,
        max_episode_steps=max_episode_steps,
        horizon=horizon,
        starts=starts,
        temperature=temperature,
        max_uncertainty=max_uncertainty,
        uncertainty_penalty=uncertainty_penalty,
        range_guard=range_guard,
        hold=hold,
        termination=termination,
        end_probability=end_probability,
        dropout=dropout,
    )


# gymnasium reads the render modes of a creator before it calls it; with them, render_mode="human" works through its wrapper.
make_dream.metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # type: ignore[attr-defined]
make_dream_vec.metadata = make_dream.metadata  # type: ignore[attr-defined]


def load_model(
    model: Any,
    revision: str | None = None,
    *,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Any:
    """The model of a bundled name, a folder or a repository of the Hub, as WorldModel.from_pretrained finds it; else it is a model itself.

    One model per process and folder or commit, shared by all environments, which only read it; a folder that was written anew, or a branch
    that moved, is loaded anew. Raises ValueError for None or a revision of what has none, and what from_pretrained raises.
    """
    if model is not None and not isinstance(model, (str, os.PathLike)):
        if revision is not None:
            raise ValueError(
                f"revision is {revision!r}, but model is a {type(model).__name__}; only repositories of the Hub have revisions."
            )
        return model
    from dreamgym.hub import bundle, pulling
    from dreamgym.hub.client import Access, Repo

    if model is None:
        names = ", ".join(bundle.bundled_names()) or "none"
        raise ValueError(
            f"model is missing; pass model= a folder written by save_pretrained, user/repo on the Hub, a bundled name ({names}) or a model."
        )
    found, access = bundle.locate(model, revision), Access(token, cache_dir, local_files_only)
    if isinstance(found, Repo):
        snapshot = pulling.fetch_model(found, access)
        name = f"{snapshot.repo_id}@{snapshot.commit} in {cache_dir}"
        return _cached(name, (), lambda: bundle.load_snapshot(snapshot, access))
    if isinstance(found, str):
        return _cached(_BUNDLED + found, (), lambda: bundle.load_bundled(found, access=access))
    try:
        name, written = str(found.resolve()), tuple(sorted(file.lstat().st_mtime_ns for file in found.iterdir()))
    except (OSError, RuntimeError, ValueError):  # no folder, a loop of links, a NUL byte: load will say what is wrong
        return bundle.load(found)
    return _cached(name, written, lambda: bundle.load(found))


def _cached(name: str, written: tuple[int, ...], load: Any) -> Any:
    key = (name, written)
    if key not in _models:
        for stale in [other for other in _models if other[0] == name]:
            del _models[stale]
        _models[key] = load()
    return _models[key]


def _register(env_id: str, max_episode_steps: int | None, kwargs: dict[str, Any]) -> None:
    if env_id in gym.registry:
        return
    gym.register(
        id=env_id,
        entry_point="dreamgym.registration:make_dream",
        vector_entry_point="dreamgym.registration:make_dream_vec",
        max_episode_steps=max_episode_steps,
        kwargs=kwargs,
    )
