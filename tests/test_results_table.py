"""The numbers on the pages are those that were measured."""

import runpy

import pytest

SCRIPT = runpy.run_module("benchmarks.results_table")


@pytest.mark.parametrize(("page", "start", "make"), list(SCRIPT["pages"]()), ids=lambda value: getattr(value, "stem", ""))
def test_tables_are_made_from_the_results(page, start, make):
    text = page.read_text()
    assert start in text and SCRIPT["written"](text, start, make()) == text
