"""Pickles models by reference, so that eight workers are sent eight paths and not eight copies of the weights."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["ModelReference"]

# A name, not an import: dreams lie below the hub, and a worker process may load what is above them.
_LOADER = "dreamgym.registration:load_model"


class ModelReference:
    """Holds a model. Pickles to model.source (a folder) where the model has one, else to the model itself.

    Unpickling a source raises ModelNotFoundError where the folder is gone, and shares one model per process and folder.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Any, ...]:
        source = getattr(self.model, "source", None)
        return (ModelReference, (self.model,)) if source is None else (_load, (str(source),))


def _load(source: str) -> ModelReference:
    module, function = _LOADER.split(":")
    return ModelReference(getattr(importlib.import_module(module), function)(source))
