"""CRC-32C, and the masked form in which TensorFlow and LevelDB store it.

References:
    RFC 3720, Appendix B.4 (the polynomial); LevelDB's `util/crc32c.h` (the mask)
"""

import functools

import numpy as np

try:
    import google_crc32c
except ImportError:  # a C extension that not every machine has; NumPy is about 25 times slower
    google_crc32c = None  # type: ignore[assignment]

POLYNOMIAL = 0x82F63B78
"""Castagnoli's, bits reversed."""

MASK_DELTA = 0xA282EAD8

LANES = 1 << 14
"""Pieces that the NumPy version checks side by side."""


def crc32c(data: bytes | bytearray | memoryview | np.ndarray, crc: int = 0) -> int:
    """The CRC-32C of a bytes-like object, or of what came before (`crc`) followed by it.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
        >>> crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
        True
    """
    content = np.frombuffer(data, np.uint8)
    return int(google_crc32c.extend(crc, content)) if google_crc32c else extend(content, crc)


def mask(crc: int) -> int:
    """The stored form, as the CRC of data that contains its own CRC would be weak.

    Example:
        >>> unmask(mask(12345))
        12345
    """
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def unmask(stored: int) -> int:
    rotated = (stored - MASK_DELTA) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


def extend(data: np.ndarray, crc: int = 0) -> int:
    """The same with NumPy only.

    The data are cut into `LANES` pieces of equal length whose registers advance together, four bytes a step, and are
    then joined: a register moves past n zero bytes by a linear map, so joining needs that map only.
    """
    register = crc ^ 0xFFFFFFFF
    words = len(data) // (4 * LANES)
    head = data[: 4 * LANES * words]
    if words:
        pieces = registers(head.view("<u4").reshape(LANES, words))
        past = shift(4 * words)
        for piece in pieces.tolist():
            register = apply(past, register) ^ piece
    table = byte_table().tolist()
    for byte in data[len(head) :].tolist():
        register = table[(register ^ byte) & 255] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def registers(words: np.ndarray) -> np.ndarray:
    """The register after each row of `words`, `(lanes, n)`, starting at 0."""
    low, high = word_tables()
    state = np.zeros(len(words), np.uint32)
    for start in range(0, words.shape[1], 64):  # 64 columns at a time: a whole transpose would double the memory
        for column in np.ascontiguousarray(words[:, start : start + 64].T):
            state ^= column
            state = low[state & 0xFFFF] ^ high[state >> 16]
    return state


@functools.cache
def byte_table() -> np.ndarray:
    """The register after one byte, by the register's last byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1)
    return table


@functools.cache
def word_tables() -> tuple[np.ndarray, np.ndarray]:
    """The register after four zero bytes, by its lower and by its upper half."""
    half = np.arange(1 << 16, dtype=np.uint32)
    return zeros(half, 4), zeros(half << 16, 4)


def zeros(register: np.ndarray, count: int) -> np.ndarray:
    """Registers after `count` zero bytes."""
    for _ in range(count):
        register = byte_table()[register & 255] ^ (register >> 8)
    return register


@functools.lru_cache(maxsize=64)
def shift(count: int) -> tuple[tuple[int, ...], ...]:
    """The map past `count` zero bytes, as four tables: one for each byte of the register."""
    bits = zeros(np.uint32(1) << np.arange(32, dtype=np.uint32), 1)
    result = np.uint32(1) << np.arange(32, dtype=np.uint32)
    while count:
        result = times(bits, result) if count & 1 else result
        bits, count = times(bits, bits), count >> 1
    byte = np.arange(256, dtype=np.uint32)
    return tuple(tuple(times(result, byte << np.uint32(8 * i)).tolist()) for i in range(4))


def times(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """A linear map over bits, `matrix[i]` being the image of bit i, applied to each 32-bit vector."""
    chosen = (vectors[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return np.asarray(np.bitwise_xor.reduce(chosen * matrix, axis=1))


def apply(tables: tuple[tuple[int, ...], ...], register: int) -> int:
    a, b, c, d = tables
    return a[register & 255] ^ b[register >> 8 & 255] ^ c[register >> 16 & 255] ^ d[register >> 24]
