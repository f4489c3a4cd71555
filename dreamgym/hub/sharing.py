"""Pushing models and agents as single commits that were tried before they left, and pulling them."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dreamgym.agents.agent_files import AGENT, read_description
from dreamgym.agents.agent_files import MAX_FILE as MAX_AGENT_FILE
from dreamgym.agents.agent_files import WEIGHTS as AGENT_WEIGHTS
from dreamgym.agents.loading import load_agent
from dreamgym.errors import ModelLoadError
from dreamgym.formats.files import FileSet, replace_files
from dreamgym.formats.strict_json import dumps, loads, quote
from dreamgym.hub import bundle
from dreamgym.hub.client import Access, Pushed, Repo, fetch, parse_repo, upload
from dreamgym.hub.config import CONFIG, STARTS, WEIGHTS, read_config
from dreamgym.hub.pulling import MODEL_FILES, copy_files, fetch_model, read_snapshot, with_optional
from dreamgym.models.world_model import WorldModel

__all__ = ["pull_agent", "pull_agent_files", "pull_model", "push_agent", "push_model"]

T = TypeVar("T")
Measured = Mapping[str, Any] | str | os.PathLike[str] | None

README, REPLAY, TRAINING = "README.md", "replay.mp4", "training.json"
_OPTIONAL = (bundle.FIDELITY, REPLAY, TRAINING)  # deleted from the repository where a push does not bring them: they would be another's
_MAX_REPLAY = 10 * 1000**2  # bytes; larger films do not play well on the Hub


# ---- models -----------------------------------------------------------------------------------------------------------------


def push_model(
    model: WorldModel,
    repo_id: str,
    *,
    license: str,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    tag: str | None = None,
    message: str | None = None,
    fidelity: Measured = None,
    replay: str | os.PathLike[str] | None = None,
    allow_unevaluated: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Pushed:
    """Share a world model as "user/repo" in one commit: its files, its measured numbers, a film and a card made from them.

    license: such as "mit"; the card says so. revision: the branch, main by default; tag: a name for the new commit. private: for a new
    repository. fidelity: what was measured, or the folder or file that holds it; by default that of the folder the model was loaded from,
    if those are its weights, as stored. replay: an .mp4 of at most 10 MB. dtype: how weights are stored, as in save_pretrained.
    The files are written to a temporary folder, loaded from there and dreamt one step, and must agree with `model` before anything is sent.
    Raises ValueError without a license, without numbers unless allow_unevaluated, for NaN, for numbers of other weights; else as `upload`.
    """
    from dreamgym.hub.cards import model_card

    repo = _checked(repo_id, revision, license)
    film = _film(replay)
    origin = _origin(model, dtype)
    measured = _measured(fidelity, model) if fidelity is not None else origin.fidelity
    _demand_numbers(measured, allow_unevaluated, "dreamgym.compare or `dreamgym evaluate --out`")
    with tempfile.TemporaryDirectory(prefix="dreamgym-") as temporary:
        folder = Path(temporary)
        bundle.save(model, folder, source=origin.source, dtype=dtype)
        _try_model(model, bundle.load(folder), dtype)
        options = {"repo_id": repo.repo_id, "license": license, "revision": tag, "training": origin.training}
        card = model_card(read_config(folder), measured, replay=film is not None, **options)  # type: ignore[arg-type]
        files: dict[str, bytes | Path] = {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS, STARTS)}
        files |= _beside(card, measured, film, origin.training)
        return upload(
            repo.repo_id,
            files,
            private=private,
            token=token,
            revision=repo.revision,
            tag=tag,
            message=message or f"A world model of {model.spec.env_id}, by dreamgym",
            remove=_OPTIONAL,
        )


def pull_model(name: str, *, revision: str | None = None, folder: Path | None = None, access: Access | None = None) -> str:
    """Fetch a world model from the Hub into the cache, load it to see that it can be, and copy it to `folder` if there is one.

    Returns "user/repo@commit". Raises ValueError if `name` is not a repository's, else as WorldModel.from_pretrained.
    """
    repo, access = parse_repo(name, revision), access or Access()
    snapshot = fetch_model(repo, access)
    source = str(bundle.load_snapshot(snapshot, access).source)
    if folder is not None:
        files = with_optional(snapshot, bundle.FIDELITY, bundle.MAX_FIDELITY, access)
        copied = {**MODEL_FILES, bundle.FIDELITY: bundle.MAX_FIDELITY}
        (folder / bundle.FIDELITY).unlink(missing_ok=True)  # of another model
        copy_files(files, {name: copied[name] for name in files.paths or ()}, folder)
    return source


@dataclass(frozen=True)
class _Origin:
    """What lies beside the weights that a model was loaded with, if those are what is shared."""

    source: dict[str, Any]
    fidelity: dict[str, Any] | None = None
    training: dict[str, Any] | None = None


def _origin(model: WorldModel, dtype: torch.dtype) -> _Origin:
    info = model.model_info
    if "repo" in info:
        return _Origin({"derived_from": f"{info['repo']}@{info['revision']}"})
    folder = Path(info["folder"]) if "folder" in info else bundle.bundled_folder(info["bundled"]) if "bundled" in info else None
    if folder is None or not (folder / CONFIG).is_file():
        return _Origin({})
    try:
        before = bundle.load(folder)
        if not _same_weights(_rounded(model, dtype), before):
            return _Origin({"derived_from": read_config(folder).source})
        training = _read_json(folder / TRAINING) if (folder / TRAINING).is_file() else None
        return _Origin(read_config(folder).source, bundle.read_fidelity(folder), training)
    except ModelLoadError:  # it was changed since; nothing there is this model's
        return _Origin({})


def _measured(fidelity: Mapping[str, Any] | str | os.PathLike[str], model: WorldModel | None) -> dict[str, Any] | None:
    """The numbers that the caller means. Raises ValueError for those of another model."""
    if isinstance(fidelity, Mapping):
        return dict(fidelity)
    path = Path(fidelity).expanduser()
    if not path.is_dir():
        return _read_json(path)
    if model is not None and (path / CONFIG).is_file() and not _same_weights(model, bundle.load(path)):
        raise ValueError(f"fidelity is {quote(str(path))}, but the model there has other weights: its numbers are not this model's.")
    return bundle.read_fidelity(path)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > bundle.MAX_FIDELITY:
        raise ValueError(f"{quote(str(path))} is not a file of at most {bundle.MAX_FIDELITY} bytes; expected measured numbers as JSON.")
    found = loads(path.read_bytes(), str(path), limit=bundle.MAX_FIDELITY)
    if not isinstance(found, dict):
        raise ValueError(f"{quote(str(path))} holds {quote(found)}; expected an object.")
    return found


def _same_weights(model: WorldModel, other: WorldModel) -> bool:
    mine, its = model.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(tensor.cpu(), its[name].cpu()) for name, tensor in mine.items())


def _try_model(model: WorldModel, back: WorldModel, dtype: torch.dtype) -> None:
    """What was written must dream as the model does, its weights rounded to how they are stored."""
    own = _rounded(model, dtype)
    if any(not torch.equal(mine, its) for mine, its in zip(_one_step(own), _one_step(back), strict=True)):
        raise ValueError(
            "what was written dreams another step than the model, so it was not shared; is the model a subclass of WorldModel?"
        )


def _rounded(model: WorldModel, dtype: torch.dtype) -> WorldModel:
    """A copy with the weights as they are stored."""
    own = copy.deepcopy(model).to("cpu").eval()
    for parameter in own.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(dtype).float()
    return own


@torch.no_grad()
def _one_step(model: WorldModel) -> list[Tensor]:
    assert model.initial_states is not None
    start = model.initial_states.to("cpu")[:4]
    rows = len(start.is_first)
    state = model.step(start.state, torch.zeros(rows, model.spec.action_size), torch.full((rows, model.noise_lanes), 0.25))
    return [tensor for _, tensor in [*state.items(), *model.predict(state).items()]] + [model.features(state)]


# ---- agents -----------------------------------------------------------------------------------------------------------------


def push_agent(
    agent: Any,
    repo_id: str,
    *,
    license: str,
    model: WorldModel | str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    tag: str | None = None,
    message: str | None = None,
    fidelity: Measured = None,
    replay: str | os.PathLike[str] | None = None,
    allow_unevaluated: bool = False,
) -> Pushed:
    """Share an agent as a repository of its own, linked to the world model that it sees through, in one commit.

    model: the world model, loaded from the Hub or bundled, or its name there ("user/repo@revision"); a planner knows its own. fidelity:
    what was measured, as `dreamgym evaluate --out` writes it. Else as `push_model`; the written agent must act as `agent` does.
    """
    from dreamgym.hub.cards import agent_card

    repo = _checked(repo_id, revision, license)
    film = _film(replay)
    base, base_revision = _base_model(getattr(agent, "model", None) if model is None else model)
    measured = None if fidelity is None else _measured(fidelity, None)
    _demand_numbers(measured, allow_unevaluated, "`dreamgym evaluate --out`")
    spec = agent.model.spec if hasattr(agent, "model") else agent.spec
    with tempfile.TemporaryDirectory(prefix="dreamgym-") as temporary:
        folder = Path(temporary)
        _demand_finite(agent)
        agent.save(folder)
        _try_agent(agent, load_agent(folder, getattr(agent, "model", SimpleNamespace(spec=spec))))
        described = loads((folder / AGENT).read_bytes(), AGENT)
        options = {"repo_id": repo.repo_id, "license": license, "base_model": base, "base_revision": base_revision, "revision": tag}
        card = agent_card(described, spec, measured, replay=film is not None, **options)  # type: ignore[arg-type]
        written = [name for name in (AGENT, AGENT_WEIGHTS) if (folder / name).is_file()]
        files: dict[str, bytes | Path] = {name: (folder / name).read_bytes() for name in written}
        files |= _beside(card, measured, film, None)
        return upload(
            repo.repo_id,
            files,
            private=private,
            token=token,
            revision=repo.revision,
            tag=tag,
            message=message or f"An agent for {spec.env_id}, by dreamgym",
            remove=(*_OPTIONAL, AGENT_WEIGHTS),
        )


def _base_model(model: WorldModel | str | None) -> tuple[str, str | None]:
    """The repository, or the bundled name, of the world model that an agent belongs to, and its commit."""
    if isinstance(model, str):
        found = bundle.locate(model)
        if isinstance(found, Repo):
            return found.repo_id, found.revision
        if isinstance(found, str):
            return found, None
    info = getattr(model, "model_info", {})
    if "repo" in info:
        return info["repo"], info["revision"]
    if "bundled" in info:
        return info["bundled"], None
    raise ValueError(
        "nobody could use the agent without its world model, and that is not on the Hub: push the model first, then pass "
        'model="user/repo@<commit>" (or the model loaded from there).'
    )


def _demand_finite(agent: Any) -> None:
    for name, tensor in agent.state_dict().items() if isinstance(agent, nn.Module) else ():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} of the agent holds NaN or infinity; it was not shared.")


def _try_agent(agent: Any, back: Any) -> None:
    same = type(back) is type(agent) and back.config == agent.config
    if same and isinstance(agent, nn.Module):
        features = np.linspace(-1.0, 1.0, 4 * int(getattr(agent, "feature_size")), dtype=np.float32).reshape(4, -1)  # noqa: B009
        mine, its = (copy.deepcopy(one).to("cpu").predict(features, deterministic=True)[0] for one in (agent, back))  # type: ignore[operator]
        same = np.array_equal(mine, its)
    if not same:
        raise ValueError("what was written acts otherwise than the agent, so it was not shared; is the agent of a class of your own?")


def pull_agent(repo: Repo, access: Access, read: Callable[[FileSet], T]) -> T:
    """read(files) of an agent's repository: agent.json, and the weights if it announces any; damaged files are fetched once more.

    Raises InvalidModelError also for an agent.json that does not vouch for its weights, as folders saved before it did hold.
    """
    first = fetch(repo, {AGENT: MAX_AGENT_FILE[AGENT]}, access, what="dreamgym agent")
    described = read_snapshot(first, access, read_description, lambda files: [AGENT], what="agent")
    if described.feature_size is None:
        return read_snapshot(first, access, read, lambda files: [AGENT], what="agent")
    if described.weights is None:
        raise described.place.error("lacks the key 'files', so nothing says which weights are meant; its author can push it again")
    whole = fetch(Repo(first.repo_id, first.commit), MAX_AGENT_FILE, access, what="dreamgym agent")
    return read_snapshot(whole, access, read, _damaged_agent_files, what="agent")


def pull_agent_files(name: str, *, revision: str | None = None, folder: Path | None = None, access: Access | None = None) -> str:
    """Fetch an agent from the Hub into the cache, see that its files are whole, and copy them to `folder` if there is one.

    Returns "user/repo@commit". Whether it fits a model is seen where it is loaded for one. Raises as `pull_agent`.
    """
    access = access or Access()
    first = fetch(parse_repo(name, revision), {AGENT: MAX_AGENT_FILE[AGENT]}, access, what="dreamgym agent")

    def copied(files: FileSet) -> None:
        vouched = read_description(files).weights
        contents = {}
        if vouched is not None:
            contents[AGENT_WEIGHTS] = files.read(AGENT_WEIGHTS, limit=MAX_AGENT_FILE[AGENT_WEIGHTS])
            vouched.check(contents[AGENT_WEIGHTS], files.where(AGENT_WEIGHTS), AGENT)
        contents[AGENT] = files.read(AGENT, limit=MAX_AGENT_FILE[AGENT])
        if folder is not None:
            replace_files(folder, contents)

    pull_agent(Repo(first.repo_id, first.commit), access, copied)
    return f"{first.repo_id}@{first.commit}"


def _damaged_agent_files(files: FileSet) -> list[str]:
    """As `damaged_files`."""
    try:
        vouched = read_description(files).weights
        if vouched is not None:
            vouched.check(files.read(AGENT_WEIGHTS, limit=MAX_AGENT_FILE[AGENT_WEIGHTS]), files.where(AGENT_WEIGHTS), AGENT)
            return []
    except ModelLoadError:
        pass
    return [AGENT, AGENT_WEIGHTS]


# ---- both -------------------------------------------------------------------------------------------------------------------


def _checked(repo_id: str, revision: str | None, license: str) -> Repo:
    if not isinstance(license, str) or not license.strip():
        raise ValueError(f'license is {quote(license)}; say under which one it is shared, such as license="mit".')
    return parse_repo(repo_id, revision)


def _demand_numbers(measured: Mapping[str, Any] | None, allowed: bool, how: str) -> None:
    if not measured and not allowed:
        raise ValueError(
            f"nobody has measured what is to be shared: measure it ({how}) and pass fidelity=, or say allow_unevaluated=True and the card "
            "will say so too."
        )


def _film(replay: str | os.PathLike[str] | None) -> Path | None:
    if replay is None:
        return None
    path = Path(replay).expanduser()
    if not path.is_file() or path.stat().st_size > _MAX_REPLAY or path.read_bytes()[4:8] != b"ftyp":
        raise ValueError(f"replay is {quote(str(path))}; expected an .mp4 of at most {_MAX_REPLAY // 1000**2} MB.")
    return path


def _beside(card: str, measured: dict[str, Any] | None, film: Path | None, training: dict[str, Any] | None) -> dict[str, bytes | Path]:
    """What a repository holds besides the files that are loaded."""
    found: dict[str, bytes | Path] = {README: card.encode()}
    if measured:
        found[bundle.FIDELITY] = dumps(measured)
    if film is not None:
        found[REPLAY] = film.read_bytes()
    if training is not None:
        found[TRAINING] = dumps(training)
    return found
