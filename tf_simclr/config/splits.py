"""What the names of splits tell: whether two share images, and whether one is for the last look."""

import re

PART = re.compile(r"([^\[\]+]+)(?:\[([^\[\]:]*):([^\[\]:]*)\])?")
"""`train`, `train[:90%]`, `train[1000:-500]`: a part of TensorFlow Datasets' syntax for splits."""
_TESTS = ("test", "testing")
"""Names of splits that are for the last look."""


def is_test(names: str) -> bool:
    """Whether one of the splits, with `+` between them, is called a test."""
    return any(name.split("[")[0].lower() in _TESTS for name in names.split("+"))


def shared(one: str, other: str) -> bool | None:
    """Whether two splits have an image in common; None where their names alone do not tell.

    Example:
        >>> shared("train[:90%]", "train[90%:]"), shared("train", "train[90%:]"), shared("train[:90%]", "train[500:]")
        (False, True, None)
    """
    answers = [_parts_shared(a, b) for a in one.split("+") for b in other.split("+")]
    return True if True in answers else None if None in answers else False


def _parts_shared(one: str, other: str) -> bool | None:
    first, second = PART.fullmatch(one.strip()), PART.fullmatch(other.strip())
    if first is None or second is None:
        return None
    (a, *ours), (b, *theirs) = first.groups(), second.groups()
    if a != b:
        return None if "all" in (a, b) else False  # TensorFlow Datasets' and radiographs' name for every split
    if ours == [None, None] or theirs == [None, None]:
        return True
    for percent in (True, False):
        spans = [span for bounds in (ours, theirs) if (span := _span(*bounds, percent=percent)) is not None]
        if len(spans) == 2:
            return max(spans[0][0], spans[1][0]) < min(spans[0][1], spans[1][1])
    return None


def _span(start: str, end: str, *, percent: bool) -> tuple[float, float] | None:
    """From where to where a slice goes, in percent or in images; None where it does not count so."""
    whole = 100.0 if percent else float("inf")
    bounds = []
    for text, otherwise in ((start, 0.0), (end, whole)):
        if not text:
            bounds.append(otherwise)
            continue
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            return None
        if text.endswith("%") is not percent:
            return None
        if value < 0:
            if not percent:
                return None  # counted from an end that nobody knows here
            value += whole
        bounds.append(value)
    return bounds[0], bounds[1]
