"""Sampled beliefs awake: their own noise per row and episode, repeated by a seed, whatever the batch."""

import pickle

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamgym.dreams.awake import LatentObservation, LatentVectorObservation
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.structs import DreamDefaults
from tests.models.builders import tiny_mdn
from tests.toys import CounterWorld, PointState, RealCounter


class DoubtfulWorld(CounterWorld):
    """Believes what it sees plus the noise of its second lane, less 0.5; remembers the lane that may be held."""

    def observe(self, state, prev_action, obs, is_first, noise):
        self.held = noise[:, 0]
        return PointState(super().observe(state, prev_action, obs, is_first, noise).x + noise[:, 1:] - 0.5)


STILL = np.zeros(1, np.float32)


def _lived(env, seed=None, steps=3):
    return np.stack([env.reset(seed=seed)[0], *(env.step(STILL)[0] for _ in range(steps))])[..., 0]


def _awake(steps=9, **options):
    return LatentObservation(RealCounter(steps), DoubtfulWorld(), **options)


def test_beliefs_are_means_unless_the_model_or_the_caller_wants_samples():
    sampling = DoubtfulWorld(defaults=DreamDefaults(belief="sample"))
    means = _lived(_awake(), seed=0)
    assert np.array_equal(means, _lived(LatentObservation(RealCounter(9), sampling, belief="mean"), seed=0))
    for env in (_awake(belief="sample"), LatentObservation(RealCounter(9), sampling)):
        assert (_lived(env, seed=0) != means).all()


def test_a_seed_repeats_what_was_believed_and_episodes_differ():
    env = _awake(belief="sample")
    runs = [_lived(env, seed) for seed in (5, None, 5, None, 6)]
    assert np.array_equal(runs[0], runs[2]) and np.array_equal(runs[1], runs[3])
    assert not np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[4])


def test_without_a_seed_nobody_repeats_it():
    assert not np.array_equal(_lived(_awake(belief="sample")), _lived(_awake(belief="sample")))


def test_lanes_that_choose_a_member_or_a_mask_stay_at_their_mean():
    env = _awake(belief="sample")
    _lived(env, seed=0)
    assert env.model.held.tolist() == [0.5]


@pytest.mark.parametrize("mode", list(AutoresetMode)[:2])
def test_a_row_samples_what_a_single_env_of_its_seed_samples(mode):
    steps = [2, 3, 5]
    model = DoubtfulWorld()
    together = LatentVectorObservation(
        SyncVectorEnv([lambda n=n: RealCounter(n) for n in steps], autoreset_mode=mode), model, belief="sample"
    )
    apart = SyncVectorEnv([lambda n=n: _awake(n, belief="sample") for n in steps], autoreset_mode=mode)
    np.testing.assert_array_equal(together.reset(seed=4)[0], apart.reset(seed=4)[0])
    for _ in range(12):
        (obs, *_, info), (obs_2, *_, info_2) = together.step(np.zeros((3, 1))), apart.step(np.zeros((3, 1)))
        np.testing.assert_allclose(obs, obs_2, rtol=1e-6)
        for row in info.get("_final_obs", np.zeros(3, bool)).nonzero()[0]:
            np.testing.assert_allclose(info["final_obs"][row], info_2["final_obs"][row], rtol=1e-6)


def test_a_partial_reset_leaves_the_other_rows_streams():
    envs = [
        LatentVectorObservation(
            SyncVectorEnv([lambda: RealCounter(9)] * 2, autoreset_mode=AutoresetMode.DISABLED), DoubtfulWorld(), belief="sample"
        )
        for _ in range(2)
    ]
    still = np.zeros((2, 1), np.float32)
    for env in envs:
        env.reset(seed=1)
        env.step(still)
    envs[0].reset(seed=7, options={"reset_mask": np.array([True, False])})
    one, other = (env.step(still)[0] for env in envs)
    assert one[1, 0] == other[1, 0] and one[0, 0] != other[0, 0]


def test_beliefs_about_a_dream_are_not_drawn_from_the_dream_s_own_noise():
    world = DoubtfulWorld(sigma=0.1, starts=())
    dream, plain = DreamVectorEnv(world, 50), DreamVectorEnv(world, 50)
    awake = LatentVectorObservation(dream, world, belief="sample")
    (seen, _), (obs, _) = awake.reset(seed=0), plain.reset(seed=0)
    still = np.zeros((50, 1), np.float32)
    step, before = plain.step(still)[0][:, 0], obs[:, 0]
    believed = awake.step(still)[0][:, 0] - 0.5 * (seen[:, 0] + step)
    assert abs(np.corrcoef(step - before, believed)[0, 1]) < 0.35


def test_a_pickled_env_samples_on():
    env = _awake(belief="sample")
    env.reset(seed=0)
    twin = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(env.step(STILL)[0], twin.step(STILL)[0])


def test_other_kinds_of_belief_are_refused():
    with pytest.raises(ValueError, match="belief is 'mode'"):
        _awake(belief="mode")


def test_an_mdn_rnn_s_code_is_drawn_anew_for_each_picture():
    model = tiny_mdn(belief="sample")
    obs = np.zeros((1, 64, 64, 3), np.uint8)
    import gymnasium as gym

    class Black(gym.Env):
        observation_space, action_space = model.spec.observation_space, model.spec.action_space

        def reset(self, *, seed=None, options=None):
            return obs[0], {}

        def step(self, action):
            return obs[0], 0.0, False, False, {}

    env = LatentObservation(Black(), model)
    env.reset(seed=0)
    first = env.belief.stoch
    env.step(0)
    assert not (env.belief.stoch == first).any()
    env.reset(seed=0)
    assert (env.belief.stoch == first).all()
