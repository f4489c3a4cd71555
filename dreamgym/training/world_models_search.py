"""C's searches, and the actor-critic beside it: agents learn in the dream, are promised something there, and are judged awake."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.linear import LinearController
from dreamgym.dreams.rollouts import DreamRollouts, RolloutResult
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.evaluation.returns import SEARCH_SEEDS_FROM, Returns, evaluate
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Policy, Spec, StartBank
from dreamgym.training.behaviour import learn_behaviour
from dreamgym.training.evolve import Evaluator, EvolveResult, evolve
from dreamgym.training.trainer import VALIDATION_SEEDS
from dreamgym.training.world_models_awake import judge_awake
from dreamgym.training.world_models_config import WorldModelsPreset
from dreamgym.training.world_models_curiosity import curious

__all__ = ["Candidate", "Searches", "best_pair"]

_EXPLORER = 99  # its search, after those of a round's attempts
_DREAM_SEEDS = 2**32  # of dreams that score a finished controller; searches use smaller ones


@dataclass
class Candidate:
    """An agent that was judged awake (offline: only in its dream), and where it lies. The actor-critic's attempt follows C's last."""

    round: int
    attempt: int
    returns: list[float]
    dreamt: float

    @property
    def score(self) -> float:
        return float(np.mean(self.returns)) if self.returns else self.dreamt

    @property
    def standard_error(self) -> float:
        """Of the score; 0 where nobody was judged awake."""
        return float(np.std(self.returns)) / math.sqrt(len(self.returns)) if self.returns else 0.0


def best_pair(candidates: Sequence[Candidate]) -> Candidate:
    """Of all agents within a standard error of the best one, the best of the latest round.

    What sets them apart is luck, and the later model has seen how those before it were cheated.
    """
    best = max(candidates, key=lambda one: one.score)
    equals = [one for one in candidates if one.score >= best.score - best.standard_error]
    return max(equals, key=lambda one: (one.round, one.score))


class Searches:
    """Makes agents in a round's model, into rounds/<n>/ of the run's folder. build None: nobody is judged awake."""

    def __init__(
        self,
        spec: Spec,
        preset: WorldModelsPreset,
        *,
        seed: int,
        folder: Path,
        progress: bool,
        build: Callable[[], gym.Env[Any, Any]] | None,
    ) -> None:
        self.spec, self.preset, self.seed, self.folder, self.progress, self.build = spec, preset, seed, folder, progress, build

    def controller(self, model: WorldModel, number: int, attempt: int) -> tuple[LinearController, EvolveResult, Candidate]:
        """Evolve one of the round's controllers, and judge it."""
        settings = self.preset.controller_training
        agent = LinearController(self.spec, model.core.feature_size, self.preset.controller)
        judge = self._centre_awake(model, agent) if self.build is not None and settings.judge_awake else None
        found = self._evolve(model, agent, number, str(attempt), settings.generations, attempt, judge=judge)
        return agent, found, Candidate(number, attempt, self._validated(model, agent), self._dreamt(model, agent))

    def actor_critic(self, model: WorldModel, bank: StartBank, number: int) -> tuple[ActorCritic, Candidate]:
        """Learn an actor-critic from short dreams that begin in `bank`, and judge it."""
        settings, attempt = self.preset.behaviour_training, self.preset.controller_training.attempts
        assert settings is not None
        seed = 1000 * self.seed + 100 * number + attempt
        options: dict[str, Any] = {"updates": settings.updates, "starts": settings.starts, "bank": bank, "progress": self.progress}
        agent = learn_behaviour(model, settings.config, seed=seed, bfloat16=self.preset.bfloat16, **options)
        agent.save(self.folder / str(number) / f"agent-{attempt}")
        dreams, training = self.preset.controller_training.judge_dreams, self.preset.controller_training
        options = {"obs_type": "latent", "temperature": training.temperature, "dropout": training.dropout}
        dreamt = evaluate(agent, DreamVectorEnv(model, dreams, **options), seeds=range(dreams)).mean  # type: ignore[arg-type]
        return agent, Candidate(number, attempt, self._validated(model, agent), dreamt)

    def explorer(self, model: WorldModel, number: int) -> tuple[LinearController, dict[str, float]]:
        """Evolve a controller that seeks what the model knows little of; the second are numbers for the log."""
        iterations = self.preset.iterations
        agent = LinearController(self.spec, model.core.feature_size, self.preset.controller)
        found = self._evolve(model, agent, number, "explorer", iterations.explorer_generations, _EXPLORER, curiosity=iterations.curiosity)
        dreamt, paid = self._dreamt(model, agent), self._dreamt(model, agent, iterations.curiosity)
        return agent, {"generation": float(found.generation), "dreamt": dreamt, "bonus": paid - dreamt}

    def _evolve(
        self,
        model: WorldModel,
        agent: LinearController,
        number: int,
        name: str,
        generations: int,
        search: int,
        *,
        curiosity: float = 0.0,
        judge: Evaluator | None = None,
    ) -> EvolveResult:
        """Evolve the controller in the dream; it is kept under its name."""
        settings, evolution, folder = self.preset.controller_training, self.preset.evolution, self.folder / str(number)
        found = evolve(
            agent,
            self._dreams(model, agent, evolution.population, settings.rollouts, curiosity),
            generations=generations,
            config=evolution,
            seed=1000 * self.seed + 100 * number + search,
            judge=self._dreams(model, agent, 1, settings.judge_dreams, curiosity) if judge is None else judge,
            evaluate_every=settings.evaluate_every,
            folder=folder / f"search-{name}",
            progress=self.progress,
        )
        agent.save(folder / f"agent-{name}")
        return found

    def _dreamt(self, model: WorldModel, agent: LinearController, curiosity: float = 0.0) -> float:
        """What the controller earns in dreams that no search has seen."""
        dreams = self._dreams(model, agent, 1, self.preset.controller_training.judge_dreams, curiosity)
        return float(dreams(agent.vector[None], _DREAM_SEEDS).returns.mean())

    def _dreams(
        self, model: WorldModel, agent: LinearController, candidates: int, rollouts: int, curiosity: float = 0.0
    ) -> Callable[[Any, int], RolloutResult]:
        """Judges so many controllers at once, each in so many dreams, which pay for curiosity if there is any."""
        settings, dreamt = self.preset.controller_training, model if curiosity == 0.0 else curious(model, curiosity)
        options: dict[str, Any] = {"temperature": settings.temperature, "dropout": settings.dropout, "bfloat16": self.preset.bfloat16}
        return DreamRollouts(dreamt, agent, candidates=candidates, rollouts=rollouts, **options).returns  # type: ignore[arg-type]

    def _centre_awake(self, model: WorldModel, agent: LinearController) -> Evaluator:
        """Judges one vector of parameters [1,N] by real returns [1,R]."""

        def judge(parameters: Any, seed: int) -> Any:
            agent.vector = parameters[0]
            episodes = self.preset.controller_training.judge_awake
            return np.asarray([self._awake(model, agent, episodes, SEARCH_SEEDS_FROM + seed % 100_000).returns])

        return judge

    def _validated(self, model: WorldModel, agent: Policy) -> list[float]:
        """Returns awake on seeds that choose; none where nobody is judged awake."""
        if self.build is None:
            return []
        episodes = self.preset.controller_training.validation_episodes
        return list(self._awake(model, agent, episodes, VALIDATION_SEEDS + 10_000 * self.seed).returns)

    def _awake(self, model: WorldModel, agent: Policy, episodes: int, first_seed: int) -> Returns:
        assert self.build is not None
        return judge_awake(agent, model, self.build, seeds=range(first_seed, first_seed + episodes))
