"""World Models' iterative procedure on a task that random play does not show: a pendulum from pictures, hanging at first.

python -m tests.gates.swingup_iterations run --variant curious --seed 0
python -m tests.gates.swingup_iterations missing   # the commands of all cells that have no record yet, one per line
python -m tests.gates.swingup_iterations all       # those cells, one after another
python -m tests.gates.swingup_iterations table     # docs/papers/world-models.md: their table, made from the records
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from numpy.typing import NDArray

from benchmarks.pages import written
from dreamgym.agents.linear import LinearController
from dreamgym.data.replay import Replay
from dreamgym.envs import make_env, make_spec
from dreamgym.evaluation.prediction_errors import open_loop_errors
from dreamgym.evaluation.returns import report_seeds
from dreamgym.models.encoders import CodeStatsConfig
from dreamgym.models.mdn_heads import MDNHeadsConfig, MLPReward
from dreamgym.models.mdn_rnn import MDNRNNConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Preprocess, Spec
from dreamgym.training.loop import Run, fit
from dreamgym.training.world_models_awake import judge_awake
from dreamgym.training.world_models_config import EpisodeCollection, WorldModelsPreset
from dreamgym.training.world_models_presets import iterated, world_models_preset
from tests.gates.ablations import Cell, command_cell, judged, recorded, without_record
from tests.gates.records import ROOT, RUNS, log_rows

RECORDS = ROOT / "benchmarks" / "results" / "world-models"
HANGING = "HangingPendulumPixels-v0"
SEEDS = (0, 1, 2)
SEEN = Preprocess(action_repeat=2)
PROBES, PROBE_CONTEXT, PROBED = 32, 60, (1, 5)  # episodes; agent steps until it stands, and from then on

Obs = NDArray[np.uint8]


class HangingPendulum(gym.Env[Obs, NDArray[np.float32]]):
    """Pendulum-v1 from pictures [64,64,3] of its rod, begun near the bottom, nearly at rest.

    Random torques swing it, but not up: what is up there only an agent shows. One picture tells no speed.
    """

    metadata = PendulumEnv.metadata
    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def __init__(self, render_mode: str | None = None) -> None:
        self._pendulum, self.render_mode = PendulumEnv(), render_mode
        self.action_space = self._pendulum.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self._pendulum.reset(seed=seed, options=options)
        self._pendulum.state = np.array([np.pi, 0.0]) + self.np_random.uniform(-0.1, 0.1, 2)
        return self.render(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Obs, SupportsFloat, bool, bool, dict[str, Any]]:
        """One frame."""
        _, *rest = self._pendulum.step(action)
        return self.render(), *rest

    @property
    def state(self) -> tuple[float, float]:
        """Angle in (-pi, pi], 0 at the top, and its speed."""
        angle, speed = self._pendulum.state
        return float((angle + np.pi) % (2.0 * np.pi) - np.pi), float(speed)

    def render(self) -> Obs:  # type: ignore[override]
        """What it shows: a rod, up at angle 0 as in Pendulum-v1. Gymnasium's own drawing reads a file from disk every time.

        On grey: before a background of pure white or black V's sigmoid saturates in its first updates, and V never sees the rod.
        """
        angle = self._pendulum.state[0]
        x, y = -np.sin(angle), -np.cos(angle)
        along = np.clip(_X * x + _Y * y, 0.0, 24.0)
        rod = np.clip(5.0 - np.hypot(_X - along * x, _Y - along * y), 0.0, 1.0)[..., None]
        return (_GREY * (1.0 - rod) + rod * _YELLOW).astype(np.uint8)


_Y, _X = np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5, indexing="ij")
_GREY, _YELLOW = np.array([110.0, 110.0, 110.0]), np.array([220.0, 180.0, 40.0])


def hanging_pendulum(**kwargs: Any) -> HangingPendulum:
    """For the registry; a name in its place would make `-m` import this file twice."""
    return HangingPendulum(**kwargs)


gym.register(HANGING, entry_point=hanging_pendulum, max_episode_steps=200)


# ---- cells --------------------------------------------------------------------------------------------------------------------------

Variant = Literal["random", "plain", "curious", "imitating"]
CODE_STEPS = 250  # updates of V in an iteration
# What an iteration changes: (iterations, curiosity, M foretells actions). "random" has as many episodes and updates in all, every
# episode at random.
VARIANTS: Mapping[Variant, tuple[bool, float, bool]] = {
    "random": (False, 0.0, False),
    "plain": (True, 0.0, False),
    "curious": (True, 3.0, False),
    "imitating": (True, 0.0, True),
}


@dataclass(frozen=True)
class Budget:
    """Of a cell: iterations after the first pass, episodes of 200 frames before and in each, and how many are judged."""

    count: int = 4
    random_episodes: int = 100
    episodes: int = 100
    judged: int = 20


def preset_of(variant: Variant, spec: Spec, budget: Budget = Budget()) -> WorldModelsPreset:
    """world-models-fast, small enough for minutes."""
    repeated, curiosity, next_action = VARIANTS[variant]
    base = world_models_preset("world-models-fast", spec)
    heads = base.model.heads
    assert isinstance(heads, MDNHeadsConfig)
    small = replace(
        base,
        model=replace(
            base.model,
            encoder=CodeStatsConfig(vae=VAEConfig(code=16)),
            core=MDNRNNConfig(units=128, features="zh"),
            heads=replace(heads, reward=MLPReward(layers=2, units=64, scale=10.0)),
            defaults=replace(base.model.defaults, termination="never"),  # an end is never seen
        ),
        collection=EpisodeCollection(
            episodes=budget.random_episodes + (0 if repeated else budget.count * budget.episodes),
            pixel_frames=1_000_000,
            holds=(2, 4, 8),
            held_out_every=10,
        ),
        code_training=replace(base.code_training, steps=600, batch=32, learning_rate=5e-4),
        memory_training=replace(base.memory_training, steps=1000, batch=16, evaluate_every=100),
        calibration=replace(base.calibration, logistic=False),
        controller_training=replace(
            base.controller_training, generations=150, rollouts=8, attempts=1, evaluate_every=25, judge_dreams=64, validation_episodes=10
        ),
        iterations=replace(base.iterations, memory_steps=600, explorer_generations=75, recent_weight=1),
    )
    if repeated:
        return iterated(small, budget.count, episodes=budget.episodes, curiosity=curiosity, next_action=next_action, code_steps=CODE_STEPS)
    codes, memory = small.code_training, small.memory_training  # as many updates in all, too
    longer = replace(
        small,
        code_training=replace(codes, steps=codes.steps + budget.count * CODE_STEPS),
        memory_training=replace(memory, steps=memory.steps + budget.count * small.iterations.memory_steps),
    )
    return iterated(longer, 0, next_action=next_action)


def iterations_cell(variant: Variant, seed: int, budget: Budget = Budget()) -> dict[str, Any]:
    """A run, and each of its rounds judged awake; with how well its model foretells rewards where random play never was."""
    name = f"iterations-{variant}-{seed}"

    def measure() -> dict[str, Any]:
        with closing(make_env(HANGING, preprocess=SEEN)) as env:
            preset = preset_of(variant, make_spec(env, HANGING), budget)
        run = fit(HANGING, preset, preprocess=SEEN, seed=seed, out=RUNS / f"world-models-{name}", progress=False)
        best: dict[int, dict[str, Any]] = {}
        for one in run.metrics["candidates"]:
            best[one["round"]] = max(one, best.get(one["round"], one), key=lambda candidate: candidate["mean"])
        return {
            "settings": {"env_id": HANGING, "variant": variant, "seed": seed, **asdict(budget)},
            "env_steps": run.metrics["env_steps"],
            "lived": {stage: [round(row["return_mean"], 1) for row in log_rows(run.folder, stage)] for stage in ("random", "live")},
            "rounds": [_round(run, number, one, budget) for number, one in sorted(best.items())],
            "comparison": judged(run.agent, run.model, budget.judged),
        }

    return recorded(RECORDS, name, measure)


def _round(run: Run, number: int, best: dict[str, Any], budget: Budget) -> dict[str, Any]:
    """A round's controller on report seeds, and its model on the upright region."""
    folder = run.folder / "rounds" / str(number)
    model = WorldModel.from_pretrained(folder / "model")
    agent = LinearController.load(folder / f"agent-{best['attempt']}", model.spec)
    awake = judge_awake(agent, model, partial(make_env, HANGING, preprocess=SEEN), seeds=report_seeds(budget.judged))
    memory = [row for row in log_rows(run.folder, f"memory {number}") if "held_out_latent" in row][-1]
    losses = {name.removeprefix("held_out_"): round(value, 4) for name, value in memory.items() if name.startswith("held_out_")}
    return {"round": number, "dreamt": best["dreamt"], "awake": awake.to_json(), "held_out": losses, "upright": _upright_error(model)}


def _upright_error(model: WorldModel) -> dict[str, list[float]]:
    """Mean absolute error of the reward after h steps of open loop at the top, and that of guessing the mean.

    M watches somebody who knows the state swing it up and hold it there, and foretells what random torques then do.
    """
    seen = Replay(model.spec)
    with closing(make_env(HANGING, preprocess=SEEN)) as env:
        for seed in range(PROBES):
            seen.add_episode(*_brought_up(env, 400_000 + seed), terminated=False, truncated=True)
    rows = seen.sample_windows(np.array([start for start, _ in seen.episodes]), PROBE_CONTEXT + max(PROBED))
    errors = open_loop_errors(model, rows, PROBED, context=PROBE_CONTEXT)
    return {horizon: [error["reward_mae"], error["reward_mae_of_mean"]] for horizon, error in errors.items()}


def _brought_up(env: gym.Env[Any, Any], seed: int) -> tuple[Obs, NDArray[np.float32], NDArray[np.float32]]:
    """Observations, actions and rewards of an episode: swung up and held until PROBE_CONTEXT, then random torques."""
    obs, actions, rewards = [env.reset(seed=seed)[0]], [], []
    rng = np.random.default_rng(seed)
    for step in range(PROBE_CONTEXT + max(PROBED)):
        torque = swing_up(*env.unwrapped.state) if step < PROBE_CONTEXT - 1 else rng.uniform(-2.0, 2.0)  # type: ignore[attr-defined]
        actions.append(np.array([torque], np.float32))
        arrived, reward, *_ = env.step(actions[-1])
        obs.append(arrived)
        rewards.append(float(reward))
    return np.stack(obs), np.stack(actions), np.array(rewards, np.float32)


def swing_up(angle: float, speed: float) -> float:
    """Torque of who knows Pendulum-v1's state: pump its energy to that of standing at the top, and hold it there."""
    if abs(angle) < 0.5 and abs(speed) < 3.0:
        return float(np.clip(-10.0 * angle - 3.0 * speed, -2.0, 2.0))
    lacking = 15.0 - (0.5 * speed**2 + 15.0 * np.cos(angle))  # m = l = 1, g = 10
    return float(np.clip(lacking * (1.0 if speed >= 0.0 else -1.0), -2.0, 2.0))


# ---- table --------------------------------------------------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "papers" / "world-models.md"
MARK = "<!-- results:iterations -->"
NOTHING = ["No run is recorded yet."]
LABELS: Mapping[Variant, str] = {
    "random": "one pass, all episodes random",
    "plain": "iterations",
    "curious": "iterations, half of the lives an explorer's",
    "imitating": "iterations, M foretells actions",
}


def iterations_table(folder: Path | None = None) -> list[str]:
    """Return awake after each iteration, mean of the seeds and each of them; the reward's error at the top, of M at first and at last."""
    found = {name: _records(folder or RECORDS, name) for name in VARIANTS}
    records = [record for group in found.values() for record in group]
    if not records:
        return NOTHING
    rounds = max(len(record["rounds"]) for record in records)
    heading = [
        "awake after",
        "the first pass",
        *(f"iteration {number}" for number in range(1, rounds)),
        "error at the top",
        "minutes a seed",
    ]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    for name, group in found.items():
        if group:
            minutes = f"{np.mean([record['cpu_seconds'] for record in group]) / 60:.0f}"
            cells = [_awake(group, number) for number in range(rounds)]
            lines.append("| " + " | ".join([LABELS[name], *cells, _top(group), minutes]) + " |")
    first, guess = records[0], np.mean([record["rounds"][0]["upright"]["5"][1] for record in records])
    random = first["comparison"]["baselines"]["random actions"]["mean"]
    told = f"{HANGING}, {first['env_steps']:,} env steps, {first['settings']['judged']} episodes a seed; random actions: {random:.0f}."
    return [
        *lines,
        "",
        f"{told} Error: of an agent step's reward, five steps ahead, M of the first pass and of the last; guessing the mean: {guess:.1f}.",
    ]


def _records(folder: Path, variant: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"iterations-{variant}-*.json"))]


def _awake(group: list[dict[str, Any]], number: int) -> str:
    means = [record["rounds"][number]["awake"]["mean"] for record in group if number < len(record["rounds"])]
    return f"**{np.mean(means):.0f}** ({', '.join(f'{mean:.0f}' for mean in means)})" if means else ""


def _top(group: list[dict[str, Any]]) -> str:
    first, last = (np.mean([record["rounds"][number]["upright"]["5"][0] for record in group]) for number in (0, -1))
    return f"{first:.1f}" if len(group[0]["rounds"]) == 1 else f"{first:.1f}, {last:.1f}"


def write_table() -> None:
    """Make the page's table anew."""
    PAGE.write_text(written(PAGE.read_text(), MARK, iterations_table()))


# ---- command line -------------------------------------------------------------------------------------------------------------------


def cells() -> list[Cell]:
    """The whole grid, seed by seed."""
    return [
        command_cell("run", iterations_cell, f"iterations-{variant}-{seed}", variant=variant, seed=seed)
        for seed in SEEDS
        for variant in VARIANTS
    ]


def missing() -> None:
    """Print the commands of the cells that have no record yet."""
    for cell in without_record(RECORDS, cells()):
        print(cell.command("tests.gates.swingup_iterations"))


def run_all() -> None:
    """Do the cells that have no record yet."""
    for cell in without_record(RECORDS, cells()):
        cell.run()


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"run": iterations_cell, "missing": missing, "all": run_all, "table": write_table})
