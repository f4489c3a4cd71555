"""One update of an online run: the model from replayed windows, then the agent from dreams that begin in what was just inferred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.behaviour import BehaviourLosses
from dreamgym.data.replay import Replay
from dreamgym.models.guard import Guard
from dreamgym.models.objectives import Losses
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import SequenceBatch, sent
from dreamgym.training.gradient_step import GradientStep
from dreamgym.training.learners import Randomness
from dreamgym.training.online_config import OnlinePreset

__all__ = ["OnlineLearner", "fit_scaling"]


@dataclass(frozen=True)
class _Starts:
    """Numbers of the flattened rows to dream from, drawn with replacement where they are some (None: all), and what draws on."""

    rows: Tensor | None
    generator: torch.Generator


class OnlineLearner:
    """Owns the optimisers. A planner has nothing to learn; an actor-critic learns apart from the model or, as DreamerV3, with it."""

    def __init__(self, model: WorldModel, agent: Any, preset: OnlinePreset, randomness: Randomness) -> None:
        self.model, self.agent, self.preset, self.settings = model, agent, preset, preset.training
        self.randomness = randomness
        self.model_parameters = [parameter for parameter in model.trainable_parameters() if parameter.requires_grad]
        self.learns_to_act = isinstance(agent, ActorCritic)
        self.steps: dict[str, GradientStep] = {}
        if self.settings.updates_joint:
            parameters = [*self.model_parameters, *agent.actor.parameters(), *agent.critic.parameters()]
            self.steps["model"] = GradientStep(parameters, preset.model_optimiser)
            return
        self.steps["model"] = GradientStep(self.model_parameters, preset.model_optimiser)
        if self.learns_to_act:
            assert preset.actor_optimiser is not None and preset.critic_optimiser is not None
            self.steps["actor"] = GradientStep(agent.actor.parameters(), preset.actor_optimiser)
            self.steps["critic"] = GradientStep(agent.critic.parameters(), preset.critic_optimiser)

    def update(self, batch: SequenceBatch, carry: Any, number: int, *, rate: float = 1.0) -> tuple[dict[str, Tensor], Any]:
        """Update `number` from rows [B,T], best on the CPU, whose windows begin from states `carry` [B] (None: empty).

        rate multiplies all learning rates.

        Returns the loss terms and the posterior states [B,T], detached. What is drawn depends on the run's seed and `number` alone.
        """
        B, T = batch.reward.shape
        starts = self._starts(batch, number) if self.learns_to_act else None
        batch = batch.sent(self.model.device)
        noise = torch.rand(B, T, self.model.noise_lanes, generator=self.randomness.torch("online model", number))
        with self._autocast():
            losses = self.model.loss(batch, sent(noise, self.model.device).clamp_(1e-6, 1.0 - 1e-6), carry)
        metrics = {name: part.detach() for name, part in (losses.parts | losses.metrics).items()}
        states = losses.states.detach()
        if self.settings.updates_joint:
            assert starts is not None
            return metrics | self._update_together(losses, states, batch, starts, rate), states
        metrics["model_norm"] = self.steps["model"].minimise(losses.total, rate=rate)
        if starts is not None:
            metrics |= self._update_agent(states, batch, starts, rate)
        return metrics, states

    def _update_agent(self, states: Any, batch: SequenceBatch, starts: _Starts, rate: float) -> dict[str, Tensor]:
        behaviour = self._dream(states, batch, starts)
        norms = {
            "actor_norm": self.steps["actor"].minimise(behaviour.actor, rate=rate),
            "critic_norm": self.steps["critic"].minimise(behaviour.critic, rate=rate),
        }
        self.agent.update_slow_critic()
        return behaviour.metrics | norms

    def _update_together(self, losses: Losses, states: Any, batch: SequenceBatch, starts: _Starts, rate: float) -> dict[str, Tensor]:
        """One backward pass over everything; the critic's loss on replayed rows reaches the model (DreamerV3, specs/dreamer.md C.6)."""
        behaviour = self._dream(states, batch, starts)
        total, metrics = losses.total + behaviour.total, behaviour.metrics
        if self.agent.config.replay_value > 0.0:
            with self._autocast():
                features = self.model.features(losses.states)
                replayed = self.agent.replay_value_loss(features, batch, behaviour.imagined_return.view_as(batch.reward))
            total, metrics = total + replayed, metrics | {"replay_value": replayed.detach()}
        metrics = metrics | {"norm": self.steps["model"].minimise(total, rate=rate)}
        self.agent.update_slow_critic()
        return metrics

    def _dream(self, states: Any, batch: SequenceBatch, starts: _Starts) -> BehaviourLosses:
        """What the agent learns from dreams that begin in `states` [B,T]; nothing of it reaches the model."""
        alive = (~batch.is_terminal & batch.valid).flatten()
        start = states.flatten()
        if starts.rows is not None:
            chosen = sent(starts.rows, alive.device)
            start, alive = start[chosen], alive[chosen]
        guard = Guard.by(self.model, self.model.defaults)
        with self._autocast():
            losses: BehaviourLosses = self.agent.losses(self.model, start, guard, starts.generator, start_alive=alive)
        return losses

    def _starts(self, batch: SequenceBatch, number: int) -> _Starts:
        """Where update `number` dreams from, in rows still on the host: a GPU would be waited for to count those allowed.

        V1 scores no start, so from ends, from where nothing follows, it must not begin; V3 gives such starts no weight, V2 what follows.
        """
        count, generator = self.settings.starts, self.randomness.torch("online agent", number)
        if self.agent.config.indexing != "v1":
            rows = batch.reward.numel()
            return _Starts(None if count is None else torch.randint(rows, (count,), generator=generator), generator)
        allowed = torch.nonzero((~batch.is_last & batch.valid).flatten()).squeeze(-1)
        if count is None:
            return _Starts(allowed, generator)
        return _Starts(allowed[torch.randint(len(allowed), (count,), generator=generator)], generator)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.preset.bfloat16)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the optimisers."""
        return {name: step.state_dict() for name, step in self.steps.items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        for name, step in self.steps.items():
            step.load_state_dict(saved[name])


def fit_scaling(model: WorldModel, replay: Replay, *, before_learning: bool) -> None:
    """Tell the encoder what the replay's vectors look like: their mean and std before anything is learned; their range also at the end."""
    scaling = getattr(model.encoder, "scaling", None)
    if scaling is None or not scaling.vectors:
        return
    obs = replay.column("obs")
    kept = scaling.mean.clone(), scaling.std.clone()
    scaling.fit({name: np.array(obs[name]) for name in scaling.vectors} if isinstance(obs, dict) else np.array(obs))
    if not before_learning:  # the networks have grown used to these
        scaling.mean.copy_(kept[0])
        scaling.std.copy_(kept[1])
