"""Memory: what was lived, and the behaviours that live it."""

from dreamgym.data.collection import CollectStats, EpisodeLengths, collect, collect_parallel
from dreamgym.data.collectors import Brownian, DrivingRandom, Mixture, RandomNetwork, RowPolicy, StickyRandom, default_collector
from dreamgym.data.replay import Replay

__all__ = [
    "Brownian",
    "CollectStats",
    "DrivingRandom",
    "EpisodeLengths",
    "Mixture",
    "RandomNetwork",
    "Replay",
    "RowPolicy",
    "StickyRandom",
    "collect",
    "collect_parallel",
    "default_collector",
]
