"""Do many things at once and hand back the results in order, in bounded memory."""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")

_IN_MEMORY = 64 << 20


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], unfinished: int
) -> AsyncIterator[tuple[Item, Result]]:
    """Yield (item, result of `work(item)`) in the order of `items`; use it within contextlib.aclosing.

    At most `unfinished` of them are under way at a time. A slow one does not hold up those after it, whose results
    wait: let them be small (see Spool). Closing cancels what is still under way.
    """
    gate, tasks = asyncio.Semaphore(unfinished), deque()
    try:
        for item in items:
            await gate.acquire()
            task = asyncio.create_task(work(item))
            task.add_done_callback(lambda _: gate.release())
            tasks.append((item, task))
            while tasks and tasks[0][1].done():
                item, task = tasks.popleft()
                yield item, task.result()
        while tasks:
            item, task = tasks[0]
            result = await task
            tasks.popleft()
            yield item, result
    finally:
        for _, task in tasks:
            task.cancel()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)


class Spool:
    """Holds bytes until they are taken back: in memory up to a budget, beyond it in an unnamed temporary file."""

    def __init__(self, budget: int = _IN_MEMORY):
        self._left, self._file, self._end, self._on_disk = budget, None, 0, 0

    def put(self, data: bytes) -> bytes | tuple[int, int]:
        """Return a ticket for `take`."""
        if len(data) <= self._left:
            self._left -= len(data)
            return data
        self._file = self._file or tempfile.TemporaryFile(prefix="fetch-")  # noqa: SIM115 - closed with the spool
        self._file.seek(self._end)
        self._file.write(data)
        ticket = (self._end, len(data))
        self._end += len(data)
        self._on_disk += 1
        return ticket

    def take(self, ticket: bytes | tuple[int, int]) -> bytes:
        """Return the bytes of a ticket and forget them."""
        if isinstance(ticket, bytes):
            self._left += len(ticket)
            return ticket
        start, size = ticket
        self._file.seek(start)
        data = self._file.read(size)
        self._on_disk -= 1
        if not self._on_disk:  # nothing waits there any more: the room is free again
            self._file.seek(0)
            self._file.truncate()
            self._end = 0
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
