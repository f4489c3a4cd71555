"""Experience to share: a replay as a folder of plain arrays, pushed to the Hugging Face Hub and pulled, checked as strictly as models.

A folder holds meta.json, which decides everything, and data/episodes-00000.npz, ...: whole episodes, tens of MB each, so that 10,000
episodes are a few dozen files. Every array is one that Replay.column shows, so what comes back is equal bit for bit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym.data import replay as replay_module
from dreamgym.data.replay import Replay, all_or_none
from dreamgym.data.storage import Layout
from dreamgym.errors import HubUnreachableError, InvalidDataError, InvalidModelError, ModelNotFoundError, data_errors
from dreamgym.formats.arrays import ArrayType, check_looks, read_arrays, write_arrays
from dreamgym.formats.codec import encode
from dreamgym.formats.files import FileSet, Fingerprint
from dreamgym.formats.strict_json import loads
from dreamgym.hub.client import Access, Pushed, Repo, Snapshot, fetch, parse_repo, refetch, upload
from dreamgym.hub.rollout_meta import MAX_META, MAX_SHARDS, META, RolloutMeta, Shard, parse_meta, shard_name, write_meta
from dreamgym.hub.rollout_statistics import rollout_statistics
from dreamgym.structs import Observation, Spec

__all__ = ["MAX_BYTES", "from_hub", "load_rollouts", "push_dataset_to_hub", "save_rollouts"]

MAX_BYTES = 2 * 1024**3  # of rows in memory, unless the caller allows more
_SHARD_BYTES = 64 * 1024**2  # of rows in one file, before compression
_MOST_SHARDS = 512  # wanted; larger replays get larger files
_COLUMNS = ("prev_action", "reward", "is_first", "is_last", "is_terminal", "valid")
_POLICY = "policy"
_TOLERANCE = 1e-3  # of bounds: environments round


# ---- writing ------------------------------------------------------------------------------------------------------------


def save_rollouts(
    replay: Replay, path: str | os.PathLike[str], *, seeds: Sequence[int] = (), source: dict[str, Any] | None = None
) -> RolloutMeta:
    """Write all episodes as a folder that `load_rollouts` reads; meta.json last, so that half a folder is none. Returns what it says.

    seeds: what the episodes were collected with; source: provenance for humans, JSON values. Equal replays make equal files.
    Raises ValueError for a replay without episodes, or observations outside the space of its spec; TypeError for spaces that no file can
    hold.
    """
    path = Path(path).expanduser()
    if not replay.episodes:
        raise ValueError("the replay holds no episode; collect some first.")
    encode(replay.spec)  # raises for what no file can hold, before hours are spent on it
    (path / "data").mkdir(parents=True, exist_ok=True)
    (path / META).unlink(missing_ok=True)
    policies = tuple(dict.fromkeys(replay.policies))
    spans = _spans(replay)
    shards = tuple(_write_shard(replay, path / shard_name(number), span, policies) for number, span in enumerate(spans))
    for leftover in (path / "data").glob("episodes-[0-9][0-9][0-9][0-9][0-9].npz"):
        if leftover not in {path / shard_name(number) for number in range(len(shards))}:
            leftover.unlink()
    meta = RolloutMeta(replay.spec, policies, tuple(map(int, seeds)), shards, rollout_statistics(replay), source or {})
    (path / META).write_bytes(write_meta(meta))
    return meta


def _spans(replay: Replay) -> list[tuple[int, int]]:
    """Episodes [first, behind the last) of each shard."""
    sizes = [(stop - start) * _row_bytes(replay.spec) for start, stop in replay.episodes]
    wanted = max(_SHARD_BYTES, sum(sizes) // _MOST_SHARDS)
    cuts, filled = [0], 0
    for number, size in enumerate(sizes):
        if filled and filled + size > wanted:
            cuts.append(number)
            filled = 0
        filled += size
    return list(zip(cuts, [*cuts[1:], len(sizes)]))


def _write_shard(replay: Replay, path: Path, span: tuple[int, int], policies: tuple[str, ...]) -> Shard:
    episodes = replay.episodes[slice(*span)]
    start, stop = episodes[0][0], episodes[-1][1]
    arrays: dict[str, NDArray[Any]] = {_POLICY: np.array([policies.index(name) for name in replay.policies[slice(*span)]], "<u2")}
    arrays |= {name: replay.column(name)[start:stop] for name in _COLUMNS}
    obs = replay.column("obs")
    parts = {_obs_name(name): part[start:stop] for name, part in (obs.items() if isinstance(obs, dict) else [(None, obs)])}
    _check_bounds(replay.spec, parts, arrays["valid"], "the replay")
    write_arrays(path, arrays | parts)
    found = Fingerprint.of(path.read_bytes())
    return Shard(found.sha256, found.size, len(episodes), stop - start)


def push_dataset_to_hub(
    replay: Replay,
    repo_id: str,
    *,
    license: str,
    seeds: Sequence[int] = (),
    source: dict[str, Any] | None = None,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    tag: str | None = None,
    message: str | None = None,
) -> Pushed:
    """Share all episodes as the dataset `repo_id` ("user/name"), with a card computed from them, in one commit; returns that commit.

    license: of the recorded content, such as "mit" or "cc-by-4.0"; whose game the pictures show is for the caller to know. seeds, source:
    as `save_rollouts`. revision: the branch; tag: a name for the new commit. Raises ValueError before anything is sent, as
    `save_rollouts`; ModelAccessError and HubUnreachableError by the Hub.
    """
    from dreamgym.hub.cards import dataset_card

    repo = parse_repo(repo_id, revision)
    if not isinstance(license, str) or not license.strip():
        raise ValueError('license is missing; say under which one the episodes are shared, such as license="mit".')
    with tempfile.TemporaryDirectory(prefix="dreamgym-") as temporary:
        folder = Path(temporary)
        meta = save_rollouts(replay, folder, seeds=seeds, source=source)
        described = loads((folder / META).read_bytes(), limit=MAX_META)
        files: dict[str, bytes | Path] = {name: folder / name for name in (META, *map(shard_name, range(len(meta.shards))))}
        files["README.md"] = dataset_card(described, repo_id=repo.repo_id, license=license, revision=tag).encode()
        return upload(
            repo.repo_id,
            files,
            repo_type="dataset",
            private=private,
            token=token,
            revision=repo.revision,
            tag=tag,
            remove=[shard_name(number) for number in range(len(meta.shards), MAX_SHARDS)],  # those of a larger dataset before
            message=message or f"{meta.episodes} episodes, {meta.steps} steps, by dreamgym",
        )


# ---- reading ------------------------------------------------------------------------------------------------------------


def load_rollouts(path: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None, max_bytes: int = MAX_BYTES) -> Replay:
    """The replay that `save_rollouts` wrote; with `folder`, an empty one, its rows are kept there instead of in memory.

    max_bytes: how large the rows may be, expanded. Raises ModelNotFoundError (no such folder), InvalidDataError naming the file that is
    damaged, forged or of another format, ValueError if `folder` is not empty.
    """
    files = FileSet.of(Path(path).expanduser(), "dataset")
    with data_errors():
        meta = parse_meta(files.read(META, limit=MAX_META), files.where(META))
        return _read(files, meta, folder, max_bytes, lambda name: None)


def from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_BYTES,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Replay:
    """The replay that `push_dataset_to_hub` shared as "user/name" or "user/name@revision", from the cache or downloaded; data only.

    The revision is resolved once; `source` of the replay is "user/name@<commit>". folder, max_bytes: as `load_rollouts`. Nothing is
    downloaded before its size is known, and damaged files are fetched once more. Raises ModelNotFoundError, ModelAccessError,
    HubUnreachableError, and as `load_rollouts`.
    """
    access = Access(token, cache_dir, local_files_only)
    with data_errors():
        first = fetch(parse_repo(repo_id, revision), {META: MAX_META}, access, repo_type="dataset")
        shown = f"{first.repo_id}@{first.commit[:7]}"
        described = FileSet(Path(), shown, first.files, "dataset")
        meta = parse_meta(described.read(META, limit=MAX_META), described.where(META))
        _check_memory(meta, described.where(META), max_bytes)
        sizes = {shard_name(number): shard.size for number, shard in enumerate(meta.shards)}
        snapshot = fetch(Repo(first.repo_id, first.commit), sizes, access, repo_type="dataset")
        files = FileSet(Path(), shown, snapshot.files, "dataset")
        replay = _read(files, meta, folder, max_bytes, lambda name: _healed(files, snapshot, name, access))
    replay.source = f"{first.repo_id}@{first.commit}"
    return replay


def _healed(files: FileSet, snapshot: Snapshot, name: str, access: Access) -> FileSet:
    """The files after a damaged one was downloaded again. Raises InvalidDataError where that cannot be."""
    try:
        path = refetch(snapshot, name, access)
    except HubUnreachableError as error:
        raise InvalidDataError(
            f"{files.where(name)}: damaged in the cache, and the Hub is out of reach; when it is back: hf cache rm dataset/"
            f"{snapshot.repo_id} ({error})"
        ) from error
    return replace(files, paths={**snapshot.files, name: path.resolve()})


def _read(
    files: FileSet, meta: RolloutMeta, folder: str | os.PathLike[str] | None, max_bytes: int, heal: Callable[[str], FileSet | None]
) -> Replay:
    _check_memory(meta, files.where(META), max_bytes)
    replay = Replay(meta.spec, None if folder is None else Path(folder).expanduser())
    if replay.episodes:
        raise ValueError(f"the replay in {folder} holds {len(replay.episodes)} episodes already; choose an empty folder.")
    with all_or_none(replay):
        for number, shard in enumerate(meta.shards):
            name = shard_name(number)
            arrays = read_arrays(_announced(files, name, shard, heal), _array_types(meta.spec, shard), files.where(name))
            _add_episodes(replay, arrays, meta, shard, files.where(name))
    return replay


def _check_memory(meta: RolloutMeta, where: str, max_bytes: int) -> None:
    needed = meta.rows * _row_bytes(meta.spec)
    if needed > max_bytes:
        raise InvalidDataError(f"{where}: {meta.rows} rows take {needed} bytes; the limit is {max_bytes}, which max_bytes= raises")


def _announced(files: FileSet, name: str, shard: Shard, heal: Callable[[str], FileSet | None]) -> bytes:
    """The bytes of a shard, which are those that meta.json announces."""
    try:
        data = files.read(name, limit=shard.size)
        check_looks(data, files.where(name))
        shard.fingerprint.check(data, files.where(name), META)
        return data
    except ModelNotFoundError as error:
        raise InvalidDataError(f"{files.shown}: has no {name}, which {META} announces") from error
    except InvalidModelError:
        healed = heal(name)
        if healed is None:
            raise
    data = healed.read(name, limit=shard.size)
    shard.fingerprint.check(data, healed.where(name), META)
    return data


def _add_episodes(replay: Replay, arrays: dict[str, NDArray[Any]], meta: RolloutMeta, shard: Shard, where: str) -> None:
    """Store the episodes of a shard, each checked as if it had just been lived."""
    starts = np.flatnonzero(arrays["is_first"])
    if len(starts) != shard.episodes or starts[0] != 0:
        raise InvalidDataError(f"{where}: is_first marks {len(starts)} episodes; {META} announces {shard.episodes}, the first at row 0")
    if arrays[_POLICY].max() >= len(meta.policies):
        raise InvalidDataError(f"{where}: array 'policy' holds {arrays[_POLICY].max()}; {META} lists {len(meta.policies)} policies")
    names = list(meta.spec.observation_parts) if isinstance(meta.spec.observation_space, spaces.Dict) else [None]
    parts = {_obs_name(name): arrays[_obs_name(name)] for name in names}
    _check_bounds(meta.spec, parts, arrays["valid"], where)
    stops = [*starts[1:].tolist(), shard.rows]
    for number, (start, stop, policy) in enumerate(zip(starts.tolist(), stops, arrays[_POLICY].tolist())):
        obs: Observation = {name: parts[_obs_name(name)][start:stop] for name in names if name is not None} or parts["obs"][start:stop]
        try:
            replay.add_rows(obs, {name: arrays[name][start:stop] for name in _COLUMNS}, meta.policies[policy])
        except ValueError as error:
            raise InvalidDataError(f"{where}: episode {number} of it (rows {start} to {stop}): {error}") from error


# ---- what a shard looks like --------------------------------------------------------------------------------------------


def _obs_name(part: str | None) -> str:
    """The array of an observation, or of one part of a Dict's."""
    return "obs" if part is None else f"obs.{part}"


def _array_types(spec: Spec, shard: Shard) -> dict[str, ArrayType]:
    """Every array of a shard; nothing else may be in it."""
    rows = Layout((), "|u1", spec.action_size).row_dtype
    types = {_POLICY: ArrayType(np.dtype("<u2"), (shard.episodes,))}
    for name in _COLUMNS:
        dtype, shape = rows[name].subdtype or (rows[name], ())
        types[name] = ArrayType(dtype, (shard.rows, *shape))
    whole = not isinstance(spec.observation_space, spaces.Dict)
    for name, part in spec.observation_parts.items():
        types[_obs_name(None if whole else name)] = ArrayType(np.dtype(part.dtype).newbyteorder("<"), (shard.rows, *(part.shape or ())))
    return types


def _row_bytes(spec: Spec) -> int:
    one = _array_types(spec, Shard("0" * 64, 1, 1, 2))
    return sum(kind.nbytes for name, kind in one.items() if name != _POLICY) // 2


def _check_bounds(spec: Spec, parts: dict[str, NDArray[Any]], valid: NDArray[np.bool_], where: str) -> None:
    """Raise InvalidDataError if an observation that means something lies outside its space, by more than rounding."""
    whole = not isinstance(spec.observation_space, spaces.Dict)
    for name, space in spec.observation_parts.items():
        values = parts[_obs_name(None if whole else name)]
        if not isinstance(space, spaces.Box) or (space.dtype == np.uint8 and not space.low.any() and (space.high == 255).all()):
            continue  # classes are checked as they are stored
        slack = 0.0 if space.dtype == np.uint8 else _TOLERANCE
        low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
        outside = (values < low - slack * (1 + np.abs(low))) | (values > high + slack * (1 + np.abs(high)))
        rows = np.flatnonzero(outside.reshape(len(values), -1).any(1) & valid)
        if len(rows):
            raise InvalidDataError(
                f"{where}: observation {name!r} lies outside of {space} at row {rows[0]}, and {len(rows)} rows in all; a dataset must be "
                "true to its spec"
            )


# Replay lies below this layer, so its push_to_hub and from_hub receive their functions from here.
replay_module._HUB_DOOR.update(push=push_dataset_to_hub, pull=from_hub)
