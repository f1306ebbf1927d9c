"""Files whose headers contradict their pixels, in kinds beside those of `test_grey_levels`: none is shown wrong unsaid.

Each is either the chest that it was made of, or it is refused, or a note or a doubt says what was done.
"""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.sequence import Sequence

from tests.chest.dicoms import SYNTAXES, compressed, content, dataset
from tests.chest.test_grey_levels import GREYS, chest, table
from tf_simclr.chest.files.reading import read
from tf_simclr.errors import InputError

LOSSLESS = [name for name in SYNTAXES if name not in ("JPEG baseline",)]


def real(high: int, *, seed: int = 0) -> np.ndarray:
    """A chest with soft edges and noise, as detectors have them, int32 in [0, high]."""
    y, x = np.mgrid[0:96, 0:96] / 96
    picture = 0.72 + 0.06 * np.sin(30 * y)
    for centre in (0.3, 0.7):
        picture = picture - 0.55 / (1 + np.exp(9 * (((x - centre) / 0.16) ** 2 + ((y - 0.5) / 0.34) ** 2 - 1)))
    picture = picture * np.clip(12 * x, 0.02, 1)
    picture = picture + np.random.default_rng(seed).normal(0, 0.004, picture.shape)
    return np.rint(np.clip(picture, 0, 1) * high).astype(np.int32)


def alike(found, expected, *, tolerance=0.004):
    np.testing.assert_allclose(found.pixels, expected, atol=tolerance)


# --- bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("used", "declared"), [(12, 10), (14, 12), (16, 12), (12, 8), (16, 15)])
def test_values_of_more_bits_than_declared_are_not_cut_off(syntax, used, declared):
    data = compressed(dataset(real(2**used - 1).astype(np.uint16), bits=used, photometric="MONOCHROME1"), syntax)
    data.BitsStored, data.HighBit = declared, declared - 1
    found = read(content(data))
    alike(found, 1 - real(2**used - 1) / (2**used - 1))
    assert found.notes == (f"uses {used} bits, more than the {declared} that its header says: all of them are taken",)


@pytest.mark.parametrize("plane", [12, 13, 15])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_an_overlay_in_the_bits_above_is_no_part_of_the_picture(plane, bits):
    values = real(2**bits - 1)
    drawn = values.copy()
    drawn[10:14, 5:60] |= 1 << plane
    drawn[40:60, 70:73] |= 1 << plane
    found = read(content(dataset(drawn.astype(np.uint16), bits=bits)))
    alike(found, values / (2**bits - 1))
    assert found.notes == (f"has bits above the {bits} of its values: left out, as an overlay's",)


@pytest.mark.parametrize("bits", [12, 14, 16])
@pytest.mark.parametrize("below", [100, 300])
def test_negative_values_that_the_header_calls_unsigned_are_dark(bits, below):
    values = real(3200) - below
    found = read(content(dataset(values.astype(np.int16).view(np.uint16), bits=bits)))
    assert np.corrcoef(found.pixels.ravel(), values.ravel())[0, 1] > 0.9999
    assert 0.25 < found.pixels.mean() < 0.75
    assert any("signed" in note for note in found.notes)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_unsigned_values_that_the_header_calls_signed_are_not_turned_over(bits):
    kind = np.uint8 if bits == 8 else np.uint16
    data = dataset(real(2**bits - 1).astype(kind), bits=bits, PixelRepresentation=1)
    found = read(content(data))
    alike(found, real(2**bits - 1) / (2**bits - 1))
    assert found.notes == ("its header calls values signed that are unsigned: taken as those",)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_what_the_bits_above_tell_of_signs_is_not_taken_back_where_no_neighbours_tell_otherwise(bits):
    steps = np.array([[-0.9, -0.5, 0.5], [0.5, 0.6, -0.5], [-0.5, 0.6, 0.5]]) * 2 ** (bits - 1)
    values = np.kron(steps, np.ones((20, 20))).astype(np.int16)
    found = read(content(dataset(values.view(np.uint16), bits=bits)))
    assert np.corrcoef(found.pixels.ravel(), values.ravel())[0, 1] > 0.9999
    assert found.notes == ("its header calls values unsigned of which some are negative: taken as signed",)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_values_that_are_signed_stay_so(bits):
    values = (real(2**bits - 1) - 2 ** (bits - 1)).astype(np.int16)
    found = read(content(dataset(values, bits=bits)))
    alike(found, real(2**bits - 1) / (2**bits - 1))
    assert found.notes == ()


@pytest.mark.parametrize("kind", ["DICOM", "PNG"])
@pytest.mark.parametrize(("used", "of"), [(6, 8), (7, 12), (6, 12), (9, 16), (13, 16), (14, 16)])
def test_no_depth_turns_a_chest_black(kind, used, of):
    if kind == "PNG" and of == 12:
        pytest.skip("a PNG has 8 or 16 bits")
    values = chest(2**used - 1).astype(np.uint8 if of == 8 else np.uint16)
    found = read(content(dataset(values, bits=of)) if kind == "DICOM" else png(values))
    alike(found, GREYS, tolerance=0.6 / 2**used + 0.001)
    assert found.notes == (f"uses {used} of its {of} bits: shown over those",)


@pytest.mark.parametrize("kind", ["DICOM", "PNG"])
@pytest.mark.parametrize("used", [10, 12, 13, 14])
def test_a_burned_in_letter_does_not_darken_the_rest_whatever_the_depth(kind, used):
    values = chest(2**used - 1)
    values[:4, :5] = 65535
    found = read(content(dataset(values, bits=16)) if kind == "DICOM" else png(values))
    np.testing.assert_allclose(found.pixels[5:], GREYS[5:], atol=0.002)
    assert found.pixels[0, 0] == 1


def test_a_dark_chest_with_bright_bones_is_taken_at_its_word():
    values = chest(1000)
    values[30:32, 30:36] = np.linspace(1000, 4000, 12).reshape(2, 6)  # 0.3 %, without a gap
    found = read(content(dataset(values, bits=12)))
    alike(found, values / 4095, tolerance=1e-6)
    assert found.notes == ()


def test_a_png_of_signed_words_shifted_up_is_shown_from_its_least_to_its_largest():
    found = read(png((32768 + chest()).astype(np.uint16)))
    assert np.corrcoef(found.pixels.ravel(), GREYS.ravel())[0, 1] > 0.999
    assert 0.3 < found.pixels.mean() < 0.8
    assert "its values fill a small part of their range" in found.notes[0]


@pytest.mark.parametrize("allocated", [1, 12, 24, 32, 64])
def test_other_words_than_of_8_or_16_bits_are_refused(allocated):
    with pytest.raises(InputError, match="must store 8 to 16 bits in 8 or 16"):
        read(content(dataset(chest(), bits=12, BitsAllocated=allocated)))


# --- windows and tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "width"),
    [(["", "2048"], ["100", "4096"]), (["2048", "90"], "4096"), (["2048", "9", "7"], ["4096", "1", "2"])],
)
def test_of_several_windows_a_centre_counts_with_its_own_width(centre, width):
    alike(read(content(dataset(chest(), bits=12, WindowCenter=centre, WindowWidth=width))), GREYS)


def test_a_centre_without_any_width_is_no_window():
    found = read(content(dataset(chest(), bits=12, WindowCenter=["90", ""], WindowWidth=["", "9"])))
    alike(found, GREYS)


def test_of_several_tables_the_first_that_has_entries_counts():
    sequence = Sequence([Dataset(), *table(np.arange(4096), bits=12), *table(np.arange(4096)[::-1], bits=12)])
    alike(read(content(dataset(chest(), bits=12, VOILUTSequence=sequence))), GREYS)


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_least_is_white_behind_a_table(keyword):
    data = dataset(
        (4095 - chest()).astype(np.uint16), bits=12, photometric="MONOCHROME1", **{keyword: table(np.arange(4096))}
    )
    alike(read(content(data)), GREYS)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("windowed", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_a_negative_slope_turns_over_once(photometric, windowed, signed):
    upright = chest().astype(np.int32) if photometric == "MONOCHROME1" else 4095 - chest().astype(np.int32)
    values = (upright - 2048).astype(np.int16) if signed else upright.astype(np.uint16)
    intercept = 2047 if signed else 4095
    window = {"WindowCenter": 2048, "WindowWidth": 4096} if windowed else {}
    more = {"RescaleSlope": -1, "RescaleIntercept": intercept, **window}
    alike(read(content(dataset(values, bits=12, photometric=photometric, **more))), GREYS)


def group(**elements) -> Sequence:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return Sequence([item])


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
@pytest.mark.parametrize("window", [True, False])
def test_an_enhanced_images_groups_are_heard(groups, window):
    slope = group(RescaleSlope=-1, RescaleIntercept=4095, RescaleType="US")
    macros = {"PixelValueTransformationSequence": slope}
    macros |= {"FrameVOILUTSequence": group(WindowCenter=2048, WindowWidth=4096)} if window else {}
    alike(read(content(dataset((4095 - chest()).astype(np.uint16), bits=12, **{groups: group(**macros)}))), GREYS)


# --- padding, frames, colours -------------------------------------------------------------------------------------


def test_padding_of_most_of_the_picture_is_said():
    data = dataset(chest(), bits=12, PixelPaddingValue=3000, PixelPaddingRangeLimit=3200)
    assert read(content(data)).notes == ("more than half of it is padding by its header: shown black",)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "ARGB", "XYZ"])
def test_colours_are_refused(photometric):
    with pytest.raises(InputError, match="must be grey"):
        read(content(dataset(chest(), bits=12, PhotometricInterpretation=photometric)))


@pytest.mark.parametrize("syntax", ["JPEG-LS", "JPEG 2000", "JPEG lossless"])
def test_a_second_frame_that_the_header_does_not_tell_of_is_refused(syntax):
    streams = []
    for values in (chest(), (4095 - chest()).astype(np.uint16)):
        data = compressed(dataset(values, bits=12), syntax)
        streams.append(next(part for part in generate_fragments(data.PixelData) if len(part) > 8))
    data.PixelData = encapsulate(streams)
    try:
        found = read(content(data))
    except InputError as error:
        assert "one frame" in str(error)  # noqa: PT017
    else:
        alike(found, GREYS)  # the first of them


@pytest.mark.parametrize("frames", [2, 5])
def test_a_second_frame_without_compression_is_refused(frames):
    data = dataset(np.concatenate([chest()] * frames), bits=12, Rows=64)
    with pytest.raises(InputError, match="must hold 8192 bytes of pixels"):
        read(content(data))


# --- what is no radiograph ----------------------------------------------------------------------------------------

OTHERS = {
    "a NIfTI volume": bytes.fromhex("5c010000") + bytes(340) + b"n+1\0" + bytes(64),
    "ZIP": b"PK\x03\x04" + bytes(64),
    "gzip": b"\x1f\x8b\x08" + bytes(64),
    "tar": b"image.dcm".ljust(257, b"\0") + b"ustar\0" + bytes(64),
    "a TIFF": b"II*\0" + bytes(64),
    "a BMP": b"BM" + bytes(64),
    "a WebP": b"RIFF\0\0\0\0WEBP" + bytes(64),
    "NRRD": b"NRRD0004\n" + bytes(64),
    "a PDF": b"%PDF-1.7" + bytes(64),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_people_take_for_a_radiograph_is_refused_by_its_name(kind, tmp_path):
    (tmp_path / "x.dcm").write_bytes(OTHERS[kind])
    with pytest.raises(InputError, match=f"must be a DICOM, PNG or JPEG file.*{kind}"):
        read(tmp_path / "x.dcm")


@pytest.mark.parametrize(("view", "lateral"), [("RLAT", True), ("LLAT", True), ("L LATERAL", True), ("PLATE", False)])
def test_lateral_views_have_many_names(view, lateral):
    found = read(content(dataset(chest(), bits=12, ViewPosition=view)))
    assert bool(found.doubts) == lateral


@pytest.mark.parametrize(
    ("charset", "patient"),
    [("ISO_IR 192", "MÜLLER^1"), ("ISO_IR 100", "MÜLLER^1"), (["", "ISO 2022 IR 87"], "山田"), ("ISO_IR 144", "Иван")],
)
def test_a_patients_number_is_the_same_in_every_character_set(charset, patient):
    found = read(content(dataset(chest(), bits=12, SpecificCharacterSet=charset, PatientID=f" {patient} ")))
    assert found.patient == patient


def test_an_icon_and_private_elements_are_no_pixels():
    icon = dataset(np.zeros((8, 8), np.uint8), bits=8)
    del icon.file_meta
    data = dataset(chest(), bits=12, IconImageSequence=Sequence([icon]))
    block = data.private_block(0x0029, "SOMEBODY", create=True)
    block.add_new(1, "SQ", Sequence([Dataset()]))
    block.add_new(2, "OB", b"\xe0\x7f\x10\x00OW\0\0\x10\0\0\0" * 9)
    alike(read(content(data)), GREYS)


@pytest.mark.parametrize("mode", ["P", "CMYK", "LA", "RGBA", "L"])
def test_pictures_of_every_mode_are_the_same_grey(mode):
    file = io.BytesIO()
    picture = Image.fromarray(chest(255).astype(np.uint8)).convert(mode)
    picture.save(file, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 100} if mode == "CMYK" else {}))
    alike(read(file.getvalue()), GREYS, tolerance=0.02 if mode == "CMYK" else 0.003)


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()
