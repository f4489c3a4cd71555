"""What a GPU minds: tensors of two devices in one operation, and waiting for values. Checked without a GPU, and again on one.

Without, torch's "meta" device stands in, whose tensors have shapes and no numbers. The model lives there, batches come from the CPU,
and an operation that mixes the two fails here as it would on a GPU. So does whatever makes a program wait for its GPU: asking for a
value (float, bool, nonzero), or making a small tensor there from Python numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dreamgym
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
from dreamgym.training.online import OnlineTrainer
from dreamgym.training.online_config import OnlinePreset
from dreamgym.training.online_learner import OnlineLearner
from dreamgym.training.online_presets import ONLINE_PRESETS, online_preset
from dreamgym.training.presets import PRESETS
from tests.training.online_toys import ClassLine, Line, spec_of, tiny_planet, tiny_preset, tiny_v3

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
    parts = {name: _seen(part) for name, part in spec.observation_parts.items()}
    obs = parts if isinstance(spec.observation_space, spaces.Dict) else parts["obs"]
    action, index = torch.zeros(B, T, spec.action_size), torch.zeros(B, T, dtype=torch.int64)
    return SequenceBatch(obs=obs, prev_action=action, reward=torch.zeros(B, T), index=index, **flags)


def _seen(space: Any) -> Tensor:
    """Observations [B,T,...] of one part, always the same."""
    rng, shape = np.random.default_rng(0), (B, T, *(space.shape or ()))
    if isinstance(space, spaces.Discrete):
        return torch.from_numpy(rng.integers(space.start, space.start + space.n, shape))
    return torch.from_numpy(rng.integers(256, size=shape).astype(np.uint8) if space.dtype == np.uint8 else rng.random(shape, np.float32))


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


@pytest.mark.parametrize(("name", "world"), [("ensemble", "vector"), ("vae-rssm", "pixels")])
def test_the_staged_models_keep_to_one_device(name, world):
    with torch.device("meta"):
        model = WorldModel(WORLDS[world], PRESETS[name].model)
    noise = torch.rand(B, T, model.noise_lanes).to(PRETENDED)
    with watched():
        losses = model.loss(_batch(model.spec).to(PRETENDED), noise)
        torch.autograd.grad(losses.total, model.trainable_parameters(), allow_unused=True)
    assert losses.total.device == PRETENDED


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
def test_a_dream_keeps_to_one_device_and_waits_for_nothing(name, world, temperature, monkeypatch):
    monkeypatch.setattr(WorldModel, "reward_low", -1.0)  # asked for once, when a guard that halts is made
    model = _model(_preset(name, world), world)
    guard: dict[str, Any] = {"uncertainty_penalty": 0.5, "max_uncertainty": 2.0, "range_guard": True}
    engine = DreamEngine(model, 3, temperature=temperature, termination="sample", **guard)
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


# ---- on a GPU -------------------------------------------------------------------------------------------------------------

GPU = torch.device("cuda")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RECIPES = {"planet": tiny_planet, "v1": tiny_preset, "v3": tiny_v3}


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """torch raises where the program would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _learner(preset: OnlinePreset, world: str, device: torch.device) -> OnlineLearner:
    torch.manual_seed(0)
    model = WorldModel(WORLDS[world], preset.model).to(device)
    if isinstance(preset.agent, ActorCriticConfig):
        return OnlineLearner(model, ActorCritic(model.spec, model.core.feature_size, preset.agent).to(device), preset, Randomness(0))
    return OnlineLearner(model, _agent(preset, model), preset, Randomness(0))


def _update(learner: OnlineLearner, number: int) -> dict[str, Tensor]:
    carry = learner.model.initial(B) if learner.settings.carry == "stored" else None
    return learner.update(_batch(learner.model.spec), carry, number)[0]


@pytest.mark.cuda
@on_a_gpu
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ONLINE_PRESETS)
def test_an_update_on_the_gpu_is_the_cpus_and_waits_for_nothing(name, world, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    preset = _preset(name, world)
    there, here = _learner(preset, world, GPU), _learner(preset, world, torch.device("cpu"))
    expected = {key: float(value) for key, value in _update(here, 0).items()}
    found = {key: float(value) for key, value in _update(there, 0).items()}  # the first also makes constants and picks kernels
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-3)
    with _no_waiting():
        _update(there, 1)


@pytest.mark.cuda
@on_a_gpu
def test_bfloat16_on_the_gpu_stays_near_float32():
    preset = _preset("dreamer-v3", "pixels")
    full = _update(_learner(preset, "pixels", GPU), 0)
    half = _update(_learner(replace(preset, bfloat16=True), "pixels", GPU), 0)
    assert {key: float(half[key]) for key in ("obs", "kl", "reward")} == pytest.approx(
        {key: float(full[key]) for key in ("obs", "kl", "reward")}, rel=0.1, abs=0.1
    )


@pytest.mark.cuda
@on_a_gpu
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_on_the_gpu_stops_resumes_and_leaves_a_model_for_the_cpu(recipe, tmp_path):
    for session in range(6):
        trainer = OnlineTrainer(
            spec_of(Line()), RECIPES[recipe](), seed=3, device="cuda", folder=tmp_path, progress=False, env=Line(), max_minutes=1e-9
        )
        if session:
            trainer.resume()
        metrics = trainer.run()
    assert metrics["finished"] and metrics["updates"] > 0
    model = WorldModel.from_pretrained(tmp_path / "model")
    assert model.device.type == "cpu" and dreamgym.load_agent(tmp_path / "agent", model) is not None


@pytest.mark.cuda
@on_a_gpu
@pytest.mark.parametrize("env", [Line, ClassLine])
def test_dreams_on_the_gpu_are_those_of_the_cpu(env):
    torch.manual_seed(0)
    model = WorldModel(spec_of(env()), tiny_preset().model).requires_grad_(False).eval()
    steps = {}
    for device in ("cpu", "cuda"):
        dreams = dreamgym.DreamVectorEnv(model, 5, obs_type="latent", output="torch", device=device)
        dreams.action_space.seed(0)
        obs, _ = dreams.reset(seed=1)
        for _ in range(4):
            obs, reward, *_ = dreams.step(torch.as_tensor(dreams.action_space.sample()).to(device))
        steps[device] = torch.cat([obs.cpu(), reward.cpu().unsqueeze(1)], 1)
        assert obs.device.type == device
    torch.testing.assert_close(steps["cuda"], steps["cpu"], rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@on_a_gpu
def test_actions_from_the_gpu_drive_the_real_world():
    model = WorldModel(spec_of(ClassLine()), tiny_preset().model).requires_grad_(False).eval().to(GPU)
    awake = dreamgym.LatentVectorObservation(gym.vector.SyncVectorEnv([ClassLine] * 2), model)
    obs, _ = awake.reset(seed=0)
    for _ in range(3):
        obs, *_ = awake.step(torch.ones(2, dtype=torch.int64, device=GPU))
    assert obs.shape == (2, model.core.feature_size)
