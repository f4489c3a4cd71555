"""How fast we dream: latent steps per second of both cores, beside what the machine's matrix products would allow.

    python benchmarks/imagination.py            # a few minutes, one thread; writes benchmarks/results/imagination.json

Each case dreams in short blocks that alternate with blocks of plain matrix products, so that a busy neighbour slows both. Time is this
thread's processor time, which on a quiet machine is the clock's ("quiet" in the results says how nearly). Shown are medians over the
rounds. "ceiling" is what a core would reach if it did nothing but the model's matrix products at the best rate seen for any of several
shapes; "share" is how much of that was reached in the same round. Counted are the products that really run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from gymnasium import spaces
from torch.utils.flop_counter import FlopCounterMode

from dreamgym.dreams.env import DreamEnv
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.models.encoders import VectorConfig
from dreamgym.models.ensemble import EnsembleConfig
from dreamgym.models.heads import ArrivalHeadsConfig, LatentHeadsConfig
from dreamgym.models.latents import GaussianLatent
from dreamgym.models.objectives import EnsembleObjective, LatentObjective
from dreamgym.models.rssm import RSSMConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.models.world_model import WorldModel, WorldModelConfig
from dreamgym.structs import Spec

BATCHES = (1, 16, 256, 1024)
MATMULS = ((256, 256, 256), (256, 512, 512), (512, 512, 512), (1024, 1024, 1024), (256, 256, 1024), (1024, 256, 768))
RESULTS = Path(__file__).parent / "results" / "imagination.json"


@dataclass
class Case:
    """Something to time: `block(n)` makes n batch steps. flop is per latent step of one row."""

    core: str
    through: str
    batch: int
    block: Callable[[int], None]
    flop: float
    calls: int = 1
    steps_per_second: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)


def rssm() -> WorldModel:
    """Dreamer V1's sizes on a CarRacing-like world: deter 200, stoch 30, hidden 200; reward, continue, code and ensemble heads."""
    images = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    core = RSSMConfig(latent=GaussianLatent(size=30), deter=200, hidden=200)
    config = WorldModelConfig(VAEConfig(), core, LatentHeadsConfig(), LatentObjective())
    return _model(Spec("Benchmark-v0", images, spaces.Box(-1.0, 1.0, (2,), np.float32), 1000), config)


def ensemble() -> WorldModel:
    """The default ensemble, 5 members of 2 layers of 200, on a world of HalfCheetah's size: 17 numbers, 6 actions."""
    numbers = spaces.Box(-10.0, 10.0, (17,), np.float32)
    config = WorldModelConfig(VectorConfig(), EnsembleConfig(), ArrivalHeadsConfig(), EnsembleObjective())
    return _model(Spec("Benchmark-v0", numbers, spaces.Box(-1.0, 1.0, (6,), np.float32), 1000), config)


def _model(spec: Spec, config: WorldModelConfig) -> WorldModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WorldModel(spec, config).eval().requires_grad_(False)


def cases() -> Iterator[Case]:
    """All combinations, in the order of the table."""
    for core, model in (("RSSM", rssm()), ("ensemble", ensemble())):
        for batch in BATCHES:
            flop = flop_per_step(model, batch)
            yield Case(core, "bare model", batch, bare_block(model, batch), flop)
            for output in ("torch", "numpy"):
                yield Case(core, f"vector env, {output}", batch, vector_block(model, batch, output), flop)
        yield Case(core, "single env", 1, single_block(model), flop_per_step(model, 1))


@torch.inference_mode()
def flop_per_step(model: WorldModel, batch: int) -> float:
    """Floating point operations (2 per multiply-add) of the matrix products in one latent step of one row."""
    noise, action = torch.full((batch, model.noise_lanes), 0.5), torch.zeros(batch, model.spec.action_size)
    with FlopCounterMode(display=False) as counter:
        state = model.step(model.initial(batch), action, noise)
        model.predict(state)
        model.features(state)
    return counter.get_total_flops() / batch


def bare_block(model: WorldModel, batch: int) -> Callable[[int], None]:
    """step, predict and features with noise drawn beforehand: what the model costs without an environment around it."""
    generator = torch.Generator().manual_seed(0)
    noises = cycle([torch.rand(batch, model.noise_lanes, generator=generator).clamp(1e-6, 1 - 1e-6) for _ in range(16)])
    actions = cycle([torch.rand(batch, model.spec.action_size, generator=generator) * 2 - 1 for _ in range(16)])
    state = model.initial(batch)

    @torch.inference_mode()
    def block(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state = model.step(state, next(actions), next(noises))
            model.predict(state)
            model.features(state)

    return block


def vector_block(model: WorldModel, batch: int, output: str) -> Callable[[int], None]:
    """The public vector env, latent observations. An untrained continue head would end half of the dreams, so ends are off."""
    env = DreamVectorEnv(model, num_envs=batch, obs_type="latent", output=output, termination="never")
    env.reset(seed=0)
    drawn = np.random.default_rng(0).uniform(-1, 1, (16, *env.action_space.shape)).astype(np.float32)
    actions = cycle([torch.from_numpy(action) if output == "torch" else action for action in drawn])

    def block(steps: int) -> None:
        for _ in range(steps):
            env.step(next(actions))

    return block


def single_block(model: WorldModel) -> Callable[[int], None]:
    """One latent DreamEnv, reset whenever it ends, as any training script does."""
    env = DreamEnv(model, obs_type="latent", termination="never")
    env.reset(seed=0)
    actions = cycle(np.random.default_rng(0).uniform(-1, 1, (16, *env.action_space.shape)).astype(np.float32))

    def block(steps: int) -> None:
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(next(actions))
            if terminated or truncated:
                env.reset()

    return block


def matmul_rate(shape: tuple[int, int, int], seconds: float) -> float:
    """Operations per second of [m,k] @ [k,n] in float32."""
    m, k, n = shape
    left, right, out = torch.rand(m, k), torch.rand(k, n), torch.empty(m, n)
    count, began = 0, time.thread_time()
    while (elapsed := time.thread_time() - began) < seconds:
        torch.mm(left, right, out=out)
        count += 1
    return 2.0 * m * k * n * count / elapsed


def measure(found: list[Case], rounds: int, seconds: float) -> list[float]:
    """Fill the cases' lists; returns the ceiling of every round."""
    for case in found:
        case.block(3)
        began = time.thread_time()
        case.block(3)
        case.calls = max(1, round(3 * seconds / max(time.thread_time() - began, 1e-6)))
    ceilings: list[float] = []
    for index in range(rounds):
        rates = {shape: matmul_rate(shape, seconds / 2) for shape in MATMULS}
        best = max(rates, key=lambda shape: rates[shape])
        ceilings.append(rates[best])
        for case in found:
            before = matmul_rate(best, seconds / 4)
            began = time.thread_time()
            case.block(case.calls)
            rate = case.calls * case.batch / (time.thread_time() - began)
            # the best product beside this very block, or this round's best: whichever asks more of us
            ceiling = max(before, matmul_rate(best, seconds / 4), ceilings[-1])
            case.steps_per_second.append(rate)
            case.share.append(rate * case.flop / ceiling)
        print(f"round {index + 1} of {rounds}: ceiling {ceilings[-1] / 1e9:.0f} GFLOP/s", flush=True)
    return ceilings


def quiet(began_clock: float, began_thread: float) -> float:
    """Share of the time since then in which this thread had a processor."""
    return (time.thread_time() - began_thread) / (time.perf_counter() - began_clock)


def table(found: list[Case], ceiling: float) -> str:
    """Plain text."""
    lines = [f"{'core':10}{'through':20}{'batch':>6}{'kFLOP/step':>12}{'steps/s':>12}{'ceiling':>12}{'share':>8}"]
    for case in found:
        rate, share = statistics.median(case.steps_per_second), statistics.median(case.share)
        numbers = f"{case.batch:>6}{case.flop / 1e3:>12.0f}{rate:>12,.0f}{ceiling / case.flop:>12,.0f}{share:>8.0%}"
        lines.append(f"{case.core:10}{case.through:20}{numbers}")
    return "\n".join(lines)


def to_json(found: list[Case], ceilings: list[float], had_processor: float) -> dict[str, Any]:
    """What goes into the results folder."""
    rows = [
        {
            "core": case.core,
            "through": case.through,
            "batch": case.batch,
            "flop_per_step": round(case.flop),
            "steps_per_second": round(statistics.median(case.steps_per_second)),
            "steps_per_second_range": [round(min(case.steps_per_second)), round(max(case.steps_per_second))],
            "share_of_ceiling": round(statistics.median(case.share), 4),
        }
        for case in found
    ]
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()},
        "precision": "float32",
        "rounds": len(ceilings),
        "quiet": round(had_processor, 3),
        "ceiling_gflops": round(statistics.median(ceilings) / 1e9, 1),
        "rows": rows,
    }


def cpu_name() -> str:
    """As the kernel tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of one block")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = list(cases())
    began = time.perf_counter(), time.thread_time()
    ceilings = measure(found, options.rounds, options.seconds)
    had_processor = quiet(*began)
    print(table(found, statistics.median(ceilings)))
    print(f"this thread had a processor {had_processor:.0%} of the time")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(to_json(found, ceilings, had_processor), indent=1) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
