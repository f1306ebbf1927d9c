"""Snappy's block format: what Google's own writers compress the blocks of a table with.

A block is the length of its content, then elements that each append to it: literal bytes, or a copy of bytes that
were appended before.

References:
    google/snappy, `format_description.txt`
"""

from tf_simclr.errors import InputError
from tf_simclr.foreign import spend
from tf_simclr.foreign.wire import varint

_LITERAL, _COPY_1, _COPY_2, _COPY_4 = range(4)
"""Kinds of elements, by the two low bits of the first byte; a copy's offset takes so many bytes."""
_OFFSET_BYTES = {_COPY_1: 1, _COPY_2: 2, _COPY_4: 4}
_INLINE = 60
"""Literals up to this length have it in the first byte; longer ones in one to four bytes behind it."""
_LONGEST = (1 << 32) - 1
_GROWTH = 22
"""No element appends more bytes for each of its own: a copy of 64 takes three."""


def decompress(data: bytes) -> bytes:
    """The content of a compressed block.

    Nothing is decoded that claims to be longer than its bytes can make it.

    Raises:
        InputError: a field is damaged, or the content is not as long as the block says.

    Example:
        >>> decompress(bytes([6, 0 << 2 | _LITERAL, ord("a"), 4 << 2 | _COPY_2, 1, 0]))  # six bytes: a literal, a copy
        b'aaaaaa'
    """
    # The length that it will have, as a varint in front.
    length, position = varint(data, 0)
    # More than 22 times its bytes no block can make: refused before memory is.
    if length > min(_LONGEST, _GROWTH * len(data)):
        raise InputError(f"{len(data)} compressed bytes cannot make the {length} that they claim")
    spend(outline=length)
    # Until the data end: read an element's kind and length; a literal appends the bytes behind it, a copy those that
    # begin `offset` before the end of what is there. A copy longer than its offset repeats what it has just appended.
    out = bytearray()
    while position < len(data):
        spend(items=1)
        tag, position = data[position], position + 1
        kind, size = tag & 3, (tag >> 2) + 1
        if kind == _LITERAL:
            # Longer literals have their length in 1 to 4 bytes behind the first.
            if size > _INLINE:
                size, position = number(data, position, count=size - _INLINE)
                size += 1
            if size > len(data) - position:
                raise InputError(f"a literal of {size} bytes reaches past its compressed block")
            out += data[position : position + size]
            position += size
        else:
            offset, position = number(data, position, count=_OFFSET_BYTES[kind])
            if kind == _COPY_1:
                # The short copy: 3 bits of length, 11 of offset, of which 3 are in the first byte.
                size, offset = (tag >> 2 & 7) + 4, tag >> 5 << 8 | offset
            if not 0 < offset <= len(out):
                raise InputError(f"a copy in a compressed block begins {offset} bytes before byte {len(out)}")
            source = out[len(out) - offset : len(out) - offset + size]
            # Repeated as often as needed, when it is longer than what it copies from.
            out += (source * -(-size // offset))[:size]
        if len(out) > length:
            break
    if len(out) != length:
        raise InputError(f"a compressed block must make the {length} bytes that it claims, not {len(out)}")
    return bytes(out)


def number(data: bytes, position: int, *, count: int) -> tuple[int, int]:
    """A little-endian number of `count` bytes, and the position after it."""
    if count > len(data) - position:
        raise InputError("a compressed block ends within an element")
    return int.from_bytes(data[position : position + count], "little"), position + count
