"""World Models from random play to a controller judged awake: V, M, C and the iterations, as stages that can be killed and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.linear import LinearController
from dreamgym.agents.loading import load_agent
from dreamgym.data.collection import CollectStats
from dreamgym.data.encoded import check_codes_vary
from dreamgym.data.replay import Replay
from dreamgym.envs import make_env
from dreamgym.hub import bundle
from dreamgym.models.calibration import calibrate_end, calibrate_uncertainty
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Spec, StartBank
from dreamgym.training.checkpoints import check_finite, read_checkpoint, write_checkpoint
from dreamgym.training.experience import check_dataset, provenance
from dreamgym.training.learners import Randomness, seeded
from dreamgym.training.logger import MetricsLog
from dreamgym.training.world_models_calibration import calibrate_lives, draw_remembered, draw_starts, set_defaults
from dreamgym.training.world_models_collection import AGENTS, Lives
from dreamgym.training.world_models_config import WorldModelsPreset
from dreamgym.training.world_models_learners import CodeLearner, MemoryLearner, encoder_of, training_rows
from dreamgym.training.world_models_search import Candidate, Searches, best_pair

__all__ = ["WorldModelsTrainer"]

CALIBRATION_SEEDS = 400_000  # of real episodes of blind policies; below those that choose and those that report
_CHECKPOINT_EVERY = 500  # updates
_LOG_EVERY = 50
_MOST_CALIBRATING = 400  # held-out episodes


class WorldModelsTrainer:
    """Owns everything a run changes. `run` walks through the stages; (stage, step) says where it stands.

    rounds/<n>/ keeps each iteration's model, its searches and controllers; model/ and agent/ are the best pair of all.
    """

    def __init__(
        self,
        spec: Spec,
        preset: WorldModelsPreset,
        *,
        seed: int,
        device: str,
        folder: Path,
        progress: bool,
        env: gym.Env[Any, Any] | None,
        env_kwargs: dict[str, Any] | None = None,
        workers: int = 1,
    ) -> None:
        self.spec, self.preset, self.seed, self.folder, self.awake = spec, preset, seed, folder, env is not None
        self.build = partial(make_env, spec.env_id, preprocess=spec.preprocess, **(env_kwargs or {}))
        self.log = MetricsLog(folder, progress=progress)
        with seeded(seed):
            self.model = WorldModel(spec, preset.model).to(device)
        self.lives = Lives(
            spec,
            preset,
            folder / "replay",
            codes=self.model.encoder.embed_size,
            seed=seed,
            env=env,
            build=self.build,
            workers=workers,
            progress=progress,
        )
        self.agent: ActorCritic | LinearController = LinearController(spec, self.model.core.feature_size, preset.controller)
        build = self.build if self.awake else None
        self.searches = Searches(spec, preset, seed=seed, folder=folder / "rounds", progress=progress, build=build)
        self.randomness = Randomness(seed)
        self.encode = encoder_of(self.model, bfloat16=preset.bfloat16)
        self.learner: CodeLearner | MemoryLearner | None = None
        self.candidates: list[Candidate] = []
        self.fidelity: dict[str, Any] = {}
        self.stage, self.step, self.memory_steps = 0, 0, 0
        self._saved_learner: dict[str, Any] | None = None
        self.stages = self._plan()

    # ---- the plan -----------------------------------------------------------------------------------------------------

    def _plan(self) -> list[tuple[str, Callable[[], None]]]:
        stages: list[tuple[str, Callable[[], None]]] = [("collect pictures", self._collect_pictures)] if self.awake else []
        stages += [("autoencoder", self._learn_codes), ("encode", self._encode_pictures)]
        if self.awake:
            stages.append(("collect codes", self._collect_codes))
        for number in range(1 + (self.preset.iterations.count if self.awake else 0)):
            if number > 0:
                stages += self._experience(number)
            stages.append((f"round {number}: memory", partial(self._learn_memory, number)))
            stages.append((f"round {number}: calibrate", partial(self._calibrate, number)))
            for attempt in range(self.preset.controller_training.attempts):
                stages.append((f"round {number}: controller {attempt}", partial(self._search_controller, number, attempt)))
            if self.preset.behaviour_training is not None:
                stages.append((f"round {number}: actor-critic", partial(self._learn_behaviour, number)))
        stages.append(("final choice", self._choose))
        return stages

    def _experience(self, number: int) -> list[tuple[str, Callable[[], None]]]:
        """What comes before M learns again."""
        settings = self.preset.iterations
        stages: list[tuple[str, Callable[[], None]]] = []
        if settings.curiosity > 0.0:
            stages.append((f"round {number}: explorer", partial(self._search_explorer, number)))
        stages.append((f"round {number}: live", partial(self._live, number)))
        if settings.code_steps > 0:
            stages.append((f"round {number}: autoencoder", partial(self._learn_codes, number)))
            stages.append((f"round {number}: encode", self._encode_pictures))
        return stages

    def use_dataset(self, dataset: Replay) -> None:
        """Learn offline from a filled replay of pictures, which is read where it lies."""
        check_dataset(dataset)
        self.lives.pixels = dataset

    def run(self) -> dict[str, Any]:
        """Do the stages that are left; returns the final metrics."""
        if (self.stage, self.step) == (0, 0):  # an earlier attempt may have died before its first checkpoint
            self.log.rewind(0)
            self.lives.forget()
            shutil.rmtree(self.folder / "rounds", ignore_errors=True)
        while self.stage < len(self.stages):
            name, stage = self.stages[self.stage]
            self.log.say(f"[{self.spec.env_id} / {self.preset.name} / seed {self.seed}] {name}")
            stage()
            self.stage, self.step, self.learner = self.stage + 1, 0, None
            self.checkpoint()
        best = best_pair(self.candidates)
        return {
            "env_steps": self.lives.steps * self.spec.preprocess.action_repeat,
            "memory_steps": self.memory_steps,
            "validation": {"round": best.round, "attempt": best.attempt, "mean": best.score, "returns": best.returns},
            "candidates": [{**asdict(candidate), "returns": None, "mean": candidate.score} for candidate in self.candidates],
            "end_probability": self.model.defaults.end_probability,
            "fidelity": self.fidelity.get(str(best.round)),
        }

    # ---- real experience ----------------------------------------------------------------------------------------------

    def _collect_pictures(self) -> None:
        self._collect("random", lambda chunk: self.lives.collect_pictures(chunk))

    def _encode_pictures(self) -> None:
        self.model.encoder.requires_grad_(False)
        self.lives.encode_pictures(self.encode)

    def _collect_codes(self) -> None:
        self._collect("random", lambda chunk: self.lives.collect_codes(chunk, self.encode))

    def _live(self, number: int) -> None:
        """The best controller of the round before lives on, beside it an actor-critic or an explorer if there is one; M learns from all."""
        last = [one for one in self.candidates if one.round == number - 1]
        evolved = [one for one in last if one.attempt < self.preset.controller_training.attempts]
        agents: list[Any] = [self._load(max(evolved, key=lambda one: one.score)), *(self._load(one) for one in last if one not in evolved)]
        if self.preset.iterations.curiosity > 0.0:
            agents.append(LinearController.load(self._round(number) / "agent-explorer", self.spec))
        self._collect("live", lambda chunk: self.lives.collect_agents(chunk, self.encode, model=self.model, agents=agents, round=number))

    def _collect(self, who: str, chunk: Callable[[int], CollectStats | None]) -> None:
        while (stats := chunk(self.step)) is not None:
            mean, std, length = (float(value) for value in (np.mean(stats.returns), np.std(stats.returns), np.mean(stats.lengths)))
            values = {"return_mean": mean, "return_std": std, "length_mean": length, "real_steps": float(self.lives.steps)}
            self.log.write(who, self.stage, values)
            self.step += 1
            self.checkpoint()

    # ---- learning -----------------------------------------------------------------------------------------------------

    def _learn_codes(self, number: int = 0) -> None:
        settings, iterations = self.preset.code_training, self.preset.iterations
        stage = f"autoencoder {number}" if number else "autoencoder"
        if number:
            weight = settings.reconstruction_weight[1]
            changes: dict[str, Any] = {"steps": iterations.code_steps, "learning_rate": iterations.learning_rate}
            settings = replace(settings, reconstruction_weight=(weight, weight), **changes)
        self.model.encoder.requires_grad_(True)
        learner = CodeLearner(self.model.encoder.vae, settings, self.randomness, bfloat16=self.preset.bfloat16, stage=stage)
        self._begin(learner)
        rows, unseen_rows = training_rows(self.lives.pixels, self.preset.collection.held_out_every)
        for step, bar in self.log.bar("autoencoder", self.step, settings.steps):
            self._account(stage, step, learner.step(self.lives.pixels, rows, step), bar)
            if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == settings.steps:
                if len(unseen_rows):
                    self.log.write(stage, step, learner.held_out(self.lives.pixels, unseen_rows[: 20 * settings.batch]))
                self.step = step + 1
                self.checkpoint()

    def _learn_memory(self, number: int) -> None:
        """Fit M to all codes, an agent's episodes weighted, and keep what did best on held-out ones."""
        settings, iterations = self.preset.memory_training, self.preset.iterations
        check_codes_vary(self.lives.codes)
        learner = MemoryLearner(
            self.model,
            settings,
            self.randomness,
            self.lives.codes,
            self.lives.unseen_batches(settings.held_out_episodes, self.model.device),
            stage=f"memory {number}",
            bfloat16=self.preset.bfloat16,
            steps=settings.steps if number == 0 else iterations.memory_steps,
            learning_rate=settings.learning_rate if number == 0 else iterations.learning_rate,
            times=self.lives.weights(),
            overshoot_from=round((1.0 - settings.overshooting_share) * settings.steps) if number == 0 else 0,
        )
        self._begin(learner)
        reward = self.lives.codes.column("reward")
        self.model.reward_range.copy_(torch.tensor([float(reward.min()), float(reward.max())]))
        for step, bar in self.log.bar("memory", self.step, learner.steps):
            self._account(f"memory {number}", step, learner.step(step), bar)
            self.memory_steps += 1
            if (step + 1) % settings.evaluate_every == 0 or step + 1 == learner.steps:
                self.log.write(f"memory {number}", step, learner.evaluate(step))
            if (step + 1) % _CHECKPOINT_EVERY == 0:
                self.step = step + 1
                self.checkpoint()
        learner.take_best()

    def _begin(self, learner: CodeLearner | MemoryLearner) -> None:
        """Take up a stage of updates where a checkpoint left it."""
        self.learner = learner
        if self._saved_learner is not None:
            learner.load_state_dict(self._saved_learner)
            self._saved_learner = None

    def _account(self, stage: str, step: int, metrics: dict[str, Tensor], bar: Any) -> None:
        total = torch.stack([value.float() for value in metrics.values()]).sum()
        check_finite(total, metrics, stage=stage, when=f"at step {step}", checkpoint=self._checkpoint_path)
        if step % _LOG_EVERY == 0:
            values = {name: float(value) for name, value in metrics.items()}
            self.log.write(stage, step, values)
            bar.set_postfix({name: f"{value:.3g}" for name, value in list(values.items())[:5]}, refresh=False)

    # ---- the dream ----------------------------------------------------------------------------------------------------

    def _calibrate(self, number: int) -> None:
        """Uncertainty, the end and the start states; then the model is kept."""
        settings = self.preset.calibration
        self.model.eval()
        batches = self.lives.unseen_batches(_MOST_CALIBRATING, self.model.device)
        calibrate_uncertainty(self.model, batches)
        if settings.logistic:
            values = asdict(calibrate_end(self.model, batches, seed=self.seed))
            self.log.write("calibrate", number, {f"end_{name}": float(value) for name, value in values.items()})
        self.model.initial_states = draw_starts(self.model, self.lives.codes, size=self.preset.start_states, seed=self.seed)
        if settings.threshold and self.awake:
            self._calibrate_lives(number)
        source = provenance(self.spec, self.preset.name, self.seed, self.lives.pixels, round=number)
        bundle.save(self.model, self._round(number) / "model", source=source)

    def _calibrate_lives(self, number: int) -> None:
        """Have blind policies live as long as they do awake, and see how long they do."""
        seed = CALIBRATION_SEEDS + 500 * self.seed
        found, checked = calibrate_lives(self.model, self.preset.calibration, self.build, self.folder / "blind.json", seed=seed)
        self.fidelity[str(number)] = json.loads(json.dumps(checked.to_json()))
        searched = {} if found is None else {"end_probability": found.end_probability, "searched_log_ratio": found.log_ratio}
        numbers: dict[str, float | None] = {
            **searched,
            "temperature": self.model.defaults.temperature,
            "rank_correlation": checked.rank_correlation,
            "log_length_ratio": checked.log_length_ratio,
        }
        self.log.write("calibrate", number, {name: float(value) for name, value in numbers.items() if value is not None})
        self.log.say(checked.table())

    def _search_controller(self, number: int, attempt: int) -> None:
        """Evolve a controller in the dream, and judge it awake."""
        self.agent, found, candidate = self.searches.controller(self.model, number, attempt)
        self.candidates.append(candidate)
        self._tell("controller", f"controller {attempt}", candidate, generation=found.generation)

    def _learn_behaviour(self, number: int) -> None:
        """Learn an actor-critic in short dreams from anywhere in what was lived, and judge it awake. Not resumed in its middle."""
        settings = self.preset.behaviour_training
        assert settings is not None
        sizes = {"episodes": settings.episodes, "size": settings.states}
        bank = draw_remembered(self.model, self.lives.codes, AGENTS, seed=self.seed, **sizes)
        self.agent, candidate = self.searches.actor_critic(self.model, bank, number)
        self.candidates.append(candidate)
        self._tell("actor_critic", "actor-critic", candidate)

    def _tell(self, stage: str, who: str, candidate: Candidate, **more: float) -> None:
        values = {"round": candidate.round, "attempt": candidate.attempt, "dreamt": candidate.dreamt, "awake": candidate.score, **more}
        self.log.write(stage, len(self.candidates), {name: float(value) for name, value in values.items()})
        awake = f"{candidate.score:.1f} awake" if candidate.returns else "nobody judged it awake"
        self.log.say(f"  round {candidate.round}, {who}: {candidate.dreamt:.1f} dreamt, {awake}")

    def _search_explorer(self, number: int) -> None:
        """Evolve a controller that seeks what the model of the round before knows little of."""
        self.agent, values = self.searches.explorer(self.model, number)
        self.log.write("explorer", number, values)

    # ---- the end ------------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        """Take the pair that did best awake, or the latest of its equals."""
        best = best_pair(self.candidates)
        self.model = bundle.load(self._round(best.round) / "model", device=self.model.device)
        self.agent = self._load(best)
        self.export()

    def _load(self, candidate: Candidate) -> Any:
        return load_agent(self._round(candidate.round) / f"agent-{candidate.attempt}", self.model)

    def export(self) -> None:
        """Write model/ and agent/ as they stand now."""
        if self.memory_steps == 0:
            return  # nothing learned yet: there is no model to leave
        self.model.eval()
        if self.model.initial_states is None:
            self.model.initial_states = draw_starts(self.model, self.lives.codes, size=self.preset.start_states, seed=self.seed)
        source = provenance(self.spec, self.preset.name, self.seed, self.lives.pixels)
        bundle.save(self.model, self.folder / "model", source=source)
        self.agent.save(self.folder / "agent")

    def _round(self, number: int) -> Path:
        return self.folder / "rounds" / str(number)

    # ---- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def _checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def checkpoint(self) -> None:
        """Write everything a resumed run needs, atomically."""
        starts = self.model.initial_states
        content = {
            "counters": [self.stage, self.step, self.memory_steps, self.lives.steps],
            "episodes": [len(replay.episodes) for replay in self.lives.replays],
            "log_lines": len(self.log),
            "model": self.model.state_dict(),
            "end_probability": self.model.defaults.end_probability,
            "temperature": self.model.defaults.temperature,
            "starts": None if starts is None else dict(starts.items()),
            "learner": None if self.learner is None else self.learner.state_dict(),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "fidelity": self.fidelity,
        }
        write_checkpoint(self._checkpoint_path, content)

    def resume(self) -> None:
        """Continue from checkpoint.pt: what was collected or logged after it is dropped and will be redone identically."""
        content = read_checkpoint(self._checkpoint_path, self.model.device)
        self.stage, self.step, self.memory_steps, self.lives.steps = content["counters"][:4]  # there was a fifth once
        for replay, episodes in zip(self.lives.replays, content["episodes"]):
            if episodes < len(replay.episodes):
                replay.keep(episodes)
        self.log.rewind(content["log_lines"])
        self.model.load_state_dict(content["model"])
        set_defaults(self.model, end_probability=content["end_probability"], temperature=content["temperature"])
        if content["starts"] is not None:
            self.model.initial_states = self._start_bank(content["starts"])
        self._saved_learner = content["learner"]
        self.candidates = [Candidate(**candidate) for candidate in content["candidates"]]
        if self.candidates:
            self.agent = self._load(self.candidates[-1])
        self.fidelity = content["fidelity"]
        if self.stage == len(self.stages):
            self._choose()

    def _start_bank(self, tensors: dict[str, Tensor]) -> StartBank:
        state = {name.removeprefix("state."): tensor for name, tensor in tensors.items() if name.startswith("state.")}
        return StartBank(type(self.model.initial(1))(**state), tensors["is_first"])

    def close(self) -> None:
        """Flush the log."""
        self.log.close()
