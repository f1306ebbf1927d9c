"""Activations that are computed a second time instead of being kept: block by block, or for a batch in pieces.

Both read a part of the network as a pure function of its weights, so that its gradient can be taken where and when
it suits.  The moving statistics that it returns are assigned once, however often it is computed.

References:
    Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (GradCache), arXiv:2101.06983
    Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import InputError, check


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
        self.trained = unique(v for part in parts for v in part.trainable_variables)
        self.moving = unique(v for part in parts for v in part.non_trainable_variables)

    def call(self, x):
        """The function's outputs; moving statistics move as they would have."""
        weights, states = ([ops.copy(v) for v in group] for group in (self.trained, self.moving))

        @ops.custom_gradient
        def forward(x, *weights):
            outputs, moved = self.pure([x, *weights], states=states)

            def backward(*upstream):
                owed = of_outputs(upstream, count=len(outputs))
                inputs = after(owed, [x, *weights])
                return pullback(lambda *i: self.pure(i, states=states), inputs, upstream=owed)[0]

            return (*outputs, *moved), backward

        return self.settle(forward(x, *weights))

    def pure(self, inputs, *, states):
        """Outputs and new states, as lists, at `inputs` (the tensor and the trained weights) and `states`."""
        x, *weights = inputs
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
    ends = [layer.output for layer in encoder.layers if layer.name.endswith("_out")]
    check(ends, "remat needs an encoder with residual blocks, as resnet(…) makes them", encoder=encoder.name)
    *blocks, pool = (keras.Model(a, b) for a, b in pairwise([encoder.input, *ends, encoder.output]))

    def features(images, training=True):
        for block in blocks:
            images = Recomputed(partial(block, training=training), [block])(images)
        return pool(images, training=training)

    return features


class GradientCache(Recomputed):
    """A function of a batch that is computed, and later differentiated, one piece of the batch after the other.

    In memory are the outputs of the whole batch and the activations of one piece.  Once the loss has said what the
    outputs are owed, each piece is computed again, with the same weights and random numbers, and what its weights are
    owed is added up: the gradient of the whole batch.

    BatchNorm sees a piece at a time.  A batch of n in pieces of m so equals a step of n / m replicas whose BatchNorm
    is their own (`global_bn=False`), and moving statistics move once a step: to the mean of where the pieces would
    have moved them.  Where examples do not depend on each other (GroupNorm, LayerNorm, frozen BatchNorm) pieces change
    nothing at all.

    Args:
        function: a batch to a list of tensors with a row for each example; no gradient flows to the batch.
        parts: the models and layers that it calls.
        microbatch_size: examples a piece, at least 1.
        outputs: length of the function's list.

    Raises:
        InputError: the batch is no multiple of the pieces.
    """

    def __init__(self, function: Callable, parts: Sequence[keras.layers.Layer], *, microbatch_size: int, outputs: int):
        super().__init__(lambda x: [ops.cast(y, keras.config.floatx()) for y in function(x)], parts)
        self.microbatch_size, self.outputs = microbatch_size, outputs

    def call(self, x):
        """The function's outputs for the whole batch, in floatx."""
        weights, states = ([ops.copy(v) for v in group] for group in (self.trained, self.moving))
        count = number_of_pieces(ops.shape(x)[0], self.microbatch_size)

        @ops.custom_gradient
        def forward(*weights):
            outputs, moved = self.in_pieces(x, weights, states=states, count=count)

            def backward(*upstream):
                owed = of_outputs(upstream, count=len(outputs))
                totals = self.owed(x, weights, states=states, upstream=owed, count=count)
                return totals[0] if len(totals) == 1 else totals

            return (*outputs, *moved), backward

        return self.settle(forward(*weights))

    def in_pieces(self, x, weights, *, states, count):
        """Outputs of the whole batch, and where the pieces moved the states."""

        def step(moves, number):
            outputs, moved = self.pure([self.piece(x, number), *weights], states=begun(states, moves))
            return add_moves(moves, states, moved=moved), outputs

        moves, outputs = in_turn(step, [no_move(s) for s in states], count=count, outputs=self.outputs)
        return outputs, settled(states, moves, count=count)

    def owed(self, x, weights, *, states, upstream, count):
        """Gradient of each weight, from those of the outputs."""

        def step(carry, number):
            totals, moves = carry
            images, own = self.piece(x, number), begun(states, moves)
            part = [self.piece(u, number) for u in upstream]
            found, moved = pullback(lambda *w: self.pure([images, *w], states=own), weights, upstream=part)
            return ([a + b for a, b in zip(totals, found, strict=True)], add_moves(moves, states, moved=moved)), []

        start = [ops.zeros_like(w) for w in weights], [no_move(s) for s in states]
        return in_turn(step, start, count=count, outputs=0)[0][0]

    def piece(self, x, number):
        """The rows of one piece."""
        size, rest = self.microbatch_size, x.shape[1:]
        return ops.slice(x, (number * size, *(0 for _ in rest)), (size, *rest))


def unique(variables: Iterable) -> list:
    """Each variable once, in their order."""
    return list({id(v): v for v in variables}.values())


def check_local(parts) -> None:
    """Raises `InputError` if BatchNorm has to gather statistics: replicas can exchange nothing within a loop."""
    layers = (layer for part in parts for layer in part._flatten_layers())
    if replicas.synchronize() and any(getattr(layer, "synchronized", False) for layer in layers):
        raise InputError(
            "microbatch_size on several replicas needs BatchNorm with statistics of each piece, as replicas without "
            f"global BatchNorm have; give global_bn=False. Received: global_bn=True, {replicas.count()} replicas"
        )


def number_of_pieces(n, size: int):
    """How often `size` examples are in a batch of `n`, an integer or a tensor."""
    if isinstance(n, int):
        check(n % size == 0, f"a replica's batch must be a multiple of microbatch_size={size}", batch=n)
        return n // size
    return ops.shape(ops.reshape(ops.arange(n), (-1, size)))[0]  # fails in the step where there is a remainder


def is_float(x) -> bool:
    return keras.backend.is_float_dtype(x.dtype)


def no_move(state):
    """The start of a state's moves: zero, and for the state of a random generator that state."""
    return ops.zeros_like(state) if is_float(state) else state


def begun(states, moves):
    """The states that a piece starts from: statistics as before the step, generators as the last piece left them."""
    return [state if is_float(state) else move for state, move in zip(states, moves, strict=True)]


def add_moves(moves, states, *, moved):
    """The moves after a piece that has `moved` the states: statistics are summed up."""
    triples = zip(moves, states, moved, strict=True)
    return [move + (new - old) if is_float(old) else new for move, old, new in triples]


def settled(states, moves, *, count):
    """The states after the step: one that no piece has moved keeps its bits."""
    pairs = zip(states, moves, strict=True)
    return [old + move / ops.cast(count, old.dtype) if is_float(old) else move for old, move in pairs]


def of_outputs(upstream, *, count: int):
    """What the outputs are owed, without the states; JAX passes one tuple, TensorFlow what is in it."""
    return (upstream[0] if isinstance(upstream[0], tuple) else upstream)[:count]


def pullback(function: Callable, inputs, *, upstream):
    """What each input is owed, and the function's auxiliary result.

    Args:
        function: tensors to a list of outputs and something beside them.
        inputs: where to take the gradient.
        upstream: what each output is owed.
    """
    if keras.backend.backend() == "jax":
        import jax

        _, owed, rest = jax.vjp(lambda *i: function(*i), *inputs, has_aux=True)
        return list(owed(list(upstream))), rest
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        outputs, rest = function(*inputs)
    return tape.gradient(outputs, inputs, output_gradients=list(upstream), unconnected_gradients="zero"), rest


def after(upstream, inputs):
    """The inputs, not to be had before `upstream`: compilers would find the forward pass's results otherwise."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.optimization_barrier((list(inputs), list(upstream)))[0]
    import tensorflow as tf

    with tf.control_dependencies(upstream):
        return [tf.identity(x) for x in inputs]


def in_turn(step: Callable, carry, *, count, outputs: int):
    """Takes steps one after the other, never two at once.

    Args:
        step: carry and number to the next carry and a list of tensors with rows, in floatx.
        carry: the first one.
        count: of steps, an integer or a tensor.
        outputs: length of the list.

    Returns:
        The last carry, and the list with the rows of all steps.
    """
    if keras.backend.backend() == "jax":
        import jax

        carry, rows = jax.lax.scan(step, carry, ops.arange(count))
        return carry, [ops.reshape(r, (-1, *r.shape[2:])) for r in rows]
    import tensorflow as tf

    def body(number, carry, arrays):
        carry, found = step(carry, number)
        return number + 1, carry, [a.write(number, x) for a, x in zip(arrays, found, strict=True)]

    arrays = [tf.TensorArray(keras.config.floatx(), size=count) for _ in range(outputs)]
    start = (tf.constant(0), carry, arrays)
    _, carry, arrays = tf.while_loop(lambda number, *_: number < count, body, start, parallel_iterations=1)
    return carry, [a.concat() for a in arrays]
