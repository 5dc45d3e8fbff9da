"""The ordered writes of a flush cycle (`hammer_flusher.c: hammer_flusher_finalize`), as steps.

    data blocks, UNDO records | BARRIER | volume header, meta-data | next cycle's first_offset

Meta-data is written only behind the barrier that makes its UNDO durable (INV-2).  The cycle can still be rolled back:
its UNDO counts until a header with a later first_offset is durable (INV-3).  `close` writes that header behind a
barrier of its own; only then is the cycle final.  The original leaves this to the next cycle that has work, which may
never come.

The steps are generators: PAUSE lets other tasks run, DATA asks the driver to write the data blocks that are queued by
then, BARRIER to make everything written so far durable, before it continues.  A test drives them in one call, the
flusher in a task with data and barrier in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from hammerfs.ondisk.constants import VERSION_UNDO_SEQUENCED

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.store.undo import UndoFifo

META_LIMIT_FLOOR = 4 * 1024 * 1024


class Step(Enum):
    """What a driver does between two pieces of a cycle."""

    PAUSE = "pause"
    DATA = "data"
    BARRIER = "barrier"


class UndoMode(Enum):
    """How far `flush_undos` goes (`HAMMER_FLUSH_UNDOS_*`)."""

    RELAXED = "relaxed"
    """Write the FIFO's buffers."""
    FORCED = "forced"
    """Write them and put a barrier behind them."""
    AUTO = "auto"
    """A barrier only if something was written."""


class Cycle:
    """The state that finalization carries from one cycle to the next.

    keeps_range -- the FIFO's range holds REDO whose result is in memory alone, and must not be given up before
    undo_dirty -- the last cycle can still be rolled back: a header with its end as first_offset is not durable
    flush_tid1 -- highest TID that no crash takes back; flush_tid2 -- highest TID written out
    """

    def __init__(self, ctx: Context) -> None:
        assert ctx.undo is not None, "a read-only mount has no cycles"
        self._ctx = ctx
        self._undo: UndoFifo = ctx.undo
        self.undo_dirty = self.keeps_range = False
        self.flush_tid1 = ctx.root.next_tid
        self.flush_tid2 = ctx.root.next_tid
        self._meta_limit = max(META_LIMIT_FLOOR, ctx.options.cache_bytes // 4)

    # --- limits ---------------------------------------------------------------------------------
    def undo_exhausted(self, quarter: int) -> bool:
        """Whether less than `quarter` quarters of the FIFO are left, counting what `finalize` will still log.

        1 is the emergency level, 2 stops background work, 3 makes a flush begin by closing the cycle before it.
        """
        return self._undo_left() < self._undo.capacity * quarter // 4

    def _undo_left(self) -> int:
        pending = self._ctx.tree.undo_estimate() + self._ctx.freemap.dirty_entries * 64
        return self._undo.space - pending

    def should_cut_short(self) -> bool:
        """Whether an inode with unbounded work should leave the rest to a later cycle.

        What recovery redid should land in one, unless that cannot be.
        """
        if self.keeps_range:
            return self._undo_left() < self._undo.capacity // 16
        return self.undo_exhausted(2)

    def must_close_first(self) -> bool:
        """Whether the last cycle has to be closed before another one begins: the FIFO gets short, or REDO in it belongs
        to states on both sides of the last cycle (`redolog.py`).

        Not while what recovery redid is in memory alone: a crash could not redo it again.
        """
        if self.keeps_range:
            return False
        used = self._ctx.redo is not None and self._ctx.redo.used
        return self.undo_dirty and (used or self.undo_exhausted(3))

    def meta_limit(self) -> bool:
        """Whether so much dirty meta-data has piled up that it should be written before the group is done."""
        return self.dirty_meta() > self._meta_limit

    def meta_halflimit(self) -> bool:
        """The same for background operations, which leave room for the foreground."""
        return self.dirty_meta() > self._meta_limit // 2

    def crowded(self, meta_bytes: int) -> bool:
        """Whether background work should have written what it changed before it goes on."""
        return self.dirty_meta() > meta_bytes or self.meta_halflimit() or self.undo_exhausted(2)

    def dirty_meta(self) -> int:
        """Bytes of meta-data that wait to be written, at most."""
        tree = self._ctx.tree
        return self._ctx.buffers.dirty_bytes + (tree.dirty_nodes + tree.fresh_nodes) * 4096

    def has_dirty(self) -> bool:
        """Whether buffers or blocks wait to be written."""
        ctx = self._ctx
        return bool(ctx.blocks.pending or self.dirty_meta() or self._undo.dirty_bytes or ctx.freemap.dirty_entries)

    # --- steps ----------------------------------------------------------------------------------
    def finalize(self, *, final: bool) -> Iterator[Step]:
        """Write what the back end changed.

        `final` ends the cycle: the UNDO laid down until now stops counting with the header after next.  Without it,
        only dirty buffers are relieved and the cycle goes on.
        """
        ctx, undo = self._ctx, self._undo
        yield Step.DATA
        for _ in ctx.tree.sync_in_steps():
            yield Step.PAUSE
        ctx.freemap.sync()
        if final:
            ctx.root.sync(undo)
        yield from self.flush_undos(UndoMode.FORCED)
        end = undo.next_offset
        if ctx.root.point_fifo(undo.first_offset, end):
            if ctx.version < VERSION_UNDO_SEQUENCED:
                # Before version 4 recovery knows the FIFO's end from the header alone: the sector that tells it has to
                # be durable before anything that would need undoing, the rest of the header included.
                ctx.volumes.write_header_start()
                yield Step.BARRIER
            ctx.volumes.write_header()
        ctx.buffers.flush()
        if final:
            self.undo_dirty = True
            self.keeps_range = False
            undo.first_offset = end
            undo.clear_history()
            ctx.blockmap.end_cycle()
            self.flush_tid1, self.flush_tid2 = self.flush_tid2, ctx.root.next_tid

    def close(self) -> Iterator[Step]:
        """Make the last cycle final: its meta-data durable, then a header that no longer leads to its UNDO, durable."""
        ctx, undo = self._ctx, self._undo
        if not self.undo_dirty:
            return
        if ctx.redo is not None:
            ctx.redo.carry_over()
            undo.flush()
        yield Step.BARRIER
        ctx.root.point_fifo(undo.first_offset, undo.next_offset)
        ctx.volumes.write_header()
        yield Step.BARRIER
        ctx.blockmap.settle()
        self.flush_tid1 = self.flush_tid2
        self.undo_dirty = False

    def flush_undos(self, mode: UndoMode) -> Iterator[Step]:
        """Write the FIFO's buffers, with a barrier as `mode` says."""
        written = self._undo.flush()
        if mode is UndoMode.FORCED or (mode is UndoMode.AUTO and written):
            yield Step.BARRIER


def run_steps(ctx: Context, steps: Iterator[Step]) -> None:
    """Drive a cycle to its end in one call, barriers inline."""
    for step in steps:
        if step is Step.DATA:
            ctx.blocks.flush()
        elif step is Step.BARRIER:
            ctx.volumes.barrier()
