"""Train a fresh actor-critic in a model that is finished: no real env, no replay, only the model's own start states."""

from __future__ import annotations

import torch
from tqdm.auto import tqdm

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.models.bfloat16 import Bfloat16Dreamer
from dreamgym.models.guard import Guard
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import StartBank, sent
from dreamgym.training.gradient_step import GradientStep
from dreamgym.training.learners import Randomness, linear_decay, seeded
from dreamgym.training.online_config import OptimiserConfig

__all__ = ["learn_behaviour"]


def learn_behaviour(
    model: WorldModel,
    config: ActorCriticConfig,
    *,
    updates: int,
    starts: int = 256,
    seed: int = 0,
    actor_optimiser: OptimiserConfig | None = None,
    critic_optimiser: OptimiserConfig | None = None,
    decay_share: float = 0.5,
    bank: StartBank | None = None,
    bfloat16: bool = False,
    progress: bool = False,
) -> ActorCritic:
    """An actor-critic after `updates` dreams of `starts` lives each, begun in states drawn from `bank`, by default the model's.

    The model learns nothing. Optimisers default to Adam at 3e-4; both rates fall linearly to a tenth over the last decay_share of the
    updates. Dreams are guarded as the model's defaults say. bfloat16 computes dreams so, not what is learned from them.
    The same seed gives the same agent. Raises ValueError for a model without start states, and for bfloat16 where the actor's gradient
    passes through dreams.
    """
    bank = model.initial_states if bank is None else bank
    if bank is None:
        raise ValueError("this model has no start states to dream from; those that fit or from_pretrained return have some.")
    bank = bank.to(model.device)  # Module.to leaves it where it was
    with seeded(seed):
        agent = ActorCritic(model.spec, model.core.feature_size, config, seed=seed).to(model.device)
    if bfloat16 and agent.reinforce < 1.0:
        raise ValueError(f"a share of {1.0 - agent.reinforce} of the actor's gradient passes through dreams; in bfloat16 none does.")
    default = OptimiserConfig(learning_rate=3e-4)
    steps = {
        "actor": GradientStep(agent.actor.parameters(), actor_optimiser or default),
        "critic": GradientStep(agent.critic.parameters(), critic_optimiser or default),
    }
    guard, randomness = Guard.by(model, model.defaults), Randomness(seed)
    dreamer = Bfloat16Dreamer(model) if bfloat16 else model
    for update in tqdm(range(updates), desc="behaviour", disable=not progress):
        generator = randomness.torch("behaviour", update)
        chosen = torch.randint(len(bank.is_first), (starts,), generator=generator)
        begins = bank.state[sent(chosen, model.device)]
        losses = agent.losses(dreamer, begins, guard, generator, start_alive=torch.ones(starts, device=model.device))
        rate = linear_decay(update, updates, decay_share, floor=0.1)
        for name, loss in (("actor", losses.actor), ("critic", losses.critic)):
            steps[name].minimise(loss, rate=rate)
        agent.update_slow_critic()
    return agent
