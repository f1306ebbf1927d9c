"""Weights in several files: `model-00001-of-00002.safetensors`, …, as Hugging Face's libraries split large ones.

An index beside them, `model.safetensors.index.json`, says which tensor is in which file.

References:
    huggingface_hub, "Serialization", `split_state_dict_into_shards_factory`
"""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.tensors import Source
from tf_simclr.errors import InputError, check
from tf_simclr.foreign import checked_name, is_plain, parse_json, reading, spend

INDEX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.(?:safetensors|bin|pth|pt))")


@dataclass(frozen=True)
class Shards:
    """The files of one set of weights.

    Attributes:
        index: The index; None: there is none, and the numbers in the names tell that the files are all there.
        files: In order.
    """

    index: Path | None
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What stands for all."""
        return self.index.name if self.index else self.files[0].name


def sets_in(names: list[str], folder: Path) -> list[Shards]:
    """The sets of files of a folder, by their names.

    Args:
        names: Of the files there.
        folder: Where they are.
    """
    # Stem, count and ending tell a set; the number alone differs.
    found: dict[tuple[str, str, str], list[str]] = {}
    for name in sorted(names):
        match = _SHARD.fullmatch(name)
        if match:
            found.setdefault((match["stem"], match["count"], match["ending"]), []).append(name)
    # An index without one of its files is a set, too: it says what is missing.
    indexed = {name.removesuffix(INDEX): name for name in names if name.endswith(INDEX)}
    sets = []
    for (stem, _, ending), files in found.items():
        index = indexed.pop(stem + ending, None)
        sets.append(Shards(folder / index if index else None, tuple(folder / file for file in files)))
    return sets + [Shards(folder / index, ()) for index in indexed.values()]  # these lack all of their files


def set_of(path: Path) -> Shards | None:
    """The set that a file, or an index, belongs to."""
    if not (path.name.endswith(INDEX) or _SHARD.fullmatch(path.name)):
        return None
    names = [one.name for one in path.parent.iterdir() if one.is_file()]
    return next((one for one in sets_in(names, path.parent) if path == one.index or path in one.files), None)


def open_shards(shards: Shards, *, open_file: Callable[[Path], Source]) -> Source:
    """Opens all files as one source.

    Args:
        shards: The files.
        open_file: Opens one.

    Raises:
        InputError: a file is missing, or index and files differ in a tensor.
    """
    # 1. Which files there should be: by the index, else by the numbers. 2. All must be there. 3. One source of all.
    places = _read_index(shards.index) if shards.index else None
    files = sorted(set(places.values())) if places else _all_of(shards)
    folder = (shards.index or shards.files[0]).parent
    missing = [name for name in files if not (folder / name).is_file()]
    rule = f"{folder} must hold every file of {shards.name}; {len(missing)} of {len(files)} are missing: copy them, too"
    check(not missing, rule, missing=missing[:5])
    with contextlib.ExitStack() as opened:
        sources = []
        for name in files:
            sources.append(open_file(folder / name))
            opened.callback(sources[-1].close)
        source = _joined(shards, sources, places=places)
        source.close = opened.pop_all().close
    return source


def _read_index(path: Path) -> dict[str, str]:
    """Key → file of an index.

    Raises:
        InputError: it is no index, or names files that are not beside it.
    """
    with reading(path, "an index of files of weights"):
        spend(made=path.stat().st_size)
        content = parse_json(path.read_bytes())
        places = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
            raise InputError("it has no weight_map from tensors to files")
        for key, name in places.items():
            checked_name(key)
            if not is_plain(name) or "/" in name:
                raise InputError(f"tensor {key} is in {name[:80]!r}, which is no file beside it")
    return places


def _all_of(shards: Shards) -> list[str]:
    """The names of the files of a set without an index, by their numbers."""
    match = _SHARD.fullmatch(shards.files[0].name)
    if match is None or not 1 <= int(match["count"]) <= 10_000:
        raise InputError(f"{shards.files[0]} must be one of 1 to 10,000 files")
    start, end = f"{match['stem']}-", f"-of-{match['count']}{match['ending']}"
    return [f"{start}{number:05d}{end}" for number in range(1, int(match["count"]) + 1)]


def _joined(shards: Shards, sources: list[Source], *, places: dict[str, str] | None) -> Source:
    """One source of all: each tensor once, and where the index says."""
    tensors: dict[str, Any] = {}
    for source in sources:
        for key, stored in source.tensors.items():
            check(key not in tensors, f"{source.path} must hold tensors of its own", again=key)
            named = places is None or places.get(key) == source.path.name
            rule = f"{source.path} must hold the tensors that {shards.name} says, but also has one more"
            check(named, rule, tensor=key)
            tensors[key] = stored
    # Both ways: no tensor that the index does not name, none that it names and no file has.
    lacking = sorted((places or tensors).keys() - tensors.keys())
    rule = f"the files of {shards.name} must hold every tensor that it names; copy them again"
    check(not lacking, rule, missing=lacking[:5], number=len(lacking))
    first = sources[0]
    count = f"{len(sources)} {first.container}s" if len(sources) > 1 else first.container
    notes = [note for source in sources for note in source.notes]
    path = shards.index or shards.files[0]
    result = Source(path, count, tensors, step=first.step, architecture=first.architecture, notes=notes)
    # What the shards left out is told of for all.
    for source in sources:
        for kind, found in source.skipped.items():
            result.skipped.setdefault(kind, []).extend(found)
    return result
