"""The numbers and curves on the pages are those that were measured."""

import runpy

import pytest

from benchmarks.curves import Panel, drawn

SCRIPT = runpy.run_module("benchmarks.results_table")


@pytest.mark.parametrize(("page", "start", "make"), list(SCRIPT["pages"]()), ids=lambda value: getattr(value, "stem", ""))
def test_tables_are_made_from_the_results(page, start, make):
    text = page.read_text()
    assert start in text and SCRIPT["written"](text, start, make()) == text


@pytest.mark.parametrize(("picture", "draw"), list(SCRIPT["pictures"]()), ids=lambda value: getattr(value, "stem", ""))
def test_curves_are_drawn_from_the_results(picture, draw):
    assert picture.read_text() == draw()


def test_a_curve_runs_from_corner_to_corner_and_published_points_lie_on_the_same_axes():
    picture = drawn([Panel("toy", [[[0, 10.0], [100, 20.0]]], [[50, 12.5]])])
    assert '<polyline points="52.0,196.0 346.0,28.0"' in picture  # the second point is the mean of both
    assert '<circle cx="199.0" cy="112.0"' in picture and ">15</text>" in picture and ">10</text>" in picture
