"""What a dreamer sees: turns model states into the observation kinds that environments offer, and says their spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.dreams.drawing import frame
from dreamgym.structs import DreamableModel, Observation, ObsTensors, Spec, map_obs

__all__ = ["OBS_TYPES", "Observation", "ObservationReader", "ObsTensors", "frames", "num_rows", "to_numpy", "to_torch"]

OBS_TYPES = ("pixels", "vector", "parts", "latent", "dict")

_UNSTATED_BOUND = 1e6  # of features whose model states none; finite, because checkers warn of infinite boxes


class ObservationReader:
    """Reads observations of one kind from states; decodes only where the kind needs it.

    obs_type "pixels", "vector" and "parts" (of a Dict) are the model's own observations, decoded; "latent" is model.features, clipped
    to their bounds; "dict" is both. None picks the model's own kind, or "latent" for a model that cannot decode.
    """

    def __init__(self, model: DreamableModel, obs_type: str | None, device: torch.device) -> None:
        self._model: Any = model
        own = _own_kind(model.spec)
        can_decode = hasattr(model, "decode")
        choices = (own, "latent", "dict") if can_decode else ("latent",)
        self.obs_type = (own if can_decode else "latent") if obs_type is None else obs_type
        if self.obs_type not in choices:
            raise ValueError(f"obs_type is {obs_type!r}; this model ({model.spec.env_id}) offers {', '.join(map(repr, choices))}.")
        self.own_kind = own
        self.decodes = self.obs_type != "latent"
        low, high = _feature_bounds(self._model)
        self._low, self._high = torch.as_tensor(low, device=device), torch.as_tensor(high, device=device)
        self._parts = _parts(model.spec.observation_space)
        self._bounds = {name: _decode_bounds(part, device) for name, part in self._parts.items()}
        self.latent_space = spaces.Box(low, high, dtype=np.float32)
        self.can_decode = can_decode
        self.stack = model.spec.preprocess.stack
        self.space = self._space()

    @property
    def own_space(self) -> spaces.Space[Any]:
        """The space of the model's own observations."""
        return self._model.spec.observation_space

    def read(self, state: Any) -> ObsTensors:
        """Observations [B,...] of a state [B], as new tensors that share nothing with the state."""
        if self.obs_type == "latent":
            return self.latent(state)
        if self.obs_type == "dict":
            return self.joined(self.decoded(state), self.latent(state))
        return self.decoded(state)

    def joined(self, own: Any, latent: Any) -> dict[str, Any]:
        """What obs_type "dict" shows; a Dict observation gains the features as one more part."""
        return {**(own if isinstance(own, dict) else {self.own_kind: own}), "latent": latent}

    def latent(self, state: Any) -> Tensor:
        """Features [B,F] float32, clipped to their bounds."""
        return torch.clamp(self._model.features(state), self._low, self._high)

    def decoded(self, state: Any) -> ObsTensors:
        """The model's own observation [B,...], clipped to the observation space (a prediction may overshoot it)."""
        obs = self._model.decode(state)
        if isinstance(obs, dict):
            return {name: self._clipped(obs[name], name) for name in self._parts}
        return self._clipped(obs, "obs")

    def _clipped(self, obs: Tensor, name: str) -> Tensor:
        if obs.dtype == torch.uint8:
            return obs.clone()
        space, (low, high) = self._parts[name], self._bounds[name]
        if isinstance(space, spaces.Discrete):
            return torch.clamp(obs.round(), low, high).long()
        obs = torch.clamp(obs, low, high)
        return obs if np.issubdtype(_dtype(space), np.floating) else obs.round()

    def _space(self) -> spaces.Space[Any]:
        if self.obs_type == "latent":
            return self.latent_space
        own = self._model.spec.observation_space
        if self.obs_type == self.own_kind:
            return own
        if "latent" in self._parts:
            raise ValueError("obs_type is 'dict', but this model's observation has a part named 'latent' itself; pass 'latent' or 'parts'.")
        return spaces.Dict(self.joined(self._parts if isinstance(own, spaces.Dict) else own, self.latent_space))


def _parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """Looser than Spec.observation_parts: what a foreign model decodes need not be what ours can learn."""
    return {name: space[name] for name in sorted(space)} if isinstance(space, spaces.Dict) else {"obs": space}


def _own_kind(spec: Spec) -> str:
    if isinstance(spec.observation_space, spaces.Dict):
        return "parts"
    return "pixels" if spec.is_image else "vector"


def frames(reader: ObservationReader, state: Any, size: int) -> tuple[NDArray[np.uint8], ...]:
    """A picture [Y,X,3] uint8 of each row of a state: the decoded observation, or the features where there is no decoder."""
    obs, space = (reader.decoded(state), reader.own_space) if reader.can_decode else (reader.latent(state), reader.latent_space)
    arrays = to_numpy(obs, space)
    rows = [map_obs(lambda values: values[row], arrays) for row in range(num_rows(arrays))]  # noqa: B023
    return tuple(frame(row, space, size, stack=reader.stack) for row in rows)


def num_rows(obs: Any) -> int:
    """B of observations [B,...]."""
    return len(next(iter(obs.values())) if isinstance(obs, dict) else obs)


def to_numpy(obs: ObsTensors, space: spaces.Space[Any]) -> Observation:
    """Observations as arrays of exactly the space's dtype."""
    if isinstance(obs, dict):
        assert isinstance(space, spaces.Dict)
        return {key: _array(value, space[key]) for key, value in obs.items()}
    return _array(obs, space)


def to_torch(obs: ObsTensors) -> ObsTensors:
    """Copies made outside inference mode, which a user's policy may train on (autograd refuses inference tensors)."""
    return map_obs(Tensor.clone, obs)


def _array(value: Tensor, space: spaces.Space[Any]) -> NDArray[Any]:
    array = value.cpu().numpy().astype(_dtype(space), copy=False)
    return array[()] if array.ndim == 0 else array  # a class is a number, not an array of shape ()


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
    if isinstance(space, spaces.Discrete):
        return torch.tensor(int(space.start), device=device), torch.tensor(int(space.start + space.n) - 1, device=device)
    if not isinstance(space, spaces.Box):
        raise TypeError(f"observation space {space} is not supported; expected a Box, or a Dict of Box and Discrete.")
    low, high = (torch.as_tensor(bound.astype(np.float32), device=device) for bound in (space.low, space.high))
    return low, high
