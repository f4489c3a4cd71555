"""Every exception dreamgym raises on purpose; each is also the builtin a caller would already catch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = [
    "DreamGymError",
    "HubUnreachableError",
    "IncompatibleModelError",
    "InvalidDataError",
    "InvalidModelError",
    "MissingDependencyError",
    "ModelAccessError",
    "ModelLoadError",
    "ModelNotFoundError",
    "NonFiniteDreamError",
    "NonFiniteLossError",
    "data_errors",
    "require",
]


class DreamGymError(Exception):
    """Parent of everything below."""


class ModelLoadError(DreamGymError):
    """A model could not be loaded."""


class ModelNotFoundError(ModelLoadError, FileNotFoundError):
    """The folder, bundled name, repository, revision or file does not exist."""


class ModelAccessError(ModelLoadError, PermissionError):
    """The model exists but may not be read with these credentials."""


class HubUnreachableError(ModelLoadError, ConnectionError):
    """The Hub did not answer, or answered like something else."""


class IncompatibleModelError(ModelLoadError, ValueError):
    """The model was saved in a format this version cannot read."""


class InvalidModelError(ModelLoadError, ValueError):
    """The model's files are damaged, forged or inconsistent."""


class InvalidDataError(DreamGymError, ValueError):
    """A dataset's files are damaged, forged, inconsistent, or in a format this version cannot read."""


class MissingDependencyError(DreamGymError, ImportError):
    """An optional package is needed; the message says which extra installs it."""


class NonFiniteLossError(DreamGymError, FloatingPointError):
    """Training met NaN or infinity; the message names the step, the term and the last good checkpoint."""


class NonFiniteDreamError(DreamGymError, FloatingPointError):
    """A model produced NaN or infinity while dreaming."""


@contextmanager
def data_errors() -> Iterator[None]:
    """What dreamgym.formats says of any file (InvalidModelError), said of a dataset (InvalidDataError)."""
    try:
        yield
    except InvalidModelError as error:
        raise InvalidDataError(str(error)) from error


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or raise MissingDependencyError naming the pip extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f'{purpose} needs {module.split(".")[0]}: pip install "dreamgym[{extra}]"') from error
