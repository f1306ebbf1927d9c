"""Who may import whom, and what stays light: read from the sources."""

import ast
import functools
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from tf_simclr import moved
from tools.rooms import reached

ROOT = Path(__file__).parents[1]
PACKAGES = ("tf_simclr", "converters")
ROOMS = (*PACKAGES, "tests", "docs", "tools", "benchmarks", "notebooks")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}

WITHOUT_FRAMEWORK = {"tf_simclr.models.architecture", "tf_simclr.data.recipe", "tf_simclr.evaluation.transfer_sets"}
GROUND = {
    f"tf_simclr.{name}" for name in ("buckets", "errors", "files", "foreign", "frameworks", "machine", "terminal")
}
METHOD = {f"tf_simclr.{name}" for name in ("data", "losses", "models", "optimizers", "replicas")}
METHOD |= {"tf_simclr.data.radiographs"} | WITHOUT_FRAMEWORK
LIBRARY = GROUND | METHOD | {f"tf_simclr.{name}" for name in ("evaluation", "exports", "plots")}
LIBRARY |= {f"tf_simclr.{name}" for name in ("config", "own", "own.named", "run_folder", "training", "weights")}
COMMANDS = {"tf_simclr.commands"} | LIBRARY
CONVERSION = {f"converters.{name}" for name in ("layout", "tensors")}
FILES_OF_ANY_KIND = {f"converters.{name}" for name in ("keras_files", "opening", "other", "pytorch", "tensorflow")}
WAY = {f"converters.{path.stem}" for path in (ROOT / "converters").glob("[a-z]*.py")} - CONVERSION
CHEST = {f"tf_simclr.chest.{room}" for room in ("collections", "files", "html", "kept", "model")}

MAY_IMPORT = {
    # the ground
    "tf_simclr.terminal": set(),
    "tf_simclr.registration": {"tf_simclr.frameworks"},  # imports by name what a file asks for
    "tf_simclr.moved": set(),  # likewise
    "tf_simclr.errors": {"tf_simclr.terminal"},
    **{f"tf_simclr.{name}": {"tf_simclr.errors"} for name in ("foreign", "frameworks")},
    "tf_simclr.machine": {"tf_simclr.errors", "tf_simclr.frameworks"},
    "tf_simclr.files": {"tf_simclr.errors", "tf_simclr.foreign", "tf_simclr.terminal"},  # what stands for what is said
    "tf_simclr.buckets": {
        f"tf_simclr.{name}" for name in ("errors", "files", "foreign", "frameworks", "machine", "terminal")
    },
    **{name: {"tf_simclr.errors"} for name in WITHOUT_FRAMEWORK},
    # the method
    "tf_simclr.config.options": {"tf_simclr.errors", "tf_simclr.terminal"},
    "tf_simclr.config": {"tf_simclr.config.options", "tf_simclr.own.named"}
    | {"tf_simclr.data.radiographs"}  # what words there are for modalities
    | {"tf_simclr.errors", "tf_simclr.files", "tf_simclr.terminal"}
    | WITHOUT_FRAMEWORK,
    "tf_simclr.config.first_look": {
        "converters.loading",
        "converters.opening",
        "converters.published",
        "converters.tensorflow",
        "tf_simclr.config",
        "tf_simclr.data",
        "tf_simclr.data.radiographs",
        "tf_simclr.own.named",
        "tf_simclr.evaluation.transfer_sets",
        "tf_simclr.run_folder",
    }
    | GROUND,
    "tf_simclr.replicas": GROUND,
    "tf_simclr.optimizers": GROUND,
    "tf_simclr.losses": {"tf_simclr.replicas"} | GROUND,
    "tf_simclr.data": {"tf_simclr.data.recipe"} | GROUND,
    "tf_simclr.data.radiographs": {"tf_simclr.data"} | GROUND,
    "tf_simclr.models": METHOD - {"tf_simclr.data"} | GROUND,
    "tf_simclr.own.named": {"tf_simclr.errors"},
    "tf_simclr.own": {"tf_simclr.models"} | {"tf_simclr.own.named"} | GROUND,
    "tf_simclr.plots": GROUND,
    "tf_simclr.exports": METHOD | GROUND,
    "tf_simclr.run_folder": METHOD | GROUND,
    # checkpoints: tensors and names, then files, then networks, then the way from one to the other
    "converters": {"tf_simclr.moved"},
    "converters.__main__": GROUND,  # imports the command that it is given
    **dict.fromkeys(CONVERSION, CONVERSION | GROUND),
    "converters.names": CONVERSION | METHOD | GROUND,
    **dict.fromkeys(
        FILES_OF_ANY_KIND,
        FILES_OF_ANY_KIND | CONVERSION | METHOD | GROUND | {"converters.names", "converters.published"},
    ),
    "converters.published": {"converters.tensorflow"} | GROUND,
    "converters.networks": {"converters.names", "converters.pytorch"} | CONVERSION | METHOD,
    **dict.fromkeys(
        WAY,
        {"converters", "converters.names", "converters.networks", "converters.published", "tf_simclr.config.options"}
        | WAY
        | FILES_OF_ANY_KIND
        | CONVERSION
        | METHOD
        | GROUND
        | {"tf_simclr.run_folder"},
    ),
    # what is done with them
    "tf_simclr.evaluation": METHOD | GROUND,
    "tf_simclr.training": {"tf_simclr.evaluation", "tf_simclr.plots", "tf_simclr.run_folder"} | METHOD | GROUND,
    "tf_simclr.weights": {
        "converters",
        "converters.loading",
        "converters.networks",
        "converters.published",
        "tf_simclr.own",
        "tf_simclr.run_folder",
    }
    | METHOD
    | GROUND,
    "tf_simclr.training.publishing": {"tf_simclr.run_folder", "tf_simclr.training", "tf_simclr.weights"}
    | METHOD
    | GROUND,
    "tf_simclr": {"tf_simclr.training.publishing", "tf_simclr.weights", "tf_simclr.registration", "tf_simclr.moved"}
    | METHOD,  # the public names
    # the commands
    "tf_simclr.commands": {"tf_simclr.config.first_look", "tf_simclr.training.publishing"} | LIBRARY,
    "tf_simclr.commands.search": {"tf_simclr.cli", "tf_simclr.config.first_look"} | LIBRARY,  # its trials are commands
    "tf_simclr.commands.sweep": {"tf_simclr.commands.search"} | COMMANDS,
    "tf_simclr.commands.demo": {"converters", "converters.verification", "converters.names"}
    | COMMANDS,  # shows the way to PyTorch, too
    "tf_simclr.commands.checkpoints": {"converters", "converters.names", "converters.published"} | WAY | COMMANDS,
    "tf_simclr.official": {"converters"} | COMMANDS,  # leaves SavedModels behind
    # the radiographs' wing
    "tf_simclr.chest": set(),
    "tf_simclr.chest.html": {"tf_simclr.plots"},
    "tf_simclr.chest.kept": LIBRARY,
    "tf_simclr.chest.first_look": {"tf_simclr.chest.page"} | CHEST | LIBRARY,
    "tf_simclr.chest.files": LIBRARY,
    "tf_simclr.chest.collections": {"tf_simclr.chest.files"} | COMMANDS,
    "tf_simclr.chest.model": {"tf_simclr.chest.files"} | COMMANDS,
    "tf_simclr.chest.covid": CHEST | COMMANDS,
    "tf_simclr.chest.ards": {"tf_simclr.commands.sweep"} | CHEST | COMMANDS,
    "tf_simclr.chest.findings": CHEST | COMMANDS,
    "tf_simclr.chest.evaluate": CHEST | COMMANDS,
    "tf_simclr.chest.page": CHEST | COMMANDS,
    "tf_simclr.chest.page.server": {"tf_simclr.chest.page"} | CHEST | COMMANDS,  # the web server, and nobody else may
    "tf_simclr.chest.page.command": {"tf_simclr.chest.page", "tf_simclr.chest.page.server"} | CHEST | COMMANDS,
    # the doors
    "tf_simclr.cli": {"tf_simclr.chest.first_look"}
    | {"tf_simclr.config.first_look", "tf_simclr.config.options", "tf_simclr.config", "tf_simclr.commands"}
    | {"tf_simclr.own.named"}
    | GROUND,
    "tf_simclr.run": {"tf_simclr.cli", "tf_simclr.config", "tf_simclr.config.first_look", "tf_simclr.official"}
    | GROUND,
    "tf_simclr.__main__": {"tf_simclr.cli"},
    "tf_simclr.notebook": {"tf_simclr.cli"} | COMMANDS,
}
"""Part → parts it may import besides itself, from the ground up; a module belongs to the longest name that it starts
with."""

ONLY_IN = {
    "torch": {"converters", "tf_simclr.machine"},
    "fsspec": {"tf_simclr.buckets"},
    "safetensors": {"converters"},
    "pydicom": {"tf_simclr.chest"},
    "pandas": {"tf_simclr.chest"},
    "uvicorn": {"tf_simclr.chest.page.server"},
    "sklearn": {"tf_simclr.evaluation", "tf_simclr.data", "tf_simclr.chest"},
    "matplotlib": {"tf_simclr.plots"},
    "tensorflow_datasets": {"tf_simclr.data", "tf_simclr.chest"},
    "pyarrow": {"tf_simclr.data", "tf_simclr.evaluation"},
    "datasets": {"tf_simclr.data"},
    "array_record": {"tf_simclr.data"},
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
LOSSES = ("cross_entropy", "decoupled", "info_nce", "pairs", "similarity", "supervised")
LAYER_FUNCTIONS = {
    "tf_simclr.models.resnet",
    "converters.networks.in_numpy",
    *(f"tf_simclr.losses.{x}" for x in LOSSES),
}
"""Modules of functions of tensors, which are called as the formula is written: x, filters, name."""

MOST_MODULES = 15
"""In a folder; doors, which are started by their names, not counted."""
DOORS = {"__init__", "__main__", "cli", "notebook", "run", "tf2torch", "torch2tf", "inspect", "verify"}
UPSTREAM = {"data.py", "data_util.py", "lars_optimizer.py", "main_lincls.py", "model.py", "model_util.py"}
UPSTREAM |= {"objective.py", "resnet_wider.py", "simclr.py"}
UPSTREAM |= {"benchmarks/imagenet/resnet50/simclr.py", "docs/spec.md"}  # lightly's and Git LFS'
"""Files of others that are spoken of here."""


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path) for path in FILES}


def part(name: str) -> str:
    """The longest entry of the table that a module belongs to."""
    names = [entry for entry in MAY_IMPORT if name == entry or name.startswith(entry + ".")]
    found = max(names, key=len)
    if found in PACKAGES and found != name:
        raise AssertionError(f"{name} is in no part: give it one in MAY_IMPORT")
    return found


def types_only(tree: ast.Module) -> set[int]:
    """The nodes that are there for a type checker: they are never executed."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {id(node) for block in blocks for child in block.body for node in ast.walk(child)}


def imports(path: Path, *, executed: bool = False) -> set[str]:
    """Every module that a file imports anywhere in it: relative, inside functions, and submodules by `from`.

    Args:
        path: the file.
        executed: leaves out what only a type checker reads, and counts a name of a package as an import of that.
    """
    package = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
    found, left_out = set(), types_only(TREES[path]) if executed else set()
    for node in ast.walk(TREES[path]):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            origin = origin if node.level else str(node.module)
            children = {f"{origin}.{alias.name}" for alias in node.names}
            found |= children & MODULES or {origin}
            if executed and not children <= MODULES:
                found.add(origin)
    return found


def test_imports_point_down_only():
    wrong = {}
    for path in FILES:
        own = part(module(path))
        internal = {name for name in imports(path) if name.split(".")[0] in PACKAGES}
        targets = {part(name) for name in internal - {"tf_simclr"}} - {own} - MAY_IMPORT[own]
        if targets:
            wrong[module(path)] = sorted(targets)
    assert not wrong


def test_third_parties_stay_in_the_parts_that_need_them():
    wrong = {}
    for path in FILES:
        own = part(module(path))
        for name in {name.split(".")[0] for name in imports(path)} & set(ONLY_IN):
            if not any(own == allowed or own.startswith(allowed + ".") for allowed in ONLY_IN[name]):
                wrong[module(path)] = name
    assert not wrong


def test_no_modules_import_each_other_in_a_circle():
    arrows = {module(path): imports(path, executed=True) & MODULES - {module(path)} for path in FILES}
    circles = {name: arrows[name] for name in arrows if name in reached(name, arrows)}
    assert not {name: {t for t in targets if t in circles} for name, targets in circles.items()}


def test_a_folder_can_be_taken_in_at_a_glance():
    folders: dict[str, list[str]] = {}
    for path in FILES:
        if path.stem not in DOORS:
            folders.setdefault(str(path.parent.relative_to(ROOT)), []).append(path.stem)
    assert not {folder: len(names) for folder, names in folders.items() if len(names) > MOST_MODULES}


def spoken(path: Path) -> str:
    """What a file says to its readers: a source's comments and texts, a document as it is."""
    if path.suffix != ".py":
        return path.read_text()
    with path.open("rb") as file:
        tokens = [t.string for t in tokenize.tokenize(file.readline) if t.type in (tokenize.COMMENT, tokenize.STRING)]
    return "\n".join(tokens)


def defined(path: Path) -> set[str]:
    """Names that a module has: its own, what it imports, and what it loads on demand."""
    names = (
        set(re.findall(r'"(\w+)"', ast.unparse(TREES[path]).replace("'", '"'))) if path.stem == "__init__" else set()
    )
    for node in TREES[path].body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {getattr(node, "name", "")} | {
            x.id for t in targets if t for x in ast.walk(t) if isinstance(x, ast.Name)
        }
        names |= {alias.asname or alias.name for alias in getattr(node, "names", ())}
    return names


def missing(text: str) -> set[str]:
    """What a text speaks of as this repository's and is not there."""
    text = re.sub(r"https?://\S+", "", text)
    found = set(re.findall(r"\b(?:facts?|traps?) \d+", text))
    roots = "|".join(ROOMS)
    for name in re.findall(rf"(?<![\w./-])(?:{roots})/[\w./*-]*[\w*]", text):
        if not (any(ROOT.glob(name)) if "*" in name else (ROOT / name).exists()):
            found |= {name} - UPSTREAM
    for page, anchor in re.findall(r"(docs/[\w/-]+\.md)#([\w-]+)", text):
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.M) if (ROOT / page).exists() else []
        if anchor not in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}:
            found.add(f"{page}#{anchor}")
    for name in re.findall(rf"(?<![\w./>-])((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z]\w*)+)", text):
        if name.endswith((".py", ".toml")) or name in moved.MOVED or moved.now(name):
            continue
        place = next((n for n in prefixes(name) if n in MODULES), None)
        rest = name[len(place or "") :].strip(".").split(".")[0]
        path = next((p for p in FILES if module(p) == place), None)
        if path is None or (rest and rest not in defined(path)):
            found.add(name)
    return found | set(re.findall(r"(?<![\w./*{}-])([a-z]\w*\.py)\b", text)) - programs() - UPSTREAM


@functools.cache
def programs() -> set[str]:
    """Names of the files of Python, without those of an environment beside them."""
    beside = {path.name for path in ROOT.glob("*.py")}
    return beside | {path.name for room in ROOMS for path in (ROOT / room).rglob("*.py")}


def prefixes(name: str) -> list[str]:
    """A dotted name, and what it begins with, the longest first."""
    words = name.split(".")
    return [".".join(words[:n]) for n in range(len(words), 0, -1)]


def test_nothing_is_spoken_of_that_is_not_in_the_repository():
    documents = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]
    absent = {str(path.relative_to(ROOT)): missing(spoken(path)) for path in [*FILES, *documents]}
    assert not {path: sorted(names) for path, names in absent.items() if names}


LIGHT = [
    "tf_simclr",
    "tf_simclr.machine.accelerators",
    "tf_simclr.errors",
    "tf_simclr.frameworks",
    "tf_simclr.config",
    "tf_simclr.files.places",
    *sorted(WITHOUT_FRAMEWORK),
    "converters",
]
HELP = [("tf_simclr",), ("tf_simclr", "pretrain"), ("tf_simclr", "linear-eval"), ("tf_simclr", "demo")]
HELP += [("tf_simclr", "presets"), ("tf_simclr", "checkpoints", "get"), ("tf_simclr.run",), ("converters.tf2torch",)]
HELP += [("converters",), ("converters", "verify")]
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


def faults(path: Path):
    """Yields what a file does that none may: print, assert, pickle, swallow."""
    pickling = {"dill", "joblib", "shelve", "marshal"} & {name.split(".")[0] for name in imports(path)}
    yield from ((TREES[path], f"imports {name}") for name in pickling)
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Assert):
            yield node, "asserts"
        if isinstance(node, ast.Call):
            if getattr(node.func, "id", "") == "print":
                yield node, "prints"
            unsafe = [k for k in node.keywords if k.arg == "allow_pickle" and getattr(k.value, "value", True)]
            unsafe += [k for k in node.keywords if k.arg == "weights_only" and not getattr(k.value, "value", False)]
            if unsafe:
                yield node, "unpickles"
            if getattr(node.func, "attr", "") == "write" and ast.unparse(node.func).startswith("sys.std"):
                yield node, "writes where tf_simclr.terminal.write never crashes"
        # torch's refusal to run what a file holds may be caught
        if getattr(getattr(node, "value", None), "id", "") == "pickle" and node.attr != "UnpicklingError":
            yield node, "pickles"
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            yield node, "pickles"
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
            yield node, "swallows"


def test_packages_neither_print_nor_assert_nor_pickle_nor_swallow():
    found = [(path, fault) for path in FILES for fault in faults(path)]
    assert not [f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {what}" for path, (node, what) in found]


def test_files_have_telling_names():
    assert not [path for path in FILES if {"utils", "helpers", "common", "misc"} & set(module(path).split("."))]


def public_names(path: Path) -> set[str]:
    """Names of a module without an underscore, but for what is started by its name or that Keras names things after."""
    names = set()
    for node in TREES[path].body:
        if isinstance(node, ast.ClassDef):
            bases = " ".join(map(ast.unparse, [*node.bases, *node.decorator_list]))
            names |= {node.name} - {node.name if re.search("keras|layers", bases) else ""}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {x.id for target in targets for x in ast.walk(target) if isinstance(x, ast.Name)}
    return {name for name in names if not name.startswith("_")} - {"run", "main"}


def test_what_nobody_outside_a_module_uses_is_private():
    texts = [path for pattern in ("*.py", "*.md", "*.ipynb", "*.toml") for path in ROOT.rglob(pattern)]
    texts = [(path, path.read_text()) for path in texts if not {".venv", "goldens", "build"} & set(path.parts)]
    words = {path: set(re.findall(r"\w+", text)) for path, text in texts}
    unused = {}
    for path in FILES:
        package, _, last = module(path).rpartition(".")
        others = [
            words[other]
            for other, text in texts
            if other != path and (module(path) in text or (package in text and last in words[other]))
        ]
        names = public_names(path) if path.stem not in ("__init__", "__main__") else set()
        if idle := {name for name in names if not any(name in found for found in others)}:
            unused[str(path.relative_to(ROOT))] = sorted(idle)
    assert not unused, f"used by no other module, test or document: {unused}"


def public(path: Path):
    """Functions and methods of the module that others may call: neither nested nor with a leading underscore."""
    owners = [TREES[path], *(n for n in TREES[path].body if isinstance(n, ast.ClassDef) and n.name[0] != "_")]
    found = [n for owner in owners for n in owner.body if isinstance(n, ast.FunctionDef)]
    return [f for f in found if f.name == "__init__" or not f.name.startswith("_") or f.name in POSITIONAL]


def test_public_parameters_after_the_second_are_keyword_only():
    wrong = []
    for path in FILES:
        for function in public(path) if module(path) not in LAYER_FUNCTIONS else ():
            names = [a.arg for a in function.args.posonlyargs + function.args.args if a.arg not in ("self", "cls")]
            if len(names) > 2 and function.name not in POSITIONAL:
                wrong.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}({', '.join(names)})")
    assert not wrong
