"""The tables of a card, made from what `dreamgym.evaluation` measured (fidelity.json); what was not measured has no table.

Read beside the keys of `measure`: `controls` as `dreamgym evaluate --controls --out` writes them, in `policy` or beside it;
`end_reliability` as EndReliability.to_json().
"""

from __future__ import annotations

import math
from typing import Any

from dreamgym.formats.strict_json import quote
from dreamgym.hub.markdown import code, decimal, integer, known, number, part, plain, plural, table, words

__all__ = [
    "as_fidelity",
    "combined_error",
    "controls_of",
    "error_rows",
    "error_tables",
    "fixed_policy_table",
    "returns_table",
    "standard_error",
]


def as_fidelity(measured: Any, env_id: str) -> dict[str, Any]:
    """Any of the files that evaluation writes, as the part of a fidelity.json that it is: `dreamgym evaluate --out` has the policy's
    returns, `dreamgym fidelity --out` those of the blind policies. Raises ValueError if it was measured in another environment.
    """
    found = part(measured)
    if "awake" in found:
        found = {"policy": found}
    elif "rank_correlation" in found and "policies" in found:
        found = {"fixed_policies": found}
    for world in (words(found, "env_id"), words(found, "policy", "env_id"), words(found, "fixed_policies", "env_id")):
        if world is not None and world != env_id:
            raise ValueError(
                f"the numbers were measured in {quote(world)}, but this is about {quote(env_id)}: they belong to another model."
            )
    return found


def controls_of(fidelity: Any) -> dict[str, Any]:
    """What controls there are, wherever they stand."""
    return part(fidelity, "controls") or part(fidelity, "policy", "controls")


def standard_error(returns: Any) -> float | None:
    """Standard error of the mean of a Returns.to_json(); None where it is undefined."""
    return number(returns, "standard_error")


# ---- errors of prediction -----------------------------------------------------------------------------------------------


def error_rows(fidelity: Any) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What was measured how many steps ahead: words for that, the errors with mean noise, those with drawn noise."""
    mean, drawn = part(fidelity, "open_loop", "mean_noise"), part(fidelity, "open_loop", "sampled_noise")
    horizons = sorted({name for name in (*mean, *drawn) if name.isascii() and name.isdecimal() and len(name) < 10}, key=int)
    rows = [(name, part(mean, name), part(drawn, name)) for name in horizons]
    return [row for row in [("1, all seen before", part(fidelity, "one_step"), part(None)), *rows] if row[1] or row[2]]


def error_tables(fidelity: Any, unit: str) -> list[str]:
    """Errors one step ahead and in open loop, beside guesses that need no model. unit says what an observation error of 1 is."""
    rows = error_rows(fidelity)
    if not rows:
        return []
    context = integer(number(fidelity, "open_loop", "context"))
    held_out = part(fidelity, "data", "held_out")
    count, length = number(held_out, "sequences"), number(held_out, "length")
    where = words(fidelity, "notes", "errors")
    rows_of = "" if count is None or length is None else f"{plural(count, 'sequence')} of {plural(length, 'row')}"
    facts = [f"Judged on {rows_of}." if rows_of else "", f"In the evaluator's words: {plain(where)}." if where else ""]
    facts.append("" if context is None else f"In open loop {context} rows are seen, then none, while the real actions go on.")
    lines = [" ".join(filter(None, [*facts, "Noise is the model's mean, or drawn as in a dream."])), ""]
    lines += _titled(f"Observations, root mean square error in {unit}:", _observation_table(rows))
    lines += _titled("The same by part of the observation, with mean noise:", _parts_table(rows))
    lines += _titled("Rewards, mean absolute error:", _reward_table(rows))
    lines += _titled("Ends, called at a chance of one half:", _end_table(rows))
    return [*lines, *_reliability(part(fidelity, "end_reliability"))]


def _titled(title: str, lines: list[str]) -> list[str]:
    return [title, "", *lines, ""] if lines else []


def _observation_table(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
    head = ("steps ahead", "model", "model, noise drawn", "guess the mean", "repeat the last seen", "n")
    return table(
        head,
        [
            (
                label,
                decimal(number(mean, "obs_rmse")),
                decimal(number(drawn, "obs_rmse")),
                decimal(_either(mean, drawn, "obs_rmse_of_mean")),
                decimal(_either(mean, drawn, "obs_rmse_of_repeat")),
                integer(_either(mean, drawn, "n")),
            )
            for label, mean, drawn in rows
            if _either(mean, drawn, "obs_rmse") is not None
        ],
    )


def _parts_table(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
    head = ("steps ahead", "part", "model", "guess the mean", "repeat the last seen")
    return table(
        head,
        [
            (label, code(name), *(decimal(number(errors, key)) for key in ("obs_rmse", "obs_rmse_of_mean", "obs_rmse_of_repeat")))
            for label, mean, drawn in rows
            for name, errors in part(mean, "obs_parts").items()
        ],
    )


def _reward_table(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
    head = ("steps ahead", "model", "model, noise drawn", "guess the mean", "correlation", "correlation, noise drawn", "n")
    return table(
        head,
        [
            (
                label,
                decimal(number(mean, "reward_mae")),
                decimal(number(drawn, "reward_mae")),
                decimal(_either(mean, drawn, "reward_mae_of_mean")),
                decimal(number(mean, "reward_correlation"), 2),
                decimal(number(drawn, "reward_correlation"), 2),
                integer(_either(mean, drawn, "n")),
            )
            for label, mean, drawn in rows
            if _either(mean, drawn, "reward_mae") is not None
        ],
    )


def _end_table(rows: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
    head = ("steps ahead", "ends", "precision", "recall", "precision, noise drawn", "recall, noise drawn", "n")
    return table(
        head,
        [
            (
                label,
                integer(_either(mean, drawn, "ends")),
                *(decimal(number(errors, key), 3) for errors in (mean, drawn) for key in ("end_precision", "end_recall")),
                integer(_either(mean, drawn, "n")),
            )
            for label, mean, drawn in rows
            if _either(mean, drawn, "ends")
        ],
    )


def _either(mean: dict[str, Any], drawn: dict[str, Any], key: str) -> float | None:
    """What is the same for both kinds of noise, from the one that has it."""
    found = number(mean, key)
    return number(drawn, key) if found is None else found


def _reliability(found: dict[str, Any]) -> list[str]:
    facts = [
        ("log loss per row", decimal(number(found, "log_loss"))),
        ("log loss of predicting the share of ends", decimal(number(found, "log_loss_of_base_rate"))),
        ("predicted over real number of ends", decimal(number(found, "expected_ends"), 3)),
        ("share of the ends found", decimal(number(found, "recall"), 3)),
        ("share of harmless rows ended", decimal(number(found, "false_alarms"), 3)),
        ("rows judged", integer(number(found, "n"))),
        ("real ends", integer(number(found, "ends"))),
    ]
    return _titled("Chances of an end, one step ahead:", table(("quantity", "value"), known(facts)))


# ---- policies in both worlds --------------------------------------------------------------------------------------------


def fixed_policy_table(fidelity: Any) -> list[str]:
    """Blind policies in the dream and in reality, and whether they rank alike."""
    fixed = part(fidelity, "fixed_policies")
    rows = []
    for name in part(fixed, "policies"):
        real, dream = part(fixed, "policies", name, "real"), part(fixed, "policies", name, "dream")
        lengths = (decimal(number(real, "mean_length")), decimal(number(dream, "mean_length")))
        rows.append((code(name), _mean(real), _mean(dream), *lengths, integer(number(real, "n"))))
    lines = table(("blind policy", "real return", "dream return", "real steps", "dream steps", "n"), known(rows))
    if not lines:
        return []
    agreements = [
        ("rank correlation (Spearman)", number(fixed, "rank_correlation")),
        ("linear correlation", number(fixed, "linear_correlation")),
        ("r.m.s. log ratio of lengths", number(fixed, "log_length_ratio")),
        ("r.m.s. log ratio of returns", number(fixed, "log_return_ratio")),
    ]
    told = [f"{name} {decimal(value, 3)}" for name, value in agreements if value is not None]
    settings = [(name, decimal(number(fixed, name))) for name in ("temperature", "dropout", "end_probability")]
    changed = [f"{name} {value}" for name, value in settings if value is not None]
    dreamt = f" Dreamt with {', '.join(changed)}." if changed else ""
    return [
        f"Return is mean ± standard deviation; n episodes in each world.{dreamt}",
        "",
        *lines,
        "",
        *([f"Of the means: {', '.join(told)}.", ""] if told else []),
    ]


def returns_table(fidelity: Any) -> list[str]:
    """The agent that learned in the dream: awake, in the dream, and what earns as much without looking."""
    policy, controls = part(fidelity, "policy"), controls_of(fidelity)
    named = [("**learned in the dream, judged awake**", part(policy, "awake")), ("the same, in the dream", part(policy, "dream"))]
    named += [(f"{code(name)}, awake", returns) for name, returns in part(policy, "baselines").items()]
    best = words(controls, "baselines", "best")
    for name, returns in part(controls, "baselines", "judged").items():
        named.append((f"blind {code(name)}{', the best that a search found' if name == best else ''}, awake", returns))
    listed = policy.get("thresholds")
    bounds = [bound for bound in (listed if isinstance(listed, list) else []) if number(bound) is not None]
    rows = [
        (
            label,
            _mean(returns),
            decimal(number(returns, "median")),
            decimal(standard_error(returns), 3),
            decimal(number(returns, "mean_length")),
            *(_share(returns, bound) for bound in bounds),
            integer(number(returns, "n")),
        )
        for label, returns in named
        if number(returns, "mean") is not None
    ]
    head = ("policy", "return", "median", "s.e.", "steps", *(f"≥ {bound:g}" for bound in bounds), "n")
    who = words(fidelity, "notes", "policy")
    lines = table(head, rows)
    return [*([f"The agent: {plain(who)}.", ""] if who and lines else []), *lines, *([""] if lines else []), *_controls(controls)]


def _controls(controls: dict[str, Any]) -> list[str]:
    """Single sentences of the comparison with the best blind policy, the yoked twin, and the lengths of random episodes."""
    told = []
    difference = number(controls, "against", "difference")
    if difference is not None:
        spread = f" ± {decimal(number(controls, 'against', 'standard_error'), 3) or 'unknown'} (s.e.)"
        told.append(f"- Against the best blind policy, same seeds: {decimal(difference)}{spread}{_p(controls, 'against', 'p_value')}.")
    pairs = number(controls, "yoked", "pairs")
    if pairs is not None:
        seen, unseen = (integer(number(controls, "yoked", key)) or "unknown" for key in ("seen_first", "unseen_first"))
        ratio = decimal(number(controls, "yoked", "hazard_ratio"), 3)
        told.append(
            f"- Yoked twin, the same actions unseen, {plural(pairs, 'pair')}: the twin ended first {unseen} times, the agent {seen} times"
            f"{_p(controls, 'yoked', 'p_value')}{f', hazard ratio {ratio}' if ratio else ''}."
        )
    ratio = decimal(number(controls, "lengths", "ratio"), 3)
    if ratio is not None:
        error = decimal(number(controls, "lengths", "ratio_error"), 2)
        told.append(f"- Random episodes, dreamt over real length: {ratio}{f' ± {error} (s.e.)' if error else ''}.")
    return ["Controls:", "", *told, ""] if told else []


def _p(controls: dict[str, Any], *keys: str) -> str:
    value = decimal(number(controls, *keys), 2)
    return "" if value is None else f", p = {value}"


def _mean(returns: dict[str, Any]) -> str | None:
    mean, std = number(returns, "mean"), number(returns, "std")
    return decimal(mean) if mean is None or std is None else f"{decimal(mean)} ± {decimal(std, 3)}"


def _share(returns: dict[str, Any], bound: float) -> str | None:
    listed = returns.get("returns")
    episodes = [episode for episode in (listed if isinstance(listed, list) else []) if number(episode) is not None]
    return f"{sum(episode >= bound for episode in episodes) / len(episodes):.0%}" if episodes else None


def combined_error(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Standard error of the difference of two means; 0 where neither says any."""
    return math.hypot(standard_error(first) or 0.0, standard_error(second) or 0.0)
