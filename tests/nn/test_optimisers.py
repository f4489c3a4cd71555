"""DreamerV3's optimiser: fixtures of specs/dreamer.md F.2-9, exact resume, and clipping per tensor."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from dreamgym.nn.optimisers import LaProp, adaptive_clip_


def updates(optimiser_class: type[torch.optim.Optimizer], gradients: list[float]) -> list[float]:
    """What each gradient takes off a scalar parameter at a learning rate of 1."""
    parameter = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimiser = optimiser_class([parameter], lr=1.0, betas=(0.9, 0.999))  # type: ignore[call-arg]
    taken = []
    for gradient in gradients:
        before = float(parameter.detach())
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        taken.append(before - float(parameter.detach()))
    return taken


def steps(network: nn.Module, optimiser: LaProp, first: int, count: int) -> None:
    for step in range(first, first + count):
        optimiser.zero_grad()
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        network(x).square().mean().backward()
        optimiser.step()


def test_laprop_takes_the_updates_of_the_fixture() -> None:
    assert updates(LaProp, [1.0, -2.0]) == pytest.approx([1.0, -0.1919585659], rel=1e-8)


def test_the_fixture_tells_laprop_from_adam() -> None:
    assert updates(torch.optim.Adam, [1.0, -2.0]) == pytest.approx([1.0, -0.3661035270], rel=1e-7)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_laprop_does_not_mind_the_scale_of_gradients(scale: float) -> None:
    assert updates(LaProp, [scale, -2.0 * scale]) == pytest.approx([1.0, -0.1919585659], rel=1e-6)


def test_a_gradient_of_zero_moves_nothing_and_is_no_nan() -> None:
    assert updates(LaProp, [0.0, 0.0]) == [0.0, 0.0]


def test_a_parameter_without_gradients_keeps_its_age() -> None:
    early, late = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimiser = LaProp([early, late], lr=1.0)
    early.grad = torch.ones(2)
    optimiser.step()
    early.grad, late.grad = torch.full((2,), -2.0), torch.full((2,), 5.0)
    optimiser.step()
    assert torch.allclose(early, torch.full((2,), -1.0 + 0.1919585659))
    assert torch.allclose(late, torch.full((2,), -1.0))  # its first step, with the bias correction of a first step


def test_groups_have_their_own_rates() -> None:
    slow, fast = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimiser = LaProp([{"params": [slow], "lr": 0.1}, {"params": [fast]}], lr=1.0)
    slow.grad, fast.grad = torch.ones(1), torch.ones(1)
    optimiser.step()
    assert (float(slow.detach()), float(fast.detach())) == pytest.approx((-0.1, -1.0))


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2))
    optimiser = LaProp(network.parameters(), lr=1e-2)
    steps(network, optimiser, 0, 3)
    saved = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimiser": optimiser.state_dict()}, saved)
    steps(network, optimiser, 3, 4)

    resumed = copy.deepcopy(network)
    following = LaProp(resumed.parameters(), lr=1.0)
    saved.seek(0)
    kept = torch.load(saved, weights_only=True)
    resumed.load_state_dict(kept["network"])
    following.load_state_dict(kept["optimiser"])
    steps(resumed, following, 3, 4)
    assert all(torch.equal(mine, its) for mine, its in zip(network.parameters(), resumed.parameters()))


def test_laprop_learns() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimiser = LaProp(network.parameters(), lr=1e-2)
    steps(network, optimiser, 0, 200)
    assert network.weight.abs().max() < 0.05


def test_the_closure_is_called_with_gradients() -> None:
    parameter = nn.Parameter(torch.ones(1))

    def closure() -> float:
        loss = parameter.sum()
        loss.backward()
        return float(loss.detach())

    assert LaProp([parameter], lr=1.0).step(closure) == 1.0
    assert float(parameter.detach()) == pytest.approx(0.0, abs=1e-6)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"lr": -1.0}, {"eps": -1.0}, {"betas": (0.9, 1.0)}):
        with pytest.raises(ValueError):
            LaProp([nn.Parameter(torch.zeros(1))], **wrong)  # type: ignore[arg-type]


def parameter(values: list[float], gradient: list[float]) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values))
    made.grad = torch.tensor(gradient)
    return made


def test_a_gradient_is_clipped_relative_to_its_own_tensor() -> None:
    large = parameter([2.0, 0.0], [0.0, 3.0])  # the fixture: norms 2 and 3, clip 0.3 -> times 0.2
    small = parameter([2.0, 0.0], [0.3, 0.4])
    norm = adaptive_clip_([large, small], clip=0.3)
    assert large.grad is not None and large.grad.tolist() == pytest.approx([0.0, 0.6])
    assert small.grad is not None and small.grad.tolist() == pytest.approx([0.3, 0.4])
    assert float(norm) == pytest.approx((9.0 + 0.25) ** 0.5)


def test_a_tensor_of_zeros_may_still_move() -> None:
    zero = parameter([0.0, 0.0], [3.0, 4.0])
    adaptive_clip_([zero], clip=0.3, minimum=1e-3)
    assert zero.grad is not None and float(zero.grad.norm()) == pytest.approx(0.3e-3)


def test_parameters_without_gradients_are_passed_over() -> None:
    assert float(adaptive_clip_([nn.Parameter(torch.ones(2))])) == 0.0
