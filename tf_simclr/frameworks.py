"""Which frameworks are installed, and TensorFlow as a module that is imported when it is first used.

What needs TensorFlow says `from tf_simclr.frameworks import tf` and uses it in functions only.  So every module can be
imported where only JAX or PyTorch is installed, and what cannot be done there says so when it is asked for.
"""

import functools
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tf_simclr.errors import InputError, check, meant

BACKENDS = ("tensorflow", "jax", "torch")
"""What Keras computes with here, in the order of choice; each is an extra of its name, too."""


@functools.cache
def installed(package: str) -> bool:
    """Whether a package can be imported; it is not imported for that."""
    try:
        return sys.modules.get(package) is not None or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # what stands in its place says that it is not there
        return False


@functools.cache
def has_tensorflow() -> bool:
    """Whether TensorFlow can be imported, which it is: what this decides uses it next."""
    if not installed("tensorflow"):
        return False
    try:
        importlib.import_module("tensorflow")
    except ImportError:
        return False
    return True


def needs_tensorflow(what: str) -> InputError:
    """The error of what cannot be done without TensorFlow; `what` begins its sentence."""
    return InputError(
        f"{what} needs TensorFlow, which is not installed: pip install 'tf-simclr[tensorflow]', or give arrays or a "
        "folder of images (image_dir), which do without"
    )


EXTRAS = {
    "array_record": "shards",
    "datasets": "shards",
    "fsspec": "gcs",
    "gcsfs": "gcs",
    "huggingface_hub": "hub",
    "jax": "jax",
    "keras": "tensorflow",
    "optuna": "sweep",
    "pyarrow": "shards",
    "pydicom": "chest",
    "s3fs": "s3",
    "safetensors": "torch",
    "tensorflow": "tensorflow",
    "tensorflow_datasets": "tensorflow",
    "torch": "torch",
    "uvicorn": "app",
}
"""Package that something may need → the extra that has it."""
_SPOKEN = {"keras": "Keras", "tensorflow": "TensorFlow", "torch": "PyTorch"}
_PUBLISHED = {"keras_hub": "keras-hub", "mlflow": "mlflow-skinny"}
"""Package → its name on PyPI where that is another one, or a smaller package does."""


def to_install(package: str) -> str:
    """What to type to have a package: the extra that has it, else the package itself.

    Example:
        >>> to_install("optuna"), to_install("keras_hub")
        ("pip install 'tf-simclr[sweep]'", 'pip install keras-hub')
    """
    if package in EXTRAS:
        return f"pip install 'tf-simclr[{EXTRAS[package]}]'"
    return f"pip install {_PUBLISHED.get(package, package)}"


def check_installed(what: str, *packages: str) -> None:
    """Raises `InputError` where one of these packages, or what Keras computes with, is missing.

    Args:
        what: what cannot be done then, as the beginning of the sentence: "--to keras".
        packages: `keras`, `tensorflow`, …
    """
    missing = [name for name in packages if not installed(name)]
    if missing:
        names = " and ".join(_SPOKEN.get(name, name) for name in missing)
        raise InputError(f"{what} needs {names}, which is not installed: {to_install(missing[0])}")
    if "keras" in packages and "keras" not in sys.modules:
        check_chosen()
    if "keras" in packages and not any(map(installed, BACKENDS)):
        needs = "a framework that Keras computes with, which is not installed"
        raise InputError(f"{what} needs {needs}: {to_install('tensorflow')}")


def imported(package: str, what: str) -> ModuleType:
    """A package that may be missing.

    Args:
        package: as it is imported.
        what: what cannot be done without, as the beginning of the sentence: "--wandb".

    Raises:
        InputError: it cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"{what} needs {package}: {to_install(package)} ({error})") from error


def _keras_file() -> tuple[Path, Any]:
    """Keras' own file of settings, and what stands in it: an empty object where it is not there, or is no JSON."""
    base = Path(os.path.expanduser("~"))  # stays "~" where nobody knows the home
    home = os.environ.get("KERAS_HOME") or (base if os.access(base, os.W_OK) else Path("/tmp")) / ".keras"
    path = Path(os.path.expanduser(home)) / "keras.json"
    try:
        return path, json.loads(path.read_text())
    except (OSError, ValueError):  # as Keras, which then takes its defaults
        return path, {}


def chosen() -> str:
    """What Keras would compute with, were it imported now: by the environment, by its own file, or TensorFlow."""
    _, content = _keras_file()
    stated = content.get("backend") if isinstance(content, dict) else None
    return os.environ.get("KERAS_BACKEND") or str(stated or BACKENDS[0])


_SETTINGS: dict[str, tuple[str, ...]] = {
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}
"""Setting of Keras' own file → what Keras takes."""


def check_chosen() -> None:
    """Refuses what Keras would not start with, or could not train with.

    Raises:
        InputError: the backend is none of ours, or Keras' own file has a value that it does not take.
    """
    path, content = _keras_file()
    check(isinstance(content, dict), f"{path} must hold a JSON object; delete it, and Keras writes it anew")
    backend = chosen()
    where = "KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else f"the backend in {path}"
    check(
        backend in BACKENDS, f"{where} must be one of {', '.join(BACKENDS)}{meant(backend, BACKENDS)}", backend=backend
    )
    for name, known in _SETTINGS.items():
        value = content.get(name, known[0])
        check(value in known, f"{name} in {path} must be one of {', '.join(known)}", **{name: value})
    epsilon = content.get("epsilon", 1e-7)
    check(isinstance(epsilon, float), f"epsilon in {path} must be a number such as 1e-7", epsilon=epsilon)


def choose_installed() -> None:
    """Has Keras compute with what is installed, where the environment does not say with what.

    Keras would take what its own file says, and TensorFlow where there is none, whether it is installed or not; it
    writes that file itself when it is first imported, so that TensorFlow in it is nobody's choice.
    """
    if os.environ.get("KERAS_BACKEND") or installed("tensorflow"):
        return
    found = next((name for name in (chosen(), *BACKENDS) if name in BACKENDS and installed(name)), None)
    if found is not None:
        os.environ["KERAS_BACKEND"] = found


class _OnDemand:
    """TensorFlow, imported at the first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who only looks at this object (doctest, inspect) asks for these
            raise AttributeError(name)
        if not has_tensorflow():
            raise needs_tensorflow("this")
        return getattr(sys.modules["tensorflow"], name)


if TYPE_CHECKING:
    import tensorflow

    tf = tensorflow
else:
    tf = _OnDemand()


def untuned(dataset: Any) -> Any:
    """A `tf.data.Dataset` without TensorFlow's thread that tunes it: as many at a time as are asked for, to the last.

    Who drops an iterator waits for that thread.  It thinks first every 10 milliseconds, then ever less often, down to
    once a minute, and often misses that it is to end: after two minutes of training, one of three iterators took a
    minute to go (TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
