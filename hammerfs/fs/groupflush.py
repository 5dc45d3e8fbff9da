"""Flush groups, one after the other: the part of the flusher that gives way to nobody.

`flusher.py` has the tasks that share this work with the rest of the mount.  Here a group is captured, flushed and
finalized in one go: for offline work, for recovery, and for an fsync that nobody else could share a flush with.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import trio

from hammerfs.errors import FlushFailedError, HammerError
from hammerfs.fs.barrier import BarrierRunner
from hammerfs.fs.cycle import Cycle, Step
from hammerfs.fs.flushgroup import FlushGroup, capture, closure, removes_much, touched_directories
from hammerfs.fs.inode import Dirty, FlushState, Inode
from hammerfs.fs.records import EntryKind
from hammerfs.fs.sync_inode import InodeSync

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger("hammerfs.flusher")

LITTLE_RECORDS = 64
"""Dirty inodes and pending records up to which a group is flushed without a pause: some 5 ms."""


class GroupFlusher:
    """Groups, their order, and what has become of them.

    next -- sequence number that the next group or dummy request gets; done -- last one finished
    durable -- last one that no crash takes back
    fill_group -- takes what is queued now, None until something is; groups -- waiting and running, in order
    barriers -- runs them
    failure -- the sentence that turned the mount read-only
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.cycle = Cycle(ctx)
        self.next = 1
        self.done = 0
        self.durable = 0
        self.fill_group: FlushGroup | None = None
        self.groups: deque[FlushGroup] = deque()
        self.failure: str | None = None
        self.statistics_groups = 0
        self.statistics_inodes = 0
        self.statistics_records = 0
        self.barriers = BarrierRunner(ctx.volumes)
        self._running: FlushGroup | None = None

    # --- groups ---------------------------------------------------------------------------------
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
            # What it loses before the group is captured lands with it all the same: somebody waits for it.
            for record in inode.links:
                if record.kind is EntryKind.ADD:
                    record.promised = True
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
        return seq

    def running(self) -> bool:
        """Whether something requested is not done yet."""
        return self.next - 1 > self.done

    def start_group(self, group: FlushGroup) -> None:
        """Capture the group in one step: from here on the front end changes what the next group writes."""
        if self.fill_group is group:
            self.fill_group = None
        group.closed = group.running = True
        dirty, redo = self._ctx.dirty, self._ctx.redo
        wanted: Iterable[Inode] = dirty.setup
        if not group.everything:
            seeds = group.inodes | dirty.moved
            wanted = closure(seeds if redo is None else seeds | redo.holders)
            wanted = {*wanted, *touched_directories(wanted)}
        chosen = [inode for inode in list(wanted) if dirty.take(inode)]
        for inode in chosen:
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

    def _settle(self, group: FlushGroup, inode: Inode, work: InodeSync) -> None:
        """Put an inode back where it belongs after its flush; what was left of it goes into a group of its own."""
        group.refs -= 1
        self.statistics_records += work.records
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

    def finish(self, seq: int) -> None:
        """A sequence number is done; it is durable if its cycle is closed."""
        self.done = seq
        if not self.cycle.undo_dirty:
            self.durable = seq

    def settle_now(self) -> bool:
        """Write what the back end has changed and close the cycle, here and now; False while a group runs."""
        self.raise_failure()
        if self._running is not None:
            return False
        try:
            if self.cycle.has_dirty():
                self._drive_at_once(self.cycle.finalize(final=True))
            self._drive_at_once(self.cycle.close())
        except BaseException as error:
            self.give_up(error)
            raise
        return True

    # --- in one go ------------------------------------------------------------------------------
    def flush_now(self) -> None:
        """Flush everything durably without an event loop: for offline work, and for tests."""
        self.raise_failure()
        try:
            while self._ctx.dirty.setup or self.groups or self.cycle.has_dirty():
                self._flush_at_once(self.queue(None))
            self._drive_at_once(self.cycle.close())
            self.durable = self.done
        except BaseException as error:
            self.critical_error(error)
            raise

    def _is_little_dirty(self) -> bool:
        """Whether all that is dirty, captured in one group, would neither take long nor need several cycles."""
        ctx = self._ctx
        space, setup = ctx.space, ctx.dirty.setup
        pending_bytes = space.dirty_bytes + ctx.blocks.queued_bytes + self.cycle.dirty_meta()
        return (
            len(setup) + space.records <= LITTLE_RECORDS
            and not ctx.blocks.handed_over
            and self.barriers.is_short(pending_bytes)
            and not any(map(removes_much, setup))
        )

    def _flush_at_once(self, group: FlushGroup) -> None:
        """One group in one go, its cycle left to be closed."""
        if self.cycle.must_close_first():
            self._drive_at_once(self.cycle.close())
        self.start_group(group)
        self.sync_group(group)
        self._drive_at_once(self.cycle.finalize(final=True))
        self.end_group(group)
        self.done = group.seq

    def _drive_at_once(self, steps: Iterator[Step]) -> None:
        for step in steps:
            if step is Step.DATA:
                self._ctx.blocks.flush()
            elif step is Step.BARRIER:
                self.barriers.run_now()

    def sync_group(self, group: FlushGroup) -> None:
        """What the slaves do, in one go."""
        while group.work:
            inode = group.work.pop()
            work = InodeSync(self._ctx, group.tid, inode, self.cycle.should_cut_short)
            for _ in work.run():
                pass
            self._settle(group, inode, work)

    def finish_recovery(self) -> None:
        """Flush what REDO did, and close the FIFO's range even if that was nothing."""
        self.cycle.undo_dirty = self.cycle.keeps_range = True
        self.flush_now()
        self.cycle.keeps_range = False

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
            self._ctx.blocks.stop()
            log.error(
                "the file system is read-only from now on, nothing more is written: %s",
                self.failure,
                exc_info=None if expected else error,
            )

    def give_up(self, error: BaseException) -> None:
        """A cycle ended in the middle; whoever cancelled it, too, must not go on from there."""
        self.critical_error(error)
        if not isinstance(error, Exception):
            raise error

    def raise_failure(self) -> None:
        """Raise what turned the mount read-only, for those who wait for durability."""
        if self.failure is not None:
            raise FlushFailedError(self.failure)
