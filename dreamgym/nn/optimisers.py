"""Optimisation as in DreamerV3: LaProp, and gradient clipping relative to each tensor's own size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

__all__ = ["LaProp", "adaptive_clip_"]


class LaProp(Optimizer):
    """Adam with momentum taken after the normalisation, so that a tiny eps is safe and old momentum keeps its scale.

    v <- b2 v + (1 - b2) g^2;  u = g / (sqrt(v / (1 - b2^t)) + eps);  m <- b1 m + (1 - b1) u;  p <- p - lr m / (1 - b1^t).
    Raises ValueError for hyperparameters out of range. Source: Ziyin et al. 2020, arXiv 2002.04839; defaults: DreamerV3
    (specs/dreamer.md C.7; its code uses b2 = 0.999).
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 4e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
    ) -> None:
        if not lr >= 0.0 or not eps >= 0.0 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"lr {lr}, eps {eps} must be at least 0 and betas {betas} in [0,1).")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for t, params in self._by_age(group["params"]).items():
                self._update(params, t, group)
        return loss

    def _by_age(self, params: list[nn.Parameter]) -> dict[int, list[Tensor]]:
        """Parameters with gradients, by the number of this step; they differ only where some went without gradients for a while."""
        ages: dict[int, list[Tensor]] = defaultdict(list)
        for parameter in params:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = 0  # no tensor: reading one could wait for a GPU, where a checkpoint was loaded to
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["step"] = int(state["step"]) + 1  # checkpoints used to hold a tensor
            ages[state["step"]].append(parameter)
        return ages

    def _update(self, params: list[Tensor], t: int, group: dict[str, Any]) -> None:
        (beta1, beta2), eps = group["betas"], group["eps"]
        gradients: list[Tensor] = [parameter.grad for parameter in params]  # type: ignore[misc]
        mean = [self.state[parameter]["exp_avg"] for parameter in params]
        square = [self.state[parameter]["exp_avg_sq"] for parameter in params]
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1.0 - beta2)
        scale = torch._foreach_sqrt(square)
        torch._foreach_div_(scale, math.sqrt(1.0 - beta2**t))
        torch._foreach_add_(scale, eps)
        torch._foreach_lerp_(mean, torch._foreach_div(gradients, list(scale)), 1.0 - beta1)
        torch._foreach_add_(params, mean, alpha=-group["lr"] / (1.0 - beta1**t))


@torch.no_grad()
def adaptive_clip_(parameters: Iterable[nn.Parameter], clip: float = 0.3, minimum: float = 1e-3) -> Tensor:
    """Shrink, in place, each tensor's gradient to at most `clip` times the tensor's own norm, or times `minimum` if that is more.

    The floor lets zero-initialised tensors move. Returns the norm of all gradients together before clipping.
    Source: Brock et al. 2021 (NFNets), per tensor as in DreamerV3 (specs/dreamer.md C.7).
    """
    moving: list[Tensor] = [parameter for parameter in parameters if parameter.grad is not None]
    if not moving:
        return torch.zeros(())
    gradients: list[Tensor] = [parameter.grad for parameter in moving]  # type: ignore[misc]
    norms = torch.stack(torch._foreach_norm(gradients))
    sizes = torch.stack(torch._foreach_norm(moving))
    excess = norms / (clip * sizes.clamp(min=minimum))
    torch._foreach_div_(gradients, list(excess.clamp(min=1.0).unbind()))
    return torch.linalg.vector_norm(norms)
