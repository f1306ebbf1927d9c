"""Stored values of a DICOM radiograph to the grey levels that a viewer shows.

The order is the standard's:

    words ─▶ stored values, padding masked ─▶ modality LUT or rescaling ─▶ VOI LUT, window or full range ─▶ polarity

Headers are not believed where the values contradict them: 41 % of radiographs that declare 16 bits hold 12, and a
viewer that maps 0..65535 to black..white shows such an image black.  What is shown otherwise than declared is noted.

References:
    DICOM PS3.3, C.7.6.3 (image pixel module), C.7.5.1.1.2 (padding), C.11.1 (modality LUT), C.11.2 (VOI LUT),
    C.8.11.3 (DX image: presentation LUT shape).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import utils as codecs

from tf_simclr.chest.files.radiograph import extreme
from tf_simclr.errors import InputError, check, first_line

_GREY = ("MONOCHROME1", "MONOCHROME2")
_UNUSED = 4
"""Where the values reach less than one in so many of the declared levels, the bits that they use count instead."""
_STRAY = 16
"""Where 99 % of the values lie below one in so many of the declared levels, the brighter 1 % (a burned-in letter, hot
pixels) do not count."""
_FEWEST = 6
"""Bits that a radiograph has at least; fewer are a nearly black one's noise."""
_BELOW = 8
"""Signed values reach hardly below zero where they reach so many times as far above it."""
_NEAR = 16
"""Neighbouring pixels that are one in so many of all levels apart, or less, are near."""
_MANY = 4
"""So many times more neighbours must be near by the values than by the header for the header not to be believed."""
_FEW = 0.001
"""Share of the pixels, at least, whose neighbours must say so."""
_SMOOTHER = 4
"""So many times smoother must pixels be in another order than in the header's for that to be doubted."""
_ROWS = 256
"""Rows, about, that are looked at for it."""
_CUT = 0.75
"""Share of the pixels that a window may leave black or white; more is said."""
_SQUARE = 1.05
"""Ratio of a pixel's sides from which on it is no square."""
_SAMPLE = 10**6
"""Most values that quantiles are taken of."""


@dataclass
class Layout:
    """The image pixel module, each element as it is or, where it is empty, as the others imply."""

    rows: int
    columns: int
    allocated: int
    stored: int
    high: int
    signed: bool
    inverted: bool
    """Whether the least value is white: MONOCHROME1, or a presentation LUT shape of INVERSE, which are one."""
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Where the pixels contradict the header, and nothing tells which is right."""
    windowed: bool = False
    """Whether a window or a VOI LUT of the file's own was applied."""

    @property
    def ends(self) -> tuple[int, int]:
        """Least and largest value that the stored bits hold."""
        return (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)


def numbers(data: pydicom.Dataset, keyword: str) -> list[float | None]:
    """The numbers of an element of the header, each in its place; None for one that was emptied.

    Raises:
        InputError: one is no finite number.
    """
    try:
        value = data.get(keyword)
        several = isinstance(value, list | tuple | pydicom.multival.MultiValue)
        found = [
            None if part is None or (isinstance(part, str | bytes) and not part.strip()) else float(part)
            for part in (value if several else [value])
        ]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{keyword} must be a number ({first_line(error)[:80]})") from error
    odd = [part for part in found if part is not None and not np.isfinite(part)]
    check(not odd, f"{keyword} must be a finite number", received=odd)
    return found


def number(data: pydicom.Dataset, keyword: str) -> float | None:
    """A number of the header, of several the first; None where the element is absent or was emptied.

    Raises:
        InputError: it is no finite number.
    """
    return next((part for part in numbers(data, keyword) if part is not None), None)


def whole(data: pydicom.Dataset, keyword: str, *, default: int | None = None) -> int:
    """A whole number of the header.

    Raises:
        InputError: it is none, or it is absent or empty and there is no default.
    """
    found = number(data, keyword)
    if found is None:
        if default is None:
            raise InputError(f"{keyword} must be in the header, but it is absent or empty")
        return default
    check(found == int(found), f"{keyword} must be a whole number", received=found)
    return int(found)


def word(data: pydicom.Dataset, keyword: str) -> str:
    """A code of the header in capitals, of several the first; empty where the element is absent or was emptied."""
    value = data.get(keyword)
    if isinstance(value, list | tuple | pydicom.multival.MultiValue):
        value = value[0] if len(value) else ""
    return str("" if value is None else value).strip().strip("\0").strip().upper()


# Every element may be missing or emptied by anonymising; each is then implied by another, else the file is refused.
def layout(data: pydicom.Dataset, name: str) -> Layout:
    """What the header says of the pixels.

    Raises:
        InputError: it is not one grey image of 8 to 16 bits, or leaves open which.
    """
    samples = whole(data, "SamplesPerPixel", default=1)
    photometric, shape = word(data, "PhotometricInterpretation"), word(data, "PresentationLUTShape")
    if not photometric:
        # Without it nobody knows whether air is black or white; the shape of a DX image says the same (C.8.11.3).
        photometric = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}.get(shape, "")
    rule = f"{name} must be grey ({' or '.join(_GREY)})"
    check(photometric in _GREY and samples == 1, rule, photometric=photometric, samples_per_pixel=samples)
    allocated = whole(data, "BitsAllocated")
    high = whole(data, "HighBit", default=-1)
    # The bits stored are the high bit and one, else all that are allocated.
    stored = whole(data, "BitsStored", default=high + 1 if high >= 0 else allocated)
    notes = []
    if 0 <= high < stored - 1:  # the sign of an edited header: no image can lie there
        notes.append("HighBit is lower than BitsStored allows: the lowest bits are taken")
        high = -1
    high = high if high >= 0 else stored - 1
    # Fewer than 8 bits are no radiograph, and the shift below needs the high bit within the word.
    fits = allocated in (8, 16) and 8 <= stored <= allocated and high < allocated
    check(fits, f"{name} must store 8 to 16 bits in 8 or 16", allocated=allocated, stored=stored, high=high)
    if (shape, photometric) in (("INVERSE", "MONOCHROME2"), ("IDENTITY", "MONOCHROME1")):
        notes.append(f"{photometric} and a presentation LUT shape of {shape} contradict each other: least is white")
    return Layout(
        rows=whole(data, "Rows"),
        columns=whole(data, "Columns"),
        allocated=allocated,
        stored=stored,
        high=high,
        signed=bool(whole(data, "PixelRepresentation", default=0)),
        inverted=photometric == "MONOCHROME1" or shape == "INVERSE",
        notes=notes,
    )


def shown(data: pydicom.Dataset, about: Layout, *, windowed: bool) -> np.ndarray:
    """The grey levels `(h, w)` in [0, 1] as a viewer shows them; padding is black.  Adds to the layout's notes."""
    # In the order of the standard's pipeline (PS3.4 N.2): stored values → modality → VOI → presentation.
    _gather_groups(data)
    stored = _stored_values(data, about)
    _look_at_order(stored, data, about=about)
    _look_at_sides(data, about)
    padding = _padded(stored, data, about=about)
    values, ends = _behind_the_modality(stored, data, about=about, padding=padding)
    pixels = _as_the_file_says(values, data, about=about) if windowed else None
    about.windowed = pixels is not None
    if pixels is None:
        pixels = _over_range(values, ends, about=about, padding=padding)
    else:
        _look_at_window(pixels, values, about=about, padding=padding)
    # MONOCHROME1 shows the least white.
    pixels = 1 - pixels if about.inverted else pixels
    return np.where(padding, 0, pixels).astype(np.float32)


def _look_at_order(stored: np.ndarray, data: pydicom.Dataset, *, about: Layout) -> None:
    """Doubts rows and columns, or the order of bytes, where the pixels are smooth in another one."""
    if data.file_meta.TransferSyntaxUID.is_compressed:
        return  # a codec knows both

    def roughness(values: np.ndarray) -> float:
        """Mean step from a pixel of some rows to the one below it, over the range."""
        low, high = np.quantile(_sampled(values), [0.001, 0.999])
        rows = np.arange(0, len(values) - 1, max(1, len(values) // _ROWS))
        steps = np.abs(values[rows + 1].astype(float) - values[rows]).mean()
        return float(steps / (high - low)) if high > low else 0.0

    own = roughness(stored)
    turnable = about.rows != about.columns and min(about.rows, about.columns) > 1
    if turnable and _SMOOTHER * roughness(stored.reshape(about.columns, about.rows)) < own:
        about.doubts.append("its rows and columns seem to be exchanged in its header")
    if about.allocated == 16 and about.rows > 1:
        turned = ((stored & 255) << 8) | ((stored >> 8) & 255)
        if _SMOOTHER * roughness(turned) < own:
            about.doubts.append("the bytes of its pixels seem to be in another order than its header says")


def _look_at_sides(data: pydicom.Dataset, about: Layout) -> None:
    """Notes pixels that are no squares by the header: the picture is shown as it is stored."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        try:
            sides = [side for side in numbers(data, keyword) if side]
        except InputError:
            continue  # nothing else hangs on it
        if len(sides) == 2 and min(sides) > 0:
            ratio = sides[0] / sides[1]
            if max(ratio, 1 / ratio) > _SQUARE:
                said = f"{ratio:.2f} times as high as wide" if ratio > 1 else f"{1 / ratio:.2f} times as wide as high"
                about.notes.append(f"its pixels are {said} by its header: shown as they are stored")
            return


def _look_at_window(pixels: np.ndarray, values: np.ndarray, *, about: Layout, padding: np.ndarray) -> None:
    """Doubts a window that leaves hardly a grey of a picture that has many."""
    seen, own = _sampled(pixels[~padding]), _sampled(values[~padding])
    if not seen.size or extreme(pixels):  # which is said of it
        return
    cut = float(np.mean((seen <= 0) | (seen >= 1)))
    bare = float(np.mean((own == own.min()) | (own == own.max())))
    if cut > _CUT and bare < 0.5:
        about.doubts.append(f"its own window leaves {100 * cut:.0f} % of it black or white")


def _gather_groups(data: pydicom.Dataset) -> None:
    """Brings an enhanced image's rescaling and window to where a plain one has them (C.7.6.16: functional groups)."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in data.get(groups) or ():
            for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                # A frame's own comes after what all share, and does not replace it: what is there stays.
                for item in group.get(macro) or ():
                    for element in item:
                        if element.keyword not in data:
                            data.add(element)


def _stored_values(data: pydicom.Dataset, about: Layout) -> np.ndarray:
    """The stored pixel values `(h, w)`, int32, without what old files keep in the unused bits (overlays).

    pydicom masks the lowest `BitsStored` bits and takes no notice of HighBit.  So it is told that all bits are in use,
    and the bits are taken here; a codec has its own stream's bits, always the lowest.
    """
    found = _words(data, about)
    # Only where values are at the lowest bits can those above them tell anything.
    if about.high == about.stored - 1:
        _correct_bits(found, about)
        _correct_sign(found, about)
    return _read_as(found, about.stored, high=about.high, signed=about.signed)


def _words(data: pydicom.Dataset, about: Layout) -> np.ndarray:
    """The pixels' words, int32, as they lie in the file or come from the codec."""
    syntax = data.file_meta.TransferSyntaxUID
    words = not syntax.is_compressed or syntax == pydicom.uid.RLELossless
    rule = "HighBit must be BitsStored − 1 in a compressed image, for its stream says nothing of it"
    check(words or about.high == about.stored - 1, rule, high=about.high, stored=about.stored)
    # Set anew for the decoder alone; what they said is in the layout.
    data.SamplesPerPixel, data.PixelRepresentation = 1, int(about.signed)  # emptied ones, too
    data.PhotometricInterpretation = "MONOCHROME2"
    data.NumberOfFrames = 1
    # As wide as the words: pydicom would mask the bits above, which are looked at below.
    data.BitsStored = about.allocated if words or not about.signed else about.stored
    data.HighBit = data.BitsStored - 1
    found = np.asarray(codecs.pixel_array(data, raw=True), np.int32)
    rule = "there must be one frame of as many rows and columns as the header says"
    check(found.shape == (about.rows, about.columns), rule, decoded=found.shape)
    return found


def _read_as(words: np.ndarray, stored: int, *, high: int, signed: bool) -> np.ndarray:
    """The values of words whose `stored` bits end at the bit `high`."""
    # Shifted to the lowest bit, then masked.
    values = (words >> (high + 1 - stored)) & (2**stored - 1)
    sign = 2 ** (stored - 1) if signed else 0
    return np.asarray((values ^ sign) - sign)  # the highest bit is the sign of signed values


def _correct_bits(words: np.ndarray, about: Layout) -> None:
    """Believes the words where they have more bits than declared: cut off, 1024 would be as black as 0.

    Bits above the stored ones may be an overlay's, which is not part of the picture.  Where a picture's own bits were
    cut off its values jump, and where an overlay is taken for a part of it they jump as well: neighbours tell.
    """
    spare = about.allocated - about.stored
    # What the words have above the declared bits, shifted down.
    above = (words >> about.stored) & (2**spare - 1)
    if not spare or not above.any():
        return
    # A negative number of n bits, in a wider word: all bits above it are ones.
    negative = ((words >> (about.stored - 1)) & 1) * (2**spare - 1)
    if np.array_equal(above, negative):  # as every program writes values below zero
        if not about.signed:
            about.signed = True
            about.notes.append("its header calls values unsigned of which some are negative: taken as signed")
        return
    # All alike says nothing: a constant above every pixel.
    if above.min() == above.max():
        return
    used = about.allocated if about.signed else about.stored + int(above.max()).bit_length()
    # Both readings are judged by the picture: in an X-ray neighbours are near each other.
    declared, other = (_read_as(words, n, high=n - 1, signed=about.signed) for n in (about.stored, used))
    pro, contra = _neighbours(other, declared, levels=(2**used, 2**about.stored))
    if pro > _MANY * contra or not contra:
        about.notes.append(
            f"uses {used} bits, more than the {about.stored} that its header says: all of them are taken"
        )
        about.stored, about.high = used, used - 1
    else:
        about.notes.append(f"has bits above the {about.stored} of its values: left out, as an overlay's")


def _correct_sign(words: np.ndarray, about: Layout) -> None:
    """Believes the values where they are signed and the header says unsigned, or the other way round.

    Of 16 bits −1 is 65535: one of the two readings tears neighbours apart that the other has close together.
    """
    # −1 read as unsigned is 65,535, beside 0: a reading with wrong signs has jumps where the right one is smooth.
    declared = _read_as(words, about.stored, high=about.high, signed=about.signed)
    high_bit_set = declared.min() < 0 if about.signed else declared.max() >= 2**15
    if not high_bit_set:  # both readings are the same; negative values of fewer bits were told by the bits above them
        return
    other = _read_as(words, about.stored, high=about.high, signed=not about.signed)
    if not about.signed:  # a burned-in letter is as white as can be, and no −1
        other = np.where(declared == about.ends[1], declared, other)
    pro, contra = _neighbours(other, declared, levels=(2**about.stored, 2**about.stored))
    # No program leaves the bits above a negative value empty, so the header is wrong if no neighbours say otherwise.
    above = (words >> about.stored) & (2 ** (about.allocated - about.stored) - 1)  # of words read with either sign
    bare = about.signed and about.stored < about.allocated and not above.any()
    if pro > max(_FEW * words.size, _MANY * contra) or (bare and not contra):
        kinds = ("signed", "unsigned") if about.signed else ("unsigned", "signed")
        about.notes.append(f"its header calls values {kinds[0]} that are {kinds[1]}: taken as those")
        about.signed = not about.signed


def _neighbours(other: np.ndarray, declared: np.ndarray, *, levels: tuple[int, int]) -> tuple[int, int]:
    """How many neighbouring pixels are near by another reading of the words alone, and by the declared one alone."""
    # Right and lower neighbours; a pair that both readings hold for near, or neither, says nothing.
    pro, contra = 0, 0
    for axis in (0, 1):
        by_other, by_declared = (np.abs(np.diff(values, axis=axis)) for values in (other, declared))
        near_by_other, near_by_declared = by_other < levels[0] / _NEAR, by_declared < levels[1] / _NEAR
        differ = by_other != by_declared
        pro += int((differ & near_by_other & ~near_by_declared).sum())
        contra += int((differ & near_by_declared & ~near_by_other).sum())
    return pro, contra


def _padded(values: np.ndarray, data: pydicom.Dataset, *, about: Layout) -> np.ndarray:
    """Where a detector or a scanner filled up the picture: stored values from PixelPaddingValue to its RangeLimit.

    Either may be 0, and may have been written with the other sign: 63536 is −2000 of 16 bits.
    """
    first = number(data, "PixelPaddingValue")
    if first is None:
        return np.zeros(values.shape, bool)
    # Written as the header's type or as the pixels': both are tried, and the narrower range within the values is meant.
    limit = number(data, "PixelPaddingRangeLimit")
    as_written = (first, first if limit is None else limit)
    as_stored = tuple(_stored_sign(end, about) for end in as_written)
    low, high = about.ends
    ways = [(min(ends), max(ends)) for ends in (as_written, as_stored)]
    ways = [ends for ends in ways if ends[0] <= high and ends[1] >= low] or ways
    least, most = min(ways, key=lambda ends: ends[1] - ends[0])  # −5 to 10 is not 10 to 65531
    found = (values >= least) & (values <= most)
    # A picture of padding alone is a wrong header.
    if found.mean() > 0.99:
        about.notes.append("all of the image is padding by its header: the padding is shown")
        return np.zeros(values.shape, bool)
    if found.mean() > 0.5:
        about.notes.append("more than half of it is padding by its header: shown black")
    return np.asarray(found)


def _stored_sign(value: float, about: Layout) -> float:
    """A value as stored ones are, signed or not, whose words may have been read as the other kind."""
    low, high = about.ends
    # Two's complement: the same word read with the other sign is 2ⁿ away, n of the word or of the stored bits.
    for turn in (float(2**about.allocated), float(2**about.stored)):
        if value > high and about.signed and low <= value - turn <= high:
            return value - turn
        if value < 0 and not about.signed and low <= value + turn <= high:
            return value + turn
    return value


def _behind_the_modality(
    stored: np.ndarray, data: pydicom.Dataset, *, about: Layout, padding: np.ndarray
) -> tuple[np.ndarray, tuple[float, float]]:
    """Values behind the modality LUT or the rescaling, and the least and the largest that they can be."""
    # A table or a line: with the table the rescaling does not count (C.11.1).
    if (found := _looked_up(stored, data, "ModalityLUTSequence", about=about)) is not None:
        values, white = found
        return values, _used_range(values[~padding], (0, white), signed=False, about=about)
    slope, intercept = number(data, "RescaleSlope"), number(data, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    # The ends go through the same line as the values: a negative slope turns them round, so they are sorted.
    ends = np.array(_used_range(stored[~padding], about.ends, signed=about.signed, about=about)) * slope + intercept
    check(bool(np.isfinite(ends).all() and ends[0] != ends[1]), "RescaleSlope must not be 0", slope=slope)
    return stored * slope + intercept, (float(ends.min()), float(ends.max()))


def _used_range(
    values: np.ndarray, declared: tuple[float, float], *, signed: bool, about: Layout
) -> tuple[float, float]:
    """The declared range, or that of the bits in use where the values reach less than a quarter of it.

    Signed values of which none is far below zero are taken as what they are: an unsigned image in such words.
    """
    if not values.size:
        return declared
    # 1. How far the values reach, letters and hot pixels apart. 2. The range of that many
    #    bits. 3. Taken instead of the declared one only where that is four times as large.
    low, high = values.min(), values.max()
    reach = max(_reached(values, declared[1]) if low >= 0 else high, 0)
    hardly = -low * _BELOW <= reach
    if hardly:
        found = (min(float(low), 0.0), 2.0 ** max(_FEWEST, int(reach).bit_length()) - 1)
    else:
        bits = max(_FEWEST, int(-low - 1).bit_length() + 1, int(reach).bit_length() + 1)
        found = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    narrow = _UNUSED * (found[1] - found[0] + 1) <= declared[1] - declared[0] + 1
    if not narrow and not (signed and hardly):
        return declared
    if narrow:
        about.notes.append(
            f"uses {int(found[1] - found[0] + 1).bit_length() - 1} of its {about.stored} bits: shown over those"
        )
    return found


def _reached(values: np.ndarray, white: float) -> float:
    """The largest value, but for letters, a border or hot pixels: one value, or the brightest 1 %, far above others."""
    # In order from the safest: a large gap between the 99 % and the largest value, then one between two powers of two.
    sampled, high = _sampled(values), values.max()
    others = sampled[sampled < high]  # letters and borders that were burned in are of one value
    top = np.quantile(others if 2 * others.size > sampled.size else sampled, 0.99)
    if top < white / _STRAY and high >= 8 * max(top, 1):
        return float(top)
    bits = 2.0 ** int(top).bit_length()
    beyond = sampled[sampled >= bits]
    return float(top) if beyond.size and beyond.min() > max(2 * bits, white / 2) else float(high)


def _sampled(values: np.ndarray) -> np.ndarray:
    """Evenly many of the values, few enough to sort."""
    return values.ravel()[:: max(1, values.size // _SAMPLE)]


def _looked_up(
    values: np.ndarray, data: pydicom.Dataset, keyword: str, *, about: Layout
) -> tuple[np.ndarray, float] | None:
    """What the first table of a sequence that has entries makes of values, float64, and its level that is shown white.

    None where there is no such table or anonymising has emptied it.  A table declares the bits of its entries.  Where
    they need more or fewer, white is the largest of them.

    Raises:
        InputError: the table is damaged.
    """
    sequence = data.get(keyword)
    if not sequence:
        return None
    # Descriptor: number of entries (0 means 65,536), the first value mapped, bits of an entry.
    items = [(item.get("LUTDescriptor"), item.get("LUTData")) for item in sequence]
    whole_ones = [item for item in items if all(part is not None and np.size(part) for part in item)]
    if not whole_ones:
        about.notes.append(f"{keyword} is empty: as if absent")
        return None
    descriptor, content = whole_ones[0]
    check(len(np.atleast_1d(descriptor)) == 3, f"the LUTDescriptor of {keyword} must have three values")
    count, first, bits = (int(value) for value in descriptor)
    entries = _table_entries(
        content, (count & 0xFFFF) or 65536, little=data.file_meta.TransferSyntaxUID.is_little_endian
    )
    check(len(entries) > 1 and entries.max() > entries.min(), f"the table of {keyword} must tell values apart")
    # The descriptor's words are unsigned to a reader of implicit VR, whatever the image's are.
    signed = about.signed or (number(data, "RescaleIntercept") or 0) < 0
    first = first - 65536 if first > 32767 and signed else first
    white = 2**bits - 1
    # What the entries hold counts more than what is declared of them.
    if not 8 <= bits <= 16 or int(entries.max()).bit_length() != bits:
        white = int(entries.max())
        about.notes.append(f"its look-up table's entries do not have the {bits} bits declared: the largest is white")
    # Below the first entry the first counts, above the last the last (C.11.1.1).
    places = np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)
    return np.asarray(entries[places], np.float64), float(white)


def _table_entries(content: Any, count: int, *, little: bool) -> np.ndarray:
    """The entries of a table, uint16 or uint8; two of 8 bits may share a word."""
    # As bytes, or as numbers that pydicom has made of them: signed words are unsigned here.
    if isinstance(content, bytes):
        if len(content) in (count, count + 1):
            return np.frombuffer(content, np.uint8)[:count]
        words = np.frombuffer(content[: len(content) // 2 * 2], np.dtype("u2").newbyteorder("<" if little else ">"))
    else:
        words = (np.atleast_1d(np.asarray(content, np.int64)) & 0xFFFF).astype(np.uint16)
    # Entries of 8 bits may be packed two to a word: then there are half as many words.
    if count > 256 or len(words) not in ((count + 1) // 2, count // 2):
        return words[:count]
    return words.astype("<u2").view(np.uint8)[:count]


def _as_the_file_says(values: np.ndarray, data: pydicom.Dataset, *, about: Layout) -> np.ndarray | None:
    """Grey levels by the VOI LUT, else by the window, of several, which are views, the first that is one; or None."""
    if (found := _looked_up(values, data, "VOILUTSequence", about=about)) is not None:
        entries, white = found
        return np.clip(entries / white, 0, 1)
    # Several windows are alternatives for a viewer: the first is the one that it opens with.
    centres, widths = numbers(data, "WindowCenter"), numbers(data, "WindowWidth")
    pairs = [(c, w) for c, w in zip(centres, widths, strict=False) if c is not None and w is not None]
    function = word(data, "VOILUTFunction") or "LINEAR"
    # A linear one spans a grey level at least (C.11.2.1.2.1), any other one something (C.11.2.1.3).
    wide = [(c, w) for c, w in pairs if (w >= 1 if function == "LINEAR" else w > 0)]
    if len(wide) < len(pairs):  # 0 and 0 stand where a program had none to write
        about.notes.append("has a window without a width: as if absent")
    if not wide:
        return None
    return _window(values.astype(np.float64), *wide[0], function=function)


def _window(values: np.ndarray, centre: float, width: float, *, function: str) -> np.ndarray:
    """Grey levels in [0, 1] of a window (C.11.2.1.2 and C.11.2.1.3).

    Raises:
        InputError: the function is not one of the standard's.
    """
    if function == "SIGMOID":
        # Bounded: `exp` of more is infinite, and the value is 0 or 1 long before.
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    check(function in ("LINEAR", "LINEAR_EXACT"), "VOILUTFunction must be the standard's", function=function)
    if function == "LINEAR":  # half a grey level less on either side, as the standard has it
        centre, width = centre - 0.5, max(width - 1, np.finfo(float).tiny)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def of_words(values: np.ndarray, *, bits: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Grey levels `(h, w)` of a picture without a header, such as a PNG, over its bits or those in use; and notes.

    Whoever stores a detector's 12 bits in a PNG of 16 leaves 15 of 16 levels empty.
    """
    rows, columns = values.shape
    about = Layout(rows, columns, allocated=bits, stored=bits, high=bits - 1, signed=False, inverted=False)
    ends = _used_range(values, about.ends, signed=False, about=about)
    pixels = _over_range(values, ends, about=about, padding=np.zeros(values.shape, bool))
    return pixels.astype(np.float32), tuple(about.notes)


def _over_range(values: np.ndarray, ends: tuple[float, float], *, about: Layout, padding: np.ndarray) -> np.ndarray:
    """Grey levels over a range; over the values' own where they fill little of it, as 12 bits at an offset."""
    # Padding is in no quantile: it is no part of the picture.
    inside = _sampled(values[~padding])
    low, high = ends
    if inside.size:
        least, first, last, most = np.quantile(inside, [0.001, 0.01, 0.99, 0.999])
        # Values of 12 bits at an offset in 16: over the whole range they would be one grey.
        if 0 < last - first < (high - low) / _STRAY and most > least:
            about.notes.append("its values fill a small part of their range: shown from the least to the largest")
            low, high = least, most
    return np.clip((values - low) / (high - low), 0, 1)
