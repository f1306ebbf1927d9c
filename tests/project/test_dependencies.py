"""What is installed: versions with checksums that agree with the constraints, and no copyleft."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.golden import ROOT
from tools import licences

PINNED = re.compile(r"^(\S+)==([^\s;]+)", re.MULTILINE)


def pins(name: str) -> dict[str, set[str]]:
    """Package → versions, of different Pythons or systems."""
    found: dict[str, set[str]] = {}
    for package, version in PINNED.findall((ROOT / name).read_text()):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


def test_versions_with_checksums_are_those_of_the_constraints():
    hashed, plain = pins("requirements-hashed.txt"), pins("constraints.txt")
    differing = {
        name: (versions, plain[name]) for name, versions in hashed.items() if not versions <= plain.get(name, versions)
    }
    assert not differing, "run `make hashes`"
    left = {name for name in hashed.keys() - plain.keys() if not re.match(r"nvidia-|cuda-|triton", name)}
    assert not left, "a package that the constraints do not pin"


def test_every_version_has_checksums():
    entries = re.split(
        r"\n(?=\S)", re.sub(r"^#.*\n", "", (ROOT / "requirements-hashed.txt").read_text(), flags=re.MULTILINE)
    )
    assert len(entries) > 100
    for entry in filter(None, entries):
        assert PINNED.match(entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry


def test_everything_that_the_project_asks_for_has_checksums():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(one for extra in set(licences.EXTRAS) - {"notebooks"} for one in extras[extra]),
    ]
    names = {canonicalize_name(Requirement(text).name) for text in asked} - {"tf-simclr"}
    assert not names - pins("requirements-hashed.txt").keys()


def test_nothing_installed_by_default_is_copyleft():
    packages = licences.needed()
    assert len(packages) > 20
    stated = {package.name: licences.licence_of(package) for package in packages}
    assert not {name: text for name, text in stated.items() if licences.kind_of(text) in ("strong", "unknown")}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("GNU General Public License v3 (GPLv3)", "strong"),
        ("AGPL-3.0-or-later", "strong"),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", "weak"),
        ("LGPL-2.1-or-later", "weak"),
        ("Apache-2.0 AND GPL-2.0-only", "strong"),
        ("BSD-3-Clause OR GPL-2.0-only", "permissive"),
        ("MIT-0", "permissive"),
        ("Proprietary", "unknown"),
    ],
)
def test_a_licence_is_told_by_its_statement(text, kind):
    assert licences.kind_of(text) == kind
