"""Activations that are computed a second time instead of being kept, block by block.

A part of the network is read as a pure function of its weights, so that its gradient can be taken where and when it
suits.  The moving statistics that it returns are assigned once, however often it is computed.

References:
    Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import keras
from keras import ops

from tf_simclr.errors import check


class Recomputed(keras.layers.Layer):
    """A function of a tensor that keeps nothing but its input for the backward pass, and computes the rest again.

    It equals the function in training mode, and so do the gradients of its input and weights.

    Args:
        function: a tensor to one tensor or a list of them.
        parts: the models and layers that it calls.
    """

    def __init__(self, function: Callable, parts: Sequence[keras.layers.Layer]):
        super().__init__(autocast=False)  # weights are read in the precision in which they are stored
        self.function, self.parts = function, list(parts)
        # A variable that two layers share is one input, and gets one gradient.
        self.trained = _unique(v for part in parts for v in part.trainable_variables)
        self.moving = _unique(v for part in parts for v in part.non_trainable_variables)

    def call(self, x):
        """The function's outputs; moving statistics move as they would have."""
        # Copies: JAX and TensorFlow need values that a later assignment does not change.
        weights, states = ([ops.copy(v) for v in group] for group in (self.trained, self.moving))

        @ops.custom_gradient
        def forward(x, *weights):
            outputs, moved = self.pure([x, *weights], states=states)

            def backward(*upstream):
                owed = of_outputs(upstream, count=len(outputs))
                # First what the outputs are owed, then the inputs; then all is computed again, and differentiated.
                inputs = after(owed, [x, *weights])  # compilers would find the forward pass's results otherwise
                return pullback(lambda *i: self.pure(i, states=states), inputs, upstream=owed)[0]

            return (*outputs, *moved), backward

        return self.settle(forward(x, *weights))

    def pure(self, inputs, *, states):
        """Outputs and new states, as lists, at `inputs` (the tensor and the trained weights) and `states`."""
        x, *weights = inputs
        # Within the scope variables read as these tensors, and assignments are collected, not made: nothing else
        # changes, however often the function is computed.
        pairs = [*zip(self.trained, weights, strict=True), *zip(self.moving, states, strict=True)]
        with keras.StatelessScope(pairs) as scope:
            outputs = self.function(x)
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        return outputs, [scope.get_current_value(v) for v in self.moving]

    def settle(self, results):
        """Assigns the new states, the last of the results, and returns the others: the outputs."""
        count = len(results) - len(self.moving)
        for variable, value in zip(self.moving, results[count:], strict=True):
            variable.assign(value)
        return results[0] if count == 1 else list(results[:count])


def recomputed_blocks(encoder: keras.Model) -> Callable:
    """An encoder of `resnet` for training: keeps what enters its residual blocks, and computes each block again.

    Raises:
        InputError: the encoder has no such blocks.
    """
    # The encoder is cut behind each residual block, at its last ReLU.
    ends = [layer.output for layer in encoder.layers if layer.name.endswith("_out")]
    check(ends, "remat needs an encoder with residual blocks, as resnet(…) makes them", encoder=encoder.name)
    # image → block 1 → … → block n → pooled features: neighbours of the list are the ends of a part.
    *blocks, pool = (keras.Model(a, b) for a, b in pairwise([encoder.input, *ends, encoder.output]))

    def features(images, training=True):
        # A part keeps its input, (n, h, w, c), and nothing of what is computed between.
        for block in blocks:
            images = Recomputed(partial(block, training=training), [block])(images)
        return pool(images, training=training)

    return features


def _unique(variables: Iterable) -> list:
    """Each variable once, in their order."""
    # By identity: `==` of two variables compares their values.
    return list({id(v): v for v in variables}.values())


def of_outputs(upstream, *, count: int):
    """What the outputs are owed, without the states; JAX passes one tuple, TensorFlow what is in it."""
    return (upstream[0] if isinstance(upstream[0], tuple) else upstream)[:count]


def linearized(function: Callable, inputs):
    """Computes the function, and keeps what its gradient needs.

    Args:
        function: tensors to a list of outputs and something beside them.
        inputs: where to.

    Returns:
        The outputs, what is beside them, and a function, to be called once, from what each output is owed to what each
        input is.
    """
    if keras.backend.backend() == "jax":
        import jax

        # The second result, the states, is carried along and not differentiated.
        outputs, owed, rest = jax.vjp(lambda *i: function(*i), *inputs, has_aux=True)
        return outputs, rest, lambda upstream: list(owed(list(upstream)))
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        outputs, rest = function(*inputs)
    # A frozen part of the weights reaches no output: zeros instead of None, as JAX gives them.
    zero = tf.UnconnectedGradients.ZERO
    return outputs, rest, lambda upstream: tape.gradient(outputs, [*inputs], [*upstream], zero)


def pullback(function: Callable, inputs, *, upstream):
    """What each input is owed, and the function's auxiliary result.

    Args:
        function: tensors to a list of outputs and something beside them.
        inputs: where to take the gradient.
        upstream: what each output is owed.
    """
    _, rest, owed = linearized(function, inputs)
    return owed(upstream), rest


def after(earlier, inputs):
    """The inputs, not to be had before what is computed `earlier`."""
    # Without the barrier XLA finds the same computation twice and merges it: the memory would not be saved.
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.optimization_barrier((list(inputs), list(earlier)))[0]
    import tensorflow as tf

    with tf.control_dependencies(earlier):
        return [tf.identity(x) for x in inputs]
