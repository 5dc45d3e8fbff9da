"""An fsync that is over before anyone else would have had a turn.

An append or overwrite of a few blocks with fsync flushes one inode.  The way through master, slave and their events
costs as much CPU as the flush itself, so when nobody is there to share the group with, the same steps run here and
now: capture, B-tree, finalize, close, with the barriers inline.

When fsyncs of other files come one right behind the other, several clients are waiting: those had better share
groups, and for a while none of them takes this way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hammerfs.fs.barrier import BarrierRunner
from hammerfs.fs.cycle import Step
from hammerfs.fs.inode import Inode
from hammerfs.ondisk.constants import XBUFSIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hammerfs.fs.context import Context
    from hammerfs.fs.flusher import Flusher

BLOCKS_MAX = 2
"""Dirty blocks that a quick fsync may have to write."""
_RIGHT_BEHIND_SECONDS = 0.00015
"""An fsync of another file this soon after a quick one was waiting already."""
_CROWD_SECONDS = 0.05
"""How long fsyncs go through shared groups after such a sign of company."""


class QuickFsync:
    """Decides which fsyncs are quick, and does them.

    count -- quick fsyncs done
    """

    def __init__(self, ctx: Context, flusher: Flusher, barriers: BarrierRunner) -> None:
        self._ctx = ctx
        self._flusher = flusher
        self._barriers = barriers
        self._last: Inode | None = None
        self._last_end = 0.0
        self._crowded_until = 0.0
        self.count = 0

    def fits(self, inode: Inode, *, alone: bool) -> bool:
        """Whether a group of this inode alone is short work, and nobody could join it."""
        now = time.perf_counter()
        if inode is not self._last and now - self._last_end < _RIGHT_BEHIND_SECONDS:
            self._crowded_until = now + _CROWD_SECONDS
        if not alone or now < self._crowded_until or inode not in self._ctx.dirty.setup:
            return False
        if inode.links or inode.adds or inode.deletes or inode.general or not inode.data.nlinks:
            return False
        blocks = len(inode.blocks) + len(inode.records)
        if inode.trunc_off is not None or blocks > BLOCKS_MAX:
            return False
        pending = self._ctx.blocks.queued_bytes + blocks * XBUFSIZE
        return self._barriers.is_short(pending) and not self._flusher.cycle.undo_exhausted(3)

    def flush(self, inode: Inode) -> None:
        """Make one inode durable; raises what stopped the flusher."""
        flusher = self._flusher
        group = flusher.queue(inode)
        try:
            flusher.start_group(group)
            flusher.sync_group(group)
            self._run(flusher.cycle.finalize(final=True))
            flusher.end_group(group)
            flusher.finish(group.seq)
            self._run(flusher.cycle.close())
            flusher.finish(group.seq)
        except BaseException as error:
            flusher.give_up(error)
        flusher.raise_failure()
        self.count += 1
        self._last, self._last_end = inode, time.perf_counter()

    def _run(self, steps: Iterator[Step]) -> None:
        for step in steps:
            if step is Step.BARRIER:
                self._barriers.run_now()
