"""World Models by hand: a controller of few parameters, evolved by CMA-ES in a bundled dream, then judged awake.

python examples/world_models.py                          # about ten seconds
python examples/world_models.py --model runs/yours/model  # any model, also one of `fit(..., preset="world-models-fast")`
"""

from __future__ import annotations

import argparse

import dreamgym
from dreamgym.agents import CMAESConfig, LinearController, LinearControllerConfig
from dreamgym.dreams.rollouts import DreamRollouts
from dreamgym.training.evolve import evolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="CartPole", help="a bundled name or a model folder")
    parser.add_argument("--generations", type=int, default=10)
    parser.add_argument("--population", type=int, default=16, help="candidates of a generation")
    parser.add_argument("--rollouts", type=int, default=8, help="dreams of each candidate")
    parser.add_argument("--temperature", type=float, default=1.0, help="above 1: a harder dream, whose mistakes are harder to exploit")
    parser.add_argument("--episodes", type=int, default=10, help="real episodes to be judged on")
    options = parser.parse_args()

    world = dreamgym.WorldModel.from_pretrained(options.model)
    controller = LinearController(world.spec, world.core.feature_size, LinearControllerConfig(bias=True))
    print(f"{controller.num_parameters} parameters, {options.population * options.rollouts} dreams a generation, all of them one batch")

    dreams = DreamRollouts(world, controller, rollouts=options.rollouts, temperature=options.temperature)
    found = evolve(
        controller,  # its parameters are set to the best mean of the search
        dreams.returns,
        generations=options.generations,
        config=CMAESConfig(population=options.population, sigma=0.5),
        seed=0,
        evaluate_every=5,
    )
    for generation in found.history[:: max(1, len(found.history) // 5)]:
        print(f"generation {generation.number}: mean {generation.mean:.1f}, best {generation.best:.1f}")

    # No real environment has been touched so far. Dreams promise too much: only the line that says awake is a score.
    print(dreamgym.compare(controller, world, episodes=options.episodes).table())


if __name__ == "__main__":
    main()
