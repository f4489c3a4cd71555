"""PPO in one file over gymnasium's make_vec, in the manner of CleanRL: a dream is a vector environment like any other.

training=True dreams as the model wants to be trained in (horizon, start states); its guard applies. The real return is what
counts, and is printed last.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import dreamgym

GAMMA, LAMBDA, CLIP, EPOCHS, MINIBATCHES, ENTROPY, LEARNING_RATE = 0.95, 0.95, 0.2, 10, 8, 0.0, 1e-3


class Policy(nn.Module):
    """Actor and critic on latents [B,F]; actions in [-1,1] per dimension, scaled to the environment's box."""

    def __init__(self, features: int, space: gym.spaces.Box) -> None:
        super().__init__()
        size = space.shape[0]
        self.actor = nn.Sequential(nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, size))
        self.critic = nn.Sequential(nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((size,), -0.5))
        self.register_buffer("middle", torch.as_tensor((space.low + space.high) / 2))
        self.register_buffer("reach", torch.as_tensor((space.high - space.low) / 2))

    def distribution(self, obs: Tensor) -> Normal:
        return Normal(self.actor(obs), self.log_std.exp())

    def to_env(self, raw: Tensor) -> Tensor:
        return self.middle + self.reach * raw.clamp(-1.0, 1.0)

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        """SB3's signature, which is all that dreamgym.compare asks of an agent."""
        with torch.inference_mode():
            return self.to_env(self.actor(torch.as_tensor(observation))).numpy(), state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Pendulum", help="a bundled name or a model folder, with Box actions")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--length", type=int, default=64, help="steps of a rollout in each dream")
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--episodes", type=int, default=20, help="real episodes to be judged on")
    options = parser.parse_args()

    torch.manual_seed(0)
    world = dreamgym.WorldModel.from_pretrained(options.model)
    # SameStep keeps every row a real transition: what an episode ended in lies in info["final_obs"].
    dreams = gym.make_vec(
        "dreamgym/Dream-v0",
        model=world,
        num_envs=options.num_envs,
        obs_type="latent",
        output="torch",
        autoreset_mode="SameStep",
        training=True,
    )
    policy = Policy(dreams.single_observation_space.shape[0], dreams.single_action_space)
    optimiser = torch.optim.Adam(policy.parameters(), LEARNING_RATE)
    obs, _ = dreams.reset(seed=0)
    for update in range(options.updates):
        obs, rows, mean_reward = rollout(dreams, policy, obs, options.length)
        learn(policy, optimiser, rows)
        if update % 10 == 0 or update == options.updates - 1:
            print(f"update {update}: dream reward per step {mean_reward:.3f}")

    print(dreamgym.compare(policy, world, episodes=options.episodes).table())


@torch.no_grad()
def rollout(dreams: gym.vector.VectorEnv, policy: Policy, obs: Tensor, length: int) -> tuple[Tensor, tuple[Tensor, ...], float]:
    """Act for `length` steps; returns the last obs, (obs, action, log_prob, advantage, return) of all rows, and the mean reward."""
    seen, acts, log_probs, rewards, values, nexts, dones = [], [], [], [], [], [], []
    for _ in range(length):
        distribution = policy.distribution(obs)
        raw = distribution.sample()
        following, reward, terminated, truncated, info = dreams.step(policy.to_env(raw))
        done = terminated | truncated
        last = torch.where(done.unsqueeze(1), info["final_obs"], following) if "final_obs" in info else following
        seen.append(obs)
        acts.append(raw)
        log_probs.append(distribution.log_prob(raw).sum(-1))
        rewards.append(reward)
        values.append(policy.critic(obs).squeeze(-1))
        nexts.append(policy.critic(last).squeeze(-1) * ~terminated)  # a time limit still has a future, an end has none
        dones.append(done)
        obs = following
    reward, value, following_value, done = (torch.stack(part) for part in (rewards, values, nexts, dones))
    scale = reward.std() + 1e-6  # keeps the critic's targets of a size that Adam likes
    advantage, carried = torch.zeros_like(reward), torch.zeros_like(reward[0])
    for t in reversed(range(length)):
        error = reward[t] / scale + GAMMA * following_value[t] - value[t]
        carried = error + GAMMA * LAMBDA * carried * ~done[t]
        advantage[t] = carried
    rows = (torch.stack(seen), torch.stack(acts), torch.stack(log_probs), advantage, advantage + value)
    return obs, tuple(row.flatten(0, 1) for row in rows), float(reward.mean())


def learn(policy: Policy, optimiser: torch.optim.Optimizer, rows: tuple[Tensor, ...]) -> None:
    """PPO's clipped updates on one rollout."""
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(rows[0])).chunk(MINIBATCHES):
            obs, raw, old_log_prob, advantage, target = (row[chosen] for row in rows)
            distribution = policy.distribution(obs)
            ratio = (distribution.log_prob(raw).sum(-1) - old_log_prob).exp()
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            actor_loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
            critic_loss = 0.5 * (policy.critic(obs).squeeze(-1) - target).square().mean()
            loss = actor_loss + critic_loss - ENTROPY * distribution.entropy().sum(-1).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
            optimiser.step()


if __name__ == "__main__":
    main()
