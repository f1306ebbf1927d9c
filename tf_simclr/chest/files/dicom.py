"""Radiographs in DICOM files: opened, mended where no pixel is missing, checked, and shown as `levels` says.

References:
    DICOM PS3.5, 7 and A.4 (elements, encapsulated pixels), PS3.10, 7.1 (preamble and meta information).
"""

import io
import struct
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

import pydicom
from pydicom import encaps
from pydicom import pixels as codecs
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGExtended12Bit

from tf_simclr.chest.files import about as header_says
from tf_simclr.chest.files.headers import DEFLATED, check_inflated, stated_size, transfer_syntax
from tf_simclr.chest.files.levels import Layout, layout, shown, whole, word
from tf_simclr.chest.files.radiograph import (
    MAX_BYTES,
    MAX_PIXELS,
    TURNED_ROUND,
    Radiograph,
    extreme,
    turned_round,
)
from tf_simclr.data.radiographs import MODALITIES
from tf_simclr.errors import InputError, check, first_line

_ANY = "ANY"
"""Stands for every modality, where the caller takes whatever is there."""
_RADIOGRAPHS = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1.1")
"""SOP classes: computed radiography, digital radiography for presentation and for processing."""
_DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR."""
_PACKAGES = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg (GPL)",  # JPEG extended, 12 bit
    "1.2.840.10008.1.2.4.57": "python-gdcm",  # JPEG lossless, any predictor
    "1.2.840.10008.1.2.4.70": "python-gdcm",  # JPEG lossless, first predictor
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}
"""Transfer syntax → what decodes it."""
_SLACK = 4096
"""Most bytes behind the last pixel that are taken for a filling, as devices that write whole blocks leave them."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
"""Tags of an item and of the end of a sequence; within pixel data always little endian."""
_STREAMS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""First bytes of JPEG, which JPEG-LS has as well, and of JPEG 2000 as a stream and as a file."""


def begins(content: bytes) -> bool:
    """Whether bytes begin as a DICOM file does: with a preamble, or, as old ones, with their first element at once."""
    # 128 bytes of preamble that may hold anything, then the four letters.
    if content[128:132] == b"DICM":
        return True
    group, element = content[:2], content[2:4]
    meta = group == b"\x02\x00" and element == b"\x00\x00" and content[4:6] == b"UL"
    # A group of 8 comes first: its length, the character set, or the kind of image.
    # Without a preamble: either the file's meta group, or a data element of group 8 in one of three
    # encodings; explicit ones have two capital letters, implicit ones a length that is small there.
    plain = group in (b"\x08\x00", b"\x00\x08") and len(content) > 8
    explicit = content[4:6].isalpha() and content[4:6].isupper()
    little = group == b"\x08\x00"
    small = little and struct.unpack("<I", content[4:8].ljust(4, b"\xff"))[0] < 1024
    return meta or content[:4] == b"DICM" or (plain and (explicit or small))


def read(content: bytes, name: str, *, windowed: bool, modalities: tuple[str, ...] = MODALITIES) -> Radiograph:
    """Reads the bytes of a DICOM file; see `reading.read`.

    Raises:
        InputError: the file is damaged or cut, its codec is missing, or it is not one radiograph.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's of odd values: what cannot be read raises below
            # The order keeps from decoding what would be refused: size,
            # kind, where the pixels are, how many, and the codec.
            check_inflated(content, name, largest=MAX_BYTES)
            _check_syntax(UID(transfer_syntax(content)), name)
            opened = _open_file(content, name)
            _check_kind(opened.data, name, modalities=modalities)
            data = _with_pixels(opened, name)
            pixels = layout(data, name)
            _check_size(data, pixels, name=name)
            _check_codec(data.file_meta.TransferSyntaxUID, name, bits=pixels.allocated)
            return _described(data, pixels, windowed=windowed, notes=opened.notes)
    except InputError as error:
        raise error if name in str(error) else InputError(f"{name}: {error}") from error
    except Exception as error:  # pydicom and the codecs raise what they like on damaged bytes
        raise InputError(
            f"{name} must be a whole DICOM image ({type(error).__name__}: {first_line(error)[:120]})"
        ) from error


def _described(data: pydicom.Dataset, pixels: Layout, *, windowed: bool, notes: list[str]) -> Radiograph:
    """The radiograph with what the header says of it."""
    # Their identities, which the caller replaces by pseudonyms before anything is kept.
    patient, study = (str(data.get(name) or "").strip(" \0") for name in ("PatientID", "StudyInstanceUID"))
    known = header_says.described(data)  # before the pixels: what was emptied is filled in for the decoder
    levels = shown(data, pixels, windowed=windowed)
    known["doubts"] += tuple(pixels.doubts)
    if not known["doubts"] and turned_round(levels):
        known["doubts"] += (TURNED_ROUND,)
    if odd := extreme(levels):
        known["doubts"] += (f"{odd}{', as its own window shows it' if pixels.windowed else ''}",)
    known["notes"] = tuple(dict.fromkeys([*notes, *known["notes"], *pixels.notes]))
    return Radiograph(pixels=levels, bits=pixels.stored, patient=patient, study=study, **known)


_IN_USE = "must be stored in a transfer syntax that is in use for radiographs"


def _check_syntax(syntax: UID, name: str) -> None:
    """Refuses a maker's own transfer syntax, and what is none; an empty one is another matter."""
    # pydicom would take any for explicit little endian.
    known = not syntax or (not syntax.is_private and syntax.is_transfer_syntax)
    if not known:
        raise InputError(f"{name} {_IN_USE}. Received: {str(syntax)[:64]!r}: a maker's own, or unknown")


@dataclass
class _Opened:
    """A file whose header was read."""

    content: bytes
    data: pydicom.Dataset
    """Without pixels."""
    place: int
    """Where the element of the pixels begins."""
    forced: bool
    """Whether it has no preamble."""
    notes: list[str]


def _open_file(content: bytes, name: str) -> _Opened:
    """Reads what stands before the pixels."""
    forced, notes = content[128:132] != b"DICM", []
    # Some programs leave the 128 bytes away and keep the letters.
    if content[:4] == b"DICM":
        content = content[4:]
    if forced:
        notes.append("has no preamble")
    file = io.BytesIO(content)
    data = pydicom.dcmread(file, stop_before_pixels=True, force=forced)
    # What pydicom read the header by is then the best guess.
    if not data.file_meta.get("TransferSyntaxUID"):
        data.file_meta.TransferSyntaxUID = _plain_syntax(data)
        notes.append("names no transfer syntax")
    return _Opened(content, data, file.tell(), forced, notes)


def _plain_syntax(data: pydicom.Dataset) -> UID:
    """The uncompressed transfer syntax that a header without a name of it was read by."""
    implicit, little = data.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _check_kind(data: pydicom.Dataset, name: str, *, modalities: tuple[str, ...]) -> None:
    """Refuses what is no single radiograph: by its modality, or where that is missing by its SOP class."""
    wanted, modality = tuple(kind.strip().upper() for kind in modalities), word(data, "Modality")
    # A file without a modality tells by its class, in the data or in the meta group, what it is.
    kinds = {str(data.get("SOPClassUID") or ""), str(data.file_meta.get("MediaStorageSOPClassUID") or "")}
    check(_DIRECTORY not in kinds, f"{name} must be a radiograph, and is a medium's table of contents, a DICOMDIR")
    known = modality in wanted or _ANY in wanted or (not modality and bool(kinds & set(_RADIOGRAPHS)))
    check(known, f"{name} must be a radiograph ({', '.join(wanted)})", modality=modality)
    frames = whole(data, "NumberOfFrames", default=1) or 1
    check(frames == 1, f"{name} must hold one frame", frames=frames)


def _with_pixels(opened: _Opened, name: str) -> pydicom.Dataset:
    """The whole data set.  A file that was cut behind its last pixel is read, one cut before it is refused as such.

    Raises:
        InputError: pixels are missing.
    """
    content, place, syntax = opened.content, opened.place, opened.data.file_meta.TransferSyntaxUID
    # In a deflated file the places below would be of compressed bytes.
    if transfer_syntax(content) != DEFLATED:
        content = _mended(content, place, opened=opened, name=name)
    data = pydicom.dcmread(io.BytesIO(content), force=opened.forced)
    check("PixelData" in data and data.PixelData, f"{name} must have pixel data, but none is in it", elements=len(data))
    data.file_meta.TransferSyntaxUID = syntax
    if syntax.is_compressed and not data["PixelData"].is_undefined_length:
        # Unpacked by a program that left the name of the compression; the rest of such a file is explicit already.
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        opened.notes.append("names a compression, and its pixels are plain")
    return data


def _mended(content: bytes, place: int, *, opened: _Opened, name: str) -> bytes:
    """The content with an element of pixels that ends where the content does, if that holds the whole image."""
    # Walked by hand: pydicom refuses a file that ends in the midst of an element, even if only its filling is missing.
    implicit, little = opened.data.original_encoding
    order = "<" if little else ">"
    head = 8 if implicit else 12  # tag, and either a length, or two letters, two bytes of nothing and a length
    tag = struct.pack(f"{order}HH", 0x7FE0, 0x0010)
    start = place + head
    floats = [struct.pack(f"{order}HH", 0x7FE0, number) for number in (0x0008, 0x0009)]
    rule = f"{name} must have whole numbers for pixels, as radiographs have, but it has floating point ones"
    check(content[place : place + 4] not in floats, rule)
    missing = f"{name} must have pixel data, but it has none, or is cut off before them"
    # 0x7FE0,0010 is PixelData; the length is the last four bytes of the element's head.
    check(content[place : place + 4] == tag and len(content) >= start, missing, bytes=len(content))
    (length,) = struct.unpack_from(f"{order}I", content, start - 4)
    there = len(content) - start
    if length == _UNDEFINED:
        return _closed(content, start, opened=opened, name=name)
    if length <= there:
        return content
    # Shorter than its length says: whole only if the pixels themselves are all there, which only plain ones tell.
    about = layout(opened.data, name)
    expected = about.rows * about.columns * about.allocated // 8
    compressed = opened.data.file_meta.TransferSyntaxUID.is_compressed
    rule = f"{name} must hold {expected:,} bytes of pixels, but it is cut off"
    check(not compressed and there >= expected, rule, bytes=there)
    opened.notes.append("is cut off behind its last pixel")
    # Elements have an even length.
    expected += expected % 2
    body = content[start : start + expected].ljust(expected, b"\0")
    return content[: start - 4] + struct.pack(f"{order}I", expected) + body


def _closed(content: bytes, start: int, *, opened: _Opened, name: str) -> bytes:
    """Encapsulated pixels with the delimiter that ends them; items are walked by their lengths."""
    # The first item is a table of offsets, whose first is 0, and may be empty; some programs leave it away.
    head = content[start + 8 : start + 16]
    of_rle = head[:4] != bytes(4) and head[4:] == struct.pack("<I", 64)  # how many segments; where the first begins
    if head.startswith(_STREAMS) or of_rle:
        opened.notes.append("has no table of offsets")
        content = content[:start] + _ITEM + bytes(4) + content[start:]
    # Each item has a tag, a length of four bytes, and so many bytes of a stream.
    at = start
    while at + 8 <= len(content):
        tag, (length,) = content[at : at + 4], struct.unpack_from("<I", content, at + 4)
        if tag == _DELIMITER:
            return content
        check(tag == _ITEM, f"{name} must hold its compressed pixels in items, but they are damaged", at_byte=at)
        # The last item is cut: whole if its stream has its own end mark.
        if at + 8 + length > len(content):
            stream = content[at + 8 :].rstrip(b"\0")
            whole_stream = stream.endswith(b"\xff\xd9")  # JPEG's, JPEG-LS' and JPEG 2000's end of image
            rule = f"{name} must hold {length:,} bytes of compressed pixels, but it is cut off"
            check(whole_stream, rule, bytes=len(content) - at - 8)
            stream += b"\0" * (len(stream) % 2)
            content = content[: at + 4] + struct.pack("<I", len(stream)) + stream
            length = len(stream)
        at += 8 + length
    check(at > start + 8, f"{name} must have pixel data, but it is cut off before them", bytes=len(content))
    opened.notes.append("is cut off behind its last pixel")
    return content[:at] + _DELIMITER + bytes(4)


def _check_size(data: pydicom.Dataset, about: Layout, *, name: str) -> None:
    """Refuses sizes that no radiograph has before anything is decoded, and pixel data of another length than that."""
    rows, columns = about.rows, about.columns
    # Before decoding: a header can claim any size, and memory is taken by it.
    fits = 0 < rows * columns <= MAX_PIXELS and rows > 0
    check(fits, f"{name} must have between 1 and {MAX_PIXELS:,} pixels", rows=rows, columns=columns)
    if not data.file_meta.TransferSyntaxUID.is_compressed:
        rule = "names no transfer syntax, and its pixels are compressed: nothing says how"
        check(
            not data["PixelData"].is_undefined_length, f"{name} must say how its pixels are compressed, but it {rule}"
        )
        # Plain pixels must be as many as rows × columns; a filling up to a block, or up to two bytes a row, is no harm.
        expected, there = rows * columns * about.allocated // 8, len(data.PixelData)
        fits = expected <= there <= expected + max(_SLACK, 2 * columns)
        check(fits, f"{name} must hold {expected} bytes of pixels, as its header says", bytes=there)
        if there > expected + expected % 2:
            about.notes.append("has a filling behind its last pixel")
            data.PixelData = data.PixelData[: expected + expected % 2]
        return
    # A compressed stream tells its own size: it must be the header's.
    stated = next(filter(None, map(stated_size, encaps.generate_fragments(data.PixelData))), None)
    fits = stated in (None, (rows, columns))
    check(fits, f"{name} must hold {rows} × {columns} pixels, as its header says", its_stream=stated)


def _check_codec(syntax: UID, name: str, *, bits: int) -> None:
    """Refuses a compression that nothing installed decodes, and names what would."""
    if not syntax.is_compressed:
        return
    try:
        available = codecs.get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise InputError(f"{name} {_IN_USE}. Received: {syntax.name}") from error
    # What pydicom says of codecs is right but for this one.
    twelve = syntax == JPEGExtended12Bit and bits > 8  # Pillow claims it and fails
    if not available or (twelve and find_spec("libjpeg") is None):
        package = _PACKAGES.get(str(syntax), "pylibjpeg")
        raise InputError(f"{name} is compressed as {syntax.name}, which needs a package: pip install {package}")
