"""Write the tables of docs/papers/world-models.md from the recorded cells and studies, so that no number is typed by hand.

python -m benchmarks.world_models_table    # also prints them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import written
from dreamgym.training.temperature_table import TemperatureStudy

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "results" / "world-models"
PAGE = ROOT / "docs" / "papers" / "world-models.md"
NOTHING = ["No cell of this is recorded yet."]

Record = dict[str, Any]

WORLDS = ("take-cover", "car-racing")
KINDS: Mapping[str, Mapping[str, str]] = {
    "inputs": {"z": "z", "z-hidden": "z, one hidden layer of 40", "zh": "z and h", "zch": "z, c and h"},
    "memory": {
        "z": "z",
        "z-hidden": "z, one hidden layer of 40",
        "untrained": "z and h, random memory",
        "trained": "z and h, trained memory",
    },
    "belief": {"sample": "a sample of the code", "mean": "its mean"},
    "ends": {"threshold": "where the chance is above a threshold", "sample": "by chance"},
    "dreams": {"mdn-rnn": "MDN-RNN with a reward head", "rssm": "the bundled RSSM"},
}
# specs/world-models.md 10 (arXiv 1803.10122, C trained awake) and Tallec et al. for both memories; 12 (Dropout's Dream Land) for the dream.
PUBLISHED: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("car-racing", "memory"): {"z": "632 ± 251", "z-hidden": "788 ± 141", "untrained": "870 ± 120", "trained": "906 ± 21, 860 ± 120"},
    ("car-racing", "dreams"): {"mdn-rnn": "789 ± 180"},
}


def cells_table(world: str, kind: str, folder: Path = RECORDS) -> list[str]:
    """One line per variant: the mean of the seeds and each of them awake and in the dream, what was published, minutes of one core."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{world}-{kind}-*-[0-9].json"))]
    if not records:
        return NOTHING
    paper = PUBLISHED.get((world, kind), {})
    heading = ["", "awake", "the dream says", *(["published"] if paper else []), "minutes a seed"]
    lines = [_row(heading), "|---" * len(heading) + "|"]
    for variant, label in KINDS[kind].items():
        if group := [record for record in records if record["settings"]["variant"] == variant]:
            minutes = f"{np.mean([record['cpu_seconds'] for record in group]) / 60:.0f}"
            beside = [paper.get(variant, "")] if paper else []
            lines.append(_row([label, _cell(group, "awake"), _cell(group, "dream"), *beside, minutes]))
    return [*lines, "", _chance(records)]


def temperature_table(path: Path = RECORDS / "temperature.json") -> list[str]:
    """The study's own table; the file is study.json as `dreamgym temperature` writes it."""
    if not path.exists():
        return NOTHING
    study = TemperatureStudy.from_json(json.loads(path.read_text()))
    heading, *rows = study.rows()
    remarks = [f"{line}." for line in (study.title, *study.remarks())]
    return [_row(heading), "|---" * len(heading) + "|", *map(_row, rows), "", *(f"- {line}" for line in remarks)]


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _cell(group: Sequence[Record], world: str) -> str:
    """The mean of the seeds, and each seed; nothing for controllers that never dreamt."""
    means = [record["comparison"][world]["mean"] for record in group if record["comparison"][world]]
    return f"**{np.mean(means):.0f}** ({', '.join(f'{mean:.0f}' for mean in means)})" if means else ""


def _chance(records: Sequence[Record]) -> str:
    comparison = records[0]["comparison"]
    random = comparison["baselines"]["random actions"]["mean"]
    return f"{comparison['env_id']}, {comparison['awake']['n']} episodes a seed; random actions: {random:.0f}."


# ---- the page -----------------------------------------------------------------------------------------------------------------------


def blocks() -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """The marks of the page, and what makes the lines behind them."""
    yield "<!-- results:temperature -->", temperature_table
    for world in WORLDS:
        for kind in KINDS:
            if (world, kind) not in (("take-cover", "dreams"), ("car-racing", "ends")):  # not compared there
                yield f"<!-- results:{world}-{kind} -->", partial(cells_table, world, kind)


if __name__ == "__main__":
    text = PAGE.read_text() if PAGE.exists() else ""
    for start, make in blocks():
        print("\n".join([start, *make(), ""]))
        text = written(text, start, make())
    if PAGE.exists():
        PAGE.write_text(text)
