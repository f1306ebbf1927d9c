"""Modules by the names that they had until 0.1: each is imported from where it is now, with a warning."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

MOVED = {
    "converters.report": ("converters.command",),
    "converters.torch_resnet": ("converters.networks.in_torch",),
    "tf_simclr.checkpoint": ("tf_simclr.run_folder", "tf_simclr.weights"),
    "tf_simclr.chest.bags": ("tf_simclr.data.radiographs.bags",),
    "tf_simclr.chest.partition": ("tf_simclr.data.radiographs.partition",),
    "tf_simclr.chest.prepared": ("tf_simclr.data.radiographs.prepared",),
    "tf_simclr.chest.siim_tfds": ("tf_simclr.chest.collections.siim_tfds",),
    "tf_simclr.chest.synthetic": ("tf_simclr.chest.collections.synthetic",),
    "tf_simclr.commands.inputs": tuple(f"tf_simclr.commands.parts.{name}" for name in ("images", "networks", "runs")),
    "tf_simclr.config.checkpoints": ("tf_simclr.config.evaluation",),
    "tf_simclr.config.official": ("tf_simclr.official.flags",),
    "tf_simclr.diagnostics": ("tf_simclr.plots",),
    "tf_simclr.layerwise": ("tf_simclr.optimizers.layerwise",),
    "tf_simclr.tasks": ("tf_simclr.commands",),
    "tf_simclr.tasks.presets": ("tf_simclr.config.presets",),
    **dict.fromkeys(
        (f"tf_simclr.tasks.checkpoints_{verb}" for verb in ("list", "get", "convert")),
        ("tf_simclr.commands.checkpoints",),
    ),
}
"""Old name → the modules that have its contents now; what lies below a package moved with it.  They go with 0.3."""


class _Moved(ModuleType):
    """A module by its old name."""

    _places: tuple[str, ...]

    def __getattr__(self, name: str) -> object:
        if name == "__path__":  # it is a package to whoever imports what lies below it
            raise AttributeError(name)
        for place in self._places:
            if hasattr(module := importlib.import_module(place), name):
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r}, which is {' and '.join(self._places)} now, has no {name!r}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules by the names that they had."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        places = now(name)
        return importlib.machinery.ModuleSpec(name, self, is_package=name == "tf_simclr.tasks") if places else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _Moved(spec.name)
        module._places = now(spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        advice = f"{module.__name__} is {' and '.join(now(module.__name__))} now, and goes with version 0.3"
        warnings.warn(advice, DeprecationWarning, stacklevel=2)


def now(name: str) -> tuple[str, ...]:
    """Where the contents of a module are that had this name; nowhere for one that has not moved."""
    if name in MOVED:
        return MOVED[name]
    package, _, rest = name.rpartition(".")
    return tuple(f"{place}.{rest}" for place in MOVED.get(package, ()) if package == "tf_simclr.tasks")


def remember() -> None:
    """Lets the old names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
