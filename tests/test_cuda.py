"""What a GPU would mind: tensors of two devices in one operation, and waiting for values. Checked with and without a GPU.

Without one, torch's "meta" device stands in, whose tensors have shapes and no numbers. The model lives there, batches come from the CPU,
and an operation that mixes the two fails here as it would on a GPU. So does whatever makes a program wait for its GPU: asking for a
value (float, bool, nonzero), or making a small tensor there from Python numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.belief import StepKey
from dreamgym.agents.planning import CEM, MPPI, CEMConfig, MPPIConfig
from dreamgym.dreams.engine import DreamEngine
from dreamgym.models.calibration import filter_episode
from dreamgym.models.contrastive import Contrastive
from dreamgym.models.kl import KLConfig
from dreamgym.models.objectives import DreamerObjective
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import SequenceBatch, Spec, map_obs
from dreamgym.training.learners import Randomness
from dreamgym.training.online_config import OnlinePreset
from dreamgym.training.online_learner import OnlineLearner
from dreamgym.training.online_presets import ONLINE_PRESETS, online_preset

PRETENDED = torch.device("meta")
B, T = 2, 3

_CAMERA = spaces.Box(0, 255, (64, 64, 3), np.uint8)
WORLDS = {
    "pixels": Spec("dm_control/walker-walk-pixels-v0", _CAMERA, spaces.Box(-1.0, 1.0, (6,), np.float32), 500),
    "vector": Spec("CartPole-v1", spaces.Box(-np.inf, np.inf, (4,), np.float32), spaces.Discrete(2), 500),
    "parts": Spec(
        "Toys/Parts",
        spaces.Dict(camera=_CAMERA, body=spaces.Box(-1.0, 1.0, (3,), np.float32), side=spaces.Discrete(2, start=1)),
        spaces.MultiDiscrete([3, 2]),
        100,
    ),
}


class _Devices(TorchDispatchMode):
    """Refuses operations on tensors of two devices, unless they copy. A GPU takes numbers (0 dimensions) from the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim() > 0}
        if len(found) > 1 and func.overloadpacket not in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            raise AssertionError(f"{func} mixes devices: {sorted(found)}")
        return func(*args, **(kwargs or {}))


class _Constants(TorchFunctionMode):
    """Refuses tensors made there from Python numbers or lists: each time, a GPU would be waited for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if made and torch.device(kwargs.get("device") or "cpu") == PRETENDED:
            raise AssertionError(f"{func.__name__}(..., device=...) waits for the device")
        return func(*args, **kwargs)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While it is open, what a GPU would mind is an error."""
    with pytest.MonkeyPatch.context() as patch, _Devices(), _Constants():
        patch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # torch knows none for "meta"
        patch.setattr(torch.optim.Adam, "step", lambda self: None)  # torch's own business; LaProp is ours
        yield


@pytest.fixture(autouse=True)
def _reward_low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldModel, "reward_low", -1.0)  # a number of the model's, asked for once when a guard is made


def _preset(name: str, world: str, size: Any = "tiny") -> OnlinePreset:
    """A paper's preset with short dreams: the devices of step 3 are those of step 15."""
    preset = online_preset(name, WORLDS[world], size)
    agent = preset.agent
    if isinstance(agent, ActorCriticConfig):
        return replace(preset, agent=replace(agent, horizon=3))
    return replace(preset, agent=replace(agent, horizon=2, iterations=2, candidates=6, elites=2, max_rows=8))


def _model(preset: OnlinePreset, world: str) -> WorldModel:
    with torch.device("meta"):  # no time is lost on weights
        return WorldModel(WORLDS[world], preset.model)


def _agent(preset: OnlinePreset, model: WorldModel) -> Any:
    if isinstance(preset.agent, CEMConfig):
        return CEM(model, preset.agent)
    assert isinstance(preset.agent, ActorCriticConfig)
    with torch.device("meta"):
        return ActorCritic(model.spec, model.core.feature_size, preset.agent)


def _batch(spec: Spec) -> SequenceBatch:
    """Rows as a replay gives them: on the CPU."""
    flags = {name: torch.zeros(B, T, dtype=torch.bool) for name in ("is_first", "is_last", "is_terminal")}
    flags["valid"] = ~flags["is_first"]
    parts = {name: torch.zeros(B, T, *(part.shape or ()), dtype=_dtype(part)) for name, part in spec.observation_parts.items()}
    obs = parts if isinstance(spec.observation_space, spaces.Dict) else parts["obs"]
    action, index = torch.zeros(B, T, spec.action_size), torch.zeros(B, T, dtype=torch.int64)
    return SequenceBatch(obs=obs, prev_action=action, reward=torch.zeros(B, T), index=index, **flags)


def _dtype(space: Any) -> torch.dtype:
    return {"u": torch.uint8, "i": torch.int64, "f": torch.float32}[np.dtype(space.dtype).kind]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ONLINE_PRESETS)
def test_an_update_keeps_to_one_device_and_waits_for_nothing(name, world):
    preset = _preset(name, world)
    model = _model(preset, world)
    learner = OnlineLearner(model, _agent(preset, model), preset, Randomness(0))
    carry = model.initial(B) if preset.training.carry == "stored" else None
    with watched():
        metrics, states = learner.update(_batch(model.spec), carry, 0)
    devices = {tensor.device for tensor in metrics.values()} | {tensor.device for _, tensor in states.items()}
    assert devices == {PRETENDED}


@pytest.mark.parametrize(("name", "world"), [("dreamer-v2", "pixels"), ("dreamer-v3", "pixels"), ("dreamer-v1", "vector")])
def test_an_update_at_the_papers_size_keeps_to_one_device(name, world):
    preset = _preset(name, world, "paper")
    model = _model(preset, world)
    learner = OnlineLearner(model, _agent(preset, model), preset, Randomness(0))
    carry = model.initial(B) if preset.training.carry == "stored" else None
    with watched():
        metrics, _ = learner.update(_batch(model.spec), carry, 0)
    assert {tensor.device for tensor in metrics.values()} == {PRETENDED}


OBJECTIVES = {
    "contrastive": DreamerObjective(observation=Contrastive(layers=1, units=8)),
    "all pairs": DreamerObjective(observation=Contrastive(contrast_over="state", negatives="all", layers=1, units=8)),
    "overshooting": DreamerObjective(kl=KLConfig(overshooting_distance=3, overshooting_scale=1.0, global_prior=0.1)),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_other_objectives_keep_to_one_device(objective):
    preset = _preset("planet", "parts")
    core = replace(preset.model.core, prior_members=3)
    model = _model(replace(preset, model=replace(preset.model, core=core, objective=objective)), "parts")
    noise = torch.rand(B, T, model.noise_lanes, generator=torch.Generator()).to(PRETENDED)
    with watched():
        assert model.loss(_batch(model.spec).to(PRETENDED), noise).total.device == PRETENDED


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("config", [CEMConfig, MPPIConfig])
def test_planning_keeps_to_one_device(config, world, monkeypatch):
    asked: list[Tensor] = []  # once a plan, whether its scores are finite
    monkeypatch.setattr(Tensor, "__bool__", lambda tensor: asked.append(tensor) is None)
    model = _model(_preset("planet", world), world)
    settings = {"horizon": 2, "iterations": 2, "candidates": 6, "elites": 2, "max_rows": 8, "warm_start": True}
    options = {} if config is CEMConfig else {"policy": lambda features, noise: torch.tanh(noise), "value": lambda features: features[:, 0]}
    if config is MPPIConfig:
        settings["policy_candidates"] = 2
    planner = (CEM if config is CEMConfig else MPPI)(model, config(**settings), **options)
    state, memory = model.initial(B), None
    for _ in range(2):
        key = StepKey(*(torch.zeros(B, dtype=torch.int64) for _ in range(3))).to(PRETENDED)
        with watched():
            action, memory = planner.act(state, memory, key)
    assert action.device == memory.score.device == PRETENDED and len(asked) == 2


@pytest.mark.parametrize(("world", "temperature"), [("pixels", 0.5), ("vector", 1.0), ("parts", (0.5, 1.0))], ids=WORLDS)
@pytest.mark.parametrize("name", ONLINE_PRESETS)
def test_a_dream_keeps_to_one_device_and_waits_for_nothing(name, world, temperature):
    model = _model(_preset(name, world), world)
    engine = DreamEngine(model, 3, uncertainty_penalty=0.5, temperature=temperature, termination="sample")
    engine.reset(seeds=[1, 2, 3])
    with watched():
        result = engine.step(torch.zeros(3, model.spec.action_size).to(PRETENDED))
        engine.reset(result.truncated)
        seen, features = engine.decode(), engine.features()
    tensors = [tensor for _, tensor in result.items()] + [features, *(seen.values() if isinstance(seen, dict) else [seen])]
    assert {tensor.device for tensor in tensors} == {PRETENDED}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ONLINE_PRESETS)
def test_looking_keeps_to_one_device_and_waits_for_nothing(name, world):
    """A belief about real observations, one row at a time and a sequence at once."""
    model = _model(_preset(name, world), world)
    rows = _batch(model.spec).to(PRETENDED)
    noise = torch.rand(B, model.noise_lanes).to(PRETENDED)
    obs = map_obs(lambda values: values[:, 0], rows.obs)
    with watched():
        state = model.observe(model.initial(B), rows.prev_action[:, 0], obs, rows.is_first[:, 0], noise)
        assert model.features(state).device == filter_episode(model, rows)[1].device == PRETENDED


# ---- what the pretence is worth -------------------------------------------------------------------------------------------


def test_a_tensor_left_behind_is_noticed():
    there, here = torch.zeros(3).to(PRETENDED), torch.zeros(3)
    with watched(), pytest.raises(AssertionError, match="mixes devices"):
        there + here


WAITS = [float, bool, lambda there: there.nonzero(), lambda there: torch.tensor([1.0], device=there.device)]


@pytest.mark.parametrize("ask", WAITS, ids=["float", "bool", "nonzero", "constant"])
def test_waiting_is_noticed(ask):
    there = torch.zeros(()).to(PRETENDED)
    with watched(), pytest.raises((AssertionError, RuntimeError), match=r"meta|device"):
        ask(there)
