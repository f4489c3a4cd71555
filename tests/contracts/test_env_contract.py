"""Every dream, whatever its model and obs_type, is an environment that others' checkers, wrappers and workers accept."""

import copy
import functools
import pickle
import warnings

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check

from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from tests.toys import BlindWorld, CorridorWorld, CounterWorld, PartsWorld, PictureWorld, make_counter_env, make_picture_env

DREAMS = [
    ("toys/Counter-v0", "make_counter_env", "vector"),
    ("toys/Counter-v0", "make_counter_env", "latent"),
    ("toys/Counter-v0", "make_counter_env", "dict"),
    ("toys/Corridor-v0", "make_corridor_env", "vector"),
    ("toys/Corridor-v0", "make_corridor_env", "latent"),
    ("toys/Picture-v0", "make_picture_env", "pixels"),
    ("toys/Picture-v0", "make_picture_env", "latent"),
    ("toys/Picture-v0", "make_picture_env", "dict"),
    ("toys/Parts-v0", "make_parts_env", "parts"),
    ("toys/Parts-v0", "make_parts_env", "latent"),
    ("toys/Parts-v0", "make_parts_env", "dict"),
]
WORLDS = {"counter": CounterWorld, "picture": PictureWorld, "parts": PartsWorld, "corridor": CorridorWorld, "blind": BlindWorld}


@pytest.fixture
def dream(request):
    env_id, factory, obs_type = request.param
    if env_id not in gym.registry:
        gym.register(env_id, entry_point=f"tests.toys:{factory}", max_episode_steps=20)
    env = gym.make(env_id, obs_type=obs_type, render_mode="rgb_array")
    yield env
    env.close()


@pytest.mark.parametrize("dream", DREAMS, indirect=True, ids=lambda d: f"{d[0]}-{d[2]}")
def test_gymnasium_checker_has_nothing_to_say(dream):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check(dream.unwrapped)


@pytest.mark.parametrize("dream", DREAMS, indirect=True, ids=lambda d: f"{d[0]}-{d[2]}")
def test_sb3_checker_has_nothing_to_say(dream):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check(dream.unwrapped, warn=True, skip_render_check=False)


@pytest.mark.parametrize("dream", DREAMS[::3], indirect=True, ids=lambda d: f"{d[0]}-{d[2]}")
def test_passive_checker_is_silent_over_whole_episodes(dream):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(2):
            dream.reset(seed=seed)
            dream.action_space.seed(seed)
            ended = False
            while not ended:
                _, _, terminated, truncated, _ = dream.step(dream.action_space.sample())
                ended = terminated or truncated


@pytest.mark.parametrize("dream", DREAMS, indirect=True, ids=lambda d: f"{d[0]}-{d[2]}")
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
def test_a_copy_dreams_on_by_itself_as_the_original_would(dream, copied):
    dream.reset(seed=3)
    action = dream.action_space.sample()
    dream.step(action)
    twin = copied(dream)
    assert twin.unwrapped.spec.id == dream.unwrapped.spec.id
    for _ in range(3):
        mine, its = dream.step(action), twin.step(action)
        _assert_equal(mine[0], its[0])
        assert mine[1:] == its[1:]
    _assert_equal(dream.reset()[0], twin.reset()[0])


def test_a_model_from_a_folder_is_pickled_by_reference(monkeypatch):
    world = CounterWorld(sigma=0.1)
    world.source = "/models/counter"
    world.ballast = np.zeros(1_000_000)
    monkeypatch.setattr("dreamgym.registration.load_model", {"/models/counter": world}.__getitem__)
    env = DreamEnv(world)
    env.reset(seed=0)
    data = pickle.dumps(env)
    assert len(data) < 20_000
    assert pickle.loads(data).model is world


def test_a_model_without_a_folder_is_pickled_itself():
    env = DreamVectorEnv(CounterWorld(sigma=0.1), 3)
    env.reset(seed=0)
    twin = pickle.loads(pickle.dumps(env))
    actions = np.zeros((3, 1), np.float32)
    assert twin.model is not env.model
    np.testing.assert_array_equal(twin.step(actions)[0], env.step(actions)[0])


WRAPPERS = [
    lambda env: gym.wrappers.TimeLimit(env, 5),
    lambda env: gym.wrappers.RecordEpisodeStatistics(env),
    lambda env: gym.wrappers.NormalizeObservation(env),
    lambda env: gym.wrappers.NormalizeReward(env),
    lambda env: gym.wrappers.FrameStackObservation(env, 3),
    lambda env: gym.wrappers.FlattenObservation(env),
    lambda env: gym.wrappers.DtypeObservation(env, np.float64),
    lambda env: gym.wrappers.ReshapeObservation(env, (1, 1)),
    lambda env: gym.wrappers.DelayObservation(env, 2),
    lambda env: gym.wrappers.TimeAwareObservation(gym.wrappers.TimeLimit(env, 9)),
    lambda env: gym.wrappers.MaxAndSkipObservation(env, 2),
    lambda env: gym.wrappers.AddRenderObservation(env),
    lambda env: gym.wrappers.StickyAction(env, 0.3),
    lambda env: gym.wrappers.ClipAction(env),
    lambda env: gym.wrappers.RescaleAction(env, np.float32(-2), np.float32(2)),
    lambda env: gym.wrappers.Autoreset(env),
    lambda env: gym.wrappers.RenderCollection(env),
    lambda env: gym.wrappers.PassiveEnvChecker(env),
    lambda env: gym.wrappers.OrderEnforcing(env),
]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=[str(i) for i in range(len(WRAPPERS))])
def test_single_wrappers_work(wrapper):
    env = wrapper(make_counter_env(render_mode="rgb_array"))
    obs, _ = env.reset(seed=0)
    for _ in range(4):
        assert env.observation_space.contains(obs)
        obs = env.step(env.action_space.sample())[0]


def test_image_wrappers_work():
    env = gym.wrappers.ResizeObservation(gym.wrappers.GrayscaleObservation(make_picture_env()), (18, 18))
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)


def test_numpy_to_torch_works():
    env = gym.wrappers.NumpyToTorch(make_counter_env())
    obs, _ = env.reset(seed=0)
    assert type(obs).__name__ == "Tensor"


VECTOR_WRAPPERS = [
    lambda env: gym.wrappers.vector.RecordEpisodeStatistics(env),
    lambda env: gym.wrappers.vector.NormalizeObservation(env),
    lambda env: gym.wrappers.vector.NormalizeReward(env),
    lambda env: gym.wrappers.vector.ClipAction(env),
    lambda env: gym.wrappers.vector.RescaleAction(env, np.float32(-2), np.float32(2)),
    lambda env: gym.wrappers.vector.FlattenObservation(env),
    lambda env: gym.wrappers.vector.DtypeObservation(env, np.float64),
    lambda env: gym.wrappers.vector.DictInfoToList(env),
    lambda env: gym.wrappers.vector.NumpyToTorch(env),
]


@pytest.mark.parametrize("wrapper", VECTOR_WRAPPERS, ids=[str(i) for i in range(len(VECTOR_WRAPPERS))])
def test_vector_wrappers_work(wrapper):
    env = wrapper(DreamVectorEnv(CounterWorld(sigma=0.1, steps=3), 4))
    env.reset(seed=0)
    for _ in range(8):
        env.step(env.action_space.sample())


@pytest.mark.parametrize("wrapper", [VECTOR_WRAPPERS[0], VECTOR_WRAPPERS[2], VECTOR_WRAPPERS[7], VECTOR_WRAPPERS[8]])
def test_vector_wrappers_work_when_episodes_begin_in_the_same_step(wrapper):
    env = wrapper(DreamVectorEnv(CounterWorld(sigma=0.1, steps=3), 4, autoreset_mode="SameStep"))
    env.reset(seed=0)
    for _ in range(8):
        env.step(env.action_space.sample())


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2])
def test_episode_statistics_of_a_batch_are_returns_and_lengths(mode):
    env = DreamVectorEnv(CounterWorld(steps=4, starts=()), 2, autoreset_mode=mode)
    env = gym.wrappers.vector.RecordEpisodeStatistics(env)
    env.reset(seed=0)
    for _ in range(4):
        info = env.step(np.array([[1.0], [0.5]], np.float32))[4]
    np.testing.assert_allclose(info["episode"]["r"], [10.0, 5.0])
    np.testing.assert_array_equal(info["episode"]["l"], [4, 4])


@pytest.mark.filterwarnings("ignore:.*Overwriting existing videos:UserWarning")
def test_videos_are_recorded(tmp_path):
    pytest.importorskip("moviepy")
    env = gym.wrappers.RecordVideo(make_picture_env(render_mode="rgb_array"), str(tmp_path / "one"), episode_trigger=lambda e: True)
    env.reset(seed=0)
    for _ in range(20):
        env.step(env.action_space.sample())
    env.close()
    many = DreamVectorEnv(PictureWorld(), 2, render_mode="rgb_array")
    many = gym.wrappers.vector.RecordVideo(many, str(tmp_path / "many"), episode_trigger=lambda e: True)
    many.reset(seed=0)
    for _ in range(20):
        many.step(many.action_space.sample())
    many.close()
    assert len(list(tmp_path.rglob("*.mp4"))) >= 2


def test_spawned_workers_dream_what_the_parent_dreams():
    fns = [make_counter_env] * 2
    spawned, here = AsyncVectorEnv(fns, context="spawn"), SyncVectorEnv(fns)
    try:
        actions = np.full((2, 1), 0.5, np.float32)
        np.testing.assert_array_equal(spawned.reset(seed=5)[0], here.reset(seed=5)[0])
        np.testing.assert_array_equal(spawned.step(actions)[0], here.step(actions)[0])
    finally:
        spawned.close()


def test_sb3_subprocesses_dream():
    from stable_baselines3.common.vec_env import SubprocVecEnv

    env = SubprocVecEnv([functools.partial(make_counter_env, obs_type="latent")] * 2)
    try:
        env.seed(0)
        assert env.reset().shape == (2, 2)
        assert env.step(np.zeros((2, 1), np.float32))[0].shape == (2, 2)
    finally:
        env.close()


@pytest.mark.parametrize("world", WORLDS)
def test_observations_keep_to_their_space_and_are_new_each_time(world):
    env = DreamEnv(WORLDS[world]())
    first, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(9):
        second, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(second) and not np.shares_memory(first, second)
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        assert [type(info[key]) for key in ("uncertainty", "continue_prob", "dream_step", "halted")] == [float, float, int, bool]
        first = second


@pytest.mark.parametrize("obs_type", ["vector", "latent"])
def test_twenty_thousand_steps_do_not_leak(obs_type):
    env = DreamEnv(CounterWorld(sigma=0.1), obs_type=obs_type)
    action = np.zeros(1, np.float32)

    def live(steps: int) -> None:
        for step in range(steps):
            if step % 20 == 0:
                env.reset()
            env.step(action)

    live(2_000)
    before = psutil.Process().memory_info().rss
    live(20_000)
    assert psutil.Process().memory_info().rss - before < 8 * 2**20


def _assert_equal(mine, its):
    if isinstance(mine, dict):
        for key in mine:
            np.testing.assert_array_equal(mine[key], its[key])
    else:
        np.testing.assert_array_equal(mine, its)
