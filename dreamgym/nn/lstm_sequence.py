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
    """tanh(x) is 2 sigmoid(2x) - 1 throughout: one sigmoid serves all four gates, and a CPU's tanh takes ten times as long."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, h: Tensor, c: Tensor, reset: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        T, B, H = gates.shape[0], *h.shape
        full = torch.promote_types(gates.dtype, torch.float32)
        doubled = torch.ones(4, 1, dtype=gates.dtype, device=gates.device)
        doubled[2] = 2.0
        matrix = (weight.to(gates.dtype).unflatten(0, (4, H)) * doubled.unsqueeze(-1)).flatten(0, 1).t()
        again = _resets(reset, T)
        opened = torch.empty_like(gates, memory_format=torch.contiguous_format)  # sigmoids of all gates
        entering = gates.new_empty(T, B, H)  # the memory as it enters each step
        hs, cs = (gates.new_empty(T + 1, B, H, dtype=full) for _ in range(2))
        hs[0], cs[0] = h, c
        for t in range(T):
            entering[t] = hs[t] if mask is None else hs[t] * mask[t]
            now = opened[t]
            torch.mul(gates[t].unflatten(-1, (4, H)), doubled, out=now.unflatten(-1, (4, H)))
            now.addmm_(entering[t], matrix).sigmoid_()
            put, held, candidate, shown = now.chunk(4, -1)
            torch.mul(cs[t], held, out=cs[t + 1])
            cs[t + 1].addcmul_(put.to(full), candidate.to(full).mul(2.0).sub_(1.0))
            torch.mul(_tanh(cs[t + 1]), shown, out=hs[t + 1])
            if (emptied := again[t]) is not None:
                hs[t + 1].masked_fill_(emptied, 0.0)
                cs[t + 1].masked_fill_(emptied, 0.0)
        ctx.save_for_backward(weight, opened, entering, cs, reset, mask)
        return hs[1:], cs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hs: Tensor, grad_cs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, opened, entering, cs, reset, mask = ctx.saved_tensors
        T = len(entering)
        matrix, full = weight.to(opened.dtype), cs.dtype
        again = _resets(reset, T)
        grad_gates = torch.empty_like(opened)
        grad_h, grad_c = torch.zeros_like(cs[0]), torch.zeros_like(cs[0])
        for t in reversed(range(T)):
            grad_h, grad_c = grad_h + grad_hs[t], grad_c + grad_cs[t]
            if (emptied := again[t]) is not None:
                grad_h, grad_c = grad_h.masked_fill_(emptied, 0.0), grad_c.masked_fill_(emptied, 0.0)
            now = opened[t].to(full)
            put, held, candidate, shown = now.chunk(4, -1)
            tanh_c = _tanh(cs[t + 1])
            grad_c.addcmul_(grad_h * shown, 1.0 - tanh_c.square())
            slope = now * (1.0 - now)
            into = torch.cat([grad_c * (candidate * 2.0 - 1.0), grad_c * cs[t], grad_c * put * 4.0, grad_h * tanh_c], -1)
            torch.mul(into, slope, out=into)
            grad_gates[t] = into
            grad_c = grad_c * held
            grad_h = (grad_gates[t] @ matrix).to(full)
            if mask is not None:
                grad_h = grad_h * mask[t]
        grad_weight = (grad_gates.flatten(0, 1).t() @ entering.flatten(0, 1)).to(weight.dtype)
        return grad_gates, grad_weight, grad_h, grad_c, None, None


def _resets(reset: Tensor | None, steps: int) -> list[Tensor | None]:
    """Which rows [B,1] are emptied after each step; None where none is. A GPU is not asked, for it would be waited for."""
    if reset is None:
        return [None] * steps
    anywhere = reset.any(-1).tolist() if reset.device.type == "cpu" else [True] * steps
    return [row.unsqueeze(-1) if some else None for row, some in zip(reset.unbind(0), anywhere)]


def _tanh(x: Tensor) -> Tensor:
    return (x * 2.0).sigmoid_().mul_(2.0).sub_(1.0)
