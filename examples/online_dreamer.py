"""Live and learn as DreamerV3 does: act, remember, learn a world model, learn to act in its dreams, in turn; then act awake.

python examples/online_dreamer.py                                             # CartPole, minutes
python examples/online_dreamer.py --env dm_control/cartpole-swingup-v0 --env-steps 100000 --preset dreamer-v2
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import dreamgym
from dreamgym.training.online_presets import online_preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", help="images, vectors or a Dict of both; any actions")
    parser.add_argument("--preset", default="dreamer-v3", help="planet, dreamer-v1, dreamer-v2 or dreamer-v3")
    parser.add_argument("--env-steps", type=int, default=10_000, help="real steps to live, its repeats included")
    parser.add_argument("--pretrain", type=int, help="updates before the agent first acts, in place of the preset's number")
    parser.add_argument("--episodes", type=int, default=5, help="real episodes to be judged on")
    parser.add_argument("--out", default="runs/online", help="run folder; a run that was interrupted goes on there")
    options = parser.parse_args()

    preset = options.preset
    if options.pretrain is not None:  # a preset is data, and this is how to change it
        preset = online_preset(preset, dreamgym.make_spec(dreamgym.make_env(options.env), options.env), "tiny")
        preset = replace(preset, training=replace(preset.training, pretrain=options.pretrain))
    run = dreamgym.fit(options.env, preset=preset, size="tiny", env_steps=options.env_steps, out=options.out)
    print(f"{run.metrics['episodes']} episodes lived, {run.metrics['updates']} updates")

    # Awake the model only filters: each real observation moves the belief on, and the agent acts on the belief.
    awake = dreamgym.BeliefPolicy(run.agent, run.model)
    real = dreamgym.make_env(run.model.spec.env_id, preprocess=run.model.spec.preprocess)
    for episode in range(options.episodes):
        obs, _ = real.reset(seed=1_000_000 + episode)
        earned, steps, over = 0.0, 0, False
        while not over:
            action, _ = awake.predict(obs, episode_start=np.array([steps == 0]), deterministic=True)
            obs, reward, terminated, truncated, _ = real.step(action)
            earned, steps, over = earned + float(reward), steps + 1, terminated or truncated
        print(f"awake, episode {episode}: return {earned:.1f} in {steps} steps")


if __name__ == "__main__":
    main()
