"""The page carries everything in itself and tells dream from reality."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dreamgym.evaluation.comparison import Comparison
from dreamgym.evaluation.report import EMBED_BELOW, Report, write_report
from dreamgym.evaluation.returns import Returns


def returns(*values: float) -> Returns:
    return Returns(values, (10,) * len(values), tuple(range(1_000_000, 1_000_000 + len(values))))


@pytest.fixture
def comparison() -> Comparison:
    return Comparison("Line-v0", returns(90.0, 110.0), returns(40.0, 50.0, 90.0), {"random actions": returns(-3.0)}, (80.0,))


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "line", "rect", "polyline"):
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "rect", "polyline"):
            assert self.open.pop() == tag


def test_the_table_of_a_comparison_has_a_row_for_each_world(comparison: Comparison) -> None:
    lines = comparison.table().splitlines()
    assert lines[0].split() == ["Line-v0", "mean", "std", "s.e.", "median", "steps", "≥", "80", "n"]
    assert [line.split("  ")[0] for line in lines[1:]] == ["random actions, awake", "agent, awake", "agent, in the dream"]
    assert lines[2].split()[-8:] == ["awake", "60.0", "21.6", "15.3", "50.0", "10.0", "33%", "3"]
    assert comparison.gap == pytest.approx(40.0)


def test_a_comparison_survives_json(comparison: Comparison) -> None:
    assert Comparison.from_json(comparison.to_json()) == comparison


def test_the_page_is_well_formed_and_requests_nothing(comparison: Comparison, tmp_path: Path) -> None:
    video = tmp_path / "drive.mp4"
    video.write_bytes(b"film")
    curve = [(0, -5.0), (1000, 20.0), (2000, 60.0)]
    text = write_report(Report("A <title>", comparison, curve, video, "dreamgym demo"), tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.links == ["data:video/mp4;base64,ZmlsbQ=="]
    assert not re.search(r"https?://|@import|<script|url\(", text)
    assert "A &lt;title&gt;" in text and "<title>A <title>" not in text


def test_a_large_video_is_linked_beside_the_page(comparison: Comparison, tmp_path: Path) -> None:
    video = tmp_path / "films" / "drive.mp4"
    video.parent.mkdir()
    with video.open("wb") as file:
        file.truncate(EMBED_BELOW)
    page = Page(write_report(Report("t", comparison, video=video), tmp_path / "report.html").read_text())
    assert page.links == ["films/drive.mp4"]


def test_the_page_says_that_the_dream_proves_nothing_and_gives_both_numbers(comparison: Comparison, tmp_path: Path) -> None:
    text = write_report(Report("t", comparison), tmp_path / "report.html").read_text()
    assert "The dream says 100, reality 60" in text and "proves nothing" in text
    assert "1000000 to 1000002" in text


def test_bars_of_the_histogram_hold_every_episode(tmp_path: Path) -> None:
    same = Comparison("Line-v0", returns(1.0), returns(5.0, 5.0, 5.0))
    text = write_report(Report("t", same), tmp_path / "report.html").read_text()
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', text)]
    assert sum(height > 1 for height in heights) == 1


def test_an_old_page_stays_if_a_new_one_cannot_be_made(comparison: Comparison, tmp_path: Path) -> None:
    path = write_report(Report("old", comparison), tmp_path / "report.html")
    with pytest.raises(FileNotFoundError):
        write_report(Report("new", comparison, video=tmp_path / "missing.mp4"), path)
    assert "<h1>old</h1>" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]
