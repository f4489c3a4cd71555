"""One dream as a gymnasium environment."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from dreamgym.dreams.actions import ActionReader
from dreamgym.dreams.engine import DreamEngine, Snapshot, Temperature
from dreamgym.dreams.observations import Observation, ObservationReader, frames, to_numpy
from dreamgym.errors import NonFiniteDreamError
from dreamgym.structs import DreamableModel

__all__ = ["DreamEnv", "check_options", "check_render_mode"]

EPISODE_OPTIONS = ("initial_state", "context", "temperature", "horizon")


class DreamEnv(gym.Env[Any, Any]):
    """A world model as `gymnasium.Env`: the spaces of the real environment, its units of reward, no real environment.

    obs_type: "pixels", "vector" or "parts" (the model's own kind, default; parts are a Dict's), "latent" (all an agent needs;
    float32 [F]; nothing is decoded), or "dict" (both). device: where to dream; default where the model is. training: False dreams
    whole episodes, True as the model wants to be trained in. Other options: see DreamEngine.
    reset(options=...): initial_state (a row of the model's start states, or a model state), context ({"obs": [T,...],
    "action": [T-1,...]}: real frames to start after), temperature, horizon; each for that episode only.
    info: uncertainty (1.0 is the 99.5th percentile on real data), continue_prob, dream_step, halted.
    Raises ResetNeeded, InvalidAction (before anything changes), NonFiniteDreamError (at once), ValueError for options,
    TypeError for what is not a model.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}  # type: ignore[misc]

    def __init__(
        self,
        model: DreamableModel,
        *,
        obs_type: str | None = None,
        render_mode: str | None = None,
        render_size: int = 256,
        training: bool = False,
        device: torch.device | str | None = None,
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
        self._engine = DreamEngine(
            model,
            1,
            training=training,
            device=device,
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
        self.render_mode = check_render_mode(render_mode)
        self.render_size = render_size
        self._build(obs_type)
        self.observation_space = copy.deepcopy(self._observations.space)  # spaces carry generators of their own
        self.action_space = copy.deepcopy(model.spec.action_space)
        self.metadata = {**type(self).metadata, "render_fps": model.spec.fps}  # type: ignore[misc]
        self._seeded = False
        self._done = False

    def _build(self, obs_type: str | None) -> None:
        """What follows from the engine's model, and so need not be pickled."""
        self._observations = ObservationReader(self.model, obs_type, self._engine.device)
        self._actions = ActionReader(self.model.spec, self._engine.device)

    @property
    def model(self) -> Any:
        """The world model that is dreamt, shared and never changed."""
        return self._engine.model

    @property
    def obs_type(self) -> str:
        """Which kind of observation is returned."""
        return self._observations.obs_type

    @property
    def device(self) -> torch.device:
        """Where the dream is computed."""
        return self._engine.device

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; also after close(). Without a seed the stream of the last one goes on, reproducibly."""
        options = check_options(options, EPISODE_OPTIONS)
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**62))
        self._engine.reset(seeds=None if seed is None else [seed], **options)
        self._seeded = True
        self._done = False
        return self._observe(), {"uncertainty": 0.0, "continue_prob": 1.0, "dream_step": 0, "halted": False}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Dream one step on. Stepping on past an end is possible, as in most real environments, and means nothing."""
        self._need_reset("step")
        model_action = self._actions.one(action)
        if self._done:
            gym.logger.warn("step() was called on a dream that has ended; call reset() first, for what follows means nothing.")
        result = self._engine.step(model_action)
        if not result.finite.item():
            self._engine.stop()
            raise NonFiniteDreamError(
                f"the model of {self.model.spec.env_id} produced NaN or infinity; the episode is lost, call reset(). "
                "A lower temperature, max_uncertainty or range_guard=True keeps dreams where the model was trained."
            )
        info = {
            "uncertainty": result.uncertainty.item(),
            "continue_prob": result.continue_prob.item(),
            "dream_step": int(self._engine.steps.item()),
            "halted": bool(result.halted.item()),
        }
        terminated, truncated = bool(result.terminated.item()), bool(result.truncated.item())
        self._done = terminated or truncated
        return self._observe(), float(result.reward.item()), terminated, truncated, info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """What the model has in mind, [Y,X,3] uint8, both sides at least render_size; changes nothing."""
        if self.render_mode is None:
            gym.logger.warn("render() was called on an environment made without a render_mode; pass render_mode='rgb_array'.")
            return None
        self._need_reset("render")
        with torch.inference_mode():
            return frames(self._observations, self._engine.state, self.render_size)[0]

    def get_state(self) -> Snapshot:
        """Save this dream: model state, clock and noise. It can be pickled, and restored into any env of the same model."""
        self._need_reset("get_state")
        return self._engine.snapshot()

    def set_state(self, state: Snapshot, *, seed: int | None = None) -> Observation:
        """Continue from a saved state and return its observation. The same actions then give the same dream, bit by bit;
        a seed gives a future of its own (a fork)."""
        self._engine.restore(state, None if seed is None else [seed])
        self._seeded = True
        self._done = bool(self._engine.done.item())
        return self._observe()

    def close(self) -> None:
        """Forget the dream. reset() begins another."""
        self._engine.stop()

    def _observe(self) -> Observation:
        with torch.inference_mode():
            obs = self._observations.read(self._engine.state)
            first = {key: value[0] for key, value in obs.items()} if isinstance(obs, dict) else obs[0]
        return to_numpy(first, self.observation_space)

    def _need_reset(self, what: str) -> None:
        if not self._engine.started:
            raise ResetNeeded(f"{what}() was called before reset(); call reset() first.")

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: value for key, value in self.__dict__.items() if key not in ("_observations", "_actions")}
        return {**kept, "obs_type": self.obs_type}

    def __setstate__(self, state: dict[str, Any]) -> None:
        obs_type = state.pop("obs_type")
        self.__dict__.update(state)
        self._build(obs_type)


def check_options(options: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """A copy of reset options. Raises ValueError naming the known ones for others."""
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise ValueError(f"unknown reset options {unknown}; known are {list(known)}.")
    return dict(options or {})


def check_render_mode(render_mode: str | None) -> str | None:
    """The mode. Raises ValueError for all but None and "rgb_array"."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode is {render_mode!r}; expected None or 'rgb_array' (gymnasium.make adds 'human' by itself).")
    return render_mode
