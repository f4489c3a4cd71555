"""What a model is known to do wrong, and what nobody has looked at: both follow from the numbers, so that no card can forget them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from dreamgym.hub.card_fidelity import combined_error, controls_of, error_rows
from dreamgym.hub.markdown import code, decimal, integer, number, part, plural, words

__all__ = ["known_failures", "unmeasured"]

LOW_RANK = 0.5  # rank correlation below which dreamt returns are no guide
LOW_ENDS = 0.8  # precision or recall of ends
LONG_LIVES = 0.2  # r.m.s. log ratio of lengths: wrong by a fifth
LENGTH_SHARE = 0.1  # by how much random episodes may last longer or shorter, as in docs/evaluation.md
CHANCE = 0.05  # p above which nothing is shown
SPREAD = 2.0  # standard errors
MATERIAL = 0.1  # share of what the agent gained over random actions from which on a dream's promise is wrong by much
ROUNDING = 1e-6

_GUESSES = (
    ("obs_rmse", "obs_rmse_of_mean", "observations", "guessing the mean"),
    ("obs_rmse", "obs_rmse_of_repeat", "observations", "repeating the last seen"),
    ("reward_mae", "reward_mae_of_mean", "rewards", "guessing the mean"),
)


def known_failures(fidelity: Any) -> list[str]:
    """Sentences, worst first; empty if no check fails. Nothing is said of what was not measured: see `unmeasured`."""
    return [*_ranking(fidelity), *_promises(fidelity), *_agent(fidelity), *_lives(fidelity), *_ends(fidelity), *_drift(fidelity)]


def unmeasured(fidelity: Any, *, of_agent: bool = False) -> list[str]:
    """Sentences about what the file has no numbers of; of an agent's, what its score stands beside."""
    missing = [] if of_agent else _unmeasured_dream(fidelity)
    if number(fidelity, "policy", "awake", "mean") is None:
        missing.append("No policy that learned in the dream was judged awake.")
    elif not controls_of(fidelity):
        missing.append("No controls were run (the best blind policy, an unseen twin), so no score here shows that an agent looks.")
    return missing


def _unmeasured_dream(fidelity: Any) -> list[str]:
    rows, missing = error_rows(fidelity), []
    if not rows:
        missing.append("Errors of prediction were not measured.")
    elif not any(number(errors, "ends") for _, mean, drawn in rows for errors in (mean, drawn)):
        missing.append("No row that was judged ends an episode, so whether ends are predicted is unknown.")
    if not part(fidelity, "fixed_policies", "policies"):
        missing.append("Blind policies were not compared in both worlds.")
    return missing


def _ranking(fidelity: Any) -> Iterator[str]:
    fixed = part(fidelity, "fixed_policies")
    rank = number(fixed, "rank_correlation")
    means = {
        name: (real, dream)
        for name in part(fixed, "policies")
        for real, dream in [(number(fixed, "policies", name, "real", "mean"), number(fixed, "policies", name, "dream", "mean"))]
        if real is not None and dream is not None
    }
    if rank is None or rank >= LOW_RANK or not means:
        return
    liked, good = max(means, key=lambda name: means[name][1]), max(means, key=lambda name: means[name][0])
    told = f"{code(liked)}, which it likes best ({decimal(means[liked][1])}), earns {decimal(means[liked][0])} in reality"
    better = "" if liked == good else f", where {code(good)} earns {decimal(means[good][0])}"
    yield f"It does not rank blind behaviours as the world does (rank correlation {decimal(rank, 2)}): {told}{better}."


def _promises(fidelity: Any) -> Iterator[str]:
    """Where the dream pays its own agent clearly and by much otherwise than the world does."""
    dream, awake = part(fidelity, "policy", "dream"), part(fidelity, "policy", "awake")
    dreamt, lived = number(dream, "mean"), number(awake, "mean")
    if dreamt is None or lived is None:
        return
    blind = [number(returns, "mean") for returns in part(fidelity, "policy", "baselines").values() if isinstance(returns, dict)]
    gained = abs(lived - max((mean for mean in blind if mean is not None), default=0.0))
    if abs(dreamt - lived) <= max(SPREAD * combined_error(dream, awake), MATERIAL * gained):
        return
    more = "more than the world gives" if dreamt > lived else "less than the world gives"
    yield f"It pays its own agent {more}: {decimal(dreamt)} dreamt, {decimal(lived)} awake. Judge policies awake."


def _agent(fidelity: Any) -> Iterator[str]:
    """Where the agent is not shown to have learned, or to look."""
    awake, controls = part(fidelity, "policy", "awake"), controls_of(fidelity)
    lived = number(awake, "mean")
    for name, blind in part(fidelity, "policy", "baselines").items():
        mean = number(blind, "mean") if isinstance(blind, dict) else None
        if lived is not None and mean is not None and lived - mean <= SPREAD * combined_error(awake, blind):
            yield f"The agent that learned in it does not clearly beat {code(name)} awake: {decimal(lived)} against {decimal(mean)}."
    difference, p = number(controls, "against", "difference"), number(controls, "against", "p_value")
    if difference is not None and (difference <= 0 or (p is not None and p >= CHANCE)):
        best = words(controls, "baselines", "best")
        rival = f"the best blind policy, {code(best)}," if best else "the best blind policy"
        yield f"The agent does not clearly beat {rival} on the same seeds: {decimal(difference)} in return{_p(p)}."
    tests = [number(controls, "yoked", key) for key in ("p_value", "difference_p_value")]
    shown = [test for test in tests if test is not None]
    pairs = number(controls, "yoked", "pairs")
    if pairs is not None and shown and min(shown) >= CHANCE:
        yield f"{plural(pairs, 'pair')} with an unseen twin show no use of seeing{_p(min(shown))}."
    ratio = number(controls, "lengths", "ratio")
    if ratio is not None and abs(ratio - 1.0) > LENGTH_SHARE:
        yield f"Random episodes last {decimal(ratio, 3)} times as long in the dream as in reality."


def _p(value: float | None) -> str:
    return "" if value is None else f" (p = {decimal(value, 2)})"


def _lives(fidelity: Any) -> Iterator[str]:
    fixed = part(fidelity, "fixed_policies")
    ratio = number(fixed, "log_length_ratio")
    if ratio is None or ratio <= LONG_LIVES:
        return
    pairs = {
        name: (real, dream)
        for name in part(fixed, "policies")
        for real, dream in [
            (number(fixed, "policies", name, "real", "mean_length"), number(fixed, "policies", name, "dream", "mean_length"))
        ]
        if real and dream and min(real, dream) > 0
    }
    told = f"Episodes that end early last wrong by a factor of {decimal(math.exp(min(ratio, 99.0)), 2)} (r.m.s.)"
    if pairs:
        worst = max(pairs, key=lambda name: abs(math.log(pairs[name][1] / pairs[name][0])))
        told += f"; {code(worst)} lives {decimal(pairs[worst][0], 3)} steps in reality and {decimal(pairs[worst][1], 3)} in the dream"
    yield told + "."


def _ends(fidelity: Any) -> Iterator[str]:
    """One step ahead; where a horizon in open loop has a handful of ends its share says little."""
    step = part(fidelity, "one_step")
    ends = number(step, "ends")
    for key, fact in (("end_recall", "of the real ends are seen coming"), ("end_precision", "of the ends that it calls are real")):
        share = number(step, key)
        if ends and share is not None and share < LOW_ENDS:
            yield f"One step ahead only {share:.0%} {fact} ({integer(ends)} real ends)."
    found = part(fidelity, "end_reliability")
    loss, base = number(found, "log_loss"), number(found, "log_loss_of_base_rate")
    if loss is not None and base is not None and loss > base:
        yield f"Its chances of an end are worse than none: log loss {decimal(loss)}, of predicting the share of ends {decimal(base)}."


def _drift(fidelity: Any) -> Iterator[str]:
    """The first horizon at which a guess that needs no model does better, with mean or with drawn noise."""
    for key, guess, what, name in _GUESSES:
        seen = part(fidelity, "one_step")
        if _worse(seen, key, guess):
            yield f"One step ahead, with all seen before, {what} are worse than by {name}: {_pair(seen, key, guess)}."
        for label, mean, drawn in error_rows(fidelity):
            worse = mean if _worse(mean, key, guess) else drawn
            if label.isdecimal() and _worse(worse, key, guess):
                noise = "mean noise" if worse is mean else "drawn noise"
                yield f"After {plural(int(label), 'dreamt step')} {what} are worse than by {name}: {_pair(worse, key, guess)} ({noise})."
                break


def _worse(errors: dict[str, Any], key: str, guess: str) -> bool:
    mine, its = number(errors, key), number(errors, guess)
    return mine is not None and its is not None and mine > its + ROUNDING


def _pair(errors: dict[str, Any], key: str, guess: str) -> str:
    return f"{decimal(number(errors, key))} against {decimal(number(errors, guess))}"
