"""Put a bundled actor-critic into C's few hundred numbers, by least squares: where a search by CMA-ES may begin, and how far it gets.

    python -m benchmarks.clone_controller DoomTakeCover --out runs/clone    # 20 s; with --generations 40 two minutes more

The actor-critic dreams; C becomes the linear map closest to what it would do there. Nothing awake is used; the last line judges it awake.
docs/log.md has what came of it first. `dreamgym temperature --gradient-updates` is the same from nothing: its actor-critics learn first.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import tyro

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import LinearController
from dreamgym.agents.loading import load_agent
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.envs import make_from_spec
from dreamgym.hub import bundle
from dreamgym.models.world_model import WorldModel
from dreamgym.training.evolve import evolve
from dreamgym.training.gradient_start import chances, dreamt_states
from dreamgym.training.world_models_awake import judge_awake
from dreamgym.training.world_models_presets import world_models_controller

FIRST_SEED = 900_000  # of real episodes that neither choose nor report elsewhere


def clone(world: WorldModel, teacher: ActorCritic, dreams: int = 256, steps: int = 200) -> LinearController:
    """The linear controller closest to an actor-critic, in states that the latter dreams itself into."""
    controller = LinearController(world.spec, world.core.feature_size, world_models_controller(world.spec))
    with torch.no_grad():
        features = world.features(dreamt_states(world, teacher, dreams=dreams, steps=steps, every=1).state)
    controller.imitate(features, chances(teacher, features))
    return controller


def main(
    name: tyro.conf.Positional[str], *, out: Path, generations: int = 0, temperature: float = 1.15, seed: int = 0, episodes: int = 100
) -> None:
    """Clone, search on from there if asked, judge.

    Args:
        name: A bundled model that brings an actor-critic.
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
    controller = clone(world, teacher)
    dreams = partial(DreamRollouts, world, controller, temperature=temperature)
    judge = dreams(candidates=1, rollouts=512).returns
    if generations:
        search, config = dreams(candidates=32, rollouts=16).returns, CMAESConfig(32)
        options = {"generations": generations, "evaluate_every": 10, "judge_start": True, "folder": out}
        evolve(controller, search, config=config, seed=seed, judge=judge, **options)  # type: ignore[arg-type]
    controller.save(out / "agent")
    print(f"dreamt: {float(judge(controller.vector[None], 2**33).returns.mean()):.0f}")
    lived = judge_awake(controller, world, partial(make_from_spec, world.spec), seeds=range(FIRST_SEED, FIRST_SEED + episodes))
    print(f"awake: {lived}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
