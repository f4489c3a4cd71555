"""Write the tables and curves in the README and the papers' pages from benchmarks/results/gates, so that no number is typed by hand.

python -m benchmarks.results_table
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.curves import Panel, drawn, near
from benchmarks.pages import written

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gates"
FIDELITY = ROOT / "dreamgym" / "pretrained"
CURVES = ROOT / "docs" / "papers" / "curves"
HEADER = [
    "| environment | real steps the model learned from | agent, trained only in the dream | awake | the dream says |",
    "|---|---|---|---|---|",
]
BUNDLES = {"CarRacing-v3": "CarRacing", "dm_control/cartpole-swingup-v0": "CartPoleSwingup"}
ROWS = [
    ("CarRacing-v3", "driving-fit", '`fit(preset="vae-rssm")`, its own agent'),
    ("CarRacing-v3", "driving-frozen", "a fresh SB3 PPO in the bundled dream"),
    ("VizdoomTakeCover-v1", "DoomTakeCover", '`fit(preset="world-models-fast")`, its own actor-critic, bundled'),
    ("dm_control/cartpole-swingup-v0", "dreamer-v3-dm_control-cartpole-swingup-v0", '`fit(preset="dreamer-v3")`, its own agent'),
    ("dm_control/cartpole-balance-v0", "dreamer-v3-dm_control-cartpole-balance-v0", "the same preset"),
    ("dm_control/cartpole-swingup-v0", "strangers-dream-ppo", "a fresh SB3 PPO in the bundled dream"),
    ("Pendulum-v1", "ensemble-Pendulum-v1", 'SB3 PPO in a dream of `fit(preset="ensemble")`'),
    ("CartPole-v1", "ensemble-CartPole-v1", "the same"),
    ("Acrobot-v1", "ensemble-Acrobot-v1", "the same"),
]
PAGES = {"planet": "planet.md", "dreamer-v1": "dreamer.md", "dreamer-v2": "dreamer-v2.md", "dreamer-v3": "dreamer-v3.md"}
# Official DreamerV3 from vectors, training episodes, mean of 5 seeds (score files of danijar/dreamerv3; the page says more).
MARKS = (20_000, 50_000, 100_000)
OFFICIAL = {"dm_control/cartpole-swingup-v0": (171, 331, 513), "dm_control/cartpole-balance-v0": (305, 518, 821)}


# ---- the README ---------------------------------------------------------------------------------------------------------------------


def table() -> list[str]:
    """The lines of the README's table; three training seeds in a cell."""
    lines = list(HEADER)
    for env_id, name, agent in ROWS:
        runs = _runs(name)
        steps = sorted({run["real_steps"] or _bundled_steps(env_id) for run in runs})
        real = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        episodes = runs[0]["comparison"]["awake"]["n"]
        lines.append(f"| {env_id} | {real} | {agent} ({episodes} episodes) | {_cell(runs, 'awake')} | {_cell(runs, 'dream')} |")
    return lines


def _bundled_steps(env_id: str) -> int:
    fidelity = json.loads((FIDELITY / BUNDLES[env_id] / "fidelity.json").read_text())
    return int(fidelity["data"]["env_steps"])


# ---- the papers' pages --------------------------------------------------------------------------------------------------------------


def paper_table(preset: str) -> list[str]:
    """What `fit(env, preset, size="tiny")` reached, three training seeds in a cell, and how it got there."""
    worlds = _worlds(preset)
    if not worlds:
        return ["No run of this preset is recorded yet."]
    lines = ["| environment, size tiny | real steps | awake, 20 episodes | the dream says | random actions | minutes of one CPU core |"]
    lines.append("|---|---|---|---|---|---|")
    curves = []
    for world in worlds:
        runs = _runs(f"{preset}-{world}")
        env_id = runs[0]["comparison"]["env_id"]
        random = _number(runs[0]["comparison"]["baselines"]["random actions"])
        minutes = ", ".join(f"{run['seconds_of_fit'] / 60:.0f}" for run in runs)
        cells = f"{_cell(runs, 'awake')} | {_cell(runs, 'dream')}"
        lines.append(f"| {env_id} | {runs[0]['real_steps']:,} | {cells} | {random} | {minutes} |")
        curves.append((env_id, [run["curve"]["explore"] for run in runs]))
    official = preset == "dreamer-v3"
    circles = "; circles: published" if official else ""
    caption = f"![Returns of training episodes by env steps]({CURVES.name}/{preset}.svg)"
    means = f"Training episodes, one line a seed, means of five episodes{circles}:"
    return [*lines, "", means, "", caption, "", *_curves(curves, official=official)]


def paper_curves(preset: str) -> str:
    """The same runs' training episodes as a picture, and the published points where they lie within our budget."""
    panels = []
    for world in _worlds(preset):
        runs = _runs(f"{preset}-{world}")
        env_id = runs[0]["comparison"]["env_id"]
        points = tuple(zip(MARKS, OFFICIAL.get(env_id, ()))) if preset == "dreamer-v3" else ()
        panels.append(Panel(env_id, [run["curve"]["explore"] for run in runs], points))
    return drawn(panels)


def _curves(curves: list[tuple[str, list[list[list[float]]]]], *, official: bool) -> Iterator[str]:
    """Returns of training episodes within 10,000 env steps of the marks, mean of the seeds."""
    yield "| training episodes, mean of seeds, at env steps | " + " | ".join(f"{mark:,}" for mark in MARKS) + " |"
    yield "|---" * (len(MARKS) + 1) + "|"
    for env_id, seeds in curves:
        yield f"| {env_id} | " + " | ".join(near(seeds, mark, within=10_000) for mark in MARKS) + " |"
        if official and env_id in OFFICIAL:
            yield f"| the same, published | {' | '.join(map(str, OFFICIAL[env_id]))} |"


def _worlds(preset: str) -> list[str]:
    return sorted({path.stem.removeprefix(f"{preset}-")[:-2] for path in RESULTS.glob(f"{preset}-*-[0-9].json")})


# ---- both ---------------------------------------------------------------------------------------------------------------------------


def _runs(name: str) -> list[dict[str, Any]]:
    """The records of a gate, or what was measured of the agent that a bundled model brings."""
    if (FIDELITY / name / "agent").is_dir():
        fidelity = json.loads((FIDELITY / name / "fidelity.json").read_text())
        return [{"real_steps": fidelity["data"]["env_steps"], "comparison": fidelity["policy"]}]
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{name}-[0-9].json"))]


def _cell(runs: list[dict[str, Any]], world: str) -> str:
    return ", ".join(_number(run["comparison"][world]) for run in runs)


def _number(returns: dict[str, Any]) -> str:
    return f"{returns['mean']:.0f} ± {returns['std']:.0f}"


def pages() -> Iterator[tuple[Path, str, Callable[[], list[str]]]]:
    """Every page with a table: where it is, the mark its table begins with, and what makes it."""
    yield ROOT / "README.md", "<!-- results: benchmarks/results_table.py -->", table
    for preset, name in PAGES.items():
        yield ROOT / "docs" / "papers" / name, f"<!-- results:{preset} -->", partial(paper_table, preset)


def pictures() -> Iterator[tuple[Path, Callable[[], str]]]:
    """Every picture of curves: where it is, and what draws it."""
    for preset in PAGES:
        yield CURVES / f"{preset}.svg", partial(paper_curves, preset)


if __name__ == "__main__":
    CURVES.mkdir(exist_ok=True)
    for picture, draw in pictures():
        picture.write_text(draw())
    for page, start, make in pages():
        page.write_text(written(page.read_text(), start, make()))
