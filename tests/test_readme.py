"""Every python block of README.md and docs/ runs, file by file, in the order a reader meets them.

A block may be kept from running by writing ```python no-run and giving the reason as a comment on its first line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if "```python" in path.read_text()]
FENCE = re.compile(r"^(?P<indent> *)```python(?P<flags>[^\n]*)\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Code between fences and the line it starts on."""

    line: int
    code: str
    flags: str


def blocks_of(text: str) -> list[Block]:
    """Python blocks of a Markdown text, indentation of the fence removed."""
    found = []
    for match in FENCE.finditer(text):
        indent = re.compile(f"^{match['indent']}", re.MULTILINE)
        found.append(Block(text.count("\n", 0, match.start("code")), indent.sub("", match["code"]), match["flags"].strip()))
    return found


def as_script(blocks: list[Block]) -> str:
    """One script in which every line stands where it stands in the document, so that tracebacks point there."""
    script = ""
    for block in blocks:
        script += "\n" * (block.line - script.count("\n")) + block.code
    return script


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run_in_order(path: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{path.stem}.py"
    script.write_text(as_script([block for block in blocks_of(path.read_text()) if not block.flags]))
    quiet = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "SDL_VIDEODRIVER": "dummy"}
    ran = subprocess.run([sys.executable, script], cwd=tmp_path, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_that_do_not_run_say_why(path: Path) -> None:
    for block in blocks_of(path.read_text()):
        assert block.flags in ("", "no-run"), f"{path.name}:{block.line}: unknown flag {block.flags!r}"
        assert not block.flags or block.code.startswith("# "), f"{path.name}:{block.line}: no reason given"


def test_the_readme_has_code_and_all_of_it_runs() -> None:
    blocks = blocks_of((ROOT / "README.md").read_text())
    assert blocks and not any(block.flags for block in blocks)


def test_lines_of_a_block_keep_their_numbers() -> None:
    text = "# Title\n\n```python\na = 1\n```\ntext\n  ```python no-run\n  # needs a GPU\n  b = 2\n  ```\n"
    first, second = blocks_of(text)
    assert (first.line, first.code) == (3, "a = 1\n") and as_script([first]).splitlines()[3] == "a = 1"
    assert (second.line, second.code, second.flags) == (7, "# needs a GPU\nb = 2\n", "no-run")
