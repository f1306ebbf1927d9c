"""What headers state, against what the writers were given; and files that state one thing and hold another."""

import io
import os
import zlib

import pydicom
import pytest
from PIL import Image
from pydicom import encaps

from tests.chest.dicoms import SYNTAXES, compressed, content, dataset, stored
from tf_simclr.chest.files import headers, reading
from tf_simclr.errors import InputError


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_size_and_the_transfer_syntax_of_every_stream_are_read(syntax):
    data = compressed(dataset(stored(8, shape=(40, 48)), bits=8), syntax)
    whole = content(data)
    assert headers.transfer_syntax(whole) == data.file_meta.TransferSyntaxUID
    if not data.file_meta.TransferSyntaxUID.is_compressed:
        return
    streams = [headers.stated_size(fragment) for fragment in encaps.generate_fragments(data.PixelData)]
    assert set(streams) <= {None, (40, 48)}
    assert (40, 48) in streams or "RLE" in syntax  # which has no frame header


@pytest.mark.parametrize(
    "options", [{"format": "PNG"}, {"format": "JPEG"}, {"format": "JPEG", "progressive": True}], ids=str
)
def test_the_size_of_pictures(options):
    file = io.BytesIO()
    Image.new("L", (31, 17)).save(file, **options)
    assert headers.stated_size(file.getvalue()) == (17, 31)
    for end in range(0, 200, 7):  # cut anywhere it states the size or none, and nothing else
        assert headers.stated_size(file.getvalue()[:end]) in (None, (17, 31))


@pytest.mark.parametrize("syntax", [name for name in SYNTAXES if "JPEG" in name])
def test_a_stream_of_another_size_than_its_header_is_refused_before_it_is_decoded(syntax):
    data = compressed(dataset(stored(8, shape=(40, 48)), bits=8), syntax)
    data.Rows = data.Columns = 32
    with pytest.raises(
        InputError, match=r"must hold 32 × 32 pixels, as its header says\. Received: its_stream=\(40, 48\)"
    ):
        reading.read(content(data))


def deflated(megabytes):
    """A DICOM whose deflated part grows to so many megabytes."""
    data = dataset(stored(8), bits=8)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    whole = content(data)
    length = 144 + int.from_bytes(whole[140:144], "little")
    element = b"\x11\x00\x10\x00OB\0\0" + (megabytes << 20).to_bytes(4, "little") + bytes(megabytes << 20)
    squeeze = zlib.compressobj(9, wbits=-15)
    return whole[:length] + squeeze.compress(element) + squeeze.flush()


def test_a_deflated_dicom_is_read_and_one_that_grows_without_end_is_not():
    data = dataset(stored(8), bits=8)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    assert reading.read(content(data)).pixels.shape == (64, 80)
    bomb = deflated(300)
    assert len(bomb) < 2**20
    with pytest.raises(InputError, match="must have at most 256 MB, and its compressed content has more"):
        reading.read(bomb)


def test_only_a_regular_file_is_read_and_no_more_of_it_than_a_radiograph_has(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in ("/dev/zero", tmp_path, tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(InputError, match="must be a file, not a folder, device or pipe"):
            reading.read(path)
    for path, words in ((tmp_path / "none", "No such file"), ("a\0b", "null"), ("x" * 5000, "too long")):
        with pytest.raises(InputError, match=f"must be a readable file .*{words}"):
            reading.read(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(257 << 20)
    with pytest.raises(InputError, match="at most 256 MB"):
        reading.read(tmp_path / "large")
