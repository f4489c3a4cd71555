"""Planners on worlds whose best plans are known by hand. Numbers: specs/planet.md 8.1 (10 to 12), specs/dreamer.md F.3."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from dreamgym.agents.belief import StepKey
from dreamgym.agents.planning import CEM, MPPI, CEMConfig, MPPIConfig, Planner, PlanningPolicy, load_planner
from dreamgym.errors import InvalidModelError, ModelNotFoundError, NonFiniteDreamError
from dreamgym.structs import Prediction, Spec
from tests.models.builders import tiny_ensemble, tiny_rssm
from tests.toys import CorridorWorld, CounterWorld, PictureWorld, PointState

QUICK = CEMConfig(horizon=4, iterations=5, candidates=100, elites=10)


class World:
    """x is whatever `step` makes of it; deterministic, endless and certain unless a test says otherwise."""

    noise_lanes = 0
    reward_low = 0.0

    def __init__(self, action_space: spaces.Space[Any], size: int) -> None:
        self.spec = Spec("toy/World", spaces.Box(-9.0, 9.0, (size,), np.float32), action_space, max_episode_steps=20)
        self.size = size

    def initial(self, batch_size: int) -> PointState:
        return PointState(torch.zeros(batch_size, self.size))

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(state.x + action)

    def predict(self, state: PointState) -> Prediction:
        reward = self.reward(state.x)
        return Prediction(reward, self.alive(state.x), torch.zeros_like(reward))

    def reward(self, x: Tensor) -> Tensor:
        return x.sum(1)

    def alive(self, x: Tensor) -> Tensor:
        return torch.ones(len(x))

    def features(self, state: PointState) -> Tensor:
        return state.x

    def observe(self, state: PointState, prev_action: Tensor, obs: Tensor, is_first: Tensor, noise: Tensor) -> PointState:
        return PointState(obs)


class Target(World):
    """Every action is judged alone: reward -|a - target|^2, the quadratic of specs/planet.md 8.1-10."""

    def __init__(self, size: int, target: float = 0.3) -> None:
        super().__init__(_box(size), size)
        self.target = target

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(action)

    def reward(self, x: Tensor) -> Tensor:
        return -(x - self.target).square().sum(1)


class DoubleIntegrator(World):
    """x = (position, speed); the action is a force; reward for being at the origin at rest."""

    def __init__(self) -> None:
        super().__init__(_box(1), 2)

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        position, speed = state.x.unbind(1)
        speed = speed + 0.2 * action[:, 0]
        return PointState(torch.stack([position + 0.2 * speed, speed], 1))

    def reward(self, x: Tensor) -> Tensor:
        return -(x[:, 0] ** 2 + 0.1 * x[:, 1] ** 2)


class Pendulum(World):
    """Gymnasium's Pendulum-v1, x = (angle, speed), upright is 0: pushing straight up is beyond the motor, swinging is not."""

    def __init__(self) -> None:
        super().__init__(_box(1), 2)

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        angle, speed = state.x.unbind(1)
        speed = (speed + (15.0 * torch.sin(angle) + 3.0 * 2.0 * action[:, 0]) * 0.05).clamp(-8.0, 8.0)
        return PointState(torch.stack([angle + speed * 0.05, speed], 1))

    def reward(self, x: Tensor) -> Tensor:
        wrapped = torch.remainder(x[:, 0] + np.pi, 2 * np.pi) - np.pi
        return -(wrapped**2 + 0.1 * x[:, 1] ** 2)


class Trap(World):
    """On a line, 5 a step beyond x = 2, but what stands between 0.5 and 2 dies; a modest 1 a step lies below x = -1."""

    def __init__(self) -> None:
        super().__init__(_box(1), 1)

    def reward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 2.0, 5.0, torch.where(x[:, 0] < -1.0, 1.0, 0.0))

    def alive(self, x: Tensor) -> Tensor:
        return (~((x[:, 0] > 0.5) & (x[:, 0] < 2.0))).float()


class Lock(World):
    """Two dials of three and two positions; the reward counts how often (2, 0) is set."""

    def __init__(self) -> None:
        super().__init__(spaces.MultiDiscrete([3, 2]), 5)

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(action)

    def reward(self, x: Tensor) -> Tensor:
        return x[:, 2] * x[:, 3]


class Lottery(World):
    """The reward is the noise: a candidate is as good as its luck."""

    noise_lanes = 1

    def __init__(self) -> None:
        super().__init__(_box(1), 1)

    def step(self, state: PointState, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> PointState:
        return PointState(noise)


def _box(size: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (size,), np.float32)


def seeds_key(count: int) -> StepKey:
    """First steps of `count` runs that differ in their seed."""
    zero = torch.zeros(count, dtype=torch.int64)
    return StepKey(torch.arange(count), zero, zero)


def drive(planner: Planner, state: PointState, steps: int) -> tuple[PointState, float]:
    """Plan and execute in the planner's own model, which is then the truth: the last states and the mean return."""
    total, memory = 0.0, None
    key = StepKey.of(0, len(state.x))
    for step in range(steps):
        action, memory = planner.act(state, memory, replace(key, step=key.step + step), deterministic=True)
        state = planner.model.step(state, action, torch.full((len(state.x), planner.model.noise_lanes), 0.5))
        total += float(planner.model.predict(state).reward.mean())
    return state, total


# ---- the cross-entropy method: planet.md 8.1-10, dreamer.md F.3 -----------------------------------------------------------


def test_cem_finds_a_quadratic_optimum_in_ten_iterations() -> None:
    world = Target(1)
    proposal = CEM(world).search(world.initial(20), seeds_key(20)).proposal
    assert proposal.spread is not None
    assert (proposal.centre - 0.3).abs().max() < 0.02
    assert 0.005 < proposal.spread.mean() < 0.015


def test_ten_iterations_do_not_converge_in_72_variables_and_need_not() -> None:
    world = Target(6)
    proposal = CEM(world).search(world.initial(20), seeds_key(20)).proposal
    assert proposal.spread is not None
    assert 0.03 < (proposal.centre - 0.3).abs().max() < 0.2
    assert 0.12 < proposal.spread.mean() < 0.15


@pytest.mark.parametrize(("size", "low", "high"), [(1, 0.965, 0.995), (6, 0.5, 0.85)])
def test_an_optimum_outside_the_box_is_approached_from_inside(size: int, low: float, high: float) -> None:
    world = Target(size, target=2.0)
    centre = CEM(world).search(world.initial(20), seeds_key(20)).proposal.centre
    assert low < centre.mean() < high
    assert centre.max() <= 1.0


def test_same_seed_gives_the_identical_plan_and_another_seed_another() -> None:
    world = CounterWorld(sigma=0.5)
    first, again, other = (CEM(world, QUICK).plan(world.initial(3), StepKey.of(seed, 3)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_step_of_an_episode_has_its_own_noise() -> None:
    world, key = CounterWorld(sigma=0.5), StepKey.of(0, 1)
    later = replace(key, step=key.step + 1)
    assert not torch.equal(CEM(world, QUICK).plan(world.initial(1), key), CEM(world, QUICK).plan(world.initial(1), later))


@pytest.mark.parametrize("planner", [CEM(CounterWorld(sigma=0.5), QUICK), MPPI(CounterWorld(sigma=0.5), MPPIConfig(candidates=80))])
def test_a_batch_of_two_different_states_equals_two_calls(planner: Planner) -> None:
    states, keys = PointState(torch.tensor([[-3.0], [4.9]])), StepKey.of(7, 2)
    together = planner.search(states, keys)
    for row in range(2):
        alone = planner.search(states[row : row + 1], keys[row : row + 1])
        assert torch.allclose(together[row : row + 1].action, alone.action, atol=1e-6)
        assert torch.allclose(together[row : row + 1].score, alone.score, atol=1e-5)


@pytest.mark.parametrize("max_rows", [1, 33, 100])
def test_chunks_change_nothing(max_rows: int) -> None:
    world = CounterWorld(sigma=0.5)
    states, key = PointState(torch.tensor([[-3.0], [1.0]])), StepKey.of(0, 2)
    small = replace(QUICK, candidates=30, iterations=2)
    whole = CEM(world, small).search(states, key)
    parts = CEM(world, replace(small, max_rows=max_rows)).search(states, key)
    assert torch.allclose(whole.proposal.centre, parts.proposal.centre, atol=1e-6)


def test_random_shooting_is_worse_than_cem_with_as_many_dreams() -> None:
    world, key = Target(1), seeds_key(20)
    shooting = CEM(world, CEMConfig(iterations=1, candidates=1000, elites=1)).search(world.initial(20), key)
    searching = CEM(world, CEMConfig(iterations=10, candidates=100, elites=10)).search(world.initial(20), key)
    errors = [(plan.proposal.centre - 0.3).square().mean() for plan in (shooting, searching)]
    assert errors[1] < 0.2 * errors[0]


def test_no_iterations_act_at_the_middle_with_noise_of_the_asked_size() -> None:
    world = Target(2)
    planner = CEM(world, CEMConfig(iterations=0, explore_noise=0.3))
    assert torch.equal(planner.plan(world.initial(2), StepKey.of(0, 2)), torch.zeros(2, 2))
    explored, _ = planner.act(world.initial(2000), None, StepKey.of(0, 2000))
    assert abs(float(explored.std()) - 0.3) < 0.01
    assert abs(float(explored.mean())) < 0.02
    wild, _ = CEM(world, CEMConfig(iterations=0, explore_noise=1.0)).act(world.initial(100), None, StepKey.of(0, 100))
    assert wild.abs().max() == 1.0  # clipped, not folded


# ---- planning with the truth: planet.md 8.1-12 ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cem", "mppi"])
def test_with_the_true_dynamics_the_double_integrator_comes_to_rest_at_the_origin(kind: str) -> None:
    world = DoubleIntegrator()
    planner: Planner = CEM(world, CEMConfig(iterations=5, candidates=200, elites=20))
    if kind == "mppi":
        planner = MPPI(world, MPPIConfig(horizon=12, candidates=200, elites=20, temperature=5.0))
    state, _ = drive(planner, PointState(torch.tensor([[1.0, 0.0], [-0.5, 0.5]])), 40)
    assert state.x.abs().max() < 0.1


def test_with_the_true_dynamics_the_pendulum_swings_up_and_stays() -> None:
    planner = CEM(Pendulum(), CEMConfig(horizon=25, iterations=4, candidates=200, elites=20, warm_start=True))
    state, total = drive(planner, PointState(torch.tensor([[np.pi, 0.0], [2.0, 1.0]], dtype=torch.float32)), 100)
    assert torch.cos(state.x[:, 0]).min() > 0.98
    assert total > -450.0  # doing nothing pays -10 a step


def test_the_corridor_is_walked_to_its_end() -> None:
    world = CorridorWorld()
    planner = CEM(world, CEMConfig(horizon=6, iterations=5, candidates=200, elites=20))
    state, total = drive(planner, PointState(torch.tensor([[-2.0], [2.0]])), 8)
    assert state.x.flatten().tolist() == [3.0, 3.0]
    assert total == (4 + 8) / 2


@pytest.mark.parametrize("planner", [CEM(Lock(), QUICK), MPPI(Lock(), MPPIConfig(candidates=100, elites=10))])
def test_every_dial_of_a_multidiscrete_action_is_found(planner: Planner) -> None:
    action = planner.plan(planner.model.initial(2), StepKey.of(0, 2))
    assert action.tolist() == [[0.0, 0.0, 1.0, 1.0, 0.0]] * 2
    assert planner.model.spec.to_env_action(action).tolist() == [[2, 0]] * 2


def test_exploration_swaps_dials_independently() -> None:
    world = Lock()
    planner = CEM(world, replace(QUICK, explore_noise=0.5))
    actions, _ = planner.act(world.initial(600), None, StepKey.of(0, 600))
    kept = torch.stack([actions[:, 2], actions[:, 3]], 1).bool()
    expected = torch.tensor([1 - 0.5 * 2 / 3, 1 - 0.5 / 2])  # a uniform class may be the old one
    assert torch.allclose(kept.float().mean(0), expected, atol=0.06)
    assert abs(float(kept.all(1).float().mean() - expected.prod())) < 0.06


# ---- ends, rewards, values, doubts ----------------------------------------------------------------------------------------


def test_a_reward_behind_a_death_tempts_only_who_ignores_ends() -> None:
    world = Trap()
    settings = CEMConfig(horizon=6, iterations=6, candidates=300, elites=30)
    aware, unaware = (CEM(world, replace(settings, continue_aware=kind)) for kind in (True, False))
    start = PointState(torch.zeros(3, 1))
    assert aware.plan(start, StepKey.of(0, 3)).max() < 0.0
    assert unaware.plan(start, StepKey.of(0, 3)).min() > 0.5


def test_scores_are_the_sum_of_rewards_weighted_by_discount_and_survival() -> None:
    class Mortal(World):
        def alive(self, x: Tensor) -> Tensor:
            return torch.full((len(x),), 0.5)

    world = Mortal(_box(1), 1)
    candidates = torch.tensor([[[[1.0], [1.0], [1.0]], [[0.0], [0.0], [-1.0]]]])  # [1, 2, 3, 1]: rewards 1 2 3 and 0 0 -1
    planner = CEM(world, CEMConfig(discount=0.8), value=lambda features: 10.0 * features[:, 0])
    scores = planner.scorer.scores(world.initial(1), candidates, torch.zeros(1, dtype=torch.int64), 0)
    assert scores.tolist()[0] == pytest.approx([1 + 0.4 * 2 + 0.16 * 3 + 0.064 * 30, 0.16 * -1 + 0.064 * -10])


def test_a_value_sees_what_lies_behind_the_horizon() -> None:
    class Far(World):
        def reward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x))

    world = Far(_box(1), 1)
    planner = CEM(world, QUICK, value=lambda features: -(features[:, 0] + 4.0).abs())
    assert planner.plan(world.initial(2), StepKey.of(0, 2)).max() < -0.9


def test_swapping_the_reward_changes_the_goal_that_is_reached() -> None:
    world, start = DoubleIntegrator(), PointState(torch.zeros(1, 2))
    settings = CEMConfig(iterations=4, candidates=200, elites=20)
    own = CEM(world, settings)
    to_the_right = CEM(world, settings, reward_fn=lambda model, state: -(model.features(state)[:, 0] - 1.0).square())
    assert abs(drive(own, start, 30)[0].x[0, 0]) < 0.05
    assert drive(to_the_right, start, 30)[0].x[0, 0] == pytest.approx(1.0, abs=0.1)


def test_a_swapped_reward_still_knows_of_ends() -> None:
    world = Trap()
    planner = CEM(world, replace(QUICK, candidates=300, elites=30), reward_fn=lambda model, state: (state.x[:, 0] > 2.0) + 0.1)
    assert planner.plan(PointState(torch.zeros(3, 1)), StepKey.of(0, 3)).max() < 0.5


def test_a_penalty_on_uncertainty_keeps_to_what_is_known() -> None:
    world, start, key = CounterWorld(bound=100.0), PointState(torch.zeros(2, 1)), StepKey.of(0, 2)  # the reward is x, the doubt |x|
    assert CEM(world, QUICK).plan(start, key).min() > 0.8
    assert CEM(world, replace(QUICK, iterations=10, uncertainty_penalty=2.0)).plan(start, key).abs().max() < 0.2


def test_the_guard_halts_plans_as_it_halts_dreams() -> None:
    world, start, key = CounterWorld(bound=100.0, data_range=1.0), PointState(torch.full((2, 1), 0.9)), StepKey.of(0, 2)
    assert CEM(world, QUICK).plan(start, key).min() > 0.8
    assert CEM(world, replace(QUICK, range_guard=True)).plan(start, key).max() <= 0.15
    assert CEM(world, replace(QUICK, max_uncertainty=1.0)).plan(start, key).max() <= 0.15


def test_the_guard_knows_the_lowest_reward_that_a_learning_model_has_seen_since() -> None:
    world, outside = CounterWorld(bound=100.0, data_range=1.0), PointState(torch.full((1, 1), 50.0))
    world.reward_low = -1.0
    planner = CEM(world, replace(QUICK, range_guard=True))
    before = planner.search(outside, StepKey.of(0, 1)).score
    world.reward_low = -5.0
    assert float(before) < 0.0
    torch.testing.assert_close(planner.search(outside, StepKey.of(0, 1)).score, 5.0 * before)


def test_futures_are_own_shared_or_none() -> None:
    world, seeds = Lottery(), torch.tensor([3, 4])
    candidates = torch.zeros(2, 50, 3, 1)

    def scores(futures: Any) -> Tensor:
        return CEM(world, CEMConfig(futures=futures)).scorer.scores(world.initial(2), candidates, seeds, 0)

    own, shared, mean = scores("own"), scores("shared"), scores("mean")
    assert len(own.unique()) == 100
    assert torch.equal(shared, shared[:, :1].expand(-1, 50))
    assert shared[0, 0] != shared[1, 0]
    assert torch.equal(mean, torch.full((2, 50), 1.5))


def test_candidates_that_break_the_model_are_left_out() -> None:
    class Fragile(Target):
        def reward(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > 0.0, torch.nan, super().reward(x))

    world = Fragile(1)
    action = CEM(world, CEMConfig(horizon=1)).plan(world.initial(1), StepKey.of(0, 1))
    assert -0.05 < float(action) <= 0.0


def test_a_model_that_predicts_nothing_but_nan_is_reported() -> None:
    world = CounterWorld(nan_at=0.0)
    with pytest.raises(NonFiniteDreamError, match="every candidate"):
        CEM(world, QUICK).plan(world.initial(1), StepKey.of(0, 1))


# ---- warm starts ----------------------------------------------------------------------------------------------------------


def test_a_warm_start_shifts_the_last_plan_except_where_an_episode_begins() -> None:
    world = Target(1)
    warm = CEM(world, CEMConfig(iterations=0, warm_start=True))
    key = StepKey.of(0, 2)
    before = CEM(world).search(world.initial(2), key)
    following = warm.search(world.initial(2), StepKey(key.seed, key.episode, torch.tensor([5, 0])), before)
    assert torch.equal(following.proposal.centre[0, :-1], before.proposal.centre[0, 1:])
    assert float(following.proposal.centre[0, -1]) == 0.0
    assert torch.equal(following.proposal.centre[1], torch.zeros(12, 1))
    assert torch.equal(following.proposal.spread, torch.ones(2, 12, 1))


def test_planets_restart_forgets_the_last_plan() -> None:
    world, key = Target(1), StepKey.of(0, 1)
    later = replace(key, step=key.step + 5)
    before = CEM(world, QUICK).search(world.initial(1), key)
    assert torch.equal(CEM(world, QUICK).plan(world.initial(1), later, before), CEM(world, QUICK).plan(world.initial(1), later))


def test_a_warm_start_with_few_iterations_gets_better_step_by_step() -> None:
    world, key = Target(6), seeds_key(10)
    planner = CEM(world, CEMConfig(iterations=2, candidates=200, elites=20, warm_start=True))
    plan = planner.search(world.initial(10), key)
    scores = [float(plan.score.mean())]
    for step in range(1, 4):
        plan = planner.search(world.initial(10), replace(key, step=key.step + step), plan)
        scores.append(float(plan.score.mean()))
    assert scores[-1] > scores[0]


def test_a_warm_start_of_classes_still_tries_the_others() -> None:
    world, key = CorridorWorld(), StepKey.of(0, 1)
    planner = CEM(world, replace(QUICK, warm_start=True, class_smoothing=0.0))
    plan = planner.search(PointState(torch.zeros(1, 1)), key)
    moved = planner.family.moved_on(plan.proposal)
    assert moved.centre.min() >= 1 / 6 - 1e-6
    assert torch.allclose(moved.centre.sum(-1), torch.ones(1, 4))


# ---- MPPI -----------------------------------------------------------------------------------------------------------------


def test_mppi_finds_a_quadratic_optimum() -> None:
    world = Target(1)
    proposal = MPPI(world, MPPIConfig(temperature=10.0)).search(world.initial(20), seeds_key(20)).proposal
    assert proposal.spread is not None
    assert (proposal.centre - 0.3).abs().max() < 0.05
    assert proposal.spread.max() <= 2.0 and proposal.spread.min() >= 0.05


def test_mppi_weighs_elites_by_their_exponentiated_return() -> None:
    planner = MPPI(Target(1), MPPIConfig(temperature=0.5))
    weights = planner._weights(torch.tensor([[4.0, 2.0]]))
    assert float(weights[0, 0] / weights[0, 1]) == pytest.approx(np.e)
    elites = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    assert float(planner.family.refit(planner.family.start(1, 1, torch.device("cpu")), elites, weights).centre) == pytest.approx(
        float(weights[0, 0] - weights[0, 1])
    )


def test_a_policy_proposes_what_samples_would_hardly_find() -> None:
    class Needle(World):
        def reward(self, x: Tensor) -> Tensor:
            return (x[:, 0] == 0.125).float()

    world, key = Needle(_box(1), 1), StepKey.of(0, 4)

    def policy(features: Tensor, noise: Tensor) -> Tensor:
        return 0.125 - features

    assert MPPI(world).search(world.initial(4), key).score.max() == 0.0
    plan = MPPI(world, MPPIConfig(elites=24), policy=policy).search(world.initial(4), key)
    assert plan.action.flatten().tolist() == [0.125] * 4
    assert plan.score.tolist() == pytest.approx([1.0 + 0.99 + 0.99**2] * 4)


def test_many_action_dimensions_get_two_more_iterations() -> None:
    assert [MPPI(Target(size)).iterations for size in (19, 20)] == [6, 8]


def test_mppi_explores_by_the_spread_of_its_plan() -> None:
    world, key = Target(1), StepKey.of(0, 500)
    planner = MPPI(world, MPPIConfig(candidates=64, elites=32, min_std=0.5))
    plan = planner.search(world.initial(500), key)
    explored, _ = planner.act(world.initial(500), None, key)
    assert plan.proposal.spread is not None
    assert 0.4 < float((explored - plan.action).std()) / float(plan.proposal.spread[:, 0].mean()) < 1.0  # clipped at the box
    assert explored.abs().max() <= 1.0


# ---- acting awake, keeping ------------------------------------------------------------------------------------------------


def test_the_policy_reads_real_observations_and_answers_in_the_envs_units() -> None:
    class Steered(DoubleIntegrator):
        def __init__(self) -> None:
            super().__init__()
            self.spec = replace(self.spec, action_space=spaces.Box(-4.0, 4.0, (1,), np.float32))

    policy = PlanningPolicy(Steered(), QUICK, seed=3)  # type: ignore[arg-type]
    single, _ = policy.predict(np.float32([3.0, 0.0]), deterministic=True)
    assert single.shape == (1,) and -4.0 <= single[0] < -2.0
    actions, _ = policy.predict(np.float32([[3.0, 0.0], [-3.0, 0.0]]), deterministic=True)
    assert actions[0, 0] < -2.0 and actions[1, 0] > 2.0
    assert policy.last_plan is not None and policy.last_plan.action.shape == (2, 1)


def test_a_reseeded_policy_repeats_itself() -> None:
    policy, obs = PlanningPolicy(CounterWorld(sigma=0.5), QUICK, seed=3), np.float32([[0.0], [1.0]])  # type: ignore[arg-type]
    first = [policy.predict(obs)[0] for _ in range(2)]
    policy.reseed(3)
    again = [policy.predict(obs, episode_start=np.full(2, step == 0))[0] for step in range(2)]
    assert np.array_equal(first, again)


@pytest.mark.parametrize("build", [tiny_rssm, tiny_ensemble])
def test_learned_models_are_planned_in_row_by_row_alike(build: Any) -> None:
    model = build().eval()
    model.spec.observation_space.seed(0)
    obs = np.stack([model.spec.observation_space.sample() for _ in range(3)])
    settings = replace(QUICK, candidates=40, max_rows=64)
    together, alone = (PlanningPolicy(model, settings, seed=2) for _ in range(2))
    actions = [together.predict(obs)[0] for _ in range(2)]
    first_row = [alone.predict(obs[:1])[0] for _ in range(2)]
    assert [int(row[0]) for row in actions] == [int(row[0]) for row in first_row]
    assert together.last_plan is not None and alone.last_plan is not None
    assert torch.allclose(together.last_plan.score[:1], alone.last_plan.score, atol=1e-5)
    assert all(model.spec.action_space.contains(action) for action in actions[0])


def test_planning_records_no_gradients() -> None:
    model = tiny_ensemble()
    plan = CEM(model, QUICK).search(model.initial(2), StepKey.of(0, 2))
    assert not plan.score.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_planning_draws_no_picture() -> None:
    world = PictureWorld()
    PlanningPolicy(world, QUICK).predict(np.zeros((36, 36, 3), np.uint8))  # type: ignore[arg-type]
    assert world.decoded == 0


@pytest.mark.parametrize("planner", [CEM(CounterWorld(sigma=0.5), QUICK), MPPI(CounterWorld(sigma=0.5), MPPIConfig(temperature=2.0))])
def test_a_saved_planner_plans_the_same(planner: Planner, tmp_path: Path) -> None:
    planner.save(tmp_path)
    loaded = load_planner(tmp_path, planner.model)
    state, key = planner.model.initial(2), StepKey.of(0, 2)
    assert type(loaded) is type(planner)
    assert torch.equal(loaded.plan(state, key), planner.plan(state, key))
    assert [path.name for path in tmp_path.iterdir()] == ["agent.json"]


def test_a_folder_without_a_planner_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"agent\.json"):
        load_planner(tmp_path, Target(1))
    for text in ('{"kind": "dog", "config": {}}', '{"kind": "cem", "config": {"legs": 4}}', '{"feature_size": 3}', "[]"):
        (tmp_path / "agent.json").write_text(text)
        with pytest.raises(InvalidModelError):
            load_planner(tmp_path, Target(1))


def test_settings_out_of_range_are_refused() -> None:
    sizes = ({"horizon": 0}, {"candidates": 10**9}, {"elites": 2000}, {"candidates": 10**6, "horizon": 11})
    for wrong in (*sizes, {"discount": 1.5}, {"futures": "none"}, {"init_std": 0.0}, {"class_smoothing": 1.0}):
        with pytest.raises(ValueError):
            CEMConfig(**wrong)  # type: ignore[arg-type]
    for wrong in ({"iterations": 0}, {"min_std": 3.0}, {"temperature": 0.0}, {"policy_candidates": 512}):
        with pytest.raises(ValueError):
            MPPIConfig(**wrong)  # type: ignore[arg-type]
