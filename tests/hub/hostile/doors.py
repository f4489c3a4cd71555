"""The doors through which strangers' files come in; each opens something and says what it found."""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym

import dreamgym  # noqa: F401 - registers the ids
from dreamgym.agents.loading import load_agent
from dreamgym.agents.planning import load_planner
from dreamgym.data.minari import from_minari
from dreamgym.envs.make import make_from_spec
from dreamgym.hub import bundle
from dreamgym.hub.datasets import from_hub, load_rollouts
from dreamgym.hub.info import describe
from dreamgym.models.world_model import WorldModel

__all__ = ["DOORS"]


def folder(path: str) -> str:
    """A model folder."""
    return str(bundle.load(Path(path)).spec.env_id)


def agent(path: str, model: str) -> str:
    """An agent folder, for the model in another."""
    return type(load_agent(path, _model(model))).__name__


def planner(path: str, model: str) -> str:
    """A planner's folder."""
    return type(load_planner(path, _model(model))).__name__


def dataset(path: str) -> str:
    """A folder of recorded episodes."""
    return f"{load_rollouts(path).num_steps} steps"


def minari(path: str) -> str:
    """A folder of episodes as Minari keeps them."""
    return f"{from_minari(Path(path)).num_steps} steps"


def dreamt(model: str, steps: int = 30) -> str:
    """A dream of some steps, made by name."""
    env = gym.make("dreamgym/Dream-v0", model=model)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs), f"a dream showed {obs}"
        if terminated or truncated:
            env.reset()
    return str(env.unwrapped.model.spec.env_id)  # type: ignore[attr-defined]


def described(name: str) -> str:
    """What `dreamgym info` prints."""
    print(describe(name))
    return name


def awake(path: str) -> str:
    """The real environment that a model says it dreams of."""
    return str(make_from_spec(_model(path).spec))


def repo(name: str, options: dict[str, Any]) -> str:
    """A model on the Hub."""
    model = WorldModel.from_pretrained(name, **options)
    return f"{model.spec.env_id} of {model.source}"


def repo_dreamt(name: str, options: dict[str, Any]) -> str:
    """A dream of a model on the Hub, made by name."""
    env = gym.make("dreamgym/Dream-v0", model=name, **options)
    env.reset(seed=0)
    return str(env.unwrapped.model.source)  # type: ignore[attr-defined]


def misdeed(name: str, argument: str) -> str:
    """No door: what forged files would like to have done, to show that the sandbox would see it."""
    return str(_MISDEEDS[name](argument))


def _connect(port: str) -> None:
    with socket.socket() as stranger:
        stranger.connect_ex(("127.0.0.1", int(port)))


_MISDEEDS: dict[str, Callable[[str], Any]] = {
    "none": len,
    "run": os.system,
    "start": lambda command: subprocess.run([command], check=False),
    "fork": lambda _: os.waitpid(os.fork() or os._exit(0), 0),  # type: ignore[func-returns-value]
    "import": importlib.import_module,
    "execute": lambda path: exec(compile(Path(path).read_text(), path, "exec"), {}),
    "unpickle": lambda path: pickle.loads(Path(path).read_bytes()),
    "read": lambda path: Path(path).read_bytes(),
    "write": lambda path: Path(path).write_text("here"),
    "remove": os.remove,
    "connect": _connect,
    "grow": lambda size: len(bytearray(int(size))),
    "wait": lambda seconds: time.sleep(float(seconds)),
}


def repo_agent(name: str, model: str, options: dict[str, Any]) -> str:
    """An agent on the Hub, for the model in a folder."""
    return type(load_agent(name, _model(model), **options)).__name__


def repo_dataset(name: str, options: dict[str, Any]) -> str:
    """Recorded episodes on the Hub."""
    return f"{from_hub(name, **options).num_steps} steps"


def repo_described(name: str) -> str:
    """What `dreamgym info` prints of a repository."""
    return described(name)


@cache
def _model(path: str) -> WorldModel:
    return bundle.load(Path(path))


_ALL = (folder, agent, planner, dataset, minari, dreamt, described, awake, misdeed)
_ON_THE_HUB = (repo, repo_dreamt, repo_described, repo_agent, repo_dataset)  # the sandbox goes through these in its children only
DOORS: dict[str, Callable[..., str]] = {door.__name__: door for door in (*_ALL, *_ON_THE_HUB)}
