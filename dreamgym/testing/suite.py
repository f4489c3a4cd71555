"""All checks in the order in which they build on each other, and what runs them: no fault of a model stops its examination."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreamgym.formats.strict_json import escape
from dreamgym.registration import load_model
from dreamgym.testing import answers, awake, copies, doors, members, purity, randomness, reality, rollouts, states
from dreamgym.testing.report import Fault, Finding, Report
from dreamgym.testing.subject import NotApplicable, Subject

__all__ = ["CHECKS", "Check", "assert_world_model", "check_world_model"]


@dataclass(frozen=True)
class Check:
    """A named check, and the names of those without which it says nothing."""

    name: str
    look: Callable[[Subject], Iterator[Fault]]
    needs: tuple[str, ...] = ()


_SHAPES = ("step", "prediction", "features")
_PURE = ("generators", "mutation", "determinism", "batches")

# A check that needs another is not made where that one failed, so that one fault is told of once.
CHECKS = (
    Check("members", members.check_members),
    Check("spec", members.check_spec, ("members",)),
    Check("state", states.check_state, ("spec",)),
    Check("initial", states.check_initial, ("state",)),
    Check("step", states.check_step, ("initial",)),
    Check("actions", states.check_actions, ("step",)),
    Check("prediction", answers.check_prediction, ("step",)),
    Check("outcome", answers.check_outcome, ("prediction",)),
    Check("features", answers.check_features, ("step",)),
    Check("feature bounds", members.check_feature_bounds, ("features",)),
    Check("decode", answers.check_decode, ("step",)),
    Check("in_range", answers.check_in_range, ("step",)),
    Check("observe", states.check_observe, ("step",)),
    Check("starts", states.check_starts, ("initial",)),
    Check("defaults", members.check_defaults, ("step", "starts")),
    Check("generators", purity.check_generators, _SHAPES),
    Check("mutation", purity.check_mutation, ("generators",)),
    Check("determinism", purity.check_determinism, ("mutation",)),
    Check("batches", purity.check_batches, ("determinism",)),
    Check("noise lanes", randomness.check_noise_lanes, _PURE),
    Check("temperature", randomness.check_temperature, _PURE),
    Check("mean noise", randomness.check_mean_noise, ("noise lanes", "temperature")),
    Check("first rows", awake.check_first_rows, ("observe", *_PURE)),
    Check("neighbours", awake.check_neighbours, ("first rows",)),
    Check("context", awake.check_context, ("neighbours", "defaults")),
    Check("alignment", awake.check_alignment, ("context", "decode", "temperature", "feature bounds")),
    Check("reality", reality.check_reality, ("alignment",)),
    Check("resets", doors.check_resets, ("defaults", *_PURE)),
    Check("finite", rollouts.check_finite, ("resets", *_SHAPES)),
    Check("prediction range", rollouts.check_prediction_range, ("finite",)),
    Check("feature range", rollouts.check_feature_range, ("finite", "feature bounds")),
    Check("decoded values", rollouts.check_decoded_values, ("finite", "decode")),
    Check("pickling", copies.check_pickle, _PURE),
    Check("copying", copies.check_deepcopy, _PURE),
    Check("device", copies.check_device, ("copying",)),
    Check("vectors", doors.check_vector, ("finite", "feature bounds")),
    Check("environment", doors.check_environment, ("vectors", "prediction range", "decoded values", "copying")),
)


def check_world_model(
    model_or_repo: Any, *, seed: int = 0, steps: int = 200, real_env: Any = None, skip: Collection[str] = (), **loading: Any
) -> Report:
    """Examine a model, anybody's, and tell what breaks the contract of docs/concepts.md.

    model_or_repo: an object with `spec, noise_lanes, initial, step, predict, features`, or what `gym.make(..., model=)` takes: a bundled
    name, a folder, a repository of the Hub; loading: revision, token, cache_dir and local_files_only for the latter. steps: how long it
    is dreamt, in steps. real_env: the real environment, as dreamgym.make_env(spec.env_id, preprocess=spec.preprocess) makes it, to judge
    the alignment of a trained model by; it is stepped, and left open. skip: names of checks that are not to be made. The model is not
    changed, nor are the global random generators.
    Returns a Report. What a model raises is a finding; only loading it raises (ModelLoadError), as do unknown names and steps below 1
    (ValueError).
    """
    unknown = set(skip) - {check.name for check in CHECKS}
    if unknown or isinstance(skip, str):
        raise ValueError(f"skip is {skip!r}; expected a collection of names from {[check.name for check in CHECKS]}.")
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1.")
    model = load_model(model_or_repo, **loading)
    examination = _Examination(Subject(model, seed=seed, steps=steps, real_env=real_env), frozenset(skip))
    with purity.generators_kept():
        for check in CHECKS:
            examination.make(check)
    return examination.report(_name_of(model))


def assert_world_model(model_or_repo: Any, **options: Any) -> None:
    """`check_world_model` for a test: raises AssertionError with all findings."""
    check_world_model(model_or_repo, **options).raise_for_findings()


class _Examination:
    """Makes the checks one after another and remembers what came of each."""

    def __init__(self, subject: Subject, skip: Collection[str]) -> None:
        self.subject = subject
        self.skip = skip
        self.findings: list[Finding] = []
        self.not_made: dict[str, str] = {}
        self.roots: dict[str, str] = {}  # which failed check keeps a check from being made; itself where it failed

    def make(self, check: Check) -> None:
        """One check: its findings, or that it passed, or why it was not made."""
        root = next((self.roots[name] for name in check.needs if name in self.roots), None)
        if check.name in self.skip:
            self.not_made[check.name] = "left out by skip"
        elif root is not None:
            self.roots[check.name] = root
            self.not_made[check.name] = f"it builds on {root}"
        else:
            self._look(check)

    def report(self, name: str) -> Report:
        """What came of it."""
        order = tuple(check.name for check in CHECKS)
        return Report(name, tuple(self.findings), tuple(self.subject.passed), self.not_made, order)

    def _look(self, check: Check) -> None:
        found: list[Fault] = []
        try:
            with torch.inference_mode():  # as dreams are
                for fault in check.look(self.subject):
                    found.append(fault)
        except NotApplicable as reason:
            self.not_made[check.name] = str(reason)
            return
        except Exception as error:  # the model's own, whatever it is: it is what the author wants to hear of
            found.append(_crash(error))
        self.findings += [Finding(check.name, fault.expected, fault.found, fault.mend) for fault in found]
        if found:
            self.roots[check.name] = check.name
        else:
            self.subject.passed.append(check.name)


def _crash(error: Exception) -> Fault:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    frames = frames or list(traceback.extract_tb(error.__traceback__))
    where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return Fault(
        "no exception", f"{type(error).__name__}: {escape(str(error))}{where}", "make the call work that raised it, with these shapes"
    )


_PACKAGE = Path(__file__).resolve().parent.parent


def _is_library(file: str) -> bool:
    path = Path(file)
    return "site-packages" in path.parts or file.startswith("<") or path.resolve().is_relative_to(_PACKAGE / "testing")


def _name_of(model: Any) -> str:
    try:
        env_id = model.spec.env_id
    except Exception:  # a model that is not one; the checks will say so
        env_id = None
    return type(model).__name__ + (f" of {escape(env_id)}" if isinstance(env_id, str) else "")
