"""Model folders whose files are not what they should be: pickles, pages, links, pipes, and bytes that changed on the way."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hub.hostile.opening import Opening, case
from tests.hub.toys import STARTS, WEIGHTS, forge, read_json


class Evil:
    """Writes a file when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


def pickled(folder: Path) -> bytes:
    return pickle.dumps(Evil(folder.parent / "canary"))


def test_the_canary_dies_of_a_pickle_that_is_opened(folder: Path) -> None:
    pickle.loads(pickled(folder))
    assert (folder.parent / "canary").exists()


def test_a_good_folder_opens(opening: Opening, folder: Path) -> None:
    assert opening.opens("folder", str(folder)).message == "CartPole-v1"


@case(1)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_a_pickle_instead_of_weights_is_named_and_not_opened(opening: Opening, folder: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickled(folder))
    complaint = rf"has no model\.safetensors \(found {name}; dreamgym does not load pickle files\)"
    opening.refuses("folder", str(folder), complaint=complaint)


@case(1)
def test_a_folder_with_nothing_but_a_pickle_is_refused(opening: Opening, folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(folder))
    complaint = r"no config\.json \(found pytorch_model\.bin; dreamgym does not load pickle files\)"
    opening.refuses("folder", str(folder), complaint=complaint)


@case(2)
@pytest.mark.parametrize("name", [WEIGHTS, STARTS])
def test_a_pickle_renamed_to_safetensors_is_not_run(opening: Opening, folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickled(folder))
    opening.refuses("folder", str(folder), complaint=f"{name}: not a safetensors file but a pickle")
    forge(folder, name, pickled(folder))
    opening.refuses("folder", str(folder), complaint=f"{name}: not a safetensors file but a pickle")
    forge(folder, name, pickle.dumps({"a": 1}, protocol=0))
    opening.refuses("folder", str(folder), complaint=f"{name}: not a safetensors file")


@case(2)
def test_a_torch_checkpoint_renamed_to_safetensors_is_not_run(opening: Opening, folder: Path) -> None:
    torch.save({"a": torch.zeros(3)}, folder / WEIGHTS)
    opening.refuses("folder", str(folder), complaint="not a safetensors file but a pickle")


@case(3)
def test_a_git_lfs_pointer_is_recognised(opening: Opening, folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    opening.refuses("folder", str(folder), complaint="Git LFS pointer.*git lfs pull")


@case(3)
@pytest.mark.parametrize("page", ["<!DOCTYPE html><p>log in", "\n<html><p>proxy"])
def test_a_web_page_is_recognised(opening: Opening, folder: Path, page: str) -> None:
    (folder / WEIGHTS).write_text(page)
    opening.refuses("folder", str(folder), complaint="HTML page.*proxy")


@case(4)
@pytest.mark.parametrize("name", [WEIGHTS, STARTS])
def test_one_flipped_byte_is_found_and_both_checksums_shown(opening: Opening, folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    report = opening.refuses("folder", str(folder), complaint=f"{name}: damaged or replaced: sha256 is [0-9a-f]{{64}}, but")
    assert read_json(folder)["files"][name]["sha256"] in report.message and report.message.count("sha256 is") == 1


@case(5)
def test_a_truncated_file_is_called_truncated(opening: Opening, folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-10])
    complaint = rf"truncated: {len(data) - 10} bytes, but config\.json announces {len(data)}"
    opening.refuses("folder", str(folder), complaint=complaint)
    (folder / WEIGHTS).write_bytes(b"")
    opening.refuses("folder", str(folder), complaint="truncated: 0 bytes")


@case(21)
def test_other_files_in_the_folder_are_ignored(opening: Opening, folder: Path) -> None:
    for name in ("__init__.py", "setup.py", "dreamgym.py", "modeling.py"):
        (folder / name).write_text(f"open({str(folder.parent / 'canary')!r}, 'w')")
    (folder / "replay.mp4").symlink_to("/dev/zero")
    (folder / "fidelity.json").symlink_to("/nowhere")
    (folder / "README.md").write_text("\x1b[2J" + "x" * 10_000_000)
    opening.opens("folder", str(folder))
    opening.opens("dreamt", str(folder))


@case(22)
@pytest.mark.parametrize("name", ["config.json", WEIGHTS, STARTS])
def test_a_link_is_refused_wherever_it_leads(opening: Opening, folder: Path, name: str) -> None:
    (folder / name).rename(folder / "elsewhere")
    for target in (folder / "elsewhere", "/etc/shadow", "/dev/zero", "/nowhere"):
        (folder / name).symlink_to(target)
        opening.refuses("folder", str(folder), complaint=f"{name}: not a regular file")
        (folder / name).unlink()


@case(22)
@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_pipe_is_refused_and_not_waited_for(opening: Opening, folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    opening.refuses("folder", str(folder), complaint=f"{name}: not a regular file")


def test_a_folder_named_like_a_file_is_refused(opening: Opening, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    opening.refuses("folder", str(folder), complaint="not a regular file")


def test_what_is_no_model_at_all_is_not_found(opening: Opening, folder: Path) -> None:
    opening.refuses("folder", str(folder / "nothing"), complaint="no such folder", error="ModelNotFoundError")
    opening.refuses("folder", str(folder / WEIGHTS), complaint="not a folder", error="ModelNotFoundError")
    (folder / "config.json").unlink()
    complaint = r"not a dreamgym model, it has no config\.json"
    opening.refuses("folder", str(folder), complaint=complaint, error="ModelNotFoundError")


@pytest.mark.parametrize("name", [WEIGHTS, STARTS])
def test_a_missing_file_is_named(opening: Opening, folder: Path, name: str) -> None:
    (folder / name).unlink()
    opening.refuses("folder", str(folder), complaint=f"has no {name}")


def test_paths_that_the_system_refuses_are_not_found_through_any_door(opening: Opening) -> None:
    loop = opening.work / "loop"
    loop.symlink_to(loop)
    for path in (str(loop), str(loop / "x"), str(opening.work / ("n" * 300)), str(opening.work / "nothing"), "/dev/null/x"):
        for door in ("folder", "dreamt"):
            opening.refuses(door, path, complaint="not a usable path|no such folder|not a folder", error="ModelNotFoundError", begins="/")
    for door in ("folder", "dreamt"):
        opening.refuses(door, "/a\0b", complaint="not a usable path", error="ModelNotFoundError", begins="/a")
    loop.unlink()
