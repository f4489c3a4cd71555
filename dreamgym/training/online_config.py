"""Settings of an online run as data: how experience is gathered and learned from, with which optimisers. Presets fill them in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.agents.planning import CEMConfig, MPPIConfig
from dreamgym.models.world_model import WorldModelConfig

__all__ = ["OnlinePreset", "OnlineTraining", "OptimiserConfig"]


@dataclass(frozen=True)
class OnlineTraining:
    """One real env, lived in and learned from in turn. Defaults: Dreamer V2 on DMC (specs/dreamer.md B.6).

    Budget: env_steps counts the environment's own steps (frames, with repeats) of prefill and exploration; evaluation comes on top.
    prefill is in agent steps of uniformly random actions, rounded up to whole episodes; each is held for prefill_hold steps (least, most),
    where what is drawn anew in every step would only tremble.
    Learning: pretrain updates once, then `updates` gradient steps every train_every agent steps; train_every 0 means once before each
    episode (PlaNet). Each update sees `batch` windows of `length` rows; starts of their posteriors are imagined from (None: all).
    Replay: the last `capacity` rows; sampling "windows" is uniform over rows and crosses ends of episodes, "episodes" takes an
    episode first, whatever its length (Dreamer V1). Only complete episodes are learned from: rows of the running one wait for its end.
    carry "zeros" lets every window begin from an empty memory; "stored" reads one row more, whose stored latent state is the memory, and
    writes the new states back (DreamerV3, specs/dreamer.md C.8). online_queue takes rows never seen before first, each once.
    Acting: explore_noise is added to actions (std; for classes the chance of a uniform one); belief_sample filters with sampled
    instead of mean posteriors. updates_joint sums all losses for one optimiser, model_optimiser (DreamerV3). evaluate_every is in env
    steps, 0 for never; keep_best exports the weights that did best there. Every held_out_every-th episode is kept out of training, to
    calibrate uncertainty on. checkpoint_every is in agent steps (or, offline, updates).
    """

    env_steps: int = 100_000
    prefill: int = 1_000
    prefill_hold: tuple[int, int] = (1, 1)
    pretrain: int = 100
    train_every: int = 5
    updates: int = 1
    batch: int = 16
    length: int = 50
    starts: int | None = None
    capacity: int | None = None
    sampling: Literal["windows", "episodes"] = "windows"
    carry: Literal["zeros", "stored"] = "zeros"
    online_queue: bool = False
    explore_noise: float = 0.0
    belief_sample: bool = False
    decay_share: float = 0.0
    evaluate_every: int = 10_000
    evaluate_episodes: int = 5
    updates_joint: bool = False
    keep_best: bool = False
    held_out_every: int = 20
    checkpoint_every: int = 5_000

    def __post_init__(self) -> None:
        least = {"env_steps": 1, "updates": 1, "batch": 1, "length": 2, "held_out_every": 2, "checkpoint_every": 1}
        least |= {"prefill": 0, "pretrain": 0, "train_every": 0, "evaluate_every": 0, "evaluate_episodes": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {bound}.")
        for name, choices in {"sampling": ("windows", "episodes"), "carry": ("zeros", "stored")}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(choices)}.")
        if not 1 <= self.prefill_hold[0] <= self.prefill_hold[1]:
            raise ValueError(f"prefill_hold is {self.prefill_hold}; expected (least, most) steps, at least 1.")
        if not 0.0 <= self.decay_share <= 1.0:
            raise ValueError(f"decay_share is {self.decay_share}; expected 0 to 1.")
        if self.starts is not None and self.starts < 1:
            raise ValueError(f"starts is {self.starts}; expected None or at least 1.")
        if self.capacity is not None and self.capacity < self.window:
            raise ValueError(f"capacity is {self.capacity} rows; expected None or at least one window, {self.window}.")
        if not 0.0 <= self.explore_noise < math.inf:
            raise ValueError(f"explore_noise is {self.explore_noise}; expected at least 0.")

    @property
    def window(self) -> int:
        """Rows of one sampled window: `length`, and the one that carries a stored memory."""
        return self.length + (self.carry == "stored")


@dataclass(frozen=True)
class OptimiserConfig:
    """A gradient step. Defaults: Dreamer V2's model (Adam, eps 1e-5, global clip 100; specs/dreamer.md B.6) without its decay.

    clip bounds the global norm; adaptive_clip bounds each tensor's norm by that share of its weights' (DreamerV3, C.7).
    weight_decay shrinks weights by that share in every step, whatever the rate (DreamerV2). The rate rises linearly over `warmup` steps.
    """

    kind: Literal["adam", "laprop"] = "adam"
    learning_rate: float = 3e-4
    eps: float = 1e-5
    clip: float | None = 100.0
    adaptive_clip: float | None = None
    weight_decay: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("adam", "laprop"):
            raise ValueError(f"kind is {self.kind!r}; expected adam or laprop.")
        for name in ("learning_rate", "eps", "clip", "adaptive_clip"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} is {value}; expected a positive number.")
        if not 0.0 <= self.weight_decay < 1.0 or self.warmup < 0:
            raise ValueError(f"weight_decay {self.weight_decay} must lie in [0,1) and warmup {self.warmup} be at least 0.")


@dataclass(frozen=True)
class OnlinePreset:
    """A whole recipe for an online run. actor_optimiser and critic_optimiser are for an actor-critic that is not updated jointly.

    action_repeat replaces the environment's own (None: leave it). bfloat16 computes losses under autocast. start_states is the size of
    the bank of real states that dreams of the finished model start from.
    """

    name: str
    size: str
    model: WorldModelConfig
    agent: ActorCriticConfig | CEMConfig | MPPIConfig
    training: OnlineTraining
    model_optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    actor_optimiser: OptimiserConfig | None = None
    critic_optimiser: OptimiserConfig | None = None
    action_repeat: int | None = None
    bfloat16: bool = False
    start_states: int = 1024
    notes: str = ""

    def __post_init__(self) -> None:
        joint = self.training.updates_joint
        if isinstance(self.agent, ActorCriticConfig):
            self._check_agent(self.agent, joint)
        elif joint:
            raise ValueError(f"preset {self.name!r} plans: there is nothing to update jointly.")
        if self.action_repeat is not None and self.action_repeat < 1:
            raise ValueError(f"action_repeat is {self.action_repeat}; expected None or at least 1.")

    def _check_agent(self, agent: ActorCriticConfig, joint: bool) -> None:
        if not joint and (self.actor_optimiser is None or self.critic_optimiser is None):
            raise ValueError(f"preset {self.name!r} trains an actor-critic: it needs actor_optimiser and critic_optimiser.")
        if agent.replay_value > 0.0 and (not joint or self.training.starts is not None):
            raise ValueError("replay_value needs updates_joint and starts=None: it bootstraps from the dream of every replayed row.")
