"""Protocol-buffer messages by field number: as much of the wire format as TensorFlow's files need.

References:
    https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator

from tf_simclr.errors import InputError
from tf_simclr.foreign import spend

_VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
MESSAGE = 8
"""Items of the budget that a message costs beside its fields, for the memory that it takes."""


class Message:
    """The fields of one message; unknown fields are kept, nested messages are parsed when asked for.

    Raises:
        InputError: the bytes are no message.
    """

    def __init__(self, data: bytes | memoryview):
        self.fields: dict[int, list[int | memoryview]] = {}
        spend(items=MESSAGE)
        for number, value in fields(data):
            # A repeated field has several values, in the order of the file.
            self.fields.setdefault(number, []).append(value)

    def integer(self, number: int) -> int:
        """A field's number; 0 where it is absent."""
        # The last one counts, as protocol buffers have it.
        value = self.fields.get(number, [0])[-1]
        if not isinstance(value, int):
            raise InputError(f"field {number} of a protocol buffer must be a number; the file is damaged")
        return value

    def signed(self, number: int) -> int:
        """A number whose negative values are stored as two's complement of 64 bits."""
        value = self.integer(number)
        return value - (1 << 64) if value >> 63 else value

    def text(self, number: int) -> str:
        """A field's text; empty where it is absent."""
        return next(reversed(self.texts(number)), "")

    def texts(self, number: int) -> list[str]:
        """The texts of a repeated field.

        Raises:
            InputError: one is no UTF-8.
        """
        try:
            return [str(value, "utf-8") for value in self.raw(number)]
        except UnicodeDecodeError:
            raise InputError(f"field {number} of a protocol buffer must be text; the file is damaged") from None

    def raw(self, number: int) -> list[memoryview]:
        """The bytes of a repeated field, not copied.

        Raises:
            InputError: one is a number.
        """
        values = self.fields.get(number, [])
        found = [value for value in values if not isinstance(value, int)]
        if len(found) < len(values):
            raise InputError(f"field {number} of a protocol buffer must be bytes; the file is damaged")
        return found

    def messages(self, number: int) -> list["Message"]:
        """The nested messages of a repeated field."""
        return [Message(value) for value in self.raw(number)]

    def message(self, number: int) -> "Message":
        """The nested message, empty where absent."""
        found = self.raw(number)
        return Message(found[-1]) if found else Message(b"")


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields (field number, value) in file order; a value is an integer or the bytes of text or a message.

    Raises:
        InputError: the bytes end early or hold a wire type that protocol buffers do not have.
    """
    data = memoryview(data)
    position, end = 0, len(data)
    while position < end:
        spend(items=1)
        # A tag is the field's number and, in its three low bits, how its value is stored.
        tag, position = varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            number, position = varint(data, position)
            yield tag >> 3, number
            continue
        # Fixed widths have their length in the kind, the others in front.
        length, position = (_WIDTH[kind], position) if kind in _WIDTH else varint(data, position)
        if kind not in (_FIXED64, _FIXED32, BYTES) or tag < 8 or length > end - position:
            raise InputError("a protocol buffer is cut off or damaged; copy the file again")
        content, position = data[position : position + length], position + length
        yield tag >> 3, int.from_bytes(content, "little") if kind in _WIDTH else content


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Reads a base-128 number.

    Returns:
        The number and the position after it.

    Example:
        >>> varint(bytes([0xAC, 0x02]), 0)
        (300, 2)
    """
    value = shift = 0
    for byte in data[position : position + 10]:
        position += 1
        # Seven bits a byte, the lowest first; the eighth says that more follow.
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, position
        shift += 7
    raise InputError("a number in a protocol buffer or table is cut off or damaged; copy the file again")


def encode_varint(value: int) -> bytes:
    """Writes a base-128 number; negative ones as two's complement of 64 bits.

    Example:
        >>> encode_varint(300).hex()
        'ac02'
    """
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(number: int, value: int | bytes | str) -> bytes:
    """One field; a number of 0 is left out, as protocol buffers do with defaults."""
    if isinstance(value, int):
        return encode_varint(number << 3 | _VARINT) + encode_varint(value) if value else b""
    value = value.encode() if isinstance(value, str) else value
    return encode_varint(number << 3 | BYTES) + encode_varint(len(value)) + value


def encode_fixed32(number: int, value: int) -> bytes:
    return encode_varint(number << 3 | _FIXED32) + value.to_bytes(4, "little")
