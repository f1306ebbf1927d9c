"""Tables as Google's own writers make them, with compressed blocks, which no TensorFlow from PyPI writes.

TensorFlow's reader is the oracle of what this makes: tests compare with it before they compare with ours.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import google_crc32c

from converters.tensorflow.sstable import read_table

Compress = Callable[[int, bytes], tuple[int, bytes]]
"""Number and content of a block → its type byte and its bytes in the file."""


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def literal(data: bytes, *, width: int = 0) -> bytes:
    """A literal element, its length in the first byte (up to 60 bytes) or in `width` bytes behind it."""
    if not width and len(data) <= 60:
        return bytes([len(data) - 1 << 2]) + data
    width = width or (len(data).bit_length() + 7) // 8
    return bytes([59 + width << 2]) + (len(data) - 1).to_bytes(width, "little") + data


def copy(offset: int, length: int, *, width: int) -> bytes:
    """A copy element whose offset takes 1 (lengths 4–11, offsets below 2048), 2 or 4 bytes."""
    if width == 1:
        return bytes([offset >> 8 << 5 | length - 4 << 2 | 1, offset & 255])
    return bytes([length - 1 << 2 | {2: 2, 4: 3}[width]]) + offset.to_bytes(width, "little")


def literals(data: bytes) -> bytes:
    """Snappy without any copy, in literals of every form."""
    out, start, width = varint(len(data)), 0, 0
    while start < len(data):
        part = data[start : start + (60, 200, 300, 500, 700)[width]]
        out += literal(part, width=width)
        start, width = start + len(part), (width + 1) % 5
    return out


def copies(data: bytes) -> bytes:
    """Snappy with copies of every kind in turn, overlapping ones (offset < length) wherever bytes repeat."""
    out, pending, start, seen, turn = bytearray(varint(len(data))), bytearray(), 0, {}, 0
    while start < len(data):
        found = seen.get(data[start : start + 4])
        seen[data[start : start + 4]] = start
        length = 0
        if found is not None:
            while length < 64 and start + length < len(data) and data[found + length] == data[start + length]:
                length += 1
        if length < 4:
            pending.append(data[start])
            start += 1
            continue
        out += literal(bytes(pending)) if pending else b""
        pending.clear()
        offset, turn = start - found, turn + 1
        width = (1, 2, 4)[turn % 3]
        width = 4 if offset >= 1 << 16 else 2 if width == 1 and offset >= 2048 else width
        length = min(length, 11) if width == 1 else length
        out += copy(offset, length, width=width)
        start += length
    return bytes(out + (literal(bytes(pending)) if pending else b""))


def masked(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def block(rows: Iterable[tuple[bytes, bytes]], *, interval: int) -> bytes:
    """Prefix-compressed entries with a restart point every `interval` of them."""
    out, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(rows):
        shared = 0
        if i % interval == 0:
            restarts.append(len(out))
        else:
            shared = next((j for j, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), len(last))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    numbers = [*(restarts or [0]), len(restarts) or 1]
    return bytes(out) + b"".join(number.to_bytes(4, "little") for number in numbers)


def table(
    pairs: Iterable[tuple[bytes, bytes]], compress: Compress, *, rows: int = 1 << 30, interval: int = 16
) -> bytes:
    """A table of blocks of `rows` entries; block 0 is the first, the empty one and the index come last."""
    pairs, out, index = list(pairs), bytearray(), []
    handles = []

    def add(number: int, content: bytes) -> bytes:
        kind, data = compress(number, content)
        handle = varint(len(out)) + varint(len(data))
        out.extend(data + bytes([kind]) + masked(data + bytes([kind])))
        return handle

    for number, start in enumerate(range(0, len(pairs), rows)):
        part = pairs[start : start + rows]
        index.append((part[-1][0], add(number, block(part, interval=interval))))
    handles = add(len(index), block([], interval=1)) + add(len(index) + 1, block(index, interval=1))
    return bytes(out) + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def google(_: int, content: bytes) -> tuple[int, bytes]:
    """What Google's library makes of a block."""
    import cramjam

    return 1, bytes(cramjam.snappy.compress_raw(content))


def mixed(number: int, content: bytes) -> tuple[int, bytes]:
    """Compressed and plain blocks in turn."""
    return (0, content) if number % 2 else (1, copies(content))


COMPRESSORS: dict[str, Compress] = {
    "google": google,
    "literals": lambda _, content: (1, literals(content)),
    "copies": lambda _, content: (1, copies(content)),
    "mixed": mixed,
}


def compress_index(prefix: Path, how: str = "copies", *, rows: int = 50, interval: int = 16) -> None:
    """Rewrites a checkpoint's index with compressed blocks of `rows` entries."""
    index = prefix.with_name(prefix.name + ".index")
    pairs = read_table(index.read_bytes(), str(index)).items()
    index.write_bytes(table(pairs, COMPRESSORS[how], rows=rows, interval=interval))
