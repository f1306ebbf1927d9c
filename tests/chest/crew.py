"""What workers are asked to do in tests of `bounded`; imported by their processes."""

import io
import os
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tf_simclr.chest.files import squares
from tf_simclr.errors import InputError

LEFT = []
"""What an earlier request left behind; in the next one there must be nothing."""


def behave(kind: str, value: int = 0) -> bytes:
    if kind == "echo":
        return b"%d" % value
    if kind == "refuse":
        raise InputError("no, because")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(3600)
    if kind == "loop":
        while True:
            pass
    if kind == "eat":
        return b"%d" % len(bytearray(64 * 2**30))
    if kind == "remember":
        LEFT.append(value)
        return b"%d" % len(LEFT)
    if kind == "write":
        Path(f"/tmp/{value}").write_bytes(b"x")
    if kind == "print":
        os.write(1, b"Doe^Jane")
        os.write(2, b"Doe^Jane")
        return b"printed"
    if kind == "fail":
        raise ZeroDivisionError
    raise AssertionError(kind)


def measure(content: bytes, times: int) -> bytes:
    return b"%d" % (len(content) * times)


def pictured(content: bytes, **about) -> bytes:
    """Like the page's decoder, of a content that says what to do: `sleep 3`, or one of the kinds above."""
    word, *seconds = content.decode().split()
    if word != "sleep":
        return behave(word)
    time.sleep(float(seconds[0]))
    return squares.pictured(picture(), **about)


def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)).save(file, "PNG")
    return file.getvalue()
