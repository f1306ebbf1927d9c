"""The sorted table of LevelDB, as TensorFlow writes it: the index of a tensor bundle.

A table is a row of blocks with prefix-compressed keys, each followed by a byte that tells the compression and by a
masked CRC-32C; an index block points at the data blocks, and a footer of 48 bytes at the index block.  Checkpoints that
Google wrote since 2018 have compressed blocks; those of TensorFlow from PyPI, and ours, have not.

References:
    LevelDB, `doc/table_format.md`; TensorFlow, `tsl/lib/io/format.h` and `block_builder.cc`
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from converters.tensorflow.snappy import decompress
from tf_simclr.errors import InputError
from tf_simclr.files.contents import masked_crc32c
from tf_simclr.foreign import spend
from tf_simclr.foreign.wire import encode_varint, varint

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
TRAILER = 5
"""Bytes after a block: its compression and its checksum."""
_PLAIN, _SNAPPY = 0, 1
"""How a block is compressed."""
BLOCK_SIZE = 1 << 18
_RESTART_INTERVAL = 16


def read_table(data: bytes, name: str) -> dict[bytes, bytes]:
    """Every entry of a table, in the order of its keys.

    Args:
        name: What error messages call the file.

    Raises:
        InputError: the file is cut off, damaged or no table.
    """
    if len(data) < FOOTER or int.from_bytes(data[-8:], "little") != MAGIC:
        raise InputError(f"{name} must end with a table's magic number; it is cut off or no checkpoint index")
    try:
        # Footer: the place of a block that is always empty, that of the index block, zeros, the magic number.
        _, position = handle(data, len(data) - FOOTER)
        index, _ = handle(data, position)
        places = [handle(value, 0)[0] for value in _rising(entries(block(data, index))).values()]
        if any(offset + size + TRAILER > following for (offset, size), (following, _) in pairwise(places)):
            raise InputError("its blocks overlap or are out of order; copy it again")
        return _rising(pair for place in places for pair in entries(block(data, place)))
    except InputError as error:
        raise InputError(f"{name} must be an intact checkpoint index, but {error}") from None


def _rising(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The entries, whose keys must rise."""
    found: dict[bytes, bytes] = {}
    last = None
    for key, value in pairs:
        if last is not None and key <= last:
            raise InputError("it does not hold its keys in order, each once; copy it again")
        found[key] = value
        last = key
    return found


def handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """A block's offset and size, and the position after them."""
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def block(data: bytes, where: tuple[int, int]) -> bytes:
    """A block's content: its bytes are checked, then decompressed."""
    offset, size = where
    end = offset + size
    if end + TRAILER > len(data) - FOOTER:
        raise InputError(f"a block at {offset} reaches past its end; copy it again")
    if masked_crc32c(data[offset : end + 1]) != int.from_bytes(data[end + 1 : end + TRAILER], "little"):
        raise InputError(f"the checksum of the block at {offset} does not match; copy it again")
    if data[end] not in (_PLAIN, _SNAPPY):
        rule = f"the block at {offset} is compressed otherwise than by Snappy (type {data[end]})"
        raise InputError(f"{rule}, as TensorFlow never does; save the checkpoint again")
    try:
        return data[offset:end] if data[end] == _PLAIN else decompress(data[offset:end])
    except InputError as error:
        raise InputError(f"the block at {offset} is damaged: {error}") from None


def entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block."""
    # A block ends with the places of its restart points and their number.
    restarts = int.from_bytes(content[-4:], "little")
    end = len(content) - 4 * (restarts + 1)
    if end < 0:
        raise InputError("a block is shorter than its restart points; copy it again")
    position, key = 0, b""
    while position < end:
        shared, position = varint(content, position)
        fresh, position = varint(content, position)
        length, position = varint(content, position)
        if shared > len(key) or position + fresh + length > end:
            raise InputError("an entry reaches past its block; copy it again")
        spend(items=1, outline=shared + fresh + length)  # each key can repeat the whole one before it
        # Prefix compression: as many bytes of the key before it as it shares, then its own.
        key = key[:shared] + content[position : position + fresh]
        position += fresh + length
        yield key, content[position - length : position]


def write_table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table with these entries, whose keys must rise; byte for byte what TensorFlow writes."""
    out, index = bytearray(), []
    blocks = list(_grouped(pairs))
    for i, rows in enumerate(blocks):
        following = blocks[i + 1][0][0] if i + 1 < len(blocks) else None
        index.append((_separator(rows[-1][0], following), append_block(out, rows)))
    tail = append_block(out, []) + append_block(out, index, interval=1)
    return bytes(out) + tail.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little")


def _grouped(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Entries by data block: one is closed as soon as it reaches `BLOCK_SIZE`."""
    rows: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in pairs:
        # The size as TensorFlow's builder estimates it: blocks end where its blocks end, byte for byte.
        shared = common(rows[-1][0], key) if rows and len(rows) % _RESTART_INTERVAL else 0
        restart = 4 * (len(rows) % _RESTART_INTERVAL == 0)
        size += len(lengths(shared, len(key), size=len(value))) + len(key) - shared + len(value) + restart
        rows.append((key, value))
        if size + 4 >= BLOCK_SIZE:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def append_block(out: bytearray, rows: list[tuple[bytes, bytes]], *, interval: int = _RESTART_INTERVAL) -> bytes:
    """Appends a block and its trailer.

    Returns:
        The encoded handle of the block.
    """
    content, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(rows):
        if i % interval == 0:
            # At a restart point the key is whole, so that a reader can begin there.
            restarts.append(len(content))
            last = b""
        shared = common(last, key)
        content += lengths(shared, len(key), size=len(value)) + key[shared:] + value
        last = key
    for number in (*(restarts or [0]), len(restarts) or 1):
        content += number.to_bytes(4, "little")
    where = encode_varint(len(out)) + encode_varint(len(content))
    content.append(_PLAIN)
    out += content + masked_crc32c(content).to_bytes(4, "little")
    return where


def lengths(shared: int, key: int, *, size: int) -> bytes:
    """What precedes an entry: the bytes that its key shares with the one before, its other bytes, its value's bytes."""
    return encode_varint(shared) + encode_varint(key - shared) + encode_varint(size)


def common(a: bytes, b: bytes) -> int:
    """Length of the common start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _separator(last: bytes, following: bytes | None) -> bytes:
    """A short key that is not below `last` and below `following`, the first key of the next block, if any."""
    if following is None:
        i = next((i for i, byte in enumerate(last) if byte != 0xFF), None)
        return last if i is None else last[:i] + bytes([last[i] + 1])
    i = common(last, following)
    if i < min(len(last), len(following)) and last[i] < 0xFF and last[i] + 1 < following[i]:
        return last[:i] + bytes([last[i] + 1])
    return last
