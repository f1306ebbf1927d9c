"""Checkpoints by name: what lies at a path, an official name or a repository of the Hugging Face hub, as a local path.

Everything that opens a checkpoint asks here first.  A path always wins; a name is downloaded once, later found again.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from converters.published import hub
from converters.published.bucket import split
from converters.published.catalogue import CHECKPOINTS, Official, meant_by
from converters.published.download import RECORD, fetch, kept
from tf_simclr.buckets import local
from tf_simclr.errors import InputError
from tf_simclr.files.lock import hold
from tf_simclr.files.places import is_address, is_bucket, written
from tf_simclr.foreign import DAMAGED, read_json
from tf_simclr.terminal import Line, say


def located(path: Path) -> Path:
    """Where a checkpoint lies on this machine, downloaded if it is named and not there yet.

    Args:
        path: what lies there; else an official name (`simclrv2/pretrained/r50_1x_sk0`), or `hf://user/repo`, or
            `hf://user/repo@revision`, or an address in a bucket, which is mirrored.

    Raises:
        InputError: it is none of these, or cannot be downloaded.
    """
    # On this machine, in a bucket, on the hub, or one of the official names.
    check_name(path)
    if _is_there(path):
        return path
    if is_bucket(path):
        known = {one.tf1 for one in CHECKPOINTS.values()} | {one.tf2 for one in CHECKPOINTS.values()}
        return get(written(path)) if written(path) in known else local(path)  # the official ones need no credentials
    return hub.snapshot(path) if hub.is_hub(path) else get(CHECKPOINTS[path.as_posix()].tf1)


def check_name(path: Path) -> None:
    """Refuses what names no checkpoint, without asking the network.

    Raises:
        InputError: nothing lies at the path, and it is no name.
    """
    if _is_there(path):
        return
    if hub.is_hub(path):
        hub.repository(path)
    elif path.as_posix() not in CHECKPOINTS and not is_bucket(path):
        raise InputError(missing(path))


def _is_there(path: Path) -> bool:
    """Whether a file, a folder or the prefix of a TensorFlow checkpoint is at a path."""
    return os.path.exists(path) or os.path.exists(f"{path}.index")


def get(address: str, cache: Path | None = None) -> Path:
    """The folder or file of a checkpoint in a bucket, in the cache: downloaded if it is not there.

    Args:
        address: `gs://…`.
        cache: by default `checkpoints` in `tf_simclr.files.contents.cache_folder`.

    Raises:
        InputError: it cannot be downloaded.
    """
    # The cache's folders are the address' own parts.
    from tf_simclr.files.contents import cache_folder

    cache = cache or cache_folder() / "checkpoints"
    folder = cache.joinpath(*split(address))
    found = kept(folder, address)
    if found is not None:
        return found
    with hold(cache, say=say):
        return fetch(address, folder, progress=_progress(address))


def _progress(address: str) -> Callable[[int, int], None]:
    """Says how far a download is: in place on a terminal, else every tenth."""
    line, said = Line(now=time.monotonic()), [-1]

    # On a terminal often, in a file ten times.
    def tell(done: int, total: int) -> None:
        tenths = 10 * done // max(total, 1)
        text = f"{address}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({done / max(total, 1):.0%})"
        if tenths > said[0] and (tenths == 10 or not line.in_place):
            line.keep(text)
        elif line.due(now := time.monotonic()):
            line.draw(text, now=now)
        said[0] = tenths

    return tell


def official_at(path: Path) -> Official | None:
    """The official checkpoint that was downloaded to a path, as its download's record says; None: there is none."""
    record = (path if path.is_dir() else path.parent) / RECORD
    if not record.is_file():
        return None
    try:
        address = read_json(record)["address"]
    except DAMAGED:
        return None
    return next((one for one in CHECKPOINTS.values() if address in (one.tf1, one.tf2)), None)


def missing(path: Path) -> str:
    """The sentence for a path at which nothing is: an address, nearly the name of a checkpoint, or a mistake."""
    if is_address(path):
        return _address(str(path))
    names = meant_by(path.as_posix())
    if names:
        more = ", …" if len(names) > 4 else ""
        return (
            f"{path} must be a path at which something is, or the whole name of an official checkpoint "
            f"(did you mean {' or '.join(names[:4])}{more}?)"
        )
    return f"{path} must exist: no file, folder or checkpoint prefix of that name is there"


def _address(text: str) -> str:
    """The sentence for an address that is in no bucket: how what it means is downloaded.

    Example:
        >>> _address("https:/hf.co/org/net")
        'https://hf.co/org/net must be a path on this machine, not an address: give hf://org/net, which is downloaded'
    """
    # What a person has to type next, by the kind of address.
    scheme, _, place = text.partition(":")
    scheme, place = scheme.lower(), place.lstrip("/")
    rule = f"{scheme}://{place} must be a path on this machine, not an address:"
    host, _, rest = place.partition("/")
    if scheme in ("http", "https") and host == "storage.googleapis.com" and "/" in rest:
        return f"{rule} `tf-simclr checkpoints get gs://{rest}` downloads it and prints the path to give here"
    if scheme in ("http", "https") and host in ("huggingface.co", "hf.co"):
        return f"{rule} give hf://{'/'.join(rest.removeprefix('models/').split('/')[:2])}, which is downloaded"
    if scheme in ("http", "https", "ftp"):
        return f"{rule} download it (`curl -LO {scheme}://{place}`), then give the file"
    return f"{rule} download what is there, then give its path"
