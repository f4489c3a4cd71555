"""What an examination tells, and that nothing a model does stops or outlives it."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch

import dreamgym
from dreamgym.errors import ModelNotFoundError
from dreamgym.testing import Finding, Report, assert_world_model, check_world_model
from dreamgym.testing.suite import CHECKS
from tests.testing import broken

STEPS = 20


class Furious:
    """Raises from everything."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"do not touch my {name}\x1b[31m")


class BreaksLate(broken.Sound):
    """Raises where a dream has gone far."""

    def features(self, state: Any) -> Any:
        if float(state.x.abs().max()) > 4.5:
            raise KeyError("far")
        return super().features(state)


def test_a_report_says_what_was_expected_what_was_found_and_how_to_mend_it():
    told = str(check_world_model(broken.ColumnReward(), steps=STEPS))
    assert "ColumnReward of toy/Counter" in told and "1 failed" in told
    assert "prediction: FAILED" in told and "reward to be float [1]" in told and "[1, 1] float32" in told and "squeeze(-1)" in told
    for check in CHECKS:
        assert check.name in told


def test_checks_that_were_not_made_say_why():
    report = check_world_model(broken.ColumnReward(), steps=STEPS)
    assert report.not_made["batches"] == "it builds on prediction" and report.not_made["device"] == "it builds on prediction"
    assert set(report.passed) | set(report.failed) | set(report.not_made) == {check.name for check in CHECKS}


def test_findings_are_raised_on_demand_all_together():
    report = check_world_model(broken.without("features"), steps=STEPS)
    assert not report.ok
    with pytest.raises(AssertionError, match="features"):
        report.raise_for_findings()
    two = Report("it", (Finding("a", "b", "c", "d"), Finding("e", "f", "g", "h")), (), {})
    with pytest.raises(AssertionError, match=r"(?s)a: FAILED.*e: FAILED"):
        two.raise_for_findings()
    Report("it", (), ("a",), {}).raise_for_findings()


def test_a_sound_model_can_be_asserted_in_a_test_of_its_own():
    assert_world_model(broken.Sound(), steps=STEPS)
    with pytest.raises(AssertionError, match="to mend it"):
        assert_world_model(broken.AlwaysWarm(), steps=STEPS)


def test_what_a_model_raises_is_a_finding_with_the_place_it_was_raised_at():
    report = check_world_model(BreaksLate(), steps=200)
    (finding,) = report.findings
    assert finding.check == "finite" and "KeyError" in finding.found and "test_report.py" in finding.found and "features" in finding.found


@pytest.mark.parametrize("model", [Furious(), object(), 3, [], torch.nn.Linear(2, 2)], ids=["furious", "object", "3", "list", "linear"])
def test_what_is_no_model_at_all_is_told_of_and_not_raised(model):
    report = check_world_model(model)
    assert report.failed == ("members",) and "\x1b" not in str(report)


def test_names_and_folders_are_loaded_as_dreams_load_them(tmp_path):
    world = dreamgym.WorldModel.from_pretrained("CartPole")
    world.save_pretrained(tmp_path / "mine")
    quick = [check.name for check in CHECKS if check.name not in ("members", "spec")]
    for name in ("CartPole", tmp_path / "mine", str(tmp_path / "mine")):
        assert check_world_model(name, skip=quick).passed == ("members", "spec")
    with pytest.raises(ModelNotFoundError):
        check_world_model("./nowhere")


def test_a_check_may_be_left_out_and_what_builds_on_it_is_made_all_the_same():
    report = check_world_model(broken.AlwaysWarm(), steps=STEPS, skip=["temperature", "mean noise"])
    assert report.ok and report.not_made["temperature"] == "left out by skip" and "alignment" in report.passed


@pytest.mark.parametrize("options", [{"skip": ["speed"]}, {"skip": "noise lanes"}, {"steps": 0}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=r"skip is|steps is"):
        check_world_model(broken.Sound(), **options)


def test_an_examination_changes_neither_the_model_nor_what_its_caller_draws_next():
    def drawn():
        return torch.rand(1).item(), np.random.rand(), random.random()

    def seed():
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)

    seed()
    expected = drawn()
    world = dreamgym.WorldModel.from_pretrained("CartPole")
    before = copy.deepcopy(world.state_dict())
    seed()
    check_world_model(world, steps=STEPS)
    check_world_model(broken.OwnDice(), steps=STEPS)
    assert drawn() == expected
    assert all(torch.equal(tensor, before[name]) for name, tensor in world.state_dict().items())
    assert not any(tensor.is_inference() for tensor in world.state_dict().values()) and world.device.type == "cpu"


def test_the_same_seed_finds_the_same():
    reports = [str(check_world_model(broken.WideFeatures(), seed=5, steps=STEPS)) for _ in range(2)]
    assert reports[0] == reports[1]
