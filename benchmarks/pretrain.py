"""Make a bundled model: fit it, store it, measure it and a policy that learned only inside it, and keep the command and the log beside it.

    python -m benchmarks.pretrain Pendulum
    python -m benchmarks.pretrain CartPole
    python -m benchmarks.pretrain CarRacing --run runs/car-racing-1
    python -m benchmarks.pretrain CartPoleSwingup --run runs/gate-dreamer-v3-dm_control-cartpole-swingup-v0-0
    python -m benchmarks.pretrain DoomTakeCover --run runs/VizdoomTakeCover-v1-world-models-fast-0

A run folder given with --run is used as it is (resumed if unfinished); otherwise the model is fitted from nothing with the preset below.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cards import PRETRAINED, write_card
from dreamgym.agents.belief import BeliefPolicy
from dreamgym.agents.loading import AGENT_FOLDER
from dreamgym.data import Replay, collect
from dreamgym.demo import CLASSIC_PPO, CLASSIC_STEPS, DRIVING_STEPS, learn_in_dream
from dreamgym.envs import make_env
from dreamgym.evaluation.fidelity import measure, write_fidelity
from dreamgym.evaluation.prediction_errors import states_before
from dreamgym.evaluation.returns import report_seeds
from dreamgym.evaluation.video import film_replay
from dreamgym.formats.files import sha256
from dreamgym.hub import bundle
from dreamgym.hub.config import CONFIG
from dreamgym.hub.registry import ROWS
from dreamgym.structs import SequenceBatch, Spec
from dreamgym.training.harden import Hardening, harden
from dreamgym.training.logger import MetricsLog
from dreamgym.training.loop import Run, fit
from dreamgym.training.presets import PRESETS
from dreamgym.training.world_models_config import EpisodeCollection

WINDOW = 56  # rows: 5 of context and 50 of open loop, and one to spare
MOST_WINDOWS = 200
_FILMED = 300  # agent steps
FRESH_SEED = 2_000_000  # of the episodes that the errors are measured on, beside the held-out random ones


@dataclass(frozen=True)
class Recipe:
    """How a bundled model is made. dtype is how its weights are stored.

    dream_steps: of a PPO that learns in it; None: the run's own agent is measured, bundled and filmed.
    """

    env_id: str
    preset: str
    env_steps: int | None
    dream_steps: int | None
    fresh_episodes: int
    dtype: torch.dtype = torch.float32
    thresholds: tuple[float, ...] = ()
    ppo: Mapping[str, Any] = field(default_factory=dict)
    hardening: Hardening | None = None


RECIPES = {
    "Pendulum": Recipe("Pendulum-v1", "ensemble", 10_000, CLASSIC_STEPS, 10, ppo=CLASSIC_PPO),
    "CartPole": Recipe("CartPole-v1", "ensemble", 10_000, CLASSIC_STEPS, 10, ppo=CLASSIC_PPO),
    "CartPoleSwingup": Recipe("dm_control/cartpole-swingup-v0", "dreamer-v3", 100_000, CLASSIC_STEPS, 10, ppo=CLASSIC_PPO),
    "CartPoleBalance": Recipe("dm_control/cartpole-balance-v0", "dreamer-v3", 100_000, CLASSIC_STEPS, 10, ppo=CLASSIC_PPO),
    "CarRacing": Recipe(
        "CarRacing-v3", "vae-rssm", 250_000, DRIVING_STEPS, 10, dtype=torch.float16, thresholds=(800.0,), hardening=Hardening(rounds=4)
    ),
    "DoomTakeCover": Recipe("VizdoomTakeCover-v1", "world-models-fast", None, None, 10, dtype=torch.float16, thresholds=(750.0,)),
}


def pretrain(name: str, *, run_folder: Path | None, seed: int, episodes: int) -> None:
    """Fit, store, measure; writes dreamgym/pretrained/<name>/."""
    recipe, target = RECIPES[name], PRETRAINED / name
    folder = run_folder or Path("runs") / f"pretrain-{name}-{seed}"
    run = fit(recipe.env_id, recipe.preset, env_steps=recipe.env_steps, seed=seed, out=folder)
    env_steps = run.metrics["env_steps"]
    if recipe.hardening is not None:
        env_steps += _harden(run.model, folder, recipe.hardening, recipe, seed)
    source = {
        "env_id": recipe.env_id,
        "preset": recipe.preset,
        "seed": seed,
        "command": " ".join(["python -m benchmarks.pretrain", *sys.argv[1:]]),
    }
    bundle.save(run.model, target, source=source, dtype=recipe.dtype)
    model = bundle.load_bundled(name)  # what is measured is what is shipped
    agent, who = _agent(run, model, recipe, seed)
    if recipe.dream_steps is None:
        agent.save(target / AGENT_FOLDER)
        print(film_replay(agent, model, target, max_steps=_FILMED, size=256))
    rows, start = _unseen(model, agent, folder / "replay", recipe.fresh_episodes)
    fidelity = measure(
        model,
        rows,
        start=start,
        agent=agent,
        seeds=report_seeds(episodes),
        thresholds=recipe.thresholds,
        data={"env_steps": env_steps, "policies": "random" + (", then its own agents" if run.metrics["validation"] else "")},
        notes={
            "policy": who,
            "errors": "on held-out random episodes and fresh episodes of that policy, half explored",
        },
    )
    write_fidelity(target, fidelity)
    logs = [folder / "metrics.jsonl", *(folder / "hardened").glob("metrics.jsonl")]
    (target / "training_log.jsonl").write_text("".join(path.read_text() for path in logs))
    (target / "training.json").write_text(json.dumps({**source, **json.loads((folder / "config.json").read_text())}, indent=1) + "\n")
    _write_card(name)


def _write_card(name: str) -> None:
    """The card wants the model's row in the registry, which wants the hash of what was just stored: of a new model, say what to write."""
    if name in ROWS:
        print(write_card(name).read_text())
        return
    digest = sha256((PRETRAINED / name / CONFIG).read_bytes())
    print(f'{name} has no card yet. Write it into ROWS in dreamgym/hub/registry.py, with config_sha256 "{digest}";')
    print("then: python -m benchmarks.cards")


def _agent(run: Run, model: Any, recipe: Recipe, seed: int) -> tuple[Any, str]:
    """Who learned only in this dream, and in words."""
    if recipe.dream_steps is None:
        return run.agent, f"{type(run.agent).__name__}, the best of its run's in {len(run.metrics['validation']['returns'])} real episodes"
    learned = learn_in_dream(model, steps=recipe.dream_steps, seed=seed, **recipe.ppo)
    return learned.agent, f"SB3 PPO, {learned.steps} steps in this dream, seed {seed}, last checkpoint"


def _harden(model: Any, folder: Path, settings: Hardening, recipe: Recipe, seed: int) -> int:
    """Show the model what PPO does in it, with much exploration and with little in turn; returns the real steps that took."""
    copy = folder / "hardened"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "replay", copy / "replay")  # the run itself stays as fit left it
    replay, held_out = (Replay(model.spec, copy / "replay" / part) for part in ("train", "held_out"))
    env = make_env(model.spec.env_id, preprocess=model.spec.preprocess)

    def learn(dream: Any, number: int) -> Any:
        wild = {"ent_coef": 0.01, "policy_kwargs": {"net_arch": [128, 128]}} if number % 2 == 0 else {}
        return learn_in_dream(dream, steps=300_000, seed=1000 + number, progress=False, **wild).agent

    steps = harden(
        model,
        replay,
        held_out,
        learn=learn,
        env=env,
        preset=PRESETS[recipe.preset],
        settings=settings,
        recent_from=int(torch.load(folder / "checkpoint.pt", weights_only=True)["counters"][5]),
        log=MetricsLog(copy, progress=True),
        seed=seed,
    )
    env.close()
    return steps * model.spec.preprocess.action_repeat


def _unseen(model: Any, agent: Any, lived: Path, episodes: int) -> tuple[SequenceBatch, Any]:
    """Windows of random episodes kept out of training and of new ones led by the dream-trained agent; the states before them."""
    fresh = Replay(model.spec)
    env = make_env(model.spec.env_id, preprocess=model.spec.preprocess)
    for noise in (0.0, 0.3):
        collect(env, BeliefPolicy(agent, model, explore_noise=noise), fresh, episodes=episodes // 2, seed=FRESH_SEED + int(10 * noise))
    env.close()
    windows, states = [], []
    for replay, chosen in (_kept_out(model.spec, lived), (fresh, fresh.episodes)):
        starts = [row for start, stop in chosen for row in range(start, stop, WINDOW) if row + WINDOW <= len(replay)][:MOST_WINDOWS]
        windows.append(replay.sample_windows(np.array(starts, np.int64), WINDOW))
        states.append(states_before(model, replay, np.array(starts, np.int64)))
    return SequenceBatch.cat(windows), type(states[0]).cat(states)


def _kept_out(spec: Spec, lived: Path) -> tuple[Replay, Sequence[tuple[int, int]]]:
    """The episodes that a run kept out; World Models keeps codes of them, but of the first also pictures, among those V learned from."""
    if not (lived / "pictures").exists():
        replay = Replay(spec, lived / "held_out")
        return replay, replay.episodes
    replay, every = Replay(spec, lived / "pictures"), EpisodeCollection().held_out_every
    return replay, replay.episodes[every - 1 :: every]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--run", type=Path, default=None, help="run folder to use or resume")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=20, help="real episodes per policy")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pretrain(chosen.name, run_folder=chosen.run, seed=chosen.seed, episodes=chosen.episodes)
