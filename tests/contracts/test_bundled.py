"""Every registered id in every obs_type: what gymnasium's and SB3's checkers say, wrappers, workers, copies."""

from __future__ import annotations

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import dreamgym  # registers the ids
from dreamgym.envs import register_dm_control
from dreamgym.hub.bundle import bundled_names, read_fidelity
from dreamgym.registration import BUNDLED

IDS = [f"dreamgym/Dream-{name}-v0" for name in BUNDLED] + [f"dreamgym/Dream-{name}-Latent-v0" for name in BUNDLED]
PIXELS = {"CarRacing", "DoomTakeCover"}

# The real Pendulum-v1 gets the same advice: its own action box is [-2, 2], and a dream keeps the real spaces so that policies deploy.
ACTION_BOX_ADVICE = ".*symmetric and normalized"


def _cases():
    for env_id in IDS:
        name = env_id.split("-")[1]
        kinds = [None] if "Latent" in env_id else [None, "pixels" if name in PIXELS else "vector", "latent", "dict"]
        yield from ((env_id, kind) for kind in kinds)


def _make(env_id, kind, **kwargs):
    return gym.make(env_id, **({} if kind is None else {"obs_type": kind}), **kwargs)


@pytest.mark.parametrize(("env_id", "kind"), list(_cases()))
def test_the_checkers_have_nothing_to_say(env_id, kind):
    env = _make(env_id, kind, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if "Pendulum" in env_id:
            warnings.filterwarnings("ignore", message=ACTION_BOX_ADVICE)
        check_env(env.unwrapped)
        sb3_check_env(env, skip_render_check=False)


def test_every_row_of_the_registry_is_bundled_with_measured_fidelity():
    assert set(bundled_names()) == set(BUNDLED)
    for name in BUNDLED:
        model = dreamgym.WorldModel.from_pretrained(name)
        assert gym.spec(f"dreamgym/Dream-{name}-v0").max_episode_steps == model.spec.max_episode_steps
        fidelity = read_fidelity(dreamgym.hub.bundle._PRETRAINED / name)
        assert fidelity["data"]["env_steps"] > 0
        assert fidelity["one_step"]["n"] > 0 and fidelity["open_loop"]["mean_noise"]
        assert fidelity["policy"]["awake"]["n"] >= 20 and fidelity["policy"]["dream"]["n"] >= 20
        assert len(fidelity["fixed_policies"]["policies"]) >= 6
        assert -1.0 <= fidelity["fixed_policies"]["rank_correlation"] <= 1.0


def test_dreams_from_real_data_are_uncertain_about_one_percentile_as_calibrated():
    env = gym.make_vec("dreamgym/Dream-CarRacing-v0", num_envs=64, obs_type="latent")
    env.reset(seed=0)
    env.action_space.seed(0)
    _, _, _, _, info = env.step(env.action_space.sample())
    assert float(np.median(info["uncertainty"])) < 1.0
    env.close()


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_latent_observation_gives_the_real_env_the_dreams_spaces(name):
    register_dm_control()
    model = dreamgym.WorldModel.from_pretrained(name)
    make = dreamgym.make_env if name == "DoomTakeCover" else gym.make  # ViZDoom's own env shows a Dict of other pictures
    dream = gym.make(f"dreamgym/Dream-{name}-Latent-v0")
    real = dreamgym.LatentObservation(make(model.spec.env_id), model)
    assert dream.observation_space == real.observation_space and dream.action_space == real.action_space
    obs, _ = real.reset(seed=0)
    assert real.observation_space.contains(obs)
    obs, *_ = real.step(real.action_space.sample())
    assert real.observation_space.contains(obs)
    real.close()


@pytest.mark.parametrize("env_id", IDS)
def test_copies_and_pickles_dream_on_alike_and_are_small(env_id):
    env = gym.make(env_id)
    env.reset(seed=3)
    env.action_space.seed(3)
    env.step(env.action_space.sample())
    pickled = pickle.dumps(env)
    assert len(pickled) < 200_000  # the model travels by reference
    action = env.action_space.sample()
    results = [twin.step(action) for twin in (copy.deepcopy(env), pickle.loads(pickled), env)]
    for other in results[:2]:
        np.testing.assert_array_equal(other[0], results[2][0])
        assert other[1] == results[2][1]


def test_spawned_workers_find_the_id():
    env = gym.make_vec("dreamgym:dreamgym/Dream-Pendulum-v0", num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"})
    obs, _ = env.reset(seed=0)
    obs, *_ = env.step(env.action_space.sample())
    assert obs.shape == (2, 3)
    env.close()


def _make_pendulum():
    return gym.make("dreamgym:dreamgym/Dream-Pendulum-Latent-v0")


def test_sb3s_subprocesses_find_the_id():
    env = SubprocVecEnv([_make_pendulum, _make_pendulum])
    assert env.reset().shape == (2, 3)
    env.close()


def test_four_thousand_dreams_at_once():
    env = gym.make_vec("dreamgym/Dream-CarRacing-v0", num_envs=4096, obs_type="latent", output="torch")
    obs, _ = env.reset(seed=0)
    obs, reward, *_ = env.step(env.action_space.sample())
    assert obs.shape[0] == 4096 and bool(reward.isfinite().all())
    env.close()
