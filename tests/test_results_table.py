"""The README's numbers are those that were measured."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_readmes_table_is_made_from_the_results():
    script = runpy.run_path(str(ROOT / "benchmarks" / "results_table.py"))
    readme = (ROOT / "README.md").read_text()
    assert script["START"] in readme and script["written"](readme) == readme
