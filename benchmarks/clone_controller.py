"""Put a bundled actor-critic into C's few hundred numbers, by least squares: where a search by CMA-ES may begin, and how far it gets.

    python -m benchmarks.clone_controller DoomTakeCover --out runs/clone    # 20 s; with --generations 40 two minutes more

The actor-critic dreams; on what it saw, a linear map learns its chance of going right less that of going left. Stretched, it seldom stands
still. Nothing awake is used; the last line judges it awake. docs/log.md has what came of it first.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import LinearController
from dreamgym.agents.loading import load_agent
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.dreams.vector import DreamVectorEnv
from dreamgym.envs import make_from_spec
from dreamgym.hub import bundle
from dreamgym.training.evolve import evolve
from dreamgym.training.world_models_awake import judge_awake
from dreamgym.training.world_models_presets import world_models_controller

RIGHT, LEFT = 1, 2  # TakeCover's classes
RIDGE, STRETCH = 10.0, 5.0
FIRST_SEED = 900_000  # of real episodes that neither choose nor report elsewhere


def seen(teacher: ActorCritic, world: object, dreams: int, steps: int) -> tuple[Tensor, Tensor]:
    """Features [N,F] of states that the teacher dreams itself into, and its chance of right less left in them, [N]."""
    env = DreamVectorEnv(world, dreams, obs_type="latent")  # type: ignore[arg-type]
    obs, _ = env.reset(seed=0)
    found = []
    for _ in range(steps):
        found.append(torch.as_tensor(obs))
        action, _ = teacher.predict(obs)
        obs, *_ = env.step(action)
    env.close()
    features = torch.cat(found)
    with torch.no_grad():
        chance = teacher.actor(features).softmax(-1)
    return features, chance[:, RIGHT] - chance[:, LEFT]


def least_squares(features: Tensor, target: Tensor) -> np.ndarray:
    """Weights [F] without a bias, as C's."""
    x = features.double()
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ target.double())
    return (STRETCH * weights).numpy()


def main(
    name: tyro.conf.Positional[str], *, out: Path, generations: int = 0, temperature: float = 1.15, seed: int = 0, episodes: int = 100
) -> None:
    """Clone, search on from there if asked, judge.

    Args:
        name: A bundled model that brings an actor-critic of three classes.
        out: Where the controller goes.
        generations: Of 32 candidates x 16 dreams.
        temperature: Of these dreams.
        seed: Of the search.
        episodes: Real ones.
    """
    world = bundle.load_bundled(name)
    teacher = load_agent(name, world)
    if not isinstance(teacher, ActorCritic):
        raise TypeError(f"{name} brings a {type(teacher).__name__}; expected an ActorCritic.")
    controller = LinearController(world.spec, world.core.feature_size, world_models_controller(world.spec))
    controller.vector = least_squares(*seen(teacher, world, dreams=256, steps=200))
    dreams = partial(DreamRollouts, world, controller, temperature=temperature)
    judge = dreams(candidates=1, rollouts=512).returns
    if generations:
        search = dreams(candidates=32, rollouts=16).returns
        evolve(controller, search, generations=generations, config=CMAESConfig(32), seed=seed, judge=judge, evaluate_every=10, folder=out)
    controller.save(out / "agent")
    print(f"dreamt: {float(judge(controller.vector[None], 2**33).returns.mean()):.0f}")
    lived = judge_awake(controller, world, partial(make_from_spec, world.spec), seeds=range(FIRST_SEED, FIRST_SEED + episodes))
    print(f"awake: {lived}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
