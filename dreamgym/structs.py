"""The words everyone uses: what a world looks like (Spec), what was lived (SequenceBatch), what is predicted.

Letters: B batch, T time, H horizon, A model action, D deterministic, S stochastic, K classes or members, F features, C Y X image.

Arrival alignment, the one convention: row t holds what arrived together, `obs_t, reward_t, is_first_t, is_last_t,
is_terminal_t`, and `prev_action_t`, the action that led there. The first row of an episode has reward 0 and prev_action 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

__all__ = [
    "PART_NAME",
    "Action",
    "DreamDefaults",
    "DreamableModel",
    "ObsTensors",
    "Observation",
    "Policy",
    "Prediction",
    "Preprocess",
    "SequenceBatch",
    "Spec",
    "StartBank",
    "TensorStruct",
    "map_obs",
    "sent",
]

Action: TypeAlias = "NDArray[Any] | int"
Observation: TypeAlias = "NDArray[Any] | dict[str, NDArray[Any]]"
ObsTensors: TypeAlias = "Tensor | dict[str, Tensor]"  # a Dict space's observations are a dict, keyed as the space

PART_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # of a Dict observation's parts: what a model folder may hold
In = TypeVar("In")
Out = TypeVar("Out")


def map_obs(function: Callable[[In], Out], obs: In | dict[str, In]) -> Out | dict[str, Out]:
    """Apply `function` to an observation, or to each entry of a Dict observation."""
    if isinstance(obs, dict):
        return {name: function(value) for name, value in obs.items()}
    return function(obs)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. A GPU is sent it from pinned memory, so that nobody waits for what the GPU was told to do before."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)  # strided rows would be copied once more, to pageable memory


class TensorStruct:
    """Mixin for frozen dataclasses of tensors that share their leading dimensions. Fields may nest, be dicts of tensors, or be None."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply `function` to every tensor."""
        changed = {}
        for name in self._names():
            value = getattr(self, name)
            if isinstance(value, TensorStruct):
                value = value.map(function)
            elif isinstance(value, dict):
                value = {key: function(tensor) for key, tensor in value.items()}
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
            elif isinstance(value, dict):
                value = {key: function(tensor, its[key]) for key, tensor in value.items()}
            elif value is not None:
                value = function(value, its)
            changed[name] = value
        return type(self)(**changed)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast, as Tensor.to."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def sent(self, device: torch.device) -> Self:
        """`sent`, for every tensor."""
        return self.map(lambda tensor: sent(tensor, device))

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
        """Names (dotted where nested or a dict) and tensors, in the order of the fields."""
        found: list[tuple[str, Tensor]] = []
        for name in self._names():
            value = getattr(self, name)
            if isinstance(value, TensorStruct):
                found += [(f"{name}.{inner}", tensor) for inner, tensor in value.items()]
            elif isinstance(value, dict):
                found += [(f"{name}.{key}", tensor) for key, tensor in value.items()]
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
            elif isinstance(values[0], dict):
                changed[name] = {key: function([value[key] for value in values]) for key in values[0]}
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

    What is said of images holds for every image of a Dict observation. crop keeps rows and columns [top, bottom, left, right);
    masks paint such rectangles black first (a score drawn into the image would leak the return). size resizes to size x size by
    area averaging. action_repeat applies an action that many times and sums the rewards; skip_render does so without drawing the
    frames nobody sees, where the env allows it. merge_pedals turns CarRacing's (steer, gas, brake) into (steer, accelerate).
    success_truncates turns an end that the env reports as success (CarRacing's finished lap) into a truncation, because a model
    that learned it as death would avoid it. stack shows the last images, of agent steps, along the channels, oldest first; at reset
    the first one repeated.
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
    stack: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.stack <= 64:
            raise ValueError(f"stack is {self.stack}; expected 1 to 64 images.")
        if self.action_repeat < 1:
            raise ValueError(f"action_repeat is {self.action_repeat}; expected at least 1.")
        if self.size is not None and not 8 <= self.size <= 1024:
            raise ValueError(f"size is {self.size}; expected None or 8 to 1024 pixels.")
        if self.reward_clip is not None and not self.reward_clip > 0:
            raise ValueError(f"reward_clip is {self.reward_clip}; expected None or a positive bound.")

    @property
    def reads_images(self) -> bool:
        """Whether it asks for something that only images have."""
        return self.size is not None or self.crop is not None or bool(self.masks) or self.grey or self.stack > 1


@dataclass(frozen=True)
class Spec:
    """All a dream must know of the real environment, so that it never needs it. Spaces are those after preprocessing.

    Observations: a vector, a uint8 image, or a Dict of vectors, images and Discrete. Actions: a Box [A], Discrete or MultiDiscrete.
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
        return _is_image(self.observation_space)

    @property
    def observation_parts(self) -> dict[str, spaces.Box | spaces.Discrete]:
        """The observation's parts by name, sorted, as a Dict observation's tensors are keyed; a Box is the one part "obs".

        Each is a uint8 image [Y,X,C], a float vector [D], or (in a Dict only) Discrete. Raises TypeError for other spaces, ValueError
        for names that could not be stored (see PART_NAME).
        """
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            if list(space) and all(_is_part(part) or isinstance(part, spaces.Discrete) for part in space.values()):
                return {name: space[name] for name in sorted(space, key=_checked_name)}  # type: ignore[misc]
        elif _is_part(space):
            return {"obs": space}  # type: ignore[dict-item]
        raise TypeError(
            f"observation space {space} is not supported; expected a one-dimensional float Box, a uint8 image [Y,X,C], or a Dict of "
            "those and Discrete; dreamgym.make_env brings most envs into that form, gymnasium.wrappers.FlattenObservation others."
        )

    @property
    def image_names(self) -> tuple[str, ...]:
        """Which of observation_parts are images; the first is what films show."""
        return tuple(name for name, part in self.observation_parts.items() if _is_image(part))

    @property
    def is_discrete(self) -> bool:
        """Whether actions are classes, one (Discrete) or several at once (MultiDiscrete)."""
        return isinstance(self.action_space, (spaces.Discrete, spaces.MultiDiscrete))

    @property
    def action_sizes(self) -> tuple[int, ...]:
        """Number of classes of each choice an action makes: Discrete(n) -> (n,), MultiDiscrete -> its counts, Box -> ()."""
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return (int(space.n),)
        if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and len(space.nvec):
            return tuple(space.nvec.tolist())
        if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.shape[0]:
            return ()
        raise TypeError(f"action space {space} is not supported; expected Discrete, or MultiDiscrete or Box of one dimension, not empty.")

    @property
    def action_size(self) -> int:
        """A: the width of a model action; for classes their one-hots one after another."""
        sizes = self.action_sizes
        return sum(sizes) if sizes else int(self.action_space.shape[0])  # type: ignore[index]

    def to_model_action(self, action: Tensor) -> Tensor:
        """Env actions -> model actions [...,A] float32: one-hot (one per choice, concatenated), or scaled to [-1,1].

        Env actions are int64 [...] for Discrete, int64 [...,N] for MultiDiscrete of N choices, float [...,A] for a Box.
        """
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return torch.nn.functional.one_hot(action.long() - int(space.start), int(space.n)).float()
        if isinstance(space, spaces.MultiDiscrete):
            first = self._choices(action.device)[1]
            hot = torch.zeros(*action.shape[:-1], self.action_size, device=action.device)
            return hot.scatter_(-1, action.long() + first, 1.0)
        low, high = self._action_bounds(action.device)
        return (torch.minimum(torch.maximum(action.float(), low), high) - low) * (2.0 / (high - low)) - 1.0

    def to_env_action(self, action: Tensor) -> Tensor:
        """Model actions [...,A] -> env actions: int64 [...] or [...,N] for classes, else float32 [...,A] within the bounds."""
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return action.argmax(-1) + int(space.start)
        if isinstance(space, spaces.MultiDiscrete):
            chosen = torch.stack([choice.argmax(-1) for choice in action.split(self.action_sizes, -1)], -1)
            return chosen + self._choices(action.device)[0]
        low, high = self._action_bounds(action.device)
        return low + (action.clamp(-1.0, 1.0) + 1.0) * (high - low) * 0.5

    def _choices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """MultiDiscrete's starts [N], and where in a model action each choice's class 0 would stand [N]."""
        space = self.action_space
        cached = _BOUNDS.get((id(space), device))
        if cached is None or cached[0] is not space:
            start = torch.as_tensor(space.start.astype(np.int64), device=device)  # type: ignore[attr-defined]
            sizes = torch.tensor([0, *self.action_sizes[:-1]], device=device)
            cached = (space, start, sizes.cumsum(0) - start)
            _BOUNDS[(id(space), device)] = cached
        return cached[1], cached[2]

    def _action_bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        cached = _BOUNDS.get((id(self.action_space), device))
        if cached is None or cached[0] is not self.action_space:
            space = self.action_space
            if not isinstance(space, spaces.Box) or not np.isfinite([space.low, space.high]).all() or not (space.low < space.high).all():
                raise TypeError(f"action space {space} must be Discrete, MultiDiscrete or a Box of finite bounds, low below high.")
            low, high = (torch.as_tensor(bound.astype(np.float32), device=device) for bound in (space.low, space.high))
            cached = (space, low, high)
            _BOUNDS[(id(space), device)] = cached
        return cached[1], cached[2]


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not PART_NAME.fullmatch(name):
        raise ValueError(
            f"a part of the observation is named {name!r}; expected 1 to 64 letters, digits, '_', '.' or '-'. Rename it in a "
            "gymnasium.wrappers.TransformObservation around the env."
        )
    return name


def _is_image(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8


def _is_part(space: spaces.Space[Any]) -> bool:
    if not isinstance(space, spaces.Box) or 0 in space.shape:
        return False
    return _is_image(space) or (len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating))


_BOUNDS: dict[tuple[int, torch.device], tuple[spaces.Space[Any], Tensor, Tensor]] = {}


@dataclass(frozen=True)
class SequenceBatch(TensorStruct):
    """Rows of experience, arrival-aligned. Windows may cross episode ends; is_first tells where.

    valid is false where the env gave a meaningless observation (ViZDoom's black terminal frame): learn its reward and end, not
    its pixels. A Dict observation has a tensor per part, named as in Spec.observation_parts. index is the row's number in the replay;
    embed holds precomputed encoder outputs where training has them.
    """

    obs: ObsTensors  # [B,T,...] uint8 images or float32 vectors, or a dict of those and int64 classes
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

    @classmethod
    def midway(cls, state: TensorStruct) -> StartBank:
        """Of states [N] none of which counts as an episode's start."""
        some = state.items()[0][1]
        return cls(state, torch.zeros(len(some), dtype=torch.bool, device=some.device))


@dataclass(frozen=True)
class DreamDefaults:
    """How a model wants to be dreamt unless the caller says otherwise; stored in its config.

    horizon and starts are for training doors (DreamVecEnv, training=True): steps until truncation (None: the real time limit), and
    whether dreams start from episode starts ("first") or from anywhere in the recorded data ("any"). max_uncertainty ends a dream
    whose prediction is more uncertain than that; uncertainty_penalty is subtracted, in units of reward, per unit of uncertainty
    (capped at 3). range_guard ends a dream that leaves the data's range. hold keeps the ensemble member (and dropout mask) for a
    "step" or an "episode". A "threshold" ends a dream where the chance of an end, 1 - continue_prob, is above end_probability. belief:
    whether the model is shown the mean or a sample of what awake observations may mean. dropout: the rate in dreams, None as trained.
    """

    horizon: int | None = None
    starts: Literal["first", "any"] = "first"
    max_uncertainty: float | None = None
    uncertainty_penalty: float = 0.0
    range_guard: bool = False
    temperature: float = 1.0
    hold: Literal["step", "episode"] = "step"
    termination: Literal["threshold", "sample", "never"] = "threshold"
    end_probability: float = 0.5
    belief: Literal["mean", "sample"] = "mean"
    dropout: float | None = None

    def __post_init__(self) -> None:
        if self.starts not in ("first", "any") or self.hold not in ("step", "episode"):
            raise ValueError(f"starts is {self.starts!r}, hold is {self.hold!r}; expected first|any and step|episode.")
        if self.termination not in ("threshold", "sample", "never"):
            raise ValueError(f"termination is {self.termination!r}; expected threshold, sample or never.")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; expected None or at least 1 step.")
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number of at least 0.")
        if not 0.0 < self.end_probability < 1.0:
            raise ValueError(f"end_probability is {self.end_probability}; expected a chance between 0 and 1.")
        if self.belief not in ("mean", "sample"):
            raise ValueError(f"belief is {self.belief!r}; expected mean or sample.")
        if self.dropout is not None and not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; expected None or a rate in [0, 1).")


class Policy(Protocol):
    """Anything that acts, with Stable-Baselines3's signature: ours, SB3's and a user's alike."""

    def predict(
        self,
        observation: Any,  # arrays, or a dict of arrays
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
    held for a whole episode (ensemble member, dropout mask). Optional: decode(state) -> obs [B,...] or a dict; observe (for real contexts);
    in_range(state) -> bool [B] (for the range guard); outcome(state) -> reward, continue_prob (predict without its uncertainty, for
    planners and actor-critics, whose time it takes); initial_states -> StartBank; defaults -> DreamDefaults; reward_low: float.
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
