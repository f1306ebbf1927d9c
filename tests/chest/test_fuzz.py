"""Damaged DICOM files through the preparation's own decoding: each is read or refused with a sentence, none ends it."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.chest.dicoms import SYNTAXES, compressed, content, dataset, stored
from tf_simclr.chest.files.squares import unpacked
from tf_simclr.chest.files.worker import each
from tf_simclr.errors import InputError

FILES = 1200


def sound() -> list[bytes]:
    """A radiograph in every transfer syntax, with windows, look-up tables and padding in some."""
    found = []
    for number, syntax in enumerate(SYNTAXES):
        bits = 8 if syntax == "JPEG baseline" else (8, 12, 16)[number % 3]
        more = [{}, {"WindowCenter": [90, 30], "WindowWidth": [60, 9]}, {"PixelPaddingValue": 0, "RescaleSlope": 2}]
        photometric = "MONOCHROME1" if number % 2 else "MONOCHROME2"
        data = dataset(stored(bits, shape=(40, 48)), bits=bits, photometric=photometric, **more[number % 3])
        found.append(content(compressed(data, syntax)))
    return found


def mutated(whole: bytes, rng: np.random.Generator) -> bytes:
    """The file with a few bytes changed, a piece cut out, doubled or blanked, or its end missing."""
    broken = bytearray(whole)
    at = int(rng.integers(132, len(broken)))
    header = int(rng.integers(132, 900))  # lengths and tags, where little changes much
    length = int(rng.integers(1, 200))
    kind = rng.integers(7)
    if kind <= 1:
        for place in rng.integers(132, len(broken), rng.integers(1, 12)):
            broken[place] = rng.integers(256)
    elif kind == 2:
        broken[header : header + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"])
    elif kind == 3:
        del broken[at:]
    elif kind == 4:
        del broken[at : at + length]
    elif kind == 5:
        broken[at:at] = broken[at : at + length]
    else:
        broken[header] ^= 1 << int(rng.integers(8))
    return bytes(broken)


def outcomes(folder, count: int, *, seed: int) -> Counter:
    """What became of so many mutated files: read, refused, or refused because the decoder died of it."""
    rng, originals = np.random.default_rng(seed), sound()
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:05d}.dcm")
        paths[-1].write_bytes(mutated(originals[number % len(originals)], rng))
    requests = [{"path": str(path), "size": 32} for path in paths]
    answers = list(each("tf_simclr.chest.files.squares:shrunk", requests, workers=2, seconds=60))
    assert len(answers) == count
    found = Counter()
    for path, answer in zip(paths, answers, strict=True):
        if isinstance(answer, InputError):
            text = str(answer)
            crashed, late = "decoder crashed" in text, "within 60 seconds" in text
            assert crashed or late or path.name in text or "memory" in text, text
            assert "\n" not in text
            found["crashed" if crashed else "too long" if late else "refused"] += 1
        else:
            about, picture = unpacked(answer)
            assert Image.open(io.BytesIO(picture)).size == (32, 32)
            assert 8 <= about["bits"] <= 16
            found["read"] += 1
    return found


def test_a_few_mutated_files_are_read_or_refused(tmp_path):
    found = outcomes(tmp_path, 45, seed=1)
    assert min(found["read"], found["refused"]) > 4


@pytest.mark.slow
def test_more_than_a_thousand_mutated_files_are_read_or_refused(tmp_path, record_property, capsys):
    found = outcomes(tmp_path, FILES, seed=0)
    record_property("outcomes", dict(found))
    with capsys.disabled():
        print(f"\n{FILES:,} mutated DICOM files: {dict(found)}")  # noqa: T201
    assert found.total() == FILES
    assert min(found["read"], found["refused"]) > FILES // 10
