"""The flusher: one master and several slaves that carry flush groups to disk (`hammer_flusher.c`).

Sequence numbers order everything.  A group gets the next one; a request to flush when there is no group gets a dummy
number, so that one can wait for it all the same.  The master runs closed groups in order: it captures the group's
inodes, lets the slaves compete for them, finalizes the cycle and, when someone waits for durability, closes it.
Several fsyncs that arrive while a group runs share the next one (group commit).

The slaves do not run in parallel: they take turns at their yield points, so that a file with a hundred thousand records
does not hold up the small ones behind it.  An inode too large for one cycle is issued again to a later group.

Any error here is serious: what was promised may not reach the disk.  The mount turns read-only, nothing more is
written, the UNDO FIFO stays as it is, and the next mount rolls back to the last state that was complete (INV-11).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from hammerfs.errors import FlushFailedError, HammerError
from hammerfs.fs.barrier import BarrierRunner
from hammerfs.fs.cycle import Cycle, Step, UndoMode, run_steps
from hammerfs.fs.flushgroup import FlushGroup, capture, closure, touched_directories
from hammerfs.fs.inode import Dirty, FlushState, Inode
from hammerfs.fs.sync_inode import InodeSync
from hammerfs.ondisk.address import Tid

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger("hammerfs.flusher")

MAX_SLAVES = 4
_STRETCH_SECONDS = 0.004
"""Longest time the back end works between two looks at the event loop."""


@dataclass(slots=True)
class Transaction:
    """What one slave writes of one group: the group's TID, shared by all, and the number of inodes so far."""

    tid: Tid
    inodes: int = 0


class Slave:
    """One competitor for a group's inodes, with its own copy of the group's transaction."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.transaction = Transaction(0)
        self.wakeup = trio.Event()
        self.idle = trio.Event()
        self.idle.set()


class Flusher:
    """The back end of a mounted file system.

    next -- sequence number that the next group or dummy request gets; done -- last one finished
    durable -- last one that no crash takes back
    fill_group -- takes what is queued now, None until something is; groups -- waiting and running, in order
    group_lock -- while positive, no new group starts (held by operations that need a quiet back end)
    barriers -- runs them
    failure -- the sentence that turned the mount read-only; ended -- no task flushes any more
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.cycle = Cycle(ctx)
        self.next = 1
        self.done = 0
        self.durable = 0
        self.fill_group: FlushGroup | None = None
        self.groups: deque[FlushGroup] = deque()
        self.group_lock = 0
        self.failure: str | None = None
        self.statistics_groups = 0
        self.statistics_inodes = 0
        self._want_durable = 0
        self._signal = trio.Event()
        self._finished = trio.lowlevel.ParkingLot()
        self._group_free = trio.lowlevel.ParkingLot()
        self._slaves = [Slave(number) for number in range(MAX_SLAVES)]
        self._running: FlushGroup | None = None
        self._finalize_lock = trio.Lock()
        self.barriers = BarrierRunner(ctx.volumes)
        self._exiting = self.ended = False

    # --- requests -------------------------------------------------------------------------------
    def queue(self, inode: Inode | None) -> FlushGroup:
        """Put an inode, or everything dirty, into the group that is being filled."""
        group = self.fill_group
        if group is None:
            group = self.fill_group = FlushGroup(self.next)
            self.next += 1
            self.groups.append(group)
        if inode is None:
            group.everything = True
        else:
            group.inodes[inode] = None
        return group

    def async_(self, close_group: FlushGroup | None = None) -> int:
        """Start flushing what is queued, up to `close_group`; returns the sequence number to wait for.

        Without a group to close, a dummy number still makes the flusher finish what the last cycle left open.
        """
        if close_group is not None and close_group.closed:
            return close_group.seq
        group = self.fill_group
        if group is not None:
            group.closed = True
            seq = group.seq
        else:
            seq = self.next
            self.next += 1
        self._signal.set()
        return seq

    def async_one(self) -> int:
        """Start the next group, or name the one that runs."""
        if self._running is not None:
            return self._running.seq
        return self.async_(self.groups[0] if self.groups else None)

    async def wait(self, seq: int) -> None:
        """Return when the group or dummy with that number is done; raises what stopped the flusher."""
        while self.done < seq:
            await self._parked()
        self.raise_failure()

    async def wait_durable(self, seq: int) -> None:
        """Return when no crash can take back what the group with that number wrote."""
        while self.durable < seq:
            self.want_durable(seq)
            await self._parked()
        self.raise_failure()

    def want_durable(self, seq: int) -> None:
        """Have the cycle of that number closed, without waiting for it."""
        self._want_durable = max(self._want_durable, seq)
        self._signal.set()

    async def _parked(self) -> None:
        """Until something was finished; nothing will be once the master has ended."""
        self.raise_failure()
        if self.ended:
            raise FlushFailedError("the flusher has ended")
        await self._finished.park()

    async def wait_next(self) -> None:
        """Flush one group and wait for it."""
        await self.wait(self.async_one())

    def running(self) -> bool:
        """Whether something requested is not done yet."""
        return self.next - 1 > self.done

    async def sync(self) -> None:
        """Flush everything dirty and return when it is durable."""
        self.raise_failure()
        if self._ctx.dirty.setup:
            self.queue(None)
        await self.wait_durable(self.async_())
        while self._ctx.dirty.cut_short:
            await self.wait_durable(self.async_(self.queue(None)))

    async def flush_dirty(self, max_count: int = -1) -> bool:
        """Repeat `sync` until nothing is dirty, at most `max_count` times; False when something is left."""
        count = 0
        while self.haswork():
            if count == max_count:
                return False
            await self.sync()
            count += 1
        return True

    def haswork(self) -> bool:
        """Whether inodes, buffers or an unclosed cycle wait."""
        if self.failure is not None or self._ctx.read_only:
            return False
        return bool(self.groups or self._ctx.dirty.setup or self.cycle.has_dirty() or self.cycle.undo_dirty)

    def seq_for(self, inode: Inode) -> int:
        """The sequence number after which everything acknowledged about an inode is written.

        A directory's entries belong to it: when some are pending, everything is flushed.  An inode that was loaded
        since may have been written by the last group or by the running one, so at least that one counts.
        """
        if inode.adds or inode.deletes:
            return self.async_(self.queue(None))
        if inode in self._ctx.dirty.setup:
            return self.async_(self.queue(inode))
        if inode.last_seq:
            return inode.last_seq
        return self.done if self._running is None else self._running.seq

    async def flush_undos(self, mode: UndoMode) -> None:
        """Write the UNDO/REDO FIFO by itself."""
        async with self._finalize_lock:
            await self._drive(self.cycle.flush_undos(mode))

    def lock_groups(self) -> None:
        """Keep further groups from starting; the running one goes on."""
        self.group_lock += 1

    def unlock_groups(self) -> None:
        """Let groups start again."""
        assert self.group_lock > 0
        self.group_lock -= 1
        if not self.group_lock:
            self._group_free.unpark_all()

    # --- life -----------------------------------------------------------------------------------
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run master, slaves and timer until `stop`; what is queued by then is still flushed."""
        self.ended = False
        try:
            async with trio.open_nursery() as nursery:
                for slave in self._slaves:
                    nursery.start_soon(self._slave, slave)
                nursery.start_soon(self._timer)
                task_status.started()
                await self._master()
                nursery.cancel_scope.cancel()
        finally:  # also when cancelled between two cycles: nobody may wait for what will not come
            self.ended = True
            self._finished.unpark_all()

    def stop(self) -> None:
        """Let the master end when its queue is empty."""
        self._exiting = True
        self._signal.set()

    async def _timer(self) -> None:
        """sync(2) never reaches a FUSE server, so nothing stays unflushed longer than this."""
        while True:
            await trio.sleep(self._ctx.options.flush_seconds)
            if self.failure is None and self.haswork():
                if self._ctx.dirty.setup:
                    self.queue(None)
                self.want_durable(self.async_())

    async def _master(self) -> None:
        while True:
            while await self._flush_next():
                pass
            if self._exiting or self.failure is not None:
                return
            await self._signal.wait()
            self._signal = trio.Event()

    async def _slave(self, slave: Slave) -> None:
        while True:
            await slave.wakeup.wait()
            slave.wakeup = trio.Event()
            group = self._running
            if group is not None:
                try:
                    await self._compete(slave, group)
                except Exception as error:
                    self.critical_error(error)
            slave.idle.set()

    # --- one sequence number --------------------------------------------------------------------
    async def _flush_next(self) -> bool:
        """Flush the next sequence number, with or without a group; False when there is nothing to do."""
        while self.group_lock:
            await self._group_free.park()
        if self.failure is not None:
            return False
        group = self.groups[0] if self.groups else None
        seq = self.done + 1
        if group is not None and (group.seq != seq or not group.closed):
            group = None
            if self.groups[0].seq == seq:
                return await self._close_if_wanted()
        if group is None and seq >= self.next:
            return await self._close_if_wanted()
        try:
            if group is not None:
                await self._flush_group(group)
            elif self.cycle.has_dirty():
                await self._close_first()
                await self._finalize(final=True)
            self.finish(seq)
            await self._close_if_wanted()
        except BaseException as error:
            self.give_up(error)
            return False
        return True

    def finish(self, seq: int) -> None:
        self.done = seq
        if not self.cycle.undo_dirty:
            self.durable = seq
        self._finished.unpark_all()

    async def _close_if_wanted(self) -> bool:
        if self._want_durable <= self.durable or self.durable >= self.done or self.failure is not None:
            return False
        try:
            seq = self.done
            async with self._finalize_lock:
                await self._drive(self.cycle.close())
            self.durable = seq
            self._finished.unpark_all()
        except BaseException as error:
            self.give_up(error)
        return False

    async def _close_first(self) -> None:
        """Close the last cycle before the next one begins, if that must be."""
        if self.cycle.must_close_first():
            async with self._finalize_lock:
                await self._drive(self.cycle.close())

    async def _flush_group(self, group: FlushGroup) -> None:
        await self._close_first()
        self.start_group(group)
        competing = self._slaves[: group.total_count]
        for slave in competing:
            slave.idle = trio.Event()
            slave.wakeup.set()
        for slave in competing:
            await slave.idle.wait()
        if self.failure is None:
            await self._finalize(final=True)
        self.end_group(group)

    def start_group(self, group: FlushGroup) -> None:
        """Capture the group in one step: from here on the front end changes what the next group writes."""
        if self.fill_group is group:
            self.fill_group = None
        group.closed = group.running = True
        setup, redo = self._ctx.dirty.setup, self._ctx.redo
        seeds = group.inodes if redo is None else group.inodes | redo.holders
        wanted: Iterable[Inode] = setup
        if not group.everything:
            wanted = closure(seeds)
            wanted = {*wanted, *touched_directories(wanted)}
        chosen = [inode for inode in wanted if inode in setup]
        for inode in chosen:
            del setup[inode]
            capture(inode, group.seq)
            if redo is not None:
                redo.capture(inode, group.seq)
        chosen.sort(key=lambda inode: (inode.localization, inode.obj_id), reverse=True)
        group.work = chosen
        group.total_count = len(chosen)
        group.refs = len(chosen)
        group.tid = self._ctx.alloc_tid()
        self._running = group
        self.statistics_groups += 1
        self.statistics_inodes += len(chosen)

    def end_group(self, group: FlushGroup) -> None:
        self._running = None
        self.groups.popleft()

    async def _compete(self, slave: Slave, group: FlushGroup) -> None:
        """Flush inodes of the running group until none is left; a slave comes in, and back, by `turn`."""
        transaction = slave.transaction = Transaction(group.tid)
        await self.turn()
        since = time.perf_counter()
        while group.work and self.failure is None:
            inode = group.work.pop()
            transaction.inodes += 1
            work = InodeSync(self._ctx, transaction.tid, inode, self._should_stop)
            for _ in work.run():
                since = await self._pause(since)
            self._settle(group, inode, work)
            if self.cycle.meta_limit():
                await self._finalize(final=False)
            since = await self._pause(since)

    def _settle(self, group: FlushGroup, inode: Inode, work: InodeSync) -> None:
        """Put an inode back where it belongs after its flush; what was left of it goes into a group of its own."""
        group.refs -= 1
        dirty = self._ctx.dirty
        inode.capture = None
        inode.state = FlushState.IDLE
        dirty.cut_short.discard(inode)
        if work.cut_short:
            dirty.cut_short.add(inode)
        if work.would_block:
            dirty.mark(inode, Dirty.DATA | Dirty.INODE)
            self.async_(self.queue(inode))
        elif inode in dirty.setup:
            inode.state = FlushState.SETUP

    def _should_stop(self) -> bool:
        """Whether an inode with unbounded work should leave the rest to a later cycle."""
        return self.cycle.undo_exhausted(2)

    async def _pause(self, since: float) -> float:
        if time.perf_counter() - since < _STRETCH_SECONDS:
            return since
        await trio.lowlevel.checkpoint()
        await self.turn()
        return time.perf_counter()

    async def turn(self) -> None:
        """Wait while meta-data is written out, when nobody may change any; up to the next checkpoint it may be then."""
        async with self._finalize_lock:
            pass
        self.raise_failure()  # of another slave, or of the front end

    # --- finalization ---------------------------------------------------------------------------
    async def _finalize(self, *, final: bool) -> None:
        async with self._finalize_lock:
            # Several slaves may have hit the limit at once; the first one's work can suffice.
            if final or self.cycle.meta_limit():
                await self._drive(self.cycle.finalize(final=final))

    async def _drive(self, steps: Iterator[Step]) -> None:
        """Carry steps out, under the finalize lock; the front end may fail at each pause, and before."""
        since = time.perf_counter()
        self.raise_failure()
        for step in steps:
            if step is Step.BARRIER:
                await self.barriers.run()
                since = time.perf_counter()
            elif time.perf_counter() - since > _STRETCH_SECONDS:
                await trio.lowlevel.checkpoint()
                since = time.perf_counter()
            self.raise_failure()

    def flush_now(self) -> None:
        """Flush everything durably without an event loop: for offline work, and for tests."""
        self.raise_failure()
        try:
            while self._ctx.dirty.setup or self.groups or self.cycle.has_dirty():
                group = self.queue(None)
                if self.cycle.must_close_first():
                    run_steps(self._ctx, self.cycle.close())
                self.start_group(group)
                self.sync_group(group)
                run_steps(self._ctx, self.cycle.finalize(final=True))
                self.end_group(group)
                self.done = group.seq
            run_steps(self._ctx, self.cycle.close())
            self.durable = self.done
        except BaseException as error:
            self.critical_error(error)
            raise

    def sync_group(self, group: FlushGroup) -> None:
        """What the slaves do, in one go."""
        while group.work:
            inode = group.work.pop()
            work = InodeSync(self._ctx, group.tid, inode, self._should_stop)
            for _ in work.run():
                pass
            self._settle(group, inode, work)

    def finish_recovery(self) -> None:
        """Flush what REDO did, and close the FIFO's range even if that was nothing."""
        self.cycle.undo_dirty = True
        self.flush_now()

    # --- failure --------------------------------------------------------------------------------
    def critical_error(self, error: BaseException) -> None:
        """Turn the mount read-only, loudly and for good (`hammer_critical_error`).

        An exception that is none of ours is a defect: its place is logged, so that it can be mended.
        """
        if self.failure is None:
            expected = isinstance(error, (HammerError, OSError, trio.Cancelled))
            self.failure = str(error) if expected else f"internal error: {error!r}"
            if isinstance(error, trio.Cancelled):
                self.failure = "flushing was cancelled in the middle of a cycle"
            self._ctx.read_only = True
            log.error(
                "the file system is read-only from now on, nothing more is written: %s",
                self.failure,
                exc_info=None if expected else error,
            )
        self._finished.unpark_all()
        self._signal.set()

    def give_up(self, error: BaseException) -> None:
        """A cycle ended in the middle; whoever cancelled it, too, must not go on from there."""
        self.critical_error(error)
        if not isinstance(error, Exception):
            raise error

    def raise_failure(self) -> None:
        """Raise what turned the mount read-only, for those who wait for durability."""
        if self.failure is not None:
            raise FlushFailedError(self.failure)
