"""The same policies in a dream and in the world it was made of, where both are known by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dreamgym.evaluation.comparison import awake_env, compare, judging_dream
from dreamgym.evaluation.fidelity import fixed_policy_fidelity, measure, spearman, write_fidelity
from dreamgym.evaluation.policies import constant_policies, open_loop_policies, random_policy
from dreamgym.evaluation.returns import evaluate
from tests.evaluation.line import ACTION, ENV_ID, LIMIT, LineEnv, LineModel, lived, register


@pytest.fixture(autouse=True)
def line_is_registered() -> Iterator[None]:
    register()
    yield
    gym.registry.pop(ENV_ID, None)


class Rightwards:
    """Sees the latent and walks right."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> tuple[Any, Any]:
        assert observation.shape[1:] == (1,)
        return np.full(len(observation), 2), state


def test_a_policy_is_judged_by_the_real_limit_without_guard_penalty_or_short_horizon() -> None:
    """LineModel's defaults halt at uncertainty 0.5, charge 5 per step and end after 3 steps; its uncertainty is 1 everywhere."""
    left = evaluate(constant_policies(ACTION)["always 0"], judging_dream(LineModel(), 4), 4)
    assert left.lengths == (LIMIT,) * 4
    assert left.mean == pytest.approx(-0.1 * LIMIT * (LIMIT + 1) / 2, rel=1e-4)


def test_dream_and_reality_agree_where_the_model_is_exact() -> None:
    found = compare(Rightwards(), LineModel(), episodes=3, thresholds=(1.4,), baselines={"random": random_policy(ACTION)})
    assert found.dream.lengths == found.awake.lengths == (5, 5, 5)
    assert found.awake.mean == pytest.approx(0.1 * 15)
    assert found.gap == pytest.approx(0.0, abs=1e-5)
    assert found.baselines["random"].n == 3 and found.awake.seeds == found.dream.seeds


def test_a_biased_dream_promises_too_much() -> None:
    assert compare(constant_policies(ACTION)["always 0"], LineModel(bias=0.05), episodes=2).gap == pytest.approx(0.05 * 210, rel=1e-4)


def test_an_env_that_was_handed_in_stays_open() -> None:
    class Lasting(gym.Wrapper[Any, Any, Any, Any]):
        closed = False

        def close(self) -> None:
            self.closed = True

    env = Lasting(awake_env(LineModel()))
    compare(Rightwards(), LineModel(), env, episodes=1)
    assert not env.closed


def test_an_exact_model_ranks_all_policies_as_the_world_does() -> None:
    found = fixed_policy_fidelity(LineModel(), policies=constant_policies(ACTION), episodes=2)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.linear_correlation == pytest.approx(1.0)
    assert found.log_length_ratio == pytest.approx(0.0)
    assert len(found.table().splitlines()) == len(constant_policies(ACTION)) + 2


def test_a_model_that_runs_the_wrong_way_ranks_them_backwards() -> None:
    class Mirrored(LineModel):
        def step(self, state, action, noise, temperature=1.0):  # type: ignore[no-untyped-def]
            return super().step(state, action.flip(-1), noise, temperature)

    assert fixed_policy_fidelity(Mirrored(), policies=constant_policies(ACTION), episodes=1).rank_correlation == pytest.approx(-1.0)


def test_too_long_episodes_show_in_the_log_ratio() -> None:
    """Right to the goal takes 5 steps; slowed to half it takes 10 in the dream (0.05 a step, past 0.45)."""
    right = {"right": constant_policies(ACTION)["always 2"]}
    found = fixed_policy_fidelity(LineModel(bias=-0.05), policies=right, episodes=2)
    assert found.dream["right"].mean_length == 10.0
    assert found.log_length_ratio == pytest.approx(math.log(10 / 5))
    assert found.rank_correlation is None


def test_spearman_sees_ranks_only_and_shares_ties() -> None:
    assert spearman(np.array([1.0, 10.0, 100.0, 1e6]), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(math.sqrt(3) / 2)
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None


def test_fidelity_json_holds_everything_and_is_written_alike_twice(tmp_path: Path) -> None:
    rows = lived([[1, 2, 2, 0, 1, 0, 2, 1, 0, 0, 2, 2]] * 3)
    measured = measure(LineModel(), rows, agent=Rightwards(), episodes=2, context=2, data={"env_steps": 39})
    path = write_fidelity(tmp_path, measured)
    text = path.read_text()
    assert write_fidelity(tmp_path, json.loads(text)).read_text() == text
    saved = json.loads(text)
    assert saved["data"] == {"env_steps": 39, "held_out": {"sequences": 3, "length": 13, "ends": 0}}
    assert saved["one_step"]["reward_mae"] < 1e-6
    assert set(saved["open_loop"]["mean_noise"]) == {"1", "5", "10"}
    assert len(saved["fixed_policies"]["policies"]) == len(open_loop_policies(ACTION)) >= 6
    assert saved["fixed_policies"]["rank_correlation"] == pytest.approx(1.0)
    assert saved["policy"]["awake"]["n"] == 2 and saved["policy"]["awake"]["seeds"] == [1_000_000, 1_000_001]
    assert {"dreamgym", "torch", "numpy", "gymnasium"} <= set(saved["versions"]) and saved["date"].endswith("Z")


def test_undefined_numbers_become_null_and_long_ones_short(tmp_path: Path) -> None:
    path = write_fidelity(tmp_path, {"b": float("nan"), "a": 1 / 3, "c": np.float32(2.0), "d": np.int64(1_000_001)})
    assert json.loads(path.read_text()) == {"a": 0.333333, "b": None, "c": 2.0, "d": 1_000_001}


def test_awake_a_world_registered_without_a_limit_ends_where_the_models_does() -> None:
    gym.registry.pop(ENV_ID)
    gym.register(ENV_ID, LineEnv)
    assert compare(constant_policies(ACTION)["always 0"], LineModel(), episodes=1).awake.lengths == (LIMIT,)


def test_judging_asks_for_a_model_and_not_for_its_name() -> None:
    name: Any = "Pendulum"
    for judge in (lambda: compare(Rightwards(), name), lambda: awake_env(name), lambda: judging_dream(name, 1)):
        with pytest.raises(TypeError, match=r"from_pretrained\('Pendulum'\)"):
            judge()
