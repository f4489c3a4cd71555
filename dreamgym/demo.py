"""The main job, shown: learn to drive in the bundled CarRacing dream, then drive the real CarRacing on tracks never seen."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from dreamgym.dreams.sb3 import DreamVecEnv
from dreamgym.errors import require
from dreamgym.evaluation.comparison import Comparison, awake_env, compare
from dreamgym.evaluation.policies import constant_policies, random_policy
from dreamgym.evaluation.report import Report, write_report
from dreamgym.evaluation.returns import report_seeds
from dreamgym.evaluation.video import film
from dreamgym.hub.bundle import load_bundled

__all__ = ["PPO_DEFAULTS", "Learned", "learn_in_dream", "run_demo"]

NUM_ENVS = 64
PROCESSES = 2
THRESHOLDS = (500.0, 800.0)

DRIVING_STEPS = 400_000  # of dreaming; more lets the policy find what the dream gets wrong


@dataclass(frozen=True)
class FallingRate:
    """Learning rate that falls linearly to zero: the last checkpoint is then as good as any before it."""

    first: float

    def __call__(self, remaining: float) -> float:
        """The rate with `remaining` of the training ahead, 1 to 0."""
        return self.first * remaining


# Little noise and no entropy bonus: with a std of 0.7 the deterministic policy that acts awake is one that never dreamt, and it flings the
# wheel from lock to lock (docs/log.md). What is not named here is SB3's.
PPO_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "policy": "MlpPolicy",
        "policy_kwargs": {"net_arch": [128, 128], "log_std_init": -0.7},
        "n_steps": 64,
        "batch_size": 512,
        "n_epochs": 4,
        "learning_rate": FallingRate(3e-4),
        "gamma": 0.98,  # 50 agent steps ahead are 4 seconds of driving
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
        "device": "cpu",  # such small networks are slower on a GPU
    }
)


# What differs for Pendulum, CartPole and Acrobot; one setting for all three (tests/gates).
CLASSIC_STEPS = 200_000
CLASSIC_PPO: Mapping[str, Any] = MappingProxyType(
    {
        "num_envs": 16,
        "n_steps": 128,
        "batch_size": 256,
        "n_epochs": 10,
        "learning_rate": FallingRate(1e-3),
        "policy_kwargs": {"net_arch": [128, 128]},
    }
)


@dataclass(frozen=True)
class Learned:
    """An SB3 agent that knows only the dream. curve is (dream steps, mean return of the last 100 training episodes)."""

    agent: Any
    curve: tuple[tuple[int, float], ...]
    steps: int
    seconds: float


def learn_in_dream(
    model: Any,
    *,
    steps: int,
    seed: int = 0,
    num_envs: int = NUM_ENVS,
    minutes: float | None = None,
    progress: bool = True,
    dream: Mapping[str, Any] | None = None,
    **ppo: Any,
) -> Learned:
    """Train SB3's PPO on latent observations of a batch of dreams, with PPO_DEFAULTS changed by `ppo`.

    Stops after `steps` dream steps or `minutes`, whichever comes first. Rewards are scaled by their running deviation (SB3's
    VecNormalize; the curve shows the dream's own), so that the same settings serve all environments. `dream` goes to DreamVecEnv;
    the model's own defaults decide the rest. Raises MissingDependencyError without the extra `sb3`.
    """
    sb3 = require("stable_baselines3", extra="sb3", purpose="training in the dream with PPO")
    vec_env = require("stable_baselines3.common.vec_env", extra="sb3", purpose="training in the dream with PPO")
    settings = copy.deepcopy({**PPO_DEFAULTS, **ppo})
    dreams = DreamVecEnv(model, num_envs=num_envs, **{"obs_type": "latent", **(dream or {})})
    env = vec_env.VecNormalize(dreams, norm_obs=False, norm_reward=True, gamma=settings["gamma"])
    try:
        agent = sb3.PPO(env=env, seed=seed, **settings)
        with tqdm(total=steps, desc="dream", unit=" steps", unit_scale=True, disable=not progress) as bar:
            watch = _watch(sb3, bar, minutes)
            agent.learn(steps, callback=watch)
        return Learned(agent, tuple(watch.curve), agent.num_timesteps, time.perf_counter() - watch.began)
    finally:
        env.close()


def _watch(sb3: Any, bar: Any, minutes: float | None) -> Any:
    """A callback that keeps the curve and the clock; built here because SB3 is imported only when it is needed."""

    class Watch(sb3.common.callbacks.BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.curve: list[tuple[int, float]] = []
            self.began = time.perf_counter()

        def _on_step(self) -> bool:
            bar.update(self.training_env.num_envs)
            return minutes is None or time.perf_counter() - self.began < 60.0 * minutes

        def _on_rollout_end(self) -> None:
            episodes = self.model.ep_info_buffer
            if episodes:
                self.curve.append((self.num_timesteps, float(np.mean([episode["r"] for episode in episodes]))))
                bar.set_postfix_str(f"dream return {self.curve[-1][1]:.0f}")

    return Watch()


def run_demo(
    out: str | Path = "demo",
    *,
    steps: int = DRIVING_STEPS,
    minutes: float | None = 5.0,
    tracks: int = 20,
    seed: int = 0,
    model: str = "CarRacing",
) -> Comparison:
    """Learn in a bundled dream, drive the real world, write `out`/report.html, `out`/drive.mp4 and `out`/agent.zip, say what happened.

    steps or minutes limit the learning, whichever comes first. The film shows the first reported track, not the best.
    """
    if tracks < 1:
        raise ValueError(f"tracks is {tracks}; expected at least 1.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    world = load_bundled(model)
    print(f"Learning {world.spec.env_id} inside its bundled dream; the real one is not touched.")
    learned = learn_in_dream(world, steps=steps, seed=seed, minutes=minutes)
    learned.agent.save(out / "agent.zip")
    print(f"Awake: {tracks} episodes of the real {world.spec.env_id} that neither the dream nor the agent has met.")
    compared = _judge(learned.agent, world, tracks)
    print(compared.table())
    video = _film(learned.agent, world, out / "drive.mp4")
    facts = {
        "Learning": f"SB3 PPO, seed {seed}, {learned.steps:,} steps in {NUM_ENVS} dreams, {learned.seconds:.0f} s",
        "PPO settings": ", ".join(f"{key} {value}" for key, value in PPO_DEFAULTS.items()),
    }
    limits = f"--steps {steps}" + ("" if minutes is None else f" --minutes {minutes:g}")
    command = f"dreamgym demo --out {out} {limits} --tracks {tracks} --seed {seed} --model {model}"
    title = f"{world.spec.env_id}, learned in a dream"
    page = write_report(Report(title, compared, learned.curve, video, command, facts), out / "report.html")
    print(_last_line(compared, learned, page))
    return compared


def _judge(agent: Any, world: Any, tracks: int) -> Comparison:
    constants = constant_policies(world.spec.action_space)
    straight = list(constants)[-1]  # CarRacing: some gas, straight on
    baselines = {"random actions": random_policy(world.spec.action_space), f"constant action ({straight})": constants[straight]}
    env = awake_env(world, num_envs=min(PROCESSES, tracks))
    try:
        return compare(agent, world, env, episodes=tracks, thresholds=THRESHOLDS, baselines=baselines, progress=True)
    finally:
        env.close()


def _film(agent: Any, world: Any, path: Path) -> Path:
    env = awake_env(world, render_mode="rgb_array")
    try:
        return film(agent, env, path, seed=report_seeds(1)[0]).path
    finally:
        env.close()


def _last_line(compared: Comparison, learned: Learned, page: Path) -> str:
    blind = next(iter(compared.baselines.values()))
    return (
        f"Learned {learned.steps:,} steps in the dream only ({learned.seconds:.0f} s); awake on {compared.awake.n} unseen episodes of "
        f"{compared.env_id}: {compared.awake} against {blind.mean:.0f} for random actions; "
        f"the dream says {compared.dream.mean:.0f}. See {page}"
    )
