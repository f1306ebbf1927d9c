"""What a file's first bytes say of the picture in it, read before anything is decoded.

A decoder believes its own stream.  A kilobyte of JPEG 2000 can call itself 60,000 × 60,000 pixels inside a DICOM of
64 × 64, and a deflated DICOM can grow a thousandfold: both are looked at here, at the cost of their headers.

References:
    ITU-T T.81, B.2.2 (JPEG frame header); ITU-T T.87, C.2.2 (JPEG-LS); ITU-T T.800, A.5.1 (SIZ); ISO/IEC 15948, 11.2.1
    (IHDR); DICOM PS3.10, 7.1 (file meta information); RFC 1951 (deflate).
"""

import struct
import zlib

import numpy as np

from tf_simclr.errors import check

_PNG = b"\x89PNG\r\n\x1a\n"
_COLOURS = {2: (3, 6), 4: (1, 4), 6: (3, 8)}
"""Kind of a PNG (red, green and blue; grey and opacity; all four) → its colours, and bytes of a pixel of 16 bits."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""JPEG's markers SOF0 to SOF15, of which three are other things, and JPEG-LS' SOF55."""
_BARE = frozenset(range(0xD0, 0xDA)) | {0x01}
"""Markers of two bytes without a length; 0xD9 ends the picture."""
DEFLATED = "1.2.840.10008.1.2.1.99"


def stated_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns of a PNG, JPEG, JPEG-LS, JPEG 2000 stream, or None where it is none of these or names none.

    Example:
        >>> stated_size(bytes.fromhex("89504e470d0a1a0a0000000d4948445200000003000000020800000000"))
        (2, 3)
    """
    # IHDR is a PNG's first chunk: 8 bytes of mark, 4 of length, 4 of name, then the columns and the rows.
    if stream.startswith(_PNG) and stream[12:16] == b"IHDR" and len(stream) >= 24:
        columns, rows = struct.unpack_from(">II", stream, 16)
        return rows, columns
    if stream.startswith(b"\xff\xd8"):
        return _jpeg_size(stream)
    start = 0
    if stream[4:8] == b"jP  ":  # boxes around the codestream
        start = max(stream.find(b"\xff\x4f\xff\x51"), 0)
    # JPEG 2000: SOC and SIZ begin the stream; the size is from an offset to an end, both in the header.
    if stream[start : start + 4] == b"\xff\x4f\xff\x51" and len(stream) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">IIII", stream, start + 8)
        return max(bottom - top, 0), max(right - left, 0)
    return None


def colours_of_16_bits(stream: bytes) -> list[bytes]:
    """The colours of a PNG that has 16 bits of each, as a grey PNG each; none for any other picture.

    Pillow keeps 8 of them, so that of a detector's 12 bits in such a file 4 would be left.  PNG's filters foretell each
    byte of a pixel from the same byte of its neighbours (ISO/IEC 15948, 9.2): a colour's bytes are taken out filtered
    as they are, and behind the same filters they are a picture of their own.

    Raises:
        InputError: its rows are interlaced, or it is cut off.
    """
    # 1. IHDR, which is the first chunk.
    if not stream.startswith(_PNG) or len(stream) < 33:
        return []
    columns, rows, depth, kind, *_, interlaced = struct.unpack_from(">IIBBBBB", stream, 16)
    if depth != 16 or kind not in _COLOURS:
        return []
    check(not interlaced, "a PNG of 16 bits a colour must not be interlaced; save it as grey")
    # 2. Chunks: a length, a name, so many bytes, a checksum.  Together the IDAT are one stream of zlib.
    data, turned, at = [], b"", 8
    while at + 8 <= len(stream):
        (length,), name = struct.unpack_from(">I", stream, at), stream[at + 4 : at + 8]
        content = stream[at + 8 : at + 8 + length]
        data += [content] * (name == b"IDAT")
        turned = _chunk(name, content) if name == b"eXIf" else turned
        at += 12 + length
    count, size = _COLOURS[kind]
    wide = 1 + size * columns
    lines = zlib.decompressobj().decompress(b"".join(data), rows * wide)  # no more, whatever it holds
    check(len(lines) == rows * wide, "a PNG must hold all of its rows, but it is cut off", bytes=len(lines))
    # 3. Rows (rows, 1 + size · columns) → filters (rows, 1) and pixels (rows, columns, size / 2, 2 bytes).
    table = np.frombuffer(lines, np.uint8).reshape(rows, wide)
    pixels = table[:, 1:].reshape(rows, columns, size // 2, 2)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 0)) + turned
    planes = [np.hstack([table[:, :1], pixels[:, :, colour].reshape(rows, -1)]) for colour in range(count)]
    return [_PNG + head + _chunk(b"IDAT", zlib.compress(one.tobytes(), 1)) + _chunk(b"IEND", b"") for one in planes]


def _chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """Of the frame headers before the first scan the largest."""
    # Segment by segment behind the first mark: FF, a marker, a length of two bytes that counts itself.
    place, found = 2, None
    while place + 4 <= len(stream):
        if stream[place] != 0xFF:
            return found
        marker = stream[place + 1]
        if marker == 0xFF or marker in _BARE:  # fill bytes
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            return found
        (length,) = struct.unpack_from(">H", stream, place + 2)
        # A frame header: length, precision, rows, columns. The largest of several: a thumbnail may come first.
        if marker in _FRAMES and place + 9 <= len(stream):
            size = struct.unpack_from(">HH", stream, place + 5)
            found = size if found is None or size[0] * size[1] > found[0] * found[1] else found
        # A length below 2 would stand still here.
        place += 2 + max(length, 2)
    return found


def transfer_syntax(content: bytes) -> str:
    """The transfer syntax that a DICOM file's meta information names, or an empty text.

    Group 2 is explicit little endian in every file: tag, two letters, a length of two bytes or of four.
    """
    # Behind the preamble, group 2 is always explicit and little endian.
    place = 132
    while place + 12 <= len(content):
        group, element, kind, short = struct.unpack_from("<HH2sH", content, place)
        if group != 2:
            break
        # These have two bytes of nothing and a length of four.
        long = kind in (b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF", b"OD", b"OL", b"UC", b"UR")
        length = struct.unpack_from("<I", content, place + 8)[0] if long else short
        place += 12 if long else 8
        if element == 0x10:
            return content[place : place + length].rstrip(b"\0 ").decode("ascii", errors="replace")
        place += length
    return ""


def check_inflated(content: bytes, name: str, *, largest: int) -> None:
    """Refuses a deflated DICOM that grows beyond `largest` bytes, without growing it further than that.

    Raises:
        InputError: it does.
    """
    if transfer_syntax(content) != DEFLATED:
        return
    (length,) = struct.unpack_from("<I", content, 140) if len(content) >= 144 else (0,)  # of group 2, its first element
    grown, left = 0, content[144 + length :]
    # Raw deflate without zlib's head, a megabyte at a time: a bomb is stopped where it passes the limit.
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    while left and not inflate.eof:
        grown += len(inflate.decompress(left, 2**20))
        check(grown <= largest, f"{name} must have at most {largest >> 20} MB, and its compressed content has more")
        left = inflate.unconsumed_tail
