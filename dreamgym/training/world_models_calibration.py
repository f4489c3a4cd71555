"""What M must know before it is dreamt: where dreams begin, and when they end, tuned until blind policies live as long as awake."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from dreamgym.data.encoded import padded_episodes
from dreamgym.data.replay import Replay
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.evaluation.fidelity import FixedPolicyFidelity, fixed_policy_fidelity
from dreamgym.evaluation.policies import OpenLoopPolicy, constant_policies, random_policy, sweep_pairs, sweep_policies
from dreamgym.evaluation.returns import Returns
from dreamgym.models.calibration import filter_episode
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Spec, StartBank
from dreamgym.training.world_models_config import Calibration

__all__ = [
    "EndSearch",
    "blind_policies",
    "calibrate_lives",
    "draw_remembered",
    "draw_starts",
    "lengths_at",
    "search_end",
    "set_defaults",
]

_THRESHOLDS = torch.sigmoid(torch.linspace(-6.0, 3.0, 91))  # 0.0025 to 0.95
_LIVING_EPISODES = 64
_REAL_ENVS = 8


def draw_starts(model: WorldModel, codes: Replay, *, size: int, seed: int) -> StartBank:
    """Start states from encoded episodes: for three quarters true first rows, the rest drawn from living rows.

    Codes are V's means, or samples where the model is awake on samples (`DreamDefaults.belief`).
    """
    rng = np.random.default_rng([seed, 17])
    sampled = _noise_seed(model, seed)
    order = rng.permutation(len(codes.episodes))
    first = codes.sample_windows(np.array([start for start, _ in codes.episodes])[order[: max(1, size * 3 // 4)]], 1)
    assert isinstance(first.obs, Tensor)
    begun = filter_episode(model, replace(first, embed=first.obs.float()).to(model.device), seed=sampled)[0].flatten()
    rows = padded_episodes(codes, order[:_LIVING_EPISODES]).to(model.device)
    alive = torch.nonzero((rows.valid & ~rows.is_first & ~rows.is_last).flatten()).squeeze(-1)
    chosen = torch.from_numpy(np.sort(rng.permutation(len(alive))[: size - len(first.index)])).to(model.device)
    amid = filter_episode(model, rows, seed=sampled)[0].flatten()[alive[chosen]]
    is_first = torch.cat([torch.ones(len(first.index), dtype=torch.bool), torch.zeros(len(chosen), dtype=torch.bool)])
    return StartBank(state=type(begun).cat([begun, amid]).clone(), is_first=is_first.to(model.device))


def draw_remembered(model: WorldModel, codes: Replay, agents: Collection[str], *, episodes: int, size: int, seed: int) -> StartBank:
    """States [size] from anywhere in `episodes` lives but their ends, half of them from lives of policies named in `agents`.

    Where there are only such lives, or none, all are from what there is; fewer where there are not as many. None counts as a first one.
    """
    rng = np.random.default_rng([seed, 19])
    lived = np.array([policy in agents for policy in codes.policies])
    kinds = [found for kind in (lived, ~lived) if len(found := np.flatnonzero(kind))]
    kept: list[Any] = []
    for found in kinds:
        chosen = rng.permutation(found)[: -(-episodes // len(kinds))]
        parts = np.array_split(chosen, -(-len(chosen) // _LIVING_EPISODES))
        wanted = -(-size // (len(kinds) * len(parts)))
        kept += [_living(model, codes, part, wanted, rng, seed) for part in parts]
    return StartBank.midway(type(kept[0]).cat(kept)[:size])


def _living(model: WorldModel, codes: Replay, episodes: NDArray[np.int64], size: int, rng: np.random.Generator, seed: int) -> Any:
    """At most `size` beliefs out of these episodes, in order, from rows that are not their last."""
    rows = padded_episodes(codes, episodes).to(model.device)
    alive = torch.nonzero((rows.valid & ~rows.is_last).flatten()).squeeze(-1)
    chosen = torch.from_numpy(np.sort(rng.permutation(len(alive))[:size])).to(model.device)
    return filter_episode(model, rows, seed=_noise_seed(model, seed))[0].flatten()[alive[chosen]].clone()


def _noise_seed(model: WorldModel, seed: int) -> int | None:
    """None where the model is awake on V's means."""
    return seed if model.defaults.belief == "sample" else None


# ---- the end ------------------------------------------------------------------------------------------------------------


def blind_policies(spec: Spec, settings: Calibration, *, seed: int = 0) -> dict[str, OpenLoopPolicy]:
    """Constants, sweeps with the settings' periods, and uniform random actions, by name."""
    space = spec.action_space
    if settings.sweep is not None and isinstance(space, spaces.Discrete):
        first, second = settings.sweep
        pairs: Mapping[str, tuple[Any, Any]] = {f"{first}|{second}": (np.int64(first), np.int64(second))}
    else:
        name, pair = next(iter(sweep_pairs(space).items()))
        pairs = {name: pair}
    return {**constant_policies(space), **sweep_policies(space, settings.periods, pairs), "random": random_policy(space, seed)}


def calibrate_lives(
    model: Any, settings: Calibration, build: Callable[[], gym.Env[Any, Any]], measured: Path, *, seed: int
) -> tuple[EndSearch | None, FixedPolicyFidelity]:
    """Let blind policies live in the dream as long as awake; returns the search for the end, and their lives in dreams as they are then.

    Dreams that end at a threshold are given one. Dreams that end by chance have none, but a temperature: of those in the settings the one
    at which the lives come closest. What the policies live awake is read from the file `measured`, or else found out and written there.
    """
    policies = blind_policies(model.spec, settings)
    if not measured.exists():
        env_fn = partial(SyncVectorEnv, [build] * _REAL_ENVS)
        lived = fixed_policy_fidelity(model, env_fn, policies, settings.real_episodes, seed).real
        measured.write_text(json.dumps({name: returns.to_json() for name, returns in lived.items()}) + "\n", encoding="utf-8")
    real = {name: Returns.from_json(saved) for name, saved in json.loads(measured.read_text(encoding="utf-8")).items()}

    def checked() -> FixedPolicyFidelity:
        return fixed_policy_fidelity(model, None, policies, settings.dream_episodes, seed, real=real)

    if model.defaults.termination == "threshold":
        found = search_end(model, real, policies, dreams=settings.dream_episodes, seed=seed)
        set_defaults(model, end_probability=found.end_probability)
        return found, checked()
    tried = {}
    for temperature in settings.temperatures:
        set_defaults(model, temperature=temperature)
        tried[temperature] = checked()
    if not tried:
        return None, checked()
    best = min(tried, key=lambda temperature: _distance(tried[temperature]))
    set_defaults(model, temperature=best)
    return None, tried[best]


def _distance(checked: FixedPolicyFidelity) -> float:
    """Of the lives in the dream from those awake; none can be told where nobody ever dies."""
    return math.inf if checked.log_length_ratio is None else checked.log_length_ratio


@dataclass(frozen=True)
class EndSearch:
    """What a search for the end's threshold found: the best, its r.m.s. log ratio of lengths, and that of every threshold tried."""

    end_probability: float
    log_ratio: float
    tried: tuple[tuple[float, float], ...]


def search_end(model: Any, real: Mapping[str, Returns], policies: Mapping[str, OpenLoopPolicy], *, dreams: int, seed: int) -> EndSearch:
    """The threshold on the end's chance at which blind policies' mean lengths in the dream come closest to those awake.

    Dreams go on past predicted ends, so that one set of them tells the lengths for every threshold. They have the model's own
    temperature and dropout.
    """
    chances = _end_chances(model, list(policies.values()), dreams=dreams, seed=seed)
    lived = torch.tensor([real[name].mean_length for name in policies])
    dreamt = torch.stack([lengths_at(chances, float(threshold)).float().mean(1) for threshold in _THRESHOLDS])
    ratios = (dreamt / lived).log().square().mean(1).sqrt()
    best = int(ratios.argmin())
    return EndSearch(float(_THRESHOLDS[best]), float(ratios[best]), tuple(zip(_THRESHOLDS.tolist(), ratios.tolist())))


def lengths_at(chances: Tensor, threshold: float) -> Tensor:
    """Steps [...] until a chance [...,T] is above the threshold; T where none is."""
    above = chances > threshold
    return torch.where(above.any(-1), above.int().argmax(-1) + 1, chances.shape[-1])


def _end_chances(model: Any, policies: Sequence[OpenLoopPolicy], *, dreams: int, seed: int) -> Tensor:
    """Chances of an end [P,R,T] along R dreams of each policy, which do not end. Stops where all are past every threshold."""
    env = DreamVectorEnv(
        model,
        num_envs=len(policies) * dreams,
        termination="never",
        max_uncertainty=math.inf,
        uncertainty_penalty=0.0,
        range_guard=False,
        obs_type="latent",
        output="torch",
    )
    chances: list[Tensor] = []
    highest, episodes = torch.zeros(env.num_envs), np.arange(dreams)
    env.reset(seed=[seed + dream for dream in range(dreams)] * len(policies))
    while len(chances) < env.max_episode_steps and not bool((highest > _THRESHOLDS[-1]).all()):
        steps = np.full(dreams, len(chances))
        *_, info = env.step(np.concatenate([policy.act(episodes, steps) for policy in policies]))
        chances.append(1.0 - info["continue_prob"].cpu())
        highest = torch.maximum(highest, chances[-1])
    env.close()
    return torch.stack(chances, -1).unflatten(0, (len(policies), dreams))


def set_defaults(model: WorldModel, **changes: Any) -> None:
    """Change how the model is dreamt by default: fields of its DreamDefaults."""
    model.config = replace(model.config, defaults=replace(model.defaults, **changes))
