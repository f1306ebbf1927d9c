"""What this package saves in a `.keras` file loads after `import tf_simclr` alone, which itself loads no framework.

Keras finds a class by the name that `register_keras_serializable` gave it, once the module that defines it has been
imported.  Until then its name stands for one that imports the module when a file asks for it.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from typing import Any, cast

from tf_simclr.frameworks import choose_installed

_PACKAGE = "tf_simclr"
PLACES = {
    "losses.cross_entropy": ("NTXent",),
    "losses.decoupled": ("DCL", "GeneralizedContrastive"),
    "losses.info_nce": ("InfoNCE",),
    "losses.pairs": ("Hadsell", "MarginTriplet", "NTLogistic"),
    "losses.supervised": ("SupCon",),
    "models.classifier": ("Classifier", "MultiLabelClassifier"),
    "models.distillation": ("Distiller",),
    "models.evaluation_view": ("EvaluationView",),
    "models.moco": ("MoCo", "Queue"),
    "models.network": ("Network",),
    "models.normalization": ("BatchNormalization",),
    "models.simclr": ("SimCLR",),
    "optimizers.adaptive": ("AdamW", "Lamb"),
    "optimizers.build": ("LossScale",),
    "optimizers.lars": ("LARS", "Momentum"),
    "optimizers.schedule": ("WarmUpCosine",),
}
"""Module → the classes that it registers; a test holds this against the sources."""


def _stand_in(name: str, module: str) -> type:
    """A class that only knows how to be made from its configuration: by the class that it stands for."""

    # Keras only calls `from_config` of a registered class: the module is imported then and not before.
    def from_config(cls: type[Any], config: dict[str, Any], **options: Any) -> Any:
        return getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name).from_config(config, **options)

    return type(name, (), {"from_config": classmethod(cast(Any, from_config))})


def _register() -> None:
    """Tells Keras of every class that is not there by itself yet."""
    from keras.saving import get_custom_objects

    known = get_custom_objects()
    for module, names in PLACES.items():
        # What is registered by itself stays: a stand-in in its
        # place would not be the class that user code compares with.
        for name in names:
            known.setdefault(f"{_PACKAGE}>{name}", _stand_in(name, module))


class _Afterwards(importlib.abc.Loader):
    """Loads a module as its own loader does, and registers behind it."""

    def __init__(self, own: Any):
        self.own = own

    def __getattr__(self, name: str) -> Any:
        # Whatever else is asked of a loader is its own loader's to answer.
        return getattr(self.own, name)

    def create_module(self, spec: Any) -> Any:
        return self.own.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.own.exec_module(module)
        _register()


class _WithKeras(importlib.abc.MetaPathFinder):
    """Sees Keras being imported, once; which backend it takes is settled by then."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "keras":
            return None
        # Out of the way before the search below, which would otherwise come here again.
        sys.meta_path.remove(self)
        choose_installed()
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Afterwards(spec.loader)
        return spec


def when_keras_comes() -> None:
    """Registers now if Keras is there, else as soon as it is imported."""
    if sys.modules.get("keras") is not None:  # None: somebody forbids its import
        _register()
    elif not any(isinstance(finder, _WithKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithKeras())
