"""A world model that is not ours: a small network learns Pendulum, is checked, SB3's PPO learns in its dreams and acts awake."""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn

import dreamgym
from dreamgym.evaluation import random_policy
from dreamgym.structs import Prediction, StartBank, TensorStruct
from dreamgym.testing import check_world_model


@dataclass(frozen=True)
class Arrived(TensorStruct):
    obs: Tensor  # [B,3] cosine, sine and velocity, each within [-1,1]
    reward: Tensor  # [B] of the step that led here


class PendulumNet(nn.Module):
    noise_lanes = 0  # it is certain of everything

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.net = nn.Sequential(nn.Linear(4, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 4))
        self.register_buffer("scale", torch.tensor([1.0, 1.0, 8.0]))

    def initial(self, batch_size):
        return Arrived(self.scale.new_zeros(batch_size, 3), self.scale.new_zeros(batch_size))

    def step(self, state, action, noise, temperature=1.0):
        change, reward = self.net(torch.cat([state.obs, action], 1)).split([3, 1], 1)
        return Arrived((state.obs + change).clamp(-1.0, 1.0), 10.0 * reward[:, 0])

    def predict(self, state):
        return Prediction(state.reward, continue_prob=torch.ones_like(state.reward), uncertainty=torch.zeros_like(state.reward))

    def features(self, state):
        return state.obs

    def observe(self, state, prev_action, obs, is_first, noise):
        return Arrived(obs / self.scale, torch.zeros_like(obs[:, 0]))  # one look tells all


parser = argparse.ArgumentParser(description=__doc__)
for name, value in {"updates": 3000, "dream-steps": 100_000, "episodes": 20, "seed": 0}.items():
    parser.add_argument(f"--{name}", type=int, default=value)
options = parser.parse_args()
torch.manual_seed(options.seed)
env = dreamgym.make_env("Pendulum-v1")
spec = dreamgym.make_spec(env, "Pendulum-v1")
chance, replay = random_policy(spec.action_space, options.seed), dreamgym.Replay(spec)
dreamgym.collect(env, chance, replay, episodes=50, seed=options.seed)  # all the reality that it sees: 10,000 steps
model = PendulumNet(spec)
firsts = torch.from_numpy(replay.column("obs")[replay.column("is_first")])
model.initial_states = StartBank(model.observe(None, None, firsts, None, None), torch.ones(len(firsts), dtype=torch.bool))
optimiser, rng = torch.optim.Adam(model.parameters(), 1e-3), np.random.default_rng(options.seed)
for _ in range(options.updates):
    rows = replay.sample(256, 2, rng)  # [256,2]: a row, and the one that its action led to
    rows = rows[~rows.is_first[:, 1]]
    dreamt = model.step(Arrived(rows.obs[:, 0] / model.scale, None), rows.prev_action[:, 1], None)
    obs_error, reward_error = dreamt.obs - rows.obs[:, 1] / model.scale, dreamt.reward - rows.reward[:, 1]
    optimiser.zero_grad()
    (100.0 * obs_error.square().mean() + 0.01 * reward_error.square().mean()).backward()
    optimiser.step()
print(check_world_model(model, real_env=env))
dreams = dreamgym.sb3.DreamVecEnv(model, num_envs=32, seed=options.seed)
ppo = PPO("MlpPolicy", dreams, n_steps=64, batch_size=256, gamma=0.9, learning_rate=1e-3, seed=options.seed, device="cpu")
ppo.learn(options.dream_steps)
print(dreamgym.compare(ppo, model, episodes=options.episodes, baselines={"random": chance}).table())
