"""Raising the format version of a file system in place (`hammer_ioctl.c: hammer_ioc_set_version`).

Later versions read everything that earlier ones wrote, so nothing is converted, with one exception: from version 4 on
the UNDO FIFO is a ring of numbered records.  The new version has to be durable before anything is written that only it
can read.  It stands in the header beside what UNDO covers, so no recovery takes it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hammerfs.errors import UsageError
from hammerfs.fs.redolog import RedoJournal
from hammerfs.ondisk import crc
from hammerfs.ondisk.constants import VERSION_UNDO_SEQUENCED, VOLUME_VERSION_MAX, VOLUME_VERSION_MIN

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.store.undo import UndoFifo


def needs_new_fifo(ctx: Context, version: int) -> bool:
    """Whether the UNDO FIFO has to be laid out anew for the step to `version`."""
    return ctx.version < VERSION_UNDO_SEQUENCED <= version


class FifoLayout:
    """Lays the ring out for a later version while an earlier one still uses it.

    Before version 4 only the header says what counts in the ring, so the rest of it may hold anything.  What is used
    meanwhile has to be laid out once more.

    pending -- buffers that are not laid out
    """

    def __init__(self, undo: UndoFifo, version: int) -> None:
        self._undo = undo
        self._version = version
        self._seen = undo.next_offset
        self.pending = set(undo.places())

    def lay_out(self, count: int) -> int:
        """Lay out up to `count` buffers that nobody uses; how many that were."""
        undo = self._undo
        self.notice_use()
        used = set(undo.places_between(undo.first_in_use, undo.next_offset))
        chosen = sorted(self.pending - used)[:count]
        for place in chosen:
            undo.lay_out(self._version, place)
        self.pending.difference_update(chosen)
        return len(chosen)

    def notice_use(self) -> None:
        """What was written since the last look is not laid out any more."""
        self.pending.update(self._undo.places_between(self._seen, self._undo.next_offset))
        self._seen = self._undo.next_offset


def check_version(ctx: Context, version: int) -> None:
    """UsageError when the file system cannot have that version: there is no way back."""
    if not VOLUME_VERSION_MIN <= version <= VOLUME_VERSION_MAX:
        raise UsageError(f"there is no version {version}; {VOLUME_VERSION_MAX} is the latest")
    if version < ctx.version:
        raise UsageError(f"the file system has version {ctx.version}, and there is no way back to {version}")


def raise_version(ctx: Context, version: int, layout: FifoLayout | None = None) -> None:
    """Have that version from now on.  Back-end code; with a new FIFO, whose `layout` has begun, no cycle may be open.

    What `layout` has not laid out yet is laid out here, at one go.
    """
    check_version(ctx, version)
    undo, header = ctx.undo, ctx.root.header
    assert undo is not None, "a read-only mount keeps its version"
    before = header.copy()
    header.vol_version = version
    if layout is not None:
        layout.notice_use()
        undo.begin_anew(sorted(layout.pending))
        # The old header says that nothing has to be undone, so what stands in the ring does not matter to it.
        ctx.volumes.barrier()
        ctx.root.point_fifo(undo.first_offset, undo.next_offset)
    assert header.copy() != before
    ctx.volumes.write_header()
    ctx.volumes.barrier()
    ctx.volumes.version = ctx.version = version
    ctx.checksum = crc.function_for(version)
    undo.adopt_version()
    if layout is not None:
        ctx.redo = RedoJournal(undo)
