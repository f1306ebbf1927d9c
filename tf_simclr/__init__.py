"""SimCLR v1 and v2 in Keras 3.

Public names are loaded when they are first used, so that `import tf_simclr` alone costs nothing; and what this package
saved in a `.keras` file loads from then on.
"""

from typing import TYPE_CHECKING, Any

from tf_simclr.moved import remember
from tf_simclr.registration import when_keras_comes

if TYPE_CHECKING:
    from tf_simclr.data.shards.prepare import prepare_shards
    from tf_simclr.losses import NTXent, nt_xent
    from tf_simclr.models.architecture import Architecture
    from tf_simclr.models.classifier import Classifier
    from tf_simclr.models.distillation import Distiller
    from tf_simclr.models.resnet import resnet
    from tf_simclr.models.simclr import SimCLR
    from tf_simclr.optimizers import LARS, WarmUpCosine
    from tf_simclr.training.publishing import push_to_hub
    from tf_simclr.weights import load_encoder, load_model

__version__ = "0.1.0"
__all__ = [
    "LARS",
    "Architecture",
    "Classifier",
    "Distiller",
    "NTXent",
    "SimCLR",
    "WarmUpCosine",
    "load_encoder",
    "load_model",
    "nt_xent",
    "prepare_shards",
    "push_to_hub",
    "resnet",
]

_PLACES = {
    "Architecture": "models.architecture",
    "Classifier": "models.classifier",
    "Distiller": "models.distillation",
    "LARS": "optimizers",
    "NTXent": "losses",
    "SimCLR": "models.simclr",
    "WarmUpCosine": "optimizers",
    "load_encoder": "weights",
    "load_model": "weights",
    "nt_xent": "losses",
    "prepare_shards": "data.shards.prepare",
    "push_to_hub": "training.publishing",
    "resnet": "models.resnet",
}


remember()
when_keras_comes()


def __getattr__(name: str) -> Any:
    """Loads a public name from where it is defined."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib
    import importlib.metadata

    if importlib.metadata.version("keras").startswith("2."):
        raise ImportError(f"tf_simclr.{name} needs Keras 3; this environment has the `legacy` extra's Keras 2")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
