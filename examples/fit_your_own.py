"""Learn a world model of Pendulum from random play, train an agent in its dreams, judge it awake, and save the model.

python examples/fit_your_own.py                # the whole preset
python examples/fit_your_own.py --scale 0.02   # a taste: seconds, and a poor model
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import gymnasium as gym

import dreamgym
from dreamgym.training.presets import PRESETS, Preset


def shortened(preset: Preset, scale: float) -> Preset:
    """The preset with its gradient steps multiplied by `scale`: a preset is data, and this is how to change it."""
    model, agent = preset.model_training, preset.agent_training
    return replace(
        preset,
        model_training=replace(model, warmup_steps=max(1, int(model.warmup_steps * scale))),
        agent_training=replace(agent, steps_per_round=max(1, int(agent.steps_per_round * scale))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="any id with vector observations")
    parser.add_argument("--env-steps", type=int, default=10_000, help="real steps to learn from")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the preset's gradient steps")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", default="runs/your-own", help="run folder; a run that was interrupted goes on there")
    options = parser.parse_args()

    run = dreamgym.fit(options.env, shortened(PRESETS["ensemble"], options.scale), env_steps=options.env_steps, out=options.out)
    print(dreamgym.compare(run.agent, run.model, episodes=options.episodes).table())

    run.model.save_pretrained(run.folder / "shared")  # a folder of data, no code
    dream = gym.make("dreamgym/Dream-v0", model=str(run.folder / "shared"))
    print("dreams again:", dream.reset(seed=0)[0])


if __name__ == "__main__":
    main()
