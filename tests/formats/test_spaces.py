"""Dict and MultiDiscrete spaces in a file: what comes back is equal, and what is hostile is refused before it costs anything."""

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamgym.errors import InvalidModelError
from dreamgym.formats.spaces import decode_space, encode_space
from dreamgym.formats.strict_json import Place, loads

KEPT = [
    spaces.MultiDiscrete([4, 1, 7], start=[-2, 0, 9]),
    spaces.Dict({"camera.left": spaces.Box(0, 255, (8, 8, 3), np.uint8), "A-1_b": spaces.Box(-np.inf, np.inf, (2,), np.float64)}),
    spaces.Dict({"gear": spaces.Discrete(3, start=-1), "keys": spaces.MultiDiscrete([2, 2])}),
    spaces.Dict({str(number): spaces.Discrete(1 + number) for number in range(64)}),
]


@pytest.mark.parametrize("space", KEPT, ids=lambda space: type(space).__name__)
def test_a_space_comes_back_equal(space: spaces.Space[Any]) -> None:
    back = decode_space(loads(json.dumps(encode_space(space)).encode()), Place("config.json"))
    assert back == space and type(back) is type(space)


def test_the_parts_of_a_dict_come_back_sorted_whatever_their_order_in_the_file() -> None:
    gear = {"type": "discrete", "n": 2, "start": 0}
    back = decode_space({"type": "dict", "spaces": {"b": gear, "a": gear}}, Place("config.json"))
    assert isinstance(back, spaces.Dict) and list(back) == ["a", "b"]


def parts(**named: Any) -> dict[str, Any]:
    return {"type": "dict", "spaces": named}


BOX = {"type": "box", "shape": [2], "dtype": "float32", "low": -1, "high": 1}
LARGE = {"type": "discrete", "n": 10**6, "start": 0}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (parts(), "at least one"),
        ({"type": "dict", "spaces": [BOX]}, "at least one"),
        ({"type": "dict", "spaces": "abc"}, "at least one"),
        ({"type": "dict"}, "lacks the key 'spaces'"),
        (parts(**{str(number): BOX for number in range(65)}), "at most 64"),
        (parts(**{"../weights": BOX}), "1 to 64 letters"),
        (parts(**{"": BOX}), "1 to 64 letters"),
        (parts(**{"x" * 65: BOX}), "1 to 64 letters"),
        (parts(**{"a\n": BOX}), "1 to 64 letters"),
        (parts(**{"\u0430": BOX}), "1 to 64 letters"),  # a Cyrillic a
        (parts(a=parts(b=BOX)), "one of box, discrete, multi-discrete$"),
        (parts(a=None), "one of box, discrete, multi-discrete$"),
        (parts(a={**BOX, "shape": [10**6, 10**6]}), "'spaces.a.shape'|spaces.a.shape"),
        (parts(**{str(number): {**BOX, "shape": [4_000_000]} for number in range(3)}), "more than 10000000 elements"),
        (parts(**{str(number): LARGE for number in range(11)}), "more than 10000000 elements"),
        ({"type": "multi-discrete", "nvec": [10**6] * 11, "start": [0] * 11}, "more than 10000000 elements"),
        ({"type": "multi-discrete", "nvec": [10**6 + 1], "start": [0]}, r"nvec\[0\]"),
        ({"type": "multi-discrete", "nvec": [0], "start": [0]}, r"nvec\[0\]"),
        ({"type": "multi-discrete", "nvec": [[2, 2]], "start": [0]}, r"nvec\[0\]"),
        ({"type": "multi-discrete", "nvec": [2.0], "start": [0]}, r"nvec\[0\]"),
        ({"type": "multi-discrete", "nvec": [True], "start": [0]}, r"nvec\[0\]"),
        ({"type": "multi-discrete", "nvec": [2], "start": [2**40]}, r"start\[0\]"),
        ({"type": "multi-discrete", "nvec": [2, 2], "start": [0]}, "equally many"),
    ],
)
def test_a_hostile_space_is_refused_by_name(value: Any, complaint: str) -> None:
    with pytest.raises(InvalidModelError, match=complaint):
        decode_space(value, Place("config.json", "spec.observation_space"))


UNSTORABLE = [
    spaces.MultiDiscrete([[2, 2]]),
    spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}),
    spaces.Dict({"a/b": spaces.Discrete(2)}),
    spaces.Dict({3: spaces.Discrete(2)}),
    spaces.Dict({str(number): spaces.Discrete(2) for number in range(65)}),
    spaces.Dict({}),
]


@pytest.mark.parametrize("space", UNSTORABLE, ids=str)
def test_a_space_that_could_not_be_read_back_is_not_written(space: spaces.Space[Any]) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        encode_space(space)
