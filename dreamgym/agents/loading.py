"""Open an agent without knowing who wrote it: an actor-critic or a controller with weights, or a planner, which has none."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.agent_files import AGENT, read_kind
from dreamgym.agents.linear import LinearController
from dreamgym.agents.planning import Planner, load_planner
from dreamgym.formats.files import FileSet, lies_at

__all__ = ["AGENT_FOLDER", "load_agent"]

AGENT_FOLDER = "agent"  # of a bundled model that came with one
_HUB = "dreamgym.hub"  # a name, not an import: agents lie below the hub

Agent = ActorCritic | LinearController | Planner


def load_agent(
    folder: str | Path,
    model: Any,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Agent:
    """The agent that `fit` or `save` wrote beside `model`, one that came with a bundled model, or one pushed to the Hub as "user/repo".

    A str means, in this order, a folder that holds an agent.json, the agent of the bundled model of that name ("DoomTakeCover"), a
    repository ("user/repo" or "user/repo@revision"); the other arguments are as for WorldModel.from_pretrained. An ActorCritic and a
    LinearController read the model's features and have `predict`; a planner reads its states. BeliefPolicy takes any of them.
    Raises ModelNotFoundError, IncompatibleModelError or InvalidModelError; for the Hub also ModelAccessError and HubUnreachableError.
    """
    if revision is None and (not isinstance(folder, str) or not _names_repository(folder)):
        return _open(FileSet.of(_bundled(folder) or Path(folder).expanduser(), "agent"), model)
    client, sharing = importlib.import_module(f"{_HUB}.client"), importlib.import_module(f"{_HUB}.sharing")
    access = client.Access(token, cache_dir, local_files_only)
    agent: Agent = sharing.pull_agent(client.parse_repo(str(folder), revision), access, lambda files: _open(files, model))
    return agent


def _names_repository(text: str) -> bool:
    if text.startswith(("./", "../", "~", "/")) or lies_at(Path(text, AGENT)):
        return False
    try:
        importlib.import_module(f"{_HUB}.repository").parse_repo(text)
    except ValueError:
        return False
    return True


def _bundled(name: str | Path) -> Path | None:
    """Where the agent of a bundled model lies, unless there is a folder of that name with another one."""
    if not isinstance(name, str) or lies_at(Path(name, AGENT)):
        return None
    folder = importlib.import_module(f"{_HUB}.bundle").bundled_folder(name)
    return folder / AGENT_FOLDER if folder is not None and lies_at(folder / AGENT_FOLDER) else None


def _open(files: FileSet, model: Any) -> Agent:
    kind = read_kind(files)
    if kind == "linear":
        return LinearController.load(files, model.spec)
    if kind == "actor-critic":
        return ActorCritic.load(files, model.spec)
    return load_planner(files, model)
