"""What workers are asked to do in tests of `bounded`; imported by their processes."""

import os
import signal
import time

from tf_simclr.errors import InputError


def behave(kind: str, value: int = 0) -> bytes:
    if kind == "echo":
        return b"%d" % value
    if kind == "refuse":
        raise InputError("no, because")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(3600)
    if kind == "eat":
        return b"%d" % len(bytearray(64 * 2**30))
    raise AssertionError(kind)
