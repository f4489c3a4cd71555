"""Where a search may begin: an actor-critic learns in short dreams at the setting that is searched, and C becomes the map closest to it.

Whole lives tell candidates apart by their deaths only, so CMA-ES from zero stops early in Doom TakeCover; 15 dreamt steps with a critic
behind them tell more (docs/papers/world-models.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.linear import LinearController
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.models.world_model import WorldModel
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import DreamableModel, StartBank
from dreamgym.training.behaviour import learn_behaviour
from dreamgym.training.learners import Randomness
from dreamgym.training.online_config import OptimiserConfig
from dreamgym.training.world_models_config import BehaviourTraining

__all__ = ["GradientStart", "chances", "dreamt_states", "gradient_start"]


def _short_dreams() -> ActorCriticConfig:
    """As preset world-models-fast learns beside C, with an actor that is as linear as what is to imitate it."""
    return replace(BehaviourTraining().config, actor=MLPConfig(layers=0))


@dataclass(frozen=True)
class GradientStart:
    """An actor-critic of `updates` batches of `starts` short dreams, REINFORCE at `learning_rate`, imitated by a linear map.

    Its dreams begin in the middle of its own: every renew_every updates it lives `dreams` lives of at most `steps` steps, drawing its
    actions, and their states are where it goes on from. So nothing awake is used, as in a search from zero. The last such lives are what
    the linear map is fitted to (`LinearController.imitate`; ridge). `spread` is CMA-ES's first sigma, in units of that map's root mean
    square parameter.
    """

    updates: int = 2500
    starts: int = 256
    renew_every: int = 250
    dreams: int = 256
    steps: int = 300
    learning_rate: float = 3e-3  # the actor's; ten times the critic's
    config: ActorCriticConfig = field(default_factory=_short_dreams)
    ridge: float = 10.0
    spread: float = 0.1

    def __post_init__(self) -> None:
        for name in ("updates", "starts", "renew_every", "dreams", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1.")
        for name in ("learning_rate", "ridge", "spread"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a positive number.")


def gradient_start(
    model: WorldModel,
    controller: LinearController,
    settings: GradientStart | None = None,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    dropout: float | None = None,
    bfloat16: bool = True,
    progress: bool = False,
) -> ActorCritic:
    """Let the controller begin where gradients lead at this temperature and rate of dropout; returns the actor-critic that it imitates.

    The model learns nothing. The same seed gives the same controller. Raises ValueError for a controller with a hidden layer, for dropout
    that the model does not know, and for bfloat16 where the actor's gradient passes through dreams.
    """
    settings = settings or GradientStart()
    controller.check_linear()
    dreaming = model.with_dropout(dropout)
    lives = partial(dreamt_states, dreaming, dreams=settings.dreams, steps=settings.steps, temperature=temperature)

    def bank(agent: ActorCritic, update: int) -> StartBank:
        return lives(agent, seed=_seed(seed, update))

    teacher = learn_behaviour(
        dreaming,
        settings.config,
        updates=settings.updates,
        starts=settings.starts,
        seed=seed,
        actor_optimiser=OptimiserConfig(learning_rate=settings.learning_rate),
        bank=bank,
        renew_every=settings.renew_every,
        temperature=temperature,
        bfloat16=bfloat16,
        progress=progress,
    )
    with torch.no_grad():
        features = dreaming.features(bank(teacher, settings.updates).state)
    controller.imitate(features, chances(teacher, features), settings.ridge)
    return teacher


def dreamt_states(
    model: WorldModel, agent: ActorCritic, *, dreams: int, steps: int, seed: int = 0, temperature: float | None = None, every: int = 5
) -> StartBank:
    """States of every fifth step of `dreams` dreams that the agent leads, its actions drawn, until they end or have had `steps` steps."""
    kept: list[Any] = []
    env = DreamVectorEnv(cast(DreamableModel, model), dreams, obs_type="latent", temperature=temperature)
    obs, _ = env.reset(seed=seed)
    agent.reseed(seed)
    ended = torch.zeros(dreams, dtype=torch.bool, device=model.device)  # dreams begin anew after their end; only the first counts
    for step in range(steps):
        if step % every == 0:
            kept.append(env.get_state().state[~ended])
        action, _ = agent.predict(obs)
        obs, _, terminated, truncated, _ = env.step(action)
        ended |= torch.as_tensor(terminated | truncated, device=model.device)
        if ended.all():
            break
    env.close()
    return StartBank.midway(type(kept[0]).cat(kept))


def chances(agent: ActorCritic, features: Tensor) -> Tensor:
    """What `LinearController.imitate` wants, [N,A]: the chance of each class, or the mode where actions are no classes."""
    with torch.no_grad():
        raw = agent.actor(features)
        if not agent.spec.is_discrete:
            return agent.actor.distribution(raw).mode
        return torch.cat([logits.softmax(-1) for logits in raw.split(list(agent.spec.action_sizes), -1)], -1)


def _seed(seed: int, update: int) -> int:
    """Of the lives before this update."""
    return int(Randomness(seed).numpy("lives", update).integers(2**62))
