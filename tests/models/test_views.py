"""Two views of an image are taken, and no other number: a third one is never left out in silence."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_simclr import losses
from tf_simclr.errors import InputError
from tf_simclr.losses import InfoNCE, NTXent, contrastive_metrics, info_nce
from tf_simclr.models.moco import MoCo
from tf_simclr.models.resnet import projection_head
from tf_simclr.models.simclr import SimCLR


def model(kind):
    layers = [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(6)]
    options = {"queue_length": 8} if kind is MoCo else {}
    found = kind(keras.Sequential(layers), projection_head(6, 2, proj_out_dim=5), **options)
    found.compile("sgd", InfoNCE() if kind is MoCo else NTXent())
    return found


@pytest.mark.parametrize("kind", [SimCLR, MoCo])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_another_number_of_views_is_refused(kind, count):
    views = np.zeros((8, count, 4, 4, 3), np.float32)
    with pytest.raises(InputError, match=r"views must have the shape \(n, 2, h, w, 3\)"):
        model(kind)(views)
    with pytest.raises(InputError, match=r"views must have the shape \(n, 2, h, w, 3\)"):
        model(kind).fit(views, batch_size=4, verbose=0)


@pytest.mark.parametrize("kind", [SimCLR, MoCo])
def test_a_number_that_only_the_step_knows_is_refused_there(kind):
    def batches(count):
        spec = tf.TensorSpec((None, None, 4, 4, 3))
        return tf.data.Dataset.from_generator(lambda: iter([np.zeros((4, count, 4, 4, 3))]), output_signature=spec)

    model(kind).fit(batches(2), shuffle=False, steps_per_epoch=1, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        model(kind).fit(batches(3), shuffle=False, steps_per_epoch=1, verbose=0)


PAIRS = {
    name: getattr(losses, name)
    for name in ("nt_xent", "dcl", "generalized_contrastive", "nt_logistic", "margin_triplet", "hadsell")
} | {
    "sup_con": lambda a, b: losses.sup_con(a, b, np.arange(len(a))),
    "info_nce": lambda a, b: info_nce(a, b, np.eye(5)),
    "metrics": contrastive_metrics,
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shapes", [((4, 3, 5), (4, 3, 5)), ((4, 5), (6, 5)), ((4, 5), (4, 4)), ((5,), (5,))])
def test_losses_take_one_projection_an_example_and_view(name, shapes):
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(InputError, match=r"z1 and z2 must have the shape \(n, d\) each"):
        PAIRS[name](a, b)
