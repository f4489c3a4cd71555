"""The probabilistic ensemble: members, bootstrap, balanced ends, the range of the data."""

import numpy as np
import pytest
import torch

from dreamgym.models.calibration import calibrate_uncertainty, fit_ensemble_scaling, start_bank
from dreamgym.models.ensemble import bootstrap_weights
from tests.models.builders import K, echo_world, noise_for, tiny_ensemble, train


def _state(model, n=4):
    return model.observe(model.initial(n), torch.zeros(n, K), torch.rand(n, K), torch.ones(n, dtype=torch.bool), noise_for(model, n))


def test_the_first_lane_chooses_the_member():
    model = tiny_ensemble()
    state, action = _state(model), torch.eye(K)[[0, 1, 2, 0]]
    noise = torch.full((4, model.noise_lanes), 0.5)
    drawn = []
    for lane in (0.1, 0.5, 0.9):
        noise[:, 0] = lane
        drawn.append(model.step(state, action, noise).obs)
    means, _ = model.core.distribution(state.obs, action)
    scaled = state.obs + means[..., :-1] * model.core.target_std[:-1] + model.core.target_mean[:-1]
    torch.testing.assert_close(torch.stack(drawn), scaled)


def test_bootstrap_counts_are_poisson_and_fixed_per_row():
    index = torch.arange(40_000)
    weights = bootstrap_weights(index, 4)
    assert weights.shape == (4, 40_000)
    torch.testing.assert_close(weights.mean(1), torch.ones(4), atol=0.03, rtol=0)
    torch.testing.assert_close(weights.var(1), torch.ones(4), atol=0.05, rtol=0)
    assert torch.equal(bootstrap_weights(index[100:200], 4), weights[:, 100:200])
    assert abs(float(torch.corrcoef(weights)[0, 1])) < 0.02


def test_members_disagree_far_from_the_data_and_agree_on_it():
    model = tiny_ensemble(members=5)
    train(model, 250)
    batch = echo_world(64, 7, seed=77)
    calibrate_uncertainty(model, [batch])
    action = torch.eye(K)[torch.arange(64) % K]
    noise = torch.full((64, model.noise_lanes), 0.5)
    known = model.observe(model.initial(64), action, batch.obs[:, 3], batch.is_first[:, 3], noise)
    far = model.observe(model.initial(64), action, batch.obs[:, 3] + 6.0, batch.is_first[:, 3], noise)
    near_u, far_u = (model.predict(model.step(state, action, noise)).uncertainty for state in (known, far))
    assert float(near_u.detach().median()) < 1.0 and float(far_u.detach().median()) > 3.0


def test_calibration_puts_the_995th_percentile_at_one():
    model = tiny_ensemble()
    batches = [echo_world(128, 7, seed=5)]
    calibrate_uncertainty(model, batches)
    batch = batches[0]
    inside = ~batch.is_first[:, 1:].flatten()
    noise = torch.full((len(inside), model.noise_lanes), 0.5)
    before = model.observe(model.initial(len(inside)), None, batch.obs[:, :-1].flatten(0, 1), None, noise)
    values = model.predict(model.step(before, batch.prev_action[:, 1:].flatten(0, 1), noise)).uncertainty[inside]
    assert float(np.quantile(values.detach().numpy(), 0.995)) == pytest.approx(1.0, abs=1e-3)
    assert 0.5 <= float((values == 0).float().mean()) < 0.56  # the median, and its ties in this discrete world


def test_scaling_standardises_what_the_networks_see():
    model = tiny_ensemble()
    rng = np.random.default_rng(0)
    obs = (rng.normal(size=(500, K)) * [1, 10, 0.1] + [0, 5, -2]).astype(np.float32)
    change = (rng.normal(size=(500, K)) * 0.3).astype(np.float32)
    reward = rng.normal(3, 2, 500).astype(np.float32)
    fit_ensemble_scaling(model, obs, obs + change, reward, rng.random(500) < 0.1)
    everything = model.encoder.encode(torch.from_numpy(np.concatenate([obs, obs + change])))
    torch.testing.assert_close(everything.std(0, correction=0), torch.ones(K), atol=1e-3, rtol=0)
    encoded = model.encoder.encode(torch.from_numpy(obs))
    assert float(model.core.target_mean[-1]) == pytest.approx(reward.mean(), rel=1e-4)
    decoded = model.encoder.decode(encoded).numpy()
    inside = np.clip(obs, -1.0, 2.0)  # the observation space of the toy
    np.testing.assert_allclose(decoded, inside, atol=1e-4)


def test_a_rare_end_weighs_as_much_as_going_on():
    model = tiny_ensemble()
    model.heads.terminal_share.fill_(0.01)
    obs = torch.zeros(200, K)
    is_terminal = torch.zeros(200, dtype=torch.bool)
    is_terminal[:2] = True
    loss = model.config.objective._balanced_end(model.heads, obs, is_terminal)
    (slope,) = torch.autograd.grad(loss, [model.heads.continue_net[-1].bias])
    probability = torch.sigmoid(model.heads.continue_logit(None, obs[:1])).detach()
    assert float(slope) == pytest.approx(float(probability) - 0.5, abs=1e-4)


def test_range_is_that_of_the_data_with_a_margin():
    model = tiny_ensemble()
    model.encoder.fit(np.array([[0, 0, 0], [1, 1, 1]], np.float32))
    inside = model.encoder.encode(torch.tensor([[0.5, 0.5, 0.5], [1.09, 0, 0], [1.11, 0, 0], [0, -0.2, 0]]))
    assert model.encoder.in_range(inside).tolist() == [True, True, False, False]


def test_start_bank_holds_firsts_and_living_rows():
    model = tiny_ensemble()
    batches = [echo_world(1, 7, seed=s) for s in range(12)]
    bank = start_bank(model, batches, size=16, seed=0)
    assert len(bank.is_first) == 16 and int(bank.is_first.sum()) == 4


def test_predictions_stay_in_the_observation_space_and_the_datas_rewards():
    model = tiny_ensemble()
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 2, (300, K)).astype(np.float32)
    fit_ensemble_scaling(model, obs, obs, rng.uniform(-3, 0.5, 300).astype(np.float32), np.zeros(300, bool))
    model.core.target_mean.fill_(1e6)
    arrived = model.step(_state(model), torch.eye(K)[[0, 1, 2, 0]], noise_for(model, 4))
    torch.testing.assert_close(model.encoder.decode(arrived.obs), torch.full((4, K), 2.0))
    assert float(model.predict(arrived).reward.detach().max()) <= 0.5
