"""The real world seen through a model's eyes, with exactly the dream's spaces, so that what learned to act asleep acts awake."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.dreams.actions import ActionReader
from dreamgym.dreams.belief_clock import BeliefClock
from dreamgym.dreams.engine import check_model
from dreamgym.dreams.masks import reset_mask, seed_list
from dreamgym.dreams.observations import Observation, ObservationReader
from dreamgym.dreams.sharing import ModelReference
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.structs import DreamDefaults, ObsTensors, Preprocess, Spec, map_obs

__all__ = ["LatentObservation", "LatentVectorObservation"]


class _Belief:
    """What the model takes the state of B real environments to be: the posterior's mean or a sample, given all it saw and did."""

    def __init__(self, model: Any, num_envs: int, obs_type: str, kind: str | None) -> None:
        check_model(model)
        if not hasattr(model, "observe"):
            raise ValueError("acting awake needs model.observe, which this model lacks.")
        if obs_type not in ("latent", "dict"):
            raise ValueError(f"obs_type is {obs_type!r}; awake, expected 'latent' or 'dict' (the env itself gives pixels and vectors).")
        parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
        self.device = next((parameter.device for parameter in parameters), torch.device("cpu"))
        self.model = model
        self.num_envs = num_envs
        self.obs_type = obs_type
        self.sampled = _is_sampled(model, kind)
        self.clock = BeliefClock(num_envs)
        self._build()
        self.state: Any = None

    def _build(self) -> None:
        self.reader = ObservationReader(self.model, self.obs_type, self.device)
        self.actions = ActionReader(self.model.spec, self.device)
        self._mean_noise = torch.full((self.num_envs, self.model.noise_lanes), 0.5, device=self.device)
        self._no_action = torch.zeros(self.num_envs, self.model.spec.action_size, device=self.device)

    @torch.inference_mode()
    def begin(self, obs: Any, rows: NDArray[np.bool_]) -> None:
        """Take in first observations [B,...] in the rows of a mask [B], and forget what was before."""
        is_first = torch.from_numpy(rows).to(self.device)
        self.clock.begin(rows)
        before = self.model.initial(self.num_envs).to(self.device) if self.state is None else self.state
        fresh = self.model.observe(before, self._no_action, self._tensor(obs), is_first, self._noise())
        self.state = fresh if rows.all() else fresh.where(is_first, before)

    @torch.inference_mode()
    def update(self, action: Tensor, obs: Any, is_first: NDArray[np.bool_], valid: NDArray[np.bool_]) -> None:
        """Take in what arrived after a model action [B,A]. Where an observation is meaningless, believe what was predicted."""
        first = torch.from_numpy(is_first).to(self.device)
        self.clock.tick()
        self.clock.begin(is_first)
        noise = self._noise()
        state = self.model.observe(self.state, action, self._tensor(obs), first, noise)
        if not valid.all():
            predicted = self.model.step(self.state, action, noise)
            state = state.where(torch.from_numpy(valid | is_first).to(self.device), predicted)
        self.state = state

    def _noise(self) -> Tensor:
        """[B,L]. Lanes that choose a member or a mask stay at 0.5: awake nothing is dropped."""
        if not self.sampled:
            return self._mean_noise
        held = getattr(self.model, "episode_lanes", 0)
        return torch.cat([self._mean_noise[:, :held], self.clock.noise(self.model.noise_lanes, self.device)[:, held:]], 1)

    @torch.inference_mode()
    def read(self, obs: Any) -> Observation:
        """What the agent sees, [B,...], of the real observations [B,...] just taken in."""
        latent = self.reader.latent(self.state).cpu().numpy()
        if self.obs_type == "latent":
            return latent
        return self.reader.joined(_as_in(obs, self.reader.own_space), latent)

    def exported(self) -> Any:
        """The state [B] as ordinary tensors (autograd refuses those of inference mode)."""
        return None if self.state is None else self.state.clone()

    def _tensor(self, obs: Any) -> ObsTensors:
        return map_obs(lambda array: torch.from_numpy(_in_single(array)).to(self.device), _as_in(obs, self.reader.own_space))

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: getattr(self, key) for key in ("device", "num_envs", "obs_type", "sampled", "clock")}
        return {**kept, "state": self.exported(), "reference": ModelReference(self.model)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.model = state.pop("reference").model
        self.__dict__.update(state)
        self._build()


class LatentObservation(gym.Wrapper[Any, Any, Any, Any]):
    """A real environment whose observations are the model's features, as in the dream: same spaces, same preprocessing.

    obs_type "latent" (default) or "dict" (the real observation and the features). A raw env is preprocessed as the model's was.
    belief: whether the model takes the "mean" or a "sample" of what an observation may mean; None: as model.defaults say. Samples
    are repeated exactly by reset(seed=...). The belief is updated with the action that was executed; finite actions out of bounds are
    clipped, as in the dream.
    `belief` is the model's state, `last_obs` the real observation: a film shows it above model.decode(belief).
    Raises ValueError where the env is not what the model knows, InvalidAction before anything moves.
    """

    def __init__(self, env: gym.Env[Any, Any], model: Any, *, obs_type: str = "latent", belief: str | None = None) -> None:
        self._belief = _Belief(model, 1, obs_type, belief)
        super().__init__(_preprocessed(env, model.spec))
        _check_spaces(self.env, self.env.observation_space, self.env.action_space, model.spec)
        self.observation_space = self._belief.reader.space
        self.last_obs: Any = None

    @property
    def model(self) -> Any:
        """The world model that looks."""
        return self._belief.model

    @property
    def belief(self) -> Any:
        """The model's state [1] after all it saw and did; None before reset()."""
        return self._belief.exported()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode, and a new belief."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._belief.clock.reseed([seed])
        self._belief.begin(_alone(obs), _ALL)
        return self._see(obs), info

    def step(self, action: Any) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Act, look, and update the belief. A meaningless observation (info["obs_valid"] False) leaves the prediction."""
        if self._belief.state is None:
            raise ResetNeeded("step() was called before reset(); call reset() first.")
        model_action = self._belief.actions.one(action)
        obs, reward, terminated, truncated, info = self.env.step(_executed(action, self.model.spec.action_space))
        valid = np.array([bool(info.get("obs_valid", True))])
        self._belief.update(model_action, _alone(obs), ~_ALL, valid)
        return self._see(obs), reward, terminated, truncated, info

    def _see(self, obs: Any) -> Observation:
        self.last_obs = obs
        return map_obs(lambda values: values[0], self._belief.read(_alone(obs)))


class LatentVectorObservation(VectorWrapper[Any, Any, Any, Any, Any]):
    """Real vector environments seen as in the dream; beliefs are kept per row under all three autoreset modes.

    The sub-environments must already look as the model's did (preprocess them in make_vec's `wrappers`). Arguments, `belief` [B] and
    `last_obs` [B,...] as in LatentObservation; a row seeded s believes what LatentObservation seeded s believes. With SAME_STEP,
    info["final_obs"] holds the features of the final observations.
    Raises ValueError where the environments are not what the model knows, InvalidAction before anything moves.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], model: Any, *, obs_type: str = "latent", belief: str | None = None) -> None:
        self._belief = _Belief(model, env.num_envs, obs_type, belief)
        super().__init__(env)
        if "autoreset_mode" not in env.metadata:
            raise ValueError(f"{env} does not say in metadata['autoreset_mode'] how it resets; beliefs need to know.")
        self._mode = AutoresetMode(env.metadata["autoreset_mode"])
        _check_spaces(env, env.single_observation_space, env.single_action_space, model.spec)
        _check_preprocessed(env, model.spec.preprocess)
        self.single_observation_space = self._belief.reader.space
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._ended = np.zeros(env.num_envs, np.bool_)
        self.last_obs: Any = None

    @property
    def model(self) -> Any:
        """The world model that looks."""
        return self._belief.model

    @property
    def belief(self) -> Any:
        """The model's states [B] after all it saw and did; None before reset()."""
        return self._belief.exported()

    def reset(  # type: ignore[override]
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin episodes and beliefs, in all rows or in those of options["reset_mask"] (or env_idx, where the env knows it)."""
        mask = reset_mask(dict(options or {}), self.num_envs)
        rows = np.ones(self.num_envs, np.bool_) if mask is None else mask
        passed = None if options is None else dict(options)  # SyncVectorEnv pops from it, and knows masks as arrays only
        if passed and passed.get("reset_mask") is not None:
            passed["reset_mask"] = rows.copy()
        obs, info = self.env.reset(seed=seed, options=passed)
        seeds = seed_list(seed, self.num_envs) or [None] * self.num_envs
        self._belief.clock.reseed([one if row else None for one, row in zip(seeds, rows)])
        self._belief.begin(obs, rows)
        self._ended &= ~rows
        return self._see(obs), info

    def step(self, actions: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Act, look, and update the beliefs; rows that begin again forget."""
        if self._belief.state is None:
            raise ResetNeeded("step() was called before reset(); call reset() first.")
        begins = self._ended if self._mode == AutoresetMode.NEXT_STEP else np.zeros_like(self._ended)
        model_actions, _ = self._belief.actions.many(actions, self.num_envs, torch.from_numpy(begins))
        obs, reward, terminated, truncated, info = self.env.step(_executed(actions, self.model.spec.action_space))
        done = np.asarray(terminated) | np.asarray(truncated)
        if self._mode == AutoresetMode.SAME_STEP and done.any():
            info = {**info, "final_obs": self._final(model_actions, obs, done, info)}
            self._belief.begin(obs, done)
        else:
            self._belief.update(model_actions, obs, begins, _valid(info, self.num_envs))
        self._ended = done
        return self._see(obs), reward, terminated, truncated, info

    def _final(self, actions: Tensor, obs: Any, done: NDArray[np.bool_], info: dict[str, Any]) -> Observation:
        """Update all beliefs with what really came last: the final observation where a row ended, obs elsewhere."""
        last = map_obs(np.array, obs)
        for row in done.nonzero()[0].tolist():
            _put(last, row, info["final_obs"])
        valid = np.where(done, _valid(info.get("final_info", {}), self.num_envs), _valid(info, self.num_envs))
        self._belief.update(actions, last, np.zeros_like(done), valid)
        return self._belief.read(last)

    def _see(self, obs: Any) -> Observation:
        self.last_obs = obs
        return self._belief.read(obs)


_ALL = np.ones(1, np.bool_)


def _is_sampled(model: Any, kind: str | None) -> bool:
    kind = getattr(model, "defaults", DreamDefaults()).belief if kind is None else kind
    if kind not in ("mean", "sample"):
        raise ValueError(f"belief is {kind!r}; expected 'mean', 'sample', or None for the model's own.")
    return kind == "sample"


def _alone(obs: Any) -> Observation:
    """A batch of one."""
    return map_obs(lambda value: np.asarray(value)[None], obs)


def _as_in(obs: Any, space: spaces.Space[Any]) -> Observation:
    """A copy in the space's types."""
    if isinstance(space, spaces.Dict):
        return {name: np.array(obs[name], dtype=space[name].dtype) for name in sorted(space)}
    return np.array(obs, dtype=space.dtype)


def _in_single(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _put(obs: Observation, row: int, final: Any) -> None:
    """Final observations into their row; of a Dict, gymnasium gives a dict of arrays or an array of dicts."""
    if not isinstance(obs, dict):
        obs[row] = final[row]
        return
    for name, values in obs.items():
        values[row] = final[name][row] if isinstance(final, dict) else final[row][name]


def _executed(action: Any, space: spaces.Space[Any]) -> Any:
    """The checked action as the env wants it: clipped to a Box, of the space's own type."""
    array = action.detach().cpu().numpy() if isinstance(action, Tensor) else np.asarray(action)
    if isinstance(space, spaces.Box):
        array = np.clip(array, space.low, space.high)
    return array.astype(space.dtype)[()]


def _valid(info: dict[str, Any], num_envs: int) -> NDArray[np.bool_]:
    """Rows whose observation means something. Rows that say nothing are valid."""
    if "obs_valid" not in info:
        return np.ones(num_envs, np.bool_)
    said = np.asarray(info.get("_obs_valid", np.ones(num_envs, np.bool_)), np.bool_)
    return np.asarray(info["obs_valid"]).astype(np.bool_) | ~said


def _preprocessed(env: gym.Env[Any, Any], spec: Spec) -> gym.Env[Any, Any]:
    if spec.preprocess == Preprocess():
        return env
    from dreamgym.envs.preprocess import preprocess

    try:
        return preprocess(env, spec.preprocess)
    except (ValueError, TypeError) as error:
        spaces_of_both = f"observation space {env.observation_space}, expected {spec.observation_space} after preprocessing"
        way_out = "dreamgym.envs.make_from_spec(model.spec) makes the env that the model knows."
        raise ValueError(f"{_names(env, spec)}: {spaces_of_both}. {error} {way_out}") from error


def _check_preprocessed(env: VectorEnv[Any, Any, Any], settings: Preprocess) -> None:
    """Spaces cannot tell an action repeat or a clipped reward, so ask the sub-environments."""
    if settings == Preprocess() or isinstance(env.unwrapped, DreamVectorEnv):
        return
    from dreamgym.envs.preprocess import applied

    found = applied(env.unwrapped)
    if found != settings:
        raise ValueError(
            f"the environments are preprocessed with {found} but the model knows {settings}; pass "
            "wrappers=[lambda env: dreamgym.envs.preprocess.preprocess(env, model.spec.preprocess)] to gymnasium.make_vec."
        )


def _check_spaces(env: Any, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], spec: Spec) -> None:
    wanted = spec.observation_space
    if not _look_alike(observation_space, wanted):
        raise ValueError(
            f"{_names(env, spec)}: observation space {observation_space}, expected {wanted}; "
            "a vector's envs are preprocessed with dreamgym.envs.preprocess.preprocess(env, model.spec.preprocess)."
        )
    if action_space != spec.action_space:
        raise ValueError(f"{_names(env, spec)}: action space {action_space}, expected {spec.action_space}.")


def _look_alike(found: spaces.Space[Any], wanted: spaces.Space[Any]) -> bool:
    """Equal in shape and in being pixels or not; bounds and precision may differ."""
    if isinstance(wanted, spaces.Dict):
        if not isinstance(found, spaces.Dict) or set(found) != set(wanted):
            return False
        return all(_look_alike(found[name], wanted[name]) for name in wanted)
    if isinstance(found, spaces.Discrete) or isinstance(wanted, spaces.Discrete):
        return found == wanted
    return found.shape == wanted.shape and (found.dtype == np.uint8) == (wanted.dtype == np.uint8)


def _names(env: Any, spec: Spec) -> str:
    name = type(env.unwrapped).__name__ if env.spec is None else env.spec.id
    if name == spec.env_id:
        return f"this {name} is not the one that the model dreams"
    return f"this env is {name} but the model dreams {spec.env_id}"
