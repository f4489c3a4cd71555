"""Checks of what a model says of a state: predictions, features, decoded observations, whether it is in range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.structs import Prediction
from dreamgym.testing.comparison import difference
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import BATCHES, Subject, shown

__all__ = ["check_decode", "check_features", "check_in_range", "check_outcome", "check_prediction"]


def check_prediction(subject: Subject) -> Iterator[Fault]:
    """predict gives a Prediction of three float tensors, each [B]."""
    for batch in BATCHES:
        prediction = subject.model.predict(subject.states(batch, "prediction"))
        if not isinstance(prediction, Prediction):
            mend = "return dreamgym.structs.Prediction(reward, continue_prob, uncertainty)"
            yield Fault("predict to return a Prediction", f"a {type(prediction).__name__}", mend)
            return
        wrong = []
        for name in ("reward", "continue_prob", "uncertainty"):
            value = getattr(prediction, name)
            if not isinstance(value, Tensor) or value.shape != (batch,) or not value.is_floating_point():
                mend = f"return one float for each row; {_PREDICTION_MENDS[name]}"
                wrong.append(Fault(f"{name} to be float [{batch}]", shown(value), mend))
        if wrong:
            yield from wrong
            return


_PREDICTION_MENDS = {
    "reward": "squeeze(-1) takes the last axis off a head's output",
    "continue_prob": "ones where the model knows no ends",
    "uncertainty": "zeros where the model does not know what it does not know",
}


def check_features(subject: Subject) -> Iterator[Fault]:
    """features are float32 [B,F], F the same everywhere."""
    widths = set()
    for batch in BATCHES:
        for state in (subject.initial(batch), subject.states(batch, "features")):
            features = subject.model.features(state)
            if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != batch or features.dtype != torch.float32:
                mend = "concatenate what an agent may see along the last axis, as float32"
                yield Fault(f"features to be float32 [{batch},F]", shown(features), mend)
                return
            widths.add(features.shape[1])
    if len(widths) > 1 or 0 in widths:
        yield Fault("features of one width, above 0", f"widths {sorted(widths)}", "let the width depend on the model alone")


def check_in_range(subject: Subject) -> Iterator[Fault]:
    """in_range gives bool [B]."""
    subject.needs("in_range")
    for batch in BATCHES:
        inside = subject.model.in_range(subject.states(batch, "in range"))
        if not isinstance(inside, Tensor) or inside.dtype != torch.bool or inside.shape != (batch,):
            mend = "reduce over the observation: (obs.abs() < bound).all(-1)"
            yield Fault(f"in_range to give bool [{batch}]", shown(inside), mend)
            return


def check_outcome(subject: Subject) -> Iterator[Fault]:
    """outcome gives the reward and the continue probability that predict gives."""
    subject.needs("outcome")
    states = subject.states(max(BATCHES), "outcome")
    prediction, outcome = subject.model.predict(states), subject.model.outcome(states)
    mend = "return (reward, continue_prob) as predict computes them, and let predict add the uncertainty"
    if not isinstance(outcome, tuple) or len(outcome) != 2:
        yield Fault("outcome to give a pair, reward and continue_prob", f"a {type(outcome).__name__}", mend)
        return
    for name, value in zip(("reward", "continue_prob"), outcome):
        told = difference(value, getattr(prediction, name))
        if told:
            yield Fault(f"the {name} of outcome to be that of predict", told, mend)


def check_decode(subject: Subject) -> Iterator[Fault]:
    """decode gives observations as the Spec's space has them."""
    subject.needs("decode")
    space = subject.spec.observation_space
    for batch in BATCHES:
        obs = subject.model.decode(subject.states(batch, "decode"))
        if isinstance(space, spaces.Dict):
            if not isinstance(obs, dict) or set(obs) != set(space):
                found = f"{sorted(obs)}" if isinstance(obs, dict) else shown(obs)
                yield Fault(f"decode to give a dict of {sorted(space)}", found, "return a tensor for every part of the Dict space")
                return
            faults = [_decode_fault(f"decode[{name!r}]", obs[name], space[name], batch) for name in sorted(space)]
        else:
            faults = [_decode_fault("decode", obs, space, batch)]
        found_faults = [fault for fault in faults if fault]
        if found_faults:
            yield from found_faults
            return


def _decode_fault(who: str, obs: Any, space: spaces.Space[Any], batch: int) -> Fault | None:
    shape = (batch, *(space.shape or ()))
    whole = np.issubdtype(space.dtype, np.integer)
    kinds = "uint8, or float from 0 to 255" if space.dtype == np.uint8 else "int64" if whole else "float32"
    if isinstance(obs, Tensor) and obs.shape == shape and obs.dtype != torch.bool and (whole or obs.is_floating_point()):
        return None
    mend = "return the observation as the Spec's space has it, images as [B,Y,X,C]; where nothing can be decoded leave decode out"
    return Fault(f"{who} to give {list(shape)} {kinds}", shown(obs), mend)
