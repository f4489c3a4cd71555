"""The stages of a run and its checkpoints: prefill, autoencoder, rounds of learn and validate, the final choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.belief import BeliefPolicy
from dreamgym.data import collection as collecting
from dreamgym.data import collectors
from dreamgym.data.replay import HoldOut, Replay
from dreamgym.envs import make_env
from dreamgym.hub import bundle
from dreamgym.models.calibration import fit_ensemble_scaling
from dreamgym.models.ensemble import Ensemble
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Spec
from dreamgym.training.checkpoints import check_finite, read_checkpoint, write_checkpoint
from dreamgym.training.experience import adopt_dataset, forget_episodes, provenance
from dreamgym.training.learners import (
    AgentLearner,
    AutoencoderLearner,
    ModelLearner,
    Randomness,
    calibrate,
    draw_start_bank,
    encode_new_rows,
    seeded,
)
from dreamgym.training.logger import MetricsLog
from dreamgym.training.presets import Collection, Preset

__all__ = ["Trainer"]

# Seeds of real episodes. Reports use evaluation.returns' own range, which neither of these ever enters.
TRAINING_SEEDS = 100_000
VALIDATION_SEEDS = 500_000
_CHECKPOINT_EVERY = 500  # steps
_LOG_EVERY = 50


@dataclass
class Candidate:
    """A model and agent that were judged awake, with the returns that judged them."""

    round: int
    returns: list[float]
    weights: dict[str, dict[str, Tensor]]

    @property
    def score(self) -> float:
        return float(np.mean(self.returns))


class Trainer:
    """Owns everything a run changes. `run` walks through the stages; (stage, step) says where it stands."""

    def __init__(
        self,
        spec: Spec,
        preset: Preset,
        *,
        seed: int,
        device: str,
        folder: Path,
        progress: bool,
        env: gym.Env[Any, Any] | None,
        env_kwargs: dict[str, Any] | None = None,
        workers: int = 1,
    ) -> None:
        self.spec, self.preset, self.seed, self.folder, self.env = spec, preset, seed, folder, env
        self.env_kwargs, self.workers = env_kwargs or {}, workers
        self.log = MetricsLog(folder, progress=progress)
        self.replay = Replay(spec, folder / "replay" / "train")
        self.held_out = Replay(spec, folder / "replay" / "held_out")
        with seeded(seed):
            self.model = WorldModel(spec, preset.model).to(device)
            self.agent = ActorCritic(spec, self.model.core.feature_size, preset.agent, seed=seed).to(device)
        randomness = Randomness(seed)
        self.autoencoder = AutoencoderLearner(self.model, preset, randomness) if preset.autoencoder else None
        self.model_learner = ModelLearner(self.model, preset, randomness)
        self.agent_learner = AgentLearner(self.agent, self.model, preset, randomness)
        self.codes: Tensor | None = None
        self.candidates: list[Candidate] = []
        self.recent_from = 0
        self.stage, self.step, self.model_steps, self.agent_steps, self.real_steps = 0, 0, 0, 0, 0
        self.stages: list[tuple[str, Callable[[], None]]] = self._plan()

    # ---- the plan -----------------------------------------------------------------------------------------------------

    def _plan(self) -> list[tuple[str, Callable[[], None]]]:
        stages: list[tuple[str, Callable[[], None]]] = []
        if self.env is not None:
            stages.append(("prefill", self._prefill))
        if self.autoencoder is not None:
            stages.append(("autoencoder", self._learn_autoencoder))
        for number in range(self.preset.collection.rounds):
            stages.append((f"round {number}: learn", self._learn))
            stages.append((f"round {number}: awake", lambda number=number: self._judge(number)))  # type: ignore[misc]
        stages.append(("final choice", self._choose))
        return stages

    def use_dataset(self, dataset: Replay) -> None:
        """Train offline from a filled replay; its last tenth of episodes is held out. Copies nothing if already copied."""
        adopt_dataset(dataset, self.replay, self.held_out)
        self.recent_from = len(self.replay)

    def run(self) -> dict[str, Any]:
        """Do the stages that are left; returns the final metrics."""
        if (self.stage, self.step) == (0, 0):  # an earlier attempt may have died before its first checkpoint
            self.log.rewind(0)
            if self.env is not None:
                forget_episodes(self.replay, self.held_out)
        while self.stage < len(self.stages):
            name, stage = self.stages[self.stage]
            self.log.say(f"[{self.spec.env_id} / {self.preset.name} / seed {self.seed}] {name}")
            stage()
            self.stage, self.step = self.stage + 1, 0
            self.checkpoint()
        best = self.candidates[0] if self.candidates else None
        return {
            "env_steps": self.real_steps * self.spec.preprocess.action_repeat,
            "model_steps": self.model_steps,
            "agent_steps": self.agent_steps,
            "validation": None if best is None else {"round": best.round, "mean": best.score, "returns": best.returns},
            "uncertainty": [float(self.model.uncertainty_median), float(self.model.uncertainty_scale)],
        }

    # ---- real experience ----------------------------------------------------------------------------------------------

    @property
    def _budget(self) -> int:
        """Agent steps of the whole run."""
        return self.preset.collection.env_steps // self.spec.preprocess.action_repeat

    def _prefill(self) -> None:
        settings = self.preset.collection
        assert self.env is not None
        policy = partial(_random_policy, settings, self.spec, self.seed)
        sink = HoldOut(self.replay, self.held_out, settings.held_out_every)
        options: dict[str, Any] = {
            "steps": int(self._budget * settings.prefill),
            "seed": TRAINING_SEEDS + 10_000 * self.seed,
            "max_episode_steps": None if settings.episode_steps is None else collecting.EpisodeLengths(*zip(*settings.episode_steps)),
            "progress": self.log.progress,
        }
        if self.workers > 1:
            build = partial(make_env, self.spec.env_id, preprocess=self.spec.preprocess, **self.env_kwargs)
            stats = collecting.collect_parallel(build, policy, sink, workers=self.workers, **options)
        else:
            stats = collecting.collect(self.env, policy, sink, **options)
        self.real_steps += stats.steps
        self.recent_from = len(self.replay)
        self._report_collection("prefill", stats)

    def _judge(self, number: int) -> None:
        """Greedy episodes validate this round's agent, explored ones widen the data; all are learned from."""
        if self.env is None:
            return
        settings = self.preset.collection
        steps = (self._budget * (1.0 - settings.prefill - settings.final_share)) / settings.rounds
        returns = self._drive(number, int(steps * (1.0 - settings.explore_share)), explore=False)
        if settings.explore_share > 0.0:
            self._drive(number, int(steps * settings.explore_share), explore=True)
        self.codes = encode_new_rows(self.model, self.replay, self.codes)
        if returns:
            self.candidates.append(Candidate(number, returns, self._weights()))
            self.candidates.sort(key=lambda candidate: -candidate.score)
            del self.candidates[settings.finalists :]

    def _drive(self, number: int, steps: int, *, explore: bool) -> list[float]:
        """As many whole episodes as fit into `steps` agent steps, awake; their returns."""
        assert self.env is not None
        episodes = steps // self.spec.max_episode_steps
        if episodes < 1:
            return []
        base = VALIDATION_SEEDS + 10_000 * self.seed + 500 * number + (250 if explore else 0)
        self.model.eval()
        policy = BeliefPolicy(self.agent, self.model, explore_noise=0.2 if explore else 0.0)
        stats = collecting.collect(
            self.env, policy, self.replay, episodes=episodes, seed=base, deterministic=not explore, progress=self.log.progress
        )
        self.real_steps += stats.steps
        self._report_collection("explore" if explore else "awake", stats)
        return [float(value) for value in stats.returns]

    def _report_collection(self, stage: str, stats: Any) -> None:
        mean, std = float(np.mean(stats.returns)), float(np.std(stats.returns))
        values = {"return_mean": mean, "return_std": std, "episodes": len(stats.returns), "env_steps": self.real_steps}
        self.log.write(stage, self.stage, values)
        self.log.say(f"  {stage}: return {mean:.1f} ± {std:.1f} over {len(stats.returns)} episodes")

    # ---- learning -----------------------------------------------------------------------------------------------------

    def _learn_autoencoder(self) -> None:
        assert self.autoencoder is not None and self.preset.autoencoder is not None
        for step, bar in self.log.bar("autoencoder", self.step, self.preset.autoencoder.steps):
            self._account("autoencoder", step, self.autoencoder.step(self.replay, step), bar, due=step % _LOG_EVERY == 0)
            self._maybe_checkpoint(step)
        self.model.encoder.requires_grad_(False)
        self.codes = encode_new_rows(self.model, self.replay, self.codes)

    def _learn(self) -> None:
        """Interleaved updates: the agent starts from the states that the model's own update has just inferred."""
        settings, agent_settings = self.preset.model_training, self.preset.agent_training
        first = self.model_steps == 0 and self.step == 0
        if first:
            self._fit_scaling()
        warmup = settings.warmup_steps if self._round_number == 0 else 0
        total = warmup + max(settings.steps_per_round, agent_settings.steps_per_round)
        for step, bar in self.log.bar("learn", self.step, total):
            batch = self.model_learner.sample(self.replay, self.codes, self.model_steps + self.agent_steps, recent_from=self.recent_from)
            late = step - warmup
            metrics: dict[str, Tensor] = {}
            if late < settings.steps_per_round:
                metrics, states = self.model_learner.step(batch, self.model_steps)
                self.model_steps += 1
            else:
                noise = torch.full((*batch.reward.shape, self.model.noise_lanes), 0.5, device=self.model.device)
                states = self.model_learner.posteriors(batch, noise)
            if 0 <= late < agent_settings.steps_per_round:
                metrics |= self.agent_learner.step(states, ~batch.is_last & batch.valid, self.agent_steps)
                self.agent_steps += 1
            self._account("learn", self.model_steps + self.agent_steps, metrics, bar, due=step % _LOG_EVERY == 0)
            self._maybe_checkpoint(step)
            if late == -1 or (step == total - 1):
                calibrate(self.model, self.held_out, self.replay, most=64)

    @property
    def _round_number(self) -> int:
        return int(self.stages[self.stage][0].split()[1].rstrip(":"))

    def _fit_scaling(self) -> None:
        reward = self.replay.column("reward")
        self.model.reward_range.copy_(torch.tensor([float(reward.min()), float(reward.max())]))
        if isinstance(self.model.core, Ensemble):
            rows = np.flatnonzero(~self.replay.column("is_first") & self.replay.column("valid"))
            before, after = self.replay.obs_rows(rows - 1), self.replay.obs_rows(rows)
            assert isinstance(before, np.ndarray) and isinstance(after, np.ndarray)  # an ensemble reads plain vectors
            fit_ensemble_scaling(
                self.model,
                before,
                after,
                np.asarray(reward[rows]),
                np.asarray(self.replay.column("is_terminal")[rows]),
            )

    def _account(self, stage: str, step: int, metrics: dict[str, Tensor], bar: Any, *, due: bool) -> None:
        """Stop at NaN; log where due."""
        if not metrics:
            return
        check_finite(sum(metrics.values()), metrics, stage=stage, when=f"at step {step}", checkpoint=self._checkpoint_path)
        if due:
            values = {name: float(value) for name, value in metrics.items()}
            self.log.write(stage, step, values)
            bar.set_postfix({name: f"{value:.3g}" for name, value in list(values.items())[:5]}, refresh=False)

    # ---- the end ------------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        """Let the finalists drive once more, keep the best by all its validation episodes, and write it."""
        settings = self.preset.collection
        if self.env is not None and settings.final_share > 0.0 and len(self.candidates) > 1:
            steps = int(self._budget * settings.final_share / len(self.candidates))
            for place, candidate in enumerate(self.candidates):
                self._load_weights(candidate.weights)
                candidate.returns = candidate.returns + self._drive(settings.rounds + place, steps, explore=False)
            self.candidates.sort(key=lambda candidate: -candidate.score)
        if self.candidates:
            self._load_weights(self.candidates[0].weights)
        self.export()

    def export(self) -> None:
        """Write model/ and agent/ as they stand now; the start bank comes from all training episodes."""
        if self.model_steps == 0:
            return  # nothing learned yet: there is no model to leave
        self.model.eval()
        self.model.initial_states = draw_start_bank(self.model, self.replay, size=self.preset.start_states, seed=self.seed)
        bundle.save(self.model, self.folder / "model", source=provenance(self.spec, self.preset.name, self.seed, self.replay))
        self.agent.save(self.folder / "agent")

    def _weights(self) -> dict[str, dict[str, Tensor]]:
        """Copies of what changes between rounds; the frozen encoder is not among them."""
        model = {name: value.clone() for name, value in self.model.state_dict().items() if not name.startswith("encoder.vae.")}
        return {"model": model, "agent": {name: value.clone() for name, value in self.agent.state_dict().items()}}

    def _load_weights(self, weights: dict[str, dict[str, Tensor]]) -> None:
        missing = self.model.load_state_dict(weights["model"], strict=False)
        assert not missing.unexpected_keys and all(name.startswith("encoder.vae.") for name in missing.missing_keys)
        self.agent.load_state_dict(weights["agent"])

    # ---- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def _checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def _optimisers(self) -> list[torch.optim.Optimizer]:
        """Of the model, actor and critic, in the order of checkpoints."""
        return [self.model_learner.optimiser, self.agent_learner.actor_step.optimiser, self.agent_learner.critic_step.optimiser]

    def _maybe_checkpoint(self, step: int) -> None:
        if (step + 1) % _CHECKPOINT_EVERY == 0:
            self.step = step + 1
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write everything a resumed run needs, atomically."""
        in_autoencoder = self.autoencoder is not None and self.stages[min(self.stage, len(self.stages) - 1)][0] == "autoencoder"
        content = {
            "counters": [self.stage, self.step, self.model_steps, self.agent_steps, self.real_steps, self.recent_from],
            "episodes": [len(self.replay.episodes), len(self.held_out.episodes)],
            "log_lines": len(self.log),
            "model": self.model.state_dict(),
            "agent": self.agent.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "autoencoder": self.autoencoder.optimiser.state_dict() if self.autoencoder is not None and in_autoencoder else None,
            "codes": self.codes,
            "candidates": [vars(candidate) for candidate in self.candidates],
        }
        write_checkpoint(self._checkpoint_path, content)

    def resume(self) -> None:
        """Continue from checkpoint.pt: what was collected or logged after it is dropped and will be redone identically."""
        content = read_checkpoint(self._checkpoint_path, self.model.device)
        self.stage, self.step, self.model_steps, self.agent_steps, self.real_steps, self.recent_from = content["counters"]
        self.replay.keep(content["episodes"][0])
        self.held_out.keep(content["episodes"][1])
        self.log.rewind(content["log_lines"])
        self.model.load_state_dict(content["model"])
        self.agent.load_state_dict(content["agent"])
        for optimiser, state in zip(self._optimisers, content["optimisers"]):
            optimiser.load_state_dict(state)
        if self.autoencoder is not None and content["autoencoder"] is not None:
            self.autoencoder.optimiser.load_state_dict(content["autoencoder"])
        self.codes = content["codes"]
        self.candidates = [Candidate(**candidate) for candidate in content["candidates"]]
        if self.stage == len(self.stages):
            self.export()

    def close(self) -> None:
        """Flush the log."""
        self.log.close()


def _random_policy(settings: Collection, spec: Spec, seed: int, episode: int) -> Any:
    episode_seed = 1_000_003 * seed + episode
    if settings.collector == "driving":
        return collectors.DrivingRandom(spec.action_space, seed=episode_seed)
    return collectors.StickyRandom(spec.action_space, hold=settings.hold, seed=episode_seed)
