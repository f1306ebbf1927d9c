"""Folders of images: which files are pictures, what the folders mean, and a division where there are no splits.

A folder of images is laid out in one of three ways:

    splits    pets/train/cat/1.jpg, pets/test/dog/2.jpg    a folder a split, in it a folder a class (or none)
    classes   pets/cat/1.jpg, pets/dog/2.jpg               a folder a class, and no splits: divided by content
    flat      pets/1.jpg, pets/2.jpg                       images without labels

Nothing is passed over in silence: what is no picture by its ending, a link to nothing, a class without a picture, all
are counted and named in `Folder.notes`.  Names are bytes that need not be UTF-8; `places.shown` makes text of them.
"""

import dataclasses
import functools
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from tf_simclr.buckets import local
from tf_simclr.data.rasters import ENDINGS
from tf_simclr.errors import InputError, check, meant
from tf_simclr.files import contents
from tf_simclr.files.places import shown

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test",), "test"),
}
"""Names of folders that are splits where nothing speaks against it, and the part that each means."""
_OTHER_SPLITS = frozenset({"unlabelled", "unlabeled", "unsupervised", "extra", "dev", "eval", "evaluation", "holdout"})
"""Names that may stand beside them."""
HELD_OUT = 0.2
"""Share of each class to test on where nothing else is asked for."""
_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})
"""Files that Windows leaves in folders of pictures, as hidden as those with a dot in front are elsewhere."""
_NOTES = (".json", ".lock")
"""Endings of what libraries note beside a data set."""
_NAMED = 5
"""Files that a note names."""
_LAYOUT = "ROOT/CLASS/image.jpg, or ROOT/train/CLASS/image.jpg and ROOT/test/CLASS/image.jpg"


@dataclasses.dataclass(frozen=True)
class Folder:
    """The pictures below a folder.

    Attributes:
        root: the folder.
        files: pictures in their order, sorted by name folder by folder.
        left_out: the other files, with the reason.
    """

    root: Path
    files: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]

    @functools.cached_property
    def below(self) -> tuple[str, ...]:
        """The pictures' names below the root, with `/` between folders."""
        # By the length of what they all begin with: a million paths take a second so, and half a minute part by part.
        start = 0 if self.root == Path() else len(os.path.join(self.root, ""))
        names = (os.fspath(file)[start:] for file in self.files)
        return tuple(names) if os.sep == "/" else tuple(name.replace(os.sep, "/") for name in names)

    @property
    def loose(self) -> list[Path]:
        """Pictures in the folder itself."""
        return [file for file, name in zip(self.files, self.below, strict=True) if "/" not in name]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The sub-folders with pictures, sorted by name."""
        return tuple(sorted({name.split("/", 1)[0] for name in self.below if "/" in name}))

    @property
    def roster(self) -> str:
        """Tells this list of names from others, wherever the folder lies."""
        # Names alone, a zero byte between them, which no name holds: 100,000 files need not be read for it.
        return hashlib.blake2b(b"\0".join(map(os.fsencode, self.below)), digest_size=contents.SIZE).hexdigest()

    def notes(self, *, labelled: bool) -> list[str]:
        """What a user should know of what is not taken: counts and the first names, a line a reason."""
        # One line a reason, with the count and the first names.
        lines = []
        for reason in sorted({reason for _, reason in self.left_out}):
            names = [shown(file.relative_to(self.root)) for file, why in self.left_out if why == reason]
            count = f"{len(names):,} file{'s' if len(names) > 1 else ''} of {shown(self.root)}"
            lines.append(f"{count} left out, {reason}: {listed(names)}")
        if labelled:
            empty = sorted(map(shown, {*_folders_in(self.root)} - {*self.classes}))
            if empty:
                lines.append(f"no class, since no file in it can be read as a picture: {listed(empty)}")
        return lines

    def labels(self) -> np.ndarray:
        """`(n,)` the number of each picture's class.

        Raises:
            InputError: a picture lies in no class folder, or the classes look like splits.
        """
        root = shown(self.root)
        # All loose: there are no classes.  Some loose: whose class would they be?
        loose = self.loose
        if loose and len(loose) == len(self.files):
            rule = f"images with labels must lie in class folders, {_LAYOUT}"
            raise InputError(f"{rule}; those of {root} lie in it itself")
        if loose:
            rule = f"each image of a labelled folder must lie in a class folder, but {shown(loose[0])} does not"
            raise InputError(f"{rule}; move it, or read the folder without labels")
        names = {name.lower() for name in self.classes}
        # Folders that are all named as splits are splits, and not classes named so.
        if names & PARTS.keys() and names <= PARTS.keys() | _OTHER_SPLITS:
            first = shown(self.root / self.classes[0])
            raise InputError(f"class folders must hold classes, but those of {root} look like splits; give {first}")
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number[name.split("/", 1)[0]] for name in self.below], np.int64)


def look(folder: str | Path) -> Folder:
    """Finds the pictures below a folder, at any depth; links are followed, but not in circles.

    Hidden files and folders, whose names begin with a dot, are passed over.

    Raises:
        InputError: there is no such folder, it cannot be listed, or no picture is in it.
    """
    root = local(folder, images=True)
    check(root.is_dir(), "the image folder must exist", folder=shown(folder))
    found: list[tuple[Path, str]] = list(entries(root))
    files = tuple(path for path, reason in found if not reason)
    left_out = tuple((path, reason) for path, reason in found if reason)
    if not files:
        endings = f"{', '.join(('.jpg', '.png', '.gif', '.bmp', '.webp', '.tif'))} and {len(ENDINGS) - 6} more"
        others = [shown(path.relative_to(root)) for path, _ in left_out]
        came = {"others": f"{len(others):,} files: {listed(others)}"} if others else {}
        rule = f"a folder of images must hold at least one file of the kinds {endings}"
        check(False, rule, folder=shown(root), **came)
    return Folder(root, files, left_out)


def entries(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, str]]:
    """Each file below a folder with why it is no picture, nothing for pictures; sorted by name in each folder."""
    # The folder's real place among those above it is a circle of links.
    real = folder.resolve()
    if real in above:
        return
    try:
        with os.scandir(folder) as listing:
            inside = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"the folder {shown(folder)} must be readable ({error.strerror})") from error
    for entry in inside:
        # Hidden files, and what Windows leaves, are nobody's pictures.
        if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
            continue
        path = folder / entry.name
        if _is_folder(entry):
            yield from entries(path, above | {real})
        else:
            yield path, _reason_against(entry)


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder or leads to one; a link that leads nowhere is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _reason_against(entry: os.DirEntry) -> str:
    """Why a file cannot be a picture, nothing if it may be one."""
    if os.path.splitext(entry.name)[1].lower() not in ENDINGS:
        return "no pictures by their endings"
    try:
        if entry.is_file():
            return ""
        kind = os.stat(entry.path).st_mode
    except OSError:
        return "links that lead nowhere"
    return "no regular files" if not stat.S_ISREG(kind) else ""


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are passed over."""
    with os.scandir(folder) as listing:
        return sorted(entry.name for entry in listing if _is_folder(entry) and not entry.name.startswith("."))


def _sub_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold pictures, sorted."""
    return [name for name in _folders_in(folder) if any(not reason for _, reason in entries(folder / name))]


def split_folder(root: Path, split: str, *, asked: Collection[str] = ()) -> Path | None:
    """The folder of a split; None where there is none of that name, or where it is a class beside others.

    `train` beside `bus` and `car` is a class, if pictures lie in it; if it holds folders of its own, those of another
    split must have the same names.

    Args:
        root: where the splits' folders would be.
        split: its name.
        asked: other names that are splits, since somebody asks for them.

    Raises:
        InputError: it can be read in both ways.
    """
    folder = root / split
    if not folder.is_dir():
        return None
    # A usual name may also be a class's: `test` beside `cat` and `dog`.
    if split.lower() not in PARTS:
        return folder  # a name that only a user can have chosen
    others = [name for name in _sub_folders(root) if name != split]
    unlike = [name for name in others if name.lower() not in PARTS.keys() | _OTHER_SPLITS and name not in asked]
    if not unlike:
        return folder
    # Pictures of its own and no sub-folders: a class like those beside it.
    if any(not reason for path, reason in entries(folder) if path.parent == folder):
        return None
    # The same names within it and within others: both hold the classes, so they are splits.
    inner = set(_sub_folders(folder))
    if any(inner & set(_sub_folders(root / name)) for name in others):
        return folder
    raise InputError(
        f"{shown(root)} can be read in two ways, {split} as a split with the classes {listed(sorted(inner))} or as a "
        f"class beside {listed(unlike)}; for the first give {shown(folder)} as the folder (without other splits), "
        "or move the others out of it; for the second name the class otherwise"
    )


def splits_of(root: Path, *, asked: Collection[str] = ()) -> list[str]:
    """The splits that a folder holds: folders with a split's usual name that are no classes."""
    names = [name for name in _sub_folders(root) if name.lower() in PARTS]
    return [name for name in names if split_folder(root, name, asked=asked) is not None]


def place_of(root: Path, split: str, *, asked: Collection[str] = ()) -> tuple[Path, str | None]:
    """Where the pictures of a split are: a folder, and the part of it, None for all.

    A split that is missing beside others is an error: the test images would be among those to train on.

    Args:
        root: the folder that is given.
        split: train, validation or test, or the name of a folder in it.
        asked: other names that are splits, since somebody asks for them.

    Raises:
        InputError: there is no such folder or split, or a layout that can be read in two ways.
    """
    folder = split_folder(root, split, asked=asked)
    if folder is not None or not root.is_dir():
        near = [] if root.is_dir() or not root.parent.is_dir() else _folders_in(root.parent)
        advice = meant(root.name, near, shown=f"{shown(root.parent)}/{{}}")
        check(folder is not None or root.is_dir(), f"the image folder must exist{advice}", folder=shown(root))
        return folder or root, None
    # Without splits the folder is divided; a split that it lacks beside others is an error.
    there = splits_of(root, asked=asked)
    part = PARTS.get(split.lower())
    has = f"it has {listed(there)}" if there else "without splits it is divided into train, validation and test"
    rule = f"image_dir must hold a folder of the split's name, {split} ({has}){meant(split, there)}"
    check(not there and part is not None, rule, image_dir=shown(root))
    return root, part


def content_of(root: Path, *, say: contents.Say = contents.silent) -> str:
    """Tells the images at a place from others by the names and contents of their files, each of which is hashed once.

    Args:
        root: a folder, of pictures or of a library's data set; a file, or nothing.
        say: takes a line where much has to be read.
    """
    if not root.is_dir():
        return contents.of_values(contents.digest(root) if root.is_file() else None)
    every = list(entries(root))
    # Pictures, if any are told by their names, else every file but what is noted beside them.
    files = [path for path, reason in every if not reason]
    files = files or [path for path, _ in every if path.is_file() and path.suffix not in _NOTES]
    names = [shown(path.relative_to(root)) for path in files]
    return contents.of_values(sorted(zip(names, contents.digests(files, say=say), strict=True)))


@dataclasses.dataclass(frozen=True)
class Division:
    """A part of images that have no splits: of each class the same share, drawn by their content.

    Which part a picture belongs to depends on its bytes, its class's other pictures and the seed alone, not on names:
    copies of a picture are in one part, even across classes.  `test` is drawn first, then `validation` of the rest;
    `train` is what is not `test`, and not `validation` where that is among `without`.

    Attributes:
        part: train, validation or test.
        without: the parts that are asked for beside this one.
        fraction: of each class that `test` and `validation` have.
        seed: of the draw.
    """

    part: str
    without: frozenset[str]
    fraction: float
    seed: int

    @classmethod
    def of(cls, part: str, *, asked: Collection[str], fraction: float | None, seed: int) -> "Division":
        """The division that a command asks for by the names of its splits; by default `HELD_OUT` of each class."""
        # Parts that others ask for must not overlap with this one.
        others = frozenset(PARTS[name.lower()] for name in asked if name.lower() in PARTS)
        return cls(part, others, HELD_OUT if fraction is None else fraction, seed)

    def numbers(self, digests: Sequence[str | None], labels: np.ndarray, *, classes: Sequence[str] = ()) -> np.ndarray:
        """The numbers of the pictures in it, sorted.

        Args:
            digests: of their bytes, `(n,)`; None of one that cannot be read.
            labels: their classes, `(n,)`.
            classes: names of all classes.

        Raises:
            InputError: a class has too few different pictures.
        """
        check(0 < self.fraction < 1, "validation_fraction must lie between 0 and 1", validation_fraction=self.fraction)
        # An empty file has the digest of nothing: it tells no picture from another.
        empty = contents.of_bytes(b"")
        known = np.array([digest not in (None, empty) for digest in digests])
        # Keyed by content and seed: a file keeps its part whatever else comes or goes, and copies stay together.
        keys = np.array(["" if one is None else contents.of_bytes(f"{self.seed} {one}".encode()) for one in digests])
        wanted = ["test", "validation"] if "validation" in {*self.without, self.part} else ["test"]
        free, found = np.ones(len(keys), bool), {}
        for name in wanted:
            # First what is to test on, then of the rest what is to validate on: the test part never changes.
            held = held_out(keys, labels, candidates=free & known, fraction=self.fraction)
            found[name], free = np.isin(keys, held) & free, free & ~np.isin(keys, held)
        chosen = free if self.part == "train" else found[self.part]
        few = [shown(name) for i, name in enumerate(classes or ("",)) if not (chosen & (labels == i)).any()]
        rule = f"each class must have at least {1 + len(wanted)} different pictures to be divided"
        check(not few, f"{rule}, or the folder splits of its own: {_LAYOUT}", too_few=few)
        return np.flatnonzero(chosen)

    def noted(self, images: int, *, of: int) -> dict[str, object]:
        """What a run notes of its images."""
        drawn = {"held_out": self.fraction, "seed": self.seed, "drawn_by": "content"}
        return {"part": self.part, "images": images, "of": of, **drawn}

    def told(self, place: str, images: int, *, of: int) -> str:
        """The same for people."""
        how = f"{place} has no splits: {100 * self.fraction:g} % of each class are held out, drawn by content"
        return f"{how}; {self.part} has {images:,} of {of:,} images"


def held_out(keys: np.ndarray, labels: np.ndarray, *, candidates: np.ndarray, fraction: float) -> list[str]:
    """The keys that are held out: in each class the smallest, until they have the share; never all of a class."""
    held: set[str] = set()
    for label in np.unique(labels):
        own = labels == label
        # Different pictures and how often each is there: copies are held out together.
        different, counts = np.unique(keys[own & candidates], return_counts=True)
        wanted = max(1, round(fraction * int(own.sum())))
        enough = int(np.searchsorted(np.cumsum(counts), wanted)) + 1
        held |= set(different[: min(enough, len(different) - 1)].tolist())
    return sorted(held)
