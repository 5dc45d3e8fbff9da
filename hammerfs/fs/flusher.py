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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from hammerfs.errors import FlushFailedError
from hammerfs.fs.cycle import Step, UndoMode
from hammerfs.fs.flushgroup import FlushGroup
from hammerfs.fs.groupflush import GroupFlusher
from hammerfs.fs.inode import Inode
from hammerfs.fs.sync_inode import InodeSync
from hammerfs.fs.writebehind import WriteBehind
from hammerfs.ondisk.address import Tid

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger("hammerfs.flusher")

MAX_SLAVES = 4
_STRETCH_SECONDS = 0.004
"""Longest time the back end works between two looks at the event loop."""
_STRETCH_SECONDS_WAITED_FOR = 0.001
"""The same while a request waits: behind a megabyte that is written come others, and each of them lets a stretch in."""


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


class Flusher(GroupFlusher):
    """The back end of a mounted file system: the tasks, and what they are asked for.

    group_lock -- while positive, no new group starts (held by operations that need a quiet back end)
    ended -- no task flushes any more
    write_behind -- brings data to disk between flushes
    others_wait -- tells whether requests wait that nobody has begun to answer; None when that cannot be known
    """

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.others_wait: Callable[[], bool] | None = None
        self.group_lock = 0
        self._want_durable = 0
        self._signal = trio.Event()
        self.write_behind = WriteBehind(ctx, self)
        self._finished = trio.lowlevel.ParkingLot()
        self._group_free = trio.lowlevel.ParkingLot()
        self._slaves = [Slave(number) for number in range(MAX_SLAVES)]
        self._finalize_lock = trio.Lock()
        self._exiting = self.ended = False

    # --- requests -------------------------------------------------------------------------------
    def async_(self, close_group: FlushGroup | None = None) -> int:
        seq = super().async_(close_group)
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

    async def news(self) -> None:
        """Return when the next thing is finished, whatever it is; raises what stopped the flusher."""
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

    def flush_alone(self, inode: Inode) -> bool:
        """Flush what belongs to an inode durably, here and now, if that is short and nobody could share it.

        False, with nothing done, if not.  From task to task such a flush costs several times the CPU.
        """
        if self.others_wait is None or self.others_wait():
            return False
        if self.groups or self.running() or self.group_lock or self._finalize_lock.locked():
            return False
        if self._exiting or self.ended or inode not in self._ctx.dirty.setup or not self._is_little_dirty():
            return False
        try:
            self._flush_at_once(self.queue(None if inode.adds or inode.deletes else inode))
            self._drive_at_once(self.cycle.close())
        except BaseException as error:
            self.give_up(error)
            self.raise_failure()
        self.finish(self.done)
        return True

    def settle_now(self) -> bool:
        """Not while somebody else writes, or is just going to."""
        return not self._finalize_lock.locked() and super().settle_now()

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
                nursery.start_soon(self.write_behind.run)
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
        super().finish(seq)
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

    async def _compete(self, slave: Slave, group: FlushGroup) -> None:
        """Flush inodes of the running group until none is left; a slave comes in, and back, by `turn`."""
        transaction = slave.transaction = Transaction(group.tid)
        await self.turn()
        since = time.perf_counter()
        while group.work and self.failure is None:
            inode = group.work.pop()
            transaction.inodes += 1
            work = InodeSync(self._ctx, transaction.tid, inode, self.cycle.should_cut_short)
            for _ in work.run():
                since = await self._pause(since)
            self._settle(group, inode, work)
            if self.cycle.meta_limit():
                await self._finalize(final=False)
            since = await self._pause(since)

    async def _pause(self, since: float) -> float:
        if self._ctx.blocks.overfull:
            await self.write_behind.wait_for_room()
        elif self._has_turn(since):
            return since
        await trio.lowlevel.checkpoint()
        await self.turn()
        return time.perf_counter()

    def _has_turn(self, since: float) -> bool:
        """Whether what has worked since then may go on before the event loop gets its turn."""
        spent = time.perf_counter() - since
        if spent >= _STRETCH_SECONDS:
            return False
        return spent < _STRETCH_SECONDS_WAITED_FOR or self.others_wait is None or not self.others_wait()

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
            if step is Step.DATA:
                await self.write_behind.write()
                since = time.perf_counter()
            elif step is Step.BARRIER:
                await self.barriers.run()
                since = time.perf_counter()
            elif not self._has_turn(since):
                await trio.lowlevel.checkpoint()
                since = time.perf_counter()
            self.raise_failure()

    # --- failure --------------------------------------------------------------------------------
    def critical_error(self, error: BaseException) -> None:
        super().critical_error(error)
        self.write_behind.wake()
        self._finished.unpark_all()
        self._signal.set()
