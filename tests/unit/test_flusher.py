"""The flusher: sequence numbers, groups, states, master and slaves, waiting, limits, failures, fsync modes."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from unittest import mock

import pytest
import trio
import trio.testing
from flusher_control import Gate, gated, running, until
from small_filesystem import assert_clean, assert_settled, fresh, make, mount, names, read, recorded, walk

from hammerfs.device.faulty import FaultyDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import drop_all
from hammerfs.errors import DeviceError, FlushFailedError, ReadOnlyError
from hammerfs.fs.barrier import MUCH_BYTES
from hammerfs.fs.cycle import Cycle, UndoMode
from hammerfs.fs.flusher import MAX_SLAVES, Flusher
from hammerfs.fs.flushgroup import TRUNCATED_BYTES_MAX, FlushGroup
from hammerfs.fs.groupflush import LITTLE_RECORDS
from hammerfs.fs.inode import FlushState, Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import FSYNC_BACKGROUND, FSYNC_DURABLE, FSYNC_FULL, FSYNC_IGNORED, FSYNC_RELAXED
from hammerfs.ondisk.constants import XBUFSIZE

pytestmark = pytest.mark.trio


@pytest.fixture
def gate() -> Iterator[Gate]:
    with gated() as gate:
        yield gate


def state_of(inode: Inode) -> FlushState:
    """Asked for anew each time: it changes behind the type checker's back."""
    return inode.state


def filling(flusher: Flusher) -> FlushGroup | None:
    """The same for the group that is being filled."""
    return flusher.fill_group


def flusher_of(fs: FileSystem) -> Flusher:
    assert fs.flusher is not None
    return fs.flusher


# --- what a writer lays down ---------------------------------------------------------------------
async def write_much(fs: FileSystem, inode: Inode) -> None:
    """Write until the background has had its part, done or failed."""
    flusher, number = flusher_of(fs), 0
    with trio.fail_after(60):
        while not flusher.barriers.threaded and flusher.failure is None:
            fs.write(inode, number % 256 * XBUFSIZE, bytes([number % 256]) * XBUFSIZE)
            number += 1
            await trio.sleep(0.0001)
        while flusher.barriers.in_threads:
            await trio.sleep(0.001)


async def test_data_goes_to_disk_long_before_a_flush() -> None:
    fs = mount(fresh())
    inode = make(fs, fs.root, b"file")
    async with running(fs):
        durable = flusher_of(fs).durable
        await write_much(fs, inode)
        assert fs.ctx.volumes.unsettled_bytes < MUCH_BYTES
        assert flusher_of(fs).durable == durable
    fs.close_now()


@pytest.mark.expect_log("read-only from now on, nothing more is written")
async def test_data_that_does_not_reach_the_disk_in_the_background_ends_all_writing() -> None:
    fs = mount([FaultyDevice(fresh()[0], "barrier", 1, errno.EIO)])
    inode = make(fs, fs.root, b"file")
    async with running(fs):
        await write_much(fs, inode)
        assert flusher_of(fs).failure is not None
        with pytest.raises(ReadOnlyError):
            fs.write(inode, 0, b"more")


async def test_a_barrier_beside_one_in_the_background_waits_in_a_thread_too() -> None:
    fs = mount(fresh())
    barriers = flusher_of(fs).barriers
    entered, go = threading.Event(), threading.Event()

    def slow_barrier() -> None:
        entered.set()
        assert go.wait(60)

    assert barriers.is_short()
    with mock.patch.object(fs.ctx.volumes, "barrier", slow_barrier):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(barriers.run_in_thread)
            await trio.to_thread.run_sync(entered.wait)
            assert not barriers.is_short()
            go.set()
    assert barriers.is_short()
    fs.close_now()


async def test_closing_takes_over_from_a_flusher_that_is_cancelled_while_a_thread_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends when the thread does, which is after `close` has asked it to flush."""
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f")
    entered, go, barrier = threading.Event(), threading.Event(), fs.ctx.volumes.barrier

    def slow_barrier() -> None:
        entered.set()
        assert go.wait(60)
        barrier()

    monkeypatch.setattr(fs.ctx.volumes, "barrier", slow_barrier)
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with scope:
            await fs.run(task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        await trio.testing.wait_all_tasks_blocked()
        fs.write(inode, 0, b"accepted")
        flusher_of(fs).write_behind._much_unsettled.set()
        await trio.to_thread.run_sync(entered.wait)
        scope.cancel()
        nursery.start_soon(fs.close)
        await trio.testing.wait_all_tasks_blocked(0.01)
        go.set()
    assert read(mount(devices), b"f") == b"accepted"


# --- sequence numbers and groups ----------------------------------------------------------------
async def test_groups_and_dummies_share_one_row_of_numbers() -> None:
    fs = mount(fresh())
    flusher = flusher_of(fs)
    assert (flusher.next, flusher.done) == (1, 0)
    assert flusher.async_() == 1
    group = flusher.queue(None)
    assert (group.seq, group.closed, group.running) == (2, False, False)
    assert flusher.async_() == 2
    assert group.closed
    assert flusher.async_(group) == 2
    assert flusher.running()
    async with running(fs):
        await flusher.wait(2)
    assert (flusher.next, flusher.done) == (3, 2)
    assert not flusher.running()


async def test_a_dummy_is_done_even_if_there_is_nothing_to_do() -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    async with running(fs) as flusher:
        before = len(log.entries)
        await flusher.wait(flusher.async_())
        await fs.sync()
        assert len(log.entries) == before
        assert flusher.durable == flusher.done == 2


async def test_what_is_queued_before_the_group_runs_joins_it_and_what_comes_later_the_next(gate: Gate) -> None:
    """Group commit: requests that arrive while a group runs share the next one."""
    fs = mount(fresh())
    a, b, c, d = (make(fs, fs.root, name, b"x") for name in (b"a", b"b", b"c", b"d"))
    async with running(fs) as flusher:
        first = flusher.queue(a)
        assert filling(flusher) is first
        assert flusher.queue(b) is first
        gate.close()
        flusher.async_()
        await gate.until_waiting()
        assert first.running
        assert first.closed
        assert filling(flusher) is None
        second = flusher.queue(c)
        assert flusher.async_() == second.seq == first.seq + 1
        assert second.closed
        assert not second.running
        assert flusher.queue(d) is second
        assert list(flusher.groups) == [first, second]
        gate.open()
        await flusher.wait(second.seq)
    assert (first.total_count, second.total_count) == (3, 2), "the first takes the directory's times along"
    assert (first.refs, second.refs) == (0, 0)
    assert flusher.statistics_groups == 2


def with_two_names(fs: FileSystem, name: bytes) -> Inode:
    """A new file that only a flush makes durable: REDO tells of new ones with one name."""
    inode = make(fs, fs.root, name, b"x")
    fs.link(inode, fs.root, name + b" too")
    return inode


async def test_groups_count_what_they_captured_and_what_is_left(gate: Gate) -> None:
    fs = mount(fresh())
    for number in range(5):
        make(fs, fs.root, b"%d" % number, b"x")
    async with running(fs) as flusher:
        group = flusher.queue(None)
        seen = []
        seq = flusher.async_()
        while flusher.done < seq:
            if group.running:
                seen.append(group.refs)
            await trio.lowlevel.checkpoint()
    assert group.total_count == 6, "five files and the root directory"
    assert seen[-1] == 0
    assert len(set(seen)) > 3
    assert sorted(seen, reverse=True) == seen


async def test_several_fsyncs_share_a_group(gate: Gate) -> None:
    fs = mount(fresh())
    inodes = [with_two_names(fs, b"%d" % number) for number in range(10)]
    async with running(fs) as flusher, trio.open_nursery() as nursery:
        for inode in inodes:
            nursery.start_soon(fs.fsync, inode)
    assert 1 <= flusher.statistics_groups <= 2
    assert all(inode.state is FlushState.IDLE for inode in inodes)


# --- states of inodes ---------------------------------------------------------------------------
async def test_an_inode_goes_from_idle_through_setup_and_flush_back_to_idle(gate: Gate) -> None:
    fs = mount(fresh())
    root = fs.root
    assert state_of(root) is FlushState.IDLE
    inode = make(fs, root, b"f", b"1")
    assert state_of(inode) is FlushState.SETUP
    states = set()
    async with running(fs) as flusher:
        seq = flusher.async_(flusher.queue(inode))
        while flusher.done < seq:
            states.add(inode.state)
            assert (inode.capture is not None) == (inode.state is FlushState.FLUSH)
            await trio.lowlevel.checkpoint()
    assert states == {FlushState.SETUP, FlushState.FLUSH, FlushState.IDLE}
    assert state_of(inode) is FlushState.IDLE
    assert not inode.dirty


async def test_an_inode_that_changes_in_flush_is_flushed_again(gate: Gate) -> None:
    """The change belongs to the next group: the running one writes what it captured."""
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", b"first")
    async with running(fs) as flusher:
        seq = flusher.async_(flusher.queue(inode))
        await until(lambda: inode.state is FlushState.FLUSH)
        fs.write(inode, 0, b"second")
        assert state_of(inode) is FlushState.FLUSH
        assert fs.read(inode, 0, 10) == b"second"
        await flusher.wait_durable(seq)
        assert state_of(inode) is FlushState.SETUP
        crashed = mount([device.copy() for device in devices])
        assert read(crashed, b"f") == b"first"
        await fs.fsync(inode)
        assert state_of(inode) is FlushState.IDLE
    assert read(mount([device.copy() for device in devices]), b"f") == b"second"


async def test_a_name_removed_while_its_entry_is_being_flushed_goes_with_the_next_group(gate: Gate) -> None:
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", b"1")
    async with running(fs) as flusher:
        flusher.async_(flusher.queue(inode))
        await until(lambda: inode.state is FlushState.FLUSH)
        fs.unlink(fs.root, b"f")
        assert names(fs, fs.root) == []
        make(fs, fs.root, b"f", b"2")
        assert names(fs, fs.root) == [b"f"]
        await fs.sync()
        assert read(fs, b"f") == b"2"
        await fs.close()
    assert_settled(fs)
    assert_clean(devices)
    assert read(mount(devices), b"f") == b"2"


async def test_fsync_of_an_inode_in_each_state_waits_for_what_it_needs(gate: Gate) -> None:
    """INV-6, for an inode that is dirty, captured, written but not durable, or clean."""
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        assert flusher.seq_for(inode) == 1
        await until(lambda: inode.state is FlushState.FLUSH)
        assert flusher.seq_for(inode) == 1
        gate.close()
        await until(lambda: inode.state is FlushState.IDLE)
        assert flusher.seq_for(inode) == 1
        assert flusher.done == 0
        gate.open()
        await flusher.wait(1)
        assert flusher.durable == 0
        assert flusher.seq_for(inode) == 1
        await fs.fsync(inode)
        assert flusher.durable == 1
        passed = gate.passed
        await fs.fsync(inode)
        assert gate.passed == passed, "a clean, durable inode costs nothing"


async def test_fsync_of_an_inode_that_was_forgotten_and_loaded_again_waits_for_its_group(gate: Gate) -> None:
    """INV-6: a fresh object does not know which group wrote it; the running one may have."""
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        gate.close()
        flusher.async_(flusher.queue(inode))
        await gate.until_waiting()
        assert state_of(inode) is FlushState.IDLE
        fs.ctx.inodes.forget(inode)
        loaded = walk(fs, b"f")
        assert loaded is not inode
        assert flusher.seq_for(loaded) == 1
        gate.open()
        await flusher.wait(1)
        fs.ctx.inodes.forget(loaded)
        await fs.fsync(walk(fs, b"f"))
        assert read(mount([device.copy() for device in devices]), b"f") == b"x"


# --- waiting ------------------------------------------------------------------------------------
async def test_async_one_starts_the_next_group_or_names_the_one_that_runs(gate: Gate) -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        gate.close()
        group = flusher.queue(None)
        assert flusher.async_one() == group.seq
        await gate.until_waiting()
        make(fs, fs.root, b"g", b"x")
        assert flusher.queue(None) is not group
        assert flusher.async_one() == group.seq
        gate.open()
        await flusher.wait(group.seq)
        assert flusher.async_one() == group.seq + 1
        await flusher.wait(group.seq + 1)


async def test_wait_next_flushes_one_group_and_returns_when_it_is_done(gate: Gate) -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        flusher.queue(None)
        await flusher.wait_next()
        assert (flusher.done, flusher.statistics_groups) == (1, 1)
        assert not fs.ctx.dirty.setup


async def test_wait_returns_when_the_group_is_written_and_wait_durable_when_no_crash_undoes_it(gate: Gate) -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        seq = flusher.async_(flusher.queue(None))
        await flusher.wait(seq)
        assert (flusher.done, flusher.durable) == (seq, 0)
        assert names(mount(log.power_cut(len(log.entries), drop_all)), fs.root) == []
        await flusher.wait_durable(seq)
        assert flusher.durable == seq
        cut = mount(log.power_cut(len(log.entries), drop_all))
        assert names(cut, cut.root) == [b"f"]


async def test_sync_and_flush_dirty_leave_nothing_to_do(gate: Gate) -> None:
    fs = mount(fresh())
    flusher = flusher_of(fs)
    assert not flusher.haswork()
    assert await flusher.flush_dirty()
    make(fs, fs.root, b"f", b"x")
    assert flusher.haswork()
    assert not await flusher.flush_dirty(0)
    async with running(fs):
        await flusher.sync()
        assert not flusher.haswork()
        make(fs, fs.root, b"g", b"x")
        await flusher.wait(flusher.async_(flusher.queue(None)))
        assert flusher.haswork(), "the last cycle can still be rolled back"
        assert await flusher.flush_dirty(1)
        assert not flusher.haswork()
    assert_settled(fs)


async def test_the_timer_flushes_and_closes_what_nobody_waits_for() -> None:
    """sync(2) never reaches a FUSE server."""
    recording, log = recorded(fresh())
    fs = mount(recording, flush_seconds=0.01)
    make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        with trio.fail_after(10):
            while flusher.durable < 1:
                await trio.sleep(0.01)
    cut = mount(log.power_cut(len(log.entries), drop_all))
    assert names(cut, cut.root) == [b"f"]


async def test_no_group_starts_while_the_group_lock_is_held(gate: Gate) -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        flusher.lock_groups()
        flusher.lock_groups()
        group = flusher.queue(None)
        flusher.async_()
        await trio.testing.wait_all_tasks_blocked()
        assert not group.running
        flusher.unlock_groups()
        await trio.testing.wait_all_tasks_blocked()
        assert not group.running
        flusher.unlock_groups()
        await flusher.wait(group.seq)
        assert group.running


# --- master and slaves --------------------------------------------------------------------------
async def test_four_slaves_compete_each_with_its_own_transaction(gate: Gate) -> None:
    fs = mount(fresh())
    for number in range(40):
        make(fs, fs.root, b"%d" % number, b"x" * 40_000)
    async with running(fs) as flusher:
        group = flusher.queue(None)
        await flusher.wait(flusher.async_())
    transactions = [slave.transaction for slave in flusher._slaves]
    assert len(transactions) == MAX_SLAVES == 4
    assert len({id(transaction) for transaction in transactions}) == 4
    assert {transaction.tid for transaction in transactions} == {group.tid}
    assert all(transaction.inodes > 1 for transaction in transactions)
    assert sum(transaction.inodes for transaction in transactions) == group.total_count == 41
    assert_settled(fs)


async def test_a_huge_file_does_not_hold_up_small_ones(gate: Gate) -> None:
    fs = mount(fresh())
    huge = make(fs, fs.root, b"huge", b"x" * 3_000_000)
    small = [make(fs, fs.root, b"%d" % number, b"x") for number in range(10)]
    async with running(fs) as flusher:
        flusher.async_(flusher.queue(None))
        await until(lambda: huge.state is FlushState.FLUSH)
        await until(lambda: all(inode.state is FlushState.IDLE for inode in small))
        assert state_of(huge) is FlushState.FLUSH
        await flusher.sync()


async def test_nothing_is_changed_while_meta_data_is_written_out(gate: Gate) -> None:
    """A slave that meets the limit finalizes; the others wait at the lock until it is done."""
    devices = fresh()
    fs = mount(devices)
    for number in range(300):
        make(fs, fs.root, b"%d" % number, b"x" * 20_000)
    finalized = 0
    original = Cycle.finalize

    def finalize(self: Cycle, *, final: bool) -> Iterator[object]:
        nonlocal finalized
        finalized += 1
        changes = fs.ctx.tree._changes
        for step in original(self, final=final):
            yield step
            assert fs.ctx.tree._changes == changes

    with (
        mock.patch.object(Cycle, "finalize", finalize),
        mock.patch.object(Cycle, "meta_limit", lambda self: self.dirty_meta() > 40_000),
    ):
        async with running(fs):
            await fs.close()
    assert finalized > 3
    assert_clean(devices)


async def test_the_limit_is_looked_at_again_once_the_lock_is_had(gate: Gate) -> None:
    """Non-final finalization that another slave has made unnecessary is left out (`hammer_flusher_finalize`)."""
    fs = mount(fresh())
    for number in range(8):
        make(fs, fs.root, b"%d" % number, b"x")
    answers = iter([True] * 4 + [True] + [False] * 100)
    finalized: list[bool] = []
    original = Cycle.finalize

    def finalize(self: Cycle, *, final: bool) -> Iterator[object]:
        finalized.append(final)
        return original(self, final=final)

    with (
        mock.patch.object(Cycle, "finalize", finalize),
        mock.patch.object(Cycle, "meta_limit", side_effect=answers),
    ):
        async with running(fs) as flusher:
            await flusher.wait(flusher.async_(flusher.queue(None)))
    assert finalized == [False, True]


async def test_the_flusher_ends_when_told_and_what_was_queued_is_flushed_first() -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"f", b"x")
    flusher = flusher_of(fs)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            seq = flusher.async_(flusher.queue(None))
            flusher.stop()
    assert flusher.done == seq
    assert not fs.ctx.dirty.setup


@pytest.mark.expect_log("read-only from now on.*cancelled in the middle of a cycle")
async def test_a_cancelled_cycle_is_a_failure(gate: Gate) -> None:
    """Whoever cancels the flusher within a cycle, nobody goes on from the half of it that was done (INV-11)."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    make(fs, fs.root, b"f", b"x")
    gate.close()
    async with running(fs) as flusher:
        flusher.async_(flusher.queue(None))
        await gate.until_waiting()
    assert fs.failure is not None
    written = len(log.entries)
    fs.close_now()
    assert len(log.entries) == written
    cut = mount(log.power_cut(len(log.entries), drop_all))
    assert names(cut, cut.root) == []


async def test_cancelling_an_idle_flusher_does_no_harm() -> None:
    devices = fresh()
    fs = mount(devices)
    make(fs, fs.root, b"f", b"x")
    async with running(fs):
        await fs.sync()
    make(fs, fs.root, b"g", b"x")
    fs.close_now()
    assert_clean(devices)
    cut = mount(devices)
    assert names(cut, cut.root) == [b"f", b"g"]


# --- limits -------------------------------------------------------------------------------------
async def test_a_group_begins_by_closing_the_last_cycle_when_little_undo_space_is_left(gate: Gate) -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"f", b"x")
    async with running(fs) as flusher:
        await flusher.wait(flusher.async_(flusher.queue(None)))
        assert flusher.cycle.undo_dirty
        make(fs, fs.root, b"g", b"x")
        with mock.patch.object(Cycle, "undo_exhausted", lambda self, quarter: quarter == 3):
            closed = []
            original = Cycle.close

            def close(self: Cycle) -> Iterator[object]:
                closed.append(flusher._running)
                return original(self)

            with mock.patch.object(Cycle, "close", close):
                await flusher.wait(flusher.async_(flusher.queue(None)))
    assert closed == [None]


async def test_the_fifo_bears_groups_without_end_when_it_is_small(gate: Gate) -> None:
    """INV-3: the ring comes round several times, and nothing that is still needed is overwritten."""
    devices = fresh()
    fs = mount(devices)
    undo = fs.ctx.undo
    assert undo is not None
    laid = 0
    async with running(fs) as flusher:
        for turn in range(12):
            before = undo.next_offset
            for number in range(700):
                make(fs, fs.root, b"%d of turn %d" % (number, turn), b"")
                await fs.throttle()
            fs.unlink(fs.root, b"%d of turn %d" % (0, turn))
            if turn % 2:
                await fs.sync()
            laid += (undo.next_offset - before) % undo.capacity
        await fs.close()
    assert flusher.failure is None
    assert_settled(fs)
    assert_clean(devices)


# --- flush_undos --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "barriers_with_dirty", "barriers_when_clean"),
    [(UndoMode.RELAXED, 0, 0), (UndoMode.FORCED, 1, 1), (UndoMode.AUTO, 1, 0)],
)
async def test_flush_undos_in_three_modes(
    gate: Gate, mode: UndoMode, barriers_with_dirty: int, barriers_when_clean: int
) -> None:
    fs = mount(fresh())
    flusher, undo = flusher_of(fs), fs.ctx.undo
    assert undo is not None
    undo.log(2 << 60, b"something old")
    assert undo.dirty_bytes
    await flusher.flush_undos(mode)
    assert gate.passed == barriers_with_dirty
    assert not undo.dirty_bytes
    await flusher.flush_undos(mode)
    assert gate.passed == barriers_with_dirty + barriers_when_clean


# --- failures -----------------------------------------------------------------------------------
@pytest.mark.expect_log("read-only from now on, nothing more is written")
async def test_whoever_waits_is_told_of_the_failure() -> None:
    device = FaultyDevice(fresh()[0], "barrier", 1, errno.EIO)
    fs = mount([device])
    inode = make(fs, fs.root, b"f", b"x")
    told = []

    async def wait() -> None:
        with pytest.raises(ReadOnlyError) as caught:
            await fs.fsync(inode)
        told.append(caught.value.errno)

    async with running(fs):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        with pytest.raises(ReadOnlyError):
            await fs.sync()
        assert fs.read(inode, 0, 10) == b"x"
        await fs.throttle()
        await fs.close()
    assert told == [errno.EIO] * 3


@pytest.mark.expect_log("read-only from now on.*internal error: RuntimeError")
async def test_a_defect_in_a_slave_stops_the_flusher_as_loudly_as_a_broken_disk() -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    make(fs, fs.root, b"f", b"x")
    with mock.patch("hammerfs.fs.sync_inode.InodeSync._sync_inode_record", side_effect=RuntimeError("a defect")):
        async with running(fs):
            with pytest.raises(ReadOnlyError, match="a defect"):
                await fs.sync()
    written = len(log.entries)
    fs.close_now()
    assert len(log.entries) == written
    cut = mount(log.power_cut(written, drop_all))
    assert names(cut, cut.root) == []


# --- fsync modes --------------------------------------------------------------------------------
async def image_after_fsync(mode: int, gate: Gate) -> tuple[list[MemoryDevice], Flusher]:
    recording, log = recorded(fresh())
    fs = mount(recording, fsync_mode=mode)
    inode = with_two_names(fs, b"f")
    async with running(fs) as flusher:
        if mode in (FSYNC_BACKGROUND, FSYNC_RELAXED, FSYNC_IGNORED):
            gate.close()
        with trio.fail_after(10):
            await fs.fsync(inode)
        image = log.power_cut(len(log.entries), drop_all)
        gate.open()
        await flusher.wait(flusher.next - 1)
        await until(lambda: not flusher.cycle.undo_dirty)
    return image, flusher


@pytest.mark.parametrize("mode", [FSYNC_FULL, FSYNC_DURABLE])
async def test_fsync_modes_0_and_2_return_when_the_file_is_on_stable_storage(mode: int, gate: Gate) -> None:
    """INV-6; 2 is the default."""
    image, _ = await image_after_fsync(mode, gate)
    assert read(mount(image), b"f") == b"x"


@pytest.mark.parametrize("mode", [FSYNC_BACKGROUND, FSYNC_RELAXED])
async def test_fsync_modes_1_and_3_start_a_flush_and_do_not_wait_for_it(mode: int, gate: Gate) -> None:
    image, flusher = await image_after_fsync(mode, gate)
    assert names(mount(image), mount(image).root) == []
    assert flusher.statistics_groups == 1


async def test_fsync_mode_4_does_nothing(gate: Gate) -> None:
    image, flusher = await image_after_fsync(FSYNC_IGNORED, gate)
    assert names(mount(image), mount(image).root) == []
    assert flusher.statistics_groups == 0


async def test_an_fsync_that_nobody_could_share_flushes_at_once_and_durably() -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    fs.know_waiting_requests(lambda: False)
    async with running(fs) as flusher:
        inode = with_two_names(fs, b"f")
        with trio.testing.assert_no_checkpoints():
            await fs.fsync(inode)
        assert read(mount(log.power_cut(len(log.entries), drop_all)), b"f") == b"x"
        assert (flusher.done, flusher.durable, flusher.running()) == (1, 1, False)
        assert inode.state is FlushState.IDLE
        fs.rename(fs.root, b"f", fs.root, b"g")
        with trio.testing.assert_no_checkpoints():
            await fs.fsync(fs.root)
        cut = mount(log.power_cut(len(log.entries), drop_all))
        assert names(cut, cut.root) == [b"f too", b"g"]


@pytest.mark.parametrize(
    "hindrance", ["others wait", "slow barriers", "much to truncate", "much is dirty", "a group runs", "group lock"]
)
async def test_other_fsyncs_leave_the_flush_to_the_tasks(hindrance: str) -> None:
    fs = mount(fresh())
    fs.know_waiting_requests(lambda: hindrance == "others wait")
    inode = with_two_names(fs, b"f")
    async with running(fs) as flusher:
        if hindrance == "slow barriers":
            flusher.barriers._mean_seconds = 1.0
        elif hindrance == "much to truncate":
            fs.write(inode, 0, bytes(TRUNCATED_BYTES_MAX + XBUFSIZE))
            await fs.sync()
            fs.setattr(inode, size=0)
        elif hindrance == "much is dirty":
            for number in range(LITTLE_RECORDS):
                make(fs, fs.root, b"%d" % number, b"")
        elif hindrance == "a group runs":
            flusher.async_(flusher.queue(None))
        elif hindrance == "group lock":
            flusher.lock_groups()
        assert not flusher.flush_alone(inode)
        assert inode in fs.ctx.dirty.setup
        if hindrance == "group lock":
            flusher.unlock_groups()
        await fs.fsync(inode)
        assert inode not in fs.ctx.dirty.setup


@pytest.mark.expect_log("read-only from now on")
async def test_a_flush_at_once_whose_barrier_fails_acknowledges_nothing() -> None:
    fs = mount(fresh())
    fs.know_waiting_requests(lambda: False)
    async with running(fs) as flusher:
        inode = with_two_names(fs, b"f")
        broken = DeviceError("barrier", "disk", 0, 0, "worn out")
        with mock.patch.object(type(fs.ctx.volumes), "barrier", side_effect=broken), pytest.raises(FlushFailedError):
            await fs.fsync(inode)
        assert flusher.failure is not None
        assert fs.read_only
        assert flusher.durable == 0


async def test_fsync_of_a_new_file_leaves_nothing_to_do_for_its_directory() -> None:
    """What a database does for each transaction: a new journal, fsync of it, and of the directory."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    async with running(fs) as flusher:
        directory = make(fs, fs.root, b"d")
        await fs.sync()
        inode = make(fs, directory, b"journal", b"x")
        touched = directory.data.mtime
        await fs.fsync(inode)
        groups, length = flusher.statistics_groups, len(log.entries)
        await fs.fsync(directory)
        assert (flusher.statistics_groups, len(log.entries)) == (groups, length)
        make(fs, directory, b"other", b"y")
        await fs.fsync(directory)
        assert flusher.statistics_groups == groups + 1
    after = mount(log.power_cut(length, drop_all))
    assert names(after, walk(after, b"d")) == [b"journal"]
    assert walk(after, b"d").data.mtime == touched


async def test_fsync_of_a_directory_makes_its_entries_durable(gate: Gate) -> None:
    """INV-6: that is how programs make a rename durable."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    make(fs, fs.root, b"old", b"old content")
    async with running(fs):
        await fs.sync()
        make(fs, fs.root, b"new", b"new content")
        fs.rename(fs.root, b"new", fs.root, b"old")
        await fs.fsync(fs.root)
        cut = mount(log.power_cut(len(log.entries), drop_all))
        assert names(cut, cut.root) == [b"old"]
        assert read(cut, b"old") == b"new content"


async def test_a_mount_that_may_not_write_has_nothing_to_flush() -> None:
    fs = mount(fresh(), read_only=True)
    assert fs.flusher is None
    async with trio.open_nursery() as nursery:
        await nursery.start(fs.run)
        await fs.fsync(fs.root)
        await fs.sync()
        await fs.throttle()
        await fs.close()
