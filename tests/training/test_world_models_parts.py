"""World Models' parts one by one: presets, learning rates, the end's threshold, lives recorded as codes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.agents.linear import LinearController
from dreamgym.data.encoded import encoded_spec, padded_episodes
from dreamgym.data.replay import Replay
from dreamgym.evaluation.returns import Returns
from dreamgym.models.mixture_overshooting import MixtureOvershooting
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Prediction, Preprocess, Spec
from dreamgym.training import world_models_calibration as calibration
from dreamgym.training.learners import Randomness
from dreamgym.training.loop import fit
from dreamgym.training.world_models_awake import judge_awake, record_lives
from dreamgym.training.world_models_calibration import blind_policies, lengths_at, search_end
from dreamgym.training.world_models_collection import AGENTS
from dreamgym.training.world_models_config import Calibration, EpisodeCollection, Iterations, MemoryTraining
from dreamgym.training.world_models_learners import CodeLearner, MemoryLearner, encoder_of, memory_rate, training_rows
from dreamgym.training.world_models_presets import world_models_preprocess, world_models_preset
from dreamgym.training.world_models_search import Candidate, best_pair
from tests.toys import CounterWorld
from tests.training.fall import SPEC, Fall, tiny

IMAGE = spaces.Box(0, 255, (64, 64, 3), np.uint8)
PEDALS = spaces.Box(np.float32([-1, 0, 0]), np.float32([1, 1, 1]))
DOOM = Spec("VizdoomTakeCover-v1", IMAGE, spaces.Discrete(3), 2100)
CARS = Spec("CarRacing-v3", IMAGE, PEDALS, 1000)


def built(name, spec):
    preset = world_models_preset(name, spec)
    with torch.device("meta"):
        model = WorldModel(spec, preset.model)
    return preset, model, LinearController(spec, model.core.feature_size, preset.controller)


def numbers(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


# ---- presets ------------------------------------------------------------------------------------------------------------


def test_the_papers_networks_have_the_papers_sizes():
    _, doom, doom_controller = built("world-models", DOOM)
    _, cars, cars_controller = built("world-models", CARS)
    wider = 4 * 512 * 2  # of TakeCover's three classes, M is told which by a one-hot, the paper's M by one number
    assert numbers(doom.encoder) == 4_446_915 and numbers(doom.core, doom.heads.end) == 1_678_785 + wider
    assert numbers(cars.encoder) == 4_348_547 and numbers(cars.core) == 422_368
    assert (doom_controller.num_parameters, cars_controller.num_parameters) == (1088, 867)


def test_the_papers_dream_ends_where_the_logit_is_above_zero():
    preset, _, _ = built("world-models", DOOM)
    offset = -np.log(preset.model.heads.terminal_weight)
    chances = [1 / (1 + np.exp(-(logit + offset))) for logit in (-1e-6, 1e-6)]
    assert chances[0] < preset.model.defaults.end_probability < chances[1]


def test_survival_pays_for_every_tic_and_other_worlds_have_a_reward_head():
    faster = replace(DOOM, preprocess=Preprocess(size=64, action_repeat=4))
    assert world_models_preset("world-models-fast", faster).model.heads.reward.per_step == 4.0
    assert world_models_preset("world-models-fast", CARS).model.heads.reward.units == 200


def test_take_cover_is_steered_left_none_right():
    _, _, controller = built("world-models", DOOM)
    thirds = torch.atanh(torch.tensor([[-0.34], [-0.33], [0.33], [0.34]]))
    assert DOOM.to_env_action(controller.actions.model_action(thirds, DOOM)).tolist() == [2, 0, 0, 1]


def test_the_paper_sees_every_frame_and_the_fast_preset_as_by_default():
    seen = replace(DOOM, preprocess=Preprocess(size=64, crop=(28, 92, 0, 160), action_repeat=4))
    assert world_models_preprocess("world-models", seen) == Preprocess(size=64)
    assert world_models_preprocess("world-models-fast", seen) == seen.preprocess
    large = replace(SPEC, observation_space=spaces.Box(0, 255, (96, 96, 3), np.uint8))
    assert world_models_preprocess("world-models-fast", large).size == 64


def test_merged_pedals_and_classes_have_controllers_that_fit():
    for space in (spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(5)):
        _, _, controller = built("world-models-fast", replace(CARS, action_space=space))
        assert controller.actions.outputs(replace(CARS, action_space=space)) == (2 if isinstance(space, spaces.Box) else 5)


def test_a_world_without_a_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="read one image"):
        fit("Pendulum-v1", "world-models-fast", out=tmp_path, progress=False)


@pytest.mark.parametrize("wrong", [{"holds": ()}, {"pixel_frames": 0}, {"collector": "other"}, {"env_steps": 0}])
def test_settings_out_of_range_say_so(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EpisodeCollection(**wrong)


# ---- learning -----------------------------------------------------------------------------------------------------------


def test_the_papers_learning_rate_ends_where_its_log_says():
    settings = world_models_preset("world-models", DOOM).memory_training
    assert memory_rate(settings, 0, start=1e-3, steps=24_400) == 1e-3
    assert memory_rate(settings, 24_400, start=1e-3, steps=24_400) == pytest.approx(7.86e-4, abs=5e-7)


def test_a_cosine_rate_is_halved_half_way():
    settings = MemoryTraining(rate="cosine")
    assert memory_rate(settings, 50, start=2.0, steps=100) == pytest.approx(1.0)


def recorded(model, agent, episodes=4, **changes):
    codes = Replay(encoded_spec(SPEC, model.encoder.embed_size))
    settings = Iterations(burst_chance=1.0, burst_steps=3)
    record_lives(agent, model, Fall, encoder_of(model, bfloat16=False), codes, episodes=episodes, seed=1, settings=settings, **changes)
    return codes


class Always:
    """Acts alike, whatever it sees."""

    def __init__(self, action):
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full(len(observation), self.action), state


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return WorldModel(SPEC, tiny().model).eval()


@pytest.fixture(scope="module")
def codes(model):
    return recorded(model, Always(1), episodes=6)


def learner(model, codes, **changes):
    settings = MemoryTraining(steps=6, batch=2, **changes)
    held_out = [padded_episodes(codes, [0, 1])]
    options = {"stage": "memory", "bfloat16": False, "steps": 6, "learning_rate": 1e-2}
    return MemoryLearner(model, settings, Randomness(0), codes, held_out, **options)


def fresh(model):
    other = WorldModel(SPEC, model.config)
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("sequences", ["episodes", "streams"])
def test_a_learner_that_is_saved_goes_on_as_if_it_had_not_been(model, codes, sequences):
    ahead, kept = fresh(model), fresh(model)
    one, first = learner(ahead, codes, sequences=sequences, length=8), learner(kept, codes, sequences=sequences, length=8)
    for step in range(3):
        one.step(step)
        if step < 2:
            first.step(step)
    second = learner(kept, codes, sequences=sequences, length=8)
    second.load_state_dict(first.state_dict())
    second.step(2)
    for name, value in ahead.state_dict().items():
        assert torch.equal(value, kept.state_dict()[name]), name


def test_memory_is_carried_from_chunk_to_chunk_within_a_pass(model, codes, monkeypatch):
    memory = learner(fresh(model), codes, sequences="streams", length=8)
    chunks, losses, starts = memory.streams.batches_per_pass, memory._losses, []
    monkeypatch.setattr(memory, "_losses", lambda batch, generator, start, step: starts.append(start) or losses(batch, generator, start))
    left = []
    for step in range(chunks + 1):
        memory.step(step)
        left.append(memory.carried)
    assert chunks > 1 and starts[0] is None and starts[chunks] is None
    assert all(start is before for start, before in zip(starts[1:chunks], left)) and (left[0].deter != 0).any()


def test_no_element_of_the_gradient_exceeds_its_bound(model, codes):
    memory = learner(fresh(model), codes, clip_value=1e-5)
    memory.step(0)
    steepest = max(float(parameter.grad.abs().max()) for parameter in memory.parameters if parameter.grad is not None)
    assert steepest == pytest.approx(1e-5)


def test_losses_in_bfloat16_are_nearly_the_same(model, codes):
    memory = learner(fresh(model), codes)
    exact = memory.evaluate()["held_out_latent"]
    memory.bfloat16 = True
    coarse = memory.evaluate()["held_out_latent"]
    assert coarse != exact and coarse == pytest.approx(exact, rel=0.02)


def test_the_weights_that_did_best_on_held_out_episodes_are_kept(model, codes):
    trained = fresh(model)
    memory = learner(trained, codes)
    best = memory.evaluate()["held_out_total"]
    with torch.no_grad():
        trained.core.out.weight.add_(3.0)
    assert memory.evaluate()["held_out_total"] > best
    memory.take_best()
    assert memory.evaluate()["held_out_total"] == best


def test_weights_from_before_it_learned_from_dreams_are_not_gone_back_to(model, codes):
    trained = fresh(model)
    settings = MemoryTraining(steps=6, batch=2, overshooting=MixtureOvershooting(steps=2, starts=8))
    options = {"stage": "memory", "bfloat16": False, "steps": 6, "learning_rate": 1e-2, "overshoot_from": 3}
    memory = MemoryLearner(trained, settings, Randomness(0), codes, [padded_episodes(codes, [0, 1])], **options)
    assert "overshot_latent" not in memory.step(2) and "held_out_overshot_latent" not in memory.evaluate(2)
    assert memory.best is not None
    assert "overshot_latent" in memory.step(3) and memory.best is None
    assert memory.evaluate(3)["held_out_overshot_continue"] > 0.0 and memory.best is not None


def test_the_members_large_error_does_not_choose_the_weights(model, codes):
    trained = fresh(model)
    memory = learner(trained, codes)
    with torch.no_grad():
        for parameter in trained.heads.members.parameters():
            parameter.add_(100.0)
        before = memory.evaluate()
        trained.heads.load_state_dict(model.heads.state_dict())
        trained.core.out.weight.add_(3.0)
    after = memory.evaluate()
    assert after["held_out_total"] < before["held_out_total"] and after["held_out_latent"] > before["held_out_latent"]
    memory.take_best()
    assert torch.equal(trained.core.out.weight, model.core.out.weight)


def test_pictures_of_held_out_episodes_are_not_learned_from():
    pixels = Replay(SPEC)
    for steps in (3, 4, 5):
        images = np.zeros((steps + 1, 64, 64, 3), np.uint8)
        valid = np.arange(steps + 1) < steps
        pixels.add_episode(images, np.ones(steps, np.int64), np.ones(steps), True, False, valid)
    rows, unseen = training_rows(pixels, 2)
    assert rows.tolist() == [0, 1, 2, 9, 10, 11, 12, 13]
    assert unseen.tolist() == [4, 5, 6, 7]


def test_the_reconstructions_weight_changes_over_the_steps_as_asked(model):
    pixels = Replay(SPEC)
    rng = np.random.default_rng(0)
    pixels.add_episode(rng.integers(0, 255, (9, 64, 64, 3), np.uint8), np.ones(8, np.int64), np.ones(8), False, True)
    gradients = []
    for weights in ((4.0, 1.0), (1.0, 1.0)):
        settings = replace(tiny().code_training, reconstruction_weight=weights, kl_tolerance=1e4)
        vae = fresh(model).encoder.vae
        CodeLearner(vae, settings, Randomness(0), bfloat16=False).step(pixels, np.arange(9), 2)  # half way: a weight of 2
        gradients.append(vae.decoder.deconv1.weight.grad)
    assert torch.allclose(gradients[0], 2.0 * gradients[1], rtol=1e-4, atol=1e-7)


# ---- the end ------------------------------------------------------------------------------------------------------------


class Fuse(CounterWorld):
    """Burns a step at a time: after t steps the chance of an end is t/20."""

    def step(self, state, action, noise, temperature=1.0):
        return type(state)(state.x + 1.0)

    def predict(self, state):
        return Prediction(torch.ones_like(state.x[:, 0]), 1.0 - state.x[:, 0] / 20.0, torch.zeros_like(state.x[:, 0]))


def test_lengths_count_the_step_in_which_the_chance_is_above():
    chances = torch.tensor([[0.1, 0.6, 0.2], [0.1, 0.5, 0.5], [0.9, 0.0, 0.0]])
    assert lengths_at(chances, 0.5).tolist() == [2, 3, 1]


def test_the_search_finds_where_dreams_live_as_long_as_awake():
    world = Fuse(starts=(0.0,), first=(True,), steps=20)
    policies = blind_policies(world.spec, Calibration(periods=(2,)))
    real = {name: Returns((11.0,), (11,), (0,)) for name in policies}
    found = search_end(world, real, policies, dreams=3, seed=0)
    assert 0.5 <= found.end_probability < 0.55
    assert found.log_ratio == pytest.approx(0.0)


def test_dreams_that_end_by_chance_get_the_temperature_at_which_lives_come_closest(model, tmp_path, monkeypatch):
    distances = {0.5: None, 1.0: 0.3, 1.2: 0.1, 1.5: 0.2}  # None: nobody died

    def lived(model, *args, real=None, **kwargs):
        return SimpleNamespace(real={}, log_length_ratio=distances[model.defaults.temperature])

    monkeypatch.setattr(calibration, "fixed_policy_fidelity", lived)
    model = fresh(model)
    calibration.set_defaults(model, termination="sample")
    settings = Calibration(temperatures=tuple(distances))
    found, checked = calibration.calibrate_lives(model, settings, Fall, tmp_path / "blind.json", seed=0)
    assert found is None and checked.log_length_ratio == 0.1 and model.defaults.temperature == 1.2
    calibration.calibrate_lives(model, Calibration(), Fall, tmp_path / "blind.json", seed=0)
    assert model.defaults.temperature == 1.2


def test_remembered_states_are_any_but_the_last_of_a_life(model, codes):
    everything = calibration.draw_remembered(model, codes, (), episodes=100, size=10_000, seed=0)
    assert len(everything.is_first) == len(codes) - len(codes.episodes)
    assert not everything.is_first.any()
    few, again = (calibration.draw_remembered(model, codes, (), episodes=100, size=9, seed=0) for _ in range(2))
    assert len(few.is_first) == 9 and torch.equal(few.state.stoch, again.state.stoch)


def test_half_of_the_remembered_states_are_of_agents_lives(model, monkeypatch):
    drawn = []
    policies = ["StickyRandom"] * 300 + ["ActorCritic"] * 4 + ["LinearController"] * 4

    def living(model, codes, episodes, size, rng, seed):
        drawn.append((episodes.tolist(), size))
        return model.initial(size)

    monkeypatch.setattr(calibration, "_living", living)
    bank = calibration.draw_remembered(model, SimpleNamespace(policies=policies), AGENTS, episodes=400, size=100, seed=0)
    assert len(bank.is_first) == 100
    assert sorted(drawn[0][0]) == list(range(300, 308)) and drawn[0][1] == 50
    others = [episode for episodes, _ in drawn[1:] for episode in episodes]
    assert len(set(others)) == 200 and max(others) < 300 and sum(size for _, size in drawn[1:]) >= 50


def test_blind_policies_sweep_between_the_two_classes_that_are_named():
    policies = blind_policies(DOOM, world_models_preset("world-models-fast", DOOM).calibration)
    sweeps = [policy for name, policy in policies.items() if "sweep" in name]
    assert sorted(policy.period for policy in sweeps) == [4, 8, 16, 28, 32, 40, 64]
    assert {tuple(map(int, policy.actions)) for policy in sweeps} == {(1, 2)}
    assert {"always 0", "always 1", "always 2", "random"} <= set(policies)


# ---- awake --------------------------------------------------------------------------------------------------------------


def actions_of(codes, number):
    start, stop = codes.episodes[number]
    return codes.sequence(start, stop).prev_action[0, 1:].argmax(-1)


def test_bursts_of_random_actions_interrupt_every_second_life(model):
    codes = recorded(model, Always(1), num_envs=1)
    assert all((actions_of(codes, number) == 1).all() for number in (0, 2))
    assert all((actions_of(codes, number) != 1).any() for number in (1, 3))


def test_lives_repeat_given_their_seed_and_depend_on_it(model):
    one, again = recorded(model, Always(1), num_envs=1), recorded(model, Always(1), num_envs=1)
    assert np.array_equal(one.column("obs"), again.column("obs"))
    later = recorded(model, Always(1), num_envs=1, episodes=2, first=2)
    assert torch.equal(actions_of(later, 1), actions_of(one, 3))


def test_codes_of_a_life_are_those_of_what_it_showed(model):
    codes = recorded(model, Always(1), episodes=1)
    env, rng = Fall(), np.random.default_rng([1, 0])
    shown = [env.reset(seed=int(rng.integers(2**31)))[0]]
    start, stop = codes.episodes[0]
    for _ in range(stop - start - 1):
        shown.append(env.step(1)[0])
    valid = codes.column("valid")[start:stop]
    expected = encoder_of(model, bfloat16=False)(np.stack(shown))
    assert np.allclose(codes.column("obs")[start:stop][valid], expected[valid], atol=2e-3)
    assert not codes.column("obs")[start:stop][~valid].any()


def test_a_judgement_gives_one_return_per_seed_however_many_worlds_run_at_once(model):
    from functools import partial

    from dreamgym.envs import make_env
    from tests.training.fall import FALL

    build = partial(make_env, FALL)
    together = judge_awake(Always(2), model, build, seeds=range(7, 12), num_envs=3)
    alone = judge_awake(Always(2), model, build, seeds=range(7, 12), num_envs=1)
    assert together.returns == alone.returns
    assert together.seeds == tuple(range(7, 12))


# ---- the choice ------------------------------------------------------------------------------------------------------------


def test_the_latest_of_those_that_only_luck_sets_apart_is_taken():
    first, last = Candidate(0, 3, [900.0, 1100.0] * 2, 1700.0), Candidate(1, 3, [950.0, 1000.0] * 2, 1200.0)  # 1000 ± 50, 975
    early, worse = Candidate(0, 0, [1000.0] * 4, 0.0), Candidate(1, 0, [940.0] * 4, 0.0)
    assert best_pair([first, early, worse, last]) is last
    assert best_pair([first, early, worse]) is first


def test_who_was_judged_in_dreams_only_is_taken_by_them():
    assert best_pair([Candidate(0, 0, [], 20.0), Candidate(1, 0, [], 19.0)]).round == 0
