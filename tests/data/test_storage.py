"""A replay in a folder survives whatever kills its writer."""

import json
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from dreamgym.data import Replay
from tests.data import toys


@pytest.fixture
def folder(tmp_path):
    """Three episodes of 3 rows, marked 0, 1, 2."""
    replay = Replay(toys.VECTOR, tmp_path)
    for mark in range(3):
        toys.add(replay, 2, mark=mark, policy=f"p{mark}", terminated=mark == 1)
    return tmp_path


def marks(replay):
    return replay.column("obs")[:, 0].astype(int).tolist()


def spoil(path, offset, size=4):
    content = bytearray(path.read_bytes())
    at = offset % len(content)
    content[at : at + size] = bytes(255 - byte for byte in content[at : at + size])
    path.write_bytes(content)


def test_reopening_gives_the_same_rows(folder):
    memory = Replay(toys.VECTOR)
    for mark in range(3):
        toys.add(memory, 2, mark=mark, policy=f"p{mark}", terminated=mark == 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Replay(toys.VECTOR, folder)
    assert (again.episodes, again.policies) == (memory.episodes, memory.policies)
    for name, tensor in again.sequence(0, 9).items():
        assert tensor.equal(getattr(memory.sequence(0, 9), name)), name


def test_no_file_is_a_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["commits.jsonl", "layout.json", "obs.bin", "rows.bin"]
    assert (folder / "obs.bin").read_bytes() == Replay(toys.VECTOR, folder).column("obs").tobytes()


def test_reopening_gives_the_same_parts(tmp_path):
    memory, folder = Replay(toys.CHOICES), Replay(toys.CHOICES, tmp_path)
    for mark in range(3):
        for replay in (memory, folder):
            toys.add_parts(replay, 2, mark=mark)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Replay(toys.CHOICES, tmp_path)
    for (name, mine), (_, its) in zip(memory.sequence(0, 9).items(), again.sequence(0, 9).items()):
        assert mine.equal(its), name


def test_a_torn_episode_of_parts_is_dropped(tmp_path):
    replay = Replay(toys.CHOICES, tmp_path)
    for mark in range(2):
        toys.add_parts(replay, 2, mark=mark)
    spoil(tmp_path / "obs.bin", -8)
    with pytest.warns(RuntimeWarning, match="1 episodes before are intact"):
        again = Replay(toys.CHOICES, tmp_path)
    assert again.column("obs")["speed"][:, 0].tolist() == [0, 0, 0]


def test_the_layout_of_a_plain_folder_is_what_it_was(folder):
    """Folders written before there were Dict observations still open."""
    assert json.loads((folder / "layout.json").read_text()) == {"format": 1, "obs_shape": [3], "obs_dtype": "<f4", "action_size": 1}


@pytest.mark.parametrize("name", ["obs.bin", "rows.bin"])
def test_rows_without_a_commit_are_dropped_with_a_warning(folder, name):
    with open(folder / name, "ab") as file:
        file.write(b"half an episode")
    with pytest.warns(RuntimeWarning, match="unfinished"):
        replay = Replay(toys.VECTOR, folder)
    assert marks(replay) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("cut", [1, 20])
def test_a_torn_commit_line_drops_that_episode_only(folder, cut):
    log = folder / "commits.jsonl"
    log.write_bytes(log.read_bytes()[:-cut])
    with pytest.warns(RuntimeWarning, match="incomplete"):
        replay = Replay(toys.VECTOR, folder)
    assert marks(replay) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["obs.bin", "rows.bin", "commits.jsonl"])
def test_a_garbled_last_episode_is_dropped_with_a_warning(folder, name):
    spoil(folder / name, -8)
    with pytest.warns(RuntimeWarning, match="2 episodes before are intact"):
        assert marks(Replay(toys.VECTOR, folder)) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["obs.bin", "rows.bin"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_truncated_data_keeps_the_episodes_before(folder, name, share):
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.warns(RuntimeWarning, match="damaged"):
        replay = Replay(toys.VECTOR, folder)
    assert marks(replay) == [0, 0, 0, 1, 1, 1][: 3 * int(3 * share)]


@pytest.mark.parametrize("name", ["obs.bin", "rows.bin", "commits.jsonl"])
def test_damage_before_intact_episodes_is_refused_and_nothing_is_deleted(folder, name):
    spoil(folder / name, 5)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="damaged"):
        Replay(toys.VECTOR, folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_writing_goes_on_after_a_torn_tail_and_leaves_no_trace_of_it(folder):
    for name in ("obs.bin", "rows.bin", "commits.jsonl"):
        with open(folder / name, "ab") as file:
            file.write(b"torn")
    with pytest.warns(RuntimeWarning):
        replay = Replay(toys.VECTOR, folder)
    toys.add(replay, 1, mark=7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Replay(toys.VECTOR, folder)
    assert marks(again) == marks(replay) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 7, 7]


def test_forgotten_episodes_stay_forgotten(folder):
    Replay(toys.VECTOR, folder).keep(2)
    assert marks(Replay(toys.VECTOR, folder)) == [0, 0, 0, 1, 1, 1]
    Replay(toys.VECTOR, folder).keep(0)
    assert len(Replay(toys.VECTOR, folder)) == 0


@pytest.mark.parametrize("other", [toys.IMAGE, toys.CLASSES, toys.CHOICES])
def test_a_folder_of_other_shapes_is_refused(folder, other):
    with pytest.raises(ValueError, match="another folder"):
        Replay(other, folder)


def test_a_second_writer_is_noticed(folder):
    first, second = Replay(toys.VECTOR, folder), Replay(toys.VECTOR, folder)
    toys.add(first, 1)
    with pytest.raises(RuntimeError, match="another process"):
        toys.add(second, 1)


def test_an_empty_folder_can_be_reopened(tmp_path):
    Replay(toys.VECTOR, tmp_path)
    assert len(Replay(toys.VECTOR, tmp_path)) == 0


KILLED = """
import os, signal, sys
import dreamgym.data.storage as storage
from dreamgym.data import Replay
from tests.data import toys

replay = Replay(toys.VECTOR, sys.argv[1])
for mark in range(2):
    toys.add(replay, 2, mark=mark)
write, calls = storage._write_at, []

def dies(path, offset, content):
    calls.append(path)
    if len(calls) == int(sys.argv[2]):
        write(path, offset, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, offset, content)

storage._write_at = dies
toys.add(replay, 2, mark=2)
"""


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_kill_in_the_middle_of_any_write_loses_nothing_committed(tmp_path, write):
    """Writes of an episode: observations, rows, commit."""
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(write)])
    assert result.returncode == -signal.SIGKILL
    with pytest.warns(RuntimeWarning, match="did not finish"):
        replay = Replay(toys.VECTOR, tmp_path)
    assert marks(replay) == [0, 0, 0, 1, 1, 1]
    toys.add(replay, 2, mark=3)
    assert marks(Replay(toys.VECTOR, tmp_path)) == [0, 0, 0, 1, 1, 1, 3, 3, 3]


BUSY = """
import sys
from dreamgym.data import Replay
from tests.data import toys

replay = Replay(toys.VECTOR, sys.argv[1])
for mark in range(10**6):
    toys.add(replay, 50, mark=mark)
    print(mark, flush=True)
"""


def test_a_kill_at_any_moment_keeps_every_episode_that_was_reported(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for _ in range(40):
        reported = int(process.stdout.readline())
    process.kill()
    reported = int((process.communicate()[0].split() or [reported])[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        replay = Replay(toys.VECTOR, tmp_path)
    assert len(replay.episodes) >= reported + 1
    assert marks(replay) == np.repeat(np.arange(len(replay.episodes)), 51).tolist()


def test_layout_says_the_shapes_in_plain_json(folder):
    layout = json.loads((folder / "layout.json").read_text())
    assert layout == {"format": 1, "obs_shape": [3], "obs_dtype": "<f4", "action_size": 1}
