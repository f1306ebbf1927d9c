"""Encoders of other kinds than our ResNets, as a user names them, and the Keras files that hold them.

| named                     | what it is                                                                          |
| ------------------------- | ----------------------------------------------------------------------------------- |
| `module:function`         | a function that makes a Keras model, imported from the working directory            |
| `path/to/file.keras`      | a Keras model in a file, with its weights                                           |
| `applications:NAME`       | of `keras.applications`, with random weights                                        |
| `keras_hub:PRESET`        | a backbone of KerasHub: a preset's name or folder                                   |

Whatever is named becomes one model, images `(n, h, w, c)` in [0, 1] to features `(n, d)`, in which what was added
before and behind stands as layers of Keras.
"""

import contextlib
import importlib
import inspect
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.errors import InputError, check, meant
from tf_simclr.files.places import expanded
from tf_simclr.foreign import dictionaries, parse_json, reading, spend
from tf_simclr.frameworks import imported
from tf_simclr.models import network, parts
from tf_simclr.own import named

_Say = Callable[[str], None]
RANGE = "range_of_encoder"
"""Name of the layer that takes images in [0, 1] to the range that an encoder's own first layers expect."""
_PUBLISHED = {
    **dict.fromkeys(("MobileNet", "Xception", "Inception", "NASNet"), "[-1, 1]"),
    "DenseNet": "ImageNet's mean and deviation taken off",
    **dict.fromkeys(("ResNet", "VGG"), "blue first, 0 to 255, ImageNet's mean taken off"),
}
"""Beginnings of names in `keras.applications` → the values that Keras' own weights of these were trained with."""
_PROGRAMS = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
"""Keras' layers that run code or files of others."""
_KERAS = ("keras", "keras_hub")
"""Packages whose classes a file may name."""


def build(name: str, *, image_size: int, say: _Say, channels: int | None = None) -> keras.Model:
    """The encoder that a user names, with the layers that make it one.

    Args:
        name: as in the table above.
        image_size: side of the images in pixels, for encoders that hang on it.
        say: takes a line for what is added before or behind.
        channels: of the images; None: as the model takes them, 3 where it takes any.

    Returns:
        Images `(n, h, w, channels)` in [0, 1] to features `(n, d)`.

    Raises:
        InputError: it cannot be found or made, or takes or gives something else.
    """
    # 1. What is meant, and how images must be scaled for it.
    made, scale, offset = _made(name, image_size=image_size, say=say, channels=channels or 3)
    check(isinstance(made, keras.layers.Layer), f"{name} must give a Keras model", gave=type(made).__name__)
    # 2. For which images it is made: its channels and sides must be ours.
    size = (image_size, image_size)
    free = parts.images_shape(made)
    channels = channels or (free[3] if free is not None else None) or 3
    if free is not None:
        check(free[3] in (channels, None), f"{name} must take images of {channels} channels", images=free[1:])
        fits = all(side in (None, image_size) for side in free[1:3])
        check(
            fits,
            f"{name} takes images of {free[1]} × {free[2]} pixels: give --image_size {free[1]}",
            image_size=image_size,
        )
        size = free[1:3]
    # 3. Images in [0, 1] → its own range → its features → vectors (n, d).
    images = keras.Input((*size, channels), name="images")
    x = images
    if scale is None and _takes_bytes(made):
        scale, offset = 255.0, 0.0
        say(f"{name} takes values of 0 to 255, by its first layer: images in [0, 1] are multiplied by 255 before it")
    if scale is not None:
        x = keras.layers.Rescaling(scale, offset, name=RANGE)(x)
    with _told(f"{name} must take images {(*size, channels)}"):
        x = _vectors(made(x), name=name, say=say)
    # 4. A head behind it must know d, and a file of it must say what it is made of.
    rule = f"{name} must give features of a known length; make it for images of one size, by keras.Input((h, w, 3))"
    check(x.shape[-1] is not None, rule, output=tuple(x.shape))
    model = keras.Model(images, x, name="encoder")
    _check_told(model, name=name)
    return model


def _made(name: str, *, image_size: int, say: _Say, channels: int) -> tuple[Any, Any, Any]:
    """What a name means, and what [0, 1] is multiplied by and moved by before it; None: nothing."""
    # Four ways to name an encoder: Keras' own, KerasHub's, a file, a function of the user's.
    kind, _, rest = name.partition(":")
    if kind == "applications":
        return _application(rest, image_size=image_size, say=say, channels=channels)
    if kind == "keras_hub":
        return _backbone(rest, say=say)
    if name.endswith(".keras"):
        found = load(expanded(name))
        taken = f"{name} is taken with its weights"
        advice = "on images in [0, 1]; if it learned from others, put a keras.layers.Rescaling before it"
        say(taken if _takes_bytes(found) else f"{taken}, {advice}")
        return encoder_of(found), None, None
    function = named.find(name, "encoder")
    _register_named()
    knobs = {"image_size": image_size, "channels": channels}
    with _told(f"{name} must make a Keras model"):
        # Only arguments that it has are given; one without a default that we do not know cannot be given.
        known = inspect.signature(function).parameters
        needed = [
            p.name for p in known.values() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        missing = [one for one in needed if one not in knobs]
        rule = f"{name} must be callable without arguments, or with image_size and channels"
        check(not missing, rule, needs=missing)
        made = function(**{knob: value for knob, value in knobs.items() if knob in known})
        if isinstance(made, keras.layers.Layer) and not _takes_bytes(made):
            say(f"{name} sees images in [0, 1]")
        return made, None, None


@contextlib.contextmanager
def _told(rule: str) -> Iterator[None]:
    """A block in which whatever somebody's code raises becomes a sentence: what must hold, and what it said."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{rule}; {named.told(error)}") from error


def _application(name: str, *, image_size: int, say: _Say, channels: int) -> tuple[Any, Any, Any]:
    """A network of `keras.applications` with random weights, for images of any size where it can."""
    names = [one for one in dir(keras.applications) if one[0].isupper()]
    check(name in names, f"applications must be followed by one of Keras' networks{meant(name, names)}", name=name)
    options = {"weights": None, "include_top": False, "pooling": "avg"}
    problem: Exception | None = None
    # For images of any size where the network can; some have a dense layer that needs one side.
    for side in (None, image_size):
        try:
            made = getattr(keras.applications, name)(input_shape=(side, side, channels), **options)
        except Exception as error:
            problem = error
            continue
        if not _takes_bytes(made):
            other = next((told for start, told in _PUBLISHED.items() if name.startswith(start)), "")
            apart = f"; weights that Keras publishes for it are for other values ({other})" if other else ""
            say(f"{name} sees images in [0, 1], with random weights{apart}")
        return made, None, None
    raise InputError(f"{name} must take images of {image_size} px with {channels} channels; {problem}") from problem


def _backbone(preset: str, *, say: _Say) -> tuple[Any, Any, Any]:
    """A backbone of KerasHub with its weights, and the range that its preset's converter of images makes."""
    imported("keras_hub", f"the encoder keras_hub:{preset}")
    keras_hub: Any = importlib.import_module("keras_hub")
    place = str(expanded(preset)) if Path(expanded(preset)).is_dir() else preset
    with _told("keras_hub must be followed by the preset of an image backbone, its name or its folder"):
        made = keras_hub.models.Backbone.from_preset(place)
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(place)
    except Exception:  # a preset without one
        say(f"{preset} has no converter of images: it sees them in [0, 1]")
        return made, None, None
    scale, offset = converter.scale, converter.offset
    if scale is None and offset is None:
        say(f"{preset} takes values of 0 to 255: images in [0, 1] are multiplied by 255 before it")
        return made, 255.0, 0.0
    # The converter scales bytes, we have [0, 1]: its factor times 255, for each channel if it has three.
    many = isinstance(scale, list | tuple)
    scale = [255.0 * float(one) for one in scale] if many else 255.0 * float(1.0 if scale is None else scale)
    say(f"{preset} sees images as its own converter scales them")
    return made, scale, 0.0 if offset is None else offset


def _takes_bytes(model: keras.layers.Layer) -> bool:
    """Whether a model's first layer tells that it takes values of 0 to 255: it divides by such, or takes off a mean.

    That of a model that is no graph of layers cannot be told.
    """
    layer: Any = _first(model)
    if isinstance(layer, keras.layers.Rescaling):
        # A factor of 1/255 or 1/127.5 is meant for bytes, one of 2 for [0, 1].
        return float(np.max(np.abs(np.asarray(layer.scale)))) <= 1 / _BYTES
    if isinstance(layer, keras.layers.Normalization):
        # A mean of 2 or more cannot be of values in [0, 1].
        mean = layer.input_mean if layer.input_mean is not None else getattr(layer, "mean", None)
        return mean is not None and float(np.max(keras.ops.convert_to_numpy(mean))) >= 2
    return False


_BYTES = 100
"""First layers that divide by this much or more are for values of 0 to 255: by 255, 127.5, 128."""


def _first(model: keras.layers.Layer) -> keras.layers.Layer | None:
    """The layer that images meet first; None where it cannot be told."""
    if not isinstance(model, keras.Model):
        return model
    # A model that is a subclass may call its layers in any order: nothing can be told.
    if not (isinstance(model, keras.Sequential) or hasattr(model, "operations")):
        return None
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    return _first(layers[0]) if layers else None


def _vectors(outputs: Any, *, name: str, say: _Say) -> Any:
    """The features `(n, d)` of an encoder: maps and tokens are averaged."""
    # By rank: maps (n, h, w, d), tokens (n, t, d) or vectors (n, d).
    x = parts.one_of(outputs)
    rank = len(x.shape)
    if rank == 4:
        say(f"{name} gives maps {tuple(x.shape[1:])}, which are averaged over their positions")
        return keras.layers.GlobalAveragePooling2D(name="average_of_positions", data_format="channels_last")(x)
    if rank == 3:
        say(f"{name} gives tokens {tuple(x.shape[1:])}, which are averaged; a model that picks one gives it alone")
        return keras.layers.GlobalAveragePooling1D(name="average_of_tokens", data_format="channels_last")(x)
    check(rank == 2, f"{name} must give features (n, d), maps (n, h, w, d) or tokens (n, t, d)", output=tuple(x.shape))
    return x


def _check_told(model: keras.Model, *, name: str) -> None:
    """Refuses an encoder that cannot say what it is made of: nothing could load what comes of it."""
    rule = f"{name} must be saved with what comes of it"
    with _told(f"{rule}: each class of its own needs a get_config() that gives the arguments of its constructor"):
        # As a file would say it, and as it would be loaded: whatever fails there fails now.
        known = keras.saving.serialize_keras_object(model)
        _check_code(known, where=name)
        type(model).from_config(model.get_config())


# Files.


def is_keras(path: Path) -> bool:
    """Whether a file is a network that Keras saved."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    with reading(path, "a whole Keras network"), zipfile.ZipFile(path) as archive:
        return {"config.json", "model.weights.h5"} <= set(archive.namelist())


def load(path: Path) -> keras.Model:
    """Loads a network of any kind from a `.keras` file; it is not compiled.

    A file of this kind names the classes that it is made of.  Those of Keras and KerasHub are taken, but none that
    runs other code; those of others only where their module was named by the user, or registered them with Keras.

    Raises:
        InputError: it is damaged, or made of code that nobody has named.
    """
    check(path.is_file(), f"{path} must be a .keras file, but is not there")
    with reading(path, "a whole Keras network"), zipfile.ZipFile(path) as archive:
        # What the archive says that it becomes, before anything of it is unpacked.
        spend(made=sum(member.file_size for member in archive.infolist()), items=len(archive.infolist()))
        config = parse_json(archive.read("config.json"))
    return _opened(lambda: keras.saving.load_model(path, compile=False, safe_mode=True), config, where=str(path))


def drawn(text: bytes, *, where: str) -> keras.Model:
    """The network of a configuration (`to_json`), with random weights; as `load`."""
    config = parse_json(text)
    return _opened(lambda: keras.models.model_from_json(text.decode()), config, where=where)


def _opened(make: Callable[[], Any], config: Any, *, where: str) -> keras.Model:
    # The user's layers, then the check, and only then Keras makes objects of the configuration.
    _register_named()
    _check_code(config, where=where)
    try:
        model = make()
    except Exception as error:  # a damaged file raises whatever it meets
        raise InputError(f"{where} must be a whole Keras network; {named.told(error)}") from error
    check(isinstance(model, keras.Model), f"{where} must hold a Keras model", received=type(model).__name__)
    return model


def _register_named() -> None:
    """Tells Keras of the layers of the modules that the user has named, by the names that it saves them under."""
    for module in named.imported:
        for one in list(vars(module).values()):
            own = isinstance(one, type) and issubclass(one, keras.layers.Layer)
            if own and one.__module__.split(".")[0] not in _KERAS:
                keras.saving.get_custom_objects().setdefault(keras.saving.get_registered_name(one), one)


def _check_code(config: Any, *, where: str) -> None:
    """Raises `InputError` where a configuration names code that neither is Keras' nor was named by the user."""
    known = keras.saving.get_custom_objects()
    strange = []
    # Every part with a class is looked at, however deep: wrappers hide others.
    for part in dictionaries(config):
        if not isinstance(part.get("class_name"), str):
            continue
        module, name, registered = part.get("module"), part["class_name"], part.get("registered_name")
        package = str(module or "").split(".")[0]
        # These run code that the file brings with it: refused by name, whoever registers them.
        if name in _PROGRAMS:
            raise InputError(
                f"{where} must be made of layers that can be saved as numbers, but has a {name}, a program"
            )
        if package == "keras_hub":
            imported("keras_hub", f"{where}, made of layers of KerasHub,")
        # Keras' own classes, what is registered in this process, and nothing else.
        ours = package in (*_KERAS, "builtins", "") and not (registered and ">" in str(registered))
        if not (ours or registered in known or name in known):
            strange.append(f"{module}.{name}" if module else str(registered or name))
    if strange:
        raise InputError(
            f"{where} is made with code of its own, {', '.join(dict.fromkeys(strange))}, which is not run because a "
            "file names it: name it yourself, --encoder module:function, or in Python import its module first; "
            "its classes must be in that module, or registered with @keras.saving.register_keras_serializable()"
        )


# Networks.


def as_network(model: keras.Model) -> keras.Model:
    """A network by its endpoints; an encoder alone becomes one whose only endpoint is `final_avg_pool`.

    One that takes values of 0 to 255, by its first layer, gets images in [0, 1] times 255.

    Raises:
        InputError: it is no encoder.
    """
    # By endpoints already; a bare encoder with a rescaling of its own in front; or the encoder as it is.
    if isinstance(getattr(model, "output", None), dict) and "final_avg_pool" in model.output:
        return model
    shape = parts.images_shape(model)
    if shape is None:
        raise InputError(f"a network in a file must know the shape of its images. Received: {model.name}")
    if _takes_bytes(model):
        images = keras.Input(shape[1:], name="images")
        scaled = keras.layers.Rescaling(255.0, name=RANGE)(images)
        model = keras.Model(images, parts.pooled(model(scaled)), name="encoder")
    return network.connect(model, images=shape)


def encoder_of(model: keras.Model) -> keras.layers.Layer:
    """The encoder within a network by its endpoints; of other models the model itself."""
    if not isinstance(model, network.Network):
        return model
    # In the order of layers: the first with weights is the encoder, the heads come behind it.
    return next(layer for layer in model.layers if layer.weights)


def projection_of(model: keras.Model) -> keras.layers.Layer | None:
    """The projection head within a network by its endpoints, if there is one."""
    return next((layer for layer in model.layers if layer.name == "projection_head"), None)
