"""What one file alone tells of a header that contradicts its pixels; and no false alarm on radiographs."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed (extra `chest`)")

from PIL import Image

from tests import golden
from tests.chest.dicoms import SYNTAXES, compressed, content, dataset
from tf_simclr.chest.files import dicom
from tf_simclr.chest.files.radiograph import TURNED_ROUND, turned_round
from tf_simclr.chest.files.reading import read

EXCHANGED = "its rows and columns seem to be exchanged in its header"
BYTES = "the bytes of its pixels seem to be in another order than its header says"


def chest(height=240, width=180):
    """Air at the sides, two dark lungs, a bright spine between them; 12 bits."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    image = 0.55 + 0.2 * np.exp(-(((x - 0.5) / 0.1) ** 2))
    for centre in (0.27, 0.73):
        image -= 0.35 * np.exp(-((((x - centre) / 0.12) ** 2 + ((y - 0.42) / 0.3) ** 2) ** 2))
    image[(y < 0.18) & ((x < 0.14) | (x > 0.86))] = 0.05
    image += np.random.default_rng(0).normal(0, 0.01, image.shape)
    return np.rint(np.clip(image, 0, 1) * 4095).astype(np.uint16)


def doubts(pixels, *, bits=12, syntax=None, **elements):
    data = dataset(pixels, bits=bits, **elements)
    data = compressed(data, syntax) if syntax else data
    found = dicom.read(content(data), "x.dcm", windowed=True)
    return found.doubts, found.notes


@pytest.mark.parametrize("syntax", [name for name in SYNTAXES if name not in ("JPEG baseline", "JPEG lossless")])
def test_a_right_header_is_not_doubted(syntax):
    assert doubts(chest(), syntax=syntax) == ((), ())


def test_a_negative_is_doubted_however_it_came_about(tmp_path):
    pixels = chest()
    assert doubts(pixels, photometric="MONOCHROME1")[0] == (TURNED_ROUND,)
    assert doubts((4095 - pixels).astype(np.uint16))[0] == (TURNED_ROUND,)
    assert doubts(pixels, PresentationLUTShape="INVERSE")[0] == (TURNED_ROUND,)
    assert doubts((4095 - pixels).astype(np.uint16), photometric="MONOCHROME1")[0] == ()
    assert doubts(pixels, photometric="MONOCHROME1", BodyPartExamined="HAND")[0] == ("no chest by its header: HAND",)
    Image.fromarray(255 - (pixels >> 4).astype(np.uint8)).save(tmp_path / "negative.png")
    assert read(tmp_path / "negative.png").doubts == (TURNED_ROUND,)
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(tmp_path / "right.png")
    assert read(tmp_path / "right.png").doubts == ()


def test_rows_and_columns_that_are_exchanged_are_doubted():
    height, width = chest().shape
    assert doubts(chest(), Rows=width, Columns=height)[0] == (EXCHANGED,)
    assert doubts(chest(160, 300), Rows=300, Columns=160)[0] == (EXCHANGED,)


@pytest.mark.parametrize("bits", [12, 16])
def test_bytes_in_another_order_are_doubted(bits):
    found, _ = doubts(chest().byteswap(), bits=bits)
    assert BYTES in found


def test_a_window_beside_the_values_is_doubted_and_one_that_cuts_air_off_is_not():
    assert "of it black or white" in doubts(chest(), WindowCenter=1500, WindowWidth=30)[0][0]
    assert doubts(chest(), WindowCenter=9000, WindowWidth=100)[0] == ("nearly black, as its own window shows it",)
    assert doubts(chest(), WindowCenter=2000, WindowWidth=2500)[0] == ()
    flat = np.zeros((64, 64), np.uint16)
    flat[20:40, 20:40] = 4095  # a picture of two levels has nothing to cut off
    assert not any("window" in doubt for doubt in doubts(flat, WindowCenter=2000, WindowWidth=2500)[0])


def test_pixels_that_are_no_squares_are_noted():
    assert doubts(chest(), PixelSpacing=[0.2, 0.1])[1] == (
        "its pixels are 2.00 times as high as wide by its header: shown as they are stored",
    )
    assert "1.50 times as wide as high" in doubts(chest(), ImagerPixelSpacing=[0.1, 0.15])[1][0]
    assert doubts(chest(), ImagerPixelSpacing=[0.143, 0.143])[1] == ()
    assert doubts(chest(), PixelSpacing=[0, 0], ImagerPixelSpacing=["", ""])[1] == ()


def test_no_radiograph_of_chestxray14_is_doubted_and_most_negatives_are():
    files = sorted(Path(golden.beside("data/nih_cxr") / "images").iterdir())[::6]
    found = [read(path) for path in files]
    assert [one.doubts for one in found if one.doubts] == []
    assert np.mean([turned_round(1 - one.pixels) for one in found]) > 0.97
    for one in found[::5]:  # neither are they with a border, bars, another exposure, or without their edges
        edge = one.pixels.shape[0] // 16
        bordered = np.pad(one.pixels, edge, constant_values=1)
        barred = np.pad(one.pixels, ((0, 0), (3 * edge, 3 * edge)))
        for other in (bordered, barred, one.pixels**2.5, one.pixels**0.4, one.pixels[2 * edge : -2 * edge]):
            assert not turned_round(other)
    for one in found[::10]:
        levels = np.rint(one.pixels * 4095).astype(np.uint16)
        assert doubts(levels) == ((), ())
        assert BYTES in doubts(levels.byteswap(), bits=16)[0]
        assert EXCHANGED in doubts(levels[:300, :200].copy(), Rows=200, Columns=300)[0]
