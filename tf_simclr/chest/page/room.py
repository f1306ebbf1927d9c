"""Room for many askers at a time: who comes when it is full waits, in order, and nobody is forgotten."""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator


class Room:
    """So much of something: bytes, processes, turns.  For one event loop.

    Args:
        size: how much there is.
    """

    def __init__(self, size: int):
        self.size = self.free = size
        self.waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self.numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def held(self, amount: int = 1, *, rank: int = 0) -> AsyncIterator[None]:
        """Waits for an amount, and holds it until the block ends.

        Args:
            amount: at most `size`.
            rank: lower ones come first; among equal ones who waits longest. A large amount is not overtaken.
        """
        await self.take(amount, rank=rank)
        try:
            yield
        finally:
            self.give(amount)

    async def take(self, amount: int, *, rank: int = 0) -> None:
        """Waits for an amount; `give` it back."""
        # Nobody waits and there is room: at once.
        if not self.waiting and amount <= self.free:
            self.free -= amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # By rank, then in the order of coming; the number also keeps two futures from being compared.
        heapq.heappush(self.waiting, (rank, next(self.numbers), amount, turn))
        self.admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given in the same moment
                self.free += amount
            turn.cancel()
            self.admit()
            raise

    def give(self, amount: int) -> None:
        """Back."""
        self.free += amount
        self.admit()

    def admit(self) -> None:
        """Lets in who is first, as long as there is room."""
        # Only the first is looked at: smaller ones behind must not pass a large one for ever.
        while self.waiting:
            _, _, amount, turn = self.waiting[0]
            if not turn.cancelled():
                if amount > self.free:
                    return
                self.free -= amount
                turn.set_result(None)
            heapq.heappop(self.waiting)
