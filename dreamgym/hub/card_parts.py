"""What every card has: a document of YAML and sections, and the facts of the world that was dreamt or recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from gymnasium import spaces

from dreamgym.hub.citations import citation, world_license
from dreamgym.hub.markdown import code, plain
from dreamgym.structs import Preprocess, Spec

__all__ = ["document", "facts", "observation_unit", "pinned", "rights", "section", "world_facts"]


def document(metadata: str, lines: Sequence[str]) -> str:
    """A README.md: YAML between its fences, then the lines."""
    return f"---\n{metadata}\n---\n\n" + "\n".join(lines).rstrip() + "\n"


def section(title: str, lines: Sequence[str]) -> list[str]:
    """A heading and its lines; nothing where there are none."""
    kept = list(lines)
    while kept and not kept[-1]:
        kept.pop()
    return [f"## {title}", "", *kept, ""] if kept else []


def facts(rows: Sequence[tuple[str, str | None]]) -> list[str]:
    """A list of what is known: names are ours, values are Markdown; None is left out."""
    return [f"- **{name}**: {value}" for name, value in rows if value is not None]


def pinned(revision: str | None) -> str:
    """Why an example says "main", if it does."""
    return (
        ""
        if revision is not None
        else 'What `main` holds may change: to pin it, give the commit that "Files and versions" shows, or a tag.'
    )


def rights(what: str, license: str, env_id: str, preset: str | None) -> list[str]:
    """Licences, of what is shared and of the world behind it, and the paper whose preset made it."""
    lines = [f"{what}: {plain(license)}. The real environment has its own licence. {world_license(env_id)}"]
    paper = citation(preset)
    if paper is not None and preset is not None:
        lines += ["", f"The preset {code(preset)} follows this paper:", "", "```bibtex", paper, "```"]
    return lines


def world_facts(spec: Spec) -> list[tuple[str, str | None]]:
    """The environment as it is seen after preprocessing."""
    changed = [
        f"{entry.name} {getattr(spec.preprocess, entry.name)}"
        for entry in fields(Preprocess)
        if getattr(spec.preprocess, entry.name) != entry.default
    ]
    return [
        ("environment", code(spec.env_id)),
        ("observation", _space(spec.observation_space)),
        ("action", _space(spec.action_space)),
        ("episode", f"at most {spec.max_episode_steps:,} agent steps, {spec.fps:g} a second"),
        ("preprocessing", ", ".join(map(code, changed)) or None),
    ]


def observation_unit(spec: Spec) -> str:
    """What an observation error of 1 means; as `open_loop_errors` says."""
    told = []
    if spec.image_names:
        told.append("brightness from 0 to 1")
    kinds = [part for name, part in spec.observation_parts.items() if name not in spec.image_names]
    if any(isinstance(part, spaces.Box) for part in kinds):
        told.append("standard deviations of the rows judged on")
    if any(isinstance(part, spaces.Discrete) for part in kinds):
        told.append("wrong classes")
    return " and ".join(told)


def _space(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return "; ".join(f"{code(name)}: {_space(part)}" for name, part in space.items())
    if isinstance(space, spaces.Discrete):
        return f"one of {space.n:,} classes"
    if isinstance(space, spaces.MultiDiscrete):
        return f"choices among {', '.join(map(str, space.nvec.flatten()[:16].tolist()))} classes"
    if not isinstance(space, spaces.Box):
        return code(str(space))
    shape = " × ".join(map(str, space.shape))
    kind = "image" if str(space.dtype) == "uint8" and len(space.shape) == 3 else "number" if shape == "1" else "numbers"
    return f"{shape} {kind} from {space.low.min():g} to {space.high.max():g}, {space.dtype}"
