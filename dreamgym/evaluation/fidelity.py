"""How far a dream is from reality, in numbers that ship with the model (`fidelity.json`).

Three views, since none is enough alone: errors on held-out real sequences, returns of blind policies in both worlds, and one
trained policy's returns in both worlds. In the TakeCover prototype only the second noticed a badly calibrated end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamgym.evaluation.comparison import awake_env, compare, judging_dream
from dreamgym.evaluation.panel import evaluate_blind
from dreamgym.evaluation.policies import OpenLoopPolicy, constant_policies, open_loop_policies, random_policy, sweep_policies
from dreamgym.evaluation.prediction_errors import correlation, one_step_errors, open_loop_errors
from dreamgym.evaluation.returns import REPORT_SEEDS_FROM, Returns, report_seeds
from dreamgym.formats.files import replace_files
from dreamgym.structs import Policy, SequenceBatch

__all__ = [
    "FixedPolicyFidelity",
    "fixed_policy_fidelity",
    "measure",
    "one_step_errors",
    "open_loop_errors",
    "open_loop_policies",
    "spearman",
    "versions",
    "write_fidelity",
]

FORMAT = 1
ENDS_EARLY = 0.95  # share of the time limit below which episodes count as ending early


@dataclass(frozen=True)
class FixedPolicyFidelity:
    """Returns of the same blind policies in the dream and in reality."""

    dream: Mapping[str, Returns]
    real: Mapping[str, Returns]
    max_episode_steps: int

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of mean returns: does the dream rank behaviours as the world does? None if all are equal in one of the two."""
        return spearman(*self._means())

    @property
    def linear_correlation(self) -> float | None:
        """Pearson's, of mean returns."""
        return correlation(*self._means())

    @property
    def log_return_ratio(self) -> float | None:
        """Root mean square of ln(dream return / real return): 0.2 is wrong by a fifth up or down. None unless all means are positive.

        Where every step of life pays 1 it is log_length_ratio with the policies that survive in both worlds counted in.
        """
        dream, real = self._means()
        if min(dream.min(), real.min()) <= 0:
            return None
        return float(np.sqrt(np.square(np.log(dream / real)).mean()))

    @property
    def log_length_ratio(self) -> float | None:
        """Root mean square of ln(dream length / real length), over policies whose episodes end early in one of the worlds."""
        limit = ENDS_EARLY * self.max_episode_steps
        pairs = [(self.dream[name].mean_length, self.real[name].mean_length) for name in self.real]
        ratios = [math.log(dream / real) for dream, real in pairs if min(dream, real) < limit]
        return math.sqrt(sum(ratio**2 for ratio in ratios) / len(ratios)) if ratios else None

    def table(self) -> str:
        """Plain text, and the correlations below."""
        width = max(len("policy"), *map(len, self.real))
        lines = [f"{'policy':{width}}  {'real return':>22}  {'dream return':>22}  {'real steps':>10}  {'dream steps':>11}"]
        for name, real in self.real.items():
            dream = self.dream[name]
            returns = [f"{each.mean:.1f} ± {each.std:.1f}" for each in (real, dream)]
            lines.append(f"{name:{width}}  {returns[0]:>22}  {returns[1]:>22}  {real.mean_length:>10.1f}  {dream.mean_length:>11.1f}")
        numbers = (self.rank_correlation, self.linear_correlation, self.log_length_ratio, self.log_return_ratio)
        rank, linear, of_lengths, of_returns = ("undefined" if number is None else f"{number:.2f}" for number in numbers)
        ratios = f"r.m.s. log ratio of lengths {of_lengths}, of returns {of_returns}"
        return "\n".join([*lines, f"rank correlation {rank}, linear correlation {linear}, {ratios}"])

    def to_json(self) -> dict[str, Any]:
        """Summaries per policy and the agreements."""
        return {
            "rank_correlation": self.rank_correlation,
            "linear_correlation": self.linear_correlation,
            "log_length_ratio": self.log_length_ratio,
            "log_return_ratio": self.log_return_ratio,
            "policies": {name: {"real": self.real[name].brief(), "dream": self.dream[name].brief()} for name in self.real},
        }

    def _means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array([self.dream[name].mean for name in self.real]), np.array([self.real[name].mean for name in self.real])


def fixed_policy_fidelity(
    model: Any,
    env_fn: Callable[[], Any] | None = None,
    policies: Mapping[str, OpenLoopPolicy] | None = None,
    episodes: int = 20,
    seed: int = REPORT_SEEDS_FROM,
    *,
    periods: Iterable[int] | None = None,
    pairs: Mapping[str, tuple[Any, Any]] | None = None,
    real: Mapping[str, Returns] | None = None,
    dream_options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> FixedPolicyFidelity:
    """Score blind policies in the dream and in reality.

    env_fn builds the real env (single or vector) as preprocessed for `model`; by default from the model's Spec. `policies` defaults to
    `open_loop_policies`, or, with `periods`, to the constants and the sweeps of those periods between `pairs` (see `sweep_policies`).
    `real`, such as an earlier result's, replaces playing in reality; dream_options, such as {"end_probability": 0.3}, go to the
    DreamVectorEnv: so a setting is calibrated on many dreams and one real table. Episode k is seeded seed + k in both worlds; the
    seeds have nothing to do with each other across worlds. Raises ValueError if `real` lacks a policy.
    """
    blind = _blind(model, policies, periods, pairs, seed)
    if real is not None and not set(blind) <= set(real):
        raise ValueError(f"real lacks {sorted(set(blind) - set(real))}; expected returns of every policy that is dreamt.")
    seeds = range(seed, seed + episodes)
    dream = judging_dream(model, episodes * len(blind), **(dream_options or {}))
    try:
        dreamt = evaluate_blind(blind, dream, seeds=seeds, progress=progress)
    finally:
        dream.close()
    lived = _live(model, env_fn, blind, seeds, progress) if real is None else {name: real[name] for name in blind}
    return FixedPolicyFidelity(dreamt, lived, model.spec.max_episode_steps)


def _blind(
    model: Any,
    policies: Mapping[str, OpenLoopPolicy] | None,
    periods: Iterable[int] | None,
    pairs: Mapping[str, tuple[Any, Any]] | None,
    seed: int,
) -> Mapping[str, OpenLoopPolicy]:
    space = model.spec.action_space
    if policies is not None:
        return policies
    if periods is not None:
        return {**constant_policies(space), **sweep_policies(space, periods, pairs)}
    return open_loop_policies(space, seed)


def _live(
    model: Any, env_fn: Callable[[], Any] | None, policies: Mapping[str, OpenLoopPolicy], seeds: Sequence[int], progress: bool
) -> dict[str, Returns]:
    env = awake_env(model, obs_type=None) if env_fn is None else env_fn()
    try:
        return evaluate_blind(policies, env, seeds=seeds, progress=progress)
    finally:
        env.close()


def measure(
    model: Any,
    held_out: SequenceBatch,
    *,
    start: Any = None,
    agent: Policy | None = None,
    env_fn: Callable[[], Any] | None = None,
    policies: Mapping[str, OpenLoopPolicy] | None = None,
    episodes: int = 20,
    seeds: Sequence[int] | None = None,
    context: int = 5,
    data: Mapping[str, Any] | None = None,
    thresholds: Sequence[float] = (),
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All of `fidelity.json`: errors on held_out [B,T], the blind policies, and `agent`'s returns in the dream and awake.

    start: what the model remembers before held_out's rows, as `states_before` says it where they begin in mid-episode. Numbers have 6
    significant digits; what is undefined is None.

    `data` says what the model was trained on, such as {"env_steps": 10000, "episodes": 50}; `notes` is stored as given. `agent` must act
    on the model's latents. env_fn is as in `fixed_policy_fidelity` and is not used for the agent, who needs the filter.
    """
    chosen = report_seeds(episodes) if seeds is None else tuple(seeds)
    fixed = fixed_policy_fidelity(model, env_fn, policies, len(chosen), chosen[0])
    blind = {"random actions": random_policy(model.spec.action_space)}
    rows = {"sequences": len(held_out.reward), "length": held_out.reward.shape[1], "ends": int(held_out.is_terminal.sum())}
    measured = {
        "format": FORMAT,
        "env_id": model.spec.env_id,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": versions(),
        "data": {**(data or {}), "held_out": rows},
        "one_step": one_step_errors(model, held_out, context=context, start=start),
        "open_loop": {
            "context": context,
            "mean_noise": open_loop_errors(model, held_out, context=context, start=start),
            "sampled_noise": open_loop_errors(model, held_out, context=context, sampled=True, start=start),
        },
        "fixed_policies": fixed.to_json(),
        "policy": None if agent is None else compare(agent, model, seeds=chosen, thresholds=thresholds, baselines=blind).to_json(),
        "notes": dict(notes or {}),
    }
    return _rounded(measured)


def write_fidelity(folder: str | Path, fidelity: Mapping[str, Any]) -> Path:
    """Write `fidelity.json` whole or not at all: sorted keys, 6 significant digits, null for what is undefined. Returns its path."""
    path = Path(folder) / "fidelity.json"
    text = json.dumps(_rounded(dict(fidelity)), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    replace_files(path.parent, {path.name: text.encode()})
    return path


def versions() -> dict[str, str]:
    """Versions of what shapes the numbers; packages that are not installed are left out."""
    found = {}
    for package in ("dreamgym", "torch", "numpy", "gymnasium", "stable-baselines3", "box2d-py", "box2d", "vizdoom"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Rank correlation with average ranks for ties; None where one side does not vary."""
    return correlation(_ranks(first), _ranks(second))


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
