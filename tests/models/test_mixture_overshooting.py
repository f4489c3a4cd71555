"""M learns from its own dreams: which rows they begin at, what they are judged by, and that an end many steps away becomes foreseeable."""

from dataclasses import replace

import pytest
import torch

from dreamgym.models import mixtures
from dreamgym.models.mixture_overshooting import MixtureOvershooting
from dreamgym.structs import SequenceBatch
from tests.models.builders import K, noise_for, tiny_mdn
from tests.models.test_mdn_heads import episodes, padded

NAMES = {"overshot_latent", "overshot_continue"}


def overshoot(model, rows: SequenceBatch, noise=None, **options):
    noise = noise_for(model, *rows.reward.shape) if noise is None else noise
    return MixtureOvershooting(**options).losses(model, rows, model.loss(rows, noise).states, noise)


def test_one_step_is_a_dreamt_step_from_a_seen_state():
    """Two rows an episode, so that every dream begins at a first row and is judged at the last."""
    model, rows = tiny_mdn(), episodes(tiny_mdn(), length=2)
    noise = noise_for(model, 4, 2)
    found = overshoot(model, rows, noise, steps=1, starts=99)
    states = model.loss(rows, noise).states
    dreamt = model.step(states[:, 0], rows.prev_action[:, 1], noise.roll((1, 1), (0, 1))[:, 1])
    expected = -mixtures.log_prob(model.core.mixture(dreamt.deter), states.stoch[:, 1]).mean() / model.core.stoch_size
    assert found["overshot_latent"].item() == pytest.approx(expected.item(), rel=1e-5)
    chance = torch.sigmoid(model.heads.end_logit(dreamt.deter))
    assert found["overshot_continue"].item() == pytest.approx((-10.0 * chance.log().mean()).item(), rel=1e-5)  # all of them end, weighted


def test_the_scale_weighs_both_losses():
    model = tiny_mdn()
    rows, noise = episodes(model), noise_for(model, 4, 8)
    once, twice = (overshoot(model, rows, noise, steps=3, scale=scale) for scale in (1.0, 2.0))
    assert set(once) == NAMES
    for name in NAMES:
        assert twice[name].item() == pytest.approx(2.0 * once[name].item())


def test_dreams_do_not_reach_into_padding():
    """What stands after the last row changes nothing, however long the dream."""
    model = tiny_mdn()
    rows = episodes(model, batch=2)
    longer = padded(rows, 3)
    other = replace(longer, prev_action=longer.prev_action.clone(), embed=longer.embed.clone())
    other.prev_action[:, 8:], other.embed[:, 8:] = 0.7, 5.0
    noise = noise_for(model, 2, 11)
    for name in NAMES:
        assert torch.equal(*(overshoot(model, batch, noise, steps=20, starts=99)[name] for batch in (longer, other)))


def test_a_dream_of_one_episode_is_not_judged_by_the_next():
    model = tiny_mdn()
    rows = episodes(model, batch=2, length=8)
    first, last = rows.is_first.clone(), rows.is_last.clone()
    first[:, 4], last[:, 3] = True, True
    two = replace(rows, is_first=first, is_last=last, is_terminal=last)
    later = replace(two, embed=two.embed.clone())
    later.embed[:, 4:] += 3.0
    noise = noise_for(model, 2, 8)
    only_first = lambda batch: replace(batch, is_last=batch.is_last.index_fill(1, torch.arange(4, 8), True))  # noqa: E731 - no starts there
    assert torch.equal(*(overshoot(model, only_first(batch), noise, steps=6, starts=99)["overshot_latent"] for batch in (two, later)))


def test_starts_are_as_many_as_wanted_living_and_not_last():
    model = tiny_mdn()
    living = torch.zeros(3, 10, dtype=torch.bool)
    living[:, :7] = True
    noise = noise_for(model, 3, 10)
    for starts in (5, 500):
        row, time = MixtureOvershooting(starts=starts)._starts(living, noise)
        assert len(row) == min(starts, 21) == len({*zip(row.tolist(), time.tolist())}) and bool(living[row, time].all())
    chosen = [set(MixtureOvershooting(starts=5)._starts(living, noise_for(model, 3, 10, seed=seed))[1].tolist()) for seed in range(9)]
    assert set().union(*chosen) == set(range(7))


def test_rows_that_show_nothing_are_not_judged_by_their_code_but_by_their_end():
    model = tiny_mdn()
    rows = episodes(model, batch=2, length=2)
    blank = replace(rows, valid=torch.tensor([[True, False]] * 2))
    found = overshoot(model, blank, steps=1)
    assert found["overshot_latent"].item() == 0.0 and found["overshot_continue"].item() > 0.0


def test_gradients_flow_through_the_memory_to_the_first_step():
    model = tiny_mdn()
    rows = episodes(model)
    noise = noise_for(model, 4, 8)
    states = model.loss(rows, noise).states
    free = states.map(lambda x: x.detach().clone().requires_grad_())
    losses = MixtureOvershooting(steps=5, starts=99).losses(model, rows, free, noise)
    torch.stack(list(losses.values())).sum().backward()
    assert bool((free.cell.grad != 0).any()) and bool((free.stoch.grad != 0).any())
    assert all(bool((parameter.grad != 0).any()) for parameter in (model.core.out.weight, model.heads.end.weight))


def doomed_or_not(model, seed: int) -> SequenceBatch:
    """The sign of the first code decides whether the episode ends after six steps; in between there is noise and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    B, T, Z = 64, 7, model.core.stoch_size
    embed = torch.cat([torch.randn(B, T, Z, generator=generator), torch.full((B, T, Z), -8.0)], -1)  # V is sure
    no = torch.zeros(B, T, dtype=torch.bool)
    first, last = no.index_fill(1, torch.tensor(0), True), no.index_fill(1, torch.tensor(T - 1), True)
    terminal = last & (embed[:, :1, 0] > 0)
    return SequenceBatch(
        None, torch.zeros(B, T, K), torch.zeros(B, T), first, last, terminal, ~no, torch.arange(B * T).reshape(B, T), embed
    )


def test_dreams_alone_teach_to_foresee_an_end_many_steps_away():
    torch.manual_seed(0)
    model = tiny_mdn(units=32)
    optimiser = torch.optim.Adam(model.trainable_parameters(), 1e-2)
    for update in range(150):
        rows, noise = doomed_or_not(model, update), noise_for(model, 64, 7, seed=update)
        losses = MixtureOvershooting(steps=6, starts=128).losses(model, rows, model.loss(rows, noise).states, noise)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    rows, noise = doomed_or_not(model, 999), noise_for(model, 64, 7, seed=999)
    with torch.no_grad():
        state = model.loss(rows, noise).states[:, 0]
        for step in range(1, 7):
            state = model.step(state, rows.prev_action[:, step], noise_for(model, 64, seed=step))
        chance = 1.0 - model.predict(state).continue_prob
    doomed = rows.is_terminal[:, -1]
    assert float(chance[doomed].mean() - chance[~doomed].mean()) > 0.8
