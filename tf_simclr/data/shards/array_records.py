"""ArrayRecord files, as tfds and Grain read them: of Examples with an encoded image, or of images alone.

The engine is `array_record`, which finds any record by its number and compares the hashes of what it reads.
"""

import threading
from pathlib import Path
from typing import Any

from tf_simclr.data.shards import opening, tfrecords
from tf_simclr.data.shards.index import Columns, Copy, Listing
from tf_simclr.foreign import DAMAGED, spend

_AT_ONCE = 64
"""Records in memory at a time."""
_KEPT = 256
"""Readers that stay open."""
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
"""What the engine advises for reading records in any order."""


def listing(path: Path, columns: Columns, *, copy: Copy) -> Listing:
    """The examples of an ArrayRecord file; a record that is not what was written is an example that is damaged.

    Raises:
        ValueError, RuntimeError: the file is cut off or damaged, or its records are no pictures.
        InputError: its Examples have no such columns.
    """
    found = Listing()
    reader = _opened(path)
    for start in range(0, (count := reader.num_records()), _AT_ONCE):
        rows = list(range(start, min(start + _AT_ONCE, count)))
        for row, record in zip(rows, _records(reader, rows), strict=True):
            spend(items=1, outline=64)
            if record is None:
                found.add(str(row), (row, 0, tfrecords.NOTHING), damaged=True)
            else:
                tfrecords.note(found, str(row), place=(row,), data=record, start=0, end=len(record), columns=columns)
    reader.close()
    return found.not_empty()


def _opened(path: Path) -> Any:
    """A reader.

    Raises:
        RuntimeError, ValueError: the file is none, cut off or damaged.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path), _OPTIONS)
    if not reader.ok():  # the engine says why when it is asked for a record
        reader.read([0])
        raise ValueError("it is no whole ArrayRecord file")
    return reader


def _records(reader: Any, rows: list[int]) -> list[bytes | None]:
    """The records, None for one that is damaged."""
    try:
        return list(reader.read(rows))
    except DAMAGED:
        return [None] if len(rows) == 1 else [one for row in rows for one in _records(reader, [row])]


_IDLE: dict[tuple[Any, ...], list[Any]] = {}
"""Readers that nobody uses at the moment, by file and stamp."""
_LOCK = threading.Lock()


def fetch(file: Path, place: tuple[int, ...]) -> bytes:
    """The image of a record: its place is the record's number, the image's place within it, and its length.

    Raises:
        RuntimeError, ValueError: it cannot be read, or is not what was written.
    """
    row, offset, size = place
    if size == tfrecords.NOTHING:
        raise ValueError(f"a record of {file.name} is damaged")
    key = (file, *opening.stamp(file))
    # A reader serves one thread at a time: each takes one that is idle, or opens another, and gives it back.
    with _LOCK:
        idle = _IDLE.pop(key, [])
        reader = idle.pop() if idle else None
        _IDLE[key] = idle  # the last one that was asked for
    if reader is None:
        reader = _opened(file)
    record = reader.read([row])[0]
    closing = []
    with _LOCK:
        _IDLE.setdefault(key, []).append(reader)
        # Those of the files that were longest not asked for are closed; outside the lock, as it takes time.
        while sum(map(len, _IDLE.values())) > _KEPT:
            closing += _IDLE.pop(next(iter(_IDLE)))
    for one in closing:
        one.close()
    return record[offset : offset + size]
