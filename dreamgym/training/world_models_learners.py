"""One update of V or M. Every draw depends on (seed, stage, step) alone, so a resumed run repeats it exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamgym.data.encoded import Encode, EpisodeStreams, PaddedEpisodes, padded_episodes
from dreamgym.data.replay import Replay
from dreamgym.models.objectives import Losses
from dreamgym.models.vae import VAE
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import SequenceBatch
from dreamgym.training.learners import Randomness, lay_out, vae_terms
from dreamgym.training.world_models_config import CodeTraining, MemoryTraining

__all__ = ["CodeLearner", "MemoryLearner", "encoder_of", "held_out_batches", "memory_rate", "training_rows"]


class CodeLearner:
    """Trains V on frames drawn uniformly from `rows` of a replay of pictures."""

    def __init__(self, vae: VAE, settings: CodeTraining, randomness: Randomness, *, bfloat16: bool, stage: str = "autoencoder") -> None:
        self.vae, self.settings, self.randomness, self.bfloat16, self.stage = vae, settings, randomness, bfloat16, stage
        lay_out(vae)
        self.optimiser = torch.optim.Adam(vae.parameters(), settings.learning_rate, fused=True)

    def step(self, pixels: Replay, rows: NDArray[np.int64], step: int) -> dict[str, Tensor]:
        """One update; returns the loss terms, unweighted, of a batch of images."""
        settings = self.settings
        done = step / settings.steps
        rate = _cosine(done) if settings.rate == "cosine" else 1.0
        self.optimiser.param_groups[0]["lr"] = settings.learning_rate * rate
        first, last = settings.reconstruction_weight
        chosen = np.sort(self.randomness.numpy(self.stage, step).choice(rows, settings.batch))
        reconstruction, kl = self._terms(pixels, chosen, self.randomness.torch(self.stage, step))
        self.optimiser.zero_grad(set_to_none=True)
        (first ** (1.0 - done) * last**done * reconstruction + kl).backward()
        self.optimiser.step()
        return {"reconstruction": reconstruction.detach(), "kl": kl.detach()}

    @torch.no_grad()
    def held_out(self, pixels: Replay, rows: NDArray[np.int64]) -> dict[str, float]:
        """The loss terms on images never trained on."""
        parts = np.array_split(rows, max(1, len(rows) // 256))
        terms = [torch.stack(self._terms(pixels, part, self.randomness.torch("held out", 0))) for part in parts]
        reconstruction, kl = torch.stack(terms).mean(0).tolist()
        return {"held_out_reconstruction": reconstruction, "held_out_kl": kl}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in mid-stage keeps beside the model."""
        return {"optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.optimiser.load_state_dict(saved["optimiser"])

    def _terms(self, pixels: Replay, rows: NDArray[np.int64], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return vae_terms(self.vae, pixels, rows, generator, bfloat16=self.bfloat16, kl_tolerance=self.settings.kl_tolerance)


def training_rows(pixels: Replay, every: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the rows that show something: of episodes to train on, and of every `every`-th, which is kept out."""
    valid = np.array(pixels.column("valid"))
    held_out = np.zeros(len(valid), np.bool_)
    for start, stop in pixels.episodes[every - 1 :: every]:
        held_out[start:stop] = True
    return np.flatnonzero(valid & ~held_out), np.flatnonzero(valid & held_out)


def encoder_of(model: WorldModel, *, bfloat16: bool, batch: int = 256) -> Encode:
    """The model's frozen V as a function from images uint8 [N,Y,X,C] to what is stored of them, [N,2Z]."""

    @torch.no_grad()
    def encode(images: NDArray[Any]) -> NDArray[np.floating[Any]]:
        parts = []
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).to(model.device)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
                parts.append(model.encoder.encode(part).float())
        return torch.cat(parts).cpu().numpy()

    return encode


class MemoryLearner:
    """Trains M on episodes of codes, and keeps the weights that did best on episodes it never saw.

    times: how often each training episode is taken in a pass (None: once). steps and learning_rate replace those of the settings.
    overshoot_from: the first update that learns from dreams too; weights of before are no longer candidates then (None: none does).
    """

    def __init__(
        self,
        model: WorldModel,
        settings: MemoryTraining,
        randomness: Randomness,
        train: Replay,
        held_out: Sequence[SequenceBatch],
        *,
        stage: str,
        bfloat16: bool,
        steps: int,
        learning_rate: float,
        times: NDArray[np.int64] | None = None,
        overshoot_from: int | None = None,
    ) -> None:
        self.model, self.settings, self.randomness, self.stage, self.bfloat16 = model, settings, randomness, stage, bfloat16
        self.overshoot_from = steps if overshoot_from is None or settings.overshooting is None else overshoot_from
        self.steps, self.learning_rate, self.held_out = steps, learning_rate, held_out
        self.parameters = model.trainable_parameters()
        self.optimiser = torch.optim.AdamW(self.parameters, learning_rate, weight_decay=settings.weight_decay, fused=True)
        seed = int(randomness.numpy(stage, 0).integers(2**31))
        self.streams: EpisodeStreams | None = None
        self.episodes: PaddedEpisodes | None = None
        if settings.sequences == "streams":
            self.streams = EpisodeStreams(train, settings.batch, settings.length, seed=seed, times=times)
        else:
            self.episodes = PaddedEpisodes(train, settings.batch, seed=seed, times=times)
        self.carried: Any = None
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def step(self, step: int) -> dict[str, Tensor]:
        """One update; returns the loss terms and the gradient's norm before clipping."""
        start = None
        if self.streams is not None:
            batch = self.streams[step]
            start = None if self.streams.begins(step) else self.carried
        else:
            assert self.episodes is not None
            batch = self.episodes[step]
        if step == self.overshoot_from:
            self.best = None
        losses = self._losses(batch.to(self.model.device), self.randomness.torch(self.stage, step), start, step)
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = self._clip()
        self.optimiser.param_groups[0]["lr"] = memory_rate(self.settings, step, start=self.learning_rate, steps=self.steps)
        self.optimiser.step()
        if self.streams is not None:
            self.carried = losses.states[:, -1].detach()
        return {**{name: part.detach() for name, part in losses.parts.items()}, "gradient_norm": norm}

    @torch.no_grad()
    def evaluate(self, step: int = 0) -> dict[str, float]:
        """The losses on held-out episodes after update `step`; remembers the weights if M's were never lower in sum.

        The members' error is none of M's: it only measures uncertainty, and its units would outweigh the others.
        """
        sums: dict[str, float] = {}
        rows = sum(int((batch.index >= 0).sum()) for batch in self.held_out)
        for number, batch in enumerate(self.held_out):
            losses = self._losses(batch, self.randomness.torch("held out", number), None, step)
            share = int((batch.index >= 0).sum()) / rows
            for name, value in {"total": losses.total, **losses.parts}.items():
                sums[f"held_out_{name}"] = sums.get(f"held_out_{name}", 0.0) + share * float(value)
        total = sums["held_out_total"] - sums["held_out_members"]
        if math.isfinite(total) and (self.best is None or total < self.best[0]):
            self.best = (total, {name: value.clone() for name, value in self._trained().items()})
        return sums

    def take_best(self) -> None:
        """Go back to the weights that did best on held-out episodes."""
        if self.best is not None:
            self.model.load_state_dict(self.best[1], strict=False)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in mid-stage keeps beside the model."""
        carried = None if self.carried is None else dict(self.carried.items())
        return {"optimiser": self.optimiser.state_dict(), "carried": carried, "best": self.best}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self.optimiser.load_state_dict(saved["optimiser"])
        self.best = None if saved["best"] is None else (saved["best"][0], saved["best"][1])
        if saved["carried"] is not None:
            self.carried = type(self.model.initial(1))(**saved["carried"])

    def _losses(self, batch: SequenceBatch, generator: torch.Generator, start: Any, step: int = 0) -> Losses:
        noise = torch.rand(*batch.reward.shape, self.model.noise_lanes, generator=generator).clamp_(1e-6, 1.0 - 1e-6)
        noise, overshooting = noise.to(self.model.device), self.settings.overshooting
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bfloat16):
            losses = self.model.loss(batch, noise, start)
            if overshooting is None or step < self.overshoot_from:
                return losses
            more = overshooting.losses(self.model, batch, losses.states, noise)
        return Losses(losses.total + torch.stack(list(more.values())).sum(), {**losses.parts, **more}, losses.states)

    def _clip(self) -> Tensor:
        """Bound the gradient as the settings say; returns M's norm before. The members' is bounded apart, or M's would shrink with it."""
        settings = self.settings
        bound = math.inf if settings.clip_norm is None else settings.clip_norm
        members = list(self.model.heads.members.parameters())
        apart = {id(parameter) for parameter in members}
        nn.utils.clip_grad_norm_(members, bound)
        norm = nn.utils.clip_grad_norm_([parameter for parameter in self.parameters if id(parameter) not in apart], bound)
        if settings.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, settings.clip_value)
        return norm

    def _trained(self) -> dict[str, Tensor]:
        """Everything of the model but its frozen V."""
        return {name: value for name, value in self.model.state_dict().items() if not name.startswith("encoder.")}


def memory_rate(settings: MemoryTraining, step: int, *, start: float, steps: int) -> float:
    """The learning rate of update number `step` of `steps`, which begin at the rate `start`."""
    if settings.rate == "exponential":
        return (start - settings.final_rate) * settings.decay**step + settings.final_rate
    return start * (_cosine(step / steps) if settings.rate == "cosine" else 1.0)


def _cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def held_out_batches(replay: Replay, *, episodes: int, batch: int, device: torch.device) -> list[SequenceBatch]:
    """Up to `episodes` whole episodes, evenly taken from all, those of like lengths together: always the same ones."""
    count = len(replay.episodes)
    chosen = np.unique(np.linspace(0, count - 1, min(count, episodes)).round().astype(np.int64))
    lengths = np.array([stop - start for start, stop in replay.episodes])[chosen]
    chosen = chosen[np.argsort(lengths, kind="stable")]
    return [padded_episodes(replay, chosen[start : start + batch]).to(device) for start in range(0, len(chosen), batch)]
