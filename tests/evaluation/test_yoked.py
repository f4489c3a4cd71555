"""A twin under the same actions tells who looks, in a world where looking is everything."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamgym.dreams.awake import LatentVectorObservation
from dreamgym.evaluation.policies import constant_policies
from dreamgym.evaluation.yoked import YokedControl, yoked_control
from tests.evaluation.line import LineEnv, LineModel
from tests.evaluation.sides import LIMIT, Looks, SidesEnv, safe_sides

ALWAYS_0 = constant_policies(spaces.Discrete(2))["always 0"]
SEEDS, TWINS = tuple(range(40)), tuple(range(1000, 1040))


def death_under(actions: list[int], seed: int) -> int:
    """Steps until the first wrong action; LIMIT + 1 if there is none."""
    return next((step for step, pair in enumerate(zip(actions, safe_sides(seed)), 1) if pair[0] != pair[1]), LIMIT + 1)


def test_who_looks_outlives_the_unseen_twin() -> None:
    found = yoked_control(Looks(), SidesEnv(), SidesEnv(), seeds=SEEDS, twin_seeds=TWINS)
    deaths = [death_under(safe_sides(seed), twin) for seed, twin in zip(SEEDS, TWINS)]
    assert found.steps == tuple(min(death, LIMIT) for death in deaths)
    assert found.unseen_first == sum(death <= LIMIT for death in deaths) and found.seen_first == found.both == 0
    assert found.p_value < 1e-9
    assert found.hazard_ratio is None and found.hazard_interval[0] > 9 and found.hazard_interval[1] == math.inf
    assert found.difference == pytest.approx(np.mean([death <= LIMIT for death in deaths]))  # the fatal step pays 0, to the seen one 1


def test_who_does_not_look_dies_as_often_first_as_the_twin() -> None:
    found = yoked_control(ALWAYS_0, SidesEnv(), SidesEnv(), seeds=range(400), twin_seeds=range(1000, 1400))
    deaths = [(death_under([0] * LIMIT, seed), death_under([0] * LIMIT, twin)) for seed, twin in zip(range(400), range(1000, 1400))]
    assert found.seen_first == sum(seen < unseen for seen, unseen in deaths)
    assert found.unseen_first == sum(seen > unseen for seen, unseen in deaths)
    assert found.both == sum(seen == unseen <= LIMIT for seen, unseen in deaths)
    assert found.neither == 400 - found.seen_first - found.unseen_first - found.both
    assert found.p_value > 0.2 and found.difference_p_value > 0.2
    assert found.hazard_interval[0] < 1.0 < found.hazard_interval[1]


def test_where_nobody_dies_the_returns_tell() -> None:
    found = yoked_control(Looks(), SidesEnv(deadly=False), SidesEnv(deadly=False), seeds=SEEDS, twin_seeds=TWINS)
    assert found.steps == (LIMIT,) * 40 and found.neither == 40 and found.p_value == 1.0
    luck = [np.mean(np.array(safe_sides(seed)) == safe_sides(twin)) * LIMIT for seed, twin in zip(SEEDS, TWINS)]
    assert found.seen_returns == (float(LIMIT),) * 40
    assert found.unseen_returns == pytest.approx(tuple(luck))
    assert found.difference_p_value < 1e-3 and found.difference > 4 * found.difference_error


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("agent", [Looks(), ALWAYS_0], ids=["looks", "blind"])
@pytest.mark.parametrize("rows", [3, 64])
def test_rows_of_a_vector_env_give_the_same_pairs_as_one_env(rows: int, agent: Any, mode: AutoresetMode) -> None:
    envs = [SyncVectorEnv([SidesEnv] * rows, autoreset_mode=mode) for _ in range(2)]
    found = yoked_control(agent, envs[0], envs[1], seeds=SEEDS, twin_seeds=TWINS)
    assert found == yoked_control(agent, SidesEnv(), SidesEnv(), seeds=SEEDS, twin_seeds=TWINS)


def test_beliefs_begin_anew_with_every_pair_whichever_twin_decided_it() -> None:
    class Brittle(LineEnv):
        """Ends after 2 + seed % 5 steps."""

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            self.left = 2 + (seed or 0) % 5
            return super().reset(seed=seed, options=options)

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.left -= 1
            obs, reward, _, truncated, info = super().step(action)
            return obs, reward, self.left == 0, truncated, info

    class Onwards:
        """Goes right, and checks that the latent is the way gone since the pair began."""

        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> tuple[Any, Any]:
            way = np.where(episode_start, 0.0, 0.1 + (0.0 if state is None else state))
            assert observation[:, 0] == pytest.approx(way, abs=1e-5)
            return np.full(len(observation), 2), way

    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        seen, unseen = (SyncVectorEnv([Brittle] * 3, autoreset_mode=mode) for _ in range(2))
        found = yoked_control(Onwards(), LatentVectorObservation(seen, LineModel()), unseen, seeds=range(20), twin_seeds=range(102, 122))
        lives = [(2 + seed % 5, 2 + twin % 5) for seed, twin in zip(range(20), range(102, 122))]
        assert found.steps == tuple(map(min, lives))
        assert (found.seen_first, found.unseen_first) == (12, 8)  # seeds that end in 0, 1, 2 of five live two steps less than the twin's


def test_the_result_survives_json_and_prints() -> None:
    found = yoked_control(Looks(), SidesEnv(), SidesEnv(), 5)
    assert found.seeds[0] == 1_000_000 and found.twin_seeds[0] == 2_000_000
    assert YokedControl.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    assert "5 pairs" in found.table() and "hazard ratio unseen / seen undefined" in found.table()


def test_a_known_count_gives_the_prototypes_numbers() -> None:
    """World Models in small: of 489 pairs the seen one died first in 219, the unseen in 270 (z = 2.3)."""
    ended = (True,) * 219 + (False,) * 270
    found = YokedControl((9,) * 489, ended, tuple(not end for end in ended), (9.0,) * 489, (9.0,) * 489, SEEDS[:1] * 489, TWINS[:1] * 489)
    assert found.p_value == pytest.approx(0.0236, abs=5e-4)
    assert found.hazard_ratio == pytest.approx(270 / 219)
    assert found.hazard_interval[0] == pytest.approx(1.03, abs=0.01) and found.hazard_interval[1] == pytest.approx(1.48, abs=0.01)
    assert found.difference_p_value == 1.0


def test_twins_that_are_none_are_refused() -> None:
    env, two = SidesEnv(), SyncVectorEnv([SidesEnv] * 2)
    for call, message in (
        (partial(yoked_control, Looks(), env, env), "one object"),
        (partial(yoked_control, Looks(), env, two), "seen has 1 rows and unseen 2"),
        (partial(yoked_control, Looks(), env, SidesEnv(), seeds=[3, 4], twin_seeds=[5, 4]), r"seeded alike with \[4\]"),
        (partial(yoked_control, Looks(), env, SidesEnv(), 0), "0 seeds"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
