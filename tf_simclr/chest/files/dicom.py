"""Radiographs in DICOM files.

References:
    DICOM PS3.3, C.7.6.3 (image pixel module), C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.5.1.1.2 (padding).
"""

import io
import warnings
from importlib.util import find_spec

import numpy as np
import pydicom
from pydicom import encaps
from pydicom import pixels as codecs
from pydicom.uid import UID, JPEGExtended12Bit

from tf_simclr.chest.files.headers import check_inflated, stated_size
from tf_simclr.chest.files.radiograph import MAX_BYTES, MAX_PIXELS, VIEWS, Radiograph
from tf_simclr.errors import InputError, check

GREY = ("MONOCHROME1", "MONOCHROME2")
PACKAGES = {
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


def read(content: bytes, name: str, *, windowed: bool, modalities: tuple[str, ...]) -> Radiograph:
    """Reads the bytes of a DICOM file; see `reading.read`.

    The order is the standard's: stored values, padding masked, modality LUT, VOI LUT or window, and MONOCHROME1
    inverted at last.  Padding is black.

    Raises:
        InputError: the file is damaged, its codec is missing, or it is not one radiograph.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's of odd values: what cannot be read raises below
            check_inflated(content, name, largest=MAX_BYTES)
            data = pydicom.dcmread(io.BytesIO(content))
            check_kind(data, name, modalities=modalities)
            check_size(data, name)
            check_codec(data.file_meta.TransferSyntaxUID, name, bits=int(data.BitsAllocated))
            return shown(data, windowed=windowed)
    except InputError:
        raise
    except Exception as error:  # pydicom and the codecs raise what they like on damaged bytes
        raise InputError(f"{name} must be a whole DICOM image ({type(error).__name__}: {first_line(error)})") from error


def first_line(error: Exception) -> str:
    """What an error says, short; some hold whole data sets."""
    return (str(error).splitlines() or [""])[0][:120]


def check_kind(data: pydicom.Dataset, name: str, *, modalities: tuple[str, ...]) -> None:
    """Refuses what is no single grey radiograph."""
    modality = str(data.get("Modality", ""))
    check(modality in modalities, f"{name} must be a radiograph ({', '.join(modalities)})", modality=modality)
    frames = int(data.get("NumberOfFrames") or 1)
    check(frames == 1, f"{name} must hold one frame", frames=frames)
    check("PixelData" in data, f"{name} must have pixel data", elements=len(data))
    photometric, samples = str(data.get("PhotometricInterpretation", "")), int(data.get("SamplesPerPixel") or 1)
    fits = photometric in GREY and samples == 1
    check(fits, f"{name} must be grey ({' or '.join(GREY)})", photometric=photometric, samples_per_pixel=samples)
    allocated, stored = int(data.BitsAllocated), int(data.BitsStored)
    fits = allocated in (8, 16) and 8 <= stored <= allocated and stored - 1 <= int(data.HighBit) < allocated
    check(fits, f"{name} must store 8 to 16 bits in 8 or 16", allocated=allocated, stored=stored, high=data.HighBit)


def check_size(data: pydicom.Dataset, name: str) -> None:
    """Refuses sizes that no radiograph has before anything is decoded, and pixel data of another length than that."""
    rows, columns = int(data.Rows), int(data.Columns)
    fits = 0 < rows * columns <= MAX_PIXELS
    check(fits, f"{name} must have between 1 and {MAX_PIXELS:,} pixels", rows=rows, columns=columns)
    syntax = UID(data.file_meta.TransferSyntaxUID)
    if not syntax.is_compressed:
        expected = rows * columns * int(data.BitsAllocated) // 8
        fits = len(data.PixelData) in (expected, expected + expected % 2)  # elements have an even length
        check(fits, f"{name} must hold {expected} bytes of pixels, as its header says", bytes=len(data.PixelData))
        return
    stated = next(filter(None, map(stated_size, encaps.generate_fragments(data.PixelData))), None)
    fits = stated in (None, (rows, columns))
    check(fits, f"{name} must hold {rows} × {columns} pixels, as its header says", its_stream=stated)


def check_codec(syntax: UID, name: str, *, bits: int) -> None:
    """Refuses a compression that nothing installed decodes, and names what would."""
    if not UID(syntax).is_compressed:
        return
    try:
        available = codecs.get_decoder(syntax).is_available
    except NotImplementedError as error:
        known = "must be stored in a transfer syntax that is in use for radiographs"
        raise InputError(f"{name} {known}. Received: {UID(syntax).name}") from error
    twelve = syntax == JPEGExtended12Bit and bits > 8  # Pillow claims it and fails
    if not available or (twelve and find_spec("libjpeg") is None):
        package = PACKAGES.get(str(syntax), "pylibjpeg")
        raise InputError(f"{name} is compressed as {UID(syntax).name}, which needs a package: pip install {package}")


def shown(data: pydicom.Dataset, *, windowed: bool) -> Radiograph:
    """The radiograph as a viewer shows it."""
    stored = stored_values(data)
    padding = padded(stored, data)
    values = codecs.apply_modality_lut(stored, data)
    pixels = displayed(values, data, windowed=windowed)
    pixels = 1 - pixels if data.PhotometricInterpretation == "MONOCHROME1" else pixels
    return Radiograph(
        pixels=np.where(padding, 0, pixels).astype(np.float32),
        bits=int(data.BitsStored),
        view=view if (view := str(data.get("ViewPosition") or "").strip().upper()) in VIEWS else "",
        orientation=orientation(data),
        patient=str(data.get("PatientID", "")),
        study=str(data.get("StudyInstanceUID", "")),
        series=str(data.get("SeriesInstanceUID", "")),
        image=str(data.get("SOPInstanceUID", "")),
    )


def orientation(data: pydicom.Dataset) -> tuple[str, ...]:
    """PatientOrientation (C.7.6.1.1.1), where it is two directions of one to three letters; else nothing."""
    values = data.get("PatientOrientation") or ()
    found = tuple(str(value).strip().upper() for value in np.atleast_1d(values))
    whole = len(found) == 2 and all(1 <= len(value) <= 3 and set(value) <= set("APRLHF") for value in found)
    return found if whole else ()


def stored_values(data: pydicom.Dataset) -> np.ndarray:
    """The stored pixel values `(h, w)`, int32, without what old files keep in the unused bits (overlays)."""
    values = codecs.pixel_array(data, raw=True).astype(np.int32)
    stored, high = int(data.BitsStored), int(data.HighBit)
    values = (values >> (high + 1 - stored)) & (2**stored - 1)
    sign = 2 ** (stored - 1) if int(data.PixelRepresentation) else 0
    return (values ^ sign) - sign  # the highest bit is the sign of signed values


def padded(values: np.ndarray, data: pydicom.Dataset) -> np.ndarray:
    """Where a detector or a scanner filled up the picture: stored values from PixelPaddingValue to its RangeLimit."""
    if data.get("PixelPaddingValue") is None:
        return np.zeros(values.shape, bool)
    ends = [int(data.PixelPaddingValue), int(data.get("PixelPaddingRangeLimit") or data.PixelPaddingValue)]
    return (values >= min(ends)) & (values <= max(ends))


def full_range(data: pydicom.Dataset) -> tuple[float, float]:
    """Least and largest value behind the modality LUT that the stored bits allow."""
    if "ModalityLUTSequence" in data:
        return 0.0, float(2 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    bits, signed = int(data.BitsStored), int(data.PixelRepresentation)
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], np.float64)
    ends = ends * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    check(np.isfinite(ends).all() and ends[0] != ends[1], "RescaleSlope must not be 0", slope=data.get("RescaleSlope"))
    return float(ends.min()), float(ends.max())


def displayed(values: np.ndarray, data: pydicom.Dataset, *, windowed: bool) -> np.ndarray:
    """Values behind the modality LUT as grey levels in [0, 1]: by VOI LUT, else window, else over their full range."""
    if windowed and "VOILUTSequence" in data:
        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        return np.clip(codecs.apply_voi(values, data).astype(np.float64) / (2**bits - 1), 0, 1)
    if windowed and data.get("WindowWidth") is not None and data.get("WindowCenter") is not None:
        centre, width = (float(np.atleast_1d(data[n].value)[0]) for n in ("WindowCenter", "WindowWidth"))
        function = str(data.get("VOILUTFunction", "LINEAR")).upper()
        return window(values.astype(np.float64), centre, width=width, function=function)
    low, high = full_range(data)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)


def window(values: np.ndarray, centre: float, *, width: float, function: str) -> np.ndarray:
    """Grey levels in [0, 1] of a window (C.11.2.1.2 and C.11.2.1.3); of several, which are views, the first counts.

    Raises:
        InputError: the width is too small, or the function is not one of the standard's.
    """
    check(np.isfinite(centre), "WindowCenter must be a number", centre=centre)
    least = 1 if function == "LINEAR" else np.nextafter(0, 1)
    check(
        least <= width < np.inf, "WindowWidth must be at least 1, of other functions than LINEAR above 0", width=width
    )
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    check(function in ("LINEAR", "LINEAR_EXACT"), "VOILUTFunction must be the standard's", function=function)
    if function == "LINEAR":  # half a grey level less on either side, as the standard has it
        centre, width = centre - 0.5, max(width - 1, np.finfo(float).tiny)
    return np.clip((values - centre) / width + 0.5, 0, 1)
