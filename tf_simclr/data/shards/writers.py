"""Shards as others write them: WebDataset's tars, TFRecord, ArrayRecord, and Parquet as Hugging Face's library has it.

A picture's bytes stay as they are.  The same examples give the same bytes of a shard.
"""

import io
import itertools
import json
import struct
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tf_simclr.files.contents import masked_crc32c
from tf_simclr.foreign.wire import encode, encode_varint

_ROWS = 100
"""Rows of a Parquet file that are read at once, as `datasets` has it for pictures."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture and what is known of it.

    Attributes:
        key: tells it from the others, in their order.
        encoded: the picture's file.
        ending: of the file, with its dot.
        name: where it came from, as text.
        label: the number of its class; None without.
        words: the name of its class.
    """

    key: str
    encoded: bytes
    ending: str
    name: str
    label: int | None = None
    words: str = ""


def _write_tar(path: Path, examples: Iterable[Example], *, classes: Sequence[str] = ()) -> None:
    """`KEY.jpg`, `KEY.cls` with the number of the class, and `KEY.json` with the name."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for one in examples:
            members = [(one.ending, one.encoded)]
            members += [(".cls", str(one.label).encode())] if one.label is not None else []
            for ending, data in [*members, (".json", json.dumps({"name": one.name}).encode())]:
                member = tarfile.TarInfo(one.key + ending)  # of no time and no owner: the same bytes each time
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _write_tfrecord(path: Path, examples: Iterable[Example], *, classes: Sequence[str] = ()) -> None:
    """Records of Examples, each with its checksums."""
    with path.open("wb") as file:
        for one in examples:
            record = _example_of(one)
            length = struct.pack("<Q", len(record))
            for part in (length, _masked(length), record, _masked(record)):
                file.write(part)


def _masked(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def _write_array_record(path: Path, examples: Iterable[Example], *, classes: Sequence[str] = ()) -> None:
    """The same Examples; each is compressed alone, so that it is read alone."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for one in examples:
        writer.write(_example_of(one))
    writer.close()


def _example_of(one: Example) -> bytes:
    """A `tf.train.Example`: `image/encoded`, `image/filename`; where there are classes `label`, `image/class/text`."""
    # Always in one order: the same example has the same bytes.
    features = {"image/encoded": encode(1, encode(1, one.encoded))}
    if one.label is not None:
        features["image/class/text"] = encode(1, encode(1, one.words))
    features["image/filename"] = encode(1, encode(1, one.name))
    if one.label is not None:
        features["label"] = encode(3, encode(1, encode_varint(one.label)))
    entries = (encode(1, encode(1, key) + encode(2, value)) for key, value in features.items())
    return encode(1, b"".join(entries))


def _write_parquet(path: Path, examples: Iterable[Example], *, classes: Sequence[str] = ()) -> None:
    """A struct of `bytes` and `path`, and the class; what they are stands in the schema, where `datasets` looks for it.

    Nothing is compressed, as pictures are: so they can be read where they lie.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})}
    features: dict[str, dict] = {"image": {"_type": "Image"}}
    if classes:
        columns["label"], features["label"] = pa.int64(), {"names": list(classes), "_type": "ClassLabel"}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(columns, metadata=noted)
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    options |= {"write_page_checksum": True}  # by which flipped bits are known
    with pq.ParquetWriter(path, schema, **options) as writer:
        left = iter(examples)
        while some := [*itertools.islice(left, _ROWS)]:
            content: dict[str, list] = {"image": [{"bytes": one.encoded, "path": one.name} for one in some]}
            if classes:
                content["label"] = [one.label for one in some]
            writer.write_table(pa.table(content, schema=schema))


@dataclass(frozen=True, kw_only=True)
class _Format:
    """How shards of a format are written and called.

    Attributes:
        write: puts examples into a file.
        name: of the file, with `{split}`, `{number}` and `{count}`.
    """

    write: Callable[..., None]
    name: str


FORMATS = {
    "tar": _Format(write=_write_tar, name="{split}-{number:06}.tar"),
    "tfrecord": _Format(write=_write_tfrecord, name="{split}.tfrecord-{number:05}-of-{count:05}"),
    "parquet": _Format(write=_write_parquet, name="{split}-{number:05}-of-{count:05}.parquet"),
    "arrayrecord": _Format(write=_write_array_record, name="{split}.array_record-{number:05}-of-{count:05}"),
}
