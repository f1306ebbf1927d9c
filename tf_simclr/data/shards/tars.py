"""WebDataset's tar files: members that have a name in common up to its first dot are one example.

`a/0001.jpg` and `a/0001.cls` are the example `a/0001`: the class is the number in `.cls`, or `label`, `cls` or
`class_id` of `.json`, or, where no example has any of them, the folder.  Other members are counted; no member is ever
unpickled.
"""

import re
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from tf_simclr.data.rasters import ENDINGS
from tf_simclr.data.shards import opening
from tf_simclr.data.shards.index import NO_LABEL, Listing
from tf_simclr.foreign import parse_json, spend

_MEMBER = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]*)$", re.DOTALL)
"""WebDataset's key and extension."""
_BLOCK = 512
_MOST = 1 << 20
"""Bytes of a header's extension, of a `.cls` and of a `.json`."""
_KEYS = ("label", "cls", "class_id")


class _Careful:
    """A file of which nobody reads more at once than a header can need."""

    def __init__(self, file: BinaryIO):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST:
            raise ValueError("a header asks for more than a header can need")
        return self.file.read(size)


def listing(path: Path) -> Listing:
    """The examples of a tar file.

    Raises:
        ValueError, tarfile.TarError: it is compressed, cut off or damaged.
    """
    samples: dict[str, dict[str, Any]] = {}
    found, end = Listing(), 0
    length = opening.stamp(path)[0]
    with opening.opened(path) as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError("it is compressed, so that no image in it can be found without the others: gunzip it")
        file.seek(0)
        if length >= _BLOCK and file.read(_BLOCK) == bytes(_BLOCK):
            return found
        file.seek(0)
        archive: Any = _Careful(file)
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            while (member := tar.next()) is not None:
                setattr(tar, "members", [])  # noqa: B010 - else all are kept; its type does not tell of them
                spend(items=1, outline=len(member.name) + 64)
                sparse = getattr(member, "sparse", None) is not None
                end = tar.offset
                if end > length:
                    raise ValueError(f"it is cut off within {member.name!r}")
                match = _MEMBER.match(member.name.removeprefix("./"))
                if not member.isreg() or sparse:
                    found.left_out["folders, links and holes"] += not member.isdir()
                    continue
                if match is None:
                    found.left_out["members without a name or an ending"] += 1
                    continue
                _take(samples.setdefault(match[1], {}), match[2].lower(), member=member, file=file, found=found)
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes a damaged header for the end
            raise ValueError("it is cut off or damaged: it has no mark of its end")
    for name, sample in samples.items():
        if "image" in sample:
            folder = name.rpartition("/")[0].split("/")[0]
            found.add(name, sample["image"], label=sample.get("label", NO_LABEL), text=folder)
        else:
            found.left_out["examples without an image"] += 1
    return found


def _take(sample: dict[str, Any], ending: str, *, member: tarfile.TarInfo, file: BinaryIO, found: Listing) -> None:
    """Notes what a member says of its example."""
    last = ending.rpartition(".")[2]
    if f".{last}" in ENDINGS:
        if "image" in sample:
            found.left_out["further images of an example"] += 1
        else:
            sample["image"] = (member.offset_data, member.size)
    elif last in ("cls", "json"):
        if member.size > _MOST:
            raise ValueError(f"{member.name!r} is too large to hold a class")
        file.seek(member.offset_data)
        data = file.read(member.size)
        if last == "cls":
            sample["label"] = int(data.decode())
        else:
            content = parse_json(data)
            numbers = [content.get(key) for key in _KEYS] if isinstance(content, dict) else []
            labels = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
            sample.setdefault("label", labels[0] if labels else NO_LABEL)
    else:
        found.left_out[f"members .{last[:20]}"] += 1
