"""Evolving controllers: what it finds, what luck candidates share, and runs that go on as if never stopped."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import LinearController, LinearControllerConfig
from dreamgym.dreams.awake import LatentVectorObservation
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.structs import Spec
from dreamgym.training import evolve as evolving
from dreamgym.training.evolve import evolve
from dreamgym.training.vector_rollouts import VectorRollouts
from tests.toys import CounterWorld

SMALL = CMAESConfig(population=8)
CARTPOLE = Spec("CartPole-v1", gym.make("CartPole-v1").observation_space, spaces.Discrete(2), max_episode_steps=500)


def policy():
    """Two parameters."""
    return LinearController(CounterWorld().spec, 2)


class Valley:
    """Returns -(distance to (1, -1))^2 plus luck that is a function of the seed; remembers how it was asked."""

    def __init__(self, rollouts=4, luck=0.1):
        self.rollouts, self.luck = rollouts, luck
        self.asked = []

    def __call__(self, parameters, seed):
        self.asked.append((parameters.shape, seed))
        luck = self.luck * np.random.default_rng(seed).normal(size=(len(parameters), self.rollouts))
        return -((parameters - [1.0, -1.0]) ** 2).sum(1, keepdims=True) + luck


def run(generations, folder=None, evaluator=None, seed=0, **options):
    options = {"config": SMALL, "evaluate_every": 4, "progress": False, **options}
    return evolve(policy(), evaluator or Valley(), generations=generations, seed=seed, folder=folder, **options)


def lived(result):
    """Everything but the clock."""
    return [{**vars(generation), "seconds": 0.0} for generation in result.history]


# ---- the search ---------------------------------------------------------------------------------------------------------


def test_the_controller_comes_out_at_the_top():
    result = run(60)
    np.testing.assert_allclose(result.controller.vector, [1.0, -1.0], atol=0.2)
    assert result.history[-1].mean > result.history[0].mean + 1.0


def test_it_begins_where_the_policy_stands():
    begun = policy()
    begun.vector = [1.0, -1.0]
    quiet = Valley(luck=0.0)
    first = evolve(begun, quiet, generations=1, config=CMAESConfig(8, sigma=0.01), progress=False).history[0]
    assert first.best > -0.01


def test_every_generation_has_a_fresh_seed_and_every_judgement_its_own():
    evaluator, judge = Valley(), Valley()
    run(8, evaluator=evaluator, judge=judge)
    assert [shape for shape, _ in evaluator.asked] == [(8, 2)] * 8
    assert [shape for shape, _ in judge.asked] == [(1, 2)] * 2
    seeds = [seed for _, seed in evaluator.asked + judge.asked]
    assert len(set(seeds)) == 10 and all(0 <= seed < 2**31 for seed in seeds)


def test_the_centre_is_judged_now_and_then_and_at_the_end():
    assert [generation.number for generation in run(10).history if generation.centre is not None] == [4, 8, 10]


def test_the_bar_shows_best_mean_and_the_last_centre(monkeypatch):
    shown = []
    monkeypatch.setattr(evolving.tqdm, "set_postfix", lambda self, values: shown.append(dict(values)))
    history = run(5, progress=True).history
    assert [list(values) for values in shown] == [["best", "mean"]] * 3 + [["best", "mean", "centre"]] * 2
    last = history[-1]
    assert shown[-1] == {"best": f"{last.best:.4g}", "mean": f"{last.mean:.4g}", "centre": f"{last.centre:.4g}"}


def test_without_a_judge_the_evaluator_is_asked_for_a_population_of_centres():
    populations = []

    def evaluator(parameters, seed):
        populations.append(parameters)
        return Valley()(parameters, seed)

    centre = run(4, evaluator=evaluator).history[-1].centre
    assert [len(population) for population in populations] == [8] * 5
    assert (populations[-1] == populations[-1][0]).all() and not (populations[0] == populations[0][0]).all()
    assert centre is not None


def test_the_best_centre_is_kept_even_if_later_ones_are_worse():
    """As where dreams flatter: the judge, awake, thinks less of every next one."""
    seen = []

    def judge(parameters, seed):
        seen.append(np.array(parameters[0]))
        return np.full((1, 3), -float(len(seen)))

    result = run(12, judge=judge)
    np.testing.assert_allclose(result.controller.vector, seen[0], rtol=1e-6)
    assert (result.centre_return, result.generation) == (-1.0, 4)
    assert not np.allclose(seen[0], seen[-1])


def test_where_a_search_begins_may_be_what_it_ends_with():
    judge = Valley(luck=0.0)
    agent = policy()
    agent.vector = [1.0, -1.0]  # the top
    options = {"config": SMALL, "evaluate_every": 1, "progress": False, "judge": judge}
    result = evolve(agent, Valley(), generations=3, judge_start=True, **options)
    assert (result.generation, result.centre_return) == (0, 0.0)
    np.testing.assert_array_equal(result.controller.vector, np.float32([1.0, -1.0]))
    assert len(result.history) == 3 and len({seed for _, seed in judge.asked}) == 4  # the start is no generation, and has a seed of its own
    agent.vector = [1.0, -1.0]
    assert evolve(agent, Valley(), generations=3, **options).generation > 0


def test_a_judged_start_is_remembered_by_a_run_that_was_stopped(tmp_path):
    def go(generations):
        agent = policy()
        agent.vector = [1.0, -1.0]
        options = {"config": SMALL, "evaluate_every": 1, "progress": False, "judge_start": True, "folder": tmp_path}
        return evolve(agent, Valley(), generations=generations, judge=Valley(luck=0.0), **options)

    assert go(2).generation == go(4).generation == 0
    assert go(4).centre_return == 0.0
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [0, 1, 2, 3, 4]
    assert logged[0]["centre"] == 0.0 and logged[0]["centre_error"] == 0.0


def test_weight_decay_pulls_towards_small_parameters():
    def flat(parameters, seed):
        return np.zeros((len(parameters), 1))

    sizes = []
    for decay in (0.0, 1.0):
        begun = policy()
        begun.vector = [2.0, 2.0]
        sizes.append(np.abs(evolve(begun, flat, generations=15, config=SMALL, weight_decay=decay, progress=False).controller.vector).max())
    assert sizes[1] < sizes[0] - 0.5


def test_what_the_history_says_is_what_was_measured():
    def evaluator(parameters, seed):
        return np.arange(len(parameters) * 2.0).reshape(-1, 2)

    first = run(1, evaluator=evaluator).history[0]
    assert (first.mean, first.best) == (7.5, 14.5)
    assert (first.centre, first.centre_error) == (0.5, 0.5 / np.sqrt(2))


@pytest.mark.parametrize("wrong", [np.zeros(8), np.zeros((4, 8)), np.zeros((8, 0))])
def test_an_evaluator_that_answers_in_another_shape_is_told_so(wrong):
    with pytest.raises(ValueError, match="R rollouts per candidate"):
        run(1, evaluator=lambda parameters, seed: wrong)


# ---- keeping ------------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """Somebody pulled the plug."""


def stop_after(number):
    def report(generation):
        if generation.number == number:
            raise Stop

    return report


@pytest.mark.parametrize("save_every", [0.0, 1e9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(save_every, tmp_path):
    """With the last checkpoint just before, or lost altogether."""
    whole = run(11, tmp_path / "whole")
    with pytest.raises(Stop):
        run(11, tmp_path / "parts", save_every=save_every, report=stop_after(6))
    parts = run(11, tmp_path / "parts")
    np.testing.assert_array_equal(whole.controller.vector, parts.controller.vector)
    assert lived(whole) == lived(parts)
    assert (whole.centre_return, whole.generation) == (parts.centre_return, parts.generation)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 12))


def test_a_finished_run_is_read_and_not_repeated(tmp_path):
    first = run(5, tmp_path)
    evaluator = Valley()
    again = run(5, tmp_path, evaluator)
    assert evaluator.asked == []
    np.testing.assert_array_equal(first.controller.vector, again.controller.vector)


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path):
    run(5, tmp_path)
    assert lived(run(9, tmp_path))[5:] == lived(run(9))[5:]


@pytest.mark.parametrize("other", [{"seed": 1}, {"config": CMAESConfig(9)}, {"config": CMAESConfig(8, sigma=0.2)}, {"weight_decay": 1.0}])
def test_a_folder_with_another_run_is_refused(other, tmp_path):
    run(2, tmp_path)
    with pytest.raises(ValueError, match="another run"):
        run(3, tmp_path, **other)


# ---- rollouts in vector environments ------------------------------------------------------------------------------------


def dreams(num_envs, mode="Disabled", **world):
    return DreamVectorEnv(CounterWorld(sigma=0.4, bound=2.0, steps=12, **world), num_envs, obs_type="latent", autoreset_mode=mode)


PARAMETERS = np.array([[0.0, 0.0], [0.5, 0.0], [-2.0, 0.3]], np.float32)


@pytest.mark.parametrize("mode", ["Disabled", "NextStep", "SameStep"])
@pytest.mark.parametrize("num_envs", [1, 5, 12, 20])
def test_rollouts_are_the_same_whatever_the_slots_and_whoever_resets_them(mode, num_envs):
    found = VectorRollouts(dreams(num_envs, mode), policy(), rollouts=4).returns(PARAMETERS, 7)
    expected = VectorRollouts(dreams(12), policy(), rollouts=4).returns(PARAMETERS, 7)
    assert found.returns.shape == (3, 4) and found.lengths.float().std() > 0.0
    np.testing.assert_allclose(found.returns, expected.returns, rtol=1e-5, atol=1e-5)
    assert found.lengths.tolist() == expected.lengths.tolist() and found.ended.tolist() == expected.ended.tolist()
    assert found.ended.any() and not found.ended.all()


def test_rollouts_stepped_one_by_one_equal_those_in_one_batch_of_dreams():
    model = CounterWorld(sigma=0.4, bound=2.0, steps=12)
    batch = DreamRollouts(model, policy(), candidates=3, rollouts=4, bfloat16=False).returns(PARAMETERS, 7)
    slots = VectorRollouts(dreams(5), policy(), rollouts=4).returns(PARAMETERS, 7)
    np.testing.assert_allclose(batch.returns, slots.returns, rtol=1e-5, atol=1e-5)
    assert batch.lengths.tolist() == slots.lengths.tolist() and batch.ended.tolist() == slots.ended.tolist()


def test_equal_candidates_have_equal_luck_and_rollouts_have_their_own():
    found = VectorRollouts(dreams(5), policy(), rollouts=6).returns(np.repeat(PARAMETERS[:1], 3, 0), 7)
    np.testing.assert_array_equal(found.returns, found.returns[:1].expand(3, -1))
    assert len(set(found.returns[0].tolist())) == 6


def test_an_episode_is_cut_where_asked():
    found = VectorRollouts(dreams(5), policy(), rollouts=4, max_episode_steps=3).returns(PARAMETERS, 7)
    assert found.lengths.max() == 3 and not found.ended[found.lengths == 3].all()


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_real_episodes_are_those_of_the_plain_environment(mode):
    player = LinearController(CARTPOLE, 4)
    parameters = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    envs = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=mode)
    found = VectorRollouts(envs, player, rollouts=4).returns(parameters, 100)
    env = gym.make("CartPole-v1")
    for candidate in range(2):
        player.vector = parameters[candidate]
        for rollout in range(4):
            obs, _ = env.reset(seed=100 + rollout)
            steps, over, terminated = 0, False, False
            while not over:
                obs, _, terminated, truncated, _ = env.step(int(player.predict(obs)[0]))
                steps, over = steps + 1, terminated or truncated
            assert found.lengths[candidate, rollout] == steps == found.returns[candidate, rollout]
            assert found.ended[candidate, rollout] == terminated


def test_real_environments_seen_through_a_model_are_played_on_its_features():
    """A dream stands for reality here: seen without error, its features are what the policy reads in it."""
    world = CounterWorld(sigma=0.4, bound=2.0, steps=12)
    real = DreamVectorEnv(world, 5, autoreset_mode="Disabled", obs_type="vector")
    found = VectorRollouts(LatentVectorObservation(real, world), policy(), rollouts=4).returns(PARAMETERS[:1], 7)
    expected = VectorRollouts(dreams(5), policy(), rollouts=4).returns(PARAMETERS[:1], 7)
    np.testing.assert_array_equal(found.returns, expected.returns)  # this candidate does nothing, whatever it believes


def test_environments_that_do_not_fit_the_policy_are_refused():
    envs = SyncVectorEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(ValueError, match="LatentVectorObservation"):
        VectorRollouts(envs, policy(), rollouts=1)
    with pytest.raises(ValueError, match="take Discrete"):
        VectorRollouts(envs, LinearController(CounterWorld().spec, 4), rollouts=1)


# ---- together -----------------------------------------------------------------------------------------------------------


def test_a_controller_learns_in_dreams_to_go_where_it_pays():
    """The reward is the place, actions move it by at most 1, and beyond 5 the dream ends: up to 5 in a few steps, then stay."""
    model = CounterWorld(sigma=0.1, steps=10)
    one = LinearController(model.spec, 2, LinearControllerConfig(bias=True))
    rollouts = DreamRollouts(model, one, candidates=8, rollouts=4)
    result = evolve(
        one, rollouts.returns, generations=25, config=SMALL, progress=False, judge=VectorRollouts(dreams(4), one, rollouts=4).returns
    )
    assert result.history[-1].mean > result.history[0].mean + 10.0
    assert result.history[-1].length is not None and result.history[-1].length > 8
