"""Bundles of every format, frozen while it was current (tests/hub/format_1 and so on), load and dream as they did then."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dreamgym.errors import InvalidModelError
from dreamgym.formats.strict_json import Place
from dreamgym.hub import bundle
from dreamgym.hub.config import FORMAT_VERSION, parse_config
from dreamgym.hub.upgrades import upgrade
from dreamgym.models.rssm import RSSM, RSSMState
from tests.hub import toys
from tests.models.builders import tiny_mdn

FORMAT_1 = Path(__file__).parent / "format_1"
FORMAT_2 = Path(__file__).parent / "format_2"
FORMAT_3 = Path(__file__).parent / "format_3"
FORMATS = {1: FORMAT_1, 2: FORMAT_2, 3: FORMAT_3}
ALL = pytest.mark.parametrize("folder", FORMATS.values(), ids=map(str, FORMATS))
TOP = Place("config.json")


def old_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((FORMAT_1 / name / "config.json").read_text())
    assert config["format_version"] == 1
    return config


def close(mine: Tensor, its: Tensor) -> None:
    torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)  # other machines multiply matrices in another order


def test_every_format_has_a_bundle_that_says_its_number() -> None:
    assert list(FORMATS) == list(range(1, FORMAT_VERSION + 1)), "freeze a tiny bundle of the new format"
    for number, folder in FORMATS.items():
        for path in folder.glob("*/config.json"):
            assert json.loads(path.read_text())["format_version"] == number


@ALL
def test_an_old_bundle_dreams_as_it_did(folder: Path) -> None:
    said = toys.dream(bundle.load(folder / "ensemble"))
    frozen = load_file(folder / "ensemble" / "dream.safetensors")
    assert len(said) == len(frozen)
    for number, tensor in enumerate(said):
        close(tensor, frozen[str(number)])


def test_an_rssm_of_format_1_keeps_its_tensors_and_its_numbers() -> None:
    """The core alone: the autoencoder around it would be 17 MB."""
    config = parse_config((FORMAT_1 / "rssm" / "config.json").read_bytes(), "config.json")
    core = RSSM(config.model.core, embed_size=4, action_size=2)  # type: ignore[arg-type]
    core.load_state_dict(load_file(FORMAT_1 / "rssm" / "core.safetensors"), strict=True)
    frozen = load_file(FORMAT_1 / "rssm" / "dream.safetensors")
    start = RSSMState(frozen["start.deter"], frozen["start.stoch"])
    with torch.no_grad():
        dreamt = core.step(start, frozen["action"], frozen["noise"])
        seen, posterior = core.observe(start, frozen["action"], frozen["embed"], frozen["is_first"], frozen["noise"])
        prior = core.prior_stats(dreamt.deter)
    for prefix, struct in (("step", dreamt), ("observe", seen), ("posterior", posterior), ("prior", prior)):
        for name, tensor in struct.items():
            close(tensor, frozen[f"{prefix}.{name}"])


@pytest.mark.parametrize("name", ["CarRacing", "CartPole", "Pendulum"])
def test_bundled_models_predict_as_when_they_were_published(name: str) -> None:
    model = bundle.load_bundled(name)
    assert model.initial_states is not None
    state, generator = model.initial_states.state[:2], torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(3):
            action = torch.rand(2, model.spec.action_size, generator=generator)
            state = model.step(state, action, torch.rand(2, model.noise_lanes, generator=generator))
        said = [("features", model.features(state)), *model.predict(state).items()]
    frozen = load_file(FORMAT_1 / "bundled.safetensors")
    for key, tensor in said:
        close(tensor, frozen[f"{name}.{key}"])


@ALL
@pytest.mark.parametrize("make", [toys.ensemble, toys.rssm])
def test_what_an_old_format_left_unsaid_is_what_it_meant(make: Callable[[], Any], folder: Path) -> None:
    """The toys use today's defaults, which are the old formats' behaviour."""
    config = parse_config((folder / make.__name__ / "config.json").read_bytes(), "config.json")
    model = make()
    assert config.model == model.config and config.spec == model.spec


def test_a_model_that_came_with_format_3_says_what_it_said_then() -> None:
    """If this fails a config dataclass has changed: the format must get a new number, and this file stay readable."""
    config = parse_config((FORMAT_3 / "mdnrnn" / "config.json").read_bytes(), "config.json")
    assert config.model == tiny_mdn(members=1, units=3, mixtures=2).config


def test_upgrading_leaves_the_old_value_as_it_was_and_the_newest_format_alone() -> None:
    old = old_config("rssm")
    kept = copy.deepcopy(old)
    new = upgrade(old, TOP)
    assert old == kept and new["format_version"] == FORMAT_VERSION
    assert upgrade(new, TOP) == new


def test_saving_an_upgraded_model_writes_the_newest_format(tmp_path: Path) -> None:
    bundle.save(bundle.load(FORMAT_1 / "ensemble"), tmp_path)
    assert toys.read_json(tmp_path)["format_version"] == FORMAT_VERSION
    assert bundle.load(tmp_path).config == bundle.load(FORMAT_1 / "ensemble").config


def test_a_file_of_format_2_may_not_say_what_came_later() -> None:
    config = json.loads((FORMAT_2 / "rssm" / "config.json").read_text())
    assert config["format_version"] == 2
    config["model"]["defaults"]["belief"] = "sample"
    with pytest.raises(InvalidModelError, match=r"config.json: key 'model.defaults' has the unknown key 'belief', which came"):
        parse_config(json.dumps(config).encode(), "config.json")


def test_a_file_of_format_1_may_not_say_what_came_later() -> None:
    config = old_config("rssm")
    config["model"]["core"]["norm"] = "rms"
    with pytest.raises(InvalidModelError, match=r"config.json: key 'model.core' has the unknown key 'norm', which came"):
        parse_config(json.dumps(config).encode(), "config.json")


@pytest.mark.parametrize("wrong", [None, 3, [], "rssm", {}, {"type": "rssm"}, {"type": []}])
@pytest.mark.parametrize("path", [("spec",), ("model",), ("model", "core"), ("model", "core", "latent"), ("spec", "preprocess")])
def test_a_damaged_file_of_format_1_is_refused_by_the_decoder(path: tuple[str, ...], wrong: Any) -> None:
    config = old_config("rssm")
    place = config
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = wrong
    with pytest.raises(InvalidModelError, match=f"key '{path[0]}"):
        parse_config(json.dumps(config).encode(), "config.json")
