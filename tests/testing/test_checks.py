"""Every check catches the model that has its fault, and no other check blames that model; sound models pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import dreamgym
from dreamgym.structs import DreamDefaults
from dreamgym.testing import check_world_model
from dreamgym.testing.suite import CHECKS
from tests.models.builders import tiny_dreamer, tiny_ensemble, tiny_mdn
from tests.models.test_reset import CORES, OBJECTIVES
from tests.testing import broken
from tests.toys import BlindWorld, CorridorWorld, CounterWorld, PartsWorld, PictureWorld

STEPS = 40  # as short as a fault that needs time allows
FAULTS: dict[str, tuple[str, Any]] = {
    "lacks features": ("members", partial(broken.without, "features")),
    "lacks noise_lanes": ("members", partial(broken.without, "noise_lanes")),
    "lacks a spec": ("members", partial(broken.without, "spec")),
    "a class": ("members", lambda: broken.Sound),
    "decode is None": ("members", partial(broken.with_attributes, decode=None)),
    "spec is a dict": ("members", partial(broken.with_attributes, spec={"env_id": "toy"})),
    "half a lane": ("members", partial(broken.with_attributes, noise_lanes=2.5)),
    "holds more lanes than it has": ("members", partial(broken.with_attributes, episode_lanes=3)),
    "no lowest reward": ("members", partial(broken.with_attributes, reward_low=None)),
    "defaults are a dict": ("members", partial(broken.with_attributes, defaults={"horizon": 5})),
    "a bare state as the bank": ("members", lambda: broken.with_attributes(initial_states=broken.Sound().initial(3))),
    "observations in a tuple": ("spec", partial(broken.with_spec, observation_space=spaces.Tuple([spaces.Discrete(2)]))),
    "unbounded actions": ("spec", broken.UnboundedActions),
    "several actions at once": ("spec", partial(broken.with_spec, action_space=spaces.MultiBinary(3))),
    "half a step": ("spec", partial(broken.with_spec, max_episode_steps=20.5)),
    "no name": ("spec", partial(broken.with_spec, env_id="")),
    "endless frames": ("spec", partial(broken.with_spec, fps=float("inf"))),
    "preprocess is None": ("spec", partial(broken.with_spec, preprocess=None)),
    "a dict for a state": ("state", broken.DictState),
    "a state that can be changed": ("state", broken.LooseState),
    "a number in the state": ("state", broken.NumberInState),
    "one clock for all rows": ("state", broken.SharedClock),
    "initial rows differ": ("initial", broken.UnequalRows),
    "step gives doubles": ("step", broken.DoublePrecision),
    "step gives a tuple": ("step", broken.StepGivesTuple),
    "step takes no temperature": ("step", broken.NoTemperature),
    "step reads lanes that are not there": ("step", broken.TooManyLanes),
    "actions do nothing": ("actions", broken.Unmoved),
    "a column of rewards": ("prediction", broken.ColumnReward),
    "uncertainty is None": ("prediction", broken.NoDoubt),
    "predict gives a tuple": ("prediction", broken.TupleOfHeads),
    "features without an axis": ("features", broken.FlatFeatures),
    "features in doubles": ("features", broken.DoubleFeatures),
    "bounds of another width": ("feature bounds", partial(broken.with_attributes, feature_low=np.zeros(3, np.float32))),
    "infinite bounds": ("feature bounds", partial(broken.with_attributes, feature_high=np.float32([np.inf, 1.0]))),
    "bounds upside down": ("feature bounds", partial(broken.with_attributes, feature_low=np.float32([-20.0, 1.0]))),
    "one bound only": ("feature bounds", broken.OneBound),
    "channels first": ("decode", broken.ChannelsFirst),
    "a dict where a box is dreamt": ("decode", broken.DictOfOne),
    "outcome pays more than predict": ("outcome", broken.OtherOutcome),
    "outcome is a prediction": ("outcome", broken.PredictionForOutcome),
    "in_range gives numbers": ("in_range", broken.SoftRange),
    "observe gives posterior and prior": ("observe", broken.PosteriorAndPrior),
    "observe does not look": ("observe", broken.ClosedEyes),
    "starts of another width": ("starts", lambda: broken.with_starts(torch.zeros(4, 2))),
    "no start is a first one": ("starts", lambda: broken.with_starts(torch.zeros(4, 1), first=False)),
    "a start that is NaN": ("starts", lambda: broken.with_starts(torch.tensor([[0.0], [torch.nan]]))),
    "dropout without with_dropout": ("defaults", partial(broken.Sound, defaults=DreamDefaults(dropout=0.5))),
    "a guard without reward_low": ("defaults", broken.CannotGuard),
    "step rolls its own dice": ("generators", broken.OwnDice),
    "predict rolls NumPy's dice": ("generators", broken.NumpyDice),
    "step works in place": ("mutation", broken.InPlace),
    "step answers in one buffer": ("mutation", broken.SharedBuffer),
    "step remembers what it was asked before": ("determinism", broken.HiddenMemory),
    "features less the batch's mean": ("batches", broken.BatchStatistics),
    "rows change places": ("batches", broken.ScrambledRows),
    "noise is ignored": ("noise lanes", CounterWorld),
    "temperature is ignored": ("temperature", broken.AlwaysWarm),
    "temperature meets the wrong axis": ("temperature", broken.TemperatureAcross),
    "temperature is 0 if not given": ("temperature", broken.ColdByDefault),
    "noise is not centred": ("mean noise", broken.OffCentre),
    "is_first is ignored": ("first rows", broken.NeverForgets),
    "a first row's action counts": ("first rows", broken.FirstAction),
    "one first row resets all": ("neighbours", broken.AllForgetTogether),
    "no belief at noise 0.5": ("context", broken.LostInTheMiddle),
    "the action is applied after the observation": ("alignment", broken.ActsOnceMore),
    "rows cannot be replaced": ("resets", broken.ResetsAll),
    "explodes far out": ("finite", partial(broken.Sound, bound=100.0, nan_at=8.0)),
    "logits for continue_prob": ("prediction range", broken.Logits),
    "a logarithm for uncertainty": ("prediction range", broken.LogDoubt),
    "features beyond their bounds": ("feature range", broken.WideFeatures),
    "pictures from 0 to 1": ("decoded values", broken.HalfBrightness),
    "observations in other units": ("decoded values", broken.OtherUnits),
    "classes counted from 1": ("decoded values", broken.OtherClasses),
    "holds a lock": ("pickling", broken.HoldsALock),
    "another model when pickled": ("pickling", lambda: _changed(broken.ForgetsWhenPickled())),
    "another model when copied": ("copying", broken.ForgetsWhenCopied),
    "cannot be copied": ("copying", broken.CannotBeCopied),
    "to gives nothing": ("device", broken.MovesNowhere),
    "a tensor that is no buffer": ("device", broken.LeavesAWeightBehind),
    "the last row of an odd batch stands still": ("vectors", broken.OddBatches),
    "the last row of an odd batch is not paid": ("vectors", broken.OddPredictions),
    "dreams beside its space": ("environment", broken.OffTheCircle),
}
REAL: dict[str, tuple[str, Any, Any]] = {
    "actions count one step later": ("reality", broken.Sound, partial(broken.RealLine, delay=1)),
    "rewards are those of the row before": ("reality", broken.PaysForTheRowBefore, broken.RealLine),
}
SOUND = {
    "counter": broken.Sound,
    "corridor": CorridorWorld,
    "picture": partial(PictureWorld, sigma=0.3),
    "parts": partial(PartsWorld, sigma=0.3),
    "on the circle": broken.OnTheCircle,
    "ensemble of 1": partial(tiny_ensemble, members=1),
    **{name: build for name, build in OBJECTIVES.items() if "mixture" not in name},
    "mixture, dropout, sampled beliefs": partial(tiny_mdn, belief="sample", input_dropout=0.2, recurrent_dropout=0.2),
    **{
        name: partial(tiny_dreamer, **CORES[name])
        for name in ("blocks, unimix, both", "layer norm, classes, stochastic", "3 priors, softplus")
    },
}


def _changed(model: Any) -> Any:
    model.sigma = 0.6
    return model


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught_by_its_own_check_and_by_no_other(fault):
    check, build = FAULTS[fault]
    report = check_world_model(build(), steps=STEPS)
    assert report.failed == (check,), str(report)
    for finding in report.findings:
        assert finding.expected and finding.found and finding.mend


@pytest.mark.parametrize("fault", REAL)
def test_what_is_one_row_off_shows_against_reality(fault):
    check, build, real = REAL[fault]
    assert check_world_model(build(), steps=STEPS).ok
    assert check_world_model(build(), steps=STEPS, real_env=real()).failed == (check,)


def test_a_model_that_is_aligned_with_reality_passes():
    report = check_world_model(broken.Sound(), steps=STEPS, real_env=broken.RealLine())
    assert report.ok and "reality" in report.passed


def test_every_check_has_a_model_that_it_alone_catches():
    assert {check for check, *_ in [*FAULTS.values(), *REAL.values()]} == {check.name for check in CHECKS}


@pytest.mark.parametrize("name", SOUND)
def test_sound_models_and_every_core_of_ours_pass(name):
    report = check_world_model(SOUND[name](), steps=STEPS)
    assert report.ok, str(report)


@pytest.mark.parametrize("path", ["gru, sigmoid2, deterministic", "blocks, classes, deterministic"])
def test_the_deterministic_path_passes_but_for_the_noise_that_it_asks_for_and_does_not_use(path):
    model = tiny_dreamer(**CORES[path])
    assert check_world_model(model, steps=STEPS).failed == ("noise lanes",)
    assert check_world_model(model, steps=STEPS, skip=["noise lanes"]).ok


def test_the_least_of_a_model_passes_and_what_it_lacks_is_not_held_against_it():
    model = BlindWorld()
    model.noise_lanes = 0
    report = check_world_model(model, steps=STEPS)
    assert report.ok and report.not_made["decode"] == "the model has no decode" and "vectors" in report.passed


@pytest.mark.parametrize("name", ["CartPole", "Pendulum"])
def test_bundled_models_pass_against_their_real_worlds(name):
    world = dreamgym.WorldModel.from_pretrained(name)
    report = check_world_model(name, real_env=dreamgym.make_env(world.spec.env_id, preprocess=world.spec.preprocess))
    assert report.ok and "reality" in report.passed, str(report)
