"""Acting without a policy network: search for good action sequences in the model's dreams, execute the first action, search again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.agents.agent_files import read_description, write_description
from dreamgym.agents.belief import BeliefPolicy, StepKey
from dreamgym.agents.planner_search import (
    BoxFamily,
    ClassFamily,
    DreamScorer,
    PolicyFunction,
    Proposal,
    RewardFunction,
    ValueFunction,
    candidate_noise,
    family_of,
)
from dreamgym.agents.sharing import push_agent
from dreamgym.errors import InvalidModelError, NonFiniteDreamError
from dreamgym.formats.files import FileSet
from dreamgym.formats.strict_json import escape, quote
from dreamgym.models.guard import Guard
from dreamgym.models.world_model import WorldModel
from dreamgym.noise import uniform
from dreamgym.structs import TensorStruct

__all__ = ["CEM", "MPPI", "CEMConfig", "MPPIConfig", "Plan", "Planner", "PlanningPolicy", "build_planner", "load_planner"]


@dataclass(frozen=True)
class CEMConfig:
    """Defaults: PlaNet (Hafner et al. 2019, algorithm 2 and planet/scripts/configs.py; specs/planet.md 4).

    It clips, averages and restarts as PlaNet's code does: every step begins at N(0, init_std), the returned action is the final mean.
    continue_aware weighs rewards by the predicted chance of being alive; PlaNet has no continue head, so there it changes nothing.
    futures: one stochastic future per candidate ("own", PlaNet), one for all ("shared"), or the mean one ("mean").
    explore_noise is the std of noise on actions while collecting; for classes, the chance of a uniform one.
    class_smoothing is the share of old class probabilities that a refit keeps. max_rows bounds the rows dreamt at once.
    """

    horizon: int = 12
    iterations: int = 10
    candidates: int = 1000
    elites: int = 100
    init_std: float = 1.0
    explore_noise: float = 0.3
    warm_start: bool = False  # shift the last plan instead of starting anew; the authors found that starting anew avoids local optima
    discount: float = 1.0
    continue_aware: bool = True
    uncertainty_penalty: float = 0.0  # in units of reward, as in DreamDefaults
    max_uncertainty: float | None = None
    range_guard: bool = False
    futures: Literal["own", "shared", "mean"] = "own"
    class_smoothing: float = 0.1
    max_rows: int = 16384

    def __post_init__(self) -> None:
        _check(self, least_iterations=0)
        if not self.init_std > 0.0 or not self.explore_noise >= 0.0:
            raise ValueError(f"init_std {self.init_std} and explore_noise {self.explore_noise} must be above 0 and at least 0.")


@dataclass(frozen=True)
class MPPIConfig:
    """Defaults: TD-MPC2 (Hansen et al. 2024, arXiv 2310.16828; specs/dreamer.md E.2). Its horizon of 3 counts on a value function.

    temperature multiplies scores before the softmax over elites, as in TD-MPC2's code; iterations grow by 2 from 20 action dimensions
    on. policy_candidates come from the policy, where one is given. Other fields as in CEMConfig.
    """

    horizon: int = 3
    iterations: int = 6
    candidates: int = 512
    elites: int = 64
    policy_candidates: int = 24
    min_std: float = 0.05
    max_std: float = 2.0
    temperature: float = 0.5
    warm_start: bool = True
    discount: float = 0.99  # TD-MPC2 sets it by episode length, 0.95 to 0.995
    continue_aware: bool = True
    uncertainty_penalty: float = 0.0
    max_uncertainty: float | None = None
    range_guard: bool = False
    futures: Literal["own", "shared", "mean"] = "own"
    class_smoothing: float = 0.1
    max_rows: int = 16384

    def __post_init__(self) -> None:
        _check(self, least_iterations=1)
        if not 0.0 < self.min_std <= self.max_std:
            raise ValueError(f"min_std {self.min_std} and max_std {self.max_std} must be positive and in this order.")
        if not self.temperature > 0.0:
            raise ValueError(f"temperature is {self.temperature}; expected a positive number.")
        if not 0 <= self.policy_candidates < self.candidates:
            raise ValueError(f"policy_candidates is {self.policy_candidates}; expected 0 to {self.candidates - 1}, fewer than candidates.")


@dataclass(frozen=True)
class Plan(TensorStruct):
    """What a search ended with."""

    action: Tensor  # [B,A] model action to execute
    proposal: Proposal  # [B,H,A] the last sequences' mean and std, or class probabilities
    score: Tensor  # [B] mean predicted return of the last elites; beside the realised return it shows how far the model was exploited


class Planner(ABC):
    """Plans for B states of a DreamableModel at once; all B x J candidates are one batch and no environment sees another's.

    The same state and key give the same plan, whatever the batch (up to rounding). reward_fn(model, state [N]) -> [N] replaces the
    model's own reward, so one model serves many tasks. value(features [N,F]) -> [N], in units of reward, continues after the horizon.
    """

    kind: str

    def __init__(
        self,
        model: Any,
        config: CEMConfig | MPPIConfig,
        *,
        reward_fn: RewardFunction | None = None,
        value: ValueFunction | None = None,
    ) -> None:
        self.model, self._settings = model, config
        self.scorer = DreamScorer(
            model, Guard.by(model, config), config.discount, config.continue_aware, config.futures, config.max_rows, reward_fn, value
        )
        self.family = self._family()
        self.iterations = config.iterations

    def plan(self, state: Any, key: StepKey, memory: Plan | None = None) -> Tensor:
        """Model actions [B,A] for states [B], without exploration; memory as in `search`."""
        return self.search(state, key, memory).action

    def act(self, state: Any, memory: Plan | None, key: StepKey, deterministic: bool = False) -> tuple[Tensor, Plan]:
        """Model actions [B,A] (with exploration unless deterministic) and the plan, to be handed back at the next step."""
        plan = self.search(state, key, memory)
        return (plan.action if deterministic else self._explored(plan, key)), plan

    @torch.inference_mode()
    def search(self, state: Any, key: StepKey, memory: Plan | None = None) -> Plan:
        """Plan from states [B]. memory is the last step's plan for these rows; it counts only with warm_start and where key.step > 0.

        Raises NonFiniteDreamError if every candidate of an environment scored NaN or minus infinity.
        """
        config, seeds = self._settings, key.seeds(_SEARCH)
        if not self.scorer.guard.idle:  # while the model learns, its lowest reward falls
            self.scorer = replace(self.scorer, guard=Guard.by(self.model, config))
        device = seeds.device
        proposal = self._start(key, memory)
        wishes = self._policy_sequences(state, seeds)
        shape = (config.candidates - wishes.shape[1], config.horizon, self.family.lanes)
        elites, weights = self.family.action_sequences(proposal)[:, None], torch.ones(len(seeds), 1, device=device)
        score = torch.full((len(seeds),), torch.nan, device=device)
        for iteration in range(self.iterations):
            drawn = self.family.draw(proposal, candidate_noise(seeds, iteration, shape))
            candidates = torch.cat([wishes, drawn], 1)
            best = self.scorer.scores(state, candidates, seeds, iteration).topk(config.elites, 1)
            elites = candidates[torch.arange(len(seeds), device=device)[:, None], best.indices]
            weights, score = self._weights(best.values), best.values.mean(1)
            proposal = self.family.refit(proposal, elites, weights)
        if self.iterations and not bool(torch.isfinite(best.values[:, 0]).all()):
            raise NonFiniteDreamError("every candidate's predicted return is NaN or infinite; the model or the reward function is broken.")
        return Plan(self._choose(proposal, elites, weights, key), proposal, score)

    def save(self, folder: str | Path) -> None:
        """Write agent.json: the kind and the config. A reward function, value or policy is code and must be given again."""
        write_description(folder, config=self._settings, kind=self.kind)

    def push_to_hub(self, repo_id: str, *, license: str, **options: Any) -> Any:
        """Share it on the Hub as one commit, linked to its world model; see dreamgym.hub.sharing.push_agent. Returns commit and page."""
        return push_agent(self, repo_id, license=license, **options)

    def _start(self, key: StepKey, memory: Plan | None) -> Proposal:
        fresh = self.family.start(len(key.step), self._settings.horizon, key.step.device)
        if memory is None or not self._settings.warm_start:
            return fresh
        return fresh.where(key.step == 0, self.family.moved_on(memory.proposal))

    @abstractmethod
    def _family(self) -> BoxFamily | ClassFamily:
        """What to search in."""

    @abstractmethod
    def _policy_sequences(self, state: Any, seeds: Tensor) -> Tensor:
        """Candidates that are there in every iteration: [B,P,H,A]."""

    @abstractmethod
    def _weights(self, scores: Tensor) -> Tensor:
        """Weights [B,K] of elites with scores [B,K], which descend; they sum to one."""

    @abstractmethod
    def _choose(self, proposal: Proposal, elites: Tensor, weights: Tensor, key: StepKey) -> Tensor:
        """The action [B,A] to execute."""

    @abstractmethod
    def _explored(self, plan: Plan, key: StepKey) -> Tensor:
        """The action with exploration noise."""


class CEM(Planner):
    """Cross-entropy method: refit to the best candidates, return the final mean. PlaNet's planner by default."""

    kind = "cem"

    def __init__(
        self,
        model: Any,
        config: CEMConfig | None = None,
        *,
        reward_fn: RewardFunction | None = None,
        value: ValueFunction | None = None,
    ) -> None:
        self.config = config or CEMConfig()
        super().__init__(model, self.config, reward_fn=reward_fn, value=value)

    def _family(self) -> BoxFamily | ClassFamily:
        return family_of(self.model.spec, BoxFamily(self.model.spec.action_size, self.config.init_std), self.config.class_smoothing)

    def _policy_sequences(self, state: Any, seeds: Tensor) -> Tensor:
        return torch.zeros(len(seeds), 0, self.config.horizon, self.model.spec.action_size, device=seeds.device)

    def _weights(self, scores: Tensor) -> Tensor:
        return torch.full_like(scores, 1.0 / scores.shape[1])

    def _choose(self, proposal: Proposal, elites: Tensor, weights: Tensor, key: StepKey) -> Tensor:
        return self.family.action_sequences(proposal)[:, 0]

    def _explored(self, plan: Plan, key: StepKey) -> Tensor:
        return self.family.perturbed(plan.action, self.config.explore_noise, _noise(key, _EXPLORE, 2 * self.family.lanes))


class MPPI(Planner):
    """Model-predictive path integral control: elites weighted by their exponentiated return, one of which is executed. TD-MPC2's.

    policy(features [N,F], noise [N,A] uniform) -> model actions [N,A] proposes candidates of its own.
    """

    kind = "mppi"

    def __init__(
        self,
        model: Any,
        config: MPPIConfig | None = None,
        *,
        reward_fn: RewardFunction | None = None,
        value: ValueFunction | None = None,
        policy: PolicyFunction | None = None,
    ) -> None:
        self.config = config or MPPIConfig()
        super().__init__(model, self.config, reward_fn=reward_fn, value=value)
        self.policy = policy
        self.iterations += 2 * (model.spec.action_size >= 20)

    def _family(self) -> BoxFamily | ClassFamily:
        config, spec = self.config, self.model.spec
        box = BoxFamily(spec.action_size, config.max_std, variance_floor=0.0, min_std=config.min_std, max_std=config.max_std)
        return family_of(spec, box, config.class_smoothing)

    def _policy_sequences(self, state: Any, seeds: Tensor) -> Tensor:
        count = 0 if self.policy is None else self.config.policy_candidates
        H, A, lanes = self.config.horizon, self.model.spec.action_size, self.model.noise_lanes
        sequences = torch.zeros(len(seeds), count, H, A, device=seeds.device)
        if self.policy is None or count == 0:
            return sequences
        noise = candidate_noise(seeds, -1, (count, H, A + lanes)).flatten(0, 1)  # -1: streams that no iteration uses
        state = state[torch.arange(len(seeds), device=seeds.device).repeat_interleave(count)]
        for h in range(H):
            action = self.policy(self.model.features(state), noise[:, h, :A])
            sequences[:, :, h] = action.view(len(seeds), count, A)
            state = self.model.step(state, action, noise[:, h, A:])
        return sequences

    def _weights(self, scores: Tensor) -> Tensor:
        return torch.softmax(self.config.temperature * scores, 1)

    def _choose(self, proposal: Proposal, elites: Tensor, weights: Tensor, key: StepKey) -> Tensor:
        """One elite's first action, drawn by weight."""
        edges = weights.cumsum(1)[:, :-1]
        elite = (_noise(key, _CHOOSE, 1) >= edges).sum(1)
        return elites[torch.arange(len(elites), device=elites.device), elite, 0]

    def _explored(self, plan: Plan, key: StepKey) -> Tensor:
        if plan.proposal.spread is None:
            return plan.action  # drawing a class from the elites explores already
        return self.family.perturbed(plan.action, plan.proposal.spread[:, 0], _noise(key, _EXPLORE, 2 * self.family.lanes))


class PlanningPolicy:
    """A planner acting on (preprocessed) real observations with Stable-Baselines3's `predict`; BeliefPolicy does the looking.

    Acts from a posterior sample, as PlaNet does; deterministic=True leaves out the exploration noise. Planning needs no training, so
    any model that can be observed with will do: PlanningPolicy(WorldModel.from_pretrained("Pendulum"), CEMConfig(horizon=20)).
    """

    def __init__(
        self,
        model: WorldModel,
        config: CEMConfig | MPPIConfig | None = None,
        *,
        reward_fn: RewardFunction | None = None,
        value: ValueFunction | None = None,
        posterior: Literal["mean", "sample"] = "sample",
        seed: int = 0,
    ) -> None:
        self.planner = build_planner(model, config or CEMConfig(), reward_fn=reward_fn, value=value)
        self._belief = BeliefPolicy(self.planner, model, posterior=posterior, seed=seed)

    @property
    def last_plan(self) -> Plan | None:
        """What the last call decided, with its predicted return."""
        return cast("Plan | None", self._belief.memory)

    def reseed(self, seed: int) -> None:
        """Restart all noise."""
        self._belief.reseed(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Env actions for observations [B,...] or one; rows where episode_start is true begin from an empty belief."""
        return self._belief.predict(observation, state, episode_start, deterministic)


def build_planner(
    model: Any, config: CEMConfig | MPPIConfig, *, reward_fn: RewardFunction | None = None, value: ValueFunction | None = None
) -> Planner:
    """The planner that the config's type stands for; reward_fn and value as Planner takes them."""
    if isinstance(config, CEMConfig):
        return CEM(model, config, reward_fn=reward_fn, value=value)
    return MPPI(model, config, reward_fn=reward_fn, value=value)


def load_planner(
    files: str | Path | FileSet, model: Any, *, reward_fn: RewardFunction | None = None, value: ValueFunction | None = None
) -> Planner:
    """Read what Planner.save wrote, in a folder or the Hub's cache.

    Raises ModelNotFoundError, or InvalidModelError if it is not a planner or does not fit the model.
    """
    described = read_description(files)
    config: CEMConfig | MPPIConfig
    if described.kind == "cem":
        config = described.decode_config(CEMConfig)
    elif described.kind == "mppi":
        config = described.decode_config(MPPIConfig)
    else:
        raise described.place.key("kind").error(f"is {quote(described.kind)}; expected cem or mppi")
    try:
        return build_planner(model, config, reward_fn=reward_fn, value=value)
    except ValueError as error:
        raise InvalidModelError(f"{described.place.where}: does not fit this model ({escape(str(error))})") from error


_SEARCH, _CHOOSE, _EXPLORE = range(3)  # lanes of a StepKey


def _noise(key: StepKey, lane: int, width: int) -> Tensor:
    """Uniforms [B,width] of one of a step's streams."""
    seeds = key.seeds(lane)
    zero = torch.zeros_like(seeds)
    return uniform(seeds, zero, zero, width)


_LIMITS = {"horizon": 10_000, "iterations": 1000, "candidates": 1_000_000, "elites": 1_000_000, "max_rows": 2**24}
_MAX_ACTIONS = 10_000_000  # of all candidates of one environment; a planner may be a stranger's, and they are held at once


def _check(config: CEMConfig | MPPIConfig, *, least_iterations: int) -> None:
    for name, high in _LIMITS.items():
        low = least_iterations if name == "iterations" else 1
        if not low <= getattr(config, name) <= high:
            raise ValueError(f"{name} is {getattr(config, name)}; expected {low} to {high}.")
    if config.candidates * config.horizon > _MAX_ACTIONS:
        raise ValueError(
            f"candidates is {config.candidates} with horizon {config.horizon}; expected at most {_MAX_ACTIONS} actions in all."
        )
    if config.elites > config.candidates:
        raise ValueError(f"elites is {config.elites}; expected at most candidates, {config.candidates}.")
    if not 0.0 < config.discount <= 1.0 or not 0.0 <= config.class_smoothing < 1.0:
        raise ValueError(f"discount {config.discount} and class_smoothing {config.class_smoothing} must lie in (0,1] and [0,1).")
    if config.futures not in ("own", "shared", "mean"):
        raise ValueError(f"futures is {config.futures!r}; expected own, shared or mean.")
