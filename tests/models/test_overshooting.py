"""Latent overshooting as specs/planet.md 3.2 has it; its checks 8.1-13."""

import dataclasses

import pytest
import torch

from dreamgym.models.imagination import observe_sequence
from dreamgym.models.kl import KLConfig
from dreamgym.models.latents import GaussianLatent, GaussianStats
from dreamgym.models.overshooting import open_loop_priors, overshooting_kl, overshooting_noise
from dreamgym.models.rssm import RSSM, RSSMConfig
from dreamgym.structs import SequenceBatch
from tests.models.builders import K, echo_world

B, T = 3, 8


def tiny_core(seed: int = 0) -> RSSM:
    torch.manual_seed(seed)
    return RSSM(RSSMConfig(latent=GaussianLatent(size=4), deter=6, hidden=8), embed_size=K, action_size=K)


def one_episode(seed: int = 0) -> SequenceBatch:
    """Rows [B,T] without an episode start after the first row."""
    batch = echo_world(B, T, seed=seed, episode=1000)
    return dataclasses.replace(batch, is_first=torch.zeros_like(batch.is_first))


def noise(core: RSSM, seed: int = 0) -> torch.Tensor:
    return torch.rand(B, T, core.noise_lanes, generator=torch.Generator().manual_seed(seed)).clamp(1e-6, 1 - 1e-6)


def overshoot(core: RSSM, batch: SequenceBatch, distance: int, **settings: object) -> torch.Tensor:
    states, posterior = observe_sequence(core, batch.obs, batch.prev_action, batch.is_first, noise(core))
    kl = KLConfig(**{"free_nats": 0.0, "overshooting_distance": distance, "overshooting_scale": 1.0, **settings})  # type: ignore[arg-type]
    return overshooting_kl(core, states, posterior, batch, noise(core), kl)


def test_the_first_distance_is_the_ordinary_prior():
    core, batch = tiny_core(), echo_world(B, T, seed=0, episode=4)
    states, _ = observe_sequence(core, batch.obs, batch.prev_action, batch.is_first, noise(core))
    distance, prior, inside = next(open_loop_priors(core, states, batch.prev_action, batch.is_first, noise(core), 3))
    expected = core.prior_stats(states.deter)[:, 1:]
    assert distance == 1 and torch.equal(inside, ~batch.is_first[:, 1:])
    torch.testing.assert_close(prior.mean[inside], expected.mean[inside])
    torch.testing.assert_close(prior.std[inside], expected.std[inside])


def test_distance_one_adds_nothing():
    assert float(overshoot(tiny_core(), one_episode(), 1)) == 0.0


def test_pairs_across_an_episode_start_or_the_windows_end_do_not_exist():
    core, batch = tiny_core(), echo_world(B, T, seed=0, episode=4)
    states, _ = observe_sequence(core, batch.obs, batch.prev_action, batch.is_first, noise(core))
    for distance, prior, inside in open_loop_priors(core, states, batch.prev_action, batch.is_first, noise(core), 50):
        assert inside.shape == prior.mean.shape[:2] == (B, T - distance)
        for b in range(B):
            for start in range(T - distance):
                assert bool(inside[b, start]) == (not batch.is_first[b, start + 1 : start + distance + 1].any())
    assert distance == T - 1


def by_hand(core: RSSM, batch: SequenceBatch, distance: int) -> float:
    """One start at a time, one step at a time."""
    states, posterior = observe_sequence(core, batch.obs, batch.prev_action, batch.is_first, noise(core))
    means = []
    for d in range(2, distance + 1):
        terms = []
        for b in range(B):
            for start in range(T - d):
                if batch.is_first[b, start + 1 : start + d + 1].any():
                    continue
                state = states[b : b + 1, start]
                for step in range(1, d + 1):
                    drawn = overshooting_noise(noise(core), step)[b : b + 1, start]
                    state = core.step(state, batch.prev_action[b : b + 1, start + step], drawn)
                terms.append(core.latent.kl(posterior[b : b + 1, start + d], core.prior_stats(state.deter)))
        if terms:
            means.append(torch.stack(terms).mean())
    return float(torch.stack(means).mean().detach())


@pytest.mark.parametrize("episode", [4, 1000])
def test_it_is_the_mean_over_pairs_then_over_distances(episode):
    core, batch = tiny_core(), echo_world(B, T, seed=0, episode=episode)
    assert float(overshoot(core, batch, 4).detach()) == pytest.approx(by_hand(core, batch, 4), rel=1e-4)


def test_distances_without_a_pair_do_not_dilute_the_mean():
    core, batch = tiny_core(), echo_world(B, T, seed=0, episode=3)  # no two rows of an episode are 3 apart
    assert float(overshoot(core, batch, 50).detach()) == pytest.approx(float(overshoot(core, batch, 2).detach()), rel=1e-6)


@pytest.mark.parametrize("mode", ["mean", "element"])
def test_a_batch_of_episode_starts_adds_nothing(mode):
    batch = one_episode()
    batch = dataclasses.replace(batch, is_first=torch.ones_like(batch.is_first))
    assert float(overshoot(tiny_core(), batch, 5, free_mode=mode, free_nats=3.0).detach()) == 0.0


@pytest.mark.parametrize(("mode", "floor"), [("mean", 3.0), ("element", 3.0)])
def test_the_floor_is_the_ordinary_kls(mode, floor):
    core, batch = tiny_core(), one_episode()
    loss = overshoot(core, batch, 4, free_mode=mode, free_nats=100.0)
    loss.backward()
    assert float(loss.detach()) == 100.0 and not any(p.grad is not None and p.grad.any() for p in core.parameters())
    assert float(overshoot(core, batch, 4, free_mode=mode, free_nats=floor).detach()) >= floor


def test_targets_get_no_gradient():
    core, batch = tiny_core(), one_episode()
    states, posterior = observe_sequence(core, batch.obs, batch.prev_action, batch.is_first, noise(core))
    settings = KLConfig(free_nats=0.0, overshooting_distance=4, overshooting_scale=1.0)
    # With the starts cut off, the posterior network does nothing but produce targets.
    overshooting_kl(core, states.detach(), posterior, batch, noise(core), settings).backward()
    assert not any(p.grad is not None and p.grad.any() for name, p in core.named_parameters() if "posterior" in name)
    assert all(p.grad is not None and p.grad.any() for name, p in core.named_parameters() if "prior" in name and "weight" in name)


def test_starts_get_gradient_as_in_the_official_code():
    core, batch = tiny_core(), one_episode()
    overshoot(core, batch, 4).backward()
    assert any(p.grad is not None and p.grad.any() for name, p in core.named_parameters() if "posterior" in name)


def test_gradients_stay_finite_across_episode_starts():
    core, batch = tiny_core(), echo_world(B, T, seed=0, episode=2)
    overshoot(core, batch, 6).backward()
    assert all(torch.isfinite(p.grad).all() for p in core.parameters() if p.grad is not None)


def test_noise_is_fresh_for_every_row_and_distance_and_a_function_of_its_own():
    given = torch.full((4, 5, 3), 0.4)  # even from equal rows
    drawn = torch.cat([overshooting_noise(given, distance).flatten() for distance in (1, 2, 3)])
    assert drawn.numel() == 4 * (4 + 3 + 2) * 3
    assert drawn.unique().numel() == drawn.numel() and (drawn > 0).all() and (drawn < 1).all()
    assert torch.equal(overshooting_noise(given, 2), overshooting_noise(given.clone(), 2))


def test_noise_of_one_half_still_asks_for_the_mean():
    given = torch.rand(4, 5, 3, generator=torch.Generator().manual_seed(0))
    given[1, :, 1] = 0.5
    drawn = overshooting_noise(given, 2)
    assert (drawn[1, :, 1] == 0.5).all() and int((drawn == 0.5).sum()) == 3


def test_noise_is_uniform_and_unrelated_to_what_it_came_from():
    given = torch.rand(200, 100, 2, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    drawn = overshooting_noise(given, 2)[:, :90]
    lanes = torch.cat([given[:, :90], drawn, overshooting_noise(given, 3)[:, :90]], -1).flatten(0, 1).T
    correlation = torch.corrcoef(lanes) - torch.eye(6)
    assert float(correlation.abs().max()) < 4.0 / (200 * 90) ** 0.5
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01) and float(drawn.var()) == pytest.approx(1 / 12, rel=0.03)


def test_a_perfect_open_loop_prior_costs_nothing():
    """A world whose posterior is its prior at every distance."""

    class Certain(RSSM):
        def prior_stats(self, deter, member=None):
            unit = torch.ones(*deter.shape[:-1], self.stoch_size)
            return GaussianStats(torch.zeros_like(unit), unit)

        def posterior_stats(self, deter, embed):
            return self.prior_stats(deter)

    core = Certain(RSSMConfig(latent=GaussianLatent(size=4), deter=6, hidden=8), embed_size=K, action_size=K)
    assert float(overshoot(core, one_episode(), 5).detach()) == pytest.approx(0.0, abs=1e-6)
