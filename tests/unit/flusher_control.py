"""A running flusher that tests can stop at its barriers and look at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from unittest import mock

import trio

from hammerfs.fs.barrier import BarrierRunner
from hammerfs.fs.flusher import Flusher
from hammerfs.fs.mount import FileSystem
from hammerfs.store.volumes import VolumeSet


class Gate:
    """Stands before every barrier, which waits until the gate lets it pass.

    waiting -- barriers that stand before the gate; passed -- those that went through
    """

    def __init__(self) -> None:
        self.is_open = True
        self.waiting = 0
        self.passed = 0
        self._changed = trio.lowlevel.ParkingLot()

    async def run(self, volumes: VolumeSet) -> None:
        self.waiting += 1
        try:
            while not self.is_open:
                await self._changed.park()
            await trio.lowlevel.checkpoint()
        finally:
            self.waiting -= 1
        self.passed += 1
        volumes.barrier()

    def open(self) -> None:
        self.is_open = True
        self._changed.unpark_all()

    def close(self) -> None:
        self.is_open = False

    async def until_waiting(self) -> None:
        """Until the flusher stands at a barrier."""
        await until(lambda: bool(self.waiting))

    async def let_one_pass(self) -> None:
        """Until the barrier that waits has gone through; the next one waits again."""
        await self.until_waiting()
        passed = self.passed
        self.open()
        await until(lambda: self.passed > passed)
        self.close()


async def until(condition: Callable[[], bool]) -> None:
    """Give way to other tasks until something holds."""
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


@contextmanager
def gated() -> Iterator[Gate]:
    """Barriers through a gate, and yield points that really yield."""
    gate = Gate()
    with (
        mock.patch.object(BarrierRunner, "run", lambda self: gate.run(self._volumes)),
        mock.patch("hammerfs.fs.flusher._STRETCH_SECONDS", 0.0),
        mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 1),
    ):
        yield gate


@asynccontextmanager
async def running(fs: FileSystem) -> AsyncIterator[Flusher]:
    """The file system's flusher, running."""
    assert fs.flusher is not None
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        yield fs.flusher
        nursery.cancel_scope.cancel()
