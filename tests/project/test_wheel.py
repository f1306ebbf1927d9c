"""What is shipped: a wheel with both packages and nothing else, of the version that is named everywhere."""

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests import golden

SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "tf_simclr", "converters")
BESIDE = ("tests", "benchmarks", "notebooks")
MOST_BYTES = 1_250_000
"""Of the wheel: it has nothing but source in it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy, so that the working tree stays clean; without isolation nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    rubbish = shutil.ignore_patterns("__pycache__", "goldens")
    (folder / "source").mkdir()
    for name in (*SHIPPED, *BESIDE):
        source = golden.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, ignore=rubbish)
        elif source.exists():
            shutil.copy(source, folder / "source" / name)
    words = ["wheel", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, str(folder / "source")], capture_output=True, text=True, check=False
    )
    if re.search(r"No module named|Cannot import 'setuptools|BackendUnavailable", done.stderr):
        pytest.skip("building a wheel without a network needs setuptools 77")
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_every_file_of_both_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    files = [path for name in SHIPPED[-2:] for path in (golden.ROOT / name).rglob("*.*") if path.is_file()]
    shipped = {str(path.relative_to(golden.ROOT)) for path in files if "__pycache__" not in path.parts}
    assert {name for name in names if ".dist-info/" not in name} == shipped
    assert wheel.stat().st_size < MOST_BYTES


@pytest.mark.slow
def test_the_wheel_says_what_it_is_under_which_licence_and_how_it_is_called(wheel):
    archive = zipfile.ZipFile(wheel)
    [folder] = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    about = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
    assert (about["Name"], about["License-Expression"]) == ("tf-simclr", "Apache-2.0")
    assert about["Requires-Python"] == ">=3.10"
    extras = {"tensorflow", "torch", "chest", "app", "jax", "export", "legacy", "all"}
    assert extras <= set(about.get_all("Provides-Extra"))
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.13"} <= set(about.get_all("Classifier"))
    assert any(text.startswith("Repository, ") for text in about.get_all("Project-URL"))
    assert {"tf_simclr/py.typed", "converters/py.typed"} <= set(archive.namelist())
    assert f"{folder}/licenses/LICENSE" in archive.namelist()
    scripts = archive.read(f"{folder}/entry_points.txt").decode()
    assert "tf-simclr = tf_simclr.cli:main" in scripts
    assert "simclr-convert = converters.__main__:main" in scripts


@pytest.mark.slow
def test_the_wheel_runs_from_where_it_is_installed(wheel, tmp_path):
    """Unpacked, as pip would; the working tree is not on the path."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import converters, tf_simclr; from tf_simclr import cli; print(tf_simclr.__file__); cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "checkpoints", "list", "--match", "pretrained/r50_1x_sk0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "71.7 %" in done.stdout


def test_the_version_is_the_same_everywhere():
    import tf_simclr

    version = f'"{tf_simclr.__version__}"'
    assert f"version = {version}" in (golden.ROOT / "pyproject.toml").read_text()
    assert f"version: {version}" in (golden.ROOT / "CITATION.cff").read_text()
    assert f"## {tf_simclr.__version__}" in (golden.ROOT / "CHANGELOG.md").read_text()


def test_the_repository_has_one_address():
    [address] = re.findall(r'^Repository = "(.+?)"', (golden.ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for notebook in (golden.ROOT / "notebooks").glob("*.ipynb"):
        assert f'git+{address}\\"' in notebook.read_text(), notebook.name
