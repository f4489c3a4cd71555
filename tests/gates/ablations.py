"""Ablations of the papers at the size of a CPU, cell by cell: one call, one record, and what is recorded is not done again.

python -m tests.gates.ablations horizon --estimator lambda --horizon 15 --seed 0 --gradient reinforce
python -m tests.gates.ablations path --variant deterministic --seed 0
python -m tests.gates.ablations objective --variant contrastive --seed 0
python -m tests.gates.ablations missing    # the commands of all cells that have no record yet, one per line, for a queue
python -m tests.gates.ablations all        # those cells, one after another
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from numpy.typing import NDArray

from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.agents.planning import CEMConfig
from dreamgym.data.collection import collect
from dreamgym.data.collectors import StickyRandom
from dreamgym.data.replay import Replay
from dreamgym.envs import make_env, make_from_spec, make_spec
from dreamgym.evaluation.comparison import compare
from dreamgym.evaluation.policies import random_policy
from dreamgym.evaluation.prediction_errors import open_loop_errors
from dreamgym.evaluation.returns import evaluate, report_seeds
from dreamgym.formats.files import replace_files
from dreamgym.models.contrastive import Contrastive
from dreamgym.models.objectives import DreamerObjective, KLConfig, RewardOnly
from dreamgym.models.rssm import RSSMConfig
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Preprocess, Spec
from dreamgym.training.behaviour import learn_behaviour
from dreamgym.training.loop import Run, fit
from dreamgym.training.online_config import OnlinePreset
from dreamgym.training.online_presets import online_preset
from tests.gates.records import ROOT, RUNS, curve

RECORDS = ROOT / "benchmarks" / "results" / "ablations"
PENDULUM = RUNS / "gate-dreamer-v1-Pendulum-v1-0" / "model"
SWINGUP = RUNS / "gate-dreamer-v3-dm_control-cartpole-swingup-v0-0" / "model"
SEEDS = (0, 1, 2)


# ---- cells --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One measurement: the name of its record, the words that ask for it on the command line, and the call."""

    name: str
    words: tuple[str, ...]
    run: Callable[[], dict[str, Any]]

    def command(self, module: str) -> str:
        """For a shell."""
        return " ".join([sys.executable, "-m", module, *self.words])


def recorded(folder: Path, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The record of a cell: read where it exists, else measured on one thread and written in one piece."""
    path = folder / f"{name}.json"
    if not path.exists():
        torch.set_num_threads(1)
        began, worked = time.time(), time.process_time()
        content = {"name": name, **measure()}
        content |= {"seconds": round(time.time() - began, 1), "cpu_seconds": round(time.process_time() - worked, 1)}
        replace_files(folder, {path.name: (json.dumps(content, indent=1) + "\n").encode()})
        print(f"{name}: {content['comparison']['awake']['mean']:.1f} awake, {content['cpu_seconds']:.0f} s of CPU", flush=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def without_record(folder: Path, cells: Iterable[Cell]) -> Iterator[Cell]:
    """Looked at one by one, so that two queues over the same cells seldom meet."""
    return (cell for cell in cells if not (folder / f"{cell.name}.json").exists())


def fingerprint(model: Path) -> str:
    """Which weights: cells of one table must have used the same ones."""
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()[:12]


# ---- a. how far to dream ------------------------------------------------------------------------------------------------------------

HORIZONS = (5, 10, 15, 25, 40)
Estimator = Literal["lambda", "n_step", "reward_sum"]
Gradient = Literal["dynamics", "reinforce"]
ESTIMATORS: Mapping[tuple[Gradient, Estimator], tuple[int, ...]] = {
    ("dynamics", "lambda"): HORIZONS,
    ("dynamics", "reward_sum"): HORIZONS,
    ("dynamics", "n_step"): (15, 40),
    ("reinforce", "lambda"): HORIZONS,
    ("reinforce", "reward_sum"): HORIZONS,
}
IMAGINED = 1200  # steps of an update, whatever the horizon: 240 starts of 5 steps, 80 of 15, 30 of 40


def dreamer(estimator: Estimator, horizon: int, gradient: Gradient = "dynamics") -> ActorCriticConfig:
    """Dreamer's backpropagation through the dream, with the entropy bonus, slow critic and narrow first policy of the CPU recipe.

    Dreamer's own settings (recipes.dreamer_v1) need several times the updates: on a pendulum whose dynamics are given they stand at -1007
    after 1000 of them, these at -183. gradient "reinforce" is Dreamer V2's way for classes: returns alone, nothing flows through the dream.
    """
    return ActorCriticConfig(units=128, estimator=estimator, horizon=horizon, reinforce=float(gradient == "reinforce"))


def horizon_cell(
    estimator: Estimator,
    horizon: int,
    seed: int,
    gradient: Gradient = "dynamics",
    model: Path = PENDULUM,
    updates: int = 1000,
    episodes: int = 20,
) -> dict[str, Any]:
    """Dreamer's figure on horizons: actor-critics of one finished model, as many updates and imagined steps for every horizon."""
    starts = max(1, round(IMAGINED / horizon))

    def measure() -> dict[str, Any]:
        world = load(model)
        agent = learn_behaviour(world, dreamer(estimator, horizon, gradient), updates=updates, starts=starts, seed=seed)
        settings = {"estimator": estimator, "horizon": horizon, "seed": seed, "gradient": gradient, "updates": updates, "starts": starts}
        return {
            "settings": settings,
            "model": fingerprint(model),
            "comparison": judged(agent, world, episodes),
        }

    return recorded(RECORDS, horizon_name(estimator, horizon, seed, gradient), measure)


def horizon_name(estimator: Estimator, horizon: int, seed: int, gradient: Gradient) -> str:
    """Of the record."""
    return "-".join(["horizon", *(["reinforce"] if gradient == "reinforce" else []), estimator, f"{horizon:02d}", str(seed)])


def load(model: Path) -> Any:
    """A finished model. Raises FileNotFoundError, naming the gate that makes it."""
    if not (model / "model.safetensors").exists():
        raise FileNotFoundError(
            f"no model in {model}; the gates of test_learning.py leave some in {PENDULUM} and {SWINGUP}, "
            "or pass --model with the folder of another one, such as a bundled model's."
        )
    return WorldModel.from_pretrained(model)


def judged(agent: Any, world: Any, episodes: int, obs_type: str | None = "latent") -> dict[str, Any]:
    """The policy awake and asleep on report seeds, and random actions awake; as JSON."""
    seeds = report_seeds(episodes)
    result = compare(agent, world, seeds=seeds, obs_type=obs_type)
    with closing(make_from_spec(world.spec)) as env:  # not compare's: who does not look needs no belief, which is what takes time
        blind = evaluate(random_policy(world.spec.action_space), env, seeds=seeds)
    return replace(result, baselines={"random actions": blind}).to_json()


# ---- b. what the memory is made of, c. what shapes it -------------------------------------------------------------------------------

BLINKING = "BlinkingPendulum-v0"


class BlinkingPendulum(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Pendulum-v1 seen badly: the angle alone, with noise of std 0.1 on cosine and sine, and in a quarter of the steps nothing (zeros).

    Speed must be remembered and noise averaged out; whether a step is blank, nobody can foretell.
    """

    metadata = PendulumEnv.metadata
    NOISE, BLANK = 0.1, 0.25

    def __init__(self, render_mode: str | None = None) -> None:
        self._pendulum, self.render_mode = PendulumEnv(render_mode), render_mode
        self.observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = self._pendulum.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        obs, info = self._pendulum.reset(seed=seed, options=options)
        return self._glance(obs), info

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], SupportsFloat, bool, bool, dict[str, Any]]:
        """One frame."""
        obs, *rest = self._pendulum.step(action)
        return self._glance(obs), *rest

    def render(self) -> Any:
        """The pendulum as it is."""
        return self._pendulum.render()

    def close(self) -> None:
        """Close its window, if there is one."""
        self._pendulum.close()

    def _glance(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        seen = obs[:2] + self.np_random.normal(0.0, self.NOISE, 2)
        blank = self.np_random.random() < self.BLANK
        return np.zeros(2, np.float32) if blank else np.clip(seen, -2.0, 2.0).astype(np.float32)


def blinking_pendulum(**kwargs: Any) -> BlinkingPendulum:
    """For the registry; a name in its place would make `-m` import this file twice."""
    return BlinkingPendulum(**kwargs)


gym.register(BLINKING, entry_point=blinking_pendulum, max_episode_steps=200)

PathName = Literal["both", "deterministic", "stochastic", "literal"]
# PlaNet's deterministic model has no KL, and then nothing trains its prior: "literal". "deterministic" lets the prior follow the posterior.
PATHS: Mapping[PathName, tuple[Literal["both", "deterministic", "stochastic"], KLConfig | None]] = {
    "both": ("both", None),
    "deterministic": ("deterministic", KLConfig(dynamics=1.0, representation=0.0, free_nats=0.0)),
    "stochastic": ("stochastic", None),
    "literal": ("deterministic", KLConfig(dynamics=0.0, representation=0.0, free_nats=0.0)),
}
ObjectiveName = Literal["reconstruction", "contrastive", "reward-only"]
OBJECTIVES: Mapping[ObjectiveName, Contrastive | RewardOnly | None] = {
    "reconstruction": None,  # the preset's own
    "contrastive": Contrastive(layers=2, units=128),
    "reward-only": RewardOnly(),
}


@dataclass(frozen=True)
class Budget:
    """Of a cell of b or c. env_steps are real and, unless the cell is online, random; starts are dreams of one behaviour update."""

    env_steps: int = 20_000
    model_updates: int = 2_000
    behaviour_updates: int = 1_000
    starts: int = 128
    episodes: int = 20


def path_preset(variant: PathName, spec: Spec) -> OnlinePreset:
    """dreamer-v1, tiny, with one path of the RSSM or both."""
    preset, (path, kl) = _pendulum_preset(spec), PATHS[variant]
    core, objective = preset.model.core, preset.model.objective
    assert isinstance(core, RSSMConfig) and isinstance(objective, DreamerObjective)
    objective = objective if kl is None else replace(objective, kl=kl)
    return replace(preset, model=replace(preset.model, core=replace(core, path=path), objective=objective))


def objective_preset(variant: ObjectiveName, spec: Spec) -> OnlinePreset:
    """dreamer-v1, tiny, with one of Dreamer's three ways to shape the representation."""
    preset, observation = _pendulum_preset(spec), OBJECTIVES[variant]
    objective = preset.model.objective
    assert isinstance(objective, DreamerObjective)
    objective = objective if observation is None else replace(objective, observation=observation)
    return replace(preset, model=replace(preset.model, objective=objective))


def _pendulum_preset(spec: Spec) -> OnlinePreset:
    """The preset's pace in Pendulum-v1, for its disguises too; judged at the end only."""
    preset = online_preset("dreamer-v1", spec, "tiny")
    return replace(preset, action_repeat=2, training=replace(preset.training, train_every=2, evaluate_every=0))


def path_cell(variant: PathName, seed: int, online: bool = False, budget: Budget = Budget()) -> dict[str, Any]:
    """PlaNet's figure on the model's parts, on a pendulum that must be remembered."""
    return _world_cell("path", variant, BLINKING, lambda spec: path_preset(variant, spec), seed, online, budget)


def objective_cell(variant: ObjectiveName, seed: int, online: bool = False, budget: Budget = Budget()) -> dict[str, Any]:
    """Dreamer's figure on representations, on Pendulum-v1."""
    return _world_cell("objective", variant, "Pendulum-v1", lambda spec: objective_preset(variant, spec), seed, online, budget)


def _world_cell(
    kind: str, variant: str, env_id: str, choose: Callable[[Spec], OnlinePreset], seed: int, online: bool, budget: Budget
) -> dict[str, Any]:
    """Offline, all variants learn from the same random experience of this seed, and a fresh actor-critic learns in each finished model.

    Online, fit does it all and the preset's own agent explores; three times the work, and exploration confounds the comparison.
    """
    name = "-".join([kind, *(["online"] if online else []), variant, str(seed)])

    def measure() -> dict[str, Any]:
        preprocess = Preprocess(action_repeat=2)
        with closing(make_env(env_id, preprocess=preprocess)) as env:
            spec = make_spec(env, env_id)
            preset, out = choose(spec), RUNS / f"ablation-{name}"
            if online:
                run = fit(env_id, preset, env_steps=budget.env_steps, preprocess=preprocess, seed=seed, out=out, progress=False)
                agent = run.agent
            else:
                seen = _random_experience(env, spec, budget.env_steps, seed)
                run = fit(seen, model_only(preset, spec, budget.model_updates), seed=seed, out=out, progress=False)
                agent = learn_behaviour(run.model, dreamer("lambda", 15), updates=budget.behaviour_updates, starts=budget.starts, seed=seed)
            foresight = _foresight(env, run)
        return {
            "settings": {"env_id": env_id, "variant": variant, "seed": seed, "online": online, **asdict(budget)},
            "reward_error": foresight,
            "curve": curve(run.folder)["explore"] if online else None,
            "comparison": judged(agent, run.model, budget.episodes),
        }

    return recorded(RECORDS, name, measure)


def model_only(preset: OnlinePreset, spec: Spec, updates: int) -> OnlinePreset:
    """The preset's model and its optimiser for `updates` offline updates; a planner stands in for the actor-critic and learns nothing."""
    env_steps = updates * spec.preprocess.action_repeat
    training = replace(preset.training, env_steps=env_steps, pretrain=0, train_every=1, updates=1, checkpoint_every=500)
    return replace(preset, agent=CEMConfig(), training=training, actor_optimiser=None, critic_optimiser=None)


def _random_experience(env: gym.Env[Any, Any], spec: Spec, env_steps: int, seed: int) -> Replay:
    seen = Replay(spec)
    collect(env, StickyRandom(spec.action_space), seen, steps=env_steps // spec.preprocess.action_repeat, seed=seed)
    return seen


FORESEEN = (1, 5, 15, 40)  # agent steps


def _foresight(env: gym.Env[Any, Any], run: Run) -> dict[str, list[float]]:
    """Mean absolute error of the reward after h steps of open loop on 16 unseen random episodes, and that of guessing its mean."""
    unseen = Replay(run.model.spec)
    collect(env, StickyRandom(run.model.spec.action_space), unseen, episodes=16, seed=400_000)
    rows = unseen.sample_windows(np.array([start for start, _ in unseen.episodes]), 10 + max(FORESEEN))
    errors = open_loop_errors(run.model, rows, FORESEEN, context=10)
    return {steps: [error["reward_mae"], error["reward_mae_of_mean"]] for steps, error in errors.items()}


# ---- command line -------------------------------------------------------------------------------------------------------------------


def cells(model: Path = PENDULUM) -> list[Cell]:
    """The whole grid. Those that need nothing but themselves come first."""
    grid: list[Cell] = []
    for seed in SEEDS:
        paths = [name for name in PATHS if name != "literal" or seed == 0]  # once: it cannot dream, and that is all there is to see
        grid += [command_cell("path", path_cell, f"path-{name}-{seed}", variant=name, seed=seed) for name in paths]
        grid += [command_cell("objective", objective_cell, f"objective-{name}-{seed}", variant=name, seed=seed) for name in OBJECTIVES]
    for seed, (gradient, estimator) in itertools.product(SEEDS, ESTIMATORS):
        for horizon in ESTIMATORS[gradient, estimator]:
            settings: dict[str, Any] = {"estimator": estimator, "horizon": horizon, "seed": seed, "gradient": gradient}
            name = horizon_name(estimator, horizon, seed, gradient)
            grid.append(command_cell("horizon", horizon_cell, name, **settings, **other_model(model, PENDULUM)))
    return grid


def other_model(model: Path, usual: Path) -> dict[str, Path]:
    """What a command must say about the model: nothing where it is the usual one."""
    return {} if model == usual else {"model": model}


def command_cell(kind: str, measure: Callable[..., dict[str, Any]], name: str, **settings: Any) -> Cell:
    """The cell that `measure` with these settings is, in Python and in a shell."""
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return Cell(name, (kind, *words), lambda: measure(**settings))


def missing(model: Path = PENDULUM) -> None:
    """Print the commands of the cells that have no record yet."""
    for cell in without_record(RECORDS, cells(model)):
        print(cell.command("tests.gates.ablations"))


def run_all(model: Path = PENDULUM) -> None:
    """Do the cells that have no record yet."""
    for cell in without_record(RECORDS, cells(model)):
        cell.run()


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"horizon": horizon_cell, "path": path_cell, "objective": objective_cell, "missing": missing, "all": run_all}
    )
