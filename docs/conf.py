"""The documentation's site (Sphinx): `make docs` builds it into site/, which is not part of the repository.

README, CONTRIBUTING and CHANGELOG become pages by stubs in this folder that include them, and the reference is made
from the packages' docstrings.  Nothing is fetched from elsewhere, neither when the site is built nor when it is read.
"""

import ast
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import tf_simclr  # noqa: E402  # of this tree, whatever is installed

project = "tf_simclr"
author = "The tf_simclr authors"
copyright = f"{author}, Apache-2.0"
version = release = tf_simclr.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "code"
autodoc_default_options = {"members": True, "show-inheritance": True, "no-value": True}
autodoc_inherit_docstrings = False  # of Keras' methods, what Keras says
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # names of types that two modules have
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = "tf_simclr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File at the top of the repository → the page that includes it."""
PACKAGES = ("tf_simclr", "converters")
SPAN = re.compile(r"(?<!`)`(?P<code>[^`\n]+(?:\n[^`\n]+)*)`(?!`)")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)(?P<place>[^)#\s]+)(?=[^)]*\))")


def led(text: str, folder: str) -> str:
    """A page's text whose links fit the site: those that name a file of `TOP` lead to the page that includes it.

    Args:
        text: Markdown.
        folder: from the repository's root on, that its links start from.
    """

    def place(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["place"]))
        if path in TOP:
            return TOP[path]
        if path.startswith("docs/"):
            return path.removeprefix("docs/")
        return f"path:{posixpath.relpath(path, 'docs')}"  # a copy of the file lies in the site

    return LINK.sub(place, text)


def read_page(app, name: str, content: list[str]) -> None:
    """Changes the links of a page of `docs/`."""
    content[0] = led(content[0], "docs")


def read_included(app, path: Path, page: str, content: list[str]) -> None:
    """Changes the links of a file that a stub includes."""
    content[0] = led(content[0], posixpath.dirname(Path(app.srcdir, path).resolve().relative_to(ROOT).as_posix()))


def read_docstring(app, what: str, name: str, found, options, lines: list[str]) -> None:
    """Makes a docstring's Markdown reStructuredText: code in backticks, plain stars and bars, lists of references."""
    parts = SPAN.split("\n".join(lines))
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"``{part.strip()}``" + ("\\ " if re.match(r"\w", parts[i + 1]) else "")
        else:
            parts[i] = re.sub(r"(?<![*\w\\])([*|])(?=[^\s*])(?!\w+:)", r"\\\1", part)
    text, title, references = "".join(parts).partition("References:\n")
    items = re.sub(r"^ {4}(?=\S)", "    * ", references, flags=re.MULTILINE)  # what goes on stands deeper already
    lines[:] = (text + title + re.sub(r"^ {8}(?=\S)", "      ", items, flags=re.MULTILINE)).split("\n")


def rooms() -> dict[str, list[str]]:
    """Package, or folder of a package → its public modules that say what they are."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if "__" not in name and ast.get_docstring(ast.parse(path.read_text())):
                found.setdefault(name if path.name == "__init__.py" else name.rpartition(".")[0], []).append(name)
    return found


def write_reference(app) -> None:
    """Writes a page for each room."""
    folder = Path(app.srcdir, "api")
    folder.mkdir(exist_ok=True)
    pages = {"index": "Reference\n=========\n\n.. toctree::\n\n" + "".join(f"   {room}\n" for room in rooms())}
    for room, modules in rooms().items():
        parts = [f"{room}\n{'=' * len(room)}\n"]
        for module in modules:
            if module == room:  # what it offers of the modules below has its entry there
                parts.append(f".. automodule:: {module}\n   :no-index:\n")
            else:
                parts.append(f"{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n")
        pages[room] = "\n".join(parts)
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:  # an unchanged page is not built anew
            path.write_text(text)
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()


def write_commands(app) -> None:
    """Writes the page of the commands and their options, from the commands themselves."""
    from tools import command_pages

    path, text = Path(app.srcdir, "commands.md"), command_pages.page()
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def setup(app) -> None:
    """Sphinx calls this."""
    app.connect("builder-inited", write_reference)
    app.connect("builder-inited", write_commands)
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon
