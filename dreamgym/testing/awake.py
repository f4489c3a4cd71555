"""Checks of observe: an episode's first row forgets what was before, neighbours do not, and actions are those that led here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dreamgym.dreams.engine import DreamEngine
from dreamgym.dreams.observations import ObservationReader, to_numpy
from dreamgym.structs import ObsTensors
from dreamgym.testing.comparison import difference, rows
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import Inputs, Subject

__all__ = ["check_alignment", "check_context", "check_first_rows", "check_neighbours"]

_B = 8
_ROWS = 5  # of an observed sequence
_UNEXPLAINED = 0.3  # of the variance over rows: a belief that explains more than the rest of a row is of that row
_CLOSER = 0.25  # and much better than of its own


def check_first_rows(subject: Subject) -> Iterator[Fault]:
    """Where is_first is true neither the state before nor prev_action matters."""
    subject.needs("observe")
    given = subject.inputs(_B, "first rows")
    first = ~given.is_first
    told = difference(_observed(subject, given, is_first=first), _observed(subject, given, state=subject.initial(_B), is_first=first))
    if told:
        mend = "begin observe with: state = initial(B).where(is_first, state)"
        yield Fault("a first row's belief not to depend on the state before it", told, mend)
    elsewhere = torch.zeros_like(given.action)
    told = difference(_observed(subject, given, is_first=first), _observed(subject, given, action=elsewhere, is_first=first))
    if told:
        mend = "begin observe with: prev_action = prev_action.masked_fill(is_first.unsqueeze(-1), 0.0)"
        yield Fault("a first row's belief not to depend on prev_action, which led nowhere", told, mend)


def check_neighbours(subject: Subject) -> Iterator[Fault]:
    """A row that begins an episode leaves the beliefs of the other rows alone, and is what it would be among others that begin."""
    subject.needs("observe")
    given = subject.inputs(_B, "neighbours")
    mask = torch.arange(_B, device=subject.device) % 2 == 0
    mixed = _observed(subject, given, is_first=mask)
    mend = "reset row by row with is_first [B] (torch.where, TensorStruct.where), not with is_first.any() or is_first[0]"
    for chosen, is_first, told_of in ((mask, ~given.is_first, "begin"), (~mask, given.is_first, "go on")):
        told = difference(rows(mixed, chosen), rows(_observed(subject, given, is_first=is_first), chosen))
        if told:
            yield Fault(f"rows that {told_of} to be the same whatever their neighbours do", told, mend)


def check_context(subject: Subject) -> Iterator[Fault]:
    """Frames handed over in one reset give the belief that observing them row by row gives, at noise 0.5."""
    subject.needs("observe")
    model, space = subject.model, subject.spec.observation_space
    frames = [subject.observations(_B, f"frame {row}") for row in range(_ROWS)]
    actions = [subject.actions(_B, f"frame {row}") for row in range(_ROWS)]
    noise = torch.full((_B, model.noise_lanes), 0.5, device=subject.device)
    state = subject.initial(_B)
    for row in range(_ROWS):
        is_first = torch.full((_B,), row == 0, device=subject.device)
        action = actions[row] if row else torch.zeros_like(actions[row])
        state = model.observe(state, action, frames[row], is_first, noise)
    if not all(bool(tensor.isfinite().all()) for _, tensor in state.items()):
        mend = "0.5 stands for the mean; let it go through dreamgym.noise.to_normal, which makes 0 of it"
        yield Fault("finite beliefs at noise 0.5", f"NaN or infinity after {_ROWS} observations", mend)
        return
    engine = DreamEngine(model, _B)
    env_action = subject.spec.to_env_action(torch.stack(actions[1:], 1)).cpu().numpy()
    engine.reset(seeds=list(range(_B)), context={"obs": to_numpy(_stacked(frames), space), "action": env_action})
    told = difference(engine.state, state)
    if told:
        mend = "let observe depend on its arguments alone, in the types that the space has (float32, uint8, int64)"
        yield Fault("reset(options={'context': ...}) to believe what observing row by row believes", told, mend)


def check_alignment(subject: Subject) -> Iterator[Fault]:
    """A belief is of the row that was just seen: prev_action led to obs, and is not applied once more after it.

    Judged in dreams of the model's own: what it dreams it is shown, and the belief is compared with that row and with the next one.
    A model that knows nothing yet believes neither, and passes.
    """
    subject.needs("observe", "decode")
    model, B = subject.model, 32
    given = subject.inputs(B, "alignment")
    arrived = model.step(given.state, given.action, given.noise, 0.0)
    beyond = model.step(arrived, given.action, given.noise, 0.0)
    reader = ObservationReader(model, None, subject.device)
    shown = reader.decoded(arrived)
    middle = torch.full_like(given.noise, 0.5)
    seen = reader.decoded(model.observe(given.state, given.action, shown, given.is_first, middle))
    its_row, next_row = _unexplained(seen, shown), _unexplained(seen, reader.decoded(beyond))
    if next_row < min(_UNEXPLAINED, _CLOSER * its_row):
        mend = "apply prev_action first and correct with obs afterwards; the belief is of the time of obs"
        found = (
            f"it is that of the row after, where prev_action led once more (error {next_row:.2g} of the variance; to its own {its_row:.2g})"
        )
        yield Fault("a belief to be that of the observation it was just shown", found, mend)


def _observed(subject: Subject, given: Inputs, **changed: Any) -> Any:
    state, action, is_first = (changed.get(name, getattr(given, name)) for name in ("state", "action", "is_first"))
    return subject.model.observe(state, action, given.obs, is_first, given.noise)


def _stacked(frames: list[ObsTensors]) -> ObsTensors:
    """Observations [B,...] of several rows as [B,T,...]."""
    if isinstance(frames[0], dict):
        return {name: torch.stack([frame[name] for frame in frames], 1) for name in frames[0]}  # type: ignore[index,call-overload]
    return torch.stack(frames, 1)  # type: ignore[arg-type]


def _unexplained(mine: ObsTensors, its: ObsTensors) -> float:
    """Mean squared difference from row to row, as a share of the variance over rows: what all rows have in common tells nothing."""
    pairs = [(mine[name], its[name]) for name in mine] if isinstance(mine, dict) and isinstance(its, dict) else [(mine, its)]
    rests = []
    for said, real in pairs:
        ours, theirs = (_centred(part) for part in (said, real))
        variance = theirs.square().mean(0)
        varies = variance > 1e-8
        rests.append(((ours - theirs).square().mean(0) / variance.clamp(min=1e-8))[varies])
    rest = torch.cat(rests)
    return float(rest.mean()) if rest.numel() else float("inf")


def _centred(part: Any) -> Tensor:
    flat = part.double().reshape(len(part), -1)
    return flat - flat.mean(0)
