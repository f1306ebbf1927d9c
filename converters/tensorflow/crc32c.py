"""CRC-32C, and the masked form in which TensorFlow and LevelDB store it.

google-crc32c computes at some 14 GB/s by the processor's own instruction; where its C extension cannot be loaded it
takes over in Python, a thousand times slower, and warns when it is imported (`docs/conversion.md`).

References:
    RFC 3720, Appendix B.4 (the polynomial); LevelDB's `util/crc32c.h` (the mask)
"""

import google_crc32c
import numpy as np

_MASK_DELTA = 0xA282EAD8


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC-32C of bytes, or of what came before (`crc`) followed by them.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
        >>> crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
        True
    """
    content = np.frombuffer(data, np.uint8)  # the C extension takes no memoryview, and Python none of NumPy's numbers
    return int(google_crc32c.extend(crc, content if google_crc32c.implementation == "c" else content.data))


def mask(crc: int) -> int:
    """The stored form: turned right by 15 bits, plus a constant, as the CRC of data that hold their own CRC is weak.

    Example:
        >>> hex(mask(0))
        '0xa282ead8'
    """
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF
