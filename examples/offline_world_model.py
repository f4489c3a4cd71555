"""Learn a DreamerV2 from stored experience alone, then see how far its dreams can be trusted on episodes it never saw.

python examples/offline_world_model.py                 # a few minutes
python examples/offline_world_model.py --updates 50    # a taste: seconds, and a poor model
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import gymnasium as gym
import numpy as np

import dreamgym
from dreamgym.data import Replay, StickyRandom, collect
from dreamgym.evaluation.prediction_errors import open_loop_errors
from dreamgym.training.online_presets import online_preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="any id with a time limit that random play reaches")
    parser.add_argument("--steps", type=int, default=4000, help="steps of random play to learn from")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--out", default="runs/offline", help="run folder; a run that was interrupted goes on there")
    options = parser.parse_args()

    env = dreamgym.make_env(options.env)
    spec = dreamgym.make_spec(env, options.env)
    seen, unseen = Replay(spec), Replay(spec)  # give Replay a folder to keep it, or fill it with add_episode from your own files
    collect(env, StickyRandom(spec.action_space), seen, steps=options.steps, seed=0)
    collect(env, StickyRandom(spec.action_space), unseen, episodes=8, seed=1_000_000)

    preset = online_preset("dreamer-v2", spec, "tiny")
    # Offline nothing is lived: one update for each step that an online run would have taken.
    schedule = replace(preset.training, pretrain=0, train_every=1, env_steps=options.updates)
    run = dreamgym.fit(seen, replace(preset, training=schedule), out=options.out)

    starts = np.array([start for start, _ in unseen.episodes])
    rows = unseen.sample_windows(starts, 56)
    print("5 rows seen, then open loop: observation error (guessing the mean), reward error (guessing the mean)")
    for steps, error in open_loop_errors(run.model, rows, horizons=(1, 5, 10, 25, 50)).items():
        obs_errors = f"{error['obs_rmse']:.3f} ({error['obs_rmse_of_mean']:.3f})"
        print(f"{steps:>3} steps: {obs_errors}, {error['reward_mae']:.3f} ({error['reward_mae_of_mean']:.3f})")

    dream = gym.make("dreamgym/Dream-v0", model=str(run.folder / "model"))
    obs, _ = dream.reset(seed=0)
    obs, reward, *_ = dream.step(dream.action_space.sample())
    print("dreamt:", obs, f"reward {reward:.2f}")


if __name__ == "__main__":
    main()
