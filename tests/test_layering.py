"""Who may import whom, and what stays light: read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("tf_simclr", "converters")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

BASE = {
    "tf_simclr.contents",
    "tf_simclr.data",
    "tf_simclr.errors",
    "tf_simclr.files",
    "tf_simclr.foreign",
    "tf_simclr.layerwise",
    "tf_simclr.lock",
    "tf_simclr.losses",
    "tf_simclr.models",
    "tf_simclr.models.architecture",
    "tf_simclr.optimizers",
    "tf_simclr.places",
    "tf_simclr.replicas",
    "tf_simclr.terminal",
}
METHOD = {
    "tf_simclr.models.simclr",
    "tf_simclr.models.moco",
    "tf_simclr.models.classifier",
    "tf_simclr.models.distillation",
    "tf_simclr.data.pipeline",
}
JOBS = {"tf_simclr.checkpoint", "tf_simclr.evaluation", "tf_simclr.plots", "tf_simclr.diagnostics", "tf_simclr.exports"}
TASKS = {"tf_simclr.config", "tf_simclr.chest", "tf_simclr.monitoring", "tf_simclr.training"} | JOBS | METHOD | BASE
CHECKPOINTS = [f"tf_simclr.tasks.checkpoints_{verb}" for verb in ("list", "get", "convert")]

ARDS = [f"tf_simclr.tasks.{name}" for name in ("chest_ards", "ards_runs", "ards_report")]

MAY_IMPORT = {
    "tf_simclr": BASE | METHOD | {"tf_simclr.checkpoint", "tf_simclr.registration"},  # the public names
    "tf_simclr.__main__": {"tf_simclr.cli"},
    "tf_simclr.cli": {
        "tf_simclr.config",
        "tf_simclr.tasks",
        "tf_simclr.tasks.demo",
        "tf_simclr.errors",
        "tf_simclr.foreign",
        "tf_simclr.places",
        "tf_simclr.terminal",
    },
    "tf_simclr.accelerators": {"tf_simclr.errors"},
    "tf_simclr.run": {"tf_simclr.cli", "tf_simclr.config", "tf_simclr.errors", "tf_simclr.terminal"},
    "tf_simclr.config": {"tf_simclr.errors", "tf_simclr.models.architecture", "tf_simclr.places"},
    "tf_simclr.tasks": TASKS,
    "tf_simclr.tasks.demo": {"tf_simclr.tasks", "converters"} | TASKS,  # shows the way to PyTorch, too
    **dict.fromkeys(CHECKPOINTS, {"converters", *CHECKPOINTS} | TASKS),  # the official ones, by their catalogue
    "tf_simclr.tasks.official": {"tf_simclr.tasks", "converters"} | TASKS,  # leaves SavedModels behind
    **dict.fromkeys(ARDS, {"tf_simclr.tasks", "tf_simclr.tasks.sweep", *ARDS} | TASKS),  # its stages are commands
    "tf_simclr.monitoring": {"tf_simclr.training"} | JOBS | METHOD | BASE,
    "tf_simclr.training": {"tf_simclr.checkpoint"} | METHOD | BASE,
    "tf_simclr.chest": JOBS | METHOD | BASE,
    "tf_simclr.chest.app_server": {"tf_simclr.chest"} | JOBS | METHOD | BASE,  # the web server, and nobody else may
    "tf_simclr.tasks.chest_app": {"tf_simclr.tasks", "tf_simclr.chest.app_server"} | TASKS,
    "tf_simclr.checkpoint": {"converters"} | METHOD | BASE,
    "tf_simclr.evaluation": METHOD | BASE,
    "tf_simclr.plots": {"tf_simclr.errors", "tf_simclr.files"},
    "tf_simclr.diagnostics": {"tf_simclr.errors"},
    "tf_simclr.exports": {"tf_simclr.data", "tf_simclr.errors", "tf_simclr.files", "tf_simclr.models"},
    "tf_simclr.tasks.sweep": {"tf_simclr.tasks", "tf_simclr.cli"} | TASKS,  # its trials are commands
    **dict.fromkeys(METHOD, BASE),
    "tf_simclr.models.distillation": {"tf_simclr.models.classifier"} | BASE,
    "tf_simclr.models.moco": {"tf_simclr.models.simclr"} | BASE,
    **dict.fromkeys(BASE, BASE),
    "tf_simclr.models.architecture": {"tf_simclr.errors"},  # after BASE, whose entries they replace
    "tf_simclr.contents": {"tf_simclr.errors"},
    "tf_simclr.errors": {"tf_simclr.terminal"},
    "tf_simclr.terminal": set(),
    "tf_simclr.registration": set(),  # imports by name what a file asks for
    "tf_simclr.files": {"tf_simclr.errors"},
    "tf_simclr.foreign": {"tf_simclr.errors"},
    "tf_simclr.lock": {"tf_simclr.errors", "tf_simclr.foreign"},
    "tf_simclr.places": {"tf_simclr.errors"},
    "converters": {
        "tf_simclr.models",
        "tf_simclr.models.architecture",
        "tf_simclr.checkpoint",
        "tf_simclr.errors",
        "tf_simclr.files",
        "tf_simclr.foreign",
        "tf_simclr.places",
        "tf_simclr.terminal",
    },
}
"""Part → parts it may import besides itself; a module belongs to the longest name that it starts with."""

ONLY_IN = {
    "torch": {"converters"},
    "safetensors": {"converters"},
    "pydicom": {"tf_simclr.chest"},
    "pandas": {"tf_simclr.chest"},
    "uvicorn": {"tf_simclr.chest.app_server"},
    "sklearn": {"tf_simclr.evaluation", "tf_simclr.data", "tf_simclr.chest"},
    "matplotlib": {"tf_simclr.plots", "tf_simclr.diagnostics"},
    "tensorflow_datasets": {"tf_simclr.data", "tf_simclr.chest"},
    "tyro": {"tf_simclr.cli", "tf_simclr.config", "converters"},
}
"""Third party → the parts that need it."""

POSITIONAL = {
    "compute_loss": "Keras decides",
    "compute_metrics": "Keras decides",
    "update_step": "Keras decides",
    "redirect_request": "urllib decides",
    "__exit__": "Python decides",
    "resnet": "resnet(depth, width=1, sk_ratio=0.0, …) is a documented public name",
    "nt_xent": "nt_xent(z1, z2, temperature=0.1) is a documented public name",
}
"""Public functions that take more than two arguments by position, and why."""
LOSSES = ("cross_entropy", "decoupled", "info_nce", "metrics", "pairs", "similarity", "supervised")
LAYER_FUNCTIONS = {"tf_simclr.models.resnet", "converters.numpy_resnet", *(f"tf_simclr.losses.{x}" for x in LOSSES)}
"""Modules of functions of tensors, which are called as the formula is written: x, filters, name."""


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path) for path in FILES}


def part(name: str) -> str:
    """The longest entry of the table that a module belongs to."""
    names = [entry for entry in MAY_IMPORT if name == entry or name.startswith(entry + ".")]
    found = max(names, key=len)
    if found == "tf_simclr" != name:
        raise AssertionError(f"{name} is in no part: give it one in MAY_IMPORT")
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere in it: relative, inside functions, and submodules by `from`."""
    package = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            origin = origin if node.level else str(node.module)
            children = {f"{origin}.{alias.name}" for alias in node.names}
            found |= children & MODULES or {origin}
    return found


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_point_down_only(path):
    own = part(module(path))
    internal = {name for name in imports(path) if name.split(".")[0] in PACKAGES}
    targets = {part(name) for name in internal - {"tf_simclr"}} - {own}
    assert not targets - MAY_IMPORT[own], f"{module(path)} imports {internal}"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_third_parties_stay_in_the_parts_that_need_them(path):
    own = part(module(path))
    for name in {name.split(".")[0] for name in imports(path)} & set(ONLY_IN):
        assert any(own == allowed or own.startswith(allowed + ".") for allowed in ONLY_IN[name]), name


def reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        new = arrows.get(ahead.pop(), set()) - seen
        seen |= new
        ahead += new
    return seen


def test_no_modules_import_each_other_in_a_circle():
    lazy = {"tf_simclr", "converters", "tf_simclr.checkpoint"}  # names on demand; checkpoint reads foreign weights
    arrows = {module(path): imports(path) & (MODULES - lazy - {module(path)}) for path in FILES}
    circles = {name: arrows[name] for name in arrows if name in reachable(name, arrows)}
    assert not {name: {t for t in targets if t in circles} for name, targets in circles.items()}


LIGHT = [
    "tf_simclr",
    "tf_simclr.accelerators",
    "tf_simclr.errors",
    "tf_simclr.config",
    "tf_simclr.places",
    "tf_simclr.models.architecture",
    "converters",
]
HELP = [("tf_simclr",), ("tf_simclr", "pretrain"), ("tf_simclr", "linear-eval"), ("tf_simclr", "demo")]
HELP += [("tf_simclr", "presets"), ("tf_simclr", "checkpoints", "get"), ("tf_simclr.run",), ("converters.tf2torch",)]
HEAVY = """
heavy = sorted({"tensorflow", "keras", "torch", "sklearn", "matplotlib"} & set(sys.modules))
sys.exit(f"loads {heavy}" if heavy else 0)
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", LIGHT)
def test_an_import_loads_no_framework(name):
    result = run(f"import sys, {name}{HEAVY}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_loads_no_framework(command):
    program, *rest = command
    result = run(
        f"import runpy, sys\nsys.argv = {[program, *rest, '--help']}\n"
        f"try:\n    runpy.run_module('{program}', run_name='__main__')\n"
        f"except SystemExit as end:\n    assert not end.code, end.code\n{HEAVY}"
    )
    assert result.returncode == 0, result.stderr
    assert "--help" in result.stdout or "usage" in result.stdout


@pytest.mark.parametrize("path", FILES, ids=module)
def test_packages_neither_print_nor_assert_nor_pickle_nor_swallow(path):
    assert not {"dill", "joblib", "shelve", "marshal"} & {name.split(".")[0] for name in imports(path)}
    for node in ast.walk(TREES[path]):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), where
        if isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") != "print", where
            unsafe = [k for k in node.keywords if k.arg == "allow_pickle" and getattr(k.value, "value", True)]
            unsafe += [k for k in node.keywords if k.arg == "weights_only" and not getattr(k.value, "value", False)]
            assert not unsafe, where
            speaks = getattr(node.func, "attr", "") == "write" and ast.unparse(node.func).startswith("sys.std")
            assert not speaks, f"{where}: tf_simclr.terminal.write never crashes"
        if getattr(getattr(node, "value", None), "id", "") == "pickle":
            assert node.attr == "UnpicklingError", where  # torch's refusal to run what a file holds may be caught
        if isinstance(node, ast.ImportFrom):
            assert node.module != "pickle", where
        if isinstance(node, ast.ExceptHandler):
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), where


@pytest.mark.parametrize("path", FILES, ids=module)
def test_files_have_telling_names(path):
    assert not {"utils", "helpers", "common", "misc"} & set(module(path).split("."))


def public(path: Path):
    """Functions and methods of the module that others may call: neither nested nor with a leading underscore."""
    owners = [TREES[path], *(n for n in TREES[path].body if isinstance(n, ast.ClassDef) and n.name[0] != "_")]
    found = [n for owner in owners for n in owner.body if isinstance(n, ast.FunctionDef)]
    return [f for f in found if f.name == "__init__" or not f.name.startswith("_") or f.name in POSITIONAL]


@pytest.mark.parametrize("path", [p for p in FILES if module(p) not in LAYER_FUNCTIONS], ids=module)
def test_public_parameters_after_the_second_are_keyword_only(path):
    for function in public(path):
        names = [a.arg for a in function.args.posonlyargs + function.args.args if a.arg not in ("self", "cls")]
        fits = len(names) <= 2 or function.name in POSITIONAL
        assert fits, f"{path.name}:{function.lineno} {function.name}({', '.join(names)})"
