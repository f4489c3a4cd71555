"""Write the README.md of every bundled model from the files beside it, so that no number in it is typed by hand.

python -m benchmarks.cards
"""

from __future__ import annotations

import json
from pathlib import Path

import dreamgym
from dreamgym.hub import bundle
from dreamgym.hub.cards import model_card
from dreamgym.hub.registry import ROWS

PRETRAINED = Path(dreamgym.__file__).parent / "pretrained"
LICENSE = "mit"


def bundled_card(name: str) -> str:
    """The card of a bundled model."""
    folder = PRETRAINED / name
    return model_card(
        bundle.read_config(folder),
        bundle.read_fidelity(folder),
        repo_id=ROWS[name].repo,
        license=LICENSE,
        replay=(folder / "replay.mp4").is_file(),
        training=json.loads((folder / "training.json").read_text()),
        bundled=f"dreamgym/Dream-{name}-v0",
    )


def write_card(name: str) -> Path:
    """Write it beside the model. Returns its path."""
    path = PRETRAINED / name / "README.md"
    path.write_text(bundled_card(name), encoding="utf-8")
    return path


if __name__ == "__main__":
    for name in bundle.bundled_names():
        print(write_card(name))
