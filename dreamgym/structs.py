"""The words everyone uses: what a world looks like (Spec), what was lived (SequenceBatch), what is predicted.

Letters: B batch, T time, H horizon, A model action, D deterministic, S stochastic, K classes or members, F features, C Y X image.

Arrival alignment, the one convention: row t holds what arrived together, `obs_t, reward_t, is_first_t, is_last_t,
is_terminal_t`, and `prev_action_t`, the action that led there. The first row of an episode has reward 0 and prev_action 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

__all__ = [
    "Action",
    "DreamDefaults",
    "DreamableModel",
    "Policy",
    "Prediction",
    "Preprocess",
    "SequenceBatch",
    "Spec",
    "StartBank",
    "TensorStruct",
]

Action: TypeAlias = "NDArray[Any] | int"


class TensorStruct:
    """Mixin for frozen dataclasses of tensors that share their leading dimensions. Fields may nest or be None."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply `function` to every tensor."""
        changed = {}
        for name in self._names():
            value = getattr(self, name)
            if isinstance(value, TensorStruct):
                value = value.map(function)
            elif value is not None:
                value = function(value)
            changed[name] = value
        return type(self)(**changed)

    def zip_map(self, other: Self, function: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """Apply `function` to every tensor and its namesake in `other`."""
        changed = {}
        for name in self._names():
            value, its = getattr(self, name), getattr(other, name)
            if isinstance(value, TensorStruct):
                value = value.zip_map(its, function)
            elif value is not None:
                value = function(value, its)
            changed[name] = value
        return type(self)(**changed)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast, as Tensor.to."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Self:
        """Cut the autograd graph."""
        return self.map(Tensor.detach)

    def clone(self) -> Self:
        """Copy the storage."""
        return self.map(Tensor.clone)

    def flatten(self) -> Self:
        """Merge the two leading dimensions: [B,T,...] -> [B*T,...]."""
        return self.map(lambda tensor: tensor.flatten(0, 1))

    def where(self, mask: Tensor, other: Self) -> Self:
        """Rows of self where mask [B] is true, of `other` elsewhere."""
        return self.zip_map(other, lambda mine, its: torch.where(_broadcast(mask, mine), mine, its))

    def __getitem__(self, index: Any) -> Self:
        return self.map(lambda tensor: tensor[index])

    def items(self) -> list[tuple[str, Tensor]]:
        """Names (dotted where nested) and tensors, in the order of the fields."""
        found: list[tuple[str, Tensor]] = []
        for name in self._names():
            value = getattr(self, name)
            if isinstance(value, TensorStruct):
                found += [(f"{name}.{inner}", tensor) for inner, tensor in value.items()]
            elif value is not None:
                found.append((name, value))
        return found

    @classmethod
    def stack(cls, structs: list[Self], dim: int = 0) -> Self:
        """Stack equal structs along a new dimension."""
        return cls._gather(structs, lambda tensors: torch.stack(tensors, dim))

    @classmethod
    def cat(cls, structs: list[Self], dim: int = 0) -> Self:
        """Concatenate along an existing dimension."""
        return cls._gather(structs, lambda tensors: torch.cat(tensors, dim))

    @classmethod
    def _gather(cls, structs: list[Self], function: Callable[[list[Tensor]], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for name in structs[0]._names():
            values = [getattr(struct, name) for struct in structs]
            if isinstance(values[0], TensorStruct):
                changed[name] = type(values[0])._gather(values, function)
            else:
                changed[name] = None if values[0] is None else function(values)
        return cls(**changed)

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        names = cls.__dict__.get("_field_names")
        if names is None:
            names = tuple(entry.name for entry in fields(cls))  # type: ignore[arg-type]
            cls._field_names = names  # type: ignore[attr-defined]
        return names


def _broadcast(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (like.dim() - mask.dim()))


@dataclass(frozen=True)
class Preprocess:
    """What happens to a real environment before a model sees it; applied by `dreamgym.envs`, recorded in the Spec.

    crop keeps rows and columns [top, bottom, left, right); masks paint such rectangles black first (a score drawn into
    the image would leak the return). size resizes to size x size by area averaging. action_repeat applies an action that
    many times and sums the rewards; skip_render does so without drawing the frames nobody sees, where the env allows it.
    merge_pedals turns CarRacing's (steer, gas, brake) into (steer, accelerate). success_truncates turns an end that the env
    reports as success (CarRacing's finished lap) into a truncation, because a model that learned it as death would avoid it.
    """

    size: int | None = None
    crop: tuple[int, int, int, int] | None = None
    masks: tuple[tuple[int, int, int, int], ...] = ()
    grey: bool = False
    action_repeat: int = 1
    skip_render: bool = True
    merge_pedals: bool = False
    reward_clip: float | None = None
    success_truncates: bool = False

    def __post_init__(self) -> None:
        if self.action_repeat < 1:
            raise ValueError(f"action_repeat is {self.action_repeat}; expected at least 1.")
        if self.size is not None and not 8 <= self.size <= 1024:
            raise ValueError(f"size is {self.size}; expected None or 8 to 1024 pixels.")
        if self.reward_clip is not None and not self.reward_clip > 0:
            raise ValueError(f"reward_clip is {self.reward_clip}; expected None or a positive bound.")


@dataclass(frozen=True)
class Spec:
    """All a dream must know of the real environment, so that it never needs it. Spaces are those after preprocessing.

    max_episode_steps counts agent steps (after action repeat); fps is agent steps per second, for films.
    """

    env_id: str
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    max_episode_steps: int
    fps: float = 30.0
    preprocess: Preprocess = field(default_factory=Preprocess)

    def __post_init__(self) -> None:
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {self.max_episode_steps}; expected at least 1.")
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}; expected a positive number of steps per second.")

    @property
    def is_image(self) -> bool:
        """Whether observations are uint8 images [Y,X,C]."""
        space = self.observation_space
        return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8

    @property
    def is_discrete(self) -> bool:
        """Whether actions are classes."""
        return isinstance(self.action_space, spaces.Discrete)

    @property
    def action_size(self) -> int:
        """A: the width of a model action, one-hot for classes."""
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return int(space.n)
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            return int(space.shape[0])
        raise TypeError(f"action space {space} is not supported; expected Discrete or a one-dimensional Box.")

    def to_model_action(self, action: Tensor) -> Tensor:
        """Env actions (int64 [...] or float [...,A]) -> model actions [...,A] float32: one-hot, or scaled to [-1,1]."""
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return torch.nn.functional.one_hot(action.long() - int(space.start), int(space.n)).float()
        low, high = self._action_bounds(action.device)
        return (torch.minimum(torch.maximum(action.float(), low), high) - low) * (2.0 / (high - low)) - 1.0

    def to_env_action(self, action: Tensor) -> Tensor:
        """Model actions [...,A] -> env actions: int64 [...] for classes, else float32 [...,A] within the bounds."""
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return action.argmax(-1) + int(space.start)
        low, high = self._action_bounds(action.device)
        return low + (action.clamp(-1.0, 1.0) + 1.0) * (high - low) * 0.5

    def _action_bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        cached = _BOUNDS.get((id(self.action_space), device))
        if cached is None or cached[0] is not self.action_space:
            space = self.action_space
            if not isinstance(space, spaces.Box) or not np.isfinite([space.low, space.high]).all():
                raise TypeError(f"action space {space} must be Discrete or a Box with finite bounds.")
            low, high = (torch.as_tensor(bound.astype(np.float32), device=device) for bound in (space.low, space.high))
            cached = (space, low, high)
            _BOUNDS[(id(space), device)] = cached
        return cached[1], cached[2]


_BOUNDS: dict[tuple[int, torch.device], tuple[spaces.Space[Any], Tensor, Tensor]] = {}


@dataclass(frozen=True)
class SequenceBatch(TensorStruct):
    """Rows of experience, arrival-aligned. Windows may cross episode ends; is_first tells where.

    valid is false where the env gave a meaningless observation (ViZDoom's black terminal frame): learn its reward and end, not
    its pixels. index is the row's number in the replay; embed holds precomputed encoder outputs where training has them.
    """

    obs: Tensor  # [B,T,...] uint8 images or float32 vectors
    prev_action: Tensor  # [B,T,A] float32, model actions
    reward: Tensor  # [B,T] float32
    is_first: Tensor  # [B,T] bool
    is_last: Tensor  # [B,T] bool, any end
    is_terminal: Tensor  # [B,T] bool, true termination only
    valid: Tensor  # [B,T] bool
    index: Tensor  # [B,T] int64
    embed: Tensor | None = None  # [B,T,E]


@dataclass(frozen=True)
class Prediction(TensorStruct):
    """What the heads say of the state arrived at."""

    reward: Tensor  # [B] in the environment's units
    continue_prob: Tensor  # [B] in [0,1], discount divided out
    uncertainty: Tensor  # [B] 0 = median, 1 = 99.5th percentile of the ensemble's disagreement on held-out real data


@dataclass(frozen=True)
class StartBank(TensorStruct):
    """States a dream may start from, taken from real experience. is_first marks true episode starts."""

    state: TensorStruct  # leading [N]
    is_first: Tensor  # [N] bool


@dataclass(frozen=True)
class DreamDefaults:
    """How a model wants to be dreamt unless the caller says otherwise; stored in its config.

    horizon and starts are for training doors (DreamVecEnv, training=True): steps until truncation (None: the real time limit), and
    whether dreams start from episode starts ("first") or from anywhere in the recorded data ("any"). max_uncertainty ends a dream
    whose prediction is more uncertain than that; uncertainty_penalty is subtracted, in units of reward, per unit of uncertainty
    (capped at 3). range_guard ends a dream that leaves the data's range. hold keeps the ensemble member (and dropout mask) for a
    "step" or an "episode".
    """

    horizon: int | None = None
    starts: Literal["first", "any"] = "first"
    max_uncertainty: float | None = None
    uncertainty_penalty: float = 0.0
    range_guard: bool = False
    temperature: float = 1.0
    hold: Literal["step", "episode"] = "step"
    termination: Literal["threshold", "sample", "never"] = "threshold"

    def __post_init__(self) -> None:
        if self.starts not in ("first", "any") or self.hold not in ("step", "episode"):
            raise ValueError(f"starts is {self.starts!r}, hold is {self.hold!r}; expected first|any and step|episode.")
        if self.termination not in ("threshold", "sample", "never"):
            raise ValueError(f"termination is {self.termination!r}; expected threshold, sample or never.")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; expected None or at least 1 step.")
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number of at least 0.")


class Policy(Protocol):
    """Anything that acts, with Stable-Baselines3's signature: ours, SB3's and a user's alike."""

    def predict(
        self,
        observation: NDArray[Any],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Actions for a batch [B,...] or for one observation, and the policy's next state."""
        ...


@runtime_checkable
class DreamableModel(Protocol):
    """The least a model must offer to be dreamt. `dreamgym.WorldModel` has it; a third party's object may.

    States are TensorStructs with leading [B]. noise is [B, noise_lanes], uniform in (0,1); its first episode_lanes choose what may be
    held for a whole episode (ensemble member, dropout mask). Optional: decode(state) -> obs [B,...]; observe (for real contexts);
    in_range(state) -> bool [B] (for the range guard); initial_states -> StartBank; defaults -> DreamDefaults; reward_low: float.
    """

    spec: Spec
    noise_lanes: int

    def initial(self, batch_size: int) -> Any:
        """State before the first observation."""

    def step(self, state: Any, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Any:
        """Dream one step on: prior. action [B,A] model action."""

    def predict(self, state: Any) -> Prediction:
        """What the heads say of the state arrived at."""

    def features(self, state: Any) -> Tensor:
        """[B,F]: all that an agent ever sees."""
