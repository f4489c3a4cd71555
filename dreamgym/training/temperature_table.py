"""What a study of temperatures found, beside what was published: as text, as JSON, as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dreamgym.errors import require
from dreamgym.evaluation.returns import Returns

__all__ = ["StudyCell", "StudyGroup", "TemperatureStudy", "published"]

World = Literal["dream", "awake"]
Published = tuple[float, float]  # mean, std over episodes

# Doom TakeCover, in tics: what C trained at a temperature got in the dream and in the game. specs/world-models.md 10; arXiv 1803.10122.
_TAKE_COVER: Mapping[float, Mapping[World, Published]] = {
    0.10: {"dream": (2086, 140), "awake": (193, 58)},
    0.50: {"dream": (2060, 277), "awake": (196, 50)},
    1.00: {"dream": (1145, 690), "awake": (868, 511)},
    1.15: {"dream": (918, 546), "awake": (1092, 556)},
    1.30: {"dream": (732, 269), "awake": (753, 139)},
}
_RANDOM: Published = (210, 108)
# Dropout's Dream Land, the game only, by the rate while dreaming; M was trained with 0.05. specs/world-models.md 12; arXiv 2109.08342.
_DROPOUT: Mapping[float, Published] = {
    0.0: (767, 445),
    0.05: (868, 508),
    0.1: (933, 552),
    0.2: (867, 506),
    0.3: (802, 487),
    0.5: (205, 43),
}
_COLOURS: Mapping[World, str] = {"dream": "#8e44ad", "awake": "#1f6fb2"}
_GREY = "#999999"


def published(env_id: str, tau: float, dropout: float = 0.0) -> Mapping[World, Published]:
    """Mean and std over episodes that Ha & Schmidhuber printed for this temperature; nothing for other worlds, or with dropout."""
    return _TAKE_COVER.get(round(tau, 3), {}) if _is_take_cover(env_id) and dropout == 0.0 else {}


@dataclass(frozen=True)
class StudyCell:
    """One controller evolved in the dream at one setting, and what it got there and awake."""

    tau: float
    dropout: float
    seed: int
    dream: Returns
    awake: Returns
    generations: int
    best_generation: int
    seconds: float  # of its search, over all sessions
    fresh: Returns | None = None  # awake again, on seeds that did not choose its setting

    def to_json(self) -> dict[str, Any]:
        """Everything, down to single episodes."""
        worlds = {name: returns.to_json() for name, returns in vars(self).items() if isinstance(returns, Returns)}
        return {**vars(self), **worlds}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> StudyCell:
        """Undo `to_json`."""
        worlds = {name: Returns.from_json(saved[name]) for name in ("dream", "awake", "fresh") if saved.get(name) is not None}
        return cls(**{**saved, **worlds})


@dataclass(frozen=True)
class StudyGroup:
    """All searches of one setting."""

    tau: float
    dropout: float
    cells: tuple[StudyCell, ...]

    def means(self, world: World) -> list[float]:
        """Mean return of each search's controller."""
        return [getattr(cell, world).mean for cell in self.cells]

    def mean(self, world: World) -> float:
        """Mean over the searches."""
        return float(np.mean(self.means(world)))

    def std(self, world: World) -> float:
        """Standard deviation over the episodes of all searches: the paper's ±."""
        return float(self._returns(world).std())

    def error(self, world: World) -> float:
        """Standard error of `mean`: by how far searches differ or by how far episodes do, whichever is more, since few searches may agree
        by luck. nan for one episode.
        """
        means, episodes = np.asarray(self.means(world)), self._returns(world)
        errors = [values.std(ddof=1) / np.sqrt(len(values)) for values in (means, episodes) if len(values) > 1]
        return float(max(errors, default=np.nan))

    @property
    def ratio(self) -> float | None:
        """How many times what the world pays the dream promises; None unless both are positive."""
        dream, awake = self.mean("dream"), self.mean("awake")
        return dream / awake if min(dream, awake) > 0 else None

    def brief(self) -> dict[str, Any]:
        """Its numbers without single episodes."""
        of_worlds: dict[str, Any] = {
            world: {
                "mean": self.mean(world),
                "std": self.std(world),
                "standard_error": _finite(self.error(world)),
                "searches": self.means(world),
            }
            for world in _COLOURS
        }
        return {"tau": self.tau, "dropout": self.dropout, "ratio": self.ratio, **of_worlds}

    def _returns(self, world: World) -> NDArray[np.float64]:
        return np.concatenate([getattr(cell, world).returns for cell in self.cells])


@dataclass(frozen=True)
class TemperatureStudy:
    """Controllers by the temperature and dropout that they dreamt at; what random actions and blind policies get awake, as baselines."""

    env_id: str
    action_repeat: int
    cells: tuple[StudyCell, ...]
    baselines: Mapping[str, Returns] = field(default_factory=dict)
    best_blind: str | None = None

    @property
    def groups(self) -> list[StudyGroup]:
        """By dropout, then by temperature."""
        settings = sorted({(cell.dropout, cell.tau) for cell in self.cells})
        return [StudyGroup(tau, dropout, self._at(tau, dropout)) for dropout, tau in settings]

    def _at(self, tau: float, dropout: float) -> tuple[StudyCell, ...]:
        return tuple(cell for cell in self.cells if (cell.tau, cell.dropout) == (tau, dropout))

    @property
    def dropouts(self) -> list[float]:
        """Rates that were tried."""
        return sorted({cell.dropout for cell in self.cells})

    @property
    def best(self) -> StudyGroup:
        """The setting whose controllers do best awake. The best of many is lucky by a little: judge it again on other seeds."""
        return max(self.groups, key=lambda group: group.mean("awake"))

    def dream_falls(self, dropout: float | None = None) -> bool:
        """Whether every higher temperature gave a lower return in the dream, at this rate of dropout.

        None: in the mean over all rates, each counting once, at temperatures that every rate was tried at. Searches' luck counts less.
        """
        rates = self.dropouts if dropout is None else [dropout]
        means = {(group.dropout, group.tau): group.mean("dream") for group in self.groups}
        taus = sorted({tau for _, tau in means if all((rate, tau) in means for rate in rates)})
        falls = [np.mean([means[rate, tau] for rate in rates]) for tau in taus]
        return all(later < earlier for earlier, later in pairwise(falls))

    # ---- text ---------------------------------------------------------------------------------------------------------

    def rows(self) -> list[list[str]]:
        """Heading and one row per setting; the paper's columns only where it has numbers."""
        heading = ["tau", "dropout", "dream", "awake", "s.e.", "each search awake", "dream / awake"]
        beside = _is_take_cover(self.env_id)
        rows = [heading + (["paper: dream", "paper: awake"] if beside else [])]
        for group in self.groups:
            ratio = "" if group.ratio is None else f"{group.ratio:.2f}"
            each = ", ".join(_number(mean) for mean in group.means("awake"))
            scores = [_score((group.mean(world), group.std(world))) for world in _COLOURS]
            row = [f"{group.tau:g}", f"{group.dropout:g}", *scores, _number(group.error("awake")), each, ratio]
            paper = published(self.env_id, group.tau, group.dropout)
            rows.append(row + ([_score(paper.get(world)) for world in _COLOURS] if beside else []))
        return rows

    def table(self) -> str:
        """Plain text for a terminal, the baselines below."""
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
        return "\n".join([self.title, *lines, "", *self.remarks()])

    @property
    def title(self) -> str:
        """What was judged, and how."""
        episodes = sorted({cell.awake.n for cell in self.cells})
        counted = " or ".join(str(n) for n in episodes)
        return f"{self.env_id}, frame skip {self.action_repeat}, {counted} episodes per controller and world, ± is their standard deviation"

    def remarks(self) -> Iterator[str]:
        """Lines below a table."""
        for name, returns in self.baselines.items():
            if name in ("random", self.best_blind):
                label = "random actions" if name == "random" else f"best blind policy ({name})"
                yield f"{label}, awake: {_score((returns.mean, returns.std))} (s.e. {_number(returns.standard_error)}, n={returns.n})"
        if _is_take_cover(self.env_id):
            yield f"published: random policy {_score(_RANDOM)}, solved 750, leaderboard 820 ± 58"
            if self.dropouts != [0.0]:
                known = ", ".join(f"{rate:g}: {_score(score)}" for rate, score in _DROPOUT.items())
                yield f"published, by dropout while dreaming (Dropout's Dream Land, awake): {known}"
        for dropout in self.dropouts:
            if sum(group.dropout == dropout for group in self.groups) > 1:
                yield f"the dream's score falls with every rise in temperature (dropout {dropout:g}): {_yes(self.dream_falls(dropout))}"
        if len(self.dropouts) > 1:
            yield f"the dream's score falls with every rise in temperature (mean over all rates of dropout): {_yes(self.dream_falls())}"
        if len(self.groups) > 1:
            yield f"best awake: tau {self.best.tau:g}, dropout {self.best.dropout:g}{_again(self.best)}"

    # ---- JSON ---------------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The summary, and everything down to single episodes."""
        return {
            "env_id": self.env_id,
            "action_repeat": self.action_repeat,
            "settings": [group.brief() for group in self.groups],
            "dream_falls": {**{f"{dropout:g}": self.dream_falls(dropout) for dropout in self.dropouts}, "mean": self.dream_falls()},
            "best_blind": self.best_blind,
            "baselines": {name: returns.to_json() for name, returns in self.baselines.items()},
            "cells": [cell.to_json() for cell in self.cells],
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> TemperatureStudy:
        """Undo `to_json`."""
        baselines = {name: Returns.from_json(returns) for name, returns in saved["baselines"].items()}
        cells = tuple(StudyCell.from_json(cell) for cell in saved["cells"])
        return cls(saved["env_id"], saved["action_repeat"], cells, baselines, saved["best_blind"])

    # ---- plot ---------------------------------------------------------------------------------------------------------

    def plot(self, path: str | Path) -> Path:
        """Returns against temperature, dreamt and lived, a panel per rate of dropout; bars are two standard errors, dots single searches.

        Crosses are the paper's. Returns the path. Needs matplotlib, of the extra viz.
        """
        figure_module = require("matplotlib.figure", extra="viz", purpose="A plot of temperatures")
        panels = len(self.dropouts)
        figure = figure_module.Figure(figsize=(1.5 + 4.5 * panels, 5.0), layout="constrained")
        for axes, dropout in zip(figure.subplots(1, panels, sharey=True, squeeze=False)[0], self.dropouts):
            self._draw(axes, dropout)
        figure.axes[0].set_ylabel("return")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
        return path

    def _draw(self, axes: Any, dropout: float) -> None:
        groups = [group for group in self.groups if group.dropout == dropout]
        taus = [group.tau for group in groups]
        for world, colour in _COLOURS.items():
            means = [group.mean(world) for group in groups]
            bars = np.nan_to_num([2.0 * group.error(world) for group in groups])
            axes.errorbar(taus, means, yerr=bars, marker="o", capsize=4, color=colour, label=world)
            dots = [(group.tau, mean) for group in groups for mean in group.means(world)]
            axes.plot(*zip(*dots), ".", color=colour, alpha=0.4)
            paper = [(tau, scores[world][0]) for tau in taus if (scores := published(self.env_id, tau, dropout))]
            if paper:
                axes.plot(*zip(*paper), "x", color=colour, label=f"{world}, published")
        for name, style in {"random": ":", self.best_blind or "": "--"}.items():
            if name in self.baselines:
                axes.axhline(self.baselines[name].mean, color=_GREY, linestyle=style, label=f"{name}, awake")
        axes.set(xlabel="temperature of the dream", title=f"{self.env_id}, dropout {dropout:g}")


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def _again(group: StudyGroup) -> str:
    """What its controllers got on seeds that did not choose it."""
    fresh = [cell.fresh for cell in group.cells if cell.fresh is not None]
    if not fresh:
        return ""
    each = ", ".join(_number(returns.mean) for returns in fresh)
    return f"; on fresh seeds {_number(float(np.mean([returns.mean for returns in fresh])))} ({each}; n={fresh[0].n} each)"


def _is_take_cover(env_id: str) -> bool:
    return env_id.startswith("VizdoomTakeCover")


def _score(score: Published | None) -> str:
    return "" if score is None else f"{_number(score[0])} ± {_number(score[1])}"


def _number(value: float) -> str:
    """Whole where it is large, or is whole."""
    return f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None
