"""Write the tables of docs/papers/world-models.md from the recorded cells and studies, so that no number is typed by hand.

python -m benchmarks.world_models_table    # also prints them
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import written
from dreamgym.evaluation.returns import Returns
from dreamgym.training.temperature_table import TemperatureStudy

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "results" / "world-models"
PAGE = ROOT / "docs" / "papers" / "world-models.md"
NOTHING = ["No cell of this is recorded yet."]
NO_RUN = ["No run is recorded yet."]

Record = dict[str, Any]

AGENTS = {"LinearController": "C, each evolved from nothing", "ActorCritic": "actor-critic"}
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


def _judged(name: str) -> Record | None:
    """A part of what benchmarks/judge_take_cover.py left."""
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def run_table() -> list[str]:
    """The run's controllers, iteration by iteration, on fresh seeds."""
    if (record := _judged("run")) is None:
        return NO_RUN
    heading = ["iteration", "agents", "in the game", "median", "the dream says"]
    lines = [_row(heading), "|---" * len(heading) + "|"]
    for number, (kind, label) in itertools.product(sorted({each["round"] for each in record["controllers"]}), AGENTS.items()):
        if group := [each for each in record["controllers"] if (each["round"], each["kind"]) == (number, kind)]:
            awake = [Returns.from_json(each["awake"]) for each in group]
            cells = [", ".join(f"{one.mean:.0f} ± {one.std:.0f}" for one in awake), ", ".join(f"{one.median:.0f}" for one in awake)]
            promised = ", ".join(f"{each['dream']['mean']:.0f} ± {each['dream']['std']:.0f}" for each in group)
            lines.append(_row([str(number), label, *cells, promised]))
    controls = _judged("controls")
    if controls is not None:
        blind = {name: Returns.from_json(returns) for name, returns in controls["baselines"]["judged"].items()}
        best = controls["baselines"]["best"]
        for label, name in (("random actions", "random"), (f"best of all blind policies: {best}", best)):
            lines.append(_row(["", label, f"{blind[name].mean:.0f} ± {blind[name].std:.0f}", f"{blind[name].median:.0f}", ""]))
    return [*lines, "", f"{record['episodes']} episodes each, all at a frame skip of {record['frame_skip']}."]


def controls_table() -> list[str]:
    """The agent beside blind policies on the same seeds, and beside its unseen twin."""
    if (record := _judged("controls")) is None:
        return NO_RUN
    against, yoked, lengths = (record[name] for name in ("against", "yoked", "lengths"))
    agent, blind = (Returns.from_json(against[name]) for name in ("first", "second"))
    return [
        _row(["control", "", ""]),
        "|---|---|---|",
        _row(["the agent", f"{agent.mean:.0f} ± {agent.std:.0f}", f"median {agent.median:.0f}, n = {agent.n}"]),
        _row([f"the best blind policy, {against['names'][1]}", f"{blind.mean:.0f} ± {blind.std:.0f}", "on the same seeds"]),
        _row(["their ratio", f"{against['ratio']:.2f} ± {against['ratio_error']:.2f}", f"p = {against['p_value']:.2g}, paired"]),
        _row(
            [
                "yoked twins: who dies first",
                f"the seen {yoked['seen_first']}, the unseen {yoked['unseen_first']}",
                f"of {yoked['pairs']}; {_p(yoked['p_value'])}, exact sign test",
            ]
        ),
        _row(["random lives, asleep over awake", f"{lengths['ratio']:.2f} ± {lengths['ratio_error']:.2f}", "mean lengths"]),
    ]


def linear_twins() -> list[str]:
    """Whether linear controllers see, a line each: one of a study of temperatures, and the actor-critic's clone."""
    found = {"linear-twins": "C of the study below, {setting}", "clone-twins": "The actor-critic's clone in C"}
    lines = []
    for name, who in found.items():
        if (record := _judged(name)) is not None:
            yoked, (low, high) = record["yoked"], record["yoked"]["hazard_interval"]
            ratio = "" if None in (yoked["hazard_ratio"], high) else f"; hazard ratio {yoked['hazard_ratio']:.2f}, {low:.2f} to {high:.2f}"
            dies = f"the seen twin dies first in {yoked['seen_first']} pairs of {yoked['pairs']}, the unseen one in {yoked['unseen_first']}"
            lines.append(f"- {who.format(setting=_setting(record['setting']))}: {dies} ({_p(yoked['p_value'])}{ratio}).")
    return lines or NO_RUN


def _setting(folder: str) -> str:
    """What the name of a search's folder says: tau-1.15-dropout-0.05-1."""
    place, _, search = folder.rpartition("-")
    return f"{place.replace('-dropout-', ', dropout ').replace('-', ' ')}, search {search}"


def fidelity_table() -> list[str]:
    """Blind policies in both worlds, and the end's reliability."""
    if (record := _judged("fidelity")) is None:
        return NO_RUN
    fixed, ends = record["fixed_policies"], record["reliability"]
    lines = [_row(["blind policy", "steps in the game", "in the dream"]), "|---|---|---|"]
    for name, both in fixed["policies"].items():
        lines.append(_row([name, *(f"{both[world]['mean_length']:.0f}" for world in ("real", "dream"))]))
    lines += ["", f"Rank correlation {fixed['rank_correlation']:.2f}, r.m.s. log ratio of lengths {fixed['log_length_ratio']:.2f}."]
    foretold = ends["expected_ends"] * ends["ends"]
    happened = f"Ends one step ahead, on {ends['n']:,} held-out rows: {ends['ends']} came where {foretold:.0f} were foretold"
    loss = f"log loss {ends['log_loss']:.4f} ({ends['log_loss_of_base_rate']:.4f} for who knows the base rate only)"
    lines += ["", f"{happened}, expected calibration error {ends['expected_calibration_error']:.4f}, {loss}."]
    return lines


def temperature_table(path: Path = RECORDS / "temperature.json") -> list[str]:
    """The study's own table; the file is study.json as `dreamgym temperature` writes it."""
    if not path.exists():
        return NOTHING
    study = TemperatureStudy.from_json(json.loads(path.read_text()))
    heading, *rows = study.rows()
    remarks = [f"{line}." for line in (study.title, *study.remarks())]
    return [_row(heading), "|---" * len(heading) + "|", *map(_row, rows), "", *(f"- {line}" for line in remarks)]


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in (cell.replace("|", "\\|") for cell in cells)) + "|"


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
    yield "<!-- results:world-models -->", run_table
    yield "<!-- results:controls -->", controls_table
    yield "<!-- results:fidelity -->", fidelity_table
    yield "<!-- results:linear-twins -->", linear_twins
    yield "<!-- results:temperature-gradient -->", partial(temperature_table, RECORDS / "temperature-gradient.json")
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
