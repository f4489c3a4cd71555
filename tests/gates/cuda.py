"""The GPU gate: DreamerV2 at the paper's size, from pictures, for half an hour of wall clock a task, beside the papers' curves.

python -m tests.gates.cuda cartpole-swingup [--minutes 30] [--session 9] [--seed 0] [--device cuda]

--session stops this call after so many minutes; the same call then goes on, until --minutes are used up and the last agent is judged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
from pathlib import Path
from typing import Any

import torch

from dreamgym.evaluation.comparison import compare
from dreamgym.evaluation.returns import report_seeds
from dreamgym.training.loop import Run, fit
from tests.gates.records import ROOT, RUNS, blind, curve, log_rows, seconds

RECORDS = ROOT / "benchmarks" / "results" / "cuda"
PRETRAINED = ROOT / "dreamgym" / "pretrained"
# Returns at so many env steps, from pictures, mean of 5 seeds: danijar/dreamer (TF2) and danijar/dreamerv2, their score files
# (specs/dreamer.md A.8 and B.8).
REFERENCES: dict[str, dict[str, dict[int, float]]] = {
    "cartpole-swingup": {
        "dreamer-v1": {500_000: 489, 1_000_000: 830, 2_000_000: 862, 5_000_000: 864},
        "dreamer-v2": {500_000: 855, 1_000_000: 864, 2_000_000: 870},
    },
    "walker-walk": {
        "dreamer-v1": {500_000: 680, 1_000_000: 941, 2_000_000: 951, 5_000_000: 949},
        "dreamer-v2": {500_000: 927, 1_000_000: 959, 2_000_000: 960},
    },
}


def gpu_gate(
    task: str, *, minutes: float = 30.0, session: float | None = None, seed: int = 0, device: str = "cuda", episodes: int = 20
) -> dict[str, Any]:
    """Train for what is left of `minutes`, at most `session` of them in this call; judge on real episodes once they are used up.

    Returns the record, which is also written. Resumes its own run folder; minutes lost to a kill are not counted, since their steps are
    done again. Raises KeyError for a task without references.
    """
    references, folder = REFERENCES[task], RUNS / f"gpu-{task}-{seed}"
    _free_the_gpu(device)
    left = minutes - seconds(folder) / 60.0
    bound = max(left if session is None else min(left, session), 1e-6)  # nothing left: one more episode, to have the run at hand
    env_id = f"dm_control/{task}-pixels-v0"
    run = fit(env_id, "dreamer-v2", size="paper", seed=seed, device=device, out=folder, progress=False, max_minutes=bound)
    over = run.metrics["finished"] or seconds(folder) >= 60.0 * minutes - 1.0
    record = _record(task, run, minutes, references) | {"comparison": _judged(run, episodes) if over else None}
    record["better_than_bundled"] = _better(record["comparison"], bundled_return(task))
    RECORDS.mkdir(parents=True, exist_ok=True)
    (RECORDS / f"dreamer-v2-{task}-{seed}.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def speed(folder: Path) -> dict[str, float | None]:
    """Env steps a second of the whole loop (acting and learning, not judging), gradient steps a second of learning, learning's share.

    Counted from the first evaluation on, so that random episodes and warming up are left out; None before there was another.
    """
    rows = log_rows(folder, "evaluation")
    loop = learning = 0.0
    for before, row in itertools.pairwise(rows):
        if row["updates_per_second"] > 0.0:  # else nothing was learned in between, as in the random episodes
            loop += (row["env_steps"] - before["env_steps"]) / row["env_steps_per_second"]
            learning += (row["updates"] - before["updates"]) / row["updates_per_second"]
    if loop == 0.0 or learning == 0.0:
        return {"env_steps_per_second": None, "updates_per_second": None, "share_of_learning": None}
    first, last = rows[0], rows[-1]
    return {
        "env_steps_per_second": round((last["env_steps"] - first["env_steps"]) / loop, 2),
        "updates_per_second": round((last["updates"] - first["updates"]) / learning, 3),
        "share_of_learning": round(learning / loop, 3),
    }


def bundled_return(task: str) -> float | None:
    """What the agent of the bundled model of this task earns awake, if there is one."""
    for path in sorted(PRETRAINED.glob("*/fidelity.json")):
        fidelity = json.loads(path.read_text())
        if fidelity["env_id"].startswith(f"dm_control/{task}-") and fidelity["policy"] is not None:
            return float(fidelity["policy"]["awake"]["mean"])
    return None


def _free_the_gpu(device: str) -> None:
    """What a program may choose and a library must not: faster float32 products, and the fastest convolutions for fixed shapes."""
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32; the authors' float16 is coarser
        torch.backends.cudnn.benchmark = True


def _record(task: str, run: Run, minutes: float, references: dict[str, dict[int, float]]) -> dict[str, Any]:
    return {
        "name": f"dreamer-v2-{task}",
        "env_id": run.model.spec.env_id,
        "device": torch.cuda.get_device_name() if run.model.device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "minutes": round(seconds(run.folder) / 60.0, 2),
        "minutes_wanted": minutes,
        "env_steps": run.metrics["env_steps"],
        "updates": run.metrics["updates"],
        "episodes": run.metrics["episodes"],
        "speed": speed(run.folder),
        "curve": curve(run.folder),
        "references": references,
        "bundled_return": bundled_return(task),
    }


def _judged(run: Run, episodes: int) -> dict[str, Any]:
    """The last agent in its own dream and awake, on seeds that picked nothing, beside random actions."""
    result = compare(run.agent, run.model, seeds=report_seeds(episodes), baselines=blind(run.model), obs_type="latent")
    print(result.table())
    return result.to_json()


def _better(comparison: dict[str, Any] | None, bundled: float | None) -> bool | None:
    """Whether the weights are worth keeping: better than the bundled ones, or than chance where there are none; None while not known."""
    if comparison is None:
        return None
    bar = comparison["baselines"]["random actions"]["mean"] if bundled is None else bundled
    return bool(comparison["awake"]["mean"] > bar)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(REFERENCES))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--session", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    record = gpu_gate(**vars(parser.parse_args()))
    print(json.dumps({name: value for name, value in record.items() if name not in ("curve", "comparison", "references")}, indent=1))


if __name__ == "__main__":
    main()
