"""Encoders and projection heads of any kind that Keras can build, as `SimCLR`, `Classifier` and `MoCo` call them.

An encoder takes images `(n, h, w, c)` and gives features `(n, d)`: one tensor, alone or in a list or dict; of a network
with this project's endpoints its `final_avg_pool`; feature maps `(n, h, w, d)` are averaged over their positions.
A projection takes features and gives the list of each of its layers' outputs, or the last one alone.
"""

import keras
from keras import ops

from tf_simclr.errors import InputError, check


def _check_encoder(encoder) -> None:
    """Raises `InputError` unless this is a Keras model or layer that takes images whose channels come last."""
    check(isinstance(encoder, keras.layers.Layer), "encoder must be a Keras model or layer", encoder=type(encoder))
    # Channels first would read (n, h, w, 3) as h channels of w × 3 pixels, without an error in most layers.
    layers = encoder._flatten_layers()
    first = next((layer for layer in layers if getattr(layer, "data_format", None) == "channels_first"), None)
    moved = any(isinstance(layer, keras.layers.Permute) for layer in layers)
    rule = "encoder must take images with the channels last, (n, h, w, 3), but a layer of it wants them first"
    advice = 'make it with data_format="channels_last", or set image_data_format in ~/.keras/keras.json'
    check(first is None or moved, f"{rule}: {advice}", layer=getattr(first, "name", None))


def images_shape(encoder) -> tuple | None:
    """The shape `(None, h, w, c)` of the images that an encoder was made for, sizes that are free None.

    An encoder that has seen no image yet is built here, if it takes images of any size.

    Returns:
        None for one that only images of their size can build.

    Raises:
        InputError: it takes something else.
    """
    _check_encoder(encoder)
    shape = input_shape(encoder)
    if shape is None:
        # A model that was never called: tried with colour images of any size.
        shape = (None, None, None, 3)
        return shape if builds(encoder, shape) else None
    rule = "encoder must take one tensor of images, (n, h, w, 3)"
    check(isinstance(shape, tuple) and len(shape) == 4 and not isinstance(shape[0], tuple), rule, input_shape=shape)
    return (None, *shape[1:])


def input_shape(model):
    """The shape that a built model takes; None: it is not known."""
    try:
        # Keras raises AttributeError for a subclassed model, ValueError for one that was not called.
        shape = model.input_shape
    except (AttributeError, ValueError):
        return None
    # {"images": shape} or [shape]: one input by a name, or in a list, is one input.
    items = list(shape.values()) if isinstance(shape, dict) else shape if isinstance(shape, list) else []
    return items[0] if len(items) == 1 else shape


def builds(encoder, shape: tuple) -> bool:
    """Whether a symbolic call with this shape builds an encoder, and says how long its features are."""
    # What a try leaves behind is undone, so that the first batch finds the model as it came.
    layers = list(encoder._layers) if isinstance(encoder, keras.Sequential) else None
    try:
        return features_spec(encoder, shape).shape[-1] is not None
    except InputError:
        raise
    except Exception:  # whatever its layers raise: it is built by the first batch, whose errors the user sees
        if layers is not None:  # Keras has put an input of this shape before them
            encoder._layers, encoder._functional, encoder.built = layers, None, False
        return False


def features_spec(encoder, shape: tuple) -> keras.KerasTensor:
    """What an encoder gives for images of a shape, found by a symbolic call, which builds it."""
    # In inference mode, as no more than shapes is asked for.
    return features_of(encoder, keras.KerasTensor(shape, dtype=keras.config.floatx()), training=False)


def features_of(encoder, images, *, training):
    """The features `(n, d)` of images `(n, h, w, c)`.

    Raises:
        InputError: the encoder gives several tensors, or one of another rank.
    """
    return pooled(encoder(as_taken(images, encoder), training=training))


_LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601, as TensorFlow's `rgb_to_grayscale` has them)."""


def as_taken(images, model):
    """RGB images `(…, 3)` as a model of one channel takes them, their luminance `(…, 1)`; others as they are.

    So are those with an opacity behind it, `(…, 4)`, as one of two channels takes them, `(…, 2)`.

    All views are made in RGB and made grey at last: of a grey picture saturation and hue change nothing, and brightness
    and contrast change its one channel as they would alone.

    Raises:
        InputError: the model takes another number of channels.
    """
    shape = input_shape(model)
    # The channels that a built model takes; None: it takes any.
    wanted = shape[-1] if isinstance(shape, tuple) and isinstance(shape[-1], int) else None
    given = images.shape[-1]
    if wanted in (None, given) or given is None:
        return images
    only = "RGB images are made grey for one of one channel, those with opacity for one of two, for no other"
    rule = f"the network takes images of {wanted} channels: {only}"
    check((given, wanted) in ((3, 1), (4, 2)), rule, channels=given)
    # (…, 3) · (3,) summed → (…, 1)
    weights = ops.cast(ops.convert_to_tensor(_LUMINANCE), images.dtype)
    grey = ops.sum(images[..., :3] * weights, axis=-1, keepdims=True)
    return grey if wanted == 1 else ops.concatenate([grey, images[..., 3:]], axis=-1)


def pooled(outputs):
    """The features among an encoder's outputs; maps are averaged over their positions."""
    features = one_of(outputs)
    rank = len(features.shape)
    rule = "encoder must give features (n, d), or maps (n, h, w, d), which are averaged"
    advice = "end it with a layer such as keras.layers.GlobalAveragePooling1D() or Flatten()"
    check(rank in (2, 4), f"{rule}; {advice}", output_shape=tuple(features.shape))
    # (n, h, w, d) → (n, d), the mean over positions, as a ResNet's last layer.
    return ops.mean(features, axis=(1, 2)) if rank == 4 else features


def one_of(outputs):
    """The only tensor of an encoder's outputs, or the endpoint `final_avg_pool`."""
    if isinstance(outputs, dict) and "final_avg_pool" in outputs:
        return outputs["final_avg_pool"]
    # Any structure of tensors, a list of one or a tuple of one included.
    tensors = keras.tree.flatten(outputs)
    if len(tensors) != 1:
        names = list(outputs) if isinstance(outputs, dict) else [tuple(x.shape) for x in tensors]
        raise InputError(
            "encoder must give one tensor of features: choose one of its outputs, as by "
            f"keras.Model(encoder.input, encoder.output[{names[-1] if isinstance(outputs, dict) else 0!r}]). "
            f"Received: {len(tensors)} outputs, {names}"
        )
    return tensors[0]


def projections_of(projection, features, *, training) -> list:
    """The outputs of a projection's layers, the last one `z` `(n, d)`; features and `z` where it gives `z` alone.

    Raises:
        InputError: it gives a dict, or `z` of another rank.
    """
    outputs = projection(features, training=training)
    rule = "projection must give z (n, d), or the list of each layer's output, z the last"
    check(not isinstance(outputs, dict), rule, output=list(outputs) if isinstance(outputs, dict) else None)
    # A head that gives z alone has the features as layer 0 and z as layer 1.
    outputs = list(outputs) if isinstance(outputs, list | tuple) else [features, outputs]
    check(len(outputs) > 0 and len(outputs[-1].shape) == 2, rule, shapes=[tuple(x.shape) for x in outputs])
    return outputs


def projections_spec(projection, width: int) -> list:
    """What a projection gives for features of a width, found by a symbolic call, which builds it."""
    features = keras.KerasTensor((None, width), dtype=keras.config.floatx())
    return projections_of(projection, features, training=False)


def copied(model, *, prefix: str):
    """A model of the same kind and configuration, a prefix before its layers' names; not built, if it builds itself.

    Raises:
        InputError: the model cannot say its configuration.
    """

    # Every layer of a functional model anew, under a name that does not clash in one file with the first.
    def renamed(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        return type(layer).from_config(config | {"name": prefix + config["name"]})

    # Subclassed models name their layers within their constructor: no prefix reaches them.
    if type(model).__name__ in ("Functional", "Sequential"):
        return keras.models.clone_model(model, clone_function=renamed)
    try:
        return type(model).from_config(model.get_config())
    except NotImplementedError as error:
        rule = f"{type(model).__name__} must have a get_config() that gives the arguments of its constructor"
        reason = "MoCo makes a second one for the keys; see keras.io/guides/serialization_and_saving"
        raise InputError(f"{rule}, as {reason}") from error
