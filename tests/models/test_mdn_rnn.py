"""The MDN-RNN: order of operations, resets, dropout masks; specs/world-models.md 4, 12, and 1, 7, 9, 10 and 11 of 11.1."""

import math
from dataclasses import replace

import pytest
import torch

import dreamgym.hub  # noqa: F401  (connects WorldModel with its file format)
from dreamgym.models import mixtures
from dreamgym.models.mdn_heads import MDNHeads, MDNHeadsConfig
from dreamgym.models.mdn_rnn import MDNRNN, MDNRNNConfig, MDNRNNState
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import StartBank
from tests.models.builders import K, coded, echo_world, noise_for, tiny_dreamer, tiny_mdn

CARRACING = MDNRNNConfig(units=256, first_flag=False, features="zh")
TAKE_COVER = MDNRNNConfig()
SMALL = {"input_dropout": 0.3, "recurrent_dropout": 0.3}


def count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def core(**options) -> MDNRNN:
    torch.manual_seed(1)
    return MDNRNN(MDNRNNConfig(**{"units": 16, "mixtures": 3, **options}), embed_size=2 * K, action_size=K)


def rows(batch: int = 4, length: int = 8, seed: int = 3):
    return coded(tiny_mdn(), echo_world(batch, length, seed=seed, episode=5), log_var=0.0)


def random_state(model: MDNRNN, batch: int, seed: int = 2) -> MDNRNNState:
    generator = torch.Generator().manual_seed(seed)
    return model.initial(batch).map(lambda tensor: torch.rand(tensor.shape, generator=generator) * 2 - 1)


def middle(model, *lead: int) -> torch.Tensor:
    return torch.full((*lead, model.noise_lanes), 0.5)


# ---- the papers' sizes ------------------------------------------------------------------------------------------------


def test_car_racings_parameters_are_the_papers():
    assert count(MDNRNN(CARRACING, embed_size=64, action_size=3)) == 422_368


def test_take_covers_parameters_are_the_papers():
    heads = MDNHeads(MDNHeadsConfig(), stoch_size=64, deter_size=512, action_size=1)
    assert count(MDNRNN(TAKE_COVER, embed_size=128, action_size=1), heads.end) == 1_678_785


def test_a_shared_choice_at_car_racings_size_is_tallecs():
    """384,071 with reward and end, whose LSTM has torch's second bias."""
    shared = MDNRNN(replace(CARRACING, mixture="shared"), embed_size=64, action_size=3)
    assert count(shared) + 4 * 256 + 2 * 257 == 384_071


@pytest.mark.parametrize(("features", "size"), [("z", 64), ("zh", 576), ("zch", 1088)])
def test_controllers_see_the_papers_features(features, size):
    assert MDNRNN(replace(TAKE_COVER, features=features), embed_size=128, action_size=1).feature_size == size


def test_features_stand_in_the_papers_order():
    model = core(features="zch")
    state = random_state(model, 2)
    torch.testing.assert_close(model.features(state), torch.cat([state.stoch, state.cell, state.deter], -1))
    assert list(model.feature_bound[-16:]) == [1.0] * 16 and model.feature_bound[0] == 50.0


# ---- steps and sequences ----------------------------------------------------------------------------------------------


def test_the_first_belief_is_an_empty_memory_an_image_and_the_flag():
    model, batch = core(), rows()
    first = torch.ones(4, dtype=torch.bool)
    state, _ = model.observe(random_state(model, 4), batch.prev_action[:, 1], batch.embed[:, 1], first, middle(model, 4))
    assert not state.deter.any() and not state.cell.any() and bool((state.first == 1.0).all())
    torch.testing.assert_close(state.stoch, batch.embed[:, 1, :K])


def test_the_memory_takes_in_the_code_the_action_and_the_flag_of_the_row_before():
    model, state = core(), random_state(core(), 4)
    action, flag = torch.eye(K)[[0, 1, 2, 0]], torch.tensor([1.0, 0.0, 1.0, 0.0])
    state = replace(state, first=flag)
    h, c = model.cell(torch.cat([state.stoch, action, flag[:, None]], -1), state.deter, state.cell)
    dreamt = model.step(state, action, middle(model, 4))
    seen, _ = model.observe(state, action, torch.zeros(4, 2 * K), torch.zeros(4, dtype=torch.bool), middle(model, 4))
    for after in (dreamt, seen):
        torch.testing.assert_close((after.deter, after.cell), (h, c))
        assert not after.first.any()
    torch.testing.assert_close(dreamt.stoch, mixtures.sample(model.mixture(h), middle(model, 4)[:, 1:], 0.0))


@pytest.mark.parametrize("mixture", ["per_dim", "shared"])
@pytest.mark.parametrize("first_flag", [True, False])
def test_one_step_likelihoods_along_a_sequence_equal_those_step_by_step(mixture, first_flag):
    """11.1-10: catches axes and off-by-ones. The windows cross starts of episodes and begin in their middle."""
    model, batch = core(mixture=mixture, first_flag=first_flag), rows(6, 9)
    noise, start = noise_for(model, 6, 9), random_state(core(), 6)
    code, _ = model.code(batch.embed, noise)
    together = model.sequence(code, batch.prev_action, batch.is_first, None, start)
    state, states = start, []
    for t in range(9):
        state, _ = model.observe(state, batch.prev_action[:, t], batch.embed[:, t], batch.is_first[:, t], noise[:, t])
        states.append(state)
    apart = MDNRNNState.stack(states, 1)
    for (name, mine), (_, its) in zip(together.items(), apart.items(), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(
        mixtures.log_prob(model.mixture(together.deter), code), mixtures.log_prob(model.mixture(apart.deter), apart.stoch)
    )


def test_a_first_row_in_mid_sequence_equals_a_fresh_sequence_from_there():
    """11.1-9."""
    model, batch = core(), rows(6, 9)
    noise = noise_for(model, 6, 9)
    code, _ = model.code(batch.embed, noise)
    is_first = torch.zeros(6, 9, dtype=torch.bool)
    is_first[:, [0, 4]] = True
    together = model.sequence(code, batch.prev_action, is_first)
    fresh = model.sequence(code[:, 4:], batch.prev_action[:, 4:], is_first[:, 4:])
    torch.testing.assert_close(dict(together[:, 4:].items()), dict(fresh.items()), atol=1e-6, rtol=1e-5)


def test_the_flag_tells_first_rows_from_others():
    model, state = core(), random_state(core(), 2)
    action = torch.eye(K)[[0, 1]]
    said = [model.recur(replace(state, first=torch.full((2,), flag)), action)[0] for flag in (0.0, 1.0)]
    assert not torch.allclose(*said)
    deaf = core(first_flag=False)
    said = [deaf.recur(replace(state, first=torch.full((2,), flag)), action)[0] for flag in (0.0, 1.0)]
    assert torch.equal(*said)


def test_a_batch_of_dreams_equals_each_alone_and_repeats_itself():
    """11.1-7."""
    model = tiny_mdn(**SMALL)
    noise, action = noise_for(model, 5, 12), torch.eye(K)[torch.arange(60).view(5, 12) % K]

    def dream(part: slice) -> list[torch.Tensor]:
        state = random_state(model.core, 5)[part]
        for t in range(12):
            state = model.step(state, action[part, t], noise[part, t], 1.15)
        return [tensor for _, tensor in state.items()]

    together, again = dream(slice(None)), dream(slice(None))
    for number, tensor in enumerate(together):
        assert torch.equal(tensor, again[number])
        alone = torch.cat([dream(slice(i, i + 1))[number] for i in range(5)])
        torch.testing.assert_close(tensor, alone, atol=1e-5, rtol=1e-4)


def test_codes_are_drawn_from_what_the_autoencoder_says():
    model = core()
    embed = torch.cat([torch.full((20_000, K), 2.0), torch.full((20_000, K), 2.0 * math.log(0.3))], -1)
    code, _ = model.code(embed, noise_for(model, 20_000))
    torch.testing.assert_close(code.mean(0), torch.full((K,), 2.0), atol=0.01, rtol=0)
    torch.testing.assert_close(code.std(0), torch.full((K,), 0.3), atol=0.01, rtol=0)


@pytest.mark.parametrize(("late", "low", "high"), [(0, 0.0, 0.05), (1, 0.5, 1.5)])
def test_sums_of_code_and_action_are_learned_unless_actions_come_late(late, low, high):
    """11.1-11: z_{t+1} = z_t + a_t, errors as shares of the variance that comes in with each action."""
    model, generator = core(units=32, mixtures=1), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    is_first = torch.zeros(32, 6, dtype=torch.bool)
    is_first[:, 0] = True
    for _ in range(120):
        moves = torch.rand(32, 7, K, generator=generator) * 2 - 1
        code = moves[:, 1:].cumsum(1)  # row t's code holds the moves that led to rows up to t
        states = model.sequence(code, moves[:, 1 - late : 7 - late], is_first)
        stats = model.mixture(states.deter[:, 1:])
        optimiser.zero_grad()
        (-mixtures.log_prob(stats, code[:, 1:]).mean()).backward()
        optimiser.step()
    error = (mixtures.mixture_mean(stats) - code[:, 1:]).square().mean() * 3.0
    assert low <= float(error.detach()) <= high


# ---- dropout ----------------------------------------------------------------------------------------------------------


def test_masks_drop_their_share_and_keep_the_mean():
    model = core(input_dropout=0.1, recurrent_dropout=0.4)
    into, back = model._masks(torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 7)
    for mask, rate in ((into, 0.1), (back, 0.4)):
        assert float((mask == 0.0).float().mean()) == pytest.approx(rate, abs=0.005)
        assert float(mask.mean()) == pytest.approx(1.0, abs=0.01) and float(mask.max()) == pytest.approx(1.0 / (1.0 - rate))
    columns = torch.cat([into == 0.0, back == 0.0], -1).float().t()
    between = torch.corrcoef(columns).fill_diagonal_(0.0)
    assert float(between.abs().max()) < 0.05


def test_masks_follow_the_first_lane_alone_so_an_episode_may_hold_them():
    model, state = core(**SMALL), random_state(core(), 2)
    noise = noise_for(model, 2)
    held, fresh = noise_for(model, 2, seed=1), noise_for(model, 2, seed=1)
    held[:, 0] = noise[:, 0]
    action = torch.eye(K)[[0, 1]]
    assert model.episode_lanes == 1 and core().episode_lanes == 0
    torch.testing.assert_close(model.step(state, action, noise).deter, model.step(state, action, held).deter)
    assert not torch.allclose(model.step(state, action, noise).deter, model.step(state, action, fresh).deter)


def test_noise_of_one_half_and_being_awake_mask_nothing():
    model, plain, state = core(**SMALL), core(), random_state(core(), 4)
    action = torch.eye(K)[[0, 1, 2, 0]]
    torch.testing.assert_close(model.step(state, action, middle(model, 4)).deter, plain.step(state, action, middle(plain, 4)).deter)
    first = torch.zeros(4, dtype=torch.bool)
    said = [one.observe(state, action, torch.zeros(4, 2 * K), first, noise_for(one, 4))[0] for one in (model, plain)]
    torch.testing.assert_close(said[0].deter, said[1].deter)


def test_training_masks_each_row_as_dreaming_does():
    model, batch = core(**SMALL), rows(6, 9)
    noise = noise_for(model, 6, 9)
    code, _ = model.code(batch.embed, noise)
    none = torch.zeros_like(batch.is_first)
    together = model.sequence(code, batch.prev_action, none, noise)
    state = model.initial(6)
    for t in range(9):
        h, c = model.recur(state, batch.prev_action[:, t], noise[:, t])
        state = MDNRNNState(h, code[:, t], c, torch.zeros(6))
        torch.testing.assert_close(together.deter[:, t], h, atol=1e-6, rtol=1e-5)


def test_a_view_with_dropout_shares_all_weights_and_leaves_the_model_as_it_was():
    model = tiny_mdn()
    view = model.with_dropout(0.4)
    assert [p.data_ptr() for p in view.parameters()] == [p.data_ptr() for p in model.parameters()]
    assert view.core.config.recurrent_dropout == view.config.core.input_dropout == 0.4
    assert model.core.config.recurrent_dropout == 0.0 and model.episode_lanes == 0 and view.episode_lanes == 1
    assert view.with_dropout(0.0).config == model.config and model.with_dropout(None) is model
    assert view.noise_lanes == model.noise_lanes  # so that dreams of different rates may share their other noise


def test_a_view_is_not_mistaken_for_the_folder_it_came_from():
    model = tiny_mdn()
    model.source = "somewhere"
    assert model.with_dropout(0.1).source is None and model.source == "somewhere"


def test_dropout_where_there_is_none_is_refused():
    with pytest.raises(ValueError, match="this model's RSSM has none"):
        tiny_dreamer().with_dropout(0.1)
    with pytest.raises(ValueError, match=r"expected in \[0, 1\)"):
        tiny_mdn().with_dropout(1.0)


# ---- as a world model -------------------------------------------------------------------------------------------------


def test_a_saved_mdn_rnn_dreams_as_before(tmp_path):
    model = tiny_mdn(belief="sample", recurrent_dropout=0.1)
    model.initial_states = StartBank(random_state(model.core, 3), torch.ones(3, dtype=torch.bool))
    model.save_pretrained(tmp_path)
    again = WorldModel.from_pretrained(tmp_path)
    assert again.config == model.config
    noise, action = noise_for(model, 3), torch.eye(K)
    state, other = (one.step(one.initial_states.state, action, noise, 1.15) for one in (model, again))
    torch.testing.assert_close(dict(other.items()), dict(state.items()))
    torch.testing.assert_close(dict(again.predict(other).items()), dict(model.predict(state).items()))


def test_awake_the_model_sees_images():
    model = tiny_mdn()
    obs = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = model.observe(model.initial(2), torch.zeros(2, K), obs, torch.ones(2, dtype=torch.bool), middle(model, 2))
    mean, _ = model.encoder.vae.posterior(obs.permute(0, 3, 1, 2) / 255.0)
    torch.testing.assert_close(state.stoch, mean, atol=1e-5, rtol=1e-4)
    assert model.embed(obs).shape == (2, 2 * K) and model.decode(state).shape == (2, 64, 64, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "units is 0"),
        ({"mixture": "diagonal"}, "mixture is 'diagonal'"),
        ({"features": "hz"}, "features 'hz'"),
        ({"input_dropout": 1.0}, "input_dropout is 1.0"),
        ({"log_std_floor": 1.0}, "log_std_floor is 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MDNRNNConfig(**options)
