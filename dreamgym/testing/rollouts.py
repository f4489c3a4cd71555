"""Checks over some hundreds of dreamt steps, under random actions and under the most extreme ones, begun again where dreams end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.dreams.engine import DreamEngine
from dreamgym.structs import Prediction
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import NotApplicable, Subject, extreme_actions, sampled_actions

__all__ = ["check_decoded_values", "check_feature_range", "check_finite", "check_prediction_range"]

_B = 16  # slots, the second half of which take extreme actions
_DECODE_EVERY = 25  # pictures are dear
_UNSTATED = 1e6  # bound of features whose model states none, as dreamgym.dreams.observations has it
_OUTSIDE = 0.1  # of a dimension's width: a prediction may overshoot a little
_EPS = 1e-6


@dataclass
class Trace:
    """Extremes of what a model said in its rollout."""

    continue_low: float = np.inf
    continue_high: float = -np.inf
    uncertainty_low: float = np.inf
    feature_low: Any = np.inf  # [F]
    feature_high: Any = -np.inf  # [F]

    def note(self, prediction: Prediction, features: Tensor) -> None:
        """Take in one step of all slots."""
        self.continue_low = min(self.continue_low, float(prediction.continue_prob.min()))
        self.continue_high = max(self.continue_high, float(prediction.continue_prob.max()))
        self.uncertainty_low = min(self.uncertainty_low, float(prediction.uncertainty.min()))
        seen = features.cpu().numpy().astype(np.float64)
        self.feature_low, self.feature_high = np.minimum(self.feature_low, seen.min(0)), np.maximum(self.feature_high, seen.max(0))


def check_finite(subject: Subject) -> Iterator[Fault]:
    """Everything stays a number. What is said on the way is kept for the other checks."""
    subject.trace = Trace()
    for step, state in _dreams(subject):
        prediction, features = subject.model.predict(state), subject.model.features(state)
        numbers = {**dict(state.items()), **dict(prediction.items()), "features": features}
        if "decode" in subject.passed and step % _DECODE_EVERY == 0:
            obs = subject.model.decode(state)
            numbers |= {f"decoded {name}": part for name, part in (obs if isinstance(obs, dict) else {"observation": obs}).items()}
        for name, tensor in numbers.items():
            bad = ~tensor.isfinite().reshape(_B, -1).all(1)
            if bool(bad.any()):
                kind = "random" if bool(bad[: _B // 2].any()) else "extreme"
                mend = "bound what feeds back into the state (tanh, clamp to the training data's range), and what is exponentiated"
                yield Fault(f"finite numbers for {subject.steps} steps", f"{name} is not finite at step {step}, under {kind} actions", mend)
                return
        subject.trace.note(prediction, features)


def check_prediction_range(subject: Subject) -> Iterator[Fault]:
    """continue_prob is a probability, uncertainty at least 0."""
    trace = _trace(subject)
    if trace.continue_low < -_EPS or trace.continue_high > 1 + _EPS:
        mend = "return the probability that life goes on: sigmoid of the logits, not the logits"
        yield Fault("continue_prob from 0 to 1", f"{trace.continue_low:.6g} to {trace.continue_high:.6g}", mend)
    if trace.uncertainty_low < -_EPS:
        mend = "clamp it: 0 stands for what is usual on real data, 1 for its 99.5th percentile"
        yield Fault("uncertainty of at least 0", f"{trace.uncertainty_low:.6g}", mend)


def check_feature_range(subject: Subject) -> Iterator[Fault]:
    """Features stay within feature_low and feature_high; dreams clip what does not, and agents miss it."""
    model, trace = subject.model, _trace(subject)
    least, most = trace.feature_low, trace.feature_high
    low, high = np.full(least.shape, -_UNSTATED), np.full(least.shape, _UNSTATED)
    if hasattr(model, "feature_low"):
        low, high = (np.asarray(bound, np.float64) for bound in (model.feature_low, model.feature_high))
    beyond = np.maximum(low - least, most - high) - 1e-4 * (1 + np.maximum(np.abs(low), np.abs(high)))
    if (beyond > 0).any():
        worst = int(beyond.argmax())
        found = f"{least[worst]:.6g} to {most[worst]:.6g} ({int((beyond > 0).sum())} of {len(beyond)} features leave their bounds)"
        mend = "clamp in features(), scale them, or declare the bounds that hold in feature_low and feature_high"
        yield Fault(f"feature {worst} from {low[worst]:.6g} to {high[worst]:.6g}", found, mend)


def check_decoded_values(subject: Subject) -> Iterator[Fault]:
    """Decoded observations are in the units of the observation space, not of the network."""
    subject.needs("decode")
    state = _first_states(subject)
    space = subject.spec.observation_space
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
    first, later = (subject.model.decode(each) for each in (state, subject.states(_B, "decoded values")))
    for name, part in parts.items():
        begun, dreamt = (obs[name] if isinstance(obs, dict) else obs for obs in (first, later))
        fault = _value_fault(name, begun, torch.cat([begun, dreamt]), part)
        if fault:
            yield fault


def _trace(subject: Subject) -> Trace:
    if subject.trace is None:
        raise NotApplicable("the check 'finite', which dreams for it, was left out")
    return subject.trace


def _value_fault(name: str, begun: Tensor, every: Tensor, space: spaces.Space[Any]) -> Fault | None:
    if isinstance(space, spaces.Discrete):
        low, high = int(space.start), int(space.start + space.n) - 1
        if float(every.min()) < low - 0.5 or float(every.max()) > high + 0.5:
            mend = "return the class itself, counted from the space's start"
            return Fault(f"{name} to be a class from {low} to {high}", f"{float(every.min())} to {float(every.max())}", mend)
        return None
    assert isinstance(space, spaces.Box)
    if space.dtype == np.uint8:
        if every.is_floating_point() and 0.0 < float(every.max()) <= 1.0:
            mend = "multiply by 255: pictures are uint8 at the border"
            return Fault(f"{name} from 0 to 255", f"nothing above {float(every.max()):.3g} in {len(every)} pictures", mend)
        return None
    lowest, highest = (torch.from_numpy(bound.astype(np.float64)).to(begun.device) for bound in (space.low, space.high))
    width = highest - lowest
    slack = torch.where(width.isfinite(), _OUTSIDE * width, torch.zeros_like(width))
    share = ((begun < lowest - slack) | (begun > highest + slack)).double().mean(0).flatten()
    if float(share.max()) <= 0.5:
        return None
    worst = int(share.argmax())
    values = begun.flatten(1)[:, worst]
    bounds = f"{float(lowest.flatten()[worst]):.6g} to {float(highest.flatten()[worst]):.6g}"
    found = f"{float(values.min()):.6g} to {float(values.max()):.6g} where dreams begin"
    mend = "undo the scaling that the network is trained with, so that decode speaks the real environment's units"
    return Fault(f"dimension {worst} of {name} about within {bounds}", found, mend)


def _first_states(subject: Subject) -> Any:
    engine = DreamEngine(subject.model, _B)
    engine.reset(seeds=list(range(subject.seed, subject.seed + _B)))
    return engine.state


def _dreams(subject: Subject) -> Iterator[tuple[int, Any]]:
    """States [16] where dreams begin and after each step."""
    engine = DreamEngine(subject.model, _B)
    engine.reset(seeds=list(range(subject.seed, subject.seed + _B)))
    yield 0, engine.state
    rng, space = subject.generator("rollouts"), subject.spec.action_space
    extreme = extreme_actions(space, _B // 2, rng)
    for step in range(1, subject.steps + 1):
        random = sampled_actions(space, _B // 2, rng)
        if step % 20 == 0:  # held for a while, so that they add up
            extreme = extreme_actions(space, _B // 2, rng)
        engine.step(subject.model_action(np.concatenate([random, extreme])))
        yield step, engine.state
        if bool(engine.done.any()):
            engine.reset(engine.done)
