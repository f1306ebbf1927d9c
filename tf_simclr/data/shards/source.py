"""Shards as a source: every image is read where it lies, in any order, and by the process alone whose row it is.

The index tells where each image is (`index`).  So an epoch is a permutation of all images, as of a folder, however they
are stored; a run goes on exactly; and a process reads the bytes of its own rows of a batch and of no others.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_simclr import contents
from tf_simclr.contents import Say, silent
from tf_simclr.data import folders, images, rasters
from tf_simclr.data.shards import index, opening, tars, tfrecords
from tf_simclr.data.shards.index import NO_LABEL, Listing
from tf_simclr.data.sources import Indexed, Rows, Source, in_graph, missing_labels
from tf_simclr.errors import check
from tf_simclr.frameworks import tf
from tf_simclr.places import expanded, shown

_Fetch = Callable[[Path, int, int], bytes]
"""A shard and an image's place in it → the image's bytes."""


def _ranged(path: Path, offset: int, size: int) -> bytes:
    return opening.bytes_at(path, offset, size=size)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How shards of a kind are read."""

    what: str
    listing: Callable[[Path], Listing]
    fetch: _Fetch = _ranged


KINDS = {
    "tar": _Kind(what="a whole tar file of images (WebDataset)", listing=tars.listing),
    "tfrecord": _Kind(what="a whole TFRecord file of Examples with images", listing=tfrecords.listing),
}


@dataclass(frozen=True, kw_only=True)
class _Rows(Rows):
    """The images of shards: `images` are their numbers."""

    fetch: Callable[[int], bytes]

    def pixels(self, number: int) -> np.ndarray:
        encoded = self.fetch(int(self.images[number]))
        return rasters.rgb(rasters.upright(encoded) if self.upright else encoded)


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
    say: Say = silent,
) -> Source:
    """A split of a data set in shards: WebDataset's tars, or TFRecord files.

    Args:
        place: a folder of them, or one.
        split: whose name their names or folders have; without such names the images are divided by content, as those
            of a folder are.
        labelled: whether labels matter; by default they are taken where there are any.
        asked: the splits that a command asks for.
        fraction: share of each class that test and validation have; by default `folders.HELD_OUT`.
        whole: whether train may be all of shards without splits.
        seed: of the division.
        exif_orientation: whether pictures are turned as their EXIF orientation says.
        say: takes a line for the user where much has to be read.

    Raises:
        InputError: no shards, no such split, no image, one that is damaged or cut off, or labels that do not fit.
    """
    root = expanded(place)
    paths, part = opening.of_split(root, split, asked=asked)
    kind = KINDS[str(opening.kind_of(paths[0]))]
    found = index.of_all(paths, kind.listing, what=kind.what, say=say)
    base = root if root.is_dir() else root.parent
    stems = [shown(path.relative_to(base).as_posix()) for path in paths]
    left_out = sum((one.left_out for one in found), Counter())
    count = sum(len(one.names) for one in found)
    check(count > 0, f"the shards of {shown(root)} must hold at least one image", shards=len(paths), **_few(left_out))
    shard = np.repeat(np.arange(len(paths)), [len(one.names) for one in found])
    places = np.concatenate([np.array(one.places, np.int64).reshape(-1, 2) for one in found])
    names = [f"{stem}:{name}" for stem, one in zip(stems, found, strict=True) for name in map(shown, one.names)]
    labels, class_names, notes = _classes(
        np.concatenate([np.array(one.labels, np.int64) for one in found]),
        [text for one in found for text in one.texts],
        named=_class_file(base),
        origin=shown(root),
    )
    if labelled is False:
        labels, class_names = None, ()
    notes += [f"{number:,} {reason} of {shown(root)} left out" for reason, number in sorted(left_out.items()) if number]

    def fetch(number: int) -> bytes:
        return kind.fetch(paths[shard[number]], *places[number].tolist())

    chosen, division, origin = np.arange(count), None, f"{shown(root)} ({split})"
    if part is not None and not (whole and part == "train"):
        share = folders.HELD_OUT if fraction is None else fraction
        others = {folders.PARTS[name.lower()] for name in asked if name.lower() in folders.PARTS}
        digests = [contents.of_bytes(fetch(number)) for number in range(count)]
        chosen = folders.divided(
            digests,
            np.zeros(count, np.int64) if labels is None else labels,
            part=part,
            without=others,
            fraction=share,
            seed=seed,
            classes=class_names or ("",),
        )
        division = {"part": part, "images": len(chosen), "of": count, "held_out": share, "seed": seed}
        division["drawn_by"] = "content"
        how = f"{shown(root)} has no splits: {100 * share:g} % of each class are held out, drawn by content"
        notes.append(f"{how}; {part} has {len(chosen):,} of {count:,} images")
    rows = _Rows(
        images=chosen,
        names=np.array([f"{shown(base)}/{names[number]}" for number in chosen], object),
        labels=None if labels is None else labels[chosen],
        upright=exif_orientation,
        fetch=fetch,
    )
    own = [names[number] for number in chosen]
    targets = [] if labels is None else labels[chosen].tolist()

    @in_graph
    def read(number: Any) -> Any:
        encoded = tf.ensure_shape(tf.numpy_function(lambda one: fetch(int(one)), [number], tf.string), ())
        return images.upright(encoded) if exif_orientation else encoded

    return Indexed(
        origin=origin,
        num_examples=len(chosen),
        class_names=class_names,
        identity=lambda say=silent: [own, targets, contents.digests(paths, say=say), *["upright"] * exif_orientation],
        place=f"{shown(base)}/",
        read=read,
        here_alone=True,
        record=rows.tensors(),
        notes=tuple(notes),
        roster=contents.of_values(own, [part, seed] if division else []),
        division=division,
        rows=rows,
    )


def _few(counts: Counter[str]) -> dict[str, Any]:
    """What a message says of what was left out."""
    return {"left_out": dict(sorted(counts.items())[:5])} if counts else {}


def _class_file(base: Path) -> tuple[str, ...]:
    """Names of the classes, a line each, where `classes.txt` lies beside the shards."""
    path = base / "classes.txt"
    if not path.is_file() or path.stat().st_size > 1 << 24:
        return ()
    return tuple(shown(line) for line in path.read_text(encoding="utf-8").splitlines())


def _classes(
    labels: np.ndarray, texts: Iterable[str], *, named: tuple[str, ...], origin: str
) -> tuple[np.ndarray | None, tuple[str, ...], list[str]]:
    """Labels and names of classes: by number, or where no example has one by their words; and what to say."""
    texts = list(texts)
    if (labels == NO_LABEL).all() and all(texts):  # names alone
        classes = sorted(set(texts))
        return np.searchsorted(classes, texts).astype(np.int64), tuple(map(shown, classes)), []
    note = missing_labels(labels, origin)
    if note:
        return None, (), [note] if (labels != NO_LABEL).any() else []
    known: dict[int, set[str]] = {}
    for label, text in zip(labels.tolist(), texts, strict=True):
        known.setdefault(label, set()).add(text)
    count = int(labels.max()) + 1
    check(not named or len(named) >= count, f"classes.txt of {origin} must name each class", classes=count)
    by_text = [known.get(label, set()) for label in range(count)]
    fit = all(len(one) == 1 and "" not in one for one in by_text) and len(set.union(*by_text)) == count
    words = tuple(shown(next(iter(one))) for one in by_text) if fit else tuple(map(str, range(count)))
    return labels, named or words, []
