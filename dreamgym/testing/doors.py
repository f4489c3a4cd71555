"""Checks of the dreams that a model makes: resets of single rows, environments as others' checkers want them, vectors as single ones."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils.env_checker import check_env

from dreamgym.dreams.engine import DreamEngine
from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.testing.comparison import difference, rows
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import Subject, sampled_actions

__all__ = ["check_environment", "check_resets", "check_vector"]

_ODD = 3  # slots of the vector; other checks use even batches
_STEPS = 5  # dreams are chaotic: rounding grows


def check_resets(subject: Subject) -> Iterator[Fault]:
    """A slot that begins again leaves the others alone, and dreams what a fresh dream of its seed dreams."""
    B, mask = 4, torch.tensor([False, True, False, False], device=subject.device)
    reset, untouched, fresh = (DreamEngine(subject.model, B) for _ in range(3))
    for engine in (reset, untouched):
        engine.reset(seeds=[1, 2, 3, 4])
    _advance(subject, (reset, untouched), "before the reset")
    reset.reset(mask, seeds=[None, 9, None, None])
    fresh.reset(seeds=[1, 9, 3, 4])
    mend = "let TensorStruct do it (where and [] of every field); what a dream remembers must all be in fields [B,...]"
    for step in range(_STEPS):
        for chosen, twin, told_of in ((~mask, untouched, "a slot that goes on not to notice the reset of another"), (mask, fresh, _FRESH)):
            told = difference(rows(reset.state, chosen), rows(twin.state, chosen))
            if told:
                yield Fault(told_of, f"{step} steps after: {told}", mend)
                return
        _advance(subject, (reset, untouched, fresh), f"step {step}")


_FRESH = "a slot that is reset to dream what a fresh dream of its seed dreams"


def _advance(subject: Subject, engines: tuple[DreamEngine, ...], name: str) -> None:
    action = subject.actions(engines[0].num_envs, name)
    for engine in engines:
        engine.step(action)


def check_vector(subject: Subject) -> Iterator[Fault]:
    """Slot i of a vector seeded s dreams what a single dream seeded s + i dreams."""
    rng, space = subject.generator("vector"), subject.spec.action_space
    vector = DreamVectorEnv(subject.model, _ODD, obs_type="latent", autoreset_mode="Disabled")
    singles = [DreamEnv(subject.model, obs_type="latent") for _ in range(_ODD)]
    mend = "compute each row from its own row for every B, odd ones too; compare step for B = 1 and B = 3"
    together = vector.reset(seed=subject.seed)[0]
    alone: list[Any] = [env.reset(seed=subject.seed + slot)[0] for slot, env in enumerate(singles)]
    for step in range(_STEPS + 1):
        told = difference(torch.from_numpy(together), torch.from_numpy(np.stack(alone)))
        if told:
            yield Fault(f"a vector of {_ODD} to dream what single dreams of the same seeds dream", f"features at step {step}: {told}", mend)
            return
        actions = sampled_actions(space, _ODD, rng)
        together, reward, terminated, truncated, _ = vector.step(actions)
        results = [env.step(action) for env, action in zip(singles, actions)]
        alone = [result[0] for result in results]
        told = difference(torch.from_numpy(reward), torch.tensor([result[1] for result in results], dtype=torch.float64))
        if told:
            yield Fault(f"a vector of {_ODD} to pay what single dreams of the same seeds pay", f"at step {step + 1}: {told}", mend)
            return
        if (terminated | truncated).any():
            return


def check_environment(subject: Subject) -> Iterator[Fault]:
    """gymnasium's checker has nothing to say about a dream of this model, nor has Stable-Baselines3's where it is installed.

    What they would say of any environment with these spaces is left out: a dream keeps the spaces of the real world.
    """
    kinds = ["latent"] if not hasattr(subject.model, "decode") else [None, "latent"]
    for kind in kinds:
        env = DreamEnv(subject.model, obs_type=kind)
        for name, checker in _checkers().items():
            usual = _said(checker, _Standin(env))
            for told in _said(checker, DreamEnv(subject.model, obs_type=kind)):
                if told not in usual:
                    mend = f"run the checker on DreamEnv(model, obs_type={kind!r}) for the whole story"
                    yield Fault(f"{name} to have nothing to say about a dream with obs_type {env.obs_type!r}", told, mend)


def _checkers() -> dict[str, Callable[[Any], None]]:
    found: dict[str, Callable[[Any], None]] = {"gymnasium's checker": lambda env: check_env(env, skip_render_check=True)}
    if importlib.util.find_spec("stable_baselines3") is not None:
        from stable_baselines3.common.env_checker import check_env as sb3_check_env

        found["Stable-Baselines3's checker"] = lambda env: sb3_check_env(env, skip_render_check=True)
    return found


def _said(checker: Callable[[Any], None], env: gym.Env[Any, Any]) -> list[str]:
    """What a checker warns of and complains about."""
    with warnings.catch_warnings(record=True) as caught, torch.inference_mode(False):
        warnings.simplefilter("always")
        try:
            checker(env)
        except Exception as error:  # whatever it raises is its complaint
            caught_error = [f"{type(error).__name__}: {error}"]
        else:
            caught_error = []
    advice = [warning for warning in caught if not issubclass(warning.category, (DeprecationWarning, FutureWarning))]
    return list(dict.fromkeys([*(str(warning.message) for warning in advice), *caught_error]))


class _Standin(gym.Env[Any, Any]):
    """An environment without faults that has the given one's spaces."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.observation_space, self.action_space = copy.deepcopy(env.observation_space), copy.deepcopy(env.action_space)
        self.metadata = env.metadata
        self.observation_space.seed(0)
        self._obs = self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return copy.deepcopy(self._obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return copy.deepcopy(self._obs), 0.0, False, False, {}
