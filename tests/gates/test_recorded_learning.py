"""The recorded gates of the papers' presets: budgets, episodes, curves, bars and time. test_learning.py trains them anew, in hours."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from dreamgym.evaluation.returns import report_seeds
from tests.gates.protocols import RESULTS

SWINGUP, BALANCE = "dm_control/cartpole-swingup-v0", "dm_control/cartpole-balance-v0"
GATES = [  # preset, world, env steps, least return of every seed; minus infinity where it is reported and not gated
    ("dreamer-v3", SWINGUP, 100_000, 480.0),
    ("dreamer-v3", BALANCE, 100_000, 750.0),
    ("dreamer-v1", SWINGUP, 100_000, -math.inf),
    ("dreamer-v2", SWINGUP, 100_000, -math.inf),
    ("planet", SWINGUP, 100_000, -math.inf),
    ("dreamer-v1", "Pendulum-v1", 20_000, -200.0),
    ("dreamer-v2", "Pendulum-v1", 30_000, -200.0),
    ("planet", "Pendulum-v1", 30_000, -200.0),
    ("dreamer-v2", "CartPole-v1", 15_000, 400.0),
]
STRANGERS = {"dream-actor-critic": 0, "dream-ppo": 0, "dream-sac": 0, "real-ppo": 25_000, "real-sac": 25_000}  # own real agent steps


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("preset", "env_id", "env_steps", "least"), GATES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_bar_was_reached_within_budget_and_hour_and_the_curve_is_kept(preset, env_id, env_steps, least, seed):
    gate = record(f"{preset}-{env_id.replace('/', '-')}-{seed}")
    awake = gate["comparison"]["awake"]
    assert gate["comparison"]["env_id"] == env_id and gate["real_steps"] == env_steps
    assert len(awake["returns"]) == 20 and tuple(awake["seeds"]) == report_seeds(20)
    assert awake["mean"] == pytest.approx(np.mean(awake["returns"])) and awake["mean"] >= least
    assert gate["seconds_of_fit"] < 3600.0
    explored = [steps for steps, _ in gate["curve"]["explore"]]
    assert explored == sorted(explored) and explored[-1] == env_steps and len(explored) > 30


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("learner", STRANGERS)
def test_strangers_were_judged_awake_beside_one_another(learner, seed):
    """In one dream, or awake with as many agent steps as its model learned from: 100,000 env steps, four to an agent step."""
    found, beside = record(f"strangers-{learner}-{seed}"), record("strangers-dream-ppo-0")
    assert (found["model"], found["real_steps"]) == (beside["model"], STRANGERS[learner])
    assert (found["dream_steps"] == 0) == learner.startswith("real")
    assert found["comparison"]["env_id"] == SWINGUP and found["comparison"]["awake"]["seeds"] == beside["comparison"]["awake"]["seeds"]
    assert len(found["comparison"]["awake"]["returns"]) == 20
