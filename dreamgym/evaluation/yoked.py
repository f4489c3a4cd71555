"""The yoked control: does seeing help? An unseen twin gets the same actions, so a policy that does not use its eyes ties with it.

A good return does not show that an agent sees: in Doom TakeCover a blind sweep scores nearly as much as dream-trained controllers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dreamgym.evaluation.returns import TWIN_SEEDS_FROM, batch_of_one, report_seeds, to_numpy
from dreamgym.evaluation.statistics import proportion_interval, sign_flip_test, sign_test
from dreamgym.structs import Policy

__all__ = ["YokedControl", "yoked_control"]


@dataclass(frozen=True)
class YokedControl:
    """Pairs of episodes under the same actions, chosen by looking at the first of the two. Entry k of each tuple belongs to pair k.

    A pair is decided, and over, when either of the two ends; steps [pairs] is how many agent steps that took, and everything counts those
    steps only. seen_ended and unseen_ended say which of the two terminated in the last of them (a time limit is no end).

    If looking were of no use to the actions, the two of a pair could be swapped, so the tests are exact. A small p therefore says that
    the policy uses something it sees to the good or bad of its episode; it does not say what (a fireball, or only the walls, which the
    twin meets a little elsewhere). A large p says that this many pairs show no use of seeing, not that there is none.
    """

    steps: tuple[int, ...]
    seen_ended: tuple[bool, ...]
    unseen_ended: tuple[bool, ...]
    seen_returns: tuple[float, ...]
    unseen_returns: tuple[float, ...]
    seeds: tuple[int, ...]
    twin_seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.steps or len({len(column) for column in vars(self).values()}) != 1:
            raise ValueError("a yoked control needs at least one pair, and as many entries of every kind.")

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.steps)

    @property
    def seen_first(self) -> int:
        """Pairs in which only the seen episode terminated."""
        return sum(seen and not unseen for seen, unseen in zip(self.seen_ended, self.unseen_ended))

    @property
    def unseen_first(self) -> int:
        """Pairs in which only the unseen twin terminated."""
        return sum(unseen and not seen for seen, unseen in zip(self.seen_ended, self.unseen_ended))

    @property
    def both(self) -> int:
        """Pairs that terminated in the same step."""
        return sum(seen and unseen for seen, unseen in zip(self.seen_ended, self.unseen_ended))

    @property
    def neither(self) -> int:
        """Pairs that a time limit stopped."""
        return self.pairs - self.seen_first - self.unseen_first - self.both

    @property
    def p_value(self) -> float:
        """Two-sided exact sign test of seen_first against unseen_first; pairs without a first are left out. 1 where nobody ends."""
        return sign_test(self.unseen_first, self.seen_first)

    @property
    def hazard_ratio(self) -> float | None:
        """How many times likelier per step the unseen twin is to terminate: unseen_first / seen_first. None where no seen one came first.

        Both of a pair were exposed for the same steps, so the counts stand for the rates. Above 1 seeing saves, where ends are bad.
        """
        return self.unseen_first / self.seen_first if self.seen_first else None

    @property
    def hazard_interval(self) -> tuple[float, float]:
        """Exact 95% interval of the hazard ratio (Clopper-Pearson of unseen_first, as odds); (0, inf) where nothing was decided."""
        low, high = proportion_interval(self.unseen_first, self.unseen_first + self.seen_first)
        return low / (1.0 - low), high / (1.0 - high) if high < 1.0 else float("inf")

    @property
    def differences(self) -> NDArray[np.float64]:
        """Return of the seen episode minus the unseen twin's over the steps that both lived, [pairs]."""
        return np.asarray(self.seen_returns) - np.asarray(self.unseen_returns)

    @property
    def difference(self) -> float:
        """Mean of `differences`. Where a step of life always pays the same it is 0 whoever dies first: look at `p_value` there."""
        return float(self.differences.mean())

    @property
    def difference_error(self) -> float:
        """Standard error of `difference`; nan for one pair."""
        return float(self.differences.std(ddof=1) / np.sqrt(self.pairs)) if self.pairs > 1 else float("nan")

    @property
    def difference_p_value(self) -> float:
        """Two-sided p of a sign-flip test of `differences`: for worlds in which nobody dies, and goals that are reached."""
        return sign_flip_test(self.differences)

    def table(self) -> str:
        """Plain text for a terminal."""
        low, high = self.hazard_interval
        ratio = "undefined" if self.hazard_ratio is None else f"{self.hazard_ratio:.2f}"
        return "\n".join(
            [
                f"{self.pairs} pairs under the same actions, {np.mean(self.steps):.1f} steps on average until one ended",
                f"only the seen one ended  {self.seen_first:>6}",
                f"only the unseen twin     {self.unseen_first:>6}  p = {self.p_value:.2g} (exact sign test, two-sided)",
                f"both in the same step    {self.both:>6}",
                f"neither (time limit)     {self.neither:>6}",
                f"hazard ratio unseen / seen {ratio} (95% interval {low:.2f} to {high:.2f})",
                f"return seen - unseen over the time both lived {self.difference:.4g} ± {self.difference_error:.3g} (s.e.), "
                f"p = {self.difference_p_value:.2g}",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """The summary and every pair."""
        low, high = self.hazard_interval
        summary = {
            "pairs": self.pairs,
            "seen_first": self.seen_first,
            "unseen_first": self.unseen_first,
            "both": self.both,
            "neither": self.neither,
            "p_value": self.p_value,
            "hazard_ratio": self.hazard_ratio,
            "hazard_interval": [low, high if np.isfinite(high) else None],
            "difference": self.difference,
            "difference_error": self.difference_error if self.pairs > 1 else None,
            "difference_p_value": self.difference_p_value,
        }
        return {**summary, "episodes": {name: list(column) for name, column in vars(self).items()}}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> YokedControl:
        """Undo `to_json`."""
        return cls(**{name: tuple(column) for name, column in saved["episodes"].items()})


def yoked_control(
    agent: Policy,
    seen: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    unseen: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    pairs: int = 200,
    *,
    seeds: Sequence[int] | None = None,
    twin_seeds: Sequence[int] | None = None,
    deterministic: bool = True,
    progress: bool = False,
) -> YokedControl:
    """Let `agent` act on what it sees of `seen`, do the same in `unseen`, and see who ends first and who earns more until then.

    The two are the same world with as many rows (a vector env of both is faster); only `seen` needs the agent's observations, so
    `yoked_control(agent, awake_env(model), awake_env(model, obs_type=None))` saves the twin's encoder. Pair k is seeded seeds[k], by
    default `report_seeds`, and twin_seeds[k]; whatever the seed decides must differ between the two, or the twins are one. A free
    row takes the next pair until all are played to their decision. Both envs are left open.
    Raises ValueError if the two are one object or differ in rows or actions, or for a pair seeded alike.
    """
    chosen = report_seeds(pairs) if seeds is None else tuple(int(seed) for seed in seeds)
    others = tuple(range(TWIN_SEEDS_FROM, TWIN_SEEDS_FROM + len(chosen))) if twin_seeds is None else tuple(map(int, twin_seeds))
    _check(seen, unseen, chosen, others)
    twins = _Twins(_rows(seen), _rows(unseen), chosen, others)
    with tqdm(total=len(chosen), desc="yoked control", unit="pair", disable=not progress) as bar:
        twins.play(agent, deterministic, bar)
    return YokedControl(
        steps=tuple(twins.steps.tolist()),
        seen_ended=tuple(twins.ended[0].tolist()),
        unseen_ended=tuple(twins.ended[1].tolist()),
        seen_returns=tuple(twins.returns[0].tolist()),
        unseen_returns=tuple(twins.returns[1].tolist()),
        seeds=chosen,
        twin_seeds=others,
    )


class _Twins:
    """Plays pairs in the rows of two vector envs; index 0 is the seen one."""

    def __init__(self, seen: Any, unseen: Any, seeds: Sequence[int], twin_seeds: Sequence[int]) -> None:
        self.envs = (seen, unseen)
        self.seeds = (seeds, twin_seeds)
        N = len(seeds)
        self.steps, self.ended, self.returns = np.zeros(N, np.int64), np.zeros((2, N), bool), np.zeros((2, N))

    def play(self, agent: Policy, deterministic: bool, bar: Any) -> None:
        N, B = len(self.steps), self.envs[0].num_envs
        pair, begun = np.arange(B), B  # N and above: an idle row, which is stepped along and not counted
        begins, state = np.ones(B, bool), None
        obs = self._reset(pair, None)
        while (pair < N).any():
            action, state = agent.predict(obs, state=state, episode_start=begins, deterministic=deterministic)
            obs, begins = self._step(action, pair)
            bar.update(int((begins & (pair < N)).sum()))
            pair[begins] = np.arange(begun, begun + begins.sum())
            begun += int(begins.sum())
            if begins.any() and (pair < N).any():
                obs = self._reset(pair, begins)

    def _step(self, action: Any, pair: NDArray[np.int64]) -> tuple[Any, NDArray[np.bool_]]:
        """One step of both; returns what is seen, and which rows' pairs are decided."""
        counts, decided, observations = pair < len(self.steps), np.zeros(len(pair), bool), []
        for twin, env in enumerate(self.envs):
            obs, reward, terminated, truncated, _ = env.step(action)
            self.returns[twin, pair[counts]] += to_numpy(reward)[counts]
            self.ended[twin, pair[counts]] = to_numpy(terminated)[counts]
            decided |= np.asarray(to_numpy(terminated), bool) | np.asarray(to_numpy(truncated), bool)
            observations.append(obs)
        self.steps[pair[counts]] += 1
        return to_numpy(observations[0]), decided

    def _reset(self, pair: NDArray[np.int64], rows: NDArray[np.bool_] | None) -> Any:
        """Begin the next pairs in a mask of rows (None: all); returns what is seen."""
        last, observations = len(self.steps) - 1, []
        for env, seeds in zip(self.envs, self.seeds):
            drawn = [seeds[min(index, last)] if rows is None or rows[row] else None for row, index in enumerate(pair.tolist())]
            obs, _ = env.reset(seed=drawn, **({} if rows is None else {"options": {"reset_mask": rows.copy()}}))
            observations.append(obs)
        return to_numpy(observations[0])


class _SingleRow:
    """A single env as a vector env of one, as far as twins need."""

    num_envs = 1

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env

    def reset(self, *, seed: list[int], options: Any = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed[0])
        return batch_of_one(obs), info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(np.asarray(action)[0])
        return batch_of_one(obs), np.array([float(reward)]), np.array([terminated]), np.array([truncated]), info


def _rows(env: Any) -> Any:
    return env if isinstance(env, VectorEnv) else _SingleRow(env)


def _check(seen: Any, unseen: Any, seeds: Sequence[int], twin_seeds: Sequence[int]) -> None:
    if seen is unseen:
        raise ValueError("seen and unseen are one object; expected two environments of the same world.")
    if _rows(seen).num_envs != _rows(unseen).num_envs:
        raise ValueError(f"seen has {_rows(seen).num_envs} rows and unseen {_rows(unseen).num_envs}; expected as many.")
    if seen.action_space != unseen.action_space:
        raise ValueError(f"seen acts in {seen.action_space} and unseen in {unseen.action_space}; expected the same world twice.")
    if not seeds or len(seeds) != len(twin_seeds):
        raise ValueError(f"there are {len(seeds)} seeds and {len(twin_seeds)} twin_seeds; expected as many, and at least one.")
    alike = [seed for seed, other in zip(seeds, twin_seeds) if seed == other]
    if alike:
        raise ValueError(f"pairs are seeded alike with {alike[:3]}; a twin with the same seed is no twin but the same episode.")
