"""Learning gates (make gates): policies trained only in dreams, judged in the real environment. Minutes to an hour each."""

from __future__ import annotations

import json

import pytest

from tests.gates.protocols import RESULTS, driving_gate, ensemble_gate, frozen_gate, online_gate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("env_id", "env_steps", "least"), [("Pendulum-v1", 10_000, -170.0), ("CartPole-v1", 10_000, 475.0), ("Acrobot-v1", 20_000, -110.0)]
)
def test_ppo_trained_in_an_ensemble_dream_solves_the_real_task(env_id, env_steps, least, seed):
    assert ensemble_gate(env_id, env_steps, seed).awake.mean >= least


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fit_drives_unseen_tracks(seed):
    assert driving_gate(seed).awake.mean >= 700.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fresh_ppo_in_the_bundled_dream_drives_unseen_tracks(seed):
    assert frozen_gate(seed).awake.mean >= 650.0


def test_the_best_of_three_fits_reaches_850():
    written = [json.loads((RESULTS / f"driving-fit-{seed}.json").read_text()) for seed in (0, 1, 2)]
    assert max(result["comparison"]["awake"]["mean"] for result in written) >= 850.0


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("task", "least"), [("cartpole-swingup", 480.0), ("cartpole-balance", 750.0)])
def test_dreamer_v3_learns_from_vectors_of_dm_control(task, least, seed):
    assert online_gate(f"dm_control/{task}-v0", "dreamer-v3", 100_000, seed).awake.mean >= least


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("preset", ["planet", "dreamer-v1", "dreamer-v2"])
def test_every_family_reports_its_swing_up(preset, seed):
    result = online_gate("dm_control/cartpole-swingup-v0", preset, 100_000, seed)
    assert result.awake.mean > result.baselines["random actions"].mean  # reported, not gated: the curves stand in docs/papers


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("preset", "env_steps"), [("planet", 30_000), ("dreamer-v1", 20_000), ("dreamer-v2", 30_000)])
def test_every_family_swings_the_pendulum_up(preset, env_steps, seed):
    """dreamer-v2 had -162 and -230 after 20,000 steps (docs/log.md)."""
    assert online_gate("Pendulum-v1", preset, env_steps, seed).awake.mean >= -200.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dreamer_v2_learns_when_episodes_end(seed):
    assert online_gate("CartPole-v1", "dreamer-v2", 15_000, seed).awake.mean >= 400.0
