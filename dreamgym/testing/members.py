"""Checks of what a model says of itself: which members it has, what its Spec describes, the bounds and defaults it declares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from dreamgym.dreams.engine import DreamEngine
from dreamgym.structs import DreamDefaults, Preprocess, Spec, StartBank
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import NotApplicable, Subject, sampled_actions

__all__ = ["check_defaults", "check_feature_bounds", "check_members", "check_spec"]

_METHODS = ("initial", "step", "predict", "features")
_OPTIONAL_METHODS = ("decode", "observe", "in_range", "outcome", "with_dropout")


def check_members(subject: Subject) -> Iterator[Fault]:
    """What the contract names is there and of the right type."""
    model = subject.model
    if isinstance(model, type):
        yield Fault("a model", f"the class {model.__name__}", f"pass an instance: {model.__name__}(...)")
        return
    for name in ("spec", "noise_lanes", *_METHODS):
        if not hasattr(model, name):
            yield Fault(
                f"an attribute {name}", f"a {type(model).__name__} without", f"give the model {name}; see dreamgym.structs.DreamableModel"
            )
    for name in (*_METHODS, *_OPTIONAL_METHODS):
        if hasattr(model, name) and not callable(getattr(model, name)):
            yield Fault(f"{name} to be a method", _kind(getattr(model, name)), f"define {name} as a method, or remove the attribute")
    if hasattr(model, "spec") and not isinstance(model.spec, Spec):
        yield Fault(
            "spec to be a dreamgym.Spec", _kind(model.spec), "build one: Spec(env_id, observation_space, action_space, max_episode_steps)"
        )
    yield from _numbers(model)
    if hasattr(model, "defaults") and not isinstance(model.defaults, DreamDefaults):
        yield Fault("defaults to be DreamDefaults", _kind(model.defaults), "pass dreamgym.DreamDefaults(...), or leave defaults out")
    bank = getattr(model, "initial_states", None)
    if bank is not None and not isinstance(bank, StartBank):
        yield Fault("initial_states to be a StartBank or None", _kind(bank), "wrap it: dreamgym.structs.StartBank(state, is_first)")


def _numbers(model: Any) -> Iterator[Fault]:
    lanes = getattr(model, "noise_lanes", 0)
    if not _is_count(lanes):
        yield Fault("noise_lanes to be a whole number of at least 0", repr(lanes), "say how many uniforms a step consumes, as an int")
        return
    held = getattr(model, "episode_lanes", 0)
    if not _is_count(held) or held > lanes:
        yield Fault(
            f"episode_lanes to be a whole number from 0 to noise_lanes ({lanes})",
            repr(held),
            "count only the first lanes, those to be held",
        )
    low = getattr(model, "reward_low", 0.0)
    if not isinstance(low, (int, float, np.floating)) or not math.isfinite(low):
        yield Fault("reward_low to be a finite number", repr(low), "give the lowest reward of the training data as a float")


def check_spec(subject: Subject) -> Iterator[Fault]:
    """The spaces can be dreamt, and time is measured in steps."""
    spec = subject.spec
    if not isinstance(spec.env_id, str) or not spec.env_id:
        yield Fault("spec.env_id to be a name", repr(spec.env_id), "name the environment that is dreamt, such as 'Pendulum-v1'")
    if isinstance(spec.max_episode_steps, bool) or not isinstance(spec.max_episode_steps, (int, np.integer)):
        yield Fault("spec.max_episode_steps to be a whole number", repr(spec.max_episode_steps), "give the real time limit in agent steps")
    if isinstance(spec.fps, bool) or not isinstance(spec.fps, (int, float)) or not math.isfinite(spec.fps):
        yield Fault("spec.fps to be a finite number", repr(spec.fps), "give the agent steps per second")
    if not isinstance(spec.preprocess, Preprocess):
        yield Fault("spec.preprocess to be a Preprocess", _kind(spec.preprocess), "leave it out where nothing is preprocessed")
    space = spec.observation_space
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation_space": space}
    for name, part in parts.items():
        known = isinstance(part, (spaces.Box, spaces.Discrete)) if isinstance(space, spaces.Dict) else isinstance(part, spaces.Box)
        if not known or 0 in (part.shape or ()):
            yield Fault(
                "a Box, or a Dict of Box and Discrete",
                f"{name}: {part}",
                "flatten it: gymnasium.wrappers.FlattenObservation around the real env",
            )
    yield from _actions(spec)


def _actions(spec: Spec) -> Iterator[Fault]:
    space = spec.action_space
    mend = "wrap the real env so that its actions are Discrete, MultiDiscrete or a bounded Box, as RescaleAction does"
    try:
        spec.action_size  # noqa: B018 - raises TypeError for spaces that no model can take
        spec.to_model_action(torch.from_numpy(np.asarray(sampled_actions(space, 2, np.random.default_rng(0)))))
    except (TypeError, OverflowError, AssertionError) as error:
        yield Fault("an action space that can be turned into model actions", f"{space} ({error})", mend)


def check_feature_bounds(subject: Subject) -> Iterator[Fault]:
    """feature_low and feature_high are what a latent observation space can be made of."""
    model = subject.model
    given = [name for name in ("feature_low", "feature_high") if hasattr(model, name)]
    if not given:
        raise NotApplicable("the model declares no feature_low and feature_high")
    if len(given) == 1:
        yield Fault("both feature_low and feature_high, or neither", f"{given[0]} alone", "declare the other, for one alone is ignored")
        return
    size = int(model.features(subject.initial(1)).shape[-1])
    low, high = (np.asarray(getattr(model, name), np.float32) for name in given)
    for name, bound in zip(given, (low, high)):
        if bound.shape != (size,) or not np.isfinite(bound).all():
            mend = f"give one finite number for each of the {size} features, as a NumPy array"
            yield Fault(f"{name} to be [{size}] and finite", f"shape {list(bound.shape)}, from {bound.min()} to {bound.max()}", mend)
            return
    if not (low < high).all():
        bad = int(np.flatnonzero(~(low < high))[0])
        yield Fault(
            "feature_low below feature_high",
            f"{low[bad]} and {high[bad]} of feature {bad}",
            "widen the bounds; a constant feature may have any",
        )


def check_defaults(subject: Subject) -> Iterator[Fault]:
    """What the model's defaults ask for can be had: a dream with them begins, for training and otherwise."""
    for training in (False, True):
        try:
            DreamEngine(subject.model, 2, training=training).reset(seeds=[0, 1])
        except (ValueError, TypeError) as error:
            mend = "change model.defaults, or give the model what they need (in_range and reward_low for guards, with_dropout)"
            yield Fault(f"a dream with the model's own defaults (training={training})", str(error), mend)
            return


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
