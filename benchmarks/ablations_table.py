"""Write the tables of docs/ablations.md from the recorded cells, so that no number is typed by hand.

python -m benchmarks.ablations_table
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves import Panel, drawn, near
from benchmarks.pages import written

ROOT = Path(__file__).resolve().parents[1]
ABLATIONS = ROOT / "benchmarks" / "results" / "ablations"
GATES = ROOT / "benchmarks" / "results" / "gates"
PAGE = ROOT / "docs" / "ablations.md"
NOTHING = ["No cell of this is recorded yet."]
MARKS = (5_000, 10_000, 15_000, 20_000)  # env steps of online cells

Record = dict[str, Any]

ESTIMATORS = {
    ("dynamics", "lambda"): "V_λ, backpropagation",
    ("dynamics", "n_step"): "V_N (5 steps), backpropagation",
    ("dynamics", "reward_sum"): "V_R, backpropagation",
    ("reinforce", "lambda"): "V_λ, REINFORCE",
    ("reinforce", "reward_sum"): "V_R, REINFORCE",
}
PATHS = {
    "both": "both (RSSM)",
    "deterministic": "deterministic, the prior following the posterior",
    "stochastic": "stochastic",
    "literal": "deterministic, to the letter (no KL)",
}
OBJECTIVES = {"reconstruction": "reconstruction", "contrastive": "contrastive", "reward-only": "reward only"}
LEARNERS = {
    "dream-actor-critic": "built-in actor-critic, in the dream",
    "dream-ppo": "SB3 PPO, in the dream",
    "dream-sac": "SB3 SAC, in the dream",
    "real-ppo": "SB3 PPO, awake",
    "real-sac": "SB3 SAC, awake",
}


def horizon_table(folder: Path = ABLATIONS) -> list[str]:
    """Return by horizon, one line per estimator: the mean of the seeds and each of them."""
    records = _records(folder, "horizon-*")
    if not records:
        return NOTHING
    horizons = sorted({record["settings"]["horizon"] for record in records})
    lines = ["| estimator | " + " | ".join(f"{horizon} steps" for horizon in horizons) + " |", "|---" * (len(horizons) + 1) + "|"]
    for how, label in ESTIMATORS.items():
        groups = [[record for record in records if _is_horizon(record, how, horizon)] for horizon in horizons]
        lines.append(f"| {label} | " + " | ".join(map(_cell, groups)) + " |")
    return [*lines, "", _chance(records)]


def _is_horizon(record: Record, how: tuple[str, str], horizon: int) -> bool:
    """Records from before REINFORCE was tried do not name their gradient."""
    settings = record["settings"]
    return (settings.get("gradient", "dynamics"), settings["estimator"], settings["horizon"]) == (*how, horizon)


def parts_table(kind: str, labels: dict[str, str], folder: Path = ABLATIONS) -> list[str]:
    """Returns and open-loop reward errors, one line per variant; then the curves of online cells, if there are any."""
    records = _records(folder, f"{kind}-*")
    offline = [record for record in records if not record["settings"]["online"]]
    if not records:
        return NOTHING
    lines = []
    if offline:
        steps = list(offline[0]["reward_error"])
        lines = ["| variant | awake | the dream says | " + " | ".join(f"error at {step}" for step in steps) + " |"]
        lines.append("|---" * (len(steps) + 3) + "|")
        for variant, group in _variants(offline, labels):
            errors = [f"{np.mean([_share(record['reward_error'][step]) for record in group]):.2f}" for step in steps]
            lines.append(f"| {variant} | {_cell(group)} | {_cell(group, 'dream')} | {' | '.join(errors)} |")
        lines += ["", _chance(offline)]
    return [*lines, *_online(kind, [record for record in records if record["settings"]["online"]], labels)]


def _online(kind: str, records: Sequence[Record], labels: dict[str, str]) -> Iterator[str]:
    """Learning curves of cells whose agent explored by itself, and the same as numbers."""
    if not records:
        return
    groups = list(_variants(records, labels))
    title = "learning online: returns of exploring episodes"
    yield from ("", f"And {title}, one line a seed, means of five episodes:", "", f"![{title}]({_picture(kind).relative_to(PAGE.parent)})")
    yield from (
        "",
        "| at env steps | " + " | ".join(f"{mark:,}" for mark in MARKS) + " | awake at the end |",
        "|---" * (len(MARKS) + 2) + "|",
    )
    for variant, group in groups:
        cells = [near([record["curve"] for record in group], mark, within=1_000) for mark in MARKS]
        yield f"| {variant} | " + " | ".join(cells) + f" | {_cell(group)} |"


def pictures(folder: Path = ABLATIONS) -> Iterator[tuple[Path, str]]:
    """The curves of online cells: where each picture is, and its text."""
    for kind, labels in (("path", PATHS), ("objective", OBJECTIVES)):
        records = _records(folder, f"{kind}-online-*")
        if records:
            panels = [Panel(label, [record["curve"] for record in group]) for label, group in _variants(records, labels)]
            yield _picture(kind), drawn(panels, common=True)


def _picture(kind: str) -> Path:
    return PAGE.parent / "papers" / "curves" / f"ablation-{kind}.svg"


def strangers_table(folder: Path = GATES) -> list[str]:
    """Every learner awake, with what it took."""
    records = _records(folder, "strangers-*")
    if not records:
        return NOTHING
    lines = [
        "| learner | its own real agent steps | dream steps | awake | the dream says | minutes of one CPU core |",
        "|---|---|---|---|---|---|",
    ]
    for learner, label in LEARNERS.items():
        if group := [record for record in records if record["learner"] == learner]:
            minutes = ", ".join(f"{record['cpu_seconds'] / 60:.0f}" for record in group)
            steps = f"{group[0]['real_steps']:,} | {group[0]['dream_steps']:,}"
            lines.append(f"| {label} | {steps} | {_cell(group)} | {_cell(group, 'dream')} | {minutes} |")
    return [*lines, "", _chance(records)]


# ---- parts of tables ----------------------------------------------------------------------------------------------------------------


def _records(folder: Path, pattern: str) -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{pattern}-[0-9].json"))]


def _variants(records: Sequence[Record], labels: dict[str, str]) -> Iterator[tuple[str, list[Record]]]:
    for variant, label in labels.items():
        if group := [record for record in records if record["settings"]["variant"] == variant]:
            yield label, group


def _means(group: Sequence[Record], world: str = "awake") -> list[float]:
    return [record["comparison"][world]["mean"] for record in group]


def _cell(group: Sequence[Record], world: str = "awake") -> str:
    """The mean of the seeds, and each seed."""
    means = _means(group, world)
    return f"**{np.mean(means):.0f}** ({', '.join(f'{mean:.0f}' for mean in means)})" if means else ""


def _share(error: Sequence[float]) -> float:
    """Of the error that guessing the mean makes."""
    return error[0] / error[1]


def _chance(records: Sequence[Record]) -> str:
    comparison = records[0]["comparison"]
    random = comparison["baselines"]["random actions"]["mean"]
    return f"{comparison['env_id']}, {comparison['awake']['n']} episodes a seed; random actions: {random:.0f}."


# ---- the page -----------------------------------------------------------------------------------------------------------------------


def blocks() -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The marks of the page, and what makes the lines behind them."""
    yield "<!-- results:horizon -->", horizon_table
    yield "<!-- results:path -->", lambda: parts_table("path", PATHS)
    yield "<!-- results:objective -->", lambda: parts_table("objective", OBJECTIVES)
    yield "<!-- results:strangers -->", strangers_table


if __name__ == "__main__":
    for picture, drawing in pictures():
        picture.write_text(drawing)
    text = PAGE.read_text()
    for start, make in blocks():
        text = written(text, start, make())
    PAGE.write_text(text)
