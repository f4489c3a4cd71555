"""Checks of states: what kind of thing they are, and that every method that returns one keeps to the layout of initial's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dreamgym.structs import StartBank, TensorStruct
from dreamgym.testing.comparison import difference, layout, named_tensors, rows
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import BATCHES, NotApplicable, Subject, shown

__all__ = ["check_actions", "check_initial", "check_observe", "check_starts", "check_state", "check_step"]

_STRUCT = "make the state a frozen dataclass that inherits dreamgym.structs.TensorStruct and holds only tensors with leading [B]"


def check_state(subject: Subject) -> Iterator[Fault]:
    """A state is a frozen dataclass of tensors with leading [B], so that rows can be chosen, joined and sent elsewhere."""
    B = 3
    state = subject.model.initial(B)
    expected = "initial(B) to return a frozen dataclass that is a TensorStruct"
    if not isinstance(state, TensorStruct) or not dataclasses.is_dataclass(state):
        yield Fault(expected, f"a {type(state).__name__}", _STRUCT)
        return
    if not state.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        yield Fault(expected, f"{type(state).__name__}, which can be changed", "write @dataclass(frozen=True) above it")
    entries = state.items()
    if not entries:
        yield Fault(
            "a state of at least one tensor [B,...]",
            f"an empty {type(state).__name__}",
            "a constant [B,1] will do where nothing is remembered",
        )
    for name, value in entries:
        if not isinstance(value, Tensor):
            yield Fault("all fields of a state to be tensors [B,...]", f"{name} is a {type(value).__name__}", _STRUCT)
        elif value.dim() == 0 or value.shape[0] != B:
            mend = "give every row a value of its own; what all rows share belongs to the model"
            yield Fault(f"{name} of initial({B}) to lead with [{B}]", f"shape {list(value.shape)}", mend)


def check_initial(subject: Subject) -> Iterator[Fault]:
    """initial(B) holds B equal rows, of one layout for every B."""
    alone = subject.initial(1)
    for batch in (2, 5, 32):
        state = subject.initial(batch)
        sizes = {name: tensor.shape[0] for name, tensor in state.items()}
        if set(sizes.values()) != {batch} or layout(state) != layout(alone):
            found = f"{sizes} rows, layout {layout(state)}; initial(1) has layout {layout(alone)}"
            yield Fault(
                f"initial({batch}) to hold {batch} rows like that of initial(1)", found, "build every tensor with the given batch_size"
            )
            return
        told = next(filter(None, (difference(rows(state, slice(row, row + 1)), alone) for row in range(batch))), None)
        if told:
            mend = "start all rows alike; for a choice of starts give the model initial_states"
            yield Fault("every row of initial(B) to be the one of initial(1)", told, mend)
            return


def check_step(subject: Subject) -> Iterator[Fault]:
    """step returns states of the layout that initial has, for any B, with and without a temperature."""
    expected = layout(subject.initial(1))
    for batch in BATCHES:
        before = subject.initial(batch)
        action, noise = subject.actions(batch, "step"), subject.noise(batch, "step")
        for state in (subject.model.step(before, action, noise), subject.model.step(before, action, noise, 1.0)):
            fault = _state_fault("step", state, type(before), expected, batch)
            if fault:
                yield fault
                return


def check_actions(subject: Subject) -> Iterator[Fault]:
    """What is done makes a difference."""
    B = 8
    given, other = subject.inputs(B, "actions"), subject.actions(B, "other actions")
    if torch.equal(given.action, other):
        raise NotApplicable("there is but one action")
    results = [subject.model.step(given.state, action, given.noise, 1.0).clone() for action in (given.action, other)]
    if difference(*results, exact=True) is None:
        mend = "feed the model action [B,A] into the step; it is one-hot, or scaled to [-1,1]"
        yield Fault(f"step to depend on the action in one of {B} states", "equal states after different actions", mend)


def check_starts(subject: Subject) -> Iterator[Fault]:
    """The bank of start states holds rows of the model's own layout, and true episode starts among them."""
    bank: StartBank | None = getattr(subject.model, "initial_states", None)
    if bank is None:
        raise NotApplicable("the model has no initial_states; its dreams begin in initial(B)")
    flags = bank.is_first
    if not isinstance(flags, Tensor) or flags.dtype != torch.bool or flags.dim() != 1:
        yield Fault("initial_states.is_first to be bool [N]", f"{shown(flags)}", "mark which rows begin an episode")
        return
    N = len(flags)
    fault = _state_fault("initial_states.state", bank.state, type(subject.initial(1)), layout(subject.initial(1)), N)
    if fault:
        yield fault
        return
    if not bool(flags.any()):
        mend = "mark the rows that begin an episode, for whole dreams start from those; or leave initial_states None"
        yield Fault("at least one start state with is_first", f"none of {N}", mend)
    for name, tensor in named_tensors(bank.state).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            yield Fault("finite start states", f"NaN or infinity in {name}", "leave such rows out of the bank")


def check_observe(subject: Subject) -> Iterator[Fault]:
    """observe returns states of the layout that initial has, and looks at what it is shown."""
    subject.needs("observe")
    expected = layout(subject.initial(1))
    for batch in BATCHES:
        given = subject.inputs(batch, "observe")
        for is_first in (given.is_first, ~given.is_first):
            state = subject.model.observe(given.state, given.action, given.obs, is_first, given.noise)
            fault = _state_fault("observe", state, type(given.state), expected, batch)
            if fault:
                yield fault
                return
    given, other = subject.inputs(8, "observe"), subject.observations(8, "another sight")
    beliefs = [subject.model.observe(given.state, given.action, obs, given.is_first, given.noise).clone() for obs in (given.obs, other)]
    if difference(*beliefs, exact=True) is None:
        yield Fault(
            "observe to depend on the observation", "equal states after different observations", "let obs correct what was predicted"
        )


def _state_fault(who: str, state: Any, kind: type, expected: dict[str, str], batch: int) -> Fault | None:
    if type(state) is not kind:
        mend = "return the state alone" if isinstance(state, tuple) else "return the type of state that initial returns"
        return Fault(f"{who} to give a {kind.__name__}, as initial does", f"a {type(state).__name__}", mend)
    sizes = {name: tensor.shape[0] if tensor.dim() else 0 for name, tensor in named_tensors(state).items()}
    if layout(state) != expected or set(sizes.values()) != {batch}:
        found = ", ".join(f"{name} [{sizes[name]}] x {told}" for name, told in layout(state).items())
        wanted = ", ".join(f"{name} [{batch}] x {told}" for name, told in expected.items())
        return Fault(
            f"{who} to give {wanted}", found, "keep names, shapes and types of initial's tensors; cast and reshape before returning"
        )
    return None
