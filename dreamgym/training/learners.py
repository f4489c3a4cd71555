"""One gradient step of each stage. Every draw depends on (seed, stage, step) alone, so a resumed run repeats it exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.data.replay import Replay
from dreamgym.models.calibration import calibrate_uncertainty, start_bank
from dreamgym.models.encoders import ImageEncoder
from dreamgym.models.guard import Guard
from dreamgym.models.imagination import observe_sequence
from dreamgym.models.vae import VAE
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import SequenceBatch, StartBank
from dreamgym.training.experience import unseen
from dreamgym.training.gradient_step import GradientStep
from dreamgym.training.online_config import OptimiserConfig
from dreamgym.training.presets import Preset

__all__ = [
    "AgentLearner",
    "AutoencoderLearner",
    "ModelLearner",
    "Randomness",
    "calibrate",
    "draw_start_bank",
    "encode_new_rows",
    "lay_out",
    "linear_decay",
    "seeded",
    "vae_terms",
]


@dataclass(frozen=True)
class Randomness:
    """Generators for step `step` of a stage, independent of everything drawn before."""

    seed: int

    def numpy(self, stage: str, step: int) -> np.random.Generator:
        """For replay indices."""
        return np.random.default_rng([self.seed, step, *stage.encode()])

    def torch(self, stage: str, step: int) -> torch.Generator:
        """For noise."""
        state = np.random.SeedSequence([self.seed, step, *stage.encode()]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """For building networks: initial weights depend on the seed alone, and the caller's generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs', too
        yield


class AutoencoderLearner:
    """Trains an ImageEncoder's VAE on frames drawn uniformly from the replay."""

    def __init__(self, model: WorldModel, preset: Preset, randomness: Randomness) -> None:
        assert preset.autoencoder is not None and isinstance(model.encoder, ImageEncoder)
        self.vae, self.settings, self.preset = model.encoder.vae, preset.autoencoder, preset
        self.randomness = randomness
        lay_out(self.vae)
        self.optimiser = torch.optim.Adam(self.vae.parameters(), self.settings.learning_rate, fused=True)
        self.row_weight = None
        if self.settings.emphasis is not None:
            top, bottom, weight = self.settings.emphasis
            self.row_weight = torch.ones(64, device=model.device)
            self.row_weight[top:bottom] = weight

    def step(self, replay: Replay, step: int) -> dict[str, Tensor]:
        """One update; returns the loss terms."""
        settings = self.settings
        rate = linear_decay(step, settings.steps, settings.decay_share, floor=0.0)
        self.optimiser.param_groups[0]["lr"] = settings.learning_rate * rate
        rows = self.randomness.numpy("autoencoder", step).choice(np.flatnonzero(replay.column("valid")), settings.batch)
        reconstruction, kl = vae_terms(
            self.vae,
            replay,
            np.sort(rows),
            self.randomness.torch("autoencoder", step),
            bfloat16=self.preset.bfloat16,
            kl_scale=settings.kl_scale,
            kl_tolerance=settings.kl_tolerance,
            row_weight=self.row_weight,
        )
        self.optimiser.zero_grad(set_to_none=True)
        (reconstruction + kl).backward()
        self.optimiser.step()
        return {"reconstruction": reconstruction.detach(), "kl": kl.detach()}


def lay_out(vae: VAE) -> None:
    """Bring weights into the memory order in which convolutions on a CPU are fastest."""
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first = vae.decoder.deconv1.weight
    first.data = first.data.contiguous()  # it is used as a matrix, and would be copied in every step otherwise


def vae_terms(
    vae: VAE, pictures: Replay, rows: NDArray[np.int64], generator: torch.Generator, *, bfloat16: bool, **weights: Any
) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL of the replay's pictures at `rows`, codes sampled by `generator`; weights are options of VAE.loss."""
    device = next(vae.parameters()).device
    images = torch.from_numpy(pictures.obs_rows(rows)).to(device)
    noise = torch.rand(len(rows), vae.config.code, generator=generator).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        return vae.loss(images, noise.clamp_(1e-6, 1.0 - 1e-6), **weights)


class ModelLearner:
    """Trains core and heads on sequences; `step` hands the posterior states on, for the agent to start from."""

    def __init__(self, model: WorldModel, preset: Preset, randomness: Randomness) -> None:
        self.model, self.preset, self.settings = model, preset, preset.model_training
        self.randomness = randomness
        self.parameters = model.trainable_parameters()
        self.optimiser = torch.optim.Adam(self.parameters, self.settings.learning_rate, fused=True)

    def sample(self, replay: Replay, codes: Tensor | None, step: int, *, recent_from: int) -> SequenceBatch:
        """A batch of windows; after `recent_from` rows lie those that agents collected."""
        settings = self.settings
        rng = self.randomness.numpy("model", step)
        recent = int(settings.batch * settings.recent_share) if len(replay) - recent_from > settings.length else 0
        batch = replay.sample(settings.batch - recent, settings.length, rng)
        if recent:
            batch = SequenceBatch.cat([batch, replay.sample(recent, settings.length, rng, rows=(recent_from, len(replay)))])
        batch = batch.to(self.model.device)
        if codes is None:
            return batch
        return SequenceBatch(**{**vars(batch), "embed": codes[batch.index]})

    def step(self, batch: SequenceBatch, step: int) -> tuple[dict[str, Tensor], Any]:
        """One update; returns the loss terms and the posterior states [B,T]."""
        B, T = batch.reward.shape
        noise = torch.rand(B, T, self.model.noise_lanes, generator=self.randomness.torch("model", step))
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.preset.bfloat16):
            losses = self.model.loss(batch, noise.to(self.model.device).clamp_(1e-6, 1.0 - 1e-6))
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self.optimiser.step()
        parts = {name: part.detach() for name, part in losses.parts.items()}
        return {**parts, "gradient_norm": norm}, losses.states.detach()

    @torch.no_grad()
    def posteriors(self, batch: SequenceBatch, noise: Tensor) -> Any:
        """Posterior states [B,T] of a batch without an update."""
        embed = batch.embed if batch.embed is not None else self.model.embed(batch.obs)
        return observe_sequence(self.model.core, embed, batch.prev_action, batch.is_first, noise)[0]


class AgentLearner:
    """Trains the actor-critic inside the model, which is frozen meanwhile."""

    def __init__(self, agent: ActorCritic, model: WorldModel, preset: Preset, randomness: Randomness) -> None:
        self.agent, self.model, self.preset, self.settings = agent, model, preset, preset.agent_training
        self.randomness = randomness
        clip = agent.config.gradient_clip
        config = OptimiserConfig(learning_rate=agent.config.learning_rate, eps=1e-8, clip=clip if clip < math.inf else None)
        self.actor_step = GradientStep(agent.actor.parameters(), config)
        self.critic_step = GradientStep(agent.critic.parameters(), config)
        self.total_steps = self.settings.steps_per_round * preset.collection.rounds

    def step(self, states: Any, allowed: Tensor, step: int) -> dict[str, Tensor]:
        """One update from posterior states [B,T]; allowed [B,T] leaves out ends of episodes, from which nothing follows."""
        generator = self.randomness.torch("agent", step)
        candidates = torch.nonzero(allowed.flatten()).squeeze(-1)
        chosen = candidates[torch.randint(len(candidates), (self.settings.starts,), generator=generator).to(candidates.device)]
        start = states.flatten()[chosen]
        rate = linear_decay(step, self.total_steps, self.settings.decay_share, floor=0.1)
        guard = Guard.by(self.model, self.model.defaults)
        self.model.requires_grad_(False)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.preset.bfloat16):
            losses = self.agent.losses(self.model, start, guard, generator)
        norms = {
            "actor_norm": self.actor_step.minimise(losses.actor, rate=rate),
            "critic_norm": self.critic_step.minimise(losses.critic, rate=rate),
        }
        self.model.requires_grad_(True)
        self.agent.update_slow_critic()
        return {**losses.metrics, **norms}


@torch.no_grad()
def encode_new_rows(model: WorldModel, replay: Replay, codes: Tensor | None) -> Tensor | None:
    """Codes [N,Z] of all rows, given those of the first; None for models that read observations as they are.

    Each row is encoded once, since the encoder is frozen.
    """
    if not isinstance(model.encoder, ImageEncoder):
        return None
    parts = [] if codes is None else [codes]
    for start in range(0 if codes is None else len(codes), len(replay), 256):
        rows = np.arange(start, min(start + 256, len(replay)))
        parts.append(model.embed(torch.from_numpy(replay.obs_rows(rows)).to(model.device)))
    return torch.cat(parts)


def calibrate(model: WorldModel, held_out: Replay, train: Replay, *, most: int | None = None) -> None:
    """Calibrate uncertainty on the (first `most`) held-out episodes, or on the training ones where none were kept out."""
    replay = unseen(held_out, train)
    calibrate_uncertainty(model, [replay.sequence(*rows).to(model.device) for rows in replay.episodes[:most]])


def draw_start_bank(model: WorldModel, replay: Replay, *, size: int, seed: int) -> StartBank:
    """Start states from up to 256 episodes drawn from all of them."""
    episodes = replay.episodes
    chosen = np.random.default_rng([seed, 13]).permutation(len(episodes))[:256]
    return start_bank(model, [replay.sequence(*episodes[i]).to(model.device) for i in sorted(chosen)], size=size, seed=seed)


def linear_decay(step: int, total: int, share: float, *, floor: float) -> float:
    """1 until the last `share` of `total` steps, then linearly down to `floor`."""
    if share <= 0.0 or total <= 0:
        return 1.0
    left = max(0.0, (total - step) / (share * total))
    return min(1.0, floor + (1.0 - floor) * left)
