"""The code that opens files, itself: nothing there could run what it reads; and the list of hostile inputs, complete."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import dreamgym
from tests.hub.hostile.opening import CASES

PACKAGE = Path(dreamgym.__file__).parent
LOADING = [
    *PACKAGE.glob("hub/*.py"),
    *PACKAGE.glob("formats/*.py"),
    *PACKAGE.glob("agents/*.py"),
    *PACKAGE.glob("models/*.py"),
    *(path for path in PACKAGE.glob("data/*.py") if not path.name.startswith("collect")),  # they write to their own processes
    PACKAGE / "registration.py",
]
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "np.load", "os.system", "yaml.load", "recover_environment", "load_dataset"}
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "subprocess", "runpy", "ctypes", "marshal", "shelve", "jsonpickle", "hydra"}


def ways_to_run_code(path: Path) -> Iterator[str]:
    """Every call and import of that kind, and every import of a module whose name is not written in the code."""
    tree = ast.parse(path.read_text())
    constants = {
        target.id
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS or name.split(".")[-1] in ("recover_environment", "load_dataset"):
                yield f"{path.name}:{node.lineno} calls {name}"
            names = {part.id for argument in node.args for part in ast.walk(argument) if isinstance(part, ast.Name)}
            if name.endswith("import_module") and not names <= constants:
                yield f"{path.name}:{node.lineno} imports what {', '.join(names)} says"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {node.module or ""} if isinstance(node, ast.ImportFrom) else {alias.name for alias in node.names}
            if found := MODULES & {name.split(".")[0] for name in names}:
                yield f"{path.name}:{node.lineno} imports {', '.join(found)}"


def test_nothing_that_runs_code_stands_on_the_load_path() -> None:
    assert len(LOADING) > 40
    assert [way for path in LOADING for way in ways_to_run_code(path)] == []


def test_a_way_to_run_code_would_be_found(tmp_path: Path) -> None:
    bad = ("import pickle", "from yaml import x\nyaml.load(x)", "importlib.import_module(config['m'])", "__import__(x)", "torch.load(f)")
    for number, text in enumerate(bad):
        path = tmp_path / f"{number}.py"
        path.write_text(text)
        assert len(list(ways_to_run_code(path))) == 1, text


def test_every_hostile_input_of_the_list_is_tried() -> None:
    """hub.md 4.4: twenty-five, terminal escapes, and tokens in URLs or exceptions."""
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"{__package__}.{path.stem}")
    assert set(CASES) == {*range(1, 26), "escapes", "token"}
