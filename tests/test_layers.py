"""Imports go down only, never to siblings or up; and the page that lists all modules is true."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dreamgym
from benchmarks.pages import END, written

ROOT = Path(dreamgym.__file__).parent
PAGE = ROOT.parent / "docs" / "architecture.md"
MARK = "<!-- results: python -m tests.test_layers -->"
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
    {"__main__"},
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


def described(path: Path) -> str:
    """The first sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text()))
    assert docstring, f"{path} does not say why it exists"
    return docstring.splitlines()[0].replace("|", "\\|")


def every_module() -> list[str]:
    """A table per part, from words that everyone uses up to the command line."""
    lines = []
    for names in LAYERS:
        for name in sorted(names):
            inside = [path for path in MODULES if path.parts[0].removesuffix(".py") == name and path.name != "__init__.py"]
            title = described(Path(name) / "__init__.py") if (ROOT / name).is_dir() else ""
            lines += ["", f"**{name}** {title}".rstrip(), "", "| | |", "|---|---|"]
            lines += [f"| `{path.with_suffix('').as_posix()}` | {described(path)} |" for path in inside]
    return lines[1:]


def test_the_page_lists_every_module() -> None:
    text = PAGE.read_text()
    assert MARK in text and END in text
    assert written(text, MARK, every_module()) == text, "write it anew: python -m tests.test_layers"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), MARK, every_module()))
