"""What a user names on the command line as `module:name`: code of one's own, found from the working directory.

Code is imported where a person has typed its name, never because a file, such as a run's `config.json`, holds it.
"""

import ast
import contextlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
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


def look(text: str, option: str) -> None:
    """Refuses a module or name that is not there, as its file tells, without importing it.

    Raises:
        InputError: so it is.
    """
    module, name = _parts(text, option)
    with _from_here():
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):
            spec = None
    where = f"in {Path.cwd()} or among the installed packages"
    check(spec is not None, f"{option} must name a module that is there, but {module} is not, {where}")
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


def _defined(body: list[ast.stmt]) -> set[str] | None:
    """The names that a module's statements bind; None where not all can be told."""
    found = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            return None
    return None if "*" in found or "__getattr__" in found else found


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
