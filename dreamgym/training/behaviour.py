"""Train a fresh actor-critic in a model that is finished: no real env, no replay, only the model's start states or dreamt ones."""

from __future__ import annotations

from collections.abc import Callable

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
    bank: StartBank | Callable[[ActorCritic, int], StartBank] | None = None,
    renew_every: int = 250,
    temperature: float = 1.0,
    bfloat16: bool = False,
    progress: bool = False,
) -> ActorCritic:
    """An actor-critic after `updates` dreams of `starts` lives each, begun in states drawn from `bank`, by default the model's.

    bank may be a function of the agent as it is and of how many updates it has had, which is asked at first and every renew_every
    updates. temperature: of the dreams, which are guarded as the model's defaults say. The model learns nothing. Optimisers default to
    Adam at 3e-4; both rates fall linearly to a tenth over the last decay_share of the updates. bfloat16 computes dreams so, not what is
    learned from them. The same seed gives the same agent. Raises ValueError for a model without start states, for renew_every below 1,
    and for bfloat16 where the actor's gradient passes through dreams.
    """
    bank = model.initial_states if bank is None else bank
    if bank is None:
        raise ValueError("this model has no start states to dream from; those that fit or from_pretrained return have some.")
    if renew_every < 1:
        raise ValueError(f"renew_every is {renew_every}; expected at least 1 update.")
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
    alive = torch.ones(starts, device=model.device)
    for update in tqdm(range(updates), desc="behaviour", disable=not progress):
        if update == 0 or (callable(bank) and update % renew_every == 0):
            begun = (bank(agent, update) if callable(bank) else bank).to(model.device)  # Module.to leaves it where it was
        generator = randomness.torch("behaviour", update)
        chosen = torch.randint(len(begun.is_first), (starts,), generator=generator)
        begins = begun.state[sent(chosen, model.device)]
        losses = agent.losses(dreamer, begins, guard, generator, start_alive=alive, temperature=temperature)
        rate = linear_decay(update, updates, decay_share, floor=0.1)
        for name, loss in (("actor", losses.actor), ("critic", losses.critic)):
            steps[name].minimise(loss, rate=rate)
        agent.update_slow_critic()
    return agent
