"""Pickles of protocols 0 to 5, read without importing or calling anything.

The stack machine follows every opcode.  A name of Python's stays text (`Name`); what would be a call or an object
becomes an inert `Placeholder` that remembers its class and what it was given.  Only a few built-in containers
(`OrderedDict`, `defaultdict`, `set`, …) become Python's own, as they are nothing but their items.  What the caller
knows to build from a name – tensors – it builds by `calls`, from the arguments, by its own code.

References:
    CPython Lib/pickletools.py (every opcode's stack effect), Lib/pickle.py (`_Unpickler`)
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tf_simclr.errors import InputError
from tf_simclr.foreign import spend

_STRIDE = 256
"""Opcodes between two looks at the budget, in which 16 opcodes count for an item: a tensor takes some 40."""

_LONGEST_LINE = 1 << 16
"""Bytes of a text that ends with its line: names, and the numbers and texts of protocol 0."""

_LONGEST_NUMBER = 256
"""Bytes of a whole number; PyTorch's own are nine at most."""


class DamagedPickleError(InputError):
    """The bytes are no whole pickle."""


@dataclass(frozen=True)
class Name:
    """A name of Python's, as text: module, space, qualified name."""

    text: str


@dataclass(eq=False)
class Placeholder:
    """An object that was not made.

    Attributes:
        kind: Its class, or the function that would have made it: `pathlib.PosixPath`.
        arguments: What this would have been called with.
        state: What its attributes would have been set from.
        items: What would have been appended or added to it.
        pairs: What would have been set by key.
    """

    kind: str
    arguments: tuple = ()
    state: Any = None
    items: list = field(default_factory=list)
    pairs: dict = field(default_factory=dict)


@dataclass(eq=False)
class OddKey:
    """Stands for a dictionary's key that is no text or number; hashing what a hostile file nests may never end."""

    value: Any


Calls = Mapping[str, Callable[..., Any]]
"""Name → what to build from a call's arguments; raises `TypeError` or `ValueError` where they do not fit."""


def read(
    data: bytes | memoryview,
    *,
    start: int = 0,
    calls: Calls,
    persistent: Callable[[Any], Any],
) -> tuple[Any, int]:
    """What a pickle describes.

    Args:
        data: Bytes that hold it.
        start: Where it begins.
        calls: What to build by name, beside plain containers.
        persistent: What a persistent id stands for.

    Returns:
        Its content, and the place behind it.

    Raises:
        DamagedPickleError: it is no whole pickle.
        InputError: it takes more than the budget (`tf_simclr/foreign/`).
    """
    # 1. The machine runs to its STOP.  2. What bytes can make it
    #    raise is damage; anything else would be a fault of ours.
    machine = _Machine(data, start, calls, persistent)
    try:
        return machine.run(), machine.place
    except InputError:  # said already, or the budget's
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError, struct.error) as error:
        raise DamagedPickleError(
            f"its pickle is damaged at byte {machine.place}: {type(error).__name__}: {error}"
        ) from error


def _mapping(*arguments: Any) -> dict:
    """`OrderedDict()`, `OrderedDict(pairs)`, `dict(mapping)`, `Counter(mapping)`."""
    if not arguments:
        return {}
    [items] = arguments
    return _keyed(items.items() if isinstance(items, dict) else ((key, value) for key, value in items))


def _keyed(pairs: Iterable[tuple[Any, Any]]) -> dict:
    return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
    """The key, where hashing it is quick and no two of a hostile file's can be made to collide."""
    # Whole numbers that are large can be made to collide by the thousand; texts have a hash with a secret.
    plain = key is None or type(key) in (str, bytes, bool, float) or (type(key) is int and abs(key) < 1 << 60)
    return key if plain else OddKey(key)


def _bytes(*arguments: Any) -> bytes:
    """`bytes()`, `bytearray(bytes)`, `bytearray(text, encoding)`; never of a length, which costs nothing to claim."""
    if not arguments:
        return b""
    content = arguments[0]
    if type(content) is str:
        return _encoded(*arguments)
    if type(content) not in (bytes, bytearray):
        raise TypeError("bytes are made from bytes")
    return bytes(content)


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode(text, "latin1")`: how bytes are written at protocol 2."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", "ascii", "utf-8", "utf8"):
        raise ValueError("bytes are written in Latin-1")
    return text.encode(encoding)


def _attribute(owner: Any, name: Any) -> Name:
    """`getattr(class, name)`: how a method is named before protocol 4."""
    if not isinstance(owner, Name) or type(name) is not str:
        raise TypeError("an attribute is of no name")
    return Name(f"{owner.text}.{name}")


_CONTAINERS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _mapping,
    "collections defaultdict": lambda factory=None, *items: _mapping(*items),
    "collections Counter": _mapping,
    "collections deque": lambda items=(), *_: list(items),
    "_codecs encode": _encoded,
}
for _module in ("builtins", "__builtin__"):
    _CONTAINERS |= {f"{_module} {name}": list for name in ("set", "frozenset", "list", "tuple")}
    _CONTAINERS |= {f"{_module} dict": _mapping, f"{_module} bytearray": _bytes, f"{_module} bytes": _bytes}
    _CONTAINERS[f"{_module} getattr"] = _attribute
"""Containers that are nothing but their items.  Sets become lists: their items are not hashed."""


class _Machine:
    """The stack machine of Python's pickles."""

    def __init__(self, data: bytes | memoryview, start: int, calls: Calls, persistent: Callable[[Any], Any]):
        self.data, self.place = memoryview(data), start
        self.calls, self.persistent_id = _CONTAINERS | dict(calls), persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        step = 0
        while True:
            if step % _STRIDE == 0:
                spend(items=_STRIDE // 16)
            step += 1
            # One byte an opcode; what follows it, the opcode's own function takes.
            opcode = self.take(1)[0]
            if opcode == 0x2E:  # STOP
                [content] = self.stack
                return content
            action = _ACTIONS.get(opcode)
            if action is None:
                raise DamagedPickleError(f"its pickle has a byte {opcode:#x} at {self.place - 1} that is no opcode")
            action(self)

    # What opcodes read.

    def take(self, size: int) -> memoryview:
        if size < 0 or self.place + size > len(self.data):
            raise DamagedPickleError("its pickle is cut off")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def copy(self, form: str) -> bytes:
        """As many bytes as the number before them says."""
        content = self.take(self.number(form))
        spend(made=len(content))
        return bytes(content)

    def line(self, encoding: str = "utf-8") -> str:
        start, end = self.place, b""
        # Most lines are short: a small window first, then as far as a line may reach.
        for window in (64, _LONGEST_LINE):
            if not end:
                text, end, _ = bytes(self.data[start : start + window]).partition(b"\n")
        if not end:
            raise DamagedPickleError("its pickle has a line without an end")
        spend(made=len(text))
        self.place = start + len(text) + 1
        return text.decode(encoding)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        # From the last mark on: the items of a list, a tuple, a dictionary.
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    # What opcodes do.

    def protocol(self) -> None:
        version = self.number("<B")
        if version > 5:
            raise DamagedPickleError(f"its pickle has protocol {version}, and 5 is the newest that is known")

    def name_of_lines(self) -> None:
        module = self.line()
        self.push(Name(f"{module} {self.line()}"))

    def name_of_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name is no text")
        self.push(Name(f"{module} {name}"))

    def text(self, form: str) -> None:
        self.push(self.copy(form).decode("utf-8", "surrogatepass"))

    def string(self, form: str) -> None:
        """Python 2's `str`: text where it is ASCII."""
        content = self.copy(form)
        self.push(content.decode("ascii") if content.isascii() else content)

    def string_line(self) -> None:
        text = self.line("latin-1")
        if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0]:
            raise ValueError("a text has no quotes")
        self.push(text[1:-1].encode("latin-1").decode("unicode-escape"))

    def whole(self, form: str) -> None:
        size = self.number(form)
        if not 0 <= size <= _LONGEST_NUMBER:
            raise ValueError("a whole number is longer than any checkpoint's")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def whole_line(self) -> None:
        text = self.line()
        # Protocol 0 writes True as 01, and long numbers with an L behind.
        self.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text.removesuffix("L")))

    def tuple_(self, count: int | None = None) -> None:
        items = self.since_mark() if count is None else [self.stack.pop() for _ in range(count)][::-1]
        self.push(tuple(items))

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def pop(self) -> None:
        # A mark on top is what is popped.
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def set_items(self, items: list[Any]) -> None:
        # Keys and values in turn.
        top, pairs = self.stack[-1], _keyed(zip(items[::2], items[1::2], strict=True))
        target = top.pairs if isinstance(top, Placeholder) else top
        if not isinstance(target, dict):
            raise TypeError("items by key belong to no dictionary")
        target.update(pairs)

    def dictionary(self) -> None:
        items = self.since_mark()
        self.push({})
        self.set_items(items)

    def append(self, items: list[Any]) -> None:
        top = self.stack[-1]
        target = top.items if isinstance(top, Placeholder) else top
        if not isinstance(target, list):
            raise TypeError("items belong to no list")
        target.extend(items)

    def call(self) -> None:
        """`REDUCE` calls a function, `NEWOBJ` a class: here both are a name and arguments."""
        arguments, function = self.stack.pop(), self.stack.pop()
        self.push(self.made(function, arguments))

    def new_by_keyword(self) -> None:
        named, arguments, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.push(self.made(kind, arguments, keywords=named))

    def instance(self) -> None:
        """`INST` and `OBJ` of protocols 0 and 1."""
        self.name_of_lines()
        kind = self.stack.pop()
        self.push(self.made(kind, tuple(self.since_mark())))

    def object_(self) -> None:
        kind, *arguments = self.since_mark()
        self.push(self.made(kind, tuple(arguments)))

    def made(self, function: Any, arguments: Any, *, keywords: Any = None) -> Any:
        """A plain container, what the caller builds, or a placeholder; nothing of the file's is called."""
        # 1. Calls of what is no name.  2. The two ways in which classes are made anew.  3. The table.  4. Placeholders.
        if type(arguments) is not tuple:
            raise TypeError("arguments are no tuple")
        if not isinstance(function, Name):
            kind = function.kind if isinstance(function, Placeholder) else type(function).__name__
            return Placeholder(f"a call of {kind}", arguments)
        if function.text in ("copyreg _reconstructor", "copy_reg _reconstructor"):
            kind, _, items = (*arguments, None, None, None)[:3]
            return self.made(kind, (items,) if isinstance(items, (dict, list)) else ())
        if function.text in ("copyreg __newobj__", "copy_reg __newobj__"):
            kind, *rest = arguments
            return self.made(kind, tuple(rest))
        # The one place where a name becomes anything: a table of this project's own functions, by the name as text.
        if not keywords and function.text in self.calls:
            return self.calls[function.text](*arguments)
        thing = Placeholder(".".join(function.text.split(" ", 1)), arguments)
        # A subclass of dict is pickled with its items as an argument.
        for items in arguments:
            if isinstance(items, dict):
                thing.pairs.update(items)
        return thing

    def build(self) -> None:
        """Attributes: kept by placeholders, and by what asks for them; an `OrderedDict`'s `_metadata` nobody needs."""
        state, target = self.stack.pop(), self.stack[-1]
        if hasattr(target, "state"):
            target.state = state

    def unsupported(self, what: str) -> None:
        raise DamagedPickleError(f"its pickle has {what}, which only the program that wrote it can read")


_ACTIONS: dict[int, Callable[[_Machine], Any]] = {
    ord(opcode): action
    for opcode, action in {
        "\x80": _Machine.protocol,
        "\x95": lambda m: m.number("<Q"),  # a frame's length
        "(": lambda m: m.marks.append(len(m.stack)),
        "0": _Machine.pop,
        "1": lambda m: m.since_mark(),
        "2": lambda m: m.push(m.stack[-1]),
        "}": lambda m: m.push({}),
        "]": lambda m: m.push([]),
        ")": lambda m: m.push(()),
        "\x8f": lambda m: m.push([]),  # a set; its items are not hashed
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "K": lambda m: m.push(m.number("<B")),
        "M": lambda m: m.push(m.number("<H")),
        "J": lambda m: m.push(m.number("<i")),
        "G": lambda m: m.push(m.number(">d")),
        "I": _Machine.whole_line,
        "L": _Machine.whole_line,
        "F": lambda m: m.push(float(m.line())),
        "\x8a": lambda m: m.whole("<B"),
        "\x8b": lambda m: m.whole("<i"),
        "X": lambda m: m.text("<I"),
        "\x8c": lambda m: m.text("<B"),
        "\x8d": lambda m: m.text("<Q"),
        "V": lambda m: m.push(m.line("raw-unicode-escape")),
        "S": _Machine.string_line,
        "T": lambda m: m.string("<i"),
        "U": lambda m: m.string("<B"),
        "B": lambda m: m.push(m.copy("<I")),
        "C": lambda m: m.push(m.copy("<B")),
        "\x8e": lambda m: m.push(m.copy("<Q")),
        "\x96": lambda m: m.push(m.copy("<Q")),  # a bytearray
        "\x97": lambda m: m.unsupported("buffers beside it"),
        "\x98": lambda m: None,
        "c": _Machine.name_of_lines,
        "\x93": _Machine.name_of_stack,
        "t": _Machine.tuple_,
        "\x85": lambda m: m.tuple_(1),
        "\x86": lambda m: m.tuple_(2),
        "\x87": lambda m: m.tuple_(3),
        "l": lambda m: m.push(m.since_mark()),
        "d": _Machine.dictionary,
        "\x91": lambda m: m.push(m.since_mark()),  # a frozenset
        "q": lambda m: m.put(m.number("<B")),
        "r": lambda m: m.put(m.number("<I")),
        "p": lambda m: m.put(int(m.line())),
        "\x94": lambda m: m.put(len(m.memo)),
        "h": lambda m: m.push(m.memo[m.number("<B")]),
        "j": lambda m: m.push(m.memo[m.number("<I")]),
        "g": lambda m: m.push(m.memo[int(m.line())]),
        "s": lambda m: m.set_items([m.stack.pop() for _ in range(2)][::-1]),
        "u": lambda m: m.set_items(m.since_mark()),
        "a": lambda m: m.append([m.stack.pop()]),
        "e": lambda m: m.append(m.since_mark()),
        "\x90": lambda m: m.append(m.since_mark()),
        "Q": lambda m: m.push(m.persistent_id(m.stack.pop())),
        "P": lambda m: m.push(m.persistent_id(m.line())),
        "R": _Machine.call,
        "\x81": _Machine.call,
        "\x92": _Machine.new_by_keyword,
        "i": _Machine.instance,
        "o": _Machine.object_,
        "b": _Machine.build,
        "\x82": lambda m: m.unsupported("a registered extension"),
        "\x83": lambda m: m.unsupported("a registered extension"),
        "\x84": lambda m: m.unsupported("a registered extension"),
    }.items()
}
