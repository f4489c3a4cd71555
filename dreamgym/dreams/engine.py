"""Dreams many slots at once: the one place where a model is stepped, guarded, timed and reset. Tensors in, tensors out."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamgym.dreams.sharing import ModelReference
from dreamgym.dreams.snapshots import Snapshot, layout
from dreamgym.dreams.starts import Starts
from dreamgym.models.guard import Guard
from dreamgym.noise import NoiseStreams
from dreamgym.structs import DreamableModel, DreamDefaults, TensorStruct

__all__ = ["DreamEngine", "Snapshot", "StepResult", "Temperature"]

Temperature = float | Sequence[float]
_START_STEP = -1  # noise of this step chooses where an episode starts; dreamt steps count from 0
_SEED_MODULUS = 2**63  # counters are int64


@dataclass(frozen=True)
class StepResult(TensorStruct):
    """What one dreamt step gave, each [B]."""

    reward: Tensor  # float32, in the environment's units, after the guard's charges
    terminated: Tensor  # bool: a predicted end, or a halt
    truncated: Tensor  # bool: the horizon, and nothing else
    uncertainty: Tensor  # float32
    continue_prob: Tensor  # float32
    halted: Tensor  # bool: the guard ended it
    finite: Tensor  # bool: whether the model's outputs were numbers


class DreamEngine:
    """A batch of dreams of one model; slot i is a function of its own seed, whatever its neighbours do.

    Options left None follow model.defaults, but whole episodes are dreamt unless it is for training: training=False means true
    episode starts and the real time limit, training=True the model's own starts and horizon. horizon: steps until truncation
    (else the model's, else max_episode_steps, else the real time limit; never above a given max_episode_steps).
    temperature: a number, or (low, high) to draw one per episode.
    termination reads the continue head: "threshold" ends where 1 - continue_prob is above end_probability, "sample" ends with
    probability 1 - continue_prob, "never" ignores it. dropout: with which rate to dream, for models that know dropout (ValueError for
    others); None as trained. The rest is described at DreamDefaults and Guard. Equal seeds and actions give bit-equal dreams at one
    batch size on one device; across batch sizes they agree up to the rounding of matrix products.
    Raises ValueError for options out of range or options that the model cannot serve, TypeError for what is not a model.
    """

    def __init__(
        self,
        model: DreamableModel,
        num_envs: int,
        *,
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
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; expected at least 1.")
        check_model(model)
        self._arguments: dict[str, Any] = {
            "num_envs": num_envs,
            "training": training,
            "max_episode_steps": max_episode_steps,
            "horizon": horizon,
            "starts": starts,
            "temperature": temperature,
            "max_uncertainty": max_uncertainty,
            "uncertainty_penalty": uncertainty_penalty,
            "range_guard": range_guard,
            "hold": hold,
            "termination": termination,
            "end_probability": end_probability,
            "dropout": dropout,
        }
        self.model, self.device = _placed(model, device)
        self.num_envs = num_envs
        defaults = getattr(model, "defaults", DreamDefaults())
        if not training:
            defaults = replace(defaults, horizon=None, starts="first")
        given = {"starts": starts, "hold": hold, "termination": termination, "end_probability": end_probability, "dropout": dropout}
        options = replace(defaults, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
        self._termination = options.termination
        self._least_continue = 1.0 - options.end_probability
        self.dreamer = _with_dropout(self.model, options.dropout)
        self._max_episode_steps = None if max_episode_steps is None else check_horizon(max_episode_steps, "max_episode_steps")
        limits = (horizon, defaults.horizon, max_episode_steps, model.spec.max_episode_steps)
        self.horizon = self._limited(next(limit for limit in limits if limit is not None))
        self.temperature = check_temperature(defaults.temperature if temperature is None else temperature)
        self.guard = Guard.of(
            self.model,
            max_uncertainty=defaults.max_uncertainty if max_uncertainty is None else max_uncertainty,
            uncertainty_penalty=defaults.uncertainty_penalty if uncertainty_penalty is None else uncertainty_penalty,
            range_guard=defaults.range_guard if range_guard is None else range_guard,
        )
        self._starts = Starts(self.model, options.starts, num_envs, self.device)
        self._lanes = self.dreamer.noise_lanes
        self._held_lanes = getattr(self.dreamer, "episode_lanes", 0) if options.hold == "episode" else 0
        self._streams = NoiseStreams(num_envs, self._lanes + 1, device=self.device)  # the last lane samples the end
        self._held: Tensor | None = None
        self._state: Any = None
        self.current_temperature: float | Tensor = 1.0  # of the episodes under way; [B] where slots differ
        self.steps = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._horizons = torch.full_like(self.steps, self.horizon)
        self.done = torch.zeros_like(self.steps, dtype=torch.bool)  # ended and not begun again

    @property
    def started(self) -> bool:
        """Whether there is a state to step from."""
        return self._state is not None

    @property
    def state(self) -> Any:
        """The model's state, leading [B]."""
        return self._state

    def stop(self) -> None:
        """Forget the state; the noise streams stay where they are, and a reset goes on from there."""
        self._state = None

    @torch.inference_mode()
    def reset(
        self,
        mask: Tensor | None = None,
        *,
        seeds: Sequence[int | None] | None = None,
        initial_state: Any = None,
        context: Any = None,
        horizon: Any = None,
        temperature: Any = None,
    ) -> None:
        """Begin new episodes in the slots of mask [B] (None: all). seeds [B]: None rows go on with their streams.

        initial_state and context as in Starts; horizon: steps, or one number per slot; temperature: one, or (low, high).
        Raises before anything changes.
        """
        if initial_state is not None and context is not None:
            raise ValueError("initial_state and context are both given; a dream starts from one of them.")
        limits = self._limits(horizon)
        temperature = self.temperature if temperature is None else check_temperature(temperature)
        named = None
        if initial_state is not None:
            named = self._starts.named(initial_state)
        elif context is not None:
            named = self._starts.observed(context)
        everywhere = mask is None or self._state is None
        slots = torch.ones_like(self.steps, dtype=torch.bool) if everywhere or mask is None else mask
        self._restart_streams(slots, seeds)
        chance = self._streams.at_step(_START_STEP, 2)
        fresh = self._starts.draw(chance[:, 0]) if named is None else named
        self._state = fresh if everywhere else fresh.where(slots, self._state)
        self.steps = torch.where(slots, 0, self.steps)
        self.done = self.done & ~slots
        self._horizons = torch.where(slots, limits, self._horizons)
        self._set_temperature(slots, everywhere, temperature, chance[:, 1])
        self._hold()

    @torch.inference_mode()
    def step(self, action: Tensor) -> StepResult:
        """Dream every slot one step on. action [B,A] model action. The reward belongs to the state arrived at."""
        noise, chance = self.draw()
        state = self.dreamer.step(self._state, action, noise, self.current_temperature)
        prediction = self.dreamer.predict(state)
        self._state = state
        self.steps = self.steps + 1
        ended = self.predicted_end(prediction.continue_prob, chance)
        reward, halted = self.guard.judge(self.model, state, prediction, ended, self.steps)
        terminated = ended | halted if self.guard.halts else ended
        truncated = self.steps >= self._horizons
        self.done = terminated | truncated
        return StepResult(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            uncertainty=prediction.uncertainty,
            continue_prob=prediction.continue_prob,
            halted=halted,
            finite=_finite(state, prediction.reward + prediction.continue_prob + prediction.uncertainty),
        )

    @torch.inference_mode()
    def draw(self) -> tuple[Tensor, Tensor]:
        """Noise of the next step: [B,L] for the model, [B] for the end. Moves the streams on."""
        noise = self._streams.draw()
        chance, noise = noise[:, -1], noise[:, : self._lanes]
        return (noise if self._held is None else torch.cat([self._held, noise[:, self._held_lanes :]], 1)), chance

    def predicted_end(self, continue_prob: Tensor, chance: Tensor) -> Tensor:
        """Which dreams end of themselves, [B] bool; chance [B] as `draw` gives it."""
        if self._termination == "threshold":
            return continue_prob < self._least_continue
        if self._termination == "sample":
            return chance > continue_prob
        return torch.zeros_like(continue_prob, dtype=torch.bool)

    @torch.inference_mode()
    def features(self) -> Tensor:
        """Features [B,F] of the current states."""
        return self.model.features(self._state)

    @torch.inference_mode()
    def decode(self, rows: Tensor | None = None) -> Tensor:
        """The observations that the current states stand for, [B,...]; of some rows only, where given."""
        return self.model.decode(self._state if rows is None else self._state[rows])  # type: ignore[attr-defined]

    def snapshot(self) -> Snapshot:
        """Everything that set apart this batch of dreams from others of the same model."""
        streams = self._streams
        counters = {"seed": streams.seed, "episode": streams.episode, "step": streams.step}
        held = Snapshot(self.model.spec.env_id, self._state, self.steps, self._horizons, self.done, self.current_temperature, **counters)
        return held.clone(self.device)

    def restore(self, snapshot: Snapshot, seeds: Sequence[int | None] | None = None) -> None:
        """Continue from a snapshot; one of a single slot goes into every slot. seeds give futures of their own.

        Raises, before anything changes, TypeError for what is no snapshot, ValueError for one of another model or batch size.
        """
        self._check_ours(snapshot)
        saved = snapshot.spread(self.num_envs).clone(self.device)
        self._state, self.steps, self._horizons = saved.state, saved.steps, saved.horizon
        self.current_temperature, self.done = saved.temperature, saved.done
        seed, step = saved.seed, saved.step
        if seeds is not None:
            fresh = torch.tensor([0 if s is None else s % _SEED_MODULUS for s in seeds], dtype=torch.int64, device=self.device)
            seed = torch.where(self._given(seeds), fresh, seed)
        self._streams.restore(seed, saved.episode, step)
        self._hold()

    def set_temperature(self, temperature: Temperature) -> None:
        """Temperature of the episodes that begin from now on."""
        self.temperature = check_temperature(temperature)

    def __deepcopy__(self, memo: dict[int, Any]) -> DreamEngine:
        return _rebuilt(self.model, *copy.deepcopy(self._parts(), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reloaded, (ModelReference(self.model), *self._parts())

    def _parts(self) -> tuple[dict[str, Any], Snapshot | None, tuple[Tensor, Tensor]]:
        return {**self._arguments, "device": str(self.device)}, self.snapshot() if self.started else None, self._seeds()

    def _seeds(self) -> tuple[Tensor, Tensor]:
        return self._streams.seed.clone(), self._streams.episode.clone()

    def _check_ours(self, snapshot: Any) -> None:
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"the saved state is a {type(snapshot).__name__}; expected what get_state() returned.")
        ours, found = (layout(state) for state in (self.model.initial(1), snapshot.state))
        world = self.model.spec.env_id
        if snapshot.env_id != world or found != ours:
            raise ValueError(f"the saved state is of a model of {snapshot.env_id}: {found}; this model of {world} has {ours}.")

    def _limits(self, horizon: Any) -> int | Tensor:
        if horizon is None:
            return self.horizon
        if np.ndim(horizon) == 0:
            return self._limited(check_horizon(horizon, "horizon"))
        limits = torch.as_tensor(horizon)
        if limits.shape != (self.num_envs,) or limits.is_floating_point() or bool((limits < 1).any()):
            raise ValueError(f"horizon is {horizon!r}; expected a number of steps of at least 1, or {self.num_envs} of them.")
        return limits.to(self.device, torch.int64).clamp(min=1, max=self._max_episode_steps)

    def _limited(self, horizon: int) -> int:
        check_horizon(horizon, "horizon")
        return horizon if self._max_episode_steps is None else min(horizon, self._max_episode_steps)

    def _given(self, seeds: Sequence[int | None]) -> Tensor:
        return torch.tensor([seed is not None for seed in seeds], device=self.device)

    def _restart_streams(self, slots: Tensor, seeds: Sequence[int | None] | None) -> None:
        if seeds is None:
            self._streams.start(slots)
            return
        given = self._given(seeds)
        values = torch.tensor([0 if seed is None else seed % _SEED_MODULUS for seed in seeds], dtype=torch.int64, device=self.device)
        self._streams.start(slots & ~given)
        self._streams.start(slots & given, seed=values)

    def _set_temperature(self, slots: Tensor, everywhere: bool, temperature: float | tuple[float, float], chance: Tensor) -> None:
        """One float as long as all slots agree: multiplying by a float is cheaper than by a tensor."""
        current = self.current_temperature
        if isinstance(temperature, float) and (everywhere or (isinstance(current, float) and current == temperature)):
            self.current_temperature = temperature
            return
        low, high = (temperature, temperature) if isinstance(temperature, float) else temperature
        drawn = low + (high - low) * chance
        old = drawn if everywhere else current if isinstance(current, Tensor) else torch.full_like(drawn, current)
        self.current_temperature = torch.where(slots, drawn, old)

    @torch.inference_mode()
    def _hold(self) -> None:
        """Keep each episode's first draw of the lanes that choose a member or a mask."""
        if self._held_lanes:
            self._held = self._streams.at_step(0, self._lanes + 1)[:, : self._held_lanes]


def check_model(model: Any) -> None:
    """Raises TypeError for what cannot be dreamt, with the way to load it where it is a name or a path."""
    if isinstance(model, (str, os.PathLike)):
        name = os.fspath(model)
        raise TypeError(f"expected a model, received {name!r}; load it with dreamgym.WorldModel.from_pretrained({name!r}).")
    lacks = [name for name in ("spec", "noise_lanes", "initial", "step", "predict", "features") if not hasattr(model, name)]
    if lacks:
        raise TypeError(f"expected a model, received a {type(model).__name__}, which lacks {', '.join(lacks)}.")


def check_horizon(steps: int, name: str) -> int:
    """The number of steps. Raises ValueError below 1."""
    if isinstance(steps, bool) or steps != int(steps) or steps < 1:
        raise ValueError(f"{name} is {steps!r}; expected a number of steps of at least 1.")
    return int(steps)


def check_temperature(temperature: Any) -> float | tuple[float, float]:
    """A number of at least 0, or a range (low, high) of such. Raises ValueError."""
    try:
        ends = [float(end) for end in temperature] if isinstance(temperature, Sequence) else [float(temperature)] * 2
    except (TypeError, ValueError):
        ends = []
    if len(ends) != 2 or not 0.0 <= ends[0] <= ends[1] < float("inf"):
        raise ValueError(f"temperature is {temperature!r}; expected a number of at least 0, or (low, high) to draw one per episode.")
    return ends[0] if not isinstance(temperature, Sequence) else (ends[0], ends[1])


def _finite(state: Any, total: Tensor) -> Tensor:
    """Whether a row holds only numbers, [B] bool. Sums carry NaN and infinity along, and cost one pass over the state."""
    for _, tensor in state.items():
        if tensor.is_floating_point():
            total = total + (tensor.flatten(1).sum(1) if tensor.dim() > 1 else tensor)
    return torch.isfinite(total)


def _placed(model: Any, device: torch.device | str | None) -> tuple[Any, torch.device]:
    """The model on the device; a copy where it lives elsewhere, for moving a caller's model would break its other users.

    Raises ValueError for a CUDA device that is not there.
    """
    home = torch.device("cpu")
    if isinstance(model, torch.nn.Module):
        tensor = next(iter([*model.parameters(), *model.buffers()]), None)
        home = home if tensor is None else tensor.device
    wanted = home if device is None else torch.device(device)
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {str(wanted)!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices; pass device='cpu'.")
    if wanted.type == "cuda" and wanted.index is None:
        wanted = torch.device("cuda", torch.cuda.current_device())
    if wanted == home or not hasattr(model, "to"):
        return model, wanted
    return copy.deepcopy(model).to(wanted), wanted


def _with_dropout(model: Any, rate: float | None) -> Any:
    """The model, dreaming with another rate of dropout; it shares the weights."""
    if rate is None:
        return model
    if not hasattr(model, "with_dropout"):
        raise ValueError(f"dropout is {rate}, but this model of {model.spec.env_id} dreams without; leave it out.")
    return model.with_dropout(rate)


def _rebuilt(model: Any, arguments: dict[str, Any], snapshot: Snapshot | None, seeds: tuple[Tensor, Tensor]) -> DreamEngine:
    engine = DreamEngine(model, **arguments)
    streams = engine._streams
    streams.restore(seeds[0].to(engine.device), seeds[1].to(engine.device), streams.step)
    if snapshot is not None:
        engine.restore(snapshot)
    return engine


def _reloaded(reference: ModelReference, *parts: Any) -> DreamEngine:
    return _rebuilt(reference.model, *parts)
