"""Names on the Hub and what comes of them: a repository, how to reach it, its files at one commit. No network is needed here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamgym.formats.strict_json import quote

__all__ = ["Access", "Pushed", "Repo", "Snapshot", "is_commit", "is_revision", "parse_repo"]

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REPO = re.compile(f"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_./-]{1,200}")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Access:
    """How to reach the Hub: token None means HF_TOKEN or what `hf auth login` stored; cache_dir None the Hugging Face cache."""

    token: str | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class Repo:
    """A repository's name, and a branch, tag or commit of it; None: the main branch."""

    repo_id: str
    revision: str | None = None

    def __post_init__(self) -> None:
        name = self.repo_id
        if len(name) > 96 or not _REPO.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git"):
            raise ValueError(
                f"{quote(name)} does not name a repository on the Hub; expected user/repo or user/repo@revision (or ./name for a folder)."
            )
        if self.revision is not None and not is_revision(self.revision):
            raise ValueError(
                f"revision {quote(self.revision)} is not a name; expected a branch, a tag or a commit of 40 hexadecimal digits."
            )


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit in the cache: name -> a plain file, links already resolved. What they hold has not been checked."""

    repo_id: str
    commit: str
    files: dict[str, Path]
    repo_type: str = "model"


@dataclass(frozen=True)
class Pushed:
    """What an upload made: the commit, and the page of the repository."""

    repo_id: str
    commit: str
    url: str


def parse_repo(text: str, revision: str | None = None) -> Repo:
    """Read "user/repo" or "user/repo@revision"; no request is made. Raises ValueError that shows the right form."""
    if not isinstance(text, str):
        raise ValueError(f"the repository is {quote(text)}; expected text like user/repo or user/repo@revision.")
    repo_id, at, written = text.partition("@")
    if at and revision is not None and revision != written:
        raise ValueError(f"{quote(text)} names a revision and revision={quote(revision)} another; give one of them.")
    return Repo(repo_id, written if at else revision)


def is_revision(revision: Any) -> bool:
    """The client joins it to a path in the cache, so it must not lead out of there."""
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        return False
    return all(part not in ("", ".", "..") and not part.endswith(".lock") for part in revision.split("/"))


def is_commit(revision: Any) -> bool:
    """Whether a revision is a full commit, which never changes what it means."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None
