"""Keras files of others: read only if they are made of the plain layers that our networks are made of.

A `.keras` file is a program: its configuration names classes and functions to call.  Keras' safe mode refuses code that
is stored in it; here nothing but a list of layers, initializers and operations is let through at all.
"""

import zipfile
from pathlib import Path

import keras

from tf_simclr.errors import InputError, check
from tf_simclr.foreign import dictionaries, parse_json, reading, spend
from tf_simclr.own import encoders

_LAYERS = {
    *("Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Cropping2D"),
    *("Dense", "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("GroupNormalization", "InputLayer", "LayerNormalization", "MaxPooling2D", "MultiHeadAttention", "Multiply"),
    *("Normalization", "Permute", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "ZeroPadding2D"),
}
"""Layers that compute and do nothing else."""
_OPERATIONS = {"Add", "Mean", "Multiply", "Relu", "Reshape", "Softmax", "Split", "Subtract", "Sum", "Transpose"}
_INITIALIZERS = {"Constant", "GlorotUniform", "HeNormal", "Ones", "RandomNormal", "TruncatedNormal", "VarianceScaling"}
_ALLOWED = {
    "keras.layers": _LAYERS,
    "keras.initializers": _INITIALIZERS | {"Zeros", "GlorotNormal", "HeUniform", "RandomUniform"},
    "keras.regularizers": {"L2", "L1L2"},
    "keras.src.ops.numpy": _OPERATIONS,
    "keras.src.ops.nn": _OPERATIONS,
    "keras.src.models.functional": {"Functional"},
    "keras.src.applications.convnext": {"LayerScale"},
    "keras.src.applications.inception_resnet_v2": {"CustomScaleLayer"},
    "keras": {"DTypePolicy", "Functional", "Sequential"},
    None: {"__keras_tensor__"},
}
"""Module → classes that may be named."""
_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_MAX_CONFIG = 32 * 2**20
"""Largest configuration in bytes; that of a ResNet-152 has about 1 MB."""
_MAX_WEIGHTS = 8 * 2**30
"""Largest weights in bytes, unpacked; the largest SimCLR network has 3.2 GB."""


def load_network(path: Path, *, code: str = "") -> keras.Model:
    """Loads a `.keras` file of plain layers, or of those that the user has named the code of; it is not compiled.

    Args:
        path: the file.
        code: `module:function`, whose module is imported by now, or `keras_hub:PRESET`; empty: plain layers alone.

    Raises:
        InputError: the file is damaged, holds anything else, or its weights are not finite.
    """
    # 1. What the file names, without making anything of it. 2. Keras makes it. 3. Its numbers.
    try:
        check_plain(path, code=code)
        model = encoders.load(path) if code else keras.saving.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # a damaged HDF5 file or configuration raises whatever it meets
        raise InputError(f"{path} must be a whole Keras network ({type(error).__name__}: {error})") from error
    # One value that is no number makes every answer none.
    finite = all(bool(keras.ops.all(keras.ops.isfinite(weight))) for weight in model.weights)
    check(finite, f"{path} must have finite weights")
    return model


def check_plain(path: Path, *, code: str = "") -> None:
    """Refuses a file that names anything but plain layers, or that unpacks to more than a network can have.

    Of one whose code the user has named, the layers are left to `own.encoders`.
    """
    # The archive holds three files, each once, of sizes that a network can have.
    with reading(path, "a whole Keras network"), zipfile.ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        once = len(sizes) == len(archive.infolist())
        check(once and set(sizes) == _MEMBERS, f"{path} must hold a network and nothing else", members=sorted(sizes))
        small = sizes["config.json"] <= _MAX_CONFIG and sizes["model.weights.h5"] <= _MAX_WEIGHTS
        check(small, f"{path} must unpack to a network's size", bytes=sum(sizes.values()))
        spend(made=sizes["model.weights.h5"], outline=sizes["config.json"])
        config = parse_json(archive.read("config.json"))
    if code:
        return
    # Every class that is named anywhere, however deep, with the module that it is to come from.
    named = {(part.get("module"), str(part.get("class_name"))) for part in dictionaries(config) if "class_name" in part}
    unknown = sorted(f"{module}.{name}" for module, name in named if name not in _ALLOWED.get(module, set()))
    check(not unknown, f"{path} must be made of plain layers{_ADVICE}", unknown=unknown[:5])
    # A registered name could stand for a class of the user's program; Keras' own have none with `>`.
    registered = {str(part["registered_name"]) for part in dictionaries(config) if part.get("registered_name")}
    custom = sorted(name for name in registered if ">" in name)
    check(not custom, f"{path} must be made of plain layers{_ADVICE}", custom=custom[:5])


_ADVICE = "; name what made it if that is yours: --encoder module:function, or keras_hub:PRESET"


def words_to_open(path: Path, *, encoder: str) -> list[str]:
    """Words by which a command opens a model again; none where its encoder is made of plain layers.

    Args:
        path: of the encoder's file.
        encoder: what made it, as far as is known.
    """
    try:
        check_plain(path)
    except InputError:
        return ["--encoder", encoder or "module:function"]
    return []
