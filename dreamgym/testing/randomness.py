"""Checks of what noise and temperature mean: lanes are used, 0 is the mean, one half is the mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dreamgym.testing.comparison import difference, rows
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import Inputs, NotApplicable, Subject

__all__ = ["check_mean_noise", "check_noise_lanes", "check_temperature"]

_B = 8


def check_noise_lanes(subject: Subject) -> Iterator[Fault]:
    """The lanes that are declared are used, by step or by observe."""
    lanes = subject.model.noise_lanes
    if lanes == 0:
        raise NotApplicable("the model declares no noise_lanes")
    given = subject.inputs(_B, "noise lanes")
    other = Inputs(given.state, given.action, subject.noise(_B, "other noise"), given.obs, given.is_first)
    calls = {name: call for name, call in subject.calls().items() if name in ("step", "observe")}
    if all(difference(call(given), call(other), exact=True) is None for call in calls.values()):
        mend = "set noise_lanes = 0; or, if the model does roll dice, take them from the noise argument"
        yield Fault(f"some of {lanes} noise_lanes to make a difference", f"{' and '.join(calls)} ignore the noise", mend)


def check_temperature(subject: Subject) -> Iterator[Fault]:
    """Temperature is 1 if not given, may be a number or [B], and 0 means no chance but that of the held lanes."""
    model, given = subject.model, subject.inputs(_B, "temperature")

    def dreamt(noise: Tensor, temperature: Any, chosen: Inputs = given) -> Any:
        return model.step(chosen.state, chosen.action, noise, temperature)

    told = difference(model.step(given.state, given.action, given.noise), dreamt(given.noise, 1.0))
    if told:
        yield Fault("step without a temperature to be that of temperature 1.0", told, "make 1.0 the argument's default")
    several = torch.linspace(0.5, 1.5, _B, device=subject.device)
    together = dreamt(given.noise, several)
    for row in (0, _B - 1):
        chosen = given[row : row + 1]
        told = difference(rows(together, slice(row, row + 1)), dreamt(chosen.noise, float(several[row]), chosen))
        if told:
            mend = "it may be a tensor [B], one for each row: write torch.as_tensor(temperature).reshape(-1, 1) before it meets [B,...]"
            yield Fault("a temperature [B] to act on each row as that number does", told, mend)
            break
    told = difference(dreamt(given.noise, 0.0), dreamt(_other_dice(subject, given), 0.0))
    if told:
        mend = "multiply what is sampled by the temperature's square root; count lanes that choose a member or a mask in episode_lanes"
        yield Fault("temperature 0 to leave nothing to chance beyond the first episode_lanes", f"other noise, other state: {told}", mend)


def check_mean_noise(subject: Subject) -> Iterator[Fault]:
    """Noise of one half gives the mean (of classes the likeliest), which is what temperature 0 gives: beliefs are made so."""
    held = subject.held_lanes
    if subject.model.noise_lanes == held:
        raise NotApplicable("no noise beyond the held lanes")
    given = subject.inputs(_B, "mean noise")
    middle = given.noise.clone()
    middle[:, held:] = 0.5
    told = difference(
        subject.model.step(given.state, given.action, middle, 1.0), subject.model.step(given.state, given.action, given.noise, 0.0)
    )
    if told:
        mend = "centre the noise, as dreamgym.noise.to_normal does, which makes 0 of 0.5; or pass skip=('mean noise',) if this is not meant"
        yield Fault("noise 0.5 to give what temperature 0 gives, the mean", told, mend)


def _other_dice(subject: Subject, given: Inputs) -> Tensor:
    """Other noise in all lanes that may not be held."""
    held = subject.held_lanes
    return torch.cat([given.noise[:, :held], subject.noise(_B, "other dice")[:, held:]], 1)
