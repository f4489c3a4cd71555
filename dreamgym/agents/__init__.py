"""Behaviours: actor-critics and evolved controllers that learn in dreams, planners that search them, the belief to act awake by."""

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.belief import BeliefPolicy
from dreamgym.agents.evolution import CMAES, CMAESConfig
from dreamgym.agents.linear import LinearController, LinearControllerConfig
from dreamgym.agents.loading import load_agent
from dreamgym.agents.planning import CEM, MPPI, CEMConfig, MPPIConfig, PlanningPolicy, load_planner

__all__ = [
    "CEM",
    "CMAES",
    "MPPI",
    "ActorCritic",
    "ActorCriticConfig",
    "BeliefPolicy",
    "CEMConfig",
    "CMAESConfig",
    "LinearController",
    "LinearControllerConfig",
    "MPPIConfig",
    "PlanningPolicy",
    "load_agent",
    "load_planner",
]
