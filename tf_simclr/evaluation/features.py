"""Features of images, batch by batch; and kept on disk, so that the second probe of a network costs seconds.

A kept entry is a folder named after a digest of its key: `values.npy`, `labels.npy`, `names.npy` and `entry.json` (the
key, and size and checksum of each file).  It appears whole or not at all, and a damaged one is made again.
"""

import dataclasses
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_simclr.buckets.keeping import bring, send
from tf_simclr.data.pipeline import Unreadable, evaluation_batches
from tf_simclr.data.sources import Source
from tf_simclr.errors import InputError, check
from tf_simclr.files import contents, replacing_folder
from tf_simclr.files.contents import Say, silent
from tf_simclr.files.places import expanded
from tf_simclr.foreign import DAMAGED
from tf_simclr.models.parts import as_taken
from tf_simclr.terminal import Tally, say


@dataclass(frozen=True)
class Features:
    """What a model makes of a set of images, and what came with them."""

    values: np.ndarray
    """`(n, d)`, float32."""
    labels: Any
    """`(n,)`, or None if the batches had none; whoever asks for them has given some."""
    names: Any
    """`(n,)` strings, or None if the batches had none."""


def extract(
    model: keras.Model,
    batches: Iterable,
    *,
    endpoint: str = "final_avg_pool",
    progress: Callable[[int], None] | None = None,
) -> Features:
    """Runs the model in inference mode over the batches; one batch of images is in memory at a time.

    Args:
        model: images to features `(n, d)`, or to a dictionary of endpoints.
        batches: `images`, `(images,)`, `(images, labels)` or `(images, labels, names)`; images are `(n, h, w, 3)` in
            [0, 1].
        endpoint: which of a dictionary's endpoints.
        progress: called with the number of images that are done after each batch.

    Raises:
        InputError: there is no batch, the endpoint does not exist or is not one vector an image, or a feature is not
            finite.
    """
    columns: list[list[np.ndarray]] = []
    done = 0
    for batch in batches:
        images, *rest = batch if isinstance(batch, tuple | list) else (batch,)
        # Compiled once a model, however often called; arrays are what every backend takes.
        # Grey for networks of one channel, as everywhere.
        seen = keras.ops.convert_to_numpy(as_taken(np.asarray(images), model))
        values = vectors(model.predict_on_batch(seen), endpoint)
        # Stopped at the first batch, which names where: a nan would spread into every number behind.
        check(np.isfinite(values).all(), "features must be finite", first_image=done, images=len(values))
        columns = columns or [[] for _ in range(1 + len(rest))]
        for column, part in zip(columns, (values, *map(np.asarray, rest)), strict=True):
            column.append(part)
        done += len(values)
        if progress:
            progress(done)
    check(done > 0, "there must be at least one batch of images", images=done)
    # Labels and names where batches had them.
    joined, labels, names, *_ = [*map(join, columns), None, None]
    return Features(values=np.asarray(joined), labels=labels, names=None if names is None else text(names))


def vectors(outputs: Any, endpoint: str) -> np.ndarray:
    """The endpoint `(n, d)` of a model's outputs as float32."""
    if isinstance(outputs, dict):
        check(endpoint in outputs, f"endpoint must be one of {', '.join(outputs)}", endpoint=endpoint)
        outputs = outputs[endpoint]
    rule, shape = "features must be one vector an image", tuple(outputs.shape)
    check(len(shape) == 2, rule, shape=shape, endpoint=endpoint)
    return np.asarray(outputs, np.float32)


def join(parts: list[np.ndarray]) -> np.ndarray:
    """The parts in one array; they are freed on the way, so that memory holds the result once, not twice."""
    # The type that holds all parts'; the last part first, so that a list gives up its end without a shift.
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    end = len(joined)
    while parts:
        part = parts.pop()
        joined[end - len(part) : end] = part
        end -= len(part)
    return joined


def text(names: np.ndarray) -> np.ndarray:
    """File names as strings; tf.data gives bytes."""
    return np.array([n.decode(errors="backslashreplace") if isinstance(n, bytes) else str(n) for n in names])


FORMAT = 3
"""Of the entries and of what the key does not tell: how images are decoded and seen."""
_NO_PART = ("compile_config", "build_config", "shared_object_id")
"""Of a network's configuration: what its answers do not hang on."""


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
    say: Say = silent
    """Takes one line for the user at a time."""

    def fetch(
        self,
        key: Mapping[str, object],
        compute: Callable[[], tuple[Features, list[str]]],
        *,
        place: str = "",
        settled: Callable[[], bool] = lambda: True,
    ) -> tuple[Features, list[str]]:
        """The features of a key, from disk as a memory map, or computed and kept; and the unreadable images' names.

        What cannot be written, on a full disk say, is not kept; the features are returned all the same.

        Args:
            key: all that the features depend on, JSON types.
            compute: makes them.
            place: what names begin with and is no part of the key: kept without it, they are told with it.
            settled: asked after the computation whether the key still fits: images may have changed meanwhile.
        """
        # The key in words, sorted: the same features have the same name whatever the order of the options.
        text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        entry = expanded(self.folder) / contents.of_bytes(text.encode())
        bring(entry, last="entry.json", say=self.say)
        if (entry / "entry.json").exists():
            damage = damage_of(entry)
            if damage is None:
                # Names are kept without the place, which may differ; they come back with that of today.
                return moved(*read(entry), change=lambda name: place + name)
            self.say(f"the kept features in {entry} are damaged ({damage}); they are computed again")
        features, unreadable = compute()
        # Images that changed meanwhile belong to no content that was looked at.
        if not settled():
            self.say("features are not kept: images have changed while they were computed")
            return features, unreadable
        try:
            kept, missing = moved(features, unreadable, change=lambda name: name.removeprefix(place))
            keep(entry, kept, notes={"key": json.loads(text), "unreadable": missing})
            send(entry, last="entry.json", say=self.say)
        # A full disk costs the cache, not the evaluation.
        except InputError as error:
            self.say(f"features are not kept: {error}")
        return features, unreadable


def moved(features: Features, unreadable: list[str], *, change: Callable[[str], str]) -> tuple[Features, list[str]]:
    """The same with changed names."""
    names = features.names
    names = None if names is None else np.array([change(str(name)) for name in names])
    return dataclasses.replace(features, names=names), [change(name) for name in unreadable]


def read(entry: Path) -> tuple[Features, list[str]]:
    """A whole entry; the features can be written to, but that does not reach the disk."""
    notes = json.loads((entry / "entry.json").read_text())
    columns = {
        # "c": read from disk as needed; what is written stays in memory.
        field: np.load(entry / f"{field}.npy", mmap_mode="c" if field == "values" else None)
        for field in ("values", "labels", "names")
        if f"{field}.npy" in notes["files"]
    }
    return Features(**{"labels": None, "names": None, **columns}), notes["unreadable"]


def damage_of(entry: Path) -> str | None:
    """What is wrong with an entry; None for a whole one."""
    try:
        files = json.loads((entry / "entry.json").read_text())["files"]
        # Size and CRC of each file, which `keep` noted.
        wrong = [name for name, stored in files.items() if described(entry / name) != stored]
    except DAMAGED as error:
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
    with replacing_folder(entry) as folder:
        for field in dataclasses.fields(features):
            if (column := getattr(features, field.name)) is not None:
                np.save(folder / f"{field.name}.npy", column, allow_pickle=False)
        files = {path.name: described(path) for path in sorted(folder.iterdir())}
        (folder / "entry.json").write_text(json.dumps({**notes, "files": files}, indent=2))


def weights_digest(model: keras.Model) -> str:
    """Tells networks apart by what they compute: layers and how they are connected, and every weight's value."""
    found: list[Any] = [model.dtype_policy.name, _graph(model)]
    for weight in model.weights:
        # Which layer it is of its place tells; some layers' names count up with each network that is built.
        found.append([weight.name, contents.of_array(keras.ops.convert_to_numpy(weight))])
    return contents.of_values(found)


def _graph(model: keras.Model) -> Any:
    """A network's configuration with its layers numbered in the place of their names, some of which Keras counts up.

    Of a network that cannot say how it is made its class stands here.
    """
    try:
        # As JSON, in which objects that Keras cannot name are their `repr`.
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(model), default=repr))
    except (NotImplementedError, TypeError, ValueError):
        # A model of somebody's own without a configuration: its class is all that is known; the weights tell the rest.
        return f"{type(model).__module__}.{type(model).__qualname__}"
    known: dict[str, str] = {}

    def number(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("config"), dict) and isinstance(part["config"].get("name"), str):
                # Names in the order of their appearance: the third layer is #2 in every process.
                known.setdefault(part["config"]["name"], f"#{len(known)}")
            part = list(part.values())
        for one in part if isinstance(part, list) else ():
            number(one)

    def renamed(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: renamed(value) for key, value in part.items() if key not in _NO_PART}
        if isinstance(part, list):
            return [renamed(one) for one in part]
        return known.get(part, part) if isinstance(part, str) else part

    number(config)
    return renamed(config)


def source_digest(source: Source, say: Say = silent) -> str | None:
    """Tells data apart by the content of each example, its name and its class; None where nobody can.

    Args:
        source: the examples.
        say: takes a line for the user where much has to be read.
    """
    if source.identity is None:
        # No identity: generators and lists of which nobody can say what they hold.
        return None
    return contents.of_values(source.num_examples, list(source.class_names), source.identity(say))


WHOLE = 1.0
"""Share of the shorter side that the transfer protocol keeps: all of it (SimCLR, Appendix B.8)."""


@dataclass
class Extractor:
    """The features of one network, of any number of sources.

    Attributes:
        network: images to features `(n, d)`.
        label: what a line to the user calls it.
        endpoint: which of its features these are.
        batch_size: images at a time.
        keep: whether they are kept on disk.
        folder: where; by default in the user's cache.
        unreadable: names of the images that could not be read, of all sources so far.
    """

    network: keras.Model
    label: str = ""
    _: dataclasses.KW_ONLY
    endpoint: str = "final_avg_pool"
    batch_size: int = 256
    keep: bool = True
    folder: Path | None = None
    unreadable: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        # Once a network: the key of all its features.
        self.weights = weights_digest(self.network)

    def features(self, source: Source, *, image_size: int, crop_proportion: float | None = WHOLE) -> Features:
        """Features of every readable image, in the source's order."""
        seen: dict[str, Any] = {"image_size": image_size, "crop_proportion": crop_proportion}

        def compute() -> tuple[Features, list[str]]:
            unreadable = Unreadable()
            batches = evaluation_batches(source, batch_size=self.batch_size, unreadable=unreadable, **seen)
            progress = Tally(f"features of {source.origin}{self.label}", source.num_examples)
            return extract(self.network, batches, progress=progress), unreadable.names

        # None: nobody can tell these images from others, so that nothing is kept.
        data = source_digest(source, say) if self.keep else None
        if data is None:
            found, unreadable = compute()
        else:
            key = {"weights": self.weights, "endpoint": self.endpoint, "data": data, **seen}
            cache = FeatureCache(self.folder or contents.cache_folder() / "features", say)
            found, unreadable = cache.fetch(
                key, compute, place=source.place, settled=lambda: source_digest(source, say) == data
            )
        self.unreadable += unreadable
        return found
