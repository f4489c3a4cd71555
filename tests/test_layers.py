"""Imports go down only: a package may import from lower layers, never from its siblings or from above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dreamgym

ROOT = Path(dreamgym.__file__).parent
LAYERS = [
    {"structs", "noise", "errors"},  # words everyone uses
    {"nn", "formats"},  # bricks | how things lie on disk
    {"models", "envs", "data"},  # minds | real worlds | memory
    {"dreams", "agents"},  # faces of a model | behaviours
    {"evaluation", "hub"},  # judge | keep and share
    {"training"},  # where waking and dreaming meet
    {"registration", "demo", "sb3"},  # doors
    {"testing"},  # looks at models through the doors
    {"cli"},
]
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported_parts(path: Path) -> set[str]:
    """Names of dreamgym's parts that a module imports, anywhere in the file."""
    package = ["dreamgym", *path.parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])]) if node.level else node.module
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in found if name.startswith("dreamgym.")}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_only(path: Path) -> None:
    part = path.parts[0].removesuffix(".py")
    assert part in LEVELS, f"{part} has no layer yet: give it one in tests/test_layers.py"
    for other in imported_parts(path) - {part}:
        assert LEVELS.get(other, len(LAYERS)) < LEVELS[part], f"{part} imports {other}, which is not below it"
