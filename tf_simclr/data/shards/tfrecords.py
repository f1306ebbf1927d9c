"""TFRecord files of `tf.train.Example`s with an encoded image: ImageNet's own, those of tfds, and any like them.

    file       (length uint64, its checksum uint32, record, checksum uint32)*
    record     Example{1: Features{1: {1: key, 2: Feature{1: bytes, 2: floats or 3: int64s}}*}}

Only the places of the images are noted; their bytes are not copied.  TensorFlow is not needed.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_simclr.data.shards import opening
from tf_simclr.data.shards.index import NO_LABEL, Listing
from tf_simclr.foreign import spend

_IMAGES = ("image/encoded", "image", "image_raw", "encoded", "jpg", "jpeg", "png", "picture", "img")
_LABELS = ("image/class/label", "label", "class", "cls", "labels", "target")
_TEXTS = ("image/class/synset", "image/class/text", "class_name")
_IMAGENET = "image/class/label"
"""Counts classes from 1 on: 0 is what is no class (ImageNet's own files)."""


def listing(path: Path) -> Listing:
    """The examples of a TFRecord file.

    Raises:
        ValueError, struct.error: it is compressed, cut off, or its records are no such examples.
    """
    found = Listing()
    length = opening.stamp(path)[0]
    if not length:
        return found
    with opening.opened(path) as file:
        data = _mapped(file, length)
        if data[:2] == b"\x1f\x8b":
            raise ValueError("it is compressed, so that no image in it can be found without the others: gunzip it")
        for number, (start, end) in enumerate(records(data, length)):
            place, label, text = example(data, start, end=end)
            found.add(str(number), place, label=label, text=text)
    return found


def _mapped(file: Any, length: int) -> Any:
    """The file's bytes, which are read where they are looked at; of what has no number, all of them."""
    try:
        return mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)
    except (OSError, AttributeError, ValueError):
        return file.read()


def records(data: Any, length: int) -> Iterator[tuple[int, int]]:
    """Where each record begins and ends."""
    place = 0
    while place < length:
        spend(items=1, outline=64)
        if place + 12 > length:
            raise ValueError("it is cut off within a record's length")
        (size,) = struct.unpack_from("<Q", data, place)
        if place + 16 + size > length:
            raise ValueError("it is cut off or damaged: a record reaches beyond its end")
        yield place + 12, place + 12 + size
        place += 16 + size


def example(data: Any, start: int, *, end: int) -> tuple[tuple[int, int], int, str]:
    """Of an Example's bytes the place of the image, the label and the class in words.

    Raises:
        ValueError: it has no image.
    """
    features: dict[str, tuple[int, int]] = {}
    for _, a, b in _fields(data, start, end, number=1):
        for _, c, d in _fields(data, a, b, number=1):
            key, value = "", (d, d)
            for number, e, f in _fields(data, c, d):
                key, value = (data[e:f].decode(), value) if number == 1 else (key, (e, f))
            features[key] = value
    name = next((name for name in _IMAGES if name in features), None)
    images = [] if name is None else list(_values(data, *features[name], kind=1))
    if not images:
        raise ValueError(
            f"its records must be Examples with an encoded image ({', '.join(_IMAGES[:3])}, …); "
            f"one has {', '.join(sorted(features)) or 'nothing'}"[:300]
        )
    label = NO_LABEL
    labelled = next((name for name in _LABELS if name in features), None)
    numbers = [] if labelled is None else list(_integers(data, *features[labelled]))
    if len(numbers) == 1:
        label = numbers[0] - (labelled == _IMAGENET)
    words = [
        data[a:b].decode() for name in _TEXTS if name in features for a, b in _values(data, *features[name], kind=1)
    ]
    first, last = images[0]
    return (first, last - first), label, words[0] if words else ""


def _values(data: Any, start: int, end: int, *, kind: int) -> Iterator[tuple[int, int]]:
    """The places of a Feature's bytes."""
    for _, a, b in _fields(data, start, end, number=kind):
        for _, c, d in _fields(data, a, b, number=1):
            yield c, d


def _integers(data: Any, start: int, end: int) -> Iterator[int]:
    """A Feature's integers, one after the other or packed."""
    for _, a, b in _fields(data, start, end, number=3):
        for number, c, d in _fields(data, a, b):
            if d < 0:
                yield _signed(c)
            while number == 1 and 0 <= c < d:
                value, c = _varint(data, c, d)
                yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _fields(data: Any, start: int, end: int, *, number: int | None = None) -> Iterator[tuple[int, int, int]]:
    """A message's fields: their number, begin and end; of a number its value and -1."""
    while start < end:
        tag, start = _varint(data, start, end)
        wire = tag & 7
        if wire == 0:
            value, start = _varint(data, start, end)
            found = (tag >> 3, value, -1)
        else:
            size, start = _varint(data, start, end) if wire == 2 else ({1: 8, 5: 4}[wire], start)
            if start + size > end:
                raise ValueError("a field reaches beyond its record")
            found, start = (tag >> 3, start, start + size), start + size
        if number is None or (found[0] == number and wire == 2):
            yield found


def _varint(data: Any, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while start < end and shift < 70:
        byte = data[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value & (2**64 - 1), start
    raise ValueError("a number reaches beyond its record")
