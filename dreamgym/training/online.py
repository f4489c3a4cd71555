"""The online loop of PlaNet and Dreamer: act, remember, learn, in turn; judged awake now and then, and resumable to the bit."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.belief import BeliefPolicy
from dreamgym.agents.planning import build_planner
from dreamgym.data import collection, collectors
from dreamgym.data.replay import Replay
from dreamgym.hub import bundle
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Spec
from dreamgym.training.checkpoints import check_finite, read_checkpoint, write_checkpoint
from dreamgym.training.experience import adopt_dataset, forget_episodes, provenance, unseen
from dreamgym.training.learners import Randomness, calibrate, draw_start_bank, linear_decay, seeded
from dreamgym.training.logger import MetricsLog
from dreamgym.training.online_acting import Explorer, play
from dreamgym.training.online_config import OnlinePreset
from dreamgym.training.online_learner import OnlineLearner, fit_scaling
from dreamgym.training.online_progress import Counters, Rates
from dreamgym.training.online_view import log_open_loop
from dreamgym.training.rows import LatentRows, WindowSampler
from dreamgym.training.trainer import VALIDATION_SEEDS

__all__ = ["OnlineTrainer"]

_LOG_EVERY = 50  # updates
_LOOK_EVERY = 5  # evaluations between two looks at open-loop predictions


class OnlineTrainer:
    """Owns everything an online run changes. Episode k, update u and evaluation e draw from streams of (seed, k), (seed, u), (seed, e).

    One env is stepped; updates that are due within an episode are done at their step, on complete episodes only. That costs DreamerV3's
    freshness within the running episode and makes every episode's start a point to resume from.

    max_minutes bounds the wall clock of one `run`: it stops at the next such point (offline: at the next checkpoint) with a checkpoint
    and the export that an end brings, but judges nothing, so that whoever resumes it goes on exactly as if it had not stopped.
    """

    def __init__(
        self,
        spec: Spec,
        preset: OnlinePreset,
        *,
        seed: int,
        device: str,
        folder: Path,
        progress: bool,
        env: gym.Env[Any, Any] | None,
        env_kwargs: dict[str, Any] | None = None,
        max_minutes: float | None = None,
    ) -> None:
        self.spec, self.preset, self.settings = spec, preset, preset.training
        self.seed, self.folder, self.env = seed, folder, env  # env_kwargs have done their work: the env is made
        self.log = MetricsLog(folder, progress=progress)
        self.replay = Replay(spec, folder / "replay" / "train")
        self.held_out = Replay(spec, folder / "replay" / "held_out")
        with seeded(seed):
            self.model = WorldModel(spec, preset.model).to(device)
            self.agent = _build_agent(self.model, preset, seed)
        self.randomness = Randomness(seed)
        self.learner = OnlineLearner(self.model, self.agent, preset, self.randomness)
        self.sampler = WindowSampler(self.replay, self.settings)
        self.latents = LatentRows(self.model.initial(1)) if self.settings.carry == "stored" else None
        self.counters = Counters()
        self.best: dict[str, Any] | None = None  # the evaluation that went best, with its weights
        self._watch = torch.zeros((), device=self.model.device)  # the sum of all metrics since they were last seen to be finite
        self._latest: dict[str, Tensor] = {}
        self._rates = Rates()
        self._max_minutes, self._deadline = max_minutes, math.inf

    # ---- the run ------------------------------------------------------------------------------------------------------

    @property
    def budget(self) -> int:
        """Agent steps of the whole run."""
        return max(1, self.settings.env_steps // self.spec.preprocess.action_repeat)

    @property
    def env_steps(self) -> int:
        """Steps of the real env so far, its repeats included, evaluation's not."""
        return self.counters.agent_steps * self.spec.preprocess.action_repeat

    def use_dataset(self, dataset: Replay) -> None:
        """Learn offline from a filled replay; its last tenth of episodes is held out. Copies nothing if already copied."""
        adopt_dataset(dataset, self.replay, self.held_out)
        if self.latents is not None:
            self.latents.extend(len(self.replay))

    def run(self) -> dict[str, Any]:
        """Do what is left of the run, or what fits into max_minutes of it; returns the metrics so far."""
        self._deadline = math.inf if self._max_minutes is None else time.monotonic() + 60.0 * self._max_minutes
        self.log.say(f"[{self.spec.env_id} / {self.preset.name} / {self.preset.size} / seed {self.seed}] {self.budget} agent steps")
        if self.counters == Counters():  # an earlier attempt may have died before its first checkpoint
            self.log.rewind(0)
            if self.env is not None:
                forget_episodes(self.replay, self.held_out)
        if self.env is None:
            self._learn_offline()
        else:
            self._live()
        self.export()
        return {
            "env_steps": self.env_steps if self.env is not None else 0,
            "agent_steps": self.counters.agent_steps if self.env is not None else 0,
            "updates": self.counters.updates,
            "episodes": self.counters.episodes,
            "finished": self._finished,
            "validation": None if self.best is None else {name: self.best[name] for name in ("env_steps", "mean", "returns")},
            "uncertainty": [float(self.model.uncertainty_median), float(self.model.uncertainty_scale)],
        }

    def _live(self) -> None:
        counters = self.counters
        with tqdm(total=self.budget, initial=counters.agent_steps, desc="online", unit="step", disable=not self.log.progress) as bar:
            while counters.agent_steps < self.budget:
                random = counters.agent_steps < min(self.settings.prefill, self.budget)
                if not random:
                    self._learn_before_episode()
                self._episode(random=random)
                bar.update(counters.agent_steps - bar.n)
                last = counters.agent_steps >= self.budget
                if not random or last:
                    self._maybe_evaluate(last)
                late = self._late
                if last or late or counters.agent_steps - counters.saved_at >= self.settings.checkpoint_every:
                    self.checkpoint()
                if late:
                    break

    @property
    def _late(self) -> bool:
        return time.monotonic() >= self._deadline

    @property
    def _finished(self) -> bool:
        counters = self.counters
        return counters.updates >= self._offline_updates if self.env is None else counters.agent_steps >= self.budget

    def _learn_before_episode(self) -> None:
        if not self.counters.pretrained and self.sampler.ready:
            self._learn(self.settings.pretrain)
            self.counters.pretrained = True
        if self.settings.train_every == 0:
            self._learn(self.settings.updates)

    def _learn_offline(self) -> None:
        """As many updates as the same number of env steps would have brought."""
        settings, counters, total = self.settings, self.counters, self._offline_updates
        if not self.sampler.ready:
            raise ValueError(f"the dataset trains on {len(self.replay)} rows; a window needs {settings.window}.")
        while counters.updates < total:
            self._learn(min(settings.checkpoint_every, total - counters.updates))
            log_open_loop(self.log, self.model, unseen(self.held_out, self.replay), counters.updates)
            self.checkpoint()
            if self._late:
                break

    @property
    def _offline_updates(self) -> int:
        turns = self.budget // (self.settings.train_every or self.spec.max_episode_steps)
        return self.settings.pretrain + turns * self.settings.updates

    # ---- real experience ----------------------------------------------------------------------------------------------

    def _episode(self, *, random: bool) -> None:
        """Live through episode number `counters.episodes`, learn where that is due, and remember it."""
        assert self.env is not None
        counters, settings = self.counters, self.settings
        held_out = (counters.episodes + 1) % settings.held_out_every == 0
        replay = self.held_out if held_out else self.replay
        policy: Any = collectors.StickyRandom(self.spec.action_space, settings.prefill_hold) if random else self._explorer()
        began, trained = time.monotonic(), self._rates.learning
        before = counters.agent_steps
        stats = collection.collect(
            self.env,
            policy,
            replay,
            episodes=1,
            steps=None if random else self.budget - before,
            seed=_episode_seed(self.seed, counters.episodes),
        )
        counters.agent_steps = before + stats.steps
        counters.episodes += 1
        if not held_out:
            self._remember(policy.beliefs if isinstance(policy, Explorer) else [])
        self._rates.acting += time.monotonic() - began - (self._rates.learning - trained)
        values = {"return": stats.returns[0], "length": stats.lengths[0], "env_steps": self.env_steps, "updates": counters.updates}
        self.log.write("prefill" if random else "explore", counters.episodes, values | self._gauge(policy, replay))

    def _explorer(self) -> Explorer:
        settings = self.settings
        policy = BeliefPolicy(
            self.agent, self.model, explore_noise=settings.explore_noise, posterior="sample" if settings.belief_sample else "mean"
        )
        return Explorer(policy, self._before_step, remember=self.latents is not None)

    def _gauge(self, policy: Any, replay: Replay) -> dict[str, float]:
        """What a planner's first plan promised of the episode just stored, and what came of it: how far the model is exploited."""
        if not isinstance(policy, Explorer) or policy.first_plan is None or not self.agent.iterations:
            return {}  # without a search nothing was promised
        start, stop = replay.episodes[-1]
        lived = replay.column("reward")[start + 1 : stop][: policy.first_plan.proposal.centre.shape[1]]
        return {"planned": float(policy.first_plan.score), "realised": float(lived.sum())}

    def _before_step(self) -> None:
        every = self.settings.train_every
        if every and self.counters.agent_steps % every == 0:
            self._learn(self.settings.updates)
        self.counters.agent_steps += 1

    def _remember(self, beliefs: list[Any]) -> None:
        """What the model and the latents must know of the episode that was just stored for training."""
        start, stop = self.replay.episodes[-1]
        reward = self.replay.column("reward")[start:stop]
        low, high = self.model.reward_range.tolist()
        self.model.reward_range.copy_(torch.tensor([min(low, float(reward.min())), max(high, float(reward.max()))]))
        if self.latents is not None:
            self.latents.extend(stop - start, beliefs)

    # ---- learning -----------------------------------------------------------------------------------------------------

    def _learn(self, updates: int) -> None:
        """Do updates, unless there is not even one window yet."""
        if not self.sampler.ready:
            return
        began = time.monotonic()
        if self.counters.updates == 0:
            fit_scaling(self.model, self.replay, before_learning=True)
        for _ in range(updates):
            number = self.counters.updates
            batch = self.sampler.draw(self.randomness.numpy("online rows", number))
            index = batch.index
            if self.latents is None:
                metrics, _ = self.learner.update(batch, None, number, rate=self._rate)
            else:
                carry = self.latents.read(index[:, 0], self.model.device)
                metrics, states = self.learner.update(batch[:, 1:], carry, number, rate=self._rate)
                self.latents.write(index[:, 1:], states)
            self.counters.updates += 1
            self._account(metrics)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)  # the next action waits for it anyway, and would be charged for it
        self._rates.learning += time.monotonic() - began

    @property
    def _rate(self) -> float:
        """What all learning rates are multiplied with: falling over the last decay_share of the run."""
        done, total = (self.counters.updates, self._offline_updates) if self.env is None else (self.counters.agent_steps, self.budget)
        return linear_decay(done, total, self.settings.decay_share, floor=0.1)

    def _account(self, metrics: dict[str, Tensor]) -> None:
        """Stop at NaN; log where due. Sums keep what is not finite, so that a GPU need not be asked after every update."""
        number = self.counters.updates
        self._latest = metrics
        self._watch = self._watch + torch.stack([metric.float() for metric in metrics.values()]).sum()
        due = number % _LOG_EVERY == 0
        if due or self._watch.device.type == "cpu":
            self._check_finite()
        if due:
            self.log.write("learn", number, {name: float(value) for name, value in metrics.items()} | {"env_steps": self.env_steps})

    def _check_finite(self) -> None:
        """Raises NonFiniteLossError if anything since the last check was not."""
        when = f"by update {self.counters.updates}"
        check_finite(self._watch, self._latest, stage="online", when=when, checkpoint=self._checkpoint_path)
        self._watch = torch.zeros_like(self._watch)

    # ---- judging ------------------------------------------------------------------------------------------------------

    def _maybe_evaluate(self, last: bool) -> None:
        """Episodes awake without exploration whenever evaluate_every env steps have passed, and at the end."""
        every, counters = self.settings.evaluate_every, self.counters
        repeat = self.spec.preprocess.action_repeat
        if every == 0 or (not last and self.env_steps // every == counters.evaluated_at * repeat // every):
            return
        assert self.env is not None
        self.model.eval()
        policy = BeliefPolicy(self.agent, self.model)  # posterior means, as those who load the agent will act
        seed = VALIDATION_SEEDS + 10_000 * self.seed + counters.evaluations
        stats = play(self.env, policy, self.spec, episodes=self.settings.evaluate_episodes, seed=seed)
        counters.evaluations += 1
        counters.evaluated_at = counters.agent_steps
        returns = [float(value) for value in stats.returns]
        mean = float(np.mean(returns))
        values = {"return_mean": mean, "return_std": float(np.std(returns)), "env_steps": self.env_steps, "updates": counters.updates}
        self.log.write("evaluation", self.env_steps, values | self._rates.since_last(self.env_steps, counters.updates))
        self.log.say(f"  {self.env_steps} env steps: return {mean:.1f} ± {np.std(returns):.1f} over {len(returns)} episodes")
        if self.best is None or not self.settings.keep_best or mean >= self.best["mean"]:
            weights = self._weights() if self.settings.keep_best else None
            self.best = {"env_steps": self.env_steps, "mean": mean, "returns": returns, "weights": weights}
        if last or counters.evaluations % _LOOK_EVERY == 0:
            log_open_loop(self.log, self.model, unseen(self.held_out, self.replay), self.env_steps)

    def _weights(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: {key: value.clone() for key, value in module.state_dict().items()}
            for name, module in (("model", self.model), ("agent", self.agent))
            if isinstance(module, torch.nn.Module)
        }

    # ---- the end ------------------------------------------------------------------------------------------------------

    def export(self) -> None:
        """Write model/ and agent/: the weights that were judged best where the preset keeps them, else those of now."""
        if self.counters.updates == 0:
            self.log.say("nothing was learned, so there is no model to leave: env_steps must exceed prefill, and rows a window.")
            return
        if self.best is not None and self.best["weights"] is not None:
            for name, weights in self.best["weights"].items():
                getattr(self, name).load_state_dict(weights)
        self.model.eval()
        fit_scaling(self.model, self.replay, before_learning=False)
        calibrate(self.model, self.held_out, self.replay, most=64)
        self.model.initial_states = draw_start_bank(self.model, self.replay, size=self.preset.start_states, seed=self.seed)
        source = provenance(self.spec, self.preset.name, self.seed, self.replay, size=self.preset.size)
        bundle.save(self.model, self.folder / "model", source=source)
        self.agent.save(self.folder / "agent")

    # ---- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def _checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def checkpoint(self) -> None:
        """Write everything a resumed run needs, atomically."""
        self._check_finite()
        counters = self.counters
        counters.saved_at = counters.updates if self.env is None else counters.agent_steps
        content = {
            "counters": asdict(counters),
            "stored": [len(self.replay.episodes), len(self.held_out.episodes)],
            "fresh_from": self.sampler.fresh_from,
            "log_lines": len(self.log),
            "weights": self._weights(),
            "optimisers": self.learner.state_dict(),
            "latents": None if self.latents is None else self.latents.state_dict(),
            "best": self.best,
        }
        write_checkpoint(self._checkpoint_path, content)

    def resume(self) -> None:
        """Continue from checkpoint.pt: what was lived, learned or logged after it is dropped and will be redone identically."""
        content = read_checkpoint(self._checkpoint_path, self.model.device)
        self.counters = Counters(**content["counters"])
        self.replay.keep(content["stored"][0])
        self.held_out.keep(content["stored"][1])
        self.sampler.fresh_from = content["fresh_from"]
        self.log.rewind(content["log_lines"])
        for name, weights in content["weights"].items():
            getattr(self, name).load_state_dict(weights)
        self.learner.load_state_dict(content["optimisers"])
        if self.latents is not None:
            self.latents.load_state_dict(content["latents"])
        self.best = content["best"]
        self._rates = Rates(env_steps=self.env_steps, updates=self.counters.updates)

    def close(self) -> None:
        """Flush the log."""
        self.log.close()


def _episode_seed(seed: int, episode: int) -> int:
    """What `collect` hashes the episode's seeds from; far from those of validation and reports, however many episodes there are."""
    return (seed + 1) * 2**32 + episode


def _build_agent(model: WorldModel, preset: OnlinePreset, seed: int) -> Any:
    if isinstance(preset.agent, ActorCriticConfig):
        return ActorCritic(model.spec, model.core.feature_size, preset.agent, seed=seed).to(model.device)
    return build_planner(model, preset.agent)
