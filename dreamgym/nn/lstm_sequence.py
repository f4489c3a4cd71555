"""An LSTM over whole sequences with its gradient written out: autograd would make a small weight gradient for each step, one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["lstm_sequence"]


def lstm_sequence(
    gates: Tensor, weight: Tensor, h: Tensor, c: Tensor, *, reset: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run an LSTM in time-major order: memory after every step, h and c each [T,B,H] float32 (float64 stays).

    gates [T,B,4H] are the inputs' share (and the bias) in the order input, forget, candidate, output; weight [4H,H] is applied to the
    memory. h, c [B,H] come before the first step. reset [T,B] bool: the step's result is zero. mask [T,B,H] multiplies the memory
    where it enters a step. Products are taken in the dtype of `gates`, bfloat16 under autocast. Differentiable once.
    """
    with torch.autocast(gates.device.type, enabled=False):
        hidden: tuple[Tensor, Tensor] = _Sequence.apply(gates, weight, h, c, reset, mask)
    return hidden


class _Sequence(torch.autograd.Function):
    """tanh(x) is 2 sigmoid(2x) - 1 throughout: one sigmoid serves all four gates, and a CPU's tanh takes ten times as long.

    Work that is not a product is done in float32, in place and a step at a time, where it stays in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, h: Tensor, c: Tensor, reset: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        T, B, H = gates.shape[0], *h.shape
        full = torch.promote_types(gates.dtype, torch.float32)
        matrix = weight.to(gates.dtype).t()
        again = _resets(reset, T)
        entering = gates.new_empty(T, B, H)  # the memory as it enters each step
        opened = gates.new_empty(T, B, 4 * H, dtype=full)  # sigmoids of all gates, of the candidate's at twice its value
        shapes = gates.new_empty(T, B, H, dtype=full)  # tanh of c before a reset
        hs, cs = (gates.new_empty(T + 1, B, H, dtype=full) for _ in range(2))
        hs[0], cs[0] = h, c
        for t, (gate, into, now, shape) in enumerate(zip(*(each.unbind(0) for each in (gates, entering, opened, shapes)))):
            into.copy_(hs[t] if mask is None else hs[t] * mask[t])
            now.copy_(torch.addmm(gate, into, matrix))
            put, held, candidate, shown = now.chunk(4, -1)
            candidate.mul_(2.0)
            now.sigmoid_()
            h_next, c_next = hs[t + 1], cs[t + 1]
            torch.mul(cs[t], held, out=c_next).addcmul_(put, candidate, value=2.0).sub_(put)
            torch.mul(c_next, 2.0, out=shape).sigmoid_().mul_(2.0).sub_(1.0)
            torch.mul(shape, shown, out=h_next)
            if (emptied := again[t]) is not None:
                h_next.masked_fill_(emptied, 0.0)
                c_next.masked_fill_(emptied, 0.0)
        ctx.save_for_backward(weight, opened, entering, shapes, cs, reset, mask)
        ctx.set_materialize_grads(False)
        return hs[1:], cs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hs: Tensor | None, grad_cs: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, opened, entering, shapes, cs, reset, mask = ctx.saved_tensors
        T = len(entering)
        matrix, again = weight.to(entering.dtype), _resets(reset, T)
        grad_gates = torch.empty_like(opened, dtype=entering.dtype)
        grad_h, grad_c, one = torch.zeros_like(cs[0]), torch.zeros_like(cs[0]), torch.ones_like(cs[0])
        slope = torch.empty_like(opened[0])
        to_put, to_held, to_candidate, to_shown = slope.chunk(4, -1)
        for t in reversed(range(T)):
            if grad_hs is not None:
                grad_h.add_(grad_hs[t])
            if grad_cs is not None:
                grad_c.add_(grad_cs[t])
            if (emptied := again[t]) is not None:
                grad_h.masked_fill_(emptied, 0.0)
                grad_c.masked_fill_(emptied, 0.0)
            now, shape = opened[t], shapes[t]
            put, held, candidate, shown = now.chunk(4, -1)
            grad_c.addcmul_(grad_h * shown, torch.addcmul(one, shape, shape, value=-1.0))
            torch.addcmul(now, now, now, value=-1.0, out=slope)  # of a sigmoid: s (1 - s)
            to_put.mul_(grad_c).mul_(torch.add(candidate, candidate).sub_(1.0))
            to_held.mul_(grad_c).mul_(cs[t])
            to_candidate.mul_(grad_c).mul_(put).mul_(4.0)
            to_shown.mul_(grad_h).mul_(shape)
            grad_gates[t].copy_(slope)
            grad_c.mul_(held)
            grad_h.copy_(grad_gates[t] @ matrix)
            if mask is not None:
                grad_h.mul_(mask[t])
        grad_weight = (grad_gates.flatten(0, 1).t() @ entering.flatten(0, 1)).to(weight.dtype)
        return grad_gates, grad_weight, grad_h, grad_c, None, None


def _resets(reset: Tensor | None, steps: int) -> list[Tensor | None]:
    """Which rows [B,1] are emptied after each step; None where none is. A GPU is not asked, for it would be waited for."""
    if reset is None:
        return [None] * steps
    anywhere = reset.any(-1).tolist() if reset.device.type == "cpu" else [True] * steps
    return [row.unsqueeze(-1) if some else None for row, some in zip(reset.unbind(0), anywhere)]
