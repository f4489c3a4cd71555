"""How far can this dream be believed? Score policies that never look, in the dream and in reality."""

from __future__ import annotations

import argparse

import dreamgym
from dreamgym.evaluation import fixed_policy_fidelity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Pendulum", help="a bundled name or a model folder")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of each policy in each world")
    options = parser.parse_args()

    world = dreamgym.WorldModel.from_pretrained(options.model)
    fidelity = fixed_policy_fidelity(world, episodes=options.episodes, progress=True)
    print(fidelity.table())


if __name__ == "__main__":
    main()
