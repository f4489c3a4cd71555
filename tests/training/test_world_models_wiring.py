"""A World Models run hands every setting to the one who is to obey it; these listen in on a whole run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dreamgym.hub import bundle
from dreamgym.training import world_models as stages
from dreamgym.training import world_models_collection as collection
from dreamgym.training import world_models_search as searching
from dreamgym.training.loop import fit
from dreamgym.training.world_models_presets import iterated
from tests.training.fall import FALL, tiny

RATES = {"temperature": 0.7, "dropout": 0.1}


def listen(patch, owner, name):
    """What `owner.name` is called with from now on."""
    calls, original = [], getattr(owner, name)

    def overheard(*args, **kwargs):
        calls.append((args, kwargs))
        return original(*args, **kwargs)

    patch.setattr(owner, name, overheard)
    return calls


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A run with one iteration, of two controllers a round, the first of which is always the better one, and an explorer."""
    preset = iterated(tiny(behaviour_training=None), 1, episodes=4, curiosity=2.0)
    preset = replace(
        preset,
        controller_training=replace(preset.controller_training, generations=1, **RATES),
        iterations=replace(preset.iterations, explorer_generations=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        scores = iter((9.0, 1.0, 8.0, 2.0))
        patch.setattr(searching.Searches, "_validated", lambda *_: [next(scores)])
        places = {
            "learners": (stages, "MemoryLearner"),
            "calibrations": (stages, "calibrate_lives"),
            "dreams": (searching, "DreamRollouts"),
            "curious": (searching, "curious"),
            "lives": (collection, "record_lives"),
        }
        calls = {name: listen(patch, *place) for name, place in places.items()}
        run = fit(FALL, preset, seed=2, out=tmp_path_factory.mktemp("heard") / "run", progress=False)
    return SimpleNamespace(run=run, preset=preset, **calls)


def test_the_memory_is_fitted_again_with_agents_lives_weighted(heard):
    first, second = (kwargs for _, kwargs in heard.learners)
    iterations = heard.preset.iterations
    assert (first["steps"], second["steps"]) == (heard.preset.memory_training.steps, iterations.memory_steps)
    assert set(first["times"]) == {1} and set(second["times"]) == {1, iterations.recent_weight}
    models = [bundle.load(heard.run.folder / "rounds" / str(number) / "model") for number in (0, 1)]
    assert not models[0].core.cell.recurrent.weight.equal(models[1].core.cell.recurrent.weight)


def test_the_end_is_calibrated_again_in_every_round(heard):
    assert len(heard.calibrations) == 2


def test_every_search_and_judgement_dreams_as_the_settings_say(heard):
    assert heard.dreams
    assert all({name: kwargs[name] for name in RATES} == RATES for _, kwargs in heard.dreams)


def test_only_explorers_are_paid_for_curiosity(heard):
    assert heard.curious and all(args[1] == 2.0 for args, _ in heard.curious)
    paid = [type(args[0].heads).__name__ for args, _ in heard.dreams]
    assert paid.count("MDNHeads") == 4 * 3 + 1 and len(paid) - paid.count("MDNHeads") == 3  # search, judge, score; one score unpaid


def test_the_best_controller_lives_on_beside_the_explorer(heard):
    folder = heard.run.folder / "rounds"
    best = stages.LinearController.load(folder / "0" / "agent-0", heard.run.model.spec)
    explorer = stages.LinearController.load(folder / "1" / "agent-explorer", heard.run.model.spec)
    lived = [args[0].vector.tolist() for args, _ in heard.lives]
    assert lived == [best.vector.tolist(), explorer.vector.tolist()] and lived[0] != lived[1]
