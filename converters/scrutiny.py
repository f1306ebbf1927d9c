"""Values that a trained network should not have."""

import numpy as np


def unfit(array: np.ndarray) -> str | None:
    """What is wrong with an array's values: NaN or infinite ones; None: nothing.

    Example:
        >>> unfit(np.array([1.0, np.nan, np.inf]))
        '1 NaN, 1 infinite'
    """
    if array.dtype.kind in "iub":
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.sum(
            array, dtype=np.float64 if array.size < 1 << 16 else None
        )  # one pass; NaN and infinity survive it
    if np.isfinite(total):
        return None
    wide = array.astype(np.float64)
    counts = {"NaN": int(np.isnan(wide).sum()), "infinite": int(np.isinf(wide).sum())}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or None


def suspicious(array: np.ndarray) -> str | None:
    """`unfit`, or that all values are zero."""
    return unfit(array) or ("all zero" if array.size and not array.any() else None)
