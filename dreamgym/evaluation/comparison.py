"""The same policy in the dream and awake, side by side, since a dream's returns alone prove nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, VectorEnv

from dreamgym.dreams.awake import LatentObservation, LatentVectorObservation
from dreamgym.dreams.engine import check_model
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.envs.make import make_from_spec
from dreamgym.evaluation.returns import Returns, evaluate, report_seeds
from dreamgym.structs import DreamableModel, Policy

__all__ = ["Comparison", "awake_env", "compare", "judging_dream"]

MOST_DREAMS = 256  # rows of one dream batch; larger batches get slower on a CPU's cache


@dataclass(frozen=True)
class Comparison:
    """What one policy earned in the dream and awake, with baselines awake. thresholds are returns worth counting, such as 800."""

    env_id: str
    dream: Returns
    awake: Returns
    baselines: Mapping[str, Returns] = field(default_factory=dict)
    thresholds: tuple[float, ...] = ()

    @property
    def gap(self) -> float:
        """How much more the dream promises than the world gives, in units of return."""
        return self.dream.mean - self.awake.mean

    def rows(self) -> list[tuple[str, Returns]]:
        """Label and returns, baselines first."""
        blind = [(f"{name}, awake", returns) for name, returns in self.baselines.items()]
        return [*blind, ("agent, awake", self.awake), ("agent, in the dream", self.dream)]

    def table(self) -> str:
        """Plain text for a terminal."""
        shares = [f"≥ {threshold:g}" for threshold in self.thresholds]
        lines = [[self.env_id, "mean", "std", "s.e.", "median", "steps", *shares, "n"]]
        for label, returns in self.rows():
            numbers = (returns.mean, returns.std, returns.standard_error, returns.median, returns.mean_length)
            counted = [f"{returns.share_at_least(threshold):.0%}" for threshold in self.thresholds]
            lines.append([label, *(f"{number:.1f}" for number in numbers), *counted, str(returns.n)])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]) for line in lines
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, down to single episodes."""
        return {
            "env_id": self.env_id,
            "dream": self.dream.to_json(),
            "awake": self.awake.to_json(),
            "baselines": {name: returns.to_json() for name, returns in self.baselines.items()},
            "thresholds": list(self.thresholds),
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Comparison:
        """Undo `to_json`."""
        baselines = {name: Returns.from_json(returns) for name, returns in saved["baselines"].items()}
        dream, awake = Returns.from_json(saved["dream"]), Returns.from_json(saved["awake"])
        return cls(saved["env_id"], dream, awake, baselines, tuple(saved["thresholds"]))


def compare(
    agent: Policy,
    model: DreamableModel,
    real_env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | None = None,
    *,
    episodes: int = 20,
    seeds: Sequence[int] | None = None,
    thresholds: Iterable[float] = (),
    baselines: Mapping[str, Policy] | None = None,
    obs_type: str | None = "latent",
    progress: bool = False,
) -> Comparison:
    """Judge one policy in the dream and awake on the same seeds, with the real time limit and no guard or penalty in the dream.

    real_env defaults to `awake_env(model)`; a given one must offer the agent's observations and is left open. The dream starts from
    true episode starts, at the model's own temperature. `baselines` are judged awake, such as {"random": random_policy(space)}.
    obs_type is what the agent reads: "latent", or None for the model's own observations. Raises TypeError for what is not a model.
    """
    check_model(model)
    chosen = report_seeds(episodes) if seeds is None else tuple(seeds)
    env = awake_env(model, obs_type=obs_type) if real_env is None else real_env
    dream = judging_dream(model, len(chosen), obs_type=obs_type)
    try:
        dreamt = evaluate(agent, dream, seeds=chosen, progress=progress)
        awake = evaluate(agent, env, seeds=chosen, progress=progress)
        blind = {name: evaluate(policy, env, seeds=chosen) for name, policy in (baselines or {}).items()}
    finally:
        dream.close()
        if real_env is None:
            env.close()
    return Comparison(model.spec.env_id, dreamt, awake, blind, tuple(thresholds))


def judging_dream(model: DreamableModel, episodes: int, *, obs_type: str | None = "latent", **options: Any) -> DreamVectorEnv:
    """A batch of dreams fit for judging: whole episodes (the real time limit, true episode starts), no guard, no penalty.

    options go to DreamVectorEnv, such as temperature=1.15.
    """
    settings = {"max_uncertainty": math.inf, "uncertainty_penalty": 0.0, "range_guard": False, **options}
    return DreamVectorEnv(model, num_envs=min(episodes, MOST_DREAMS), obs_type=obs_type, **settings)


def awake_env(model: DreamableModel, *, num_envs: int = 1, obs_type: str | None = "latent", render_mode: str | None = None) -> Any:
    """The real environment as `model` sees it: preprocessing and time limit of its Spec, latents filtered from what really happens.

    One env for num_envs 1, else a vector env with one process per row, which pays where stepping the world is slow (CarRacing).
    """
    check_model(model)
    make = partial(make_from_spec, model.spec, render_mode=render_mode)
    if num_envs == 1:
        env = make()
        return LatentObservation(env, model) if obs_type == "latent" else env
    # spawn: a forked child would inherit torch's threads in an unknown state
    rows = AsyncVectorEnv([make] * num_envs, context="spawn")
    return LatentVectorObservation(rows, model) if obs_type == "latent" else rows
