"""Agents, planners and recorded episodes by strangers, through the same sandbox; tests/agents and tests/data forge them in more ways."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from dreamgym.agents.agent_files import AGENT
from dreamgym.agents.agent_files import WEIGHTS as AGENT_WEIGHTS
from dreamgym.formats.files import Fingerprint
from tests.hub import rollouts
from tests.hub.hostile.opening import Opening, case, contents
from tests.hub.hostile.test_files import Evil, pickled
from tests.hub.hostile.test_tensors import ENTRY
from tests.hub.toys import raw_safetensors


def spoilt(opening: Opening, name: str) -> Iterator[Path]:
    """A copy of a good thing."""
    folder = opening.work / name / "m"
    shutil.copytree(opening.root / name, folder)
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture
def agent(opening: Opening) -> Iterator[Path]:
    yield from spoilt(opening, "actor-critic")


@pytest.fixture
def planner(opening: Opening) -> Iterator[Path]:
    yield from spoilt(opening, "cem")


@pytest.fixture
def episodes(opening: Opening) -> Iterator[Path]:
    yield from spoilt(opening, "episodes")


@pytest.fixture
def minari(opening: Opening) -> Iterator[Path]:
    yield from spoilt(opening, "minari-v0")


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def forge_agent(agent: Path, data: bytes) -> None:
    (agent / AGENT_WEIGHTS).write_bytes(data)
    found = Fingerprint.of(data)
    edit(agent / AGENT, lambda content: content.update(files={AGENT_WEIGHTS: {"sha256": found.sha256, "size": found.size}}))


# ---- agents -----------------------------------------------------------------------------------------------------------------


@case(18)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c["config"]["policy"].update(type="os:system"), "unknown type 'os:system'"),
        (lambda c: c["config"].update(_target_="os.system"), "unknown key '_target_'"),
        (lambda c: c.update(kind="os:system"), "key 'kind' is 'os:system'"),
        (lambda c: c.update(entry_point="os:system"), "unknown key 'entry_point'"),
        (lambda c: c.update(feature_size=10**9), "key 'feature_size' is 1000000000; expected 1 to"),
        (lambda c: [c.update(feature_size=2**20), c["config"].update(units=16384)], r"\d+ parameters; the limit is 500000000"),
        (lambda c: c["config"].update(layers=10**9), "layers is 1000000000"),
        (lambda c: c["config"].update(units=10**9), "units 1000000000"),
        (lambda c: c["files"].update({"../../x": {}}), "unknown key '../../x'"),
        (lambda c: c.update({"\x1b[2J": 1}), r"unknown key '\\x1b\[2J'"),
    ],
)
def test_forged_descriptions_of_agents_are_refused(opening: Opening, agent: Path, change: Any, complaint: str) -> None:
    edit(agent / AGENT, change)
    opening.refuses("agent", str(agent), str(opening.root / "good"), complaint=rf"agent\.json: .*{complaint}")


@case(2, 10, 11, 22)
def test_forged_weights_of_agents_are_refused(opening: Opening, agent: Path) -> None:
    model, weights = str(opening.root / "good"), agent / AGENT_WEIGHTS
    tensors = load_file(weights)
    tensors["actor.network.0.weight"].fill_(float("nan"))
    forge_agent(agent, save(tensors))
    opening.refuses("agent", str(agent), model, complaint="holds .* NaN or infinite values")
    forge_agent(agent, pickled(agent))
    opening.refuses("agent", str(agent), model, complaint="not a safetensors file but a pickle")
    torch.save({"a": Evil(agent.parent / "canary")}, weights)
    opening.refuses("agent", str(agent), model, complaint="not a safetensors file but a pickle")
    forge_agent(agent, raw_safetensors("{" + ",".join(f'"{number}":{ENTRY}' for number in range(20_000)) + "}"))
    opening.refuses("agent", str(agent), model, complaint="20000 tensors; the limit is 10000")
    weights.unlink()
    weights.symlink_to("/dev/zero")
    opening.refuses("agent", str(agent), model, complaint="not a regular file")
    weights.unlink()
    os.mkfifo(weights)
    opening.refuses("agent", str(agent), model, complaint="not a regular file")


def test_forged_planners_are_refused(opening: Opening, planner: Path) -> None:
    model = str(opening.root / "good")
    good = (planner / AGENT).read_text()
    for change, complaint in [
        (lambda c: c["config"].update(candidates=10**6, horizon=10**4), "10000000 actions"),
        (lambda c: c["config"].update(reward_fn="os:system"), "unknown key 'reward_fn'"),
        (lambda c: c.update(kind="__class__"), "key 'kind' is '__class__'"),
    ]:
        (planner / AGENT).write_text(good)
        edit(planner / AGENT, change)
        opening.refuses("planner", str(planner), model, complaint=complaint)


# ---- recorded episodes ------------------------------------------------------------------------------------------------------


def refused(opening: Opening, folder: Path, complaint: str) -> None:
    opening.refuses("dataset", str(folder), complaint=complaint, error="InvalidDataError")


def test_pickled_arrays_and_archives_that_expand_are_refused(opening: Opening, episodes: Path) -> None:
    rollouts.forge_arrays(episodes, lambda arrays: arrays.update(obs=np.array([Evil(episodes.parent / "canary")], object)))
    (episodes.parent / "draft.npz").unlink()
    refused(opening, episodes, "holds pickled objects|would expand|'obs'")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in (*rollouts.COLUMNS, "policy"):
            archive.writestr(f"{name}.npy", b"")
        archive.writestr("obs.npy", b"\0" * 200_000_000)
    rollouts.forge(episodes, bomb.getvalue())
    refused(opening, episodes, "expand")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m["shards"][0].update(steps=10**12), "out of range|limit|expected"),
        (lambda m: m.update(shards=m["shards"] * 200_000), "the limit is|expected a list of 1 to"),
        (lambda m: m["spec"]["observation_space"].update(shape=[10**6, 10**6]), "more than 10000000 elements"),
        (lambda m: m.update(entry_point="os:system"), "unknown key 'entry_point'"),
        (lambda m: m["shards"][0].update(path="../../etc/passwd"), "unknown key 'path'"),
    ],
)
def test_forged_metas_are_refused(opening: Opening, episodes: Path, change: Any, complaint: str) -> None:
    rollouts.edit_meta(episodes, change)
    refused(opening, episodes, rf"meta\.json: .*({complaint})")


@case(22)
def test_links_and_pipes_among_episodes_are_refused(opening: Opening, episodes: Path) -> None:
    shard = episodes / rollouts.SHARD
    shard.unlink()
    shard.symlink_to("/dev/zero")
    refused(opening, episodes, "not a regular file")
    shard.unlink()
    os.mkfifo(shard)
    refused(opening, episodes, "not a regular file")


@case(19)
def test_a_minari_dataset_is_read_without_making_the_environment_it_describes(opening: Opening, minari: Path) -> None:
    command = {"command": f"touch {minari.parent / 'canary'}"}
    spec = gym.envs.registration.EnvSpec("Evil-v3", entry_point="os:system", kwargs=command, max_episode_steps=70)
    edit(minari / "data" / "metadata.json", lambda metadata: metadata.update(env_spec=spec.to_json(), eval_env_spec=spec.to_json()))
    opening.opens("minari", str(minari))


# ---- the same on the Hub ----------------------------------------------------------------------------------------------------


@case(1, 2, 4)
def test_forged_agents_on_the_hub_are_refused(opening: Opening, agent: Path) -> None:
    hub, model = opening.hub, str(opening.root / "good")
    good = contents(agent)
    hub.add_repo("mallory/good", good)
    assert opening.opens("repo_agent", "mallory/good", model, {}).message == "ActorCritic"
    hub.add_repo("mallory/pickle", {AGENT: good[AGENT], "agent.pkl": pickled(agent)})
    opening.refuses(
        "repo_agent", "mallory/pickle", model, {}, complaint=r"agent\.safetensors \(found agent\.pkl", begins="'mallory/pickle'"
    )
    flipped = bytes([*good[AGENT_WEIGHTS][:-1], good[AGENT_WEIGHTS][-1] ^ 1])
    hub.add_repo("mallory/flipped", {AGENT: good[AGENT], AGENT_WEIGHTS: flipped})
    opening.refuses(
        "repo_agent", "mallory/flipped", model, {}, complaint=r"agent\.safetensors: damaged or replaced", begins="mallory/flipped@"
    )
    edit(agent / AGENT, lambda content: content["config"]["policy"].update(type="os:system"))
    hub.add_repo("mallory/typed", contents(agent) | {"__init__.py": b"evil", "setup.py": b"evil"})
    opening.refuses("repo_agent", "mallory/typed", model, {}, complaint="unknown type 'os:system'", begins="mallory/typed@")
    opening.refuses("repo_agent", "mallory/../x", model, {}, complaint="no such folder", error="ModelNotFoundError", begins="")
    asked = {line.split()[1].rsplit("/", 1)[1] for line in hub.requests("/resolve/.*mallory|mallory.*/resolve/")}
    assert asked <= {AGENT, AGENT_WEIGHTS}, asked


@case(4, 21)
def test_forged_datasets_on_the_hub_are_refused(opening: Opening, episodes: Path) -> None:
    hub, good = opening.hub, contents(episodes)
    evil = {"../../evil": b"evil", "__init__.py": b"evil", "loader.py": b"evil", "data/evil.pkl": pickled(episodes)}
    hub.add_repo("mallory/episodes", good | evil, type="dataset")
    opening.opens("repo_dataset", "mallory/episodes", {})
    assert not hub.requests("evil|__init__|loader")
    flipped = bytes([*good[rollouts.SHARD][:-1], good[rollouts.SHARD][-1] ^ 1])
    hub.add_repo("mallory/flipped", good | {rollouts.SHARD: flipped}, type="dataset")
    opening.refuses(
        "repo_dataset", "mallory/flipped", {}, complaint="damaged or replaced", error="InvalidDataError", begins="mallory/flipped@"
    )
    rollouts.edit_meta(episodes, lambda meta: meta["spec"]["observation_space"].update(shape=[10**6, 10**6]))
    hub.add_repo("mallory/large", contents(episodes), type="dataset")
    opening.refuses(
        "repo_dataset", "mallory/large", {}, complaint="more than 10000000 elements", error="InvalidDataError", begins="mallory/large@"
    )


@case("escapes")
def test_what_is_shown_of_a_repository_is_not_its_readme(opening: Opening) -> None:
    readme = '---\nlibrary_name: "\\e[2Jevil"\n---\n\x1b[2J' + "x" * 10_000_000
    opening.hub.add_repo("mallory/shown", contents(opening.root / "good") | {"README.md": readme.encode()})
    opening.opens("repo_described", "mallory/shown")
    assert not opening.hub.requests("mallory/shown.*README")
    opening.hub.add_repo("mallory/other", {"README.md": readme.encode()})
    opening.refuses("repo_described", "mallory/other", complaint="", error="ModelNotFoundError", begins="'mallory/other'")
