"""What a dreamer sees: turns model states into the observation kinds that environments offer, and says their spaces."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.dreams.drawing import frame
from dreamgym.structs import DreamableModel

__all__ = ["OBS_TYPES", "Observation", "ObservationReader", "Tensors", "frames", "to_numpy", "to_torch"]

OBS_TYPES = ("pixels", "vector", "latent", "dict")
Tensors: TypeAlias = "Tensor | dict[str, Tensor]"
Observation: TypeAlias = "NDArray[Any] | dict[str, NDArray[Any]]"

_UNSTATED_BOUND = 1e6  # of features whose model states none; finite, because checkers warn of infinite boxes


class ObservationReader:
    """Reads observations of one kind from states; decodes only where the kind needs it.

    obs_type "pixels" and "vector" are the model's own observations, decoded; "latent" is model.features, clipped to their
    bounds; "dict" is both. None picks the model's own kind, or "latent" for a model that cannot decode.
    """

    def __init__(self, model: DreamableModel, obs_type: str | None, device: torch.device) -> None:
        self._model: Any = model
        own = "pixels" if model.spec.is_image else "vector"
        can_decode = hasattr(model, "decode")
        choices = (own, "latent", "dict") if can_decode else ("latent",)
        self.obs_type = (own if can_decode else "latent") if obs_type is None else obs_type
        if self.obs_type not in choices:
            raise ValueError(f"obs_type is {obs_type!r}; this model ({model.spec.env_id}) offers {', '.join(map(repr, choices))}.")
        self.own_kind = own
        self.decodes = self.obs_type != "latent"
        low, high = _feature_bounds(self._model)
        self._low, self._high = torch.as_tensor(low, device=device), torch.as_tensor(high, device=device)
        self._bounds = _decode_bounds(model.spec.observation_space, device)
        self.latent_space = spaces.Box(low, high, dtype=np.float32)
        self.can_decode = can_decode
        self.space = self._space()

    @property
    def own_space(self) -> spaces.Space[Any]:
        """The space of the model's own observations."""
        return self._model.spec.observation_space

    def read(self, state: Any) -> Tensors:
        """Observations [B,...] of a state [B], as new tensors that share nothing with the state."""
        if self.obs_type == "latent":
            return self.latent(state)
        if self.obs_type == "dict":
            return {self.own_kind: self.decoded(state), "latent": self.latent(state)}
        return self.decoded(state)

    def latent(self, state: Any) -> Tensor:
        """Features [B,F] float32, clipped to their bounds."""
        return torch.clamp(self._model.features(state), self._low, self._high)

    def decoded(self, state: Any) -> Tensor:
        """The model's own observation [B,...], clipped to the observation space (a prediction may overshoot it)."""
        obs = self._model.decode(state)
        if obs.dtype == torch.uint8:
            return obs.clone()
        obs = torch.clamp(obs, *self._bounds)
        integer = not np.issubdtype(_dtype(self._model.spec.observation_space), np.floating)
        return obs.round() if integer else obs

    def _space(self) -> spaces.Space[Any]:
        if self.obs_type == "latent":
            return self.latent_space
        own = self._model.spec.observation_space
        return own if self.obs_type == self.own_kind else spaces.Dict({self.own_kind: own, "latent": self.latent_space})


def frames(reader: ObservationReader, state: Any, size: int) -> tuple[NDArray[np.uint8], ...]:
    """A picture [Y,X,3] uint8 of each row of a state: the decoded observation, or the features where there is no decoder."""
    obs, space = (reader.decoded(state), reader.own_space) if reader.can_decode else (reader.latent(state), reader.latent_space)
    return tuple(frame(row, space, size) for row in obs.cpu().numpy())


def to_numpy(obs: Tensors, space: spaces.Space[Any]) -> Observation:
    """Observations as arrays of exactly the space's dtype."""
    if isinstance(obs, dict):
        assert isinstance(space, spaces.Dict)
        return {key: _array(value, space[key]) for key, value in obs.items()}
    return _array(obs, space)


def to_torch(obs: Tensors) -> Tensors:
    """Copies made outside inference mode, which a user's policy may train on (autograd refuses inference tensors)."""
    return {key: value.clone() for key, value in obs.items()} if isinstance(obs, dict) else obs.clone()


def _array(value: Tensor, space: spaces.Space[Any]) -> NDArray[Any]:
    return value.cpu().numpy().astype(_dtype(space), copy=False)


def _dtype(space: spaces.Space[Any]) -> np.dtype[Any]:
    assert space.dtype is not None
    return np.dtype(space.dtype)


def _feature_bounds(model: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if hasattr(model, "feature_low") and hasattr(model, "feature_high"):
        return np.asarray(model.feature_low, np.float32), np.asarray(model.feature_high, np.float32)
    with torch.no_grad():
        size = model.features(model.initial(1)).shape[-1]
    bound = np.full(size, _UNSTATED_BOUND, np.float32)
    return -bound, bound


def _decode_bounds(space: spaces.Space[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    if not isinstance(space, spaces.Box):
        raise TypeError(f"observation space {space} is not supported; expected a Box.")
    low, high = (torch.as_tensor(bound.astype(np.float32), device=device) for bound in (space.low, space.high))
    return low, high
