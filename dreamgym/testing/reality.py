"""The alignment oracle: which action and which reward of a real episode does a model's prediction fit best?

An off-by-one in actions or rewards hides in one-step losses and in dreams that look good; against reality it shows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamgym.dreams.observations import ObservationReader
from dreamgym.structs import ObsTensors, TensorStruct, map_obs
from dreamgym.testing.report import Fault
from dreamgym.testing.subject import NotApplicable, Subject, sampled_actions

__all__ = ["check_reality"]

_STEPS = 300  # of real episodes, all episodes together
_BETTER = 0.7  # another row's fit must be this much better than the right one's
_SIGMAS = 4.0  # and that beyond doubt


@dataclass(frozen=True)
class Moments(TensorStruct):
    """Real steps with one more on either side, leading [N]: what was believed, what was done around it, what came of it."""

    belief: Any  # after the row from which the step was taken
    before: Tensor  # [N,A] the action that had led to it
    action: Tensor  # [N,A] the action taken
    after: Tensor  # [N,A] the next one
    obs: ObsTensors  # [N,...] arrived at
    reward: Tensor  # [N,3] of the row before, the row arrived at, and the next


def check_reality(subject: Subject) -> Iterator[Fault]:
    """Predictions of a real step fit the action that was taken and the reward that came of it, not their neighbours."""
    if subject.real_env is None:
        raise NotApplicable("pass real_env= to judge alignment against the real environment")
    subject.needs("observe")
    moments = _lived(subject)
    if len(moments.reward) < 20:
        raise NotApplicable(f"the real episodes gave only {len(moments.reward)} steps with neighbours on both sides")
    yield from _actions(subject, moments)
    yield from _rewards(subject, moments)


def _actions(subject: Subject, moments: Moments) -> Iterator[Fault]:
    if "decode" not in subject.passed:
        return
    reader = ObservationReader(subject.model, None, subject.device)
    errors = {}
    for name, action in (("the one before", moments.before), ("its own", moments.action), ("the next one", moments.after)):
        errors[name] = _error(reader.decoded(_arrived(subject, moments, action)), moments.obs)
    for name in ("the one before", "the next one"):
        if _is_better(errors[name], errors["its own"]):
            mend = "train on rows that hold obs, reward and the action that led there (dreamgym.structs: arrival alignment)"
            found = f"with {name} the error is {float(errors[name].mean()):.3g}, with its own {float(errors['its own'].mean()):.3g}"
            yield Fault("a step to be foretold best with the action that was taken", found, mend)


def _rewards(subject: Subject, moments: Moments) -> Iterator[Fault]:
    said = subject.model.predict(_arrived(subject, moments, moments.action)).reward.double()
    before, own, after = ((said - moments.reward[:, row]).square() for row in range(3))
    for name, error in (("row before", before), ("next row", after)):
        if _is_better(error, own):
            mend = "predict(state) speaks of the state arrived at: the reward of row t is r(o[t-1], a[t-1])"
            found = f"the error to the {name}'s is {float(error.mean()):.3g}, to its own {float(own.mean()):.3g}"
            yield Fault("the reward of a step to be foretold for the row it leads to", found, mend)


def _arrived(subject: Subject, moments: Moments, action: Tensor) -> Any:
    noise = torch.full((len(action), subject.model.noise_lanes), 0.5, device=subject.device)
    return subject.model.step(moments.belief, action, noise, 0.0)


def _is_better(other: Tensor, own: Tensor) -> bool:
    """Whether the other errors [N] are smaller, by much and beyond doubt."""
    gain = own - other
    doubt = float(gain.std()) / len(gain) ** 0.5
    return float(other.mean()) < _BETTER * float(own.mean()) and float(gain.mean()) > _SIGMAS * doubt


def _error(mine: ObsTensors, its: ObsTensors) -> Tensor:
    """Mean squared error of each row [N]; dimensions count by their spread."""
    pairs = [(mine[name], its[name]) for name in mine] if isinstance(mine, dict) and isinstance(its, dict) else [(mine, its)]
    each = []
    for said, real in pairs:
        said, real = (value.double().flatten(1) if value.dim() > 1 else value.double().unsqueeze(1) for value in (said, real))  # type: ignore[union-attr]
        each.append(((said - real).square() / real.var(0).clamp(min=1e-12)).where(real.var(0) > 1e-12, torch.zeros(())).mean(1))
    return torch.stack(each).mean(0)


# ---- living -------------------------------------------------------------------------------------------------------------


def _lived(subject: Subject) -> Moments:
    found: list[Moments] = []
    steps, episode = 0, 0
    while steps < _STEPS and episode < _STEPS:
        moments = _episode(subject, episode, _STEPS - steps)
        found += moments
        steps, episode = steps + len(moments) + 2, episode + 1
    return Moments.cat(found) if found else _nothing(subject)


def _nothing(subject: Subject) -> Moments:
    action = subject.actions(1, "nothing")
    obs = subject.observations(1, "nothing")
    return Moments(subject.initial(1), action, action, action, obs, torch.zeros(1, 3))[:0]


def _episode(subject: Subject, episode: int, most: int) -> list[Moments]:
    """One real episode under random actions, believed row by row."""
    model, env, space = subject.model, subject.real_env, subject.spec.action_space
    rng = subject.generator(f"episode {episode}")
    noise = torch.full((1, model.noise_lanes), 0.5, device=subject.device)
    action, no_action = None, torch.zeros(1, subject.spec.action_size, device=subject.device)
    obs, _ = env.reset(seed=subject.seed + episode)
    beliefs: list[Any] = []
    actions: list[Tensor] = []
    seen, rewards = [_tensor(subject, obs)], [0.0]
    belief = model.observe(subject.initial(1), no_action, seen[0], torch.ones(1, dtype=torch.bool, device=subject.device), noise)
    ended = False
    while not ended and len(actions) < most:
        chosen = sampled_actions(space, 1, rng)
        obs, reward, terminated, truncated, _ = env.step(chosen[0])
        action = subject.model_action(chosen)
        beliefs.append(belief)
        actions.append(action)
        seen.append(_tensor(subject, obs))
        rewards.append(float(reward))
        belief = model.observe(belief, action, seen[-1], torch.zeros(1, dtype=torch.bool, device=subject.device), noise)
        ended = terminated or truncated
    return [
        Moments(
            beliefs[t],
            actions[t - 1],
            actions[t],
            actions[t + 1],
            seen[t + 1],
            torch.tensor([[rewards[t], rewards[t + 1], rewards[t + 2]]], device=subject.device),
        )
        for t in range(1, len(actions) - 1)
    ]


def _tensor(subject: Subject, obs: Any) -> ObsTensors:
    """A real observation as a batch of one, in the types that observe is given."""

    def one(value: Any) -> Tensor:
        array = np.asarray(value)
        return torch.from_numpy(np.array(array, np.float32 if array.dtype.kind == "f" else array.dtype)[None]).to(subject.device)

    return map_obs(one, obs)
