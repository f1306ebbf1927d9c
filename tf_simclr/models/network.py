"""A whole network by its endpoints: images in, a dict of every named output out."""

from collections.abc import Iterator

import keras

from tf_simclr.models import parts
from tf_simclr.models.architecture import Architecture
from tf_simclr.models.normalization import BatchNormalization, Normalization
from tf_simclr.models.resnet import projection_head, resnet, supervised_head


def build(architecture: Architecture, normalization: Normalization = Normalization()) -> keras.Model:
    """Builds the network that a checkpoint of this architecture holds.

    Returns:
        A model from images `(n, h, w, 3)` in [0, 1] to a dict with the endpoint names of the official SavedModels:
        `initial_conv`, `initial_max_pool`, `block_group1` … `block_group4`, `final_avg_pool`; with a projection head
        `proj_head_input`, `proj_1` … `proj_n` (hidden ones after ReLU) and `proj_head_output` (the last); with a
        supervised head `logits_sup`, fed by projection layer `ft_proj_selector` (0: the pooled features).
    """
    encoder = build_encoder(architecture, normalization)
    projection = build_projection(architecture, normalization) if architecture.num_proj_layers else None
    logits = supervised_head(architecture.num_classes) if architecture.num_classes else None
    return connect(encoder, projection, logits=logits, ft_proj_selector=architecture.ft_proj_selector)


def connect(
    encoder: keras.Model,
    projection: keras.Model | None = None,
    *,
    logits: keras.layers.Layer | None = None,
    ft_proj_selector: int = 0,
    images: tuple = (None, None, None, 3),
) -> keras.Model:
    """Joins an encoder and the heads that there are to one model with named endpoints; the weights are shared.

    Args:
        encoder: of `resnet`, or of another kind, whose only endpoint is `final_avg_pool`.
        projection: if there is one.
        logits: the supervised head, if there is one.
        ft_proj_selector: the projection layer that feeds it; 0: the features.
        images: shape of the images that an encoder of another kind takes.
    """
    # A ResNet is opened, so that its blocks become outputs; another encoder is one layer of the network.
    own = _is_resnet(encoder)  # one whose blocks are endpoints, too
    inputs = encoder.input if own else keras.Input(images[1:], name="images")
    features = encoder.output if own else parts.features_of(encoder, inputs, training=None)
    endpoints = _encoder_endpoints(encoder) if own else {"final_avg_pool": features}
    # Layer 0 of the head is the features themselves, by which `ft_proj_selector` counts.
    projections = [features]
    if projection is not None:
        projections = parts.projections_of(projection, features, training=None)
        layers = {f"proj_{i}": output for i, output in enumerate(projections) if i > 0}
        endpoints |= {"proj_head_input": projections[0], **layers, "proj_head_output": projections[-1]}
    if logits is not None:
        endpoints["logits_sup"] = logits(projections[ft_proj_selector])
    # One of Keras' own class loads without this package.
    return (keras.Model if own else Network)(inputs, endpoints, name="network")


@keras.saving.register_keras_serializable("tf_simclr")
class Network(keras.Model):
    """A network on an encoder of any kind: called without `training` it is in inference mode, whatever is in it.

    Some of Keras' layers, such as `Resizing`, take no word for training, and hand that on to all layers behind them.
    """

    def call(self, inputs, training=None, *, mask=None):
        """Images to endpoints."""
        return super().call(inputs, training=training or False, mask=mask)


def build_encoder(architecture: Architecture, normalization: Normalization = Normalization()) -> keras.Model:
    """The encoder of this architecture: images `(n, h, w, 3)` to pooled features."""
    names = ("depth", "width", "sk_ratio", "se_ratio", "cifar_stem", "channels")
    return resnet(**{name: getattr(architecture, name) for name in names}, normalization=normalization)


def build_projection(
    architecture: Architecture, normalization: Normalization = Normalization(), *, features: int | None = None
) -> keras.Model:
    """The projection head of this architecture, on features of that length, by default those of its encoder."""
    return projection_head(
        features or architecture.feature_dim,
        architecture.num_proj_layers,
        proj_out_dim=architecture.proj_out_dim,
        normalization=normalization,
    )


def _is_resnet(encoder: keras.Model) -> bool:
    """Whether an encoder has the layers of `resnet`, by their names."""
    names = {layer.name for layer in getattr(encoder, "layers", [])}
    # By names, as a loaded encoder is told from others by nothing else.
    return "stem_conv1" in names and all(f"group{i}_block1_out" in names for i in range(1, 5))


def plain(model: keras.Model) -> keras.Model:
    """A copy in float32, to save; of a ResNet made of nothing but Keras' layers, so that it loads without this package.

    An encoder of another kind, in which no layer is ours, is made of what it is made of, and so is its copy.  In both
    BatchNorm is not synchronised: how many replicas trained it is over, and Keras on JAX loads no layer that is.
    """
    # An encoder of another kind without one of our layers: a copy by its configuration, whose layers are then set.
    if not _is_resnet(model) and not any(isinstance(layer, BatchNormalization) for layer in model._flatten_layers()):
        copy = type(model).from_config(model.get_config())
        in_precision(copy, keras.config.floatx())
        for layer in copy._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = False
        copy.set_weights(model.get_weights())
        return copy

    # What stands for each layer in the copy: models within it are copied in turn, our BatchNorm becomes Keras' own.
    def of_keras(layer):
        if isinstance(layer, keras.Model):
            if type(layer).__name__ in ("Functional", "Sequential"):
                return keras.models.clone_model(layer, clone_function=of_keras)
            whole = type(layer).from_config(layer.get_config())  # its constructor makes its layers, as KerasHub's do
            in_precision(whole, keras.config.floatx())
            return whole
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        # Also of a subclass of Keras' BatchNorm by somebody else its own kind stays.
        kind = keras.layers.BatchNormalization if isinstance(layer, BatchNormalization) else type(layer)
        own = {"dtype": keras.config.floatx()} if isinstance(layer, keras.layers.Layer) else {}  # else an operation
        return kind.from_config(layer.get_config() | own | ({"synchronized": False} if normalizes else {}))

    # Cloning makes new weights in the same order, so that they go over by order here, within one program.
    copy = keras.models.clone_model(model, clone_function=of_keras)
    copy.set_weights(model.get_weights())
    return copy


def in_precision(model: keras.Model, policy: str) -> None:
    """Makes a model's layers compute in a precision, whatever they were made with; weights stay as they are."""
    for layer in model._flatten_layers():
        layer.dtype_policy = policy


def _encoder_endpoints(encoder: keras.Model) -> dict:
    """Name to symbolic output of each endpoint of an encoder that `resnet` built."""
    names = [layer.name for layer in encoder.layers]
    # The last of the stem's convolutions: one, or three in ResNet-D.
    stem = max(name for name in names if name.startswith("stem_conv") and not name.endswith("_pad"))
    pool = "stem_pool" if "stem_pool" in names else "stem_relu1"  # no pool in docs/official-code.md#cifar-stem
    layers = {"initial_conv": stem, "initial_max_pool": pool}
    for group in range(1, 5):
        # The last block of a group, in the order in which the layers were made.
        layers[f"block_group{group}"] = [n for n in names if n.startswith(f"group{group}_") and n.endswith("_out")][-1]
    return {end: encoder.get_layer(name).output for end, name in layers.items()} | {"final_avg_pool": encoder.output}


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models within it; a layer that is no model is its only one."""
    if not isinstance(model, keras.Model):
        yield model
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def variables_by_name(model: keras.Model, *, first: keras.layers.Layer | None = None) -> dict[str, keras.Variable]:
    """Every weight of a model by a name of its own: by `layer/weight`, or by its place where layers share a name.

    Encoders of other kinds have layers within layers, whose weights have one name: then all of a part's weights are
    called by the part's place and theirs, `0/0012/kernel`.

    Args:
        model: of this package, whose encoder comes first; or a network.
        first: the encoder of a network, where the layer of images comes before it.
    """
    found: dict[str, keras.Variable] = {}
    rest = [part for part in model.layers if part is not first]
    # The encoder first, whatever Keras' order of attributes: names must not change with the heads.
    for place, part in enumerate(rest if first is None else [first, *rest]):
        pairs = [(f"{layer.name}/{weight.name}", weight) for layer in leaves(part) for weight in layer.weights]
        # A name that stands twice, or that an earlier part has, makes the part's names places.
        if len({name for name, _ in pairs} - found.keys()) < len(part.weights):
            pairs = [(f"{place}/{i:04d}/{weight.name}", weight) for i, weight in enumerate(part.weights)]
        found |= pairs
    return found


def weights_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Every weight by `layer/weight`, the names that `converters` calls the Keras naming.

    Raises:
        ValueError: two layers have one name.
    """
    layers = [layer for layer in leaves(model) if layer.weights]
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        raise ValueError(f"layer names must be unique. Received: {sorted({n for n in names if names.count(n) > 1})}")
    return {f"{layer.name}/{weight.name}": weight for layer in layers for weight in layer.weights}
