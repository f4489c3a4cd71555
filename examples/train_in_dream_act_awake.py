"""Train Stable-Baselines3's PPO in the bundled CarRacing dream, then drive the real CarRacing with it.

python examples/train_in_dream_act_awake.py                        # a taste: seconds of learning, a poor driver
python examples/train_in_dream_act_awake.py --steps 1000000 --episodes 20
"""

from __future__ import annotations

import argparse

from stable_baselines3 import PPO

import dreamgym
from dreamgym.demo import PPO_DEFAULTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="CarRacing", help="a bundled name or a model folder")
    parser.add_argument("--steps", type=int, default=20_000, help="dream steps to learn from")
    parser.add_argument("--episodes", type=int, default=2, help="real episodes to be judged on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    world = dreamgym.WorldModel.from_pretrained(options.model)
    dreams = dreamgym.sb3.DreamVecEnv(world, num_envs=64, seed=options.seed)
    ppo = PPO(env=dreams, seed=options.seed, **PPO_DEFAULTS)
    ppo.learn(options.steps)  # no real environment has been touched so far

    # The same policy in the dream and awake: the real one is made from the model's Spec and seen through the model's eyes.
    print(dreamgym.compare(ppo, world, episodes=options.episodes, progress=True).table())


if __name__ == "__main__":
    main()
