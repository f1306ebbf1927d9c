"""Places: paths as people write them, with `~`, `~user`, `$VAR` and `${VAR}`, to paths that the system knows.

This is the only place that expands them.  A shell does so itself only at the start of a word, which
`--image_dir=~/pets`, a `config.json` and a call from Python are not; a path that is not expanded means another folder,
silently.  Every path option of every command passes through here when its configuration is made (`expand`), every path
that a public function takes when it is called (`expanded`).

A knob is a place if its type has `Path` in it, or is `Place`: a string that may be something else, too.
"""

import dataclasses
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from tf_simclr import terminal
from tf_simclr.errors import InputError, check, shortened

_MARK = "tf_simclr.files.places"
Place = Annotated[str, _MARK]
"""Type of a knob that is a word of its own, such as `synthetic`, or else a path."""

NAMED = ("checkpoint", "teacher", "adapted", "source", "path", "a", "b")
"""Knobs for which other addresses (`hf://`, `https://`) are answers, too, or have sentences of their own."""
READ = {
    **dict.fromkeys(("image_dir", "radiographs", "pretrain_radiographs", "raw", "images"), "images"),
    "data_dir": "a data set of TensorFlow Datasets, which reads gs:// by itself",
    **dict.fromkeys(NAMED, "a checkpoint"),
    **dict.fromkeys(("runs", "model", "others"), "runs and models"),
    "subgroup_table": "a table",
    **dict.fromkeys(("encoder", "teacher_encoder"), "a network's file, FILE.keras"),
}
"""Knobs for which an address in a bucket is mirrored, and what they mean (`buckets.staging`)."""
FOLDERS = {"model_dir"}
"""Knobs for which a folder in a bucket is locked, and sent while the command fills it."""
KEPT = {"cache_dir", "teacher_logits"}
"""Knobs for which an address in a bucket is a cache: what is asked for is brought, what is made is sent."""
WRITTEN = {
    **dict.fromkeys(("out", "result", "target"), "what a command makes"),
    "figures": "pictures",
}
"""Knobs for which what a command has made is sent to an address in a bucket."""

_STORES_NOT = {
    *("http", "https", "hf", "grpc", "data", "github", "gist", "git", "jupyter", "jlab", "pyscript"),
    *("dir", "simplecache", "filecache", "blockcache", "cached", "generic", "reference", "zip", "tar", "libarchive"),
    *("asyncwrapper", "asynclocal"),
}
"""What addresses begin with that are in no store of files; the last two lines are of ways to see another store."""

_WEB = ("http", "https")
"""What addresses of the web begin with: files of a server that tells of no folder what is in it, and takes none."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(:[A-Za-z0-9+.-]+:)*/")
"""What is an address and no path: `gs://bucket/x`, of which `Path` leaves `gs:/bucket/x`, and fsspec's chains of them
(`simplecache::gs://bucket/x`); not Windows' `C:/x`."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
SHARDS_NOTE = "prepared.json"
"""What `prepare-shards` notes beside its shards, their names and sizes among it: a pattern of shards comes with it."""
BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_VARIABLE = re.compile(r"\$(?:\{([^{}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def is_address(path: str | Path) -> bool:
    """Whether this is an address such as `gs://bucket/folder`, in which nothing is expanded.

    Example:
        >>> is_address("gs://bucket/x"), is_address(Path("gs://bucket/x")), is_address("C:/x"), is_address("~/x")
        (True, True, False, False)
    """
    return _ADDRESS.match(str(path)) is not None


def is_bucket(path: object) -> bool:
    """Whether this is an address in a bucket, or of any other store that files can be in.

    Example:
        >>> is_bucket("gs://bucket/x"), is_bucket(Path("memory://x")), is_bucket("hf://user/repo"), is_bucket(None)
        (True, True, False, False)
    """
    text = str(path) if isinstance(path, str | Path) else ""
    # Of what an address begins with the letters' case does not count.
    return is_address(text) and text.partition(":")[0].lower() not in _STORES_NOT


def is_web(path: object) -> bool:
    """Whether this is an address of a file on the web, which can be read and not written.

    Example:
        >>> is_web("https://host/pets.tar"), is_web(Path("http://host/x")), is_web("s3://bucket/x"), is_web("pets")
        (True, True, False, False)
    """
    text = str(path) if isinstance(path, str | Path) else ""
    return is_address(text) and text.partition(":")[0].lower() in _WEB


def is_stored(knob: str, value: object) -> bool:
    """Whether what a knob names lies elsewhere, from where it is fetched: in a bucket; of images on the web, too.

    Example:
        >>> is_stored("image_dir", "https://host/pets.tar"), is_stored("checkpoint", "https://host/x.npz")
        (True, False)
    """
    return is_bucket(value) or (is_web(value) and READ.get(knob) == "images")


def stand_for(path: Path, address: str) -> None:
    """Has whatever is said or noted of a path, or of anything below it, name an address in a bucket instead."""
    terminal.stand_for(str(path), address)


def written(path: Path) -> str:
    """A path as it was given: of an address, `Path` leaves one of its two slashes, and its mirror stands for it.

    Example:
        >>> written(Path("hf://user/repo")), written(Path("pets/train"))
        ('hf://user/repo', 'pets/train')
    """
    text = terminal.addressed(str(path))
    return re.sub(":/+", "://", text, count=1) if is_address(text) else text


def check_local(path: str | Path) -> None:
    """Refuses an address where a file of this machine is meant: `Path` would make a folder called `gs:` of it.

    Raises:
        InputError: it is one.
    """
    advice = "copy it here first, or mount the bucket (gcsfuse, mount-s3, rclone mount) and give the path below it"
    if str(path).startswith("hf:/"):
        advice = "--dataset hf:USER/NAME takes a data set of the hub, --checkpoint hf://USER/NAME a network"
    check(not is_address(path), f"{written(Path(path))} must be a path on this machine, not an address: {advice}")


def hub_name(text: str) -> str:
    """The name of a repository on the Hugging Face hub, without `hf://`.

    Example:
        >>> hub_name("hf://user/repo")
        'user/repo'

    Raises:
        InputError: it is none.
    """
    bare = str(text).removeprefix("hf://")
    # As the hub's own rules have it, so that a name it would refuse is refused before anything is computed.
    plain = _REPOSITORY.fullmatch(bare) and not re.search(r"--|\.\.|[.-](/|$)|\.git$", bare)
    check(plain, "a repository of the hub to push to must be USER/NAME, of letters, digits, -, _ and .", received=text)
    return bare


def expanded(path: str | Path) -> Path:
    """The path that was meant: `~` and `~user` at its start, `$VAR` and `${VAR}` anywhere in it are expanded.

    Once, from left to right: what a variable holds is taken as it is.  A file or folder that is really called `$x`
    or `~x` is found by that name where there is no such variable or user.  Addresses (`gs://…`) stay as they are.

    Raises:
        InputError: a variable is not set, there is no such user, or no file can have such a name.

    Example:
        >>> os.environ["PETS"] = "/data/pets"
        >>> expanded("$PETS/train").as_posix(), expanded("${PETS}_small").as_posix(), expanded("pets").as_posix()
        ('/data/pets/train', '/data/pets_small', 'pets')
    """
    text = os.fspath(path)
    if is_address(text):
        return Path(path)
    _check_possible(text)
    if not ("$" in text or text.startswith("~")):
        return Path(path)
    start, rest = home(text)

    def variable(found: re.Match) -> str:
        name = found[1] if found[1] is not None else found[2]
        if name in os.environ:
            return os.environ[name]
        # A folder may really be called `$x`; the name that is there wins over a sentence about a variable.
        before = start + _VARIABLE.sub(variable, rest[: found.start()])
        if os.path.lexists(before + found[0] + _first_part(rest[found.end() :])):  # of a/$x/b there is a/$x: a name
            return found[0]
        rule = f"each variable in a path must be set, and ${name} is not: set it, or write the path out"
        raise InputError(f"{rule}. Received: {text!r}")

    return Path(start + _VARIABLE.sub(variable, rest))


_IMPOSSIBLE = {errno.ENAMETOOLONG: "is too long", errno.ELOOP: "goes round in a circle of links"}
"""What the system answers where no file can have a name → why."""


def _check_possible(text: str) -> None:
    """Refuses what no file can be called: whoever asks for one of that name would fail, each in its own way.

    Raises:
        InputError: it is too long, leads round in a circle of links, or has a zero in it.
    """
    why = "has a zero in it" if "\0" in text else None
    if why is None:
        try:
            os.lstat(text)
        except OSError as error:
            why = _IMPOSSIBLE.get(error.errno or 0)
    check(why is None, f"a path must be one that a file can have, and this one {why}: {shortened(text, 100)!r}")


def home(text: str) -> tuple[str, str]:
    """The home that a `~` or `~user` at the start means, nothing where there is none, and the rest of the text.

    Raises:
        InputError: there is no such user, and nothing of this name either.
    """
    first = _first_part(text)
    folder = os.path.expanduser(first) if first.startswith("~") else first
    # Python leaves `~nobody` as it is where there is no such user: then only a file of that name is meant.
    if folder != first:
        return folder, text[len(first) :]
    known = not first.startswith("~") or os.path.lexists(first)
    check(known, f"a path that starts with {first} must be in the home of a user of this machine", received=text)
    return "", text


def braced(text: str) -> Iterator[str]:
    """What braces mean, as in a shell: `{a,b}` and `{000..146}`, whose numbers have as many digits as the first.

    Example:
        >>> [*braced("{train,val}-{08..10}.tar")][2:5]
        ['train-10.tar', 'val-08.tar', 'val-09.tar']
    """
    match = BRACES.search(text)
    if match is None:
        yield text
        return
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        step = 1 if last >= first else -1
        words: Iterator[str] = (f"{n:0{len(numbers[1])}}" for n in range(first, last + step, step))
    elif "," in match[1]:
        words = iter(match[1].split(","))
    else:
        return  # one word in braces names nothing
    for word in words:
        yield from braced(text[: match.start()] + word + text[match.end() :])


def _first_part(text: str) -> str:
    """What comes before the first separator of a path."""
    return re.split(r"[/\\]" if os.sep == "\\" else "/", text, maxsplit=1)[0]


def names_place(kind: Any) -> bool:
    """Whether a knob of this type is a place.

    Example:
        >>> names_place(Path | None), names_place(tuple[Path, ...]), names_place(Place), names_place(str | None)
        (True, True, True, False)
    """
    if kind is Path:
        return True
    if get_origin(kind) is Annotated:
        return _MARK in get_args(kind)[1:] or names_place(get_args(kind)[0])
    return any(names_place(one) for one in get_args(kind))


def expand(config: Any) -> None:
    """Expands every knob of a frozen dataclass that is a place; configurations call it before they check anything.

    An address passes where something knows what to do with it (`READ`, `FOLDERS`, `KEPT`, `WRITTEN`, `NAMED`).

    Raises:
        InputError: a variable is not set, there is no such user, an address is given for a path, or a name that cannot
            be written; names the knob.
    """
    for field in dataclasses.fields(config):
        if names_place(field.type):
            try:
                value = _value(getattr(config, field.name), path=_is_path(field.type))
                # An address is an answer only where the command knows what to do with it (the tables above).
                for one in value if isinstance(value, tuple | list) else (value,):
                    known = field.name in READ.keys() | FOLDERS | KEPT | WRITTEN.keys()
                    stored = known and is_stored(field.name, one)
                    if not stored and field.name not in NAMED:
                        check_local(one or "")
                    if field.name in FOLDERS | KEPT | WRITTEN.keys():
                        _check_writable(str(one or ""))
            except InputError as error:
                raise InputError(f"{field.name}: {error}") from error
            object.__setattr__(config, field.name, value)  # frozen for all but its own making


def _check_writable(name: str) -> None:
    """Refuses a name that is no UTF-8: TensorFlow, Arrow and others cannot write there, and some would find that late.

    Raises:
        InputError: so it is.
    """
    # Its bytes count: where Python takes names for ASCII, letters that are UTF-8 come as the signs of odd bytes, too.
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeError as error:
        rule = "a place to write must have a name in UTF-8; pictures that are read may have any"
        raise InputError(f"{rule}. Received: {shown(name)}") from error


def _is_path(kind: Any) -> bool:
    """Whether a knob of this type holds paths, and not the text of a `Place`."""
    if get_origin(kind) is Annotated:
        return _MARK not in get_args(kind)[1:] and _is_path(get_args(kind)[0])
    return kind is Path or any(map(_is_path, get_args(kind)))


def _value(value: Any, *, path: bool) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_value(one, path=path) for one in value)
    if isinstance(value, str) and not path:  # a `Place` stays a string
        return str(expanded(value)) if value and not is_address(value) else value
    return expanded(value) if value else value  # Python may give texts for paths


def shown(path: str | bytes | Path) -> str:
    """A path as text for people and files: always UTF-8, on one line, and the same path always the same text.

    Bytes that are no UTF-8 and characters that are not printable, such as new lines and what moves a terminal's
    cursor, become `\\xff` or `\\u2028`.

    Example:
        >>> shown("é.jpg"), shown(b"\\xff.jpg"), shown("a\\nb.jpg"), shown("\\ud800")
        ('é.jpg', '\\\\xff.jpg', 'a\\\\nb.jpg', '\\\\xed\\\\xa0\\\\x80')
    """
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:  # a file's content has letters that names on this system cannot have, or halves of some
        raw = str(path).encode("utf-8", "surrogatepass")
    # Bytes of a name that are not UTF-8 are written as escapes: a listing of them can be stored and sorted anywhere.
    text = terminal.addressed(raw.decode("utf-8", "backslashreplace"))
    if text.isprintable():  # of a million names almost all
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
