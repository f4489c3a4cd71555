"""Small datasets of every kind of space, and the tools of somebody who forges them with matching checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dreamgym.data import Replay
from dreamgym.structs import Spec
from tests.data import toys

SHARD = "data/episodes-00000.npz"
COLUMNS = ("prev_action", "reward", "is_first", "is_last", "is_terminal", "valid")
KINDS = {"vectors": toys.VECTOR, "images": toys.IMAGE, "parts and choices": toys.CHOICES, "classes": toys.CLASSES}


def filled(spec: Spec = toys.VECTOR, episodes: int = 5, seed: int = 0) -> Replay:
    """A replay of short random episodes by three policies; every other one terminates, and one observation means nothing."""
    replay, rng = Replay(spec), np.random.default_rng(seed)
    spec.action_space.seed(seed)
    for number in range(episodes):
        steps = int(rng.integers(1, 9))
        actions = np.stack([spec.action_space.sample() for _ in range(steps)])
        valid = np.arange(steps + 1) < steps if number == 1 else None
        ends = number % 2 == 0
        replay.add_episode(_obs(spec, rng, steps + 1), actions, rng.normal(size=steps), ends, not ends, valid, f"policy{number % 3}")
    return replay


def _obs(spec: Spec, rng: np.random.Generator, rows: int) -> Any:
    if spec is toys.CHOICES:
        parts = toys.parts(rows - 1)
        return {**parts, "camera": rng.integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8), "speed": rng.normal(size=(rows, 3))}
    if spec.is_image:
        return rng.integers(0, 256, (rows, *spec.observation_space.shape), dtype=np.uint8)
    return rng.normal(size=(rows, *spec.observation_space.shape))


def assert_equal(mine: Replay, its: Replay) -> None:
    """Bit for bit, names and spaces included."""
    assert (mine.spec, mine.episodes, mine.policies) == (its.spec, its.episodes, its.policies)
    for name in COLUMNS:
        assert mine.column(name).tobytes() == its.column(name).tobytes(), name
    mine_obs, its_obs = mine.column("obs"), its.column("obs")
    parts = sorted(mine_obs) if isinstance(mine_obs, dict) else [slice(None)]
    for part in parts:
        assert mine_obs[part].dtype == its_obs[part].dtype and mine_obs[part].tobytes() == its_obs[part].tobytes(), part


def edit_meta(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change meta.json in place."""
    meta = json.loads((folder / "meta.json").read_text())
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def forge(folder: Path, data: bytes) -> None:
    """Replace the first shard, and its checksum too: an attacker writes both."""
    (folder / SHARD).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    edit_meta(folder, lambda meta: meta["shards"][0].update(entry))


def forge_arrays(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the arrays of the first shard, checksum included; object arrays are pickled as np.savez does."""
    with np.load(folder / SHARD) as opened:
        arrays = {name: opened[name] for name in opened.files}
    change(arrays)
    draft = folder.parent / "draft.npz"
    np.savez_compressed(draft, allow_pickle=True, **arrays)
    forge(folder, draft.read_bytes())
