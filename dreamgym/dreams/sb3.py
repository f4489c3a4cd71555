"""Dreams as a Stable-Baselines3 VecEnv, whose API is its own: a list of infos, terminal observations, resets in the same step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from dreamgym.dreams.engine import Snapshot, Temperature
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.errors import require
from dreamgym.structs import DreamableModel

require("stable_baselines3", extra="sb3", purpose="DreamVecEnv")

from stable_baselines3.common.monitor import Monitor  # noqa: E402 - after the check that says how to install it
from stable_baselines3.common.vec_env import VecEnv  # noqa: E402

__all__ = ["DreamVecEnv"]


class DreamVecEnv(VecEnv):
    """A batch of dreams for SB3's algorithms: `PPO("MlpPolicy", DreamVecEnv(model, num_envs=64)).learn(200_000)`.

    Options as in DreamEngine; left None they follow model.defaults, which is how the model wants to be trained in (horizon,
    start states, penalty); training=False dreams whole episodes, as DreamEnv does.
    spread_clocks cuts the first episodes after a reset() to random lengths, because SB3 bootstraps
    truncated rows one by one and stalls when all end in one step; pass False where the first episodes are to be counted.
    Every episode's end carries info["episode"], as Monitor would write it, and uncertainty, continue_prob, dream_step, halted.
    """

    def __init__(
        self,
        model: DreamableModel,
        num_envs: int = 64,
        *,
        obs_type: str | None = "latent",
        training: bool = True,
        device: torch.device | str | None = None,
        render_mode: str | None = None,
        render_size: int = 256,
        seed: int | None = None,
        spread_clocks: bool = True,
        max_episode_steps: int | None = None,
        horizon: int | None = None,
        starts: str | None = None,
        temperature: Temperature | None = None,
        max_uncertainty: float | None = None,
        uncertainty_penalty: float | None = None,
        range_guard: bool | None = None,
        hold: str | None = None,
        termination: str | None = None,
        end_probability: float | None = None,
        dropout: float | None = None,
    ) -> None:
        self.dreams = DreamVectorEnv(
            model,
            num_envs,
            obs_type=obs_type,
            training=training,
            device=device,
            render_mode=render_mode,
            render_size=render_size,
            autoreset_mode="SameStep",
            max_episode_steps=max_episode_steps,
            horizon=horizon,
            starts=starts,
            temperature=temperature,
            max_uncertainty=max_uncertainty,
            uncertainty_penalty=uncertainty_penalty,
            range_guard=range_guard,
            hold=hold,
            termination=termination,
            end_probability=end_probability,
            dropout=dropout,
        )
        self._spread_clocks = spread_clocks
        self._quiet: list[dict[str, Any]] = [{} for _ in range(num_envs)]  # building new ones each step would dominate
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._born = time.time()
        self._actions: Any = None
        super().__init__(num_envs, self.dreams.single_observation_space, self.dreams.single_action_space)
        if seed is not None:
            self.seed(seed)

    @property
    def model(self) -> Any:
        """The world model that is dreamt."""
        return self.dreams.model

    def reset(self) -> Any:
        """Begin all dreams, with the seeds of seed() and the options of set_options(), once."""
        if any(options != self._options[0] for options in self._options):
            raise ValueError("set_options was given different options per slot; dreams of a batch share theirs, pass one dict.")
        options = dict(self._options[0])
        seeds = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        if self._spread_clocks and "horizon" not in options:
            options["horizon"] = self._spread_horizons(seeds)
        obs, _ = self.dreams.reset(seed=seeds, options=options)
        self._returns[:], self._lengths[:] = 0.0, 0
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions; step_wait dreams them."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:  # type: ignore[override]
        """Dream one step in all slots: observations, rewards float32, dones, infos."""
        obs, reward, terminated, truncated, info = self.dreams.step(self._actions)
        self._returns += reward
        self._lengths += 1
        done = terminated | truncated
        infos = self._quiet.copy()
        for row in done.nonzero()[0].tolist():
            infos[row] = self._ending(row, info, bool(truncated[row] and not terminated[row]))
        self._returns[done], self._lengths[done] = 0.0, 0
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Forget the dreams; reset() begins others."""
        self.dreams.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """What the model has in mind in each slot."""
        return self.dreams.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the dreams, once per slot."""
        return [self.dreams.get_attr(attr_name)[0] for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute for all slots, which share their settings (ValueError for some of them)."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"{attr_name} was set for some slots; dreams of a batch share their settings, pass indices=None.")
        self.dreams.set_attr(attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """ "render" of the slots. Other methods of single slots do not exist (AttributeError)."""
        results = self.dreams.call(method_name, *method_args, **method_kwargs)
        return [results[index] for index in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """True for Monitor, whose info["episode"] is written here."""
        return [issubclass(wrapper_class, Monitor)] * len(list(self._get_indices(indices)))

    def get_state(self) -> Snapshot:
        """Save all dreams."""
        return self.dreams.get_state()

    def _ending(self, row: int, info: dict[str, Any], truncated: bool) -> dict[str, Any]:
        last, final = info["final_obs"], info["final_info"]
        return {
            "terminal_observation": {key: value[row] for key, value in last.items()} if isinstance(last, dict) else last[row],
            "TimeLimit.truncated": truncated,
            "episode": {
                "r": round(float(self._returns[row]), 6),
                "l": int(self._lengths[row]),
                "t": round(time.time() - self._born, 6),
            },
            "uncertainty": float(final["uncertainty"][row]),
            "continue_prob": float(final["continue_prob"][row]),
            "dream_step": int(final["dream_step"][row]),
            "halted": bool(final["halted"][row]),
        }

    def _spread_horizons(self, seeds: list[int | None] | None) -> NDArray[np.int64]:
        random = np.random.default_rng(None if seeds is None else seeds[0])
        return random.integers(1, self.dreams.max_episode_steps, size=self.num_envs, endpoint=True)
