"""What the network sees: a sheet of augmented pairs, as a file and on TensorBoard."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_simclr import plots
from tf_simclr.run_folder import RunFolder

PAIRS = 8
"""Images on the sheet."""


def draw_pairs(views: np.ndarray, run: RunFolder) -> Path:
    """Writes `pairs.png` in the run folder and the same picture, `augmented_pairs`, for TensorBoard.

    Args:
        views: `(n, 2, h, w, channels)` in [0, 1].
    """
    path = plots.save(plots.view_pairs(views), run.path / "pairs.png", dpi=100)
    writer = tf.summary.create_file_writer(str(run.logs / "train"), filename_suffix=".pairs")
    with writer.as_default():
        tf.summary.image("augmented_pairs", tf.io.decode_png(path.read_bytes(), channels=3)[None], step=0)
    writer.close()
    return path
