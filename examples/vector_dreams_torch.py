"""Step a thousand dreams with a PyTorch policy: observations, actions and rewards are tensors and never leave the device."""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import torch
from torch import nn

import dreamgym  # noqa: F401 - registers the ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="CarRacing", help="a bundled name or a model folder")
    parser.add_argument("--num-envs", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    dreams = gym.make_vec(
        "dreamgym/Dream-v0", model=options.model, num_envs=options.num_envs, obs_type="latent", output="torch", device=options.device
    )
    box = dreams.single_action_space
    features, actions = dreams.single_observation_space.shape[0], box.shape[0]
    low, high = (torch.as_tensor(bound, device=options.device) for bound in (box.low, box.high))
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, actions), nn.Sigmoid()).to(options.device)

    obs, _ = dreams.reset(seed=0)
    total, ends = torch.zeros(options.num_envs, device=options.device), 0
    began = time.perf_counter()
    for _ in range(options.steps):
        with torch.inference_mode():
            action = low + (high - low) * policy(obs)
        obs, reward, terminated, truncated, _ = dreams.step(action)
        total += reward
        ends += int((terminated | truncated).sum())
    seconds = time.perf_counter() - began
    steps = options.steps * options.num_envs
    print(f"{steps} dream steps in {seconds:.2f} s ({steps / seconds:.0f}/s), {ends} episodes ended")
    print(f"reward per step {total.sum() / steps:.3f}; the best of {options.num_envs} dreams earned {total.max():.1f}")


if __name__ == "__main__":
    main()
