"""The command line answers at once, says what is wrong, and calls the public functions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from dreamgym import cli
from dreamgym.evaluation.comparison import Comparison
from dreamgym.evaluation.returns import Returns
from dreamgym.hub import bundle
from dreamgym.models.world_model import WorldModel
from tests.hub import toys

HEAVY = "torch", "stable_baselines3", "cv2", "PIL"
COMMANDS = "fit", "play", "evaluate", "fidelity", "temperature", "report", "push", "pull", "info", "check", "demo"


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys\nfrom dreamgym import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as leave:\n    assert leave.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        cli.main([command, "--help"])
    assert leave.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"usage: dreamgym {command}" in lines[0]


def test_python_m_dreamgym_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "dreamgym", "info", "no-such-model"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("dreamgym: ") and "no-such-model" in done.stderr


def test_a_model_that_does_not_exist_is_a_message_and_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "no-such-model"]) == 1
    assert "no-such-model" in capsys.readouterr().err


def test_report_turns_saved_numbers_into_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    returns = Returns((1.0, 2.0), (3, 4), (1_000_000, 1_000_001))
    numbers = tmp_path / "numbers.json"
    numbers.write_text(json.dumps(Comparison("Line-v0", returns, returns).to_json()))
    assert cli.main(["report", str(numbers), "--out", str(tmp_path / "page.html"), "--title", "Hello"]) == 0
    assert "<h1>Hello</h1>" in (tmp_path / "page.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")


# ---- judging ----------------------------------------------------------------------------------------------------------------


def test_evaluate_prints_the_controls_below_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = tmp_path / "numbers.json"
    asked = ["--episodes", "2", "--controls", "--control-episodes", "3", "--periods", "4"]
    assert cli.main(["evaluate", "CartPole", *asked, "--out", str(numbers)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("agent, in the dream") < printed.index("Yoked control") < printed.index("Random episodes, dreamt and lived")
    found = json.loads(numbers.read_text())
    assert found["controls"]["baselines"]["best"] in found["controls"]["baselines"]["judged"]
    assert found["controls"]["yoked"]["pairs"] == 3
    assert Comparison.from_json(found).awake.n == 2  # `dreamgym report` reads it as before


def test_fidelity_plays_blind_policies_in_both_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = tmp_path / "fidelity.json"
    assert cli.main(["fidelity", "CartPole", "--episodes", "2", "--periods", "1", "4", "--temperature", "0.5", "--out", str(numbers)]) == 0
    assert "rank correlation" in capsys.readouterr().out
    found = json.loads(numbers.read_text())
    assert list(found["policies"]) == ["always 0", "always 1", "sweep 0|1 every 1", "sweep 0|1 every 4"]
    assert found["temperature"] == 0.5 and found["policies"]["always 0"]["dream"]["n"] == 2


def test_temperature_leaves_a_table_numbers_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    size = ["--searches", "1", "--generations", "1", "--population", "4", "--rollouts", "1", "--episodes", "2"]
    assert cli.main(["temperature", "CartPole", "--taus", "0.5", "1.0", *size, "--no-baselines", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "each search awake" in printed and "best awake: tau" in printed
    assert [group["tau"] for group in json.loads((tmp_path / "study.json").read_text())["settings"]] == [0.5, 1.0]
    assert (tmp_path / "study.png").stat().st_size > 5_000


def test_searches_begin_at_gradients_where_asked(tmp_path: Path) -> None:
    size = ["--searches", "1", "--generations", "1", "--population", "4", "--rollouts", "1", "--episodes", "2"]
    asked = ["temperature", "CartPole", "--taus", "1.0", "--gradient-updates", "2", *size, "--no-baselines", "--no-plot"]
    assert cli.main([*asked, "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "settings.json").read_text())["begin"]["updates"] == 2
    assert (tmp_path / "searches" / "tau-1-dropout-0-0" / "begin" / "agent.json").is_file()


def test_dropout_of_a_model_without_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["temperature", "CartPole", "--dropouts", "0", "0.1", "--no-plot", "--out", str(tmp_path / "study")]) == 2
    assert "trained without dropout" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


# ---- sharing ----------------------------------------------------------------------------------------------------------------


def test_info_tells_what_a_bundled_model_is_and_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "Pendulum"]) == 0
    printed = capsys.readouterr().out
    assert "`Pendulum-v1`" in printed and "350,129" in printed and "learned in the dream, judged awake" in printed


def test_check_examines_a_model_and_exits_with_one_where_it_finds_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "CartPole", "--steps", "20"]) == 0
    assert "determinism" in capsys.readouterr().out
    monkeypatch.setattr(WorldModel, "initial", lambda self, batch_size: None)
    with pytest.raises(SystemExit) as caught:
        cli.main(["check", "CartPole", "--steps", "20"])
    assert caught.value.code == 1


def test_info_loads_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bundle.bundled_folder("CartPole")
    assert folder is not None
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert cli.main(["info", str(tmp_path)]) == 0
    assert "Nobody has measured it" in capsys.readouterr().out


def test_a_push_without_numbers_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.ensemble().save_pretrained(tmp_path)
    assert cli.main(["push", str(tmp_path), "alice/toy", "--license", "mit"]) == 2
    assert "nobody has measured" in capsys.readouterr().err


def test_a_push_to_no_repository_is_refused_before_anybody_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", "https://example.org/x"]) == 2
    assert "expected user/repo" in capsys.readouterr().err


# ---- mistakes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["fit", "Pendulom-v1", "--out", "{folder}/run"], "Pendulom"),
        (["report", "{folder}/nowhere.json"], "nowhere.json"),
        (["report", "{folder}/empty.json"], "'dream'"),
    ],
    ids=["unknown env", "missing file", "wrong file"],
)
def test_mistakes_are_one_line_and_exit_code_two_unless_debugged(
    arguments: list[str], names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.json").write_text('{"baselines": {}, "env_id": "Line-v0"}')
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert cli.main(given) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("dreamgym: ") and names in said
    with pytest.raises((OSError, KeyError, gym.error.Error)):
        cli.main(["--debug", *given])
    monkeypatch.setenv("DREAMGYM_DEBUG", "1")
    with pytest.raises((OSError, KeyError, gym.error.Error)):
        cli.main(given)
