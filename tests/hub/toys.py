"""Small models to save, and the tools of somebody who forges model folders with matching checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save
from torch import Tensor

from dreamgym.models.ensemble import EnsembleConfig
from dreamgym.models.heads import ArrivalHeadsConfig, LatentHeadsConfig
from dreamgym.models.latents import GaussianLatent
from dreamgym.models.objectives import LatentObjective
from dreamgym.models.rssm import RSSMConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.models.world_model import WorldModel, WorldModelConfig
from dreamgym.structs import DreamDefaults, Preprocess, Spec, StartBank

WEIGHTS, STARTS = "model.safetensors", "initial_states.safetensors"
SMALL = EnsembleConfig(members=2, layers=1, units=8)


def ensemble() -> WorldModel:
    """A vector world with classes as actions."""
    spec = Spec("CartPole-v1", spaces.Box(-5, 5, (4,)), spaces.Discrete(2), max_episode_steps=500)
    config = WorldModelConfig(core=SMALL, heads=ArrivalHeadsConfig(layers=1, units=8), defaults=DreamDefaults(range_guard=True))
    return _with_starts(_random(spec, config))


def rssm() -> WorldModel:
    """An image world with continuous actions."""
    spec = Spec(
        "CarRacing-v3",
        spaces.Box(0, 255, (64, 64, 3), np.uint8),
        spaces.Box(np.array([-1, 0], np.float32), np.ones(2, np.float32)),
        max_episode_steps=250,
        preprocess=Preprocess(size=64, crop=(0, 84, 0, 96), action_repeat=4),
    )
    config = WorldModelConfig(
        encoder=VAEConfig(code=4),
        core=RSSMConfig(latent=GaussianLatent(size=3), deter=6, hidden=8),
        heads=LatentHeadsConfig(layers=1, units=8, members=2, member_units=8),
        objective=LatentObjective(),
    )
    return _with_starts(_random(spec, config))


def dream(model: WorldModel, steps: int = 5) -> list[Tensor]:
    """All a model says in a dream of a few steps from its start states."""
    generator = torch.Generator().manual_seed(1)
    assert model.initial_states is not None
    state, rows = model.initial_states.state, len(model.initial_states.is_first)
    said = []
    with torch.no_grad():
        for _ in range(steps):
            action = torch.rand(rows, model.spec.action_size, generator=generator)
            state = model.step(state, action, torch.rand(rows, model.noise_lanes, generator=generator))
            said += [tensor for _, tensor in [*state.items(), *model.predict(state).items()]]
        return [*said, model.features(state), model.decode(state)]


def _random(spec: Spec, config: WorldModelConfig) -> WorldModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(spec, config)
        model.reward_range.copy_(torch.tensor([-1.0, 2.0]))
    return model.eval()


def _with_starts(model: WorldModel) -> WorldModel:
    generator = torch.Generator().manual_seed(2)
    state = model.initial(6).map(lambda tensor: torch.rand(tensor.shape, generator=generator) * 2 - 1)
    model.initial_states = StartBank(state, torch.arange(6) < 2)
    return model


def read_json(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change config.json in place."""
    config = read_json(folder)
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def forge(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, and its checksum too: an attacker writes both."""
    (folder / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    edit_config(folder, lambda config: config["files"].update({name: entry}))


def forge_tensors(folder: Path, name: str, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors of a file, checksum included."""
    tensors = load_file(folder / name)
    change(tensors)
    forge(folder, name, save(tensors))


def raw_safetensors(header: str, body: bytes = b"") -> bytes:
    """A file with any header text."""
    return len(header).to_bytes(8, "little") + header.encode() + body
