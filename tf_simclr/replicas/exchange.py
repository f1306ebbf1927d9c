"""What replicas exchange within a step: how many there are, which one this is, and everyone's tensors."""

import keras
from keras import ops


def count() -> int:
    """Number of replicas that share a step, 1 outside of a strategy."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def synchronize() -> bool:
    """Whether BatchNorm has to gather statistics itself: with several TensorFlow replicas only.

    JAX's data parallelism computes one global batch; with one replica the synchronised layer is slower for nothing.
    """
    return count() > 1


def index():
    """This replica's number, a scalar int tensor or 0."""
    if count() == 1:
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def gather(x):
    """Stacks `x` of every replica along axis 0, in the order of their numbers, with gradients to all of them.

    Every replica must give the same shape `(n, …)`; the result is `(count * n, …)`.  Each replica writes its part
    into zeros and the parts are summed, which compiles on TPUs (the reference's `tpu_cross_replica_concat`).
    """
    replicas = count()
    if replicas == 1:
        return x
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None:  # Keras traces a step once outside of the replicas, for its shapes alone
        return ops.concatenate([x] * replicas)
    place = ops.cast(ops.one_hot(context.replica_id_in_sync_group, replicas), x.dtype)
    parts = ops.reshape(place, (replicas,) + (1,) * len(x.shape)) * ops.expand_dims(x, 0)
    parts = context.all_reduce(tf.distribute.ReduceOp.SUM, parts)
    return ops.reshape(parts, (-1, *x.shape[1:]))
