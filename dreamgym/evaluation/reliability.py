"""Does one in ten predicted ends happen when the model says "one in ten"? A head that errs in a percent of steps ruins every long dream."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamgym import noise as streams
from dreamgym.errors import require
from dreamgym.evaluation.prediction_errors import SAMPLES_SEED, evaluating, home
from dreamgym.evaluation.statistics import proportion_interval
from dreamgym.structs import SequenceBatch, map_obs

__all__ = ["EndReliability", "ReliabilityBin", "end_reliability", "lived_rows"]

# Ends are rare, so most predictions lie near 0, and there differences matter most: a chance of 1% per step is a life of 100 steps.
EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0)
DRAWN, BLUE = 1e-4, "#3d7ab8"  # chances nearer to 0 or 1 are drawn there
SMALLEST = 1e-6  # predictions are kept this far from 0 and 1 in the log loss, which one sure mistake would make infinite


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose predicted chance of an end lies in [low, high): how many, their mean prediction, and how many did end."""

    low: float
    high: float
    n: int
    predicted: float
    ends: int

    @property
    def observed(self) -> float:
        """Share that ended."""
        return self.ends / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95% interval of the chance behind `observed`, as if rows were independent (those of one episode hardly are)."""
        return proportion_interval(self.ends, self.n)


@dataclass(frozen=True)
class EndReliability:
    """How well the predicted chances of an end match how often it came, one step ahead on held-out real rows.

    predicted, ended [n] are all rows judged. threshold is where the dream ends an episode, at least if its termination is "threshold".
    """

    predicted: NDArray[np.float64]
    ended: NDArray[np.bool_]
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not len(self.predicted) or len(self.predicted) != len(self.ended):
            raise ValueError(f"{len(self.predicted)} predictions and {len(self.ended)} outcomes; expected as many, and at least one.")

    @property
    def n(self) -> int:
        """Rows judged."""
        return len(self.ended)

    @property
    def ends(self) -> int:
        """Rows that ended an episode."""
        return int(self.ended.sum())

    @property
    def bins(self) -> tuple[ReliabilityBin, ...]:
        """The rows by predicted chance, empty bins left out."""
        where = np.clip(np.searchsorted(EDGES, self.predicted, side="right") - 1, 0, len(EDGES) - 2)
        rows = [where == index for index in range(len(EDGES) - 1)]
        return tuple(
            ReliabilityBin(low, high, int(inside.sum()), float(self.predicted[inside].mean()), int(self.ended[inside].sum()))
            for low, high, inside in zip(EDGES, EDGES[1:], rows)
            if inside.any()
        )

    @property
    def log_loss(self) -> float:
        """Mean cross-entropy per row, in nats. Compare it with `log_loss_of_base_rate`; by itself it mostly says how rare ends are."""
        chance = np.clip(self.predicted, SMALLEST, 1.0 - SMALLEST)
        return float(-np.where(self.ended, np.log(chance), np.log1p(-chance)).mean())

    @property
    def log_loss_of_base_rate(self) -> float:
        """What predicting the overall share of ends for every row would get: a head above it is worse than none."""
        share = float(np.clip(self.ended.mean(), SMALLEST, 1.0 - SMALLEST))
        return float(-np.where(self.ended, math.log(share), math.log1p(-share)).mean())

    @property
    def expected_calibration_error(self) -> float:
        """Mean over rows of |predicted - observed| of their bin. Tiny wherever ends are rare: read it beside the share of ends.

        It says nothing of discrimination (the base rate for every row has 0), and depends on the bins.
        """
        return sum(each.n * abs(each.predicted - each.observed) for each in self.bins) / self.n

    @property
    def expected_ends(self) -> float:
        """Predicted over observed number of ends; 1 if right on average, 2 if a dream that samples its ends is twice as deadly.

        nan where nothing ended.
        """
        return float(self.predicted.sum()) / self.ends if self.ends else float("nan")

    @property
    def recall(self) -> float:
        """Share of the real ends whose prediction lies above the threshold: those a dream would have ended at. nan without any."""
        return float((self.predicted > self.threshold)[self.ended].mean()) if self.ends else float("nan")

    @property
    def false_alarms(self) -> float:
        """Share of the harmless rows above the threshold; its inverse is about how many steps an immortal would dream of living."""
        harmless = self.predicted[~self.ended]
        return float((harmless > self.threshold).mean()) if len(harmless) else float("nan")

    def table(self) -> str:
        """Plain text for a terminal."""
        lines = [f"{'predicted in':>16}  {'rows':>9}  {'ends':>7}  {'predicted':>9}  {'observed':>9}  95% interval"]
        for each in self.bins:
            span, (low, high) = f"{each.low:g} to {each.high:g}", each.interval
            numbers = f"{each.n:>9}  {each.ends:>7}  {each.predicted:>9.4f}  {each.observed:>9.4f}"
            lines.append(f"{span:>16}  {numbers}  {low:.4f} to {high:.4f}")
        losses = f"log loss {self.log_loss:.5f} (base rate {self.log_loss_of_base_rate:.5f})"
        calibration = f"calibration error {self.expected_calibration_error:.5f}, predicted / real ends {self.expected_ends:.3f}"
        alarms = f"at {self.threshold:g}: {self.recall:.1%} of {self.ends} ends found, {self.false_alarms:.3%} of harmless rows ended"
        return "\n".join([*lines, f"{losses}, {calibration}", alarms])

    def to_json(self) -> dict[str, Any]:
        """The summary and the bins; single rows are left out."""
        names = ("log_loss", "log_loss_of_base_rate", "expected_calibration_error", "expected_ends", "recall", "false_alarms")
        numbers = {name: getattr(self, name) for name in names}
        bins = [{**vars(each), "observed": each.observed, "interval": list(each.interval)} for each in self.bins]
        summary = {"n": self.n, "ends": self.ends, "threshold": self.threshold}
        return {**summary, **{name: number if math.isfinite(number) else None for name, number in numbers.items()}, "bins": bins}

    def plot(self, path: str | Path, *, title: str = "Predicted and observed ends") -> Path:
        """Draw the reliability diagram, logit against logit, with exact intervals; bins where no row or every row ended are hollow.

        Returns the path. Needs matplotlib, of the extra viz.
        """
        figure_module = require("matplotlib.figure", extra="viz", purpose="A reliability plot")
        figure = figure_module.Figure(figsize=(5, 5), layout="constrained")
        axes = figure.add_subplot()
        for each in self.bins:
            at, shown, low, high = (float(np.clip(value, DRAWN, 1 - DRAWN)) for value in (each.predicted, each.observed, *each.interval))
            whiskers = [[max(shown - low, 0.0)], [max(high - shown, 0.0)]]
            face = "white" if each.ends in (0, each.n) else BLUE  # at the edge of what a logit axis can show
            axes.errorbar([at], [shown], yerr=whiskers, fmt="o", capsize=3, color=BLUE, markerfacecolor=face)
        axes.plot([DRAWN, 1 - DRAWN], [DRAWN, 1 - DRAWN], "--", color="#999999")
        axes.axvline(self.threshold, color="#c0392b", linestyle=":")
        axes.set(xscale="logit", yscale="logit", xlabel="predicted chance of an end", ylabel="observed share", title=title)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
        return path


@torch.inference_mode()
def end_reliability(
    model: Any,
    held_out: SequenceBatch | Iterable[SequenceBatch],
    *,
    context: int = 5,
    sampled: bool = True,
    seed: int = SAMPLES_SEED,
    threshold: float | None = None,
) -> EndReliability:
    """Compare the end head with what happened, one step ahead of the filtered rows before, on real rows [B,T] never trained on.

    held_out: one batch or several, windows or whole padded episodes, with codes in `embed` or without; see `lived_rows` for what counts.
    The first `context` rows of a window that begins in mid-episode are only observed, since memory starts empty there.
    sampled: beliefs and steps are drawn, from `seed`, as they are in a dream; else their means. threshold defaults to
    the model's own end_probability. Rows cut off by a time limit count as not ended. Raises ValueError if no row counts.
    """
    batches = [held_out] if isinstance(held_out, SequenceBatch) else list(held_out)
    found = []
    with evaluating(model):
        for number, batch in enumerate(batches):
            found.append(_judge(model, batch.to(home(model)), context, seed + number * 1_000_003 if sampled else None))
    if not sum(len(predicted) for predicted, _ in found):
        raise ValueError(f"no row of {len(batches)} batches can be judged; expected sequences longer than context = {context}.")
    chosen = getattr(getattr(model, "defaults", None), "end_probability", 0.5) if threshold is None else threshold
    predicted, ended = (np.concatenate(column) for column in zip(*found))
    return EndReliability(predicted.astype(np.float64), ended, float(chosen))


def lived_rows(batch: SequenceBatch, context: int = 0) -> Tensor:
    """Rows [B,T] that an action of the same episode led to and that are no padding: neither first nor behind an end without a beginning.

    Rows fewer than `context` after the window's start are left out until the first episode begins inside the window.
    """
    living = torch.ones_like(batch.is_first[:, 0])
    begun = torch.zeros_like(living)
    rows = []
    for t in range(batch.is_first.shape[1]):
        living = batch.is_first[:, t] | (living & ~batch.is_last[:, t - 1] if t else living)
        begun = begun | batch.is_first[:, t]
        rows.append(living & ~batch.is_first[:, t] & (begun | (t >= max(context, 1))))
    return torch.stack(rows, 1)


def _judge(model: Any, batch: SequenceBatch, context: int, seed: int | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Predicted chances and outcomes of the rows that count."""
    B, T = batch.reward.shape
    counts = lived_rows(batch, context)
    state, predicted, ended = model.initial(B), [], []
    for t in range(T):
        if t and bool(counts[:, t].any()):
            arrived = model.step(state, batch.prev_action[:, t], _noise(model, B, 2 * t, seed))
            chance = 1.0 - model.predict(arrived).continue_prob
            predicted.append(chance[counts[:, t]].float().cpu().numpy())
            ended.append(batch.is_terminal[counts[:, t], t].cpu().numpy())
        state = _observe(model, state, batch, t, _noise(model, B, 2 * t + 1, seed))
    if not predicted:
        return np.zeros(0, np.float32), np.zeros(0, bool)
    return np.concatenate(predicted), np.concatenate(ended)


def _observe(model: Any, state: Any, batch: SequenceBatch, t: int, noise: Tensor) -> Any:
    """Filter row t; rows that were kept as codes are not encoded again."""
    prev_action, is_first = batch.prev_action[:, t], batch.is_first[:, t]
    if batch.embed is not None:
        return model.core.observe(state, prev_action, batch.embed[:, t], is_first, noise)[0]
    return model.observe(state, prev_action, map_obs(lambda values: values[:, t], batch.obs), is_first, noise)


def _noise(model: Any, rows: int, counter: int, seed: int | None) -> Tensor:
    """Uniforms [B,L] of one draw; one half, for the mean, without a seed."""
    if seed is None:
        return torch.full((rows, model.noise_lanes), 0.5, device=home(model))
    seeds = torch.arange(rows, device=home(model)) + seed
    return streams.uniform(seeds, torch.zeros_like(seeds), torch.full_like(seeds, counter), model.noise_lanes)
