"""One model, another task: plan for a reward that the model was never trained on, and see what the real pendulum does.

The bundled Pendulum was paid for standing upright (0 degrees). Here it is asked to rest elsewhere; its motor can hold it up to 23
degrees away from upright or from hanging (180).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dreamgym
from dreamgym.agents.planning import CEMConfig, PlanningPolicy


def away(cos: Tensor, sin: Tensor, degrees: float) -> Tensor:
    """Radians between a direction and an angle, in [-pi, pi]."""
    off = torch.atan2(sin, cos) - math.radians(degrees)
    return torch.atan2(off.sin(), off.cos())


def rest_at(degrees: float) -> Callable[[Any, Any], Tensor]:
    """A reward of any state of the model: close to an angle, and slow. Pendulum-v1 observes (cos, sin, speed)."""

    def reward(model: dreamgym.WorldModel, state: Any) -> Tensor:
        cos, sin, speed = model.decode(state).unbind(-1)
        return -(away(cos, sin, degrees) ** 2) - 0.1 * speed**2

    return reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Pendulum", help="a bundled name or a model folder")
    parser.add_argument("--degrees", type=float, nargs="+", default=[15.0, 160.0])
    parser.add_argument("--steps", type=int, default=120, help="real steps for each")
    options = parser.parse_args()

    world = dreamgym.WorldModel.from_pretrained(options.model)
    real = dreamgym.make_env(world.spec.env_id, preprocess=world.spec.preprocess)
    search = CEMConfig(horizon=15, iterations=3, candidates=200, elites=10, warm_start=True)
    for degrees in options.degrees:
        planner = PlanningPolicy(world, search, reward_fn=rest_at(degrees), seed=0)
        obs, _ = real.reset(seed=1_000_000)
        off = []
        for step in range(options.steps):
            action, _ = planner.predict(obs, episode_start=np.array([step == 0]), deterministic=True)
            obs, *_ = real.step(action)
            off.append(math.degrees(away(*torch.as_tensor(obs[:2]), degrees)))
        print(f"asked for {degrees:5.1f} degrees: {off[0]:6.1f} off after one real step, {np.mean(off[-20:]):5.1f} in the last 20")


if __name__ == "__main__":
    main()
