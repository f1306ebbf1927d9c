"""Real photographs, radiographs and CIFAR-10 through the whole pipeline; skipped where they are absent."""

import numpy as np
import pytest

from tests import golden
from tf_simclr.data import pipeline, sources, tfds_source


def test_photographs_become_pairs_of_views():
    source = sources.from_folder(golden.beside("data/photos"))
    unreadable = pipeline.Unreadable()
    stream = pipeline.training_views(source, batch_size=8, image_size=96, seed=0, unreadable=unreadable)
    ((views,),) = stream.take(1)
    assert views.shape == (8, 2, 96, 96, 3)
    assert np.std(views, axis=(2, 3, 4)).min() > 0.001  # no view is empty
    assert unreadable.names == []


@pytest.mark.slow
def test_every_radiograph_decodes_the_rgba_ones_too():
    source = sources.from_folder(golden.beside("data/nih_cxr") / "images")
    unreadable = pipeline.Unreadable()
    stream = pipeline.evaluation_batches(source, batch_size=64, image_size=64, unreadable=unreadable)
    shown = np.concatenate([images.numpy() for images, _, _ in stream])
    assert len(shown) == source.num_examples == 693
    assert unreadable.names == []
    np.testing.assert_allclose(shown[..., 0], shown[..., 2], atol=1e-6)  # grey


def test_cifar_10_is_read_in_tfds_order_without_a_change():
    import tensorflow_datasets as tfds

    folder = golden.beside("data/tfds")
    source = tfds_source.from_tfds("cifar10", "test[:40]", data_dir=folder)
    assert source.class_names[:2] == ("airplane", "automobile")
    unreadable = pipeline.Unreadable()
    ((images, labels, _),) = pipeline.evaluation_batches(source, batch_size=40, image_size=32, unreadable=unreadable)
    plain = tfds.load("cifar10", split="test[:40]", data_dir=folder, download=False)
    for image, label, example in zip(images, labels, plain.as_numpy_iterator(), strict=True):
        np.testing.assert_allclose(image, example["image"] / np.float32(255), atol=1e-6)
        assert label == example["label"]
