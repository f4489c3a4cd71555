"""Real experience as a run keeps it: episodes to learn from, beside episodes that are kept out of learning."""

from __future__ import annotations

import torch

from dreamgym.data.replay import Replay
from dreamgym.structs import SequenceBatch, map_obs

__all__ = ["adopt_dataset", "copy_episode", "forget_episodes", "unseen"]


def adopt_dataset(dataset: Replay, train: Replay, held_out: Replay) -> None:
    """Copy a filled replay, its last tenth of episodes into held_out, unless that was done already.

    Raises ValueError for a dataset of fewer than two episodes.
    """
    episodes = dataset.episodes
    if len(episodes) < 2:
        raise ValueError(f"the dataset holds {len(episodes)} episodes; expected at least 2, to train on and to hold out.")
    split = len(episodes) - max(1, len(episodes) // 10)
    if (len(train.episodes), len(held_out.episodes)) == (split, len(episodes) - split):
        return
    forget_episodes(train, held_out)  # of a copy that was interrupted
    for number, (start, stop) in enumerate(episodes):
        copy_episode(dataset.sequence(start, stop), train if number < split else held_out)


def copy_episode(rows: SequenceBatch, target: Replay) -> None:
    """Add the rows [1,T] of one whole episode to another replay of the same spec."""
    row = rows[0]
    obs = map_obs(torch.Tensor.numpy, row.obs)
    actions = target.spec.to_env_action(row.prev_action[1:]).numpy()
    terminated = bool(row.is_terminal[-1])
    target.add_episode(obs, actions, row.reward[1:].numpy(), terminated, not terminated, row.valid.numpy())


def forget_episodes(*replays: Replay) -> None:
    """Empty them."""
    for replay in replays:
        if replay.episodes:
            replay.keep(0)


def unseen(held_out: Replay, train: Replay) -> Replay:
    """Rows that were never trained on, or the training rows while there are none."""
    return held_out if held_out.episodes else train
