"""PNG and JPEG radiographs."""

import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
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


def of_16_bits(levels: np.ndarray, channels: int, **options) -> tuple[np.ndarray, bytes]:
    """Colours of 16 bits that differ a little, opaque, and their PNG by libpng with all of its filters."""
    shift = np.array({2: [0], 3: [0, 40, 90], 4: [0, 40, 90]}[channels], np.uint16)
    colours = levels[..., None] + shift
    pixels = np.concatenate([colours, np.full_like(colours[..., :1], 65535)], -1) if channels != 3 else colours
    return colours, tf.io.encode_png(pixels, **options).numpy()


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_are_kept_of_colours_and_beside_opacity(channels, bits):
    rng = np.random.default_rng(channels)
    levels = (np.add.outer(np.arange(48) ** 2, 30 * np.arange(60)) + rng.integers(0, 9, (48, 60))) * 2 ** (bits - 12)
    colours, content = of_16_bits(np.clip(levels, 0, 2**bits - 100).astype(np.uint16), channels)
    filters = np.frombuffer(zlib.decompress(idat(content)), np.uint8).reshape(48, -1)[:, 0]
    assert len(set(filters.tolist())) > 1
    np.testing.assert_array_equal(tf.io.decode_png(content, dtype=tf.uint16)[..., : colours.shape[-1]], colours)
    shown = read(content)
    wanted = colours[..., 0] if channels == 2 else np.rint(colours @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_allclose(shown.pixels * (2**bits - 1), wanted, atol=0.01)
    assert (shown.bits, shown.coloured) == (16, False)


def idat(content: bytes) -> bytes:
    """What a PNG's chunks of pixels hold together."""
    found, at = b"", 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        found += content[at + 8 : at + 8 + length] * (content[at + 4 : at + 8] == b"IDAT")
        at += 12 + length
    return found


def test_colours_of_16_bits_that_are_cut_off_or_interlaced_are_refused_and_strong_ones_are_told():
    _, content = of_16_bits(LEVELS, 3)
    with pytest.raises(InputError, match="hold all of its rows, but it is cut off"):
        read(content[:-300])
    with pytest.raises(InputError, match="must not be interlaced; save it as grey"):
        read(content[:28] + b"\x01" + content[29:])
    assert read(tf.io.encode_png(np.stack([LEVELS, LEVELS // 2, LEVELS // 3], -1)).numpy()).coloured


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
