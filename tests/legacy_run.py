"""Run by the `legacy` extra's Python: what TensorFlow 2.15, Keras 2 and TensorFlow Addons compute, into one file.

`python legacy_run.py INPUTS.npz OUTPUTS.npz`.  Nothing of this project is imported here.
"""

import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def lamb(kernel, bias, gradients, decay):
    """Three steps of tfa's LAMB; biases have neither decay nor trust ratio."""
    variables = [tf.Variable(kernel, name="kernel"), tf.Variable(bias, name="bias")]
    optimizer = tfa.optimizers.LAMB(
        0.01, weight_decay_rate=float(decay), exclude_from_weight_decay=["bias"], exclude_from_layer_adaptation=["bias"]
    )
    steps = []
    for gradient in gradients:
        of_both = [tf.constant(gradient), tf.constant(gradient[0])]
        optimizer.apply_gradients(zip(of_both, variables, strict=True))
        steps.append(np.concatenate([variable.numpy().ravel() for variable in variables]))
    return np.stack(steps)


def cosine(peak, total, warmup):
    """Keras 2's own schedule at every step."""
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0, int(total - warmup), warmup_target=float(peak), warmup_steps=int(warmup)
    )
    return np.array([schedule(step).numpy() for step in range(int(total))])


def hadsell(distances, similar, margin):
    """tfa's contrastive loss of each pair."""
    return tfa.losses.contrastive_loss(tf.constant(similar), tf.constant(distances), float(margin)).numpy()


def blur(image, sigma, width):
    """tfa's Gaussian filter."""
    return tfa.image.gaussian_filter2d(tf.constant(image), int(width), float(sigma), padding="CONSTANT").numpy()


def cutout(image, center, side):
    """tfa's cutout, with mid-grey."""
    centre = tf.constant([center])
    return tfa.image.cutout(tf.constant(image[None]), int(side), centre, constant_values=0.5).numpy()[0]


PARTS = {
    "lamb": (lamb, ("kernel", "bias", "gradients", "decay")),
    "cosine": (cosine, ("peak", "total", "warmup")),
    "hadsell": (hadsell, ("distances", "similar", "margin")),
    "blur": (blur, ("image", "sigma", "width")),
    "cutout": (cutout, ("image", "center", "side")),
}
"""What is computed → how, and from which of the inputs."""

if __name__ == "__main__":
    inputs = np.load(sys.argv[1])
    np.savez(sys.argv[2], **{part: run(*(inputs[name] for name in names)) for part, (run, names) in PARTS.items()})
