"""The smallest agent that acts well: a linear map of the model's features, or one with a few hidden units, as one vector of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamgym.agents.agent_files import read_agent, write_agent
from dreamgym.agents.features import read_features
from dreamgym.agents.sharing import push_agent
from dreamgym.formats.files import FileSet
from dreamgym.structs import Spec

__all__ = [
    "ArgmaxActions",
    "BoxActions",
    "LinearController",
    "LinearControllerConfig",
    "PedalActions",
    "ThresholdActions",
    "code_ranges",
]

# ---- what outputs mean ----------------------------------------------------------------------------------------------------

_DRAWN_APART = 6.0  # with it a clone of TakeCover's actor-critic seldom stands still and lives longest (docs/log.md, 2026-11-30)
_EDGE = 0.99  # of tanh's range: beyond it the inverse explodes


@dataclass(frozen=True)
class ThresholdActions:
    """One output whose range [-1,1] is cut into equal parts, one class each, from low to high; order () is 0, 1, 2, ...

    The paper's TakeCover is order (2, 0, 1): left below -1/3, nothing, right above 1/3 (classes as ViZDoom's gymnasium env counts them).
    """

    order: tuple[int, ...] = ()

    def outputs(self, spec: Spec) -> int:
        """How many numbers the controller gives. Raises ValueError where the actions are none of these."""
        classes = spec.action_sizes[0] if isinstance(spec.action_space, spaces.Discrete) else 0
        order = self.order or tuple(range(classes))
        if len(set(order)) != len(order) or not order or not set(order) <= set(range(classes)):
            raise ValueError(f"order is {self.order} for action space {spec.action_space}; expected different classes of a Discrete space.")
        return 1

    def model_action(self, raw: Tensor, spec: Spec) -> Tensor:
        """Raw outputs [...,1] -> model actions [...,A]."""
        A = spec.action_size
        order = torch.tensor(self.order or tuple(range(A)), device=raw.device)
        parts = len(order)
        part = ((raw[..., 0].tanh() + 1.0) * (0.5 * parts)).long().clamp(0, parts - 1)
        return torch.eye(A, device=raw.device)[order[part]]

    def raw_of(self, action: Tensor, spec: Spec) -> Tensor:
        """Model actions [...,A] -> raw outputs [...,1] that stand for them; chances of the classes give the mean of theirs.

        Of up to three classes the outer ones are drawn apart, so that the middle is left to where they are about equally likely.
        """
        order = self.order or tuple(range(spec.action_size))
        places = torch.arange(len(order), dtype=action.dtype, device=action.device)
        middles = ((2.0 * places + 1.0) / len(order) - 1.0).atanh()
        return (action[..., list(order)] @ middles).unsqueeze(-1) * (_DRAWN_APART if len(order) <= 3 else 1.0)


@dataclass(frozen=True)
class ArgmaxActions:
    """One output per class; the highest wins, in each choice an action makes."""

    def outputs(self, spec: Spec) -> int:
        """How many numbers the controller gives. Raises ValueError where the actions are no classes."""
        if not spec.is_discrete:
            raise ValueError(f"ArgmaxActions choose among classes, but the action space is {spec.action_space}; take BoxActions.")
        return spec.action_size

    def model_action(self, raw: Tensor, spec: Spec) -> Tensor:
        """Raw outputs [...,A] -> one-hots [...,A]."""
        choices = [nn.functional.one_hot(choice.argmax(-1), choice.shape[-1]) for choice in raw.split(list(spec.action_sizes), -1)]
        return torch.cat(choices, -1).float()

    def raw_of(self, action: Tensor, spec: Spec) -> Tensor:
        """Model actions [...,A], or chances of the classes -> raw outputs [...,A] that stand for them, of mean 0 in each choice."""
        return torch.cat([choice - choice.mean(-1, keepdim=True) for choice in action.split(list(spec.action_sizes), -1)], -1)


@dataclass(frozen=True)
class BoxActions:
    """One output per dimension, tanh, scaled to the action's bounds."""

    def outputs(self, spec: Spec) -> int:
        """How many numbers the controller gives. Raises ValueError where the actions are no Box."""
        if spec.is_discrete:
            raise ValueError(f"BoxActions fill a Box, but the action space is {spec.action_space}; take ArgmaxActions.")
        return spec.action_size

    def model_action(self, raw: Tensor, spec: Spec) -> Tensor:
        """Raw outputs [...,A] -> model actions [...,A]."""
        return raw.tanh()

    def raw_of(self, action: Tensor, spec: Spec) -> Tensor:
        """Model actions [...,A] -> raw outputs [...,A] that stand for them."""
        return action.clamp(-_EDGE, _EDGE).atanh()


@dataclass(frozen=True)
class PedalActions:
    """CarRacing as in the paper: steer = tanh, gas = (tanh + 1) / 2, brake = tanh where it is positive."""

    def outputs(self, spec: Spec) -> int:
        """How many numbers the controller gives. Raises ValueError where the actions are not steer, gas and brake."""
        space = spec.action_space
        low, high = [-1.0, 0.0, 0.0], [1.0, 1.0, 1.0]
        if not (isinstance(space, spaces.Box) and space.low.tolist() == low and space.high.tolist() == high):
            raise ValueError(f"PedalActions are CarRacing's steer, gas and brake, Box({low}, {high}); the action space is {space}.")
        return 3

    def model_action(self, raw: Tensor, spec: Spec) -> Tensor:
        """Raw outputs [...,3] -> model actions [...,3]: gas and brake fill [-1,1] there, so the middle is half."""
        steer, gas, brake = raw.tanh().unbind(-1)
        return torch.stack([steer, gas, 2.0 * brake.clamp(min=0.0) - 1.0], -1)

    def raw_of(self, action: Tensor, spec: Spec) -> Tensor:
        """Model actions [...,3] -> raw outputs [...,3] that stand for them."""
        steer, gas, brake = action.unbind(-1)
        return torch.stack([steer, gas, 0.5 * (brake + 1.0)], -1).clamp(-_EDGE, _EDGE).atanh()


Actions = ThresholdActions | ArgmaxActions | BoxActions | PedalActions

# ---- the controller -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearControllerConfig:
    """Defaults: the paper's TakeCover (specs/world-models.md 5), all features and no bias; its CarRacing has a bias.

    inputs: which features are read, ranges [first, last) in order; () reads all. For an MDN-RNN, `code_ranges` names them.
    hidden: tanh units between (40 in the paper's ablation), None for a linear map. actions None: BoxActions for a Box, else ArgmaxActions.
    """

    inputs: tuple[tuple[int, int], ...] = ()
    hidden: int | None = None
    bias: bool = False
    actions: ThresholdActions | ArgmaxActions | BoxActions | PedalActions | None = None

    def __post_init__(self) -> None:
        if any(len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] for bounds in self.inputs):
            raise ValueError(f"inputs is {self.inputs}; expected ranges (first, last) of features, first below last.")
        if self.hidden is not None and not 1 <= self.hidden <= 4096:
            raise ValueError(f"hidden is {self.hidden}; expected None or 1 to 4096 units.")


class LinearController(nn.Module):
    """Acts on features [B,F] by a pure function of them and of `vector` [N], which is all it learns; `predict` is Stable-Baselines3's.

    The vector holds the first layer's weights [hidden or outputs, inputs] row by row, its biases, then the second layer's.
    Raises ValueError for inputs outside the features, or actions that the space does not have.
    Source: Ha & Schmidhuber 2018, arXiv 1803.10122; 1088 parameters for [z, c, h] of TakeCover, 867 for [z, h] of CarRacing.
    """

    weights: Tensor  # [N]

    def __init__(self, spec: Spec, feature_size: int, config: LinearControllerConfig | None = None) -> None:
        super().__init__()
        self.spec, self.feature_size, self.config = spec, feature_size, config or LinearControllerConfig()
        self.actions: Actions = self.config.actions or (ArgmaxActions() if spec.is_discrete else BoxActions())
        self._ranges = self.config.inputs or ((0, feature_size),)
        if max(last for _, last in self._ranges) > feature_size:
            raise ValueError(f"inputs are {self.config.inputs}, but there are {feature_size} features.")
        sizes = [sum(last - first for first, last in self._ranges), self.config.hidden, self.actions.outputs(spec)]
        known = [size for size in sizes if size is not None]
        self._layers = tuple(pairwise(known))
        self.num_parameters = sum((wide + self.config.bias) * units for wide, units in self._layers)
        self.register_buffer("weights", torch.zeros(self.num_parameters))

    @property
    def vector(self) -> NDArray[np.float32]:
        """The parameters, [N] float32; may be set from any array of that length."""
        return self.weights.cpu().numpy().copy()

    @vector.setter
    def vector(self, values: Any) -> None:
        values = torch.as_tensor(np.asarray(values)).float()
        if values.shape != self.weights.shape or not torch.isfinite(values).all():
            raise ValueError(f"vector has shape {tuple(values.shape)}; expected {tuple(self.weights.shape)}, all finite.")
        self.weights.copy_(values)

    def act_many(self, parameters: Tensor, features: Tensor) -> Tensor:
        """Model actions [P,M,A] of P controllers, parameters [P,N], on M features each, [P,M,F]."""
        hidden = self._read(features)
        offset = 0
        for number, (wide, units) in enumerate(self._layers):
            weight = parameters[:, offset : offset + wide * units].unflatten(1, (units, wide))
            offset += wide * units
            hidden = torch.bmm(hidden.tanh() if number else hidden, weight.mT)
            if self.config.bias:
                hidden = hidden + parameters[:, None, offset : offset + units]
                offset += units
        return self.actions.model_action(hidden, self.spec)

    @torch.no_grad()
    def predict(
        self,
        observation: NDArray[Any],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Latent observations [F] or [B,F] -> the environment's actions. There is nothing random in it."""
        features = read_features(observation, self.feature_size, self.weights.device)
        action = self.act_many(self.weights.unsqueeze(0), features.reshape(1, -1, self.feature_size))[0]
        action = action.reshape(*features.shape[:-1], -1)
        return self.spec.to_env_action(action.cpu()).numpy(), state

    @torch.no_grad()
    def imitate(self, features: Tensor, actions: Tensor, ridge: float = 10.0) -> float:
        """Become the linear map that comes closest to `actions` [N,A] in the model's units, on features [N,F]: by least squares.

        Of classes, chances may be given. ridge is charged per squared parameter, biases free, beside a sum over the N. Returns the share of
        the outputs' variance that the map explains. Raises ValueError for a controller with a hidden layer, or for other numbers of rows.
        """
        self.check_linear()
        seen = self._read(features).double()
        wide, bias = self._layers[0][0], self.config.bias
        if not len(features) or len(features) != len(actions):
            raise ValueError(f"features have {len(features)} rows, actions {len(actions)}; expected as many, at least one.")
        target = self.actions.raw_of(actions.double(), self.spec)
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1) if bias else seen
        charge = torch.full((seen.shape[1],), ridge, dtype=torch.float64, device=seen.device)
        charge[wide:] = 0.0
        solved = torch.linalg.solve(seen.T @ seen + charge.diag(), seen.T @ target)  # [inputs (and 1), outputs]
        self.vector = torch.cat([solved[:wide].T.flatten(), solved[wide:].flatten()]).cpu()
        return float(1.0 - (seen @ solved - target).square().mean() / target.var(0, unbiased=False).mean())

    def check_linear(self) -> None:
        """Raises ValueError for a controller with a hidden layer, which `imitate` cannot fit."""
        if len(self._layers) > 1:
            raise ValueError(f"least squares find a linear map, and this controller has {self.config.hidden} hidden units.")

    def save(self, folder: str | Path) -> None:
        """Write agent.json and agent.safetensors."""
        write_agent(folder, self, feature_size=self.feature_size, config=self.config, kind="linear")

    def push_to_hub(self, repo_id: str, *, license: str, **options: Any) -> Any:
        """Share it on the Hub as one commit, linked to its world model; see dreamgym.hub.sharing.push_agent. Returns commit and page."""
        return push_agent(self, repo_id, license=license, **options)

    @classmethod
    def load(cls, folder: str | Path | FileSet, spec: Spec) -> LinearController:
        """Read what `save` wrote, in a folder or the Hub's cache; spec: the world model's. Raises ModelNotFoundError, InvalidModelError."""
        return read_agent(folder, LinearControllerConfig, lambda size, config: cls(spec, size, config), kind="linear")

    def _read(self, features: Tensor) -> Tensor:
        if len(self._ranges) == 1:
            first, last = self._ranges[0]
            return features[..., first:last]
        return torch.cat([features[..., first:last] for first, last in self._ranges], -1)


def code_ranges(model: Any, inputs: Literal["z", "h", "zh", "zch"]) -> tuple[tuple[int, int], ...]:
    """Where an MDN-RNN's features hold the code z, the cell c and the memory h: what LinearControllerConfig.inputs wants.

    Raises ValueError where the model's features lack one of them.
    """
    core = model.core
    there: str = core.config.features
    if inputs not in ("z", "h", "zh", "zch") or not set(inputs) <= set(there):
        raise ValueError(f"inputs is {inputs!r}; expected z, h, zh or zch, and the model's features are {there!r}.")
    widths = {"z": core.stoch_size, "c": core.deter_size, "h": core.deter_size}
    ranges, first = [], 0
    for part in there:
        if part in inputs:
            ranges.append((first, first + widths[part]))
        first += widths[part]
    return tuple(ranges)
