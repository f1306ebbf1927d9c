"""Shards as a source: every image is read where it lies, in any order, and by the process alone whose row it is.

The index tells where each image is (`index`).  So an epoch is a permutation of all images, as of a folder, however they
are stored; a run goes on exactly; and a process reads the bytes of its own rows of a batch and of no others.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr.buckets import local
from tf_simclr.data import folders, images
from tf_simclr.data.shards import array_records, index, opening, tables, tars, tfrecords
from tf_simclr.data.shards.index import NO_LABEL, Columns, Listing, Reader
from tf_simclr.data.sources import Indexed, Rows, Source, in_graph, missing_labels, only_class
from tf_simclr.errors import InputError, check
from tf_simclr.files import contents
from tf_simclr.files.contents import Say, silent
from tf_simclr.files.places import shown
from tf_simclr.foreign import DAMAGED, reading
from tf_simclr.frameworks import tf

_Fetch = Callable[[Path, tuple[int, ...]], bytes]
"""Where a shard's images are read, and the place of one → its bytes."""
_FEW = 3
"""Examples that a note names."""


def _ranged(path: Path, place: tuple[int, ...]) -> bytes:
    return opening.bytes_at(path, place[0], size=place[1])


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How shards of a kind are read."""

    what: str
    listing: Reader
    fetch: _Fetch = _ranged


KINDS = {
    "tar": _Kind(what="a whole tar file of images (WebDataset)", listing=tars.listing),
    "tfrecord": _Kind(
        what="a whole TFRecord file of Examples with images", listing=tfrecords.listing, fetch=tfrecords.fetch
    ),
    "parquet": _Kind(what="a whole Parquet file with a column of pictures", listing=tables.parquet),
    "arrow": _Kind(what="a whole Arrow file with a column of pictures", listing=tables.arrow),
    "arrayrecord": _Kind(
        what="a whole ArrayRecord file of Examples with images",
        listing=array_records.listing,
        fetch=array_records.fetch,
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Rows(Rows):
    """The images of shards: `images` are their numbers."""

    fetch: Callable[[int], bytes]
    length: Callable[[int], int]

    def encoded(self, number: int) -> bytes:
        return self.fetch(int(self.images[number]))

    def size(self, number: int) -> int:
        return self.length(int(self.images[number]))


def from_shards(
    place: str | Path,
    split: str = "train",
    *,
    labelled: bool | None = None,
    asked: Collection[str] = (),
    fraction: float | None = None,
    whole: bool = True,
    seed: int = 0,
    exif_orientation: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    say: Say = silent,
) -> Source:
    """A split of a data set in shards: WebDataset's tars, TFRecord, ArrayRecord, Parquet or Arrow files.

    Args:
        place: a folder of them, one, or a pattern (`train-{000000..000146}.tar`).
        split: whose name their names or folders have; without such names the images are divided by content, as those
            of a folder are.
        labelled: whether labels matter; by default they are taken where there are any.
        asked: the splits that a command asks for, whose classes are counted together; by default those of all.
        fraction: share of each class that test and validation have; by default `folders.HELD_OUT`.
        whole: whether train may be all of shards without splits.
        seed: of the division.
        exif_orientation: whether pictures are turned as their EXIF orientation says.
        image_column: what is the picture, where several things could be: a column, a feature, a tar's ending.
        label_column: what is the class.
        say: takes a line for the user where much has to be read.

    Raises:
        InputError: no shards, no such split, no image, one that is damaged or cut off, columns that are not there or
            can be read in two ways, or labels that do not fit.
    """
    place = local(place, images=True)
    paths, part = opening.of_split(place, split, asked=asked)
    groups = opening.by_split(place, names=(split, *asked))
    # Nothing is held back from a training without labels that asks for no test.
    if part == "train" and whole:
        part = None
    # The splits that a command asks for must count their classes alike, so each looks at the others' labels.
    wanted = {folders.PARTS.get(name.lower(), name.lower()) for name in asked} if asked else {*groups}
    division = None
    if part is not None:
        division = folders.Division.of(part, asked=asked, fraction=fraction, seed=seed)
    return of_files(
        paths,
        base=opening.base_of(place),
        origin=f"{shown(place)} ({split})",
        place=shown(place),
        beside=[path for name in groups if name in wanted for path in groups[name] if path not in paths],
        further=[path for name in groups if name not in wanted for path in groups[name] if path not in paths],
        columns=Columns(image=image_column, label=label_column),
        labelled=labelled,
        division=division,
        exif_orientation=exif_orientation,
        say=say,
    )


def all_of(
    place: str | Path, *, image_column: str | None = None, exif_orientation: bool = False, say: Say = silent
) -> Source:
    """Every picture of shards, of whatever split, without labels.

    Args:
        place: as of `from_shards`.
        image_column: what is the picture, where several things could be.
        exif_orientation: whether pictures are turned as their EXIF orientation says.
        say: takes a line for the user where much has to be read.

    Raises:
        InputError: as `from_shards`.
    """
    place = local(place, images=True)
    groups = opening.by_split(place)
    return of_files(
        [path for _, files in sorted(groups.items()) for path in files],
        base=opening.base_of(place),
        origin=shown(place),
        place=shown(place),
        columns=Columns(image=image_column),
        labelled=False,
        exif_orientation=exif_orientation,
        say=say,
    )


def of_files(
    paths: Sequence[Path],
    *,
    base: Path,
    origin: str,
    place: str,
    beside: Sequence[Path] = (),
    further: Sequence[Path] = (),
    columns: Columns,
    labelled: bool | None = None,
    division: folders.Division | None = None,
    taken: np.ndarray | None = None,
    exif_orientation: bool = False,
    say: Say = silent,
) -> Source:
    """The examples of some shards of one kind.

    Args:
        paths: the shards.
        base: the folder below which their names are told.
        origin: what they are called.
        place: what the data set is called that they are a part of.
        beside: other shards of the data set, whose classes are counted with.
        further: its other ones, which are looked at where the meaning of a label hangs on them.
        columns: what is the picture, and what the class.
        labelled: whether labels matter; by default they are taken where there are any.
        division: which part is meant of a set without splits.
        taken: numbers of the examples that are taken; by default all.
        exif_orientation: whether pictures are turned as their EXIF orientation says.
        say: takes a line for the user where much has to be read.

    Raises:
        InputError: as `from_shards`.
    """
    paths = list(paths)
    kind = KINDS[str(opening.kind_of(paths[0]))]
    # 1. What is in each shard: names, places and classes, read once and kept for the shard's content.
    listings = partial(index.of_all, read=kind.listing, what=kind.what, columns=columns, say=say)
    found = listings(paths)
    opening.check_lengths(paths, [len(one.names) + one.left_out[tfrecords.NO_IMAGE] for one in found])
    left_out = sum((one.left_out for one in found), Counter())
    count = sum(len(one.names) for one in found)
    check(count > 0, f"the shards of {place} must hold at least one image", shards=len(paths), **_few(left_out))
    # Number of an example → its shard, and its row within it: two arrays of the length of all examples.
    sizes = [len(one.names) for one in found]
    shard = np.repeat(np.arange(len(paths)), sizes)
    within = np.concatenate([np.arange(size) for size in sizes])
    stems = [shown(path.relative_to(base).as_posix()) if path.is_relative_to(base) else path.name for path in paths]
    names = [f"{stem}:{name}" for stem, one in zip(stems, found, strict=True) for name in map(shown, one.names)]
    damaged = np.concatenate([np.isin(np.arange(size), one.damaged) for size, one in zip(sizes, found, strict=True)])
    # 2. Classes.  Other shards are only read where the meaning of a label hangs on them, so they come as functions.
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    notes: list[str] = []
    if labelled is not False:
        labels, class_names, notes = _classes(
            found,
            lambda: listings(beside),
            lambda: listings(further),
            base=base,
            folder=paths[0].parent,
            damaged=damaged,
            origin=place,
            columns=columns,
            needed=bool(labelled),
        )
    notes += [f"{number:,} {reason} of {place} left out" for reason, number in sorted(left_out.items()) if number]
    if damaged.any():
        first = ", ".join(names[row] for row in np.flatnonzero(damaged)[:_FEW])
        notes.append(f"{damaged.sum():,} records of {place} are damaged (checksum), and cannot be read: {first}")

    def fetch(number: int) -> bytes:
        one, row = found[shard[number]], within[number]
        # Where a picture was, another content has another one, or a part of one, and this one's label.
        if one.copied < 0 and opening.written(one.file) != one.stamp:
            raise OSError(f"{shown(one.file)} was written anew since it was opened")
        data = kind.fetch(one.file, one.places[row])
        if one.checksums[row] not in (index.OWN, contents.crc32c(data)):
            reason = "it is not what it was when its index was made"
            raise ValueError(f"a picture of {shown(one.file)} is damaged: {reason}")
        return data

    # 3. Which of them are taken: all, those that a split's syntax names, or a part by content.
    chosen, noted = np.arange(count) if taken is None else taken, None
    if division is not None:
        of_class = np.zeros(count, np.int64) if labels is None else labels
        digests = [_digest(fetch, number) for number in range(count)]
        chosen = division.numbers(digests, of_class, classes=class_names)
        noted = division.noted(len(chosen), of=count)
        notes.append(division.told(place, len(chosen), of=count))
    # 4. The source.  Its rows are numbers; bytes are read when a row is asked for.
    rows = _Rows(
        images=chosen,
        names=np.array([f"{shown(base)}/{names[number]}" for number in chosen], object),
        labels=None if labels is None else labels[chosen],
        upright=exif_orientation,
        fetch=fetch,
        length=lambda number: found[shard[number]].places[within[number]][-1],
    )
    own = [names[number] for number in chosen]
    targets = [] if labels is None else labels[chosen].tolist()
    seen = [next(one.column for one in found if one.names)] if any(columns.__dict__.values()) else []

    @in_graph
    def read(number: Any) -> Any:
        encoded = tf.ensure_shape(tf.numpy_function(lambda one: fetch(int(one)), [number], tf.string), ())
        return images.upright(encoded) if exif_orientation else encoded

    return Indexed(
        origin=origin,
        num_examples=len(chosen),
        class_names=class_names,
        only=only_class(None if labels is None else labels[chosen], class_names),
        identity=lambda say=silent: [
            own,
            targets,
            contents.digests(paths, say=say),
            *seen,
            *["upright"] * exif_orientation,
        ],
        place=f"{shown(base)}/",
        read=read,
        here_alone=True,
        record=rows.tensors(),
        notes=tuple(notes),
        roster=contents.of_values(own, [division.part, division.seed] if division else [], seen),
        division=noted,
        rows=rows,
    )


def _digest(fetch: Callable[[int], bytes], number: int) -> str | None:
    """The digest of an image's bytes; None where they cannot be read."""
    try:
        return contents.of_bytes(fetch(number))
    except DAMAGED:
        return None


def _few(counts: Counter[str]) -> dict[str, Any]:
    """What a message says of what was left out."""
    return {"left_out": dict(sorted(counts.items())[:5])} if counts else {}


def _class_file(folder: Path, base: Path, label: str) -> tuple[str, ...]:
    """Names of the classes, a line each, where they lie beside the shards: `classes.txt`, or as tfds writes them.

    Raises:
        InputError: it is no such list.
    """
    for place in dict.fromkeys((folder, base)):
        for name in ("classes.txt", f"{label.replace('/', '-')}.labels.txt"):
            path = place / name
            if path.is_file() and path.stat().st_size <= 1 << 24:
                with reading(path, "a list of the classes' names, a line each, in UTF-8"):
                    names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
                    check(all(map(str.strip, names)), "no line between two names may be empty")
                return tuple(map(shown, names))
    return ()


def _classes(
    found: list[Listing],
    beside: Callable[[], list[Listing]],
    further: Callable[[], list[Listing]],
    *,
    base: Path,
    folder: Path,
    damaged: np.ndarray,
    origin: str,
    columns: Columns,
    needed: bool,
) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """Labels and names of classes, and what to say.

    A class is a number whose name the shards or a file beside them have; a number whose words stand beside it; a number
    alone; or words alone, sorted.  What is damaged has any label: its image is never learned from.

    Raises:
        InputError: labels and names do not fit, or several columns may be the class.
    """
    # 1. Where several columns could be the class, or some examples have it from elsewhere, none is guessed.
    labels, texts = _together(found)
    sound = ~damaged
    ways = sum((one.origins for one in found), Counter())
    doubt = next((one.doubt for one in found if one.doubt), "")
    if len(ways) > 1 and not doubt:
        several = ", ".join(f"{shown(way)} ({number:,} of {len(labels):,})" for way, number in sorted(ways.items()))
        doubt = f"not all images have their class from the same place; name one by label_column: {several}"
    way = next(iter(ways), "")
    if doubt:
        if needed:
            raise InputError(f"{origin}: {doubt}")
        return None, (), [f"{origin} is taken without labels: {doubt}"]
    if not sound.any():
        return None, (), []
    # 2. Words alone, or some images without a number: another way, or no labels.
    own = {one.classes for one in found if one.names}
    two = {f"shard {number}": list(one[:_FEW]) for number, one in enumerate(sorted(own)[:2])}
    check(len(own) == 1, f"the shards of {origin} must have the same classes, in the same order", **two)
    named = next(iter(own)) or _class_file(folder, base, way)
    numbers = labels[sound]
    if (numbers == NO_LABEL).all():
        given: dict[str, Any] = {"sound": sound, "named": named, "way": way, "columns": columns}
        return _by_words(texts, beside, **given, origin=origin, needed=needed)
    note = missing_labels(numbers, origin)
    if note:
        return None, (), [note]
    # 3. Without names, the classes are those of all splits together: one may lack the last of them.
    if not named:
        more, words = _together(beside())
        every, every_word = np.concatenate([numbers, more]), [*_where(texts, sound), *words]
    else:
        every, every_word = numbers, _where(texts, sound)
    if way == tfrecords.FROM_ONE and every.min() >= 1 and "" in every_word:
        every_number = np.concatenate([every, _together(further())[0]])  # without words a 0 anywhere tells
    else:
        every_number = every
    # 4. Whether the first class is 0 or 1.  ImageNet's own files count from 1, others under the same name from 0: a 0
    #    anywhere, in a split that nobody asked for, too, tells.
    labels = np.where(sound, labels, 0)
    if way == tfrecords.FROM_ONE:
        first = every_number[every_number > NO_LABEL]
        if not first.any():
            return None, (), [missing_labels(np.full(len(first), NO_LABEL), origin)]
        if first.min() >= 1:  # ImageNet's way; who has a class 0 counts from there
            labels, every = np.where(sound, labels - 1, 0), np.maximum(every - 1, NO_LABEL)
    count = int(every.max()) + 1
    check(not named or len(named) >= count, f"the class names of {origin} must be one for each class", classes=count)
    # 5. Names: those of the shards, else the words beside the numbers, if each number has one word and each word one
    #    number; else the numbers themselves.
    known: dict[int, set[str]] = {}
    for label, text in zip(every.tolist(), every_word, strict=True):
        known.setdefault(label, set()).add(text)
    by_text = [known.get(label, set()) for label in range(count)]
    fit = all(len(one) == 1 and "" not in one for one in by_text) and len(set.union(*by_text)) == count
    words_of = tuple(shown(next(iter(one))) for one in by_text) if fit else tuple(map(str, range(count)))
    return labels, tuple(map(shown, named)) or words_of, []


def _by_words(
    texts: list[str],
    beside: Callable[[], list[Listing]],
    *,
    sound: np.ndarray,
    named: tuple[str, ...],
    way: str,
    columns: Columns,
    origin: str,
    needed: bool,
) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """Labels that are words alone.

    Raises:
        InputError: there are none, and it matters.
    """
    given = _where(texts, sound)
    if not way:
        advice = "label_column names what is the class, where it is called otherwise"
        check(not needed, f"{origin} must have labels to learn from or to test on; {advice}")
        return None, (), []
    # Folders: which of a path's parts is the class shows only when all paths are seen, of other splits, too.
    if way == tars.FOLDER:
        more = {text for one in beside() if {*one.origins} == {way} for text in one.texts}
        known = tars.class_of_folders({*given, *more} - {""})
        texts, more = [known.get(text, text) for text in texts], {known.get(text, text) for text in more}
        given = _where(texts, sound)
    else:
        more = set() if named else {text for one in beside() if {*one.origins} == {way} for text in one.texts}
    missing = sum(not text for text in given)
    if missing:
        if missing < len(given):
            return None, (), [f"{origin} is taken without labels: {missing:,} of {len(given):,} images have none"]
        return None, (), [missing_labels(np.full(missing, NO_LABEL), origin)]
    # More different texts than half of the images: captions, not classes.
    if way == "txt" and columns.label is None and 2 * len({*given}) > len(given):
        advice = "--label_column txt takes them for classes"
        return None, (), [f"{origin} is taken without labels: its texts (.txt) are captions, {advice}"]
    strange = sorted({*given} - {*named}) if named else []
    notes = [f"the list of classes beside {origin} is not used: it lacks {folders.listed(strange)}"] if strange else []
    classes = list(named) if named and not strange else sorted({*given} | more - {""})
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number.get(text, 0) for text in texts], np.int64), tuple(map(shown, classes)), notes


def _where(texts: list[str], chosen: np.ndarray) -> list[str]:
    return [text for text, taken in zip(texts, chosen, strict=True) if taken]


def _together(found: list[Listing]) -> tuple[np.ndarray, list[str]]:
    """The labels and words of all examples, one shard after the other."""
    labels = [np.array(one.labels, np.int64) for one in found]
    return np.concatenate([np.zeros(0, np.int64), *labels]), [text for one in found for text in one.texts]
