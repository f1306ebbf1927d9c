"""CRC-32C: published values, and the NumPy version against the C one and against a bit-by-bit loop."""

import numpy as np
import pytest

from converters.tensorflow import crc32c as module
from converters.tensorflow.crc32c import LANES, crc32c, extend, mask, unmask


def bit_by_bit(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def noise(size: int) -> np.ndarray:
    return np.random.RandomState(size).randint(0, 256, size, dtype=np.uint8)


RFC_3720 = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(reversed(range(32))): 0x113FDB5C,
}


@pytest.mark.parametrize("data", RFC_3720)
def test_equals_the_values_of_rfc_3720_appendix_b4(data):
    assert crc32c(data) == extend(np.frombuffer(data, np.uint8)) == RFC_3720[data]


@pytest.mark.parametrize("size", [0, 1, 7, 1000, 4 * LANES - 1, 4 * LANES, 4 * LANES + 1, 12 * LANES + 5])
def test_the_numpy_version_equals_the_c_version_at_every_remainder_of_its_lanes(size):
    pytest.importorskip("google_crc32c")
    data = noise(size)
    assert extend(data) == crc32c(data)
    assert extend(data, 12345) == crc32c(data, 12345)


def test_the_numpy_version_equals_a_bit_by_bit_loop_past_one_round_of_lanes():
    data = noise(4 * LANES + 100)
    assert extend(data) == bit_by_bit(data.tobytes())


def test_without_the_c_version_numpy_takes_over(monkeypatch):
    monkeypatch.setattr(module, "google_crc32c", None)
    assert crc32c(b"123456789") == 0xE3069283


def test_pieces_give_the_crc_of_the_whole():
    data = noise(5000)
    assert crc32c(data[1234:], crc32c(data[:1234])) == crc32c(data)


def test_mask_and_unmask_are_inverse_and_the_mask_is_leveldbs():
    for crc in (0, 1, 0xFFFFFFFF, 0xE3069283):
        assert unmask(mask(crc)) == crc
    assert mask(0) == 0xA282EAD8
