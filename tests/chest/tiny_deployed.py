"""A deployed model that is made in a second: one convolution, two heads, thirty made-up pictures."""

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tf_simclr.chest.collections import prepare
from tf_simclr.chest.collections.collection import Collection, Entry
from tf_simclr.chest.model import deployed, of_findings
from tf_simclr.chest.model.explain import Explanation, ask_all, checked_all
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.evaluation.features import extract

SIZE = 24
SIDE = 32
HEIGHT, WIDTH = 48, 40
NAMES = tuple(f"image-{i:02d}" for i in range(30))
LABELS = tuple(int(i % 2) for i in range(30))


def picture(number: int) -> np.ndarray:
    """Noise, with a bright square where the label is 1: uint8 `(48, 40)`."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 120, (HEIGHT, WIDTH))
    pixels[10:26, 8:24] += 100 * LABELS[number]
    return pixels.astype(np.uint8)


def prepared_folder(folder):
    """Thirty pictures of fifteen patients, prepared at 32 px; the files are in `raw`."""
    (folder / "raw").mkdir(parents=True)
    entries = []
    for number, name in enumerate(NAMES):
        path = folder / "raw" / f"{name}.png"
        Image.fromarray(picture(number)).save(path)
        labels = (LABELS[number], 1 - LABELS[number])
        entries.append(Entry(path=path, image=name, labels=labels, patient=f"patient-{number // 2}"))
    collection = Collection(name="tiny", classes=("Square", "Nothing"), entries=tuple(entries))
    prepare.prepare(collection, folder / "ready", size=SIDE, workers=1)
    return load(folder / "ready")


def encoder() -> keras.Model:
    """Images of any size to five features."""
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(5, 4, strides=4, activation="relu", name="group1_conv")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="encoder")


def head(seed: int) -> keras.Model:
    """Five features to a probability, by way of four."""
    rng = np.random.default_rng(seed)
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(4, "relu"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.set_weights([rng.normal(0, 1, weight.shape) for weight in model.get_weights()])
    return model


def features(model, data, *, side=None) -> np.ndarray:
    """Of every image, as the commands compute them."""
    source = data.source(np.arange(len(data)), side=side)
    sizes = {"batch_size": 16, "image_size": SIZE, "crop_proportion": 1.0}
    return extract(model, evaluation_batches(source, unreadable=Unreadable(), **sizes)).values


def parts(data, *, side=None):
    """What `save` takes."""
    keras.utils.set_random_seed(3)
    model, heads = encoder(), [head(0), head(1)]
    values = features(model, data, side=side)
    probabilities = np.stack([one.predict_on_batch(values)[:, 0] for one in heads])
    rows = np.arange(20)
    return {
        "encoder": model,
        "heads": heads,
        "positive": "Square",
        "image_size": SIZE,
        "held_out": (probabilities, data.column("Square"), np.arange(30)),
        "cases": (data, rows, values[rows]),
        "card": {"title": "Squares <b>", "limits": ["Only squares & nothing."]},
        "side": side,
    }


def save(folder, data, **changes) -> None:
    """Writes it."""
    deployed.save(folder, **parts(data) | changes)


def ask(model, source) -> Explanation:
    """What a model of one finding says, as a command asks it."""
    return ask_all([model], source)[0]


def checked(model, found) -> Explanation:
    """The same with the occlusion check."""
    return checked_all([model], [found])[0]


def judged(model, seen):
    """The verdict on what a network sees, `(s, s, 3)`."""
    return model.verdict(model.features(tf.constant(seen[None])))


def with_encoder(model, data):
    """What changes in `parts` with another encoder of five features."""
    values, rows = features(model, data), np.arange(20)
    said = np.stack([one.predict_on_batch(values)[:, 0] for one in (head(0), head(1))])
    held = (said, data.column("Square"), np.arange(30))
    return {"encoder": model, "cases": (data, rows, values[rows]), "held_out": held}


def held_of_findings():
    """Log-odds and labels of both findings, and patients, of thirty held-out images."""
    rng = np.random.default_rng(0)
    labels = np.stack([LABELS, 1 - np.array(LABELS)], axis=1).astype(float)
    return rng.normal(size=(30, 2)) + labels, labels, np.arange(30) // 2


def save_findings(folder, data) -> None:
    """A model of two findings on the same encoder."""
    keras.utils.set_random_seed(3)
    model, rng = encoder(), np.random.default_rng(1)
    values, rows = features(model, data), np.arange(20)
    of_findings.save(
        folder,
        encoder=model,
        layer=(rng.normal(size=(5, 2)), rng.normal(size=2)),
        findings=("Square", "Nothing"),
        held=held_of_findings(),
        cases=(data, rows, values[rows]),
        image_size=SIZE,
        crop_proportion=1.0,
        card={"title": "Two <b>", "limits": ["Only squares & nothing."]},
    )
