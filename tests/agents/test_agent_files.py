"""Agents on disk: whole round trips, and files that a stranger has touched."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.agent_files import read_agent, read_description, read_kind
from dreamgym.agents.linear import LinearController, LinearControllerConfig
from dreamgym.agents.planning import CEM, CEMConfig, load_planner
from dreamgym.agents.recipes import dreamer_v1, dreamer_v2, dreamer_v3
from dreamgym.errors import IncompatibleModelError, InvalidModelError, ModelNotFoundError
from dreamgym.formats.files import FileSet
from tests.agents.worlds import PointMass

RECIPES = {"compact": ActorCriticConfig(), "v1": dreamer_v1(), "v2": dreamer_v2(), "v3": dreamer_v3()}
SPEC = PointMass().spec
WEIGHTS = "agent.safetensors"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("actions", ["box", "classes", "pairs"])
def test_saved_agents_act_alike(recipe: str, actions: str, tmp_path: Path) -> None:
    spec = PointMass(actions).spec
    agent = ActorCritic(spec, 2, RECIPES[recipe])
    agent.save(tmp_path)
    loaded = ActorCritic.load(tmp_path, spec)
    obs = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    for deterministic in (True, False):
        np.testing.assert_array_equal(*(one.predict(obs, deterministic=deterministic)[0] for one in (agent, loaded)))
    assert loaded.config == agent.config


def test_a_config_that_was_given_lists_is_saved_and_comes_back_with_tuples(tmp_path: Path) -> None:
    LinearController(SPEC, 3, LinearControllerConfig(inputs=[[0, 2]])).save(tmp_path)  # type: ignore[arg-type, list-item]
    assert LinearController.load(tmp_path, SPEC).config.inputs == ((0, 2),)


def test_opening_an_agent_leaves_the_callers_generator_alone(folder: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    ActorCritic.load(folder, SPEC)
    assert torch.equal(torch.get_rng_state(), before)


# ---- files of an earlier dreamgym ------------------------------------------------------------------------------------------


def test_an_actor_critic_saved_before_descriptions_had_a_format_still_opens(folder: Path) -> None:
    agent = ActorCritic.load(folder, SPEC)
    content = read_json(folder)
    write_json(folder, {"feature_size": 2, "config": content["config"]})
    assert read_kind(folder) == "actor-critic" and read_description(folder).weights is None
    same(agent, ActorCritic.load(folder, SPEC))


def test_a_linear_controller_saved_before_descriptions_had_a_format_still_opens(tmp_path: Path) -> None:
    controller = LinearController(SPEC, 3, LinearControllerConfig(bias=True))
    controller.vector = np.arange(controller.num_parameters)
    controller.save(tmp_path)
    content = read_json(tmp_path)
    write_json(tmp_path, {"kind": "linear", "feature_size": 3, "config": content["config"]})
    same(controller, LinearController.load(tmp_path, SPEC))


def test_a_planner_saved_before_descriptions_had_a_format_still_opens(tmp_path: Path) -> None:
    config = CEMConfig(horizon=3, candidates=8, elites=2)
    CEM(PointMass(), config).save(tmp_path)
    content = read_json(tmp_path)
    content["config"]["init_std"] = 1  # a whole number where it was given as one
    write_json(tmp_path, {"kind": "cem", "config": content["config"]})
    loaded = load_planner(tmp_path, PointMass())
    assert isinstance(loaded, CEM) and loaded.config == config


# ---- files in the Hub's cache ----------------------------------------------------------------------------------------------


def test_an_agent_is_read_from_files_that_bear_other_names_and_is_called_by_its_repository(folder: Path, tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{number}" for number, name in enumerate(("agent.json", WEIGHTS))}
    for name, path in paths.items():
        shutil.copyfile(folder / name, path)
    files = FileSet(tmp_path, "user/agent@0123456", paths, "agent")
    build = lambda size, config: ActorCritic(SPEC, size, config)  # noqa: E731
    same(ActorCritic.load(folder, SPEC), read_agent(files, ActorCriticConfig, build, kind="actor-critic"))
    paths[WEIGHTS].write_bytes(b"short")
    with pytest.raises(InvalidModelError, match=r"^user/agent@0123456/agent\.safetensors: truncated"):
        read_agent(files, ActorCriticConfig, build, kind="actor-critic")


# ---- forged files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good agent to be spoilt."""
    ActorCritic(SPEC, 2, dreamer_v2(units=8)).save(tmp_path / "a")
    return tmp_path / "a"


def read_json(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "agent.json").read_text())
    return content


def write_json(folder: Path, content: dict[str, Any]) -> None:
    (folder / "agent.json").write_text(json.dumps(content))


def touch(folder: Path, change: Callable[[Any], Any]) -> None:
    content = read_json(folder)
    change(content)
    write_json(folder, content)


def forge(folder: Path, data: bytes) -> None:
    """Replace the weights, and their checksum too."""
    (folder / WEIGHTS).write_bytes(data)
    fingerprint = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    touch(folder, lambda content: content.update(files={WEIGHTS: fingerprint}))


def refused(folder: Path, complaint: str, error: type[Exception] = InvalidModelError) -> None:
    """Loading must fail with a message that starts with the folder and can be printed."""
    with pytest.raises(error, match=complaint) as caught:
        ActorCritic.load(folder, SPEC)
    message = str(caught.value)
    assert message.startswith(str(folder)) and message.isprintable() and len(message) < 1000


def same(agent: Any, other: Any) -> None:
    ours, theirs = agent.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert agent.config == other.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["config"].update(surprise=1), "key 'config' has the unknown key 'surprise'"),
        (lambda content: content["config"].pop("horizon"), "key 'config' lacks the key 'horizon'"),
        (lambda content: content["config"].update(horizon="15"), r"key 'config\.horizon' is '15'; expected an integer"),
        (lambda content: content["config"].update(horizon=True), "expected an integer"),
        (lambda content: content["config"].update(discount=float("nan")), r"key 'config\.discount' is NaN"),
        (lambda content: content["config"].update(indexing="v9"), "expected one of 'v1', 'v2', 'v3'"),
        (lambda content: content["config"].update(indexing=["v1"]), "expected one of"),
        (lambda content: content["config"].update(discount=2.0), "out of range"),
        (lambda content: content["config"]["policy"].update(type="os.system"), "unknown type 'os.system'; this version knows"),
        (lambda content: content["config"]["policy"].update(_target_="os.system"), "unknown key '_target_'"),
        (lambda content: content["config"]["actor"].update(units=-1), "out of range"),
        (lambda content: content.update(feature_size=10**12), "key 'feature_size' is 1000000000000; expected 1 to"),
        (lambda content: content.update(feature_size=True), "key 'feature_size' is True"),
        (lambda content: content.update(feature_size=3), r"tensor .* has shape \[8, 2\]; expected \[8, 3\]"),
        (lambda content: content.update(config=[]), "key 'config' is .*; expected an object"),
        (lambda content: content.update(kind="linear"), "key 'kind' is 'linear'; expected 'actor-critic'"),
        (lambda content: content.update(kind=["actor-critic"]), "key 'kind' is .*; expected text"),
        (lambda content: content.pop("feature_size"), "lacks the key 'feature_size'"),
        (lambda content: [content.pop("feature_size"), content.pop("files")], "lacks the key 'feature_size'"),
        (lambda content: content.pop("files"), "lacks the key 'files'"),
        (lambda content: content.update(files=None), "key 'files' is None; expected an object"),
        (lambda content: content.update(files={"../../x": {}}), "unknown key '../../x'"),
        (lambda content: content["files"][WEIGHTS].update(sha256="G" * 64), "64 lower-case hexadecimal"),
        (lambda content: content["files"][WEIGHTS].update(size=0), "expected 1 to"),
        (lambda content: content.update({"\x1b[2J\u202e" + "x" * 9_000: 1}), r"unknown key '\\x1b\[2J\\u202exxx"),
    ],
)
def test_touched_descriptions_are_refused_by_name(change: Callable[[Any], Any], message: str, folder: Path) -> None:
    touch(folder, change)
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format="diffusers"), "not a dreamgym agent; its format is 'diffusers'"),
        (lambda content: content.pop("format"), "not a dreamgym agent; its format is None"),
        (lambda content: content.update(format_version=99), "saved with agent format 99; this dreamgym reads up to 1. Run: pip install"),
        (lambda content: content.update(format_version="1"), "format_version is '1'; expected an integer from 1 to 1"),
        (lambda content: content.update(format_version=True), "format_version is True"),
        (lambda content: content.pop("format_version"), "format_version is None"),
    ],
)
def test_another_format_is_incompatible_and_says_what_to_do(change: Callable[[Any], Any], message: str, folder: Path) -> None:
    touch(folder, change)
    refused(folder, message, IncompatibleModelError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\xff{]", "not UTF-8"),
        (b"[" * 50_000, "nested too deeply"),
        (b"[" * 1_000_000, "1000000 bytes; the limit is 65536"),
        (b"[]", "expected an object"),
        (b'{"kind": "a", "kind": "b"}', "'kind' appears twice"),
    ],
)
def test_a_description_that_is_not_a_json_object_is_refused(data: bytes, message: str, folder: Path) -> None:
    (folder / "agent.json").write_bytes(data)
    refused(folder, rf"agent\.json: .*{message}")


def test_a_few_bytes_do_not_order_a_network_of_68_gigabytes(folder: Path) -> None:
    touch(folder, lambda content: content.update(feature_size=2**20))
    touch(folder, lambda content: content["config"]["actor"].update(units=16384))
    refused(folder, r"describes an agent of \d+ parameters; the limit is 500000000")


def change_weights(folder: Path, change: Callable[[Any], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    forge(folder, save(tensors))


def explode(tensor: torch.Tensor) -> None:
    """Finite numbers whose sums are infinity minus infinity."""
    tensor.fill_(3e38)[..., ::2].neg_()


NAME = "actor.network.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), rf"lacks 1 of \d+ tensors: '{NAME}'"),
        (lambda t: t.update(extra=torch.zeros(2)), "has 1 tensors that this model does not: 'extra'"),
        (lambda t: t.update({NAME: torch.zeros(3, 3)}), rf"'{NAME}' has shape \[3, 3\]; expected \[8, 2\]"),
        (lambda t: t.update({NAME: torch.zeros(8, 2, dtype=torch.int64)}), f"'{NAME}' is I64; expected F32 or F16 or BF16"),
        (lambda t: t.update({NAME: torch.zeros(8, 2, dtype=torch.complex64)}), f"'{NAME}' is C64; expected F32"),
        (lambda t: t[NAME][0].fill_(float("nan")), f"'{NAME}' holds 2 NaN or infinite values of 16"),
        (lambda t: [explode(v) for name, v in t.items() if "actor" in name], "acting once gives NaN or infinity; the weights explode"),
    ],
)
def test_wrong_weights_are_refused_by_name(change: Callable[[Any], Any], message: str, folder: Path) -> None:
    change_weights(folder, change)
    refused(folder, rf"agent\.safetensors: .*{message}")


def test_weights_kept_in_half_the_space_are_read(folder: Path) -> None:
    change_weights(folder, lambda t: t.update({name: v.bfloat16() for name, v in t.items() if v.dtype == torch.float32}))
    assert ActorCritic.load(folder, SPEC).state_dict()[NAME].dtype == torch.float32


def test_one_flipped_byte_is_found_and_both_checksums_shown(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    announced = read_json(folder)["files"][WEIGHTS]["sha256"]
    refused(folder, rf"damaged or replaced: sha256 is {hashlib.sha256(data).hexdigest()}, but agent\.json announces {announced}")


def test_truncated_weights_are_called_truncated(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-10])
    refused(folder, rf"truncated: {len(data) - 10} bytes, but agent\.json announces {len(data)}")


def test_pickles_are_named_and_not_opened(folder: Path) -> None:
    forge(folder, pickle.dumps({"a": 1}))
    refused(folder, r"agent\.safetensors: not a safetensors file but a pickle")
    (folder / WEIGHTS).rename(folder / "agent.pkl")
    refused(folder, r"has no agent\.safetensors \(found agent\.pkl; dreamgym does not load pickle files\)")


@pytest.mark.parametrize("name", ["agent.json", WEIGHTS])
def test_links_and_pipes_are_refused(name: str, folder: Path) -> None:
    (folder / name).rename(folder / "elsewhere")
    (folder / name).symlink_to(folder / "elsewhere")
    refused(folder, f"{name}: not a regular file")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, f"{name}: not a regular file")


def test_another_envs_agent_is_refused(folder: Path) -> None:
    ActorCritic(PointMass("classes").spec, 2, dreamer_v2(units=8)).save(folder)
    with pytest.raises(InvalidModelError, match="has shape"):
        ActorCritic.load(folder, SPEC)


@pytest.mark.parametrize("name", ["agent.json", WEIGHTS])
def test_a_folder_without_either_file_holds_no_agent(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refused(folder, f"not a dreamgym agent, it has no {name}", ModelNotFoundError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["config"].update(candidates=10**6, horizon=10**4), "horizon 10000; expected at most 10000000 actions"),
        (lambda content: content["config"].update(uncertainty_penalty=-1.0), "does not fit this model"),
        (lambda content: content.update(kind="dog"), "key 'kind' is 'dog'; expected cem or mppi"),
        (lambda content: content.update(feature_size=3), "lacks the key 'files'"),
    ],
)
def test_touched_planners_are_refused(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    CEM(PointMass(), CEMConfig(horizon=3, candidates=8, elites=2)).save(tmp_path)
    touch(tmp_path, change)
    with pytest.raises(InvalidModelError, match=rf"^{tmp_path}/agent\.json: .*{message}"):
        load_planner(tmp_path, PointMass())
