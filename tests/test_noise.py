"""Counter-based noise: a pure function of counters, uniform, independent."""

import numpy as np
import pytest
import torch

from dreamgym.noise import NoiseStreams, hash_counters, to_normal, uniform


def _counters(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(n), torch.zeros(n, dtype=torch.int64)


def test_equal_counters_give_equal_noise_in_any_batch():
    steps, zero = _counters(50)
    together = uniform(zero, zero, steps, 7)
    alone = torch.stack([uniform(zero[:1], zero[:1], steps[i : i + 1], 7)[0] for i in range(50)])
    assert torch.equal(together, alone)


def test_noise_is_strictly_inside_zero_and_one_and_uniform():
    steps, zero = _counters(20_000)
    noise = uniform(zero, zero, steps, 10)
    assert noise.min() > 0.0 and noise.max() < 1.0
    counts = torch.histc(noise, 50, 0.0, 1.0)
    chi_square = float(((counts - 4000.0) ** 2 / 4000.0).sum())
    assert chi_square < 95.0  # 49 degrees of freedom, p = 1e-4


@pytest.mark.parametrize("axis", ["seed", "episode", "step", "lane"])
def test_neighbouring_counters_are_uncorrelated(axis):
    n = 40_000
    count, zero = _counters(n)
    series = {
        "seed": lambda: uniform(count, zero, zero, 1)[:, 0],
        "episode": lambda: uniform(zero, count, zero, 1)[:, 0],
        "step": lambda: uniform(zero, zero, count, 1)[:, 0],
        "lane": lambda: uniform(zero[:1], zero[:1], zero[:1], n)[0],
    }[axis]()
    centred = (series - 0.5) * np.sqrt(12.0)
    for lag in (1, 2, 7):
        assert abs(float((centred[lag:] * centred[:-lag]).mean())) < 4.0 / np.sqrt(n)


def test_no_block_repeats_over_a_million_counters():
    count, zero = _counters(2**20)
    assert len(torch.unique(hash_counters(zero, zero, count, 1))) == 2**20


def test_hash_is_splitmix64():
    # First output of the published generator for seed 0, reached here through the lane counter.
    mixed = hash_counters(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), 1)
    mask = (1 << 64) - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    expected = mix((mix(mix(mix(golden))) + golden) & mask)
    assert int(mixed[0, 0]) & mask == expected


def test_half_becomes_exactly_the_mean():
    assert float(to_normal(torch.tensor(0.5))) == 0.0


def test_normals_have_unit_moments():
    count, zero = _counters(50_000)
    normal = to_normal(uniform(count, zero, zero, 4))
    assert abs(float(normal.mean())) < 0.01 and abs(float(normal.std()) - 1.0) < 0.01


def test_drawing_ahead_equals_drawing_one_by_one():
    small, large = NoiseStreams(2, 5), NoiseStreams(20, 5)
    seeds = torch.arange(20) + 3
    small.start(torch.ones(2, dtype=torch.bool), seed=seeds[:2])
    large.start(torch.ones(20, dtype=torch.bool), seed=seeds)
    for _ in range(130):
        assert torch.equal(small.draw(), large.draw()[:2])


def test_a_slot_that_restarts_leaves_the_others_alone():
    streams, untouched = NoiseStreams(3, 4), NoiseStreams(3, 4)
    for each in (streams, untouched):
        each.start(torch.ones(3, dtype=torch.bool), seed=torch.tensor([1, 2, 3]))
        each.draw()
    streams.start(torch.tensor([False, True, False]))
    drawn, expected = streams.draw(), untouched.draw()
    assert torch.equal(drawn[[0, 2]], expected[[0, 2]]) and not torch.equal(drawn[1], expected[1])


def test_restored_counters_continue_the_stream():
    streams = NoiseStreams(1, 4)
    streams.start(torch.tensor([True]), seed=torch.tensor([9]))
    streams.draw()
    saved = (streams.seed.clone(), streams.episode.clone(), streams.step.clone())
    expected = streams.draw().clone()
    streams.draw()
    streams.restore(*saved)
    assert torch.equal(streams.draw(), expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_integers_are_identical_on_cpu_and_gpu():
    count, zero = _counters(1000)
    assert torch.equal(hash_counters(count, zero, zero, 9), hash_counters(count.cuda(), zero.cuda(), zero.cuda(), 9).cpu())
