"""What is left when a task is cancelled, at every checkpoint that it comes by (docs/locking.md)."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pyfuse3
import pytest
import trio
import trio.testing
from checkpoints import Cancellation, cancelled_at, tried_all
from crash_lib.operations import carry_out, random_steps
from crash_lib.twin import State, Twin, view
from faulty_run import READ_ONLY_LINE, logged, small_stretches
from flusher_control import running
from small_filesystem import assert_settled, fresh, make, mount, names, read, recorded
from test_filesystem_crash import checked

from hammerfs.device.recording import RecordingDevice, RecordingLog, drop_all, keep_all, random_chooser
from hammerfs.errors import CorruptionError, DeviceError, HammerError
from hammerfs.fs.barrier import BarrierRunner
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.sync_inode import InodeSync
from hammerfs.ondisk.crc import Buffer
from hammerfs.vfs.xattroperations import operations_for

HANG_SECONDS = 10
BACK_END = ("FileSystem.run", "Flusher.")
"""The tasks of a running flusher: the first one is the master."""
BY_THREAD = pytest.mark.parametrize("by_thread", [False, True], ids=["inline", "thread"])


def filled(seed: int = 5, steps: int = 30) -> tuple[Twin, RecordingLog, State]:
    """A file system with one flushed and one pending lot of changes, and the state that was flushed."""
    recording, log = recorded(fresh())
    fs = mount(recording, xattr=True)
    assert fs.flusher is not None
    twin = Twin(fs)
    lots = random_steps(seed, 2 * steps)
    for step in lots[:steps]:
        carry_out(twin, step)
    fs.flusher.flush_now()
    flushed = twin.root.state()
    for step in lots[steps:]:
        carry_out(twin, step)
    twin.release_all()
    twin.create(twin.root, b"pending, so that an fsync of the directory takes everything along")
    return twin, log, flushed


async def told(wait: Callable[[], Awaitable[None]], outcomes: list[bool]) -> None:
    """Wait for durability; note whether it came."""
    try:
        await wait()
    except HammerError:
        outcomes.append(False)
    else:
        outcomes.append(True)


def assert_recovers_to(log: RecordingLog, allowed: list[State], seed: int) -> None:
    """Every fourth image is checked as well: that takes most of the time."""
    choose = (keep_all, drop_all, random_chooser(random.Random(seed)))[seed % 3]
    image = log.power_cut(len(log.entries), choose)
    recovered = mount(image, xattr=True) if seed % 4 else checked(image)
    assert view(recovered, recovered.root) in allowed


@contextmanager
def barriers(by_thread: bool) -> Iterator[None]:
    with small_stretches():
        if by_thread:
            with mock.patch.object(BarrierRunner, "is_short", return_value=False):
                yield
        else:
            yield


# --- the back end -------------------------------------------------------------------------------
@BY_THREAD
def test_the_flusher_cancelled_at_any_checkpoint_leaves_a_whole_state_and_nobody_waiting(by_thread: bool) -> None:
    """INV-6, INV-11: within a cycle that is a failure, outside of one nothing is lost."""

    def attempt(nth: int) -> Cancellation:
        twin, log, flushed = filled()
        fs = twin.fs
        outcomes: list[bool] = []

        async def main() -> Cancellation:
            with trio.fail_after(HANG_SECONDS):
                async with trio.open_nursery() as outer:
                    flusher = await outer.start(in_scope_of_its_own, fs)
                    with cancelled_at(nth, BACK_END, flusher) as cancellation:
                        async with trio.open_nursery() as waiting:
                            waiting.start_soon(told, fs.sync, outcomes)
                            waiting.start_soon(told, lambda: fs.fsync(fs.root), outcomes)
                        flusher.cancel()
            return cancellation

        with logged() as lines, barriers(by_thread):
            cancellation = trio.run(main)
        failed = fs.failure is not None
        assert failed == (False in outcomes) <= cancellation.happened
        assert [READ_ONLY_LINE in line for line in lines] == [True] * failed
        assert len(outcomes) == 2
        present = twin.root.state()
        assert_recovers_to(log, [present] if any(outcomes) else [flushed, present], nth)
        written = len(log.entries)
        fs.close_now()
        assert not failed or len(log.entries) == written
        return cancellation

    assert tried_all(attempt) >= 30


def test_whoever_comes_after_the_flusher_was_cancelled_is_told_so() -> None:
    """Between two cycles nothing is lost by it: the unmount flushes what is pending by itself."""
    twin, log, _ = filled()
    fs = twin.fs
    outcomes: list[bool] = []

    async def main() -> None:
        async with running(fs):
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(HANG_SECONDS):
            for wait in (fs.sync, lambda: fs.fsync(fs.root), fs.close):
                await told(wait, outcomes)

    trio.run(main)
    assert outcomes == [False, False, True]
    assert fs.failure is None
    assert_recovers_to(log, [twin.root.state()], 4)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), CorruptionError("a bad node")], ids=["defect", "damage"])
def test_no_slave_writes_on_when_another_one_has_failed(error: Exception) -> None:
    """INV-11, also for an inode that a slave is in the middle of."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    large = make(fs, fs.root, b"large", bytes(range(1, 41)) * 16384)
    small = [make(fs, fs.root, b"small %d" % number, b"x") for number in range(8)]
    original, written = InodeSync._sync_inode_record, []

    def fails(self: InodeSync) -> None:
        if self._inode is small[-1]:
            written.append(len(log.entries))
            raise error
        original(self)

    async def main() -> None:
        async with running(fs):
            with pytest.raises(HammerError):
                await fs.sync()
            await trio.testing.wait_all_tasks_blocked()

    with (
        logged() as lines,
        barriers(False),
        mock.patch.object(InodeSync, "_sync_inode_record", fails),
        mock.patch("hammerfs.store.datablocks.SPILL_BYTES", 16384),
        mock.patch("hammerfs.fs.writebehind.SMALL_BYTES", 1 << 30),  # a thread may be in the middle of a write
    ):
        trio.run(main)
    assert len(lines) == 1
    assert large.capture is not None, "the large file was being written when another one failed"
    assert len(log.entries) == written[0]


# --- clients ------------------------------------------------------------------------------------
async def fsynced(fs: FileSystem) -> None:
    await fs.fsync(fs.root)


async def synced(fs: FileSystem) -> None:
    await fs.sync()


async def throttled(fs: FileSystem) -> None:
    fs._pending_limit = 1
    await fs.throttle()
    fs._pending_limit = 1000


@BY_THREAD
@pytest.mark.parametrize("wait", [fsynced, synced, throttled])
def test_a_client_cancelled_at_any_checkpoint_leaves_no_trace(
    wait: Callable[[FileSystem], Awaitable[None]], by_thread: bool
) -> None:
    """What it had waited for goes on without it."""

    def attempt(nth: int) -> Cancellation:
        twin, log, _ = filled()
        fs = twin.fs

        async def client(scope: trio.CancelScope) -> None:
            with scope:
                await wait(fs)

        async def main() -> Cancellation:
            scope = trio.CancelScope()
            with trio.fail_after(HANG_SECONDS):
                async with running(fs):
                    with cancelled_at(nth, (".client",), scope) as cancellation:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(client, scope)
                    fs._pending_limit = 1000
                    await fs.sync()
                    assert_settled(fs)
            return cancellation

        with barriers(by_thread):
            cancellation = trio.run(main)
        assert fs.failure is None
        assert_recovers_to(log, [twin.root.state()], nth)
        return cancellation

    assert tried_all(attempt) >= 2


def test_a_fast_fsync_cancelled_at_any_checkpoint_leaves_its_followers_in_charge() -> None:
    """Three clients share barriers: whoever leads may go, and the others are durable when they are told so."""

    def attempt(nth: int) -> Cancellation:
        recording, log = recorded(fresh())
        fs = mount(recording)
        inodes = [make(fs, fs.root, b"%d" % number, b"first") for number in range(3)]
        outcomes: dict[int, bool] = {}

        async def client(number: int, scope: trio.CancelScope) -> None:
            with scope:
                fs.write(inodes[number], 0, b"later")
                await fs.fsync(inodes[number])
                outcomes[number] = True

        async def main() -> Cancellation:
            scope = trio.CancelScope()
            with trio.fail_after(HANG_SECONDS):
                async with running(fs):
                    for inode in inodes:
                        await fs.fsync(inode)
                    assert fs.flusher is not None
                    groups = fs.flusher.statistics_groups
                    with cancelled_at(nth, (".client",), scope) as cancellation:
                        async with trio.open_nursery() as nursery:
                            for number in range(3):
                                nursery.start_soon(client, number, scope if number == 0 else trio.CancelScope())
                    assert fs.flusher.statistics_groups == groups, "these were fast"
            return cancellation

        with barriers(True):
            cancellation = trio.run(main)
        assert {1, 2} <= outcomes.keys()
        recovered = checked(log.power_cut(len(log.entries), drop_all))
        for number in outcomes:
            assert read(recovered, b"%d" % number) == b"later"
        return cancellation

    assert tried_all(attempt) >= 3


class Closable(RecordingDevice):
    """Refuses everything once it is closed, as a file does."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def write(self, offset: int, data: Buffer) -> None:
        if self.is_closed:
            raise DeviceError("write", self.name, offset, len(data), "it is closed")
        super().write(offset, data)

    def barrier(self) -> None:
        if self.is_closed:
            raise DeviceError("barrier", self.name, 0, self.size, "it is closed")
        super().barrier()


def test_an_unmount_cancelled_at_any_checkpoint_leaves_a_whole_state() -> None:
    """The server shields it.  Whoever does not, takes the devices away from a flusher at work: that is a failure."""

    def attempt(nth: int) -> Cancellation:
        log = RecordingLog()
        fs = mount([Closable(device, log) for device in fresh()])
        make(fs, fs.root, b"f", b"content")

        async def client(scope: trio.CancelScope) -> None:
            with scope:
                await fs.close()

        async def main() -> Cancellation:
            scope = trio.CancelScope()
            with trio.fail_after(HANG_SECONDS):
                async with trio.open_nursery() as nursery:
                    await nursery.start(fs.run)
                    with cancelled_at(nth, (".client",), scope) as cancellation:
                        async with trio.open_nursery() as waiting:
                            waiting.start_soon(client, scope)
            return cancellation

        with logged() as lines, small_stretches():
            cancellation = trio.run(main)
        assert [READ_ONLY_LINE in line for line in lines] == [True] * (fs.failure is not None)
        recovered = checked(log.power_cut(len(log.entries), drop_all))
        allowed = [[b"f"]] if not cancellation.happened else [[], [b"f"]]
        assert names(recovered, recovered.root) in allowed
        return cancellation

    assert tried_all(attempt) >= 2


# --- what must not yield ------------------------------------------------------------------------
def context() -> pyfuse3.RequestContext:
    return mock.Mock(uid=0, gid=0, pid=1, umask=0o022)


def only_the_mode() -> pyfuse3.SetattrFields:
    fields = {f"update_{name}": False for name in ("uid", "gid", "size", "atime", "mtime", "ctime")}
    return mock.Mock(update_mode=True, **fields)


def test_requests_are_atomic_for_each_other_and_for_the_flusher() -> None:
    """No handler but fsync comes by a checkpoint unless the flusher has too much to do already."""
    fs = mount(fresh(), xattr=True)
    ops = operations_for(fs)
    root, ctx = pyfuse3.ROOT_INODE, context()

    async def main() -> None:
        async with running(fs):
            with trio.testing.assert_no_checkpoints():
                info, entry = await ops.create(root, b"f", 0o644, os.O_RDWR, ctx)
                await ops.write(info.fh, 0, b"x" * 100_000)
                await ops.setattr(entry.st_ino, entry, only_the_mode(), None, ctx)
                await ops.setxattr(entry.st_ino, b"user.name", b"value", ctx)
                assert await ops.read(info.fh, 0, 5) == b"xxxxx"
                directory = await ops.mkdir(root, b"d", stat.S_IFDIR | 0o755, ctx)
                await ops.symlink(root, b"s", b"target", ctx)
                await ops.mknod(root, b"p", stat.S_IFIFO | 0o600, 0, ctx)
                await ops.link(entry.st_ino, directory.st_ino, b"g", ctx)
                await ops.rename(root, b"f", directory.st_ino, b"g2", 0, ctx)
                await ops.unlink(directory.st_ino, b"g", ctx)
                await ops.getattr(entry.st_ino, ctx)
                await ops.lookup(directory.st_ino, b"g2", ctx)
                await ops.removexattr(entry.st_ino, b"user.name", ctx)
                await ops.unlink(directory.st_ino, b"g2", ctx)
                await ops.rmdir(root, b"d", ctx)
                await ops.release(info.fh)
                await ops.forget([(entry.st_ino, 2)])
            await fs.close()

    trio.run(main)
    assert_settled(fs)


def test_a_fast_fsync_and_a_short_barrier_do_not_yield() -> None:
    """Between the look at the cycle and the laying of REDO nobody may finish a cycle."""
    fs = mount(fresh())

    async def main() -> None:
        async with running(fs) as flusher:
            inode = make(fs, fs.root, b"f", b"1")
            await fs.fsync(inode)
            fs.write(inode, 0, b"2")
            with trio.testing.assert_no_checkpoints():
                await fs.fsync(inode)
            assert fs._fsync is not None
            assert fs._fsync.fast is not None
            assert fs._fsync.fast.count == 2
            with trio.testing.assert_no_checkpoints():
                await flusher.barriers.run()

    trio.run(main)


async def in_scope_of_its_own(
    fs: FileSystem, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        task_status.started(nursery.cancel_scope)
