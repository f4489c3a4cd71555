"""RSSMs of every latent, cell and path: resets, parity and the ways information may flow. specs/dreamer.md F.2, specs/planet.md 8.1."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamgym.models.calibration import calibrate_uncertainty, filter_episode, one_step_disagreement
from dreamgym.models.imagination import imagine, observe_sequence
from dreamgym.models.latents import CategoricalLatent, GaussianLatent
from dreamgym.models.rssm import RSSM, BlockGRUConfig, GRUConfig, LayerNormGRUConfig, RSSMConfig, RSSMState
from dreamgym.noise import uniform
from tests.models.builders import K, echo_world, noise_for, tiny_dreamer, tiny_rssm

LATENTS = {
    "softplus": GaussianLatent(size=6),
    "sigmoid2": GaussianLatent(size=6, std="sigmoid2"),
    "categorical": CategoricalLatent(variables=3, classes=4),
    "unimix": CategoricalLatent(variables=3, classes=4, unimix=0.01),
}
CELLS = {"gru": GRUConfig(), "layer-norm": LayerNormGRUConfig(), "block": BlockGRUConfig(4)}
PATHS = ("both", "deterministic", "stochastic")
CONFIGS = {
    f"{latent}/{cell}/{path}": RSSMConfig(latent=LATENTS[latent], cell=CELLS[cell], deter=24, hidden=16, path=path)
    for latent, cell, path in itertools.product(LATENTS, CELLS, PATHS)
}
SMALL = RSSMConfig(latent=GaussianLatent(size=6), deter=24, hidden=16)
CONFIGS["two layers"] = replace(SMALL, prior_layers=2, posterior_layers=3, norm="layer")
CONFIGS["v3"] = replace(CONFIGS["unimix/block/both"], prior_layers=2, activation="silu", norm="rms")
CONFIGS["members"] = replace(SMALL, prior_members=3)
CONFIGS["members/v3"] = replace(CONFIGS["v3"], prior_members=3)
CONFIGS["two layers/stochastic"] = replace(CONFIGS["two layers"], path="stochastic")
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
several = pytest.mark.parametrize("config", [CONFIGS["members"], CONFIGS["members/v3"]], ids=["members", "members/v3"])


def build(config: RSSMConfig, seed: int = 0) -> RSSM:
    torch.manual_seed(seed)
    core = RSSM(config, embed_size=K, action_size=K)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)  # biases too, so that a wrong order of parts shows
    return core


def uniforms(core: RSSM, *lead: int, seed: int = 0) -> torch.Tensor:
    lanes = uniform(torch.tensor(seed), torch.tensor(1), torch.arange(math.prod(lead)), core.noise_lanes)
    return lanes.view(*lead, core.noise_lanes)


def close(a: RSSMState, b: RSSMState) -> None:
    torch.testing.assert_close(a.deter, b.deter, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(a.stoch, b.stoch, atol=1e-5, rtol=1e-5)


def state_of(core: RSSM, batch: int, seed: int = 5) -> RSSMState:
    """Somewhere a model may be: three steps from zero."""
    state, actions = core.initial(batch), torch.rand(3, batch, K, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    for t in range(3):
        state = core.step(state, actions[t], uniforms(core, batch, seed=seed + t))
    return state.detach()


# ---- resets and parity --------------------------------------------------------------------------------------------------


@configs
def test_two_episodes_in_a_row_equal_each_alone(config):
    """The reset oracle, F.2-11."""
    core = build(config)
    batch = echo_world(1, 14, seed=0)
    joint = int(torch.nonzero(batch.is_first[0])[-1])
    assert joint > 0
    noise = uniforms(core, 1, 14)
    stale = batch.prev_action + batch.is_first.unsqueeze(-1)  # actions on first rows, which must be forgotten

    def filtered(rows, prev_action):
        return observe_sequence(core, batch.embed[:, rows], prev_action[:, rows], batch.is_first[:, rows], noise[:, rows])[0]

    together = filtered(slice(0, 14), stale)
    close(together[:, :joint], filtered(slice(0, joint), batch.prev_action))
    close(together[:, joint:], filtered(slice(joint, 14), batch.prev_action))


@configs
def test_is_first_forgets_state_and_previous_action(config):
    core = build(config)
    embed, first, noise = torch.randn(1, K), torch.tensor([True]), uniforms(core, 1)
    forgotten, _ = core.observe(state_of(core, 1), torch.ones(1, K), embed, first, noise)
    fresh, _ = core.observe(core.initial(1), torch.zeros(1, K), embed, torch.tensor([False]), noise)
    assert torch.equal(forgotten.deter, fresh.deter) and torch.equal(forgotten.stoch, fresh.stoch)


@configs
def test_observe_sequence_equals_step_by_step_and_row_by_row(config):
    """Parity, F.2-12."""
    core = build(config)
    batch, noise = echo_world(3, 6, seed=1), uniforms(core, 3, 6)
    states, stats = observe_sequence(core, batch.embed, batch.prev_action, batch.is_first, noise)
    for row in range(3):
        state = core.initial(1)
        for t in range(6):
            one = slice(row, row + 1)
            state, alone = core.observe(state, batch.prev_action[one, t], batch.embed[one, t], batch.is_first[one, t], noise[one, t])
            close(state, states[one, t])
            for (_, mine), (_, its) in zip(alone.items(), stats[one, t].items(), strict=True):
                torch.testing.assert_close(mine, its, atol=1e-5, rtol=1e-5)


@configs
def test_a_batch_of_dreams_equals_each_alone(config):
    core = build(config)
    state, noise = state_of(core, 4), uniforms(core, 4, seed=9)
    action = torch.rand(4, K, generator=torch.Generator().manual_seed(1)) * 2 - 1
    together = core.step(state, action, noise)
    for row in range(4):
        one = slice(row, row + 1)
        close(core.step(state[one], action[one], noise[one]), together[one])


@configs
def test_a_step_is_the_prior_branch_of_observe(config):
    """PlaNet 8.1-6: with the same noise, a dream continues where the prior of `observe` would have gone."""
    core = build(config)
    state, noise, action = state_of(core, 4), uniforms(core, 4, seed=9), torch.full((4, K), 0.3)
    seen, _ = core.observe(state, action, torch.randn(4, K), torch.zeros(4, dtype=torch.bool), noise)
    dreamt = core.step(state, action, noise)
    assert torch.equal(seen.deter, dreamt.deter)
    prior = core.prior_stats(seen.deter, core.prior_member(noise))
    again = core._sample(prior, noise)
    assert torch.equal(again, dreamt.stoch)


@configs
def test_imagine_equals_repeated_steps(config):
    core = build(config)
    actions = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2], [2, 2, 0]]), K).float()
    noise = uniforms(core, 2, 3)
    states, taken = imagine(core, core.initial(2), lambda features, h: actions[:, h], 3, noise)
    state = core.initial(2)
    for h in range(3):
        state = core.step(state, actions[:, h], noise[:, h])
        close(states[:, h], state)
    assert torch.equal(taken, actions)


# ---- how information flows ----------------------------------------------------------------------------------------------


@configs
def test_constant_images_still_let_actions_change_the_memory(config):
    """PlaNet 8.1-6."""
    core = build(config)
    state, noise, going = state_of(core, 1), uniforms(core, 1), torch.tensor([False])
    embed = torch.ones(1, K)
    left, _ = core.observe(state, torch.tensor([[1.0, 0.0, 0.0]]), embed, going, noise)
    right, _ = core.observe(state, torch.tensor([[0.0, 1.0, 0.0]]), embed, going, noise)
    assert float((left.deter - right.deter).detach().abs().max()) > 1e-3


@configs
def test_observations_reach_the_features_through_the_sample_alone(config):
    """PlaNet 8.1-7: with a prior sample in its place, nothing of the observation is left."""
    core = build(config)
    embed = torch.randn(2, K, requires_grad=True)
    noise, action = uniforms(core, 2, seed=3), torch.full((2, K), 0.3)
    state, _ = core.observe(state_of(core, 2), action, embed, torch.zeros(2, dtype=torch.bool), noise)
    weight = torch.linspace(-1.0, 1.0, core.feature_size)
    (seen,) = torch.autograd.grad((core.features(state) @ weight).sum(), embed, retain_graph=True)
    assert float(seen.abs().max()) > 0
    blind = RSSMState(state.deter, core._sample(core.prior_stats(state.deter, core.prior_member(noise)), noise))
    assert torch.autograd.grad((core.features(blind) @ weight).sum(), embed, allow_unused=True) == (None,)


@configs
def test_gradient_flows_back_through_steps_to_the_first_action(config):
    core = build(config)
    action = torch.zeros(2, K, requires_grad=True)
    state = core.step(core.initial(2), action, uniforms(core, 2))
    state = core.step(state, torch.ones(2, K), uniforms(core, 2, seed=1))
    (core.features(state) @ torch.linspace(-1.0, 1.0, core.feature_size)).sum().backward()
    assert float(action.grad.abs().max()) > 0 and bool(action.grad.isfinite().all())


@configs
def test_every_parameter_learns(config):
    core = build(config)
    batch = echo_world(4, 5, seed=2)
    noise = uniforms(core, 4, 5)
    states, posterior = observe_sequence(core, batch.embed, batch.prev_action, batch.is_first, noise)
    kl = core.latent.kl(posterior, core.prior_stats(states.deter, core.prior_member(noise)))
    (kl.sum() + (core.features(states) @ torch.linspace(-1.0, 1.0, core.feature_size)).sum()).backward()
    assert [name for name, parameter in core.named_parameters() if not float(parameter.grad.abs().max()) > 0] == []


# ---- PlaNet's single paths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
def test_the_deterministic_path_ignores_noise_awake_and_asleep(latent):
    core = build(replace(SMALL, latent=latent, path="deterministic"))
    state, action, embed, going = state_of(core, 2), torch.zeros(2, K), torch.randn(2, K), torch.zeros(2, dtype=torch.bool)
    a, b = uniforms(core, 2, seed=1), uniforms(core, 2, seed=2)
    close(core.step(state, action, a), core.step(state, action, b))
    seen, stats = core.observe(state, action, embed, going, a)
    assert torch.equal(seen.stoch, core.latent.mean(stats))


def test_the_stochastic_path_carries_nothing_but_its_sample():
    core = build(replace(SMALL, path="stochastic"))
    state, noise, action = state_of(core, 2), uniforms(core, 2), torch.zeros(2, K)
    other = replace(state, deter=torch.randn_like(state.deter))
    close(core.step(state, action, noise), core.step(other, action, noise))
    assert core.feature_size == core.stoch_size == 6 and core.deter_feature_size == 0 and state.deter.shape == (2, 16)
    assert torch.equal(core.features(state), state.stoch)


def test_the_stochastic_posterior_reads_the_priors_statistics():
    core = build(replace(SMALL, path="stochastic"))
    deter, embed = torch.randn(2, 16), torch.randn(2, K)
    prior = core.prior_stats(deter)
    hidden = torch.nn.functional.elu(core.posterior_hidden.weight @ torch.cat([prior.mean, prior.std, embed], -1).T).T
    with torch.no_grad():
        core.posterior_hidden.bias.zero_()
    expected = core.latent.stats(core.posterior_out(hidden))
    torch.testing.assert_close(core.posterior_stats(deter, embed).mean, expected.mean)


# ---- ensembles of priors ------------------------------------------------------------------------------------------------


@several
def test_each_row_follows_the_member_its_first_lane_draws(config):
    core = build(config)
    deter = torch.randn(3, 24).tanh()
    noise = torch.tensor([[0.1], [0.5], [0.9]]).expand(3, core.noise_lanes)
    member = core.prior_member(noise)
    assert member.tolist() == [0, 1, 2] and core.episode_lanes == 1
    together = core.prior_stats(deter, member)
    for row in range(3):
        alone = core.prior_stats(deter, torch.full((3,), row))
        for (_, mine), (_, its) in zip(together[row].items(), alone[row].items(), strict=True):
            torch.testing.assert_close(mine, its)
    other = core.prior_stats(deter, member.flip(0))
    first, its_other = (stats.items()[0][1].detach() for stats in (together, other))
    assert float((first - its_other)[0].abs().max()) > 1e-3


@several
def test_the_lane_that_draws_the_member_draws_nothing_else(config):
    core = build(config)
    state, action = state_of(core, 3), torch.zeros(3, K)
    noise = torch.full((3, core.noise_lanes), 0.5)
    noise[:, 0] = 0.99
    dreamt = core.step(state, action, noise)
    stats = core.prior_stats(dreamt.deter, torch.full((3,), 2))
    expected = stats.mean if isinstance(core.latent, GaussianLatent) else core.latent.sample(stats, noise[:, 1:])
    torch.testing.assert_close(dreamt.stoch, expected)


@several
def test_prior_members_are_named_for_any_leading_dimensions(config):
    core = build(config)
    deter, noise = torch.randn(2, 5, 24).tanh(), uniforms(core, 2, 5)
    stats = core.prior_stats(deter, core.prior_member(noise))
    flat = core.prior_stats(deter.flatten(0, 1), core.prior_member(noise.flatten(0, 1)))
    for (_, mine), (_, its) in zip(stats.flatten().items(), flat.items(), strict=True):
        torch.testing.assert_close(mine, its)


@several
def test_disagreement_is_the_root_mean_variance_of_the_members_means(config):
    core = build(config)
    state = state_of(core, 4)
    means = torch.stack([core.latent.mean(core.prior_stats(state.deter, torch.full((4,), member))) for member in range(3)])
    torch.testing.assert_close(core.disagreement(state), means.var(0, correction=0).mean(-1).sqrt(), atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if name.startswith("prior"):
                parameter.copy_(parameter[:1].expand_as(parameter))
    assert float(core.disagreement(state).detach().max()) < 1e-5


def test_one_prior_never_disagrees_with_itself():
    core = build(SMALL)
    state = observe_sequence(core, torch.zeros(2, 3, K), torch.zeros(2, 3, K), torch.zeros(2, 3, dtype=torch.bool), uniforms(core, 2, 3))[0]
    assert torch.equal(core.disagreement(state), torch.zeros(2, 3)) and core.prior_member(uniforms(core, 2)) is None


def test_an_ensemble_asks_which_member_is_meant():
    with pytest.raises(ValueError, match="3 members; pass member="):
        build(CONFIGS["members"]).prior_stats(torch.zeros(1, 24))


# ---- numbers ------------------------------------------------------------------------------------------------------------


def test_actions_beyond_one_are_heard_as_one_by_the_block_core():
    core = build(CONFIGS["v3"])
    state = state_of(core, 1)
    wild, tame = torch.tensor([[3.0, -0.5, -7.0]]), torch.tensor([[1.0, -0.5, -1.0]])
    torch.testing.assert_close(core.recur(state, wild), core.recur(state, tame))
    slopes = [torch.autograd.grad(core.recur(state, action.requires_grad_()).sum(), action)[0] for action in (wild, tame)]
    torch.testing.assert_close(slopes[0] * wild.abs().clamp(min=1.0), slopes[1])  # the bound itself is held fixed
    assert float(slopes[1].abs().min()) > 1e-3


@configs
def test_features_are_stoch_then_deter_and_as_wide_as_announced(config):
    core = build(config)
    state = state_of(core, 2)
    features = core.features(state)
    assert features.shape == (2, core.feature_size) and core.feature_size == core.stoch_size + core.deter_feature_size
    assert torch.equal(features[:, : core.stoch_size], state.stoch)
    assert torch.equal(features[:, core.stoch_size :], state.deter[:, : core.deter_feature_size])
    assert core.stoch_size == core.latent.flat_size and core.initial(2).map(torch.zeros_like).deter.shape == state.deter.shape


@configs
def test_bfloat16_steps_are_finite_and_states_stay_float32(config):
    core = build(config)
    batch, noise = echo_world(4, 5, seed=2), uniforms(core, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states, posterior = observe_sequence(core, batch.embed, batch.prev_action, batch.is_first, noise)
        kl = core.latent.kl(posterior, core.prior_stats(states.deter, core.prior_member(noise)))
        dreamt = core.step(states[:, -1], batch.prev_action[:, -1], noise[:, -1])
    for tensor in (states.deter, states.stoch, dreamt.deter, dreamt.stoch, kl):
        assert tensor.dtype == torch.float32 and bool(tensor.isfinite().all())


def test_temperature_zero_dreams_the_mean():
    core = build(SMALL)
    state, action = state_of(core, 2), torch.zeros(2, K)
    close(core.step(state, action, uniforms(core, 2), 0.0), core.step(state, action, torch.full((2, 6), 0.5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deter": 20, "cell": BlockGRUConfig(8)}, "deter is 20; expected a multiple of the cell's 8 blocks"),
        ({"path": "stochastic", "prior_members": 2}, "prior_members is 2"),
        ({"path": "neither"}, "path is 'neither'"),
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"prior_layers": 0}, "prior_layers is 0"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


# ---- inside a world model -----------------------------------------------------------------------------------------------


def test_features_stay_within_their_bounds():
    model = tiny_rssm()
    wild = RSSMState(torch.ones(1, 24), torch.full((1, 6), 1e9))
    features = model.features(wild).numpy()
    assert (features <= model.feature_high).all() and (features >= model.feature_low).all()


def test_bfloat16_training_stays_finite_and_close():
    model = tiny_rssm()
    batch, noise = echo_world(8, 6, seed=2), noise_for(model, 8, 6)
    exact = float(model.loss(batch, noise).total.detach())
    with torch.autocast("cpu", torch.bfloat16):
        rough = float(model.loss(batch, noise).total.detach())
    assert math.isfinite(rough) and rough == pytest.approx(exact, rel=0.05)


def test_a_belief_of_nan_ends_with_its_episode():
    core = RSSM(RSSMConfig(deter=8, hidden=8), embed_size=3, action_size=2)
    lost = core.initial(2).map(lambda part: torch.full_like(part, float("nan")))
    noise, is_first = torch.full((2, core.noise_lanes), 0.5), torch.tensor([True, False])
    state, _ = core.observe(lost, torch.full((2, 2), float("nan")), torch.ones(2, 3), is_first, noise)
    assert torch.isfinite(state.deter[0]).all() and torch.isnan(state.deter[1]).all()


def test_the_uncertainty_of_several_priors_is_calibrated_by_their_own_spread():
    model = tiny_dreamer(prior_members=3)
    batch = replace(echo_world(64, 7, seed=5), embed=None)  # its embeddings are another model's
    calibrate_uncertainty(model, [batch])
    spread = one_step_disagreement(model, batch)
    assert float(model.uncertainty_median) == pytest.approx(float(spread.quantile(0.5)), rel=1e-5) and float(spread.min()) > 0.0
    uncertainty = ((spread - model.uncertainty_median) / model.uncertainty_scale).numpy()
    assert float(np.quantile(uncertainty, 0.995)) == pytest.approx(1.0, abs=1e-3)
    states = filter_episode(model, batch)[0].flatten()
    noise = torch.full((len(states.deter), model.noise_lanes), 0.5)
    assert float(model.predict(model.step(states, batch.prev_action.flatten(0, 1), noise)).uncertainty.detach().max()) < 5.0
