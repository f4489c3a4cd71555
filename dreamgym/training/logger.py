"""Where a run's numbers go: metrics.jsonl always, TensorBoard where it is installed, a progress bar where somebody looks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

__all__ = ["MetricsLog"]


class MetricsLog:
    """Append-only log of one run. `rewind` drops lines written after the checkpoint that a resumed run starts from."""

    def __init__(self, folder: Path, *, progress: bool) -> None:
        self.path = folder / "metrics.jsonl"
        self.progress = progress
        self._started = time.monotonic()
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # optional extra: dreamgym[tensorboard]
            return
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Log numbers of a stage at its step."""
        line = {"stage": stage, "step": step, "seconds": round(time.monotonic() - self._started, 1), **values}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{stage}/{name}", value, step)

    def rewind(self, lines: int) -> None:
        """Keep the first `lines` lines."""
        if self.path.exists():
            kept = self.path.read_text().splitlines(keepends=True)[:lines]
            self.path.write_text("".join(kept))

    def __len__(self) -> int:
        return len(self.path.read_text().splitlines()) if self.path.exists() else 0

    def bar(self, stage: str, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        """Steps start..stop-1 under a progress bar with rate and remaining time; yields the step and the bar."""
        with tqdm(total=stop, initial=start, desc=stage, disable=not self.progress, dynamic_ncols=True) as bar:
            for step in range(start, stop):
                yield step, bar
                bar.update()

    def say(self, text: str) -> None:
        """One line for whoever watches."""
        if self.progress:
            tqdm.write(text)

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            self._writer.close()
