"""Real experience as a run keeps it: episodes to learn from, beside episodes that are kept out of learning."""

from __future__ import annotations

from typing import Any

from dreamgym.data.replay import Replay, copy_episode
from dreamgym.structs import Spec

__all__ = ["adopt_dataset", "check_dataset", "forget_episodes", "provenance", "unseen"]


def check_dataset(dataset: Replay) -> None:
    """Raises ValueError for a dataset of fewer than two episodes."""
    if len(dataset.episodes) < 2:
        raise ValueError(f"the dataset holds {len(dataset.episodes)} episodes; expected at least 2, to train on and to hold out.")


def adopt_dataset(dataset: Replay, train: Replay, held_out: Replay) -> None:
    """Copy a filled replay, its last tenth of episodes into held_out, unless that was done already.

    Raises ValueError for a dataset of fewer than two episodes.
    """
    check_dataset(dataset)
    train.source = dataset.source
    episodes = dataset.episodes
    split = len(episodes) - max(1, len(episodes) // 10)
    if (len(train.episodes), len(held_out.episodes)) == (split, len(episodes) - split):
        return
    forget_episodes(train, held_out)  # of a copy that was interrupted
    for number, (start, stop) in enumerate(episodes):
        copy_episode(dataset.sequence(start, stop), train if number < split else held_out, dataset.policies[number])


def forget_episodes(*replays: Replay) -> None:
    """Empty them."""
    for replay in replays:
        if replay.episodes:
            replay.keep(0)


def unseen(held_out: Replay, train: Replay) -> Replay:
    """Rows that were never trained on, or the training rows while there are none."""
    return held_out if held_out.episodes else train


def provenance(spec: Spec, preset: str, seed: int, experience: Replay, **more: Any) -> dict[str, Any]:
    """What a model says of where it comes from; a dataset of the Hub by name and commit."""
    dataset = {} if experience.source is None else {"dataset": experience.source}
    return {"env_id": spec.env_id, "preset": preset, **more, "seed": seed, **dataset}
