"""MDN-RNN, World Models' M: an LSTM that foretells the next code as a mixture of normals. Ha and Schmidhuber 2018.

The state at row t is (z_t, h_t, c_t, d_t) with the memory BEFORE it takes in (z_t, a_t): what reads h_t foretells row t, and
[z_t, h_t] is what the paper's controller sees.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamgym.models import mixtures
from dreamgym.models.mixtures import MixtureStats
from dreamgym.nn.recurrent import LSTMCell
from dreamgym.noise import hash_counters, to_normal
from dreamgym.structs import TensorStruct

__all__ = ["CodeStats", "MDNRNN", "MDNRNNConfig", "MDNRNNState"]

_DROP_BITS = 16  # a mask's resolution: four entries from each hash
_CODE_BOUND = 50.0  # features' declared bounds in the released code


@dataclass(frozen=True)
class MDNRNNState(TensorStruct):
    """All the next step needs. Fields lead with [B], or [B,T] along a sequence."""

    deter: Tensor  # [B,D] h: the LSTM's output, before this row's code and action
    stoch: Tensor  # [B,Z] z: this row's code
    cell: Tensor  # [B,D] c
    first: Tensor  # [B] d: 1 where this row begins an episode, else 0


@dataclass(frozen=True)
class CodeStats(TensorStruct):
    """What V says of an image: a diagonal normal over its code."""

    mean: Tensor  # [...,Z]
    std: Tensor  # [...,Z]


@dataclass(frozen=True)
class MDNRNNConfig:
    """Defaults: TakeCover in the paper. CarRacing: units 256, first_flag False, features "zh".

    mixture "per_dim" is the paper's; "shared" has one choice per step, which can foretell joint modes (Tallec et al.). first_flag feeds
    M the d of its state. features: what agents see. Dropout rates are of M's input and of the memory where it enters a step, in training
    and while dreaming, never awake; masks follow the first noise lane (specs/world-models.md 12).
    """

    units: int = 512
    mixtures: int = 5
    mixture: Literal["per_dim", "shared"] = "per_dim"
    first_flag: bool = True
    features: Literal["z", "zh", "zch"] = "zch"
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    log_std_floor: float = -7.0

    def __post_init__(self) -> None:
        for name, high in (("units", 16384), ("mixtures", 256)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 to {high}.")
        if self.mixture not in ("per_dim", "shared") or self.features not in ("z", "zh", "zch"):
            raise ValueError(f"mixture is {self.mixture!r}, features {self.features!r}; expected per_dim|shared and z|zh|zch.")
        for name in ("input_dropout", "recurrent_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected in [0, 1).")
        if not -20.0 <= self.log_std_floor <= 0.0:
            raise ValueError(f"log_std_floor is {self.log_std_floor}; expected -20 to 0.")


class MDNRNN(nn.Module):
    """Core over a VAE's [mean, log variance] (embeddings of width 2 Z) and model actions of width A.

    Noise lanes: one that seeds the dropout masks (and may be held for an episode), then the mixture's choices, then Z normals. Awake the
    code is drawn from V with those same normals: noise of 0.5 gives V's mean, and in a dream the likeliest component's mean.
    """

    def __init__(self, config: MDNRNNConfig, *, embed_size: int, action_size: int) -> None:
        super().__init__()
        if embed_size % 2:
            raise ValueError(f"embed_size is {embed_size}; expected means and log variances, so an even number.")
        self.config = config
        self.stoch_size, self.deter_size = embed_size // 2, config.units
        self.cell = LSTMCell(self.stoch_size + action_size + int(config.first_flag), config.units)
        self.out = nn.Linear(config.units, mixtures.raw_size(self.stoch_size, config.mixtures, config.mixture))
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    # ---- sizes --------------------------------------------------------------------------------------------------------

    @property
    def feature_size(self) -> int:
        """F: of the code, and of h and c where agents see them."""
        return self.stoch_size + self.deter_size * (len(self.config.features) - 1)

    @property
    def feature_bound(self) -> NDArray[np.float32]:
        """[F]: h lies in [-1,1]; codes and c are bounded as in the released code."""
        bound = np.full(self.feature_size, _CODE_BOUND, np.float32)
        if self.config.features != "z":
            bound[-self.deter_size :] = 1.0
        return bound

    @property
    def noise_lanes(self) -> int:
        """Uniforms one step consumes."""
        return 1 + mixtures.noise_size(self.stoch_size, self.config.mixture)

    @property
    def episode_lanes(self) -> int:
        """Lanes that may be held for an episode: the one behind the dropout masks, if there are any."""
        return int(max(self.config.input_dropout, self.config.recurrent_dropout) > 0.0)

    def with_dropout(self, rate: float) -> MDNRNN:
        """The same weights with another dropout rate, for input and memory. Raises ValueError for a rate outside [0, 1)."""
        view = copy.copy(self)
        view.config = replace(self.config, input_dropout=float(rate), recurrent_dropout=float(rate))
        return view

    # ---- parts of a step ----------------------------------------------------------------------------------------------

    def initial(self, batch_size: int) -> MDNRNNState:
        """Zeros, on the parameters' device."""
        zeros = self.out.bias.new_zeros(batch_size, self.deter_size, dtype=torch.float32)
        return MDNRNNState(zeros, zeros.new_zeros(batch_size, self.stoch_size), zeros.clone(), zeros.new_zeros(batch_size))

    def mixture(self, deter: Tensor) -> MixtureStats:
        """What the memory [..., D] foretells of its own row's code."""
        config, weight = self.config, self.out.weight
        raw = self.out(deter.to(weight.dtype))
        return mixtures.mixture_stats(raw, self.stoch_size, config.mixtures, config.mixture, log_std_floor=config.log_std_floor)

    def recur(self, state: MDNRNNState, action: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The memory (h, c) after it took in a row's code, flag and action [B,A]; noise [B,L] says with which dropout, None without."""
        x, h = self._input(state.stoch, action, state.first), state.deter
        if noise is not None and self.episode_lanes:
            into, back = self._masks(noise[:, 0], x.shape[-1])
            x, h = x * into, h * back
        h_next, c_next = self.cell(x, h, state.cell)
        return h_next.to(state.deter.dtype), c_next

    def code(self, embed: Tensor, noise: Tensor) -> tuple[Tensor, CodeStats]:
        """A code [...,Z] drawn from V's [mean, log variance] [..., 2Z], and that distribution; noise [...,L]."""
        mean, log_var = embed.float().chunk(2, -1)
        std = (0.5 * log_var).exp()
        return torch.addcmul(mean, std, to_normal(noise[..., -self.stoch_size :])), CodeStats(mean, std)

    def _input(self, code: Tensor, action: Tensor, first: Tensor) -> Tensor:
        parts = [code, action, first.unsqueeze(-1)] if self.config.first_flag else [code, action]
        return torch.cat(parts, -1)

    def _masks(self, lane: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
        """Inverted dropout masks [..., I] and [..., D], a pure function of uniforms [...]; those of exactly 0.5 mask nothing."""
        config = self.config
        width = inputs + self.deter_size
        counter = (lane * 2.0**23).long()
        zero = torch.zeros_like(counter)
        bits = hash_counters(counter, zero, zero, math.ceil(width * _DROP_BITS / 64)).view(torch.int16)[..., :width]
        masks = []
        for part, rate in zip(bits.split((inputs, self.deter_size), -1), (config.input_dropout, config.recurrent_dropout)):
            kept = (part.int() >= int(rate * 2**_DROP_BITS) - 2 ** (_DROP_BITS - 1)) | (lane == 0.5).unsqueeze(-1)
            masks.append(kept * torch.where(lane == 0.5, 1.0, 1.0 / (1.0 - rate)).unsqueeze(-1))
        return masks[0], masks[1]

    # ---- steps --------------------------------------------------------------------------------------------------------

    def step(self, state: MDNRNNState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> MDNRNNState:
        """Dream: the next state from the mixture. action [B,A], noise [B,L] uniform."""
        h, c = self.recur(state, action, noise)
        code = mixtures.sample(self.mixture(h), noise[..., 1:], temperature)
        return MDNRNNState(h, code, c, torch.zeros_like(state.first))

    def observe(
        self, state: MDNRNNState, prev_action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor
    ) -> tuple[MDNRNNState, CodeStats]:
        """Awake: the memory of what was seen, and the new image's code. Rows where is_first [B] start from an empty memory."""
        h, c = self.recur(state, prev_action)
        again = is_first.unsqueeze(-1)  # not a product: NaN times 0 would outlive its episode
        code, stats = self.code(embed, noise)
        return MDNRNNState(h.masked_fill(again, 0.0), code, c.masked_fill(again, 0.0), is_first.float()), stats

    def sequence(
        self, code: Tensor, prev_action: Tensor, is_first: Tensor, noise: Tensor | None = None, start: MDNRNNState | None = None
    ) -> MDNRNNState:
        """States [B,T] along codes [B,T,Z] that are given: the numbers of T times `recur`, several times as fast.

        prev_action [B,T,A], is_first [B,T]. start: the states [B] before the first rows, `initial` without. noise [B,T,L]: with dropout.
        """
        start = self.initial(len(code)) if start is None else start
        first = is_first.float()
        # Row t's memory took in row t-1's code and flag; prev_action is the one in between. What a first row took in does not matter.
        before = torch.cat([start.stoch.unsqueeze(1), code[:, :-1]], 1)
        flag = torch.cat([start.first.unsqueeze(1), first[:, :-1]], 1)
        x, back = self._input(before, prev_action, flag), None
        if noise is not None and self.episode_lanes:
            into, back = self._masks(noise[..., 0], x.shape[-1])
            x = x * into
        h, c = self.cell.sequence(x, start.deter, start.cell, reset=is_first, mask=back)
        return MDNRNNState(h, code, c, first)

    def features(self, state: MDNRNNState) -> Tensor:
        """[z], [z, h] or [z, c, h]: [..., F]."""
        chosen = {"z": [], "zh": [state.deter], "zch": [state.cell, state.deter]}[self.config.features]
        return torch.cat([state.stoch, *chosen], -1) if chosen else state.stoch
