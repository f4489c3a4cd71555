"""The alignment oracle (specs/dreamer.md F.2-10): an off-by-one in actions or rewards shows only in open loop.

In the echo world o_{t+1} = a_t, and the reward is 1 for one of three random actions. Every core, latent, path and objective is here.
"""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from dreamgym.data import Replay
from dreamgym.data.collection import collect
from dreamgym.models.latents import CategoricalLatent, GaussianLatent
from dreamgym.models.objectives import Contrastive, KLConfig, RewardOnly
from dreamgym.models.rssm import BlockGRUConfig, LayerNormGRUConfig
from dreamgym.structs import Spec
from tests.models.builders import K, echo_errors, tiny_dreamer, tiny_ensemble, tiny_mdn, tiny_rssm, train

REWARD_VARIANCE = 2.0 / 9.0  # of a reward that is 1 with probability 1/3
OBS_VARIANCE = 2.0 / 3.0  # of a one-hot of three, summed

SIGMOID2 = GaussianLatent(size=6, std="sigmoid2")
CLASSES, UNIMIX = CategoricalLatent(variables=4, classes=4), CategoricalLatent(variables=4, classes=4, unimix=0.01)
LAYER_NORM, BLOCKS = LayerNormGRUConfig(), BlockGRUConfig(blocks=4)
OVER_OBS, OVER_STATE = (Contrastive(over, "all", layers=1, units=32, scale=3.0) for over in ("obs", "state"))
V2, V3 = KLConfig(0.8, 0.2, free_nats=0.0), KLConfig(1.0, 0.1, free_nats=0.0)
OVERSHOOTING = KLConfig(free_nats=0.0, overshooting_distance=3, overshooting_scale=1.0)
PRIOR_ONLY = KLConfig(1.0, 0.0, free_nats=0.0)  # of the deterministic path: see the test about it below

MODELS = {
    "ensemble of 3": tiny_ensemble,
    "ensemble of 1": partial(tiny_ensemble, members=1),
    "two stages": tiny_rssm,
    "two stages, layer norm, classes": partial(tiny_rssm, latent=CLASSES, cell=LAYER_NORM),
    "two stages, blocks, unimix, 3 priors": partial(tiny_rssm, latent=UNIMIX, cell=BLOCKS, prior_members=3),
    "two stages, deterministic": partial(tiny_rssm, path="deterministic", latent=SIGMOID2, deter=16),
    "two stages, stochastic": partial(tiny_rssm, path="stochastic", deter=16),
    "mixture": tiny_mdn,
    "mixture, shared choice, no flag": partial(tiny_mdn, mixture="shared", first_flag=False, features="zh"),
    "reconstruction": tiny_dreamer,
    "reconstruction, layer norm, sigmoid2, 3 priors": partial(tiny_dreamer, latent=SIGMOID2, cell=LAYER_NORM, prior_members=3),
    "reconstruction, v2": partial(tiny_dreamer, None, V2, latent=CLASSES, cell=LAYER_NORM),
    "reconstruction, v3": partial(
        tiny_dreamer, None, V3, latent=UNIMIX, cell=BLOCKS, two_hot=True, activation="silu", norm="rms", deter=24, hidden=24
    ),
    "reconstruction, overshooting": partial(tiny_dreamer, None, OVERSHOOTING),
    "reconstruction, overshooting, classes": partial(tiny_dreamer, None, OVERSHOOTING, latent=CLASSES),
    "reconstruction, deterministic": partial(tiny_dreamer, None, PRIOR_ONLY, path="deterministic"),
    "reconstruction, deterministic, classes": partial(tiny_dreamer, None, PRIOR_ONLY, path="deterministic", latent=CLASSES),
    "reconstruction, stochastic": partial(tiny_dreamer, path="stochastic"),
    "reconstruction, stochastic, unimix": partial(tiny_dreamer, path="stochastic", latent=UNIMIX),
    "contrastive over observations": partial(tiny_dreamer, OVER_OBS),
    "contrastive over observations, layer norm, classes": partial(tiny_dreamer, OVER_OBS, V2, latent=CLASSES, cell=LAYER_NORM),
    "contrastive over states": partial(tiny_dreamer, OVER_STATE, latent=SIGMOID2),
    "contrastive over states, stochastic, classes": partial(tiny_dreamer, OVER_STATE, path="stochastic", latent=CLASSES),
    "reward only": partial(tiny_dreamer, RewardOnly()),
    "reward only, overshooting, unimix": partial(tiny_dreamer, RewardOnly(), OVERSHOOTING, latent=UNIMIX),
}
LATE = [
    "ensemble of 3",
    "two stages",
    "mixture",
    "reconstruction, v2",
    "reconstruction, overshooting",
    "reconstruction, stochastic",
    "contrastive over observations",
    "reward only",
]
UPDATES, RATE = 90, 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_open_loop_rewards_become_exact(name):
    model = MODELS[name]()
    train(model, UPDATES, rate=RATE)
    errors = echo_errors(model)
    assert errors.dreamt < 0.05 * REWARD_VARIANCE
    if "reconstruction" in name:
        assert errors.dreamt_obs < 0.05 * OBS_VARIANCE


@pytest.mark.parametrize("name", LATE)
def test_late_actions_leave_the_marginal_variance_where_what_is_seen_is_known(name):
    model = MODELS[name]()
    train(model, UPDATES, shift=-1, rate=RATE)
    errors = echo_errors(model, shift=-1)
    assert errors.dreamt > 0.7 * REWARD_VARIANCE
    if "ensemble" not in name:  # which reads rewards off steps only
        assert errors.seen < 0.4 * REWARD_VARIANCE


@pytest.mark.parametrize("name", LATE)
def test_rewards_of_the_next_row_cannot_be_told(name):
    """Nor can a model dream rewards that are stored one row early, however well it dreams what it sees."""
    model = MODELS[name]()
    train(model, UPDATES, reward_shift=1, rate=RATE)
    errors = echo_errors(model, reward_shift=1)
    assert errors.dreamt > 0.7 * REWARD_VARIANCE
    if "reconstruction" in name:
        assert errors.dreamt_obs < 0.05 * OBS_VARIANCE


def test_the_deterministic_path_needs_its_prior_pulled_to_dream():
    """PlaNet's ablation has no KL (specs/planet.md 2.6), so nothing ever trains the prior: perfect awake, lost in open loop."""
    no_kl = KLConfig(0.0, 0.0, free_nats=0.0)
    model = tiny_dreamer(None, no_kl, path="deterministic")
    train(model, UPDATES, rate=RATE)
    errors = echo_errors(model)
    assert errors.seen < 0.02 * REWARD_VARIANCE
    assert errors.dreamt > 0.2 * REWARD_VARIANCE and errors.dreamt_obs > 0.2 * OBS_VARIANCE


class Echo(gym.Env):
    """The echo world as an environment: shows the action that was taken; ends after 5 steps."""

    observation_space: spaces.Space = spaces.Box(0.0, 1.0, (K,), np.float32)
    action_space: spaces.Space = spaces.Discrete(K)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(K, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.eye(K, dtype=np.float32)[action], float(action == 0), self.steps == 5, False, {}


class Random:
    """Uniform actions."""

    def reseed(self, seed):
        self.rng = np.random.default_rng(seed)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.rng.integers(K, size=1), None


def test_what_is_lived_is_stored_with_the_action_that_led_there():
    """The other half of the oracle: rows of a real echo world, as windows across episodes, are aligned as those above."""
    replay = Replay(Spec("Tests/Echo", Echo.observation_space, Echo.action_space, max_episode_steps=5))
    collect(Echo(), Random(), replay, episodes=6, seed=0)
    rows = replay.sample_windows(np.arange(20), 9)
    assert bool((rows.obs == rows.prev_action).all()) and bool((rows.reward == rows.prev_action[..., 0]).all())
    first = rows.is_first
    assert bool(first.any()) and not rows.prev_action[first].any() and not rows.reward[first].any()
    assert bool((rows.prev_action[~first].sum(-1) == 1.0).all())
    assert bool((first[:, 1:] == rows.is_terminal[:, :-1]).all())
