"""Every file as it looks: headers that declare what the values are not, emptied elements, files cut or bare.

The picture is a chest of known greys, so that the right result is a number: its own mean, and air dark.
"""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, uid
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence

from tests.chest.dicoms import SYNTAXES, compressed, content, dataset
from tf_simclr.chest.files.about import BURNED_IN
from tf_simclr.chest.files.reading import read
from tf_simclr.chest.files.squares import shrunk, unpacked
from tf_simclr.errors import InputError

CASES = Path(__file__).parents[3] / "shared" / "cases" / "dicom_phantom.py"


def chest(high: int = 4095, side: int = 64) -> np.ndarray:
    """Two dark lungs, a bright heart, a dark edge: values up to 85 % of `high`, their mean about 60 %."""
    y, x = np.mgrid[0:side, 0:side] / side
    picture = np.full((side, side), 0.75)
    for centre in (0.3, 0.7):
        picture[((x - centre) / 0.15) ** 2 + ((y - 0.5) / 0.33) ** 2 < 1] = 0.25
    picture[((x - 0.57) / 0.1) ** 2 + ((y - 0.6) / 0.12) ** 2 < 1] = 0.85
    picture[:, :3] = 0.03
    return np.rint(picture * high).astype(np.uint16)


GREYS = chest() / 4095


def shown(values=None, *, bits=12, **elements):
    """What a reader shows of a DICOM with these stored values and elements."""
    return read(content(dataset(chest() if values is None else values, bits=bits, **elements)))


def table(entries, *, first=0, bits=16, count=None) -> Sequence:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [(count or len(entries)) & 0xFFFF, first, bits], [int(v) for v in entries]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return Sequence([item])


def alike(pixels, *, tolerance=0.002):
    np.testing.assert_allclose(pixels, GREYS, atol=tolerance)


@pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/cases/dicom_phantom.py beside the checkout")
def test_the_twelve_cases_have_the_right_result():
    spec = importlib.util.spec_from_file_location("dicom_phantom", CASES)
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    plain = cases.phantom(high=1)
    with pytest.warns(UserWarning, match="Invalid value for VR CS"):  # the case of small letters
        files = {name: cases.dicom(**arguments) for name, (arguments, _) in cases.CASES.items()}
    found = {name: read(file) for name, file in files.items()}
    assert len(found) == 12
    for name, radiograph in found.items():
        # padding is black, and what was padding is the dark edge
        assert radiograph.pixels.mean() == pytest.approx(plain.mean(), abs=0.003), name
        assert np.corrcoef(radiograph.pixels.ravel(), plain.ravel())[0, 1] > 0.999, name
    doubts = {name: radiograph.doubts for name, radiograph in found.items() if radiograph.doubts}
    assert doubts == {"hand": ("no chest by its header: HAND",), "lateral": ("a lateral view by its header",)}


# --- declared bits against values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("entries_to", [255, 1023, 4095, 16383])
@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_look_up_table_of_fewer_bits_than_declared_is_white_at_its_own_largest_entry(keyword, entries_to):
    entries = np.rint(np.linspace(0, entries_to, 4096))
    found = shown(**{keyword: table(entries)})
    alike(found.pixels, tolerance=0.003)
    assert "its look-up table's entries do not have the 16 bits declared: the largest is white" in found.notes


def test_a_look_up_table_of_more_bits_than_declared_is_white_at_its_own_largest_entry():
    alike(shown(VOILUTSequence=table(np.arange(4096), bits=8)).pixels)
    alike(shown(VOILUTSequence=table(np.arange(4096), bits=0)).pixels)


def test_a_look_up_table_that_has_the_bits_it_declares_is_taken_at_its_word():
    entries = np.rint(np.linspace(0, 60000, 4096))
    found = shown(VOILUTSequence=table(entries))
    np.testing.assert_allclose(found.pixels, GREYS * 60000 / 65535, atol=0.002)
    assert found.notes == ()


def test_entries_of_eight_bits_may_share_words_and_a_table_may_lack_some():
    entries = np.rint(np.linspace(0, 255, 4096)).astype(np.uint8)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 8], entries.tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    alike(shown(VOILUTSequence=Sequence([item])).pixels, tolerance=0.005)
    alike(shown(VOILUTSequence=table(np.arange(3900), bits=12, count=4096)).pixels)  # the picture ends below


@pytest.mark.parametrize("signed_as", [-2048, 63488])
def test_a_table_may_begin_below_zero_as_a_signed_or_an_unsigned_word(signed_as):
    values = (chest().astype(np.int32) - 2048).astype(np.int16)
    item = table(np.arange(4096), bits=12)
    del item[0].LUTDescriptor
    item[0].add_new("LUTDescriptor", "SS" if signed_as < 0 else "US", [4096, signed_as, 12])
    alike(shown(values, VOILUTSequence=item).pixels)


@pytest.mark.parametrize("used", [8, 10, 12, 14])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_stored_bits_beyond_what_is_used_do_not_darken_the_picture(used, photometric):
    high = 2**used - 1
    values = chest(high)
    values = high - values if photometric == "MONOCHROME1" else values
    found = shown(values.astype(np.uint16), bits=16, photometric=photometric)
    alike(found.pixels, tolerance=1.5 / high + 0.002)
    assert found.notes == (f"uses {used} of its 16 bits: shown over those",)
    signed = shown(values.astype(np.int16), bits=16, photometric=photometric)
    alike(signed.pixels, tolerance=1.5 / high + 0.002)


def test_signed_values_with_negative_ones_keep_their_zero():
    values = (chest().astype(np.int32) - 2048).astype(np.int16)
    alike(shown(values, bits=16).pixels)


def test_values_of_the_declared_bits_are_shown_over_all_of_them():
    dark = (chest() // 3).astype(np.uint16)  # an underexposed image stays one
    found = shown(dark)
    np.testing.assert_allclose(found.pixels, dark / 4095, atol=1e-6)
    assert found.notes == ()


@pytest.mark.parametrize("where", [np.s_[:4, :5], np.s_[:10, :30], np.s_[:, :28]])  # 0.5, 7 and 44 % of it
def test_what_was_burned_in_does_not_blacken_the_rest(where):
    values = chest()
    values[where] = 65535
    expected = GREYS.copy()
    expected[where] = 1
    np.testing.assert_allclose(shown(values, bits=16).pixels, expected, atol=0.002)


def test_values_at_an_offset_are_shown_from_the_least_to_the_largest():
    found = shown((61440 + chest()).astype(np.uint16), bits=16)
    assert np.corrcoef(found.pixels.ravel(), GREYS.ravel())[0, 1] > 0.999
    assert 0.3 < found.pixels.mean() < 0.8
    assert "its values fill a small part of their range" in found.notes[0]


def test_a_rescaling_of_unused_bits_is_followed_and_a_negative_slope_turns_the_picture_over():
    alike(shown(bits=16, RescaleSlope=2, RescaleIntercept=-1024).pixels)
    alike(1 - shown(bits=16, RescaleSlope=-1, RescaleIntercept=0).pixels)


def test_what_a_window_says_is_done_and_said():
    found = shown(WindowCenter=60000, WindowWidth=100)
    assert found.pixels.max() == 0
    assert found.doubts == ("nearly black, as its own window shows it",)
    assert shown(WindowCenter=-60000, WindowWidth=100).doubts == ("nearly white, as its own window shows it",)


@pytest.mark.parametrize("used", [8, 10, 12, 14])
def test_a_png_of_16_bits_with_fewer_in_use_is_shown_over_those(used):
    file = io.BytesIO()
    Image.fromarray(chest(2**used - 1)).save(file, "PNG")
    found = read(file.getvalue())
    alike(found.pixels, tolerance=1.5 / 2**used + 0.002)
    assert found.notes == (f"uses {used} of its 16 bits: shown over those",)


def test_a_png_that_uses_its_16_bits_is_taken_at_its_word_and_a_black_one_is_said():
    file = io.BytesIO()
    Image.fromarray(chest(65535)).save(file, "PNG")
    assert read(file.getvalue()).notes == ()
    file = io.BytesIO()
    Image.new("L", (40, 40), 1).save(file, "PNG")
    assert read(file.getvalue()).doubts == ("nearly black",)


# --- high bit, padding, polarity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "RLE"])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_the_high_bit_says_where_in_a_word_the_value_lies(high, syntax):
    data = dataset((chest() << (high - 11)).astype(np.uint16), bits=12, HighBit=high)
    alike(read(content(compressed(data, syntax))).pixels)


def test_a_high_bit_that_no_codec_knows_is_refused_by_name_and_an_impossible_one_is_noted():
    data = compressed(dataset((chest() << 4).astype(np.uint16), bits=16), "JPEG 2000")
    data.BitsStored, data.HighBit = 12, 15
    with pytest.raises(InputError, match="HighBit must be BitsStored − 1"):
        read(content(data))
    found = shown(chest(65535), bits=16, HighBit=11)
    alike(found.pixels)
    assert "HighBit" in found.notes[0]


@pytest.mark.parametrize(
    ("first", "limit"), [(0, None), (10, 0), (0, 10), (10, None), (-5, 10)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_dark_also_where_a_limit_is_zero(first, limit, photometric):
    values = chest().astype(np.int32)
    values = 4095 - values if photometric == "MONOCHROME1" else values
    values[:, :8] = 10 if limit is not None or first else 0
    more = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    data = dataset(values.astype(np.uint16), bits=12, photometric=photometric)
    for keyword, value in {"PixelPaddingValue": first, **more}.items():
        data.add_new(keyword, "SS", value)
    found = read(content(data)).pixels
    assert found[:, :8].max() == 0
    np.testing.assert_allclose(found[:, 8:], GREYS[:, 8:], atol=0.002)


def test_padding_may_be_written_with_the_other_sign():
    values = (chest().astype(np.int32) - 1024).astype(np.int16)
    values[:, :8] = -2000
    data = dataset(values, bits=16)
    data.add_new("PixelPaddingValue", "US", 63536)  # −2000 as an unsigned word
    assert read(content(data)).pixels[:, :8].max() == 0


def test_padding_outside_of_the_bits_in_use_does_not_widen_the_range():
    values = chest()
    values[:, :8] = 65535
    found = shown(values, bits=16, PixelPaddingValue=65535).pixels
    assert found[:, :8].max() == 0
    np.testing.assert_allclose(found[:, 8:], GREYS[:, 8:], atol=0.002)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", None, True),
        (None, "INVERSE", True),
        (None, "IDENTITY", False),
    ],
)
def test_least_is_white_once_whoever_says_so(photometric, shape, inverted):
    values = 4095 - chest() if inverted else chest()
    found = shown(values.astype(np.uint16), PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    alike(found.pixels)
    contradict = {("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")}
    assert bool(found.notes) == ((photometric, shape) in contradict)


# --- emptied elements ---------------------------------------------------------------------------------------------

OPTIONAL = [
    *("Modality", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "NumberOfFrames", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "ModalityLUTSequence", "VOILUTSequence"),
    *("PresentationLUTShape", "ViewPosition", "ViewCodeSequence", "PatientOrientation"),
    *("BodyPartExamined", "Manufacturer", "ManufacturerModelName", "PatientSex"),
    *("PatientAge", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("SOPInstanceUID", "PixelSpacing", "AnatomicRegionSequence", "ImageType"),
]


@pytest.mark.parametrize("keyword", OPTIONAL)
def test_an_emptied_element_is_as_an_absent_one(keyword):
    alike(shown(**{keyword: None}).pixels)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "PixelData"])
def test_what_cannot_be_done_without_is_missed_by_name(keyword):
    reason = {"PhotometricInterpretation": "must be grey", "PixelData": "must have pixel data"}.get(keyword, keyword)
    data = dataset(chest(), bits=12)
    setattr(data, keyword, b"" if keyword == "PixelData" else None)
    with pytest.raises(InputError, match=reason) as caught:
        read(content(data))
    assert "the upload" in str(caught.value)


def test_an_emptied_table_leaves_the_window_to_count():
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    alike(shown(VOILUTSequence=Sequence([]), **window).pixels)
    found = shown(VOILUTSequence=Sequence([Dataset()]), **window)
    alike(found.pixels)
    assert found.notes == ("VOILUTSequence is empty: as if absent",)


@pytest.mark.parametrize("width", [0, -100, 0.5])
def test_a_window_without_a_width_is_as_if_absent(width):
    found = shown(WindowCenter=0, WindowWidth=width)
    alike(found.pixels)
    assert found.notes == ("has a window without a width: as if absent",)
    second = shown(WindowCenter=[0, 2048], WindowWidth=[width, 2048])
    np.testing.assert_array_equal(second.pixels, shown(WindowCenter=2048, WindowWidth=2048).pixels)
    assert second.notes == found.notes


@pytest.mark.parametrize("keyword", ["WindowWidth", "RescaleSlope"])
def test_a_number_that_is_none_is_refused_by_name(keyword):
    data = dataset(chest(), bits=12, WindowCenter=2048, WindowWidth=4096, RescaleSlope=1)
    broken = content(data)
    tag = {"WindowWidth": b"\x28\x00\x51\x10DS", "RescaleSlope": b"\x28\x00\x53\x10DS"}[keyword]
    at = broken.index(tag) + 8
    length = int.from_bytes(broken[at - 2 : at], "little")
    with pytest.raises(InputError, match=f"{keyword} must be a number"):
        read(broken[:at] + b"x" * length + broken[at + length :])


# --- files as they are cut and written ----------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [name for name in SYNTAXES if name not in ("deflated", "JPEG baseline")])
def test_a_file_cut_behind_its_last_pixel_is_read_and_one_cut_before_it_is_said_to_be_cut(syntax):
    data = compressed(dataset(chest(), bits=12), syntax)
    data.add_new(0xFFFCFFFC, "OB", bytes(200))  # what devices fill files up with
    whole = content(data)
    alike(read(whole).pixels)
    end = whole.index(b"\xfc\xff\xfc\xff" if syntax != "big endian" else b"\xff\xfc\xff\xfc")
    alike(read(whole[:end]).pixels)  # the filling is gone
    alike(read(whole[: end + 50]).pixels)
    if data.file_meta.TransferSyntaxUID.is_compressed:
        found = read(whole[: end - 8])  # and the delimiter with it
        alike(found.pixels)
        assert "is cut off behind its last pixel" in found.notes
    for missing in (12, 300, end // 2):
        with pytest.raises(InputError, match="cut off"):
            read(whole[: end - 8 * data.file_meta.TransferSyntaxUID.is_compressed - missing])


@pytest.mark.parametrize("offsets", [(), (0,), None])
@pytest.mark.parametrize("syntax", ["RLE", "JPEG lossless", "JPEG-LS", "JPEG 2000"])
def test_compressed_pixels_are_read_with_a_table_of_offsets_with_an_empty_one_and_without(syntax, offsets):
    data = compressed(dataset(chest(), bits=12), syntax)
    stream = next(generate_frames(data.PixelData, number_of_frames=1))
    table = [] if offsets is None else [np.array(offsets, "<u4").tobytes()]
    items = [b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in (*table, stream)]
    data.PixelData = b"".join(items) + b"\xfe\xff\xdd\xe0" + bytes(4)
    found = read(content(data))
    alike(found.pixels)
    assert found.notes == (("has no table of offsets",) if offsets is None else ())


def test_a_file_cut_within_its_header_is_said_to_be_cut():
    whole = content(dataset(chest(), bits=12))
    for end in (140, 300, 420, 560):
        with pytest.raises(InputError):
            read(whole[:end])
    with pytest.raises(InputError, match="it has none, or is cut off before them"):
        read(whole[: whole.index(b"\xe0\x7f\x10\x00")])


@pytest.mark.parametrize("count", [1, 128, 2048])
def test_bytes_behind_the_pixels_are_a_filling(count):
    whole = content(dataset(chest(), bits=12))
    alike(read(whole + bytes(count)).pixels)
    data = dataset(chest(), bits=12)
    data.PixelData += bytes(count + count % 2)
    alike(read(content(data)).pixels)


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian", "RLE", "JPEG 2000"])
def test_a_file_without_a_preamble_is_read(syntax):
    whole = content(compressed(dataset(chest(), bits=12), syntax))
    found = read(whole[132:])
    alike(found.pixels)
    assert "has no preamble" in found.notes
    alike(read(whole[128:]).pixels)
    first = whole.index(b"\x00\x08\x00\x16" if syntax == "big endian" else b"\x08\x00\x16\x00")
    bare = whole[first:]  # nor with any word of its transfer syntax
    if syntax in ("RLE", "JPEG 2000"):
        with pytest.raises(InputError, match="must say how its pixels are compressed"):
            read(bare)
    else:
        alike(read(bare).pixels)


def test_other_files_are_no_dicoms():
    for other in (b"", b"\x08", b"hello, world" * 30, b"PK\x03\x04" + bytes(300), b"\x1f\x8b" + bytes(300), bytes(500)):
        with pytest.raises(InputError, match="must be a DICOM, PNG or JPEG file"):
            read(other)


# --- what a header says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", " dx", None])
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_radiograph_is_known_by_its_modality_or_its_sop_class(modality):
    data = dataset(chest(), bits=12)
    data.Modality = modality
    assert read(content(data)).modality == (modality or "").strip().upper()
    del data.SOPClassUID
    assert read(content(data)).pixels.shape == (64, 64)  # the file's own meta information says so, too


@pytest.mark.parametrize("modality", ["OT", "CT", "US", ""])
def test_other_kinds_are_refused_and_read_where_they_are_asked_for(modality):
    data = dataset(chest(), bits=12)
    data.Modality = modality
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    with pytest.raises(InputError, match=rf"must be a radiograph \(CR, DX, RG\)\. Received: modality='{modality}'"):
        read(content(data))
    alike(read(content(data), modalities=("any",)).pixels)
    if modality:
        alike(read(content(data), modalities=("dx", modality.lower())).pixels)


@pytest.mark.parametrize(
    ("elements", "doubt"),
    [
        ({"BodyPartExamined": "LEG"}, "no chest by its header: LEG"),
        ({"BodyPartExamined": "hand"}, "no chest by its header: HAND"),
        ({"BodyPartExamined": "CHEST"}, None),
        ({"BodyPartExamined": "PORT CHEST"}, None),
        ({"BodyPartExamined": "Thorax"}, None),
        ({"ViewPosition": "LL"}, "a lateral view by its header"),
        ({"ViewPosition": "RL"}, "a lateral view by its header"),
        ({"ViewPosition": "LATERAL"}, "a lateral view by its header"),
        ({"ViewPosition": "LLD"}, None),  # lying on the left side, seen from the front
        ({"ViewPosition": "PA"}, None),
        ({"PatientOrientation": ["A", "F"]}, "a lateral view by its header"),
        ({"PatientOrientation": ["L", "F"]}, None),
        ({"ViewPosition": "AP", "PatientOrientation": ["P", "F"]}, None),
        ({"PatientOrientation": ["LFA", "FRP"]}, None),
        ({"PatientOrientation": ["R", "F"]}, "mirrored by its header"),
        ({"PatientOrientation": ["RA", "FR"]}, "mirrored by its header"),
        ({"PatientOrientation": ["L", "H"]}, "upside down by its header"),
        ({"PatientOrientation": ["R", "H"]}, "upside down by its header"),
        ({"PatientOrientation": ["F", "R"]}, "lying on its side by its header"),
        ({"PatientOrientation": ["H", "L"]}, "lying on its side by its header"),
        ({"PresentationIntentType": "FOR PRESENTATION"}, None),
        (
            {"PresentationIntentType": "FOR PROCESSING"},
            "a detector's raw values by its header, which are for processing and not for a viewer",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_another_part_or_a_view_from_the_side_is_read_and_said(elements, doubt):
    found = shown(**elements)
    alike(found.pixels)
    assert found.doubts == ((doubt,) if doubt else ())


def test_letters_that_may_name_a_patient_are_noted():
    assert shown(BurnedInAnnotation="YES").notes == (BURNED_IN,)
    assert shown(BurnedInAnnotation="NO").notes == ()


def test_what_is_kept_of_a_header_names_nobody():
    names = {"PatientName": "Doe^Jane", "PatientID": "4711", "PatientBirthDate": "19501231", "StationName": "ROOM9"}
    names |= {"DeviceSerialNumber": "SN123", "InstitutionName": "St Elsewhere", "AccessionNumber": "A99"}
    known = {"PatientSex": "F", "PatientAge": "072Y", "Manufacturer": "Maker", "ManufacturerModelName": "Model 3"}
    data = dataset(chest(), bits=12, ViewPosition="PA", **names, **known)
    found = read(content(data))
    assert (found.sex, found.age, found.device, found.view) == ("F", "70-79", "Maker Model 3", "PA")
    kept = shrunk_of(content(data))
    for name in (*names.values(), data.StudyInstanceUID, data.SOPInstanceUID, "072Y"):
        assert name.encode() not in kept, name


def shrunk_of(whole: bytes) -> bytes:
    about, _ = unpacked(shrunk(whole, 32, salt="grain"))
    return repr(about).encode()
