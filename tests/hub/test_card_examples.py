"""Whoever copies the example of a card gets what it promises: model, agent and dataset, through the real client."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import dreamgym.hub  # noqa: F401 - gives models their push_to_hub
from dreamgym.agents.linear import LinearController
from tests.hub import rollouts, toys
from tests.hub.conftest import move_to
from tests.hub.loopback_hub import LoopbackHub


def run_example(repo: str, kind: str = "model") -> dict[str, Any]:
    """Run the Python of a pushed README.md; returns its names."""
    from huggingface_hub import hf_hub_download

    text = Path(hf_hub_download(repo, "README.md", repo_type=kind)).read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    return names


def test_a_pushed_models_example_dreams_it_at_its_tag(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = toys.ensemble().push_to_hub("alice/toy", license="mit", allow_unevaluated=True, tag="v1")
    move_to(tmp_path / "elsewhere", monkeypatch)
    names = run_example("alice/toy")
    assert names["env"].observation_space.contains(names["obs"])
    assert pushed.commit in str(names["env"].unwrapped.model.model_info)


def test_a_pushed_agents_example_plays_it_awake(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toys.ensemble()
    base = model.push_to_hub("alice/toy", license="mit", allow_unevaluated=True)
    agent = LinearController(model.spec, model.core.feature_size)
    agent.push_to_hub("alice/agent", license="mit", model=f"alice/toy@{base.commit}", allow_unevaluated=True)
    move_to(tmp_path / "elsewhere", monkeypatch)
    names = run_example("alice/agent")
    assert "(n=5" in capsys.readouterr().out and names["model"].model_info["revision"] == base.commit


def test_a_pushed_datasets_example_loads_it(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = rollouts.filled()
    replay.push_to_hub("alice/rollouts", license="mit", seeds=[0])
    move_to(tmp_path / "elsewhere", monkeypatch)
    rollouts.assert_equal(replay, run_example("alice/rollouts", "dataset")["replay"])
