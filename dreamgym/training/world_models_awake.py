"""The real world, several copies in step: controllers are judged in it, and their lives are recorded as codes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from dreamgym.data.collection import CollectStats
from dreamgym.data.collectors import StickyRandom
from dreamgym.data.encoded import Encode
from dreamgym.dreams.awake import LatentVectorObservation
from dreamgym.evaluation.returns import Returns, evaluate
from dreamgym.models.world_model import WorldModel
from dreamgym.noise import uniform
from dreamgym.structs import Policy
from dreamgym.training.world_models_config import Iterations

__all__ = ["judge_awake", "record_lives"]

BuildEnv = Callable[[], "gym.Env[Any, Any]"]


def judge_awake(agent: Policy, model: WorldModel, build: BuildEnv, *, seeds: Sequence[int], num_envs: int = 8) -> Returns:
    """Returns of an agent on the model's features in the real environment, one episode per seed."""
    env = LatentVectorObservation(SyncVectorEnv([build] * min(num_envs, len(seeds))), model)
    try:
        return evaluate(agent, env, seeds=seeds)
    finally:
        env.close()


def record_lives(
    agent: Policy,
    model: WorldModel,
    build: BuildEnv,
    encode: Encode,
    sink: Any,
    *,
    pictures: bool = False,
    episodes: int,
    seed: int,
    settings: Iterations,
    first: int = 0,
    num_envs: int = 8,
    progress: bool = False,
) -> CollectStats:
    """Let an agent live `episodes` whole episodes, numbered from `first`; their codes, or else their pictures, go into `sink`.

    `encode` is the model's V. Every second episode is interrupted by bursts of random actions, as the settings say. What happens in
    episode k depends on (seed, k), and by rounding on who runs beside it. Episodes are stored in the order in which they end.
    """
    envs = [build() for _ in range(min(num_envs, episodes))]
    returns: list[float] = []
    lengths: list[int] = []
    crowd = _Crowd(agent, model, envs, encode, settings, seed, pictures)
    waiting = deque(range(first, first + episodes))
    try:
        for row in range(len(envs)):
            crowd.begin(row, waiting.popleft())
        with tqdm(total=episodes, unit="episode", desc="live", disable=not progress) as bar:
            while crowd.lives:
                for row, life in crowd.step():
                    life.store(sink, type(agent).__name__)
                    returns.append(life.raw_return)
                    lengths.append(len(life.actions))
                    bar.update()
                    if waiting:
                        crowd.begin(row, waiting.popleft())
    finally:
        for env in envs:
            env.close()
    return CollectStats(tuple(returns), tuple(lengths))


@dataclass
class _Life:
    """One running episode. image is what it shows now."""

    number: int
    rng: np.random.Generator
    image: NDArray[np.uint8]
    valid: list[bool]
    kept: list[NDArray[Any]] = field(default_factory=list)  # its codes, or what it showed
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    raw_return: float = 0.0
    terminated: bool = False
    over: bool = False
    burst: Any = None  # the random policy's state
    left: int = 0  # steps of the burst to come

    def store(self, sink: Any, policy: str) -> None:
        """Hand the whole episode over."""
        rewards, valid = np.array(self.rewards, np.float32), np.array(self.valid, np.bool_)
        sink.add_episode(np.stack(self.kept), np.stack(self.actions), rewards, self.terminated, not self.terminated, valid, policy)


class _Crowd:
    """Environments of which some are alive; all that are, by row, are seen and moved together."""

    def __init__(
        self,
        agent: Policy,
        model: WorldModel,
        envs: list[gym.Env[Any, Any]],
        encode: Encode,
        settings: Iterations,
        seed: int,
        pictures: bool,
    ) -> None:
        self.agent, self.model, self.envs, self.encode, self.settings, self.seed = agent, model, envs, encode, settings, seed
        self.pictures = pictures
        self.lives: dict[int, _Life] = {}
        self._random = StickyRandom(model.spec.action_space, hold=(1, settings.burst_steps))
        self._belief = model.initial(len(envs))
        self._prev_action = torch.zeros(len(envs), model.spec.action_size, device=model.device)

    def begin(self, row: int, number: int) -> None:
        """Begin episode `number` in this row."""
        rng = np.random.default_rng([self.seed, number])
        image, info = self.envs[row].reset(seed=int(rng.integers(2**31)))
        self.lives[row] = _Life(number, rng, image, [bool(info.get("obs_valid", True))])

    def step(self) -> list[tuple[int, _Life]]:
        """All live rows act once; returns those whose episode ended, with their rows, which are free now."""
        numbers = sorted(self.lives)
        lives = [self.lives[row] for row in numbers]
        codes = self.encode(np.stack([life.image for life in lives]))
        for life, code in zip(lives, codes):
            life.kept.append(life.image if self.pictures else code)
        rows = torch.tensor(numbers, device=self.model.device)
        actions = self._decide(rows, lives, torch.from_numpy(codes).to(self.model.device))
        for row, life, action in zip(numbers, lives, actions):
            self._move(self.envs[row], life, action)
        ended = [(row, life) for row, life in zip(numbers, lives) if life.over]
        for row, life in ended:
            life.kept.append(self._last(life, codes))
            del self.lives[row]
        return ended

    def _last(self, life: _Life, codes: NDArray[Any]) -> NDArray[Any]:
        """What is kept of the row in which it ended."""
        if self.pictures:
            return life.image
        return self.encode(life.image[None])[0] if life.valid[-1] else np.zeros_like(codes[0])

    @torch.inference_mode()
    def _decide(self, rows: Tensor, lives: list[_Life], codes: Tensor) -> NDArray[Any]:
        """Env actions: the agent's, upon what the model believes of codes [N,2Z], or those of a burst."""
        first = torch.tensor([not life.actions for life in lives], device=rows.device)
        belief = self.model.core.observe(self._belief[rows], self._prev_action[rows], codes, first, self._noise(lives))[0]
        self._belief = self._belief.zip_map(belief, lambda mine, its: mine.index_copy(0, rows, its.to(mine.dtype)))
        features = self.model.features(belief).cpu().numpy()
        actions = np.array(self.agent.predict(features, None, first.cpu().numpy(), True)[0])
        for index, life in enumerate(lives):
            if self._in_burst(life):
                actions[index] = self._random.act(life.burst, features[index])
        self._prev_action[rows] = self.model.spec.to_model_action(torch.from_numpy(actions)).to(rows.device)
        return actions

    def _noise(self, lives: list[_Life]) -> Tensor:
        """As the model wants to be awake: on V's means, or on samples."""
        if self.model.defaults.belief == "mean":
            return torch.full((len(lives), self.model.noise_lanes), 0.5, device=self.model.device)
        number, step = torch.tensor([[life.number, len(life.actions)] for life in lives]).unbind(1)
        return uniform(torch.full_like(number, self.seed), number, step, self.model.noise_lanes).to(self.model.device)

    def _in_burst(self, life: _Life) -> bool:
        """Whether this step is random; counts it."""
        if life.left == 0 and life.number % 2 and life.rng.random() < self.settings.burst_chance:
            life.left = int(life.rng.integers(1, self.settings.burst_steps + 1))
            life.burst = self._random.begin(life.rng)
        if life.left == 0:
            return False
        life.left -= 1
        return True

    def _move(self, env: gym.Env[Any, Any], life: _Life, action: Any) -> None:
        life.image, reward, terminated, truncated, info = env.step(action)
        life.actions.append(action)
        life.rewards.append(float(reward))
        life.raw_return += float(info.get("raw_reward", reward))
        life.valid.append(bool(info.get("obs_valid", True)))
        life.terminated, life.over = bool(terminated), bool(terminated or truncated)
