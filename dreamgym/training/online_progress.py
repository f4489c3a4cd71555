"""How far an online run is, and how fast."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "Rates"]


@dataclass
class Counters:
    """How far a run is. It is saved between episodes only, so that whatever came after is repeated from an episode's start."""

    agent_steps: int = 0
    episodes: int = 0
    updates: int = 0
    evaluations: int = 0
    evaluated_at: int = 0  # agent steps
    saved_at: int = 0  # agent steps; offline: updates
    pretrained: bool = False


@dataclass
class Rates:
    """Wall-clock speed since the last evaluation."""

    acting: float = 0.0  # seconds
    learning: float = 0.0
    env_steps: int = 0
    updates: int = 0

    def since_last(self, env_steps: int, updates: int) -> dict[str, float]:
        """Env steps per second of the whole loop, updates per second of learning; starts over."""
        rates = {
            "env_steps_per_second": (env_steps - self.env_steps) / max(self.acting + self.learning, 1e-9),
            "updates_per_second": (updates - self.updates) / max(self.learning, 1e-9),
        }
        self.acting, self.learning, self.env_steps, self.updates = 0.0, 0.0, env_steps, updates
        return rates
