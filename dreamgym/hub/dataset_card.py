"""README.md of recorded episodes, made from meta.json."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from dreamgym.formats.codec import decode_at
from dreamgym.formats.strict_json import Place
from dreamgym.hub.card_metadata import dataset_metadata
from dreamgym.hub.card_parts import document, facts, pinned, rights, section, world_facts
from dreamgym.hub.markdown import code, decimal, integer, known, number, part, plain, plural, table, words
from dreamgym.structs import Spec

__all__ = ["dataset_card"]

_BAR = 20  # characters of the longest bar
_MOST = 32  # policies, seeds and actions that are listed
_SHARE = 0.9  # of the steps from which on one behaviour is said to be nearly all there is


def dataset_card(meta: dict[str, Any], *, repo_id: str, license: str, revision: str | None = None) -> str:
    """README.md of a dataset. meta: contents of its meta.json; what its statistics and source lack is left out.

    revision: a tag or commit to show in the example. Raises ValueError without a license, InvalidModelError if meta has no readable spec,
    MissingDependencyError without huggingface_hub.
    """
    spec: Spec = decode_at(Spec, part(meta).get("spec"), Place("meta.json").key("spec"))
    metadata = dataset_metadata(spec.env_id, number(meta, "steps"), name=repo_id.rpartition("/")[2], license=license)
    statistics = part(meta, "statistics")
    lines = [f"# {plain(repo_id)}", "", f"Episodes of {code(spec.env_id)}, as dreamgym's world models learn from them.", ""]
    lines += section("What it holds", facts([*world_facts(spec), *_extent(meta)]))
    lines += section("Use", _use(repo_id, revision))
    lines += section("Who acted", _policies(meta, statistics))
    lines += section("Episodes", _episodes(statistics))
    lines += section("Rewards", _histogram("reward from", part(statistics, "reward", "histogram")))
    lines += section("Actions", _actions(statistics))
    lines += section("Known biases", [f"- {sentence}" for sentence in _biases(meta, statistics)])
    lines += section("Licence", rights("Data and card", license, spec.env_id, None))
    return document(metadata, lines)


def _extent(meta: dict[str, Any]) -> list[tuple[str, str | None]]:
    shards = meta.get("shards")
    listed = shards if isinstance(shards, list) else []
    size = sum(number(shard, "size") or 0 for shard in listed)
    source = part(meta, "source")
    tools = [f"{name} {words(source, name)}" for name in ("dreamgym", "numpy", "gymnasium") if words(source, name)]
    others = [
        f"{name} {value}"
        for name, value in source.items()
        if isinstance(value, (str, int, float)) and name not in ("dreamgym", "numpy", "gymnasium")
    ]
    return [
        ("episodes", integer(number(meta, "episodes"))),
        ("steps", integer(number(meta, "steps"))),
        ("files", f"{plural(len(listed), 'archive')} of whole episodes, {decimal(size / 1e6, 3)} MB" if listed else None),
        ("seeds", _seeds(meta.get("seeds"))),
        ("source", ", ".join(map(code, others[:_MOST])) or None),
        ("made with", ", ".join(map(code, tools)) or None),
    ]


def _seeds(listed: Any) -> str | None:
    seeds = [seed for seed in (listed if isinstance(listed, list) else []) if type(seed) is int]
    if not seeds:
        return None
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds[:_MOST])) + (f" and {len(seeds) - _MOST:,} more" if len(seeds) > _MOST else "")


def _use(repo_id: str, revision: str | None) -> list[str]:
    told = pinned(revision)
    return [
        "```python",
        "from dreamgym.data import Replay",
        "",
        f"replay = Replay.from_hub({json.dumps(repo_id)}, revision={json.dumps(revision or 'main')})",
        "```",
        *(["", told] if told else []),
    ]


def _policies(meta: dict[str, Any], statistics: dict[str, Any]) -> list[str]:
    counted, named = part(statistics, "policies"), meta.get("policies")
    names = [name for name in (named if isinstance(named, list) else [*counted]) if isinstance(name, str)]
    rows = [(code(name), *(integer(number(counted, name, key)) for key in ("episodes", "steps"))) for name in names[:_MOST]]
    rest = [f"and {plural(len(names) - _MOST, 'policy').replace('policys', 'policies')} more"] if len(names) > _MOST else []
    return [*table(("policy", "episodes", "steps"), rows), *rest]


def _episodes(statistics: dict[str, Any]) -> list[str]:
    keys = ("mean", "std", "min", "median", "max")
    rows = [(label, *(decimal(number(statistics, name, key)) for key in keys)) for label, name in _SUMMARIES if part(statistics, name)]
    ended, cut = number(statistics, "terminated"), number(statistics, "truncated")
    told = [] if ended is None or cut is None else ["", f"{plural(ended, 'episode')} terminated, {cut:,.0f} cut off."]
    return [*table(("", *keys), known(rows)), *told]


_SUMMARIES = (("length in agent steps", "episode_length"), ("return", "episode_return"), ("reward of a step", "reward"))


def _histogram(label: str, found: dict[str, Any]) -> list[str]:
    """A row per bin of {"edges": [n+1], "counts": [n]}; nothing where it is no such thing."""
    edges, counts = _numbers(found.get("edges")), _numbers(found.get("counts"))
    if not counts or len(edges) != len(counts) + 1:
        return []
    spans = [f"{decimal(low)} to {decimal(high)}" for low, high in pairwise(edges)]
    return table((label, "steps", ""), [(span, integer(count), _bar(count, counts)) for span, count in zip(spans, counts)])


def _actions(statistics: dict[str, Any]) -> list[str]:
    listed, lines = statistics.get("actions"), list[str]()
    for index, found in enumerate(listed[:_MOST] if isinstance(listed, list) else []):
        first, counts = number(found, "first"), _numbers(part(found).get("counts"))
        if first is None:
            drawn = _histogram(f"a{index} from", part(found))
        else:
            rows = [(f"{first + place:,.0f}", integer(count), _bar(count, counts)) for place, count in enumerate(counts)]
            drawn = table((f"a{index}, class", "steps", ""), rows)
        lines += [*drawn, ""] if drawn else []
    return lines


def _numbers(listed: Any) -> list[float]:
    values = listed if isinstance(listed, list) else []
    return values if all(number(value) is not None for value in values) else []


def _bar(count: float, counts: list[float]) -> str:
    return "█" * round(_BAR * count / max(counts)) if max(counts) > 0 and count >= 0 else ""


def _biases(meta: dict[str, Any], statistics: dict[str, Any]) -> list[str]:
    """What somebody who learns from this should know, as far as the numbers tell."""
    told = []
    counted, steps = part(statistics, "policies"), number(meta, "steps")
    for name in counted:
        share = number(counted, name, "steps")
        if share is not None and steps and share >= _SHARE * steps:
            told.append(f"{share / steps:.0%} of the steps are of one behaviour, {code(name)}: what others meet is rare here.")
    ended = number(statistics, "terminated")
    if ended == 0:
        told.append("No episode terminates: nothing about ends can be learned from it.")
    unseen = number(statistics, "invalid_observations")
    if unseen:
        told.append(f"Marked invalid: {plural(unseen, 'observation')}. The step happened, what was seen is not known.")
    return told
