"""Ten thousand small changes to good files: each is opened or refused by one of our errors, quickly and without growing.

`make test` tries a few hundred, always the same; the slow test tries them all.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import dreamgym
from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.agent_files import AGENT
from dreamgym.agents.agent_files import WEIGHTS as AGENT_WEIGHTS
from dreamgym.agents.linear import LinearController
from dreamgym.agents.loading import load_agent
from dreamgym.agents.planning import CEM, CEMConfig
from dreamgym.errors import ModelLoadError
from dreamgym.formats.files import Fingerprint
from dreamgym.hub import bundle
from dreamgym.hub.info import describe
from dreamgym.models.latents import CategoricalLatent
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import StartBank
from tests.hub import toys
from tests.hub.hostile.mutations import BODIES, change_json, change_tensors, change_text, dumped
from tests.hub.toys import STARTS, WEIGHTS, forge
from tests.models.builders import tiny_dreamer, tiny_mdn

Change = tuple[bool, int, int, int]
SEED = 20261120
PRETRAINED = Path(dreamgym.__file__).parent / "pretrained"
SECONDS, GROWTH = 5, 500 * 1024**2

numbers = st.integers(0, 2**32 - 1)
change = st.tuples(st.booleans(), st.integers(0, 89), numbers, numbers)
changes = st.lists(change, min_size=1, max_size=4)
tensor_changes = st.tuples(st.lists(change, max_size=3), st.sampled_from(BODIES), numbers)


def _dreamers() -> dict[str, WorldModel]:
    """Small models of the other kinds, with some states to start from."""
    classes = CategoricalLatent(variables=2, classes=3)
    models = {"dreamer": tiny_dreamer(two_hot=True, latent=classes, deter=4, hidden=4), "mdnrnn": tiny_mdn(members=1, units=3, mixtures=2)}
    for model in models.values():
        model.initial_states = StartBank(model.initial(3), torch.arange(3) < 1)
    return models


class Goods:
    """Good folders, copied where they may be spoilt, and what opens them."""

    def __init__(self, root: Path) -> None:
        self.models: dict[str, WorldModel] = {"ensemble": toys.ensemble(), "rssm": toys.rssm(), **_dreamers()}
        for name, model in self.models.items():
            bundle.save(model, root / "good" / name)
        model = self.models["ensemble"]
        size = model.features(model.initial(1)).shape[-1]
        LinearController(model.spec, size).save(root / "good" / "linear")
        ActorCritic(model.spec, size, ActorCriticConfig(layers=1, units=4)).save(root / "good" / "actor-critic")
        CEM(model, CEMConfig(horizon=2, candidates=4, elites=2)).save(root / "good" / "cem")
        shutil.copytree(root / "good" / "ensemble", root / "good" / "measured")
        shutil.copyfile(PRETRAINED / "CartPole" / bundle.FIDELITY, root / "good" / "measured" / bundle.FIDELITY)
        shutil.copytree(root / "good", root / "spoilt")
        self.good, self.spoilt = root / "good", root / "spoilt"

    def open(self, name: str) -> Any:
        """Whatever is in that spoilt folder now."""
        if name == "measured":
            return describe(self.spoilt / name)
        if name in self.models:
            return bundle.load(self.spoilt / name)
        return load_agent(self.spoilt / name, self.models["ensemble"])

    def restore(self, name: str) -> None:
        """As if nothing had happened."""
        for path in (self.good / name).iterdir():
            shutil.copyfile(path, self.spoilt / name / path.name)


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Goods:
    return Goods(tmp_path_factory.mktemp("fuzz"))


@contextmanager
def limits() -> Iterator[None]:
    """No more memory than now and a bit, and an exception after some seconds of computing."""

    def alarm(*_: Any) -> None:
        raise TimeoutError(f"still computing after {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + GROWTH, before[1]))
    earlier = signal.signal(signal.SIGVTALRM, alarm)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, earlier)
        resource.setrlimit(resource.RLIMIT_AS, before)


def spoil_description(goods: Goods, name: str, plan: list[Change]) -> None:
    goods.restore(name)
    path = goods.spoilt / name / (AGENT if (goods.spoilt / name / AGENT).exists() else "config.json")
    path.write_bytes(_otherwise(path.read_bytes(), plan))


def _otherwise(data: bytes, plan: list[Change]) -> bytes:
    """JSON changed as text, or as a tree where it still is one."""
    for structured, number, where, what in plan:
        if not structured:
            data = change_text(data, number, where, what)
            continue
        with suppress(ValueError, RecursionError):
            tree = json.loads(data)
            if isinstance(tree, (dict, list)):
                change_json(tree, number, where, what)
                data = dumped(tree)
    return data


def spoil_tensors(goods: Goods, name: str, file: str, plan: tuple[list[Change], str, int]) -> None:
    """With checksums that are right, or nothing behind them would be tried."""
    folder = goods.spoilt / name
    goods.restore(name)
    data = change_tensors((goods.good / name / file).read_bytes(), *plan)
    if file != AGENT_WEIGHTS:
        forge(folder, file, data)
        return
    (folder / file).write_bytes(data)
    description = json.loads((folder / AGENT).read_text())
    found = Fingerprint.of(data)
    description["files"] = {file: {"sha256": found.sha256, "size": found.size}}
    (folder / AGENT).write_text(json.dumps(description))


TARGETS: dict[str, tuple[Any, Callable[[Goods, Any], str]]] = {}


def target(strategy: Any) -> Any:
    def registered(spoil: Callable[[Goods, Any], str]) -> Callable[[Goods, Any], str]:
        TARGETS[spoil.__name__] = (strategy, spoil)
        return spoil

    return registered


@target(st.tuples(st.sampled_from(["ensemble", "dreamer", "mdnrnn", "rssm"]), changes))
def model_config(goods: Goods, plan: Any) -> str:
    name, steps = plan
    spoil_description(goods, name, steps)
    return str(name)


@target(st.tuples(st.sampled_from(["linear", "actor-critic", "cem"]), changes))
def agent_json(goods: Goods, plan: Any) -> str:
    name, steps = plan
    spoil_description(goods, name, steps)
    return str(name)


@target(st.tuples(st.sampled_from(["ensemble", "dreamer", "mdnrnn"]), st.sampled_from([WEIGHTS, STARTS]), tensor_changes))
def model_tensors(goods: Goods, plan: Any) -> str:
    name, file, steps = plan
    spoil_tensors(goods, name, file, steps)
    return str(name)


@target(st.tuples(st.sampled_from(["linear", "actor-critic"]), tensor_changes))
def agent_tensors(goods: Goods, plan: Any) -> str:
    name, steps = plan
    spoil_tensors(goods, name, AGENT_WEIGHTS, steps)
    return str(name)


@target(changes)
def fidelity_json(goods: Goods, plan: Any) -> str:
    """What was measured, as `dreamgym info` shows it."""
    goods.restore("measured")
    path = goods.spoilt / "measured" / bundle.FIDELITY
    path.write_bytes(_otherwise(path.read_bytes(), plan))
    return "measured"


def fuzz(goods: Goods, name: str, examples: int, first: int = SEED) -> Counter[str]:
    """Try so many changes of one kind of file; what became of them. Raises the first exception that is none of ours."""
    strategy, spoil = TARGETS[name]
    outcomes: Counter[str] = Counter()

    @seed(first)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def every_change_is_opened_or_refused(plan: Any) -> None:
        folder = spoil(goods, plan)
        started = time.process_time()
        try:
            with limits():
                goods.open(folder)
            outcomes["opened"] += 1
        except ModelLoadError as error:
            message = str(error)
            assert message.startswith(str(goods.spoilt / folder)) and message.isprintable() and len(message) < 1500, message
            outcomes[type(error).__name__] += 1
        assert time.process_time() - started < SECONDS

    every_change_is_opened_or_refused()
    return outcomes


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_opened_or_refused_by_our_errors(goods: Goods, name: str) -> None:
    outcomes = fuzz(goods, name, 100)
    assert outcomes["InvalidModelError"] > 10, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_ten_thousand_changes_are_opened_or_refused_by_our_errors(goods: Goods, name: str) -> None:
    outcomes = fuzz(goods, name, 2500)
    print(name, dict(outcomes))
    assert sum(outcomes.values()) >= 2500 and outcomes["opened"] > 0, outcomes
