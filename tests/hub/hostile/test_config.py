"""config.json by somebody who wishes us ill: each is refused by key, before anything it orders is made."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dreamgym
from tests.hub.hostile.opening import Opening, case
from tests.hub.toys import STARTS, WEIGHTS, edit_config

Change = Callable[[Any], Any]


LARGE = {"type": "box", "shape": [10**7], "dtype": "float64", "low": "-inf", "high": 1.0}


def refused(opening: Opening, folder: Path, complaint: str, error: str = "InvalidModelError") -> str:
    return opening.refuses("folder", str(folder), complaint=rf"config\.json: .*{complaint}", error=error).message


def core(**values: Any) -> Change:
    return lambda config: config["model"]["core"].update(values)


def top(**values: Any) -> Change:
    return lambda config: config.update(values)


def file_entry(**values: Any) -> Change:
    return lambda config: config["files"][WEIGHTS].update(values)


@case(12, 13)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (core(units=1_000_000_000), "key 'model.core' is out of range: units is 1000000000"),
        (core(units=10**12), "units is 1000000000000"),
        (core(layers=1_000_000_000), "layers is 1000000000"),
        (core(members=10**9), "members is 1000000000"),
        (core(units=8192, layers=16, members=64), "parameters; the limit is 500000000"),
        (lambda c: c["spec"]["observation_space"].update(shape=[10**6, 10**6]), "more than 10000000 elements"),
        (lambda c: c["spec"]["observation_space"].update(shape=[65536, 65536, 3]), "more than 10000000 elements"),
        (lambda c: c["spec"]["observation_space"].update(shape=[10**7]), "parameters; the limit is 500000000"),
        (lambda c: c["spec"].update(observation_space=LARGE, action_space=LARGE), "parameters; the limit is 500000000"),
        (lambda c: c["spec"]["observation_space"].update(shape=[2, 2]), "do not fit together"),
        (lambda c: c["spec"]["observation_space"].update(shape=[1] * 9), "has 9 dimensions; the limit is 8"),
        (lambda c: c["spec"].update(action_space=c["spec"]["observation_space"] | {"shape": [2, 2]}), "do not fit together"),
        (lambda c: c["spec"]["action_space"].update(n=10**9), "key 'spec.action_space.n' is 1000000000; expected an integer from 1"),
        (lambda c: c["spec"].update(max_episode_steps=0), "max_episode_steps is 0"),
        (lambda c: c["spec"]["preprocess"].update(size=65536), "key 'spec.preprocess' is out of range: size is 65536"),
        (lambda c: c["spec"]["preprocess"].update(stack=10**9), "key 'spec.preprocess' is out of range: stack is 1000000000"),
    ],
)
def test_sizes_out_of_range_are_refused_before_anything_is_made(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    edit_config(folder, change)
    refused(opening, folder, complaint)


@case(14)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (core(units=True), "key 'model.core.units' is True; expected an integer"),
        (core(units="32"), "key 'model.core.units' is '32'"),
        (core(units=32.5), "key 'model.core.units' is 32.5"),
        (core(units=None), "key 'model.core.units' is None"),
        (core(units=-1), "units is -1"),
        (core(units=float("nan")), "key 'model.core.units' is NaN"),
        (core(units=float("inf")), "key 'model.core.units' is NaN, infinite"),
        (top(source=[]), "key 'source'"),
        (top(source={"a": float("nan")}), "key 'source.a' is NaN"),
        (lambda c: c["spec"].update(env_id=7), "key 'spec.env_id' is 7; expected text"),
    ],
)
def test_values_of_the_wrong_type_are_refused_by_key(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    edit_config(folder, change)
    refused(opening, folder, complaint)


@case(14)
def test_a_number_beyond_floating_point_is_refused_by_key(opening: Opening, folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"fps": 30.0', '"fps": 1e400'))
    refused(opening, folder, "key 'spec.fps' is NaN, infinite or too large")


@case(15)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (core(dropout=0.1), "unknown key 'dropout'"),
        (lambda c: c["model"]["core"].pop("units"), "lacks the key 'units'"),
        (top(extra=1), "unknown key 'extra'"),
        (lambda c: c.pop("source"), "lacks the key 'source'"),
        (core(type="rssm"), "unknown key 'members'"),
    ],
)
def test_keys_too_many_or_too_few_are_refused_by_name(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    edit_config(folder, change)
    refused(opening, folder, complaint)


@case(15, 16)
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"hello", "not JSON"),
        (b"", "not JSON"),
        (b"[]", "expected an object"),
        (b"[" * 50_000, "nested too deeply"),
        (b"[" * 100_000, "100000 bytes; the limit is 65536"),
        (b'{"format": ' + b"9" * 5_000 + b"}", "key 'format'"),
        (b" " * 50_000_000, "50000000 bytes; the limit is 65536"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (gzip.compress(b"{}", mtime=0), "not UTF-8"),
        (b'{"format": 1, "format": 2}', "'format' appears twice"),
        (b'{"format": "\\ud800"}', "half a surrogate pair"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_config_that_is_not_a_json_object_is_refused(opening: Opening, folder: Path, data: bytes, complaint: str) -> None:
    (folder / "config.json").write_bytes(data)
    refused(opening, folder, complaint)


@case(15, 16)
def test_files_that_would_be_slow_or_large_to_complain_about_are_refused_at_once(opening: Opening, folder: Path) -> None:
    """A hundred thousand keys with the last one twice, and many values below one long key, whose path each of them has."""
    names = ",".join(f'"{number:x}":1' for number in range(100_000))
    (folder / "fidelity.json").write_text(f'{{{names},"1869f":1}}')
    report = opening.refuses("described", str(folder), complaint=r"fidelity\.json: key '1869f' appears twice")
    assert report.seconds < 2
    (folder / "fidelity.json").write_text(json.dumps({"a" * 500_000: [0] * 150_000}))
    opening.opens("described", str(folder))
    (folder / "fidelity.json").write_text(json.dumps({"a" * 500_000: [0] * 150_000 + [[[]]]}).replace("[[]]", "[NaN]"))
    opening.refuses("described", str(folder), complaint=r"fidelity\.json: key '.*a\.\.\.\[150000\]\[0\]' is NaN")
    (folder / "config.json").write_text(json.dumps({"a" * 32_000: [0] * 10_000}))
    refused(opening, folder, "not a dreamgym world model", "IncompatibleModelError")


@case(17)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (top(format_version=99), r"model format 99; this dreamgym \(.+\) reads up to 3\. Run: pip install -U dreamgym"),
        (top(format_version=0), "format_version is 0; expected an integer from 1 to 3"),
        (top(format_version="1"), "format_version is '1'"),
        (top(format_version=True), "format_version is True"),
        (lambda c: c.pop("format_version"), "format_version is None"),
        (top(format="diffusers"), "not a dreamgym world model; its format is 'diffusers'"),
        (top(format=["dreamgym-world-model"]), "not a dreamgym world model"),
        (lambda c: c.pop("format"), "not a dreamgym world model"),
    ],
)
def test_another_format_is_incompatible_and_says_what_to_do(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    edit_config(folder, change)
    refused(opening, folder, complaint, "IncompatibleModelError")


@case(18)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (core(type="os:system"), "unknown type 'os:system'; this version knows ensemble, mdnrnn, rssm"),
        (core(type="__class__"), "unknown type '__class__'"),
        (core(type="../x"), "unknown type '../x'"),
        (core(_target_="os.system"), "unknown key '_target_'"),
        (top(entry_point="os:system"), "unknown key 'entry_point'"),
        (top(auto_map={"AutoModel": "modeling.Evil"}), "unknown key 'auto_map'"),
    ],
)
def test_words_that_other_libraries_would_import_are_only_words(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    edit_config(folder, change)
    refused(opening, folder, complaint)


@case(19)
@pytest.mark.parametrize("env_id", ["evilmod:Env-v0", "os:system", "../../evil-v0", "Never-Registered-v0"])
def test_the_env_id_is_text_and_no_real_environment_is_made_of_it(opening: Opening, folder: Path, env_id: str) -> None:
    (opening.root / "nowhere" / "evilmod.py").write_text("raise SystemExit('imported')")
    edit_config(folder, lambda config: config["spec"].update(env_id=env_id))
    assert opening.opens("folder", str(folder)).message == env_id
    assert opening.opens("dreamt", str(folder)).message == env_id
    report = opening.tried("awake", str(folder))
    assert report.error in ("ValueError", "NameNotFound", "NamespaceNotFound", "Error"), report
    assert repr(env_id)[1:-1] in report.message or ":" not in env_id


@case(20)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c["files"].update({"../../x": c["files"][WEIGHTS]}), "unknown key '../../x'"),
        (lambda c: c["files"].update({"/etc/passwd": c["files"][WEIGHTS]}), "unknown key '/etc/passwd'"),
        (lambda c: c["files"].update({"C:\\x": c["files"][WEIGHTS]}), "unknown key 'C:"),
        (lambda c: c["files"].pop(STARTS), "lacks the key 'initial_states.safetensors'"),
        (top(files=["model.safetensors"]), "key 'files'"),
        (file_entry(sha256="0" * 63), "64 lower-case hexadecimal"),
        (file_entry(sha256="G" * 64), "64 lower-case hexadecimal"),
        (file_entry(sha256=None), "key 'files.*sha256' is None"),
        (file_entry(size=-1), "expected 1 to"),
        (file_entry(size=2**40), "expected 1 to 2147483648 bytes"),
        (file_entry(url="https://evil.example"), "unknown key 'url'"),
    ],
)
def test_files_are_called_by_our_constants(opening: Opening, folder: Path, change: Change, complaint: str) -> None:
    edit_config(folder, change)
    refused(opening, folder, complaint)


@case("escapes")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (top(**{"\x1b[2J\u202e" + "x" * 9_000: 1}), r"unknown key '\\x1b\[2J\\u202exxx"),
        (core(type="\x1b]0;owned\x07" + "y" * 60_000), r"unknown type '\\x1b\]0;owned\\x07yyy"),
        (core(units="\r\x1b[1A" + "z" * 60_000), r"is '\\r\\x1b\[1Azzz"),
        (top(format="\x9b31m\u2028\u2066evil"), r"'\\x9b31m\\u2028\\u2066evil'"),
    ],
)
def test_terminal_escapes_and_endless_lines_are_shown_escaped_and_cut(
    opening: Opening, folder: Path, change: Change, complaint: str
) -> None:
    edit_config(folder, change)
    report = opening.refuses(
        "folder", str(folder), complaint=complaint, error="IncompatibleModelError" if "evil" in complaint else "InvalidModelError"
    )
    assert len(report.message) < 600


@case("escapes")
def test_what_is_shown_of_a_model_holds_no_escapes_and_no_endless_lines(opening: Opening, folder: Path) -> None:
    """`tried` looks at every line that was printed."""
    name, policy = "\x1b[2Jevil" + "y" * 10_000, "\u202e\x1b[31m" + "p" * 5000
    measured = json.loads((Path(dreamgym.__file__).parent / "pretrained" / "CartPole" / "fidelity.json").read_text())
    measured["env_id"] = measured["policy"]["env_id"] = measured["fixed_policies"]["env_id"] = name
    measured["fixed_policies"]["policies"][policy] = measured["fixed_policies"]["policies"].pop("random")
    (folder / "fidelity.json").write_text(json.dumps(measured))
    edit_config(folder, lambda config: config["spec"].update(env_id=name))
    edit_config(folder, lambda config: config.update(source={"note": policy * 3, "\u202e" + "k" * 9_000: {"a": ["\x1b]0;owned\x07"]}}))
    assert "evil" in opening.opens("described", str(folder)).printed
    edit_config(folder, lambda config: config["spec"].update(env_id="CartPole-v1"))
    opening.refuses("described", str(folder), complaint=r"fidelity\.json: the numbers were measured in '\\x1b\[2Jevilyyy")
