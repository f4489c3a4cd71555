"""The reset oracle (specs/dreamer.md F.2-11): nothing crosses the start of an episode, in training as awake, in any model."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from dreamgym.models.latents import CategoricalLatent, GaussianLatent
from dreamgym.models.objectives import Contrastive, KLConfig, Reconstruction, RewardOnly
from dreamgym.models.rssm import BlockGRUConfig, GRUConfig, LayerNormGRUConfig
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import SequenceBatch
from tests.models.builders import coded, echo_world, noise_for, see, tiny_dreamer, tiny_ensemble, tiny_mdn, tiny_rssm

T, JOIN = 9, 4  # two episodes, rows 0 to 3 and 4 to 8

LATENTS = {
    "softplus": GaussianLatent(size=4),
    "sigmoid2": GaussianLatent(size=4, std="sigmoid2"),
    "classes": CategoricalLatent(variables=3, classes=4),
    "unimix": CategoricalLatent(variables=3, classes=4, unimix=0.01),
}
CELLS = {"gru": GRUConfig(), "layer norm": LayerNormGRUConfig(), "blocks": BlockGRUConfig(blocks=4)}
PATHS = ("both", "deterministic", "stochastic")
CORES = {
    f"{cell}, {latent}, {path}": {"cell": CELLS[cell], "latent": LATENTS[latent], "path": path, "deter": 16, "hidden": 12}
    for cell, latent, path in itertools.product(CELLS, LATENTS, PATHS)
}
CORES |= {f"3 priors, {latent}": {"latent": LATENTS[latent], "prior_members": 3, "deter": 16, "hidden": 12} for latent in LATENTS}
OVERSHOOTING = KLConfig(overshooting_distance=4, overshooting_scale=1.0)
OBJECTIVES: dict[str, Any] = {
    "reconstruction": partial(tiny_dreamer, Reconstruction()),
    "overshooting": partial(tiny_dreamer, Reconstruction(), OVERSHOOTING),
    "contrastive over observations": partial(tiny_dreamer, Contrastive("obs", layers=1, units=8)),
    "contrastive over states": partial(tiny_dreamer, Contrastive("state", layers=1, units=8)),
    "reward only": partial(tiny_dreamer, RewardOnly()),
    "two stages": tiny_rssm,
    "mixture": tiny_mdn,
    "mixture, shared choice, no flag": partial(tiny_mdn, mixture="shared", first_flag=False),
    "ensemble": tiny_ensemble,
}
cores = pytest.mark.parametrize("core", CORES.values(), ids=CORES)
objectives = pytest.mark.parametrize("build", OBJECTIVES.values(), ids=OBJECTIVES)


def two_episodes(batch: int = 3) -> SequenceBatch:
    """Rows [B,T] that join in the middle; on the second's first row the action is that which ended the first, as replays may have it."""
    rows = echo_world(batch, T, seed=4, episode=1000)  # no end of its own
    first = torch.zeros(batch, T, dtype=torch.bool)
    first[:, [0, JOIN]] = True
    last = torch.zeros_like(first)
    last[:, [JOIN - 1, T - 1]] = True
    stale = torch.nn.functional.one_hot(torch.arange(batch) % rows.prev_action.shape[-1], rows.prev_action.shape[-1]).float()
    action = rows.prev_action.clone()
    action[:, JOIN] = stale
    return replace(rows, prev_action=action, is_first=first, is_last=last, is_terminal=last)


def awake(model: WorldModel, rows: SequenceBatch, noise: torch.Tensor, start: Any = None) -> Any:
    """Beliefs [B,T] as acting has them, one observation after the other."""
    state, states = model.initial(len(rows.reward)) if start is None else start, []
    for t in range(rows.reward.shape[1]):
        state = see(model, state, rows, t, noise[:, t])
        states.append(state)
    return type(state).stack(states, 1)


def alone(model: WorldModel, rows: SequenceBatch, noise: torch.Tensor) -> Any:
    """The two episodes, each from an empty memory and without the action before it."""
    action = rows.prev_action.clone()
    action[:, JOIN] = 0.0
    rows = replace(rows, prev_action=action)
    parts = [awake(model, rows[:, part], noise[:, part]) for part in (slice(0, JOIN), slice(JOIN, T))]
    return type(parts[0]).cat(parts, 1)


def assert_same(states: Any, expected: Any) -> None:
    for (name, mine), (_, its) in zip(states.items(), expected.items(), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@cores
def test_two_episodes_in_a_row_equal_each_alone_awake(core):
    model, rows = tiny_dreamer(**core), two_episodes()
    noise = noise_for(model, 3, T)
    assert_same(awake(model, rows, noise), alone(model, rows, noise))


@cores
def test_the_states_a_joint_loss_trains_on_are_those_of_each_episode_alone(core):
    model, rows = tiny_dreamer(**core), two_episodes()
    noise = noise_for(model, 3, T)
    assert_same(model.loss(rows, noise).states, alone(model, rows, noise))


@cores
def test_the_states_a_two_stage_loss_trains_on_are_those_of_each_episode_alone(core):
    model, rows = tiny_rssm(**core), two_episodes()
    noise = noise_for(model, 3, T)
    assert_same(model.loss(rows, noise).states, alone(model, rows, noise))


@objectives
def test_the_states_of_every_objective_are_those_of_each_episode_alone(build):
    model, rows = build(), two_episodes()
    noise = noise_for(model, 3, T)
    assert_same(model.loss(coded(model, rows), noise).states, alone(model, rows, noise))


@cores
def test_no_gradient_crosses_the_start_of_an_episode(core):
    """A reset by values alone could still teach the last episode about the next one."""
    model, rows = tiny_dreamer(**core), two_episodes()
    obs, action = (tensor.clone().requires_grad_() for tensor in (rows.obs, rows.prev_action))
    states = model.loss(replace(rows, obs=obs, prev_action=action), noise_for(model, 3, T)).states
    features = model.core.features(states)[:, JOIN:]
    reached = torch.autograd.grad(features.square().sum(), [obs, action])
    for gradient in reached:
        assert not gradient[:, :JOIN].any() and gradient[:, JOIN + 1 :].any()
    assert not reached[1][:, JOIN].any()  # nor does the action that led out of the last one count


@objectives
def test_the_loss_of_two_episodes_in_a_row_and_each_alone_is_the_same_where_it_is_a_mean_over_rows(build):
    """Rewards, ends and what was seen; members and overshooting have their own tests, InfoNCE compares rows of the whole batch."""
    model = build()
    rows, noise = coded(model, two_episodes()), noise_for(model, 3, T)
    together = model.loss(rows, noise).parts
    left_out = int("latent" in together)  # an MDN-RNN foretells no first row
    counts = [JOIN - left_out, T - JOIN - left_out]
    parts = [model.loss(rows[:, part], noise[:, part]).parts for part in (slice(0, JOIN), slice(JOIN, T))]
    compared = [name for name in ("reward", "continue", "obs", "code", "latent") if name in together and "transition" not in together]
    for name in compared:
        expected = sum(losses[name] * count for losses, count in zip(parts, counts)) / sum(counts)
        torch.testing.assert_close(together[name], expected, atol=1e-4, rtol=1e-4)
    assert compared or "transition" in together


@cores
def test_a_stored_memory_is_forgotten_where_the_window_begins_an_episode(core):
    """DreamerV3 starts windows from stored latents; those of another episode must not count."""
    model, rows = tiny_dreamer(**core), two_episodes()
    noise = noise_for(model, 3, T)
    elsewhere = awake(model, rows, noise)[:, JOIN - 1]
    assert_same(model.loss(rows, noise, elsewhere).states, model.loss(rows, noise).states)
    middle = rows[:, 1:JOIN]
    carried, empty = (model.loss(middle, noise[:, 1:JOIN], start).states for start in (elsewhere, None))
    assert not torch.allclose(carried.deter, empty.deter, atol=1e-3)  # in mid-episode they do
