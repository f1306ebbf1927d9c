"""What a file's first bytes say of the picture in it, read before anything is decoded.

A decoder believes its own stream.  A kilobyte of JPEG 2000 can call itself 60,000 × 60,000 pixels inside a DICOM of
64 × 64, and a deflated DICOM can grow a thousandfold: both are looked at here, at the cost of their headers.

References:
    ITU-T T.81, B.2.2 (JPEG frame header); ITU-T T.87, C.2.2 (JPEG-LS); ITU-T T.800, A.5.1 (SIZ); ISO/IEC 15948, 11.2.1
    (IHDR); DICOM PS3.10, 7.1 (file meta information); RFC 1951 (deflate).
"""

import struct
import zlib

from tf_simclr.errors import check

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
    if stream.startswith(b"\x89PNG\r\n\x1a\n") and stream[12:16] == b"IHDR" and len(stream) >= 24:
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
