"""Experience that is shared comes back bit for bit, and a forged dataset is refused before it costs memory or time."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dreamgym.data import Replay
from dreamgym.data import replay as replay_module
from dreamgym.errors import InvalidDataError, ModelNotFoundError
from dreamgym.hub import datasets
from dreamgym.hub.datasets import load_rollouts, save_rollouts
from dreamgym.structs import Spec
from tests.data import toys
from tests.hub import rollouts

FROZEN = Path(__file__).parent / "rollouts_1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_rollouts(rollouts.filled(), tmp_path / "data set")
    return tmp_path / "data set"


# ---- what is saved comes back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", rollouts.KINDS.values(), ids=rollouts.KINDS.keys())
def test_a_replay_comes_back_bit_for_bit(spec: Spec, tmp_path: Path) -> None:
    replay = rollouts.filled(spec)
    save_rollouts(replay, tmp_path)
    rollouts.assert_equal(replay, load_rollouts(tmp_path))


@pytest.mark.parametrize("spec", rollouts.KINDS.values(), ids=rollouts.KINDS.keys())
def test_a_replay_on_disk_is_saved_and_loaded_onto_disk(spec: Spec, tmp_path: Path) -> None:
    replay = rollouts.filled(spec)
    save_rollouts(replay, tmp_path / "a")
    stored = load_rollouts(tmp_path / "a", folder=tmp_path / "rows")
    rollouts.assert_equal(replay, stored)
    save_rollouts(Replay(spec, tmp_path / "rows"), tmp_path / "b")
    assert (tmp_path / "a" / rollouts.SHARD).read_bytes() == (tmp_path / "b" / rollouts.SHARD).read_bytes()


def test_episodes_are_dealt_into_shards_without_being_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_SHARD_BYTES", 200)  # some seven rows of a vector world
    replay = rollouts.filled(episodes=9)
    meta = save_rollouts(replay, tmp_path)
    assert 1 < len(meta.shards) == len(os.listdir(tmp_path / "data"))
    assert sum(shard.episodes for shard in meta.shards) == 9 and meta.rows == len(replay)
    rollouts.assert_equal(replay, load_rollouts(tmp_path))


def test_saving_fewer_episodes_over_many_leaves_no_old_shard_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_SHARD_BYTES", 200)
    save_rollouts(rollouts.filled(episodes=9), tmp_path)
    monkeypatch.undo()
    small = rollouts.filled(episodes=2, seed=1)
    save_rollouts(small, tmp_path)
    assert os.listdir(tmp_path / "data") == ["episodes-00000.npz"]
    rollouts.assert_equal(small, load_rollouts(tmp_path))


def test_equal_replays_make_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_rollouts(rollouts.filled(), tmp_path / name)
    for name in ("meta.json", rollouts.SHARD):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_numpy_alone_can_read_a_shard(folder: Path) -> None:
    replay = load_rollouts(folder)
    with np.load(folder / rollouts.SHARD) as opened:
        assert (opened["obs"] == replay.column("obs")).all() and (opened["reward"] == replay.column("reward")).all()
        assert opened["policy"].tolist() == [0, 1, 2, 0, 1]


def test_meta_says_who_acted_with_which_seeds_and_what_it_brought(tmp_path: Path) -> None:
    replay = Replay(toys.VECTOR)
    toys.add(replay, 2, mark=1, terminated=True, policy="Brave")  # rewards 101, 102; actions 0.1, 0.2
    toys.add(replay, 4, mark=0, policy="Shy")  # rewards 1 to 4
    save_rollouts(replay, tmp_path, seeds=[3, 4], source={"description": "by hand"})
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["episodes"], meta["steps"], meta["seeds"], meta["source"]["description"]) == (2, 6, [3, 4], "by hand")
    told = meta["statistics"]
    assert told["policies"] == {"Brave": {"episodes": 1, "steps": 2}, "Shy": {"episodes": 1, "steps": 4}}
    assert (told["terminated"], told["truncated"], told["invalid_observations"]) == (1, 1, 0)
    assert told["episode_length"] == {"mean": 3, "std": 1, "min": 2, "median": 3, "max": 4}
    assert (told["episode_return"]["min"], told["episode_return"]["max"]) == (10, 203)
    assert sum(told["reward"]["histogram"]["counts"]) == 6 and told["reward"]["mean"] == pytest.approx(213 / 6)
    assert told["actions"][0]["edges"][0] == -2 and sum(told["actions"][0]["counts"]) == 6


def test_classes_are_counted_from_the_first_one_on(tmp_path: Path) -> None:
    replay = Replay(toys.CHOICES)
    toys.add_parts(replay, 4)
    save_rollouts(replay, tmp_path)
    told = json.loads((tmp_path / "meta.json").read_text())["statistics"]["actions"]
    assert told == [{"first": 0, "counts": [2, 2]}, {"first": 5, "counts": [2, 1, 1]}]


def test_ten_thousand_episodes_are_few_files_and_quick(tmp_path: Path) -> None:
    replay = Replay(toys.VECTOR)
    for _ in range(10_000):
        toys.add(replay, 3)
    began = time.process_time()
    save_rollouts(replay, tmp_path)
    loaded = load_rollouts(tmp_path)
    assert time.process_time() - began < 20  # about 2 s
    assert len(os.listdir(tmp_path / "data")) == 1 and len(loaded.episodes) == 10_000


def test_the_first_format_is_still_read() -> None:
    rollouts.assert_equal(rollouts.filled(toys.CHOICES), load_rollouts(FROZEN))


# ---- what cannot be saved -----------------------------------------------------------------------------------------------


def test_a_replay_finds_the_hub_without_anybody_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "_HUB_DOOR", {})
    monkeypatch.delitem(sys.modules, "dreamgym.hub.datasets")
    with pytest.raises(ValueError, match="does not name a repository"):
        Replay.from_hub("no repository")


def test_an_empty_replay_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no episode"):
        save_rollouts(Replay(toys.VECTOR), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_spaces_that_no_file_can_hold_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    replay = Replay(replace(toys.VECTOR, observation_space=spaces.Box(-1, 1, (3,), np.float16)))
    replay.add_episode(np.zeros((2, 3)), np.zeros((1, 1)), np.zeros(1), True, False)
    with pytest.raises(TypeError, match="cannot be stored"):
        save_rollouts(replay, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_experience_that_is_not_true_to_its_spec_is_not_saved(tmp_path: Path) -> None:
    replay = Replay(replace(toys.VECTOR, observation_space=spaces.Box(-1, 1, (3,), np.float32)))
    replay.add_episode(np.array([[0, 0, 0], [0, 1.5, 0]]), np.zeros((1, 1)), np.zeros(1), True, False)
    with pytest.raises(InvalidDataError, match=r"'obs' lies outside of Box.* at row 1"):
        save_rollouts(replay, tmp_path)
    assert not (tmp_path / "meta.json").exists()


def test_an_observation_that_means_nothing_may_lie_outside(tmp_path: Path) -> None:
    replay = Replay(replace(toys.VECTOR, observation_space=spaces.Box(1, 2, (3,), np.float32)))
    replay.add_episode(np.array([[1, 1, 1], [0, 0, 0]]), np.zeros((1, 1)), np.zeros(1), True, False, valid=np.array([True, False]))
    save_rollouts(replay, tmp_path)
    rollouts.assert_equal(replay, load_rollouts(tmp_path))


def test_a_save_that_breaks_off_leaves_no_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "write_arrays", full)
    with pytest.raises(OSError, match="No space"):
        save_rollouts(rollouts.filled(), folder)
    with pytest.raises(ModelNotFoundError, match=r"no meta\.json"):
        load_rollouts(folder)


# ---- where it may not be loaded ------------------------------------------------------------------------------------------


def test_a_folder_that_holds_rows_is_not_added_to(folder: Path, tmp_path: Path) -> None:
    load_rollouts(folder, folder=tmp_path / "rows")
    with pytest.raises(ValueError, match="choose an empty folder"):
        load_rollouts(folder, folder=tmp_path / "rows")
    assert len(Replay(toys.VECTOR, tmp_path / "rows").episodes) == 5


def test_a_load_that_fails_leaves_no_half_of_a_dataset_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_SHARD_BYTES", 200)
    save_rollouts(rollouts.filled(episodes=9), tmp_path / "set")
    (tmp_path / "set" / "data" / "episodes-00001.npz").unlink()
    with pytest.raises(InvalidDataError, match=r"has no data/episodes-00001\.npz"):
        load_rollouts(tmp_path / "set", folder=tmp_path / "rows")
    assert not Replay(toys.VECTOR, tmp_path / "rows").episodes


@pytest.mark.parametrize("name", ["nothing", "a\0b", "x" * 5000])
def test_no_folder_is_not_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no such folder|not a usable path"):
        load_rollouts(tmp_path / name)


def test_more_rows_than_allowed_are_refused_before_a_shard_is_opened(folder: Path) -> None:
    (folder / rollouts.SHARD).unlink()
    with pytest.raises(InvalidDataError, match=r"meta\.json: \d+ rows take \d+ bytes; the limit is 100, which max_bytes= raises"):
        load_rollouts(folder, max_bytes=100)


# ---- forged meta.json ---------------------------------------------------------------------------------------------------


def set_key(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(meta: dict[str, Any]) -> None:
        value: Any = meta
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


FORGED_META: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another library": (set_key("format", to="lerobot"), "not a dreamgym dataset; its format is 'lerobot'"),
    "from the future": (set_key("format_version", to=9), "dataset format 9; this dreamgym .* reads up to 1"),
    "version as text": (set_key("format_version", to="1"), "format_version is '1'"),
    "version 0": (set_key("format_version", to=0), "format_version is 0"),
    "unknown key": (set_key("entry_point", to="os:system"), "unknown key 'entry_point'"),
    "missing key": (lambda meta: meta.pop("seeds"), "lacks the key 'seeds'"),
    "names of files": (set_key("shards", 0, "name", to="../../etc/passwd"), r"shards\[0\]' has the unknown key 'name'"),
    "malformed sha256": (set_key("shards", 0, "sha256", to="../../x"), "sha256 is '../../x'"),
    "no shard": (set_key("shards", to=[]), "0 shards"),
    "too many shards": (lambda meta: meta.update(shards=meta["shards"] * 1025), "expected a list of 1 to 1024"),
    "huge shard": (set_key("shards", 0, "size", to=2**40), "size is 1099511627776"),
    "10^12 rows": (lambda meta: (meta["shards"][0].update(rows=10**12), meta.update(steps=10**12 - 5)), "rows take .* the limit is"),
    "negative rows": (set_key("shards", 0, "rows", to=-1), "of -1 rows"),
    "no episode": (set_key("shards", 0, "episodes", to=0), "0 episodes"),
    "rows as a truth": (set_key("shards", 0, "rows", to=True), "expected an integer"),
    "episodes do not add up": (set_key("episodes", to=6), "'episodes' is 6; the shards hold 5"),
    "steps do not add up": (set_key("steps", to=10**9), "'steps' is 1000000000; the shards hold"),
    "huge space": (set_key("spec", "observation_space", "shape", to=[10**6, 10**6]), "more than 10000000 elements"),
    "space that no replay holds": (set_key("spec", "observation_space", to={"type": "discrete", "n": 3, "start": 0}), "not supported"),
    "action without bounds": (set_key("spec", "action_space", "high", to="inf"), "finite bounds"),
    "code as a space": (set_key("spec", "observation_space", "type", to="os:system"), "observation_space' is .*; expected an object whose"),
    "policies that are no list": (set_key("policies", to="Brave"), "'policies' is 'Brave'"),
    "no policies": (set_key("policies", to=[]), "0 policies"),
    "policies twice": (set_key("policies", to=["a", "a", "b"]), "listed twice"),
    "too many policies": (lambda meta: meta.update(policies=[str(number) for number in range(2000)]), "2000 policies"),
    "a policy's endless name": (set_key("policies", to=["x" * 9999]), "at most 200 characters"),
    "statistics that are no object": (set_key("statistics", to=[1]), "'statistics' is"),
}  # fmt: skip


@pytest.mark.parametrize("change,word", FORGED_META.values(), ids=FORGED_META.keys())
def test_a_forged_meta_is_refused_by_name(change: Callable[[dict[str, Any]], Any], word: str, folder: Path) -> None:
    rollouts.edit_meta(folder, change)
    with pytest.raises(InvalidDataError, match=word) as caught:
        load_rollouts(folder)
    assert str(caught.value).startswith(f"{folder}/meta.json: ") and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "text,word",
    [
        (b"", "not JSON"),
        (b"[1]", "expected an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "appears twice"),
        (b'{"a": NaN}', "NaN"),
        (b"\x80\x04cos\nsystem\n", "not UTF-8"),
        (b" " * (1024**2 + 1), "the limit is 1048576"),
    ],
)
def test_a_meta_that_is_no_strict_json_is_refused(text: bytes, word: str, folder: Path) -> None:
    (folder / "meta.json").write_bytes(text)
    with pytest.raises(InvalidDataError, match=word):
        load_rollouts(folder)


def test_an_env_id_is_text_and_nothing_is_imported(folder: Path) -> None:
    rollouts.edit_meta(folder, set_key("spec", "env_id", to="evilmod:Env-v0"))
    assert load_rollouts(folder).spec.env_id == "evilmod:Env-v0"


# ---- forged shards ------------------------------------------------------------------------------------------------------


def set_row(name: str, row: int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][row] = to

    return change


def cast(name: str, dtype: Any) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: arrays[name].astype(dtype)})


class Evil:
    """What pickles carry."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


FORGED_ARRAYS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "pickled objects": (lambda arrays: arrays.update(reward=np.array([Evil()] * len(arrays["reward"]))), "pickled objects|expands to"),
    "an array is missing": (lambda arrays: arrays.pop("valid"), "an archive of 7 members"),
    "an array too many": (lambda arrays: arrays.update(extra=np.zeros(3)), "an archive of 9 members"),
    "another name": (lambda arrays: arrays.update({"../evil": arrays.pop("obs")}), r"holds .*\.\./evil.*; expected"),
    "rows are missing": (lambda arrays: arrays.update(reward=arrays["reward"][:-1]), "'reward' expands to|reward' is"),
    "another shape": (lambda arrays: arrays.update(obs=arrays["obs"].reshape(3, -1)), r"array 'obs' is <f4\[3, \d+\]; expected"),
    "Fortran's order": (lambda arrays: arrays.update(obs=np.asfortranarray(arrays["obs"])), "Fortran"),
    "integers for numbers": (cast("obs", np.int32), "array 'obs' is <i4"),
    "doubles for floats": (cast("reward", np.float64), "array 'reward' is <f8"),
    "bytes for flags": (cast("valid", np.int8), "array 'valid' is \\|i1"),
    "flags beyond true": (lambda arrays: arrays.update(valid=(arrays["valid"] * np.uint8(7)).view(np.bool_)), "neither true nor false"),
    "NaN observed": (set_row("obs", 3, np.nan), "episode 0 of it .*observation is NaN or infinite at step 3"),
    "infinite reward": (set_row("reward", 3, np.inf), "reward is NaN or infinite"),
    "NaN action": (set_row("prev_action", 3, np.nan), "prev_action is NaN"),
    "action out of range": (set_row("prev_action", 3, 1.5), r"prev_action reaches 1\.5"),
    "reward at the start": (set_row("reward", 0, 1.0), "nothing led there"),
    "action at the start": (set_row("prev_action", 0, 0.5), "nothing led there"),
    "starts later": (set_row("is_first", 0, False), "is_first marks 4 episodes"),
    "starts twice": (set_row("is_first", 1, True), "is_first marks 6 episodes"),
    "starts elsewhere": (lambda arrays: arrays.update(is_first=np.roll(arrays["is_first"], 1)), "the first at row 0"),
    "ends early": (set_row("is_last", 2, True), "is_last is not true of the last row alone"),
    "never ends": (lambda arrays: arrays.update(is_last=np.zeros_like(arrays["is_last"])), "is_last is not true"),
    "dies and lives on": (set_row("is_terminal", 1, True), "is_terminal is true at row 1, before the last"),
    "a policy that is not listed": (set_row("policy", 1, 3), "'policy' holds 3"),
}  # fmt: skip


@pytest.mark.parametrize("change,word", FORGED_ARRAYS.values(), ids=FORGED_ARRAYS.keys())
def test_forged_arrays_are_refused_by_name(
    change: Callable[[dict[str, Any]], Any], word: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rollouts.forge_arrays(folder, change)
    with pytest.raises(InvalidDataError, match=word) as caught:
        load_rollouts(folder)
    assert str(caught.value).startswith(f"{folder}/{rollouts.SHARD}: ") and not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change,word",
    [
        (set_row("prev_action", 1, [1, 1, 1, 0, 0]), "not one-hot"),
        (set_row("prev_action", 1, [0.5, 0.5, 1, 0, 0]), "not one-hot"),
        (set_row("obs.gear", 1, 7), "observation 'gear' is int64"),
        (lambda arrays: arrays.update({"obs.sound": arrays.pop("obs.gear")}), r"obs\.sound\.npy.*; expected"),
    ],
)
def test_forged_parts_and_choices_are_refused(change: Callable[[dict[str, Any]], Any], word: str, tmp_path: Path) -> None:
    save_rollouts(rollouts.filled(toys.CHOICES), tmp_path / "set")
    rollouts.forge_arrays(tmp_path / "set", change)
    with pytest.raises(InvalidDataError, match=word):
        load_rollouts(tmp_path / "set")


def test_observations_outside_their_space_are_refused(folder: Path) -> None:
    rollouts.edit_meta(folder, lambda meta: meta["spec"]["observation_space"].update(low=-1.0, high=1.0))
    with pytest.raises(InvalidDataError, match=r"episodes-00000\.npz: observation 'obs' lies outside of Box\(-1\.0, 1\.0"):
        load_rollouts(folder)


def test_a_damaged_shard_is_told_by_its_checksum(folder: Path) -> None:
    data = bytearray((folder / rollouts.SHARD).read_bytes())
    data[100] ^= 1
    (folder / rollouts.SHARD).write_bytes(data)
    with pytest.raises(InvalidDataError, match=r"damaged or replaced: sha256 is [0-9a-f]{64}, but meta\.json announces [0-9a-f]{64}"):
        load_rollouts(folder)


@pytest.mark.parametrize(
    "data,word", [(b"", "truncated"), (b"x" * 10**6, "the limit is"), (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull")]
)
def test_a_shard_of_another_size_is_refused_unread(data: bytes, word: str, folder: Path) -> None:
    (folder / rollouts.SHARD).write_bytes(data)
    with pytest.raises(InvalidDataError, match=word):
        load_rollouts(folder)


@pytest.mark.parametrize(
    "data,word",
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\x80\x04cos\nsystem\n", "not an .npz archive"),
        (b"PK\x03\x04" + b"\0" * 100, "not an .npz archive"),
        (b"<!DOCTYPE html>", "not an .npz archive"),
    ],
)
def test_what_is_no_archive_is_refused(data: bytes, word: str, folder: Path) -> None:
    rollouts.forge(folder, data)
    with pytest.raises(InvalidDataError, match=word):
        load_rollouts(folder)


def test_links_and_pipes_are_not_opened(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / rollouts.SHARD, tmp_path / "elsewhere.npz")
    (folder / rollouts.SHARD).symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(InvalidDataError, match="not a regular file"):
        load_rollouts(folder)
    (folder / rollouts.SHARD).unlink()
    os.mkfifo(folder / rollouts.SHARD)
    with pytest.raises(InvalidDataError, match="not a regular file"):
        load_rollouts(folder)


def test_a_zip_bomb_is_refused_before_it_expands(folder: Path) -> None:
    rollouts.forge(folder, archive({name: np.lib.format.magic(1, 0) + b"\0" * 300_000_000 if name == "obs" else b"" for name in names()}))
    began = time.process_time()
    with pytest.raises(InvalidDataError, match="'obs' expands to 300000008 bytes"):
        load_rollouts(folder)
    assert time.process_time() - began < 1


def test_a_zip_bomb_that_lies_about_its_size_is_not_expanded_further(folder: Path) -> None:
    """The directory says what is expected, the stream behind it holds 100 MB."""
    with np.load(folder / rollouts.SHARD) as opened:
        contents = {name: npy(opened[name]) for name in opened.files}
    honest = len(contents["obs"])
    data = bytearray(archive({**contents, "obs": contents["obs"] + b"\0" * 100_000_000}))
    told, wanted = (size.to_bytes(4, "little") for size in (honest + 100_000_000, honest))
    assert data.count(told) >= 1
    rollouts.forge(folder, bytes(data.replace(told, wanted)))
    began = time.process_time()
    with pytest.raises(InvalidDataError, match=r"not a consistent \.npz archive|other than"):
        load_rollouts(folder)
    assert time.process_time() - began < 1


def test_a_directory_of_half_a_million_members_is_not_read(folder: Path) -> None:
    """Its end says so; zipfile would make an object of each."""
    data = bytearray((folder / rollouts.SHARD).read_bytes())
    entry = data[data.index(b"PK\x01\x02") :][:60]
    forged = data[:-22] + entry * 500_000 + data[-22:]
    began = time.process_time()
    rollouts.forge(folder, bytes(forged[:-12] + (500_000 % 2**16).to_bytes(2, "little") + forged[-10:]))
    with pytest.raises(InvalidDataError, match="an archive of"):
        load_rollouts(folder)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "header", ["{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "[" * 500, "{'descr': '<f4', 'fortran_order'", ""]
)
def test_headers_that_make_no_sense_are_refused(header: str, folder: Path) -> None:
    with np.load(folder / rollouts.SHARD) as opened:
        contents = {name: npy(opened[name]) for name in opened.files}
        body = opened["reward"].tobytes()
    text = header.encode().ljust(117) + b"\n"
    contents["reward"] = np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text + body
    rollouts.forge(folder, archive(contents))
    with pytest.raises(InvalidDataError, match=r"episodes-00000\.npz"):
        load_rollouts(folder)


def test_no_damage_to_a_shard_gives_another_error_than_ours(tmp_path: Path) -> None:
    """Flipped, lost and added bytes, half of them where the archive's directory lies; 6,000 were tried by hand."""
    save_rollouts(rollouts.filled(toys.CHOICES), tmp_path)
    data, rng, refused = (tmp_path / rollouts.SHARD).read_bytes(), np.random.default_rng(0), 0
    for number in range(80):
        damaged = bytearray(data)
        place = int(rng.integers(len(data)) if number % 2 else rng.integers(data.index(b"PK\x01\x02"), len(data)))
        damaged[place : place + int(rng.integers(0, 6))] = rng.bytes(int(rng.integers(0, 6)))
        rollouts.forge(tmp_path, bytes(damaged))
        try:
            load_rollouts(tmp_path)
        except InvalidDataError:
            refused += 1
    assert refused > 40  # dates and the like may be anything


def names() -> list[str]:
    return ["obs", *rollouts.COLUMNS, "policy"]


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values)
    return file.getvalue()


def archive(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        for name, data in contents.items():
            opened.writestr(f"{name}.npy", data)
    return file.getvalue()
