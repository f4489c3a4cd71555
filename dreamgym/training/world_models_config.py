"""Settings of a World Models run as data: collection, V, M, calibration, C and the iterations. Presets fill them in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from dreamgym.agents.actor_critic import ActorCriticConfig
from dreamgym.agents.evolution import CMAESConfig
from dreamgym.agents.linear import LinearControllerConfig
from dreamgym.models.mixture_overshooting import MixtureOvershooting
from dreamgym.models.world_model import WorldModelConfig

__all__ = [
    "BehaviourTraining",
    "CodeTraining",
    "ControllerTraining",
    "Calibration",
    "EpisodeCollection",
    "Iterations",
    "MemoryTraining",
    "WorldModelsPreset",
]


@dataclass(frozen=True)
class EpisodeCollection:
    """Random episodes. Until `pixel_frames` agent steps are stored they stay pictures, which V learns from; of later ones only codes.

    env_steps bounds all of it in the environment's own steps (None: only `episodes` does). collector "sticky" holds uniform actions for
    1 to n steps, n drawn per episode from holds; the others are dreamgym.data's. Episodes shorter than `least` steps are dropped;
    episode_steps are lengths at which episodes are cut, with their probabilities. Every held_out_every-th episode is kept out of training.
    """

    episodes: int = 10_000  # specs/world-models.md 2
    pixel_frames: int = 250_000
    env_steps: int | None = None
    collector: Literal["sticky", "brownian", "network", "driving"] = "sticky"
    holds: tuple[int, ...] = (10,)
    least: int = 1
    episode_steps: tuple[tuple[int, float], ...] | None = None
    held_out_every: int = 20

    def __post_init__(self) -> None:
        _at_least(self, episodes=2, pixel_frames=1, least=1, held_out_every=2)
        _choice(self, "collector", ("sticky", "brownian", "network", "driving"))
        if not self.holds or min(self.holds) < 1:
            raise ValueError(f"holds is {self.holds}; expected one number of steps or several, each at least 1.")
        if self.env_steps is not None and self.env_steps < 1:
            raise ValueError(f"env_steps is {self.env_steps}; expected None or at least 1.")


@dataclass(frozen=True)
class CodeTraining:
    """V: `steps` updates on frames drawn uniformly. Defaults: the paper's loss and optimiser (specs/world-models.md 3.2).

    The loss is weight x squared error + KL; the weight goes from reconstruction_weight[0] to [1], exponentially over the steps. The KL is
    floored per image at kl_tolerance * Z. rate "cosine" lets the learning rate fall to zero.
    """

    steps: int = 100_000
    batch: int = 100
    learning_rate: float = 1e-4
    rate: Literal["constant", "cosine"] = "constant"
    reconstruction_weight: tuple[float, float] = (1.0, 1.0)
    kl_tolerance: float = 0.5

    def __post_init__(self) -> None:
        _at_least(self, steps=1, batch=1)
        _positive(self, "learning_rate")
        _choice(self, "rate", ("constant", "cosine"))
        if min(self.reconstruction_weight) <= 0.0:
            raise ValueError(f"reconstruction_weight is {self.reconstruction_weight}; expected two positive numbers.")
        if self.kl_tolerance < 0.0:
            raise ValueError(f"kl_tolerance is {self.kl_tolerance}; expected at least 0.")


@dataclass(frozen=True)
class MemoryTraining:
    """M: `steps` updates. sequences "episodes" are whole padded episodes; "streams" are chunks of `length` rows of concatenated ones,
    the memory carried from chunk to chunk (the paper's Doom training).

    rate: "constant", "cosine" to zero, or "exponential": (learning_rate - final_rate) * decay^step + final_rate (specs/world-models.md
    4.4). clip_value bounds every element of the gradient, as the paper does, clip_norm its norm. Every `evaluate_every` updates the
    losses on held-out episodes are measured (held_out_episodes at most); the weights with the lowest sum are kept.
    overshooting: M also learns from its own dreams, in the last overshooting_share of the updates (all of an iteration's); weights of
    before then are no longer candidates. None: as in the paper, one step ahead only.
    """

    steps: int = 24_400
    batch: int = 100
    sequences: Literal["episodes", "streams"] = "episodes"
    length: int = 500
    learning_rate: float = 1e-3
    rate: Literal["constant", "cosine", "exponential"] = "constant"
    final_rate: float = 1e-5
    decay: float = 0.99999
    weight_decay: float = 0.0
    clip_value: float | None = 1.0
    clip_norm: float | None = None
    evaluate_every: int = 500
    held_out_episodes: int = 200
    overshooting: MixtureOvershooting | None = None
    overshooting_share: float = 0.3

    def __post_init__(self) -> None:
        _at_least(self, steps=1, batch=1, length=2, evaluate_every=1, held_out_episodes=1)
        _positive(self, "learning_rate", "final_rate", "decay")
        _choice(self, "sequences", ("episodes", "streams"))
        _choice(self, "rate", ("constant", "cosine", "exponential"))
        for name in ("clip_value", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"{name} is {value}; expected None or a positive bound.")
        if not 0.0 <= self.overshooting_share <= 1.0:
            raise ValueError(f"overshooting_share is {self.overshooting_share}; expected 0 to 1.")
        if self.weight_decay < 0.0:
            raise ValueError(f"weight_decay is {self.weight_decay}; expected at least 0.")


@dataclass(frozen=True)
class Calibration:
    """When a dream ends, fitted after M. logistic fits the chance of an end to held-out rows (Platt).

    threshold then searches the end probability above which dreams end, such that the lengths of blind policies in the dream are those
    in the real environment (r.m.s. log ratio over all of them): the check that noticed a badly calibrated end where random dreams'
    lengths did not (prototypes/takecover.md). A model whose dreams end by chance has no threshold: there the best of `temperatures`
    becomes the model's own, or it is a check only. Blind are
    constants, sweeps between two actions (classes `sweep`; None: the first and the last, or both ends of a Box's first dimension)
    reversed every `periods` steps, and random actions. Each is played real_episodes times awake, once per run, and dream_episodes times
    asleep.
    """

    logistic: bool = True
    threshold: bool = True
    temperatures: tuple[float, ...] = ()
    periods: tuple[int, ...] = (4, 8, 16, 28, 32, 40, 64)
    sweep: tuple[int, int] | None = None
    real_episodes: int = 48
    dream_episodes: int = 128

    def __post_init__(self) -> None:
        _at_least(self, real_episodes=1, dream_episodes=1)
        if min(self.periods, default=1) < 1:
            raise ValueError(f"periods is {self.periods}; expected numbers of steps, at least 1.")
        if not min(self.temperatures, default=0.0) >= 0.0:
            raise ValueError(f"temperatures is {self.temperatures}; expected numbers of at least 0.")


@dataclass(frozen=True)
class ControllerTraining:
    """C: `generations` of CMA-ES, every candidate's fitness its mean return over `rollouts` dreams at `temperature`.

    dropout: the dream's rate (None: the model's own). Every evaluate_every generations the distribution's centre is judged in
    judge_dreams other dreams, or, if judge_awake is not 0, in so many real episodes, and a search's best centre is its controller.
    Dream returns go on rising after real ones fall (specs/world-models.md 12), but with judge_awake C no longer knows dreams alone.
    attempts searches begin from seeds of their own; the best of their controllers in `validation_episodes` real episodes is taken.
    """

    generations: int = 1800  # specs/world-models.md 6, as are 16 rollouts
    rollouts: int = 16
    temperature: float = 1.15  # the paper's best transfer, specs/world-models.md 10
    dropout: float | None = None
    attempts: int = 1
    evaluate_every: int = 25
    judge_dreams: int = 1024
    judge_awake: int = 0
    validation_episodes: int = 100

    def __post_init__(self) -> None:
        _at_least(self, generations=1, rollouts=1, attempts=1, evaluate_every=1, judge_dreams=1, judge_awake=0, validation_episodes=1)
        if not self.temperature >= 0.0:
            raise ValueError(f"temperature is {self.temperature}; expected at least 0.")


def _remembering() -> ActorCriticConfig:
    """Short dreams, deaths as the only signal: see docs/log.md."""
    return ActorCriticConfig(units=64, horizon=15, discount=0.995, entropy=0.003, reward_scale=1.0, reinforce=1.0)


@dataclass(frozen=True)
class BehaviourTraining:
    """An actor-critic beside C: not in the paper. REINFORCE in `updates` batches of `starts` short dreams each.

    They begin anywhere in the lives that M has learned from, agents' and random ones as often: in `states` states out of `episodes` of
    them. So no dream need be true for longer than the actor-critic's horizon, where C's are whole lives.
    """

    updates: int = 6000
    starts: int = 256
    states: int = 30_000
    episodes: int = 500
    config: ActorCriticConfig = field(default_factory=_remembering)

    def __post_init__(self) -> None:
        _at_least(self, updates=1, starts=1, states=1, episodes=2)


@dataclass(frozen=True)
class Iterations:
    """What follows the first C, `count` times: the best C lives `episodes` awake, M is refitted, C begins anew (specs/world-models.md 8).

    Where there is an actor-critic too, half of the lives are its.
    In every second episode there are bursts of random actions: in each step one begins with probability burst_chance and lasts 1 to
    burst_steps steps. recent_weight is how many times an agent's episode is taken where a random one is taken once.
    curiosity above 0: half of the episodes are an explorer's, which `explorer_generations` of CMA-ES evolved in the dream before, where
    curiosity is paid per unit of the model's uncertainty on top of the reward (in units of reward; see world_models_curiosity.py).
    code_steps above 0: V goes on learning, for so many updates per iteration, from pictures that now are kept of agents' episodes too, and
    everything is encoded anew. Worlds whose random play shows but a part of them need that. Episodes of which only codes were kept mean
    nothing to a changed V and are dropped, so give the collection enough pixel_frames. learning_rate is M's and V's.
    """

    count: int = 0
    episodes: int = 2000
    burst_chance: float = 0.05
    burst_steps: int = 8
    recent_weight: int = 3
    memory_steps: int = 4000
    learning_rate: float = 5e-4
    curiosity: float = 0.0
    explorer_generations: int = 20
    code_steps: int = 0

    def __post_init__(self) -> None:
        _at_least(self, count=0, episodes=2, burst_steps=1, recent_weight=1, memory_steps=1, explorer_generations=1, code_steps=0)
        _positive(self, "learning_rate")
        if not 0.0 <= self.burst_chance <= 1.0:
            raise ValueError(f"burst_chance is {self.burst_chance}; expected 0 to 1.")
        if not 0.0 <= self.curiosity < math.inf:
            raise ValueError(f"curiosity is {self.curiosity}; expected a number of at least 0.")


@dataclass(frozen=True)
class WorldModelsPreset:
    """A whole recipe. bfloat16 computes losses, codes and dreams of the search under autocast.

    start_states is the size of the bank dreams begin from: three quarters true episode starts, the rest from anywhere.
    """

    name: str
    model: WorldModelConfig
    controller: LinearControllerConfig
    collection: EpisodeCollection = field(default_factory=EpisodeCollection)
    code_training: CodeTraining = field(default_factory=CodeTraining)
    memory_training: MemoryTraining = field(default_factory=MemoryTraining)
    calibration: Calibration = field(default_factory=Calibration)
    evolution: CMAESConfig = field(default_factory=CMAESConfig)
    controller_training: ControllerTraining = field(default_factory=ControllerTraining)
    behaviour_training: BehaviourTraining | None = None
    iterations: Iterations = field(default_factory=Iterations)
    bfloat16: bool = False
    start_states: int = 1024
    notes: str = ""

    def __post_init__(self) -> None:
        _at_least(self, start_states=4)
        if self.iterations.curiosity > 0.0 and getattr(self.model.heads, "members", 0) < 2:
            raise ValueError(
                f"curiosity is {self.iterations.curiosity}, but a model with heads {self.model.heads} has no ensemble whose disagreement "
                "could be sought; give it members (MDNHeadsConfig), or take curiosity 0."
            )


def _at_least(config: Any, **bounds: int) -> None:
    for name, bound in bounds.items():
        if getattr(config, name) < bound:
            raise ValueError(f"{name} is {getattr(config, name)}; expected at least {bound}.")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0.0:
            raise ValueError(f"{name} is {getattr(config, name)}; expected a positive number.")


def _choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    if getattr(config, name) not in choices:
        raise ValueError(f"{name} is {getattr(config, name)!r}; expected {' or '.join(choices)}.")
