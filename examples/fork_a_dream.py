"""What if? Save a dream, try several actions from that very moment, with the same luck and with other luck."""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np

import dreamgym  # noqa: F401 - registers the ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Pendulum", help="a bundled name or a model folder, with one-dimensional actions")
    parser.add_argument("--steps", type=int, default=20, help="how far to look ahead")
    options = parser.parse_args()

    dream = gym.make("dreamgym/Dream-v0", model=options.model).unwrapped  # get_state lies beneath gymnasium's wrappers
    dream.reset(seed=0)
    for _ in range(10):
        dream.step(np.zeros(dream.action_space.shape, np.float32))
    moment = dream.get_state()

    for torque in np.linspace(dream.action_space.low[0], dream.action_space.high[0], 5):
        same_luck = ahead(dream, moment, torque, options.steps, seed=None)
        other_luck = [ahead(dream, moment, torque, options.steps, seed=seed) for seed in range(5)]
        print(f"torque {torque:+.1f}: return {same_luck:8.2f}; with other luck {np.mean(other_luck):8.2f} ± {np.std(other_luck):.2f}")


def ahead(dream: gym.Env, moment: object, torque: float, steps: int, seed: int | None) -> float:
    """The return of holding one torque from a saved moment; a seed gives the fork a future of its own."""
    dream.set_state(moment, seed=seed)
    earned = 0.0
    for _ in range(steps):
        _, reward, terminated, truncated, _ = dream.step(np.full(dream.action_space.shape, torque, np.float32))
        earned += reward
        if terminated or truncated:
            break
    return earned


if __name__ == "__main__":
    main()
