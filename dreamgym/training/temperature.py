"""The paper's experiment on temperature as one resumable call: controllers evolved in ever hotter dreams, judged there and awake.

Cold dreams are exploited, hot ones cannot be learned in, and dropout while dreaming makes each of them another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np

from dreamgym.agents.agent_files import read_kind
from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import LinearController, LinearControllerConfig
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.envs import make_from_spec
from dreamgym.evaluation.comparison import judging_dream
from dreamgym.evaluation.controls import open_loop_baselines
from dreamgym.evaluation.policies import SWEEP_PERIODS
from dreamgym.evaluation.returns import Returns, evaluate, report_seeds
from dreamgym.formats.codec import encode
from dreamgym.formats.files import replace_files
from dreamgym.models.mdn_rnn import MDNRNN
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import DreamableModel
from dreamgym.training.evolve import EvolveResult, evolve
from dreamgym.training.gradient_start import GradientStart, gradient_start
from dreamgym.training.temperature_table import StudyCell, TemperatureStudy
from dreamgym.training.world_models_awake import judge_awake
from dreamgym.training.world_models_presets import world_models_controller

__all__ = ["TAUS", "StudyConfig", "controller_config", "dropouts_of", "temperature_study"]

TAUS = (0.1, 0.5, 1.0, 1.15, 1.3)  # specs/world-models.md 10


@dataclass(frozen=True)
class StudyConfig:
    """One search of the study, and how its controller is judged. Defaults: preset world-models-fast.

    Each candidate's fitness is its mean return over `rollouts` dreams. Every evaluate_every generations the distribution's centre is
    judged in judge_dreams other dreams at the same setting, never awake, and the best centre is what is then judged in `episodes` dreams
    and as many real episodes. bfloat16 is for the search; judges are exact. begin: searches begin at what gradients found in the same
    dream, not at zero, with its `spread` in place of evolution.sigma; that start is judged as a centre too.
    """

    controller: LinearControllerConfig = field(default_factory=LinearControllerConfig)
    evolution: CMAESConfig = field(default_factory=lambda: CMAESConfig(population=32, step_size="tpa"))
    generations: int = 100
    rollouts: int = 8
    evaluate_every: int = 10
    judge_dreams: int = 256
    bfloat16: bool = True
    episodes: int = 100
    begin: GradientStart | None = None

    def __post_init__(self) -> None:
        for name in ("generations", "rollouts", "evaluate_every", "judge_dreams", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1.")


def temperature_study(
    model: WorldModel,
    config: StudyConfig,
    *,
    taus: Sequence[float] = TAUS,
    dropouts: Sequence[float] = (),
    seeds: Iterable[int] = range(3),
    folder: str | Path,
    baselines: bool = True,
    periods: Sequence[int] = SWEEP_PERIODS,
    search_episodes: int = 20,
    fresh_episodes: int = 0,
    progress: bool = True,
) -> TemperatureStudy:
    """Evolve a controller at every temperature, rate of dropout and seed, and judge it in that dream and in the real environment.

    dropouts (): the model's own rate. seeds are those of the searches. What is recorded in `folder` is not done again and what was
    interrupted goes on: calls may add temperatures, seeds or generations, may ask for other numbers of episodes, and may share a folder
    as long as no two search for the same cell at the same time. The result holds all cells of the folder. baselines: also play random
    actions and search the blind sweeps of those periods (`open_loop_baselines`) in the real environment. fresh_episodes: judge the best
    setting's controllers awake in so many more, whose seeds did not choose it: the best of many is lucky by a little.
    Raises ValueError for dropout that the model was not trained with, and for a folder of another model or other settings.
    """
    if not taus or min(taus) < 0.0:
        raise ValueError(f"taus are {tuple(taus)}; expected at least one temperature, none below 0.")
    rates = dropouts_of(model, dropouts)
    records = _Records(Path(folder), model, config)
    build = partial(make_from_spec, model.spec)
    for seed in seeds:  # of every setting first one, so that a study that is stopped early has a table
        for dropout in rates:
            for tau in taus:
                if not records.has(tau, dropout, seed, config):
                    cell = _measure(model, config, tau, dropout, seed, records, build, progress)
                    records.write(cell)
                    if progress:
                        print(f"tau {tau:g}, dropout {dropout:g}, search {seed}: {cell.dream} dreamt, {cell.awake} awake", flush=True)
    if baselines:
        records.find_baselines(build, config.episodes, tuple(periods), search_episodes, progress)
    if fresh_episodes:
        _judge_best_again(model, records, build, config.episodes, fresh_episodes)
    return records.study()


def dropouts_of(model: WorldModel, asked: Sequence[float] = ()) -> tuple[float, ...]:
    """The rates to dream with: those asked for, else the model's own (0 where it has none).

    Raises ValueError for a rate outside [0, 1), and for rates above 0 with a model that was trained without dropout: to it they are
    damage, no other worlds.
    """
    if any(not 0.0 <= rate < 1.0 for rate in asked):
        raise ValueError(f"dropouts are {tuple(asked)}; expected rates of at least 0 and below 1.")
    trained = max(model.core.config.input_dropout, model.core.config.recurrent_dropout) if isinstance(model.core, MDNRNN) else 0.0
    if trained == 0.0 and any(asked):
        raise ValueError(
            f"dropouts are {tuple(asked)}, but this model of {model.spec.env_id} was trained without dropout and knows one dream only: "
            "leave them out, or train one with MDNRNNConfig(input_dropout=0.05, recurrent_dropout=0.05)."
        )
    own = trained if model.defaults.dropout is None else model.defaults.dropout
    return tuple(asked) or (own,)


def controller_config(model: WorldModel, folder: Path | None = None, agent: Path | None = None) -> LinearControllerConfig:
    """How controllers of this model are built: as the one in `agent` is, or the one that a World Models run left beside the model's folder.

    Else by the action space. Raises ModelNotFoundError or InvalidModelError for an `agent` that is no linear controller of this model.
    """
    if agent is not None:
        return LinearController.load(agent, model.spec).config
    for beside in [] if folder is None else [folder.parent / "agent", folder.parent / "agent-0"]:
        if (beside / "agent.json").is_file() and read_kind(beside) == "linear":
            return LinearController.load(beside, model.spec).config
    return world_models_controller(model.spec)


# ---- one cell ---------------------------------------------------------------------------------------------------------------


def _measure(
    model: WorldModel,
    config: StudyConfig,
    tau: float,
    dropout: float,
    seed: int,
    records: _Records,
    build: Callable[[], gym.Env[Any, Any]],
    progress: bool,
) -> StudyCell:
    options: dict[str, Any] = {"temperature": tau, "dropout": dropout if isinstance(model.core, MDNRNN) else None}
    place = records.folder / "searches" / _name(tau, dropout, seed)
    found = _search(model, config, options, seed, place, progress)
    agent = found.controller
    agent.save(place / "agent")
    chosen = report_seeds(config.episodes)
    with closing(judging_dream(cast(DreamableModel, model), len(chosen), **options)) as dream:
        dreamt = evaluate(agent, dream, seeds=chosen)
    awake = judge_awake(agent, model, build, seeds=chosen)
    seconds = sum(generation.seconds for generation in found.history)
    return StudyCell(tau, dropout, seed, dreamt, awake, len(found.history), found.generation, round(seconds, 1))


def _search(
    model: WorldModel, config: StudyConfig, options: dict[str, float | None], seed: int, folder: Path, progress: bool
) -> EvolveResult:
    """A controller of this setting's dreams; goes on from the folder."""
    agent, evolution = LinearController(model.spec, model.core.feature_size, config.controller), config.evolution
    if config.begin is not None:
        _begin(model, agent, config, config.begin, options, seed, folder / "begin", progress)
        evolution = replace(evolution, sigma=config.begin.spread * float(np.sqrt(np.square(agent.vector).mean())))
    dreams = partial(DreamRollouts, model, agent, bfloat16=config.bfloat16, **options)  # type: ignore[arg-type]
    return evolve(
        agent,
        dreams(candidates=evolution.population, rollouts=config.rollouts).returns,
        generations=config.generations,
        config=evolution,
        seed=seed,
        judge=dreams(candidates=1, rollouts=config.judge_dreams).returns,
        evaluate_every=config.evaluate_every,
        judge_start=config.begin is not None,
        folder=folder,
        progress=progress,
    )


def _begin(
    model: WorldModel,
    agent: LinearController,
    config: StudyConfig,
    begin: GradientStart,
    options: dict[str, Any],
    seed: int,
    folder: Path,
    progress: bool,
) -> None:
    """Let the controller begin at what gradients find in this setting's dreams; kept in the folder, and read from there."""
    if (folder / "agent.json").is_file():
        agent.vector = LinearController.load(folder, model.spec).vector
        return
    gradient_start(model, agent, begin, seed=seed, bfloat16=config.bfloat16, progress=progress, **options)
    agent.save(folder)


def _judge_best_again(
    model: WorldModel, records: _Records, build: Callable[[], gym.Env[Any, Any]], episodes: int, fresh_episodes: int
) -> None:
    """The best setting's controllers, on the seeds after those of all cells; not again where that is recorded."""
    seeds = report_seeds(episodes + fresh_episodes)[episodes:]
    for cell in records.study().best.cells:
        if cell.fresh is None or cell.fresh.seeds != seeds:
            agent = LinearController.load(records.folder / "searches" / _name(cell.tau, cell.dropout, cell.seed) / "agent", model.spec)
            records.write(replace(cell, fresh=judge_awake(agent, model, build, seeds=seeds)))


# ---- what is known ----------------------------------------------------------------------------------------------------------


class _Records:
    """The study's folder: settings.json, cells/, searches/, baselines.json. Raises ValueError if it is another study's."""

    def __init__(self, folder: Path, model: WorldModel, config: StudyConfig) -> None:
        self.folder, self.spec = folder, model.spec
        asked = {name: value for name, value in encode(config).items() if name not in ("generations", "episodes")}
        if config.begin is None:
            del asked["begin"]  # older studies know of no other beginning than zero
        ours = json.loads(json.dumps({"model": _fingerprint(model), **asked}))
        settings = folder / "settings.json"
        if not settings.exists():
            (folder / "cells").mkdir(parents=True, exist_ok=True)
            _write(settings, ours)
        found = _read(settings)
        if found != ours:
            other = ", ".join(sorted(name for name in found.keys() | ours.keys() if found.get(name) != ours.get(name)))
            raise ValueError(f"{folder} holds a study with another {other}; take another folder, or delete it.")

    def has(self, tau: float, dropout: float, seed: int, config: StudyConfig) -> bool:
        """Whether a cell is recorded with as many episodes, and at least as many generations."""
        path = self._path(tau, dropout, seed)
        if not path.exists():
            return False
        cell = StudyCell.from_json(_read(path))
        return cell.generations >= config.generations and cell.awake.n == config.episodes

    def write(self, cell: StudyCell) -> None:
        """Keep a cell."""
        _write(self._path(cell.tau, cell.dropout, cell.seed), cell.to_json())

    def find_baselines(
        self, build: Callable[[], gym.Env[Any, Any]], episodes: int, periods: tuple[int, ...], search_episodes: int, progress: bool
    ) -> None:
        """Random actions, constants and the best blind sweep; not again if they were played with as many episodes."""
        asked = {"episodes": episodes, "periods": list(periods), "search_episodes": search_episodes}
        path = self.folder / "baselines.json"
        if path.exists() and _read(path)["asked"] == asked:
            return
        with closing(build()) as env:
            found = open_loop_baselines(env, periods=periods, search_episodes=search_episodes, episodes=episodes, progress=progress)
        _write(path, {"asked": asked, **found.to_json()})

    def study(self) -> TemperatureStudy:
        """All there is."""
        cells = [StudyCell.from_json(_read(path)) for path in (self.folder / "cells").glob("*.json")]
        cells.sort(key=lambda cell: (cell.dropout, cell.tau, cell.seed))
        path = self.folder / "baselines.json"
        blind = _read(path) if path.exists() else {"judged": {}, "best": None}
        baselines = {name: Returns.from_json(saved) for name, saved in blind["judged"].items()}
        return TemperatureStudy(self.spec.env_id, self.spec.preprocess.action_repeat, tuple(cells), baselines, blind["best"])

    def _path(self, tau: float, dropout: float, seed: int) -> Path:
        return self.folder / "cells" / f"{_name(tau, dropout, seed)}.json"


def _name(tau: float, dropout: float, seed: int) -> str:
    return f"tau-{tau:g}-dropout-{dropout:g}-{seed}"


def _fingerprint(model: WorldModel) -> str:
    """Which weights, and how they are dreamt: where dreams end is among the defaults."""
    digest = hashlib.sha256(repr((model.spec, model.defaults)).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    replace_files(path.parent, {path.name: (json.dumps(content, indent=1) + "\n").encode()})
