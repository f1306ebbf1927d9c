"""The licences of what is installed with the default extras, and whether any of them is copyleft.

`python tools/licences.py` (`make licences`) lists every package that this project or one of its extras needs here,
directly or not, with the licence that its metadata state, and ends with code 1 where one has a strong copyleft licence
(GPL, AGPL), or states none that is known.  LGPL and MPL, whose copyleft ends at the library's or the file's own border,
are listed as weak: such packages are used unchanged and are not part of what this project distributes.
"""

import re
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "tf-simclr"
EXTRAS = (
    "dev",
    "tensorflow",
    "jax",
    "torch",
    "chest",
    "app",
    "export",
    "sweep",
    "hub",
    "shards",
    "gcs",
    "s3",
    "notebooks",
)
"""What `make` installs, and what a notebook needs; `legacy` and `docs` are environments of their own."""

STRONG = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)
WEAK = re.compile(r"\b(LGPL|GNU Lesser|MPL|Mozilla|EPL|Eclipse|EUPL|CDDL)", re.IGNORECASE)
KNOWN = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|Unlicense|Zlib|HPND|CMU|CC0|Boost|BSL|MulanPSL|NVIDIA"
    r"|Public Domain|CNRI|WTFPL|OSI Approved)",
    re.IGNORECASE,
)


def needed() -> list[metadata.Distribution]:
    """Every package that is installed because this project or one of its extras asks for it."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(f"{PROJECT}[{','.join(EXTRAS)}]")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        try:
            package = found.setdefault(name, metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue  # for other systems or Python versions, or not installed here
        for extra in {"", *asked.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in package.requires or ():
                one = Requirement(text)
                if one.marker is None or one.marker.evaluate({"extra": extra}):
                    waiting.append(one)
    found.pop(canonicalize_name(PROJECT), None)
    return [found[name] for name in sorted(found)]


def licence_of(package: metadata.Distribution) -> str:
    """What a package states: an SPDX expression, classifiers, a text, or how its licence file begins."""
    about = package.metadata
    classifiers = [text.split(" :: ")[-1] for text in about.get_all("Classifier", []) if text.startswith("License ::")]
    free = (about.get("License") or "").strip().splitlines()
    stated = about.get("License-Expression") or " / ".join(classifiers) or (free[0] if free else "")
    if KNOWN.search(stated) or STRONG.search(stated) or WEAK.search(stated):
        return stated
    files = [file for file in package.files or () if re.search(r"LICEN[CS]E|COPYING", file.name, re.IGNORECASE)]
    texts = [" ".join(file.locate().read_text("utf-8", "replace").split())[:300] for file in files[:1]]
    return next(iter(texts), stated)


def kind_of(licence: str) -> str:
    """`permissive`, `weak`, `strong` or `unknown`; of alternatives (`OR`) the most permissive counts.

    Example:
        >>> kind_of("MIT"), kind_of("MPL-2.0 AND MIT"), kind_of("GPL-3.0-only OR MIT"), kind_of("GPL-2.0"), kind_of("")
        ('permissive', 'weak', 'permissive', 'strong', 'unknown')
    """
    kinds = ("permissive", "weak", "strong", "unknown")

    def kind(part: str) -> str:
        if STRONG.search(re.sub(r"\bLGPL\S*|GNU Lesser General Public", "", part, flags=re.IGNORECASE)):
            return "strong"
        if WEAK.search(part):
            return "weak"
        return "permissive" if KNOWN.search(part) else "unknown"

    return min((kind(part) for part in re.split(r"\bOR\b", licence)), key=kinds.index)


def main() -> int:
    rows = [(package.name, package.version, licence_of(package)) for package in needed()]
    for name, version, licence in rows:
        sys.stdout.write(f"{name:<32} {version:<16} {kind_of(licence):<10} {licence}\n")
    wrong = [name for name, _, licence in rows if kind_of(licence) in ("strong", "unknown")]
    sys.stdout.write(f"{len(rows)} packages; strong copyleft or unknown: {', '.join(wrong) or 'none'}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
