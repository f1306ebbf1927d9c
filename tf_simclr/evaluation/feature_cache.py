"""Features kept on disk, so that the second probe of a network costs seconds.

An entry is a folder named after a digest of its key: `values.npy`, `labels.npy`, `names.npy` and `entry.json` (the
key, and size and checksum of each file).  It appears whole or not at all, and a damaged one is made again.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from tf_simclr.data.sources import Source
from tf_simclr.evaluation.features import Features
from tf_simclr.places import expanded

FORMAT = 1
"""Of the entries and of what the key does not tell: how images are decoded and seen."""


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """A folder of features.

    Example:
        >>> import tempfile
        >>> cache = FeatureCache(Path(tempfile.mkdtemp()))
        >>> compute = lambda: (Features(np.ones((2, 3), np.float32), np.array([0, 1]), None), [])
        >>> cache.fetch({"weights": "…", "data": "…"}, compute)[0].values.shape
        (2, 3)
        >>> type(cache.fetch({"weights": "…", "data": "…"}, compute)[0].values).__name__
        'memmap'
    """

    folder: Path
    """Made when it is needed."""
    say: Callable[[str], None] = lambda line: None
    """Takes one line for the user at a time."""

    def fetch(
        self, key: Mapping[str, object], compute: Callable[[], tuple[Features, list[str]]]
    ) -> tuple[Features, list[str]]:
        """The features of a key, from disk as a memory map, or computed and kept; and the unreadable images' names.

        What cannot be written, on a full disk say, is not kept; the features are returned all the same.
        """
        text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        entry = expanded(self.folder) / hashlib.sha256(text.encode()).hexdigest()[:32]
        if (entry / "entry.json").exists():
            damage = damage_of(entry)
            if damage is None:
                return read(entry)
            self.say(f"the kept features in {entry} are damaged ({damage}); they are computed again")
        features, unreadable = compute()
        try:
            keep(entry, features, notes={"key": json.loads(text), "unreadable": unreadable})
        except OSError as error:
            self.say(f"features are not kept: {entry} cannot be written ({error.strerror or error})")
        return features, unreadable


def read(entry: Path) -> tuple[Features, list[str]]:
    """A whole entry; the features can be written to, but that does not reach the disk."""
    notes = json.loads((entry / "entry.json").read_text())
    columns = {
        field: np.load(entry / f"{field}.npy", mmap_mode="c" if field == "values" else None)
        for field in ("values", "labels", "names")
        if f"{field}.npy" in notes["files"]
    }
    return Features(**{"labels": None, "names": None, **columns}), notes["unreadable"]


def damage_of(entry: Path) -> str | None:
    """What is wrong with an entry; None for a whole one."""
    try:
        files = json.loads((entry / "entry.json").read_text())["files"]
        wrong = [name for name, stored in files.items() if described(entry / name) != stored]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"entry.json: {error}"
    return f"{', '.join(wrong)} differs from what was written" if wrong or "values.npy" not in files else None


def described(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    checksum, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return [size, checksum]


def keep(entry: Path, features: Features, *, notes: Mapping[str, object]) -> None:
    """Writes an entry, in the place of one that may lie there."""
    temporary = entry.with_name(f".{os.getpid()}.{entry.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        columns = {field.name: getattr(features, field.name) for field in dataclasses.fields(features)}
        for name, column in columns.items():
            if column is not None:
                np.save(temporary / f"{name}.npy", column, allow_pickle=False)
        files = {path.name: described(path) for path in sorted(temporary.iterdir())}
        (temporary / "entry.json").write_text(json.dumps({**notes, "files": files}, indent=2))
        shutil.rmtree(entry, ignore_errors=True)
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def weights_digest(model: keras.Model) -> str:
    """Tells networks apart by every weight's name, shape, type and value."""
    digest = hashlib.sha256(str(model.dtype_policy.name).encode())
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        # Names within the network: that of the network itself may count up with each one that is built.
        digest.update(f"{weight.path.split('/')[-2:]} {array.shape} {array.dtype}".encode())
        digest.update(array.view(np.uint8) if array.size else b"")
    return digest.hexdigest()


def source_digest(source: Source) -> str | None:
    """Tells data apart by the names and sizes of their files, their number and their classes; None: nobody can."""
    if source.identity is None:
        return None
    content = [source.num_examples, list(source.class_names), source.identity()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
