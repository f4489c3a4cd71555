"""dreamgym: trained world models as standard gymnasium environments. Train any agent inside the dream, act awake.

    import gymnasium as gym, dreamgym
    env = gym.make("dreamgym/Dream-CarRacing-v0", obs_type="latent")

Shapes everywhere: B batch, T time, H horizon, A model action, D deterministic, S stochastic, K classes or members, F features = S+D,
images [Y,X,C] uint8 at the border. Row t of a sequence holds what arrived together: obs, reward, flags, and the action that led there.

Importing this registers the ids and nothing more: torch and everything heavy come with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dreamgym.registration import register_all

if TYPE_CHECKING:
    from dreamgym.agents.actor_critic import ActorCritic
    from dreamgym.agents.belief import BeliefPolicy
    from dreamgym.agents.evolution import CMAES, CMAESConfig
    from dreamgym.agents.linear import LinearController, LinearControllerConfig
    from dreamgym.agents.loading import load_agent
    from dreamgym.agents.planning import CEM, MPPI, CEMConfig, MPPIConfig
    from dreamgym.data import Replay, collect, collect_parallel
    from dreamgym.dreams.awake import LatentObservation, LatentVectorObservation
    from dreamgym.dreams.env import DreamEnv
    from dreamgym.dreams.rollouts import DreamRollouts
    from dreamgym.dreams.vector import DreamVectorEnv
    from dreamgym.envs import make_env, make_spec
    from dreamgym.evaluation import compare, evaluate
    from dreamgym.models.world_model import WorldModel
    from dreamgym.structs import DreamDefaults, Preprocess, Spec
    from dreamgym.training.evolve import evolve
    from dreamgym.training.loop import Run, fit
    from dreamgym.training.vector_rollouts import VectorRollouts

__version__ = "0.1.0"

# Public name -> where it lives. What is listed here is promised; the rest is free to change.
_HOMES = {
    "CEM": "dreamgym.agents.planning",
    "CMAES": "dreamgym.agents.evolution",
    "MPPI": "dreamgym.agents.planning",
    "ActorCritic": "dreamgym.agents.actor_critic",
    "BeliefPolicy": "dreamgym.agents.belief",
    "CEMConfig": "dreamgym.agents.planning",
    "CMAESConfig": "dreamgym.agents.evolution",
    "DreamDefaults": "dreamgym.structs",
    "DreamEnv": "dreamgym.dreams.env",
    "DreamRollouts": "dreamgym.dreams.rollouts",
    "DreamVectorEnv": "dreamgym.dreams.vector",
    "LatentObservation": "dreamgym.dreams.awake",
    "LatentVectorObservation": "dreamgym.dreams.awake",
    "LinearController": "dreamgym.agents.linear",
    "LinearControllerConfig": "dreamgym.agents.linear",
    "MPPIConfig": "dreamgym.agents.planning",
    "Preprocess": "dreamgym.structs",
    "Replay": "dreamgym.data",
    "Run": "dreamgym.training.loop",
    "Spec": "dreamgym.structs",
    "VectorRollouts": "dreamgym.training.vector_rollouts",
    "WorldModel": "dreamgym.models.world_model",
    "collect": "dreamgym.data",
    "collect_parallel": "dreamgym.data",
    "compare": "dreamgym.evaluation",
    "evaluate": "dreamgym.evaluation",
    "evolve": "dreamgym.training.evolve",
    "fit": "dreamgym.training.loop",
    "load_agent": "dreamgym.agents.loading",
    "make_env": "dreamgym.envs",
    "make_spec": "dreamgym.envs",
}

__all__ = [
    "CEM",
    "CMAES",
    "MPPI",
    "ActorCritic",
    "BeliefPolicy",
    "CEMConfig",
    "CMAESConfig",
    "DreamDefaults",
    "DreamEnv",
    "DreamRollouts",
    "DreamVectorEnv",
    "LatentObservation",
    "LatentVectorObservation",
    "LinearController",
    "LinearControllerConfig",
    "MPPIConfig",
    "Preprocess",
    "Replay",
    "Run",
    "Spec",
    "VectorRollouts",
    "WorldModel",
    "collect",
    "collect_parallel",
    "compare",
    "evaluate",
    "evolve",
    "fit",
    "load_agent",
    "make_env",
    "make_spec",
]


def __getattr__(name: str) -> Any:
    if name in ("sb3", "hub", "models", "envs", "data", "dreams", "agents", "evaluation", "testing", "training"):
        return importlib.import_module(f"dreamgym.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dreamgym' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_all()
