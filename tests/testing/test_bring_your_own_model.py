"""docs/bring-your-own-model.md shows the example that is run, and names every check."""

from __future__ import annotations

import re
from pathlib import Path

from dreamgym.testing.suite import CHECKS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "examples" / "bring_your_own_model.py").read_text()
PAGE = (ROOT / "docs" / "bring-your-own-model.md").read_text()


def test_the_page_shows_the_example_as_it_is_run():
    shown = re.search(r"```python no-run\n# runs in tests/test_examples.py[^\n]*\n(.*?)```", PAGE, re.DOTALL)
    assert shown and shown[1] == EXAMPLE


def test_the_example_is_short_and_takes_no_model_of_ours():
    assert sum(bool(line.strip()) for line in EXAMPLE.splitlines()) < 60
    assert "dreamgym.models" not in EXAMPLE and "WorldModel" not in EXAMPLE and "fit(" not in EXAMPLE


def test_the_page_says_what_each_check_means():
    table = PAGE.split("| check |")[1].split("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(check.name for check in CHECKS)
