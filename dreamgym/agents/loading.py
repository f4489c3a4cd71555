"""Open an agent folder without knowing who wrote it: an actor-critic with weights, or a planner, which has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.planning import Planner, load_planner

__all__ = ["load_agent"]


def load_agent(folder: str | Path, model: Any) -> ActorCritic | Planner:
    """The agent that `fit` or `save` wrote beside `model`. Raises ModelNotFoundError or InvalidModelError.

    An ActorCritic reads the model's features and has `predict`; a planner reads its states. BeliefPolicy takes either.
    """
    if (Path(folder) / "agent.safetensors").is_file():
        return ActorCritic.load(folder, model.spec)
    return load_planner(folder, model)
