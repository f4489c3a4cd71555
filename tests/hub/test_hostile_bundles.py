"""Model folders by somebody who wishes us ill: each is refused quickly, by name, without running or allocating anything."""

from __future__ import annotations

import ast
import gzip
import os
import pickle
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamgym.errors import IncompatibleModelError, InvalidModelError, ModelNotFoundError
from dreamgym.hub import bundle
from tests.hub import toys
from tests.hub.toys import STARTS, WEIGHTS, edit_config, forge, forge_tensors, raw_safetensors, read_json

_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "pickle.find_class", "socket.connect")
_seen: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _FORBIDDEN:
        _seen.append(event)


sys.addaudithook(_watch)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    bundle.save(toys.ensemble(), folder)
    bundle.load(folder)  # what torch imports lazily is imported now
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Iterator[Path]:
    """A good model to be spoilt. Whatever loading does to it, it must be quick, small and quiet."""
    global _watching
    shutil.copytree(good, tmp_path / "m")
    _seen.clear()
    _watching = True
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield tmp_path / "m"
    _watching = False
    assert not _seen
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500 * 1024
    assert not (tmp_path / "canary").exists()


def refused(folder: Path, complaint: str, error: type[Exception] = InvalidModelError) -> str:
    """Loading must fail with a message that starts with the folder and can be printed."""
    with pytest.raises(error, match=complaint) as caught:
        bundle.load(folder)
    message = str(caught.value)
    assert message.startswith(str(folder)) and message.isprintable() and len(message) < 1000
    return message


class Evil:
    """Writes a file when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


def pickled(folder: Path) -> bytes:
    return pickle.dumps(Evil(folder.parent / "canary"))


# ---- files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_a_pickle_instead_of_weights_is_named_and_not_opened(folder: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickled(folder))
    refused(folder, rf"has no model\.safetensors \(found {name}; dreamgym does not load pickle files\)")


def test_a_folder_with_nothing_but_a_pickle_is_refused(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(folder))
    refused(folder, r"no config\.json \(found pytorch_model\.bin; dreamgym does not load pickle files\)")


def test_a_folder_that_is_no_model_is_not_found(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, r"not a dreamgym model, it has no config\.json", ModelNotFoundError)


def test_a_folder_that_does_not_exist_is_not_found(folder: Path) -> None:
    refused(folder / "nothing", "no such folder", ModelNotFoundError)


def test_a_file_instead_of_a_folder_is_not_found(folder: Path) -> None:
    refused(folder / WEIGHTS, "not a folder", ModelNotFoundError)


@pytest.mark.parametrize("name", [WEIGHTS, STARTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"has no {name}")


@pytest.mark.parametrize("name", [WEIGHTS, STARTS])
def test_a_pickle_renamed_to_safetensors_is_not_run(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickled(folder))
    refused(folder, f"{name}: not a safetensors file but a pickle")
    forge(folder, name, pickled(folder))
    refused(folder, f"{name}: not a safetensors file but a pickle")
    forge(folder, name, pickle.dumps({"a": 1}, protocol=0))
    refused(folder, f"{name}: not a safetensors file")


def test_a_torch_checkpoint_renamed_to_safetensors_is_not_run(folder: Path) -> None:
    torch.save({"a": torch.zeros(3)}, folder / WEIGHTS)
    refused(folder, "not a safetensors file but a pickle")


def test_a_git_lfs_pointer_is_recognised(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    refused(folder, "Git LFS pointer.*git lfs pull")


@pytest.mark.parametrize("page", ["<!DOCTYPE html><p>log in", "\n<html><p>proxy"])
def test_a_web_page_is_recognised(folder: Path, page: str) -> None:
    (folder / WEIGHTS).write_text(page)
    refused(folder, "HTML page.*proxy")


@pytest.mark.parametrize("name", [WEIGHTS, STARTS])
def test_one_flipped_byte_is_found_and_both_checksums_shown(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    message = refused(folder, f"{name}: damaged or replaced")
    assert read_json(folder)["files"][name]["sha256"] in message and message.count("sha256 is") == 1


def test_a_truncated_file_is_called_truncated(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-10])
    refused(folder, rf"truncated: {len(data) - 10} bytes, but config\.json announces {len(data)}")


def test_an_empty_file_is_called_truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")
    refused(folder, "truncated: 0 bytes")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, STARTS])
def test_a_link_is_refused(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "elsewhere")
    (folder / name).symlink_to(folder / "elsewhere")
    refused(folder, f"{name}: not a regular file")


@pytest.mark.parametrize("target", ["/etc/shadow", "/dev/zero", "/nowhere"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, target: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(target)
    refused(folder, "not a regular file")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_pipe_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, f"{name}: not a regular file")


def test_a_folder_named_like_a_file_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    refused(folder, "not a regular file")


def test_other_files_in_the_folder_are_ignored(folder: Path) -> None:
    for name in ("__init__.py", "setup.py", "dreamgym.py", "modeling.py"):
        (folder / name).write_text(f"open({str(folder.parent / 'canary')!r}, 'w')")
    (folder / "replay.mp4").symlink_to("/dev/zero")
    assert bundle.load(folder).spec.env_id == "CartPole-v1"


# ---- config.json --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"hello", "not JSON"),
        (b"[]", "expected an object"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"format": ' + b"9" * 5_000 + b"}", "key 'format'"),
        (b" " * 50_000_000, "50000000 bytes; the limit is 65536"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (gzip.compress(b"{}"), "not UTF-8"),
        (b'{"format": 1, "format": 2}', "'format' appears twice"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_config_that_is_not_a_json_object_is_refused(folder: Path, data: bytes, complaint: str) -> None:
    (folder / "config.json").write_bytes(data)
    refused(folder, rf"config\.json: .*{complaint}")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.update(format_version=99), r"model format 99; this dreamgym \(.+\) reads up to 3\. Run: pip install -U dreamgym"),
        (lambda c: c.update(format_version=0), "format_version is 0; expected an integer from 1 to 3"),
        (lambda c: c.update(format_version="1"), "format_version is '1'"),
        (lambda c: c.update(format_version=True), "format_version is True"),
        (lambda c: c.pop("format_version"), "format_version is None"),
        (lambda c: c.update(format="diffusers"), "not a dreamgym world model; its format is 'diffusers'"),
        (lambda c: c.update(format=["dreamgym-world-model"]), "not a dreamgym world model"),
        (lambda c: c.pop("format"), "not a dreamgym world model"),
    ],
)
def test_another_format_is_incompatible_and_says_what_to_do(folder: Path, change: Callable[[Any], Any], complaint: str) -> None:
    edit_config(folder, change)
    refused(folder, complaint, IncompatibleModelError)


def core(**values: Any) -> Callable[[Any], Any]:
    return lambda config: config["model"]["core"].update(values)


def top(**values: Any) -> Callable[[Any], Any]:
    return lambda config: config.update(values)


def file_entry(**values: Any) -> Callable[[Any], Any]:
    return lambda config: config["files"][WEIGHTS].update(values)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (core(units=1_000_000_000), "key 'model.core' is out of range: units is 1000000000"),
        (core(units=10**12), "units is 1000000000000"),
        (core(layers=1_000_000_000), "layers is 1000000000"),
        (core(units=8192, layers=16, members=64), "parameters; the limit is 500000000"),
        (lambda c: c["spec"]["observation_space"].update(shape=[10**6, 10**6]), "more than 10000000 elements"),
        (lambda c: c["spec"]["observation_space"].update(shape=[65536, 65536, 3]), "more than 10000000 elements"),
        (lambda c: c["spec"]["observation_space"].update(shape=[10**7]), "parameters; the limit is 500000000"),
        (lambda c: c["spec"]["observation_space"].update(shape=[2, 2]), "do not fit together"),
        (lambda c: c["spec"].update(action_space=c["spec"]["observation_space"] | {"shape": [2, 2]}), "do not fit together"),
        (lambda c: c["spec"].update(max_episode_steps=0), "max_episode_steps is 0"),
        (lambda c: c["spec"]["preprocess"].update(size=65536), "key 'spec.preprocess' is out of range: size is 65536"),
        (core(units=True), "key 'model.core.units' is True; expected an integer"),
        (core(units="32"), "key 'model.core.units' is '32'"),
        (core(units=32.5), "key 'model.core.units' is 32.5"),
        (core(units=None), "key 'model.core.units' is None"),
        (core(units=-1), "units is -1"),
        (core(units=float("nan")), "key 'model.core.units' is NaN"),
        (core(units=float("inf")), "key 'model.core.units' is NaN, infinite"),
        (core(dropout=0.1), "unknown key 'dropout'"),
        (lambda c: c["model"]["core"].pop("units"), "lacks the key 'units'"),
        (top(extra=1), "unknown key 'extra'"),
        (lambda c: c.pop("source"), "lacks the key 'source'"),
        (top(source=[]), "key 'source'"),
        (top(source={"a": float("nan")}), "key 'source.a' is NaN"),
        (core(type="os:system"), "unknown type 'os:system'; this version knows ensemble, mdnrnn, rssm"),
        (core(type="__class__"), "unknown type '__class__'"),
        (core(type="../x"), "unknown type '../x'"),
        (core(type="rssm"), "unknown key 'members'"),
        (core(_target_="os.system"), "unknown key '_target_'"),
        (top(entry_point="os:system"), "unknown key 'entry_point'"),
        (top(auto_map={"AutoModel": "modeling.Evil"}), "unknown key 'auto_map'"),
        (lambda c: c["files"].update({"../../x": c["files"][WEIGHTS]}), "unknown key '../../x'"),
        (lambda c: c["files"].update({"/etc/passwd": c["files"][WEIGHTS]}), "unknown key '/etc/passwd'"),
        (lambda c: c["files"].update({"C:\\x": c["files"][WEIGHTS]}), "unknown key 'C:"),
        (lambda c: c["files"].pop(STARTS), "lacks the key 'initial_states.safetensors'"),
        (lambda c: c.update(files=["model.safetensors"]), "key 'files'"),
        (file_entry(sha256="0" * 63), "64 lower-case hexadecimal"),
        (file_entry(sha256="G" * 64), "64 lower-case hexadecimal"),
        (file_entry(sha256=None), "64 lower-case hexadecimal"),
        (file_entry(size=-1), "expected 1 to"),
        (file_entry(size=2**40), "expected 1 to 2147483648 bytes"),
        (file_entry(url="https://evil.example"), "unknown key 'url'"),
        (top(**{"\x1b[2J\u202e" + "x" * 9_000: 1}), r"unknown key '\\x1b\[2J\\u202exxx"),
    ],
)
def test_a_wrong_config_is_refused_by_key(folder: Path, change: Callable[[Any], Any], complaint: str) -> None:
    edit_config(folder, change)
    refused(folder, rf"config\.json: .*{complaint}")


def test_a_number_beyond_floating_point_is_refused_by_key(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"fps": 30.0', '"fps": 1e400'))
    refused(folder, "key 'spec.fps' is NaN, infinite or too large")


def test_the_env_id_is_text_and_is_not_imported(folder: Path) -> None:
    edit_config(folder, lambda config: config["spec"].update(env_id="evilmod:Env-v0"))
    assert bundle.load(folder).spec.env_id == "evilmod:Env-v0"
    assert "evilmod" not in sys.modules


# ---- tensors ------------------------------------------------------------------------------------------------------------

NAME = "core.network.weights.0"


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
def test_wrong_weights_are_refused_by_name(folder: Path, change: Callable[[Any], Any], complaint: str) -> None:
    forge_tensors(folder, WEIGHTS, change)
    refused(folder, rf"model\.safetensors: .*{complaint}")


def test_large_weights_that_dream_finite_numbers_are_accepted(folder: Path) -> None:
    forge_tensors(folder, WEIGHTS, lambda tensors: tensors[NAME].mul_(10.0))
    assert bundle.load(folder).spec.env_id == "CartPole-v1"


def rows(count: int) -> Callable[[Any], Any]:
    return lambda tensors: tensors.update({name: tensor[:1].expand(count, *tensor.shape[1:]) for name, tensor in tensors.items()})


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
def test_wrong_start_states_are_refused_by_name(folder: Path, change: Callable[[Any], Any], complaint: str) -> None:
    forge_tensors(folder, STARTS, change)
    refused(folder, rf"initial_states\.safetensors: .*{complaint}")


def test_a_billion_start_states_in_a_header_are_refused_before_they_are_made(folder: Path) -> None:
    names = [("is_first", "BOOL", "[1000000000]"), ("state.obs", "F32", "[1000000000,4]")]
    names += [(f"state.{name}", "F32", "[1000000000]") for name in ("reward", "disagreement")]
    entries = (f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,0]}}' for name, dtype, shape in names)
    forge(folder, STARTS, raw_safetensors("{" + ",".join(entries) + "}"))
    refused(folder, r"'is_first' has shape \[1000000000\]; expected 1 to 1000000 rows")


ENTRY = '{"dtype":"F32","shape":[0,1000000000],"data_offsets":[0,0]}'


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("{" + ",".join(f'"{number}":{ENTRY}' for number in range(500_000)) + "}", r"a header of \d+ bytes; the limit is"),
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
def test_a_forged_header_is_refused(folder: Path, header: str, complaint: str) -> None:
    forge(folder, WEIGHTS, raw_safetensors(header))
    refused(folder, rf"model\.safetensors: .*{complaint}")


@pytest.mark.parametrize("size", [2**40, 200_000_000, 2**63])
def test_a_header_that_claims_to_be_huge_is_refused(folder: Path, size: int) -> None:
    forge(folder, WEIGHTS, size.to_bytes(8, "little") + b"{}" + b"\0" * 100)
    refused(folder, "not a safetensors file, or cut off in its header")


def test_tensors_that_share_bytes_are_refused(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].decode()
    forged = header.replace('"data_offsets":[20,40]', '"data_offsets":[0,20]')
    assert forged != header
    forge(folder, WEIGHTS, raw_safetensors(forged, data[8 + size :]))
    refused(folder, "not a consistent safetensors file")


def test_bytes_after_the_last_tensor_are_refused(folder: Path) -> None:
    forge(folder, WEIGHTS, (folder / WEIGHTS).read_bytes() + b"\0" * 1000)
    refused(folder, "not a consistent safetensors file")


# ---- the code itself ----------------------------------------------------------------------------------------------------


def test_nothing_that_runs_code_stands_on_the_load_path() -> None:
    calls = {"eval", "exec", "compile", "__import__", "import_module", "torch.load", "np.load", "os.system"}
    modules = {"pickle", "subprocess", "runpy", "ctypes", "importlib", "marshal", "shelve"}
    package = Path(bundle.__file__).parent.parent
    for path in [*package.glob("hub/*.py"), *package.glob("formats/*.py"), package / "agents" / "agent_files.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{path.name}:{node.lineno}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert not modules.intersection(names), f"{path.name}:{node.lineno}"
