"""PNG and JPEG radiographs."""

import io

import numpy as np
import pytest
from PIL import Image

from tf_simclr.chest.files.reading import read
from tf_simclr.errors import InputError

LEVELS = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85


def png(pixels: np.ndarray, mode: str | None = None, *, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def test_sixteen_bits_are_kept():
    shown = read(png(LEVELS))
    assert shown.bits == 16
    np.testing.assert_array_equal(np.rint(shown.pixels * 65535), LEVELS)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_eight_bits_are_the_same_grey_in_every_mode(mode):
    pixels = (LEVELS >> 8).astype(np.uint8)
    shown = read(png(pixels, mode))
    assert shown.bits == 8
    np.testing.assert_array_equal(np.rint(shown.pixels * 255), pixels)


def test_jpeg_is_read_up_to_its_loss():
    pixels = (LEVELS >> 8).astype(np.uint8)
    np.testing.assert_allclose(read(png(pixels, kind="JPEG", quality=100)).pixels, pixels / 255, atol=0.02)


@pytest.mark.parametrize(("share", "coloured"), [(0.0, False), (0.05, False), (0.2, True), (1.0, True)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_coloured_if_more_than_an_arrow_is(share, coloured, kind):
    pixels = np.repeat((np.kron(LEVELS, np.ones((4, 4), np.uint16)) >> 8).astype(np.uint8)[..., None], 3, -1)
    pixels[: round(share * len(pixels))] = [200, 40, 40]
    assert read(png(pixels, kind=kind)).coloured == coloured
    assert not read(png(pixels, "L", kind=kind)).coloured


def test_the_tint_of_a_scan_is_no_colour():
    pixels = np.repeat((LEVELS >> 8).astype(np.uint8)[..., None], 3, -1)
    tinted = np.clip(pixels + np.array([12, 4, -12]), 0, 255).astype(np.uint8)
    assert not read(png(tinted)).coloured


def test_a_file_and_its_bytes_are_the_same(tmp_path):
    (tmp_path / "no_ending").write_bytes(png(LEVELS))
    np.testing.assert_array_equal(read(tmp_path / "no_ending").pixels, read(png(LEVELS)).pixels)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png(LEVELS)[:-60], "must be a whole picture"),
        (b"\xff\xd8\xff" + bytes(50), "must be a whole picture"),
        (b"GIF89a" + bytes(50), "must be a DICOM, PNG or JPEG file"),
        (b"", "must be a DICOM, PNG or JPEG file"),
        (png(np.zeros((9000, 9000), np.uint8)), "at most 64,000,000 pixels"),
        (png(LEVELS.astype(np.uint8), save_all=True, append_images=[Image.fromarray(LEVELS)]), "not an animation"),
    ],
    ids=["truncated png", "broken jpeg", "gif", "empty", "bomb", "animation"],
)
def test_what_is_no_whole_picture_is_refused(content, reason):
    with pytest.raises(InputError, match=reason):
        read(content)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(monkeypatch):
    """Each scan goes over all pixels: 430 kB take minutes."""
    out = io.BytesIO()
    Image.fromarray(LEVELS.astype(np.uint8)).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    assert read(whole).pixels.shape == LEVELS.shape
    monkeypatch.setattr(Image, "open", None)
    last = whole[whole.rfind(b"\xff\xda") : -2]
    with pytest.raises(InputError, match=r"must have at most 64 scans, as a JPEG has\. Received: scans=2\d\d\d"):
        read(whole[:-2] + last * 2000 + b"\xff\xd9")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.png must be a readable file \(No such file"):
        read(tmp_path / "nothing.png")
