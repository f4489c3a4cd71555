"""Evolves a controller: CMA-ES asks, a judge of many candidates answers, dreaming or awake. Resumable to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dreamgym.agents.evolution import CMAES, CMAESConfig
from dreamgym.agents.linear import LinearController
from dreamgym.training.checkpoints import read_checkpoint, write_checkpoint
from dreamgym.training.logger import MetricsLog

__all__ = ["EvolveResult", "Evaluator", "Generation", "evolve"]

Evaluator = Callable[[NDArray[np.float64], int], Any]
"""(parameters [P,N], seed) -> returns [P,R], an array or tensor, or a RolloutResult. Equal seeds must mean equal luck for all."""


@dataclass(frozen=True)
class Generation:
    """What one generation came to. Returns are means over rollouts; best is the luckiest candidate's, so look at the centre."""

    number: int  # from 1
    mean: float
    best: float
    sigma: float
    seconds: float
    length: float | None = None  # mean steps, where the evaluator tells
    centre: float | None = None  # the distribution's mean, on fresh seeds, where it was judged
    centre_error: float | None = None  # its standard error


@dataclass(frozen=True)
class EvolveResult:
    """The policy with the best centre that was judged, and how it came about.

    centre_return is that of the judgement it won by, so it is lucky by a little: score the controller on other seeds.
    """

    controller: LinearController
    history: list[Generation]
    centre_return: float
    generation: int  # of the best centre; 0: where the search began


def evolve(
    policy: LinearController,
    evaluator: Evaluator,
    *,
    generations: int,
    config: CMAESConfig | None = None,
    seed: int = 0,
    judge: Evaluator | None = None,
    evaluate_every: int = 25,
    judge_start: bool = False,
    weight_decay: float = 0.0,
    folder: str | Path | None = None,
    save_every: float = 60.0,
    progress: bool = True,
    report: Callable[[Generation], None] | None = None,
) -> EvolveResult:
    """Search from policy.vector for parameters of a high mean return; the policy ends up as the best centre.

    evaluator: DreamRollouts(...).returns or VectorRollouts(...).returns. Every generation has fresh seeds, shared by its candidates.
    judge scores the centre, one candidate [1,N], every evaluate_every generations and at the end, on seeds of its own; it may well play
    the real environment, since dream returns keep rising after real ones fall. None asks the evaluator for its R rollouts, which are few.
    judge_start: judge where it begins too, as generation 0: a search from a good policy then ends no worse than that, up to luck.
    weight_decay charges so much per unit of mean squared parameter. folder: where the run is kept (evolve.pt, metrics.jsonl), every
    save_every seconds and at the end, and goes on from. report is called after every generation.
    Source: Ha & Schmidhuber 2018 (specs/world-models.md 6). Raises ValueError for a folder with another run.
    """
    if generations < 1 or evaluate_every < 1:
        raise ValueError(f"generations is {generations}, evaluate_every is {evaluate_every}; expected at least 1.")
    run = _Run(policy, CMAES(config, policy.num_parameters, seed, mean=policy.vector), seed, weight_decay)
    keeper = None if folder is None else _Keeper(Path(folder), save_every, progress)
    try:
        if keeper is not None:
            keeper.restore(run)
        judge = judge or _of_one(evaluator, run.search.config.population)
        if judge_start and run.done == 0:
            judged_at_start = run.judge_start(judge)
            if keeper is not None:
                keeper.begin(*judged_at_start)
        with tqdm(total=generations, initial=run.done, desc="evolve", disable=not progress, dynamic_ncols=True) as bar:
            while run.done < generations:
                last = run.done + 1 == generations
                judged = last or (run.done + 1) % evaluate_every == 0
                generation = run.live(evaluator, judge if judged else None)
                if keeper is not None:
                    keeper.keep(run, generation, last=last)
                if report is not None:
                    report(generation)
                bar.set_postfix(run.postfix(generation))
                bar.update()
    finally:
        if keeper is not None:
            keeper.log.close()
    return run.result()


@dataclass
class _Best:
    """The best centre so far."""

    vector: NDArray[np.float64]
    centre_return: float = -np.inf
    generation: int = 0


@dataclass
class _Run:
    """A search under way."""

    policy: LinearController
    search: CMAES
    seed: int
    weight_decay: float
    history: list[Generation] = field(default_factory=list)
    best: _Best = field(init=False)

    def __post_init__(self) -> None:
        self.best = _Best(self.search.mean)

    @property
    def done(self) -> int:
        """Generations lived."""
        return len(self.history)

    def live(self, evaluator: Evaluator, judge: Evaluator | None) -> Generation:
        """One generation; judge the centre where there is a judge."""
        started, number = time.monotonic(), self.done + 1
        candidates = self.search.ask()
        returns, length = _read(evaluator(candidates, _seed_of(self.seed, _EVALUATE, number)), len(candidates))
        fitness = returns.mean(1)
        self.search.tell(candidates, fitness - self.weight_decay * (candidates**2).mean(1))
        centre, error = (None, None) if judge is None else self._judge(judge, number)
        seconds = round(time.monotonic() - started, 3)
        generation = Generation(number, float(fitness.mean()), float(fitness.max()), self.search.sigma, seconds, length, centre, error)
        self.history.append(generation)
        return generation

    def judge_start(self, judge: Evaluator) -> tuple[float, float]:
        """The centre's return and its standard error before the first generation."""
        return self._judge(judge, 0)

    def _judge(self, judge: Evaluator, number: int) -> tuple[float, float]:
        centre = self.search.mean
        returns, _ = _read(judge(centre[None], _seed_of(self.seed, _JUDGE, number)), 1)
        mean, error = float(returns.mean()), float(returns.std() / np.sqrt(returns.size))
        if mean > self.best.centre_return:
            self.best = _Best(centre, mean, number)
        return mean, error

    def postfix(self, generation: Generation) -> dict[str, str]:
        """What the progress bar shows."""
        centres = [lived.centre for lived in self.history if lived.centre is not None]
        shown = {"best": generation.best, "mean": generation.mean, **({"centre": centres[-1]} if centres else {})}
        return {name: f"{value:.4g}" for name, value in shown.items()}

    def result(self) -> EvolveResult:
        """With the best centre in the policy."""
        self.policy.vector = self.best.vector
        return EvolveResult(self.policy, list(self.history), self.best.centre_return, self.best.generation)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        best = {**vars(self.best), "vector": torch.from_numpy(self.best.vector)}
        asked = {"weight_decay": self.weight_decay, "config": asdict(self.search.config)}
        return {**asked, "search": self.search.state_dict(), "best": best, "history": [asdict(lived) for lived in self.history]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`. Raises ValueError if it is another search's."""
        ours = {"weight_decay": self.weight_decay, "config": asdict(self.search.config)}
        found = {name: saved[name] for name in ours}
        if found != ours:
            raise ValueError(f"it was begun with {found}, now asked for is {ours}.")
        self.search.load_state_dict(saved["search"])
        self.best = _Best(**{**saved["best"], "vector": saved["best"]["vector"].numpy()})
        self.history = [Generation(**lived) for lived in saved["history"]]


class _Keeper:
    """Keeps a run in a folder."""

    def __init__(self, folder: Path, every: float, progress: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.every = folder / "evolve.pt", every
        self.log = MetricsLog(folder, progress=progress)
        self._kept = time.monotonic()

    def restore(self, run: _Run) -> None:
        """Go on where the folder's run stopped; lines logged after that are dropped."""
        if not self.path.exists():
            self.log.rewind(0)
            return
        saved = read_checkpoint(self.path, torch.device("cpu"))
        try:
            run.load_state_dict(saved["run"])
        except ValueError as error:
            raise ValueError(f"{self.path.parent} holds another run: {error} Take another folder, or delete {self.path}.") from error
        self.log.rewind(saved["lines"])

    def begin(self, centre: float, error: float) -> None:
        """Log what the search begins with, as generation 0."""
        self.log.write("evolve", 0, {"centre": centre, "centre_error": error})

    def keep(self, run: _Run, generation: Generation, *, last: bool) -> None:
        """Log the generation; save the run where it is time."""
        values = {name: value for name, value in asdict(generation).items() if value is not None and name != "number"}
        self.log.write("evolve", generation.number, values)
        if last or time.monotonic() - self._kept >= self.every:
            write_checkpoint(self.path, {"run": run.state_dict(), "lines": len(self.log)})
            self._kept = time.monotonic()


_EVALUATE, _JUDGE = range(2)


def _seed_of(seed: int, purpose: int, number: int) -> int:
    """A fresh seed, far from others', that every environment takes: rollout r begins from it plus r."""
    return int(np.random.SeedSequence((seed, purpose, number)).generate_state(1)[0] >> 1)


def _of_one(evaluator: Evaluator, candidates: int) -> Evaluator:
    """A judge of one candidate: it fills the whole population, since evaluators may take no other number."""

    def judge(parameters: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
        return _read(evaluator(np.repeat(parameters, candidates, 0), seed), candidates)[0][:1]

    return judge


def _read(evaluated: Any, candidates: int) -> tuple[NDArray[np.float64], float | None]:
    """Returns [P,R] and the mean length, where it is told. Raises ValueError for another shape."""
    lengths = getattr(evaluated, "lengths", None)
    returns = np.asarray(getattr(evaluated, "returns", evaluated), np.float64)
    if returns.ndim != 2 or len(returns) != candidates or not returns.size:
        raise ValueError(f"the evaluator gave returns of shape {returns.shape}; expected ({candidates}, R), R rollouts per candidate.")
    return returns, None if lengths is None else float(np.asarray(lengths, np.float64).mean())
