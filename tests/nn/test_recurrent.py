"""Recurrent cells against their equations written out: specs/dreamer.md B.1, C.3, F.2-8."""

import math

import pytest
import torch

from dreamgym.nn.dense import Dense, EnsembleDense
from dreamgym.nn.recurrent import BlockGRUCell, BlockLinear, GRUCell, LayerNormGRUCell, LSTMCell, RMSNorm, trunc_normal

CELLS = {
    "gru": lambda: GRUCell(5, 16),
    "layer norm": lambda: LayerNormGRUCell(5, 16),
    "block": lambda: BlockGRUCell(5, 16, bottleneck=6, blocks=4),
}
cells = pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(7, 5, generator=generator), torch.randn(7, 16, generator=generator)


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


@pytest.mark.parametrize("make", [CELLS["layer norm"], CELLS["block"]])
def test_cells_with_an_update_bias_keep_most_of_the_memory_at_zero(make):
    cell = make()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
    x, hidden = inputs()
    torch.testing.assert_close(cell(x, hidden), 0.7310585786 * hidden, rtol=1e-5, atol=1e-7)


def test_layer_norm_gru_is_the_equation_of_dreamer_v2():
    cell = CELLS["layer norm"]()
    randomise(cell)
    x, hidden = inputs()
    parts = torch.cat([x, hidden], -1).double() @ cell.joint.weight.double().T + cell.joint.bias.double()
    centred = parts - parts.mean(-1, keepdim=True)
    parts = centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt() * cell.norm.weight.double() + cell.norm.bias.double()
    reset, candidate, update = parts.split(16, -1)
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update - 1.0)
    torch.testing.assert_close(cell(x, hidden), (update * candidate + (1.0 - update) * hidden).float(), rtol=1e-5, atol=1e-6)


def test_block_gru_is_the_equation_of_dreamer_v3():
    """Written as the paper's code has it: x copied to every block, behind that block's slice of the memory."""
    cell = CELLS["block"]()
    randomise(cell)
    x, hidden = inputs()

    def rms(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return values / (values.square().mean(-1, keepdim=True) + 1e-4).sqrt() * scale

    silu = torch.nn.functional.silu
    seen = torch.cat([silu(rms(cell.bottleneck(hidden), cell.bottleneck_norm.scale)), x], -1)
    blocks = []
    for block in range(4):
        own = slice(4 * block, 4 * block + 4)
        weight = torch.cat([cell.from_hidden.weight[block], cell.from_input.weight[own].T])
        blocks.append(torch.cat([hidden[:, own], seen], -1) @ weight + cell.from_input.bias[own])
    joined = silu(rms(torch.cat(blocks, -1), cell.norm.scale))
    memory = []
    for block in range(4):
        own = slice(4 * block, 4 * block + 4)
        gates = joined[:, own] @ cell.gates.weight[block] + cell.gates.bias[12 * block : 12 * block + 12]
        reset, candidate, update = gates.split(4, -1)
        update = torch.sigmoid(update - 1.0)
        memory.append(update * torch.tanh(torch.sigmoid(reset) * candidate) + (1.0 - update) * hidden[:, own])
    torch.testing.assert_close(cell(x, hidden), torch.cat(memory, -1), rtol=1e-5, atol=1e-6)


def test_block_linear_is_a_dense_layer_with_a_block_diagonal_matrix():
    layer = BlockLinear(6, 9, 3)
    randomise(layer)
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), x @ torch.block_diag(*layer.weight) + layer.bias)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 6 * 9 // 3 + 9


def test_block_linear_refuses_widths_that_do_not_divide():
    with pytest.raises(ValueError, match="7 inputs and 9 outputs do not divide into 3 blocks"):
        BlockLinear(7, 9, 3)


def test_rms_norm_divides_by_the_root_mean_square_and_scales():
    norm = RMSNorm(2)
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([1.0, 2.0]))
    root = math.sqrt(12.5 + 1e-4)
    torch.testing.assert_close(norm(torch.tensor([3.0, 4.0])), torch.tensor([3.0 / root, 8.0 / root]))


def test_rms_norm_of_bfloat16_has_the_statistics_of_float32():
    x = torch.full((1, 4096), 0.01, dtype=torch.bfloat16)  # bfloat16 could not sum 4096 equal squares
    torch.testing.assert_close(RMSNorm(4096, eps=1e-12)(x), torch.ones(1, 4096, dtype=torch.bfloat16))


@pytest.mark.parametrize("shape", [(8, 64, 64), (512, 512)])
def test_truncated_normal_has_the_std_of_its_fan_in_and_no_tail(shape):
    torch.manual_seed(0)
    weight = torch.empty(shape)
    trunc_normal(weight, 400)
    assert float(weight.std()) == pytest.approx(0.05, rel=0.02)
    assert float(weight.abs().max()) <= 2.0 * 1.1368 * 0.05 + 1e-6


def test_block_layers_start_with_the_fan_in_of_the_full_width():
    torch.manual_seed(0)
    assert float(BlockLinear(512, 512, 8).weight.detach().std()) == pytest.approx(1.0 / math.sqrt(512), rel=0.02)
    cell = BlockGRUCell(64, 256, bottleneck=32, blocks=8)
    for weight in (cell.from_hidden.weight, cell.from_input.weight):
        assert float(weight.detach().std()) == pytest.approx(1.0 / math.sqrt(256 + 8 * 96), rel=0.03)


@cells
def test_memory_stays_float32_and_close_under_bfloat16_autocast(make):
    cell = make()
    randomise(cell)
    x, hidden = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        rough = cell(x, hidden)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, cell(x, hidden), atol=0.05, rtol=0.05)


@cells
def test_memory_never_leaves_one(make):
    cell = make()
    randomise(cell)
    x, hidden = inputs()
    hidden = hidden.tanh()
    for _ in range(20):
        hidden = cell(x * 100.0, hidden)
    assert float(hidden.detach().abs().max()) <= 1.0


@cells
def test_gradients_agree_with_finite_differences(make):
    cell = make()
    randomise(cell)
    x, hidden = inputs()
    weights = torch.linspace(-1.0, 1.0, 16)
    x.requires_grad_()
    (cell(x, hidden) @ weights).sum().backward()
    step = torch.zeros_like(x)
    step[0, 0] = 1e-2
    with torch.no_grad():
        slope = ((cell(x + step, hidden) - cell(x - step, hidden)) @ weights).sum() / 2e-2
    assert float(x.grad[0, 0]) == pytest.approx(float(slope), rel=2e-2, abs=1e-4)


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_ensemble_layer_equals_its_members_one_by_one(norm):
    together = EnsembleDense(3, 4, 5, "silu", norm)
    randomise(together)
    x = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    for member in range(3):
        alone = Dense(4, 5, "silu", norm)
        with torch.no_grad():
            alone.weight.copy_(together.weight[member].T)
            alone.bias.copy_(together.bias[member, 0])
            if norm == "rms":
                alone.norm.scale.copy_(together.norm.scale[member, 0])
            elif norm == "layer":
                alone.norm.weight.copy_(together.norm.scale[member, 0])
                alone.norm.bias.copy_(together.norm.shift[member, 0])
        torch.testing.assert_close(together(x)[member], alone(x[member]))


def lstm(inputs: int = 5, units: int = 7, dtype: torch.dtype = torch.float64) -> tuple[LSTMCell, tuple[torch.Tensor, ...]]:
    """A cell and x [3,6,I], h, c [3,D]."""
    torch.manual_seed(0)
    cell = LSTMCell(inputs, units).to(dtype)
    return cell, tuple(torch.randn(shape, dtype=dtype) for shape in ((3, 6, inputs), (3, units), (3, units)))


def lstm_steps(cell: LSTMCell, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, reset=None, mask=None) -> tuple[torch.Tensor, ...]:
    hs, cs = [], []
    for t in range(x.shape[1]):
        h, c = cell(x[:, t], h if mask is None else h * mask[:, t], c)
        if reset is not None:
            h, c = (part.masked_fill(reset[:, t, None], 0.0) for part in (h, c))
        hs.append(h)
        cs.append(c)
    return torch.stack(hs, 1), torch.stack(cs, 1)


def test_lstm_has_one_bias_and_equals_torchs_with_two():
    cell, (x, h, c) = lstm()
    assert sum(parameter.numel() for parameter in cell.parameters()) == 4 * 7 * (5 + 7) + 4 * 7
    theirs = torch.nn.LSTM(5, 7, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(cell.input.weight)
        theirs.weight_hh_l0.copy_(cell.recurrent.weight)
        theirs.bias_ih_l0.copy_(cell.input.bias.normal_())
        theirs.bias_hh_l0.zero_()
    expected, (h_last, c_last) = theirs(x, (h[None], c[None]))
    hs, cs = cell.sequence(x, h, c)
    torch.testing.assert_close(hs, expected)
    torch.testing.assert_close((hs[:, -1], cs[:, -1]), (h_last[0], c_last[0]))


def test_lstm_keeps_most_of_its_memory_at_first():
    """The forget gate's bias of 1: with all other weights zero, c decays by sigmoid(1)."""
    cell, (_, h, c) = lstm()
    with torch.no_grad():
        cell.input.weight.zero_()
        cell.recurrent.weight.zero_()
        _, c_next = cell(torch.zeros(3, 5, dtype=c.dtype), h, c)
    torch.testing.assert_close(c_next, 0.7310585786300049 * c)


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_lstm_sequence_gives_the_numbers_and_gradients_of_its_steps(with_resets, with_mask):
    cell, start = lstm()
    reset = torch.rand(3, 6) < 0.3 if with_resets else None
    mask = (torch.rand(3, 6, 7) < 0.7).double() / 0.7 if with_mask else None
    weights = torch.randn(2, 3, 6, 7).double()
    found = []
    for run in (cell.sequence, lambda *start, **options: lstm_steps(cell, *start, **options)):
        cell.zero_grad()
        leaves = [tensor.clone().requires_grad_() for tensor in start]
        memories = torch.stack(run(*leaves, reset=reset, mask=mask))
        (memories * weights).sum().backward()
        found.append([memories.detach(), *(leaf.grad for leaf in leaves), *(parameter.grad.clone() for parameter in cell.parameters())])
    torch.testing.assert_close(found[0], found[1])


def test_lstm_forgets_even_what_is_no_number():
    cell, (x, h, c) = lstm()
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[:, 2] = True
    broken = x.clone()
    broken[:, 1] = torch.nan
    expected, _ = cell.sequence(x, h, c, reset=reset)
    found, _ = cell.sequence(broken, h, c, reset=reset)
    assert found[:, 1].isnan().all()
    torch.testing.assert_close(found[:, 2:], expected[:, 2:])


def test_lstm_in_bfloat16_stays_close_and_keeps_float32_states():
    cell, (x, h, c) = lstm(dtype=torch.float32)
    expected = cell.sequence(x, h, c)
    with torch.autocast("cpu", torch.bfloat16):
        hs, cs = cell.sequence(x, h, c)
    assert hs.dtype == cs.dtype == torch.float32
    torch.testing.assert_close((hs, cs), expected, atol=0.03, rtol=0.03)
    step = cell.bfloat16()(x[:, 0], h, c)
    assert step[0].dtype == step[1].dtype == torch.float32
    torch.testing.assert_close(step, (expected[0][:, 0], expected[1][:, 0]), atol=0.03, rtol=0.03)
