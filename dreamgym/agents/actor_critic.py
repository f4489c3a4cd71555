"""The Dreamers' agent: an actor and a critic that learn from imagined lives, by backpropagation through them or by REINFORCE."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamgym.agents.actors import Actor, build_head
from dreamgym.agents.agent_files import read_agent, write_agent
from dreamgym.agents.behaviour import ALIGNMENTS, BehaviourLosses, Dream, Scores, dream, frozen
from dreamgym.agents.critics import Critic, SlowAverage, SlowCopy, SlowCritic, value_loss
from dreamgym.agents.features import read_features
from dreamgym.agents.returns import PercentileScale, ReturnScale, lambda_returns, n_step_returns, replay_lambda_returns, reward_sum
from dreamgym.agents.sharing import push_agent
from dreamgym.formats.files import FileSet
from dreamgym.models.guard import Guard
from dreamgym.nn.networks import MLPConfig
from dreamgym.nn.policies import ActionDistribution, BoundedNormalConfig, OneHotFamily, TanhNormalConfig, TruncatedNormalConfig
from dreamgym.structs import SequenceBatch, Spec, sent

__all__ = ["ActorCritic", "ActorCriticConfig"]

_CHOICES = {
    "init": ("torch", "paper"),
    "critic_distribution": ("normal", "two-hot"),
    "indexing": ("v1", "v2", "v3"),
    "estimator": ("lambda", "n_step", "reward_sum"),
    "critic_target": ("fast", "slow"),
}


@dataclass(frozen=True)
class ActorCriticConfig:
    """Defaults: the measured CPU recipe (docs/log.md). The papers' settings are in agents/recipes.py.

    Networks: actor and critic None stand for `layers` of `units` with ELU. policy is for Box actions; classes are one-hot, with the share
    `unimix` spread evenly. init and output scales: see build_head.
    Objective: reinforce is the share rho of REINFORCE, the rest climbs by backpropagation through the dynamics; None decides by the
    action space, 1 for classes and 0 for a Box (V2's "auto"). entropy is added per nat, summed over action dimensions or averaged.
    reward_scale divides rewards, so that the entropy has a comparable size everywhere; return_scale does so adaptively (V3).
    Returns: indexing says which state, action and return belong together (agents/behaviour.py); critic_target which critic bootstraps and
    serves as the baseline. reward_sum is V_R, undiscounted: the critic then follows without being listened to, save as the baseline.
    replay_value weighs the critic's loss on replayed rows (V3, 0.3). learning_rate and gradient_clip are for whoever trains.
    """

    layers: int = 2
    units: int = 200
    horizon: int = 15
    discount: float = 0.98
    lambda_: float = 0.95
    entropy: float = 0.02
    reward_scale: float = 5.0
    learning_rate: float = 3e-4
    gradient_clip: float = 10.0
    actor: MLPConfig | None = None
    critic: MLPConfig | None = None
    init: Literal["torch", "paper"] = "torch"
    actor_output_scale: float = 0.1  # start near the middle of the action box
    critic_output_scale: float = 0.0
    policy: TanhNormalConfig | TruncatedNormalConfig | BoundedNormalConfig = field(
        default_factory=lambda: TanhNormalConfig(init_std=1.0, min_std=0.05)
    )
    unimix: float = 0.0
    critic_distribution: Literal["normal", "two-hot"] = "normal"
    indexing: Literal["v1", "v2", "v3"] = "v1"
    estimator: Literal["lambda", "n_step", "reward_sum"] = "lambda"
    n_step: int = 5  # k of V_N^k
    reinforce: float | None = 0.0
    entropy_per_dimension: bool = True
    return_scale: PercentileScale | None = None
    slow_critic: SlowCopy | SlowAverage | None = field(default_factory=SlowAverage)
    critic_target: Literal["fast", "slow"] = "slow"
    replay_value: float = 0.0

    def __post_init__(self) -> None:
        if self.horizon < 2:
            raise ValueError(f"horizon is {self.horizon}; expected at least 2 (the last step only bootstraps).")
        if not 0.0 < self.discount <= 1.0 or not 0.0 <= self.lambda_ <= 1.0:
            raise ValueError(f"discount {self.discount} and lambda_ {self.lambda_} must lie in (0,1] and [0,1].")
        if not self.reward_scale > 0.0 or not 0.0 <= self.unimix < 1.0 or self.n_step < 1:
            raise ValueError(f"reward_scale is {self.reward_scale}, unimix {self.unimix}, n_step {self.n_step}; expected > 0, [0,1), >= 1.")
        if self.reinforce is not None and not 0.0 <= self.reinforce <= 1.0:
            raise ValueError(f"reinforce is {self.reinforce}; expected None or a share in [0,1].")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}.")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.critic_target == "slow" and self.slow_critic is None:
            raise ValueError("critic_target is 'slow' but slow_critic is None; give one, or take 'fast'.")
        if self.replay_value > 0.0 and self.indexing != "v3":
            raise ValueError(f"replay_value needs indexing 'v3', whose returns begin with the next reward; it is {self.indexing!r}.")
        if self.init == "torch" and any(network.norm != "none" for network in (self.actor_network, self.critic_network)):
            raise ValueError("init 'torch' builds networks without norms; take init='paper'.")
        if self.init == "torch" and self.critic_distribution == "two-hot":
            raise ValueError("init 'torch' draws a bias, which makes the first values of a two-hot critic huge; take init='paper'.")

    @property
    def actor_network(self) -> MLPConfig:
        """The actor's hidden layers."""
        return self.actor or MLPConfig(self.layers, self.units)

    @property
    def critic_network(self) -> MLPConfig:
        """The critic's hidden layers."""
        return self.critic or MLPConfig(self.layers, self.units)


class ActorCritic(nn.Module):
    """Acts on features [B,F]; `predict` has Stable-Baselines3's signature and returns the environment's actions.

    Source: Hafner et al. 2020, 2021, 2023 (Dreamer V1 to V3); specs/dreamer.md A.6, B.4, C.6. The world model learns nothing from
    `losses`, only from `replay_value_loss`.
    """

    def __init__(self, spec: Spec, feature_size: int, config: ActorCriticConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.spec, self.config = spec, config or ActorCriticConfig()
        config = self.config
        self.feature_size = feature_size
        sizes = spec.action_sizes
        family = OneHotFamily(sizes, config.unimix) if sizes else config.policy
        outputs = family.raw_size(spec.action_size)
        network = build_head(feature_size, outputs, config.actor_network, init=config.init, output_scale=config.actor_output_scale)
        self.actor = Actor(network, family, len(sizes) or spec.action_size)
        outputs = Critic.outputs(config.critic_distribution)
        network = build_head(feature_size, outputs, config.critic_network, init=config.init, output_scale=config.critic_output_scale)
        self.critic = Critic(network, config.critic_distribution)
        self.slow_critic = None if config.slow_critic is None else SlowCritic(self.critic, config.slow_critic)
        self.return_scale = None if config.return_scale is None else ReturnScale(config.return_scale)
        self.reinforce = config.reinforce if config.reinforce is not None else float(bool(sizes))
        self._generator = torch.Generator().manual_seed(seed)

    # ---- acting -------------------------------------------------------------------------------------------------------

    def policy(self, features: Tensor) -> ActionDistribution:
        """Distribution over model actions given features [..., F]."""
        return self.actor.distribution(self.actor(features))

    def reseed(self, seed: int) -> None:
        """Restart the generator that `predict` explores with."""
        self._generator.manual_seed(seed)

    @torch.no_grad()
    def predict(
        self,
        observation: NDArray[Any],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Latent observations [F] or [B,F] -> the environment's actions. deterministic takes the mode, else samples."""
        features = read_features(observation, self.feature_size, next(self.actor.parameters()).device)
        policy = self.policy(features)
        if deterministic:
            action = policy.mode
        else:
            noise = torch.rand((*features.shape[:-1], self.spec.action_size), generator=self._generator)
            action = policy.sample(noise.clamp_(1e-6, 1.0 - 1e-6).to(features.device))
        return self.spec.to_env_action(action.cpu()).numpy(), state

    # ---- learning -----------------------------------------------------------------------------------------------------

    def losses(
        self,
        model: Any,
        start: Any,
        guard: Guard,
        generator: torch.Generator,
        *,
        start_alive: Tensor | None = None,
        temperature: float = 1.0,
    ) -> BehaviourLosses:
        """Losses from `horizon` imagined steps of every start state [N].

        model is anything that can be dreamt (structs.DreamableModel). start_alive [N] bool or float says whether the start goes on, from
        data; without it V2 and V3 ask the model, and V1 ignores it. temperature: of these dreams. With return_scale, each call also moves
        the scale of returns.
        """
        config = self.config
        dynamics = self.reinforce < 1.0
        start = start.detach()
        _, like = start.items()[0]
        noise = torch.rand(len(like), config.horizon, model.noise_lanes + self.spec.action_size, generator=generator)
        noise = sent(noise, like.device).clamp_(1e-6, 1.0 - 1e-6)
        with frozen(model, self.critic) if dynamics else frozen():
            lived = dream(model, self.actor, start, guard, noise, dynamics=dynamics, start_alive=start_alive, temperature=temperature)
            value = self._bootstrap(lived) if dynamics else None
        raw = self.critic.network(lived.features.detach())
        fast = self.critic.read(raw.detach()).mean
        if value is None:
            value = fast if config.critic_target == "fast" else self._bootstrap(lived)
        scores = self._score(lived, value)
        actor_loss, entropy, scale = self._actor_loss(lived, scores)
        critic_loss = self._critic_loss(raw, lived, scores)
        metrics = {
            "actor_loss": actor_loss,
            "critic_loss": critic_loss,
            "entropy": entropy,
            "imagined_return": scores.returns.mean() * config.reward_scale,
            "imagined_reward": lived.reward[:, 1:].mean(),
            "value": fast[:, 1:].mean() * config.reward_scale,
        }
        if scale is not None:
            metrics["return_scale"] = scale
        detached = {name: metric.detach() for name, metric in metrics.items()}
        return BehaviourLosses(actor_loss, critic_loss, detached, scores.returns[:, 0].detach())

    def replay_value_loss(self, features: Tensor, batch: SequenceBatch, imagined_return: Tensor) -> Tensor:
        """The critic's loss on replayed rows, times replay_value: a scalar. Its gradient reaches the world model through the features.

        features [B,T,F] of the rows' posteriors, attached; imagined_return [B,T] is that of `losses`, started from the same states.
        Source: DreamerV3 (specs/dreamer.md C.6).
        """
        config = self.config
        returns = replay_lambda_returns(
            batch.reward.float() / config.reward_scale,
            imagined_return.float(),
            batch.is_last,
            batch.is_terminal,
            discount=config.discount,
            lambda_=config.lambda_,
        )
        features = features[:, :-1]
        predicted = self.critic(features)
        loss = value_loss(predicted, returns)
        if self.slow_critic is not None and self.slow_critic.regulariser > 0.0:
            loss = loss + self.slow_critic.regulariser * value_loss(predicted, self.slow_critic(features.detach()))
        return config.replay_value * (loss * ~batch.is_last[:, :-1]).mean()

    def update_slow_critic(self) -> None:
        """To be called after every update of the critic."""
        if self.slow_critic is not None:
            self.slow_critic.follow(self.critic)

    def _bootstrap(self, lived: Dream) -> Tensor:
        """Values [N,H+1] that returns are made of; differentiable in the features where those are."""
        if self.config.critic_target == "slow":
            assert self.slow_critic is not None
            return self.slow_critic(lived.features)
        return self.critic(lived.features).mean

    def _score(self, lived: Dream, value: Tensor) -> Scores:
        config = self.config
        gamma = 1.0 if config.estimator == "reward_sum" else config.discount
        align = ALIGNMENTS[config.indexing]
        bootstraps = config.estimator != "reward_sum"
        return align(lived.reward / config.reward_scale, gamma * lived.continue_prob, value, self._estimate, gamma, bootstraps)

    def _estimate(self, reward: Tensor, discount: Tensor, value: Tensor) -> Tensor:
        if self.config.estimator == "lambda":
            return lambda_returns(reward, discount, value, lambda_=self.config.lambda_)
        if self.config.estimator == "n_step":
            return n_step_returns(reward, value, discount=discount, steps=self.config.n_step)
        return reward_sum(reward, discount=discount)

    def _actor_loss(self, lived: Dream, scores: Scores) -> tuple[Tensor, Tensor, Tensor | None]:
        """Minus the weighted objective; the mean entropy; the scale of returns."""
        J, rho = scores.action_returns.shape[1], self.reinforce
        acted = policy = self.actor.distribution(lived.raw)
        if rho == 1.0:  # nothing was recorded while dreaming: one pass over all the states it acted in
            policy = self.actor.distribution(self.actor(lived.features[:, :-1]))
        entropy = policy.entropy(lived.noise)
        if self.config.entropy_per_dimension:
            entropy = entropy / self.actor.dimensions
        objective = self.config.entropy * entropy[:, :J]
        scale = None if self.return_scale is None else self.return_scale.update(scores.returns)
        returns, advantage = scores.action_returns, (scores.action_returns - scores.baseline).detach()
        if scale is not None:
            returns, advantage = returns / scale, advantage / scale
        if rho < 1.0:
            objective = objective + (1.0 - rho) * returns
        if rho > 0.0:
            log_prob = policy.log_prob(acted.draw(lived.noise).detach())
            objective = objective + rho * log_prob[:, :J] * advantage
        return -(scores.action_weight * objective).mean(), entropy.mean(), scale

    def _critic_loss(self, raw: Tensor, lived: Dream, scores: Scores) -> Tensor:
        scored = slice(scores.first, scores.first + scores.returns.shape[1])
        predicted = self.critic.read(raw[:, scored])
        loss = value_loss(predicted, scores.returns)
        if self.slow_critic is not None and self.slow_critic.regulariser > 0.0:
            pull = value_loss(predicted, self.slow_critic(lived.features[:, scored].detach()))
            loss = loss + self.slow_critic.regulariser * pull
        return (scores.weight * loss).mean()

    # ---- keeping ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write agent.json and agent.safetensors."""
        write_agent(folder, self, feature_size=self.feature_size, config=self.config, kind="actor-critic")

    def push_to_hub(self, repo_id: str, *, license: str, **options: Any) -> Any:
        """Share it on the Hub as one commit, linked to its world model; see dreamgym.hub.sharing.push_agent. Returns commit and page."""
        return push_agent(self, repo_id, license=license, **options)

    @classmethod
    def load(cls, folder: str | Path | FileSet, spec: Spec) -> ActorCritic:
        """Read what `save` wrote, in a folder or the Hub's cache; spec: the world model's. Raises ModelNotFoundError, InvalidModelError."""
        return read_agent(folder, ActorCriticConfig, lambda size, config: cls(spec, size, config), kind="actor-critic")
