"""SB3 in a dream, beside the built-in agent and beside itself awake (make ablations), and that each learner takes the steps it claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamgym.hub.bundle import from_pretrained
from tests.gates import strangers
from tests.gates.ablations import ROOT, SEEDS
from tests.gates.strangers import LEARNERS, Effort, learn

PENDULUM = ROOT / "dreamgym" / "pretrained" / "Pendulum"
SMALL = Effort(env_steps=40, ppo_dream_steps=64, sac_dream_steps=320, updates=1, episodes=1)


def returns(learner, world="awake"):
    return float(np.mean([learn(learner, seed)["comparison"][world]["mean"] for seed in SEEDS]))


@pytest.mark.slow
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_beats_chance_awake(learner):
    chance = learn(learner, 0)["comparison"]["baselines"]["random actions"]["mean"]
    assert returns(learner) > chance


@pytest.mark.slow
@pytest.mark.parametrize("dreamer", ["dream-ppo", "dream-actor-critic"])
def test_the_dream_teaches_more_than_as_many_real_steps_teach_ppo(dreamer):
    assert returns(dreamer) > returns("real-ppo")


# SAC reuses its data, and is known to need little of it on this task: its two numbers are reported, not ranked.


# ---- that the cells are what they say -----------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Learners that take a second."""
    monkeypatch.setattr(strangers, "RESULTS", tmp_path)
    monkeypatch.setattr(strangers, "CLASSIC_PPO", {"num_envs": 4, "n_steps": 4, "batch_size": 16, "n_epochs": 1})
    monkeypatch.setattr(strangers, "REAL_ROLLOUT", 5)
    return tmp_path


@pytest.mark.parametrize(
    ("learner", "dream_steps", "real_steps"),
    [("dream-actor-critic", 1200, 0), ("dream-ppo", 64, 0), ("dream-sac", 320, 0), ("real-ppo", 0, 40), ("real-sac", 0, 40)],
)
def test_a_cell_takes_the_steps_it_claims(small, learner, dream_steps, real_steps):
    record = learn(learner, 0, model=PENDULUM, effort=SMALL)
    assert (record["dream_steps"], record["real_steps"]) == (dream_steps, real_steps)
    assert record["comparison"]["awake"]["n"] == 1 and (small / f"strangers-{learner}-0.json").exists()


def test_ppo_refuses_to_take_more_real_steps_than_the_model_did(small):
    with pytest.raises(ValueError, match="42 agent steps are no whole number"):
        strangers.real_ppo(from_pretrained(PENDULUM), Effort(env_steps=42), 0)


def test_real_steps_are_counted_in_agent_steps():
    spec = from_pretrained(ROOT / "dreamgym" / "pretrained" / "CarRacing").spec
    assert strangers._agent_steps(spec, Effort(env_steps=100_000)) == 100_000 // spec.preprocess.action_repeat == 25_000


def test_an_agent_from_behind_vecnormalize_is_shown_what_it_knows(small):
    taught = strangers.real_ppo(from_pretrained(PENDULUM), SMALL, 0)
    seen = np.float32([[0.5, -0.5, 3.0]])
    direct, _ = taught.agent.agent.predict(taught.agent.statistics.normalize_obs(seen), deterministic=True)
    assert np.array_equal(taught.agent.predict(seen, deterministic=True)[0], direct)
    assert not np.array_equal(taught.agent.statistics.normalize_obs(seen), seen)


def test_the_queue_lists_every_learner_and_seed(small, capsys):
    strangers.missing(model=Path("elsewhere"))
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == len(LEARNERS) * len(SEEDS)
    assert commands[0].endswith("-m tests.gates.strangers learn --learner dream-actor-critic --seed 0 --model elsewhere")
