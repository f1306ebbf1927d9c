"""Keys under which a partitioned tensor's slices are stored: numbers and text, encoded so that bytes sort like values.

References:
    TensorFlow, `core/lib/strings/ordered_code.cc` and `core/util/saved_tensor_slice_util.cc`
"""

from collections.abc import Iterable

Extent = tuple[int, int]
"""Start and length along one axis; (0, -1) is the whole axis."""


def slice_key(name: str, extents: Iterable[Extent]) -> bytes:
    """The index key of the slice of tensor `name` at these extents.

    Example:
        >>> slice_key("w", [(0, 2), (0, -1)])
        b'\\x00w\\x00\\x01\\x01\\x02\\x80\\x82\\x80\\x7f'
    """
    extents = list(extents)
    numbers = b"".join(signed(number) for extent in extents for number in extent)
    return unsigned(0) + text(name) + unsigned(len(extents)) + numbers


def unsigned(value: int) -> bytes:
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length, "big")


def text(value: str) -> bytes:
    return value.encode().replace(b"\0", b"\0\xff") + b"\0\1"  # UTF-8 has no 0xff, which would be escaped, too


def signed(value: int) -> bytes:
    """As many leading one bits as bytes, flipped for negative numbers, then the number in two's complement."""
    length = (value if value >= 0 else ~value).bit_length() // 7 + 1
    header = ((1 << length) - 1) << (8 * length - length)
    return ((value & (1 << 8 * length) - 1) ^ header).to_bytes(length, "big")
