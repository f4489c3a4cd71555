"""One update of an online run: the model from replayed windows, then the agent from dreams that begin in what was just inferred."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.models.guard import Guard
from dreamgym.models.world_model import WorldModel
from dreamgym.nn.optimisers import LaProp, adaptive_clip_
from dreamgym.structs import SequenceBatch
from dreamgym.training.learners import Randomness
from dreamgym.training.online_config import OnlinePreset, OptimiserConfig

__all__ = ["GradientStep", "OnlineLearner"]


class GradientStep:
    """One optimiser over some parameters, and what its config wants done before each step."""

    def __init__(self, parameters: Sequence[nn.Parameter], config: OptimiserConfig) -> None:
        self.parameters, self.config = list(parameters), config
        self.steps = 0
        self.optimiser: torch.optim.Optimizer
        if config.kind == "adam":
            self.optimiser = torch.optim.Adam(self.parameters, config.learning_rate, eps=config.eps, fused=True)
        else:
            self.optimiser = LaProp(self.parameters, config.learning_rate, eps=config.eps)

    def minimise(self, loss: Tensor) -> Tensor:
        """Step down the loss; returns the global gradient norm before clipping. Other parameters that it reaches keep their gradients."""
        config = self.config
        for parameter, gradient in zip(self.parameters, torch.autograd.grad(loss, self.parameters, allow_unused=True)):
            parameter.grad = gradient
        if config.adaptive_clip is not None:
            adaptive_clip_(self.parameters, config.adaptive_clip)
        norm = nn.utils.clip_grad_norm_(self.parameters, math.inf if config.clip is None else config.clip)
        self.steps += 1
        if config.warmup:
            for group in self.optimiser.param_groups:
                group["lr"] = config.learning_rate * min(1.0, self.steps / config.warmup)
        if config.weight_decay:
            with torch.no_grad():  # dreamerv2/common/nets.py shrinks before the step and not by the rate
                torch._foreach_mul_(tuple(self.parameters), 1.0 - config.weight_decay)
        self.optimiser.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.steps = saved["steps"]
        self.optimiser.load_state_dict(saved["optimiser"])


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
            self.steps["actor"] = GradientStep(list(agent.actor.parameters()), preset.actor_optimiser)
            self.steps["critic"] = GradientStep(list(agent.critic.parameters()), preset.critic_optimiser)

    def update(self, batch: SequenceBatch, carry: Any, number: int) -> tuple[dict[str, Tensor], Any]:
        """Update `number` from rows [B,T] on the model's device, whose windows begin from states `carry` [B] (None: empty).

        Returns the loss terms and the posterior states [B,T], detached. What is drawn depends on the run's seed and `number` alone.
        """
        B, T = batch.reward.shape
        noise = torch.rand(B, T, self.model.noise_lanes, generator=self.randomness.torch("online model", number))
        with self._autocast():
            losses = self.model.loss(batch, noise.to(self.model.device).clamp_(1e-6, 1.0 - 1e-6), carry)
        metrics = {name: part.detach() for name, part in losses.parts.items()}
        states = losses.states.detach()
        if self.settings.updates_joint:
            return metrics | self._update_together(losses, states, batch, number), states
        metrics["model_norm"] = self.steps["model"].minimise(losses.total)
        if self.learns_to_act:
            metrics |= self._update_agent(states, batch, number)
        return metrics, states

    def _update_agent(self, states: Any, batch: SequenceBatch, number: int) -> dict[str, Tensor]:
        actor_loss, critic_loss, metrics = self._dream(states, batch, number)
        metrics["actor_norm"] = self.steps["actor"].minimise(actor_loss)
        metrics["critic_norm"] = self.steps["critic"].minimise(critic_loss)
        self.agent.update_slow_critic()
        return metrics

    def _update_together(self, losses: Any, states: Any, batch: SequenceBatch, number: int) -> dict[str, Tensor]:
        """One backward pass over everything (DreamerV3, specs/dreamer.md C.6)."""
        actor_loss, critic_loss, metrics = self._dream(states, batch, number)
        metrics["model_norm"] = self.steps["model"].minimise(losses.total + actor_loss + critic_loss)
        self.agent.update_slow_critic()
        return metrics

    def _dream(self, states: Any, batch: SequenceBatch, number: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The agent's losses from dreams that begin in `states` [B,T]; nothing of them reaches the model's weights."""
        generator = self.randomness.torch("online agent", number)
        chosen = self._starts(~batch.is_last & batch.valid, generator)
        with self._frozen_model(), self._autocast():
            losses: tuple[Tensor, Tensor, dict[str, Tensor]] = self.agent.losses(
                self.model, states.flatten()[chosen], self._guard(), generator
            )
        return losses

    def _starts(self, allowed: Tensor, generator: torch.Generator) -> Tensor:
        """Numbers of flattened rows to dream from: all that are allowed [B,T], or `starts` of them drawn with replacement."""
        candidates = torch.nonzero(allowed.flatten()).squeeze(-1)
        if self.settings.starts is None:
            return candidates
        return candidates[torch.randint(len(candidates), (self.settings.starts,), generator=generator).to(candidates.device)]

    def _guard(self) -> Guard:
        defaults = self.model.defaults
        return Guard.of(
            self.model,
            max_uncertainty=defaults.max_uncertainty,
            uncertainty_penalty=defaults.uncertainty_penalty,
            range_guard=defaults.range_guard,
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.preset.bfloat16)

    @contextmanager
    def _frozen_model(self) -> Iterator[None]:
        """Graphs built meanwhile end at the model's weights."""
        for parameter in self.model_parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.model_parameters:
                parameter.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the optimisers."""
        return {name: step.state_dict() for name, step in self.steps.items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        for name, step in self.steps.items():
            step.load_state_dict(saved[name])
