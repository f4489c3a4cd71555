"""All controls of one agent in one go, so that no score is quoted without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dreamgym.evaluation.comparison import awake_env
from dreamgym.evaluation.controls import (
    LengthCheck,
    OpenLoopBaselines,
    PairedComparison,
    compare_with_blind,
    open_loop_baselines,
    random_length_check,
)
from dreamgym.evaluation.policies import SWEEP_PERIODS
from dreamgym.evaluation.yoked import YokedControl, yoked_control
from dreamgym.structs import DreamableModel, Policy

__all__ = ["Controls", "run_controls"]


@dataclass(frozen=True)
class Controls:
    """What an agent's score stands beside: the best blind policy on the same seeds, an unseen twin, and the dream's lengths.

    Only together do `against` and `yoked` show an agent that looks: it may beat every sweep that was tried by a better sweep, and a
    twin by steering clear of walls.
    """

    baselines: OpenLoopBaselines
    against: PairedComparison
    yoked: YokedControl
    lengths: LengthCheck

    def table(self) -> str:
        """Plain text for a terminal."""
        parts = {
            "Blind policies": self.baselines.table(most=10),
            "The agent against the best of them": self.against.table(),
            "Yoked control: does seeing help?": self.yoked.table(),
            "Random episodes, dreamt and lived": self.lengths.table(),
        }
        return "\n\n".join(f"{title}\n{text}" for title, text in parts.items())

    def to_json(self) -> dict[str, Any]:
        """Everything, down to single episodes."""
        return {name: part.to_json() for name, part in vars(self).items()}


def run_controls(
    agent: Policy,
    model: DreamableModel,
    *,
    episodes: int = 300,
    num_envs: int = 1,
    obs_type: str | None = "latent",
    periods: Iterable[int] = SWEEP_PERIODS,
    pairs: Mapping[str, tuple[Any, Any]] | None = None,
    search_episodes: int = 20,
    baselines: OpenLoopBaselines | None = None,
    progress: bool = False,
) -> Controls:
    """Judge an agent and the dream it comes from against all controls, `episodes` of each, in the real env of the model's Spec.

    obs_type is what the agent reads ("latent", or None for the model's own observations); periods, pairs and search_episodes are those of
    `open_loop_baselines`, whose earlier result may be given as `baselines`: it depends on the world only. num_envs above 1 plays
    in that many processes. Raises TypeError for what is not a model.
    """
    with (
        closing(awake_env(model, num_envs=num_envs, obs_type=obs_type)) as seen,
        closing(awake_env(model, num_envs=num_envs, obs_type=None)) as unseen,
    ):
        if baselines is None:
            baselines = open_loop_baselines(
                unseen, periods=periods, pairs=pairs, search_episodes=search_episodes, episodes=episodes, progress=progress
            )
        against = compare_with_blind(agent, seen, baselines, progress=progress)
        yoked = yoked_control(agent, seen, unseen, episodes, progress=progress)
        lengths = random_length_check(model, unseen, episodes=episodes, progress=progress)
    return Controls(baselines, against, yoked, lengths)
