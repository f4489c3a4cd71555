"""Judges many candidate policies in one batch of dreams: what an evolution strategy asks a world model, a thousand dreams at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from dreamgym.dreams.engine import DreamEngine, Temperature
from dreamgym.dreams.observations import ObservationReader
from dreamgym.errors import NonFiniteDreamError
from dreamgym.models.bfloat16 import in_bfloat16
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import DreamableModel, TensorStruct

__all__ = ["DreamRollouts", "ManyPolicies", "RolloutResult"]

_ALIVE_SHARE = 0.97  # below it the finished dreams are taken out: copying the states costs a twentieth of a step
_ROWS_MULTIPLE = 16  # of a batch: matrix kernels are compiled for each number of rows, a millisecond a time


class ManyPolicies(Protocol):
    """A family of policies whose members are vectors of parameters."""

    def act_many(self, parameters: Tensor, features: Tensor) -> Tensor:
        """Model actions [P,M,A] of P policies, parameters [P,N], on M features each, [P,M,F] float32. A pure function."""
        ...


@dataclass(frozen=True)
class RolloutResult(TensorStruct):
    """What each candidate's dreams came to, [P,R], on the CPU."""

    returns: Tensor  # float32, undiscounted, in the environment's units
    lengths: Tensor  # int64 steps
    ended: Tensor  # bool: by a predicted end or the guard; false where the time limit ended it


class DreamRollouts:
    """P candidates (any number, or the one given), R whole dreams each, in one batch that finished dreams leave.

    Rollout r has the same start and the same noise for every candidate, those of DreamVectorEnv's slot r: with `seed` it dreams what
    DreamEnv seeded seed + r dreams, up to rounding (so pass seeds at least R apart). Options as in DreamEngine with training=False;
    guard and penalty are the model's defaults. The model and its weights are read once, here: make a new one after training them.
    bfloat16 computes matrix products so, twice to four times as fast on CPUs that can; the policies see float32.
    Raises what DreamEngine raises, and ValueError for counts below 1.
    """

    def __init__(
        self,
        model: DreamableModel | WorldModel,
        policy: ManyPolicies,
        *,
        rollouts: int,
        candidates: int | None = None,
        device: torch.device | str | None = None,
        bfloat16: bool = True,
        temperature: Temperature | None = None,
        dropout: float | None = None,
        hold: str | None = None,
        termination: str | None = None,
        end_probability: float | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        if rollouts < 1 or (candidates is not None and candidates < 1):
            raise ValueError(f"candidates is {candidates}, rollouts is {rollouts}; expected at least 1.")
        self.policy, self.candidates, self.rollouts = policy, candidates, rollouts
        self._engine = DreamEngine(
            cast(DreamableModel, model),  # WorldModel's noise_lanes is a property, the protocol's can be set
            rollouts,
            device=device,
            max_episode_steps=max_episode_steps,
            temperature=temperature,
            hold=hold,
            termination=termination,
            end_probability=end_probability,
            dropout=dropout,
        )
        self.device = self._engine.device
        self._bfloat16 = bfloat16 and isinstance(self._engine.dreamer, nn.Module)
        self._dreamer = in_bfloat16(self._engine.dreamer) if self._bfloat16 else self._engine.dreamer
        self._reader = ObservationReader(self._dreamer, "latent", self.device)

    @property
    def model(self) -> Any:
        """The world model that is dreamt."""
        return self._engine.model

    @property
    def max_episode_steps(self) -> int:
        """Steps until truncation."""
        return self._engine.horizon

    @torch.inference_mode()
    def returns(self, parameters: Any, seed: int) -> RolloutResult:
        """Dream with candidates `parameters` [P,N] (tensor or array), each R times.

        Raises ValueError for another number of candidates than was promised, NonFiniteDreamError where the model produces NaN or infinity.
        """
        parameters = torch.as_tensor(parameters).to(self.device, torch.float32)
        if parameters.dim() != 2 or not len(parameters) or self.candidates not in (None, len(parameters)):
            raise ValueError(
                f"parameters have shape {list(parameters.shape)}; expected [{self.candidates or 'P'}, N], a row per candidate."
            )
        self._engine.reset(seeds=[seed + rollout for rollout in range(self.rollouts)])
        dreams = _Dreams(self._engine.state, len(parameters), self.rollouts)
        with self._precision():
            for step in range(1, self.max_episode_steps + 1):
                self._step(dreams, parameters, step)
                if dreams.over:
                    break
        return dreams.result()

    def _step(self, dreams: _Dreams, parameters: Tensor, step: int) -> None:
        engine, rollout = self._engine, dreams.rollout
        noise, chance = engine.draw()
        temperature = engine.current_temperature
        temperature = temperature[rollout] if isinstance(temperature, Tensor) else temperature
        dreams.state = self._dreamer.step(dreams.state, self._act(dreams, parameters), noise[rollout], temperature)
        reward, continue_prob, ended = self._judge(dreams.state, chance[rollout], step)
        dreams.count(reward, continue_prob, ended, last=step == self.max_episode_steps)

    def _act(self, dreams: _Dreams, parameters: Tensor) -> Tensor:
        """Model actions [B,A]. Outside autocast: the policy that is judged is the one that will act awake."""
        ours = isinstance(self._dreamer, WorldModel)  # whose features lie within the bounds that the reader would clip them to
        features = (self._dreamer.features if ours else self._reader.latent)(dreams.state).float()
        with torch.autocast(self.device.type, enabled=False):
            return dreams.packed(self.policy.act_many(parameters[dreams.living], dreams.by_candidate(features)))

    def _judge(self, state: Any, chance: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, continue_prob and whether it ended, each [B]; step counts this one. The ensemble is asked only where it matters."""
        guard, dreamer = self._engine.guard, self._dreamer
        if isinstance(dreamer, WorldModel) and not guard.halts and not guard.uncertainty_penalty:
            features = dreamer.core.features(state)
            reward, continue_prob = dreamer.heads.reward(state, features), dreamer.heads.continue_prob(state, features)
            return reward, continue_prob, self._engine.predicted_end(continue_prob, chance)
        prediction = dreamer.predict(state)
        ended = self._engine.predicted_end(prediction.continue_prob, chance)
        steps = torch.full(chance.shape, step, dtype=torch.int64, device=chance.device)
        reward, halted = guard.judge(dreamer, state, prediction, ended, steps)
        return reward, prediction.continue_prob, ended | halted

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self._bfloat16 else nullcontext()


class _Dreams:
    """The dreams still under way, packed: row i is rollout[i] of candidate living[...], candidates in order. Some may be over already."""

    def __init__(self, starts: Any, candidates: int, rollouts: int) -> None:
        device = next(tensor for _, tensor in starts.items()).device
        slots = candidates * rollouts
        self._rollouts = rollouts
        self._slot = torch.arange(slots, device=device)
        self._tally = _Tally.empty(slots, device)
        self._booked = _Tally.empty(slots, device)  # of all slots, those under way as of when rows last left
        self._locate()
        self.state = starts[self.rollout]
        self.over = False

    def _locate(self) -> None:
        """Where each row stands among its candidate's, for policies that want rectangles."""
        self.rollout, candidate = self._slot % self._rollouts, self._slot // self._rollouts
        self.living, number, count = candidate.unique_consecutive(return_inverse=True, return_counts=True)
        most = int(count.max())
        row = torch.arange(len(number), device=number.device)
        self._shape = (len(self.living), most)
        self._full = len(self.living) * most == len(row)
        self._cell = number * most + row - (count.cumsum(0) - count)[number]
        self._row = row.new_zeros(len(self.living) * most).index_copy(0, self._cell, row)

    def by_candidate(self, rows: Tensor) -> Tensor:
        """[B,...] -> [P,M,...]; where a candidate has fewer than M dreams, row 0 fills up."""
        return (rows if self._full else rows[self._row]).unflatten(0, self._shape)

    def packed(self, by_candidate: Tensor) -> Tensor:
        """Undo `by_candidate`."""
        rows = by_candidate.flatten(0, 1)
        return rows if self._full else rows[self._cell]

    def count(self, reward: Tensor, continue_prob: Tensor, ended: Tensor, *, last: bool) -> None:
        """Book one step, each [B], and let dreams that are over leave when they have become many."""
        self._tally = self._tally.after(reward, continue_prob, ended)
        rows, left = len(ended), int(self._tally.alive.sum())
        self.over = last or left == 0
        kept = -(-left // _ROWS_MULTIPLE) * _ROWS_MULTIPLE
        if not self.over and left < _ALIVE_SHARE * rows and kept < rows:
            self._leave(kept)

    def _leave(self, kept: int) -> None:
        """Keep the dreams under way and as many others as fill the rows."""
        self._book()
        keep = self._tally.alive.int().argsort(descending=True, stable=True)[:kept].sort().values
        self._slot, self._tally, self.state = self._slot[keep], self._tally[keep], self.state[keep]
        self._locate()

    def _book(self) -> None:
        self._booked = self._booked.zip_map(self._tally, lambda all_slots, mine: all_slots.index_copy(0, self._slot, mine))

    def result(self) -> RolloutResult:
        """Of all dreams. Raises NonFiniteDreamError."""
        self._book()
        found = self._booked
        if not torch.isfinite(found.returns + found.check).all():
            raise NonFiniteDreamError("the model produced NaN or infinity in a dream; a lower temperature keeps dreams closer to the data.")
        results = (found.returns, found.lengths, found.ended)
        with torch.inference_mode(False):
            return RolloutResult(*(result.unflatten(0, (-1, self._rollouts)).cpu().clone() for result in results))


@dataclass(frozen=True)
class _Tally(TensorStruct):
    """What dreams came to so far, each [B]."""

    returns: Tensor  # float32
    check: Tensor  # float32: finite as long as the model's numbers are
    lengths: Tensor  # int64
    ended: Tensor  # bool
    alive: Tensor  # bool

    @classmethod
    def empty(cls, rows: int, device: torch.device) -> _Tally:
        zeros, alive = torch.zeros(rows, device=device), torch.ones(rows, dtype=torch.bool, device=device)
        return cls(zeros, zeros, zeros.long(), ~alive, alive)

    def after(self, reward: Tensor, continue_prob: Tensor, ended: Tensor) -> _Tally:
        """One step later."""
        alive = self.alive
        return _Tally(
            self.returns + torch.where(alive, reward, 0.0),
            self.check + torch.where(alive, continue_prob, 0.0),
            self.lengths + alive,
            self.ended | (ended & alive),
            alive & ~ended,
        )
