"""Ends, rewards and what an MDN-RNN learns them from: specs/world-models.md 4.2 to 4.4, and 6 and 8 of 11.1; calibration of the end."""

import math
from dataclasses import replace

import pytest
import torch

from dreamgym.models.calibration import calibrate_end, calibrate_uncertainty, filter_episode, start_bank
from dreamgym.models.mdn_heads import MDNHeadsConfig, MLPReward, SurvivalReward
from dreamgym.models.mixture_objective import MixtureObjective, lived
from dreamgym.structs import DreamDefaults, SequenceBatch
from tests.models.builders import K, coded, echo_world, noise_for, tiny_dreamer, tiny_mdn


def end_at(model, logit: float) -> None:
    """Make the end's logit a constant."""
    with torch.no_grad():
        model.heads.end.weight.zero_()
        model.heads.end.bias.fill_(logit)


def episodes(model, batch: int = 4, length: int = 8, seed: int = 0) -> SequenceBatch:
    """Whole episodes of `length` rows."""
    rows = coded(model, echo_world(batch, length, seed=seed, episode=10_000))
    first, last = torch.zeros(batch, length, dtype=torch.bool), torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0], last[:, -1] = True, True
    return replace(rows, is_first=first, is_last=last, is_terminal=last)


def padded(rows: SequenceBatch, more: int) -> SequenceBatch:
    """Rows of another world after the last ones, not marked as valid."""
    B = len(rows.reward)
    junk = rows.map(lambda x: torch.full((B, more, *x.shape[2:]), 1, dtype=x.dtype))
    no = torch.zeros(B, more, dtype=torch.bool)
    junk = replace(junk, is_first=no, is_last=no, is_terminal=no, valid=no, index=junk.index + 5)
    return SequenceBatch.cat([rows, junk], 1)


# ---- rewards and ends -------------------------------------------------------------------------------------------------


def test_survival_pays_the_same_for_every_row():
    model = tiny_mdn(reward=SurvivalReward(4.0))
    state = model.step(model.initial(3), torch.eye(K), noise_for(model, 3))
    assert model.predict(state).reward.tolist() == [4.0] * 3
    assert "reward" not in model.loss(episodes(model), noise_for(model, 4, 8)).parts


@pytest.mark.parametrize(("logit", "ends"), [(1e-6, True), (-1e-6, False)])
def test_the_papers_rule_is_a_threshold_on_the_calibrated_chance(logit, ends):
    """11.1-6: done is logit > 0, whatever the temperature. In float64, since a chance of 10/11 in float32 is not that fine."""
    model = tiny_mdn().double()
    end_at(model, logit)
    model.heads.end_offset.fill_(-math.log(10.0))
    features = torch.zeros(1, 1)
    for temperature in (0.1, 1.0, 1.3):
        state = model.step(model.initial(1), torch.eye(K)[:1], noise_for(model, 1), temperature).to(torch.float64)
        chance = 1.0 - torch.sigmoid(-(model.heads.end(state.deter).squeeze(-1) + model.heads.end_offset))
        assert bool(chance > 1.0 / 11.0) is ends
        assert float(1.0 - model.heads.continue_prob(state, features).detach()) == pytest.approx(float(chance.detach()), abs=1e-6)


def test_the_weight_of_ends_is_undone_at_first():
    model = tiny_mdn()
    end_at(model, 0.0)
    assert float(model.predict(model.initial(1)).continue_prob.detach()) == pytest.approx(10.0 / 11.0)


def test_reward_and_end_belong_to_the_row_they_are_read_at():
    """The end reads the memory, which holds the last code and action; nothing of the row's own code."""
    model = tiny_mdn()
    state = model.step(model.initial(2), torch.eye(K)[:2], noise_for(model, 2))
    other = replace(state, stoch=state.stoch + 1.0)
    assert torch.equal(model.predict(state).continue_prob, model.predict(other).continue_prob)
    assert not torch.allclose(model.predict(state).reward, model.predict(other).reward)


def test_ends_that_come_by_the_clock_are_foretold():
    model = tiny_mdn()
    optimiser = torch.optim.Adam(model.trainable_parameters(), 2e-2)
    for step in range(60):
        loss = model.loss(episodes(model, 16, 5, seed=step), noise_for(model, 16, 5, seed=step)).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    states, _ = filter_episode(model, episodes(model, 16, 5, seed=99))
    chance = (1.0 - model.heads.continue_prob(states, model.core.features(states))).mean(0)
    assert float(chance[4].detach()) > 0.5 and float(chance[1:4].max().detach()) < 0.1


def test_disagreement_is_zero_with_one_member():
    assert not tiny_mdn(members=1).disagreement(tiny_mdn().initial(3)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MDNHeadsConfig(terminal_weight=0.5), "terminal_weight is 0.5"),
        (lambda: MDNHeadsConfig(members=0), "members is 0"),
        (lambda: SurvivalReward(math.inf), "per_step is inf"),
        (lambda: MLPReward(scale=0.0), "scale is 0.0"),
        (lambda: MixtureObjective(continue_scale=-1.0), "continue_scale is -1.0"),
        (lambda: DreamDefaults(end_probability=1.0), "end_probability is 1.0"),
        (lambda: DreamDefaults(belief="mode"), "belief is 'mode'"),
        (lambda: DreamDefaults(dropout=1.0), "dropout is 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- what is learned --------------------------------------------------------------------------------------------------


def test_ends_count_ten_times():
    """Of 7 foretold rows one is the end: (6 log 2 + 10 log 2) / 7 at logit 0."""
    model = tiny_mdn()
    end_at(model, 0.0)
    loss = model.loss(episodes(model), noise_for(model, 4, 8)).parts["continue"]
    assert float(loss.detach()) == pytest.approx(16.0 / 7.0 * math.log(2.0), rel=1e-5)


def test_the_likelihood_is_averaged_over_dimensions():
    model = tiny_mdn()
    with torch.no_grad():
        for parameter in model.core.out.parameters():
            parameter.zero_()
    rows = episodes(model)
    still = replace(rows, embed=torch.cat([torch.zeros(4, 8, K), torch.full((4, 8, K), -60.0)], -1))
    assert float(model.loss(still, noise_for(model, 4, 8)).parts["latent"].detach()) == pytest.approx(0.918939, abs=1e-5)


def test_codes_are_the_same_sample_as_target_and_as_input():
    model = tiny_mdn()
    rows = coded(model, echo_world(4, 8, seed=0), log_var=0.0)
    noise = noise_for(model, 4, 8)
    losses = model.loss(rows, noise)
    code, _ = model.core.code(rows.embed, noise)
    torch.testing.assert_close(losses.states.stoch, code)
    fresh = model.loss(rows, noise_for(model, 4, 8, seed=1))
    assert not torch.allclose(fresh.states.stoch, code)


@pytest.mark.parametrize("part", ["latent", "continue", "members", "reward", "action"])
def test_padding_changes_nothing(part):
    model = with_action_head()
    rows = episodes(model)
    noise = noise_for(model, 4, 13)
    expected = model.loss(rows, noise[:, :8]).parts
    found = model.loss(padded(rows, 5), noise).parts
    torch.testing.assert_close(found[part], expected[part])


def test_first_rows_and_meaningless_pictures_are_not_foretold_but_their_ends_are():
    """ViZDoom's terminal picture is black: what it shows must not matter, that it ended must."""
    model = tiny_mdn()
    rows, noise = episodes(model), noise_for(model, 4, 8)
    valid = torch.ones(4, 8, dtype=torch.bool)
    valid[:, -1] = False
    seen = []
    for what in (0.0, 30.0):
        embed = rows.embed.clone()
        embed[:, -1, :K] = what
        seen.append(model.loss(replace(rows, embed=embed, valid=valid), noise).parts)
    for name in ("latent", "members", "continue"):
        torch.testing.assert_close(seen[0][name], seen[1][name])
    shorter = model.loss(rows[:, :7], noise[:, :7]).parts
    torch.testing.assert_close(seen[0]["latent"], shorter["latent"])
    assert float(seen[0]["continue"].detach()) > float(shorter["continue"].detach())


def with_action_head():
    model = tiny_mdn()
    torch.manual_seed(0)
    config = replace(model.config, heads=replace(model.config.heads, next_action=True))
    return type(model)(model.spec, config)


def test_the_next_action_is_learned_where_the_policy_can_be_read_off_the_code():
    model = with_action_head()
    optimiser, losses = torch.optim.Adam(model.trainable_parameters(), 3e-2), []
    for step in range(60):
        rows = episodes(model, 16, 6, seed=step)
        follows = torch.cat([rows.prev_action[:, :1] * 0.0, rows.embed[:, :-1, :K]], 1)  # every row's code names the action taken there
        loss = model.loss(replace(rows, prev_action=follows), noise_for(model, 16, 6, seed=step)).parts["action"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 < 0.8 * math.log(K) < losses[0]


def test_rows_between_a_last_and_the_next_first_row_are_padding():
    first, last = torch.zeros(3, 7, dtype=torch.bool), torch.zeros(3, 7, dtype=torch.bool)
    first[0, 0], last[0, 3] = True, True  # a padded episode
    last[1, 2], first[1, 3], last[1, 6] = True, True, True  # a window from one episode into the next
    last[2, 0], first[2, 2], last[2, 2] = True, True, True  # begins with an end; an episode of one row
    rows = replace(echo_world(3, 7, seed=0), is_first=first, is_last=last)
    assert lived(rows).int().tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7, [1, 0, 1, 0, 0, 0, 0]]


# ---- after training ---------------------------------------------------------------------------------------------------


def test_calibrating_the_end_finds_a_known_chance():
    """Logits are a known function of the memory, ends are drawn from sigmoid(0.5 logit - 2): the fit finds both numbers."""
    model = tiny_mdn()
    with torch.no_grad():
        model.heads.end.weight.mul_(8.0)
    batches = []
    for seed in range(4):
        rows = episodes(model, 64, 41, seed=seed)
        states, _ = filter_episode(model, rows, seed=0)
        chance = torch.sigmoid(0.5 * model.heads.end_logit(states.deter).detach() - 2.0)
        ends = torch.rand(64, 41, generator=torch.Generator().manual_seed(seed)) < chance
        batches.append(replace(rows, is_terminal=ends))
    found = calibrate_end(model, batches)
    assert found.rows == 4 * 64 * 40
    assert found.scale == pytest.approx(0.5, abs=0.1) and found.offset == pytest.approx(-2.0, abs=0.1)
    assert found.log_loss < found.log_loss_before
    assert float(model.heads.end_scale) == pytest.approx(found.scale) and float(model.heads.end_offset) == pytest.approx(found.offset)


def test_a_calibrated_end_is_right_on_average():
    model = tiny_mdn()
    rows = episodes(model, 32, 20)
    found = calibrate_end(model, [rows])
    states, _ = filter_episode(model, rows, seed=0)
    chance = 1.0 - model.heads.continue_prob(states, model.core.features(states))
    assert float(chance[:, 1:].mean().detach()) == pytest.approx(found.ends / found.rows, rel=1e-3) == 1.0 / 19.0


def test_data_without_an_end_leave_the_calibration_alone():
    model = tiny_mdn()
    rows = episodes(model)
    found = calibrate_end(model, [replace(rows, is_terminal=torch.zeros_like(rows.is_terminal))])
    assert found.ends == 0 and found.scale == 1.0 and found.offset == pytest.approx(-math.log(10.0))


def test_padding_and_first_rows_do_not_count_in_calibration():
    found = [calibrate_end(tiny_mdn(), [rows]) for rows in (episodes(tiny_mdn()), padded(episodes(tiny_mdn()), 6))]
    assert found[0] == found[1]


def test_other_models_have_no_end_to_calibrate():
    with pytest.raises(ValueError, match="DreamerHeads have no end to calibrate"):
        calibrate_end(tiny_dreamer(), [])


def test_uncertainty_is_calibrated_and_padding_does_not_count():
    model, other = tiny_mdn(), tiny_mdn()
    calibrate_uncertainty(model, [episodes(model, 16, 20)])
    calibrate_uncertainty(other, [padded(episodes(model, 16, 20), 7)])
    assert float(model.uncertainty_scale) > 0.0
    torch.testing.assert_close(model.uncertainty_median, other.uncertainty_median)


def test_start_banks_hold_means_or_samples_as_the_model_is_to_be_awake():
    said = {}
    for belief in ("mean", "sample"):
        model = tiny_mdn(belief=belief)
        rows = coded(model, episodes(tiny_dreamer(), 12, 6), log_var=0.0)
        bank = start_bank(model, [rows], size=40, seed=0)
        firsts = bank.state[bank.is_first]
        assert not firsts.deter.any() and not firsts.cell.any() and bool((firsts.first == 1.0).all())
        said[belief] = firsts.stoch
        again = start_bank(model, [rows], size=40, seed=0)
        assert torch.equal(again.state.stoch, bank.state.stoch)
    classes = torch.eye(K)
    assert all(bool((row == classes).all(-1).any()) for row in said["mean"]) and not bool(torch.isin(said["sample"], classes).any())
