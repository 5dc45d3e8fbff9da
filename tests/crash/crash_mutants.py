"""hammerfs with one protection less: what the exploration of crashes must be able to see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

import trio

from hammerfs.fs import births, directory
from hammerfs.fs.context import Context
from hammerfs.fs.cycle import Cycle, Step, UndoMode
from hammerfs.fs.directory import Entry
from hammerfs.fs.flushgroup import DirtyInodes
from hammerfs.fs.fsync import FastFsync
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.mirrorwrite import BatchWriter, set_sync_tid
from hammerfs.fs.records import EntryRecord
from hammerfs.fs.redolog import RedoJournal, RedoLog
from hammerfs.ondisk import fifo
from hammerfs.ondisk.constants import ROOT_VOLNO
from hammerfs.ondisk.crc import Buffer
from hammerfs.store import undo
from hammerfs.store.blockmap import DELAY_CYCLES, Blockmap
from hammerfs.store.buffers import MetaBuffers
from hammerfs.store.fiforeader import FifoReader, Place
from hammerfs.store.volumes import VolumeSet

_close = Cycle.close
_end_cycle = Blockmap.end_cycle
_finalize = Cycle.finalize
_flush_undos = Cycle.flush_undos
_capture = RedoJournal.capture
_remove = directory.remove
_write_header_start = VolumeSet.write_header_start
_barrier = VolumeSet.barrier
_begin_batch = BatchWriter.__init__


def without_its_barrier(cycle: Cycle, mode: UndoMode) -> Iterator[Step]:
    """UNDO goes out, but nothing sees to it that it is there before the meta-data is (INV-2)."""
    cycle._undo.flush()
    yield from ()


def behind_meta_data(cycle: Cycle, mode: UndoMode) -> Iterator[Step]:
    """Meta-data goes out first, the UNDO for it afterwards (INV-2)."""
    cycle._ctx.buffers.flush()
    yield from _flush_undos(cycle, mode)


def without_the_first_barrier(cycle: Cycle) -> Iterator[Step]:
    """The header gives the UNDO up before the meta-data is durable (INV-3)."""
    for number, step in enumerate(_close(cycle)):
        if number:
            yield step


def without_the_last_barrier(cycle: Cycle) -> Iterator[Step]:
    """fsync returns before the header that makes the cycle final is durable (INV-6)."""
    for number, step in enumerate(_close(cycle)):
        if not number:
            yield step


def marked_as_changed(dirty: DirtyInodes, inode: Inode) -> None:
    """A group for one fsync leaves behind what got another name before."""
    dirty.mark(inode, Dirty.INODE)


def giving_up_at_once(cycle: Cycle, *, final: bool) -> Iterator[Step]:
    """The header of a cycle gives up that very cycle's UNDO, in one go with the meta-data (INV-3)."""
    undo = cycle._undo
    for step in _finalize(cycle, final=final):
        yield step
        if step is Step.BARRIER and final:
            undo.first_offset = undo.next_offset


def without_undo(buffers: MetaBuffers, buffer: bytearray, base: int, low: int, high: int, new: Buffer) -> None:
    """Meta-data changes, and nothing tells what it was."""
    buffer[low:high] = new
    buffers._touch(base, low, high)


def reused_at_once(blockmap: Blockmap) -> None:
    """What was freed may be written again as soon as its cycle was written, though not closed (INV-1)."""
    for bigblock in blockmap._delayed:
        blockmap._delayed[bigblock] = 0
    _end_cycle(blockmap)


def released_with_what_is_freed_in_memory(blockmap: Blockmap) -> None:
    """A closed cycle lets go of what was freed after it, too, which no disk has heard of (INV-1)."""
    blockmap._release(blockmap.cycle + DELAY_CYCLES)


def of_any_name(record: EntryRecord) -> bool:
    """A new file is created anew under a name that recovery has to take from another file for it (INV-12)."""
    return True


def whatever_else_changed(directory: Inode) -> int | None:
    """An fsync of a directory has nothing to do if the FIFO knows of any file in it (INV-6)."""
    told = [record for record in directory.adds.values() if record.promised]
    return 0 if told else None


def removed_without_a_trace(ctx: Context, directory: Inode, entry: Entry, target: Inode) -> list[EntryRecord]:
    """A name that only the FIFO tells of is taken away as if nobody had promised it."""
    record = directory.adds.get(entry.name)
    if record is not None:
        record.promised = False
    return _remove(ctx, directory, entry, target)


@contextmanager
def no_checksum() -> Iterator[None]:
    """Records of the FIFO are believed without a look at their CRC."""
    scan = FifoReader.scan_extent

    def scan_extent(reader: FifoReader, offset: int, chunk: bytes, *, verify: bool = True) -> Iterator[Place]:
        return scan(reader, offset, chunk, verify=False)

    with (
        mock.patch.object(FifoReader, "scan_extent", scan_extent),
        mock.patch.object(fifo, "_fifo_crc_ok", return_value=True),
    ):
        yield


async def led_without_a_flush(fast: FastFsync) -> None:
    """A fast fsync that returns while its records are in memory."""
    await trio.lowlevel.checkpoint()
    fast._settled = max(fast._settled, fast._journal.serial)


async def led_without_a_barrier(fast: FastFsync) -> None:
    """A fast fsync that writes its records and does not wait for them."""
    fast._undo.flush()
    await trio.lowlevel.checkpoint()
    fast._settled = max(fast._settled, fast._journal.serial)


def nothing_carried_over(journal: RedoJournal) -> None:
    """A header moves past REDO that the state it leads to lacks."""
    journal.used = False
    journal._undo.first_offset = journal._undo.next_offset


def never_committed(log: RedoLog, seq: int, *, beyond_redo: bool) -> None:
    """What a group flushed stays noted, and is run once more over what came later: REDO that is never terminated."""


def header_and_rest_at_once(cycle: Cycle, *, final: bool) -> Iterator[Step]:
    """Before version 4: no barrier between the sector that tells of UNDO and what needs it."""
    starts = []
    with mock.patch.object(VolumeSet, "write_header_start", lambda volumes: starts.append(volumes)):
        for step in _finalize(cycle, final=final):
            if starts:
                starts.clear()
            else:
                yield step


def of_the_first_volume_only(volumes: VolumeSet) -> None:
    """A barrier that the other volumes are left out of: what they hold of UNDO's meta-data may come later (INV-3)."""
    volumes._unsettled &= {ROOT_VOLNO}
    _barrier(volumes)


def shown_too_early(writer: BatchWriter, ctx: Context, pfs: int, begin: int, end: int) -> None:
    """Readers of a slave see it as of the end of a batch that has yet to come."""
    _begin_batch(writer, ctx, pfs, begin, end)
    set_sync_tid(ctx, pfs, end)


MUTANTS: dict[str, tuple[str, AbstractContextManager[object]]] = {
    "UNDO without a barrier behind it": ("mixed", mock.patch.object(Cycle, "flush_undos", without_its_barrier)),
    "UNDO behind meta-data": ("mixed", mock.patch.object(Cycle, "flush_undos", behind_meta_data)),
    "no UNDO": ("mixed", mock.patch.object(MetaBuffers, "_replace_under_undo", without_undo)),
    "no barrier before the header that gives UNDO up": (
        "mixed",
        mock.patch.object(Cycle, "close", without_the_first_barrier),
    ),
    "no barrier behind that header": ("mixed", mock.patch.object(Cycle, "close", without_the_last_barrier)),
    "UNDO given up with the meta-data": ("early", mock.patch.object(Cycle, "finalize", giving_up_at_once)),
    "no barrier behind the FIFO's indices before version 4": (
        "old",
        mock.patch.object(Cycle, "finalize", header_and_rest_at_once),
    ),
    "freed big-blocks reused at once": ("reuse", mock.patch.object(Blockmap, "end_cycle", reused_at_once)),
    "no barrier on the second volume": ("volumes", mock.patch.object(VolumeSet, "barrier", of_the_first_volume_only)),
    "REDO without a flush": ("redo", mock.patch.object(FastFsync, "_lead", led_without_a_flush)),
    "REDO without a barrier": ("redo", mock.patch.object(FastFsync, "_lead", led_without_a_barrier)),
    "REDO not carried over": ("redo", mock.patch.object(RedoJournal, "carry_over", nothing_carried_over)),
    "REDO never terminated": ("redo", mock.patch.object(RedoLog, "capture", never_committed)),
    "a new file by the name that another has left": (
        "births",
        mock.patch.object(births, "_replaces_the_dead", of_any_name),
    ),
    "a directory's fsync that looks at one new file": (
        "births",
        mock.patch.object(births, "newest_laying", whatever_else_changed),
    ),
    "a new file that leaves no trace": ("births", mock.patch.object(directory, "remove", removed_without_a_trace)),
    "moves that overtake each other": ("moves", mock.patch.object(DirtyInodes, "mark_moved", marked_as_changed)),
    "what is freed in memory reused": (
        "recycle",
        mock.patch.object(Blockmap, "settle", released_with_what_is_freed_in_memory),
    ),
    "REDO of half an fsync": ("redo", mock.patch.object(undo, "MORE_FOLLOWS", 0)),
    "a slave shown before its batch": ("mirror", mock.patch.object(BatchWriter, "__init__", shown_too_early)),
}
"""Name to the kind of workload that shows it, and the patch."""
