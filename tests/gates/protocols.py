"""The learning gates' protocols: train, judge awake on seeds that picked nothing, write down every episode."""

from __future__ import annotations

import json
import time

import torch

from dreamgym.agents.belief import BeliefPolicy
from dreamgym.demo import CLASSIC_PPO, CLASSIC_STEPS, DRIVING_STEPS, learn_in_dream
from dreamgym.evaluation.comparison import Comparison, compare
from dreamgym.evaluation.returns import report_seeds
from dreamgym.hub import bundle
from dreamgym.training.loop import Run, fit
from tests.gates.records import ROOT, RUNS, blind, curve, seconds

RESULTS = ROOT / "benchmarks" / "results" / "gates"
CLASSIC_SEEDS = range(3_000_000, 3_000_100)  # PPO's settings and the guard were chosen on others, from 4,000,000


def ensemble_gate(env_id: str, env_steps: int, seed: int) -> Comparison:
    """fit an ensemble on env_steps real steps, train PPO only in its dream, judge 100 episodes awake."""
    torch.set_num_threads(1)
    began = time.time()
    run = fit(env_id, "ensemble", env_steps=env_steps, seed=seed, out=RUNS / f"gate-{env_id}-{seed}", progress=False)
    learned = learn_in_dream(run.model, steps=CLASSIC_STEPS, seed=seed, progress=False, **CLASSIC_PPO)
    result = compare(learned.agent, run.model, seeds=CLASSIC_SEEDS, baselines=blind(run.model))
    _write(f"ensemble-{env_id}-{seed}", result, began, run=run, dream_steps=learned.steps)
    return result


def driving_gate(seed: int) -> Comparison:
    """fit CarRacing from nothing with the vae-rssm preset, judge its own agent on 50 unseen tracks."""
    torch.set_num_threads(1)
    began = time.time()
    run = fit("CarRacing-v3", "vae-rssm", seed=seed, out=RUNS / f"car-racing-{seed}", progress=False)
    result = compare(run.agent, run.model, seeds=report_seeds(50), thresholds=(800.0,), baselines=blind(run.model))
    _write(f"driving-fit-{seed}", result, began, run=run)
    return result


def frozen_gate(seed: int) -> Comparison:
    """Train a fresh PPO in the bundled, frozen CarRacing dream, judge its last checkpoint on 50 unseen tracks."""
    torch.set_num_threads(1)
    began = time.time()
    model = bundle.load_bundled("CarRacing")
    learned = learn_in_dream(model, steps=DRIVING_STEPS, seed=seed, progress=False)
    result = compare(learned.agent, model, seeds=report_seeds(50), thresholds=(800.0,), baselines=blind(model))
    _write(f"driving-frozen-{seed}", result, began, dream_steps=learned.steps)
    return result


def online_gate(env_id: str, preset: str, env_steps: int, seed: int) -> Comparison:
    """fit with a paper's preset at size tiny, judge its last agent on 20 real episodes that picked nothing."""
    torch.set_num_threads(1)
    began = time.time()
    name = f"{preset}-{env_id.replace('/', '-')}-{seed}"
    run = fit(env_id, preset, size="tiny", env_steps=env_steps, seed=seed, out=RUNS / f"gate-{name}", progress=False)
    latent = hasattr(run.agent, "predict")
    policy = run.agent if latent else BeliefPolicy(run.agent, run.model)
    result = compare(policy, run.model, seeds=report_seeds(20), baselines=blind(run.model), obs_type="latent" if latent else None)
    _write(name, result, began, run=run, curve=curve(run.folder))
    return result


def _write(
    name: str,
    result: Comparison,
    began: float,
    *,
    run: Run | None = None,
    dream_steps: int | None = None,
    curve: dict[str, list[list[float]]] | None = None,
) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        "name": name,
        "seconds_here": round(time.time() - began, 1),
        "real_steps": None if run is None else run.metrics["env_steps"],
        "validation": None if run is None else run.metrics["validation"],
        "seconds_of_fit": None if run is None else seconds(run.folder),
        "dream_steps": dream_steps,
        "updates": None if run is None else run.metrics.get("updates"),
        "curve": curve,
        "comparison": result.to_json(),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{name}\n{result.table()}")
