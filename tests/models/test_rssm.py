"""The Gaussian RSSM of specs/dreamer.md A.1 and its fixtures in F.2 and F.5."""

import math

import pytest
import torch

from dreamgym.models.imagination import imagine, observe_sequence
from dreamgym.models.latents import GaussianLatent, GaussianStats
from dreamgym.models.objectives import balanced_kl
from dreamgym.models.rssm import RSSM, RSSMConfig, RSSMState
from dreamgym.nn.networks import GRUCell
from tests.models.builders import K, echo_world, noise_for, tiny_rssm


def test_parameter_count_is_dreamer_v1s():
    core = RSSM(RSSMConfig(), embed_size=1024, action_size=6)
    assert sum(p.numel() for p in core.parameters()) == 557_920


def test_std_at_raw_zero():
    assert float(GaussianLatent(size=1).stats(torch.zeros(2)).std) == pytest.approx(0.7931471806, rel=1e-6)


def test_gaussian_kl_fixture():
    narrow = GaussianStats(torch.tensor([1.0]).double(), torch.tensor([0.5]).double())
    unit = GaussianStats(torch.zeros(1).double(), torch.ones(1).double())
    assert float(GaussianLatent(size=1).kl(narrow, unit)) == pytest.approx(0.8181471806, rel=1e-9)


def test_kl_agrees_with_torch_and_is_zero_for_equals():
    torch.manual_seed(0)
    a, b = (GaussianStats(torch.randn(4, 5), torch.rand(4, 5) + 0.1) for _ in range(2))
    latent = GaussianLatent(size=5)
    normals = [torch.distributions.Normal(stats.mean, stats.std) for stats in (a, b)]
    expected = torch.distributions.kl_divergence(*normals).sum(-1)
    torch.testing.assert_close(latent.kl(a, b), expected)
    assert torch.allclose(latent.kl(a, a), torch.zeros(4), atol=1e-6)


def test_temperature_scales_the_variance():
    stats = GaussianStats(torch.zeros(20_000, 1), torch.ones(20_000, 1))
    noise = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    latent = GaussianLatent(size=1)
    assert float(latent.sample(stats, noise, 0.25).var()) == pytest.approx(0.25, rel=0.05)
    assert torch.equal(latent.sample(stats, noise, 0.0), stats.mean)


def test_temperature_may_differ_by_row():
    stats = GaussianStats(torch.zeros(2, 3), torch.ones(2, 3))
    sample = GaussianLatent(size=3).sample(stats, torch.full((2, 3), 0.9), torch.tensor([0.0, 4.0]))
    assert float(sample[0].abs().sum()) == 0.0 and float(sample[1, 0]) == pytest.approx(2 * 1.2815515, rel=1e-4)


def test_balanced_kl_splits_the_gradient_and_floors_each_half():
    post_mean, prior_mean = torch.tensor([[2.0]], requires_grad=True), torch.tensor([[0.0]], requires_grad=True)
    ones = torch.ones(1, 1)
    latent = GaussianLatent(size=1)
    loss = balanced_kl(latent, GaussianStats(post_mean, ones), GaussianStats(prior_mean, ones), balance=0.8, free_nats=0.0)
    loss.backward()
    assert float(post_mean.grad) == pytest.approx(0.2 * 2.0) and float(prior_mean.grad) == pytest.approx(0.8 * -2.0)
    floored = balanced_kl(latent, GaussianStats(post_mean, ones), GaussianStats(prior_mean, ones), balance=0.8, free_nats=3.0)
    assert float(floored.detach()) == 3.0 and not any(torch.autograd.grad(floored, [post_mean, prior_mean]))


def test_gru_equals_torchs_and_halves_the_memory_at_zero():
    torch.manual_seed(0)
    ours, theirs = GRUCell(3, 5), torch.nn.GRUCell(3, 5)
    with torch.no_grad():
        theirs.weight_ih.copy_(ours.input.weight)
        theirs.weight_hh.copy_(ours.recurrent.weight)
        theirs.bias_ih.copy_(ours.input.bias.normal_())
        theirs.bias_hh.copy_(ours.recurrent.bias.normal_())
    x, hidden = torch.randn(2, 3), torch.randn(2, 5)
    torch.testing.assert_close(ours(x, hidden), theirs(x, hidden))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    torch.testing.assert_close(ours(x, hidden), hidden / 2)


def test_two_episodes_in_a_row_equal_each_alone():
    """The reset oracle, F.2-11."""
    model = tiny_rssm()
    batch = echo_world(1, 14, seed=0)
    first = int(torch.nonzero(batch.is_first[0])[0])
    batch = batch[:, first : first + 14] if first == 0 else batch[:, first:]
    joint = int(torch.nonzero(batch.is_first[0])[1])
    noise = noise_for(model, 1, batch.reward.shape[1])

    def filtered(part, part_noise):
        return observe_sequence(model.core, part.embed, part.prev_action, part.is_first, part_noise)[0]

    together = filtered(batch, noise)
    second = filtered(batch[:, joint:], noise[:, joint:])
    torch.testing.assert_close(together[:, joint:].deter, second.deter)
    torch.testing.assert_close(together[:, joint:].stoch, second.stoch)


def test_observe_sequence_equals_step_by_step_and_row_by_row():
    """Parity, F.2-12."""
    model = tiny_rssm()
    batch, noise = echo_world(3, 6, seed=1), noise_for(model, 3, 6)
    states, _ = observe_sequence(model.core, batch.embed, batch.prev_action, batch.is_first, noise)
    for row in range(3):
        state = model.initial(1)
        for t in range(6):
            one = slice(row, row + 1)
            state, _ = model.core.observe(state, batch.prev_action[one, t], batch.embed[one, t], batch.is_first[one, t], noise[one, t])
            torch.testing.assert_close(state.deter, states[one, t].deter, atol=1e-6, rtol=1e-5)


def test_imagine_equals_repeated_steps():
    model = tiny_rssm()
    actions = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2], [2, 2, 0]]), K).float()
    noise = noise_for(model, 2, 3)
    states, taken = imagine(model, model.initial(2), lambda features, h: actions[:, h], 3, noise)
    state = model.initial(2)
    for h in range(3):
        state = model.step(state, actions[:, h], noise[:, h])
        torch.testing.assert_close(states[:, h].stoch, state.stoch)
    assert torch.equal(taken, actions)


def test_is_first_also_forgets_the_previous_action():
    model = tiny_rssm()
    state = RSSMState(torch.randn(1, 24), torch.randn(1, 6))
    embed, first = torch.randn(1, K), torch.tensor([True])
    noise = noise_for(model, 1)
    a, _ = model.core.observe(state, torch.ones(1, K), embed, first, noise)
    b, _ = model.core.observe(model.initial(1), torch.zeros(1, K), embed, first, noise)
    torch.testing.assert_close(a.deter, b.deter)


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
