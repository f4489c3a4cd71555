"""Checks of copies: pickled, deep-copied and moved to another device, a model answers as it did."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import torch

from dreamgym.testing.comparison import difference, named_tensors
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import Inputs, NotApplicable, Subject

__all__ = ["check_deepcopy", "check_device", "check_pickle"]


def check_pickle(subject: Subject) -> Iterator[Fault]:
    """A pickled model answers alike: environments in worker processes are sent it."""
    mend = "define classes and functions at a module's top level, and drop what cannot be pickled (locks, lambdas) in __getstate__"
    with torch.inference_mode(False):
        try:
            twin = pickle.loads(pickle.dumps(subject.model))
        except Exception as error:  # pickling runs the author's code, which may raise anything
            yield Fault("a model that can be pickled", f"{type(error).__name__}: {error}", mend)
            return
    yield from _alike(subject, twin, "a pickled model", mend)


def check_deepcopy(subject: Subject) -> Iterator[Fault]:
    """A copied model answers alike: a dream on another device works on a copy."""
    mend = "let copy.deepcopy do its default, or copy every attribute in __deepcopy__"
    with torch.inference_mode(False):
        try:
            twin = copy.deepcopy(subject.model)
        except Exception as error:  # copying runs the author's code, which may raise anything
            yield Fault("a model that can be deep-copied", f"{type(error).__name__}: {error}", mend)
            return
    yield from _alike(subject, twin, "a deep-copied model", mend)


def check_device(subject: Subject) -> Iterator[Fault]:
    """model.to(device) takes everything along that a step needs. Tried with PyTorch's "meta" device, which every machine has."""
    if not hasattr(subject.model, "to"):
        raise NotApplicable("the model has no to(device), so it dreams where it is")
    with torch.inference_mode(False):
        twin = copy.deepcopy(subject.model).to(subject.device)
    mend = "return self from to(), as torch.nn.Module does"
    if not hasattr(twin, "step"):
        yield Fault("model.to(device) to return the model", f"a {type(twin).__name__}", mend)
        return
    yield from _alike(subject, twin, "a model moved to where it is already", mend)
    if isinstance(twin, torch.nn.Module) and any(True for _ in [*twin.parameters(), *twin.buffers()]):
        with torch.inference_mode(False):
            away = copy.deepcopy(subject.model).to("meta")
        yield from _away(subject, away)


def _away(subject: Subject, model: Any) -> Iterator[Fault]:
    given = subject.inputs(2, "away").map(lambda tensor: tensor.to("meta"))
    calls = {
        "step": lambda: model.step(given.state, given.action, given.noise, 1.0),
        "predict": lambda: model.predict(given.state),
        "features": lambda: model.features(given.state),
    }
    mend = "register_buffer what belongs to the model, and make new tensors where the given ones are: x.new_zeros(...), device=x.device"
    for name, call in calls.items():
        try:
            left = [tensor.device.type for tensor in named_tensors(call()).values() if tensor.device.type != "meta"]
        except Exception as error:  # reading a value is impossible there, and no fault; mixing devices is one
            left = [str(error).splitlines()[0]] if "same device" in str(error) or "on device" in str(error) else []
        if left:
            yield Fault(f"{name} of a moved model to stay on its device", left[0], mend)


def _alike(subject: Subject, twin: Any, who: str, mend: str) -> Iterator[Fault]:
    given: Inputs = subject.inputs(4, "copies")
    model = subject.model
    for name, arguments in (
        ("step", (given.state, given.action, given.noise, 1.0)),
        ("predict", (given.state,)),
        ("features", (given.state,)),
    ):
        told = difference(getattr(twin, name)(*arguments), getattr(model, name)(*arguments))
        if told:
            yield Fault(f"{name} of {who} to answer as the original does", told, mend)
