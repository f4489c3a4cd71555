"""Open an agent folder without knowing who wrote it: an actor-critic or a controller with weights, or a planner, which has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.agent_files import read_kind
from dreamgym.agents.linear import LinearController
from dreamgym.agents.planning import Planner, load_planner

__all__ = ["load_agent"]


def load_agent(folder: str | Path, model: Any) -> ActorCritic | LinearController | Planner:
    """The agent that `fit` or `save` wrote beside `model`. Raises ModelNotFoundError or InvalidModelError.

    An ActorCritic and a LinearController read the model's features and have `predict`; a planner reads its states. BeliefPolicy takes
    any of them.
    """
    folder = Path(folder)
    if not (folder / "agent.safetensors").is_file():
        return load_planner(folder, model)
    if read_kind(folder) == "linear":
        return LinearController.load(folder, model.spec)
    return ActorCritic.load(folder, model.spec)
