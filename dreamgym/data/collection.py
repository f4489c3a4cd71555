"""Live in a real env and remember it: any policy, reproducible episode by episode, in one process or several."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import Any, Protocol, TypeAlias

import cloudpickle
import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from tqdm import tqdm

from dreamgym.structs import Observation, Policy, Spec, map_obs

__all__ = ["CollectStats", "EpisodeLengths", "collect", "collect_parallel"]

PolicyOrFactory: TypeAlias = "Policy | Callable[[int], Policy]"
StepLimit: TypeAlias = "int | Sequence[int] | Callable[[np.random.Generator], int] | None"


class EpisodeSink(Protocol):
    """Whatever takes whole episodes: a Replay, or something that deals them out to several."""

    spec: Spec

    def add_episode(self, *args: Any, **kwargs: Any) -> None:
        """As Replay.add_episode."""
        ...


@dataclass(frozen=True)
class CollectStats:
    """Per episode: return in the env's own units (before reward_clip) and length in agent steps."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Agent steps in all."""
        return sum(self.lengths)


@dataclass(frozen=True)
class EpisodeLengths:
    """A step limit drawn per episode. Short episodes keep random driving near the road."""

    lengths: tuple[int, ...] = (60, 100, 160, 250)
    probabilities: tuple[float, ...] = (0.35, 0.35, 0.2, 0.1)  # prototypes/carracing.md

    def __call__(self, rng: np.random.Generator) -> int:
        """Draw one."""
        return int(rng.choice(self.lengths, p=self.probabilities))


@dataclass(frozen=True)
class _Plan:
    """What every episode has in common; episode i is a pure function of the plan and i."""

    policy: PolicyOrFactory
    seed: int
    max_episode_steps: StepLimit
    noise: float
    deterministic: bool


@dataclass(frozen=True)
class _Episode:
    obs: Observation  # [T+1,...]
    action: NDArray[Any]  # [T,...] env actions
    reward: NDArray[np.float32]  # [T]
    raw_reward: NDArray[np.float64]  # [T] before reward_clip
    valid: NDArray[np.bool_]  # [T+1]
    terminated: bool
    policy: str

    def cut(self, steps: int) -> _Episode:
        """The first steps of it; an end that lies behind them has not happened."""
        if steps >= len(self.action):
            return self
        kept: dict[str, Any] = {name: getattr(self, name)[:steps] for name in ("action", "reward", "raw_reward")}
        kept |= {"obs": map_obs(lambda values: values[: steps + 1], self.obs), "valid": self.valid[: steps + 1]}
        return replace(self, **kept, terminated=False)


def collect(
    env: gym.Env[Any, Any],
    policy: PolicyOrFactory,
    replay: EpisodeSink,
    *,
    steps: int | None = None,
    episodes: int | None = None,
    seed: int,
    max_episode_steps: StepLimit = None,
    progress: bool = False,
    noise: float = 0.0,
    deterministic: bool = False,
) -> CollectStats:
    """Act in `env` and store every episode, until exactly `steps` agent steps or `episodes` episodes, whichever comes first.

    policy is anything with SB3's `predict`, or a function of the episode's number that gives one. Policies with `reseed(seed)`
    are reseeded for each episode, and torch's generator is seeded around it, so episode i depends on (seed, i) alone.
    max_episode_steps cuts episodes short: a number, a sequence to draw from or a function of a generator; a cut episode is stored
    as truncated. noise adds exploration: a normal of that standard deviation in units of half a Box's range, or a uniform class
    with that probability for each choice. Raises ValueError if the env does not look like the replay's spec or no end is given.
    """
    plan = _Plan(policy, seed, max_episode_steps, noise, deterministic)
    _check(plan, replay, steps, episodes)
    _check_spaces(env, replay.spec)
    return _store(lambda number, left: _live(env, plan, number, left), replay, steps, episodes, progress)


def collect_parallel(
    make_env: Callable[[], gym.Env[Any, Any]],
    policy: PolicyOrFactory,
    replay: EpisodeSink,
    *,
    workers: int,
    steps: int | None = None,
    episodes: int | None = None,
    seed: int,
    max_episode_steps: StepLimit = None,
    progress: bool = False,
    noise: float = 0.0,
    deterministic: bool = False,
) -> CollectStats:
    """`collect` in several processes, with the same result whatever their number; workers=1 stays in this process.

    A worker takes seconds to start, so it pays for slow envs and long collections: 3000 agent steps took 8.8 s instead of 12.9 s
    on CarRacing with two workers, but 1.9 s instead of 1.1 s on ViZDoom (busy 2-core machine). With `steps`, up to twice `workers`
    episodes that were begun beyond the budget are thrown away. make_env and policy travel by cloudpickle, so lambdas will do. As always
    with processes, a script must start its work under `if __name__ == "__main__":`; raises RuntimeError if a worker dies.
    """
    plan = _Plan(policy, seed, max_episode_steps, noise, deterministic)
    _check(plan, replay, steps, episodes)
    if workers <= 1:
        env = make_env()
        try:
            return collect(
                env, policy, replay, steps=steps, episodes=episodes, seed=seed, max_episode_steps=max_episode_steps,
                progress=progress, noise=noise, deterministic=deterministic,
            )  # fmt: skip
        finally:
            env.close()
    payload = cloudpickle.dumps((make_env, plan, replay.spec))
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(payload,))
    try:
        return _store(_Ahead(pool, 2 * workers, episodes).fetch, replay, steps, episodes, progress)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a collecting process died; its own message is above. A script must start its work under "
            '`if __name__ == "__main__":`, or pass workers=1.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _store(
    next_episode: Callable[[int, int | None], _Episode], replay: EpisodeSink, steps: int | None, episodes: int | None, progress: bool
) -> CollectStats:
    """Ask for episodes 0, 1, ... with the steps left to them, and store them."""
    returns: list[float] = []
    lengths: list[int] = []
    total, unit = (steps, "step") if steps is not None else (episodes, "episode")
    with tqdm(total=total, unit=unit, desc="collect", disable=not progress) as bar:
        while (steps is None or sum(lengths) < steps) and (episodes is None or len(lengths) < episodes):
            left = None if steps is None else steps - sum(lengths)
            episode = next_episode(len(lengths), left)
            if left is not None:
                episode = episode.cut(left)
            replay.add_episode(
                episode.obs, episode.action, episode.reward, episode.terminated, not episode.terminated, episode.valid, episode.policy
            )
            returns.append(float(episode.raw_reward.sum()))
            lengths.append(len(episode.action))
            bar.update(lengths[-1] if steps is not None else 1)
            bar.set_postfix_str(f"return {np.mean(returns[-20:]):.1f}", refresh=False)
    return CollectStats(tuple(returns), tuple(lengths))


def _live(env: gym.Env[Any, Any], plan: _Plan, number: int, most: int | None) -> _Episode:
    """Run episode `number`, at most `most` steps of it."""
    rng = np.random.default_rng([plan.seed, number])
    env_seed, policy_seed = (int(seed) for seed in rng.integers(2**31, size=2))
    limit = _draw_limit(plan.max_episode_steps, rng)
    limit = min([bound for bound in (limit, most) if bound is not None], default=None)
    policy = _policy_of(plan.policy, number)
    if hasattr(policy, "reseed"):
        policy.reseed(policy_seed)
    # SB3 policies sample from torch's global generator: seed it for this episode, then give it back as it was.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(policy_seed)
        if devices:
            torch.cuda.manual_seed_all(policy_seed)
        return _act(env, policy, plan, rng, env_seed, limit)


def _act(env: gym.Env[Any, Any], policy: Policy, plan: _Plan, rng: np.random.Generator, env_seed: int, limit: int | None) -> _Episode:
    obs, info = env.reset(seed=env_seed)
    seen, valid = [obs], [bool(info.get("obs_valid", True))]
    actions: list[Any] = []
    rewards: list[float] = []
    raw_rewards: list[float] = []
    state: Any = None
    terminated = truncated = False
    while not (terminated or truncated or (limit is not None and len(actions) >= limit)):
        batch, state = policy.predict(
            map_obs(lambda value: np.asarray(value)[None], obs),
            state=state,
            episode_start=np.array([not actions]),
            deterministic=plan.deterministic,
        )
        action = _to_env(env.action_space, batch[0], plan.noise, rng)
        obs, reward, terminated, truncated, info = env.step(action)
        seen.append(obs)
        valid.append(bool(info.get("obs_valid", True)))
        actions.append(action)
        rewards.append(float(reward))
        raw_rewards.append(float(info.get("raw_reward", reward)))
    return _Episode(
        {name: np.stack([obs[name] for obs in seen]) for name in seen[0]} if isinstance(seen[0], dict) else np.stack(seen),
        np.stack(actions),
        np.asarray(rewards, np.float32),
        np.asarray(raw_rewards, np.float64),
        np.asarray(valid, np.bool_),
        bool(terminated),
        type(policy).__name__,
    )


def _to_env(space: spaces.Space[Any], action: NDArray[Any], noise: float, rng: np.random.Generator) -> Any:
    """Add exploration noise and keep the action inside its space, so that what is stored is what was done."""
    if isinstance(space, spaces.Discrete):
        if noise and rng.random() < noise:
            action = rng.integers(space.n) + space.start
        return np.int64(action)
    if isinstance(space, spaces.MultiDiscrete):
        if noise:
            action = np.where(rng.random(space.shape) < noise, rng.integers(space.nvec) + space.start, action)
        return np.asarray(action).astype(space.dtype)
    if not isinstance(space, spaces.Box):
        raise TypeError(f"action space {space} is not supported; expected Discrete, MultiDiscrete or a Box.")
    action = np.asarray(action, np.float64)
    if noise:
        action = action + noise * rng.standard_normal(action.shape) * (space.high - space.low) / 2
    return np.clip(action, space.low, space.high).astype(space.dtype)


def _draw_limit(limit: StepLimit, rng: np.random.Generator) -> int | None:
    if callable(limit):
        drawn: int | None = int(limit(rng))
    elif isinstance(limit, Sequence):
        drawn = int(rng.choice(limit))
    else:
        drawn = limit
    if drawn is not None and drawn < 1:
        raise ValueError(f"max_episode_steps gave {drawn}; expected at least 1.")
    return drawn


def _policy_of(policy: PolicyOrFactory, number: int) -> Policy:
    return policy if hasattr(policy, "predict") else policy(number)  # type: ignore[return-value, operator]


def _check(plan: _Plan, replay: EpisodeSink, steps: int | None, episodes: int | None) -> None:
    if steps is None and episodes is None:
        raise ValueError("collect needs an end; pass steps= or episodes=.")
    for name, value in (("steps", steps), ("episodes", episodes), ("seed", plan.seed), ("noise", plan.noise)):
        if value is not None and value < 0:
            raise ValueError(f"{name} is {value}; expected at least 0.")


def _check_spaces(env: gym.Env[Any, Any], spec: Spec) -> None:
    for name in ("observation_space", "action_space"):
        if getattr(env, name) != getattr(spec, name):
            raise ValueError(
                f"env has {name} {getattr(env, name)} but the replay's spec says {getattr(spec, name)}; "
                "make it with make_env(spec.env_id, preprocess=spec.preprocess)."
            )


class _Ahead:
    """Keeps workers busy with the episodes to come and hands them out in order."""

    def __init__(self, pool: ProcessPoolExecutor, ahead: int, episodes: int | None) -> None:
        self._pool, self._ahead, self._episodes = pool, ahead, episodes
        self._begun = 0
        self._waiting: deque[Future[_Episode]] = deque()

    def fetch(self, number: int, left: int | None) -> _Episode:
        """The next episode; `number` counts up from 0."""
        while len(self._waiting) < self._ahead and (self._episodes is None or self._begun < self._episodes):
            self._waiting.append(self._pool.submit(_live_in_worker, self._begun, left))
            self._begun += 1
        return self._waiting.popleft().result()


_worker: dict[str, Any] = {}  # the env and plan of this process, if it is a worker


def _start_worker(payload: bytes) -> None:
    torch.set_num_threads(1)
    make_env, plan, spec = cloudpickle.loads(payload)
    env = make_env()
    _check_spaces(env, spec)
    _worker.update(env=env, plan=plan)
    Finalize(None, env.close, exitpriority=10)  # ViZDoom's engine is a process of its own


def _live_in_worker(number: int, most: int | None) -> _Episode:
    return _live(_worker["env"], _worker["plan"], number, most)
