"""The notebooks: thin, of one form, with small outputs; each runs from its first cell to its last without a network."""

import ast
import importlib
import re
import shlex
import shutil
from types import SimpleNamespace

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
    source = "\n".join(cell.source for cell in cells(name, "code"))
    return ast.parse(re.sub(r"^(\s*)%.*", r"\1pass", source, flags=re.MULTILINE))


def test_there_are_these_notebooks_and_no_others():
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"{name}.ipynb" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_short_and_valid_and_has_headings(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MOST_CELLS
    assert all(len(cell.source.splitlines()) <= MOST_LINES for cell in notebook.cells)
    assert not [n for n in ast.walk(tree(name)) if isinstance(n, ast.ClassDef)]
    headings = [line for cell in cells(name, "markdown") for line in cell.source.splitlines() if line.startswith("#")]
    assert [line for line in headings if line.startswith("# ")] == headings[:1]
    assert len(headings) >= 5
    assert not [line for line in headings[1:] if not line.startswith("## ")]


PICTURES = {"image/png", "image/jpeg"}


@pytest.mark.parametrize("name", NAMES)
def test_its_outputs_are_those_of_one_whole_run_small_and_of_no_machine(name):
    """`python -m tools.notebooks` makes them."""
    code = cells(name, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output.output_type for output in outputs if output.output_type == "error"]
    assert any(PICTURES & output.get("data", {}).keys() for output in outputs)
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= 200_000
    text = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert not re.findall(r"(?:^|[\s'\"(])(/(?:\w+/)+[\w.-]*|/(?:tmp|home|root|work|usr)\b|~/\S+)", text)
    assert not re.findall(r"\b\d[\d,.]* (?:s|ms|minutes|seconds)\b", text)  # on another machine it takes another time
    assert not re.findall(r"Traceback|Warning:|deprecated", text)


PUBLIC = ("tf_simclr", "converters", "tf_simclr.notebook", "tf_simclr.plots")
"""Modules for whoever writes a notebook; of others those names that a page of `docs/` speaks of."""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_imported_from_the_package_s_insides(name):
    pages = "\n".join(path.read_text() for path in (golden.ROOT / "docs").glob("*.md"))
    inside = []
    for node in ast.walk(tree(name)):
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        for full in (one for one in found if one.split(".")[0] in ("tf_simclr", "converters")):
            module, _, last = full.rpartition(".")
            known = full in PUBLIC or (module in PUBLIC and last in importlib.import_module(module).__all__)
            if not known and full not in pages and f"from {module} import {last}" not in pages:
                inside.append(full)
    assert not inside


INSTALL = re.compile(r'^ +%pip install -q "tf-simclr(?:\[(.*?)\])? @ git\+(https://\S+)"$', re.MULTILINE)


def install(name: str) -> tuple[list[str], str]:
    """The extras that the first cell installs, and the repository that it takes them from."""
    [(extras, address)] = INSTALL.findall(cells(name, "code")[0].source)
    return extras.split(",") if extras else [], address


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_its_title_a_badge_the_installation_and_the_accelerator(name):
    title, _, devices = cells(name)[:3]
    assert title.source.startswith("# ")
    address = install(name)[1].removeprefix("https://github.com/")
    assert f"(https://colab.research.google.com/github/{address}/blob/main/notebooks/{name}.ipynb)" in title.source
    assert "notebook.begin()" in devices.source
    assert any(re.search(r"^FAST = True\b", cell.source, re.M) for cell in cells(name, "code"))


def test_all_are_from_the_project_s_repository_and_begin_alike():
    [address] = re.findall(r'^Repository = "(.*?)"', (golden.ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {install(name)[1] for name in NAMES} == {address}
    assert (
        len({cells(name, "code")[0].source.replace(f"[{','.join(install(name)[0])}] @", " @") for name in NAMES}) == 1
    )
    assert len({cells(name, "code")[1].source for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_installed_and_no_extra_that_brings_a_kernel(name):
    source = "\n".join(cell.source for cell in cells(name, "code"))
    assert len(re.findall(r"[%!]\s*(?:pip|uv|conda|apt)\b|-m.{1,4}pip\b", source)) == 1
    assert not {"notebooks", "dev", "all", "docs"} & set(install(name)[0])


IMAGES = {"cpu": "pip-freeze.txt", "gpu": "pip-freeze.gpu.txt", "tpu": "pip-freeze.tpu.txt"}
"""Kind of Colab's machines → what their image has installed, name==version a line."""


def frozen(image: str) -> tuple[str, dict[str, str]]:
    """The file of what an image has, for a resolver, and what it says: package → version."""
    path = golden.ROOT.parent / "shared/colab" / IMAGES[image]
    if not path.is_file():
        pytest.skip(f"needs what Colab has installed, {path}, which is not part of the repository")
    found = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return str(path), {canonical(package): version for package, version in found}


def resolved(extras: tuple[str, ...], constraints: str) -> dict[str, str]:
    """Package → version of what a first cell would install on Colab's Python; skips where nothing can resolve it."""
    from tests.project.test_resolution import resolved  # needs tomllib, which Python 3.10 has not

    return {
        canonical(package): v for package, v in resolved(*extras, python="3.13", constraints=(constraints,)).items()
    }


def canonical(package: str) -> str:
    """The one form of a package's names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(
    "extras", sorted({tuple(install(name)[0]) for name in NAMES}), ids=lambda e: ",".join(e) or "base"
)
def test_what_is_installed_on_colab_changes_nothing_that_colab_has(extras, image):
    path, there = frozen(image)
    wanted = resolved(extras, path)
    assert {"keras", "numpy"} <= wanted.keys()
    assert {k: (there[k], v) for k, v in wanted.items() if there.get(k, v) != v} == {}
    assert ("tensorflow" in wanted) is ("chest" in extras)  # a TPU's image has none, and runs on JAX
    assert not {"torch", "jax", "ipykernel", "ipython", "jupyter-client"} & wanted.keys()


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
def test_the_extra_for_running_notebooks_here_would_replace_colab_s_kernel(image):
    """That the test above would see it: this is what notebooks once installed."""
    path, there = frozen(image)
    assert there["ipykernel"].startswith("6.17.")
    with pytest.raises(AssertionError, match="ipykernel"):
        resolved(("notebooks",), path)


@pytest.mark.parametrize("name", NAMES)
def test_every_import_of_this_project_exists(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("tf_simclr", "converters"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


OPTIONS = ("RECIPE", "VIEWS", "PROBE", "SOURCE", "WITH", "STUDY", "CHECKS", "SHORT", "SEEN", "options")
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
    """A folder with a notebook's place in it; proxies that do not answer cut the network."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(golden.ROOT))  # what the kernel finds installed is this checkout
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
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in text
    for wanted in SAYS.get(name, ()):
        assert wanted in text
    shutil.rmtree(offline / "notebooks")


SAYS = {
    "pretrain_on_your_images": ["the same bits: True", "contrast_acc", "untrained"],
    "tf_to_pytorch_and_back": ["Verified weights bit-equal", "all the same bits: True", "final_avg_pool "],
    "official_checkpoints": ["71.7", "76.3 %", "Suspicious  no NaN", "logistic regression"],
    "explore_augmentations": ["--preset radiographs"],
}
"""Notebook → what it must have printed."""


@pytest.mark.parametrize("found", [None, object()])
def test_the_first_cell_installs_where_the_package_is_not_installed_and_only_there(found, monkeypatch):
    called = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    cell = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager().transform_cell
    shell = SimpleNamespace(run_line_magic=lambda name, line: called.append((name, shlex.split(line))))
    for name in NAMES:
        exec(cell(cells(name, "code")[0].source), {"get_ipython": lambda: shell})
    asked = [
        f"tf-simclr{f'[{chr(44).join(extras)}]' * bool(extras)} @ git+{url}" for extras, url in map(install, NAMES)
    ]
    assert called == ([] if found else [("pip", ["install", "-q", what]) for what in asked])
