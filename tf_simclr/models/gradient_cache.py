"""A batch of any size on any memory: the network sees one piece of it after the other, the loss all of it.

References:
    Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (GradCache), arXiv:2101.06983
"""

from collections.abc import Callable, Sequence

import keras
from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import InputError, check
from tf_simclr.models.normalization import mixes
from tf_simclr.models.recomputation import Recomputed, after, linearized, of_outputs, pullback


class GradientCache(Recomputed):
    """A function of a batch that is computed, and later differentiated, one piece of the batch after the other.

    In memory are the outputs of the whole batch and the activations of one piece, first those of the last one, which
    are kept.  Once the loss has said what the outputs are owed, each other piece is computed again, with the same
    weights and random numbers, and what its weights are owed is added up: the gradient of the whole batch.

    A batch is in as few pieces as can be, whose lengths differ by one at most: 256 in pieces of 100 are 85, 85 and 86.

    BatchNorm sees a piece at a time.  A batch of n in pieces of m so equals a step of n / m replicas whose BatchNorm
    is their own (`global_bn=False`), and moving statistics move once a step: to the mean of where the pieces would
    have moved them.  Where examples do not depend on each other (GroupNorm, LayerNorm, frozen BatchNorm) pieces change
    nothing at all.

    Args:
        function: a batch to a list of tensors with a row for each example; no gradient flows to the batch, a tensor or
            a dictionary of them.
        parts: the models and layers that it calls.
        microbatch_size: examples a piece at most, at least 1.
        outputs: length of the function's list.
        compiled: whether XLA compiles the step, as it always does on JAX: it wants pieces of one length.

    Raises:
        InputError: with `compiled`, the batch is no multiple of the pieces.
    """

    def __init__(
        self,
        function: Callable,
        parts: Sequence[keras.layers.Layer],
        *,
        microbatch_size: int,
        outputs: int,
        compiled: bool = False,
    ):
        super().__init__(lambda x: [ops.cast(y, keras.config.floatx()) for y in function(x)], parts)
        self.microbatch_size, self.outputs = microbatch_size, outputs
        self.compiled = compiled or keras.backend.backend() == "jax"

    def call(self, x):
        """The function's outputs for the whole batch, in floatx."""
        # 1. Forward, piece by piece: outputs of all, activations of the last piece alone.
        # 2. The caller computes the loss of the whole batch, and what each output is owed.
        # 3. Backward, piece by piece: the last from its activations, the others computed again, the gradients added up.
        # As they are before the step: `Recomputed.pure` reads them instead of the variables.
        weights, states = ([ops.copy(v) for v in group] for group in (self.trained, self.moving))
        count = self.number_of_pieces(ops.shape(keras.tree.flatten(x)[0])[0])

        @ops.custom_gradient
        def forward(*weights):
            outputs, moved, last = self.in_pieces(x, weights, states=states, count=count)

            def backward(*upstream):
                owed = of_outputs(upstream, count=len(outputs))
                totals = self.owed(x, weights, states=states, upstream=owed, count=count, last=last)
                return totals[0] if len(totals) == 1 else totals

            return (*outputs, *moved), backward

        return self.settle(forward(*weights))

    def in_pieces(self, x, weights, *, states, count):
        """Outputs of the whole batch, where the pieces moved the states, and the gradient of the last piece."""

        # One piece: its images and the weights in, its outputs and what it moved out.
        def step(moves, number):
            outputs, moved = self.pure([self.piece(x, number, count=count), *weights], states=_begun(states, moves))
            return _add_moves(moves, states, moved=moved), outputs

        def last(moves, earlier):
            # The last piece is computed with its gradient at hand: it is the first to be differentiated, so nothing is
            # computed twice for it.
            piece, own = self.piece(x, count - 1, count=count), _begun(states, moves)
            # Not before the pieces ahead of it, else a compiler keeps the activations of several at a time.
            images = keras.tree.pack_sequence_as(piece, after(earlier, keras.tree.flatten(piece)))
            outputs, moved, owed = linearized(lambda *w: self.pure([images, *w], states=own), weights)
            return (_add_moves(moves, states, moved=moved), owed), outputs

        # The start of a state's moves: zero, and for the state of a random generator that state.
        start = [ops.zeros_like(s) if _is_float(s) else s for s in states]
        (moves, owed), outputs = _in_turn(step, start, count=count - 1, outputs=self.outputs, last=last)
        n = keras.tree.flatten(x)[0].shape[0] or -1
        outputs = [ops.reshape(y, (n, *y.shape[1:])) for y in outputs]  # the same rows; the loop has lost their number
        return outputs, _settled(states, moves, count=count), owed

    def owed(self, x, weights, *, states, upstream, count, last):
        """Gradient of each weight, from those of the outputs: first of the last piece, which need not be computed."""

        def part(number):
            return [self.piece(u, number, count=count) for u in upstream]

        # The pieces are differentiated in the forward order, each begun where it began then: same random numbers.
        def step(carry, number):
            totals, generators = carry
            images, own = self.piece(x, number, count=count), _with_generators(states, generators)
            found, moved = pullback(lambda *w: self.pure([images, *w], states=own), weights, upstream=part(number))
            return ([a + b for a, b in zip(totals, found, strict=True)], _generators_of(moved)), []

        # The last piece's gradients are the start of the sums.
        start = last(part(count - 1)), _generators_of(states)
        return _in_turn(step, start, count=count - 1, outputs=0)[0][0]

    def number_of_pieces(self, n):
        """Of a batch of `n`, an integer or a tensor."""
        size = self.microbatch_size
        # Without XLA pieces may differ in length by one, and no example is left out.
        if not self.compiled:
            return (n + size - 1) // size
        if isinstance(n, int):
            rule = f"a replica's batch must be a multiple of microbatch_size={size} where XLA compiles the step"
            check(n % size == 0, rule, batch=n)
            return n // size
        return ops.shape(ops.reshape(ops.arange(n), (-1, size)))[0]  # fails in the step where there is a remainder

    def piece(self, x, number, *, count):
        """The rows of one piece; their number is known before the step if all have as many."""
        if isinstance(x, dict):
            return {name: self.piece(value, number, count=count) for name, value in x.items()}
        n, rest = ops.shape(x)[0], x.shape[1:]
        if self.compiled or (isinstance(n, int) and n % count == 0):
            size = self.microbatch_size if self.compiled else n // count
            start = number * size
        else:
            # Integers, so that piece i ends where piece i + 1 begins.
            start = number * n // count  # lengths differ by one at most, whatever n and count are
            size = (number + 1) * n // count - start
        # Zeros of the start's own type: JAX takes no indices of two types, and with 64 bits a plain 0 is of another.
        return ops.slice(x, (start, *(start * 0 for _ in rest)), (size, *rest))


def check_local(parts) -> None:
    """Raises `InputError` if BatchNorm has to gather statistics: replicas can exchange nothing within a loop."""
    layers = (layer for part in parts for layer in part._flatten_layers())
    if replicas.synchronize() and any(getattr(layer, "synchronized", False) for layer in layers):
        rule = "microbatch_size on several replicas needs BatchNorm with statistics of each piece"
        advice = "as replicas without global BatchNorm have; give global_bn=False"
        raise InputError(f"{rule}, {advice}. Received: global_bn=True, {replicas.count()} replicas")


def check_pieces(parts, *, microbatch_size: int) -> None:
    """Raises `InputError` if BatchNorm would see one image alone: its two views are each other's statistics.

    Of two rows BatchNorm makes 1 and -1, whatever they were: the views of an image would be opposites.
    """
    rule = "microbatch_size must be at least 2 with BatchNorm, which would see the two views of one image alone"
    check(microbatch_size > 1 or not mixes(parts), rule, microbatch_size=microbatch_size)


def _is_float(x) -> bool:
    return keras.backend.is_float_dtype(x.dtype)


def _begun(states, moves):
    """The states that a piece starts from: statistics as before the step, generators as the last piece left them."""
    return [state if _is_float(state) else move for state, move in zip(states, moves, strict=True)]


def _generators_of(states):
    """The states of random generators: all that a piece that is computed again has to take over from the last one."""
    return [state for state in states if not _is_float(state)]


def _with_generators(states, generators):
    """The states with those of random generators in place of their own."""
    others = iter(generators)
    return [state if _is_float(state) else next(others) for state in states]


def _add_moves(moves, states, *, moved):
    """The moves after a piece that has `moved` the states: statistics are summed up."""
    triples = zip(moves, states, moved, strict=True)
    # Each piece started from the same statistics; its own move is what it adds.
    return [move + (new - old) if _is_float(old) else new for move, old, new in triples]


def _settled(states, moves, *, count):
    """The states after the step: one that no piece has moved keeps its bits."""
    pairs = zip(states, moves, strict=True)
    # The mean of the pieces' moves: as if one batch had moved the statistics, not count of them in turn.
    return [old + move / ops.cast(count, old.dtype) if _is_float(old) else move for old, move in pairs]


def _in_turn(step: Callable, carry, *, count, outputs: int, last: Callable | None = None):
    """Takes steps one after the other, never two at once.

    Args:
        step: carry and number to the next carry and a list of tensors with rows, in floatx.
        carry: the first one.
        count: of steps, an integer or a tensor.
        outputs: length of the list.
        last: one more step, outside the loop, from the carry and tensors that it has to wait for.

    Returns:
        The last carry – of any kind, if it is of `last` –, and the list with the rows of all steps.
    """
    if isinstance(count, int) and count == 0:
        return last(carry, []) if last else (carry, [])
    if keras.backend.backend() == "jax":
        import jax

        # rows (count, piece, …) → (count · piece, …)
        carry, rows = jax.lax.scan(step, carry, ops.arange(count))
        rows = [ops.reshape(r, (-1, *r.shape[2:])) for r in rows]
        if last:
            carry, found = last(carry, rows)
            rows = [ops.concatenate(pair) for pair in zip(rows, found, strict=True)]
        return carry, rows
    import tensorflow as tf

    def body(number, carry, arrays):
        carry, found = step(carry, number)
        return number + 1, carry, [a.write(number, x) for a, x in zip(arrays, found, strict=True)]

    infer = not tf.executing_eagerly()  # a graph's shapes leave room for pieces of another length
    size = count + (last is not None)
    # The arrays take what the loop's steps write, each once; with the last piece there is one more.
    arrays = [tf.TensorArray(keras.config.floatx(), size=size, infer_shape=infer) for _ in range(outputs)]
    (first,) = after(tf.nest.flatten(carry), [tf.constant(0)])  # else a step begins before all of its carry is there
    start = (first, carry, arrays)
    _, carry, arrays = tf.while_loop(lambda number, *_: number < count, body, start, parallel_iterations=1)
    if last:
        # A TensorArray is written in the loop and read behind it: `flow` is what the last piece waits for.
        carry, found = last(carry, [a.flow for a in arrays])
        arrays = [a.write(count, x) for a, x in zip(arrays, found, strict=True)]
    return carry, [a.concat() for a in arrays]
