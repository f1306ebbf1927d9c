"""The notebooks: thin, of one form, without outputs; each runs from its first cell to its last without a network."""

import ast
import importlib
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests import golden
from tf_simclr import cli

nbformat = pytest.importorskip("nbformat", reason="the notebooks' tests need the extra `notebooks`")

FOLDER = golden.ROOT / "notebooks"
NAMES = (
    "ards_pipeline",
    "covid_chest_xrays",
    "explore_augmentations",
    "official_checkpoints",
    "pretrain_on_your_images",
    "tf_to_pytorch_and_back",
)
MOST_CELLS = 15
MOST_LINES = 30
"""Of a cell: a notebook imports the package and explains."""


def cells(name: str, kind: str | None = None) -> list:
    """The cells of a notebook, all or of one kind."""
    return [c for c in nbformat.read(FOLDER / f"{name}.ipynb", 4).cells if kind in (None, c.cell_type)]


def tree(name: str) -> ast.Module:
    """All the Python of a notebook."""
    lines = "\n".join(cell.source for cell in cells(name, "code")).splitlines()
    return ast.parse("\n".join(line for line in lines if not line.startswith("%")))


def test_there_are_these_notebooks_and_no_others():
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{name}.ipynb" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_short_valid_and_without_outputs(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MOST_CELLS
    assert all(len(cell.source.splitlines()) <= MOST_LINES for cell in notebook.cells)
    assert not [cell.id for cell in cells(name, "code") if cell.outputs or cell.execution_count]
    assert not [n for n in ast.walk(tree(name)) if isinstance(n, ast.ClassDef)]


def repository(name: str) -> str:
    """What the first cell installs from."""
    return re.search(r'^REPOSITORY = "(.*?)"', cells(name, "code")[0].source, re.M)[1]


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_its_title_a_badge_the_installation_and_the_accelerator(name):
    title, install, devices = cells(name)[:3]
    assert title.source.startswith("# ")
    address = repository(name).removeprefix("https://github.com/")
    assert f"(https://colab.research.google.com/github/{address}/blob/main/notebooks/{name}.ipynb)" in title.source
    assert "git+{REPOSITORY}" in install.source
    assert "checkout" in install.source
    assert "find_accelerator()" in devices.source
    assert any(re.search(r"^FAST = True\b", cell.source, re.M) for cell in cells(name, "code"))


def test_all_are_from_one_repository_and_begin_alike():
    assert len({repository(name) for name in NAMES}) == 1
    installs = {re.sub(r"\[.*?\] @", "[] @", cells(name, "code")[0].source) for name in NAMES}
    assert len(installs) == 1
    assert len({cells(name, "code")[1].source for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_import_of_this_project_exists(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("tf_simclr", "converters"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


OPTIONS = ("RECIPE", "VIEWS", "PROBE", "SOURCE", "WITH", "STUDY", "CHECKS", "options")
"""Names under which notebooks collect options; what they hold is left to the slow test."""


def commands(name: str) -> list[str]:
    """What is handed to `execute`, with 8 in place of what is computed, which is a number or a path."""
    found = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "execute":
            parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
            found.append("".join(part.value if isinstance(part, ast.Constant) else computed(part) for part in parts))
    return found


def computed(part: ast.FormattedValue) -> str:
    """A stand-in for a value: a number that is a path as well, or no options."""
    options = isinstance(part.value, ast.Name) and part.value.id in OPTIONS
    return "" if options else "8"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one_that_there_is(name):
    assert commands(name)
    for words in commands(name):
        cli.parse(shlex.split(words))


def links() -> set[str]:
    text = "\n".join(cell.source for name in NAMES for cell in cells(name, "markdown"))
    return set(re.findall(r"\]\((https://.*?)\)", text))


def test_links_are_addresses():
    assert all(re.fullmatch(r"https://[\w.-]+/[\w./-]*", link) for link in links())


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A folder with the packages and a notebook's place in it; proxies that do not answer cut the network."""
    for package in ("tf_simclr", "converters"):
        (tmp_path / package).symlink_to(golden.ROOT / package)
    (tmp_path / "notebooks").mkdir()
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_its_first_cell_to_its_last(name, offline):
    nbclient = pytest.importorskip("nbclient", reason="the notebooks' tests need the extra `notebooks`")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    place = {"metadata": {"path": str(offline / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs) or name == "tf_to_pytorch_and_back"
    text = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in text
    for wanted in SAYS.get(name, ()):
        assert wanted in text
    shutil.rmtree(offline / "notebooks")


SAYS = {
    "pretrain_on_your_images": ["the same bits: True", "contrast_acc", "untrained"],
    "tf_to_pytorch_and_back": ["Verified weights bit-equal", "all the same bits: True", "final_avg_pool  differs by"],
    "official_checkpoints": ["71.7", "76.3 %", "Suspicious  no NaN", "logistic regression"],
    "explore_augmentations": ["--preset radiographs"],
}
"""Notebook → what it must have printed."""


@pytest.mark.skipif(os.name != "posix", reason="paths are those of Linux")
def test_the_first_cell_takes_the_checkout_that_the_notebook_lies_in(monkeypatch, offline, capsys):
    monkeypatch.chdir(offline / "notebooks")
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setenv("PYTHONPATH", "")
    namespace: dict = {}
    exec(cells("explore_augmentations", "code")[0].source, namespace)
    assert namespace["checkout"] == Path(os.path.realpath(offline))
    assert os.environ["PYTHONPATH"] == str(namespace["checkout"])  # for processes that commands start
    assert "the checkout" in capsys.readouterr().out


def test_the_first_cell_installs_from_the_repository_where_there_is_no_checkout(monkeypatch, tmp_path):
    called = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda words, check: called.append((words, check)))
    exec(cells("explore_augmentations", "code")[0].source, {})
    [(words, check)] = called
    assert words[1:5] == ["-m", "pip", "install", "--quiet"]
    assert words[5] == f"tf-simclr[chest] @ git+{repository('explore_augmentations')}"
    assert check
