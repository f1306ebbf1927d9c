"""Zips, every member of which is there: Python's reader does not compare how many its directory has with its end.

A damaged length in an entry of the directory swallows the entries behind it, without a word.

References:
    PKWARE, APPNOTE.TXT 4.3.16 (end of central directory)
"""

import struct
import zipfile
from collections import Counter
from pathlib import Path

from tf_simclr.errors import InputError
from tf_simclr.foreign import TENSOR, checked_name, spend

_END = struct.Struct("<4s4H2IH")
_LONGEST_COMMENT = 0xFFFF
_MANY = 0xFFFF
"""A number of members that stands in another place."""


def opened_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip whose directory is whole; to be called, like what reads it, inside of `foreign.reading`.

    Raises:
        InputError: its directory is damaged, or names a member twice.
    """
    archive = zipfile.ZipFile(path)
    try:
        names = archive.namelist()
        # A name costs more than its letters: Python makes an object with some twenty fields of each.
        spend(items=TENSOR * len(names))
        for name in names:
            checked_name(name)
        count = _number_of_members(path)
        if count not in (len(names), _MANY):
            raise InputError(f"its directory must have {count} members, but has {len(names)}; copy it again")
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise InputError(f"its directory has the member {twice[0]} twice")
    except BaseException:
        archive.close()
        raise
    return archive


def _number_of_members(path: Path) -> int:
    """How many members the end of a zip says there are."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        # The end record lies in the last bytes, before a comment of at most 65,535.
        start = max(0, size - _END.size - _LONGEST_COMMENT)
        file.seek(start)
        tail = file.read()
    # From the end: the mark may stand in the data by chance.
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise InputError("it has no end of a directory; copy it again")
    return int(_END.unpack_from(tail, place)[4])
