"""World Models' iterations: explorers that are paid for the unknown, a V that goes on learning, an M that imitates."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamgym.agents.linear import LinearController
from dreamgym.data.encoded import encoded_spec
from dreamgym.data.replay import Replay
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.hub import bundle
from dreamgym.models.mdn_heads import MDNHeadsConfig
from dreamgym.models.world_model import WorldModel
from dreamgym.training import world_models as stages
from dreamgym.training import world_models_collection as collection
from dreamgym.training.loop import fit
from dreamgym.training.world_models_config import Iterations
from dreamgym.training.world_models_curiosity import curious
from dreamgym.training.world_models_learners import encoder_of
from dreamgym.training.world_models_presets import iterated
from tests.training.fall import FALL, SPEC, killed_and_resumed, tiny


def wandering(count=1):
    """Iterations with everything on."""
    preset = iterated(tiny(), count, episodes=4, curiosity=2.0, next_action=True, code_steps=3)
    settings = replace(preset.controller_training, attempts=1)
    return replace(preset, iterations=replace(preset.iterations, explorer_generations=2), controller_training=settings)


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "CHUNK", 3)
        patch.setattr(stages, "_CHECKPOINT_EVERY", 2)
        yield


@pytest.fixture(scope="module")
def wandered(tmp_path_factory):
    return fit(FALL, wandering(), seed=2, out=tmp_path_factory.mktemp("wandered") / "run", progress=False)


def logged(run, stage):
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == stage]


# ---- curiosity ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    built = WorldModel(SPEC, tiny().model).eval()
    with torch.no_grad():  # so that the members disagree
        for parameter in built.heads.members.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    built.uncertainty_median.fill_(0.01)
    built.uncertainty_scale.fill_(0.1)
    return built


def states(model, rows=32):
    noise = torch.rand(rows, model.noise_lanes, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    return model.step(model.initial(rows), torch.eye(3)[torch.arange(rows) % 3], noise)


@torch.no_grad()
def test_a_curious_dream_pays_for_uncertainty_up_to_three_units_and_ends_as_before(model):
    state = states(model)
    plain, paid = model.predict(state), curious(model, 2.0).predict(state)
    assert plain.uncertainty.max() > 0.0
    torch.testing.assert_close(paid.reward, plain.reward + 2.0 * plain.uncertainty.clamp(max=3.0))
    torch.testing.assert_close(paid.uncertainty, plain.uncertainty)
    torch.testing.assert_close(paid.continue_prob, plain.continue_prob)
    model.uncertainty_scale.fill_(1e-6)
    wild = curious(model, 2.0).predict(state).reward - plain.reward
    model.uncertainty_scale.fill_(0.1)
    assert float(wild.max()) == pytest.approx(6.0, rel=1e-5)


def test_a_curious_view_leaves_the_model_as_it_was_and_shares_its_weights(model):
    view = curious(model, 2.0)
    assert type(model.heads).__name__ == "MDNHeads"
    assert {parameter.data_ptr() for parameter in view.parameters()} == {parameter.data_ptr() for parameter in model.parameters()}


def test_rollouts_of_a_curious_dream_return_rewards_and_bonus(model):
    model.initial_states = None
    agent = LinearController(SPEC, model.core.feature_size, tiny().controller)
    parameters = np.zeros((2, agent.num_parameters), np.float32)
    options = {"rollouts": 3, "max_episode_steps": 4, "termination": "never", "bfloat16": False}
    plain = DreamRollouts(model, agent, **options).returns(parameters, 0).returns
    paid = DreamRollouts(curious(model, 5.0), agent, **options).returns(parameters, 0).returns
    assert (paid > plain).all() and (paid <= plain + 4 * 15.0).all()


def test_curiosity_without_an_ensemble_is_refused():
    alone = replace(tiny().model, heads=MDNHeadsConfig(members=1))
    with pytest.raises(ValueError, match="no ensemble whose disagreement"):
        tiny(model=alone, iterations=Iterations(count=1, curiosity=1.0))


@pytest.mark.parametrize("wrong", [{"curiosity": -1.0}, {"explorer_generations": 0}, {"code_steps": -1}])
def test_settings_of_iterations_out_of_range_say_so(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Iterations(**wrong)


def test_half_of_the_lives_are_the_explorers(tmp_path, monkeypatch):
    lived = []
    monkeypatch.setattr(collection, "record_lives", lambda agent, *_, **options: lived.append((agent, options)) or _NO_LIFE)
    preset = replace(wandering(), iterations=replace(wandering().iterations, episodes=5))
    lives = collection.Lives(SPEC, preset, tmp_path, codes=6, seed=0, env=None, build=None)
    for chunk in range(3):
        lives.collect_agents(chunk, None, agents=["best", "explorer"], model=None, round=1)
    assert [(agent, options["first"], options["episodes"]) for agent, options in lived] == [
        ("best", 0, 2),
        ("explorer", 2, 1),
        ("best", 3, 1),
        ("explorer", 4, 1),
    ]


_NO_LIFE = collection.collecting.CollectStats((), ())


def test_an_explorer_is_kept_and_what_it_was_paid_is_logged(wandered):
    explorer = LinearController.load(wandered.folder / "rounds" / "1" / "agent-explorer", SPEC)
    assert explorer.vector.any()
    assert len(logged(wandered, "explorer")) == 1
    assert {one["round"] for one in wandered.metrics["candidates"]} == {0, 1}  # explorers are never candidates


# ---- V goes on learning -------------------------------------------------------------------------------------------------


def weights(model):
    return model.encoder.vae.mean.weight


def test_v_changes_with_the_iteration_and_all_codes_with_it(wandered):
    models = [bundle.load(wandered.folder / "rounds" / str(number) / "model") for number in (0, 1)]
    assert not torch.equal(weights(models[0]), weights(models[1]))
    pixels = Replay(SPEC, wandered.folder / "replay" / "pictures")
    codes = Replay(encoded_spec(SPEC, 6), wandered.folder / "replay" / "codes")
    held_out = Replay(encoded_spec(SPEC, 6), wandered.folder / "replay" / "held_out")
    assert len(codes.episodes) + len(held_out.episodes) == len(pixels.episodes)
    assert sum(policy in collection.AGENTS for policy in pixels.policies) == 4
    valid = np.array(codes.column("valid"))[: codes.episodes[0][1]]
    expected = encoder_of(models[1], bfloat16=False)(pixels.obs_rows(np.arange(len(valid))))
    assert np.allclose(np.array(codes.column("obs"))[: len(valid)][valid], expected[valid], atol=2e-3)


def test_agents_episodes_are_weighted_after_everything_is_encoded_anew(wandered):
    codes = Replay(encoded_spec(SPEC, 6), wandered.folder / "replay" / "codes")
    lives = collection.Lives(SPEC, wandering(), wandered.folder / "replay", codes=6, seed=0, env=None, build=None)
    lived = [policy in collection.AGENTS for policy in codes.policies]
    assert lives.weights().tolist() == [3 if mine else 1 for mine in lived] and any(lived) and not all(lived)


ORDER = ["round 0: controller 0", "round 1: explorer", "round 1: live", "round 1: autoencoder", "round 1: encode", "round 1: memory"]
FIRST = 6  # its number among all stages


@pytest.mark.parametrize("stage", ["round 1: autoencoder", "round 1: encode"])
def test_a_killed_iteration_resumes_to_the_same_end(wandered, stage, tmp_path, monkeypatch):
    place = [FIRST + ORDER.index(stage), 2 if stage.endswith("autoencoder") else 0]
    resumed = killed_and_resumed(wandering(), place, tmp_path / "run", monkeypatch)
    for name, value in wandered.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.metrics == wandered.metrics


# ---- M imitates ---------------------------------------------------------------------------------------------------------


def test_the_loss_of_foretold_actions_is_logged_in_training_and_on_held_out_lives(wandered):
    lines = logged(wandered, "memory 1")
    assert any("action" in line for line in lines) and any("held_out_action" in line for line in lines)


def test_nothing_is_foretold_of_actions_unless_asked_for():
    assert not tiny().model.heads.next_action
    assert iterated(tiny(), 2).iterations.count == 2 and not iterated(tiny(), 2).model.heads.next_action
