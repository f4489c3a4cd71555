"""How long a generation of CMA-ES takes in a dream: 64 candidates x 16 rollouts of TakeCover's MDN-RNN at the paper's size.

    python benchmarks/cmaes_generation.py       # two minutes, one thread; writes benchmarks/results/cmaes_generation.json

The model is untrained, for speed does not depend on what was learnt but for how long dreams last. That is set by hand: "first" is a first
generation (random policies live 67 steps on average, frame skip 4), "late" one of good policies (330 steps); lengths vary as real ones do.
Time is this thread's processor time ("wall" is what the clock said, which on a busy machine is more), medians over the rounds. "split"
says what took it, in shares: memory (LSTM), mixture (its output layer and the sample), noise, controller (features and policy), rest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from gymnasium import spaces

from dreamgym.agents.linear import LinearController, LinearControllerConfig, ThresholdActions
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.models.encoders import CodeStatsConfig
from dreamgym.models.mdn_heads import MDNHeadsConfig
from dreamgym.models.mdn_rnn import MDNRNNConfig
from dreamgym.models.mixture_objective import MixtureObjective
from dreamgym.models.world_model import WorldModel, WorldModelConfig
from dreamgym.structs import DreamDefaults, Spec

CANDIDATES, ROLLOUTS, LIMIT = 64, 16, 525  # 2100 tics at frame skip 4
STAGES = {"first": 67.0, "late": 330.0}  # mean steps of a dream: prototypes/takecover.md
RESULTS = Path(__file__).parent / "results" / "cmaes_generation.json"


def take_cover() -> WorldModel:
    """The paper's M with untrained weights."""
    torch.manual_seed(0)
    spec = Spec("VizdoomTakeCover-v1", spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Discrete(3), max_episode_steps=LIMIT)
    config = WorldModelConfig(
        encoder=CodeStatsConfig(),
        core=MDNRNNConfig(),
        heads=MDNHeadsConfig(),
        objective=MixtureObjective(),
        defaults=DreamDefaults(temperature=1.15),
    )
    model = WorldModel(spec, config).requires_grad_(False)
    model.heads.end.weight.mul_(30.0)  # so that it is the memory which decides when a dream ends
    return model


def set_length(model: WorldModel, controller: LinearController, parameters: torch.Tensor, steps: float) -> None:
    """Move the end head's threshold until dreams last `steps` on average."""
    low, high = -60.0, 60.0
    for _ in range(14):
        middle = 0.5 * (low + high)
        model.heads.end_offset.fill_(middle)
        mean = DreamRollouts(model, controller, rollouts=ROLLOUTS).returns(parameters[::8], seed=0).lengths.float().mean()
        low, high = (middle, high) if mean > steps else (low, middle)


class Stopwatch:
    """Processor time per part; a part inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.thread_time()
            result = function(*args, **kwargs)
            spent = time.thread_time() - start
            self.seconds[part] += spent - self._inner.pop()
            self._inner[-1] += spent
            return result

        return timed


def split(rollouts: DreamRollouts, parameters: torch.Tensor, seed: int) -> dict[str, float]:
    """Shares of a generation's time. Reaches into the rollouts, whose inner seams are what is to be measured."""
    watch, core = Stopwatch(), rollouts._dreamer.core
    seams = [(core, "recur", "memory"), (core, "step", "mixture"), (rollouts._engine, "draw", "noise"), (rollouts, "_act", "controller")]
    for owner, name, part in seams:
        object.__setattr__(owner, name, watch.around(part, getattr(owner, name)))
    watch.around("rest", rollouts.returns)(parameters, seed)
    for owner, name, _ in seams:
        object.__delattr__(owner, name)
    total = sum(watch.seconds.values())
    return {part: round(seconds / total, 3) for part, seconds in watch.seconds.items()}


def generation(model: WorldModel, controller: LinearController, parameters: torch.Tensor, rounds: int, bfloat16: bool) -> dict[str, Any]:
    """Medians over the rounds, each with other noise."""
    rollouts = DreamRollouts(model, controller, rollouts=ROLLOUTS, bfloat16=bfloat16)
    rollouts.returns(parameters, seed=10**6)  # matrix kernels are compiled for each batch size once
    seconds, wall, lengths = [], [], []
    for number in range(rounds):
        start, clock = time.thread_time(), time.perf_counter()
        lengths.append(rollouts.returns(parameters, seed=number * ROLLOUTS).lengths.float())
        seconds.append(time.thread_time() - start)
        wall.append(time.perf_counter() - clock)
    speeds = [float(each.sum()) / spent for each, spent in zip(lengths, seconds)]
    return {
        "seconds": round(statistics.median(seconds), 3),
        "wall_seconds": round(statistics.median(wall), 3),
        "dream_steps_per_second": round(statistics.median(speeds)),
        "mean_length": round(float(torch.stack(lengths).mean()), 1),
        "std_length": round(float(torch.stack(lengths).std()), 1),
        "split": split(rollouts, parameters, seed=0),
    }


def main() -> None:
    """Measure both stages, the first in both precisions, print and write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    model = take_cover()
    controller = LinearController(model.spec, model.core.feature_size, LinearControllerConfig(actions=ThresholdActions(order=(2, 0, 1))))
    parameters = 0.1 * torch.randn(CANDIDATES, len(controller.vector), generator=torch.Generator().manual_seed(1))
    results: dict[str, Any] = {}
    for stage, steps in STAGES.items():
        set_length(model, controller, parameters, steps)
        for precision in ("bfloat16", "float32") if stage == "first" else ("bfloat16",):
            found = generation(model, controller, parameters, chosen.rounds, precision == "bfloat16")
            results[f"{stage}, {precision}"] = found
            print(f"{stage:5} {precision:8} {found}", flush=True)
    record = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "candidates": CANDIDATES,
        "rollouts": ROLLOUTS,
        "rounds": chosen.rounds,
        "generations": results,
    }
    chosen.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
