"""`import dreamgym` is cheap: it registers ids and loads nothing heavy, and every public name is there when asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import dreamgym

PROBE = """
import json, sys, time
started = time.process_time()
import dreamgym
seconds = time.process_time() - started
import gymnasium
ids = [name for name in gymnasium.registry if name.startswith("dreamgym/")]
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules), "ids": ids}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """What a new interpreter holds after `import dreamgym`; the quickest of three, since other jobs may share the machine."""
    runs = [json.loads(subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True).stdout) for _ in range(3)]
    return min(runs, key=lambda run: run["seconds"])


@pytest.mark.parametrize("module", ["torch", "huggingface_hub", "stable_baselines3", "safetensors", "tyro", "cv2", "matplotlib"])
def test_importing_dreamgym_does_not_import(module: str, fresh: dict[str, Any]) -> None:
    assert module not in fresh["modules"]


def test_importing_dreamgym_registers_its_ids(fresh: dict[str, Any]) -> None:
    assert "dreamgym/Dream-v0" in fresh["ids"]


def test_importing_dreamgym_takes_under_half_a_second(fresh: dict[str, Any]) -> None:
    assert fresh["seconds"] < 0.5


@pytest.mark.parametrize("name", getattr(dreamgym, "__all__", []))
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(dreamgym, name) is not None
    assert name in dir(dreamgym)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(dreamgym, "no_such_name")  # noqa: B009
