"""NT-Xent's sums in memory that grows with n · block instead of n².

Each block of examples is compared with all others, reduced, and forgotten; the backward pass compares once more.
Similarity is symmetric, so that the same comparison gives what an example owes to all others *and* what they owe to
it: no gradient has to be collected over blocks or replicas, only each example's sum and its upstream gradient.
"""

from keras import ops

from tf_simclr import replicas
from tf_simclr.errors import check
from tf_simclr.losses.similarity import MASKED, own_rows

BLOCK = 256
"""Examples a block where the batch is large."""
_LARGE = 1024**2
"""Own examples times all replicas' from which on blocks are used.  Their CPU time is the same within 10 %, their memory
at a batch of 512 / 1024 / 2048 / 4096 / 8192 is 12 / 25 / 43 / 84 / 161 MiB instead of 18 / 70 / 144 / 546 / 2,144."""


def check_block_size(block_size: int | None) -> None:
    """Raises `InputError` unless the block size is None or at least 1."""
    check(block_size is None or block_size >= 1, "block_size must be None or at least 1", block_size=block_size)


def choose(n, block_size: int | None) -> int | None:
    """Examples a block for a replica's batch of `n`, or None: all at once.  A tensor `n` may turn out large."""
    check_block_size(block_size)
    if block_size is None:
        # n² similarities, this replica's n rows by all n · replicas columns: below `_LARGE` they are cheap enough to
        # hold.
        return None if isinstance(n, int) and n * n * replicas.count() < _LARGE else BLOCK
    return block_size


def log_sum_exp(views, temperature: float, *, block_size: int):
    """The logarithm of each view's sum of exponentiated similarities with all others but itself.

    Args:
        views: both projections of each example, `(n, 2, d)`.
        temperature: above 0.
        block_size: examples in memory at once.

    Returns:
        `(n, 2)`.
    """

    # Forward, block by block:  total_i = log sum_j exp(s_ij), s_ij = z_i·z_j / τ, j ≠ i.
    # Backward: d total_i / d z_i = sum_j p_ij z_j / τ with the softmax p_ij = exp(s_ij - total_i), and z_i is in every
    # other total_j, too.  s is symmetric, so that one comparison of a block with all rows gives both shares:
    #   grad z_i = sum_j (u_i exp(s_ij - total_i) + u_j exp(s_ij - total_j)) z_j / τ,   u the gradients from above.
    # Each replica needs the totals and u of all, (N, 2) numbers, and nothing else from the others.
    @ops.custom_gradient
    def of_rows(rows):
        every, places = replicas.gather(rows), own_rows(ops.shape(rows)[0])

        def sums(_, block):
            # rows of a block (b, d) → similarities (b, N) → one number a row, (b,); the (b, N) are forgotten with the
            # block.
            found = ops.logsumexp(logits(*block, every=every, temperature=temperature), axis=1)
            return found, found

        def gradient(*given, upstream=None):
            upstream = given[0] if upstream is None else upstream  # PyTorch's comes by name, behind the inputs
            # (n, 2) → (N, 2): what every row of all replicas has, its total and its upstream gradient, in one
            # collective.
            every_sum, every_upstream = ops.unstack(replicas.gather(ops.stack([totals, upstream], axis=1)), axis=1)

            def owed(_, block):
                part, place, total, weight = block  # (b, d), (b,), (b,), (b,)
                # The similarities are computed again rather than kept: (b, N), as in the forward pass.
                s = logits(part, place, every=every, temperature=temperature)
                # The masked diagonal is exp(-1e9 - total) = 0 in both terms.
                # (b, N): what this block's rows owe to all others, each row by its own softmax and gradient;
                to_others = ops.exp(s - ops.expand_dims(total, 1)) * ops.expand_dims(weight, 1)
                # (b, N): what all others owe to it, column j by the softmax and gradient of row j.  No exchange: s_ij =
                # s_ji.
                by_others = ops.exp(s - every_sum) * every_upstream
                # (b, N) · (N, d) → (b, d)
                found = ops.matmul(to_others + by_others, every) / temperature
                return found, found

            # An example has two rows, one a view: a block of examples is twice as many rows.
            return over_blocks(owed, [rows, places, totals, upstream], like=rows, size=2 * block_size)

        totals = over_blocks(sums, [rows, places], like=rows[:, 0], size=2 * block_size)
        return totals, gradient

    # (n, 2, d) → (2n, d) → (2n,) → (n, 2)
    rows = ops.reshape(views, (-1, views.shape[2]))  # the views of an example follow each other
    return ops.reshape(of_rows(rows), (-1, 2))


def logits(rows, places, *, every, temperature: float):
    """Similarities over temperature of a block's rows with every row, themselves masked, `(block, N)`."""
    s = ops.matmul(rows / temperature, ops.transpose(every))  # (b, d) · (d, N); dividing b·d numbers is the cheaper
    # (b, 1) with (N,) → (b, N): each row's own column, which must not count (`contrastive_logits` has the reason).
    columns = ops.arange(ops.shape(every)[0], dtype="int32")
    return ops.where(ops.equal(ops.expand_dims(places, 1), columns), -MASKED, s)


def over_blocks(function, inputs, *, like, size: int):
    """Applies `function(_, blocks)` to `size` rows of each input at a time, one block after the other.

    `ops.scan` rather than `ops.map`: with it TensorFlow holds no second block.  It wants a carry like the output,
    hence the pair of them that the function returns; the carry is not used.

    Args:
        function: gives one row a row, of the same shape and type as those of `like`, twice.
        inputs: tensors of the same length `n`.
        like: a tensor.
        size: rows a block, at least 1.

    Returns:
        The function's rows, `(n, …)`.
    """
    # n known while the step is built: a batch smaller than a block is one block of its own size.
    n = ops.shape(inputs[0])[0]
    size = min(size, n) if isinstance(n, int) else size
    padded = [_pad(x, -n % size) for x in inputs]  # to whole blocks: a scan's steps all have one shape

    def of_block(carry, number):
        return function(carry, [_rows_from(x, number * size, count=size) for x in padded])

    # The number of blocks, rounded up; their results (blocks, size, …) are laid end to end, and the padding cut off.
    numbers = ops.arange((n + size - 1) // size, dtype="int32")
    _, results = ops.scan(of_block, ops.zeros((size, *like.shape[1:]), dtype=like.dtype), numbers)
    return ops.reshape(results, (-1, *like.shape[1:]))[:n]


def _rows_from(x, start, *, count: int):
    """`count` rows of `x`, from the row `start`, a scalar tensor."""
    rest = x.shape[1:]
    zero = ops.zeros_like(start)  # JAX wants all of one type
    return ops.slice(x, (start, *(zero for _ in rest)), (count, *rest))


def _pad(x, rows):
    """Appends rows of zeros, whose results are dropped."""
    return ops.concatenate([x, ops.zeros((rows, *x.shape[1:]), dtype=x.dtype)])
