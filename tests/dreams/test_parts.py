"""Dict observations and MultiDiscrete actions go through every door of a dream, and through the filter awake."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamgym.dreams.actions import ActionReader
from dreamgym.dreams.awake import LatentObservation, LatentVectorObservation
from dreamgym.dreams.drawing import frame
from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.structs import Spec
from tests.toys import CounterWorld, PartsWorld, PictureWorld, RealCounter, RealParts

FAST_RIGHT, SLOW_LEFT = np.array([2, 1]), np.array([0, 0])


def parts(x):
    """What PartsWorld shows at x, camera left out."""
    return {"place": [x, -x], "side": np.sign(x) + 1}


def shown(obs, row=None):
    return {name: np.asarray(obs[name] if row is None else obs[name][row]).tolist() for name in ("place", "side")}


def test_a_dream_shows_the_parts_that_choices_lead_to():
    env = DreamEnv(PartsWorld(starts=()))
    obs, _ = env.reset(seed=0)
    assert env.obs_type == "parts" and shown(obs) == parts(0.0)
    obs = env.step(FAST_RIGHT)[0]
    assert shown(obs) == parts(2.0) and (obs["camera"] == 148).all() and type(obs["side"]) is np.int64
    assert shown(env.step(SLOW_LEFT)[0]) == parts(1.0)


def test_predictions_out_of_the_space_are_brought_into_it():
    world = PartsWorld(starts=())
    world.decode = lambda state: {
        "camera": torch.zeros(1, 64, 64, 3, dtype=torch.uint8), "place": torch.tensor([[99.0, -99.0]]), "side": torch.tensor([2.6])
    }  # fmt: skip
    obs, _ = DreamEnv(world).reset()
    assert obs["place"].tolist() == [10.0, -10.0] and obs["side"] == 2


def test_obs_type_dict_adds_the_features_to_the_parts():
    obs, _ = DreamEnv(PartsWorld(), obs_type="dict").reset(seed=0)
    assert sorted(obs) == ["camera", "latent", "place", "side"]
    world = PartsWorld()
    world.spec = Spec("x", spaces.Dict(latent=spaces.Box(-1, 1, (2,))), world.spec.action_space, 9)
    with pytest.raises(ValueError, match="'latent' itself"):
        DreamEnv(world, obs_type="dict")


@pytest.mark.parametrize("output", ["numpy", "torch"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_slots_show_parts_in_every_autoreset_mode(mode, output):
    env = DreamVectorEnv(PartsWorld(starts=(), steps=2), 3, autoreset_mode=mode, output=output)
    env.reset(seed=0)
    actions = np.stack([FAST_RIGHT, SLOW_LEFT, FAST_RIGHT])
    env.step(actions)
    obs, _, _, truncated, info = env.step(actions)
    last = info["final_obs"] if mode == AutoresetMode.SAME_STEP else obs
    assert truncated.all() and [shown(last, row) for row in range(3)] == [parts(x) for x in (4.0, -2.0, 4.0)]
    if mode == AutoresetMode.DISABLED:
        obs, _ = env.reset(options={"reset_mask": np.array([True, False, False])})
        assert [shown(obs, row) for row in range(3)] == [parts(x) for x in (0.0, -2.0, 4.0)]
    else:
        obs = obs if mode == AutoresetMode.SAME_STEP else env.step(actions)[0]
        assert [shown(obs, row) for row in range(3)] == [parts(0.0)] * 3
    if output == "numpy":
        assert env.observation_space.contains(obs)


def test_a_slot_dreams_what_a_single_dream_does():
    single, batch = DreamEnv(PartsWorld(sigma=0.3)), DreamVectorEnv(PartsWorld(sigma=0.3), 4)
    one, _ = single.reset(seed=12)
    many, _ = batch.reset(seed=10)
    for _ in range(3):
        np.testing.assert_equal(shown(many, 2), shown(one))
        one = single.step(FAST_RIGHT)[0]
        many = batch.step(np.stack([FAST_RIGHT] * 4))[0]


@pytest.mark.parametrize("action", [[3, 0], [-1, 0], [1.0, 0.0], [1], 1, [1, np.nan], None])
def test_choices_that_do_not_exist_are_refused_before_anything_moves(action):
    env = DreamEnv(PartsWorld(starts=()))
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(action)
    assert shown(env.step(FAST_RIGHT)[0]) == parts(2.0)


def test_batches_of_choices_name_the_wrong_row():
    env = DreamVectorEnv(PartsWorld(), 3)
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="row 1"):
        env.step(np.array([[0, 0], [0, 2], [0, 0]]))


def test_choices_that_do_not_count_from_zero_are_read():
    spec = Spec("x", spaces.Box(-1, 1, (1,)), spaces.MultiDiscrete([2, 3], start=[5, -1]), 9)
    reader = ActionReader(spec, torch.device("cpu"))
    assert reader.one([6, -1]).tolist() == [[0, 1, 1, 0, 0]]
    assert reader.many(np.array([[5, 1], [9, 9]]), 2, torch.tensor([False, True]))[0].tolist() == [[1, 0, 0, 0, 1], [1, 0, 1, 0, 0]]
    valid, bad = reader._from_device(torch.tensor([[5, 1], [4, 0], [6, 2]]), 3, None)
    assert bad.tolist() == [False, True, True]
    assert valid.tolist() == [[1, 0, 0, 0, 1], [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]


def test_dreams_start_after_real_parts():
    env = DreamEnv(PartsWorld())
    frames = {
        "camera": np.zeros((3, 64, 64, 3), np.uint8), "place": np.array([[1, -1], [4, -4], [5, -5]], np.float32), "side": np.full(3, 2)
    }  # fmt: skip
    obs, _ = env.reset(options={"context": {"obs": frames, "action": np.array([FAST_RIGHT, FAST_RIGHT])}})
    assert shown(obs) == parts(5.25)  # 1, then (1+2+4)/2 = 3.5, then (3.5+2+5)/2 = 5.25


@pytest.mark.parametrize(
    ("change", "word"),
    [({"place": np.zeros((3, 3))}, r"obs\['place'\]"), ({"side": np.zeros((2,), int)}, "equally many"), ({"sound": 1}, "camera")],
)
def test_a_context_of_other_parts_is_refused(change, word):
    frames = {"camera": np.zeros((3, 64, 64, 3), np.uint8), "place": np.zeros((3, 2)), "side": np.zeros(3, int)}
    with pytest.raises(ValueError, match=word):
        DreamEnv(PartsWorld()).reset(options={"context": {"obs": {**frames, **change}, "action": np.zeros((2, 2), int)}})


def test_render_shows_the_first_image_or_all_vectors():
    env = DreamEnv(PartsWorld(starts=()), render_mode="rgb_array", render_size=128)
    env.reset(seed=0)
    env.step(FAST_RIGHT)
    assert (env.render() == 148).all() and env.render().shape == (128, 128, 3)
    space = spaces.Dict(place=spaces.Box(-1, 1, (1,)), side=spaces.Discrete(3, start=1))
    assert (
        frame({"side": np.int64(2), "place": np.float32([0.5])}, space, 64)
        == frame(np.float32([0.5, 0, 1, 0]), spaces.Box(-1, 1, (4,)), 64)
    ).all()  # fmt: skip


def test_of_stacked_images_the_last_is_drawn():
    images = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 30)], -1)
    assert (frame(images, PictureWorld().spec.observation_space, 8, stack=3) == 30).all()
    colours = np.concatenate([images, images + 1], -1)
    assert frame(colours, PictureWorld().spec.observation_space, 8, stack=2)[0, 0].tolist() == [11, 21, 31]


def test_awake_the_belief_follows_real_parts():
    env = LatentObservation(RealParts(), PartsWorld())
    obs, _ = env.reset(seed=0)
    assert obs[0] == 1.0 and sorted(env.last_obs) == ["camera", "place", "side"]
    obs = env.step(FAST_RIGHT)[0]
    assert obs[0] == pytest.approx((1.0 + 2.0 + 3.1) / 2)


def test_awake_dict_shows_the_real_parts_beside_the_features():
    env = LatentObservation(RealParts(), PartsWorld(), obs_type="dict")
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs) and env.observation_space == DreamEnv(PartsWorld(), obs_type="dict").observation_space
    assert shown(obs) == parts(1.0) and obs["latent"][0] == 1.0


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("obs_type", ["latent", "dict"])
def test_beliefs_of_real_parts_are_kept_per_row(mode, obs_type):
    rows = SyncVectorEnv([lambda: RealParts(steps=2), lambda: RealParts(steps=9)], autoreset_mode=mode)
    env = LatentVectorObservation(rows, PartsWorld(), obs_type=obs_type)
    single = [LatentObservation(RealParts(steps=steps), PartsWorld(), obs_type=obs_type) for steps in (2, 9)]
    obs, _ = env.reset(seed=0)
    expected = [one.reset()[0] for one in single]
    for _ in range(2):
        assert_rows(obs, expected)
        obs, *_, info = env.step(np.stack([FAST_RIGHT, SLOW_LEFT]))
        expected = [one.step(action)[0] for one, action in zip(single, (FAST_RIGHT, SLOW_LEFT))]
    if mode == AutoresetMode.SAME_STEP:
        assert_rows(info["final_obs"], expected)
        expected[0] = single[0].reset()[0]
    assert_rows(obs, expected)


def assert_rows(obs, expected):
    for row, one in enumerate(expected):
        if isinstance(obs, dict):
            assert {name: values[row].tolist() for name, values in obs.items()} == {name: value.tolist() for name, value in one.items()}
        else:
            np.testing.assert_allclose(obs[row], one)


class OtherParts(gym.Wrapper):
    def __init__(self, env, **changed):
        super().__init__(env)
        self.observation_space = spaces.Dict({**env.observation_space.spaces, **changed})


@pytest.mark.parametrize(
    "env",
    [
        OtherParts(RealParts(), side=spaces.Discrete(4)),
        OtherParts(RealParts(), place=spaces.Box(-1, 1, (3,))),
        OtherParts(RealParts(), sound=spaces.Box(-1, 1, (3,))),
        RealCounter(),
    ],
)
def test_an_env_of_other_parts_is_not_the_one_that_is_dreamt(env):
    with pytest.raises(ValueError, match="observation space"):
        LatentObservation(env, PartsWorld())


def test_a_dict_env_is_refused_by_a_model_of_vectors():
    with pytest.raises(ValueError, match="observation space"):
        LatentObservation(RealParts(), CounterWorld())


def test_sb3_learns_in_a_dream_of_parts():
    from stable_baselines3 import PPO

    from dreamgym.dreams.sb3 import DreamVecEnv

    env = DreamVecEnv(PartsWorld(sigma=0.1, steps=4), 2, obs_type="parts", seed=0)
    small = {"features_extractor_kwargs": {"cnn_output_dim": 8}, "net_arch": [8]}
    agent = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu", policy_kwargs=small).learn(16)
    obs = env.reset()
    actions, _ = agent.predict(obs)
    assert env.observation_space.contains({name: values[0] for name, values in obs.items()}) and actions.shape == (2, 2)
    ended = []
    for _ in range(4):
        _, _, dones, infos = env.step(np.stack([FAST_RIGHT] * 2))
        ended += [info for info, done in zip(infos, dones) if done]
    assert ended and all(env.observation_space.contains(info["terminal_observation"]) for info in ended)
