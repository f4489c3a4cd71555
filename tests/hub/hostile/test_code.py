"""The code that opens files, itself: nothing there could run what it reads."""

from __future__ import annotations

import ast
from pathlib import Path

import dreamgym

PACKAGE = Path(dreamgym.__file__).parent
LOADING = [
    *PACKAGE.glob("hub/*.py"),
    *PACKAGE.glob("formats/*.py"),
    *PACKAGE.glob("agents/*.py"),
    *PACKAGE.glob("models/*.py"),
    *(path for path in PACKAGE.glob("data/*.py") if not path.name.startswith("collect")),  # they write to their own processes
    PACKAGE / "registration.py",
]
CALLS = {"eval", "exec", "compile", "__import__", "import_module", "importlib.import_module", "torch.load", "np.load", "os.system"}
CALLS |= {"recover_environment", "dataset.recover_environment", "minari.load_dataset", "yaml.load"}
MODULES = {
    "pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "subprocess",
    "runpy",
    "ctypes",
    "importlib",
    "marshal",
    "shelve",
    "jsonpickle",
    "hydra",
}


def test_nothing_that_runs_code_stands_on_the_load_path() -> None:
    for path in LOADING:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in CALLS, f"{path.name}:{node.lineno}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert not MODULES.intersection(names), f"{path.name}:{node.lineno}"
