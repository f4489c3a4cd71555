"""DreamVecEnv: what Stable-Baselines3 expects of a batch."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize

import dreamgym.sb3
from dreamgym.dreams.sb3 import DreamVecEnv
from dreamgym.structs import DreamDefaults
from tests.toys import CorridorWorld, CounterWorld, PictureWorld


def _still(env):
    return np.zeros((env.num_envs, 1), np.float32)


def test_observations_are_latent_unless_asked_otherwise():
    assert DreamVecEnv(PictureWorld(), 2).observation_space.shape == (2,)
    assert DreamVecEnv(PictureWorld(), 2, obs_type="pixels").reset().shape == (2, 36, 36, 3)
    assert set(DreamVecEnv(PictureWorld(), 2, obs_type="dict").reset()) == {"pixels", "latent"}
    assert dreamgym.sb3.DreamVecEnv is DreamVecEnv


def test_ends_carry_what_sb3_reads():
    env = DreamVecEnv(CounterWorld(starts=(), bound=1.5), 2, horizon=3, spread_clocks=False)
    env.reset()
    actions = np.float32([[1.0], [0.25]])
    env.step(actions)
    obs, _, dones, infos = env.step(actions)
    assert dones.tolist() == [True, False] and infos[1] == {}
    assert infos[0]["TimeLimit.truncated"] is False and infos[0]["terminal_observation"][0] == 2.0 and obs[0, 0] == 0.0
    assert infos[0]["episode"]["r"] == 3.0 and infos[0]["episode"]["l"] == 2 and infos[0]["dream_step"] == 2
    _, rewards, dones, infos = env.step(actions)
    assert dones.tolist() == [False, True] and infos[1]["TimeLimit.truncated"] is True and rewards.dtype == np.float32
    assert infos[1]["episode"]["r"] == 1.5 and infos[1]["episode"]["l"] == 3


def test_first_episodes_end_one_after_the_other_and_later_ones_have_full_length():
    env = DreamVecEnv(CounterWorld(starts=(), steps=20), 64, seed=0)
    env.reset()
    ends = [env.step(_still(env))[2].sum() for _ in range(20)]
    assert sum(ends) >= 64 and max(ends) < 16
    lengths = [info["episode"]["l"] for _ in range(20) for info in env.step(_still(env))[3] if info]
    assert lengths and set(lengths) == {20}


def test_clocks_run_together_if_asked():
    env = DreamVecEnv(CounterWorld(starts=(), steps=5), 8, spread_clocks=False)
    env.reset()
    assert [int(env.step(_still(env))[2].sum()) for _ in range(5)] == [0, 0, 0, 0, 8]


def test_defaults_are_the_models_training_defaults():
    world = CounterWorld(defaults=DreamDefaults(horizon=4, starts="any", uncertainty_penalty=0.5))
    env = DreamVecEnv(world, 64, spread_clocks=False)
    assert 2.0 in env.reset()[:, 0]
    obs, rewards, *_ = env.step(_still(env))
    np.testing.assert_allclose(rewards, obs[:, 0] - 0.5 * np.abs(obs[:, 0]))
    assert env.get_attr("max_episode_steps") == [4] * 64


def test_seeds_make_batches_reproducible_once():
    env = DreamVecEnv(CounterWorld(sigma=0.3), 4, seed=7)
    first = np.concatenate([env.reset(), env.step(_still(env))[0]])
    other = np.concatenate([env.reset(), env.step(_still(env))[0]])
    env.seed(7)
    np.testing.assert_array_equal(np.concatenate([env.reset(), env.step(_still(env))[0]]), first)
    assert not np.array_equal(first, other)


def test_options_go_to_the_next_reset():
    env = DreamVecEnv(CounterWorld(), 2)
    env.set_options({"initial_state": 3})
    assert env.reset()[:, 0].tolist() == [2.0, 2.0]
    env.set_options([{"initial_state": 3}, {"initial_state": 0}])
    with pytest.raises(ValueError, match="share"):
        env.reset()


def test_attributes_methods_and_pictures():
    env = DreamVecEnv(PictureWorld(), 3, render_mode="rgb_array")
    env.reset()
    assert env.get_attr("render_mode") == ["rgb_array"] * 3 and env.render_mode == "rgb_array"
    assert len(env.env_method("render", indices=[0, 2])) == 2 and env.render().dtype == np.uint8
    assert env.env_is_wrapped(Monitor) == [True] * 3 and env.env_is_wrapped(gym.wrappers.TimeLimit) == [False] * 3
    assert env.has_attr("temperature") and not env.has_attr("nothing")
    with pytest.raises(ValueError, match="share"):
        env.set_attr("temperature", 0.5, indices=0)
    env.set_attr("temperature", 0.5)
    assert env.get_attr("temperature", 1) == [0.5]


@pytest.mark.filterwarnings("ignore:The environment is already wrapped:UserWarning")
@pytest.mark.parametrize("wrapper", [VecMonitor, VecNormalize, lambda env: VecFrameStack(env, 2)], ids=["monitor", "normalize", "stack"])
def test_sb3_wrappers_work(wrapper):
    env = wrapper(DreamVecEnv(CounterWorld(steps=3), 4))
    env.reset()
    for _ in range(8):
        env.step(_still(env))


@pytest.fixture
def one_thread():
    """Networks this small run twenty times slower when several threads share them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_ppo_learns_the_corridor(one_thread):
    env = DreamVecEnv(CorridorWorld(), 16, seed=0)
    ppo = PPO("MlpPolicy", env, n_steps=16, batch_size=256, n_epochs=8, learning_rate=5e-3, seed=0, device="cpu")
    before, _ = evaluate_policy(ppo, DreamVecEnv(CorridorWorld(), 4, spread_clocks=False), n_eval_episodes=4, deterministic=False)
    ppo.learn(4_000)
    after, _ = evaluate_policy(ppo, DreamVecEnv(CorridorWorld(), 4, spread_clocks=False), n_eval_episodes=4)
    assert before < 6 and after == 14.0  # three steps to the last cell, the third already pays: 14 of 16


def test_without_sb3_the_import_says_how_to_get_it():
    code = (
        "import sys; sys.modules['stable_baselines3'] = None\n"
        "from dreamgym.errors import MissingDependencyError\n"
        "try:\n    import dreamgym.sb3\n"
        "except MissingDependencyError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'pip install "dreamgym[sb3]"' in said


def test_this_door_is_for_training_unless_told_otherwise():
    world = CounterWorld(defaults=DreamDefaults(horizon=3), steps=9)
    assert DreamVecEnv(world, 2).dreams.max_episode_steps == 3
    assert DreamVecEnv(world, 2, training=False).dreams.max_episode_steps == 9
