"""What a model or an agent is, and what was measured of it, in words: without loading its weights."""

from __future__ import annotations

import os
from pathlib import Path

from dreamgym.agents.agent_files import AGENT, MAX_FILE, AgentDescription, read_description
from dreamgym.errors import InvalidModelError, ModelLoadError, ModelNotFoundError
from dreamgym.formats.codec import tag_of
from dreamgym.formats.files import FileSet, lies_at
from dreamgym.formats.strict_json import MAX_BYTES, escape
from dreamgym.hub import bundle
from dreamgym.hub.card_failures import known_failures, unmeasured
from dreamgym.hub.card_fidelity import as_fidelity, error_tables, fixed_policy_table, returns_table
from dreamgym.hub.card_parts import facts, observation_unit, world_facts
from dreamgym.hub.client import Access, Repo, Snapshot, fetch
from dreamgym.hub.config import CONFIG, BundleConfig, read_config
from dreamgym.hub.pulling import read_snapshot, with_optional

__all__ = ["describe"]

_NOBODY = "Nobody has measured it: there is no fidelity.json."


def describe(name: str | os.PathLike[str], *, revision: str | None = None, access: Access | None = None) -> str:
    """A few lines about a model or an agent: a folder, a bundled name or a repository of the Hub, of which two small files are read.

    Raises as `from_pretrained`.
    """
    found, access = bundle.locate(_agent_folder(name), revision), access or Access()
    if isinstance(found, Repo):
        return _describe_repository(found, access)
    folder = bundle.bundled_folder(found) if isinstance(found, str) else found
    if folder is None:
        raise ModelNotFoundError(f"'{found}' did not come with this installation.")
    files = FileSet.of(folder.expanduser())
    if lies_at(folder / AGENT) and not lies_at(folder / CONFIG):
        return _of_agent(read_description(folder), files, files.shown)
    return _of_model(read_config(files), files, files.shown)


def _agent_folder(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A folder that holds an agent is one even where its name could be a repository's."""
    return Path(name) if name and isinstance(name, str) and lies_at(Path(name, AGENT)) else name


def _describe_repository(repo: Repo, access: Access) -> str:
    try:
        snapshot = fetch(repo, {CONFIG: MAX_BYTES}, access)
    except ModelNotFoundError as error:
        try:
            snapshot = fetch(repo, {AGENT: MAX_FILE[AGENT]}, access, what="dreamgym agent")
        except ModelLoadError:
            raise error from None
        files = _with_numbers(snapshot, access)
        return _of_agent(read_description(files), files, f"{snapshot.repo_id}@{snapshot.commit}")
    files = _with_numbers(snapshot, access)
    config = read_snapshot(snapshot, access, read_config, lambda _: [CONFIG])
    return _of_model(config, files, f"{snapshot.repo_id}@{snapshot.commit}")


def _with_numbers(snapshot: Snapshot, access: Access) -> FileSet:
    return with_optional(snapshot, bundle.FIDELITY, bundle.MAX_FIDELITY, access)


def _of_model(config: BundleConfig, files: FileSet, where: str) -> str:
    chosen = (config.model.encoder, config.model.core, config.model.heads)
    size = sum(fingerprint.size for fingerprint in config.files.values())
    made = (f"{escape(name)} {escape(str(value))}" for name, value in sorted(config.source.items())[:20])
    rows = [
        *world_facts(config.spec),
        ("model", ", ".join(tag_of(type(part)) for part in chosen)),
        ("parameters", f"{bundle.count_parameters(config, files.where(CONFIG)):,}"),
        ("size", f"{size / 1e6:,.1f} MB"),
        ("made with", ", ".join(made) or None),
    ]
    measured = bundle.read_fidelity(files)
    if measured is None:
        return _page(f"{where}: a world model", facts(rows), [_NOBODY])
    try:
        fidelity = as_fidelity(measured, config.spec.env_id)
    except ValueError as error:
        raise InvalidModelError(f"{files.where(bundle.FIDELITY)}: {error}") from error
    tables = [returns_table(fidelity), fixed_policy_table(fidelity), error_tables(fidelity, observation_unit(config.spec))]
    told = [f"- {sentence}" for sentence in [*known_failures(fidelity), *unmeasured(fidelity)]]
    return _page(f"{where}: a world model", facts(rows), *tables, told)


def _of_agent(described: AgentDescription, files: FileSet, where: str) -> str:
    reads = "a model's states" if described.feature_size is None else f"{described.feature_size:,} features of a model"
    measured = bundle.read_fidelity(files)
    if measured is not None and "awake" in measured:  # as `dreamgym evaluate --out` writes it
        measured = {"policy": measured}
    table = returns_table(measured) if measured else [_NOBODY]
    return _page(f"{where}: an agent", facts([("kind", escape(described.kind)), ("reads", reads)]), table)


def _page(title: str, *blocks: list[str]) -> str:
    """The title, then each block after an empty line, without the empty lines at its end."""
    texts = ["\n".join(block).strip() for block in blocks]
    return "\n\n".join([title, *filter(None, texts)])
