"""Behaviours: actor-critics that learn in dreams, planners that search them, and the belief that lets either act awake."""

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.belief import BeliefPolicy
from dreamgym.agents.loading import load_agent
from dreamgym.agents.planning import CEM, MPPI, CEMConfig, MPPIConfig, PlanningPolicy, load_planner

__all__ = [
    "CEM",
    "MPPI",
    "ActorCritic",
    "ActorCriticConfig",
    "BeliefPolicy",
    "CEMConfig",
    "MPPIConfig",
    "PlanningPolicy",
    "load_agent",
    "load_planner",
]
