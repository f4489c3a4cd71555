"""Thousands of dreams as one gymnasium vector environment: one forward pass steps them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.dreams.actions import ActionReader
from dreamgym.dreams.alarm import Alarm
from dreamgym.dreams.engine import DreamEngine, Snapshot, StepResult, Temperature
from dreamgym.dreams.env import EPISODE_OPTIONS, DreamEnv, check_options, check_render_mode
from dreamgym.dreams.masks import check_autoreset_mode, check_output, reset_mask, seed_list
from dreamgym.dreams.observations import ObservationReader, ObsTensors, frames, to_numpy, to_torch
from dreamgym.errors import NonFiniteDreamError
from dreamgym.structs import DreamableModel

__all__ = ["DreamVectorEnv"]

_INFO_KEYS = ("uncertainty", "continue_prob", "dream_step", "halted")


class DreamVectorEnv(VectorEnv[Any, Any, Any]):
    """A batch of dreams of one model. Slot i seeded s dreams what DreamEnv seeded s dreams, up to rounding.

    output: "numpy" (gymnasium's wrappers want it; rewards float64) or "torch" (tensors on `device`, rewards float32).
    autoreset_mode: gymnasium's enum or its value, "NextStep" (default), "SameStep" or "Disabled". Actions may be NumPy or torch.
    max_episode_steps is what make_vec passes; horizon and the other options as in DreamEngine; obs_type, training as in DreamEnv.
    reset(options=...): those of DreamEnv, one value for all or one per slot, and reset_mask (bool [B]) or env_idx (indices).
    Errors are raised at once, with one exception: with torch output on an accelerator, actions already there and the model's
    outputs are checked without waiting for the device; what was wrong is replaced by finite values and raised by the next step().
    """

    def __init__(
        self,
        model: DreamableModel,
        num_envs: int = 1,
        *,
        obs_type: str | None = None,
        output: str = "numpy",
        training: bool = False,
        device: torch.device | str | None = None,
        render_mode: str | None = None,
        render_size: int = 256,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
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
        super().__init__()
        self._engine = DreamEngine(
            model,
            num_envs,
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
        self.num_envs = num_envs
        self.output = check_output(output)
        self.render_mode = check_render_mode(render_mode)
        self.render_size = render_size
        self.autoreset_mode = check_autoreset_mode(autoreset_mode)
        self._build(obs_type)
        self.single_observation_space = self._observations.space
        self.single_action_space = model.spec.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**DreamEnv.metadata, "render_fps": model.spec.fps, "autoreset_mode": self.autoreset_mode}
        self.metadata["torch"] = output == "torch"
        self._seeded = False

    def _build(self, obs_type: str | None) -> None:
        """What follows from the engine's model, and so need not be pickled."""
        self._observations = ObservationReader(self.model, obs_type, self.device)
        self._actions = ActionReader(self.model.spec, self.device)
        self._alarm = Alarm(self.device) if self.output == "torch" and self.device.type != "cpu" else None

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
        """Where the dreams are computed, and where torch output lies."""
        return self._engine.device

    @property
    def max_episode_steps(self) -> int:
        """Steps until truncation."""
        return self._engine.horizon

    _max_episode_steps = max_episode_steps  # LeRobot asks for it by this name

    # ---- gymnasium ----------------------------------------------------------------------------------------------------

    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes in all slots, or in those of options["reset_mask"] or options["env_idx"]; reopens after close().

        seed: s gives the slots s, s+1, ...; a list may hold None, whose slots go on with their streams.
        """
        options = check_options(options, (*EPISODE_OPTIONS, "reset_mask", "env_idx"))
        mask = reset_mask(options, self.num_envs)
        if mask is not None and not self._engine.started:
            raise ResetNeeded("some slots were reset before all were; call reset() without reset_mask or env_idx first.")
        seeds = seed_list(seed, self.num_envs)
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        if not self._seeded:
            fresh = self.np_random.integers(2**62, size=self.num_envs).tolist()
            seeds = [new if old is None else old for old, new in zip(seeds or [None] * self.num_envs, fresh)]
        slots = None if mask is None else torch.from_numpy(mask).to(self.device)
        self._engine.reset(slots, seeds=seeds, **options)
        self._seeded, self.closed = True, False
        if self._alarm is not None:
            self._alarm = Alarm(self.device)
        with torch.inference_mode():
            obs = self._observations.read(self._engine.state)
            zeros = torch.zeros(self.num_envs, device=self.device)
            values = (zeros, torch.ones_like(zeros), self._engine.steps, zeros.bool())
        return self._export(obs), self._infos(values, mask)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Dream every slot one step on; what happens at an episode's end is the autoreset mode's."""
        self._check_steppable()
        waiting = self._waiting()
        model_actions, invalid = self._actions.many(actions, self.num_envs, waiting)
        result = self._engine.step(model_actions)
        self._check_finite(result, waiting, invalid)
        with torch.inference_mode():
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                return self._same_step(result)
            return self._next_step(result, waiting)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """What the model has in mind in each slot: n pictures [Y,X,3] uint8. Changes nothing."""
        if self.render_mode is None:
            gym.logger.warn("render() was called on an environment made without a render_mode; pass render_mode='rgb_array'.")
            return None
        self._need_reset("render")
        with torch.inference_mode():
            return frames(self._observations, self._engine.state, self.render_size)

    def close_extras(self, **_: Any) -> None:
        """Forget the dreams. reset() begins others."""
        self._engine.stop()

    # ---- saving, forking, and what libraries ask for ------------------------------------------------------------------

    def get_state(self) -> Snapshot:
        """Save all dreams: model states, clocks and noise. It can be pickled, and restored into any env of the same model."""
        self._need_reset("get_state")
        return self._engine.snapshot()

    def set_state(self, state: Snapshot, *, seed: int | Sequence[int | None] | None = None) -> Any:
        """Continue from a saved state and return the observations. A state of one slot (DreamEnv's, too) goes into every slot.

        The same actions then give the same dreams; seeds, as in reset, give futures of their own (forks).
        """
        self._engine.restore(state, seed_list(seed, self.num_envs))
        self._seeded, self.closed = True, False
        with torch.inference_mode():
            obs = self._observations.read(self._engine.state)
        return self._export(obs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """An attribute once per slot, or the frames of "render". Methods of single slots do not exist here (AttributeError)."""
        if name == "render":
            return self.render() or (None,) * self.num_envs
        value = getattr(self, name)
        if callable(value):
            raise AttributeError(f"{name!r} acts on all slots at once; call it on the vector environment itself.")
        return (value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute once per slot."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set "temperature" (from the next episodes on) or another plain attribute; slots share it, so values must agree."""
        every = list(values) if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(every) != self.num_envs or any(value != every[0] for value in every):
            raise ValueError(f"{name} got {every}; expected one value for all {self.num_envs} slots, which share their settings.")
        if name == "temperature":
            self._engine.set_temperature(every[0])
        else:
            setattr(self, name, every[0])

    @property
    def temperature(self) -> float | tuple[float, float]:
        """Temperature of the episodes that begin from now on."""
        return self._engine.temperature

    # ---- stepping -----------------------------------------------------------------------------------------------------

    def _check_steppable(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("step() was called after close(); reset() reopens the environment.")
        self._need_reset("step")
        if self._alarm is not None:
            self._alarm.check()

    def _waiting(self) -> Tensor | None:
        """Slots that ended in an earlier step, [B] bool; None where it is known that there is none."""
        if self.autoreset_mode == AutoresetMode.SAME_STEP or (self.device.type == "cpu" and not self._engine.done.any()):
            return None
        if self.autoreset_mode == AutoresetMode.DISABLED and self._alarm is None and self._engine.done.any():
            rows = self._engine.done.nonzero().flatten().tolist()
            raise ResetNeeded(f"slots {_some(rows)} have ended; with autoreset disabled, reset(options={{'reset_mask': ...}}) first.")
        return self._engine.done

    def _check_finite(self, result: StepResult, waiting: Tensor | None, invalid: Tensor | None) -> None:
        bad = ~result.finite if waiting is None else ~result.finite & ~waiting
        if self._alarm is not None:
            past_end = waiting if self.autoreset_mode == AutoresetMode.DISABLED else None
            self._alarm.set(not_finite=bad, invalid_action=invalid, stepped_past_end=past_end)
        elif bad.any():
            self._engine.stop()
            raise NonFiniteDreamError(
                f"the model of {self.model.spec.env_id} produced NaN or infinity in slots {_some(bad.nonzero().flatten().tolist())}; "
                "call reset(). A lower temperature, max_uncertainty or range_guard=True keeps dreams where the model was trained."
            )

    def _next_step(self, result: StepResult, waiting: Tensor | None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """NextStep: slots that ended before begin again now, for reward 0. Disabled: nothing to do."""
        values = _info_values(result, self._engine.steps)
        reward, terminated, truncated = result.reward, result.terminated, result.truncated
        if waiting is not None and self.autoreset_mode == AutoresetMode.NEXT_STEP:
            self._engine.reset(waiting)
            reward = torch.where(waiting, 0.0, reward)
            terminated, truncated = terminated & ~waiting, truncated & ~waiting
            values = _begun(values, waiting)
        obs = self._observations.read(self._engine.state)
        return self._outputs(obs, reward, terminated, truncated, self._infos(values, None))

    def _same_step(self, result: StepResult) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """SameStep: slots that end begin again at once; how they ended goes into info, dense, with masks."""
        values = _info_values(result, self._engine.steps)
        done = result.terminated | result.truncated
        obs = self._observations.read(self._engine.state)
        final: dict[str, Any] = {}
        if self._alarm is not None or done.any():
            final = {"final_obs": self._export(obs), "_final_obs": self._array(done)}
            final |= {"final_info": self._infos(values, self._array(done)), "_final_info": self._array(done)}
            self._engine.reset(done)
            obs = self._reread(obs, done)
            values = _begun(values, done)
        outputs = self._outputs(obs, result.reward, result.terminated, result.truncated, self._infos(values, None))
        outputs[-1].update(final)
        return outputs

    def _reread(self, obs: ObsTensors, rows: Tensor) -> ObsTensors:
        """Observations anew in the rows that were reset. Decoding is dear, so only these rows are decoded."""
        if not self._observations.decodes:
            return _where(rows, self._observations.read(self._engine.state), obs)
        index = rows.nonzero().squeeze(1)
        fresh = self._observations.read(self._engine.state[index])
        return _index_copy(obs, index, fresh)

    # ---- leaving torch ------------------------------------------------------------------------------------------------

    def _outputs(self, obs: ObsTensors, reward: Tensor, terminated: Tensor, truncated: Tensor, info: dict[str, Any]) -> tuple[Any, ...]:
        if self.output == "numpy":
            reward = reward.double()
        return self._export(obs), self._array(reward), self._array(terminated), self._array(truncated), info

    def _export(self, obs: ObsTensors) -> Any:
        if self.output == "numpy":
            return to_numpy(obs, self.single_observation_space)
        with torch.inference_mode(False):
            copied = to_torch(obs)
            if self._alarm is None:
                return copied
            return {key: _tamed(value) for key, value in copied.items()} if isinstance(copied, dict) else _tamed(copied)

    def _array(self, values: Tensor) -> Any:
        """A copy that is the caller's."""
        if self.output == "numpy":
            return values.cpu().numpy() if values.device.type != "cpu" else values.numpy().copy()
        with torch.inference_mode(False):
            copied = values.clone()
            return copied if self._alarm is None else _tamed(copied)

    def _infos(self, values: tuple[Tensor, ...], mask: Any) -> dict[str, Any]:
        """gymnasium's dict of arrays; _key tells which slots the value is for."""
        infos: dict[str, Any] = {}
        for key, value in zip(_INFO_KEYS, values):
            infos[key] = self._array(value)
            if self.output == "numpy":
                infos[f"_{key}"] = np.ones(self.num_envs, np.bool_) if mask is None else np.array(mask)
            else:
                every = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
                infos[f"_{key}"] = every if mask is None else torch.as_tensor(mask, device=self.device).clone()
        return infos

    def _need_reset(self, what: str) -> None:
        if not self._engine.started:
            raise ResetNeeded(f"{what}() was called before reset(); call reset() first.")

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: value for key, value in self.__dict__.items() if key not in ("_observations", "_actions", "_alarm")}
        return {**kept, "obs_type": self.obs_type}

    def __setstate__(self, state: dict[str, Any]) -> None:
        obs_type = state.pop("obs_type")
        self.__dict__.update(state)
        self._build(obs_type)


def _info_values(result: StepResult, steps: Tensor) -> tuple[Tensor, ...]:
    return result.uncertainty, result.continue_prob, steps, result.halted


def _begun(values: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    """The values of _INFO_KEYS at an episode's start, in the rows that were reset."""
    return tuple(torch.where(rows, first, value) for first, value in zip((0.0, 1.0, 0, False), values))


def _where(rows: Tensor, new: ObsTensors, old: ObsTensors) -> ObsTensors:
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: torch.where(_like(rows, old[key]), new[key], old[key]) for key in new}
    assert isinstance(new, Tensor) and isinstance(old, Tensor)
    return torch.where(_like(rows, old), new, old)


def _index_copy(obs: ObsTensors, index: Tensor, fresh: ObsTensors) -> ObsTensors:
    if isinstance(obs, dict) and isinstance(fresh, dict):
        return {key: obs[key].index_copy(0, index, fresh[key]) for key in obs}
    assert isinstance(obs, Tensor) and isinstance(fresh, Tensor)
    return obs.index_copy(0, index, fresh)


def _like(rows: Tensor, values: Tensor) -> Tensor:
    return rows.reshape(-1, *(1,) * (values.dim() - 1))


def _tamed(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if values.is_floating_point() else values


def _some(rows: list[int]) -> str:
    return str(rows) if len(rows) <= 8 else f"{rows[:8]} and {len(rows) - 8} others"
