"""Where gates keep their runs and what they read from a run's log; needs no more packages than `fit` itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dreamgym.evaluation.policies import random_policy

ROOT = Path(__file__).resolve().parents[2]
RUNS = Path(os.environ.get("DREAMGYM_RUNS", ROOT / "runs"))  # resumable: an interrupted gate goes on where it stood


def log_rows(folder: Path, stage: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, of one stage or all; none before the run has begun."""
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if stage in (None, row["stage"])]


def curve(folder: Path) -> dict[str, list[list[float]]]:
    """(env steps, return) of every exploring episode, comparable to published training curves, and of every evaluation."""
    returns = {"explore": "return", "evaluation": "return_mean"}
    return {stage: [[row["env_steps"], round(row[name], 2)] for row in log_rows(folder, stage)] for stage, name in returns.items()}


def seconds(folder: Path) -> float:
    """Wall seconds of all sessions of a run: the log's clock starts anew with each."""
    total = last = 0.0
    for row in log_rows(folder):
        now = float(row["seconds"])
        total += now - last if now >= last else now
        last = now
    return round(total, 1)


def blind(model: Any) -> dict[str, Any]:
    """Who judges nothing: random actions."""
    return {"random actions": random_policy(model.spec.action_space)}
