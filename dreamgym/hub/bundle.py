"""Model folders: config.json decides, model.safetensors and initial_states.safetensors hold numbers, nothing holds code.

Loading does its checks in the order of their price, so that a forged file is refused before it costs memory or time.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamgym.errors import InvalidModelError, ModelNotFoundError
from dreamgym.formats import modules, weights
from dreamgym.formats.files import FileSet, Fingerprint, lies_at, read_regular, replace_files, sha256
from dreamgym.formats.strict_json import MAX_BYTES, Place, escape, loads, quote
from dreamgym.hub.client import Access, Repo, Snapshot, parse_repo
from dreamgym.hub.config import CONFIG, MAX_FILE, STARTS, WEIGHTS, BundleConfig, read_config, write_config
from dreamgym.hub.pulling import damaged_files, fetch_model, read_snapshot
from dreamgym.hub.registry import ROWS, published
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import StartBank

__all__ = [
    "BundleConfig",
    "bundled_folder",
    "bundled_names",
    "count_parameters",
    "from_pretrained",
    "load",
    "load_bundled",
    "load_snapshot",
    "locate",
    "read_config",
    "read_fidelity",
    "save",
]

FIDELITY = "fidelity.json"

_MISFIT = "spec and model do not fit together"
_MAX_STARTS = 1_000_000
MAX_FIDELITY = 1024**2
_PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
_BUNDLED = "bundled:"


# ---- writing ------------------------------------------------------------------------------------------------------------


def save(
    model: WorldModel,
    folder: str | os.PathLike[str],
    *,
    source: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `model` as a folder that `load` reads; existing files are replaced as one set, config.json last.

    source: provenance for humans, JSON values. dtype: how float parameters are stored (float32, float16, bfloat16); buffers and start
    states keep theirs. Other weights over an old model remove its fidelity.json, whose numbers would no longer be true.
    Raises ValueError if the model has no start states or holds NaN, or if dtype cannot hold a weight.
    """
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype is {dtype}; expected torch.float32, torch.float16 or torch.bfloat16.")
    if model.initial_states is None or len(model.initial_states.is_first) == 0:
        raise ValueError("the model has no start states, so nobody could dream it: set model.initial_states to a StartBank first.")
    folder = Path(folder).expanduser()
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {
        name: tensor.to(dtype) if name in parameters and tensor.dtype == torch.float32 else tensor
        for name, tensor in model.state_dict().items()
    }
    _check_storable(tensors, dtype)
    starts = dict(model.initial_states.items())
    _check_storable(starts, torch.float32)
    contents = {WEIGHTS: weights.to_bytes(tensors), STARTS: weights.to_bytes(starts)}
    files = {name: Fingerprint.of(data) for name, data in contents.items()}
    contents[CONFIG] = write_config(BundleConfig(model.spec, model.config, files, source or {}))
    if _weights_differ(folder, contents[WEIGHTS]):
        (folder / FIDELITY).unlink(missing_ok=True)
    replace_files(folder, contents)


def _check_storable(tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            hint = "" if dtype == torch.float32 else f", or its weights do not fit into {dtype}"
            raise ValueError(f"tensor {name!r} holds NaN or infinity{hint}; the model was not saved.")


def _weights_differ(folder: Path, data: bytes) -> bool:
    try:
        return sha256(read_regular(folder, WEIGHTS, limit=MAX_FILE[WEIGHTS])) != sha256(data)
    except (InvalidModelError, ModelNotFoundError):
        return True


# ---- finding ------------------------------------------------------------------------------------------------------------


def bundled_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in _PRETRAINED.glob(f"*/{CONFIG}"))


def bundled_folder(name: str) -> Path | None:
    """Where a model that came with the package lies; None if it did not."""
    return _PRETRAINED / name if name in bundled_names() else None


def load_bundled(name: str, device: str | torch.device = "cpu", *, access: Access | None = None) -> WorldModel:
    """Load a model that comes with the package, or one of its registry from the Hub, at the commit that the name stands for.

    Raises ModelNotFoundError naming those there are, else as `from_pretrained`.
    """
    if name in bundled_names():
        model = load(_PRETRAINED / name, device=device)
    elif name in ROWS:
        model = _load_published(name, device, access or Access())
    else:
        raise ModelNotFoundError(f"no bundled model {quote(name)}; there are: {', '.join(bundled_names()) or 'none'}")
    model.source = _BUNDLED + name
    return model


def _load_published(name: str, device: str | torch.device, access: Access) -> WorldModel:
    snapshot, wanted = fetch_model(published(name), access), ROWS[name].config_sha256

    def read(files: FileSet) -> WorldModel:
        if (found := sha256(files.read(CONFIG, limit=MAX_BYTES))) != wanted:
            raise InvalidModelError(f"{files.where(CONFIG)}: damaged or replaced: sha256 is {found}, but the registry says {wanted}")
        return load(files, device=device)

    return read_snapshot(snapshot, access, read, lambda files: damaged_files(files) or [CONFIG])


def from_pretrained(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> WorldModel:
    """Load a model folder, a bundled name, a repository of the Hub ("user/repo", "user/repo@revision"), or what `source` says of one.

    revision: a branch, tag or commit of the repository; main by default. token: for private ones; HF_TOKEN or the stored one by default.
    cache_dir: where downloads are kept. local_files_only: ask nothing of the Hub.
    Raises ValueError for text that can be none of these, ModelNotFoundError, ModelAccessError, HubUnreachableError, else as `load`.
    """
    access = Access(token, cache_dir, local_files_only)
    found = locate(model, revision)
    if isinstance(found, Repo):
        return load_snapshot(fetch_model(found, access), access, device=device)
    return load_bundled(found, device, access=access) if isinstance(found, str) else load(found, device=device)


def load_snapshot(snapshot: Snapshot, access: Access, *, device: str | torch.device = "cpu") -> WorldModel:
    """Load what `fetch_model` found; damaged files are fetched once more. The model's source is the repository at its commit."""
    model = read_snapshot(snapshot, access, lambda files: load(files, device=device), damaged_files)
    model.source = f"{snapshot.repo_id}@{snapshot.commit}"
    model.source_options = {} if access.cache_dir is None else {"cache_dir": str(access.cache_dir)}
    return model


def locate(model: str | os.PathLike[str], revision: str | None = None) -> str | Path | Repo:
    """What a caller means by `model`: a str is a bundled name, a Path a folder, a Repo a repository of the Hub.

    What is written as a path is a folder. Else a folder with a config.json goes before all, with a warning if it bears the name of a
    repository; then the bundled models, whose names have no slash and may be written "bundled:<name>"; then the Hub. With a revision, only
    a repository can be meant. Raises ModelNotFoundError for a plain name that nothing bears, ValueError for text that is no name.
    """
    if revision is not None:
        return parse_repo(str(model), revision)
    folder = Path(model).expanduser()
    if not isinstance(model, str) or model.startswith(("./", "../", "~")) or folder.is_absolute():
        return folder
    if model != "" and lies_at(folder / CONFIG):  # "" would be the working folder
        _warn_of_repository(model)
        return folder
    name = model.removeprefix(_BUNDLED)
    if name != model or name in bundled_names() or name in ROWS:
        return name
    if re.fullmatch(r"[\w.-]{1,96}", model):
        raise ModelNotFoundError(
            f"no model {quote(model)}: expected a folder with a {CONFIG} (write ./name for one here), user/repo for the Hub, "
            f"or a bundled model: {', '.join(bundled_names()) or 'none'}"
        )
    return parse_repo(model)


def _warn_of_repository(name: str) -> None:
    try:
        parse_repo(name)
    except ValueError:
        return
    hint = f"write ./{name} for the folder, or {name}@main for the repository"
    warnings.warn(f"the folder {name} is loaded, not the repository of that name on the Hub; {hint}", stacklevel=3)


# ---- reading ------------------------------------------------------------------------------------------------------------


def load(folder: str | os.PathLike[str] | FileSet, *, device: str | torch.device = "cpu") -> WorldModel:
    """Load a model folder, or its files from the Hub's cache: data only, every file checked, frozen and ready to dream.

    Raises ModelNotFoundError (no such model), IncompatibleModelError (another format), InvalidModelError (damaged or forged).
    """
    bundle = _file_set(folder)
    config = read_config(bundle)
    where = {name: bundle.where(name) for name in (CONFIG, WEIGHTS, STARTS)}
    expected = _layout(config, where[CONFIG])
    limits = {**MAX_FILE, WEIGHTS: min(MAX_FILE[WEIGHTS], weights.most_bytes(expected.state_dict()))}
    files = {name: _read_announced(bundle, name, config, limits[name]) for name in (WEIGHTS, STARTS)}
    weights.check_exact(files[WEIGHTS], expected.state_dict(), where[WEIGHTS])
    _check_starts(files[STARTS], expected, where[STARTS])
    tensors, starts = (weights.to_tensors(files[name], where[name]) for name in (WEIGHTS, STARTS))
    weights.check_finite(tensors, where[WEIGHTS])
    weights.check_finite(starts, where[STARTS])

    model = modules.build(lambda: WorldModel(config.spec, config.model), where[CONFIG], misfit=_MISFIT)
    model.load_state_dict(tensors, strict=True, assign=False)
    model.requires_grad_(False).eval()
    model.initial_states = _start_bank(model, starts)
    _dry_step(model, where[WEIGHTS])
    model.to(device)
    model.initial_states = model.initial_states.to(device)
    model.source = str(bundle.folder.absolute())
    return model


def _file_set(folder: str | os.PathLike[str] | FileSet) -> FileSet:
    return folder if isinstance(folder, FileSet) else FileSet.of(Path(folder).expanduser())


def read_fidelity(folder: str | os.PathLike[str] | FileSet) -> dict[str, Any] | None:
    """The numbers measured on this model, or None if nobody has measured any. Raises InvalidModelError if they are damaged."""
    files = _file_set(folder)
    try:
        data = files.read(FIDELITY, limit=MAX_FIDELITY)
    except ModelNotFoundError:
        return None
    where = files.where(FIDELITY)
    fidelity = loads(data, where, limit=MAX_FIDELITY)
    if not isinstance(fidelity, dict):
        raise Place(where).error(f"is {quote(fidelity)}; expected an object")
    return fidelity


def count_parameters(config: BundleConfig, where: str) -> int:
    """How many a model of this config has; nothing is allocated. Raises InvalidModelError if it cannot be built."""
    return sum(parameter.numel() for parameter in _layout(config, where).parameters())


def _layout(config: BundleConfig, where: str) -> WorldModel:
    return modules.layout(lambda: WorldModel(config.spec, config.model), where, kind="a model", misfit=_MISFIT)


def _read_announced(files: FileSet, name: str, config: BundleConfig, limit: int) -> bytes:
    where = files.where(name)
    try:
        data = files.read(name, limit=limit)
    except ModelNotFoundError as error:
        raise InvalidModelError(f"{files.shown}: has no {name} {files.found_pickles()}".rstrip()) from error
    weights.check_looks(data, where)
    config.files[name].check(data, where, CONFIG)
    return data


def _check_starts(data: bytes, expected: WorldModel, where: str) -> None:
    wanted = dict(_one_start(expected).items())
    header = weights.read_header(data, where)
    weights.check_names(header, wanted, where)
    shape = header["is_first"].shape
    rows = shape[0] if shape else 0
    if not 1 <= rows <= _MAX_STARTS:
        raise InvalidModelError(f"{where}: tensor 'is_first' has shape {list(shape)}; expected 1 to {_MAX_STARTS} rows")
    for name, tensor in wanted.items():
        weights.check_type(name, header[name], tensor, (rows, *tensor.shape[1:]), where)


def _one_start(model: WorldModel) -> StartBank:
    """A bank of one row, which tells what the file must look like."""
    return StartBank.midway(model.initial(1))


def _start_bank(model: WorldModel, tensors: dict[str, Tensor]) -> StartBank:
    template = _one_start(model)
    names = iter([name for name, _ in template.items()])  # map visits the tensors in the order of items
    return template.map(lambda like: tensors[next(names)].to(like.dtype))


@torch.no_grad()
def _dry_step(model: WorldModel, where: str) -> None:
    """Dream one step: finite weights can still explode."""
    assert model.initial_states is not None
    start = model.initial_states[:4]
    rows = len(start.is_first)
    try:
        action = model.spec.to_model_action(model.spec.to_env_action(torch.zeros(rows, model.spec.action_size)))
        state = model.step(start.state, action, torch.full((rows, model.noise_lanes), 0.5))
        outputs = [("action", action), *state.items(), *model.predict(state).items(), ("features", model.features(state))]
        decoded = model.decode(state)
        parts = decoded if isinstance(decoded, dict) else {"obs": decoded}
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise InvalidModelError(f"{where}: a dream of one step fails ({escape(str(error))})") from error
    for name, tensor in [*outputs, *parts.items()]:
        if not torch.isfinite(tensor).all():
            raise InvalidModelError(f"{where}: a dream of one step gives NaN or infinity ({name}); the weights explode")
    expected = {name: tuple(part.shape or ()) for name, part in model.spec.observation_parts.items()}
    found = {name: tuple(tensor.shape[1:]) for name, tensor in parts.items()}
    if found != expected:
        raise InvalidModelError(f"{where}: decodes observations of shapes {found}; config.json says {expected}")
