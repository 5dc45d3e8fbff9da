"""Data goes to disk while it comes in: a thread writes it, another makes it durable, and nobody waits for either.

Copying a megabyte into the kernel's cache takes milliseconds, in which the event loop would answer nobody.  And a flush
that brings a second's worth of a writer's data to disk at once makes everything wait that others read.  So the queue of
`store/datablocks.py` is written whenever it has become long, and a barrier follows when much was written; neither
promises anything to anyone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from hammerfs.fs.barrier import MUCH_BYTES, SMALL_BYTES

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.fs.groupflush import GroupFlusher


class WriteBehind:
    """The two tasks, and whoever has to wait for them."""

    def __init__(self, ctx: Context, flusher: GroupFlusher) -> None:
        self._blocks = ctx.blocks
        self._volumes = ctx.volumes
        self._flusher = flusher
        self._much_queued = trio.Event()
        self._much_unsettled = trio.Event()
        self._writing = trio.Lock()
        self._room = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Write and settle until cancelled, or until the flusher has failed."""
        self._blocks.behind = self._write_soon
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._writer)
                nursery.start_soon(self._settler)
        finally:
            self._blocks.behind = None
            self.wake()

    def _write_soon(self) -> None:
        self._much_queued.set()

    async def _writer(self) -> None:
        while self._flusher.failure is None:
            await self._much_queued.wait()
            self._much_queued = trio.Event()
            try:
                await self.write()
            except Exception as error:
                self._flusher.critical_error(error)
            if self._volumes.unsettled_bytes >= MUCH_BYTES:
                self._much_unsettled.set()

    async def _settler(self) -> None:
        while self._flusher.failure is None:
            await self._much_unsettled.wait()
            self._much_unsettled = trio.Event()
            try:
                self._flusher.raise_failure()
                await self._flusher.barriers.run_in_thread()
            except Exception as error:
                self._flusher.critical_error(error)

    async def write(self) -> None:
        """Write what is queued at this moment, in a thread if it is much; raises what keeps it from being written."""
        blocks = self._blocks
        async with self._writing:
            self._flusher.raise_failure()
            if blocks.queued_bytes <= SMALL_BYTES:
                blocks.flush()
            else:
                # What was handed over has to be written, or whoever wants it back waits for ever.
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(blocks.hand_over())
                blocks.take_back()
        self.wake()

    async def wait_for_room(self) -> None:
        """Return when the queue is short enough again, or nobody writes it any more."""
        while self._blocks.overfull and self._blocks.behind is not None:
            self._write_soon()
            await self._room.park()
            self._flusher.raise_failure()

    def wake(self) -> None:
        """Let those who wait look again."""
        self._room.unpark_all()
