"""A network as a file that runs elsewhere: Keras, SavedModel, ONNX, TensorFlow Lite; and each compared after loading.

Every export is loaded again in its own runtime and run beside the Keras network on the same images.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tf_simclr.errors import InputError, check
from tf_simclr.files import replacing, replacing_path

Outputs = dict[str, np.ndarray]


def serving(
    network: keras.Model, *, endpoints: tuple[str, ...] = (), image_size: int = 0, uint8: bool = False
) -> keras.Model:
    """The network as others call it: of some endpoints, from bytes if asked, with resizing inside if asked.

    Args:
        network: images `(n, h, w, 3)` in [0, 1] to a dictionary of endpoints.
        endpoints: which ones; by default the pooled features, and the logits where there are any.
        image_size: side that images of any size are resized to inside (bilinear, sides scaled apart); 0: they are
            taken as they come.
        uint8: take images of 0 to 255 instead of [0, 1].

    Raises:
        InputError: there is no such endpoint.
    """
    there = list(network.output)
    endpoints = endpoints or tuple(name for name in ("final_avg_pool", "logits_sup") if name in there)
    unknown = sorted(set(endpoints) - set(there))
    check(not unknown, f"endpoints must be among {', '.join(there)}", endpoints=unknown)
    images = keras.Input((None, None, 3), dtype="uint8" if uint8 else "float32", name="images")
    x = keras.layers.Rescaling(1 / 255, name="to_unit_range")(images) if uint8 else images
    if image_size:
        x = keras.layers.Resizing(image_size, image_size, interpolation="bilinear", name="resize")(x)
    outputs = network(x)
    return keras.Model(images, {name: outputs[name] for name in endpoints}, name="served")


@dataclass(frozen=True)
class Format:
    """A kind of file: how it is written and run."""

    ending: str
    write: Callable[..., None]
    run: Callable[[Path, np.ndarray], Outputs]
    needs: tuple[str, ...] = ()
    """Packages beside TensorFlow."""


def write(model: keras.Model, path: Path, *, kind: str, samples: Iterable[np.ndarray] = ()) -> None:
    """Writes a model of `serving` in a format of `FORMATS`, whole or not at all.

    Args:
        model: what to write.
        path: where to.
        kind: which format.
        samples: batches of images as the model takes them, of one size; by them `onnx` and both `tflite` learn the size
            and `tflite-int8` the ranges of activations.

    Raises:
        InputError: a package is missing, or samples are.
    """
    missing = [name for name in FORMATS[kind].needs if find_spec(name) is None]
    if missing:
        raise InputError(f"{kind} needs {', '.join(missing)}: pip install 'tf-simclr[export]'")
    samples = list(samples)
    fixed = kind not in ("keras", "savedmodel")
    check(samples or not fixed, f"{kind} needs images, for their size and the ranges of activations", images=0)
    FORMATS[kind].write(model, path, samples=samples)


def compare(model: keras.Model, path: Path, *, kind: str, images: np.ndarray) -> dict[str, float]:
    """Runs a written file and the model on the same images `(n, h, w, 3)`.

    Returns:
        For each endpoint the largest difference over the largest magnitude, and under `top1` the share of images whose
        largest logit (without logits: largest feature) is the same.
    """
    theirs = FORMATS[kind].run(path, images)
    ours = {name: np.asarray(value) for name, value in model.predict_on_batch(images).items()}
    check(theirs.keys() == ours.keys(), f"{path} must have the network's endpoints", endpoints=sorted(theirs))
    report = {name: relative_difference(theirs[name], ours[name]) for name in ours}
    name = "logits_sup" if "logits_sup" in ours else next(iter(ours))
    same = theirs[name].reshape(len(images), -1).argmax(1) == ours[name].reshape(len(images), -1).argmax(1)
    return report | {"top1": float(same.mean())}


def relative_difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Largest difference over the largest magnitude of `ours`."""
    return float(np.abs(theirs - ours).max() / max(np.abs(ours).max(), 1e-30))


def write_keras(model: keras.Model, path: Path, *, samples: list[np.ndarray]) -> None:
    """A `.keras` file."""
    with replacing_path(path) as temporary:
        model.save(temporary)


def run_keras(path: Path, images: np.ndarray) -> Outputs:
    """What a `.keras` file gives."""
    return arrays(keras.saving.load_model(path, compile=False).predict_on_batch(images))


def write_savedmodel(model: keras.Model, path: Path, *, samples: list[np.ndarray]) -> None:
    """A SavedModel that is called as the official ones, `loaded(images, trainable=False)`, and trains on.

    `loaded.trainable_variables` are what gradients flow to.
    """
    served: Any = tf.train.Checkpoint(model=model)
    shape = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype, name="images")
    call = tf.function(lambda inputs, trainable=False: model(inputs, training=trainable), autograph=False)
    served.__call__ = call
    signature = call.get_concrete_function(shape, trainable=False)
    call.get_concrete_function(shape, trainable=True)
    served.variables = [v.value for v in model.variables]
    served.trainable_variables = [v.value for v in model.trainable_variables]
    with replacing_path(path) as temporary:
        tf.saved_model.save(served, str(temporary), signatures=signature)


def run_savedmodel(path: Path, images: np.ndarray) -> Outputs:
    """What a SavedModel gives."""
    return arrays(tf.saved_model.load(str(path))(tf.constant(images), trainable=False))


def write_onnx(model: keras.Model, path: Path, *, samples: list[np.ndarray]) -> None:
    """An ONNX file for batches of any length of images of the samples' size."""
    model(samples[0][:1])  # Keras exports what has been called
    signature = keras.InputSpec(shape=(None, *samples[0].shape[1:]), dtype=model.input.dtype, name="images")
    with replacing_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tf2onnx 1.17 asks NumPy for names that it has no more
        model.export(temporary, format="onnx", input_signature=[signature], verbose=False)


def run_onnx(path: Path, images: np.ndarray) -> Outputs:
    """What ONNX Runtime makes of an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))


def write_tflite(model: keras.Model, path: Path, *, samples: list[np.ndarray]) -> None:
    """A TensorFlow Lite file in float32."""
    with replacing(path) as [file]:
        file.write(converted(model, samples[0], prepare=lambda converter: None))


def write_int8(model: keras.Model, path: Path, *, samples: list[np.ndarray]) -> None:
    """A TensorFlow Lite file whose weights and activations are int8; inputs and outputs stay as they are."""

    def quantize(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for batch in samples for image in batch)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]

    with replacing(path) as [file]:
        file.write(converted(model, samples[0], prepare=quantize))


def converted(model: keras.Model, sample: np.ndarray, *, prepare: Callable[[Any], None]) -> bytes:
    """TensorFlow Lite's form of the model for batches of any length of images of the sample's size."""
    shape = tf.TensorSpec((None, *sample.shape[1:]), model.input.dtype, name="images")
    call = tf.function(lambda images: model(images, training=False), autograph=False)
    # Left as variables, Keras' weights arrive uninitialised in TensorFlow 2.21's converter: features of 1e30.
    frozen = convert_variables_to_constants_v2(call.get_concrete_function(shape))
    served, names = tf.Module(), sorted(model.output)  # freezing drops the names and keeps their order
    served.call = tf.function(lambda images: dict(zip(names, frozen(images), strict=True)), autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(served, folder, signatures=served.call.get_concrete_function(shape))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        prepare(converter)
        return converter.convert()


def run_tflite(path: Path, images: np.ndarray) -> Outputs:
    """What LiteRT, TensorFlow Lite's runtime, makes of its file."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=path.read_bytes()).get_signature_runner()
    return arrays(runner(images=images))


def arrays(outputs: dict) -> Outputs:
    """Tensors as NumPy arrays."""
    return {name: np.asarray(value) for name, value in outputs.items()}


FORMATS = {
    "keras": Format(".keras", write_keras, run_keras),
    "savedmodel": Format("", write_savedmodel, run_savedmodel),
    "onnx": Format(".onnx", write_onnx, run_onnx, needs=("tf2onnx", "onnx", "onnxruntime")),
    "tflite": Format(".tflite", write_tflite, run_tflite, needs=("ai_edge_litert",)),
    "tflite-int8": Format(".int8.tflite", write_int8, run_tflite, needs=("ai_edge_litert",)),
}
"""Format → how it is written and run."""
