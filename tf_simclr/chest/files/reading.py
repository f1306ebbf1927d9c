"""A radiograph from one file, whatever its kind.

DICOM, PNG and JPEG are told apart by their content.  What cannot be shown faithfully is refused with the reason.
"""

import stat
from pathlib import Path

from tf_simclr.chest.files import dicom, pictures
from tf_simclr.chest.files.radiograph import MAX_BYTES, Radiograph
from tf_simclr.errors import InputError, check


def read(
    source: str | Path | bytes, *, windowed: bool = True, modalities: tuple[str, ...] = ("CR", "DX")
) -> Radiograph:
    """Reads a radiograph from a file or its bytes.

    Args:
        source: DICOM, PNG (8 or 16 bits, grey, RGB or with alpha) or JPEG.
        windowed: apply a DICOM's own VOI LUT or window; otherwise the full range of its stored bits.
        modalities: DICOM modalities that count as radiographs: computed and digital radiography.

    Raises:
        InputError: the file is missing, damaged, of another kind, too large, or not a single radiograph.
    """
    name = "the upload" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else contents(Path(source))
    check(len(content) <= MAX_BYTES, f"{name} must have at most {MAX_BYTES >> 20} MB", megabytes=len(content) >> 20)
    if content[128:132] == b"DICM":
        return dicom.read(content, name, windowed=windowed, modalities=modalities)
    if content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return pictures.read(content, name)
    raise InputError(f"{name} must be a DICOM, PNG or JPEG file, which its first bytes say it is not")


def contents(path: Path) -> bytes:
    """The bytes of a file that is not too large to be one radiograph.

    Only a regular file has an end: a device or a pipe would be read for ever.
    """
    try:
        check(stat.S_ISREG(path.stat().st_mode), f"{path} must be a file, not a folder, device or pipe")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # whatever its size is said to be
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise InputError(f"{path} must be a readable file ({getattr(error, 'strerror', None) or error})") from error
    check(len(content) <= MAX_BYTES, f"{path} must have at most {MAX_BYTES >> 20} MB")
    return content
