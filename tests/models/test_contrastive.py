"""InfoNCE as specs/dreamer.md A.5 prints it, against rolls and torch.distributions; chance levels of F.2-13."""

import math

import pytest
import torch
from torch.distributions import Normal

from dreamgym.models.contrastive import Contrastive, build_state_model, info_nce, score_matrix, window_rows
from dreamgym.models.latents import GaussianStats

CPU = torch.device("cpu")


def random_stats(*lead: int, size: int = 5, seed: int = 0) -> tuple[GaussianStats, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean, features = (torch.randn(*lead, size, generator=generator) for _ in range(2))
    return GaussianStats(mean, torch.rand(*lead, size, generator=generator) + 0.3), features


def identical_stats(*lead: int, size: int = 4) -> tuple[GaussianStats, torch.Tensor]:
    return GaussianStats(torch.zeros(*lead, size), torch.ones(*lead, size)), torch.full((*lead, size), 0.7)


def rolled_gain(stats: GaussianStats, features: torch.Tensor, config: Contrastive) -> torch.Tensor:
    """The released code's loop over rolls, for the full window; under "obs" it rolls the observations instead."""
    scores = []
    for batch_shift in range(-(config.window_batch // 2), config.window_batch - config.window_batch // 2):
        for time_shift in range(-(config.window_time // 2), config.window_time - config.window_time // 2):

            def rolled(tensor: torch.Tensor, shifts: tuple[int, int] = (batch_shift, time_shift)) -> torch.Tensor:
                return torch.roll(tensor, shifts, (0, 1))

            q, s = (stats, rolled(features)) if config.contrast_over == "state" else (stats.map(rolled), features)
            scores.append(Normal(q.mean, q.std).log_prob(s).sum(-1))
    positive = Normal(stats.mean, stats.std).log_prob(features).sum(-1)
    return (positive - torch.logsumexp(torch.stack(scores), 0)).mean()


def test_score_matrix_holds_every_pairs_log_density():
    stats, features = random_stats(7)
    expected = Normal(stats.mean[:, None], stats.std[:, None]).log_prob(features[None]).sum(-1)
    torch.testing.assert_close(score_matrix(stats, features), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("over", ["obs", "state"])
def test_window_is_the_released_codes_rolls(over):
    config = Contrastive(contrast_over=over, window_batch=4, window_time=5)
    stats, features = random_stats(6, 9)
    found = info_nce(stats, features, torch.ones(6, 9, dtype=torch.bool), config)
    torch.testing.assert_close(found, rolled_gain(stats, features, config), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("over", ["obs", "state"])
def test_window_over_the_whole_batch_equals_all_pairs(over):
    stats, features = random_stats(10, 30)
    valid = torch.ones(10, 30, dtype=torch.bool)
    window = info_nce(stats, features, valid, Contrastive(contrast_over=over))
    torch.testing.assert_close(window, info_nce(stats, features, valid, Contrastive(contrast_over=over, negatives="all")))


def test_the_two_denominators_differ():
    stats, features = random_stats(3, 4)
    valid = torch.ones(3, 4, dtype=torch.bool)
    obs, state = (info_nce(stats, features, valid, Contrastive(contrast_over=over)) for over in ("obs", "state"))
    assert abs(float(obs - state)) > 0.01


def test_shifts_are_minus_five_to_plus_four_by_minus_fifteen_to_plus_fourteen():
    rows = window_rows(50, 50, 10, 30, CPU)
    assert rows.shape == (2500, 300)
    anchor = 20 * 50 + 25
    sequence, step = rows[anchor] // 50, rows[anchor] % 50
    assert sorted({20 - int(b) for b in sequence}) == list(range(-5, 5))
    assert sorted({25 - int(t) for t in step}) == list(range(-15, 15))
    assert anchor in rows[anchor] and len(set(rows[anchor].tolist())) == 300


@pytest.mark.parametrize(("batch", "length", "terms"), [(3, 50, 90), (50, 4, 40), (2, 3, 6), (1, 1, 1)])
def test_a_small_batch_keeps_each_distinct_shift_once(batch, length, terms):
    rows = window_rows(batch, length, 10, 30, CPU)
    assert rows.shape == (batch * length, terms)
    assert all(len(set(row.tolist())) == terms and place in row for place, row in enumerate(rows))


@pytest.mark.parametrize("negatives", ["window", "all"])
def test_chance_among_300_rows(negatives):
    stats, features = identical_stats(10, 30)
    gain = info_nce(stats, features, torch.ones(10, 30, dtype=torch.bool), Contrastive(negatives=negatives))
    assert float(gain) == pytest.approx(-5.7038, abs=1e-4)


@pytest.mark.parametrize(("negatives", "expected"), [("window", -5.7038), ("all", -7.8240)])
def test_chance_among_2500_rows(negatives, expected):
    stats, features = identical_stats(50, 50)
    gain = info_nce(stats, features, torch.ones(50, 50, dtype=torch.bool), Contrastive(negatives=negatives))
    assert float(gain) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("over", ["obs", "state"])
def test_information_found_is_at_most_the_log_of_the_rows(over):
    features = 10.0 * torch.eye(12).view(3, 4, 12)
    stats = GaussianStats(features, torch.full_like(features, 0.1))
    gain = info_nce(stats, features, torch.ones(3, 4, dtype=torch.bool), Contrastive(contrast_over=over, negatives="all"))
    assert math.log(12) + float(gain) == pytest.approx(math.log(12), abs=1e-4) and float(gain) <= 1e-6


@pytest.mark.parametrize("negatives", ["window", "all"])
@pytest.mark.parametrize("over", ["obs", "state"])
def test_invalid_rows_neither_score_nor_serve_as_negatives(over, negatives):
    stats, features = random_stats(4, 6)
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[:, 2] = False
    config = Contrastive(contrast_over=over, negatives=negatives)
    before = info_nce(stats, features, valid, config)
    mean, other = stats.mean.clone(), features.clone()
    mean[:, 2], other[:, 2] = 3.0, -3.0
    assert float(info_nce(GaussianStats(mean, stats.std), other, valid, config)) == pytest.approx(float(before), rel=1e-5)
    kept = [t for t in range(6) if t != 2]
    without = info_nce(stats[:, kept], features[:, kept], valid[:, kept], Contrastive(contrast_over=over, negatives="all"))
    torch.testing.assert_close(before, without)


def test_no_valid_row_is_zero_not_nan():
    stats, features = random_stats(2, 3)
    features.requires_grad_()
    gain = info_nce(stats, features, torch.zeros(2, 3, dtype=torch.bool), Contrastive())
    gain.backward()
    assert float(gain.detach()) == 0.0 and not features.grad.any()


def test_gradient_reaches_states_and_observations():
    stats, features = random_stats(3, 4)
    features.requires_grad_()
    stats.mean.requires_grad_()
    info_nce(stats, features, torch.ones(3, 4, dtype=torch.bool), Contrastive()).backward()
    assert features.grad.abs().sum(-1).min() > 0 and stats.mean.grad.abs().sum(-1).min() > 0


def test_state_model_is_a_normal_over_the_full_feature():
    model = build_state_model(Contrastive(layers=1, units=8), embed_size=6, feature_size=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    stats = model(torch.randn(2, 3, 6))
    assert stats.mean.shape == stats.std.shape == (2, 3, 5)
    torch.testing.assert_close(stats.std, torch.full((2, 3, 5), 1.01))


def test_state_model_has_the_released_size():
    model = build_state_model(Contrastive(), embed_size=1024, feature_size=230)
    assert sum(p.numel() for p in model.parameters()) == 1024 * 400 + 400 + 2 * (400 * 400 + 400) + 400 * 460 + 460


def test_training_the_state_model_recovers_which_row_is_which():
    torch.manual_seed(0)
    embed = torch.randn(6, 8, 4)
    features = torch.tanh(embed @ torch.randn(4, 6))
    model = build_state_model(Contrastive(layers=1, units=32), embed_size=4, feature_size=6)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    valid = torch.ones(6, 8, dtype=torch.bool)
    gains = []
    for _ in range(40):
        gain = info_nce(model(embed), features, valid, Contrastive())
        optimiser.zero_grad()
        (-gain).backward()
        optimiser.step()
        gains.append(float(gain.detach()))
    assert gains[0] < -0.8 * math.log(48) and gains[-1] > -0.3 * math.log(48)


@pytest.mark.parametrize("wrong", [{"contrast_over": "action"}, {"negatives": "some"}, {"window_time": 0}, {"scale": -1.0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Contrastive(**wrong)


@pytest.mark.parametrize(("std", "error"), [(1.0, 1e-3), (0.1, 0.05), (0.01, 2.0)])
def test_expanding_the_square_costs_little_precision(std, error):
    torch.manual_seed(0)
    features = torch.tanh(torch.randn(20, 230))
    stats = GaussianStats(features + std * torch.randn(20, 230), torch.full((20, 230), std))
    exact = Normal(stats.mean.double(), stats.std.double()).log_prob(features.double()).sum(-1)
    assert float((score_matrix(stats, features).diagonal() - exact).abs().max()) < error
