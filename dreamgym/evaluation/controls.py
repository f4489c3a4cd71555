"""Yardsticks without which a score means little: the best of all blind policies, and a random policy's episodes dreamt and lived."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dreamgym.evaluation.comparison import awake_env, judging_dream
from dreamgym.evaluation.panel import evaluate_blind
from dreamgym.evaluation.policies import SWEEP_PERIODS, OpenLoopPolicy, constant_policies, random_policy, sweep_policies
from dreamgym.evaluation.returns import SEARCH_SEEDS_FROM, Returns, evaluate, report_seeds
from dreamgym.evaluation.statistics import shuffle_test, sign_flip_test, sign_test
from dreamgym.structs import DreamableModel, Policy

__all__ = [
    "LengthCheck",
    "OpenLoopBaselines",
    "PairedComparison",
    "compare_with_blind",
    "open_loop_baselines",
    "random_length_check",
]

ROUNDS = 3
KEPT = 4  # one in so many candidates reaches the next round of the search, where it plays twice as many episodes


@dataclass(frozen=True)
class OpenLoopBaselines:
    """What can be earned without looking. `searched` are returns of all candidates on the search's own seeds; the best of so many looks
    better there than it is, so it and the constants and random actions are judged again on fresh seeds: `judged`, the numbers to quote.
    """

    searched: Mapping[str, Returns]
    judged: Mapping[str, Returns]
    best: str
    policies: Mapping[str, OpenLoopPolicy] = field(default_factory=dict)

    @property
    def best_policy(self) -> OpenLoopPolicy:
        """The blind policy that won the search."""
        return self.policies[self.best]

    @property
    def best_returns(self) -> Returns:
        """Its returns on fresh seeds: what an agent must beat before anybody says that it looks."""
        return self.judged[self.best]

    def table(self, most: int = 60) -> str:
        """Plain text: what was judged, then up to `most` of what was searched, best first."""
        ranked = sorted(self.searched, key=lambda name: -self.searched[name].mean)[:most]
        width = max(map(len, (*self.searched, *self.judged)))
        lines = [_line(name, returns, width) for name, returns in self.judged.items()]
        searched = [_line(name, self.searched[name], width) for name in ranked]
        return "\n".join([_head("judged on fresh seeds", width), *lines, "", _head("searched", width), *searched])

    def to_json(self) -> dict[str, Any]:
        """Summaries of the search, and every episode that was judged."""
        searched = {name: returns.brief() for name, returns in self.searched.items()}
        return {"best": self.best, "judged": {name: returns.to_json() for name, returns in self.judged.items()}, "searched": searched}


def open_loop_baselines(
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    *,
    periods: Iterable[int] = SWEEP_PERIODS,
    pairs: Mapping[str, tuple[Any, Any]] | None = None,
    search_episodes: int = 20,
    rounds: int = ROUNDS,
    episodes: int = 100,
    seeds: Sequence[int] | None = None,
    progress: bool = False,
) -> OpenLoopBaselines:
    """Search constants and sweeps of every period for the best blind policy, then judge it on fresh seeds.

    Every candidate plays search_episodes; in each further round the best quarter so far plays twice as many as in the round before, and
    whose mean over all its episodes is highest after `rounds` is best. It, random actions and the constants are judged on `seeds`, by
    default `report_seeds(episodes)`. periods and pairs are those of `sweep_policies`; sweeps centred on the start are tried too, and
    constants. With the defaults and one pair that is about 4,000 episodes. The env needs no model, and is left open.
    Raises TypeError for actions without blind policies, ValueError where there is nothing to play.
    """
    space = getattr(env, "single_action_space", env.action_space)
    chosen = report_seeds(episodes) if seeds is None else tuple(int(seed) for seed in seeds)
    constants, candidates = constant_policies(space), _candidates(space, tuple(periods), pairs)
    searched, best = _search(candidates, env, search_episodes, rounds, progress)
    compared = {"random": random_policy(space), **constants, best: candidates[best]}
    return OpenLoopBaselines(searched, evaluate_blind(compared, env, seeds=chosen, progress=progress), best, {**candidates, **compared})


def _search(candidates: dict[str, OpenLoopPolicy], env: Any, episodes: int, rounds: int, progress: bool) -> tuple[dict[str, Returns], str]:
    """Returns of all candidates, and the name of the best; seeds follow on each other from round to round."""
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1.")
    searched: dict[str, Returns] = {}
    ahead, first = list(candidates), SEARCH_SEEDS_FROM
    for _ in range(rounds):
        played = evaluate_blind({name: candidates[name] for name in ahead}, env, seeds=range(first, first + episodes), progress=progress)
        searched |= {name: _joined(searched[name], returns) if name in searched else returns for name, returns in played.items()}
        ahead.sort(key=lambda name: -searched[name].mean)
        best, ahead = ahead[0], ahead[: math.ceil(len(ahead) / KEPT)]
        first, episodes = first + episodes, 2 * episodes
    return searched, best


@dataclass(frozen=True)
class PairedComparison:
    """Two policies on the same seeds, episode by episode. Raises ValueError if the seeds differ.

    The same seed is the same beginning, and as the policies act differently often little more, so pairing is fair but may save few
    episodes. A small p says that the means differ in this world by more than luck; whether by sight, `yoked_control` tells.
    """

    first: Returns
    second: Returns
    names: tuple[str, str] = ("agent", "blind")

    def __post_init__(self) -> None:
        if self.first.seeds != self.second.seeds:
            raise ValueError(f"{self.names[0]} and {self.names[1]} played other seeds; expected the same ones in the same order.")

    @property
    def differences(self) -> NDArray[np.float64]:
        """First minus second, per seed [n]."""
        return np.asarray(self.first.returns) - np.asarray(self.second.returns)

    @property
    def difference(self) -> float:
        """Mean difference in return."""
        return float(self.differences.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of `difference`; nan for one episode."""
        return _standard_error(self.differences)

    @property
    def p_value(self) -> float:
        """Two-sided p of a sign-flip test of the mean difference."""
        return sign_flip_test(self.differences)

    @property
    def wins(self) -> int:
        """Seeds on which the first earned more."""
        return int((self.differences > 0).sum())

    @property
    def losses(self) -> int:
        """Seeds on which the second earned more."""
        return int((self.differences < 0).sum())

    @property
    def wins_p_value(self) -> float:
        """Two-sided exact sign test of wins against losses: who earns more oftener, never by how much."""
        return sign_test(self.wins, self.losses)

    @property
    def ratio(self) -> float | None:
        """Mean of the first over mean of the second: 1.25 is a quarter more. None unless both are positive."""
        return self.first.mean / self.second.mean if min(self.first.mean, self.second.mean) > 0 else None

    @property
    def ratio_error(self) -> float | None:
        """Standard error of `ratio` (delta method, seeds paired)."""
        if self.ratio is None:
            return None
        residual = np.asarray(self.first.returns) - self.ratio * np.asarray(self.second.returns)
        return _standard_error(residual) / self.second.mean

    def table(self) -> str:
        """Plain text for a terminal."""
        width = max(map(len, self.names))
        ratio = "" if self.ratio is None else f", ratio {self.ratio:.3f} ± {self.ratio_error:.3f} (s.e.)"
        counts = f"{self.wins} seeds won, {self.losses} lost, {self.first.n - self.wins - self.losses} equal"
        return "\n".join(
            [
                _head(f"{self.first.n} seeds", width),
                *(_line(name, returns, width) for name, returns in zip(self.names, (self.first, self.second))),
                f"difference {self.difference:.4g} ± {self.standard_error:.3g} (s.e.), p = {self.p_value:.2g} (sign flips){ratio}",
                f"{counts}, p = {self.wins_p_value:.2g} (exact sign test)",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """The summary, and both down to single episodes."""
        names = ("difference", "standard_error", "p_value", "wins", "losses", "wins_p_value", "ratio", "ratio_error")
        summary = {name: _finite(getattr(self, name)) for name in names}
        return {"names": list(self.names), **summary, "first": self.first.to_json(), "second": self.second.to_json()}


def compare_with_blind(
    agent: Policy,
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    baselines: OpenLoopBaselines,
    *,
    deterministic: bool = True,
    progress: bool = False,
) -> PairedComparison:
    """Play `agent` on the seeds that the best blind policy was judged on; env offers the agent's observations and is left open."""
    seeds = baselines.best_returns.seeds
    returns = evaluate(agent, env, seeds=seeds, deterministic=deterministic, progress=progress)
    return PairedComparison(returns, baselines.best_returns, ("agent", baselines.best))


@dataclass(frozen=True)
class LengthCheck:
    """Episodes of one policy, dreamt and lived: does the dream end as often as the world?

    A ratio near 1 is needed and not enough. Random episodes are short, so a head that ends one in a hundred harmless steps passes here and
    ruins every long life; `fixed_policy_fidelity` with sweeps notices. The p-value asks whether the lengths differ at all,
    which enough episodes always show: judge by the ratio and its interval.
    """

    dream: Returns
    real: Returns

    @property
    def ratio(self) -> float:
        """Mean dreamt length over mean real length."""
        return self.dream.mean_length / self.real.mean_length

    @property
    def ratio_error(self) -> float:
        """Standard error of `ratio` (delta method, independent samples); nan for one episode."""
        relative = [_standard_error(np.asarray(each.lengths, np.float64)) / each.mean_length for each in (self.dream, self.real)]
        return self.ratio * math.hypot(*relative)

    @property
    def p_value(self) -> float:
        """Two-sided p of a shuffle test of the mean lengths."""
        return shuffle_test(self.dream.lengths, self.real.lengths)

    def within(self, share: float) -> bool:
        """Whether the ratio lies in 1 ± share."""
        return abs(self.ratio - 1.0) <= share

    def table(self) -> str:
        """Plain text for a terminal."""
        named = {"dream": self.dream, "real": self.real}
        lines = [_line(name, returns, 7) for name, returns in named.items()]
        verdict = f"dream / real length {self.ratio:.3f} ± {self.ratio_error:.3f} (s.e.), p = {self.p_value:.2g} (shuffle test)"
        return "\n".join([_head("lengths", 7), *lines, verdict])

    def to_json(self) -> dict[str, Any]:
        """The summary, and both down to single episodes."""
        summary = {"ratio": self.ratio, "ratio_error": _finite(self.ratio_error), "p_value": self.p_value}
        return {**summary, "dream": self.dream.to_json(), "real": self.real.to_json()}


def random_length_check(
    model: DreamableModel,
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | None = None,
    policy: Policy | None = None,
    *,
    episodes: int = 200,
    real: Returns | None = None,
    dream_options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> LengthCheck:
    """Episode lengths of a blind policy in the dream and in reality, on `report_seeds`.

    `policy` defaults to uniform random actions; the one that gathered the training data is fairer, since the model has seen its like. env
    defaults to the real one of the model's Spec without latents; a given one is left open. `real` replaces playing: lengths known
    from before. dream_options, such as {"temperature": 1.15}, go to the DreamVectorEnv.
    """
    blind = random_policy(model.spec.action_space) if policy is None else policy
    seeds = report_seeds(episodes)
    dream = judging_dream(model, episodes, **(dream_options or {}))
    try:
        dreamt = evaluate(blind, dream, seeds=seeds, progress=progress)
    finally:
        dream.close()
    if real is not None:
        return LengthCheck(dreamt, real)
    world = awake_env(model, obs_type=None) if env is None else env
    try:
        return LengthCheck(dreamt, evaluate(blind, world, seeds=seeds, progress=progress))
    finally:
        if env is None:
            world.close()


def _candidates(space: Any, periods: tuple[int, ...], pairs: Mapping[str, tuple[Any, Any]] | None) -> dict[str, OpenLoopPolicy]:
    """Constants and sweeps; one of period 1 has no half leg to be centred by."""
    longer = tuple(period for period in periods if period > 1)
    return {**constant_policies(space), **sweep_policies(space, periods, pairs), **sweep_policies(space, longer, pairs, centred=True)}


def _joined(first: Returns, second: Returns) -> Returns:
    return Returns(first.returns + second.returns, first.lengths + second.lengths, first.seeds + second.seeds)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else float("nan")


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _head(title: str, width: int) -> str:
    return f"{title:{width}}  {'mean':>9}  {'std':>8}  {'s.e.':>7}  {'steps':>7}  {'n':>5}"


def _line(name: str, returns: Returns, width: int) -> str:
    numbers = f"{returns.mean:>9.1f}  {returns.std:>8.1f}  {returns.standard_error:>7.1f}  {returns.mean_length:>7.1f}  {returns.n:>5}"
    return f"{name:{width}}  {numbers}"
