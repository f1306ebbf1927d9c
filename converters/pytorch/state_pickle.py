"""What PyTorch's files say of their tensors: a pickle, written and read here without running anything.

The writer puts together the few opcodes that a dictionary of tensors needs.  The reader (`inert_pickle.py` has the
machine) knows the calls that stand for tensors and arrays, by their names, and builds a description of each; all other
objects stay inert placeholders.  What such a description cannot be a weight of – sparse, quantised, complex or 8-bit
tensors – is an `OddTensor` with the reason.

References:
    pytorch torch/serialization.py (`persistent_id`), torch/_utils.py (`_rebuild_*`), torch/_tensor.py
    (`__reduce_ex__`); numpy/_core/src/multiarray/methods.c (`array_reduce`, `array_setstate`)
"""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from converters.pytorch import inert_pickle
from converters.pytorch.inert_pickle import DamagedPickleError, Name, Placeholder

Content = dict[str, Any]
"""Text → tensor, or dictionary of the same kind."""

_STORAGES = {
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

_NAMES = {dtype: name for name, dtype in _STORAGES.items()}

_ODD_STORAGES = {
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("quantised", 1),
    "QUInt8Storage": ("quantised", 1),
    "QInt32Storage": ("quantised", 4),
    "QUInt4x2Storage": ("quantised", 1),
    "QUInt2x4Storage": ("quantised", 1),
    "UntypedStorage": ("bytes", 1),
}
"""Storages whose numbers are no weights as they are: what they are, and bytes of each."""

_DTYPES = {
    **{name: name for name in _STORAGES.values()},
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
}
"""PyTorch's names of dtypes → NumPy's, of those that a weight can have."""

_TENSOR = "torch._utils _rebuild_tensor_v2"
_ORDERED = "collections OrderedDict"


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


@dataclass(frozen=True)
class Storage(Tensor):
    """All of a storage, of which no tensor has been made yet; untyped ones count bytes.

    Attributes:
        size: Bytes of a number; 0: not known.
    """

    size: int = 0


@dataclass(frozen=True)
class OddTensor:
    """A tensor that can be no weight.

    Attributes:
        dtype: What it is of, as far as that is known.
        shape: As far as that is known.
        reason: What it is instead, in words.
    """

    dtype: str
    shape: tuple[int, ...]
    reason: str


BROKEN = "broken"
"""The dtype of what describes no tensor: the file is damaged, which the reader says with the tensor's name."""


class Array:
    """A NumPy array, whose numbers lie in the pickle itself.

    Attributes:
        state: `(version, shape, dtype, Fortran's order, bytes)`, as NumPy leaves it.
    """

    state: Any = None


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor without gaps, in elements.

    Example:
        >>> contiguous((2, 3, 4))
        (12, 4, 1)
    """
    # The last axis is next to itself, each one before it as far apart as those behind it are long.
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
    # A dictionary, a mark, keys and values, and the opcode that sets them all.
    return b"}(" + b"".join(_text(key) + _value(child) for key, child in value.items()) + b"u"


def _tensor(tensor: Tensor) -> bytes:
    """A call of `_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, backward_hooks)`."""
    kind = _name(f"torch {_NAMES[tensor.dtype]}")
    storage = (_text("storage"), kind, _text(tensor.storage), _text("cpu"), _whole(tensor.count))
    shape, stride = (_tuple(*map(_whole, numbers)) for numbers in (tensor.shape, tensor.stride))
    hooks = _name(_ORDERED) + b")R"
    # Storage by its persistent id, the offset, shape and strides, no gradient, no hooks.
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


def decode(data: bytes | memoryview) -> Any:
    """What the pickle `data.pkl` of a zip describes: containers, numbers, `Tensor`s, and `Placeholder`s for the rest.

    Raises:
        DamagedPickleError: it is no whole pickle.
    """
    return inert_pickle.read(data, calls=CALLS, persistent=storage)[0]


def storage(identity: Any) -> Any:
    """A storage by its persistent id: `("storage", type, key, device, elements)`, and older files' view of another.

    Raises:
        ValueError, TypeError: it is none.
    """
    if type(identity) is not tuple or len(identity) < 2:
        raise ValueError("a persistent id is no storage's")
    if identity[0] == "module":  # before 1.6: the source of a module's class beside the class
        return identity[1]
    # Six parts before 0.4: a view of another storage.
    what, kind, key, _, count, *view = identity
    if what != "storage" or not isinstance(kind, Name) or type(key) is not str or type(count) is not int or count < 0:
        raise ValueError("a persistent id is no storage's")
    if view and view[0] is not None:
        raise ValueError("a storage is a view of another one, which PyTorch has not written since 0.4")
    name = kind.text.rpartition(" ")[2]
    dtype, size = _ODD_STORAGES.get(name, (name, 0))
    if name in _STORAGES:
        dtype, size = _STORAGES[name], _SIZES[_STORAGES[name]]
    return Storage(key, dtype, count, (count,), (1,), size=size)


def _rebuilt(source: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor | OddTensor:
    """`_rebuild_tensor(storage, offset, shape, stride)` and `_v2`, which adds what training needs."""
    shape, stride = _numbers(shape), _numbers(stride)
    # What describes no tensor is damage, said with the tensor's name where it is asked for.
    if type(source) is not Storage or len(shape) != len(stride) or type(offset) is not int or offset < 0:
        return OddTensor(BROKEN, shape, "described by no storage, offset, shape and stride")
    if source.dtype not in _NAMES:
        return OddTensor(source.dtype, shape, f"{source.dtype} numbers")
    return Tensor(source.storage, source.dtype, source.count, shape, stride, offset)


def _retyped(source: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Tensor | OddTensor:
    """`_rebuild_tensor_v3(…, dtype, metadata)`: of bytes, with a dtype that has no storage of its own."""
    kind = rest[2].text.rpartition(" ")[2] if len(rest) > 2 and isinstance(rest[2], Name) else "unknown"
    if kind not in _DTYPES:
        return OddTensor(kind, _numbers(shape), f"{kind} numbers")
    size = _SIZES[_DTYPES[kind]]
    if type(source) is not Storage or source.count % size:
        raise ValueError("a tensor's storage is no multiple of its numbers")
    # Untyped storages count bytes: as many numbers as these make.
    whole = Storage(source.storage, _DTYPES[kind], source.count // size, (source.count // size,), (1,))
    return _rebuilt(whole, offset, shape, stride)


_SIZES = {name: int(size) // 8 for name in _STORAGES.values() for size in [re.sub(r"\D+", "", name) or "8"]}
"""Bytes of a number: `bfloat16` has two, `bool` one."""


def _of_subclass(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """`_rebuild_from_type_v2(function, type, arguments, state)`: a tensor with attributes, or of a subclass."""
    if isinstance(function, Name) and function.text in CALLS and type(arguments) is tuple:
        return CALLS[function.text](*arguments)
    return OddTensor("unknown", (), f"a tensor of {_spoken(kind)}")


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _odd(what: str, place: int) -> Callable[..., OddTensor]:
    """A tensor of another kind, whose shape stands at a place among the arguments."""

    def build(*arguments: Any) -> OddTensor:
        shape = arguments[place] if place < len(arguments) else ()
        return OddTensor("unknown", _numbers(shape, strict=False), what)

    return build


def _sparse(layout: Any, data: Any, *_: Any) -> OddTensor:
    sizes = [
        part for part in (data if type(data) is tuple else ()) if isinstance(part, Placeholder) or type(part) is tuple
    ]
    return OddTensor("unknown", _numbers(sizes[-1] if sizes else (), strict=False), "a sparse tensor")


def _numbers(sizes: Any, *, strict: bool = True) -> tuple[int, ...]:
    """A shape, also as `torch.Size`."""
    if isinstance(sizes, Placeholder) and sizes.kind == "torch.Size" and len(sizes.arguments) == 1:
        sizes = sizes.arguments[0]
    if type(sizes) in (tuple, list) and all(type(size) is int and size >= 0 for size in sizes):
        return tuple(sizes)
    if strict:
        raise ValueError("a tensor's shape, stride and offset are no natural numbers")
    return ()


def _spoken(kind: Any) -> str:
    return kind.text.replace(" ", ".") if isinstance(kind, Name) else "an unknown type"


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Array:
    """`numpy._core.numeric._frombuffer(bytes, dtype, shape, order)`: protocol 5."""
    array = Array()
    array.state = (1, shape, dtype, order == "F", data)
    return array


def described(array: Array) -> tuple[str, tuple[int, ...], bool, bytes] | None:
    """A NumPy array's dtype (`<f4`), shape, whether it is in Fortran's order, and bytes; None: no plain numbers.

    Raises:
        DamagedPickleError: it has not as many bytes as it says.
    """
    if type(array.state) is not tuple or len(array.state) != 5:
        return None
    _, shape, dtype, fortran, data = array.state
    if not (isinstance(dtype, Placeholder) and dtype.kind == "numpy.dtype" and dtype.arguments):
        return None
    code = dtype.arguments[0]
    order = dtype.state[1] if type(dtype.state) is tuple and len(dtype.state) > 1 else "|"
    plain = type(code) is str and re.fullmatch(r"[fiuc](1|2|4|8|16)|b1", code) and code not in ("f1", "f16", "c1")
    if not plain or order not in ("<", ">", "|", "=") or type(data) not in (bytes, bytearray):
        return None
    shape = _numbers(shape)
    # The bytes that shape and type ask for, before an array is made of them.
    if prod(shape) * int(code[1:]) != len(data):
        raise DamagedPickleError(f"an array of shape {shape} and type {code} has {len(data)} bytes")
    return ("<" if order in "|=" else order) + code, shape, bool(fortran), bytes(data)


_UTILS, _NUMPY = "torch._utils", ("numpy.core", "numpy._core")
CALLS: dict[str, Callable[..., Any]] = {
    f"{_UTILS} _rebuild_tensor": _rebuilt,
    f"{_UTILS} _rebuild_tensor_v2": _rebuilt,
    f"{_UTILS} _rebuild_tensor_v3": _retyped,
    f"{_UTILS} _rebuild_parameter": _parameter,
    f"{_UTILS} _rebuild_parameter_with_state": _parameter,
    f"{_UTILS} _rebuild_device_tensor_from_cpu_tensor": _parameter,
    f"{_UTILS} _rebuild_device_tensor_from_numpy": _parameter,
    f"{_UTILS} _rebuild_xla_tensor": _parameter,
    f"{_UTILS} _rebuild_qtensor": _odd("a quantised tensor", 2),
    f"{_UTILS} _rebuild_sparse_tensor": _sparse,
    f"{_UTILS} _rebuild_sparse_csr_tensor": _sparse,
    f"{_UTILS} _rebuild_nested_tensor": _odd("a nested tensor", 9),
    f"{_UTILS} _rebuild_meta_tensor_no_storage": _odd("a tensor without data (device meta)", 1),
    f"{_UTILS} _rebuild_wrapper_subclass": _odd("a tensor of a type of its own", 2),
    "torch._tensor _rebuild_from_type": _of_subclass,
    "torch._tensor _rebuild_from_type_v2": _of_subclass,
    "torch.tensor _rebuild_from_type": _of_subclass,
    **{f"{module}.multiarray _reconstruct": lambda *_: Array() for module in _NUMPY},
    **{f"{module}.numeric _frombuffer": _array_of_buffer for module in _NUMPY},
}
"""What PyTorch and NumPy would call → what describes its result."""
