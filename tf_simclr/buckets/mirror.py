"""What lies in a bucket as files on this machine: downloaded once, and what has changed since.

`s3://bucket/pets` lies in `buckets/read/s3/bucket/pets` of the cache (`contents.cache_folder`).  Beside it a small
data base notes of which version each file is: the store is listed anew each time, and what it has in another version
is fetched again, what it has no more is removed.  A file appears under its name when it is whole; a download that was
stopped goes on where it was.
"""

import concurrent.futures
import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tf_simclr.buckets.store import Object, Store, normal
from tf_simclr.errors import InputError, check
from tf_simclr.files.contents import cache_folder
from tf_simclr.files.lock import InUse, hold
from tf_simclr.files.places import BRACES, SHARDS_NOTE, braced, expanded, is_bucket, is_web, shown, stand_for, written
from tf_simclr.foreign import parse_json
from tf_simclr.terminal import Line, say

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MANIFEST = "manifest.tf_simclr.json"
"""Object of a run folder in a bucket that names its files, with their sizes and checksums (`sending`)."""
_KIND = "tf_simclr run folder"
"""What such a manifest says that it is: other people's files may have the same name."""
_CHECKPOINT = re.compile(r"(^|/)checkpoints/step-\d{8}\.npz$")
_SPARE = 1 << 30
"""Bytes that a download must leave free."""
_ROWS_AT_ONCE = 200


def local(path: str | Path, *, images: bool = False) -> Path:
    """The path that was meant (`places.expanded`); of an address in a bucket, where it is mirrored now.

    Args:
        path: a path, or an address of a folder, an object, or the prefix of a TensorFlow checkpoint's files.
        images: whether it is of images, which are fetched from the web, too.

    Raises:
        InputError: as `expanded`; or nothing is at the address, the store cannot be asked, or the disk is too small.
    """
    place = expanded(path)
    return mirrored(written(place)) if is_bucket(place) or (images and is_web(place)) else place


def mirrored(address: str) -> Path:
    """Where what lies at an address is mirrored, after all that has changed there was fetched.

    Raises:
        InputError: as `local`.
    """
    store = Store(address)
    path = place_of(store.address, "read")
    for _ in range(5):  # a run may be at work there, and drop what its manifest named a moment ago
        # 1. What is there, by the manifest, else by the listing.
        manifest = read_manifest(store)
        listed = store.find() if manifest is None else manifest.objects()
        wanted = {path / name: (store, name, one) for name, one in listed.items() if not _is_spared(name)}
        wanted |= _answers(store, path) if listed.keys() == {""} else {}
        if not listed:
            # 2. A checkpoint's prefix, `model.ckpt-7`, is no object: its files lie beside it, and are mirrored there.
            listed = store.prefixed()
            beside = Store(store.address.rpartition("/")[0]) if listed else store
            wanted = {path.parent / name: (beside, name, one) for name, one in listed.items()}
        # 3. A pattern, last of all: a name may have brackets.
        if not listed and (BRACES.search(address) or glob.has_magic(address)):
            return _matching(store.address, path)
        # 4. All of it fetched.
        what = "object, folder or checkpoint prefix" if store.lists else "file (of a folder the web does not tell)"
        check(listed, f"{store.address} must exist: no {what} of that name is there")
        gone = _fetch(store.address, path, wanted)
        # Without a manifest what is gone is gone; with one the folder is not whole, and looked at again.
        if not gone or manifest is None:
            break
    else:
        raise InputError(f"{store.address} must hold what its {MANIFEST} names, but lacks {shown(gone[0])}")
    if gone:
        some = ", ".join(map(shown, gone[:3]))
        say(f"{store.address}: {len(gone):,} objects were listed, but are gone: {some}")
    stand_for(path, store.address)
    return path


def answers_of(name: str) -> str:
    """The file of answers that lies beside the numbers of an evaluation; empty for what can have none.

    Example:
        >>> answers_of("knn.json"), answers_of("w.pth")
        ('knn.npz', '')
    """
    return f"{name.removesuffix('.json')}.npz" if name.endswith(".json") else ""


def _answers(store: Store, path: Path) -> "_Wanted":
    """The answers beside an evaluation's numbers, if they are there."""
    name = answers_of(path.name)
    beside = Store(store.address.rpartition("/")[0]) if name else store
    one = beside.stat(name) if name else None
    return {} if one is None else {path.parent / name: (beside, name, one)}


def _matching(address: str, path: Path) -> Path:
    """The same of a pattern, as `data.shards` has them: of what its folder holds, what fits is fetched.

    Raises:
        InputError: nothing fits.
    """
    parts = address.split("/")
    first = next(number for number, part in enumerate(parts) if BRACES.search(part) or glob.has_magic(part))
    check(first > 2, f"the name of a bucket must be no pattern, and {address} has one there")
    store, folder = Store("/".join(parts[:first])), path.parents[len(parts) - first - 1]
    patterns = [*itertools.islice(braced("/".join(parts[first:])), _PATTERNS)]
    plain = {pattern for pattern in patterns if not glob.has_magic(pattern)} | {"/".join(parts[first:])}
    others = [re.compile(_as_expression(pattern)) for pattern in patterns if glob.has_magic(pattern)]
    rule = f"{address} must name its files by braces, such as {{000..146}}: a server does not tell what it has"
    check(store.lists or not others, rule)
    # Which shards there must be is noted beside them, or around their splits.
    listed = store.find() if store.lists else store.named(plain | _notes(plain))

    def fits(name: str) -> bool:
        return name in plain or any(one.match(name) for one in others)

    def is_gone(name: str) -> bool:
        return name not in listed and (fits(name) or Path(name).name == SHARDS_NOTE)

    found = {name: one for name, one in listed.items() if fits(name)}
    check(found, f"{address} must mean something that is there, but no object in {store.address} fits")
    found |= {note: listed[note] for note in _notes(found) if note in listed}
    wanted = {folder / name: (store, name, one) for name, one in found.items()}
    gone = _fetch(address, path, wanted, known=folder, others=is_gone)
    check(not gone, f"{address} must stay as it is while it is fetched", gone=gone[:3])
    stand_for(folder, store.address)
    return path


def _notes(names: Iterable[str]) -> set[str]:
    """Where the notes of shards may lie, beside them or around their splits."""
    return {(parent / SHARDS_NOTE).as_posix() for name in names for parent in [*Path(name).parents][:2]}


_PATTERNS = 1_000_000
"""Names that braces may mean."""


def _as_expression(pattern: str) -> str:
    """A shell's pattern as a regular expression, whose wildcards stay within a folder."""
    inside = {"*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*|\?|\[[^\]]+\])", pattern)
    plain = (one.replace("[!", "[^") if one[:1] == "[" else re.escape(one) for one in pieces)
    return "".join(inside.get(one, other) for one, other in zip(pieces, plain, strict=True)) + "$"


def place_of(address: str, part: str) -> Path:
    """Where an address lies in the cache."""
    protocol, _, place = normal(address).partition("://")
    # By protocol and place, so that two spellings of an address are one mirror.
    return cache_folder().absolute() / "buckets" / part / protocol / place.strip("/")


def is_fixed(name: str) -> bool:
    """Whether a file of a run is written once and never changed: a checkpoint.

    Example:
        >>> is_fixed("checkpoints/step-00000010.npz"), is_fixed("history.csv")
        (True, False)
    """
    return _CHECKPOINT.search(name) is not None


def _is_spared(name: str) -> bool:
    """What nobody reads from a mirror: curves for TensorBoard, which reads buckets itself, and a run's lock."""
    return name in ("lock", MANIFEST) or name.startswith("logs/events.out") or "/events.out.tfevents" in name


class Manifest:
    """What a run folder in a bucket holds: the pointer, which is written after all that it names.

    Attributes:
        writer: who has written it.
        number: how often it was written.
        files: name → size and crc32c.
        version: the store's, of this object.
    """

    def __init__(self, files: Mapping[str, tuple[int, int]], *, writer: str, number: int, version: str):
        self.files, self.writer, self.number, self.version = dict(files), writer, number, version

    def objects(self) -> dict[str, Object]:
        """Name → what the object must be; a version of its own, by its content."""
        # What the manifest says is believed, not the store's listing, which may be older.
        return {name: Object(size, f"crc32c {crc}", crc) for name, (size, crc) in self.files.items()}

    def text(self) -> bytes:
        """As it is written."""
        files = {name: {"size": size, "crc32c": crc} for name, (size, crc) in sorted(self.files.items())}
        content = {"kind": _KIND, "writer": self.writer, "number": self.number, "files": files}
        return (json.dumps(content, indent=1) + "\n").encode()


def read_manifest(store: Store) -> Manifest | None:
    """The manifest of a folder; None where it has none of ours.

    Raises:
        InputError: it is damaged, or the store cannot be asked.
    """
    found = store.read(MANIFEST) if store.lists else None
    if found is None:
        return None
    try:
        content = parse_json(found[0])
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            return None
        files = {str(name): (int(one["size"]), int(one["crc32c"])) for name, one in content["files"].items()}
        # Names become paths of this machine: none may lead out of the mirror.
        odd = [name for name in files if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name]
        if odd:
            raise ValueError(f"it names {odd[0]!r}")
        return Manifest(files, writer=str(content["writer"]), number=int(content["number"]), version=found[1])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        where = store.at(MANIFEST)
        raise InputError(f"{where} must be what tf_simclr wrote, but is damaged: {error}; remove it") from error


_Wanted = Mapping[Path, tuple[Store, str, Object]]
"""Where a file is to lie → the store and name that it is fetched from, and what it must be."""


def _fetch(
    address: str,
    path: Path,
    wanted: _Wanted,
    *,
    known: Path | None = None,
    others: Callable[[str], bool] | None = None,
) -> list[str]:
    """Brings the files at and below a path to what is wanted, and returns the names of what is not there any more.

    Args:
        address: of what is fetched.
        path: where it is to lie.
        wanted: what is to be there.
        known: the folder of which versions are known; by default the path.
        others: which other names below `known` are removed; by default what else lies at the path.
    """
    # Of a pattern the folder around it: one called `*` would no longer mean others.
    around = known or path.parent
    around.mkdir(parents=True, exist_ok=True)
    # An object and a folder of one name cannot lie on a disk together: there was an object where there is a folder now.
    if path.is_file() and path not in wanted:
        path.unlink()
    # Under a lock, as two processes would fetch the same files over each other.
    with _alone(address), contextlib.closing(_Index(address)) as index:
        versions = index.rows(known or path)
        if others is None:
            _remove_others(path, wanted, index=index)
        else:
            _remove_fitting(known or path, wanted, fits=others, index=index)
        # What is not noted as this version, or has another size on the disk; or nothing tells one version from another.
        fresh = [
            p
            for p, (_, _, one) in wanted.items()
            if not one.version or versions.get(str(p)) != _mark(one) or _size(p) != one.size
        ]
        size = sum(wanted[p][2].size for p in fresh)
        free = shutil.disk_usage(around).free
        rule = f"the disk of {cache_folder()} must hold what lies at {address} (TF_SIMCLR_CACHE names another)"
        amounts = {"needed": f"{size / 2**30:,.1f} GiB", "free": f"{free / 2**30:,.1f} GiB"}
        check(size + _SPARE <= free or not fresh, rule, **amounts)
        tell = _progress(address, len(fresh), size)
        return index.filled(fresh, wanted, tell=tell)


def _mark(one: Object) -> str:
    return f"{one.version} {one.size}"


def _size(path: Path) -> int:
    """Of a plain file; -1 of anything else."""
    try:
        return path.lstat().st_size if path.is_file() and not path.is_symlink() else -1
    except OSError:
        return -1


def fetched(store: Store, name: str, *, path: Path, wanted: Object, exact: bool = False) -> Object | None:
    """Fetches one object to its path, where it appears whole; None: it is gone.

    Args:
        store: where it is.
        name: of the object.
        path: of the file.
        wanted: what it must be.
        exact: whether one that was written anew since counts as damaged.

    Raises:
        InputError: it cannot be fetched or written.
    """
    # Beside its place, so that it moves there by a renaming; names have a length that disks bear.
    aside = path.with_name(f".{os.getpid()}.{path.name}"[:250])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        got = store.patiently_get(name, aside, wanted=wanted, exact=exact)
        if got is not None:
            if path.is_dir() and not path.is_symlink():  # there was a folder of this name
                shutil.rmtree(path)
            os.replace(aside, path)
        return got
    except OSError as error:
        rule = f"{path} must be writable: {error.strerror or error}"
        raise InputError(f"{rule}; TF_SIMCLR_CACHE names another place") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


class _Index:
    """Which version each mirrored file of a bucket is."""

    def __init__(self, address: str):
        path = _beside(address, ".sqlite")
        try:
            self.base = _opened(path)
        except sqlite3.DatabaseError:  # damaged: all is fetched again
            path.unlink()
            self.base = _opened(path)

    def rows(self, path: Path) -> dict[str, str]:
        """Path → version, of those that begin with a path."""
        # From the path on to the last character that there is: what begins with it.
        begun = (str(path), f"{path}\U0010ffff")
        return dict(self.base.execute("SELECT path, mark FROM files WHERE path >= ? AND path < ?", begun))

    def forget(self, paths: list[str]) -> None:
        """Removes rows."""
        self.base.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in paths])
        self.base.commit()

    def filled(self, fresh: list[Path], wanted: _Wanted, *, tell: Callable[[int], None]) -> list[str]:
        """Fetches files, several at once, and notes each; returns the names of those that are gone."""
        gone: list[str] = []

        def get(one: Path) -> tuple[Path, Object | None]:
            store, name, there = wanted[one]
            # Checkpoints never change: of those another content is damage, and no newer version.
            return one, fetched(store, name, path=one, wanted=there, exact=is_fixed(name) and there.crc32c is not None)

        todo, rows = iter(fresh), 0
        at_once = min((store.at_once for store, _, _ in wanted.values()), default=1)
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            # A few more are waiting than are fetched: enough for all threads, too few to fill the memory.
            waiting = {pool.submit(get, one) for one in itertools.islice(todo, 4 * at_once)}
            try:
                while waiting:
                    ready, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                    waiting |= {pool.submit(get, one) for one in itertools.islice(todo, len(ready))}
                    for done in ready:
                        place, got = done.result()
                        if got is None:
                            gone.append(wanted[place][1])
                            place.unlink(missing_ok=True)
                            continue
                        self.base.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (str(place), _mark(got)))
                        rows += 1
                        # Committed now and then: a stop costs a few hundred files at most.
                        if rows % _ROWS_AT_ONCE == 0:
                            self.base.commit()
                        tell(got.size)
            finally:
                # On a failure what has not begun is dropped; what is noted stays noted.
                for future in waiting:
                    future.cancel()
                self.base.commit()
        return gone

    def close(self) -> None:
        self.base.close()


def _remove_others(path: Path, wanted: _Wanted, *, index: _Index) -> None:
    """Removes what the store has no more; of a lone object or a checkpoint's prefix nothing else is looked at."""
    # Beside a lone object lies what other addresses have mirrored.
    if path in wanted or path.parent in {one.parent for one in wanted}:
        return
    others = []
    # The deepest folders first, so that those that become empty can go.
    for folder, _, names in os.walk(path, topdown=False):
        for other in {Path(folder, name) for name in names} - wanted.keys():
            other.unlink()
            others.append(str(other))
        with contextlib.suppress(OSError):  # one that holds something stays
            Path(folder).rmdir()
    index.forget(others)


def _opened(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=60)
    base.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, mark TEXT)")
    return base


def _beside(address: str, ending: str) -> Path:
    """A file that belongs to all mirrors of a bucket."""
    protocol, _, place = normal(address).partition("://")
    folder = cache_folder().absolute() / "buckets" / "read"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{protocol}.{place.strip('/').split('/')[0]}{ending}"


@contextlib.contextmanager
def _alone(address: str) -> Iterator[None]:
    """Keeps other processes of this machine from a bucket's mirrors; they wait, and find them whole."""
    if fcntl is None:
        yield
        return
    # One lock a bucket, waited for: what the other one fetches is then here.
    with open(_beside(address, ".lock"), "w") as file, contextlib.ExitStack() as stack:
        told = f"{address} is being fetched by another process; waiting for it …"
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(told)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # no such locks on this file system: signs of life tell
            said = False
            while True:
                try:
                    stack.enter_context(hold(_beside(address, ".held"), say=say))
                    break
                except InUse:
                    if not said:
                        say(told)
                    said = True
                    time.sleep(1)
        yield


def _remove_fitting(folder: Path, wanted: _Wanted, *, fits: Callable[[str], bool], index: _Index) -> None:
    """Removes what fits a pattern and what the store has no more: it would be taken for a shard."""
    others = []
    for place, _, names in os.walk(folder):
        # Dots begin the names of what is half fetched, which no pattern means.
        for one in {Path(place, name) for name in names if not name.startswith(".")} - wanted.keys():
            if fits(one.relative_to(folder).as_posix()):
                one.unlink()
                others.append(str(one))
    index.forget(others)


def _progress(address: str, count: int, size: int) -> Callable[[int], None]:
    """Says how far a download is: in place on a terminal, else its beginning and end."""
    line, done, began = Line(now=time.monotonic()), [0, 0], time.monotonic()
    if count:
        line.keep(f"{address}: fetching {count:,} files, {size / 1e6:,.1f} MB, to {cache_folder()}/buckets …")

    def tell(more: int) -> None:
        done[0] += 1
        done[1] += more
        now = time.monotonic()
        text = f"{address}: {done[0]:,} of {count:,} files, {done[1] / 1e6:,.1f} of {size / 1e6:,.1f} MB"
        if done[0] == count:
            line.keep(f"{text} in {now - began:,.0f} s")
        elif line.due(now):
            line.draw(text, now=now)

    return tell
