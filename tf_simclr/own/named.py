"""What a user names on the command line as `module:name`: code of one's own, found from the working directory.

Code is imported where a person has typed its name, never because a file, such as a run's `config.json`, holds it.
"""

import ast
import contextlib
import importlib
import importlib.util
import itertools
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from tf_simclr.errors import InputError, check, meant

_FORM = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
OF_LIBRARIES = ("applications", "keras_hub")
"""What the name of an encoder may begin with in the place of a module."""
imported: list[ModuleType] = []
"""The modules that were named and imported, whose classes a saved network may ask for by name."""


def is_named(text: str) -> bool:
    """Whether a word has the form `module:name`.

    Example:
        >>> is_named("mine.nets:build"), is_named("nt_xent"), is_named("C:/x.keras")
        (True, False, False)
    """
    return _FORM.fullmatch(text) is not None


def is_code(text: object) -> bool:
    """Whether a value names code of the user's own, which is imported; a library's networks are not.

    Example:
        >>> is_code("mine:build"), is_code("applications:VGG16"), is_code(3)
        (True, False, False)
    """
    return isinstance(text, str) and is_named(text) and text.split(":")[0] not in OF_LIBRARIES


def check_typed(text: str, option: str, *, typed: bool) -> None:
    """Refuses code that a file alone names for an option: it runs where a person has typed its name.

    Raises:
        InputError: so it is.
    """
    check(typed, f"code is not run because a file names it: give --{option} {text}, too, if it is yours")


def look_in_library(text: str) -> None:
    """Refuses a name that a library of networks does not have, as its files tell, without importing it.

    Args:
        text: `applications:NAME` or `keras_hub:PRESET`; a preset may be a folder or an address, too.

    Raises:
        InputError: there is no such network, or no such library.
    """
    library, _, name = text.partition(":")
    if library == "applications":
        names = application_names()
        rule = f"applications must be followed by one of Keras' networks{meant(name, names)}"
        check(not names or name in names, rule, name=name)
        return
    check(_spec("keras_hub") is not None, "an encoder of KerasHub needs keras-hub: pip install keras-hub")
    if "/" in name or "\\" in name or os.path.lexists(os.path.expanduser(name)):
        return
    names = _presets()
    rule = f"keras_hub must be followed by the preset of an image backbone, its name or its folder{meant(name, names)}"
    check(not names or name in names, rule, preset=name)


def application_names() -> list[str]:
    """The networks of `keras.applications`, as its files name them; none where they cannot be told."""
    spec = _spec("keras")
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(root) / "applications" / "__init__.py"
        if file.is_file():
            return sorted(set(re.findall(r"^from \S+ import ([A-Z]\w+)", file.read_text("utf-8"), re.MULTILINE)))
    return []


def _presets() -> list[str]:
    """Names of KerasHub's presets, as its files list them."""
    spec, found = _spec("keras_hub"), set[str]()
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in Path(root).glob("src/models/*/*_presets.py"):
            found |= set(re.findall(r'^    "([\w.-]+)": \{', file.read_text("utf-8"), re.MULTILINE))
    return sorted(found)


def look(text: str, option: str) -> None:
    """Refuses a module or name that is not there, as its file tells, without importing it.

    Raises:
        InputError: so it is.
    """
    module, name = _parts(text, option)
    with _from_here():
        spec = _spec(module)
    where = f"in {Path.cwd()} or among the installed packages"
    near = "" if spec is not None else meant(module, [*_modules_here(), *(OF_LIBRARIES if option == "encoder" else ())])
    check(spec is not None, f"{option} must name a module that is there, but {module} is not, {where}{near}")
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    if origin is None or origin.suffix != ".py" or not origin.is_file():
        return
    try:
        body = ast.parse(origin.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{option} must name a module of Python, but {origin} is none ({error})") from error
    names = _defined(body)
    if names is not None and name not in names:
        raise InputError(f"{option} must name something that {origin} has{meant(name, names)}. Received: {text!r}")


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is, found without importing the packages that it is in; None: nowhere."""
    names, path, spec = module.split("."), None, None
    for end in range(1, len(names) + 1):
        whole = ".".join(names[:end])
        try:
            known = path is None or whole in sys.modules
            spec = importlib.util.find_spec(whole) if known else PathFinder.find_spec(whole, path)
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


_MOST = 1000
"""Files that are looked at for a module that may have been meant."""


def _modules_here() -> list[str]:
    """The modules of the working directory, those in its folders too."""
    files = itertools.chain(Path().glob("*.py"), Path().glob("[A-Za-z_]*/*.py"))
    found = (".".join(file.with_suffix("").parts) for file in itertools.islice(files, _MOST))
    return [name.removesuffix(".__init__") for name in found]


_UNTOLD = {"exec", "eval", "globals", "vars", "setattr", "__getattr__", "*"}
"""Names by which a module can come to others than its statements tell."""


def _defined(body: list[ast.stmt]) -> set[str] | None:
    """The names that a module's statements bind; None where not all can be told."""
    used = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    found = set(_bound(body))
    return None if _UNTOLD & (found | used) else found


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The names that statements bind where they stand, those within functions and classes left out."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name):
            yield from [node.id] if isinstance(node.ctx, ast.Store) else []
        elif not isinstance(node, ast.Lambda):
            yield from _bound(ast.iter_child_nodes(node))


def find(text: str, option: str) -> Any:
    """What a user named, something that can be called; its module is imported, from the working directory first.

    Args:
        text: `module:name`.
        option: that it was given by, for messages.

    Raises:
        InputError: there is no such module or name, the module cannot be imported, or what it names cannot be called.
    """
    module, name = _parts(text, option)
    look(text, option)
    with _from_here():
        try:
            found = importlib.import_module(module)
        except Exception as error:
            raise InputError(f"{option}: {module} must be a module that can be imported; {told(error)}") from error
    if found not in imported:
        imported.append(found)
    value = getattr(found, name, None)
    near = meant(name, [one for one in vars(found) if not one.startswith("_")])
    check(value is not None, f"{option} must name something that {module} has{near}", **{option: text})
    check(callable(value), f"{option} must name a function or class, but {text} cannot be called", type=type(value))
    return value


def told(error: Exception) -> str:
    """An error of somebody's code in one line: what it says, and where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}{place}"


def _parts(text: str, option: str) -> tuple[str, str]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise InputError(f"{option} must have the form module:name. Received: {text!r}")
    return match[1], match[2]


@contextlib.contextmanager
def _from_here() -> Iterator[None]:
    """Within, modules of the working directory are found, as `python -m` finds them."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        importlib.invalidate_caches()
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
