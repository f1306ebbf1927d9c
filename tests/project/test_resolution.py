"""Each extra can be installed on Linux x86-64 with the tested versions, on every Python, and brings one CUDA at most.

The resolver is uv's: it looks at packages' metadata alone, for any Python, and downloads none of them.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.golden import ROOT

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
pytestmark = pytest.mark.slow
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_31"  # Debian 11, Ubuntu 20.04 and later; libtpu has no wheel for an older one
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ACCELERATED = ("gpu", "gpu-jax", "tpu")
OTHERS = sorted(PROJECT["optional-dependencies"].keys() - {*ACCELERATED, "legacy"})
UNREACHABLE = re.compile(r"dns error|error sending request|Failed to fetch|Connection|timed out|network", re.IGNORECASE)


def resolved(*extras: str, python: str, constraints: tuple[str, ...] = ("constraints.txt",)) -> dict[str, str]:
    """Package → version of what would be installed; skips where there is no uv or no index."""
    uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"] if find_spec("uv") else None
    if uv is None:
        pytest.skip("needs uv, whose resolver knows other Pythons: pip install uv")
    command = [*uv, "pip", "compile", "pyproject.toml", "--python-version", python, "--python-platform", PLATFORM]
    command += ["--quiet", "--no-header", "--no-annotate"]
    command += [word for extra in extras for word in ("--extra", extra)]
    command += [word for file in constraints for word in ("--constraint", file)]
    if links := os.environ.get("PIP_FIND_LINKS"):
        command += ["--find-links", links]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))


def cudas(packages: dict[str, str]) -> set[str]:
    """The major versions of CUDA among packages: their runtime's, whatever its package is called."""
    found = {name for name in packages if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name)}
    return {packages[name].split(".")[0] for name in found}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", OTHERS)
def test_an_extra_resolves_with_the_tested_versions(extra, python):
    packages = resolved(extra, python=python)
    assert packages["keras"].startswith("3.")
    assert len(cudas(packages)) <= 1


@pytest.mark.parametrize("extra", ["convert", "jax", "torch"])
def test_what_needs_no_tensorflow_resolves_for_the_next_python(extra):
    assert {"keras", "numpy"} <= resolved(extra, python="3.14").keys()


def test_for_the_next_python_there_is_no_tensorflow():
    """Else the pages that say so, and the classifiers, are to be changed."""
    with pytest.raises(AssertionError, match="tensorflow"):
        resolved("tensorflow", python="3.14")


@pytest.mark.parametrize("python", PYTHONS)
def test_the_gpu_extras_bring_one_cuda_each_and_together(python):
    for extras in (("gpu",), ("gpu-jax",), ("gpu", "gpu-jax")):
        packages = resolved(*extras, python=python)
        assert cudas(packages) == {"12"}, extras
        assert "nvidia-cudnn-cu12" in packages
        assert ("jax-cuda12-plugin" in packages) is ("gpu-jax" in extras)


@pytest.mark.parametrize("python", PYTHONS)
def test_with_its_constraints_torch_brings_no_second_cuda(python):
    try:
        packages = resolved("gpu", "torch", python=python, constraints=("constraints.txt", "constraints-gpu.txt"))
    except AssertionError as error:
        if "there is no version of torch==2.13.0+cpu" in str(error) or "no wheels" in str(error):
            pytest.skip("PyTorch's own index, which has its CPU builds, is not among those of this machine")
        raise
    assert packages["torch"].endswith("+cpu")
    assert cudas(packages) == {"12"}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tpu_extra_has_its_runtime_and_no_cuda(python):
    packages = resolved("tpu", python=python)
    assert {"jax", "jaxlib", "libtpu"} <= packages.keys()
    assert not cudas(packages)
    assert "tensorflow" not in packages


@pytest.mark.parametrize("python", PYTHONS[:2])
def test_the_legacy_extra_resolves_without_the_constraints(python):
    packages = resolved("legacy", python=python, constraints=())
    assert packages["tensorflow"].startswith("2.15.")
    assert "tensorflow-addons" in packages
