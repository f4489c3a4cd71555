"""Film a controller that cheats its world model: alive in the cold dream it was evolved in, dead in the game.

    python -m benchmarks.film_cheating --model dreamgym/pretrained/DoomTakeCover --study runs/temperature --tau 0.1

Above, the real game as the controller plays it; below, the dream at that temperature, begun like an episode of the game.
docs/papers/world-models.md shows the film. How long it lives in both, over many episodes, is in the study's table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from dreamgym.agents.linear import LinearController
from dreamgym.dreams.env import DreamEnv
from dreamgym.evaluation.comparison import awake_env
from dreamgym.evaluation.returns import REPORT_SEEDS_FROM
from dreamgym.evaluation.video import compose, write_video
from dreamgym.hub import bundle

Frame = NDArray[np.uint8]
PAGE_FILM = Path(__file__).resolve().parents[1] / "docs" / "papers" / "media" / "cheating.mp4"


def played(agent: LinearController, env: Any, seed: int, steps: int) -> tuple[list[Frame], bool]:
    """What is seen of one episode, at most so many steps of it, and whether it ended before."""
    obs, _ = env.reset(seed=seed)
    frames = [np.asarray(env.render())]
    for _ in range(steps):
        actions, _ = agent.predict(obs[None])
        obs, _, terminated, _, _ = env.step(actions[0])
        frames.append(np.asarray(env.render()))
        if terminated:
            return frames, True
    return frames, False


def side_by_side(game: Sequence[Frame], died: bool, dream: Sequence[Frame], label: str) -> Iterator[Frame]:
    """One above the other, in step; the game's last picture stands while the dream goes on."""
    for step, dreamt in enumerate(dream):
        over = step >= len(game) - 1
        caption = f"dead after {len(game) - 1} steps" if died and over else f"step {step}"
        yield compose([("the game:", game[min(step, len(game) - 1)]), (label, dreamt)], caption)


def film_cheating(*, model: Path, study: Path, tau: float = 0.1, search: int = 0, steps: int = 200, seed: int = REPORT_SEEDS_FROM) -> None:
    """Write the film.

    Args:
        model: The folder of the model that the study is of.
        study: A folder that `dreamgym temperature` filled.
        tau: The temperature of the dream, and of the search.
        search: Which of that temperature's searches.
        steps: Agent steps.
        seed: Of the episode; the first that reports by default.
    """
    world = bundle.load(model)
    found = sorted((study / "searches").glob(f"tau-{tau:g}-dropout-*-{search}"))
    if not found:
        raise FileNotFoundError(f"no search {search} at temperature {tau:g} in {study / 'searches'}.")
    agent = LinearController.load(found[0] / "agent", world.spec)
    dropout = float(found[0].name.split("-")[3])
    with closing(awake_env(world, render_mode="rgb_array")) as env:
        game, died = played(agent, env, seed, steps)
    with closing(DreamEnv(world, obs_type="latent", render_mode="rgb_array", temperature=tau, dropout=dropout)) as env:
        dream, _ = played(agent, env, seed, steps)
    count = write_video(PAGE_FILM, side_by_side(game, died, dream, f"its dream at temperature {tau:g}"), fps=world.spec.fps)
    print(f"{PAGE_FILM}: {count} frames; the game: {len(game) - 1} steps{', dead' if died else ''}; the dream: {len(dream) - 1} steps")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(film_cheating)
