"""`tf-simclr demo`: the whole line on scikit-learn's handwritten digits, with nothing to download.

Pretrain without labels, test with few labels, export, convert to PyTorch, prove both equal, draw.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np

from converters import convert, load
from converters.names.network import Network
from converters.verification import torch_endpoints
from tf_simclr import plots
from tf_simclr.commands.pretrain import pretrain
from tf_simclr.config import Demo, Pretrain, plain
from tf_simclr.data import augment, images
from tf_simclr.data.digits import Digits, load_digits
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import from_arrays
from tf_simclr.evaluation.features import extract
from tf_simclr.evaluation.probes import Comparison, compare, few_label_draws, nearest
from tf_simclr.files import write_json
from tf_simclr.frameworks import check_installed, tf
from tf_simclr.models.architecture import Architecture
from tf_simclr.run_folder import RunFolder
from tf_simclr.terminal import say, show
from tf_simclr.training import read_history
from tf_simclr.weights import load_encoder

_SIZE = Demo.image_size
"""Side of the network's input in pixels."""
_MIN_AREA = 0.2
"""Least share of a digit in a view: less of it is often no digit any more."""
_ARCHITECTURE = Architecture(depth=18, proj_head_mode="nonlinear", num_proj_layers=2, proj_out_dim=64)
"""With the ImageNet stem, which is 16 times cheaper at this size than the CIFAR stem and enough for digits."""


def run(config: Demo) -> None:
    """Runs every stage and prints one table and where everything is."""
    # 1. What is needed at the end is asked for at the beginning.
    check_installed("the demo, which converts to PyTorch,", "torch")
    # 2. The digits, and the draws of a few labels that all three representations are tested on.
    digits, folder = load_digits(seed=config.seed), RunFolder(config.model_dir)
    draws = few_label_draws(digits.train_labels, config.labels_per_class, draws=config.label_draws, seed=config.seed)
    # 3. Pretraining, without a label.
    result = pretrain(
        recipe(config),
        dataclasses.replace(from_arrays(digits.train), origin="scikit-learn's digits"),
        view=_digit_views,
        architecture=_ARCHITECTURE,
        notes=plain(config),
    )
    # 4. The same probe on features of three kinds: the trained
    #    network's, an untrained one's, and the pixels themselves.
    trained = load_encoder(folder.path)
    keras.utils.set_random_seed(config.seed)
    features = {
        "pretrained": _both(trained, digits),
        "untrained": _both(keras.models.clone_model(trained), digits),
        "raw pixels": (pixels(digits.train), pixels(digits.test)),
    }
    comparison = compare(features, (digits.train_labels, digits.test_labels), draws=draws)
    # 5. To PyTorch, and how far its features lie from Keras'.
    say("converting to PyTorch …")
    weights = folder.path / "encoder.pth"
    convert(folder.path, weights, part="encoder")
    difference = _torch_difference(load(weights), trained, seen=_batches(digits.test))
    # 6. What is left behind, and said.
    picture = _draw(folder, digits, features=features["pretrained"])
    accuracy = {n: {"mean": comparison.mean(n), "std": comparison.spread(n)} for n in comparison.accuracies}
    write_json(folder.result, result | {"accuracy": accuracy, "torch_relative_difference": difference})
    show(_report(config, comparison, difference=difference, result=result, picture=picture))


def recipe(config: Demo) -> Pretrain:
    """SimCLR for small grey images and a small batch: chosen for what it reaches in two minutes on two cores."""
    return Pretrain(
        model_dir=config.model_dir,
        image_size=_SIZE,
        train_batch_size=128,
        train_epochs=config.train_epochs,
        learning_rate=2.0,
        warmup_epochs=2,
        weight_decay=1e-4,
        temperature=0.5,
        keep_checkpoint_max=1,
        seed=config.seed,
    )


def _digit_views(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Two views of a digit `(2, 32, 32, 3)`: crop and colour, but no flip, which would make another sign of it."""
    image = images.resize(image, (_SIZE, _SIZE))
    return tf.stack([_digit_view(image, s) for s in tf.unstack(tf.random.split(seed, 2))])


def _digit_view(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """One of them."""
    seeds = tf.random.split(seed, 2)
    crop = augment.random_crop_and_resize(image, (_SIZE, _SIZE), seed=seeds[0], min_area=_MIN_AREA)
    return augment.random_color(tf.clip_by_value(crop, 0, 1), seed=seeds[1])


def _both(encoder: keras.Model, digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Features of the training and the test images."""
    return extract(encoder, _batches(digits.train)).values, extract(encoder, _batches(digits.test)).values


def _batches(grey: np.ndarray) -> tf.data.Dataset:
    """What the encoder sees of them."""
    return evaluation_batches(from_arrays(grey), batch_size=256, image_size=_SIZE, unreadable=Unreadable())


def pixels(grey: np.ndarray) -> np.ndarray:
    """Raw pixels as features `(n, 64)` in [0, 1]."""
    return grey.reshape(len(grey), -1) / 255


def _torch_difference(network: Network, encoder: keras.Model, *, seen: tf.data.Dataset) -> float:
    """Largest difference between Keras' and PyTorch's features, over their largest magnitude."""
    worst = largest = 0.0
    for batch, *_ in seen:
        ours = encoder.predict_on_batch(batch)
        theirs = torch_endpoints(network, batch.numpy())["final_avg_pool"]
        worst, largest = max(worst, np.abs(ours - theirs).max()), max(largest, np.abs(ours).max())
    return float(worst / largest)


def _draw(folder: RunFolder, digits: Digits, *, features: tuple[np.ndarray, np.ndarray]) -> Path:
    """The loss curve, and the nearest training images of a test image of each of six classes."""
    queries = np.array([np.flatnonzero(digits.test_labels == digit)[0] for digit in range(6)])
    found, cosines = nearest(features[1][queries], features[0], k=8)
    history = {n: [row[n] for row in read_history(folder)] for n in ("contrast_loss", "contrast_acc")}
    figure = plots.run_summary(
        history,
        (digits.test[queries][..., None], digits.train[found][..., None]),
        cosines=cosines,
        same=digits.train_labels[found] == digits.test_labels[queries][:, None],
    )
    return plots.save(figure, folder.path / "demo.png")


def _report(config: Demo, comparison: Comparison, *, difference: float, result: dict, picture: Path) -> str:
    """The demo's last words."""
    where = config.model_dir
    return f"""
Pretrained on 1,437 digits without labels in {result["seconds"]:.0f} s.  Accuracy on 360 others of a linear probe
that saw {config.labels_per_class} labels a class, mean and standard deviation over {config.label_draws} draws of them:

{comparison.table()}

Keras and PyTorch give the same features: largest difference {difference:.1e} of the largest magnitude.

run        {where}  (tf_simclr.load_encoder("{where}"); TensorBoard: {where}/logs)
network    {where}/network.keras
PyTorch    {where}/encoder.pth  (converters.load_torch("{where}/encoder.pth"))
picture    {picture}
numbers    {where}/result.json"""
