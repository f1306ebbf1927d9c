"""Where examples come from, and the streams of views that a training takes."""

from tf_simclr.errors import check
from tf_simclr.frameworks import has_tensorflow

STREAM = 2
"""Version of the streams: it counts up when the same seed and step give other batches than before.  A checkpoint holds
it, and a run that was begun with another one is not resumed.  1: until files and orders were drawn by whole seeds."""
WITHOUT_TENSORFLOW = 1000
"""Is added to it where batches are made without TensorFlow: by other decoders, and of many images in another order."""


def stream_version() -> int:
    """The version of the streams that are made here."""
    return STREAM if has_tensorflow() else STREAM + WITHOUT_TENSORFLOW


def check_batch(origin: str, images: int, *, batch_size: int) -> None:
    """Refuses images, whose place is `origin`, that do not fill one batch.

    Raises:
        InputError: they do not.
    """
    rule = f"{origin} must hold enough images for one batch; take a smaller batch_size or more images"
    check(images >= batch_size, rule, images=images, batch_size=batch_size)
