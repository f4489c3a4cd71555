"""Model folders: what is saved dreams the same after loading, and saving never leaves half a model."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dreamgym.formats.files as files
from dreamgym.agents.linear import LinearController
from dreamgym.agents.loading import load_agent
from dreamgym.data.minari import from_minari
from dreamgym.errors import InvalidModelError, ModelNotFoundError
from dreamgym.evaluation.fidelity import write_fidelity
from dreamgym.hub import bundle
from dreamgym.hub.info import describe
from dreamgym.models.world_model import WorldModel
from tests.hub import toys

models = pytest.mark.parametrize("make", [toys.ensemble, toys.rssm])


@models
def test_bundle_round_trip_gives_identical_dreams(make: Callable[[], WorldModel], tmp_path: Path) -> None:
    model = make()
    bundle.save(model, tmp_path / "m")
    back = bundle.load(tmp_path / "m")
    assert all(torch.equal(mine, its) for mine, its in zip(toys.dream(model), toys.dream(back), strict=True))


@models
def test_bundle_round_trip_keeps_spec_config_and_start_states(make: Callable[[], WorldModel], tmp_path: Path) -> None:
    model = make()
    bundle.save(model, tmp_path)
    back = bundle.load(tmp_path)
    assert back.spec == model.spec and back.config == model.config
    assert model.initial_states is not None and back.initial_states is not None
    assert all(torch.equal(mine, its) for (_, mine), (_, its) in zip(model.initial_states.items(), back.initial_states.items()))


@models
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_load_as_float32_near_the_originals(
    make: Callable[[], WorldModel], dtype: torch.dtype, tmp_path: Path
) -> None:
    model = make()
    bundle.save(model, tmp_path, dtype=dtype)
    back = bundle.load(tmp_path)
    for (name, mine), its in zip(model.named_parameters(), back.parameters(), strict=True):
        assert its.dtype == torch.float32, name
        assert torch.equal(its, mine.to(dtype).float()), name
    assert torch.equal(back.reward_range, model.reward_range)


def test_a_loaded_model_is_frozen_awake_to_nothing_and_knows_where_it_came_from(tmp_path: Path) -> None:
    bundle.save(toys.ensemble().train(), tmp_path)
    back = bundle.load(tmp_path)
    assert not back.training and not any(parameter.requires_grad for parameter in back.parameters())
    assert back.source == str(tmp_path)


def test_loading_leaves_the_global_random_generator_alone(tmp_path: Path) -> None:
    bundle.save(toys.ensemble(), tmp_path)
    before = torch.random.get_rng_state()
    bundle.load(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_world_model_saves_and_loads_itself(tmp_path: Path) -> None:
    model = toys.ensemble()
    model.save_pretrained(tmp_path)
    assert torch.equal(toys.dream(WorldModel.from_pretrained(str(tmp_path)))[-1], toys.dream(model)[-1])


def test_the_source_is_provenance_that_comes_back_as_text(tmp_path: Path) -> None:
    bundle.save(toys.ensemble(), tmp_path, source={"dataset": "user/data@abc", "seed": 3})
    source = bundle.read_config(tmp_path).source
    assert source["dataset"] == "user/data@abc" and source["seed"] == 3 and "torch" in source


def test_saving_writes_three_files_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    bundle.save(toys.ensemble(), tmp_path / "new" / "model")
    assert sorted(os.listdir(tmp_path / "new" / "model")) == ["config.json", "initial_states.safetensors", "model.safetensors"]


def test_a_save_that_fails_leaves_the_old_model_loadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.ensemble()
    bundle.save(model, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    other = toys.ensemble()
    next(other.parameters()).data.zero_()
    with pytest.raises(OSError, match="No space"):
        bundle.save(other, tmp_path)
    assert torch.equal(toys.dream(bundle.load(tmp_path))[-1], toys.dream(model)[-1])
    assert len(os.listdir(tmp_path)) == 3


def test_ctrl_c_while_files_are_swapped_leaves_a_loadable_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.save(toys.ensemble(), tmp_path)
    other = toys.ensemble()
    next(other.parameters()).data.zero_()
    swap, calls = os.replace, []

    def interrupted(*paths: Path) -> None:
        swap(*paths)
        calls.append(paths)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundle.save(other, tmp_path)
    assert torch.equal(next(bundle.load(tmp_path).parameters()), next(other.parameters()))


def test_a_model_without_start_states_is_not_saved(tmp_path: Path) -> None:
    model = toys.ensemble()
    model.initial_states = None
    with pytest.raises(ValueError, match="no start states"):
        bundle.save(model, tmp_path)
    assert not os.listdir(tmp_path)


def test_a_model_with_nan_is_not_saved(tmp_path: Path) -> None:
    model = toys.ensemble()
    next(model.parameters()).data[0] = float("nan")
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        bundle.save(model, tmp_path)


def test_a_weight_too_large_for_float16_is_reported_not_stored_as_infinity(tmp_path: Path) -> None:
    model = toys.ensemble()
    next(model.parameters()).data[0] = 1e6
    with pytest.raises(ValueError, match=r"do not fit into torch\.float16"):
        bundle.save(model, tmp_path, dtype=torch.float16)


def test_fidelity_comes_back_and_is_none_when_nobody_measured(tmp_path: Path) -> None:
    bundle.save(toys.ensemble(), tmp_path)
    assert bundle.read_fidelity(tmp_path) is None
    write_fidelity(tmp_path, {"dream_return": 500.0})
    assert bundle.read_fidelity(tmp_path) == {"dream_return": 500.0}


def test_fidelity_survives_saving_the_same_weights_but_not_other_ones(tmp_path: Path) -> None:
    model = toys.ensemble()
    bundle.save(model, tmp_path)
    write_fidelity(tmp_path, {"dream_return": 500.0})
    bundle.save(model, tmp_path)
    assert bundle.read_fidelity(tmp_path) is not None
    next(model.parameters()).data.zero_()
    bundle.save(model, tmp_path)
    assert bundle.read_fidelity(tmp_path) is None


def test_damaged_fidelity_is_an_invalid_model(tmp_path: Path) -> None:
    (tmp_path / "fidelity.json").write_text("[1]")
    with pytest.raises(InvalidModelError, match="expected an object"):
        bundle.read_fidelity(tmp_path)


def test_bundled_models_are_found_by_name_and_can_be_reopened_by_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_PRETRAINED", tmp_path)
    bundle.save(toys.ensemble(), tmp_path / "toy")
    assert bundle.bundled_names() == ["toy"]
    model = bundle.from_pretrained("toy")
    assert model.source == "bundled:toy"
    assert bundle.from_pretrained(model.source).spec == model.spec


def test_every_bundled_model_loads() -> None:
    for name in bundle.bundled_names():
        assert bundle.load_bundled(name).source == f"bundled:{name}"


@pytest.mark.parametrize("name", ["nobody", "bundled:nobody", "../../etc/nobody", "./a\0b", "~/" + "x" * 5000])
def test_an_unknown_model_is_not_found_with_a_hint(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"expected a (folder|saved)|no bundled model|not a usable path") as caught:
        bundle.from_pretrained(name)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["", "x" * 300, "a\0b", "https://x.org/y", "user/repo/extra", "user\\repo", "a--b/c", "a/b@../x", "a/b@"])
def test_text_that_is_no_name_of_a_model_is_refused_before_anybody_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    with pytest.raises(ValueError, match=r"expected (user/repo|a branch)") as caught:
        bundle.from_pretrained(name)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["../pretrained/toy", "toy/../toy", "."])
def test_a_bundled_name_is_never_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_PRETRAINED", tmp_path)
    bundle.save(toys.ensemble(), tmp_path / "toy")
    with pytest.raises(ModelNotFoundError):
        bundle.load_bundled(name)


def test_a_folder_goes_before_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_PRETRAINED", tmp_path / "pretrained")
    bundle.save(toys.ensemble(), tmp_path / "pretrained" / "toy")
    own = toys.ensemble()
    own.spec = replace(own.spec, env_id="Own-v0")
    bundle.save(own, tmp_path / "toy")
    monkeypatch.chdir(tmp_path)
    model = bundle.from_pretrained("toy")
    assert model.spec.env_id == "Own-v0" and model.source == str(tmp_path / "toy")


def test_config_json_is_small_enough_to_read_and_says_its_format(tmp_path: Path) -> None:
    bundle.save(toys.rssm(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["format"], config["format_version"]) == ("dreamgym-world-model", 3)
    assert config["model"]["core"]["type"] == "rssm" and config["model"]["encoder"]["type"] == "vae"


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "./" + "x" * 300, "a\0b", "user/" + "r" * 300], ids=lambda name: name[:6])
def test_names_that_are_no_paths_are_refused_in_our_words(name):
    doors = [describe, from_minari, WorldModel.from_pretrained, lambda name: WorldModel.from_pretrained(Path(name))]
    doors += [partial(load_agent, model=toys.ensemble()), lambda name: load_agent(Path(name), toys.ensemble())]
    for door in doors:
        with pytest.raises((ValueError, ModelNotFoundError)):
            door(name)


def test_the_agent_of_a_bundled_model_goes_by_its_name(tmp_path, monkeypatch):
    model, shipped = toys.ensemble(), tmp_path / "pretrained"
    bundle.save(model, shipped / "Toy")
    monkeypatch.setattr(bundle, "_PRETRAINED", shipped)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="Toy"):
        load_agent("Toy", model)
    first, second = (LinearController(model.spec, model.core.feature_size) for _ in range(2))
    second.vector = np.ones_like(second.vector)
    first.save(shipped / "Toy" / "agent")
    assert np.array_equal(load_agent("Toy", model).vector, first.vector)
    second.save(tmp_path / "Toy")
    assert np.array_equal(load_agent("Toy", model).vector, second.vector)  # a folder here goes first


def test_of_many_faults_the_cheapest_to_find_is_told_first(tmp_path: Path) -> None:
    """The order of checks: ranges, number of parameters, sizes, checksums, headers, numbers, a step. Each fault is mended in turn."""
    bundle.save(toys.ensemble(), tmp_path)
    good, config = (tmp_path / toys.WEIGHTS).read_bytes(), toys.read_json(tmp_path)

    def explosive(tensors: dict[str, Any]) -> None:
        for name in tensors:
            if "core.network" in name:
                tensors[name] *= 1e30

    def not_a_number(tensors: dict[str, Any]) -> None:
        tensors["core.network.weights.0"][0] = float("nan")

    def too_many(tensors: dict[str, Any]) -> None:
        not_a_number(tensors)
        tensors["extra"] = torch.zeros(1)

    toys.forge_tensors(tmp_path, toys.WEIGHTS, explosive)
    explodes = (tmp_path / toys.WEIGHTS).read_bytes()
    toys.forge_tensors(tmp_path, toys.WEIGHTS, not_a_number)
    nan = (tmp_path / toys.WEIGHTS).read_bytes()
    toys.forge_tensors(tmp_path, toys.WEIGHTS, too_many)
    extra = (tmp_path / toys.WEIGHTS).read_bytes()

    def told(**core: Any) -> str:
        toys.edit_config(tmp_path, lambda found: found["model"].update(core={**config["model"]["core"], **core}))
        with pytest.raises(InvalidModelError) as caught:
            bundle.load(tmp_path)
        return str(caught.value)

    (tmp_path / toys.WEIGHTS).write_bytes(extra + b"more")
    assert "units is 1000000000" in told(units=10**9)
    assert "parameters; the limit is" in told(units=8192, layers=16, members=64)
    assert "config.json announces" in told()
    (tmp_path / toys.WEIGHTS).write_bytes(extra[:-1] + bytes([extra[-1] ^ 1]))
    assert "sha256 is" in told()
    (tmp_path / toys.WEIGHTS).write_bytes(extra)
    assert "that this model does not: 'extra'" in told()
    toys.forge(tmp_path, toys.WEIGHTS, nan)
    assert "NaN or infinite values" in told()
    toys.forge(tmp_path, toys.WEIGHTS, explodes)
    assert "a dream of one step gives NaN" in told()
    toys.forge(tmp_path, toys.WEIGHTS, good)
    assert bundle.load(tmp_path).spec.env_id == "CartPole-v1"
