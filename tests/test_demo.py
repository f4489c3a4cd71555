"""The demo in small: it learns in the dream only, drives awake, and leaves a report, a film, an agent and one last line."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("imageio_ffmpeg")

from dreamgym import cli, demo
from tests.evaluation.line import ENV_ID, LineEnv, LineModel, register

SMALL = {"n_steps": 8, "batch_size": 16, "n_epochs": 1}


@pytest.fixture(autouse=True)
def line_is_registered() -> Iterator[None]:
    register()
    yield
    gym.registry.pop(ENV_ID, None)


def test_defaults_are_frozen_and_a_plain_agent_can_be_made_of_them() -> None:
    with pytest.raises(TypeError):
        demo.PPO_DEFAULTS["gamma"] = 0.5  # type: ignore[index]
    assert pickle.loads(pickle.dumps(dict(demo.PPO_DEFAULTS))) == dict(demo.PPO_DEFAULTS)


def test_learning_never_touches_the_real_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def awake(*_: Any, **__: Any) -> Any:
        raise AssertionError("the real environment was touched")

    monkeypatch.setattr(LineEnv, "reset", awake)
    learned = demo.learn_in_dream(LineModel(), steps=64, num_envs=4, progress=False, **SMALL)
    assert learned.steps == 64
    assert [steps for steps, _ in learned.curve] == [32, 64]


def test_learning_repeats_itself_given_the_seed() -> None:
    settings = {"steps": 64, "num_envs": 4, "progress": False, "dream": {"max_uncertainty": float("inf")}, **SMALL}
    runs = [demo.learn_in_dream(LineModel(spread=0.1), seed=seed, **settings) for seed in (1, 1, 2)]
    assert runs[0].curve == runs[1].curve != runs[2].curve


def test_the_curve_is_in_the_dreams_own_units() -> None:
    """Three steps (the model's horizon) at uncertainty 1 and charge 5 cost 15, which no scaling may hide; halting is off."""
    learned = demo.learn_in_dream(LineModel(), steps=256, num_envs=4, progress=False, dream={"max_uncertainty": float("inf")}, **SMALL)
    assert -15.0 - 0.6 <= learned.curve[-1][1] <= -5.0 + 0.6


def test_the_clock_stops_the_learning() -> None:
    assert demo.learn_in_dream(LineModel(), steps=10_000, num_envs=4, minutes=0.0, progress=False, **SMALL).steps == 4


def test_demo_leaves_report_film_agent_and_one_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "load_bundled", lambda name: LineModel())
    monkeypatch.setattr(demo, "PPO_DEFAULTS", {**demo.PPO_DEFAULTS, **SMALL})
    monkeypatch.setattr(demo, "PROCESSES", 1)
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), "--steps", "512", "--tracks", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["agent.zip", "drive.mp4", "report.html"]
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "data:video/mp4;base64," in page and "random actions, awake" in page and "seed 0, 512 steps" in page
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("Learned 512 steps in the dream only") and "2 unseen episodes" in last and last.endswith("report.html")
