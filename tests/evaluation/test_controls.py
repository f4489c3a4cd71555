"""Blind yardsticks in worlds where the best blind policy, and what looking is worth, are known by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from dreamgym.evaluation.controls import LengthCheck, PairedComparison, compare_with_blind, open_loop_baselines, random_length_check
from dreamgym.evaluation.fidelity import fixed_policy_fidelity
from dreamgym.evaluation.panel import evaluate_blind
from dreamgym.evaluation.policies import constant_policies, open_loop_policies, sweep_pairs, sweep_policies
from dreamgym.evaluation.returns import Returns, evaluate
from dreamgym.evaluation.scrutiny import run_controls
from tests.evaluation.counting import CountingEnv
from tests.evaluation.line import ACTION, ENV_ID, LIMIT, LineModel, register
from tests.evaluation.sides import Looks, SidesEnv

TWO = spaces.Discrete(2)


@pytest.fixture(autouse=True)
def line_is_registered() -> Iterator[None]:
    register()
    yield
    gym.registry.pop(ENV_ID, None)


class RhythmEnv(gym.Env[Any, Any]):
    """Pays 1 for class 1 in steps 0-1, class 2 in steps 2-5, class 1 in steps 6-9, and so on; 12 steps."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32), spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.step_number = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        wanted = 1 + (self.step_number + 2) // 4 % 2
        self.step_number += 1
        return np.zeros(1, np.float32), float(action == wanted), False, self.step_number >= 12, {}


def returns_of(*values: float) -> Returns:
    return Returns(values, tuple(1 for _ in values), tuple(range(len(values))))


@pytest.mark.parametrize("rows", [1, 5, 200])
def test_a_panel_gives_what_each_policy_gets_alone(rows: int) -> None:
    env = SyncVectorEnv([CountingEnv] * rows)
    policies, seeds = open_loop_policies(TWO, seed=4), tuple(range(7, 20))
    assert evaluate_blind(policies, env, seeds=seeds) == {name: evaluate(policy, env, seeds=seeds) for name, policy in policies.items()}
    assert evaluate_blind(policies, CountingEnv(), seeds=seeds) == evaluate_blind(policies, env, seeds=seeds)


def test_the_search_finds_the_rhythm_and_judges_it_on_fresh_seeds() -> None:
    found = open_loop_baselines(RhythmEnv(), periods=range(1, 7), search_episodes=1, episodes=3)
    assert found.best == "centred sweep 1|2 every 4"
    assert found.best_returns == Returns((12.0,) * 3, (12,) * 3, (1_000_000, 1_000_001, 1_000_002))
    assert set(found.judged) == {"random", "always 0", "always 1", "always 2", found.best}
    assert found.searched["sweep 1|2 every 4"].mean == 6.0 and found.searched["sweep 0|2 every 4"].mean == 2.0
    assert evaluate(found.best_policy, RhythmEnv(), 1).mean == 12.0
    assert len(found.searched) == 3 + 3 * (6 + 5)


def test_searching_and_judging_share_no_seed() -> None:
    found = open_loop_baselines(SidesEnv(), periods=(2, 3), search_episodes=5, episodes=4)
    searched = {seed for returns in found.searched.values() for seed in returns.seeds}
    assert not searched & set(found.best_returns.seeds)
    assert found.searched[found.best].n == 5 + 10 + 20  # three rounds
    assert all(len(set(returns.seeds)) == returns.n for returns in found.searched.values())


def test_rows_and_one_env_find_the_same() -> None:
    search = partial(open_loop_baselines, periods=(1, 2, 4), search_episodes=3, episodes=5)
    assert search(SyncVectorEnv([SidesEnv] * 4)) == search(SidesEnv())


def test_baselines_print_and_become_json() -> None:
    found = open_loop_baselines(RhythmEnv(), periods=(2, 4), pairs={"to and fro": (1, 2)}, search_episodes=1, episodes=1, rounds=2)
    assert found.best == "centred sweep to and fro every 4"
    assert found.best in found.table().splitlines()[5]
    saved = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert saved["best"] == found.best and saved["judged"][found.best]["mean"] == 12.0
    with pytest.raises(ValueError, match="rounds is 0"):
        open_loop_baselines(RhythmEnv(), rounds=0)


def test_sweeps_are_made_of_every_pair_and_period() -> None:
    assert set(sweep_pairs(spaces.Discrete(3, start=4))) == {"4|5", "4|6", "5|6"}
    assert list(sweep_pairs(spaces.Discrete(18)).values())[-1] == (13, 17) and len(sweep_pairs(spaces.Discrete(18))) == 10
    box = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 2], np.float32))
    assert [action.tolist() for action in sweep_pairs(box)["a1"]] == [pytest.approx([0.2, 0.0]), pytest.approx([0.2, 2.0])]
    assert [action.tolist() for action in sweep_pairs(spaces.MultiDiscrete([2, 4]))["c1"]] == [[0, 0], [0, 3]]
    policy = sweep_policies(TWO, (4,), centred=True)["centred sweep 0|1 every 4"]
    assert policy.act(np.zeros(8, np.int64), np.arange(8)).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="period is 0"):
        sweep_policies(TWO, (0,))


def test_who_looks_beats_the_best_blind_policy_by_the_difference_on_the_same_seeds() -> None:
    blind = open_loop_baselines(SidesEnv(), periods=(1, 2, 3), search_episodes=4, episodes=30)
    found = compare_with_blind(Looks(), SidesEnv(), blind)
    lost = 12.0 - np.array(blind.best_returns.returns)
    assert found.first.returns == (12.0,) * 30 and found.first.seeds == blind.best_returns.seeds
    assert found.difference == pytest.approx(lost.mean())
    assert found.standard_error == pytest.approx(lost.std(ddof=1) / math.sqrt(30))
    assert found.wins == (lost > 0).sum() and found.losses == 0
    assert found.p_value < 1e-3 and found.wins_p_value < 1e-6


def test_a_paired_comparison_counts_pairs() -> None:
    found = PairedComparison(returns_of(5.0, 1.0, 4.0, 2.0), returns_of(2.0, 2.0, 2.0, 2.0), ("eyes", "none"))
    assert (found.wins, found.losses, found.difference, found.ratio) == (2, 1, 1.0, 1.5)
    assert found.p_value == pytest.approx(4 / 8)  # of the signs of 3, 1, 2 those with a sum of at least 4 either way: +++, +-+ and mirrored
    assert found.wins_p_value == 1.0
    residual = np.array([5.0, 1.0, 4.0, 2.0]) - 1.5 * 2.0
    assert found.ratio_error == pytest.approx(residual.std(ddof=1) / 2 / 2.0)
    assert "1 lost, 1 equal" in found.table() and json.dumps(found.to_json(), allow_nan=False)
    assert PairedComparison(returns_of(-1.0), returns_of(2.0)).ratio is None
    with pytest.raises(ValueError, match="other seeds"):
        PairedComparison(returns_of(1.0, 2.0), returns_of(1.0))


def test_a_dream_that_runs_at_half_speed_lives_twice_as_long() -> None:
    """Right to the goal takes 5 steps; slowed to half it takes 10 in the dream (0.05 a step, past 0.45)."""
    right = constant_policies(ACTION)["always 2"]
    found = random_length_check(LineModel(bias=-0.05), policy=right, episodes=3)
    assert found.dream.lengths == (10,) * 3 and found.real.lengths == (5,) * 3
    assert found.ratio == 2.0 and found.ratio_error == 0.0 and not found.within(0.1)
    assert found.p_value == pytest.approx(0.1, abs=0.01)
    assert "2.000" in found.table() and found.to_json()["ratio"] == 2.0


def test_lengths_known_from_before_are_not_lived_again() -> None:
    real = Returns((1.0, 1.0), (10, 14), (0, 1))
    gym.registry.pop(ENV_ID)  # the world is gone
    found = random_length_check(LineModel(), episodes=2, real=real, dream_options={"termination": "never"})
    assert found.dream.lengths == (LIMIT, LIMIT) and found.real == real
    assert found.ratio == pytest.approx(LIMIT / 12)
    assert found.ratio_error == pytest.approx(LIMIT / 12 * (2 / 12))
    assert LengthCheck(real, real).within(0.0)


def test_fidelity_takes_sweeps_stored_reality_and_dream_options() -> None:
    first = fixed_policy_fidelity(LineModel(), periods=(2, 3), pairs={"x": (0, 2)}, episodes=2)
    assert set(first.real) == {"always 0", "always 1", "always 2", "sweep x every 2", "sweep x every 3"}
    gym.registry.pop(ENV_ID)
    policies = {"always 2": constant_policies(ACTION)["always 2"]}
    again = fixed_policy_fidelity(LineModel(), policies=policies, episodes=2, real=first.real, dream_options={"termination": "never"})
    assert again.real == {"always 2": first.real["always 2"]}
    assert again.dream["always 2"].lengths == (LIMIT,) * 2
    assert again.log_return_ratio == pytest.approx(math.log((0.1 * 210) / (0.1 * 15)))
    assert again.log_length_ratio == pytest.approx(math.log(LIMIT / 5))
    assert first.log_return_ratio is None  # always left is paid below nothing
    with pytest.raises(ValueError, match=r"real lacks \['always 1'\]"):
        fixed_policy_fidelity(LineModel(), policies={"always 1": constant_policies(ACTION)["always 1"]}, real=again.real)


def test_all_controls_of_an_agent_at_once() -> None:
    found = run_controls(constant_policies(ACTION)["always 2"], LineModel(), episodes=3, periods=(2, 3), search_episodes=1)
    assert found.baselines.best == "sweep 1|2 every 2"  # waiting on the way: 0.1 + 3 x 0.2 + 0.3 + 3 x 0.4 + 0.5
    assert found.baselines.best_returns.mean == pytest.approx(2.7)
    assert found.against.difference == pytest.approx(1.5 - 2.7)
    assert found.against.first.lengths == (5,) * 3
    assert found.yoked.both == 3 and found.yoked.p_value == 1.0  # a line has no luck: twins die together
    assert found.lengths.real.n == found.lengths.dream.n == 3
    assert set(json.loads(json.dumps(found.to_json(), allow_nan=False))) == {"baselines", "against", "yoked", "lengths"}
    assert "does seeing help?" in found.table()
    again = run_controls(constant_policies(ACTION)["always 2"], LineModel(), episodes=3, baselines=found.baselines)
    assert again.baselines is found.baselines and again.against == found.against
