"""Configs as JSON: what is written comes back equal, and what is wrong is refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamgym.errors import InvalidModelError
from dreamgym.formats.codec import decode, encode, loads, tag_of
from dreamgym.formats.spaces import decode_space, encode_space
from dreamgym.formats.strict_json import Place, quote


@dataclass(frozen=True)
class NormalLatent:
    size: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 100:
            raise ValueError(f"size is {self.size}; expected 1 to 100.")


@dataclass(frozen=True)
class OneHotConfig:
    classes: int = 4


@dataclass(frozen=True)
class Sample:
    latent: NormalLatent | OneHotConfig = field(default_factory=NormalLatent)
    inner: NormalLatent = field(default_factory=NormalLatent)
    maybe: OneHotConfig | None = None
    rate: float = 0.5
    count: int = 2
    name: str = "x"
    on: bool = True
    mode: Literal["a", "b"] = "a"
    layers: tuple[int, ...] = (1, 2)
    pair: tuple[float, str] = (1.0, "z")
    crop: tuple[int, int] | None = None


SAMPLES = [
    Sample(),
    Sample(latent=OneHotConfig(7), maybe=OneHotConfig(2), rate=1e-30, layers=(), crop=(1, 2)),
    Sample(name="\x1b[31m ünï", on=False, mode="b", pair=(2.5, "")),
]


def changed(**values: Any) -> dict[str, Any]:
    return {**encode(Sample()), **values}


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_config_comes_back_equal(sample: Sample) -> None:
    assert decode(Sample, loads(json.dumps(encode(sample)).encode())) == sample


def test_every_field_is_written_even_at_its_default() -> None:
    assert list(encode(Sample())) == list(Sample.__dataclass_fields__)


def test_only_members_of_a_union_carry_a_type() -> None:
    value = encode(Sample())
    assert value["latent"] == {"type": "normal-latent", "size": 3} and value["inner"] == {"size": 3}


@pytest.mark.parametrize(
    ("name", "tag"), [("RSSMConfig", "rssm"), ("GaussianLatent", "gaussian-latent"), ("ConvVAEConfig", "conv-vae"), ("MDNRNN", "mdnrnn")]
)
def test_tags_are_kebab_case_without_config(name: str, tag: str) -> None:
    assert tag_of(type(name, (), {})) == tag


def test_an_integer_is_accepted_where_a_float_is_wanted() -> None:
    rate = decode(Sample, changed(rate=2)).rate
    assert rate == 2.0 and type(rate) is float


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"count": True}, "key 'count' is True; expected an integer"),
        ({"count": "2"}, "key 'count' is '2'; expected an integer"),
        ({"count": 2.0}, "key 'count' is 2.0; expected an integer"),
        ({"count": None}, "key 'count' is None; expected an integer"),
        ({"rate": True}, "key 'rate' is True"),
        ({"rate": float("nan")}, "key 'rate' is nan"),
        ({"rate": 10**400}, "key 'rate' is 1000"),
        ({"on": 1}, "key 'on' is 1; expected true or false"),
        ({"name": 1}, "key 'name' is 1; expected text"),
        ({"mode": "c"}, "key 'mode' is 'c'; expected one of 'a', 'b'"),
        ({"layers": [1, "2"]}, r"key 'layers\[1\]' is '2'"),
        ({"layers": 3}, "key 'layers' is 3; expected a list"),
        ({"pair": [1.0]}, "key 'pair' is .*; expected a list of 2"),
        ({"crop": [1, 2, 3]}, "key 'crop' is .*; expected a list of 2"),
        ({"inner": {"size": 0}}, "key 'inner' is out of range: size is 0; expected 1 to 100"),
        ({"inner": {"size": -1}}, "size is -1"),
        ({"inner": []}, "key 'inner' is .*; expected an object"),
        ({"inner": {}}, "key 'inner' lacks the key 'size'"),
        ({"inner": {"size": 1, "type": "normal-latent"}}, "key 'inner' has the unknown key 'type'"),
        ({"latent": {"size": 3}}, "key 'latent' has the unknown type None; this version knows normal-latent, one-hot"),
        ({"latent": {"type": "os:system", "size": 3}}, "unknown type 'os:system'"),
        ({"latent": {"type": "__class__"}}, "unknown type '__class__'"),
        ({"latent": {"type": ["one-hot"]}}, "unknown type"),
        ({"latent": "one-hot"}, "unknown type"),
        ({"latent": {"type": "one-hot", "classes": 4, "_target_": "os.system"}}, "unknown key '_target_'"),
        ({"extra": 1}, "the top level has the unknown key 'extra'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidModelError, match="^somewhere: .*" + complaint):
        decode(Sample, changed(**values), "somewhere")


def test_a_missing_key_is_refused_though_the_dataclass_has_a_default() -> None:
    value = encode(Sample())
    del value["rate"]
    with pytest.raises(InvalidModelError, match="lacks the key 'rate'"):
        decode(Sample, value)


@pytest.mark.parametrize("wrong", [Sample(rate=float("inf")), Sample(count=2.5), Sample(mode="c"), Sample(latent=None)])  # type: ignore[arg-type]
def test_a_value_that_could_not_be_read_back_is_not_written(wrong: Sample) -> None:
    with pytest.raises(TypeError, match=r"Sample\."):
        encode(wrong)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[" * 50_000, "nested too deeply"),
        (b"[" * 40 + b"]" * 40, "nested too deeply"),
        (b'{"a": ' * 8_000 + b"1" + b"}" * 8_000, "nested too deeply"),
        (b'{"a": {"b": NaN}}', "key 'a.b' is NaN"),
        (b'{"a": -Infinity}', "key 'a' is NaN, infinite"),
        (b'{"a": [1, 1e400]}', r"key 'a\[1\]'"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "key 'a'"),
        (b'{"a": 9223372036854775808}', "64 bits"),
        (b'{"a": 1, "b": 2, "a": 3}', "key 'a' appears twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b" " * 70_000, "70000 bytes; the limit is 65536"),
    ],
)
def test_bad_json_is_an_invalid_model_and_nothing_else(data: bytes, complaint: str) -> None:
    with pytest.raises(InvalidModelError, match=complaint):
        loads(data)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=200), st.text('{}[]",:0123456789eE.-NaInfity\\u ', max_size=100).map(str.encode)))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        loads(data)
    except InvalidModelError as error:
        assert str(error).startswith("config.json: ")


def test_untrusted_text_is_shown_escaped_and_short() -> None:
    shown = quote("\x1b[2J\u202e" + "a" * 10_000)
    assert shown.isprintable() and len(shown) <= 203


SPACES = [
    spaces.Box(0, 255, (64, 64, 3), np.uint8),
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(np.array([-1, 0, -np.inf], np.float32), np.array([1, 0.1, np.inf], np.float32)),
    spaces.Box(-4.8, 4.8, (2, 2), np.float64),
    spaces.Box(-3, 7, (), np.int64),
    spaces.Discrete(5),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.Dict({"state": spaces.Box(-1, 1, (2,)), "task": spaces.Discrete(2)}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_equal(space: spaces.Space[Any]) -> None:
    back = decode_space(loads(json.dumps(encode_space(space)).encode()), Place("config.json"))
    assert back == space and type(back) is type(space)
    if isinstance(space, spaces.Box):
        assert isinstance(back, spaces.Box)
        np.testing.assert_array_equal(back.low, space.low)
        np.testing.assert_array_equal(back.high, space.high)


def box(**values: Any) -> dict[str, Any]:
    return {"type": "box", "shape": [2], "dtype": "float32", "low": -1, "high": 1, **values}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (box(shape=[10**6, 10**6]), "more than 10000000 elements"),
        (box(shape=[10**12]), "expected an integer from 1"),
        (box(shape=[1] * 9), "9 dimensions"),
        (box(shape=[-1]), "expected an integer from 1"),
        (box(shape=[0]), "expected an integer from 1"),
        (box(shape=2), "expected a list of integers"),
        (box(dtype="object"), "dtype' is 'object'"),
        (box(dtype=["float32"]), "dtype"),
        (box(low=[-1]), "low' is .*; expected a list of 2"),
        (box(low=[-1, [0]]), r"low\[1\]"),
        (box(low="-Infinity"), "low' is '-Infinity'"),
        (box(low=True), "low' is True"),
        (box(high=1e300), "high' is 1e"),
        (box(low=2), "low' is above high"),
        (box(dtype="uint8", low=0, high=256), "from 0 to 255"),
        (box(dtype="uint8", low=0.0, high=255), "from 0 to 255"),
        (box(dtype="uint8", low="-inf", high=255), "from 0 to 255"),
        (box(seed=3), "unknown key 'seed'"),
        ({"type": "box"}, "lacks the key 'shape'"),
        ({"type": "gymnasium.spaces:Graph"}, "one of box, discrete, multi-discrete, dict"),
        ({"type": "discrete", "n": 0, "start": 0}, "n' is 0"),
        ({"type": "discrete", "n": 10**9, "start": 0}, "n' is 1000000000"),
        ({"type": "multi-discrete", "nvec": [2], "start": []}, "equally many"),
        ({"type": "dict", "spaces": {}}, "at least one"),
        ({"type": "dict", "spaces": {"a": {"type": "dict", "spaces": {}}}}, "one of box, discrete, multi-discrete$"),
        ({"type": "dict", "spaces": {str(number): box(shape=[4_000_000]) for number in range(3)}}, "more than 10000000 elements"),
        ("box", "expected an object"),
        (None, "expected an object"),
    ],
)
def test_a_bad_space_is_refused_by_name(value: Any, complaint: str) -> None:
    with pytest.raises(InvalidModelError, match=complaint):
        decode_space(value, Place("config.json", "spec.observation_space"))


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})})], ids=str)
def test_a_space_that_no_model_file_can_hold_is_not_written(space: spaces.Space[Any]) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        encode_space(space)
