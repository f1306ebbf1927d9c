"""Which shards there are, of which split, and their bytes.

Those of a bucket lie in its mirror (`buckets`).  All that readers call is

    listed(place)                  the shards at a place
    stamp(path)                    by what a shard is known not to have changed
    written(path)                  the same in short, asked before each picture
    mapped(file)                   all of its bytes, read where they are looked at
    bytes_at(path, offset, size)   a range of it, from any thread

Nothing here loads a framework.
"""

import glob
import itertools
import mmap
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tf_simclr.data.folders import PARTS, entries
from tf_simclr.data.folders import listed as first_of
from tf_simclr.errors import InputError, check
from tf_simclr.files import read_json
from tf_simclr.files.places import BRACES, SHARDS_NOTE, braced, expanded, shown
from tf_simclr.foreign import is_plain

ENDINGS = {
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz"), "tar"),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".tfrec", ".record", ".records"), "tfrecord"),
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".array_record": "arrayrecord",
    ".arrayrecord": "arrayrecord",
}
"""Ending → kind of shard."""
_PACKED = ("tar", "tfrecord")
"""Kinds that may be compressed as a whole."""
_PACKINGS = (".gz", ".bz2", ".xz", ".zst")
"""How such a file ends behind its own ending."""
_COUNTED = re.compile(r"-\d{5,}-of-\d{5,}$")
"""How TensorFlow's tools number shards, after the ending."""
_NUMBERED = re.compile(r"-(\d{5,9})-of-(\d{5,9})(?!\d)")
"""Which shard of how many, wherever it stands in a name."""
_FOLDERS = ("data",)
"""Folders in which shards are looked for, beside those called like splits."""
_TABLES_OF_PICTURES = ("metadata.parquet",)
"""What lies beside pictures and is no shard: the table of Hugging Face's image folders."""
_MANY = 1_000_000
"""Shards that a pattern may mean."""


def kind_of(path: str | Path) -> str | None:
    """The kind of a shard by its name; None for what is none.

    Example:
        >>> kind_of("train-000001.tar"), kind_of("train-00000-of-01024"), kind_of("x.tfrecord-00000-of-00002")
        ('tar', 'tfrecord', 'tfrecord')
        >>> kind_of("train-00000-of-00002.parquet"), kind_of("a.tar.gz"), kind_of("a.json.gz")
        ('parquet', 'tar', None)
    """
    name = os.path.basename(path).lower()
    if name in _TABLES_OF_PICTURES:
        return None
    packing = next((ending for ending in _PACKINGS if name.endswith(ending)), "")
    bare = _COUNTED.sub("", name.removesuffix(packing))
    ending = os.path.splitext(bare)[1]
    kind = ENDINGS.get(ending, "tfrecord" if _COUNTED.search(name) and not ending else None)
    return kind if not packing or kind in _PACKED else None


def listed(place: Path, *, names: Collection[str] = ()) -> list[Path]:
    """The shards at a place, sorted.

    Args:
        place: a file; a folder, of which those of its splits' folders and of `data` count, too; or a pattern:
            `train-{000000..000146}.tar` as WebDataset has it, `{train,val}-*.parquet` as a shell has it.
        names: other folders to look in: those called like the splits that somebody asks for.

    Raises:
        InputError: a shard that a range names is not there.
    """
    place = expanded(place)
    if place.is_file():
        return [place] if kind_of(place) else []
    if place.is_dir():
        return _without_tables(sorted(_inside(place, {*PARTS, *_FOLDERS, *names, *_splits_of_saved(place)})))
    return _matching(place)


def _without_tables(files: list[Path]) -> list[Path]:
    """The same without what img2dataset writes beside its tars: `00000.parquet`, a table of what is in `00000.tar`."""
    tars = {file.with_suffix("") for file in files if file.suffix == ".tar"}
    return [file for file in files if file.suffix != ".parquet" or file.with_suffix("") not in tars]


def _inside(folder: Path, names: set[str], *, deep: int = 2) -> Iterator[Path]:
    """The shards of a folder, and of the folders of these names in it."""
    # `datasets.save_to_disk` notes its own files; leftovers of its `map` beside them are none.
    saved = folder / "state.json"
    noted = _files_of_saved(saved) if saved.is_file() else None
    with os.scandir(folder) as inside:
        for entry in inside:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if deep and (entry.name in names or entry.name.lower() in names):
                    yield from _inside(path, names, deep=deep - 1)
            elif kind_of(path) and entry.is_file() and (noted is None or entry.name in noted):
                yield path


def _splits_of_saved(folder: Path) -> set[str]:
    """The folders of `datasets.DatasetDict.save_to_disk`, which are called as somebody liked."""
    note = folder / "dataset_dict.json"
    if not note.is_file():
        return set()
    splits = read_json(note, advice="save the data set again").get("splits")
    return {name for name in splits if isinstance(name, str) and is_plain(name)} if isinstance(splits, list) else set()


def _files_of_saved(note: Path) -> set[str] | None:
    """The files of `datasets.Dataset.save_to_disk`: what `map` leaves beside them is none; None for another note."""
    files = read_json(note, advice="save the data set again").get("_data_files")
    if not isinstance(files, list):
        return None
    return {str(file.get("filename")) for file in files if isinstance(file, dict)}


def _is_pattern(place: Path) -> bool:
    """Whether this means several files: braces, or a shell's wildcards, where nothing of that name is there."""
    text = str(place)
    return bool(BRACES.search(text) or glob.has_magic(text)) and not os.path.lexists(expanded(place))


def _matching(place: Path) -> list[Path]:
    """The shards that a pattern means, sorted; those that braces name must be there."""
    if not _is_pattern(place):
        return []
    found: set[str] = set()
    absent: list[str] = []
    for text in itertools.islice(braced(str(place)), _MANY):
        if os.path.isfile(text):
            found.add(text)
        elif glob.has_magic(text):
            found |= {one for one in glob.iglob(text) if os.path.isfile(one)}
        else:
            absent.append(text)
    if absent and found:
        raise InputError(f"each shard that {shown(place)} means must exist; missing: {first_of([*map(shown, absent)])}")
    return sorted(path for path in map(Path, found) if kind_of(path))


def are_at(place: Path) -> bool:
    """Whether a place holds shards and no pictures: a tar left beside its pictures does not take their place."""
    place = expanded(place)
    found = _is_pattern(place) or bool(listed(place))
    return found and (not place.is_dir() or all(reason for _, reason in entries(place)))


def check_without_columns(place: Path, **columns: str | None) -> None:
    """Refuses names of columns where pictures are.

    Raises:
        InputError: one of them is given.
    """
    given = {name: value for name, value in columns.items() if value is not None}
    check(not given, f"{' and '.join(given)} must be left out: {shown(place)} holds pictures, and no shards", **given)


def of_split(place: Path, split: str, *, asked: Collection[str] = ()) -> tuple[list[Path], str | None]:
    """The shards of a split: of a folder of its name, or with its name as a word in theirs.

    Args:
        place: where they lie.
        split: train, validation, test, or another word.
        asked: other names that are splits, since somebody asks for them.

    Returns:
        The shards, and None; or all shards and the part of them that is meant, where they have no splits.

    Raises:
        InputError: there is none, they are of several kinds, the split is missing beside others, or shards of it that
            the names of the others count are missing.
    """
    groups = by_split(place, names=(split, *asked))
    meant = PARTS.get(split.lower(), split.lower())
    undivided = set(groups) == {""} and meant in PARTS.values()
    if meant in groups or undivided:
        files = groups["" if undivided else meant]
        _check_all_there(place, files)
        return files, meant if undivided else None
    known = ", ".join(sorted(name for name in groups if name)) or "train, validation and test, since none is named"
    raise InputError(f"the split of the shards in {shown(place)} must be one of {known}. Received: {split!r}")


def _check_all_there(place: Path, files: list[Path]) -> None:
    """Refuses part of a set of shards, and two sets in one another, where the place is a folder or a `*`.

    Whoever names shards one by one, or by their numbers in braces, may want a part.

    Raises:
        InputError: so it is.
    """
    if not expanded(place).is_dir() and (not glob.has_magic(str(place)) or _NAMES_NUMBERS.search(str(place))):
        return
    sets: dict[tuple[Path, str, str | None], list[tuple[int, int]]] = {}
    for file in files:
        if found := _NUMBERED.search(file.name):
            known = sets.setdefault((file.parent, file.name[: found.start()], kind_of(file)), [])
            known.append((int(found[1]), int(found[2])))
    advice = "copy them anew, or name those that are meant by their numbers, {00000..00003}"
    for (folder, stem, _), numbered in sets.items():
        name, count = shown(folder / stem), numbered[0][1]
        rule = f"the shards {name}-… must be of one set"
        check({of for _, of in numbered} == {count}, f"{rule}; {advice}", of=sorted({of for _, of in numbered}))
        numbers = {number for number, _ in numbered}
        check(len(numbers) == len(numbered), f"{rule}, each number once; {advice}", shards=len(numbered), of=count)
        # Some count from 1.
        first = int(0 not in numbers and count in numbers)
        absent = (f"{number:05d}" for number in range(first, first + count) if number not in numbers)
        some = [*itertools.islice(absent, 4)]
        few = count - len(numbers)
        rule = f"all {count:,} shards {name}-… must be there, but {few:,} {'is' if few == 1 else 'are'} missing"
        check(not some, f"{rule}: {first_of(some)}; {advice}")
    folders = {file.parent for file in files}
    advice = "run prepare-shards again, copy them anew, or name those that are meant by their numbers, {000000..000003}"
    for folder in {*folders, *(one.parent for one in folders)}:
        # Other files than shards, such as classes, do not come with a pattern.
        gone = [name for name in lacking(folder) or () if kind_of(name) and (folder / name).parent in folders]
        check(not gone, f"{shown(folder)} must hold whole what its {SHARDS_NOTE} names; {advice}", missing=gone[:4])


def shard_lengths(folder: Path) -> dict[str, list[int]]:
    """Split → the records of each of its shards, as TensorFlow Datasets notes them in a folder; nothing without a note.

    Raises:
        InputError: the note is damaged.
    """
    note = folder / "dataset_info.json"
    if not note.is_file():
        return {}
    advice = "prepare the data set again, or copy it anew"
    splits = read_json(note, advice=advice).get("splits")
    if not isinstance(splits, list):  # Hugging Face's has another form
        return {}
    try:
        return {str(one["name"]): [*map(int, one.get("shardLengths", ()))] for one in splits}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{shown(note)} must be what TensorFlow Datasets wrote, but is damaged; {advice}") from error


def check_lengths(shards: Sequence[Path], held: Sequence[int]) -> None:
    """Refuses a shard that is cut off between two records, so whole by itself, where a note beside it counts them.

    Args:
        shards: the files.
        held: the records of each.

    Raises:
        InputError: so it is, or a note is damaged.
    """
    noted = {folder: shard_lengths(folder) for folder in {shard.parent for shard in shards}}
    for shard, records in zip(shards, held, strict=True):
        if found := _NUMBERED.search(shard.name):
            # `pets-train.tfrecord-00001-of-00004`, of the split train.
            split = shard.name[: found.start()].split(".")[0].rpartition("-")[2]
            lengths, number = noted[shard.parent].get(split, []), int(found[1])
            told = lengths[number] if len(lengths) == int(found[2]) > number else records
            rule = f"{shown(shard)} must hold the {told} records that dataset_info.json beside it counts"
            advice = "one of them is of another set, or cut off; copy them anew"
            check(told == records, f"{rule}, but holds {records}: {advice}")


_NAMES_NUMBERS = re.compile(r"\{\d")
"""A pattern that tells numbers of shards."""


def lacking(folder: Path) -> list[str] | None:
    """Files that a note of `prepare-shards` names and that are not there, or not whole; None: no note names any.

    Raises:
        InputError: the note is damaged.
    """
    note = folder / SHARDS_NOTE
    files = read_json(note, advice="prepare the shards again").get("files") if note.is_file() else None
    if not isinstance(files, dict):  # of an earlier version, or somebody else's
        return None
    plain = {name: size for name, size in files.items() if is_plain(name)}
    return [name for name, size in plain.items() if not _has_size(folder / name, size)]


def _has_size(path: Path, size: Any) -> bool:
    try:
        return path.stat().st_size == size
    except (OSError, ValueError):
        return False


def by_split(place: Path, *, names: Collection[str] = ()) -> dict[str, list[Path]]:
    """Split → its shards; those that no split names under an empty one.

    Args:
        place: where they lie.
        names: words that are splits, beside the usual ones.

    Raises:
        InputError: there is none, or they are of several kinds.
    """
    files = listed(place, names=names)
    endings = ".tar, .tfrecord, .parquet, .arrow, .array_record, train-00000-of-00010"
    check(bool(files), f"there must be shards ({endings}){_instead(place)}", place=shown(place))
    kinds = sorted({str(kind_of(file)) for file in files})
    check(len(kinds) == 1, "the shards of a place must be of one kind; give the folder of one of them", kinds=kinds)
    return _groups(files, base_of(place), {name.lower() for name in names} | {*_splits_of_saved(expanded(place))})


def _instead(place: Path) -> str:
    """What to do where a place has no shards, if that can be told."""
    if "::" in str(place):
        return "; several places are a pattern, {a,b}"
    if not (place := expanded(place)).is_dir():
        return ""
    below = [entry.name for entry in sorted(os.scandir(place), key=lambda one: one.name) if entry.is_dir()]
    found = [name for name in below[:_LOOKED_AT] if any(map(kind_of, os.listdir(place / name)))]
    advice = "give one of these, or a pattern such as */*"
    return f"; some lie in {first_of([*map(shown, found)])}: {advice}" if found else ""


_LOOKED_AT = 1000
"""Folders in a folder without shards that are looked into."""


def base_of(place: Path) -> Path:
    """The folder below which a place's shards lie, from which their names are told."""
    place = expanded(place)
    if place.is_dir():
        return place
    while _is_pattern(place):
        place = place.parent
    return place if place.is_dir() else place.parent


def splits_in(place: Path) -> list[str]:
    """The splits that shards are named after."""
    return sorted(name for name in by_split(place) if name)


def _groups(files: list[Path], place: Path, names: set[str]) -> dict[str, list[Path]]:
    """Split → its shards; the others under no name.

    The folder counts before the name, and of a name its first word that is a split.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        # The innermost folder first; then words of the name, without digits, and with them (`test2`).
        folders = [part.lower() for part in reversed(file.relative_to(place).parts[:-1])]
        parts = [*folders, *re.split(r"[^a-z]+", file.name.lower()), *re.split(r"[^a-z0-9]+", file.name.lower())]
        word = next((part for part in parts if part in PARTS or part in names), "")
        groups.setdefault(PARTS.get(word, word), []).append(file)
    return groups


def stamp(path: Path) -> list[int]:
    """Size and times of a shard, by which it is known not to have changed.

    Raises:
        OSError: it is gone.
    """
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def written(path: Path) -> tuple[int, int]:
    """Size and time of what was written last into a shard: a picture is not where it was in another content.

    Raises:
        OSError: it is gone.
    """
    size, time, _ = stamp(path)
    return size, time


def mapped(file: BinaryIO) -> Any:
    """The bytes of what was opened, each read when it is looked at; of what has no number, all of them at once."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, AttributeError, ValueError):
        file.seek(0)
        return file.read()


def bytes_at(path: Path, offset: int, *, size: int) -> bytes:
    """A range of a shard; from any thread.

    Raises:
        OSError: it cannot be read, or is shorter.
    """
    with path.open("rb", buffering=0) as file:  # a descriptor of its own, so that threads do not move each other's
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise OSError(f"{path} has been cut off")
    return data
