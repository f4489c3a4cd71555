"""Hardening: let strangers' agents exploit a dream, drive them awake, and learn from what really happens there.

`fit` shows its model the world as its own agent sees it. Another learner finds other mistakes: PPO in a CarRacing dream took up
full throttle with the wheel flung from lock to lock, which no data had ever contradicted, and scored 1,600 asleep and 190 awake
(docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from dreamgym.agents.belief import BeliefPolicy
from dreamgym.data.collection import collect
from dreamgym.data.replay import HoldOut, Replay
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Policy
from dreamgym.training.learners import ModelLearner, Randomness, calibrate, draw_start_bank, encode_new_rows, linear_decay
from dreamgym.training.logger import MetricsLog
from dreamgym.training.presets import Preset

__all__ = ["Hardening", "harden"]

_SEEDS = 700_000  # of the real episodes
_LOG_EVERY = 50


@dataclass(frozen=True)
class Hardening:
    """rounds of: learn an agent, drive it (greedy and sampled episodes), model_steps updates. first_steps go before, last_steps after.

    The rate stays at `rate` of the preset's and falls to zero over the last steps.
    """

    rounds: int = 5
    greedy_episodes: int = 6
    sampled_episodes: int = 4
    first_steps: int = 1500
    model_steps: int = 1000
    last_steps: int = 3000
    rate: float = 0.5
    held_out_every: int = 5  # each such episode is kept out, and joins the held-out ones that calibrate uncertainty


def harden(
    model: WorldModel,
    replay: Replay,
    held_out: Replay,
    *,
    learn: Callable[[WorldModel, int], Policy],
    env: gym.Env[Any, Any],
    preset: Preset,
    settings: Hardening,
    recent_from: int,
    log: MetricsLog,
    seed: int = 0,
) -> int:
    """Improve `model` in place; new episodes are added to `replay` and `held_out`. Returns the agent steps driven.

    learn(model, round) trains an agent on latents in the model as it stands. Rows of the replay from recent_from on were driven by
    agents. The uncertainty is calibrated, and the start bank drawn, anew after every round: agents meet a dream as users would.
    """
    work = _Work(model, replay, held_out, preset, settings, recent_from, log, seed)
    work.train(settings.first_steps, decay=False)
    driven = 0
    for number in range(settings.rounds):
        work.prepare()
        agent = learn(model, number)
        driven += work.drive(agent, env, number)
        last = number == settings.rounds - 1
        work.train(settings.last_steps if last else settings.model_steps, decay=last)
    work.prepare()
    return driven


class _Work:
    def __init__(
        self,
        model: WorldModel,
        replay: Replay,
        held_out: Replay,
        preset: Preset,
        settings: Hardening,
        recent_from: int,
        log: MetricsLog,
        seed: int,
    ) -> None:
        self.model, self.replay, self.held_out, self.preset, self.settings = model, replay, held_out, preset, settings
        self.recent_from, self.log, self.seed = recent_from, log, seed
        self.learner = ModelLearner(model, preset, Randomness(seed + 1_000_003))
        self.codes: Tensor | None = None
        self.steps = 0

    def train(self, steps: int, *, decay: bool) -> None:
        """Model updates on everything lived so far."""
        self.codes = encode_new_rows(self.model, self.replay, self.codes)
        self.model.train()
        for parameter in self.learner.parameters:
            parameter.requires_grad_(True)
        rate = self.settings.rate * self.preset.model_training.learning_rate
        for step, bar in self.log.bar("harden", 0, steps):
            for group in self.learner.optimiser.param_groups:
                group["lr"] = rate * (linear_decay(step, steps, 1.0, floor=0.0) if decay else 1.0)
            batch = self.learner.sample(self.replay, self.codes, self.steps, recent_from=self.recent_from)
            metrics, _ = self.learner.step(batch, self.steps)
            self.steps += 1
            if step % _LOG_EVERY == 0:
                values = {name: float(value) for name, value in metrics.items()}
                self.log.write("harden", self.steps, values)
                bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()}, refresh=False)
        self.model.eval().requires_grad_(False)

    def prepare(self) -> None:
        """Calibration and start states for the model as it stands."""
        calibrate(self.model, self.held_out, self.replay)
        self.model.initial_states = draw_start_bank(self.model, self.replay, size=self.preset.start_states, seed=self.seed)

    def drive(self, agent: Policy, env: gym.Env[Any, Any], number: int) -> int:
        """Real episodes of an agent; the greedy ones come first."""
        steps = 0
        for greedy in (True, False):
            episodes = self.settings.greedy_episodes if greedy else self.settings.sampled_episodes
            sink = HoldOut(self.replay, self.held_out, self.settings.held_out_every)
            base = _SEEDS + 1000 * self.seed + 10 * number + greedy
            stats = collect(env, BeliefPolicy(agent, self.model), sink, episodes=episodes, seed=base, deterministic=greedy)
            steps += stats.steps
            kind = "greedy" if greedy else "sampled"
            mean, std = float(np.mean(stats.returns)), float(np.std(stats.returns))
            self.log.write(f"harden: {kind}", number, {"return_mean": mean, "return_std": std, "episodes": episodes})
            self.log.say(f"  round {number}, {kind}: return {mean:.1f} ± {std:.1f} over {episodes} episodes")
        return steps
