"""A command whose knobs are addresses, on local paths: what it reads is mirrored, what it writes is sent.

The commands know nothing of buckets.  `staged` gives them a configuration in which each address is a path below the
cache; whatever they say or note of such a path is the address again (`places.written`, `terminal.write`).
"""

import contextlib
import dataclasses
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tf_simclr.buckets.keeping import kept_at
from tf_simclr.buckets.mirror import answers_of, local, mirrored, place_of
from tf_simclr.buckets.sending import SENDING, Sending, stamp
from tf_simclr.buckets.store import Store, normal
from tf_simclr.errors import InputError, check
from tf_simclr.files.places import FOLDERS, KEPT, READ, WRITTEN, is_stored, names_place, stand_for, written
from tf_simclr.machine.signals import Stopping, raising
from tf_simclr.terminal import forget

_C = TypeVar("_C")


@contextlib.contextmanager
def staged(config: _C, *, say: Callable[[str], None], several: bool = False) -> Iterator[_C]:
    """A command's block: its configuration with paths of this machine in the place of addresses.

    Folders that the command fills are locked and sent while the block runs, to its very end, however it ends; single
    outputs are sent when it ends well.  What is read is mirrored before it begins.

    Args:
        config: a frozen dataclass.
        say: takes a line for the user.
        several: whether several processes run it: a folder that the first of them fills stays an address until they
            have met (`filled`, `copied`).

    Raises:
        InputError: something cannot be read or written; another process fills a folder.
    """
    # Knobs whose type says that they mean a place.
    places = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if names_place(f.type)}  # type: ignore[arg-type]
    asked = {name: value for name, value in places.items() if any(is_stored(name, one) for one in _each(value))}
    if not asked:
        yield config
        return
    with contextlib.ExitStack() as stack:
        values: dict[str, Any] = {}
        # What is written comes first: a second writer is refused before anything is fetched.
        for name in (name for name in asked if name in FOLDERS | WRITTEN.keys()):
            if several and name in FOLDERS:
                values[name] = asked[name]
                continue
            enter = filled if name in FOLDERS else _made
            values[name] = stack.enter_context(enter(normal(written(Path(asked[name]))), say=say))
        for name in (name for name in asked if name in KEPT):
            values[name] = kept_at(normal(written(Path(asked[name]))))
        # What is read is fetched before the command begins.
        for name in (name for name in asked if name not in values):
            values[name] = _read(name, asked[name], others=places | {"dataset": getattr(config, "dataset", "")})
        yield dataclasses.replace(config, **values)  # type: ignore[type-var]


def _each(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else () if value is None else (value,)


def _read(name: str, value: Any, *, others: Mapping[str, Any]) -> Any:
    """A knob that is read, with mirrors in the place of its addresses; a word stays a word."""
    if isinstance(value, tuple | list):
        return tuple(_read(name, one, others=others) for one in value)
    if not is_stored(name, value):
        return value
    if name == "data_dir":
        return _of_tfds(written(Path(value)), str(others["dataset"]))
    path = local(value, images=READ.get(name) == "images")
    return str(path) if isinstance(value, str) else path


def _of_tfds(address: str, dataset: str) -> Path:
    """The folder of TensorFlow Datasets' data sets, with the one that is asked for; gs:// it reads by itself."""
    if normal(address).startswith("gs://"):
        return Path(address)
    folder = place_of(address, "read")
    stand_for(folder, normal(address))
    mirrored(f"{normal(address)}/{dataset.split(':')[0]}")
    return folder


@contextlib.contextmanager
def filled(address: str, *, say: Callable[[str], None]) -> Iterator[Path]:
    """The working folder of a folder in a bucket (`sending`), for the one process that writes it.

    Raises:
        InputError: another process fills it, or it cannot be read or sent.
    """
    address = normal(address)
    check(place_of(address, "written") not in SENDING, f"{address} is in use by this very process")
    sending = Sending(address, say=say)
    with raising():  # else SIGTERM would end the process before it has sent what is saved
        sending.begin()
        try:
            yield sending.path
        finally:
            # Why the block ends decides what its user hears first.
            ended = sys.exc_info()[1]
            if isinstance(ended, KeyboardInterrupt | SystemExit):
                say(f"sending what is saved to {address} …")
            try:
                # A signal waits until all is sent, but not a second Ctrl-C.
                with Stopping(signal.SIGINT if isinstance(ended, KeyboardInterrupt) else None):
                    sending.close()
            except InputError as error:
                if ended is None or (sending.lost is not None and ended is not sending.lost):
                    raise
                if error is not ended:  # what ended the command is what its user should hear first
                    say(str(error))


def copied(address: str) -> Path:
    """Where other processes read such a folder; nothing of it is fetched before `mirrored` is asked for it."""
    path = place_of(address, "read")
    stand_for(path, normal(address))
    return path


@contextlib.contextmanager
def _made(address: str, *, say: Callable[[str], None]) -> Iterator[Path]:
    """Where an output is made that is sent when the block ends well: a file or folder, and parts of it beside.

    What lies at the address is brought first: a command may go on with it, or refuse to write over it.
    """
    folder, _, stem = address.rpartition("/")
    store, path = Store(folder), place_of(address, "written")
    check(stem and not folder.endswith(":/"), f"{address} must name a file or folder in a bucket")
    # What lies there already is fetched, as a command may add to it or refuse to replace it.
    whole, known = Store(address), {}
    listed = {f"{stem}/{name}" if name else stem: one for name, one in whole.find().items()}
    listed |= whole.prefixed()
    if (answers := answers_of(stem)) and (there := store.stat(answers)) is not None:
        listed[answers] = there
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _belonging(path):
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    for name, one in listed.items():
        target = path.parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if store.patiently_get(name, target, wanted=one) is not None:
            known[name] = stamp(target)
    stand_for(path.parent, folder)
    yield path
    # Files in the order of their times: an index or a `.json` that is written last is sent last.
    files = [file for one in _belonging(path) for file in ([one] if one.is_file() else sorted(one.rglob("*")))]
    files = [file for file in files if file.is_file()]
    made = {file.relative_to(path.parent).as_posix(): file for file in sorted(files, key=lambda file: stamp(file)[0])}
    for name, file in made.items():
        if known.get(name) != stamp(file):
            try:
                store.put(name, file)
            except FileNotFoundError as error:
                raise InputError(f"{address} must be in a bucket that is there: {error}") from error
    # What was there, and is here no more.
    store.delete([name for name in known if name not in made])
    forget(str(path.parent))


def _belonging(path: Path) -> list[Path]:
    """What lies at a path, and beside it with its name and an ending, or as a result's answers."""
    found = path.parent.glob("*") if path.parent.is_dir() else ()
    names = {path.name, answers_of(path.name)}
    return [one for one in found if one.name in names or one.name.startswith(f"{path.name}.")]
