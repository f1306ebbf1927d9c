"""TFRecord files of `tf.train.Example`s with an encoded image: ImageNet's own, those of tfds, and any like them.

    file       (length uint64, its checksum uint32, record, checksum uint32)*
    record     Example{1: Features{1: {1: key, 2: Feature{1: bytes, 2: floats or 3: int64s}}*}}

Only the places of the images are noted; their bytes are not copied.  Both checksums are compared when the index is
made, and the record's again whenever its image is read: a record that is not what was written is an image that cannot
be read.  TensorFlow is not needed.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tf_simclr.data.rasters import is_picture
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.index import NO_LABEL, Columns, Copy, Listing
from tf_simclr.data.shards.tars import PACKINGS, WORDS, unpacked
from tf_simclr.errors import InputError
from tf_simclr.files.contents import masked_crc32c
from tf_simclr.foreign import spend

_IMAGES = ("image/encoded", "image", "image_raw", "encoded", "jpg", "jpeg", "png", "picture", "img")
_LABELS = ("image/class/label", "label", "class", "cls", "labels", "target")
_TEXTS = ("image/class/synset", "image/class/text", "class_name")
FROM_ONE = "image/class/label"
"""Counts classes from 1 on in ImageNet's own files, where 0 is what is no class; in some others from 0 on."""
_HEAD = 12
"""Bytes before a record."""
_LOOK = 4096
"""Bytes of a record by which a picture is known."""
_EXAMPLE = b"\n"
"""How an Example begins: its features are its first field."""
NO_IMAGE = "records without an encoded image"
NOTHING = -1
"""Bytes of the picture in a damaged record."""


def listing(path: Path, columns: Columns, *, copy: Copy) -> Listing:
    """The examples of a TFRecord file, which may be compressed (gzip, zlib, …).

    A record whose checksum does not fit is an example that is damaged; nothing else of it counts.

    Raises:
        ValueError, struct.error: the file is cut off, a record's length is damaged, or its records are no such
            examples.
    """
    found = Listing()
    with path.open("rb") as given:
        file = given if _begins_as_record(given) else unpacked(given, copy, packings=_PACKINGS)
        if not file.seek(0, 2):
            return found
        file.seek(0)
        file.flush()
        data = opening.mapped(file)
        for number, (start, end, whole) in enumerate(records(data, len(data))):
            place = (start, end - start)
            if whole:
                note(found, str(number), place=place, data=data, start=start, end=end, columns=columns)
            else:
                found.add(str(number), (*place, 0, NOTHING), damaged=True)
    return found.not_empty()


def _begins_as_record(file: BinaryIO) -> bool:
    """Whether a file begins with a record's length and its checksum, whatever else those bytes may look like."""
    head = file.read(_HEAD)
    file.seek(0)
    return len(head) == _HEAD and masked_crc32c(head[:8]) == int.from_bytes(head[8:], "little")


class _Zlib(io.RawIOBase):
    """What a file is that TensorFlow has compressed by "ZLIB"."""

    def __init__(self, file: BinaryIO):
        self.file, self.inside, self.given = file, zlib.decompressobj(), b""

    def read(self, size: int = -1) -> bytes:
        while not self.inside.eof:
            given = self.given or self.file.read(1 << 16)
            if not given:
                raise ValueError("it is cut off")
            data, self.given = self.inside.decompress(given, max(size, 1)), self.inside.unconsumed_tail
            if data:
                return data
        return b""


_PACKINGS = PACKINGS | dict.fromkeys((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), _Zlib)
"""How a compressed file begins, by TensorFlow's own compression, too → who reads what it was."""


def fetch(file: Path, place: tuple[int, ...]) -> bytes:
    """The image of a record: its place is where the record begins, its length, and the image's within it.

    Raises:
        OSError: it cannot be read.
        ValueError: the record is not what was written.
    """
    start, length, offset, size = place
    data = opening.bytes_at(file, start, size=length + 4)
    if masked_crc32c(memoryview(data)[:length]) != int.from_bytes(data[length:], "little") or size == NOTHING:
        raise ValueError(f"a record of {file.name} is damaged: its checksum is another")
    return data[offset : offset + size]


def records(data: Any, length: int) -> Iterator[tuple[int, int, bool]]:
    """Where each record begins and ends, and whether it is what was written.

    Raises:
        ValueError: the file is cut off, or a length is damaged, so that nothing behind it can be found.
    """
    # A damaged length leads anywhere: it is believed where its own checksum fits, or where the record behind it does.
    place = 0
    view = memoryview(data)
    while place < length:
        spend(items=1, outline=64)
        if place + _HEAD > length:
            raise ValueError("it is cut off within a record's length")
        size, head = struct.unpack_from("<QI", data, place)
        start, end = place + _HEAD, place + _HEAD + size
        sure = head == masked_crc32c(view[place : place + 8])
        if end + 4 > length:
            reason = "cut off" if sure else "cut off, or a record's length is damaged"
            raise ValueError(f"it is {reason}: a record reaches beyond its end")
        (tail,) = struct.unpack_from("<I", data, end)
        whole = tail == masked_crc32c(view[start:end])
        if not (sure or whole):
            raise ValueError("the length of a record is damaged (its checksum is another): nothing behind it is found")
        yield start, end, whole
        place = end + 4


class _WithoutImage(ValueError):
    """An Example has none."""


def note(
    found: Listing, name: str, *, place: tuple[int, ...], data: Any, start: int, end: int, columns: Columns
) -> None:
    """Adds an Example, whose place is followed by that of its image within it; one without an image is counted.

    Raises:
        ValueError: it is no Example.
        InputError: it has no such columns.
    """
    try:
        (offset, size), label, text, origin = _example(data, start, end=end, columns=columns, found=found)
    except _WithoutImage as error:
        found.left_out[NO_IMAGE] += 1
        found.why = error  # for the case that nothing is an example (`not_empty`)
    else:
        found.add(name, (*place, offset - start, size), label=label, text=text, origin=origin)


def _example(
    data: Any, start: int, *, end: int, columns: Columns, found: Listing
) -> tuple[tuple[int, int], int, str, str]:
    """Of an Example's bytes, or of a picture's, the place of the image, the label, its words and where they stand.

    Raises:
        _WithoutImage: so it is.
        ValueError, InputError: as `note`.
    """
    # 1. Some files have pictures for records, without an Example around them.
    begins = bytes(data[start : min(end, start + _LOOK)])
    if columns == Columns() and begins[:1] not in (_EXAMPLE, b"") and is_picture(begins):
        return (start, end - start), NO_LABEL, "", ""
    # 2. Example{1: Features{1: entry{1: key, 2: Feature}}}: key → where its Feature lies; nothing is copied.
    features: dict[str, tuple[int, int]] = {}
    for _, a, b in _fields(data, start, end, number=1):
        for _, c, d in _fields(data, a, b, number=1):
            key, value = "", (d, d)
            for number, e, f in _fields(data, c, d):
                key, value = (data[e:f].decode(), value) if number == 1 else (key, (e, f))
            features[key] = value
    # 3. The picture: as asked for, under a usual name, or the only feature that begins as one.
    name = columns.image or next((name for name in _IMAGES if name in features), "") or _only(data, features)
    images = list(_values(data, *features[name], kind=1)) if name in features else []
    has = ", ".join(sorted(features))[:200] or "nothing"
    if not images and columns.image is not None:
        raise InputError(f"image_column must name a feature with an encoded image; one of its records has {has}")
    if not images:
        rule = f"its records must be Examples with an encoded image ({', '.join(_IMAGES[:3])}, …)"
        raise _WithoutImage(f"{rule}; one has {has}")
    found.left_out["further images of a record"] += len(images) - 1
    # 4. The class: a number, or where there is none words, under its own name or under those that go with it.
    labelled = columns.label or next((name for name in _LABELS if name in features), "")
    if columns.label is not None and labelled not in features:
        raise InputError(f"label_column must name a feature; one of its records has {has}")
    found.column = name
    label, words = NO_LABEL, ""
    if labelled:
        numbers = list(_numbers(data, *features[labelled]))
        alone = len(numbers) == 1 and float(numbers[0]).is_integer()
        label = int(numbers[0]) if alone else NO_LABEL
        found.left_out[f"labels ({labelled}) that are no whole number, or several,"] += bool(numbers) and not alone
        words = "" if numbers else _words(data, features[labelled])
    for other in () if words else _TEXTS:
        words = words or (_words(data, features[other]) if other in features else "")
    first, last = images[0]
    return (first, last - first), label, words, labelled


def _only(data: Any, features: dict[str, tuple[int, int]]) -> str:
    """The only feature that holds a picture; nothing where none does.

    Raises:
        InputError: several do.
    """
    found = []
    for name in sorted(features):
        first = next(_values(data, *features[name], kind=1), (0, 0))
        if is_picture(bytes(data[first[0] : first[1]])):
            found.append(name)
    if len(found) > 1:
        raise InputError(f"its records have several pictures; name the one that is meant by image_column: {found}")
    return found[0] if found else ""


def _words(data: Any, feature: tuple[int, int]) -> str:
    """A Feature's first text, where it is a class's name."""
    first = next(_values(data, *feature, kind=1), (0, 0))
    text = bytes(data[first[0] : min(first[1], first[0] + 4 * WORDS + 1)]).decode(errors="replace")
    return text if len(text) <= WORDS else ""


def _values(data: Any, start: int, end: int, *, kind: int) -> Iterator[tuple[int, int]]:
    """The places of a Feature's bytes."""
    for _, a, b in _fields(data, start, end, number=kind):
        for _, c, d in _fields(data, a, b, number=1):
            yield c, d


def _numbers(data: Any, start: int, end: int) -> Iterator[int | float]:
    """A Feature's integers or floats, one after the other or packed."""
    for _, a, b in _fields(data, start, end, number=2):
        for number, c, d in _fields(data, a, b):
            if number == 1:
                yield from np.frombuffer(bytes(data[c : d - (d - c) % 4]), "<f4").tolist()
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
        # A tag is the field's number and, in its three low bits, the wire type: 0 a number, 2 bytes with their length
        # in front, 1 and 5 eight and four bytes.
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
