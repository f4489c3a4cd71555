"""What agents that look at a model's features are shown: checked, because awake it is easy to show them something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["read_features"]


def read_features(observation: NDArray[Any], feature_size: int, device: torch.device) -> Tensor:
    """Latent observations [...,F] as float32 on the device. Raises ValueError, naming the wrapper, where F is not feature_size."""
    features = torch.as_tensor(np.asarray(observation), dtype=torch.float32, device=device)
    if features.shape[-1] != feature_size:
        raise ValueError(
            f"observation has {features.shape[-1]} numbers, this agent reads {feature_size} latent features: "
            "wrap the real environment in dreamgym.LatentObservation(env, model)."
        )
    return features
