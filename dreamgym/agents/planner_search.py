"""What planners share: families of action sequences to search in, and the scoring of candidates in a model's dreams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from dreamgym.models.guard import Guard, unguarded
from dreamgym.noise import to_normal, uniform
from dreamgym.structs import Spec, TensorStruct

__all__ = [
    "BoxFamily",
    "ClassFamily",
    "DreamScorer",
    "PolicyFunction",
    "Proposal",
    "RewardFunction",
    "ValueFunction",
    "candidate_noise",
    "family_of",
]

RewardFunction = Callable[[Any, Any], Tensor]  # (model, state [N]) -> [N]
ValueFunction = Callable[[Tensor], Tensor]  # features [N,F] -> [N]
PolicyFunction = Callable[[Tensor, Tensor], Tensor]  # (features [N,F], uniforms [N,A]) -> model actions [N,A]


@dataclass(frozen=True)
class Proposal(TensorStruct):
    """Where to look for action sequences. centre is the mean of a Box's actions, or the classes' probabilities."""

    centre: Tensor  # [B,H,A]
    spread: Tensor | None = None  # [B,H,A] standard deviations; classes have none


@dataclass(frozen=True)
class BoxFamily:
    """Normal sequences clipped to the box [-1,1]. Refits to weighted elites: std = sqrt(biased variance + floor), within its bounds."""

    size: int  # A
    init_std: float = 1.0
    variance_floor: float = 1e-6
    min_std: float = 0.0
    max_std: float = float("inf")

    @property
    def lanes(self) -> int:
        """Uniforms one action consumes."""
        return self.size

    def start(self, batch_size: int, horizon: int, device: torch.device) -> Proposal:
        """Before anything is known: N(0, init_std)."""
        centre = torch.zeros(batch_size, horizon, self.size, device=device)
        return Proposal(centre, torch.full_like(centre, self.init_std))

    def draw(self, proposal: Proposal, noise: Tensor) -> Tensor:
        """Candidates [B,J,H,A] from uniforms [B,J,H,A]."""
        assert proposal.spread is not None
        return torch.addcmul(proposal.centre[:, None], proposal.spread[:, None], to_normal(noise)).clamp_(-1.0, 1.0)

    def refit(self, proposal: Proposal, elites: Tensor, weights: Tensor) -> Proposal:
        """elites [B,K,H,A], weights [B,K] that sum to one."""
        centre = torch.einsum("bk,bkha->bha", weights, elites)
        variance = torch.einsum("bk,bkha->bha", weights, (elites - centre[:, None]).square())
        return Proposal(centre, (variance + self.variance_floor).sqrt().clamp(self.min_std, self.max_std))

    def moved_on(self, proposal: Proposal) -> Proposal:
        """The proposal one step later: the centre shifts, the last action starts anew and so does the spread."""
        fresh = self.start(len(proposal.centre), 1, proposal.centre.device)
        centre = torch.cat([proposal.centre[:, 1:], fresh.centre], 1)
        return Proposal(centre, torch.full_like(centre, self.init_std))

    def action_sequences(self, proposal: Proposal) -> Tensor:
        """The proposal's middle: model actions [B,H,A]."""
        return proposal.centre

    def perturbed(self, action: Tensor, amount: float | Tensor, noise: Tensor) -> Tensor:
        """Gaussian noise of std `amount`, clipped; uniforms [B,2 lanes], of which half are used."""
        return (action + amount * to_normal(noise[:, : self.lanes])).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class ClassFamily:
    """Independent classes per step and factor. Refits to the elites' frequencies, keeping a share `smoothing` of the old ones.

    Source: de Boer et al. 2005, A Tutorial on the Cross-Entropy Method, section 3 (smoothed updating).
    """

    sizes: tuple[int, ...]  # classes of each factor
    smoothing: float = 0.1

    @property
    def lanes(self) -> int:
        """Uniforms one action consumes: one per factor."""
        return len(self.sizes)

    def start(self, batch_size: int, horizon: int, device: torch.device) -> Proposal:
        """All classes alike."""
        row = torch.cat([torch.full((size,), 1.0 / size, device=device) for size in self.sizes])
        return Proposal(row.expand(batch_size, horizon, -1))

    def draw(self, proposal: Proposal, noise: Tensor) -> Tensor:
        """One-hot candidates [B,J,H,A] from uniforms [B,J,H,factors]."""
        factors = zip(proposal.centre[:, None].split(list(self.sizes), -1), noise.unbind(-1))
        return torch.cat([_classes_at(probs, at) for probs, at in factors], -1)

    def refit(self, proposal: Proposal, elites: Tensor, weights: Tensor) -> Proposal:
        """elites [B,K,H,A], weights [B,K] that sum to one."""
        return Proposal(torch.lerp(torch.einsum("bk,bkha->bha", weights, elites), proposal.centre, self.smoothing))

    def moved_on(self, proposal: Proposal) -> Proposal:
        """The proposal one step later, mixed half with uniform: certain probabilities would try nothing else."""
        B, H = proposal.centre.shape[:2]
        fresh = self.start(B, H, proposal.centre.device)
        return Proposal(0.5 * (torch.cat([proposal.centre[:, 1:], fresh.centre[:, -1:]], 1) + fresh.centre))

    def action_sequences(self, proposal: Proposal) -> Tensor:
        """The likeliest class of each step and factor: one-hot model actions [B,H,A]."""
        factors = proposal.centre.split(list(self.sizes), -1)
        return torch.cat([functional.one_hot(probs.argmax(-1), probs.shape[-1]) for probs in factors], -1).float()

    def perturbed(self, action: Tensor, amount: float | Tensor, noise: Tensor) -> Tensor:
        """Each factor replaced by a uniform class with chance `amount`; uniforms [B,2 lanes]."""
        swap, at = noise.chunk(2, -1)
        anything = self.draw(self.start(len(action), 1, action.device), at[:, None, None])[:, 0, 0]
        swapped = torch.cat([(swap[:, i : i + 1] < amount).expand(-1, size) for i, size in enumerate(self.sizes)], -1)
        return torch.where(swapped, anything, action)


def family_of(spec: Spec, box: BoxFamily, class_smoothing: float) -> BoxFamily | ClassFamily:
    """The family that fits the spec's actions."""
    return ClassFamily(spec.action_sizes, class_smoothing) if spec.action_sizes else box


@dataclass(frozen=True)
class DreamScorer:
    """Scores candidates by dreaming them: sum over steps of discount^h * P(alive) * reward of the state arrived at.

    Every environment's candidates are dreamt in one batch, at most max_rows rows at a time. futures "own" draws one stochastic future
    per candidate (PlaNet), "shared" the same noise for all candidates of an environment, "mean" none (noise 0.5). reward_fn replaces the
    model's reward; value, given features, is added for the state after the last step. The guard charges and halts as in the dream
    environments, but knows no clock: what halts loses a whole life. The decoder is never called.
    """

    model: Any  # a DreamableModel
    guard: Guard
    discount: float = 1.0
    continue_aware: bool = True
    futures: Literal["own", "shared", "mean"] = "own"
    max_rows: int = 16384
    reward_fn: RewardFunction | None = None
    value: ValueFunction | None = None

    def scores(self, state: Any, candidates: Tensor, seeds: Tensor, iteration: int) -> Tensor:
        """Predicted return [B,J] of candidates [B,J,H,A] from states [B]; NaN counts as minus infinity. seeds [B] int64."""
        B, J = candidates.shape[:2]
        flat = candidates.flatten(0, 1)
        # Row b * J + j is candidate j of environment b; states are gathered to fit (PlaNet's own code tiles them the other way round).
        rows = torch.arange(B * J, device=flat.device)
        parts = [self._dream(state, flat[part], part // J, part % J, seeds, iteration) for part in rows.split(self.max_rows)]
        scores = torch.cat(parts).view(B, J)
        return torch.where(scores.isnan(), -torch.inf, scores)

    def _dream(self, state: Any, actions: Tensor, env: Tensor, candidate: Tensor, seeds: Tensor, iteration: int) -> Tensor:
        """Returns [N] of actions [N,H,A] from the states of the environments `env` [N]."""
        N, H = actions.shape[:2]
        model, state = self.model, state[env]
        noise = self._noise(seeds[env], candidate, iteration, H)
        total, weight = torch.zeros(N, device=actions.device), torch.ones(N, device=actions.device)
        for h in range(H):
            state = model.step(state, actions[:, h], noise[:, h])
            reward, going_on = self._judge(state)
            total = total + weight * reward
            weight = weight * going_on
        return total if self.value is None else total + weight * self.value(model.features(state)).float()

    def _judge(self, state: Any) -> tuple[Tensor, Tensor | float]:
        """Reward of the states arrived at [N], and discount times the chance that they are not the end."""
        model, guard = self.model, self.guard
        if guard.idle:
            return self._judge_freely(state)
        prediction = model.predict(state)
        if self.reward_fn is not None:
            prediction = replace(prediction, reward=self.reward_fn(model, state))
        reward = prediction.reward
        going_on = prediction.continue_prob.float() if self.continue_aware else torch.ones_like(reward, dtype=torch.float32)
        reward, halted = guard.judge(model, state, prediction, going_on < 0.5, torch.ones_like(reward, dtype=torch.int64))
        return reward.float(), going_on.masked_fill(halted, 0.0) * self.discount

    def _judge_freely(self, state: Any) -> tuple[Tensor, Tensor | float]:
        """The same where the guard has no say."""
        if self.reward_fn is not None and not self.continue_aware:
            return self.reward_fn(self.model, state).float(), self.discount
        reward, continue_prob = unguarded(self.model, state)
        if self.reward_fn is not None:
            reward = self.reward_fn(self.model, state)
        return reward.float(), continue_prob.float() * self.discount if self.continue_aware else self.discount

    def _noise(self, seeds: Tensor, candidate: Tensor, iteration: int, H: int) -> Tensor:
        """Uniforms [N,H,L] for the model, from streams of their own: candidates' actions use the even episodes."""
        N, lanes = len(seeds), self.model.noise_lanes
        if self.futures == "mean":
            return torch.full((1, 1, 1), 0.5, device=seeds.device).expand(N, H, lanes)
        stream = candidate if self.futures == "own" else torch.zeros_like(candidate)
        return uniform(seeds, torch.full_like(seeds, 2 * iteration + 1), stream, H * lanes).unflatten(-1, (H, lanes))


def candidate_noise(seeds: Tensor, iteration: int, shape: tuple[int, int, int]) -> Tensor:
    """Uniforms [B,J,H,lanes] for the candidates of an iteration; shape is (J, H, lanes), seeds [B] int64."""
    J, H, lanes = shape
    seed, candidate = seeds[:, None], torch.arange(J, device=seeds.device)
    return uniform(seed, torch.full_like(seed, 2 * iteration), candidate, H * lanes).unflatten(-1, (H, lanes))


def _classes_at(probs: Tensor, noise: Tensor) -> Tensor:
    """Inverse distribution function: probs [...,K] and uniforms [...] (broadcast) -> one-hot [...,K]."""
    edges = probs.cumsum(-1)[..., :-1]  # without the last, which may round to less than one
    return functional.one_hot((noise.unsqueeze(-1) >= edges).sum(-1), probs.shape[-1]).float()
