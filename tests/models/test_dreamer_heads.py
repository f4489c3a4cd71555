"""Heads as agents and dreams read them: rewards in the env's units, continue in its normal form (E.2), members that disagree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.formats import codec
from dreamgym.models.dreamer_heads import DreamerHeads, DreamerHeadsConfig, members_error
from dreamgym.models.observations import ObservationDecoderConfig, ObservationEncoder, ObservationEncoderConfig
from dreamgym.nn.networks import EnsembleMLP, MLPConfig
from dreamgym.structs import SequenceBatch, Spec
from tests.models.builders import echo_world

TINY = MLPConfig(layers=1, units=8)
SPEC = Spec("Toy-v0", spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(3), max_episode_steps=50)
STOCH, DETER = 4, 6


def heads_of(**settings: object) -> DreamerHeads:
    torch.manual_seed(0)
    encoder = ObservationEncoder(SPEC, ObservationEncoderConfig(vectors=TINY))
    config = DreamerHeadsConfig(**({"decoder": ObservationDecoderConfig(vectors=TINY), "reward": TINY} | settings))
    return DreamerHeads(config, SPEC, STOCH, DETER, scaling=encoder.scaling, embed_size=encoder.embed_size)


def features(*lead: int) -> torch.Tensor:
    return torch.randn(*lead, STOCH + DETER, generator=torch.Generator().manual_seed(1))


class State:
    """All that the members read of a core's state."""

    def __init__(self, deter: torch.Tensor) -> None:
        self.deter = deter


# ---- reward ------------------------------------------------------------------------------------------------------------


def test_two_hot_reward_starts_at_exactly_zero_with_the_loss_of_ignorance():
    heads = heads_of(reward_distribution="two-hot")
    assert torch.equal(heads.reward(None, features(2, 3)), torch.zeros(2, 3))
    assert heads.reward_loss(features(2), torch.tensor([0.0, -1e5])).tolist() == pytest.approx([5.5412635] * 2, rel=1e-6)


def test_normal_reward_at_its_mean_costs_the_constant():
    heads = heads_of()
    reward = heads.reward(None, features(5)).detach()
    assert heads.reward_loss(features(5), reward).tolist() == pytest.approx([0.918939] * 5, rel=1e-5)
    assert heads.reward_loss(features(5), reward + 2.0).tolist() == pytest.approx([2.918939] * 5, rel=1e-5)


@pytest.mark.parametrize("distribution", ["normal", "two-hot"])
def test_reward_is_learnt_in_the_environment_s_units(distribution):
    heads = heads_of(reward_distribution=distribution)
    target = torch.tensor([3.0, -40.0, 0.0, 500.0]) if distribution == "two-hot" else torch.tensor([3.0, -4.0, 0.0, 5.0])
    optimiser = torch.optim.Adam(heads.reward_net.parameters(), 3e-2)
    for _ in range(150):
        optimiser.zero_grad()
        heads.reward_loss(features(4), target).mean().backward()
        optimiser.step()
    torch.testing.assert_close(heads.reward(None, features(4)).detach(), target, rtol=0.05, atol=0.2)


def test_tanh_transform_compares_with_squashed_rewards():
    squashed, plain = heads_of(reward_transform="tanh"), heads_of()
    reward = torch.tensor([0.3, -7.0])
    torch.testing.assert_close(squashed.reward_loss(features(2), reward), plain.reward_loss(features(2), torch.tanh(reward)))


# ---- continue ----------------------------------------------------------------------------------------------------------


def test_without_a_head_nothing_ever_ends_and_nothing_is_lost():
    heads = heads_of()
    assert torch.equal(heads.continue_prob(None, features(2, 3)), torch.ones(2, 3))
    assert torch.equal(heads.continue_loss(features(2, 3), torch.ones(2, 3, dtype=torch.bool)), torch.zeros(2, 3))


@pytest.mark.parametrize("gamma", [0.9, 0.99, 1 - 1 / 333])
def test_discount_is_divided_out_of_a_head_at_its_target(gamma):
    heads = heads_of(continue_head=TINY, discount_in_target=gamma)
    heads.has_ended.fill_(True)
    with torch.no_grad():
        for parameter in heads.continue_net.parameters():
            parameter.zero_()
        heads.continue_net[-1].bias.fill_(torch.logit(torch.tensor(gamma, dtype=torch.float64)))
        going = heads.continue_prob(None, features(1))
        heads.continue_net[-1].bias.fill_(50.0)
        beyond = heads.continue_prob(None, features(1))
        heads.continue_net[-1].bias.fill_(-50.0)
        ended = heads.continue_prob(None, features(1))
    assert going.tolist() == pytest.approx([1.0], abs=1e-6)
    assert beyond.tolist() == [1.0] and ended.tolist() == pytest.approx([0.0], abs=1e-9)


@pytest.mark.parametrize(("gamma", "expected"), [(None, 1.0), (0.9, 0.9)])
def test_loss_is_least_where_the_target_says(gamma, expected):
    heads = heads_of(continue_head=TINY, discount_in_target=gamma)
    logit = torch.linspace(-6.0, 6.0, 1201)
    losses = []
    with torch.no_grad():
        for parameter in heads.continue_net.parameters():
            parameter.zero_()
        for value in logit[::40]:
            heads.continue_net[-1].bias.fill_(value)
            losses.append(heads.continue_loss(features(1), torch.zeros(1, dtype=torch.bool)))
    best = torch.sigmoid(logit[::40][int(torch.cat(losses).argmin())])
    assert float(best) == pytest.approx(expected, abs=0.02)


def test_terminal_rows_pull_the_head_down():
    heads = heads_of(continue_head=TINY, discount_in_target=0.99)
    is_terminal = torch.tensor([True, False])
    assert heads.continue_loss(features(2), is_terminal).shape == (2,)
    heads.continue_loss(features(2), is_terminal)[0].backward()
    assert float(heads.continue_net[-1].bias.grad) > 0.0


def test_a_head_without_discount_gives_its_sigmoid():
    heads = heads_of(continue_head=TINY)
    heads.has_ended.fill_(True)
    torch.testing.assert_close(heads.continue_prob(None, features(4)), torch.sigmoid(heads.continue_net(features(4)).squeeze(-1)))


def test_no_end_is_foretold_before_one_was_learned_from():
    heads = heads_of(continue_head=TINY, discount_in_target=0.99)
    seen = features(4).requires_grad_()
    heads.continue_loss(seen, torch.zeros(4, dtype=torch.bool))
    assert torch.equal(heads.continue_prob(None, seen), torch.ones(4))
    heads.continue_prob(None, seen).sum().backward()
    assert seen.grad is None or not seen.grad.any()
    heads.continue_loss(seen, torch.tensor([False, True, False, False]))
    assert float(heads.continue_prob(None, seen).max()) < 1.0


# ---- members -----------------------------------------------------------------------------------------------------------


def test_one_member_never_disagrees_and_costs_nothing():
    heads = heads_of()
    state = State(torch.ones(5, DETER))
    assert heads.members is None and torch.equal(heads.disagreement(state), torch.zeros(5))
    assert float(heads.members_loss(State(torch.ones(2, 3, DETER)), torch.zeros(2, 3, 8), echo_world(2, 3, seed=0))) == 0.0


def test_several_members_disagree_where_they_were_never_trained():
    heads = heads_of(members=4, member_units=16)
    batch = echo_world(16, 10, seed=0)
    deter = torch.randn(16, 10, DETER, generator=torch.Generator().manual_seed(2)) * 0.1
    embed = deter.sum(-1, keepdim=True).expand(16, 10, 8)
    optimiser = torch.optim.Adam(heads.members.parameters(), 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        heads.members_loss(State(deter), embed, batch).backward()
        optimiser.step()
    known, unknown = heads.disagreement(State(deter[:, 0])).detach(), heads.disagreement(State(torch.full((1, DETER), 3.0))).detach()
    assert float(unknown) > 5.0 * float(known.mean())


def test_members_loss_trains_neither_memory_nor_encoder():
    heads = heads_of(members=2)
    deter, embed = torch.randn(2, 5, DETER, requires_grad=True), torch.randn(2, 5, 8, requires_grad=True)
    heads.members_loss(State(deter), embed, echo_world(2, 5, seed=0)).backward()
    assert deter.grad is None and embed.grad is None and heads.members.weights[0].grad is not None


def test_members_error_skips_first_rows_and_rows_that_show_nothing():
    torch.manual_seed(0)
    members = EnsembleMLP(2, DETER, 3, layers=1, units=4)
    batch = echo_world(4, 8, seed=3, episode=4)
    unseen = torch.zeros_like(batch.valid)
    unseen[:, 5] = True
    batch = SequenceBatch(**({name: getattr(batch, name) for name in SequenceBatch.__dataclass_fields__} | {"valid": ~unseen}))
    deter = torch.randn(4, 8, DETER)
    embed = torch.zeros(4, 8, 3)
    skipped = unseen | batch.is_first
    skipped[:, 0] = True
    elsewhere = embed + 1e3 * skipped.unsqueeze(-1)
    assert torch.equal(members_error(members, deter, embed, batch), members_error(members, deter, elsewhere, batch))


def test_members_of_a_core_without_memory_in_its_features_read_its_context():
    encoder = ObservationEncoder(SPEC, ObservationEncoderConfig(vectors=TINY))
    config = DreamerHeadsConfig(decoder=ObservationDecoderConfig(vectors=TINY), reward=TINY, members=3)
    heads = DreamerHeads(config, SPEC, STOCH, 0, scaling=encoder.scaling, embed_size=8, memory_size=11)
    assert heads.disagreement(State(torch.zeros(2, 11))).shape == (2,)
    assert heads.reward(None, torch.zeros(2, STOCH)).shape == (2,)


# ---- settings ----------------------------------------------------------------------------------------------------------


def test_config_survives_json():
    config = DreamerHeadsConfig(reward_distribution="two-hot", continue_head=TINY, discount_in_target=0.99, members=5)
    assert codec.decode(DreamerHeadsConfig, codec.encode(config)) == config
    assert codec.decode(DreamerHeadsConfig, codec.encode(DreamerHeadsConfig())) == DreamerHeadsConfig()


@pytest.mark.parametrize(
    "wrong", [{"reward_distribution": "laplace"}, {"reward_transform": "sign"}, {"members": 0}, {"discount_in_target": 1.5}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        DreamerHeadsConfig(**wrong)


def test_probabilities_and_losses_are_float32_under_autocast():
    heads = heads_of(reward_distribution="two-hot", continue_head=TINY, members=2)
    with torch.autocast("cpu", torch.bfloat16):
        told = [
            heads.reward(None, features(2)),
            heads.reward_loss(features(2), torch.zeros(2)),
            heads.continue_prob(None, features(2)),
            heads.continue_loss(features(2), torch.zeros(2, dtype=torch.bool)),
            heads.disagreement(State(torch.zeros(2, DETER))),
            *heads.decoder.losses(features(2), torch.zeros(2, 3)).values(),
        ]
    assert {value.dtype for value in told} == {torch.float32}
