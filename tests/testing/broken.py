"""Models with exactly one fault each, made of a sound one, so that every check can show that it catches its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from dreamgym.noise import to_normal
from dreamgym.structs import DreamDefaults, Prediction, Spec, StartBank, TensorStruct
from tests.toys import CounterWorld, PictureWorld, PointState


class Sound(CounterWorld):
    """Passes every check that needs no real environment; all faults below are changes of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"sigma": 0.3, "drift": 0.2, **options})


def with_spec(**changed: Any) -> Sound:
    """The sound model with another Spec."""
    model = Sound()
    model.spec = replace(model.spec, **changed)
    return model


def with_attributes(**changed: Any) -> Sound:
    """The sound model with other attributes."""
    model = Sound()
    for name, value in changed.items():
        setattr(model, name, value)
    return model


# ---- what it says of itself ---------------------------------------------------------------------------------------------


def without(member: str) -> SimpleNamespace:
    """The least of a model, less one member."""
    model = Sound()
    names = ("spec", "noise_lanes", "initial", "step", "predict", "features")
    return SimpleNamespace(**{name: getattr(model, name) for name in names if name != member})


class OneBound(Sound):
    """Has a lower bound of features alone."""

    def __init__(self) -> None:
        super().__init__()
        del self.feature_high


class CannotGuard(Sound):
    """Wants a guard that it lacks the members for."""

    def __init__(self) -> None:
        super().__init__(defaults=DreamDefaults(max_uncertainty=2.0))
        del self.reward_low


# ---- states -------------------------------------------------------------------------------------------------------------


class DictState(Sound):
    def initial(self, batch_size: int) -> Any:
        return {"x": torch.zeros(batch_size, 1)}


@dataclass
class Loose(TensorStruct):
    x: Tensor


class LooseState(Sound):
    def initial(self, batch_size: int) -> Any:
        return Loose(torch.zeros(batch_size, 1))


@dataclass(frozen=True)
class Timed(TensorStruct):
    x: Tensor
    time: Any


class NumberInState(Sound):
    def initial(self, batch_size: int) -> Any:
        return Timed(torch.zeros(batch_size, 1), 0)


class SharedClock(Sound):
    def initial(self, batch_size: int) -> Any:
        return Timed(torch.zeros(batch_size, 1), torch.zeros(1))


class UnequalRows(Sound):
    def initial(self, batch_size: int) -> PointState:
        return PointState(torch.arange(float(batch_size)).unsqueeze(1))


class DoublePrecision(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(super().step(state, action, noise, temperature).x.double())


class StepGivesTuple(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Any:
        return super().step(state, action, noise, temperature), None


class NoTemperature(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor) -> PointState:  # type: ignore[override]
        return super().step(state, action, noise)


class TooManyLanes(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(super().step(state, action, noise, temperature).x + 0.0 * noise[:, self.noise_lanes :].reshape(-1, 1))


class Unmoved(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return super().step(state, torch.zeros_like(action), noise, temperature)


# ---- what it says of a state --------------------------------------------------------------------------------------------


class ColumnReward(Sound):
    def predict(self, state: PointState) -> Prediction:
        return replace(super().predict(state), reward=state.x)


class NoDoubt(Sound):
    def predict(self, state: PointState) -> Prediction:
        return replace(super().predict(state), uncertainty=None)


class TupleOfHeads(Sound):
    def predict(self, state: PointState) -> Any:
        prediction = super().predict(state)
        return prediction.reward, prediction.continue_prob, prediction.uncertainty


class FlatFeatures(Sound):
    def features(self, state: PointState) -> Tensor:
        return state.x[:, 0]


class DoubleFeatures(Sound):
    def features(self, state: PointState) -> Tensor:
        return super().features(state).double()


class ChannelsFirst(PictureWorld):
    def __init__(self) -> None:
        super().__init__(sigma=0.3, drift=0.2)

    def decode(self, state: PointState) -> Tensor:
        return super().decode(state).permute(0, 3, 1, 2)


class DictOfOne(Sound):
    def decode(self, state: PointState) -> Any:
        return {"obs": state.x}


class OtherOutcome(Sound):
    def outcome(self, state: PointState) -> Any:
        prediction = self.predict(state)
        return prediction.reward + 1.0, prediction.continue_prob


class PredictionForOutcome(Sound):
    def outcome(self, state: PointState) -> Any:
        return self.predict(state)


class SoftRange(Sound):
    def in_range(self, state: PointState) -> Tensor:
        return super().in_range(state).float()


class PosteriorAndPrior(Sound):
    def observe(self, *arguments: Any) -> Any:
        belief = super().observe(*arguments)
        return belief, belief


class ClosedEyes(Sound):
    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return PointState(torch.where(is_first.unsqueeze(1), 0.0, state.x + prev_action))


def with_starts(x: Tensor, first: bool = True) -> Sound:
    """The sound model with another bank."""
    return with_attributes(initial_states=StartBank(PointState(x), torch.full((len(x),), first)))


# ---- purity -------------------------------------------------------------------------------------------------------------


class OwnDice(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(super().step(state, action, noise, temperature).x + 0.1 * torch.randn_like(state.x))


class NumpyDice(Sound):
    def predict(self, state: PointState) -> Prediction:
        np.random.rand()
        return super().predict(state)


class HiddenMemory(Sound):
    before: Any = None

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        arrived = super().step(state, action, noise, temperature)
        drag = self.before.mean() if self.before is not None else 0.0
        self.before = arrived.x
        return PointState(arrived.x + 0.1 * drag)


class InPlace(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        state.x.copy_(super().step(state, action, noise, temperature).x)
        return state


class SharedBuffer(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = torch.zeros(64, 1)

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        arrived = super().step(state, action, noise, temperature).x
        self.buffer[: len(arrived)] = arrived
        return PointState(self.buffer[: len(arrived)])


class BatchStatistics(Sound):
    def features(self, state: PointState) -> Tensor:
        return super().features(state) - super().features(state).mean(0)


class ScrambledRows(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        arrived = super().step(state, action, noise, temperature).x
        return PointState(arrived.reshape(2, -1).t().reshape(-1, 1) if len(arrived) == 8 else arrived)


# ---- chance -------------------------------------------------------------------------------------------------------------


class AlwaysWarm(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return super().step(state, action, noise, 1.0)


class TemperatureAcross(Sound):
    """A temperature [B] meets noise [B,1], which gives [B,B]: the classic."""

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        spread = (noise[:, :1] - 0.5) * temperature
        return PointState(state.x + action + spread[:, :1])


class ColdByDefault(Sound):
    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 0.0) -> PointState:
        return super().step(state, action, noise, temperature)


class OffCentre(Sound):
    episode_lanes = 0

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        root = torch.as_tensor(temperature).sqrt().reshape(-1, 1)
        return PointState(state.x + action + root * noise[:, :1])


# ---- awake --------------------------------------------------------------------------------------------------------------


class NeverForgets(Sound):
    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return super().observe(state, prev_action, obs, torch.zeros_like(is_first), noise)


class FirstAction(Sound):
    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return PointState(torch.where(is_first.unsqueeze(1), obs + prev_action, 0.5 * (state.x + prev_action + obs)))


class AllForgetTogether(Sound):
    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return super().observe(state, prev_action, obs, is_first.any().expand(len(obs)), noise)


class LostInTheMiddle(Sound):
    """Divides by noise less its mean, which is 0 where beliefs are made."""

    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        centred = noise[:, :1] - 0.5
        return PointState(super().observe(state, prev_action, obs, is_first, noise).x * centred / centred)


class ActsOnceMore(Sound):
    """Corrects with the observation and then applies the action that had led to it."""

    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return PointState(torch.where(is_first.unsqueeze(1), obs, obs + prev_action))


# ---- long dreams --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unselective(TensorStruct):
    """A state whose rows cannot be replaced one by one."""

    x: Tensor

    def where(self, mask: Tensor, other: TensorStruct) -> Unselective:  # type: ignore[override]
        return self


class ResetsAll(Sound):
    def __init__(self) -> None:
        super().__init__(starts=())

    def initial(self, batch_size: int) -> Any:
        return Unselective(torch.zeros(batch_size, 1))

    def step(self, state: Any, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Any:
        return Unselective(super().step(state, action, noise, temperature).x)

    def observe(self, *arguments: Any) -> Any:
        return Unselective(super().observe(*arguments).x)


class Logits(Sound):
    def predict(self, state: PointState) -> Prediction:
        return replace(super().predict(state), continue_prob=torch.where(state.x[:, 0].abs() <= self.bound, 4.0, -4.0))


class LogDoubt(Sound):
    def predict(self, state: PointState) -> Prediction:
        return replace(super().predict(state), uncertainty=-1.0 - state.x[:, 0].abs())


class WideFeatures(Sound):
    def features(self, state: PointState) -> Tensor:
        return 30.0 * super().features(state)


class HalfBrightness(PictureWorld):
    """Pictures from 0 to 1, as networks make them."""

    def __init__(self) -> None:
        super().__init__(sigma=0.3, drift=0.2)

    def decode(self, state: PointState) -> Tensor:
        return super().decode(state).float() / 255.0


class OtherUnits(Sound):
    def decode(self, state: PointState) -> Tensor:
        return 500.0 + 10.0 * state.x


class OtherClasses(Sound):
    """Sees a class, and counts from 1 where the space counts from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, observation_space=spaces.Dict(side=spaces.Discrete(3)))

    def decode(self, state: PointState) -> Any:
        return {"side": state.x[:, 0].sign().long() + 2}

    def observe(self, state: PointState, prev_action: Tensor, obs: Any, is_first: Tensor, noise: Tensor) -> PointState:
        return super().observe(state, prev_action, obs["side"].float().unsqueeze(1) - 1.0, is_first, noise)


# ---- copies and doors ---------------------------------------------------------------------------------------------------


class HoldsALock(Sound):
    """Neither pickled nor copied by default; copying is taken care of."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> HoldsALock:
        return HoldsALock()


class ForgetsWhenPickled(Sound):
    def __reduce__(self) -> Any:
        return ForgetsWhenPickled, ()

    def __deepcopy__(self, memo: Any) -> ForgetsWhenPickled:
        twin = ForgetsWhenPickled()
        twin.sigma = self.sigma
        return twin


class ForgetsWhenCopied(Sound):
    def __deepcopy__(self, memo: Any) -> Sound:
        return Sound(sigma=3.0 * self.sigma)


class CannotBeCopied(Sound):
    def __deepcopy__(self, memo: Any) -> Sound:
        raise RuntimeError("there is but one")


class MovesNowhere(Sound):
    def to(self, device: Any) -> None:
        """Nothing is returned."""


class LeavesAWeightBehind(nn.Module):
    """A Module one of whose tensors is no buffer, so that it stays on the CPU."""

    noise_lanes = 1

    def __init__(self) -> None:
        super().__init__()
        self.spec = Sound().spec
        self.gain = nn.Parameter(torch.ones(1))
        self.offset = torch.full((1, 2), 0.1)

    def initial(self, batch_size: int) -> PointState:
        return PointState(self.gain.new_zeros(batch_size, 2))

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        root = temperature.sqrt().unsqueeze(1) if isinstance(temperature, Tensor) else temperature**0.5
        return PointState((self.gain * (state.x + action) + self.offset + root * to_normal(noise)).clamp(-9.0, 9.0))

    def predict(self, state: PointState) -> Prediction:
        zeros = torch.zeros_like(state.x[:, 0])
        return Prediction(state.x.sum(1), zeros + 1.0, zeros)

    def features(self, state: PointState) -> Tensor:
        return state.x


class OddBatches(Sound):
    """Computes rows in pairs, and leaves the last one of an odd batch standing."""

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        arrived = super().step(state, action, noise, temperature).x
        if len(arrived) > 1 and len(arrived) % 2:
            arrived = torch.cat([arrived[:-1], state.x[-1:]])
        return PointState(arrived)


class OddPredictions(Sound):
    """Pays the last row of an odd batch nothing."""

    def predict(self, state: PointState) -> Prediction:
        prediction = super().predict(state)
        paid = torch.ones_like(prediction.reward)
        if len(paid) > 1 and len(paid) % 2:
            paid[-1] = 0.0
        return replace(prediction, reward=prediction.reward * paid + 1.0 - paid)


class Circle(spaces.Box):
    """Points on the unit circle, and no others."""

    def __init__(self) -> None:
        super().__init__(-1.0, 1.0, (2,), np.float32)

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        angle = self.np_random.uniform(-np.pi, np.pi)
        return np.float32([np.cos(angle), np.sin(angle)])

    def contains(self, x: Any) -> bool:
        return super().contains(x) and abs(float(np.square(x).sum()) - 1.0) < 1e-3


class OffTheCircle(Sound):
    """Dreams points within the circle, which is within the box but not in the space."""

    radius = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, observation_space=Circle())

    def decode(self, state: PointState) -> Tensor:
        return self.radius * torch.cat([state.x.cos(), state.x.sin()], 1)

    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return super().observe(state, prev_action, torch.atan2(obs[:, 1:], obs[:, :1]), is_first, noise)


class OnTheCircle(OffTheCircle):
    radius = 1.0


# ---- against reality ----------------------------------------------------------------------------------------------------


class RealLine(gym.Env[Any, Any]):
    """The world that the sound model dreams: x' = x + a, paid x'. delay: the action counts that many steps later."""

    def __init__(self, delay: int = 0, steps: int = 20) -> None:
        spec = Sound().spec
        self.observation_space, self.action_space = spec.observation_space, spec.action_space
        self._delay, self._steps = delay, steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._x, self._t, self._waiting = float(self.np_random.uniform(-1, 1)), 0, [0.0] * self._delay
        return np.float32([self._x]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._waiting.append(float(action[0]))
        self._x, self._t = self._x + self._waiting.pop(0), self._t + 1
        return np.float32([self._x]), self._x, False, self._t >= self._steps, {}


@dataclass(frozen=True)
class Remembering(TensorStruct):
    """Where we are, and where we were."""

    x: Tensor
    before: Tensor


class PaysForTheRowBefore(Sound):
    """Says of a state what was paid one row earlier."""

    def __init__(self) -> None:
        super().__init__(starts=())

    def initial(self, batch_size: int) -> Any:
        return Remembering(torch.zeros(batch_size, 1), torch.zeros(batch_size, 1))

    def step(self, state: Any, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Any:
        return Remembering(super().step(state, action, noise, temperature).x, state.x)

    def observe(self, state: Any, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> Any:
        return Remembering(obs, torch.where(is_first.unsqueeze(1), 0.0, state.x))

    def predict(self, state: Any) -> Prediction:
        return replace(super().predict(state), reward=state.before[:, 0])


class UnboundedActions(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.spec = Spec("toy/Unbounded", self.spec.observation_space, spaces.Box(-np.inf, np.inf, (1,), np.float32), 20)
