"""Tensors by a forger whose checksums are right: names, shapes, types and headers that promise too much, and weights that explode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hub.hostile.opening import Opening, case
from tests.hub.toys import STARTS, WEIGHTS, edit_config, forge, forge_tensors, raw_safetensors

Change = Callable[[Any], Any]
NAME = "core.network.weights.0"


@case(6, 7, 8, 9, 10, 24)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop(NAME), rf"lacks 1 of \d+ tensors: '{NAME}'"),
        (lambda t: t.clear(), r"lacks (\d+) of \1 tensors: ('[\w.]+', ){5}\.\.\."),
        (lambda t: t.update(extra=torch.zeros(2)), "has 1 tensors that this model does not: 'extra'"),
        (lambda t: t.update({NAME: torch.zeros(3, 3)}), rf"'{NAME}' has shape \[3, 3\]; expected \[2, "),
        (lambda t: t.update({NAME: torch.zeros(t[NAME].shape, dtype=torch.int64)}), f"'{NAME}' is I64; expected F32 or F16 or BF16"),
        (lambda t: t.update({NAME: torch.zeros(t[NAME].shape, dtype=torch.complex64)}), f"'{NAME}' is C64; expected F32"),
        (lambda t: t.update({NAME: t[NAME].double()}), f"'{NAME}' is F64; expected F32"),
        (lambda t: t[NAME].flatten()[:2].fill_(float("nan")), f"'{NAME}' holds 2 NaN or infinite values"),
        (lambda t: t[NAME].flatten()[:1].fill_(float("-inf")), f"'{NAME}' holds 1 NaN or infinite values"),
        (lambda t: [v.mul_(1e30) for name, v in t.items() if "core.network" in name], "a dream of one step gives NaN or infinity"),
    ],
)
def test_wrong_weights_are_refused_by_name(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    forge_tensors(folder, WEIGHTS, change)
    opening.refuses("folder", str(folder), complaint=rf"model\.safetensors: .*{complaint}")


@case(24)
def test_weights_that_explode_after_some_steps_end_the_dream_by_name(opening: Opening, folder: Path) -> None:
    def explode(tensors: Any) -> None:
        for name, tensor in tensors.items():
            if "core.network" in name:
                tensor.mul_(1e9)
        tensors["heads.continue_net.2.weight"].zero_()
        tensors["heads.continue_net.2.bias"].fill_(20.0)  # it never ends by itself

    forge_tensors(folder, WEIGHTS, explode)
    edit_config(folder, lambda config: config["model"]["defaults"].update(range_guard=False))
    opening.opens("folder", str(folder))
    report = opening.tried("dreamt", str(folder))
    assert report.error == "NonFiniteDreamError", report


def test_large_weights_that_dream_finite_numbers_are_accepted(opening: Opening, folder: Path) -> None:
    forge_tensors(folder, WEIGHTS, lambda tensors: tensors[NAME].mul_(10.0))
    opening.opens("folder", str(folder))


@case(23)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.update({name: tensor[:0] for name, tensor in t.items()}), r"'is_first' has shape \[0\]; expected 1 to 1000000 rows"),
        (lambda t: t.update(is_first=torch.tensor(True)), r"'is_first' has shape \[\]"),
        (lambda t: t.update(is_first=torch.ones(6, 1, dtype=torch.bool)), r"'is_first' has shape \[6, 1\]; expected \[6\]"),
        (lambda t: t.update(is_first=torch.ones(6)), "'is_first' is F32; expected BOOL"),
        (lambda t: t.update({"state.obs": torch.zeros(6, 9)}), r"'state.obs' has shape \[6, 9\]; expected \[6, 4\]"),
        (lambda t: t.update({"state.obs": torch.zeros(5, 4)}), r"'state.obs' has shape \[5, 4\]; expected \[6, 4\]"),
        (lambda t: t["state.obs"][0].fill_(float("nan")), "'state.obs' holds 4 NaN or infinite values"),
        (lambda t: t.pop("state.obs"), "lacks 1 of 4 tensors: 'state.obs'"),
        (lambda t: t.update({"state.extra": torch.zeros(6)}), "does not: 'state.extra'"),
    ],
)
def test_wrong_start_states_are_refused_by_name(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    forge_tensors(folder, STARTS, change)
    opening.refuses("folder", str(folder), complaint=rf"initial_states\.safetensors: .*{complaint}")


@case(23)
def test_a_billion_start_states_in_a_header_are_refused_before_they_are_made(opening: Opening, folder: Path) -> None:
    names = [("is_first", "BOOL", "[1000000000]"), ("state.obs", "F32", "[1000000000,4]")]
    names += [(f"state.{name}", "F32", "[1000000000]") for name in ("reward", "disagreement")]
    entries = (f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,0]}}' for name, dtype, shape in names)
    forge(folder, STARTS, raw_safetensors("{" + ",".join(entries) + "}"))
    opening.refuses("folder", str(folder), complaint=r"'is_first' has shape \[1000000000\]; expected 1 to 1000000 rows")


ENTRY = '{"dtype":"F32","shape":[0,1000000000],"data_offsets":[0,0]}'


@case(11)
@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("{" + ",".join(f'"{number}":{ENTRY}' for number in range(500_000)) + "}", r"\d+ bytes; the limit is \d+"),
        ("{" + ",".join(f'"{number}":{ENTRY}' for number in range(20_000)) + "}", "20000 tensors; the limit is 10000"),
        (f'{{"a":{ENTRY},"b":{ENTRY},"a":{ENTRY}}}', "tensor 'a' appears twice"),
        ('{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,0]}}', "'dtype' appears twice"),
        ('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}', "expected a dtype and a shape"),
        ('{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,0]}}', "expected a dtype and a shape"),
        ('{"a":1}', "expected a dtype and a shape"),
        ('{"a":' + "[" * 100_000, "its header is not JSON"),
        ('{"a":' + "9" * 10_000 + "}", "its header is not JSON|expected a dtype and a shape"),
        ("{nonsense", "its header is not JSON"),
        ("[]", "not a safetensors file"),
        ("{}", "lacks"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_forged_header_is_refused(opening: Opening, folder: Path, header: str, complaint: str) -> None:
    forge(folder, WEIGHTS, raw_safetensors(header))
    report = opening.refuses("folder", str(folder), complaint=rf"model\.safetensors: .*{complaint}")
    assert report.seconds < 2


@pytest.mark.parametrize("size", [2**40, 200_000_000, 2**63])
def test_a_header_that_claims_to_be_huge_is_refused(opening: Opening, folder: Path, size: int) -> None:
    forge(folder, WEIGHTS, size.to_bytes(8, "little") + b"{}" + b"\0" * 100)
    opening.refuses("folder", str(folder), complaint="not a safetensors file, or cut off in its header")


def test_tensors_that_share_bytes_are_refused(opening: Opening, folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].decode()
    forged = header.replace('"data_offsets":[20,40]', '"data_offsets":[0,20]')
    assert forged != header
    forge(folder, WEIGHTS, raw_safetensors(forged, data[8 + size :]))
    opening.refuses("folder", str(folder), complaint="not a consistent safetensors file")


def test_bytes_after_the_last_tensor_are_refused(opening: Opening, folder: Path) -> None:
    forge(folder, WEIGHTS, (folder / WEIGHTS).read_bytes() + b"\0" * 1000)
    opening.refuses("folder", str(folder), complaint="not a consistent safetensors file")


@pytest.mark.parametrize("name", [WEIGHTS, STARTS])
def test_a_file_much_larger_than_the_model_is_refused_unread(opening: Opening, folder: Path, name: str) -> None:
    """A gigabyte of nothing, which a sparse file or an archive of zeros announces truthfully and cheaply."""
    size = 1024**3
    with open(folder / name, "r+b") as file:
        file.truncate(size)
    edit_config(folder, lambda config: config["files"][name].update(size=min(size, 256 * 1024**2)))
    opening.refuses("folder", str(folder), complaint=rf"{name}: 1073741824 bytes; the limit is \d+")
