"""A report of one dream-trained policy as a single HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from dreamgym.evaluation.comparison import Comparison
from dreamgym.evaluation.fidelity import versions
from dreamgym.evaluation.returns import Returns

__all__ = ["Report", "write_report"]

EMBED_BELOW = 8 * 1024 * 1024  # bytes of video put into the page itself; larger ones are linked
WIDTH, HEIGHT, MARGIN = 640, 240, 48
BINS = 20

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #d8dee8 }
th:first-child, td:first-child { text-align: left } tr.agent td { font-weight: 600 }
tr.dream td { color: #7a5cc0; font-style: italic }
svg { width: 100%; height: auto }
svg text { font-size: 12px; fill: #56606e }
video { max-width: 24rem; width: 100% } code { font-size: .9em }
.note { background: #f4f1fb; border-left: 4px solid #7a5cc0; padding: .6rem 1rem }
"""


@dataclass(frozen=True)
class Report:
    """What a report tells. curve is (dream steps, mean dream return) while learning; facts are printed as a list."""

    title: str
    comparison: Comparison
    curve: Sequence[tuple[int, float]] = ()
    video: Path | None = None
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def html(self, folder: Path) -> str:
        """The page; `folder` is where it will lie, for the link to a video too large to embed."""
        parts = [
            f"<h1>{escape(self.title)}</h1>",
            f"<p>{escape(self.summary())}</p>",
            _table(self.comparison),
            f'<p class="note">{escape(self.caveat())}</p>',
            _video(self.video, folder),
            "<h2>Awake, episode by episode</h2>",
            _histogram(self.comparison.awake, self.comparison.thresholds),
        ]
        if len(self.curve) > 1:
            axis = "mean return of training episodes, as the dream pays it (shorter horizon, guard and penalty included)"
            parts += ["<h2>Learning, in the dream only</h2>", _curve(self.curve)]
            parts.append(f"<p>Horizontal: dream steps; vertical: {escape(axis)}.</p>")
        parts += ["<h2>How to get the same</h2>", self._origin()]
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        head += f"<title>{escape(self.title)}</title><style>{STYLE}</style>"
        body = "\n".join(part for part in parts if part)
        return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'

    def summary(self) -> str:
        """One sentence of numbers."""
        compared = self.comparison
        blind = "".join(f", {name} {returns.mean:.0f}" for name, returns in compared.baselines.items() if "random" in name)
        return (
            f"The policy never saw the real {compared.env_id} while it learned. Awake, on {compared.awake.n} episodes it had never met, "
            f"it earned {compared.awake} in reward{blind}."
        )

    def caveat(self) -> str:
        """Why the dream's own number is not a result."""
        compared = self.comparison
        return (
            f"The dream says {compared.dream.mean:.0f}, reality {compared.awake.mean:.0f}. The dream's number proves nothing: a policy "
            "that learns inside a model also learns to exploit its errors, and the dream's return can keep rising, even beyond what "
            "reality allows, while the real return falls. Only the rows marked awake are results, and those of one training run: "
            "other seeds differ."
        )

    def _origin(self) -> str:
        awake = self.comparison.awake
        seeds = f"{awake.seeds[0]} to {awake.seeds[-1]}" if len(awake.seeds) > 1 else str(awake.seeds[0])
        installed = ", ".join(f"{name} {version}" for name, version in versions().items())
        facts = {"Evaluation seeds": seeds, **self.facts, "Versions": installed}
        if self.command:
            facts = {"Command": self.command, **facts}
        items = "".join(f"<li>{escape(name)}: <code>{escape(value)}</code></li>" for name, value in facts.items())
        return f"<ul>{items}</ul>"


def write_report(report: Report, path: str | Path) -> Path:
    """Write the page whole or not at all; returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(report.html(path.parent), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _table(compared: Comparison) -> str:
    shares = "".join(f"<th>≥ {threshold:g}</th>" for threshold in compared.thresholds)
    lines = [f"<tr><th></th><th>mean</th><th>std</th><th>median</th>{shares}<th>n</th></tr>"]
    for label, returns in compared.rows():
        kind = "agent" if returns is compared.awake else "dream" if returns is compared.dream else "blind"
        numbers = [f"{returns.mean:.1f}", f"{returns.std:.1f}", f"{returns.median:.1f}"]
        numbers += [f"{returns.share_at_least(threshold):.0%}" for threshold in compared.thresholds]
        cells = "".join(f"<td>{number}</td>" for number in [*numbers, str(returns.n)])
        lines.append(f'<tr class="{kind}"><td>{escape(label)}</td>{cells}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _video(path: Path | None, folder: Path) -> str:
    if path is None:
        return ""
    if path.stat().st_size < EMBED_BELOW:
        source = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    else:
        source = escape(Path(os.path.relpath(path, folder)).as_posix(), quote=True)
    return f'<h2>Reality above, the model\'s reconstruction below</h2><video controls loop muted playsinline src="{source}"></video>'


def _curve(points: Sequence[tuple[int, float]]) -> str:
    x, y = np.array(points, dtype=float).T
    ticks = _ticks(float(y.min()), float(y.max()))
    low, high = min(ticks[0], float(y.min())), max(ticks[-1], float(y.max()))
    across = MARGIN + (x - x.min()) / max(float(np.ptp(x)), 1e-9) * (WIDTH - 2 * MARGIN)
    line = " ".join(f"{a:.1f},{_down(float(b), low, high):.1f}" for a, b in zip(across, y))
    labels = [f'<text x="{MARGIN}" y="{HEIGHT - 8}">{x.min():,.0f}</text>']
    labels.append(f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 8}" text-anchor="end">{x.max():,.0f}</text>')
    drawn = f'<polyline points="{line}" fill="none" stroke="#7a5cc0" stroke-width="2"/>'
    return _svg("learning curve", _grid(ticks, low, high) + "".join(labels) + drawn)


def _histogram(returns: Returns, thresholds: Sequence[float]) -> str:
    counts, edges = np.histogram(returns.returns, bins=BINS)
    ticks = [tick for tick in _ticks(0.0, float(counts.max())) if tick == int(tick)]
    high = max(float(counts.max()), ticks[-1])
    across = lambda value: MARGIN + (value - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - 2 * MARGIN)  # noqa: E731
    drawn = [_grid(ticks, 0.0, high)]
    for count, left, right in zip(counts, edges[:-1], edges[1:]):
        top = _down(float(count), 0.0, high)
        size = f'width="{across(right) - across(left) - 1:.1f}" height="{HEIGHT - MARGIN / 2 - top:.1f}"'
        drawn.append(f'<rect x="{across(left):.1f}" y="{top:.1f}" {size} fill="#3d7ab8"/>')
    for threshold in thresholds:
        if edges[0] <= threshold <= edges[-1]:
            place = f'x1="{across(threshold):.1f}" x2="{across(threshold):.1f}" y1="8" y2="{HEIGHT - MARGIN / 2}"'
            drawn.append(f'<line {place} stroke="#c0392b" stroke-dasharray="4 3"/>')
    drawn += [f'<text x="{across(edge):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{edge:.0f}</text>' for edge in edges[:: BINS // 4]]
    return _svg("histogram of returns awake", "".join(drawn))


def _grid(ticks: Sequence[float], low: float, high: float) -> str:
    lines = []
    for tick in ticks:
        y = _down(tick, low, high)
        lines.append(f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e8ee"/>')
        lines.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return "".join(lines)


def _down(value: float, low: float, high: float) -> float:
    return HEIGHT - MARGIN / 2 - (value - low) / max(high - low, 1e-9) * (HEIGHT - MARGIN)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers around [low, high]."""
    span = max(high - low, 1e-6)
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * factor for factor in (0.2, 0.5, 1.0, 2.0) if span / (unit * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]


def _svg(title: str, content: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{content}</svg>'
