"""Batches without TensorFlow: Python's threads read and decode (Pillow), NumPy draws, Keras' device makes the views.

What `pipeline` does with tf.data, for sources whose list memory holds (`Source.rows`): arrays and folders of images.
A training stream is a function of (seed, step) here, too.  Its images come in the same order as with TensorFlow (of
more than 65,536 in another one), with the same boxes and draws; pixels differ by what two JPEG decoders differ by.

    positions of a batch → rows in the order of their epoch → threads: read, decode, shrink what is too large
    → padded integers, boxes and draws → the device: views (`device_views`)
"""

from tf_simclr.data.in_python.evaluation import evaluation_batches, evaluation_view
from tf_simclr.data.in_python.reading import all_pixels, order, rows_of
from tf_simclr.data.in_python.training import ONLY_FLIP, picture_views, training_views

__all__ = [
    "ONLY_FLIP",
    "all_pixels",
    "evaluation_batches",
    "evaluation_view",
    "order",
    "picture_views",
    "rows_of",
    "training_views",
]
