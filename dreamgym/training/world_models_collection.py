"""What a World Models run has lived: pictures for V, codes for M, and how more of both is got, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from dreamgym.agents.actor_critic import ActorCritic
from dreamgym.agents.linear import LinearController
from dreamgym.data import collection as collecting
from dreamgym.data.collectors import Brownian, DrivingRandom, RandomNetwork, RowPolicy, StickyRandom
from dreamgym.data.encoded import Dealer, Encode, EncodedSink, LongEnough, encode_episodes, encoded_spec
from dreamgym.data.replay import Replay
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Policy, SequenceBatch, Spec
from dreamgym.training.experience import forget_episodes, unseen
from dreamgym.training.trainer import TRAINING_SEEDS
from dreamgym.training.world_models_awake import record_lives
from dreamgym.training.world_models_config import EpisodeCollection, WorldModelsPreset
from dreamgym.training.world_models_learners import held_out_batches

__all__ = ["AGENTS", "Lives", "random_policy_of"]

AGENTS = frozenset({LinearController.__name__, ActorCritic.__name__})  # who acts by the model, in the replay's words

CHUNK = 100  # episodes between two checkpoints; part of what a seed means, so never to be changed lightly
# A run has 10,000 seeds: one per chunk of pictures, one per chunk of codes, one per round of an agent's lives.
_CODE_SEEDS, _AGENT_SEEDS = 5_000, 9_000


class Lives:
    """Three replays: pictures, and their codes to train on and to keep out. Whatever is asked for twice comes out the same.

    env None: nothing can be collected, and `pixels` is somebody's dataset. Methods that collect take the chunk's number, and return None
    where there is enough.
    """

    def __init__(
        self,
        spec: Spec,
        preset: WorldModelsPreset,
        folder: Path,
        *,
        codes: int,
        seed: int,
        env: gym.Env[Any, Any] | None,
        build: Callable[[], gym.Env[Any, Any]],
        workers: int = 1,
        progress: bool = False,
    ) -> None:
        self.spec, self.preset, self.env, self.build, self.workers, self.progress = spec, preset, env, build, workers, progress
        coded = encoded_spec(spec, codes)
        self.pixels = Replay(spec, folder / "pictures")
        self.codes = Replay(coded, folder / "codes")
        self.held_out = Replay(coded, folder / "held_out")
        self.steps = 0  # lived to be learned from, by whomever; those of judgements are not among them
        self._seeds = TRAINING_SEEDS + 10_000 * seed

    def collect_pictures(self, chunk: int) -> collecting.CollectStats | None:
        """Random episodes, kept as they are seen."""
        settings = self.preset.collection
        enough = len(self.pixels) >= settings.pixel_frames
        wanted = 0 if enough else settings.episodes - len(self.pixels.episodes)
        return self._collect(self.pixels, wanted, self._seeds + chunk)

    def encode_pictures(self, encode: Encode) -> None:
        """Codes of all pictures there are, and of nothing else: older ones are forgotten."""
        forget_episodes(self.codes, self.held_out)
        encode_episodes(self.pixels, encode, self._dealer())

    def collect_codes(self, chunk: int, encode: Encode) -> collecting.CollectStats | None:
        """Random episodes, of which only the codes are kept."""
        wanted = self.preset.collection.episodes - len(self.codes.episodes) - len(self.held_out.episodes)
        return self._collect(EncodedSink(self.spec, encode, self._dealer()), wanted, self._seeds + _CODE_SEEDS + chunk)

    def collect_agents(
        self, chunk: int, encode: Encode, *, agents: Sequence[Policy], model: WorldModel, round: int
    ) -> collecting.CollectStats | None:
        """Episodes of agents on the model's features, as many of each, with bursts of random actions in half of them.

        Pictures are kept where V is to learn from them, else codes.
        """
        settings = self.preset.iterations
        if (left := settings.episodes - chunk * CHUNK) <= 0:
            return None
        pictures = settings.code_steps > 0
        options: dict[str, Any] = {"seed": self._seeds + _AGENT_SEEDS + round, "settings": settings, "progress": self.progress}
        sink = self.pixels if pictures else self._dealer()
        lived = []
        for agent, numbers in zip(agents, np.array_split(chunk * CHUNK + np.arange(min(CHUNK, left)), len(agents))):
            if len(numbers):
                options |= {"first": int(numbers[0]), "episodes": len(numbers), "pictures": pictures}
                lived.append(record_lives(agent, model, self.build, encode, sink, **options))
        stats = collecting.CollectStats(sum((one.returns for one in lived), ()), sum((one.lengths for one in lived), ()))
        self.steps += stats.steps
        return stats

    def weights(self) -> Any:
        """How often each training episode is to be learned from, [N]: agents' ones more often."""
        lived = np.array([policy in AGENTS for policy in self.codes.policies])
        return np.where(lived, self.preset.iterations.recent_weight, 1)

    def unseen_batches(self, episodes: int, device: Any) -> list[SequenceBatch]:
        """Up to so many held-out episodes, padded; training ones where none were held out."""
        batch = self.preset.memory_training.batch
        return held_out_batches(unseen(self.held_out, self.codes), episodes=episodes, batch=batch, device=device)

    @property
    def replays(self) -> list[Replay]:
        """Those that the run has filled itself."""
        return [self.codes, self.held_out, *([] if self.env is None else [self.pixels])]

    def forget(self) -> None:
        """Empty them."""
        forget_episodes(*self.replays)

    def _dealer(self) -> Dealer:
        return Dealer(self.codes, self.held_out, every=self.preset.collection.held_out_every)

    def _collect(self, sink: Any, wanted: int, seed: int) -> collecting.CollectStats | None:
        """At most one chunk of random episodes."""
        settings = self.preset.collection
        budget = None if settings.env_steps is None else settings.env_steps // self.spec.preprocess.action_repeat
        if wanted <= 0 or (budget is not None and self.steps >= budget):
            return None
        assert self.env is not None
        cut = None if settings.episode_steps is None else collecting.EpisodeLengths(*zip(*settings.episode_steps))
        options: dict[str, Any] = {
            "episodes": min(wanted, CHUNK),
            "steps": None if budget is None else budget - self.steps,
            "seed": seed,
            "max_episode_steps": cut,
            "progress": self.progress,
        }
        policy, long = partial(random_policy_of, settings, self.spec, seed), LongEnough(sink, settings.least)
        if self.workers > 1:
            stats = collecting.collect_parallel(self.build, policy, long, workers=self.workers, **options)
        else:
            stats = collecting.collect(self.env, policy, long, **options)
        self.steps += stats.steps
        if not any(length >= settings.least for length in stats.lengths):
            raise ValueError(
                f"no random episode of {len(stats.lengths)} lasted {settings.least} steps; lower the preset's collection.least."
            )
        return stats


def random_policy_of(settings: EpisodeCollection, spec: Spec, seed: int, episode: int) -> RowPolicy:
    """The policy of episode number `episode` among those with this seed."""
    space, own = spec.action_space, 1_000_003 * seed + episode
    if settings.collector == "driving":
        return DrivingRandom(space, seed=own)
    if settings.collector == "brownian":
        return Brownian(space, seed=own)
    if settings.collector == "network":
        return RandomNetwork(space, seed=own)
    longest = int(np.random.default_rng([seed, episode]).choice(settings.holds))
    return StickyRandom(space, hold=(1, longest), seed=own)
