"""README.md of what is shared, made from measured files: nobody types a number, and nobody can leave the bad ones out."""

from __future__ import annotations

import json
from typing import Any

import torch

from dreamgym.formats.codec import tag_of
from dreamgym.hub.card_failures import known_failures, unmeasured
from dreamgym.hub.card_fidelity import as_fidelity, error_tables, fixed_policy_table, returns_table
from dreamgym.hub.card_metadata import agent_metadata, is_repo_id, model_metadata
from dreamgym.hub.card_parts import document, facts, observation_unit, pinned, rights, section, world_facts
from dreamgym.hub.config import BundleConfig
from dreamgym.hub.dataset_card import dataset_card
from dreamgym.hub.markdown import code, decimal, integer, number, part, plain, words
from dreamgym.models.world_model import WorldModel
from dreamgym.structs import Spec

__all__ = ["agent_card", "dataset_card", "model_card"]

_REPLAY = "[replay.mp4](replay.mp4): the real world above, what the model makes of it below."


def model_card(
    config: BundleConfig,
    fidelity: dict[str, Any] | None,
    *,
    repo_id: str,
    license: str,
    replay: bool,
    training: dict[str, Any] | None = None,
    bundled: str | None = None,
    revision: str | None = None,
) -> str:
    """README.md of a world model.

    config: the model's config.json. fidelity: contents of fidelity.json, or what `dreamgym evaluate` or `dreamgym fidelity` writes with
    --out; None if nobody measured. replay: whether replay.mp4 lies beside the card. training: contents of training.json. bundled: the
    environment id that dreams this model without a download, such as "dreamgym/Dream-CarRacing-v0". revision: a tag or commit to show in
    the example. What is missing, or of the wrong type, is left out.
    Raises ValueError without a license or for numbers of another environment, MissingDependencyError without huggingface_hub.
    """
    spec = config.spec
    fidelity = as_fidelity(fidelity, spec.env_id)
    metadata = model_metadata(
        spec.env_id, fidelity, name=repo_id.rpartition("/")[2], license=license, datasets=_datasets(config.source, training)
    )
    title = bundled if bundled is not None else repo_id
    lines = [f"# {plain(title)}", "", f"A world model that dreams {code(spec.env_id)}, made with dreamgym.", ""]
    lines += section("What it dreams", _dreams(config))
    lines += [_REPLAY, ""] if replay else []
    lines += section("Use", _model_use(repo_id, bundled, revision))
    lines += _fidelity(fidelity, observation_unit(spec))
    lines += section("Training", _training(config.source, fidelity, training))
    lines += section("Licence and citation", rights("Weights and card", license, spec.env_id, _preset(config.source, training)))
    return document(metadata, lines)


def agent_card(
    agent: dict[str, Any],
    spec: Spec,
    fidelity: dict[str, Any] | None,
    *,
    repo_id: str,
    license: str,
    base_model: str | None,
    base_revision: str | None = None,
    replay: bool = False,
    training: dict[str, Any] | None = None,
    revision: str | None = None,
) -> str:
    """README.md of an agent.

    agent: contents of agent.json. spec: of the model it reads. base_model: the repository (or bundled name) of that model, base_revision
    its commit. Else as `model_card`.
    """
    fidelity = as_fidelity(fidelity, spec.env_id)
    metadata = agent_metadata(spec.env_id, fidelity, name=repo_id.rpartition("/")[2], license=license, base_model=base_model)
    lines = [f"# {plain(repo_id)}", "", f"An agent for {code(spec.env_id)} that sees it through a world model, made with dreamgym.", ""]
    lines += section("What it is", facts(_agent_facts(agent, spec, base_model, base_revision)))
    lines += [_REPLAY, ""] if replay else []
    lines += section("Use", _agent_use(repo_id, base_model, base_revision, revision))
    lines += _fidelity(fidelity, observation_unit(spec), of_agent=True)
    lines += section("Training", _training({}, fidelity, training))
    lines += section("Licence and citation", rights("Weights and card", license, spec.env_id, _preset({}, training)))
    return document(metadata, lines)


# ---- what it dreams -----------------------------------------------------------------------------------------------------


def _dreams(config: BundleConfig) -> list[str]:
    spec, model, defaults = config.spec, config.model, config.model.defaults
    size = sum(fingerprint.size for fingerprint in config.files.values())
    guards = [f"halted above an uncertainty of {defaults.max_uncertainty:g}"] if defaults.max_uncertainty is not None else []
    guards += ["halted outside the range of the data"] if defaults.range_guard else []
    guards += [f"reward less {defaults.uncertainty_penalty:g} × uncertainty"] if defaults.uncertainty_penalty else []
    rows = [
        *world_facts(spec),
        ("model", ", ".join(code(tag_of(type(chosen))) for chosen in (model.encoder, model.core, model.heads))),
        ("parameters", f"{_parameters(config):,}"),
        ("download", f"{size / 1e6:,.1f} MB"),
        ("a dream", f"{_horizon(defaults.horizon)}, from {_STARTS[defaults.starts]}, temperature {defaults.temperature:g}"),
        ("guards", "; ".join(guards) or None),
    ]
    return facts(rows)


_STARTS = {"any": "any state that was lived", "first": "beginnings of real episodes"}


def _horizon(horizon: int | None) -> str:
    return "until it ends" if horizon is None else f"{horizon:,} steps"


def _parameters(config: BundleConfig) -> int:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # shapes only
        return sum(parameter.numel() for parameter in WorldModel(config.spec, config.model).parameters())


# ---- use ----------------------------------------------------------------------------------------------------------------


def _model_use(repo_id: str, bundled: str | None, revision: str | None) -> list[str]:
    made, told = f"gym.make({json.dumps(bundled)})", "It comes with the package; its weights never change."
    if bundled is None:
        told = pinned(revision)
        made = f'gym.make("dreamgym/Dream-v0", model={json.dumps(repo_id)}, revision={json.dumps(revision or "main")})'
    return [
        "```python",
        "import dreamgym",
        "import gymnasium as gym",
        "",
        f"env = {made}",
        "obs, info = env.reset(seed=0)",
        "obs, reward, terminated, truncated, info = env.step(env.action_space.sample())",
        "```",
        *(["", told] if told else []),
    ]


def _agent_use(repo_id: str, base_model: str | None, base_revision: str | None, revision: str | None) -> list[str]:
    if base_model is None:
        return []
    base = "" if base_revision is None else f", revision={json.dumps(base_revision)}"
    told = pinned(revision)
    return [
        "```python",
        "import dreamgym",
        "",
        f"model = dreamgym.WorldModel.from_pretrained({json.dumps(base_model)}{base})",
        f"agent = dreamgym.load_agent({json.dumps(repo_id)}, model, revision={json.dumps(revision or 'main')})",
        "env = dreamgym.make_env(model.spec.env_id, preprocess=model.spec.preprocess)",
        "print(dreamgym.evaluate(dreamgym.BeliefPolicy(agent, model), env, episodes=5))",
        "```",
        *(["", told] if told else []),
    ]


def _agent_facts(agent: dict[str, Any], spec: Spec, base_model: str | None, base_revision: str | None) -> list[tuple[str, str | None]]:
    base = None if base_model is None else code(base_model) + (f" at {code(base_revision)}" if base_revision else "")
    size = number(agent, "feature_size")
    return [
        ("kind", code(words(agent, "kind") or "actor-critic")),
        *world_facts(spec),
        ("world model", base),
        ("reads", None if size is None else f"{integer(size)} features of that model"),
    ]


# ---- fidelity, training, rights -----------------------------------------------------------------------------------------


def _fidelity(fidelity: dict[str, Any], unit: str, *, of_agent: bool = False) -> list[str]:
    title = "Returns" if of_agent else "Fidelity"
    if not fidelity:
        return section(title, ["Nobody has measured it."])
    date = words(fidelity, "date")
    parts = {
        "A policy that learned in the dream": returns_table(fidelity),
        "Blind policies in both worlds": fixed_policy_table(fidelity),
        "Errors of prediction": error_tables(fidelity, unit),
    }
    lines = [f"Measured {plain(date)}.", ""] if date else []
    for name, found in parts.items():
        lines += [f"### {name}", "", *found] if found else []
    failures = [f"- {sentence}" for sentence in known_failures(fidelity)]
    unknown = [f"- {sentence}" for sentence in unmeasured(fidelity, of_agent=of_agent)]
    lines = section(title, lines or ["The file that should hold measurements holds none that can be read."])
    lines += section("Known failures", failures or ["None of the checks made from these numbers fails."])
    return lines + section("Not measured", unknown)


def _training(source: dict[str, Any], fidelity: dict[str, Any], training: dict[str, Any] | None) -> list[str]:
    preset, size = _preset(source, training), words(training, "preset", "size")
    notes, policies = words(training, "preset", "notes"), words(fidelity, "data", "policies")
    steps, seed = number(fidelity, "data", "env_steps"), number(training, "seed")
    command, origin = words(training, "command") or words(source, "command"), words(source, "derived_from")
    versions = {**part(source), **part(fidelity, "versions")}
    tools = [f"{name} {words(versions, name)}" for name in ("dreamgym", "torch", "gymnasium", "stable-baselines3") if words(versions, name)]
    rows = [
        ("real steps", integer(steps)),
        ("acted by", plain(policies) if policies else None),
        ("dataset", ", ".join(map(code, _datasets(source, training))) or None),
        ("preset", None if preset is None else code(preset) + (f", size {code(size)}" if size else "")),
        ("its notes", plain(notes) if notes else None),
        ("seed", decimal(number(source, "seed") if seed is None else seed, 20)),
        ("command", code(command) if command else None),
        ("derived from", code(origin) if origin else None),
        ("made with", ", ".join(map(code, tools)) or None),
    ]
    lines = facts(rows)
    if training:
        lines += ["", "Every setting is in `training.json`."]
    return lines


def _preset(source: dict[str, Any], training: dict[str, Any] | None) -> str | None:
    return words(training, "preset", "name") or words(source, "preset")


def _datasets(source: dict[str, Any], training: dict[str, Any] | None) -> list[str]:
    """Dataset repositories the model learned from, by name only."""
    named = words(training, "dataset") or words(source, "dataset") or ""
    name = named.partition("@")[0]
    return [name] if is_repo_id(name) else []
