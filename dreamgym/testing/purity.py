"""Checks that every method is a function of its arguments, row by row: no hidden memory, no hidden dice, no neighbours."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dreamgym.testing.comparison import difference, named_tensors, rows
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import Inputs, Subject

__all__ = ["check_batches", "check_determinism", "check_generators", "check_mutation", "generators_kept"]

_B = 8
_DICE = "use the noise argument, uniform in (0,1): dreamgym.noise.to_normal(noise) makes normals of it"


def check_generators(subject: Subject) -> Iterator[Fault]:
    """No method draws from a global generator."""
    given = subject.inputs(_B, "generators")
    calls: dict[str, Callable[[Inputs], Any]] = {"initial": lambda given: subject.model.initial(_B), **subject.calls()}
    for name, call in calls.items():
        before = _generators()
        call(given)
        drawn = [kind for kind, state in _generators().items() if state != before[kind]]
        if drawn:
            yield Fault(f"{name} to leave the global generators alone", f"it drew from {' and '.join(drawn)}", _DICE)


def check_determinism(subject: Subject) -> Iterator[Fault]:
    """The same arguments give the same answer, bit by bit, whatever was asked in between and however the world is seeded."""
    given, other = subject.inputs(_B, "determinism"), subject.inputs(_B, "in between")
    for name, call in subject.calls().items():
        answers = []
        for seed in (1, 2):
            _seed_all(seed)
            answers.append(_kept(call(given)))
            call(other)
        told = difference(*answers, exact=True)
        if told:
            mend = "keep whatever a step needs in the state, nothing on the model between calls; call eval() where layers drop out"
            yield Fault(f"{name} to answer the same twice", f"the second answer differs: {told}", mend)


def check_mutation(subject: Subject) -> Iterator[Fault]:
    """No method changes what it was given, nor later what it has returned."""
    given, other = subject.inputs(_B, "mutation"), subject.inputs(_B, "afterwards")
    before = given.clone()
    for name, call in subject.calls().items():
        answer = call(given)
        told = difference(given, before, exact=True)
        if told:
            mend = "write out of place: x = x + a instead of x += a; clone() where something is filled in"
            yield Fault(f"{name} to leave its arguments as they were", f"changed: {told}", mend)
            given = before.clone()
            continue
        kept = _kept(answer)
        call(other)
        told = difference(answer, kept, exact=True)
        if told:
            mend = "return new tensors; an answer must not lie in a buffer that the next call fills"
            yield Fault(f"{name} to leave earlier answers as they were", f"after another call: {told}", mend)


def check_batches(subject: Subject) -> Iterator[Fault]:
    """Row i depends on row i alone: alone, among eight, or in another place, it is the same up to rounding."""
    given = subject.inputs(_B, "batches")
    order = torch.tensor([3, 7, 0, 5, 1, 6, 2, 4], device=subject.device)
    mend = "compute each row from its own row: no statistics over the batch (BatchNorm wants eval()), no reshape that mixes rows"
    for name, call in subject.calls().items():
        together = call(given)
        for row in (0, 3, _B - 1):
            told = difference(call(given[row : row + 1]), rows(together, slice(row, row + 1)))
            if told:
                yield Fault(f"{name} to give row {row} of {_B} what it gives that row alone", told, mend)
                break
        else:
            told = difference(call(given[order]), rows(together, order))
            if told:
                yield Fault(f"{name} of permuted rows to be the permuted answer", told, mend)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Put the global generators back where they were: an examination must not change what its caller draws next."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(states[1])
        random.setstate(states[2])


def _generators() -> dict[str, Any]:
    legacy = np.random.get_state(legacy=False)["state"]
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "CUDA's": [state.numpy().tobytes() for state in cuda],
        "NumPy's": (legacy["key"].tobytes(), legacy["pos"]),
        "Python's": random.getstate(),
    }


def _seed_all(seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would decide what devices draw that are used only later
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)


def _kept(answer: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in named_tensors(answer).items()}
