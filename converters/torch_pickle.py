"""What PyTorch's files say of their tensors: a pickle, written and read here without running anything.

The writer puts together the few opcodes that a dictionary of tensors needs.  The reader follows the opcodes of plain
dictionaries, lists, numbers, texts and tensors; a name of Python's is only ever compared with the few that stand for
tensors, never looked up.  It gives up on all else, which is left to `torch.load(weights_only=True)`.

References:
    CPython Lib/pickletools.py (the opcodes); pytorch torch/serialization.py (`persistent_id`), torch/_utils.py
    (`_rebuild_tensor_v2`), torch/_weights_only_unpickler.py
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Content = dict[str, Any]
"""Text → tensor, or dictionary of the same kind."""

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""PyTorch's name of a storage → NumPy's name of its dtype."""

_NAMES = {dtype: name for name, dtype in STORAGES.items()}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"


class UnknownPickleError(Exception):
    """The pickle holds more than plain values and tensors, or is damaged."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as the pickle describes it.

    Attributes:
        storage: Name of the member that holds its data.
        dtype: NumPy's name.
        count: Elements of the storage.
        shape: Of the tensor.
        stride: Elements from one to the next along each axis.
        offset: Of its first element in the storage.
    """

    storage: str
    dtype: str
    count: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0


class _Storage(Tensor):
    """All of a storage, of which no tensor has been made yet."""


@dataclass(frozen=True)
class _Name:
    """A name of Python's, as text."""

    text: str


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor without gaps, in elements.

    Example:
        >>> contiguous((2, 3, 4))
        (12, 4, 1)
    """
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def encode(content: Mapping[str, Any]) -> bytes:
    """The pickle of nested dictionaries of tensors."""
    return b"\x80\x02" + _value(content) + b"."


def _value(value: Any) -> bytes:
    if isinstance(value, Tensor):
        return _tensor(value)
    return b"}(" + b"".join(_text(key) + _value(child) for key, child in value.items()) + b"u"


def _tensor(tensor: Tensor) -> bytes:
    """A call of `_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, backward_hooks)`."""
    kind = _name(f"torch {_NAMES[tensor.dtype]}")
    storage = (_text("storage"), kind, _text(tensor.storage), _text("cpu"), _whole(tensor.count))
    shape, stride = (_tuple(*map(_whole, numbers)) for numbers in (tensor.shape, tensor.stride))
    hooks = _name(_ORDERED) + b")R"
    return _name(_TENSOR) + _tuple(_tuple(*storage) + b"Q", _whole(tensor.offset), shape, stride, b"\x89", hooks) + b"R"


def _name(text: str) -> bytes:
    module, name = text.split(" ")
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    content = text.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def _whole(number: int) -> bytes:
    if number < 1 << 8:
        return b"K" + struct.pack("<B", number)
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def _tuple(*items: bytes) -> bytes:
    return b"".join((b"(", *items, b"t")) if items else b")"


def decode(data: bytes) -> Any:
    """What a pickle describes: dictionaries, lists, tuples, texts, numbers and `Tensor`s.

    Raises:
        UnknownPickleError: it needs anything else, or is damaged.
    """
    try:
        return _Machine(data).run()
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise UnknownPickleError(f"{type(error).__name__}: {error}") from error


class _Machine:
    """The pickle's stack machine, as far as state dictionaries need it."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while (opcode := self.take(1)) != b".":
            if opcode in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode]())
            elif opcode in _NUMBERS:
                self.stack.append(self.number(_NUMBERS[opcode]))
            else:
                _ACTIONS[opcode](self)
        [content] = self.stack
        return content

    def take(self, size: int) -> bytes:
        if size < 0 or self.place + size > len(self.data):
            raise UnknownPickleError("it is cut off")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.place)
        text = self.take(end - self.place).decode()
        self.place += 1
        return text

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def protocol(self) -> None:
        if self.take(1) != b"\x02":
            raise UnknownPickleError("its protocol is none that PyTorch writes")

    def name(self) -> None:
        self.stack.append(_Name(f"{self.line()} {self.line()}"))

    def text(self) -> None:
        self.stack.append(self.take(self.number("<I")).decode())

    def long(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def pack(self, count: int | None = None) -> None:
        items = self.since_mark() if count is None else [self.stack.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(items))

    def put(self, form: str) -> None:
        self.memo[self.number(form)] = self.stack[-1]

    def get(self, form: str) -> None:
        self.stack.append(self.memo[self.number(form)])

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        keys, values = items[::2], items[1::2]
        if not isinstance(target, dict) or not all(type(key) in (str, int) for key in keys):
            raise UnknownPickleError("a dictionary has keys that are neither text nor numbers")
        target.update(zip(keys, values, strict=True))

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise UnknownPickleError("items belong to no list")
        self.stack[-1].extend(items)

    def storage(self) -> None:
        """A storage: `("storage", type, member, device, elements)`."""
        what, kind, member, _, count = self.stack.pop()
        module, _, name = kind.text.partition(" ")
        if what != "storage" or module != "torch" or type(member) is not str or type(count) is not int:
            raise UnknownPickleError("a persistent id is no storage's")
        self.stack.append(_Storage(member, STORAGES[name], count, (count,), (1,)))

    def call(self) -> None:
        """The three calls that state dictionaries are made of; nothing is called."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if function == _Name(_ORDERED) and arguments == ():
            self.stack.append({})
        elif function == _Name(_TENSOR):
            self.stack.append(_rebuilt(*arguments[:4]))
        elif function == _Name(_PARAMETER) and type(arguments[0]) is Tensor:
            self.stack.append(arguments[0])
        else:
            raise UnknownPickleError(f"it calls {getattr(function, 'text', function)!r}")

    def build(self) -> None:
        """An `OrderedDict`'s attributes, as `state_dict()` gives it: `_metadata`, which nobody needs."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise UnknownPickleError("an object has attributes")


def _rebuilt(storage: Tensor, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    numbers = (offset, *shape, *stride)
    if type(storage) is not _Storage or len(shape) != len(stride):
        raise UnknownPickleError("a tensor has no storage, shape and stride")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise UnknownPickleError("a tensor's shape, stride and offset are no natural numbers")
    return Tensor(storage.storage, storage.dtype, storage.count, tuple(shape), tuple(stride), offset)


_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"}": dict,
    b"]": list,
    b")": tuple,
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
}
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
_ACTIONS = {
    b"\x80": _Machine.protocol,
    b"(": _Machine.mark,
    b"c": _Machine.name,
    b"X": _Machine.text,
    b"\x8a": _Machine.long,
    b"t": _Machine.pack,
    b"\x85": lambda machine: machine.pack(1),
    b"\x86": lambda machine: machine.pack(2),
    b"\x87": lambda machine: machine.pack(3),
    b"q": lambda machine: machine.put("<B"),
    b"r": lambda machine: machine.put("<I"),
    b"h": lambda machine: machine.get("<B"),
    b"j": lambda machine: machine.get("<I"),
    b"s": lambda machine: machine.set_items([machine.stack.pop() for _ in range(2)][::-1]),
    b"u": lambda machine: machine.set_items(machine.since_mark()),
    b"a": lambda machine: machine.append([machine.stack.pop()]),
    b"e": lambda machine: machine.append(machine.since_mark()),
    b"Q": _Machine.storage,
    b"R": _Machine.call,
    b"b": _Machine.build,
}
