"""A network as a file that runs elsewhere: Keras, SavedModel, ONNX, TensorFlow Lite; each proven before it is in place.

Every file is loaded again in its own runtime and run on images, all together and one at a time, beside the network on
the views that evaluation makes of them.  A file that answers otherwise is not put in place.
"""

import contextlib
import functools
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tf_simclr.data.images import evaluation_view
from tf_simclr.data.recipe import evaluation_proportion
from tf_simclr.errors import InputError, check, in_one_line
from tf_simclr.files import replacing_folder, replacing_path
from tf_simclr.models.evaluation_view import EvaluationView

_Outputs = dict[str, np.ndarray]
_BATCH_AXIS = "batch"
_AXES = (_BATCH_AXIS, "height", "width", "channels")
"""Of images."""
_TIE = 1e-5
"""Logits nearer to each other than this share of the largest one are equal: their order is a matter of rounding."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A network as others call it.

    Attributes:
        network: images `(n, h, w, 3)` in [0, 1] to a dictionary of endpoints.
        endpoints: which ones; by default the pooled features, and the logits where there are any.
        image_size: side of the view of evaluation (central crop, bicubic) that is taken inside of images of any size;
            0: images are taken as they come.
        uint8: whether images are bytes of 0 to 255 instead of numbers in [0, 1].
        seen_at: side in pixels at which the network saw images; 0: not known.
        classes: names of the logits, in their order.
        notes: what a user of the file must know, a sentence each.

    Raises:
        InputError: there is no such endpoint.
    """

    network: keras.Model
    endpoints: tuple[str, ...] = ()
    image_size: int = 0
    uint8: bool = False
    seen_at: int = 0
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        there = list(self.network.output)
        chosen = self.endpoints or tuple(name for name in ("final_avg_pool", "logits_sup") if name in there)
        unknown = sorted(set(chosen) - set(there))
        check(not unknown, f"endpoints must be among {', '.join(there)}", endpoints=unknown)
        object.__setattr__(self, "endpoints", chosen)

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """Height and width of the images that are taken; None: any."""
        return (None, None) if self.image_size else tuple(self.network.input_shape[1:3])

    @property
    def channels(self) -> int:
        """Of the images that are taken."""
        return int(self.network.input_shape[-1])

    def model(self, *, fixed_point: bool = False) -> keras.Model:
        """The layers around the network and it, as one model; only who asks it to train changes its statistics.

        Args:
            fixed_point: makes the view in integers (`EvaluationView`).
        """
        images = keras.Input((*self.sides, self.channels), dtype="uint8" if self.uint8 else "float32", name="images")
        x = keras.layers.Rescaling(1 / 255, name="to_unit_range")(images) if self.uint8 else images
        if self.image_size:
            proportion, name = evaluation_proportion(self.image_size), "evaluation_view"
            x = EvaluationView(self.image_size, proportion, fixed_point=fixed_point, name=name)(x)
        # Said here, since a layer of Keras in front may ask what follows to train where the caller says nothing
        # (Resizing does): BatchNorm would then normalise by the batch, and count it in.
        outputs = self.network(x, training=False)
        return keras.Model(images, {name: outputs[name] for name in self.endpoints}, name="served")

    def about(self, sides: tuple[int | None, ...] | None = None) -> dict[str, Any]:
        """What the file says of itself: its images, their preprocessing, outputs and classes.

        Args:
            sides: height and width of the images, where the file is for one size.
        """
        height, width = sides or self.sides
        channels = self.channels
        outputs = {}
        for name in self.endpoints:
            shape = tuple(self.network.output[name].shape)
            last = "classes" if name == "logits_sup" else "features"
            more = [last] if len(shape) == 2 else [f"{name}_{axis}" for axis in _AXES[1 : len(shape)]]
            outputs[name] = {"axes": [_BATCH_AXIS, *more], "shape": list(shape)}
        return {
            "images": {
                "axes": list(_AXES),
                "shape": [None, height, width, channels],
                "channels": {3: "RGB", 1: "luminance"}.get(channels, f"{channels} as they were trained on"),
                "dtype": "uint8" if self.uint8 else "float32",
                "range": [0, 255] if self.uint8 else [0, 1],
            },
            "preprocessing": self._preprocessing(height),
            "outputs": outputs,
            "classes": list(self.classes),
            "notes": list(self.notes),
        }

    def _preprocessing(self, side: int | None) -> str:
        """What is to be done with an image before it is given to the file."""
        values = "as bytes of 0 to 255" if self.uint8 else "as numbers in [0, 1], bytes divided by 255"
        if self.image_size:
            share = evaluation_proportion(self.image_size)
            return (
                f"none: images of any size {values}; inside, the central square of {share:g} of the shorter side is "
                f"taken and made {self.image_size} × {self.image_size} pixels, bicubic"
            )
        seen = side or self.seen_at
        shape = "any size"
        if seen:
            share = evaluation_proportion(seen)
            shape = f"the central square of {share:g} of the shorter side, made {seen} × {seen} pixels, bicubic"
        return f"{shape}; {values}; neither mean nor standard deviation is taken off"

    def expected(self, images: np.ndarray) -> _Outputs:
        """What the network makes of images as evaluation sees them, without any layer of `model`."""
        x = tf.cast(images, tf.float32) * (1 / 255 if self.uint8 else 1.0)
        if self.image_size:
            x = tf.stack([evaluation_view(image, size=self.image_size) for image in x])
        outputs = self.network(x, training=False)
        return {name: np.asarray(outputs[name]) for name in self.endpoints}


@dataclass(frozen=True)
class Report:
    """How near a file is to the network.

    Attributes:
        differences: for each endpoint the largest difference over the largest magnitude.
        same: share of the images that have the same largest logit; without logits, whose features point in the same
            direction (cosine of 0.99 and more).
        images: how many were compared, each within its batch and alone.
        sizes: heights and widths that were compared.
        judged_by: the endpoint of `same`.
    """

    differences: dict[str, float]
    same: float
    images: int
    sizes: tuple[tuple[int, int], ...]
    judged_by: str


@dataclass(frozen=True)
class _Format:
    """A kind of file: how it is written and run."""

    ending: str
    """Of a file; empty: it is a folder."""
    write: Callable[..., None]
    opened: Callable[[Path], Callable[[np.ndarray], _Outputs]]
    needs: tuple[str, ...] = ()
    """Packages beside TensorFlow."""
    least: float = 0.99
    """Share of the images that must be answered as the network does."""
    any_size: bool = False
    """Whether images of any size can be taken without a view being made inside."""


def export(serving: Serving, path: Path, *, kind: str, images: Sequence[np.ndarray]) -> Report:
    """Writes a network in a format of `FORMATS`, proves it in its own runtime, and puts it in place.

    Args:
        serving: what to write.
        path: where to.
        kind: which format.
        images: batches `(n, h, w, 3)` as the file takes them, to compare with; by them `tflite-int8` learns the ranges
            of activations, and where no view is made inside, `onnx` and both `tflite` the size.

    Raises:
        InputError: a package is missing, the images are not of one size where they have to be, the place cannot be
            written, or the file does not answer as the network does.
    """
    form = FORMATS[kind]
    missing = [name for name in form.needs if find_spec(name) is None]
    if missing:
        raise InputError(f"{kind} needs {', '.join(missing)}: pip install 'tf-simclr[export]'")
    check(sum(map(len, images)) > 0, "an export needs images to be compared on", images=0)
    sizes = {batch.shape[1:3] for batch in images}
    if not (form.any_size or serving.image_size):
        check(len(sizes) == 1, f"{kind} needs images of one size unless it resizes them", sizes=sorted(sizes))
    with (replacing_path if form.ending else replacing_folder)(path) as temporary:
        with _told(path, kind, f"a network that {kind} can hold"):
            form.write(serving, temporary, samples=list(images))
        with _told(path, kind, "a file that its own runtime takes"):
            report = compare(serving, temporary, kind=kind, images=images)
        advice = "give --image_dir with images like those it is for" if kind == "tflite-int8" else "report this"
        rule = (
            f"{path} must answer as the network does on at least {form.least:.0%} of the images; it was not put there"
        )
        check(report.same >= form.least, f"{rule}; {advice}", kind=kind, same=f"{report.same:.1%}")
    return report


@contextlib.contextmanager
def _told(path: Path, kind: str, must_be: str) -> Iterator[None]:
    """A block in which what another's writer or runtime raises becomes a sentence."""
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        others = ", ".join(name for name in ("savedmodel", "keras", "onnx") if name != kind)
        raise InputError(
            f"{path} must be {must_be}; nothing was put there, take another format ({others}): {in_one_line(error)}"
        ) from error


def compare(serving: Serving, path: Path, *, kind: str, images: Sequence[np.ndarray]) -> Report:
    """Runs a written file on images, as batches and one at a time, beside the network."""
    run = FORMATS[kind].opened(path)
    name = "logits_sup" if "logits_sup" in serving.endpoints else serving.endpoints[0]
    largest, apart, same = dict.fromkeys(serving.endpoints, 0.0), dict.fromkeys(serving.endpoints, 0.0), []
    for batch in images:
        ours = serving.expected(batch)
        alone = [slice(i, i + 1) for i in range(len(batch))] if len(batch) > 1 else []
        for part in (slice(0, len(batch)), *alone):
            theirs = run(batch[part])
            check(theirs.keys() == ours.keys(), f"{path} must have the network's endpoints", endpoints=sorted(theirs))
            for end, value in ours.items():
                wrong = theirs[end].shape != value[part].shape or not np.isfinite(theirs[end]).all()
                apart[end] = max(apart[end], np.inf if wrong else float(np.abs(theirs[end] - value[part]).max()))
                largest[end] = max(largest[end], float(np.abs(value[part]).max()))
            same += [
                agree(a, b, logits=name == "logits_sup") for a, b in zip(theirs[name], ours[name][part], strict=True)
            ]
    differences = {end: apart[end] / max(largest[end], 1e-30) for end in apart}
    sizes = tuple(sorted({batch.shape[1:3] for batch in images}))
    return Report(differences, float(np.mean(same)), sum(map(len, images)), sizes, name)


def agree(theirs: np.ndarray, ours: np.ndarray, *, logits: bool) -> bool:
    """Whether two answers to one image are the same: their largest logit, or of features the direction."""
    theirs, ours = theirs.ravel().astype(np.float64), ours.ravel().astype(np.float64)
    if not np.isfinite(theirs).all():
        return False
    if logits:
        return bool(ours.max() - ours[theirs.argmax()] <= _TIE * np.abs(ours).max())
    lengths = np.linalg.norm(theirs) * np.linalg.norm(ours)
    return bool(theirs @ ours >= 0.99 * lengths)


def _write_keras(serving: Serving, path: Path, *, samples: list[np.ndarray]) -> None:
    """A `.keras` file; what is known of it stands in its `metadata.json`, which Keras itself does not read."""
    serving.model().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    known = json.loads(members["metadata.json"]) | {"tf_simclr": serving.about()}
    members["metadata.json"] = json.dumps(known, indent=1).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _open_keras(path: Path) -> Callable[[np.ndarray], _Outputs]:
    """Called plainly, as whoever loads it does."""
    model = keras.saving.load_model(path, compile=False)
    return lambda images: arrays(model(images))


def _write_savedmodel(serving: Serving, path: Path, *, samples: list[np.ndarray]) -> None:
    """A SavedModel that is called as the official ones, `loaded(images, trainable=False)`, and trains on.

    `loaded.trainable_variables` are what gradients flow to; `loaded.about.asset_path` is a JSON file about it.
    """
    model = serving.model()
    served: Any = tf.train.Checkpoint(model=model)
    shape = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype, name="images")
    call = tf.function(lambda inputs, trainable=False: model(inputs, training=trainable), autograph=False)
    served.__call__ = call
    signature = call.get_concrete_function(shape, trainable=False)
    call.get_concrete_function(shape, trainable=True)
    served.variables = [v.value for v in model.variables]
    served.trainable_variables = [v.value for v in model.trainable_variables]
    with tempfile.TemporaryDirectory() as folder:
        about = Path(folder) / "about.json"
        about.write_text(json.dumps(serving.about(), indent=1) + "\n", encoding="utf-8")
        served.about = tf.saved_model.Asset(str(about))  # copied to assets/about.json
        tf.saved_model.save(served, str(path), signatures=signature)


def _open_savedmodel(path: Path) -> Callable[[np.ndarray], _Outputs]:
    """Called as the official ones are."""
    loaded = tf.saved_model.load(str(path))
    return lambda images: arrays(loaded(tf.constant(images), trainable=False))


def _signature_of(serving: Serving, samples: list[np.ndarray]) -> tuple[tuple[int | None, ...], str]:
    """Shape and type of the images that a file takes: of the samples' size, or of any where a view is made inside."""
    sides = (None, None) if serving.image_size else samples[0].shape[1:3]
    return (None, *sides, serving.channels), "uint8" if serving.uint8 else "float32"


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """A block in which Keras' own functions become part of the graph that calls them.

    Keras computes grouped convolutions (ConvNeXt, ResNeXt) in a function that XLA compiles, which no other runtime has.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # inside of a graph that is traced: their operations are its own
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@functools.cache
def _teach_erfc() -> None:
    """Has tf2onnx write `erfc(x)`, of which TensorFlow makes the exact GELU, as 1 - erf(x), which it knows."""
    from tf2onnx import utils
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **_: Any) -> None:
            shape, kind = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
            inputs, outputs = list(node.input), list(node.output)
            graph.remove_node(node.name)
            one = np.array(1, utils.map_onnx_to_numpy_type(kind))
            terms = [graph.make_const(utils.make_name("one"), one).output[0], graph.make_node("Erf", inputs).output[0]]
            graph.make_node("Sub", terms, outputs=outputs, shapes=[shape], dtypes=[kind], name=node.name)


@contextlib.contextmanager
def _numbers_of_normalization(model: keras.Model) -> Iterator[None]:
    """A block in which means and variances that Keras' Normalization holds as tensors (ConvNeXt's) are numbers.

    tf2onnx would take such tensors for inputs of the file.
    """
    layers = [one for one in model._flatten_layers() if isinstance(one, keras.layers.Normalization)]
    before = [(one, one.mean, one.variance) for one in layers]
    for one, mean, variance in before:
        one.mean, one.variance = keras.ops.convert_to_numpy(mean), keras.ops.convert_to_numpy(variance)
    try:
        yield
    finally:
        for one, mean, variance in before:
            one.mean, one.variance = mean, variance


def _write_onnx(serving: Serving, path: Path, *, samples: list[np.ndarray]) -> None:
    """An ONNX file for batches of any length."""
    model = serving.model()
    model(samples[0][:1])  # Keras exports what has been called
    shape, dtype = _signature_of(serving, samples)
    signature = keras.InputSpec(shape=shape, dtype=dtype, name="images")
    with warnings.catch_warnings(), _inlined(), _numbers_of_normalization(model):
        _teach_erfc()
        warnings.simplefilter("ignore", FutureWarning)  # tf2onnx 1.17 asks NumPy for names that it has no more
        model.export(path, format="onnx", input_signature=[signature], verbose=False)
    _name_axes(serving, path, sides=shape[1:3])


def _name_axes(serving: Serving, path: Path, *, sides: tuple[int | None, ...]) -> None:
    """Names the axes of an ONNX file that are free, and notes what is known of it in its metadata."""
    import onnx

    model, about = onnx.load(path, load_external_data=False), serving.about(sides)
    axes = {model.graph.input[0].name: list(_AXES)} | {name: of["axes"] for name, of in about["outputs"].items()}
    for value in (*model.graph.input, *model.graph.output):
        for dim, axis in zip(value.type.tensor_type.shape.dim, axes.get(value.name, ()), strict=False):
            if dim.dim_value <= 0:
                dim.dim_param = axis
    told = {f"input_{name}": about["images"][name] for name in ("axes", "range", "channels")}
    told |= {name: about[name] for name in ("preprocessing", "classes", "notes")} | {"about": about}
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    onnx.helper.set_model_props(model, words)
    onnx.save(model, path)


def _open_onnx(path: Path) -> Callable[[np.ndarray], _Outputs]:
    """By ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = session.get_inputs()[0].name
    return lambda images: dict(zip(names, session.run(None, {taken: images}), strict=True))


def _write_tflite(serving: Serving, path: Path, *, samples: list[np.ndarray], int8: bool = False) -> None:
    """A TensorFlow Lite file, in float32 or with weights and activations in int8; inputs and outputs stay as they are.

    What is known of it is appended where such files have what belongs to them, in a zip at their end: `about.json` is
    as of the other formats, `labels.txt` has a class a line; the runtime reads neither.
    """
    path.write_bytes(_converted(serving.model(fixed_point=int8), serving, samples=samples, int8=int8))
    sides = _signature_of(serving, samples)[0][1:3]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("about.json", json.dumps(serving.about(sides), indent=1) + "\n")
        if serving.classes:
            archive.writestr("labels.txt", "".join(f"{name}\n" for name in serving.classes))


def _converted(model: keras.Model, serving: Serving, *, samples: list[np.ndarray], int8: bool) -> bytes:
    """TensorFlow Lite's form of the model, for batches of any length."""
    shape = tf.TensorSpec(*_signature_of(serving, samples), name="images")
    call = tf.function(lambda images: model(images, training=False), autograph=False)
    # Left as variables, Keras' weights arrive uninitialised in TensorFlow 2.21's converter: features of 1e30.
    with _inlined():
        traced = call.get_concrete_function(shape)
    frozen = convert_variables_to_constants_v2(traced)
    served, names = tf.Module(), sorted(model.output)  # freezing drops the names and keeps their order
    served.call = tf.function(lambda images: dict(zip(names, frozen(images), strict=True)), autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(served, folder, signatures=served.call.get_concrete_function(shape))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for batch in samples for image in batch)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()


def _open_tflite(path: Path) -> Callable[[np.ndarray], _Outputs]:
    """By LiteRT, TensorFlow Lite's runtime."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=path.read_bytes()).get_signature_runner()
    return lambda images: arrays(runner(images=images))


def arrays(outputs: dict) -> _Outputs:
    """Tensors as NumPy arrays."""
    return {name: np.asarray(value) for name, value in outputs.items()}


_LITERT = ("ai_edge_litert",)
FORMATS = {
    "keras": _Format(".keras", _write_keras, _open_keras, any_size=True),
    "savedmodel": _Format("", _write_savedmodel, _open_savedmodel, any_size=True),
    "onnx": _Format(".onnx", _write_onnx, _open_onnx, needs=("tf2onnx", "onnx", "onnxruntime")),
    "tflite": _Format(".tflite", _write_tflite, _open_tflite, needs=_LITERT),
    "tflite-int8": _Format(
        ".int8.tflite", functools.partial(_write_tflite, int8=True), _open_tflite, needs=_LITERT, least=0.97
    ),
}
"""Format → how it is written and run."""
