"""Tables with a column of pictures: Parquet, and Arrow's files and streams, as Hugging Face's `datasets` writes them.

A picture is a struct of `bytes` and `path` (`datasets.Image`), or bytes; its class a number, whose names stand in the
schema (`datasets.ClassLabel`), or a text.  Columns may lie in structs: `sample.image`.

Pictures are read where they lie in the file, as far as they lie there as they are: in Arrow's files that are not
compressed, and in Parquet's plain pages, which `datasets` writes.  There each is looked for, and compared byte by byte.
Where one lies otherwise (snappy, zstd, dictionaries), all pictures of the shard are copied, once.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.data.rasters import is_picture
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.index import NO_LABEL, Columns, Copy, Listing
from tf_simclr.errors import InputError, check
from tf_simclr.files.contents import crc32c
from tf_simclr.files.places import shown
from tf_simclr.foreign import is_plain, parse_json, spend

_LABELS = ("label", "labels", "class", "cls", "target", "class_id", "category", "class_name", "label_name")
_TEXTS = ("class_name", "label_name", "class_text", "label_text", "text_label")
"""Names of columns with a class's words beside its number."""
_AT_ONCE = 64
"""Rows of Parquet that are in memory at a time."""
_PROBE = 48
"""Bytes by which a picture is looked for before all of it is compared."""
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED"}
"""Encodings that leave a picture's bytes as they are: the last two are of levels."""
_Locate = Callable[[Any], int | None]
"""A picture's bytes in memory → where they begin in the file; None where they do not lie in it."""


class _Elsewhere(Exception):
    """A picture does not lie in the file as it is."""


def parquet(path: Path, columns: Columns, *, copy: Copy) -> Listing:
    """The examples of a Parquet file.

    Raises:
        ValueError, pyarrow.ArrowException: it is damaged.
        InputError: no column, or more than one, can be the picture.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        data = opening.mapped(file)
        table = pq.ParquetFile(
            pa.BufferReader(pa.py_buffer(data)),
            pre_buffer=False,
            page_checksum_verification=True,  # of pages that have one; writers need not write any
        )
        first = next(table.iter_batches(_AT_ONCE, row_groups=[0]), None) if table.num_row_groups else None
        chosen = _Chosen.of(table.schema_arrow, first, columns=columns)

        def pieces() -> Iterator[tuple[Any, _Locate]]:
            names = [table.metadata.schema.column(i).path for i in range(table.metadata.num_columns)]
            leaf = chosen.image + ".bytes" * chosen.named
            wanted = chosen.roots(table.schema_arrow.names)
            for group in range(table.num_row_groups):
                chunk = table.metadata.row_group(group).column(names.index(leaf)) if leaf in names else None
                search = _search(data, chunk)
                for batch in table.iter_batches(_AT_ONCE, row_groups=[group], columns=wanted):
                    yield batch, search

        return _listed(path, pieces, chosen, columns=columns, copy=copy)


def _search(data: Any, chunk: Any) -> _Locate:
    """How pictures are found in a column's chunk of a row group: they come one after the other."""
    # In a plain page a value is its length in four bytes, then its bytes: a picture lies there as it is.
    plain = (
        chunk is not None
        and chunk.compression == "UNCOMPRESSED"
        and not chunk.has_dictionary_page
        and {*chunk.encodings} <= _PLAIN
    )
    place = chunk.data_page_offset if plain else 0
    end = place + chunk.total_compressed_size if plain else 0

    def locate(picture: Any) -> int | None:
        nonlocal place
        if not plain:
            return None
        # From where the last one ended: each byte of the chunk is looked at once, and equal pictures keep their order.
        begin = data.find(struct.pack("<I", len(picture)) + bytes(picture[:_PROBE]), place, end) + 4
        if begin < 4 or data[begin : begin + len(picture)] != bytes(picture):
            return None
        place = begin + len(picture)
        return begin

    return locate


def arrow(path: Path, columns: Columns, *, copy: Copy) -> Listing:
    """The examples of an Arrow file or stream.

    Raises:
        ValueError, pyarrow.ArrowException: it is damaged or cut off.
        InputError: no column, or more than one, can be the picture.
    """
    import pyarrow as pa

    with path.open("rb") as file:
        magic = file.read(6)
        whole = pa.py_buffer(opening.mapped(file))

        if magic[:4] == b"FEA1":
            raise ValueError("it is of Feather's version 1, which is no Arrow file: write it anew (version 2)")

        def batches() -> Any:
            source = pa.BufferReader(whole)
            if magic != b"ARROW1":
                return pa.ipc.open_stream(source)
            return pa.ipc.open_file(source)

        def each(reader: Any) -> Iterator[Any]:
            several = hasattr(reader, "num_record_batches")
            yield from map(reader.get_batch, range(reader.num_record_batches)) if several else reader

        # Arrow's arrays are views of the mapped file: what lies in it has an address within it.
        def locate(picture: Any) -> int | None:
            begin = picture.address - whole.address
            return begin if begin >= 0 and begin + len(picture) <= whole.size else None

        reader = batches()
        chosen = _Chosen.of(reader.schema, next(each(reader), None), columns=columns)
        wanted = chosen.roots(reader.schema.names)
        found = _listed(
            path, lambda: ((one.select(wanted), locate) for one in each(batches())), chosen, columns=columns, copy=copy
        )
    if magic != b"ARROW1":
        _check_end(whole)
    return found


def _check_end(whole: Any) -> None:
    """Refuses a stream without the mark of its end, which a reader takes for it wherever the bytes end.

    Raises:
        ValueError: so it is.
    """
    if whole.size >= 8 and whole[whole.size - 8 :].to_pybytes() != b"\xff\xff\xff\xff\0\0\0\0":
        raise ValueError("it is cut off: it has no mark of its end")


class _Chosen:
    """Which columns are the picture, its class, and the class's words.

    Attributes:
        image, label, text: names, with dots where a column lies in another; empty for none.
        named: whether a picture is a struct of `bytes` and maybe `path`.
        classes: names of the classes, where the schema has them.
        doubt: why there is no label where several columns could be it.
    """

    def __init__(self, image: str, *, named: bool):
        self.image, self.named = image, named
        self.label, self.text, self.doubt = "", "", ""
        self.classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: Any, first: Any, *, columns: Columns) -> "_Chosen":
        """By what somebody says, by Hugging Face's metadata, or by types, names and the first rows.

        Args:
            schema: the table's.
            first: its first rows, None where it has none.
            columns: what somebody says.

        Raises:
            InputError: no column, or more than one, can be the picture; or what is said is none.
        """
        # The picture first, since a column beside it is not its class because it is a number.
        kinds, features = dict(_leaves(schema)), _features(schema)
        found = cls._of_image(kinds, features, first=first, wanted=columns.image)
        typed = [name for name, one in features.items() if one.get("_type") == "ClassLabel" and name in kinds]
        usual = [key for name in _LABELS for key in kinds if key.rpartition(".")[2].lower() == name]
        strange = [f"{name} ({kinds[name]})" for name in usual if not _may_be_label(kinds[name])]
        usual = [name for name in usual if _may_be_label(kinds[name])]
        # What somebody says; the only column that Hugging Face's metadata call a class; the first with a usual name.
        if columns.label is not None:
            fits = columns.label in kinds and _may_be_label(kinds[columns.label])
            able = [name for name, kind in kinds.items() if _may_be_label(kind) and name != f"{found.image}.path"]
            check(fits, f"label_column must be a column of numbers or texts: {_list(able)}", label_column=columns.label)
            found.label = columns.label
        elif len(typed) == 1 or [name for name in typed if name in usual[:1]]:
            found.label = typed[0] if len(typed) == 1 else usual[0]
        elif typed:
            found.doubt = f"several columns may be the class; name one by label_column: {_list(typed)}"
        elif usual:
            found.label = usual[0]
        elif strange:
            found.doubt = f"a class must be a whole number or a text, and no column is one: {_list(strange)}"
        names = features.get(found.label, {}).get("names")
        if isinstance(names, list):
            found.classes = tuple(str(name) for name in names)
        texts = [name for name in kinds if name.rpartition(".")[2].lower() in _TEXTS and _is_text(kinds[name])]
        numbers = found.label and not _is_text(kinds[found.label]) and not found.classes
        found.text = texts[0] if numbers and texts else ""
        return found

    def roots(self, names: list[str]) -> list[str]:
        """The table's columns, of these names, that have what is chosen."""
        return list(dict.fromkeys(_split(name, names)[0] for name in (self.image, self.label, self.text) if name))

    @classmethod
    def _of_image(
        cls, kinds: dict[str, Any], features: dict[str, dict], *, first: Any, wanted: str | None
    ) -> "_Chosen":
        """The column of pictures."""
        structs = [name.removesuffix(".bytes") for name in kinds if name.endswith(".bytes") and _is_bytes(kinds[name])]
        plain = [name for name in kinds if _is_bytes(kinds[name]) and name.removesuffix(".bytes") not in structs]
        able = [*structs, *plain]
        if wanted is not None:
            name = wanted.removesuffix(".bytes")
            check(name in able, f"image_column must be a column of pictures: {_list(able)}", image_column=wanted)
            return cls(name, named=name in structs)
        # By the metadata, else the only column of bytes, else the only one whose first value is a picture.
        typed = [name for name, one in features.items() if one.get("_type") == "Image" and name in able]
        other = [name for name, one in features.items() if one.get("_type") not in (None, "Image", "Value")]
        found = typed or [name for name in able if name not in other]
        if not typed and len(found) > 1:
            found = [name for name in found if _begins_as_picture(first, name, named=name in structs)]
        rule = f"the table must have a column of pictures, bytes or a struct of bytes and path; it has {_list(kinds)}"
        lists = [name for name, kind in kinds.items() if _is_list_of_pictures(kind)]
        several = f"; of lists ({_list(lists)}) write a row for each picture" if lists else ""
        check(len(able) > 0 and len(found) > 0, rule + several)
        several = f"several columns hold pictures; name one by image_column: {_list(found)}"
        check(len(found) == 1, several)
        return cls(found[0], named=found[0] in structs)


def _list(names: Any) -> str:
    """Names of columns, for a sentence."""
    known = [shown(str(name)[:60]) for name in names]
    return ", ".join(known[:20]) + (" …" if len(known) > 20 else "") if known else "none"


def _leaves(schema: Any, before: str = "", deep: int = 6) -> Iterator[tuple[str, Any]]:
    """Name, with dots, and type of every column that holds values."""
    for field in schema:
        spend(items=1, outline=len(field.name) + 64)
        if hasattr(field.type, "num_fields") and str(field.type).startswith("struct<") and deep:
            yield from _leaves(list(field.type), f"{before}{field.name}.", deep - 1)
        else:
            yield before + field.name, field.type


def _features(schema: Any) -> dict[str, dict]:
    """Column, with dots → what Hugging Face's metadata say of it."""
    text = (schema.metadata or {}).get(b"huggingface")
    if not text:
        return {}
    content = parse_json(text)
    info = content.get("info") if isinstance(content, dict) else None
    top = info.get("features") if isinstance(info, dict) else None
    found: dict[str, dict] = {}

    def walk(node: Any, before: str, deep: int = 6) -> None:
        for name, one in node.items() if isinstance(node, dict) else ():
            if isinstance(one, dict) and isinstance(one.get("_type"), str):
                found[before + name] = one
            elif isinstance(one, dict) and deep:
                walk(one, f"{before}{name}.", deep - 1)

    walk(top, "")
    return found


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as of

    view = getattr(of, "is_binary_view", lambda _: False)
    return of.is_binary(kind) or of.is_large_binary(kind) or of.is_fixed_size_binary(kind) or view(kind)


def _is_list_of_pictures(kind: Any) -> bool:
    import pyarrow.types as of

    if not (of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    return _is_bytes(inner) or (of.is_struct(inner) and inner.get_field_index("bytes") >= 0)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as of

    view = getattr(of, "is_string_view", lambda _: False)
    whole = of.is_string(kind) or of.is_large_string(kind) or view(kind)
    return whole or (of.is_dictionary(kind) and _is_text(kind.value_type))


def _may_be_label(kind: Any) -> bool:
    """Whether a column holds numbers or texts, or lists of them, of which those with one element count."""
    import pyarrow.types as of

    if of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind):
        return of.is_integer(kind.value_type)
    if of.is_dictionary(kind):
        return _may_be_label(kind.value_type)
    return of.is_integer(kind) or of.is_floating(kind) or of.is_boolean(kind) or _is_text(kind)


def _begins_as_picture(first: Any, name: str, *, named: bool) -> bool:
    """Whether the first picture of a column is one; where there is no row, it may be."""
    if first is None or not first.num_rows:
        return True
    first.validate(full=True)
    column = _column(first, f"{name}.bytes" if named else name)
    value = next((one.as_py() for one in column if one.is_valid), b"")
    return not value or is_picture(value)


def _column(batch: Any, name: str) -> Any:
    """A column of a batch, of a struct that within it; what is null in the struct is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    root, *rest = _split(name, batch.schema.names)
    found = batch.column(batch.schema.get_field_index(root))
    for part in rest:
        found = pc.struct_field(found, part)
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    return found


def _split(name: str, roots: list[str]) -> list[str]:
    """The parts of a name with dots; a column's own name may have some."""
    # The longest column that the name begins with: a table may have `a` with `b` in it, and a column `a.b`.
    root = max((one for one in roots if name == one or name.startswith(f"{one}.")), key=len, default=name)
    rest = name[len(root) + 1 :]
    return [root, *(rest.split(".") if rest else [])]


def _listed(
    path: Path, pieces: Callable[[], Iterator[tuple[Any, _Locate]]], chosen: _Chosen, *, columns: Columns, copy: Copy
) -> Listing:
    """The examples of a table's pieces: read where they lie, or where that cannot be, copied."""
    try:
        return _gone_through(path, pieces, chosen, columns=columns, copy=None)
    except _Elsewhere:
        return _gone_through(path, pieces, chosen, columns=columns, copy=copy)


def _gone_through(
    path: Path,
    pieces: Callable[[], Iterator[tuple[Any, _Locate]]],
    chosen: _Chosen,
    *,
    columns: Columns,
    copy: Copy | None,
) -> Listing:
    """The examples; without a copy it stops at the first picture that does not lie in the file as it is.

    Raises:
        _Elsewhere: so it did.
    """
    found = Listing(classes=chosen.classes, column=chosen.image, doubt=chosen.doubt)
    row = -1
    for batch, locate in pieces():
        batch.validate(full=True)  # an Arrow file is memory: its offsets may point anywhere
        pictures = _buffers(_column(batch, chosen.image + ".bytes" * chosen.named))
        paths = _paths(batch, chosen)
        labels = _values(batch, chosen.label)
        texts = _values(batch, chosen.text)
        for picture, named, label, text in zip(pictures, paths, labels, texts, strict=True):
            row += 1
            spend(items=1, outline=64)
            name = f"{row}/{named.replace(chr(92), '/').rpartition('/')[2]}" if named else str(row)
            data = picture
            if picture is None and named:
                data = _from_file(path, named, anywhere=columns.anywhere)
            if data is None:
                found.left_out["rows without an image"] += 1
                continue
            begin = 0 if not len(data) else None if picture is None or copy is not None else locate(picture)
            if copy is not None:
                copy.begin()
                begin = copy.put(data)
            elif begin is None:
                raise _Elsewhere
            number, sound = _number(label)
            found.left_out[f"labels ({chosen.label}) that are no whole number, or several,"] += not sound
            words = label if isinstance(label, str) else text
            words = words if isinstance(words, str) else ""
            found.add(name, (begin, len(data)), label=number, text=words, origin=chosen.label, checksum=crc32c(data))
    return found


def _number(label: Any) -> tuple[int, bool]:
    """A class's number, -1 where there is none; and whether that is what stands there.

    Example:
        >>> _number(2.0), _number([3]), _number(None), _number("words"), _number(0.5), _number([0, 1])
        ((2, True), (3, True), (-1, True), (-1, True), (-1, False), (-1, False))
    """
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if label is None or isinstance(label, str) or label != label:  # NaN is pandas' way to have none
        return NO_LABEL, True
    whole = isinstance(label, bool | int) or (isinstance(label, float) and label.is_integer())
    return (int(label), True) if whole else (NO_LABEL, False)


def _buffers(array: Any) -> Iterator[Any]:
    """Each value's bytes where they lie in memory, None for what is null; a scalar's own would be a copy."""
    import pyarrow as pa

    large = pa.types.is_large_binary(array.type)
    if not (large or pa.types.is_binary(array.type)):
        array, large = array.cast(pa.large_binary()), True
    if not len(array):
        return
    # Values lie one after the other; `offsets` has where each begins, one more than there are.
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, np.int64 if large else np.int32)[array.offset : array.offset + len(array) + 1]
    for begin, end, valid in zip(places[:-1].tolist(), places[1:].tolist(), array.is_valid().to_pylist(), strict=True):
        yield (data.slice(begin, end - begin) if end > begin else b"") if valid else None


def _paths(batch: Any, chosen: _Chosen) -> list[str]:
    """The path that stands beside each picture; empty for none."""
    if not chosen.named:
        return [""] * batch.num_rows
    root, *rest = _split(chosen.image, batch.schema.names)
    kind = batch.schema.field(root).type
    for part in rest:
        kind = kind.field(part).type
    if kind.get_field_index("path") < 0 or not _is_text(kind.field("path").type):
        return [""] * batch.num_rows
    return [value if isinstance(value, str) else "" for value in _column(batch, f"{chosen.image}.path").to_pylist()]


def _values(batch: Any, name: str) -> list[Any]:
    return _column(batch, name).to_pylist() if name else [None] * batch.num_rows


def _from_file(path: Path, named: str, *, anywhere: bool) -> bytes | None:
    """A picture that is only named, which must lie below the shard's folder; empty where it is not there.

    Raises:
        InputError: it lies elsewhere.
    """
    if not anywhere and not is_plain(named):
        raise InputError(
            f"its pictures must be in it, or lie below its folder; one is only named: {shown(named[:200])}; write the "
            "data set with its pictures (datasets embeds them: to_parquet, save_to_disk)"
        )
    file = Path(named) if anywhere else path.parent / named
    try:
        return file.read_bytes()
    except OSError:
        return b""
