"""Agents on disk: whole round trips, and files that a stranger has touched."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.agent_files import read_config, write_config
from dreamgym.agents.recipes import dreamer_v1, dreamer_v2, dreamer_v3
from dreamgym.errors import InvalidModelError, ModelNotFoundError
from tests.agents.worlds import PointMass

RECIPES = {"compact": ActorCriticConfig(), "v1": dreamer_v1(), "v2": dreamer_v2(), "v3": dreamer_v3()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_configs_survive_json_exactly(recipe):
    config = RECIPES[recipe]
    assert read_config(ActorCriticConfig, json.loads(json.dumps(write_config(config)))) == config


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("actions", ["box", "classes", "pairs"])
def test_saved_agents_act_alike(recipe, actions, tmp_path):
    spec = PointMass(actions).spec
    agent = ActorCritic(spec, 2, RECIPES[recipe])
    agent.save(tmp_path)
    loaded = ActorCritic.load(tmp_path, spec)
    obs = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    for deterministic in (True, False):
        np.testing.assert_array_equal(*(one.predict(obs, deterministic=deterministic)[0] for one in (agent, loaded)))
    assert loaded.config == agent.config


def _touch(folder, change):
    content = json.loads((folder / "agent.json").read_text())
    change(content)
    (folder / "agent.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["config"].update(surprise=1), "expected exactly"),
        (lambda content: content["config"].pop("horizon"), "expected exactly"),
        (lambda content: content["config"].update(horizon="15"), r"config\.horizon is '15'; expected an integer"),
        (lambda content: content["config"].update(horizon=True), "expected an integer"),
        (lambda content: content["config"].update(discount=float("nan")), "expected a finite number"),
        (lambda content: content["config"].update(indexing="v9"), "expected one of v1, v2, v3"),
        (lambda content: content["config"].update(indexing=["v1"]), "expected one of"),
        (lambda content: content["config"].update(discount=2.0), "out of range"),
        (lambda content: content["config"]["policy"].update(type="os.system"), "unknown type 'os.system'"),
        (lambda content: content["config"]["actor"].update(units=-1), "out of range"),
        (lambda content: content.update(feature_size=10**12), "feature_size"),
        (lambda content: content.update(feature_size=3), "does not fit"),
        (lambda content: content.update(config=[]), "expected exactly"),
    ],
)
def test_touched_descriptions_are_refused_by_name(change, message, tmp_path):
    spec = PointMass().spec
    ActorCritic(spec, 2, dreamer_v2(units=8)).save(tmp_path)
    _touch(tmp_path, change)
    with pytest.raises(InvalidModelError, match=message):
        ActorCritic.load(tmp_path, spec)


@pytest.mark.parametrize("name", ["agent.json", "agent.safetensors"])
def test_damaged_files_are_refused(name, tmp_path):
    spec = PointMass().spec
    ActorCritic(spec, 2, dreamer_v2(units=8)).save(tmp_path)
    (tmp_path / name).write_bytes(b"\x00\xff{]")
    with pytest.raises(InvalidModelError, match="agent"):
        ActorCritic.load(tmp_path, spec)


def test_a_description_that_is_far_too_long_is_not_parsed(tmp_path):
    spec = PointMass().spec
    ActorCritic(spec, 2, dreamer_v2(units=8)).save(tmp_path)
    (tmp_path / "agent.json").write_text("[" * 1_000_000)
    with pytest.raises(InvalidModelError, match="the limit is"):
        ActorCritic.load(tmp_path, spec)


def test_a_few_bytes_do_not_order_a_network_of_68_gigabytes(tmp_path):
    spec = PointMass().spec
    ActorCritic(spec, 2, dreamer_v2(units=8)).save(tmp_path)
    _touch(tmp_path, lambda content: content.update(feature_size=2**20))
    _touch(tmp_path, lambda content: content["config"]["actor"].update(units=16384))
    with pytest.raises(InvalidModelError, match=r"has shape \(8,.*\), expected \(16384,"):
        ActorCritic.load(tmp_path, spec)


def test_another_envs_agent_is_refused(tmp_path):
    ActorCritic(PointMass("classes").spec, 2, dreamer_v2(units=8)).save(tmp_path)
    with pytest.raises(InvalidModelError, match="does not fit"):
        ActorCritic.load(tmp_path, PointMass("box").spec)


def test_a_folder_without_either_file_holds_no_agent(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"agent\.json"):
        ActorCritic.load(tmp_path, PointMass().spec)
    ActorCritic(PointMass().spec, 2, dreamer_v2(units=8)).save(tmp_path)
    (tmp_path / "agent.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"agent\.safetensors"):
        ActorCritic.load(tmp_path, PointMass().spec)
