"""Acting awake: the real world with exactly the dream's spaces, and the belief that the arithmetic says."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamgym.dreams.awake import LatentObservation, LatentVectorObservation
from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from tests.toys import BlindWorld, CorridorWorld, CounterWorld, PictureWorld, RealCounter

# The real counter starts at 1 and adds action + 0.1; CounterWorld believes (belief + action + obs) / 2.


def _x(obs):
    return float(obs[0])


@pytest.mark.parametrize("obs_type", ["latent", "dict"])
def test_spaces_are_exactly_the_dreams(obs_type):
    real, dream = LatentObservation(RealCounter(), CounterWorld(), obs_type=obs_type), DreamEnv(CounterWorld(), obs_type=obs_type)
    assert real.observation_space == dream.observation_space and real.action_space == dream.action_space
    assert real.reset(seed=0)[0] in real.observation_space and real.step(np.zeros(1))[0] in real.observation_space


def test_belief_is_the_posterior_mean_given_actions_and_observations():
    env = LatentObservation(RealCounter(), CounterWorld())
    assert _x(env.reset(seed=0)[0]) == 1.0
    first = (1.0 + 0.5 + 1.6) / 2
    assert _x(env.step(np.float32([0.5]))[0]) == pytest.approx(first)
    assert _x(env.step(np.float32([-1.0]))[0]) == pytest.approx((first - 1.0 + 0.7) / 2)
    assert env.last_obs == pytest.approx(0.7) and env.belief.x.item() == pytest.approx((first - 0.3) / 2)
    assert _x(env.reset()[0]) == 1.0


def test_the_clipped_action_is_what_the_world_and_the_belief_get():
    env = LatentObservation(RealCounter(), CounterWorld())
    env.reset(seed=0)
    assert _x(env.step(np.float32([7.0]))[0]) == pytest.approx((1.0 + 1.0 + 2.1) / 2)


def test_invalid_actions_move_neither_the_world_nor_the_belief():
    env = LatentObservation(RealCounter(), CounterWorld())
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(np.float32([np.nan]))
    assert _x(env.step(np.zeros(1))[0]) == pytest.approx((1.0 + 1.1) / 2)


def test_a_meaningless_observation_leaves_the_prediction():
    env = LatentObservation(RealCounter(invalid_at=1), CounterWorld())
    env.reset(seed=0)
    obs, *_, info = env.step(np.float32([0.5]))
    assert _x(obs) == 1.5 and info["obs_valid"] is False


def test_dict_holds_the_real_observation_beside_the_features():
    env = LatentObservation(RealCounter(), CounterWorld(), obs_type="dict")
    env.reset(seed=0)
    obs = env.step(np.float32([0.5]))[0]
    assert obs["vector"] == pytest.approx(1.6) and obs["latent"][0] == pytest.approx(1.55)


def test_step_needs_a_reset():
    with pytest.raises(ResetNeeded):
        LatentObservation(RealCounter(), CounterWorld()).step(np.zeros(1))


@pytest.mark.parametrize("world", [PictureWorld, CorridorWorld])
def test_an_env_that_the_model_does_not_know_is_refused(world):
    model = world()
    model.observe = CounterWorld.observe
    kind = "observation" if world is PictureWorld else "action"
    with pytest.raises(ValueError, match=f"this env is RealCounter but the model dreams toy/.*: {kind} space .*, expected"):
        LatentObservation(RealCounter(), model)


def test_models_that_cannot_observe_and_kinds_that_are_not_beliefs_are_refused():
    with pytest.raises(ValueError, match="observe"):
        LatentObservation(RealCounter(), BlindWorld())
    with pytest.raises(ValueError, match="'vector'"):
        LatentObservation(RealCounter(), CounterWorld(), obs_type="vector")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
def test_copies_believe_on(copied):
    env = LatentObservation(RealCounter(), CounterWorld())
    env.reset(seed=0)
    twin = copied(env)
    np.testing.assert_array_equal(env.step(np.ones(1))[0], twin.step(np.ones(1))[0])


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2])
def test_a_batch_awake_is_gymnasium_s_batch_of_single_ones(mode):
    model = CounterWorld()
    steps = [2, 3, 5]
    together = LatentVectorObservation(SyncVectorEnv([_real(n) for n in steps], autoreset_mode=mode), model)
    apart = SyncVectorEnv([_real(n, model) for n in steps], autoreset_mode=mode)
    assert together.observation_space == apart.observation_space
    np.testing.assert_allclose(together.reset(seed=0)[0], apart.reset(seed=0)[0])
    actions = np.float32([[0.5], [-0.5], [0.25]])
    for _ in range(12):
        (obs, *_, info), (obs_2, *_, info_2) = together.step(actions), apart.step(actions)
        np.testing.assert_allclose(obs, obs_2, rtol=1e-5)
        for row in info.get("_final_obs", np.zeros(3, bool)).nonzero()[0]:
            np.testing.assert_allclose(info["final_obs"][row], info_2["final_obs"][row], rtol=1e-5)
        assert ("final_obs" in info) == ("final_obs" in info_2)


def test_rows_are_reset_by_mask_and_the_mask_is_left_alone():
    env = LatentVectorObservation(SyncVectorEnv([_real(9)] * 2, autoreset_mode=AutoresetMode.DISABLED), CounterWorld())
    env.reset(seed=0)
    before = env.step(np.ones((2, 1), np.float32))[0]
    options = {"reset_mask": np.array([True, False])}
    obs, _ = env.reset(options=options)
    assert obs[0, 0] == 1.0 and obs[1, 0] == before[1, 0] and list(options) == ["reset_mask"]
    after = env.step(np.zeros((2, 1), np.float32))[0]
    assert after[0, 0] == pytest.approx((1.0 + 1.1) / 2) and after[1, 0] == pytest.approx((float(before[1, 0]) + 2.2) / 2)


def test_meaningless_rows_of_a_batch_keep_the_prediction():
    env = LatentVectorObservation(SyncVectorEnv([_real(9), lambda: RealCounter(9, invalid_at=1)]), CounterWorld())
    env.reset(seed=0)
    obs = env.step(np.full((2, 1), 0.5, np.float32))[0]
    np.testing.assert_allclose(obs[:, 0], [(1.0 + 0.5 + 1.6) / 2, 1.5])


def test_a_policy_acts_alike_asleep_and_awake_where_the_dream_is_true():
    """A dream wrapped as if it were the real world: beliefs then equal the dream's own states."""
    world = CounterWorld(starts=())
    real, dream = LatentVectorObservation(DreamVectorEnv(world, 3), world), DreamVectorEnv(world, 3, obs_type="latent")
    np.testing.assert_allclose(real.reset(seed=0)[0], dream.reset(seed=0)[0])
    actions = np.float32([[0.1], [0.2], [-0.3]])
    for _ in range(25):
        np.testing.assert_allclose(real.step(actions)[0], dream.step(actions)[0], atol=1e-5)


def test_beliefs_can_be_trained_on():
    env = LatentObservation(RealCounter(), CounterWorld())
    env.reset(seed=0)
    weight = torch.ones(1, requires_grad=True)
    (env.belief.x * weight).sum().backward()
    assert weight.grad is not None


def test_a_raw_env_is_preprocessed_as_the_models_was():
    from dataclasses import replace

    from dreamgym.structs import Preprocess

    model = CounterWorld()
    model.spec = replace(model.spec, preprocess=Preprocess(action_repeat=2))
    env = LatentObservation(gym.wrappers.TimeLimit(RealCounter(9), 9), model)
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    assert env.last_obs == pytest.approx(1.2)


def test_a_batch_that_is_not_preprocessed_as_the_models_was_is_refused():
    from dataclasses import replace

    from dreamgym.envs.preprocess import preprocess
    from dreamgym.structs import Preprocess

    model = CounterWorld()
    model.spec = replace(model.spec, preprocess=Preprocess(action_repeat=2))
    with pytest.raises(ValueError, match="action_repeat=2"):
        LatentVectorObservation(SyncVectorEnv([_real(9)] * 2), model)
    ready = SyncVectorEnv([lambda: preprocess(RealCounter(9), model.spec.preprocess)] * 2)
    env = LatentVectorObservation(ready, model)
    env.reset(seed=0)
    env.step(np.zeros((2, 1), np.float32))
    np.testing.assert_allclose(env.last_obs, 1.2, rtol=1e-6)


def _real(steps, model=None):
    return lambda: RealCounter(steps) if model is None else LatentObservation(RealCounter(steps), model)


def test_an_env_of_another_world_that_cannot_even_be_preprocessed_is_told_apart_by_name():
    from dataclasses import replace

    from dreamgym.structs import Preprocess

    model = PictureWorld()
    model.spec = replace(model.spec, preprocess=Preprocess(size=36))
    with pytest.raises(
        ValueError, match=r"env is Pendulum-v1 but the model dreams toy/Picture: observation .*, expected Box.*make_from_spec"
    ):
        LatentObservation(gym.make("Pendulum-v1"), model)


def test_rows_may_be_reset_by_a_list_of_bools():
    env = LatentVectorObservation(SyncVectorEnv([_real(9)] * 2, autoreset_mode=AutoresetMode.DISABLED), CounterWorld())
    env.reset(seed=0)
    before = env.step(np.ones((2, 1), np.float32))[0]
    obs, _ = env.reset(options={"reset_mask": [True, False]})
    assert obs[0, 0] == 1.0 and obs[1, 0] == before[1, 0]
