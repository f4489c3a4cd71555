"""Ablations of World Models on a finished run, cell by cell: one call, one record, and what is recorded is not done again.

python -m tests.gates.world_models inputs --world take-cover --variant zh --seed 0
python -m tests.gates.world_models memory --world car-racing --variant untrained --seed 0
python -m tests.gates.world_models belief --world take-cover --variant mean --seed 0
python -m tests.gates.world_models ends --world take-cover --variant sample --seed 0
python -m tests.gates.world_models dreams --world car-racing --variant rssm --seed 0
python -m tests.gates.world_models short-run                                        # of CarRacing, for its cells: an hour of a core
python -m tests.gates.world_models missing [--take-cover RUN] [--car-racing RUN]    # commands of all cells without a record, for a queue
python -m tests.gates.world_models all                                              # those cells, one after another
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import LinearController, LinearControllerConfig, code_ranges
from dreamgym.dreams.awake import LatentVectorObservation
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.envs import make_env, make_from_spec, make_spec
from dreamgym.evaluation.comparison import judging_dream
from dreamgym.evaluation.policies import random_policy
from dreamgym.evaluation.returns import Returns, evaluate, report_seeds
from dreamgym.hub import bundle
from dreamgym.models.mdn_rnn import MDNRNN
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import DreamableModel, Preprocess
from dreamgym.training.evolve import EvolveResult, evolve
from dreamgym.training.learners import seeded
from dreamgym.training.loop import fit
from dreamgym.training.vector_rollouts import VectorRollouts
from dreamgym.training.world_models_awake import judge_awake
from dreamgym.training.world_models_config import WorldModelsPreset
from dreamgym.training.world_models_presets import world_models_controller, world_models_preprocess, world_models_preset
from tests.gates.ablations import Cell, command_cell, fingerprint, recorded, without_record
from tests.gates.records import ROOT, RUNS

RECORDS = ROOT / "benchmarks" / "results" / "world-models"
MODULE = "tests.gates.world_models"
REAL_ENVS = 8


# ---- worlds and their budgets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """Of one search: generations of `population` candidates, `rollouts` episodes each; its centre is judged in `judged` others, every
    tenth generation, and its controller in `episodes` real ones.
    """

    generations: int
    population: int
    rollouts: int
    judged: int
    episodes: int


WorldName = Literal["take-cover", "car-racing"]


@dataclass(frozen=True)
class World:
    """Where `fit` leaves its run, and what a search in its dream and one awake may cost: minutes; CarRacing awake most of an hour."""

    run: Path
    asleep: Budget
    awake: Budget
    awake_seeds: tuple[int, ...]


SEEDS = (0, 1, 2)
WORLDS: Mapping[WorldName, World] = {
    "take-cover": World(
        RUNS / "VizdoomTakeCover-v1-world-models-fast-0",
        Budget(generations=60, population=32, rollouts=8, judged=256, episodes=100),
        Budget(generations=20, population=32, rollouts=4, judged=32, episodes=100),
        SEEDS,
    ),
    "car-racing": World(
        RUNS / "CarRacing-v3-world-models-fast-0",
        Budget(generations=60, population=32, rollouts=8, judged=128, episodes=20),
        Budget(generations=60, population=16, rollouts=2, judged=4, episodes=20),
        SEEDS[:2],
    ),
}


def model_of(folder: Path) -> WorldModel:
    """A model folder. Raises FileNotFoundError, saying what makes one."""
    if not (folder / "model.safetensors").exists():
        raise FileNotFoundError(
            f"no model in {folder}; `dreamgym fit VizdoomTakeCover-v1 world-models-fast` (or CarRacing-v3) makes a run, or pass --run."
        )
    return bundle.load(folder)


def dream_options(run: Path, model: WorldModel) -> dict[str, Any]:
    """Temperature and dropout at which the run's own controllers dreamt."""
    settings = json.loads((run / "config.json").read_text())["preset"]["controller_training"]
    dropout = settings["dropout"] if isinstance(model.core, MDNRNN) else None
    return {"temperature": settings["temperature"], "dropout": dropout}


# ---- one search ---------------------------------------------------------------------------------------------------------------------


def dreamt(
    model: WorldModel, config: LinearControllerConfig, name: str, seed: int, budget: Budget, options: dict[str, Any]
) -> EvolveResult:
    """A controller that never was awake."""
    agent = LinearController(model.spec, model.core.feature_size, config)
    dreams = partial(DreamRollouts, model, agent, **options)  # type: ignore[arg-type]
    evaluator = dreams(candidates=budget.population, rollouts=budget.rollouts).returns
    return _evolved(agent, evaluator, dreams(candidates=1, rollouts=budget.judged).returns, name, seed, budget)


def lived(model: WorldModel, config: LinearControllerConfig, name: str, seed: int, budget: Budget) -> EvolveResult:
    """A controller that was evolved in the real environment, on the model's features: the paper's way in CarRacing."""
    agent = LinearController(model.spec, model.core.feature_size, config)
    rows = SyncVectorEnv([partial(make_from_spec, model.spec)] * REAL_ENVS, autoreset_mode=AutoresetMode.DISABLED)
    with closing(LatentVectorObservation(rows, model)) as envs:
        evaluator, judge = (VectorRollouts(envs, agent, rollouts=rollouts).returns for rollouts in (budget.rollouts, budget.judged))
        return _evolved(agent, evaluator, judge, name, seed, budget)


def _evolved(agent: LinearController, evaluator: Any, judge: Any, name: str, seed: int, budget: Budget) -> EvolveResult:
    folder = RUNS / "world-models-ablations" / name
    found = evolve(
        agent,
        evaluator,
        generations=budget.generations,
        config=CMAESConfig(population=budget.population),
        seed=seed,
        judge=judge,
        evaluate_every=10,
        folder=folder,
        progress=False,
    )
    agent.save(folder / "agent")
    return found


def judged(agent: LinearController, model: WorldModel, world: WorldName, episodes: int, options: dict[str, Any] | None) -> dict[str, Any]:
    """The controller awake, in its dream (None: it had none), and what random actions get; as JSON."""
    seeds = report_seeds(episodes)
    awake = judge_awake(agent, model, partial(make_from_spec, model.spec), seeds=seeds)
    asleep = None
    if options is not None:
        with closing(judging_dream(cast(DreamableModel, model), len(seeds), **options)) as dream:
            asleep = evaluate(agent, dream, seeds=seeds).to_json()
    return {
        "env_id": model.spec.env_id,
        "awake": awake.to_json(),
        "dream": asleep,
        "baselines": {"random actions": chance(model, world, episodes)},
    }


def chance(model: WorldModel, world: WorldName, episodes: int) -> dict[str, Any]:
    """Summary of random actions, played once for all cells of a world."""

    def measure() -> dict[str, Any]:
        with closing(make_from_spec(model.spec)) as env:
            returns = evaluate(random_policy(model.spec.action_space), env, seeds=report_seeds(episodes))
        return {"comparison": {"env_id": model.spec.env_id, "awake": returns.to_json()}}

    return Returns.from_json(recorded(RECORDS, f"{world}-random", measure)["comparison"]["awake"]).brief()


def content(settings: dict[str, Any], model: Path, found: EvolveResult | None, comparison: dict[str, Any]) -> dict[str, Any]:
    """What all records hold."""
    search = {} if found is None else {"generations": len(found.history), "best_generation": found.generation}
    return {"settings": {**settings, **search}, "model": fingerprint(model), "comparison": comparison}


# ---- a. what the controller sees ----------------------------------------------------------------------------------------------------

Inputs = Literal["z", "z-hidden", "zh", "zch"]
INPUTS: tuple[Inputs, ...] = ("z", "z-hidden", "zh", "zch")
HIDDEN = 40  # tanh units, specs/world-models.md 10


def seeing(model: WorldModel, inputs: Inputs) -> tuple[WorldModel, LinearControllerConfig]:
    """The model with features that hold what the controller is to read, and a controller that reads it."""
    parts = cast(Literal["z", "zh", "zch"], inputs.removesuffix("-hidden"))
    shown = with_features(model, parts) if len(parts) > len(_mdn_rnn(model).config.features) else model
    config = world_models_controller(model.spec)
    hidden = HIDDEN if inputs == "z-hidden" else None
    return shown, replace(config, inputs=code_ranges(shown, parts), hidden=hidden, bias=config.bias or hidden is not None)


def with_features(model: WorldModel, features: Literal["z", "zh", "zch"]) -> WorldModel:
    """The same weights, shown to agents in another way."""
    core = replace(_mdn_rnn(model).config, features=features)
    shown = WorldModel(model.spec, replace(model.config, core=core))
    shown.load_state_dict(model.state_dict())
    shown.initial_states = model.initial_states
    return shown.eval()


def _mdn_rnn(model: WorldModel) -> MDNRNN:
    if not isinstance(model.core, MDNRNN):
        raise TypeError(f"this model's memory is a {type(model.core).__name__}; these ablations are of an MDN-RNN.")
    return model.core


def inputs_cell(world: WorldName, variant: Inputs, seed: int, run: Path | None = None, budget: Budget | None = None) -> dict[str, Any]:
    """The paper's ablation of C, in the dream: z, z through a hidden layer, z and h, z and c and h."""
    run, budget, name = run or WORLDS[world].run, budget or WORLDS[world].asleep, f"{world}-inputs-{variant}-{seed}"

    def measure() -> dict[str, Any]:
        model = model_of(run / "model")
        shown, config = seeing(model, variant)
        options = dream_options(run, model)
        found = dreamt(shown, config, name, seed, budget, options)
        settings = {"world": world, "variant": variant, "seed": seed, "parameters": found.controller.num_parameters, **options}
        return content(settings, run / "model", found, judged(found.controller, shown, world, budget.episodes, options))

    return recorded(RECORDS, name, measure)


# ---- b. what the memory must have learned -------------------------------------------------------------------------------------------

Memory = Literal["z", "z-hidden", "untrained", "trained"]
MEMORIES: tuple[Memory, ...] = ("z", "z-hidden", "untrained", "trained")


def untrained(model: WorldModel, seed: int) -> WorldModel:
    """The same V and a memory of random weights: a reservoir."""
    with seeded(seed):
        fresh = WorldModel(model.spec, model.config)
    fresh.encoder.load_state_dict(model.encoder.state_dict())
    return fresh.eval()


def memory_cell(world: WorldName, variant: Memory, seed: int, run: Path | None = None, budget: Budget | None = None) -> dict[str, Any]:
    """Tallec's question: C is evolved awake on z and h of a trained or a random memory, or on z alone."""
    run, budget, name = run or WORLDS[world].run, budget or WORLDS[world].awake, f"{world}-memory-{variant}-{seed}"

    def measure() -> dict[str, Any]:
        model = model_of(run / "model")
        shown, config = seeing(model, cast(Inputs, variant) if variant.startswith("z") else "zh")
        shown = untrained(shown, seed) if variant == "untrained" else shown
        found = lived(shown, config, name, seed, budget)
        settings = {"world": world, "variant": variant, "seed": seed, "parameters": found.controller.num_parameters}
        return content(settings, run / "model", found, judged(found.controller, shown, world, budget.episodes, None))

    return recorded(RECORDS, name, measure)


# ---- c. a sample of the code or its mean --------------------------------------------------------------------------------------------

Belief = Literal["sample", "mean"]
BELIEFS: tuple[Belief, ...] = ("sample", "mean")


def belief_cell(world: WorldName, variant: Belief, seed: int, run: Path | None = None, episodes: int = 300) -> dict[str, Any]:
    """The run's own controllers, awake on samples of V's code as in the dream, or on its means. seed: which attempt of the best round."""
    run = run or WORLDS[world].run

    def measure() -> dict[str, Any]:
        model = model_of(run / "model")
        agent = LinearController.load(best_round(run) / f"agent-{seed}", model.spec)
        model.config = replace(model.config, defaults=replace(model.defaults, belief=variant))
        settings = {"world": world, "variant": variant, "seed": seed}
        return content(settings, run / "model", None, judged(agent, model, world, episodes, None))

    return recorded(RECORDS, f"{world}-belief-{variant}-{seed}", measure)


def best_round(run: Path) -> Path:
    """The round whose model the run took. Raises FileNotFoundError where the rounds are gone."""
    found = [folder for folder in sorted((run / "rounds").glob("*")) if (folder / "model" / "model.safetensors").exists()]
    same = [folder for folder in found if fingerprint(folder / "model") == fingerprint(run / "model")]
    if not same:
        raise FileNotFoundError(f"none of {len(found)} rounds in {run / 'rounds'} has the model of {run / 'model'}.")
    return same[-1]


# ---- d. when a dream ends -----------------------------------------------------------------------------------------------------------

Ends = Literal["threshold", "sample"]
ENDS: tuple[Ends, ...] = ("threshold", "sample")


def ends_cell(world: WorldName, variant: Ends, seed: int, run: Path | None = None, budget: Budget | None = None) -> dict[str, Any]:
    """The run's own kind of controller in dreams that end where death is likelier than a threshold, or by chance."""
    run, budget, name = run or WORLDS[world].run, budget or WORLDS[world].asleep, f"{world}-ends-{variant}-{seed}"

    def measure() -> dict[str, Any]:
        model = model_of(run / "model")
        options = {**dream_options(run, model), "termination": variant}
        found = dreamt(model, world_models_controller(model.spec), name, seed, budget, options)
        settings = {"world": world, "variant": variant, "seed": seed, **options}
        return content(settings, run / "model", found, judged(found.controller, model, world, budget.episodes, options))

    return recorded(RECORDS, name, measure)


# ---- e. the same controller in two kinds of dreams ----------------------------------------------------------------------------------

Dream = Literal["mdn-rnn", "rssm"]
DREAMS: tuple[Dream, ...] = ("mdn-rnn", "rssm")
RSSM = ROOT / "dreamgym" / "pretrained" / "CarRacing"


def dreams_cell(world: WorldName, variant: Dream, seed: int, run: Path | None = None, budget: Budget | None = None) -> dict[str, Any]:
    """A linear controller of all features by CMA-ES, in the run's dream with its reward head or in the bundled RSSM's; CarRacing only."""
    run, budget, name = run or WORLDS[world].run, budget or WORLDS[world].asleep, f"{world}-dreams-{variant}-{seed}"
    folder = RSSM if variant == "rssm" else run / "model"

    def measure() -> dict[str, Any]:
        model = model_of(folder)
        if not model.spec.env_id.startswith("CarRacing"):
            raise ValueError(f"the model is of {model.spec.env_id}; the bundled RSSM is of CarRacing, so this compares nothing else.")
        options = dream_options(run, model) if variant == "mdn-rnn" else {}
        found = dreamt(model, world_models_controller(model.spec), name, seed, budget, options)
        settings = {"world": world, "variant": variant, "seed": seed, "parameters": found.controller.num_parameters, **options}
        return content(settings, folder, found, judged(found.controller, model, world, budget.episodes, options))

    return recorded(RECORDS, name, measure)


# ---- CarRacing in an hour -----------------------------------------------------------------------------------------------------------

CAR_RACING = "CarRacing-v3"


def short_run(out: Path = WORLDS["car-racing"].run, seed: int = 0) -> None:
    """Fit CarRacing's run for these cells on about a third of the preset's experience and updates: an hour of a core instead of hours."""
    seen: Preprocess | None = None
    for _ in range(2):  # what the preset wants to see depends on the space, and the preset on what is seen
        with closing(make_env(CAR_RACING, preprocess=seen)) as env:
            spec = make_spec(env, CAR_RACING)
        seen = world_models_preprocess("world-models-fast", spec)
    fit(CAR_RACING, shortened(world_models_preset("world-models-fast", spec)), preprocess=seen, seed=seed, out=out)


def shortened(preset: WorldModelsPreset) -> WorldModelsPreset:
    """Less of everything, and one search."""
    return replace(
        preset,
        collection=replace(preset.collection, episodes=600, pixel_frames=60_000),
        code_training=replace(preset.code_training, steps=3000),
        memory_training=replace(preset.memory_training, steps=2500),
        controller_training=replace(preset.controller_training, attempts=1),
    )


# ---- command line -------------------------------------------------------------------------------------------------------------------


def cells(runs: Mapping[WorldName, Path | None] = {}) -> list[Cell]:
    """The whole grid, what is quick first. runs: folders other than fit's own."""
    grid: list[Cell] = []
    for world, seed in itertools.product(WORLDS, SEEDS):
        kinds: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
            "belief": (belief_cell, BELIEFS),
            "inputs": (inputs_cell, INPUTS),
        }
        kinds |= {"ends": (ends_cell, ENDS)} if world == "take-cover" else {"dreams": (dreams_cell, DREAMS)}
        grid += [_cell(kind, measure, world, variant, seed, runs) for kind, (measure, variants) in kinds.items() for variant in variants]
    for world in WORLDS:
        for seed, variant in itertools.product(WORLDS[world].awake_seeds, MEMORIES):
            grid.append(_cell("memory", memory_cell, world, variant, seed, runs))
    return grid


def _cell(
    kind: str, measure: Callable[..., dict[str, Any]], world: WorldName, variant: str, seed: int, runs: Mapping[WorldName, Path | None]
) -> Cell:
    other = runs.get(world)
    settings: dict[str, Any] = {"world": world, "variant": variant, "seed": seed, **({} if other is None else {"run": other})}
    return command_cell(kind, measure, f"{world}-{kind}-{variant}-{seed}", **settings)


def possible(take_cover: Path | None, car_racing: Path | None) -> list[Cell]:
    """Cells of the worlds that have a finished run; says which have none."""
    runs: dict[WorldName, Path | None] = {"take-cover": take_cover, "car-racing": car_racing}
    absent = {world for world in WORLDS if not ((runs[world] or WORLDS[world].run) / "model" / "model.safetensors").exists()}
    for world in sorted(absent):
        print(f"{world}: no model in {runs[world] or WORLDS[world].run}", file=sys.stderr)
    return [cell for cell in cells(runs) if not any(cell.name.startswith(world) for world in absent)]


def missing(take_cover: Path | None = None, car_racing: Path | None = None) -> None:
    """Print the commands of the cells that have no record yet."""
    for cell in without_record(RECORDS, possible(take_cover, car_racing)):
        print(cell.command(MODULE))


def run_all(take_cover: Path | None = None, car_racing: Path | None = None) -> None:
    """Do the cells that have no record yet."""
    for cell in without_record(RECORDS, possible(take_cover, car_racing)):
        cell.run()


if __name__ == "__main__":
    measures: dict[str, Callable[..., Any]] = {
        "inputs": inputs_cell,
        "memory": memory_cell,
        "belief": belief_cell,
        "ends": ends_cell,
        "dreams": dreams_cell,
    }
    tyro.extras.subcommand_cli_from_dict({**measures, "short-run": short_run, "missing": missing, "all": run_all})
