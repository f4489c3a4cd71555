"""Policies that never look: the yardsticks that tell whether a dream's returns, or an agent's eyes, mean anything.

A blind sweep gets 849 in Doom TakeCover, where a dream-trained agent gets 957: a score alone does not show that an agent sees.
Scored in the dream and in reality, the same policies show whether the dream ranks behaviours as the world does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from dreamgym import noise

__all__ = ["OpenLoopPolicy", "constant_policies", "open_loop_policies", "random_policy", "sweep_pairs", "sweep_policies"]

SWITCH_PERIODS = (1, 4, 16, 64)  # steps between reversals; the best sweeps of Pendulum (16) and of TakeCover (16 to 64) lie among them
STICKY_STEPS = 8
SWEEP_PERIODS = (*range(1, 9), *range(10, 33, 2), *range(36, 65, 4))  # long neighbours score alike
MOST_SWEPT = 5  # classes, or dimensions, among which pairs are sought


@dataclass(frozen=True)
class OpenLoopPolicy:
    """A policy whose actions depend on the step and on the seed, never on the observation.

    Takes batches [B,...] and single observations. `state` is int64 [B,3] (B is 1 for a single one): the row's episode, its step, and
    how many episodes were begun so far; so the object itself never changes and may be shared.

    kind "cycle" plays `actions` [N,...] in turn, each for `period` steps, as if `offset` steps had been played before; "random" draws
    uniformly anew every `period` steps, with a random phase per episode so that all episodes do not change in the same step.
    """

    kind: Literal["cycle", "random"]
    action_space: spaces.Space[Any]
    period: int = 1
    actions: tuple[Any, ...] = ()
    seed: int = 0
    offset: int = 0

    def predict(
        self,
        observation: Any,
        state: NDArray[np.int64] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Actions of a batch, or the action of a single observation, and the advanced counters.

        Single are a number, a float vector and a uint8 image [Y,X,C]. `deterministic` changes nothing: the seed decides.
        Raises ValueError where that leaves open what is given; episode_start, one flag per row, always says it.
        """
        rows = _batch_size(observation, episode_start)
        counters = count_episodes(rows or 1, state, episode_start)
        actions = self.act(counters[:, 0], counters[:, 1])
        return actions if rows else actions[0], advance(counters)

    def act(self, episode: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[Any]:
        """Actions [B,...] at steps [B] of the episodes numbered [B]."""
        return self._cycle(step + self.offset) if self.kind == "cycle" else self._random(episode, step)

    def _cycle(self, step: NDArray[np.int64]) -> NDArray[Any]:
        chosen = np.asarray(self.actions, dtype=self.action_space.dtype)
        return chosen[(step // self.period) % len(self.actions)]

    def _random(self, episode: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[Any]:
        seed, begun = torch.tensor(self.seed), torch.from_numpy(episode)
        phase = (noise.uniform(seed, begun, torch.tensor(-1), 1)[:, 0].numpy() * self.period).astype(np.int64)
        lanes = max(1, int(np.prod(self.action_space.shape or ())))
        drawn = noise.uniform(seed, begun, torch.from_numpy((step + phase) // self.period), lanes).numpy()
        return _from_unit(self.action_space, drawn)


def open_loop_policies(action_space: spaces.Space[Any], seed: int = 0) -> dict[str, OpenLoopPolicy]:
    """At least eight blind policies by name: constants, two actions in turn with several periods, uniform and sticky random.

    Deterministic given the seed. A Box's first dimension does the switching, the others rest a fifth above their middle (in CarRacing:
    steer left and right with a little gas); of several choices the first switches, the others rest at their first class.
    Raises TypeError unless the space is Discrete, or MultiDiscrete or a finite Box of one dimension.
    """
    _check(action_space)
    policies = dict(constant_policies(action_space))
    first, second = _two_actions(action_space)
    for period in SWITCH_PERIODS:
        policies[f"switch {period}"] = OpenLoopPolicy("cycle", action_space, period, (first, second))
    policies["random"] = random_policy(action_space, seed)
    policies[f"sticky random {STICKY_STEPS}"] = OpenLoopPolicy("random", action_space, STICKY_STEPS, seed=seed + 1)
    return policies


def sweep_policies(
    action_space: spaces.Space[Any],
    periods: Iterable[int] = SWEEP_PERIODS,
    pairs: Mapping[str, tuple[Any, Any]] | None = None,
    *,
    centred: bool = False,
) -> dict[str, OpenLoopPolicy]:
    """To and fro between two actions, reversing every `period` steps: "sweep PAIR every PERIOD", for each pair and each period.

    pairs: env actions by name, such as {"right, left": (1, 2)}; by default `sweep_pairs`. centred: the first leg is half as long, so
    that the sweep goes to both sides of where it began; without, to one side. Raises ValueError for periods below 1, TypeError as
    `open_loop_policies`.
    """
    periods = tuple(periods)
    chosen = sweep_pairs(action_space) if pairs is None else pairs
    policies = {}
    for pair, actions in chosen.items():
        for period in periods:
            if period < 1:
                raise ValueError(f"period is {period}; expected at least 1 step.")
            name = f"{'centred ' if centred else ''}sweep {pair} every {period}"
            policies[name] = OpenLoopPolicy("cycle", action_space, period, actions, offset=period // 2 if centred else 0)
    return policies


def sweep_pairs(action_space: spaces.Space[Any]) -> dict[str, tuple[Any, Any]]:
    """Pairs of env actions worth sweeping between, by name.

    Discrete: all pairs of classes ("1|2"); of more than five classes, of five evenly spread. A Box: both ends of each of its first five
    dimensions ("a0"), the others resting a fifth above their middle. Of several choices: the first and last class of each of the first
    five ("c0"), the others at their first.
    """
    _check(action_space)
    if isinstance(action_space, spaces.Discrete):
        start, n = int(action_space.start), int(action_space.n)
        classes = np.unique(np.linspace(start, start + n - 1, min(n, MOST_SWEPT)).round().astype(np.int64))
        return {f"{first}|{second}": (first, second) for first, second in combinations(classes, 2)}
    letter = "c" if isinstance(action_space, spaces.MultiDiscrete) else "a"
    width = min(MOST_SWEPT, int(np.prod(action_space.shape or ())))
    return {f"{letter}{dimension}": _two_actions(action_space, dimension) for dimension in range(width)}


def constant_policies(action_space: spaces.Space[Any]) -> dict[str, OpenLoopPolicy]:
    """Always the same action: each class (first three), or a Box's middle, and half of the way up and down its first dimensions.

    Of several choices: all at their first class, and one of the first three at its last.
    """
    _check(action_space)
    actions: dict[str, Any]
    if isinstance(action_space, spaces.Discrete):
        start = int(action_space.start)
        actions = {f"always {start + index}": np.int64(start + index) for index in range(min(3, int(action_space.n)))}
    elif isinstance(action_space, spaces.MultiDiscrete):
        rest = np.asarray(action_space.start)
        varied = [rest + (action_space.nvec - 1) * (np.arange(len(rest)) == choice) for choice in range(min(3, len(rest)))]
        actions = {f"always {','.join(map(str, action.tolist()))}": action for action in (rest, *varied)}
    else:
        width = int(np.prod(action_space.shape or ()))
        actions = {"always middle": _at(action_space, np.zeros(width))}
        for dimension in range(min(2, width)):
            for sign in (-0.5, 0.5):
                position = np.zeros(width)
                position[dimension] = sign
                actions[f"always a{dimension}={sign:+}"] = _at(action_space, position)
    return {name: OpenLoopPolicy("cycle", action_space, 1, (action,)) for name, action in actions.items()}


def random_policy(action_space: spaces.Space[Any], seed: int = 0) -> OpenLoopPolicy:
    """Uniform random actions, anew every step."""
    _check(action_space)
    return OpenLoopPolicy("random", action_space, 1, seed=seed)


def _two_actions(space: spaces.Space[Any], dimension: int = 0) -> tuple[Any, Any]:
    """The ends of one dimension (or choice), the others at rest."""
    if isinstance(space, spaces.Discrete):
        return np.int64(space.start), np.int64(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        first: NDArray[Any] = np.asarray(space.start)
        return first, first + (space.nvec - 1) * (np.arange(len(first)) == dimension)
    position = np.full(int(np.prod(space.shape or ())), 0.2)
    ends = []
    for end in (-1.0, 1.0):
        position[dimension] = end
        ends.append(_at(space, position))
    return ends[0], ends[1]


def _at(space: spaces.Space[Any], position: NDArray[np.float64]) -> NDArray[Any]:
    """The action at a position in [-1,1] per dimension."""
    return _from_unit(space, (position[None] + 1.0) * 0.5)[0]


def _from_unit(space: spaces.Space[Any], fraction: NDArray[Any]) -> NDArray[Any]:
    """Fractions in [0,1] [B,lanes] -> env actions [B,...]."""
    if isinstance(space, spaces.Discrete):
        return int(space.start) + np.minimum((fraction[:, 0] * int(space.n)).astype(np.int64), int(space.n) - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + np.minimum((fraction * space.nvec).astype(space.dtype), space.nvec - 1)
    assert isinstance(space, spaces.Box)
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    return (low + fraction * (high - low)).astype(space.dtype).reshape((len(fraction), *space.shape))


def _check(space: spaces.Space[Any]) -> None:
    finite_box = isinstance(space, spaces.Box) and len(space.shape) == 1 and bool(np.isfinite([space.low, space.high]).all())
    choices = isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1
    if not (finite_box or choices or isinstance(space, spaces.Discrete)):
        raise TypeError(
            f"no blind policies for action space {space}; expected Discrete, or MultiDiscrete or a Box with finite bounds of one dimension."
        )


def _batch_size(observation: Any, episode_start: NDArray[np.bool_] | None) -> int | None:
    """Rows of a batch, None for a single observation. A blind policy knows no observation space, so shapes and types must tell."""
    if isinstance(observation, dict):
        return _batch_size_of_parts(observation, episode_start)
    array = observation.cpu().numpy() if isinstance(observation, torch.Tensor) else np.asarray(observation)
    kind = "float" if array.dtype.kind == "f" else str(array.dtype)
    if array.ndim == 0 or (kind, array.ndim) == ("float", 1):
        return None
    if episode_start is not None and np.shape(episode_start) == (len(array),):
        return len(array)
    if (kind, array.ndim) == ("uint8", 3):
        return None
    if (kind, array.ndim) in (("float", 2), ("uint8", 4)):
        return len(array)
    raise ValueError(
        f"observation is {array.dtype} of shape {array.shape}, which may be one or a batch; pass episode_start, one flag per row."
    )


def _batch_size_of_parts(parts: dict[str, Any], episode_start: NDArray[np.bool_] | None) -> int | None:
    """What the first part says that says anything."""
    for part in parts.values():
        try:
            return _batch_size(part, episode_start)
        except ValueError as error:
            doubt = error
    raise doubt


def count_episodes(rows: int, state: NDArray[np.int64] | None, episode_start: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Counters of this step; rows that begin an episode get the next free episode number."""
    if state is None:
        return np.stack([np.arange(rows), np.zeros(rows, np.int64), np.full(rows, rows)], 1)
    counters = state.copy()
    if episode_start is not None and (begins := np.asarray(episode_start, bool) & (state[:, 1] > 0)).any():
        counters[begins, 0] = state[0, 2] + np.arange(begins.sum())
        counters[begins, 1] = 0
        counters[:, 2] += begins.sum()
    return counters


def advance(counters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counters [B,3] one step later."""
    return counters + np.array([0, 1, 0])
