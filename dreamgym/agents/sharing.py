"""How agents reach the Hub, which lies above them: by name, when somebody asks."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["push_agent"]


def push_agent(agent: Any, repo_id: str, *, license: str, **options: Any) -> Any:
    """dreamgym.hub.sharing.push_agent."""
    return importlib.import_module("dreamgym.hub.sharing").push_agent(agent, repo_id, license=license, **options)
