"""The gradient of a loss on one replica, and on two with half of the batch each."""

import numpy as np
import tensorflow as tf


def gradient_alone(loss, z, labels):
    """Losses `(n,)` and the gradient of their mean, from projections `(n, 2, d)`."""
    z = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        found = loss(z[:, 0], z[:, 1], tf.constant(labels))
        mean = tf.reduce_mean(found)
    return found.numpy(), tape.gradient(mean, z).numpy()


def gradients_on_replicas(losses, z, labels, replicas=2):
    """The same of each loss of a dict, each replica with its part of the batch; as Keras does, each divides its mean
    by their number."""
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )

    def gradient(loss, part, labels):
        with tf.GradientTape() as tape:
            tape.watch(part)
            found = loss(part[:, 0], part[:, 1], labels)
            share = tf.reduce_mean(found) / replicas
        return found, tape.gradient(share, part)

    def step(part, labels):
        return {name: gradient(loss, part, labels) for name, loss in losses.items()}

    def parts(x):
        split = np.split(x, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(split[context.replica_id_in_sync_group])
        )

    values = parts(z), parts(labels)
    results = tf.function(lambda: strategy.run(step, args=values))()
    local = strategy.experimental_local_results
    return {name: [np.concatenate(local(x)) for x in pair] for name, pair in results.items()}
