"""Changes to bytes and to what they encode: each takes a random generator, and returns other bytes.

None recomputes a checksum; that is the business of those who know the container (`containers.py`).
"""

import itertools
import json
import pickletools
import random
from collections.abc import Callable
from typing import Any

from tf_simclr.foreign.wire import encode_varint, varint

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 20, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 40)
NUMBERS += ((1 << 63) - 1, 1 << 63, (1 << 64) - 1)
"""Where lengths, counts and places go wrong."""
TEXTS = (
    "",
    "a",
    "\0",
    "../../x",
    "/etc/passwd",
    "²",
    "\x1b[2J",
    "a\nb",
    "x" * 5000,
    "😀",
    "resnet/" * 300,
    "-1",
    "nan",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    [],
    {},
    [[[[]]]],
    {"a": {"b": []}},
    *TEXTS,
)


def flip(content: bytes, rng: random.Random) -> bytes:
    """One bit, or up to four."""
    out = bytearray(content or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def set_byte(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content or b"\0")
    out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
    return bytes(out)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.choice((1, 4, 100, 5000)))


def part_of(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice((1, 2, 4, 8, 64, 512)))


def remove(content: bytes, rng: random.Random) -> bytes:
    start, end = part_of(content, rng)
    return content[:start] + content[end:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = part_of(content, rng)
    return content[:start] + content[start:end] * rng.choice((2, 3, 100)) + content[end:]


def move(content: bytes, rng: random.Random) -> bytes:
    start, end = part_of(content, rng)
    rest = content[:start] + content[end:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + content[start:end] + rest[to:]


def zero(content: bytes, rng: random.Random) -> bytes:
    start, end = part_of(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def number(content: bytes, rng: random.Random) -> bytes:
    """A whole number in place of two, four or eight bytes."""
    size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
    start = rng.randrange(max(1, len(content) - size + 1))
    value = (rng.choice(NUMBERS) + rng.choice((-1, 0, 0, 1))) % (1 << 8 * size)
    return content[:start] + value.to_bytes(size, order) + content[start + size :]


RAW: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip, flip, flip, set_byte, cut, append, remove, repeat, move, zero, number, number,
)  # fmt: skip


def raw(content: bytes, rng: random.Random) -> bytes:
    """Any of the changes above."""
    return rng.choice(RAW)(content, rng)


# Protocol buffers


def fields_of(content: bytes) -> list[tuple[int, int, Any]]:
    """Number, wire type and value of each field; raises on what is none."""
    position, found = 0, []
    while position < len(content):
        tag, position = varint(content, position)
        kind = tag & 7
        if kind == 0:
            value, position = varint(content, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, position = content[position : position + size], position + size
        elif kind == 2:
            size, position = varint(content, position)
            value, position = content[position : position + size], position + size
        else:
            raise ValueError(kind)
        if position > len(content) or tag < 8:
            raise ValueError("cut off")
        found.append((tag >> 3, kind, value))
    return found


def encoded(fields: list[tuple[int, int, Any]]) -> bytes:
    out = bytearray()
    for number_, kind, value in fields:
        out += encode_varint(number_ << 3 | kind)
        out += encode_varint(value) if kind == 0 else value if kind in (1, 5) else encode_varint(len(value)) + value
    return bytes(out)


def message(content: bytes, rng: random.Random) -> bytes:
    """Another protocol buffer: a field at any depth is changed, dropped, repeated, moved or invented."""
    try:
        fields = fields_of(content)
    except ValueError:
        return raw(content, rng)
    if not fields or rng.random() < 0.05:
        fields.insert(rng.randrange(len(fields) + 1), (rng.randrange(1, 12), 0, rng.choice(NUMBERS)))
        return encoded(fields)
    i, action = rng.randrange(len(fields)), rng.random()
    number_, kind, value = fields[i]
    if action < 0.7:
        if kind == 0:
            value = rng.choice(NUMBERS)
        elif kind in (1, 5):
            value = rng.randbytes(len(value))
        else:
            value = message(value, rng) if rng.random() < 0.7 else rng.choice(TEXTS).encode()
        fields[i] = number_, kind, value
    elif action < 0.8:
        del fields[i]
    elif action < 0.9:
        fields.insert(rng.randrange(len(fields) + 1), fields[i])
    else:
        fields[i] = rng.randrange(1, 12), kind, value
    return encoded(fields)


# JSON


def json_text(content: bytes, rng: random.Random) -> bytes:
    """Other JSON: a value at any depth is another, a key is gone, there twice, or another's."""
    try:
        tree = json.loads(content)
    except ValueError:
        return raw(content, rng)
    if rng.random() < 0.15:
        return raw(content, rng)
    return json.dumps(node(tree, rng)).encode("utf-8", "surrogatepass")


def node(tree: Any, rng: random.Random) -> Any:
    """A tree with one node changed."""
    if not isinstance(tree, (dict, list)) or not tree or rng.random() < 0.1:
        return rng.choice(VALUES)
    if isinstance(tree, list):
        i = rng.randrange(len(tree))
        return [*tree[:i], node(tree[i], rng), *tree[i + 1 :]] if rng.random() < 0.8 else [*tree[:i], *tree[i + 1 :]]
    key, action = rng.choice(list(tree)), rng.random()
    if action < 0.7:
        return tree | {key: node(tree[key], rng)}
    rest = {name: value for name, value in tree.items() if name != key}
    if action < 0.8:
        return rest
    return rest | {rng.choice((*TEXTS, *tree)): tree[key]}


# Pickles


def opcodes(content: bytes, rng: random.Random) -> bytes:
    """Another pickle: an instruction is gone, there twice, elsewhere, or has another argument."""
    try:
        starts = [place for _, _, place in pickletools.genops(content)] + [len(content)]
    except Exception:
        return raw(content, rng)
    parts = [content[a:b] for a, b in itertools.pairwise(starts)]
    i, action = rng.randrange(len(parts)), rng.random()
    if action < 0.5:
        parts[i] = parts[i][:1] + raw(parts[i][1:], rng) if len(parts[i]) > 1 else raw(parts[i], rng)
    elif action < 0.65:
        del parts[i]
    elif action < 0.8:
        parts.insert(rng.randrange(len(parts)), parts[i])
    else:
        parts[i] = bytes([rng.randrange(256)]) + parts[i][1:]
    return b"".join(parts)
