"""Act awake without ever training an agent: at every real step, search 25 steps ahead in the model's dreams and execute the first action.

python examples/planning_with_cem.py                  # about a minute, four real episodes planned as one batch
python examples/planning_with_cem.py --iterations 1   # random shooting: the same dreams without refinement
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym

import dreamgym
from dreamgym.agents.planning import CEMConfig, PlanningPolicy
from dreamgym.evaluation.policies import random_policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Pendulum", help="a bundled name or a model folder")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--horizon", type=int, default=25, help="steps to look ahead")
    parser.add_argument("--iterations", type=int, default=3, help="refinements of a plan")
    parser.add_argument("--candidates", type=int, default=60, help="action sequences dreamt in each")
    options = parser.parse_args()

    world = dreamgym.WorldModel.from_pretrained(options.model)
    # PlaNet's own numbers are CEMConfig's defaults: 120,000 dreamt steps per decision. A warm start makes do with far fewer.
    search = CEMConfig(
        horizon=options.horizon,
        iterations=options.iterations,
        candidates=options.candidates,
        elites=max(1, options.candidates // 10),
        warm_start=True,
    )
    planner = PlanningPolicy(world, search, seed=0)

    def real() -> gym.Env:
        return dreamgym.make_env(world.spec.env_id, preprocess=world.spec.preprocess)

    reality = gym.vector.SyncVectorEnv([real] * options.episodes)
    print("random, awake:", dreamgym.evaluate(random_policy(world.spec.action_space), reality, options.episodes))
    began = time.perf_counter()
    print("planner, awake:", dreamgym.evaluate(planner, reality, options.episodes))
    print(f"{time.perf_counter() - began:.0f} s; promised for the last {options.horizon} steps: {planner.last_plan.score.mean():.1f}")


if __name__ == "__main__":
    main()
