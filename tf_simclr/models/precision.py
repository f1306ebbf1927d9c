"""The precision that layers compute in."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from tf_simclr.errors import check

NAMES = ("float32", "bfloat16", "float16")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Layers and models made within compute in `name`; weights, BatchNorm's statistics and losses stay in floatx.

    A model that computes in float16 needs its loss scaled: `optimizers.LossScale`.

    Args:
        name: float32 (whatever Keras is set to), bfloat16 or float16.

    Raises:
        InputError: another name.

    Example:
        >>> with precision("bfloat16"):
        ...     layer = keras.layers.Dense(3)
        >>> layer.compute_dtype, layer.variable_dtype, keras.layers.Dense(3).compute_dtype
        ('bfloat16', 'float32', 'float32')
    """
    check(name in NAMES, f"precision must be one of {', '.join(NAMES)}", precision=name)
    before = keras.config.dtype_policy()
    try:
        if name != "float32":
            keras.config.set_dtype_policy(f"mixed_{name}")
        yield
    finally:
        keras.config.set_dtype_policy(before)
