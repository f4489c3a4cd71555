"""What an actor-critic dreams and how a dream is scored: rollouts, and the three ways the Dreamers pair states, actions and returns.

States are numbered along the dream: state 0 is the start, action j is taken in state j and leads to state j+1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamgym.agents.actors import Actor
from dreamgym.agents.returns import discount_weights, survival_weights
from dreamgym.models.guard import Guard, unguarded
from dreamgym.structs import TensorStruct

__all__ = ["ALIGNMENTS", "BehaviourLosses", "Dream", "Scores", "dream", "frozen", "outlook"]


@dataclass(frozen=True)
class BehaviourLosses:
    """What one dream teaches. Their graphs share nothing, and reach neither the model nor each other's network.

    imagined_return [N] is that of the start states (of the first imagined ones with "v1"), in units of reward / reward_scale.
    """

    actor: Tensor  # []
    critic: Tensor  # []
    metrics: dict[str, Tensor]
    imagined_return: Tensor  # [N]

    @property
    def total(self) -> Tensor:
        """For a single optimiser."""
        return self.actor + self.critic


@dataclass(frozen=True)
class Dream(TensorStruct):
    """Imagined lives of N starts over H actions. Attached to the actor where gradients flow through the dynamics."""

    features: Tensor  # [N,H+1,F], the start first
    raw: Tensor  # [N,H,R] the actor's outputs
    noise: Tensor  # [N,H,A] what the actions were drawn with
    reward: Tensor  # [N,H+1] on arrival
    continue_prob: Tensor  # [N,H+1]


@dataclass(frozen=True)
class Scores:
    """Returns beside the states and actions they belong to. The actor's J rows are its first J actions."""

    returns: Tensor  # [N,K] targets of the critic, for the scored states from `first` on
    weight: Tensor  # [N,K]
    first: int  # which state the critic's targets begin with
    action_returns: Tensor  # [N,J] what followed each action
    action_weight: Tensor  # [N,J]
    baseline: Tensor  # [N,J] value of the state in which it was taken


def dream(
    model: Any,
    actor: Actor,
    start: Any,
    guard: Guard,
    noise: Tensor,
    *,
    dynamics: bool,
    start_alive: Tensor | None = None,
    temperature: float = 1.0,
) -> Dream:
    """Live on from start states [N]; noise [N,H,lanes+A] uniform, the model's lanes first.

    With dynamics the dream is differentiable in the actions; else nothing is recorded, and it is several times as fast. start_alive [N]
    replaces the model's opinion on whether the start goes on.
    """
    lanes = model.noise_lanes
    states, raws = [start], []
    with torch.set_grad_enabled(dynamics):
        # Not `imagine`: it would leave the start out, and joining the two copies every state once more.
        for uniform in noise.unbind(1):
            raws.append(actor(model.features(states[-1]).detach()))
            action = actor.distribution(raws[-1]).sample(uniform[:, lanes:])
            states.append(model.step(states[-1], action, uniform[:, :lanes], temperature))
        lived = type(start).stack(states, 1).flatten()
        features = model.features(lived).unflatten(0, (-1, len(states)))
        reward, continue_prob = (part.unflatten(0, (-1, len(states))) for part in outlook(model, lived, guard))
    if start_alive is not None:
        continue_prob = torch.cat([start_alive.to(continue_prob).unsqueeze(1), continue_prob[:, 1:]], 1)
    return Dream(features, torch.stack(raws, 1), noise[..., lanes:], reward, continue_prob)


def outlook(model: Any, states: Any, guard: Guard) -> tuple[Tensor, Tensor]:
    """Reward and continue probability of imagined states [N], guarded as in the dream environments."""
    if guard.idle:
        return unguarded(model, states)
    prediction = model.predict(states)
    first_step = torch.ones_like(prediction.reward, dtype=torch.int64)  # imagined states have no clock: a whole life lies ahead
    reward, halted = guard.judge(model, states, prediction, prediction.continue_prob < 0.5, first_step)
    return reward, torch.where(halted, torch.zeros_like(reward), prediction.continue_prob)


Estimate = Callable[[Tensor, Tensor, Tensor], Tensor]  # reward, discount [N,M], value [N,M+1] -> returns [N,M]


def align_v1(reward: Tensor, discount: Tensor, value: Tensor, estimate: Estimate, gamma: float, bootstraps: bool) -> Scores:
    """Only imagined states are scored: action j gets the return of state j+1 and weighs as much as that state's critic target does.

    All arguments [N,H+1]. Source: danijar/dreamer (specs/dreamer.md A.6).
    """
    weight, returns = _arrivals(reward[:, 1:], discount[:, 1:], value[:, 1:], estimate, bootstraps)
    return Scores(returns, weight, 1, returns, weight, value[:, : returns.shape[1]])


def align_v2(reward: Tensor, discount: Tensor, value: Tensor, estimate: Estimate, gamma: float, bootstraps: bool) -> Scores:
    """The start is scored too: action j gets the return of state j+1, but weighs as much as state j.

    Returns contain the reward of arriving, and the baseline is off by it; the author means it so (danijar/dreamerv2 #27).
    """
    weight, returns = _arrivals(reward, discount, value, estimate, bootstraps)
    J = returns.shape[1] - 1
    return Scores(returns, weight, 0, returns[:, 1:], weight[:, :J], value[:, :J])


def align_v3(reward: Tensor, discount: Tensor, value: Tensor, estimate: Estimate, gamma: float, bootstraps: bool) -> Scores:
    """A state's return begins with the next reward, so action j and state j share it. Source: specs/dreamer.md C.6."""
    returns = estimate(reward[:, 1:], discount[:, 1:], value)
    J = returns.shape[1]
    weight = survival_weights(discount, gamma)[:, :J].detach()
    return Scores(returns, weight, 0, returns, weight, value[:, :J])


ALIGNMENTS = {"v1": align_v1, "v2": align_v2, "v3": align_v3}


def _arrivals(reward: Tensor, discount: Tensor, value: Tensor, estimate: Estimate, bootstraps: bool) -> tuple[Tensor, Tensor]:
    """Weights and returns of V1 and V2, where a state's return begins with the reward of arriving there.

    The last state serves as the bootstrap; an estimator without one scores it like any other.
    """
    if bootstraps:
        returns = estimate(reward[:, :-1], discount[:, :-1], value)
    else:
        returns = estimate(reward, discount, torch.cat([value, value[:, -1:]], 1))
    return discount_weights(discount)[:, : returns.shape[1]].detach(), returns


@contextmanager
def frozen(*modules: Any) -> Iterator[None]:
    """No gradient is recorded for these modules' parameters inside, though it flows through them."""
    parameters = [
        parameter for module in modules if isinstance(module, nn.Module) for parameter in module.parameters() if parameter.requires_grad
    ]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
