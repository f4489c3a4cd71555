"""Pickles models by reference, so that eight workers are sent eight paths and not eight copies of the weights."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["ModelReference"]

# A name, not an import: dreams lie below the hub, and a worker process may load what is above them.
_LOADER = "dreamgym.registration:load_model"


class ModelReference:
    """Holds a model. Pickles to model.source where the model has one, else to the model itself.

    A source is a folder, a bundled name, or a repository of the Hub at its commit, which needs no request where the cache has it; never a
    token. Unpickling one raises ModelNotFoundError where it is gone, and shares one model per process and source.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Any, ...]:
        source = getattr(self.model, "source", None)
        if source is None:
            return (ModelReference, (self.model,))
        return (_load, (str(source), dict(getattr(self.model, "source_options", {}))))


def _load(source: str, options: dict[str, Any]) -> ModelReference:
    module, function = _LOADER.split(":")
    return ModelReference(getattr(importlib.import_module(module), function)(source, **options))
