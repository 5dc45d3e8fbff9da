"""A device that grows slow: readers do not notice, writers are slowed down, memory stays within its bounds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from unittest import mock

import pyfuse3
import pytest
import trio
import trio.testing
from flusher_control import Gate, gated, running, until
from small_filesystem import assert_clean, fresh, make, mount, names, read

from hammerfs.device.memory import MemoryDevice
from hammerfs.fs.barrier import SHORT_SECONDS, BarrierRunner
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.xattroperations import operations_for

pytestmark = pytest.mark.trio
WRITERS = 16
WRITE_BYTES = 128 * 1024
WRITES = 40


class StuckDevice(MemoryDevice):
    """A barrier returns only once `released` is set."""

    def __init__(self, source: MemoryDevice) -> None:
        super().__init__(source.size)
        self._pages = dict(source._pages)
        self.released = threading.Event()
        self.released.set()
        self.stuck = threading.Event()

    def barrier(self) -> None:
        if not self.released.is_set():
            self.stuck.set()
        assert self.released.wait(20)
        super().barrier()


async def test_requests_are_answered_while_a_barrier_is_stuck() -> None:
    """It is in a thread; fsync waits for it, and nobody else."""
    device = StuckDevice(fresh()[0])
    fs = mount([device])
    ops, context = operations_for(fs), mock.Mock(uid=0, gid=0)
    inode = make(fs, fs.root, b"old", b"old content")
    done = []

    async def fsync() -> None:
        await fs.sync()
        done.append(True)

    with mock.patch.object(BarrierRunner, "is_short", return_value=False), trio.fail_after(15):
        async with running(fs), trio.open_nursery() as nursery:
            device.released.clear()
            nursery.start_soon(fsync)
            await until(device.stuck.is_set)
            with trio.testing.assert_no_checkpoints():
                info, entry = await ops.create(pyfuse3.ROOT_INODE, b"new", 0o644, os.O_RDWR, context)
                await ops.write(info.fh, 0, b"new content")
                assert await ops.read(inode.obj_id, 0, 100) == b"old content"
                assert (await ops.getattr(entry.st_ino, context)).st_size == 11
            assert not done
            device.released.set()
        assert done
        assert device.released.is_set()
    fs.close_now()
    assert read(mount([device]), b"new") == b"new content"
    assert_clean([device])


async def test_barriers_that_take_long_go_into_threads_and_come_back_when_they_are_short_again() -> None:
    fs = mount(fresh())
    barriers = BarrierRunner(fs.ctx.volumes)
    assert barriers.is_short()
    with mock.patch("hammerfs.fs.barrier.time.perf_counter", iter([0.0, 10 * SHORT_SECONDS] * 20).__next__):
        await barriers.run()
        assert barriers.is_short(), "one that had to wait says little"
        while barriers.is_short():
            await barriers.run()
        await barriers.run()
    assert barriers.inline < 6
    assert barriers.threaded == 1
    while not barriers.is_short():
        await barriers.run()
    assert barriers.threaded < 40


def pending_bytes(fs: FileSystem) -> int:
    return fs.ctx.space.dirty_bytes + fs.ctx.blocks.queued_bytes


@pytest.fixture
def gate() -> Iterator[Gate]:
    with gated() as gate:
        yield gate


async def test_writers_that_outrun_the_disk_are_slowed_down_and_memory_stays_bounded(gate: Gate) -> None:
    """Each of them may be one write beyond the limit, since it looked before it wrote; nobody gets an error."""
    devices = fresh()
    fs = mount(devices, cache_bytes=8 << 20)
    ops, context = operations_for(fs), mock.Mock(uid=0, gid=0)
    written = 0
    most = 0

    async def writer(number: int) -> None:
        nonlocal written, most
        info, _ = await ops.create(pyfuse3.ROOT_INODE, b"%d" % number, 0o644, os.O_RDWR, context)
        for index in range(WRITES):
            assert await ops.write(info.fh, index * WRITE_BYTES, bytes([number + 1]) * WRITE_BYTES) == WRITE_BYTES
            written += WRITE_BYTES
            most = max(most, pending_bytes(fs))
            await trio.lowlevel.checkpoint()

    async with running(fs):
        async with trio.open_nursery() as nursery:
            gate.close()
            for number in range(WRITERS):
                nursery.start_soon(writer, number)
            await gate.until_waiting()
            await trio.testing.wait_all_tasks_blocked()
            assert written < WRITERS * WRITES * WRITE_BYTES // 2, "nobody writes on while the disk stands"
            gate.open()
        await fs.close()
    limit = fs._dirty_limit
    assert most <= 2 * limit + WRITERS * 2 * WRITE_BYTES
    assert written == WRITERS * WRITES * WRITE_BYTES
    again = mount(devices)
    for number in range(WRITERS):
        assert read(again, b"%d" % number) == bytes([number + 1]) * (WRITES * WRITE_BYTES)


async def test_creators_that_outrun_the_disk_are_slowed_down(gate: Gate) -> None:
    """Records that wait for the flusher are bounded, too."""
    devices = fresh()
    fs = mount(devices)
    ops, context = operations_for(fs), mock.Mock(uid=0, gid=0)
    limit = fs._pending_limit
    most = created = 0

    async def creator(number: int) -> None:
        nonlocal most, created
        for index in range(limit // 8):
            await ops.mknod(pyfuse3.ROOT_INODE, b"%d of %d" % (index, number), 0o644, 0, context)
            created += 1
            most = max(most, fs.ctx.space.records + len(fs.ctx.dirty.setup))

    async with running(fs):
        async with trio.open_nursery() as nursery:
            gate.close()
            for number in range(WRITERS):
                nursery.start_soon(creator, number)
            await gate.until_waiting()
            await trio.testing.wait_all_tasks_blocked()
            assert created < WRITERS * (limit // 8) * 3 // 4, "nobody creates on while the disk stands"
            gate.open()
        await fs.close()
    assert limit <= most <= limit + 4 * WRITERS
    assert created == WRITERS * (limit // 8)
    assert len(names(mount(devices), mount(devices).root)) == created
