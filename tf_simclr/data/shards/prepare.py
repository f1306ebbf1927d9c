"""`prepare-shards`: a folder of images, or shards of another kind, as shards.

    OUT/train/train-000000.tar, …      a folder a split, as the images had them; without splits OUT/images-000000.tar, …
    OUT/train/classes.txt              the classes, a line each, where there are any
    OUT/prepared.json                  of what, and how; the files with their sizes

Pictures keep their bytes, classes their order.  The order of a split's images is drawn by the seed.  Everything is
made in `.OUT.making` beside OUT, a whole shard after the other, and renamed when all are there: what was stopped goes
on, and nobody sees a part.  Where some is missing later, as of a copy that broke off, readers refuse the rest, and the
same command makes what is missing.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tf_simclr.data import folders, rasters
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.source import from_shards
from tf_simclr.data.shards.writers import FORMATS, Example
from tf_simclr.data.sources import Rows, Source, from_folder
from tf_simclr.errors import InputError, check
from tf_simclr.files import begun_with, clear_unfinished, contents, read_json, replacing, replacing_path, write_json
from tf_simclr.files.contents import Say, silent
from tf_simclr.files.lock import hold
from tf_simclr.files.places import SHARDS_NOTE, check_local, expanded, shown
from tf_simclr.foreign import DAMAGED

_Format = Literal["tar", "tfrecord", "parquet", "arrayrecord"]
_WITHOUT = "images"
"""How shards are called where there are no splits."""


def prepare_shards(
    image_dir: str | Path,
    out: str | Path,
    *,
    format: _Format = "tar",
    shard_size: int = 256,
    seed: int = 0,
    image_column: str | None = None,
    label_column: str | None = None,
    say: Say = silent,
) -> Path:
    """Makes shards of a folder of images, or of other shards, with its splits and classes.

    Args:
        image_dir: a folder of images, its splits and classes as everywhere; or shards.
        out: a folder that is not there yet; what was stopped before goes on.
        format: of the shards.
        shard_size: MiB of pictures in a shard at most; a larger picture has one of its own.
        seed: of the order of a split's images.
        image_column: of shards, what is the picture.
        label_column: of shards, what is the class.
        say: takes lines for the user.

    Returns:
        The folder, which is whole.

    Raises:
        InputError: no images, one that cannot be read, a folder that holds something else, or no room on the disk.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pets = Path(folder, "pets", "cat")
        ...     pets.mkdir(parents=True)
        ...     Image.new("RGB", (8, 8)).save(pets / "1.png")
        ...     out = prepare_shards(pets.parent, Path(folder, "shards"), format="tar")
        ...     sorted(path.name for path in out.iterdir())
        ['classes.txt', 'images-000000.tar', 'prepared.json']
    """
    check(format in get_args(_Format), f"format must be one of {', '.join(FORMATS)}", format=format)
    check(shard_size >= 1, "shard_size must be at least 1", shard_size=shard_size)
    check(seed >= 0, "seed must be at least 0", seed=seed)
    check_local(out)
    # 1. The images, by split, and what tells them from others.
    root, out = expanded(image_dir), expanded(out)
    found = _splits(root, {"image_column": image_column, "label_column": label_column}, say)
    for source in found.values():
        for line in source.notes:
            say(line)
    settings = {
        "format": format,
        "shard_size": shard_size,
        "seed": seed,
        "splits": {name: _noted(source, say) for name, source in found.items()},
    }
    # 2. What is there already: the same, which is whole, or something else, which is not touched.
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        note = out / SHARDS_NOTE
        same = out.is_dir() and note.is_file() and read_json(note).get("settings") == settings
        check(same, f"{shown(out)} must not be there yet, or hold these shards; name another folder, or remove it")
        gone = opening.lacking(out)
        if gone == []:
            say(f"{shown(out)} is there and whole")
            return out
        if gone is None:
            say(f"{shown(out)} has no list of its files, as of an earlier version; what is missing is made")
        else:
            say(f"{shown(out)} lacks {len(gone):,} of its files, which are made again: {folders.listed(gone)}")
        for name in gone or ():
            (out / name).unlink(missing_ok=True)
        making = out
    else:
        making = out.with_name(f".{out.name}.making")
    # 3. All shards, each whole, beside the folder or what it lacks in it; then it gets its name.
    with hold(making, say=say):
        other = begun_with(making / SHARDS_NOTE, settings, within="settings")
        advice = f"remove {shown(making)} to begin anew"
        check(not other, f"{shown(making)} was begun with other images or options; {advice}", differing=sorted(other))
        clear_unfinished(making)
        _check_room(making, found)
        for number, (name, source) in enumerate(found.items()):
            _write(source, making / name, split=name or _WITHOUT, settings=settings, seed=[seed, number], say=say)
        _note_files(making)
    if making != out:
        if out.is_dir():
            out.rmdir()
        making.rename(out)
    return out


def _note_files(folder: Path) -> None:
    """Adds the files with their sizes to the note, which stays the oldest: sent first, it tells that others follow."""
    note = folder / SHARDS_NOTE
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: path.stat().st_size for name, path in paths.items() if name not in (SHARDS_NOTE, "lock")}
    known, before = read_json(note), note.stat()
    if known.get("files") != files:
        write_json(note, known | {"files": files})
        os.utime(note, ns=(before.st_atime_ns, before.st_mtime_ns))


def _splits(root: Path, columns: dict[str, Any], say: Say) -> dict[str, Source]:
    """Split → its images; all of them under an empty name where there are no splits."""
    if opening.are_at(root):
        groups = opening.by_split(root)
        names = [name for name in groups if name]
        unnamed = len(groups.get("", ()))
        check(not (names and unnamed), f"each shard of {shown(root)} must be of a split, or none", without=unnamed)
        return {name: from_shards(root, name or "train", say=say, **columns) for name in names or [""]}
    opening.check_without_columns(root, **columns)
    looked = folders.look(root)
    if not folders.splits_of(root):
        return {"": from_folder(looked)}
    rule = f"each image of {shown(root)} must lie in the folder of a split; move the others away"
    check(not looked.loose, rule, loose=folders.listed([shown(file.name) for file in looked.loose]))
    return {name: from_folder(root / name) for name in looked.classes}


def _noted(source: Source, say: Say) -> dict[str, Any]:
    """What tells these images from others."""
    known = source.identity(say) if source.identity is not None else None
    return {
        "images": source.num_examples,
        "classes": list(source.class_names),
        "content": contents.of_values(known, list(source.class_names)),
    }


def _rows(source: Source) -> Rows:
    """The rows of a source of files or shards."""
    if source.rows is None:
        raise InputError(f"{source.origin} must be a folder of images, or of shards")
    return source.rows


def _check_room(folder: Path, found: dict[str, Source]) -> None:
    """Refuses to begin what the disk cannot hold.

    Raises:
        InputError: so it is.
    """
    need = sum(sum(_sizes(source)) for source in found.values())
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(folder).free
    rule = f"{shown(folder.parent)} must have room for {need / 2**30:,.1f} GiB; free some, or name another disk"
    check(need - there < free, rule, free=f"{free / 2**30:,.1f} GiB")


def _sizes(source: Source) -> list[int]:
    """Bytes of each picture.

    Raises:
        InputError: one is not there.
    """
    rows = _rows(source)
    try:
        return [rows.size(number) for number in range(len(rows))]
    except OSError as error:
        raise InputError(f"each image of {source.origin} must be readable ({error})") from error


def _write(source: Source, folder: Path, *, split: str, settings: dict[str, Any], seed: list[int], say: Say) -> None:
    """The shards of a split that are not there yet, each whole or not at all."""
    order = np.random.default_rng(seed).permutation(source.num_examples)
    bounds = _bounds(np.array(_sizes(source), np.int64)[order].tolist(), settings["shard_size"] << 20)
    kind = FORMATS[settings["format"]]
    names = [kind.name.format(split=split, number=i, count=len(bounds)) for i in range(len(bounds))]
    missing = [i for i, name in enumerate(names) if not (folder / name).exists()]
    done = f" ({len(names) - len(missing):,} are there)" if len(missing) < len(names) else ""
    say(f"{source.origin}: {source.num_examples:,} images in {len(names):,} shards{done}")
    folder.mkdir(parents=True, exist_ok=True)
    clear_unfinished(folder)
    for i in missing:
        with replacing_path(folder / names[i]) as temporary:
            kind.write(temporary, _examples(source, order, *bounds[i]), classes=source.class_names)
    if source.labelled:
        with replacing(folder / "classes.txt") as [file]:
            file.write("".join(f"{name}\n" for name in source.class_names).encode())


def _bounds(sizes: list[int], most: int) -> list[tuple[int, int]]:
    """First and last + 1 of each shard's images, which have so many bytes at most.

    Example:
        >>> _bounds([3, 3, 9, 1, 1], 6)
        [(0, 2), (2, 3), (3, 5)]
    """
    starts, total = [0], 0
    for number, size in enumerate(sizes):
        if total and total + size > most:
            starts.append(number)
            total = 0
        total += size
    return list(zip(starts, [*starts[1:], len(sizes)], strict=True))


def _examples(source: Source, order: np.ndarray, start: int, stop: int) -> Iterator[Example]:
    """The images of a shard, in their order.

    Raises:
        InputError: one cannot be read.
    """
    rows = _rows(source)
    for position in range(start, stop):
        number = int(order[position])
        name = str(rows.names[number]).removeprefix(source.place)
        try:
            encoded = rows.encoded(number)
        except DAMAGED as error:
            rule = f"each image must be readable, but {rows.names[number]} is not ({error})"
            raise InputError(f"{rule}; mend it, or move it away") from error
        label = int(rows.labels[number]) if source.labelled and rows.labels is not None else None
        ending = os.path.splitext(name)[1].lower()
        yield Example(
            key=f"{position:08}",
            encoded=encoded,
            ending=ending if ending in rasters.ENDINGS else rasters.ending_of(encoded),
            name=name,
            label=label,
            words="" if label is None else source.class_names[label],
        )
