"""Files of a repository as a model or an agent: fetched, read, and once fetched again where the cache or the way here damaged them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dreamgym.errors import HubUnreachableError, InvalidModelError, ModelLoadError, ModelNotFoundError
from dreamgym.formats.files import FileSet, Fingerprint, replace_files
from dreamgym.formats.strict_json import MAX_BYTES
from dreamgym.hub.client import Access, Repo, Snapshot, fetch, refetch
from dreamgym.hub.config import CONFIG, MAX_FILE, read_config

__all__ = ["MODEL_FILES", "copy_files", "damaged_files", "fetch_model", "file_set", "read_snapshot", "shown", "with_optional"]

T = TypeVar("T")

MODEL_FILES = {CONFIG: MAX_BYTES, **MAX_FILE}


def fetch_model(repo: Repo, access: Access) -> Snapshot:
    """The three files of a world model, and no other; raises as `fetch`. What they hold has not been looked at."""
    return fetch(repo, MODEL_FILES, access)


def shown(snapshot: Snapshot) -> str:
    """What messages call a snapshot."""
    return f"{snapshot.repo_id}@{snapshot.commit[:7]}"


def file_set(snapshot: Snapshot, what: str = "model") -> FileSet:
    """A snapshot as files to read; the cache's links were resolved by `fetch`."""
    folder = next(iter(snapshot.files.values()), Path()).parent
    return FileSet(folder, shown(snapshot), snapshot.files, what)


def read_snapshot(
    snapshot: Snapshot,
    access: Access,
    read: Callable[[FileSet], T],
    damaged: Callable[[FileSet], list[str]],
    *,
    what: str = "model",
) -> T:
    """read(files); if they turn out to be damaged, the files that `damaged` names are downloaded once more and read again.

    Raises what `read` raises, InvalidModelError that names the cure where a damaged cache cannot be mended because the Hub is out of reach.
    """
    files = file_set(snapshot, what)
    try:
        return read(files)
    except InvalidModelError as error:
        suspects = damaged(files)
        if not suspects:
            raise
        mended = _fetched_again(snapshot, suspects, access, error)
    return read(replace(files, paths=mended))


def _fetched_again(snapshot: Snapshot, names: list[str], access: Access, damage: InvalidModelError) -> Mapping[str, Path]:
    try:
        return {**snapshot.files, **{name: refetch(snapshot, name, access) for name in names}}
    except HubUnreachableError as error:
        kind = "" if snapshot.repo_type == "model" else f"{snapshot.repo_type}/"
        cure = f"hf cache rm {kind or 'model/'}{snapshot.repo_id}"
        raise InvalidModelError(f"{damage}; it cannot be downloaded again now, so when the Hub is back: {cure}") from error


def with_optional(snapshot: Snapshot, name: str, limit: int, access: Access) -> FileSet:
    """The files of a snapshot and one more, if the repository has it and it can be had now."""
    try:
        more = fetch(Repo(snapshot.repo_id, snapshot.commit), {name: limit}, access)
    except (ModelNotFoundError, InvalidModelError, HubUnreachableError):
        return file_set(snapshot)
    return file_set(replace(snapshot, files={**snapshot.files, **more.files}))


def copy_files(files: FileSet, names: Mapping[str, int], folder: Path) -> None:
    """Write files of a snapshot into a folder as one set, config.json last; names: those that are copied -> most bytes."""
    contents = {name: files.read(name, limit=limit) for name, limit in names.items() if name != CONFIG}
    replace_files(folder, {**contents, CONFIG: files.read(CONFIG, limit=MAX_BYTES)})


def damaged_files(files: FileSet) -> list[str]:
    """Files of a model that are not what config.json announces, and config.json, which may itself be what is damaged."""
    try:
        config = read_config(files)
    except ModelLoadError:
        return [CONFIG]
    announced = config.files
    found = [name for name, fingerprint in announced.items() if not _is_sound(files, name, fingerprint)]
    return [*found, CONFIG] if found else []


def _is_sound(files: FileSet, name: str, fingerprint: Fingerprint) -> bool:
    try:
        fingerprint.check(files.read(name, limit=MAX_FILE[name]), files.where(name), CONFIG)
    except ModelLoadError:
        return False
    return True
