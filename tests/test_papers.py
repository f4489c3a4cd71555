"""The pages of docs/papers quote the code as it is: excerpts stand in the files, names exist, sizes are those of the presets.

python -m tests.test_papers    # writes the tables of sizes anew
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamgym.agents.actor_critic import ActorCritic, ActorCriticConfig
from dreamgym.agents.linear import LinearController
from dreamgym.envs import default_preprocess
from dreamgym.models.latents import GaussianLatent
from dreamgym.models.rssm import BlockGRUConfig, LayerNormGRUConfig
from dreamgym.models.world_model import WorldModel
from dreamgym.nn.convolutions import ConvConfig
from dreamgym.nn.networks import MLPConfig
from dreamgym.structs import Preprocess, Spec
from dreamgym.training.online_config import OnlinePreset
from dreamgym.training.online_presets import ONLINE_PRESETS, dreamer_v3, online_preset
from dreamgym.training.world_models_config import BehaviourTraining
from dreamgym.training.world_models_presets import WORLD_MODELS_PRESETS, world_models_preprocess, world_models_preset
from tests.models.test_parameter_counts_heads import SIZES, TOTALS

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "papers"
PAGES = {
    "planet": "planet.md",
    "dreamer-v1": "dreamer.md",
    "dreamer-v2": "dreamer-v2.md",
    "dreamer-v3": "dreamer-v3.md",
    "world-models": "world-models.md",
}
EXCERPT = re.compile(r"^```py source=(?P<path>\S+)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`(?P<path>[\w/]+\.py):(?P<name>[\w.]+)`")
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]+)")


def texts() -> list[tuple[str, str]]:
    return [(path.name, path.read_text()) for path in sorted(FOLDER.glob("*.md"))]


# ---- what pages say of the code -----------------------------------------------------------------------------------------


def stands_in(code: str, source: str) -> bool:
    """Whether the lines of an excerpt follow one another in a file, all of them indented alike."""
    return any(f"\n{textwrap.indent(code, ' ' * indent)}" in f"\n{source}" for indent in range(0, 24, 4))


@cache
def names_in(path: str) -> frozenset[str]:
    """Functions, classes, methods and constants of a file, dotted."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(prefix + node.name)
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    visit(ast.parse((ROOT / path).read_text()).body, "")
    return frozenset(found)


EXCERPTS = [(page, match["path"], match["code"]) for page, text in texts() for match in EXCERPT.finditer(text)]
NAMES = sorted({(page, match["path"], match["name"]) for page, text in texts() for match in NAMED.finditer(text)})


@pytest.mark.parametrize(("page", "path", "code"), EXCERPTS, ids=lambda value: value if value.endswith(("md", "py")) else "")
def test_excerpts_stand_in_the_file_they_name(page, path, code):
    assert stands_in(code, (ROOT / path).read_text()), f"{page} quotes lines that {path} does not have"


@pytest.mark.parametrize(("page", "path", "name"), NAMES)
def test_named_functions_exist(page, path, name):
    assert name in names_in(path), f"{page} names {name}, which {path} does not have"


def test_a_changed_line_is_noticed():
    source = "def f(x):\n    y = x + 1\n    return y\n"
    assert stands_in("y = x + 1\nreturn y\n", source) and not stands_in("y = x + 2\nreturn y\n", source)
    assert not stands_in("= x + 1\n", source)


def test_every_preset_of_a_paper_has_a_page_with_code_and_a_place_for_its_results():
    assert PAGES.keys() == ONLINE_PRESETS.keys() | {WORLD_MODELS_PRESETS[0]}
    for preset, page in PAGES.items():
        text = (FOLDER / page).read_text()
        assert len(EXCERPT.findall(text)) >= 3 and len(NAMED.findall(text)) >= 10
        assert len(re.findall(f"<!-- results:{preset} -->\n.+?<!-- /results -->", text, re.DOTALL)) == 1


def test_the_index_leads_to_every_page():
    links = set(LINK.findall((FOLDER / "README.md").read_text()))
    assert links >= set(PAGES.values())


@pytest.mark.parametrize(("page", "text"), texts(), ids=lambda value: value if value.endswith(".md") else "")
def test_links_lead_somewhere(page, text):
    for path in LINK.findall(text):
        assert (FOLDER / path).exists(), path


# ---- sizes --------------------------------------------------------------------------------------------------------------

IMAGE, GREY, VECTOR = (spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Box(0, 255, (64, 64, 1), np.uint8), spaces.Box(-1, 1, (24,)))


def suite(obs: spaces.Space, actions: int = 6, task: str = "walker-walk") -> Callable[[int], Spec]:
    """A DeepMind Control task at an action repeat."""
    box = spaces.Box(-1.0, 1.0, (actions,))
    return lambda repeat: Spec(f"dm_control/{task}-v0", obs, box, 1000 // repeat, preprocess=Preprocess(action_repeat=repeat))


def atari(repeat: int) -> Spec:
    return Spec("ALE/Pong-v5", GREY, spaces.Discrete(18), 108_000 // repeat, preprocess=Preprocess(action_repeat=repeat))


def cartpole(repeat: int) -> Spec:
    return Spec("CartPole-v1", spaces.Box(-1, 1, (4,)), spaces.Discrete(2), 500 // repeat)


def preset_for(name: str, size: str, world: Callable[[int], Spec], repeat: int) -> tuple[OnlinePreset, Spec]:
    """As `fit` finds it: a preset that asks for an action repeat is made for the world at that repeat."""
    wanted = online_preset(name, world(repeat), size).action_repeat or repeat
    return online_preset(name, world(wanted), size), world(wanted)


def counts(preset: OnlinePreset, spec: Spec) -> list[int]:
    """Parameters of the model and, unless it plans, of actor and critic; from shapes alone."""
    with torch.device("meta"):
        model = WorldModel(spec, preset.model)
        modules: list[torch.nn.Module] = [model]
        if isinstance(preset.agent, ActorCriticConfig):
            agent = ActorCritic(spec, model.core.feature_size, preset.agent)
            modules += [agent.actor, agent.critic]
    return [sum(parameter.numel() for parameter in module.parameters()) for module in modules]


def settings(preset: OnlinePreset, spec: Spec) -> dict[str, str]:
    """What a table of sizes says of a preset."""
    core, heads, training = preset.model.core, preset.model.heads, preset.training
    latent, cells = core.latent, {BlockGRUConfig: "block GRU", LayerNormGRUConfig: "layer-norm GRU"}
    drawn = f"{latent.size} normals" if isinstance(latent, GaussianLatent) else f"{latent.variables} x {latent.classes} classes"
    found = {
        "action repeat": f"{spec.preprocess.action_repeat}",
        "memory": f"{core.deter}, {cells.get(type(core.cell), 'GRU')}",
        "latent": drawn,
        "hidden units of the RSSM": f"{core.hidden}, {core.activation}",
        "image channels": _channels(preset.model.encoder.images),
        "vector encoder": _mlp(preset.model.encoder.vectors),
        "reward head": _mlp(heads.reward),
        "continue head": _mlp(heads.continue_head),
    }
    agent = preset.agent
    if isinstance(agent, ActorCriticConfig):
        found |= {
            "actor": _mlp(agent.actor),
            "critic": _mlp(agent.critic),
            "imagined steps": f"{agent.horizon}",
            "dreams per update": "every row" if training.starts is None else f"{training.starts}",
            "discount, lambda": f"{agent.discount:.6g}, {agent.lambda_:g}",
            "entropy": f"{agent.entropy:g}",
        }
    else:
        searched = (agent.horizon, agent.iterations, agent.candidates, agent.elites)
        found["planner: horizon, iterations, candidates, elites"] = ", ".join(map(str, searched))
        found["planner: noise of a candidate's future"] = {"own": "sampled", "mean": "the mean"}[agent.futures]
    kl, steps = preset.model.objective.kl, (preset.model_optimiser, preset.actor_optimiser, preset.critic_optimiser)
    per = "episode" if training.train_every == 0 else f"{training.train_every} agent steps"
    found |= {
        "KL scales (prior, posterior); free nats": f"{kl.dynamics:g}, {kl.representation:g}; {kl.free_nats:g} per {_per(kl.free_mode)}",
        "optimiser, rates": f"{steps[0].kind}, " + ", ".join(_rate(step.learning_rate) for step in steps if step is not None),
        "batch": f"{training.batch} x {training.length}",
        "updates": f"{training.updates} per {per}",
        "random agent steps at first": f"{training.prefill:,}",
        "env steps": f"{training.env_steps:,}",
    }
    return found | {f"parameters: {part}": f"{count:,}" for part, count in zip(("model", "actor", "critic"), counts(preset, spec))}


def _channels(images: ConvConfig) -> str:
    return ", ".join(str(images.depth * factor) for factor in ((1, 2, 4, 8) if images.style == "valid" else (2, 3, 4, 4)))


def _mlp(network: MLPConfig | None) -> str:
    return "none" if network is None else f"{network.layers} x {network.units} {network.activation}"


def _per(mode: str) -> str:
    return {"mean": "batch mean", "element": "row"}[mode]


def _rate(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")


PLANET = {  # planet/scripts/configs.py and the paper's appendix
    "action repeat": "8",
    "memory": "200, GRU",
    "latent": "30 normals",
    "hidden units of the RSSM": "200, relu",
    "image channels": "32, 64, 128, 256",
    "reward head": "3 x 300 relu",
    "continue head": "none",
    "planner: horizon, iterations, candidates, elites": "12, 10, 1000, 100",
    "planner: noise of a candidate's future": "sampled",
    "KL scales (prior, posterior); free nats": "1, 1; 3 per row",
    "optimiser, rates": "adam, 1e-3",
    "batch": "50 x 50",
    "updates": "100 per episode",
    "random agent steps at first": "625",
    "env steps": "1,000,000",
    "parameters: model": "5,292,220",
}
V1 = {  # danijar/dreamer
    "action repeat": "2",
    "memory": "200, GRU",
    "latent": "30 normals",
    "hidden units of the RSSM": "200, elu",
    "image channels": "32, 64, 128, 256",
    "reward head": "2 x 400 elu",
    "continue head": "none",
    "actor": "4 x 400 elu",
    "critic": "3 x 400 elu",
    "imagined steps": "15",
    "dreams per update": "every row",
    "discount, lambda": "0.99, 0.95",
    "entropy": "0",
    "KL scales (prior, posterior); free nats": "1, 1; 3 per batch mean",
    "optimiser, rates": "adam, 6e-4, 8e-5, 8e-5",
    "batch": "50 x 50",
    "updates": "100 per 500 agent steps",
    "random agent steps at first": "2,500",
    "env steps": "5,000,000",
    "parameters: model": "5,296,820",
    "parameters: actor": "578,412",
    "parameters: critic": "413,601",
}
V2 = V1 | {  # danijar/dreamerv2, configs.yaml: dmc_vision
    "memory": "200, layer-norm GRU",
    "latent": "32 x 32 classes",
    "image channels": "48, 96, 192, 384",
    "vector encoder": "4 x 400 elu",
    "reward head": "4 x 400 elu",
    "critic": "4 x 400 elu",
    "entropy": "0.0001",
    "KL scales (prior, posterior); free nats": "0.8, 0.2; 1 per batch mean",
    "optimiser, rates": "adam, 3e-4, 8e-5, 8e-5",
    "batch": "16 x 50",
    "updates": "1 per 5 agent steps",
    "random agent steps at first": "1,000",
    "env steps": "2,000,000",
    "parameters: model": "13,656,772",
    "parameters: actor": "976,012",
    "parameters: critic": "971,601",
}
V2_ATARI = V2 | {  # the same: atari
    "action repeat": "4",
    "memory": "600, layer-norm GRU",
    "hidden units of the RSSM": "600, elu",
    "continue head": "4 x 400 elu",
    "discount, lambda": "0.999, 0.95",
    "entropy": "0.001",
    "KL scales (prior, posterior); free nats": "0.08, 0.02; 0 per batch mean",
    "optimiser, rates": "adam, 2e-4, 4e-5, 1e-4",
    "updates": "1 per 16 agent steps",
    "random agent steps at first": "50,000",
    "env steps": "200,000,000",
    "parameters: model": "19,975,379",
    "parameters: actor": "1,138,418",
    "parameters: critic": "1,131,601",
}
V3 = V1 | {  # danijar/dreamerv3 at size12m, the paper's for DeepMind Control
    "memory": "2048, block GRU",
    "latent": "32 x 16 classes",
    "hidden units of the RSSM": "256, silu",
    "image channels": "32, 48, 64, 64",
    "vector encoder": "3 x 256 silu",
    "reward head": "1 x 256 silu",
    "continue head": "1 x 256 silu",
    "actor": "3 x 256 silu",
    "critic": "3 x 256 silu",
    "discount, lambda": "0.996997, 0.95",
    "entropy": "0.0003",
    "KL scales (prior, posterior); free nats": "1, 0.1; 1 per row",
    "optimiser, rates": "laprop, 4e-5",
    "batch": "16 x 64",
    "updates": "1 per 2 agent steps",
    "random agent steps at first": "0",
    "env steps": "1,000,000",
}
for part in ("model", "actor", "critic"):
    del V3[f"parameters: {part}"]  # only their sum is derived, for every size: sizes:dreamer-v3:all

TABLES: dict[str, tuple[str, Callable[[int], Spec], int, dict[str, str]]] = {
    "planet": ("planet", suite(IMAGE, 1, "cartpole-swingup"), 2, PLANET),
    "dreamer-v1": ("dreamer-v1", suite(IMAGE), 2, V1),
    "dreamer-v2": ("dreamer-v2", suite(IMAGE), 2, V2),
    "dreamer-v2:atari": ("dreamer-v2", atari, 4, V2_ATARI),
    "dreamer-v3": ("dreamer-v3", suite(IMAGE), 2, V3),
}


# ---- sizes of World Models ----------------------------------------------------------------------------------------------

WORLDS = {"world-models": "VizdoomTakeCover-v1", "world-models:cars": "CarRacing-v3"}


def staged_spec(name: str, env_id: str) -> Spec:
    """As `fit` finds it, at the preset's own preprocessing."""
    doom = env_id == WORLDS["world-models"]
    spec = Spec(env_id, IMAGE, spaces.Discrete(3), 2100 if doom else 1000, preprocess=default_preprocess(env_id))
    spec = replace(spec, preprocess=world_models_preprocess(name, spec))
    pedals = spaces.Box(-1.0, 1.0, (2,)) if spec.preprocess.merge_pedals else spaces.Box(np.float32([-1, 0, 0]), np.ones(3, np.float32))
    limit = spec.max_episode_steps // spec.preprocess.action_repeat
    return replace(spec, action_space=spec.action_space if doom else pedals, max_episode_steps=limit)


def staged_settings(name: str, env_id: str) -> dict[str, str]:
    """What a table of sizes says of a World Models preset."""
    spec = staged_spec(name, env_id)
    preset = world_models_preset(name, spec)
    core, heads, defaults = preset.model.core, preset.model.heads, preset.model.defaults
    codes, memory, search = preset.code_training, preset.memory_training, preset.controller_training
    with torch.device("meta"):
        model = WorldModel(spec, preset.model)
    M = [model.core, *([] if defaults.termination == "never" else [model.heads.end])]
    counted = sum(parameter.numel() for module in M for parameter in module.parameters())
    every = sum(parameter.numel() for module in (model.core, model.heads) for parameter in module.parameters())
    ends = {"never": "never", "sample": "by chance", "threshold": f"above {defaults.end_probability:.3f}"}[defaults.termination]
    searched = preset.calibration.threshold and defaults.termination == "threshold"
    overshooting = memory.overshooting
    weights = " to ".join(f"{weight:g}" for weight in dict.fromkeys(codes.reconstruction_weight))
    rows = f" chunks of {memory.length}" if memory.sequences == "streams" else " whole episodes"
    return {
        "frames per action": f"{spec.preprocess.action_repeat}",
        "random episodes": f"{preset.collection.episodes:,}",
        "pictures that V learns from": f"{preset.collection.pixel_frames:,}",
        "V: code": f"{preset.model.encoder.vae.code}",
        "V: updates": f"{codes.steps:,} x {codes.batch}",
        "V: rate": f"{_rate(codes.learning_rate)}, {codes.rate}",
        "V: weight of the squared error": weights,
        "M: memory": f"{core.units}",
        "M: mixture": f"{core.mixtures} per dimension",
        "M: dropout": f"{core.input_dropout:g}",
        "M: is told of first rows": "yes" if core.first_flag else "no",
        "M: updates": f"{memory.steps:,} x {memory.batch}{rows}",
        "M: rate": f"{_rate(memory.learning_rate)}, {memory.rate}",
        "M: an end counts": f"{heads.terminal_weight:g} times",
        "members": "none" if heads.members == 1 else f"{heads.members} x {heads.member_units}",
        "M: dreams it learns from": f"{overshooting.starts} x {overshooting.steps} steps" if overshooting else "none",
        "a dream ends at a chance": ends + (", then searched" if searched else ""),
        "C reads": ", ".join(core.features),
        "candidates x dreams": f"{preset.evolution.population} x {search.rollouts}",
        "generations": f"{search.generations:,}",
        "searches": f"{search.attempts}",
        "temperature; dropout in the dream": f"{search.temperature:g}; {search.dropout or core.input_dropout:g}",
        "beside C": _beside(preset.behaviour_training),
        "iterations after the first": f"{preset.iterations.count}",
        "parameters: V": f"{sum(parameter.numel() for parameter in model.encoder.parameters()):,}",
        "parameters: M": f"{counted:,}",
        "parameters: other heads": f"{every - counted:,}",
        "parameters: C": f"{LinearController(spec, model.core.feature_size, preset.controller).num_parameters:,}",
    }


def _beside(training: BehaviourTraining | None) -> str:
    return f"actor-critic: {training.updates:,} x {training.starts} dreams of {training.config.horizon} steps" if training else "nothing"


PUBLISHED = {  # specs/world-models.md; the released code where the paper says less
    "world-models": {
        "frames per action": "1",
        "random episodes": "10,000",
        "pictures that V learns from": "3,080,000",
        "V: code": "64",
        "V: updates": "308,000 x 100",
        "V: rate": "1e-4, constant",
        "V: weight of the squared error": "1",
        "M: memory": "512",
        "M: mixture": "5 per dimension",
        "M: dropout": "0",
        "M: is told of first rows": "yes",
        "M: updates": "24,400 x 100 chunks of 500",
        "M: rate": "1e-3, exponential",
        "M: an end counts": "10 times",
        "members": "none",
        "M: dreams it learns from": "none",
        "a dream ends at a chance": "above 0.091",
        "C reads": "z, c, h",
        "candidates x dreams": "64 x 16",
        "generations": "1,800",
        "searches": "1",
        "temperature; dropout in the dream": "1.15; 0",
        "iterations after the first": "0",
        "parameters: V": "4,446,915",
        "parameters: M": "1,678,785",
        "parameters: C": "1,088",
    },
    "world-models:cars": {
        "frames per action": "1",
        "random episodes": "10,000",
        "pictures that V learns from": "10,000,000",
        "V: code": "32",
        "V: updates": "100,000 x 100",
        "V: rate": "1e-4, constant",
        "V: weight of the squared error": "1",
        "M: memory": "256",
        "M: mixture": "5 per dimension",
        "M: dropout": "0",
        "M: is told of first rows": "no",
        "M: updates": "4,000 x 100 whole episodes",
        "M: rate": "1e-3, constant",
        "members": "none",
        "C reads": "z, h",
        "candidates x dreams": "64 x 16",
        "generations": "1,800",
        "searches": "1",
        "iterations after the first": "0",
        "parameters: V": "4,348,547",
        "parameters: M": "422,368",
        "parameters: C": "867",
    },
}
NOT_AS_PUBLISHED = {  # fewer pictures on disk; an action as a one-hot of three classes, not as one number
    "world-models": {"pictures that V learns from": "500,000", "parameters: M": f"{1_678_785 + 4 * 512 * 2:,}"},
    "world-models:cars": {"pictures that V learns from": "500,000"},
}


@pytest.mark.parametrize("mark", WORLDS)
def test_the_world_models_preset_has_the_published_sizes(mark):
    ours = staged_settings("world-models", WORLDS[mark])
    assert {row: ours[row] for row in PUBLISHED[mark]} == PUBLISHED[mark] | NOT_AS_PUBLISHED[mark]


def _staged_table(mark: str) -> list[str]:
    ours = [staged_settings(name, WORLDS[mark]) for name in WORLD_MODELS_PRESETS]
    lines = ["| | published | `world-models` | `world-models-fast` |", "|---|---|---|---|"]
    return lines + [f"| {row} | {PUBLISHED[mark].get(row, '')} | {ours[0][row]} | {ours[1][row]} |" for row in ours[0]]


# ---- tables -------------------------------------------------------------------------------------------------------------


def table(mark: str) -> list[str]:
    """The lines of a table of sizes."""
    if mark in WORLDS:
        return _staged_table(mark)
    if mark == "dreamer-v3:all":
        return _every_size()
    name, world, repeat, published = TABLES[mark]
    ours = [settings(*preset_for(name, size, world, repeat)) for size in ("paper", "tiny")]
    lines = ["| | published | `paper` | `tiny` |", "|---|---|---|---|"]
    return lines + [f"| {row} | {published.get(row, '')} | {ours[0][row]} | {ours[1][row]} |" for row in ours[0]]


def _every_size() -> list[str]:
    lines = ["| size | d | memory | latent | images, 6 actions | vector of 24, 6 actions | CartPole |", "|---|---|---|---|---|---|---|"]
    for size, units in SIZES.items():
        sums = [sum(counts(dreamer_v3(spec, units=units), spec)) for spec in (suite(IMAGE)(2), suite(VECTOR)(2), cartpole(1))]
        cells = [size, units, 8 * units, f"32 x {units // 16}", *(f"{number:,}" for number in sums)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def block(text: str, mark: str) -> re.Match[str]:
    found = re.search(rf"<!-- sizes:{re.escape(mark)} -->\n(.*?)\n<!-- /sizes -->", text, re.DOTALL)
    assert found is not None, f"no table sizes:{mark}"
    return found


MARKS = [*TABLES, "dreamer-v3:all", *WORLDS]


@pytest.mark.parametrize("mark", MARKS)
def test_the_table_of_sizes_is_that_of_the_presets(mark):
    page = FOLDER / PAGES[mark.split(":")[0]]
    assert block(page.read_text(), mark)[1].splitlines() == table(mark), "write it anew: python -m tests.test_papers"


@pytest.mark.parametrize("mark", TABLES)
def test_the_paper_sized_preset_has_the_published_sizes(mark):
    name, world, repeat, published = TABLES[mark]
    ours = settings(*preset_for(name, "paper", world, repeat))
    extra = {"planet": {"parameters: model": "5,292,820"}}  # the second bias vector of its GRU: 600 more than TensorFlow's
    assert {row: ours[row] for row in published} == published | extra.get(mark, {})


def test_every_size_of_v3_has_the_count_of_its_layers():
    numbers = [[int(cell.replace(",", "")) for cell in line.split("|")[5:8]] for line in _every_size()[2:]]
    assert numbers == [list(totals[:3]) for totals in TOTALS.values()]


def write_tables() -> None:
    for mark in MARKS:
        page = FOLDER / PAGES[mark.split(":")[0]]
        text = page.read_text()
        span = block(text, mark).span(1)
        page.write_text(text[: span[0]] + "\n".join(table(mark)) + text[span[1] :])


if __name__ == "__main__":
    write_tables()
