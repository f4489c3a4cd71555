"""Cards say what was measured, all of it and nothing else; strangers' text in them stays text."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cards import bundled_card
from dreamgym.errors import MissingDependencyError
from dreamgym.evaluation.comparison import Comparison
from dreamgym.evaluation.controls import LengthCheck, OpenLoopBaselines, PairedComparison
from dreamgym.evaluation.fidelity import FixedPolicyFidelity
from dreamgym.evaluation.reliability import EndReliability
from dreamgym.evaluation.returns import Returns
from dreamgym.evaluation.scrutiny import Controls
from dreamgym.evaluation.yoked import YokedControl
from dreamgym.formats.codec import encode
from dreamgym.formats.files import Fingerprint
from dreamgym.hub import bundle
from dreamgym.hub.card_failures import known_failures, unmeasured
from dreamgym.hub.cards import agent_card, dataset_card, model_card
from dreamgym.hub.citations import CITATIONS, world_license
from dreamgym.hub.config import BundleConfig
from dreamgym.hub.markdown import code, plain
from dreamgym.registration import ids
from dreamgym.structs import Spec
from dreamgym.training.online_presets import ONLINE_PRESETS
from dreamgym.training.world_models_presets import WORLD_MODELS_PRESETS
from tests.hub import toys

PRETRAINED = Path(bundle.__file__).parent.parent / "pretrained"
HOSTILE = (
    "x\n---\nlicense: evil\n---\n| a | b |\n<script>alert(1)</script>`` a` <b> ![p](http://evil/p.png) [l](http://evil) https://evil"
    " www.evil.com \x1b[2J\u202e"
)


def returns(*values: float, lengths: int = 10) -> Returns:
    return Returns(values, (lengths,) * len(values), tuple(range(len(values))))


def measured() -> dict[str, Any]:
    """A fidelity.json with everything that evaluation can write, from the classes that write it."""
    step = {
        "n": 90, "reward_mae": 0.11, "reward_mae_of_mean": 0.72, "reward_correlation": 0.93, "obs_rmse": 0.21, "obs_rmse_of_mean": 1.03,
        "obs_rmse_of_repeat": 0.57, "continue_brier": 0.014, "ends": 9, "end_precision": 0.88, "end_recall": 0.91,
        "obs_parts": {"camera": {"obs_rmse": 0.0625, "obs_rmse_of_mean": 0.19, "obs_rmse_of_repeat": 0.13}},
    }  # fmt: skip
    good, bad = returns(8.0, 10.0), returns(1.0, 2.0)
    fixed = FixedPolicyFidelity({"idle": bad, "push": good}, {"idle": returns(1.5, 2.5), "push": returns(7.0, 10.5)}, 10)
    agent, sweep = returns(*(93.0, 99.0) * 5, lengths=8), returns(*(30.25, 31.0) * 5)
    compared = Comparison("Toy-v0", returns(95.0, 97.0, lengths=9), agent, {"random actions": bad}, (94.0,))
    yoked = YokedControl((5,) * 9, (False,) * 9, (True,) * 9, (5.0,) * 9, (4.0,) * 9, tuple(range(9)), tuple(range(9, 18)))
    scrutiny = Controls(
        OpenLoopBaselines({"sweep 4": sweep}, {"sweep 4": sweep, "always 0": bad}, "sweep 4"),
        PairedComparison(agent, sweep, ("agent", "sweep 4")),
        yoked,
        LengthCheck(Returns((1.0, 1.0), (20, 22), (0, 1)), Returns((1.0, 1.0), (20, 21), (0, 1))),
    )
    ends = EndReliability(np.array([0.001, 0.9, 0.02, 0.7]), np.array([False, True, False, True]))
    made = {
        "format": 1,
        "env_id": "Toy-v0",
        "date": "2026-11-20T08:34:37Z",
        "versions": {"dreamgym": "0.1.0", "torch": "2.13.0"},
        "data": {"env_steps": 12345, "policies": "random, then its own agents", "held_out": {"sequences": 3, "length": 56, "ends": 9}},
        "one_step": step,
        "open_loop": {
            "context": 5,
            "mean_noise": {"1": {**step, "obs_rmse": 0.22}, "10": {**step, "obs_rmse": 0.41, "n": 70}},
            "sampled_noise": {"1": {**step, "obs_rmse": 0.23}, "10": {**step, "obs_rmse": 0.43, "n": 70}},
        },
        "fixed_policies": fixed.to_json(),
        "policy": {**compared.to_json(), "controls": scrutiny.to_json()},
        "end_reliability": ends.to_json(),
        "notes": {"policy": "PPO, last checkpoint", "errors": "on random episodes"},
    }
    plain_json: dict[str, Any] = json.loads(json.dumps(made))
    return plain_json


def config(env_id: str = "Toy-v0", source: dict[str, Any] | None = None) -> BundleConfig:
    made = toys.ensemble()
    spec = Spec(env_id, made.spec.observation_space, made.spec.action_space, max_episode_steps=500)
    return BundleConfig(spec, made.config, {"model.safetensors": Fingerprint("0" * 64, 1_500_000)}, source or {})


def card(fidelity: dict[str, Any] | None = None, **changes: Any) -> str:
    arguments: dict[str, Any] = {"repo_id": "someone/toy", "license": "mit", "replay": False, **changes}
    return model_card(arguments.pop("config", None) or config(), fidelity, **arguments)


def data_of(text: str) -> Any:
    """The YAML of a card, as the Hub's client reads it."""
    return ModelCard(text).data


# ---- round trips --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bundle.bundled_names())
def test_a_bundled_models_readme_is_what_its_files_say(name: str) -> None:
    assert f"dreamgym/Dream-{name}-v0" in ids()
    text = (PRETRAINED / name / "README.md").read_text(encoding="utf-8")
    assert text == bundled_card(name), "run: python -m benchmarks.cards"


@pytest.mark.parametrize("name", bundle.bundled_names())
def test_a_loaded_card_has_the_eval_results_of_fidelity_json(name: str) -> None:
    fidelity = json.loads((PRETRAINED / name / "fidelity.json").read_text())
    data: Any = ModelCard.load(PRETRAINED / name / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("dreamgym", "reinforcement-learning", "mit")
    assert {"dreamgym", "world-model", "reinforcement-learning", fidelity["env_id"]} == set(data.tags)
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [
        ("mean_reward", fidelity["policy"]["awake"]["mean"]),
        ("mean_reward_of_baseline", fidelity["policy"]["baselines"]["random actions"]["mean"]),
        ("spearman", fidelity["fixed_policies"]["rank_correlation"]),
    ]
    assert {(result.task_type, result.dataset_type) for result in data.eval_results} == {("reinforcement-learning", fidelity["env_id"])}


def test_the_example_of_a_bundled_card_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", bundled_card("CartPole"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["env"].observation_space.contains(names["obs"])


def test_an_example_from_the_hub_shows_a_revision_to_pin() -> None:
    assert 'gym.make("dreamgym/Dream-v0", model="someone/toy", revision="v1")' in card(revision="v1")
    assert 'revision="main")' in card() and "to pin it" in card()


# ---- what is said -------------------------------------------------------------------------------------------------------


LEAVES = [
    ("policy", "awake", "mean"), ("policy", "dream", "mean"), ("policy", "baselines", "random actions", "mean"),
    ("policy", "controls", "baselines", "judged", "sweep 4", "mean"), ("policy", "controls", "against", "difference"),
    ("policy", "controls", "yoked", "p_value"), ("policy", "controls", "lengths", "ratio"),
    ("fixed_policies", "rank_correlation"), ("fixed_policies", "policies", "push", "dream", "mean"),
    ("fixed_policies", "policies", "push", "real", "mean_length"),
    ("one_step", "obs_rmse"), ("one_step", "reward_mae_of_mean"), ("one_step", "end_recall"),
    ("one_step", "obs_parts", "camera", "obs_rmse"),
    ("open_loop", "mean_noise", "10", "obs_rmse"), ("open_loop", "sampled_noise", "10", "reward_mae"), ("end_reliability", "log_loss"),
    ("data", "env_steps"),
]  # fmt: skip


@pytest.mark.parametrize("keys", LEAVES, ids=".".join)
def test_a_measured_number_is_in_the_card_and_follows_its_file(keys: tuple[str, ...]) -> None:
    fidelity = measured()
    inner = fidelity
    for key in keys[:-1]:
        inner = inner[key]
    assert "73" not in card(fidelity)
    inner[keys[-1]] = 73 if keys[-1] == "env_steps" else 0.7373
    assert re.search(r"0\.7(3|4)|73", card(fidelity))


def test_all_parts_have_a_table_with_the_baselines_beside_the_model() -> None:
    text = card(measured())
    assert "| policy | return | median | s.e. | steps | ≥ 94 | n |" in text
    assert "| **learned in the dream, judged awake** | 96 ± 3 | 96 | 1 | 8 | 50% | 10 |" in text
    assert "| blind `sweep 4`, the best that a search found, awake | 30.62 ± 0.375 |" in text
    assert "| steps ahead | model | model, noise drawn | guess the mean | repeat the last seen | n |" in text
    assert "| 10 | 0.41 | 0.43 | 1.03 | 0.57 | 70 |" in text
    assert "| 10 | `camera` | 0.0625 | 0.19 | 0.13 |" in text
    assert "| 10 | 9 | 0.88 | 0.91 | 0.88 | 0.91 | 70 |" in text
    assert "| `push` | 8.75 ± 1.75 | 9 ± 1 | 10 | 10 | 2 |" in text
    assert "9 pairs: the twin ended first 9 times, the agent 0 times, p = 0.0039" in text


def test_what_it_dreams_is_read_from_the_config() -> None:
    text = card()
    parameters = sum(parameter.numel() for parameter in toys.ensemble().parameters())
    assert f"**parameters**: {parameters:,}" in text
    assert "**observation**: 4 numbers from -5 to 5, float32" in text and "**action**: one of 2 classes" in text
    assert "**download**: 1.5 MB" in text and "halted outside the range of the data" in text


def test_a_card_without_measurements_says_so_and_has_no_results() -> None:
    text = card(None)
    assert "Nobody has measured it" in text and "Known failures" not in text
    assert data_of(text).eval_results is None


def test_a_replay_is_linked_only_if_there_is_one() -> None:
    assert "replay.mp4" not in card() and "(replay.mp4)" in card(replay=True)


def test_training_is_told_from_training_json_and_a_dataset_only_as_a_repository() -> None:
    training = {"seed": 3, "command": "python x", "preset": {"name": "dreamer-v3", "size": "tiny", "notes": "smaller"}}
    text = card(measured(), training=training, config=config(source={"dataset": "someone/rollouts@abc", "preset": "planet"}))
    assert "12,345" in text and "random, then its own agents" in text
    assert "`dreamer-v3`, size `tiny`" in text and "**seed**: 3" in text and "`training.json`" in text
    assert data_of(text).datasets == ["someone/rollouts"]
    assert data_of(card(config=config(source={"dataset": "../x"}))).datasets is None


def test_presets_with_a_papers_name_cite_it_and_others_cite_nothing() -> None:
    assert set(CITATIONS) == {*ONLINE_PRESETS, *WORLD_MODELS_PRESETS}
    cited = card(config=config(source={"preset": "world-models-fast"}))
    assert "1803.10122" in cited and "```bibtex" in cited
    assert "bibtex" not in card(config=config(source={"preset": "ensemble"}))


def test_licences_of_worlds_are_looked_up_and_unknown_ones_admitted() -> None:
    assert "MIT" in world_license("CartPole-v1") and "Apache-2.0" in world_license("dm_control/cartpole-balance-v0")
    assert "not known" in world_license("os:system") and "not known" in world_license("dreamgym/Dream-v0")
    assert "**mit**" not in card() and "Weights and card: cc-by-4.0." in card(license="cc-by-4.0")


def test_a_card_needs_a_licence_and_the_library_that_writes_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="license is empty"):
        card(license=" ")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="huggingface_hub"):
        card()


# ---- known failures -----------------------------------------------------------------------------------------------------


def with_change(change: Any, *keys: str) -> dict[str, Any]:
    fidelity = measured()
    inner = fidelity
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = change
    return fidelity


def test_a_good_model_has_no_known_failures_and_nothing_unmeasured() -> None:
    assert known_failures(measured()) == [] == unmeasured(measured())
    assert "None of the checks made from these numbers fails." in card(measured())


@pytest.mark.parametrize(
    ("change", "keys", "said"),
    [
        (0.49, ("fixed_policies", "rank_correlation"), "does not rank blind behaviours as the world does (rank correlation 0.49): `push`"),
        (170.0, ("policy", "dream", "mean"), "pays its own agent more than the world gives: 170 dreamt, 96 awake"),
        (20.0, ("policy", "dream", "mean"), "pays its own agent less than the world gives"),
        (97.5, ("policy", "baselines", "random actions", "mean"), "does not clearly beat `random actions` awake: 96 against 97.5"),
        (-2.0, ("policy", "controls", "against", "difference"), "does not clearly beat the best blind policy, `sweep 4`,"),
        (0.2, ("policy", "controls", "against", "p_value"), "does not clearly beat the best blind policy"),
        (1.4, ("policy", "controls", "lengths", "ratio"), "Random episodes last 1.4 times as long in the dream"),
        (0.7, ("fixed_policies", "log_length_ratio"), "last wrong by a factor of 2"),
        (0.5, ("one_step", "end_recall"), "only 50% of the real ends are seen coming (9 real ends)"),
        (0.5, ("one_step", "end_precision"), "only 50% of the ends that it calls are real"),
        (9.0, ("end_reliability", "log_loss"), "worse than none: log loss 9"),
        (0.6, ("one_step", "obs_rmse"), "with all seen before, observations are worse than by repeating the last seen: 0.6 against"),
        (2.0, ("open_loop", "mean_noise", "10", "obs_rmse"), "observations are worse than by guessing the mean: 2 against 1.03 (m"),
        (2.0, ("open_loop", "sampled_noise", "1", "reward_mae"), "After 1 dreamt step rewards are worse than by guessing the mean: 2 ag"),
    ],
)  # fmt: skip
def test_a_failure_follows_from_its_number(change: float, keys: tuple[str, ...], said: str) -> None:
    fidelity = with_change(change, *keys)
    assert any(said in sentence for sentence in known_failures(fidelity)), known_failures(fidelity)
    assert said in card(fidelity)


def test_no_use_of_seeing_is_told_only_if_both_tests_of_the_twin_say_so() -> None:
    fidelity = with_change(0.3, "policy", "controls", "yoked", "p_value")
    assert known_failures(fidelity) == []  # the returns still differ
    fidelity["policy"]["controls"]["yoked"]["difference_p_value"] = 0.4
    assert known_failures(fidelity) == ["9 pairs with an unseen twin show no use of seeing (p = 0.3)."]


@pytest.mark.parametrize(
    ("key", "said"),
    [("one_step", None), ("fixed_policies", "Blind policies were not"), ("policy", "No policy that learned in the dream")],
)
def test_what_was_not_measured_is_admitted_and_not_judged(key: str, said: str | None) -> None:
    fidelity = measured()
    del fidelity[key]
    assert known_failures(fidelity) == []
    assert [said in sentence for sentence in unmeasured(fidelity)] == [True] if said else not unmeasured(fidelity)


def test_a_score_without_controls_and_rows_without_ends_are_admitted() -> None:
    fidelity = measured()
    del fidelity["policy"]["controls"], fidelity["open_loop"]
    fidelity["one_step"]["ends"] = 0
    assert [sentence[:12] for sentence in unmeasured(fidelity)] == ["No row that ", "No controls "]
    assert "| ends |" not in card(fidelity)


def test_controls_may_stand_beside_the_policy() -> None:
    fidelity = measured()
    fidelity["controls"] = fidelity["policy"].pop("controls")
    assert card(fidelity) == card(measured())


def test_what_the_command_line_wrote_makes_the_same_tables() -> None:
    whole = measured()
    returns, fixed = whole["policy"], {"env_id": "Toy-v0", "episodes": 2, "temperature": 1.25, **whole["fixed_policies"]}
    assert card(returns).count("| **learned in the dream") == 1 and "Errors of prediction were not measured." in card(returns)
    assert data_of(card(returns)).eval_results[0].metric_value == returns["awake"]["mean"]
    assert "| `push` |" in card(fixed) and "Dreamt with temperature 1.25." in card(fixed) and "Dreamt with" not in card(whole)


@pytest.mark.parametrize("keys", [("env_id",), ("policy", "env_id")], ids=".".join)
def test_numbers_of_another_environment_are_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="measured in 'Other-v0', but this is about 'Toy-v0'"):
        card(with_change("Other-v0", *keys))


# ---- strangers ----------------------------------------------------------------------------------------------------------


def hostile(value: Any) -> Any:
    """Every text of a JSON value, keys too, made hostile beyond its first word, which stays to be found."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return f"{value} {HOSTILE}" if isinstance(value, str) else value


def assert_harmless(text: str) -> None:
    """No HTML, no pictures, no links but our own, no control characters, no heading or YAML of strangers."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    body = ModelCard(text).text
    tokens = [inner for token in markdown.parse(body) for inner in (token, *(token.children or []))]
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_inline", "html_block", "image", "hr"}
    assert {token.attrs["href"] for token in tokens if token.type == "link_open"} <= {"replay.mp4"}
    assert all(char.isprintable() or char == "\n" for char in text)
    for line in body.split("\n"):
        prose = re.sub("`[^`]*`", "", line)
        assert not re.search(r"https?://|www\.|<|(?<!\\)\]\(http", prose) or "json" in prose, line
    headings = [tokens[index + 1].content for index, token in enumerate(tokens) if token.type == "heading_open"]
    assert all(heading == headings[0] or re.fullmatch("[A-Za-z ]+", heading) for heading in headings)


def rows_of(text: str) -> list[int]:
    """Number of cells of each table line."""
    return [len(re.findall(r"(?<!\\)\|", line)) for line in text.split("\n") if line.startswith("|")]


def test_hostile_texts_stay_in_their_cells_and_in_their_yaml() -> None:
    fidelity = hostile(measured())
    for section in (fidelity["policy"]["baselines"], fidelity["fixed_policies"]["policies"], fidelity["one_step"]["obs_parts"]):
        section |= {HOSTILE: next(iter(section.values()))}
    fidelity["open_loop"]["mean_noise"][HOSTILE] = fidelity["one_step"]
    fidelity["policy"]["controls"]["baselines"]["judged"][HOSTILE] = {"mean": 1.0}
    training = hostile({"seed": 0, "command": "python", "preset": {"name": "dreamer-v3", "size": "tiny", "notes": "n"}})
    text = card(fidelity, training=training, config=config(f"Toy-v0 {HOSTILE}", source=hostile({"dataset": "a/b", "preset": "planet"})))
    assert_harmless(text)
    data = data_of(text)
    assert (data.license, data.library_name, len(data.tags), data.datasets) == ("mit", "dreamgym", 4, None)
    assert len(data.eval_results) == 4
    assert set(rows_of(text)) <= set(rows_of(card(measured())))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "`",
        "``a``",
        "a|b",
        "a\\|b",
        "\\",
        "<b>",
        "]]>",
        "&lt;",
        "$x$",
        "@all",
        "[x](y)",
        "![x](y)",
        "*a*",
        "~~a~~",
        "\\<b>",
        "a`*b*",
    ],
)
def test_text_and_code_are_one_cell_of_text_whatever_they_say(text: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    for shown in (plain(text), code(text)):
        cells = [token for token in markdown.parse(f"| a | b |\n|---|---|\n| {shown} | end |") if token.type == "inline"]
        assert [cell.content for cell in (cells[0], cells[1], cells[3])] == ["a", "b", "end"] and len(cells) == 4
        inner = [token for token in cells[2].children or [] if token.content]
        assert {token.type for token in inner} <= {"text", "code_inline", "text_special"}
    (span,) = [token for token in markdown.parseInline(f"x {code(text)} y")[0].children or [] if token.type == "code_inline"] or [None]
    assert (span.content if span else "") == text.strip().replace("`", "'").replace("|", "¦")
    visible = "".join(token.content for token in markdown.parseInline(plain(text))[0].children or [])
    assert visible == (text.strip() or "–")


def test_numbers_that_are_none_are_left_out_and_never_shown() -> None:
    fidelity = with_change("93<b>", "policy", "awake", "mean")
    fidelity["one_step"]["obs_rmse"] = float("nan")
    fidelity["fixed_policies"]["rank_correlation"] = True
    fidelity["policy"]["thresholds"] = "94"
    fidelity["open_loop"]["mean_noise"] = [1, 2]
    text = card(fidelity)
    assert not re.search(r"\bnan\b|\bNone\b(?! of)|93<b>|\bTrue\b", text)
    assert [result.metric_type for result in data_of(text).eval_results] == ["mean_reward_of_baseline"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_any_json_in_place_of_any_part_makes_a_card(data: st.DataObject) -> None:
    fidelity = measured()
    for _ in range(data.draw(st.integers(1, 4))):
        inner: Any = fidelity
        keys = data.draw(st.integers(1, 5))
        for _ in range(keys - 1):
            nested = [key for key, value in inner.items() if isinstance(value, dict) and value]
            if not nested:
                break
            inner = inner[data.draw(st.sampled_from(nested))]
        if inner:
            inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON)
    for where in (fidelity, fidelity.get("policy")):  # another environment's would be refused
        if isinstance(where, dict):
            where.pop("env_id", None)
    text = card(fidelity, training=data.draw(JSON.filter(lambda value: value is None or isinstance(value, dict))))
    assert data_of(text).license == "mit"
    assert set(rows_of(text)) <= set(range(3, 10))


def test_what_is_named_but_not_known_takes_no_row() -> None:
    fidelity = measured()
    fidelity["fixed_policies"]["policies"] |= {"unheard-of": None}
    assert "Blind policies in both worlds" in card(fidelity) and "unheard-of" not in card(fidelity)
    fidelity["fixed_policies"]["policies"] = {"unheard-of": None}
    assert "Blind policies in both worlds" not in card(fidelity)
    told = meta()
    told["statistics"]["episode_length"] = told["statistics"]["episode_return"] = told["statistics"]["reward"] = {"of": "nothing"}
    assert "length in agent steps" not in dataset_card(told, repo_id="someone/rollouts", license="mit")


# ---- agents -------------------------------------------------------------------------------------------------------------


def an_agent_card(fidelity: dict[str, Any] | None, **changes: Any) -> str:
    arguments: dict[str, Any] = {"repo_id": "someone/agent", "license": "mit", "base_model": "someone/toy", "base_revision": "0" * 40}
    agent = {"kind": "linear", "feature_size": 12, "config": {}}
    return agent_card(agent, config().spec, fidelity, **{**arguments, **changes})


def test_an_agents_card_names_its_model_as_base_and_its_real_return_as_result() -> None:
    text = an_agent_card(measured())
    data = data_of(text)
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("someone/toy", "dreamgym", "reinforcement-learning")
    assert data.eval_results[0].metric_value == measured()["policy"]["awake"]["mean"]
    assert "`linear`" in text and "12 features" in text and f'revision="{"0" * 40}"' in text and "blind `sweep 4`" in text


def test_an_agents_card_reads_what_evaluate_writes() -> None:
    evaluated = measured()["policy"]
    text = an_agent_card(evaluated)
    assert "| **learned in the dream, judged awake** | 96 ± 3 |" in text and "hazard" not in text
    assert "Errors of prediction" not in text and "Blind policies were not" not in text
    del evaluated["controls"]
    assert "No controls were run" in an_agent_card(evaluated)


def test_a_bundled_base_is_no_repository_and_stays_out_of_the_yaml() -> None:
    text = an_agent_card(None, base_model="CartPole", base_revision=None)
    assert data_of(text).base_model is None and 'from_pretrained("CartPole")' in text


# ---- datasets -----------------------------------------------------------------------------------------------------------


def meta() -> dict[str, Any]:
    box = spaces.Box(-2.0, 2.0, (1,), np.float32)
    summary = {"mean": 20.5, "std": 1.25, "min": 19.0, "median": 20.0, "max": 22.0}
    return {
        "format": "dreamgym-rollouts",
        "format_version": 1,
        "spec": encode(Spec("Pendulum-v1", spaces.Box(-1.0, 1.0, (3,), np.float32), box, 200)),
        "episodes": 60,
        "steps": 1230,
        "policies": ["sticky", "agent"],
        "seeds": [4, 5, 6],
        "shards": [{"sha256": "0" * 64, "size": 2_000_000, "episodes": 60, "rows": 1290}],
        "statistics": {
            "episode_length": summary,
            "episode_return": {**summary, "mean": -123.4},
            "reward": {**summary, "mean": -6.5, "histogram": {"edges": [-9.0, -4.5, 0.0], "counts": [1000, 230]}},
            "terminated": 0,
            "truncated": 60,
            "invalid_observations": 2,
            "actions": [{"edges": [-2.0, 0.0, 2.0], "counts": [615, 615]}, {"first": 5, "counts": [1, 3]}],
            "policies": {"sticky": {"episodes": 58, "steps": 1200}, "agent": {"episodes": 2, "steps": 30}},
        },
        "source": {"dreamgym": "0.1.0", "numpy": "2.4.6", "collector": "sticky"},
    }


def test_a_datasets_card_tells_who_acted_how_long_and_what_was_done() -> None:
    text = dataset_card(meta(), repo_id="someone/rollouts", license="cc0-1.0")
    data = data_of(text)
    assert (data.license, data.task_categories, data.size_categories) == ("cc0-1.0", ["reinforcement-learning"], ["1K<n<10K"])
    assert set(data.tags) == {"dreamgym", "rollouts", "Pendulum-v1"}
    assert "| `sticky` | 58 | 1,200 |" in text and "**seeds**: 4 to 6" in text and "1 archive of whole episodes, 2 MB" in text
    assert "| return | -123.4 | 1.25 | 19 | 20 | 22 |" in text and "60 cut off." in text
    assert "| -9 to -4.5 | 1,000 | ████████████████████ |" in text and "| 6 | 3 | ████████████████████ |" in text
    assert (
        "98% of the steps are of one behaviour, `sticky`" in text
        and "No episode terminates" in text
        and "Marked invalid: 2 observations." in text
    )
    assert 'Replay.from_hub("someone/rollouts", revision="main")' in text


def test_a_datasets_card_leaves_out_what_is_missing_and_disarms_names() -> None:
    told = meta()
    told["statistics"] = {"actions": [{"edges": [0.0], "counts": [1, 2]}], "policies": {HOSTILE: {"episodes": 1, "steps": 1230}}}
    told |= {"policies": [HOSTILE], "source": {"note": HOSTILE}, "seeds": []}
    text = dataset_card(told, repo_id="someone/rollouts", license="mit")
    assert_harmless(text)
    assert "## Rewards" not in text and "## Actions" not in text and "## Episodes" not in text and "seeds" not in text


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(sorted(meta()["statistics"])), JSON),
    st.sampled_from(["seeds", "policies", "shards", "steps", "source"]),
    JSON,
)
def test_any_json_in_place_of_a_datasets_statistics_makes_a_card(statistics: dict[str, Any], key: str, value: Any) -> None:
    told = {**meta(), key: value, "statistics": {**meta()["statistics"], **statistics}}
    assert data_of(dataset_card(told, repo_id="someone/rollouts", license="mit")).license == "mit"


def test_gymnasium_is_not_asked_to_make_what_a_card_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "make", lambda *_, **__: pytest.fail("made an environment"))
    monkeypatch.setattr(gym, "spec", lambda *_, **__: pytest.fail("looked up an environment"))
    before = copy.copy(set(sys.modules))
    assert "`antigravity:Toy-v0`" in card(config=config("antigravity:Toy-v0"))
    assert "antigravity" not in set(sys.modules) - before
