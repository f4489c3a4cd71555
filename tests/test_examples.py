"""Every example runs as a stranger would run it, in a process of its own, with tiny settings."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import dreamgym
from dreamgym.hub.bundle import bundled_names
from dreamgym.training.presets import PRESETS

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TINY = {
    "train_in_dream_act_awake": ["--steps", "64", "--episodes", "1"],
    "fit_your_own": ["--env-steps", "600", "--scale", "0.005", "--episodes", "1"],
    "vector_dreams_torch": ["--num-envs", "8", "--steps", "5"],
    "fork_a_dream": ["--steps", "3"],
    "open_loop_check": ["--episodes", "1"],
    "bring_your_own_model": ["--updates", "300", "--dream-steps", "2048", "--episodes", "1"],
    "cleanrl_style_loop": ["--num-envs", "4", "--length", "8", "--updates", "2", "--episodes", "1"],
    "dream_from_real_frames": ["--steps", "3"],
    "planning_with_cem": ["--episodes", "1", "--horizon", "3", "--iterations", "1", "--candidates", "10"],
    "offline_world_model": ["--steps", "600", "--updates", "10"],
    "online_dreamer": ["--env-steps", "560", "--pretrain", "10", "--episodes", "1"],
    "swap_the_reward": ["--degrees", "160", "--steps", "3"],
    "world_models": ["--generations", "2", "--population", "4", "--rollouts", "2", "--episodes", "1"],
}
TRAIN_THEIR_OWN = {"bring_your_own_model", "fit_your_own", "offline_world_model", "online_dreamer"}
NEEDS_CAR_RACING = {"train_in_dream_act_awake"}  # the rest takes any model with Box actions


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hastily trained model, so that the examples do not depend on which models are bundled."""
    folder = tmp_path_factory.mktemp("pendulum")
    full = PRESETS["ensemble"]
    hasty = replace(
        full,
        model_training=replace(full.model_training, warmup_steps=5),
        agent_training=replace(full.agent_training, steps_per_round=1),
        start_states=16,
    )
    dreamgym.fit("Pendulum-v1", hasty, env_steps=600, out=folder, progress=False)
    return folder / "model"


def run(name: str, arguments: list[str], folder: Path) -> str:
    quiet = {"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    ran = subprocess.run(command, cwd=folder, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TINY)


@pytest.mark.parametrize("name", sorted(set(TINY) - NEEDS_CAR_RACING - TRAIN_THEIR_OWN))
def test_examples_run_with_any_model(name: str, pendulum: Path, tmp_path: Path) -> None:
    assert run(name, [*TINY[name], "--model", str(pendulum)], tmp_path).strip()


def test_fitting_your_own_leaves_a_model_to_dream(tmp_path: Path) -> None:
    assert "dreams again:" in run("fit_your_own", TINY["fit_your_own"], tmp_path)
    assert dreamgym.WorldModel.from_pretrained(tmp_path / "runs" / "your-own" / "shared").spec.env_id == "Pendulum-v1"


def test_a_strangers_model_is_checked_trained_in_and_judged_awake(tmp_path: Path) -> None:
    said = run("bring_your_own_model", TINY["bring_your_own_model"], tmp_path)
    assert " 0 failed" in said and "reality           passed" in said and "agent, awake" in said


@pytest.mark.parametrize(("name", "said"), [("offline_world_model", "dreamt:"), ("online_dreamer", "awake, episode 0")])
def test_papers_models_are_trained_offline_and_online(name: str, said: str, tmp_path: Path) -> None:
    assert said in run(name, TINY[name], tmp_path)


@pytest.mark.skipif("CarRacing" not in bundled_names(), reason="dreamgym/pretrained/CarRacing is not there yet")
def test_what_learned_in_the_car_racing_dream_is_judged_awake(tmp_path: Path) -> None:
    name = "train_in_dream_act_awake"
    assert "agent, awake" in run(name, TINY[name], tmp_path)
