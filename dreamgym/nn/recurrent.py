"""Recurrent cells, x [N, inputs] and hidden [N, D] -> hidden [N, D], and the bricks only they need: block-diagonal layers, RMS norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.nn.lstm_sequence import lstm_sequence

__all__ = ["BlockGRUCell", "BlockLinear", "GRUCell", "LSTMCell", "LayerNormGRUCell", "RMSNorm", "trunc_normal"]

LAYER_EPS = 1e-3  # Keras' layer norm, which DreamerV2 uses as it comes
RMS_EPS = 1e-4  # DreamerV3's RMS norm
_UPDATE_BIAS = -1.0  # makes the cells retentive at first: with all-zero weights the new state is 0.731 * hidden


class GRUCell(nn.Module):
    """The reset-after GRU (two bias vectors), written by hand because nn.GRUCell has no bfloat16 autocast on a CPU.

    x [N, inputs], hidden [N, D] -> [N, D]. With all-zero weights the new state is hidden / 2.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 3 * units)
        self.recurrent = nn.Linear(units, 3 * units)
        nn.init.zeros_(self.input.bias)
        nn.init.zeros_(self.recurrent.bias)
        nn.init.xavier_uniform_(self.input.weight)
        for gate in self.recurrent.weight.data.chunk(3):
            nn.init.orthogonal_(gate)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        reset_x, update_x, candidate_x = self.input(x).chunk(3, -1)
        reset_h, update_h, candidate_h = self.recurrent(hidden).chunk(3, -1)
        reset = torch.sigmoid(reset_x + reset_h)
        update = torch.sigmoid(update_x + update_h)
        candidate = torch.tanh(torch.addcmul(candidate_x, reset, candidate_h))
        return torch.lerp(candidate.to(hidden.dtype), hidden, update.to(hidden.dtype))


class LSTMCell(nn.Module):
    """The LSTM of World Models: one bias vector, whose forget part begins at `forget_bias`. x [B,I]; h, c [B,H].

    Gates lie in torch's order: input, forget, candidate, output. 4 H (I + H) + 4 H parameters. Source: specs/world-models.md 4.1.
    """

    def __init__(self, inputs: int, units: int, forget_bias: float = 1.0) -> None:
        super().__init__()
        self.units = units
        self.input = nn.Linear(inputs, 4 * units)
        self.recurrent = nn.Linear(units, 4 * units, bias=False)
        nn.init.xavier_uniform_(self.input.weight)
        for gate in self.recurrent.weight.data.chunk(4):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.input.bias)
        self.input.bias.data[units : 2 * units].fill_(forget_bias)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step. x and h are brought to the weights' dtype, so that a bfloat16 copy of the cell steps float32 states."""
        dtype = self.input.weight.dtype
        gates = self.input(x.to(dtype)) + self.recurrent(h.to(dtype))
        put, held, candidate, shown = gates.chunk(4, -1)
        c_next = torch.addcmul(torch.sigmoid(held) * c, torch.sigmoid(put), _tanh(candidate))
        return (torch.sigmoid(shown) * _tanh(c_next)).to(h.dtype), c_next.to(c.dtype)

    def sequence(
        self, x: Tensor, h: Tensor, c: Tensor, *, reset: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Every step's memory, x [B,T,I] -> h and c [B,T,H]: the numbers of `forward`, several times as fast to train.

        reset [B,T] bool: the memory after that step is zero, and nothing crosses it, gradients included. mask [B,T,H] multiplies h where
        it enters a step (recurrent dropout).
        """
        gates = self.input(x.transpose(0, 1))
        reset, mask = (None if each is None else each.transpose(0, 1) for each in (reset, mask))
        hs, cs = lstm_sequence(gates, self.recurrent.weight, h, c, reset=reset, mask=mask)
        return hs.transpose(0, 1), cs.transpose(0, 1)


def _tanh(x: Tensor) -> Tensor:
    """A CPU takes ten times as long for torch.tanh."""
    return torch.sigmoid(x * 2.0) * 2.0 - 1.0


class LayerNormGRUCell(nn.Module):
    """DreamerV2's GRU: one linear over [x, hidden] and one layer norm over all three gates, the reset inside the tanh.

    Here a high update takes the candidate, where GRUCell's keeps the memory. Source: danijar/dreamerv2 common/nets.py GRUCell, whose
    Keras norm has eps 1e-3 and runs in float32.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.joint = nn.Linear(inputs + units, 3 * units)
        self.norm = nn.LayerNorm(3 * units, eps=LAYER_EPS)
        nn.init.xavier_uniform_(self.joint.weight)
        nn.init.zeros_(self.joint.bias)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        parts = self.norm(self.joint(torch.cat([x, hidden.to(x.dtype)], -1)).float())
        reset, candidate, update = parts.chunk(3, -1)
        return _update(reset, candidate, update, hidden)


class BlockGRUCell(nn.Module):
    """DreamerV3's GRU: blocks of memory that see x, `bottleneck` numbers about the whole memory, and else only themselves.

    One hidden layer over these (RMS norm over the whole width, SiLU), then the three gates of each block.
    Every block gets the same x and bottleneck, so their share of the block layer is one dense layer here: the same function and
    parameter count as danijar/dreamerv3 rssm.py (_core), without copying them `blocks` times. Its biases are `from_input`'s.
    """

    def __init__(self, inputs: int, units: int, *, bottleneck: int, blocks: int = 8) -> None:
        super().__init__()
        self.bottleneck = nn.Linear(units, bottleneck)
        self.bottleneck_norm = RMSNorm(bottleneck)
        self.from_hidden = BlockLinear(units, units, blocks, bias=False)
        self.from_input = nn.Linear(bottleneck + inputs, units)
        self.norm = RMSNorm(units)
        self.gates = BlockLinear(units, 3 * units, blocks)
        fan_in = units + blocks * (bottleneck + inputs)  # the official layer's, which counts every block's copy
        trunc_normal(self.bottleneck.weight, units)
        trunc_normal(self.from_hidden.weight, fan_in)
        trunc_normal(self.from_input.weight, fan_in)
        for layer in (self.bottleneck, self.from_input):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        seen = functional.silu(self.bottleneck_norm(self.bottleneck(hidden)))
        seen = self.from_hidden(hidden) + self.from_input(torch.cat([seen, x], -1))
        gates = self.gates(functional.silu(self.norm(seen))).unflatten(-1, (self.gates.blocks, 3, -1))
        reset, candidate, update = (gate.flatten(-2) for gate in gates.unbind(-2))
        return _update(reset, candidate, update, hidden)


class BlockLinear(nn.Module):
    """Linear layer with a block-diagonal matrix: block g of the outputs reads block g of the inputs only. [..., inputs] -> [..., outputs].

    Source: danijar/dreamerv3 embodied/jax/nets.py BlockLinear; its fan-in is the full input width, not the block's.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int = 8, *, bias: bool = True) -> None:
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"{inputs} inputs and {outputs} outputs do not divide into {blocks} blocks.")
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        trunc_normal(self.weight, inputs)

    def forward(self, x: Tensor) -> Tensor:
        blocks = x.reshape(-1, self.blocks, self.weight.shape[1]).transpose(0, 1)  # [g, N, i]
        out = torch.bmm(blocks, self.weight.to(blocks.dtype))
        out = out.transpose(0, 1).reshape(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias.to(out.dtype)


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension and scale, in float32 whatever comes in. Source: dreamerv3 nets.py Norm."""

    def __init__(self, units: int, eps: float = RMS_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), self.scale.shape, self.scale, self.eps).to(x.dtype)


def trunc_normal(weight: Tensor, fan_in: int) -> None:
    """Draw weights from a normal cut at two standard deviations that has a std of 1 / sqrt(fan_in) after the cut, as DreamerV3's."""
    std = 1.1368 / math.sqrt(fan_in)
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def _update(reset: Tensor, candidate: Tensor, update: Tensor, hidden: Tensor) -> Tensor:
    """The rest of a step after the gates' linear layer, shared by V2's and V3's cells. hidden keeps its precision."""
    doubled = torch.sigmoid(reset.float()) * candidate.float() * 2.0
    candidate = torch.sigmoid(doubled) * 2.0 - 1.0  # tanh; a CPU takes ten times as long for torch.tanh
    update = torch.sigmoid(update.float() + _UPDATE_BIAS)
    return torch.lerp(hidden, candidate.to(hidden.dtype), update.to(hidden.dtype))
