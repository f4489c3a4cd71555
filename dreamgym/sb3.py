"""Dreams for Stable-Baselines3. Raises MissingDependencyError on import where it is not installed."""

from dreamgym.dreams.sb3 import DreamVecEnv

__all__ = ["DreamVecEnv"]
