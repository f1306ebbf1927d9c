"""The lock of a folder in a bucket: one process writes there, wherever it runs."""

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from tf_simclr.buckets.store import ABSENT, Raced, Store
from tf_simclr.errors import InputError
from tf_simclr.files.lock import holder, is_alive, is_here, named, signature

BEAT, SILENCE = 20.0, 90.0
"""Seconds between two signs of life, and without one, after which a holder counts as gone."""
LOCK = "lock"
"""Name of the object, as of the file of a folder on a disk."""


class Lock:
    """An object `lock` that its holder renews; where the store refuses writes by conditions, one alone can have it.

    No clock is compared with another one's: a holder is gone if the object has stayed the same for `SILENCE` seconds
    of this machine's own time, or if it was a process of this machine, since it was started, that is no more.
    """

    def __init__(self, store: Store, *, say: Callable[[str], None]):
        self.store, self.say, self.beats, self.version = store, say, 0, ABSENT
        self.mark = uuid.uuid4().hex

    def take(self) -> None:
        """Takes it.

        Raises:
            InputError: another process holds it.
        """
        # Who has it?  If not surely gone, a sign of life is waited for.
        found = self.store.read(LOCK)
        if found is not None:
            former, self.version = holder(found[0]), found[1]
            if not _is_gone(former):
                self._wait(former)
        # It is taken if it is still as it was seen.
        try:
            self.renew()
        # Of two that saw the same one, the store takes the first; the other reads whose it is now.
        except Raced as error:
            found = self.store.read(LOCK)
            raise self._refusal(holder(found[0]) if found is not None else {}) from error
        if not self.store.conditional:  # two may have written: the later one has it
            time.sleep(_SETTLES)
            if not self._is_mine():
                raise self._refusal({})

    def renew(self) -> None:
        """Shows life, by writing the object anew where it still is as it was seen.

        Raises:
            Raced: another process has taken it over.
            InputError: the store cannot be asked.
        """
        # The count makes every beat another content, and so another version.
        self.beats += 1
        content = signature() | {"mark": self.mark, "beats": self.beats}
        self.version = self.store.put(LOCK, json.dumps(content).encode(), only=self.version)

    def free(self) -> None:
        """Removes it if it is this process's."""
        with contextlib.suppress(InputError, FileNotFoundError):
            # Never somebody else's: whoever took it over goes on.
            if self._is_mine():
                self.store.delete([LOCK])

    def _is_mine(self) -> bool:
        found = self.store.read(LOCK)
        return found is not None and holder(found[0]).get("mark") == self.mark

    def _refusal(self, former: dict[str, Any]) -> InputError:
        advice = "wait for it, stop it, or take another folder"
        return InputError(f"{self.store.address} is in use by {named(former)}; {advice}")

    def _wait(self, former: dict[str, Any]) -> None:
        """Waits until a holder has shown no life for `SILENCE` seconds.

        Raises:
            InputError: it has shown life.
        """
        who = named(former)
        self.say(f"{self.store.address} was in use by {who}; waiting {SILENCE:.0f} seconds for a sign of life")
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            # Looked at often, as the holder may write at any moment of its own beat.
            time.sleep(min(2.0, SILENCE / 10))
            now = self.store.stat(LOCK)
            # Removed by its holder, who has ended well.
            if now is None:
                self.version = ABSENT
                return
            if now.version != self.version:
                raise self._refusal(former)


_SETTLES = 0.5
"""Seconds after which a store without conditions shows who has written last."""


def _is_gone(former: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no more; of others nothing is known."""
    # A process of another machine cannot be looked for.
    return bool(former) and is_here(former) and not is_alive(former["pid"])
