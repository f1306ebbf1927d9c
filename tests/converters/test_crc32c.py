"""CRC-32C: published values, against a bit-by-bit loop, and without the C extension."""

import subprocess
import sys

import numpy as np
import pytest

from tests.golden import ROOT
from tf_simclr.files.contents import crc32c, mask


def bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def noise(size: int) -> bytes:
    return np.random.RandomState(size).randint(0, 256, size, dtype=np.uint8).tobytes()


RFC_3720 = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(reversed(range(32))): 0x113FDB5C,
}


@pytest.mark.parametrize("data", RFC_3720)
def test_equals_the_values_of_rfc_3720_appendix_b4(data):
    assert crc32c(data) == RFC_3720[data]


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, "<u4").data])
def test_equals_a_bit_by_bit_loop_for_whatever_holds_the_bytes(form):
    for size in (0, 4, 1000, 100_000):
        assert crc32c(form(noise(size))) == bit_by_bit(noise(size))


def test_pieces_give_the_crc_of_the_whole():
    data = noise(5000)
    assert crc32c(data[1234:], crc32c(data[:1234])) == crc32c(data)


def test_the_mask_is_leveldbs():
    """By its definition (util/crc32c.h): rotate right by 15 bits, add a constant."""
    for crc in (0, 1, 0xFFFFFFFF, 0xE3069283):
        rotated = int(f"{crc:032b}"[-15:] + f"{crc:032b}"[:-15], 2)
        assert mask(crc) == (rotated + 0xA282EAD8) % (1 << 32)


def test_without_the_c_extension_python_gives_the_same():
    code = """
import sys, warnings
sys.modules["google_crc32c._crc32c"] = None
warnings.simplefilter("ignore")
import google_crc32c
from tf_simclr.files.contents import crc32c
print(google_crc32c.implementation, crc32c(memoryview(b"56789"), crc32c(bytearray(b"1234"))))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["python", str(0xE3069283)]
