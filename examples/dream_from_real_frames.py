"""Watch the real world for a few steps, then dream on from there, and see how long the dream stays true to the real episode."""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np

import dreamgym


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Pendulum", help="a bundled name or a model folder")
    parser.add_argument("--seen", type=int, default=5, help="real observations to start after")
    parser.add_argument("--steps", type=int, default=30, help="steps to dream on")
    options = parser.parse_args()

    world = dreamgym.WorldModel.from_pretrained(options.model)
    real = dreamgym.make_env(world.spec.env_id, preprocess=world.spec.preprocess)  # frames as the model was trained to see them
    real.action_space.seed(0)
    obs, _ = real.reset(seed=0)
    frames, actions = [obs], []
    while len(frames) < options.seen + options.steps:
        actions.append(real.action_space.sample())
        obs, _, terminated, truncated, _ = real.step(actions[-1])
        frames.append(obs)
        if terminated or truncated:
            break

    seen = min(options.seen, len(frames))
    dream = gym.make("dreamgym/Dream-v0", model=world)
    imagined, _ = dream.reset(
        seed=0,
        options={
            "context": {"obs": np.stack(frames[:seen]), "action": np.array(actions[: seen - 1])},
            "temperature": 0.0,  # means only: the likeliest future rather than a possible one
        },
    )
    for step, (action, truth) in enumerate(zip(actions[seen - 1 :], frames[seen:]), start=1):
        imagined, _, terminated, truncated, info = dream.step(action)
        error = np.abs(imagined.astype(np.float32) - truth.astype(np.float32)).mean()
        print(f"step {step:3d}: mean error {error:8.3f}   uncertainty {info['uncertainty']:.2f}")
        if terminated or truncated:
            print("the dream ended here")
            break


if __name__ == "__main__":
    main()
