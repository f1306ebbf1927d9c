"""Signs of life of JAX's processes: one that falls silent is missed, and all end with a sentence.

A machine that loses its power, or its network, closes no connection: who computes with it would wait, and never be
told.  So each process says now and then that it lives, in the short texts that the first one keeps for all of them.
The first one reads them; where one stays as it was it ends, and the others lose it (`line`).  These in turn hear from
the first one as often as they speak: where it is silent for as long they end by themselves.
"""

import contextlib
from typing import Any

from tf_simclr.files.lock import Beat
from tf_simclr.replicas.line import Line, end, lost

BEAT = 15.0
"""Seconds between two signs of life."""
SILENCE = 90.0
"""Seconds without one after which a process is gone; JAX's own client would abort its process after 100."""
_MOMENT = 2.0
"""Seconds in which a sign is given."""
_PLACE = "tf_simclr: life of /"
_DONE = "done"


class Life:
    """This process's signs, and at the first one the look at those of the others; from `begin` to `part`.

    Args:
        client: JAX's, of this process.
        number: of this process.
        count: of processes.
        line: to the first process; None in that one, and where JAX speaks to it by itself.
    """

    def __init__(self, client: Any, number: int, *, count: int, line: Line | None):
        self.client, self.number, self.count, self.line = client, number, count, line
        self.signs = 0
        self.last: dict[int, tuple[str | None, float]] = {}
        """Process → its last sign, and for how many seconds it has stayed the same."""
        # Seconds are counted by beats, and not by a clock: a process that was stopped itself blames no other.
        self.beats = [Beat(self._look if number == 0 else self._show, seconds=BEAT)]
        if line is not None:
            self.beats.append(Beat(self._listen, seconds=BEAT / 10))

    def begin(self) -> None:
        """From now on."""
        if self.number:
            self._show()
        for beat in self.beats:
            beat.start()

    def part(self) -> None:
        """This process is done: its silence means nothing any more."""
        for beat in self.beats:
            beat.done.set()
            beat.thread.join(_MOMENT)  # no longer: it may ask one that is gone
        if self.number:
            with contextlib.suppress(Exception):  # the first one is gone itself
                self.client.key_value_set(f"{_PLACE}{self.number}", _DONE, allow_overwrite=True)

    def _show(self) -> None:
        self.signs += 1
        with contextlib.suppress(Exception):  # whatever the store says: the line tells whether the first one is there
            self.client.key_value_set(f"{_PLACE}{self.number}", str(self.signs), allow_overwrite=True)

    def _look(self) -> None:
        """Ends this process, the first one, where another one shows no life."""
        try:
            found = {int(name.rpartition("/")[2]): sign for name, sign in self.client.key_value_dir_get(_PLACE)}
        except Exception as error:
            if "NOT_FOUND" not in str(error):  # what cannot be read tells nothing
                return
            found = {}
        for number in range(1, self.count):
            sign, (before, silent) = found.get(number), self.last.get(number, (None, 0.0))
            self.last[number] = (sign, silent + BEAT if sign == before else 0.0)
            if sign != _DONE and self.last[number][1] >= SILENCE:
                end(lost(self.number, count=self.count, who=f"worker {number}, which shows no life"))

    def _listen(self) -> None:
        """Ends this process where the first one says nothing."""
        if self.line is not None:
            self.line.silent += BEAT / 10
            if self.line.silent >= SILENCE:
                end(lost(self.number, count=self.count, who="worker 0, which shows no life"))
