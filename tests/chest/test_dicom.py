"""DICOM radiographs against the standard's formulas by hand, in every transfer syntax, photometric and depth."""

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_windowing

from tests.chest.dicoms import SYNTAXES, compressed, content, dataset, stored
from tf_simclr.chest.files import dicom
from tf_simclr.chest.files.reading import read
from tf_simclr.errors import InputError

DEPTHS = [(8, False), (10, False), (12, False), (12, True), (14, False), (16, False), (16, True)]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_photometric_and_depth_shows_the_same_grey_levels(syntax, bits, signed, photometric):
    if syntax == "JPEG baseline" and bits > 8:
        pytest.skip("JPEG baseline has 8 bits")
    values = stored(bits, signed=signed)
    data = compressed(dataset(values, bits=bits, photometric=photometric), syntax)
    shown = read(content(data))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    expected = (values.astype(np.float64) - low) / (high - low)
    expected = 1 - expected if photometric == "MONOCHROME1" else expected
    tolerance = 0.02 if syntax == "JPEG baseline" else 1e-6  # quality 100 still rounds
    np.testing.assert_allclose(shown.pixels, expected, atol=tolerance)
    assert (shown.bits, shown.patient, shown.study) == (bits, "someone", "1.2.1")
    assert shown.pixels.dtype == np.float32


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_the_standards_formula(function):
    values = stored(12)
    data = dataset(values, bits=12, WindowCenter=[1500, 9], WindowWidth=[800, 9], VOILUTFunction=function)
    expected = np.empty(values.shape)
    for at, x in np.ndenumerate(values.astype(float)):
        if function == "LINEAR":
            y = (x - 1499.5) / 799 + 0.5
        elif function == "LINEAR_EXACT":
            y = (x - 1500) / 800 + 0.5
        else:
            y = 1 / (1 + np.exp(-4 * (x - 1500) / 800))
        expected[at] = min(max(y, 0), 1)
    np.testing.assert_allclose(read(content(data)).pixels, expected, atol=1e-6)
    np.testing.assert_allclose(apply_windowing(values, data) / 4095, expected, atol=1e-6)  # pydicom agrees
    np.testing.assert_allclose(read(content(data), windowed=False).pixels, values / 4095, atol=1e-6)


def test_a_window_acts_behind_the_rescaling_and_a_negative_slope_turns_the_picture_over():
    values = stored(12)
    data = dataset(values, bits=12, RescaleSlope=-2, RescaleIntercept=100, WindowCenter=-4000, WindowWidth=2001)
    expected = np.clip(((100 - 2.0 * values) - -4000.5) / 2000 + 0.5, 0, 1)
    np.testing.assert_allclose(read(content(data)).pixels, expected, atol=1e-6)
    np.testing.assert_allclose(read(content(data), windowed=False).pixels, 1 - values / 4095, atol=1e-6)


def test_a_voi_lut_is_looked_up_and_preferred_to_a_window():
    values = stored(8)
    table = np.sqrt(np.arange(256) / 255)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [256, 0, 12], np.rint(table * 4095).astype("<u2").tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    data = dataset(values, bits=8, VOILUTSequence=[item], WindowCenter=10, WindowWidth=3)
    np.testing.assert_allclose(read(content(data)).pixels, np.rint(table * 4095)[values] / 4095, atol=1e-6)


def test_a_modality_lut_comes_first():
    values = stored(8)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [256, 0, 16], (65535 - 257 * np.arange(256)).astype("<u2").tobytes()
    item.ModalityLUTType = "US"
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    data = dataset(values, bits=8, ModalityLUTSequence=[item])
    np.testing.assert_allclose(read(content(data)).pixels, 1 - values / 255.0, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
def test_padding_is_black_whatever_its_value_would_show(photometric, signed):
    values = stored(12, signed=signed)
    values[:, :4], values[:, 4:6] = values.max(), values.max() - 3
    kind = {"PixelPaddingValue": int(values.max()), "PixelPaddingRangeLimit": int(values.max()) - 5}
    shown = read(content(dataset(values, bits=12, photometric=photometric, **kind))).pixels
    assert np.all(shown[:, :6] == 0)
    assert shown[:, 6:].max() > 0.9


def test_overlays_in_the_unused_bits_are_not_part_of_the_picture():
    values = stored(12)
    data = dataset(values | 0xF000, bits=12)
    np.testing.assert_allclose(read(content(data)).pixels, values / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CT_small.dcm", "must be a radiograph (CR, DX, RG). Received: modality='CT'"),
        ("MR_small.dcm", "modality='MR'"),
        ("rtplan.dcm", "modality='RTPLAN'"),
    ],
)
def test_pydicoms_own_samples_of_other_kinds_are_refused_by_name(name, reason):
    with pytest.raises(InputError, match=name) as caught:
        read(get_testdata_file(name))
    assert reason in str(caught.value)


def test_pydicoms_own_slices_are_read_as_it_reads_them_where_they_are_asked_for():
    path = get_testdata_file("MR_small_jpeg_ls_lossless.dcm")
    data = pydicom.dcmread(path)
    seen = read(path, modalities=("MR",), windowed=False).pixels
    values = data.pixel_array.astype(float)
    assert data.BitsStored == 16  # signed, of which the slice has no negative one, and uses 12 bits
    np.testing.assert_allclose(seen, values / 4095, atol=1e-6)


BROKEN = {
    "truncated": (lambda d: None, "must hold 10,240 bytes of pixels, but it is cut off"),
    "no pixel data": (lambda d: d.__delattr__("PixelData"), "must have pixel data"),
    "too short": (lambda d: setattr(d, "PixelData", d.PixelData[:-100]), "must hold 10240 bytes of pixels"),
    "too long": (lambda d: setattr(d, "PixelData", d.PixelData + bytes(9000)), "must hold 10240 bytes of pixels"),
    "a bomb": (lambda d: (setattr(d, "Rows", 65535), setattr(d, "Columns", 65535)), "between 1 and 64,000,000 pixels"),
    "no rows": (lambda d: setattr(d, "Rows", 0), "between 1 and 64,000,000 pixels"),
    "many frames": (lambda d: setattr(d, "NumberOfFrames", 2), "must hold one frame"),
    "colour": (lambda d: setattr(d, "PhotometricInterpretation", "RGB"), "must be grey"),
    "one bit": (lambda d: (setattr(d, "BitsStored", 1), setattr(d, "HighBit", 0)), "must store 8 to 16 bits"),
    "no slope": (
        lambda d: (setattr(d, "RescaleSlope", 0), setattr(d, "RescaleIntercept", 0)),
        "RescaleSlope must not be 0",
    ),
    "a medium's table": (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.1.3.10"), "table of contents, a DICOMDIR"),
    "floating point": (
        lambda d: (setattr(d, "FloatPixelData", bytes(64 * 80 * 4)), d.__delattr__("PixelData")),
        "must have whole numbers for pixels",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_shown_is_refused_with_its_reason(kind):
    data = dataset(stored(12), bits=12)
    change, reason = BROKEN[kind]
    change(data)
    broken = content(data)
    broken = broken[:-700] if kind == "truncated" else broken
    with pytest.raises(InputError, match=reason):
        read(broken)


def test_a_missing_codec_is_named_with_the_package_that_has_it(monkeypatch):
    data = compressed(dataset(stored(12), bits=12), "JPEG lossless")
    decoder = dicom.codecs.get_decoder(data.file_meta.TransferSyntaxUID)
    monkeypatch.setattr(type(decoder), "is_available", property(lambda self: False))
    with pytest.raises(InputError, match=r"JPEG Lossless.* pip install python-gdcm"):
        read(content(data))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.9", "1.3.46.670589.33.14", "1.2.840.10008.1.1.11", "none"])
def test_a_syntax_that_is_no_picture_is_refused(syntax):
    data = dataset(stored(12), bits=12)
    named = syntax.encode().ljust(20, b"\0")
    with pytest.raises(InputError, match=rf"must be stored in a transfer syntax that is in use.*'{syntax}'"):
        read(content(data).replace(b"1.2.840.10008.1.2.1\0", named))


def test_pixels_that_were_unpacked_under_a_compressions_name_are_read():
    whole = content(dataset(stored(12), bits=12))
    found = read(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))  # RLE
    np.testing.assert_array_equal(found.pixels, read(whole).pixels)
    assert found.notes == ("names a compression, and its pixels are plain",)


def test_mutated_files_are_read_or_refused_and_nothing_else():
    rng = np.random.default_rng(0)
    sound = [
        content(compressed(dataset(stored(b), bits=b), s)) for b, s in ((8, "explicit"), (12, "RLE"), (12, "implicit"))
    ]
    outcomes = {"read": 0, "refused": 0}
    for round_ in range(300):
        broken = bytearray(sound[round_ % len(sound)])
        for at in rng.integers(132, len(broken), rng.integers(1, 8)):
            broken[at] = rng.integers(256)
        try:
            pixels = read(bytes(broken)).pixels
            assert np.isfinite(pixels).all()
            assert 0 <= pixels.min() <= pixels.max() <= 1
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10
