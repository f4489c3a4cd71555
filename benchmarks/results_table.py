"""Write the README's table of results from benchmarks/results/gates, so that no number in it is typed by hand.

python benchmarks/results_table.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gates"
FIDELITY = ROOT / "dreamgym" / "pretrained"
START, END = "<!-- results: benchmarks/results_table.py -->", "<!-- /results -->"
HEADER = [
    "| environment | real steps the model learned from | agent, trained only in the dream | awake | the dream says |",
    "|---|---|---|---|---|",
]
ROWS = [
    ("CarRacing-v3", "driving-fit", "`fit(preset=\"vae-rssm\")`, its own agent"),
    ("CarRacing-v3", "driving-frozen", "a fresh SB3 PPO in the bundled dream"),
    ("Pendulum-v1", "ensemble-Pendulum-v1", "SB3 PPO in a dream of `fit(preset=\"ensemble\")`"),
    ("CartPole-v1", "ensemble-CartPole-v1", "the same"),
    ("Acrobot-v1", "ensemble-Acrobot-v1", "the same"),
]


def table() -> list[str]:
    """The lines of the table; three training seeds in a cell."""
    lines = list(HEADER)
    for env_id, name, agent in ROWS:
        runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{name}-[0-9].json"))]
        compared = [run["comparison"] for run in runs]
        steps = sorted({run["real_steps"] or _bundled_steps(env_id) for run in runs})
        real = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        cells = [", ".join(_number(run[world]) for run in compared) for world in ("awake", "dream")]
        episodes = compared[0]["awake"]["n"]
        lines.append(f"| {env_id} | {real} | {agent} ({episodes} episodes) | {cells[0]} | {cells[1]} |")
    return lines


def _number(returns: dict[str, Any]) -> str:
    return f"{returns['mean']:.0f} ± {returns['std']:.0f}"


def _bundled_steps(env_id: str) -> int:
    fidelity = json.loads((FIDELITY / env_id.split("-")[0] / "fidelity.json").read_text())
    return int(fidelity["data"]["env_steps"])


def written(text: str) -> str:
    """`text` with the table between its marks made anew."""
    return re.sub(f"{re.escape(START)}.*?{re.escape(END)}", lambda _: "\n".join([START, *table(), END]), text, flags=re.DOTALL)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(written(readme.read_text()))
