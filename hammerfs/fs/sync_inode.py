"""One captured inode into the B-tree: truncation, data, entries, other records, the inode itself.

This is back-end code: it alone changes the B-tree.  It is a generator that yields where other tasks may run; between
two yields the tree and what memory lays over it agree.  Work too large for one cycle stops early, notes itself as
unfinished and is issued again to a later group (`hammer_inode.c: hammer_sync_inode`, EWOULDBLOCK).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError
from hammerfs.fs import unfinished
from hammerfs.fs.directory import entry_localization
from hammerfs.fs.filedata import give_up, lay_down, stored_length
from hammerfs.fs.inode import Inode, InodeCapture, block_size
from hammerfs.fs.metadata import drop_pending, end_record, insert_record
from hammerfs.fs.records import DataRecord, EntryKind, EntryRecord, RecordState
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import (
    INODE_MTIME_OFFSET,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_KEY,
    MAX_RECTYPE,
    MAX_TID,
    MIN_KEY,
    RECTYPE_CLEAN_START,
    RECTYPE_DATA,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
    XBUFSIZE,
)
from hammerfs.ondisk.direntry import pack_entry
from hammerfs.ondisk.element import base_key, element_key, pack_key, record_element, unpack_leaf
from hammerfs.ondisk.inode import InodeData

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

_RECORDS_PER_STRETCH = 32
"""Records handled between two yields: about 1 ms."""


class InodeSync:
    """The flush of one captured inode.

    exhausted -- asks whether the cycle has used up its share of UNDO space or dirty buffers
    records -- records in memory that it wrote or ended
    would_block -- set when work was left for a later group
    cut_short -- set when that includes content: on disk the file ends earlier than what was captured
    """

    def __init__(self, ctx: Context, tid: Tid, inode: Inode, exhausted: Callable[[], bool]) -> None:
        assert inode.capture is not None
        self._ctx = ctx
        self._tid = tid
        self._inode = inode
        self._taken: InodeCapture = inode.capture
        self._exhausted = exhausted
        self._journal = ctx.redo if inode.capture.promised else None
        self._nohistory = ctx.options.nohistory or inode.nohistory
        self._time = ctx.clock() // 1_000_000
        self.records = 0
        self.would_block = False
        self.cut_short = False

    def run(self) -> Iterator[None]:
        """Do the work; afterwards the inode's capture is gone."""
        inode, taken = self._inode, self._taken
        cut = 0 if taken.delete else taken.truncate_at
        if cut is not None:
            yield from self._delete_from(cut)
            if self._journal is not None and not (taken.delete or self.would_block):
                self._journal.note_truncated(inode, cut)
        if not taken.delete:
            yield from self._sync_data()
            for (rec_type, key), data in taken.general.items():
                self._sync_general(rec_type, key, data)
            self.records += len(taken.general)
        drop_pending(self._ctx, taken.general)
        for record in taken.links:
            self._sync_entry(record)
        self.records += len(taken.links)
        self._sync_inode_record()
        inode.capture = None

    # --- data -----------------------------------------------------------------------------------
    def _delete_from(self, cut: int) -> Iterator[None]:
        """End all data records from `cut` on; leaves the rest to a later group when the cycle is exhausted."""
        inode = self._inode
        if not inode.on_disk or inode.disk_end <= cut:
            return
        for count, raw in enumerate(self._data_records(cut, MAX_KEY)):
            if count % _RECORDS_PER_STRETCH == 0:
                if count:
                    yield
                    # Maintenance may have moved its data meanwhile; the record itself lives.
                    current = self._ctx.tree.lookup(element_key(raw))
                    assert current is not None, "a live record vanished while its inode was flushed"
                    raw = current
                # What a fast fsync promised is short (`flushgroup.py: TRUNCATED_BYTES_MAX`).
                if (count or not self._taken.promised) and self._exhausted():
                    element = unpack_leaf(raw)
                    self._postpone(element.key - element.data_len)
                    return
            end_record(self._ctx, self._tid, raw, nohistory=self._nohistory)
        inode.disk_end = cut

    def _postpone(self, cut: int) -> None:
        """Leave the truncation from `cut` on to a later group; a crash in between finishes it at the next mount.

        What was captured from `cut` on goes back to the front end, unless that has replaced or truncated it since: the
        later truncation would take it away again.  Until then the file ends at `cut` on disk, so that no crash shows
        the old content behind it, nor zeros instead of the new (INV-6 is kept by waiting, see `Flusher.fsync`).
        """
        ctx, inode, taken = self._ctx, self._inode, self._taken
        self.would_block = True
        limit = inode.trunc_off
        for start in [start for start in taken.blocks if start >= cut]:
            block = taken.blocks.pop(start)
            if _is_outdated(inode, start, limit):
                ctx.space.dirty_bytes -= block_size(start)
                ctx.space.records -= 1
            else:
                inode.blocks[start] = block
        for start in [start for start in taken.records if start >= cut]:
            record = taken.records.pop(start)
            if _is_outdated(inode, start, limit):
                give_up(ctx, record)
            else:
                inode.records[start] = record
        inode.trunc_off = cut if limit is None else min(cut, limit)
        if not taken.delete and taken.size > cut:
            assert taken.data is not None, "a new size without a new inode record"
            shorter = InodeData.unpack(taken.data)
            shorter.size = cut
            taken.data = shorter.pack()
            self.cut_short = True
        unfinished.note(ctx, self._tid, inode)

    def _data_records(self, low: int, high: int) -> Iterator[bytes]:
        """Live data records that overlap [low, high)."""
        inode = self._inode
        localization = inode.localization | LOCALIZE_MISC
        first = pack_key(localization, inode.obj_id, RECTYPE_DATA, low + 1, 1)
        last = pack_key(localization, inode.obj_id, RECTYPE_DATA, min(high + XBUFSIZE, MAX_KEY), MAX_TID)
        for raw in self._ctx.tree.scan_as_of(first, last, MAX_TID):
            element = unpack_leaf(raw)
            start = element.key - element.data_len
            if start >= high:
                return
            if start < low:
                raise CorruptionError(f"data record of object {inode.obj_id:#x} straddles offset {low}")
            yield raw

    def _sync_data(self) -> Iterator[None]:
        ctx, inode, taken = self._ctx, self._inode, self._taken
        handled = 0
        for start in sorted(taken.blocks.keys() | taken.records.keys()):
            block = taken.blocks.get(start)
            if block is not None:
                record = lay_down(ctx, start, block, stored_length(start, taken.size))
                ctx.space.dirty_bytes -= block_size(start)
            else:
                record = taken.records[start]
            self._sync_data_record(record)
            ctx.space.records -= 1
            handled += 1
            if handled % _RECORDS_PER_STRETCH == 0:
                ctx.blocks.spill()
                yield
        self.records += handled
        if handled:
            last = max(start + block_size(start) for start in taken.blocks.keys() | taken.records.keys())
            inode.disk_end = max(inode.disk_end, last)

    def _sync_data_record(self, record: DataRecord) -> None:
        ctx, inode = self._ctx, self._inode
        if record.start < inode.disk_end and inode.on_disk:
            stop = record.start + block_size(record.start)
            for raw in list(self._data_records(record.start, stop)):
                end_record(ctx, self._tid, raw, nohistory=self._nohistory)
        length = record.end - record.start
        if self._journal is not None:
            self._journal.note_written(inode, record.start, length)
        ctx.blockmap.finalize(record.data_offset, length)
        localization = inode.localization | LOCALIZE_MISC
        element = record_element(
            localization,
            inode.obj_id,
            RECTYPE_DATA,
            record.end,
            self._tid,
            self._time,
            inode.data.obj_type,
            record.data_offset,
            length,
            record.data_crc,
        )
        ctx.tree.insert(pack_key(localization, inode.obj_id, RECTYPE_DATA, record.end, self._tid), element, self._tid)
        if ctx.live_dedup is not None:
            ctx.live_dedup.remember(record.data_crc, length, record.data_offset)

    # --- other records --------------------------------------------------------------------------
    def _sync_general(self, rec_type: int, key: int, data: bytes | None) -> None:
        ctx, inode = self._ctx, self._inode
        localization = inode.localization | LOCALIZE_MISC
        raw = ctx.tree.find_as_of(base_key(localization, inode.obj_id, rec_type, key), MAX_TID)
        if raw is not None:
            end_record(ctx, self._tid, raw, nohistory=self._nohistory)
        if data is not None:
            insert_record(ctx, self._tid, localization, inode.obj_id, rec_type, key, inode.data.obj_type, data)

    def _sync_entry(self, record: EntryRecord) -> None:
        ctx, directory, target = self._ctx, record.directory, record.target
        localization = entry_localization(directory)
        if record.kind is EntryKind.ADD:
            data = pack_entry(target.obj_id, target.localization, record.name)
            insert_record(
                ctx,
                self._tid,
                localization,
                directory.obj_id,
                RECTYPE_DIRENTRY,
                record.key,
                target.data.obj_type,
                data,
            )
            if directory.adds.get(record.name) is record:
                del directory.adds[record.name]
                directory.sorted_adds = None
            if directory.add_keys.get(record.key) is record:
                del directory.add_keys[record.key]
        else:
            if not record.never_on_disk:
                self._end_entry(record)
            if directory.deletes.get(record.key) is record:
                del directory.deletes[record.key]
        record.state = RecordState.DONE
        record.together = None
        ctx.space.records -= 1

    def _end_entry(self, record: EntryRecord) -> None:
        ctx, directory = self._ctx, record.directory
        base = base_key(entry_localization(directory), directory.obj_id, RECTYPE_DIRENTRY, record.key)
        raw = ctx.tree.find_as_of(base, MAX_TID)
        if raw is None:
            raise CorruptionError(f"entry {record.name!r} of directory {directory.obj_id:#x} vanished from the B-tree")
        end_record(ctx, self._tid, raw, nohistory=ctx.options.nohistory or directory.nohistory)

    # --- the inode ------------------------------------------------------------------------------
    def _sync_inode_record(self) -> None:
        ctx, inode, taken = self._ctx, self._inode, self._taken
        if taken.delete and not self.would_block:
            self._delete_inode()
            return
        if taken.open_orphan or taken.delete:
            unfinished.note(ctx, self._tid, inode)
        elif not self.would_block:
            unfinished.clear(ctx, self._tid, inode)
        if taken.data is None:
            return
        if taken.times_only:
            self._update_times(taken.data)
            return
        if inode.on_disk:
            self._end_inode_record()
        localization = inode.localization | LOCALIZE_INODE
        obj_type = inode.data.obj_type
        insert_record(ctx, self._tid, localization, inode.obj_id, RECTYPE_INODE, 0, obj_type, taken.data)
        ctx.root.inode_count += 1
        inode.on_disk = True

    def _find_inode_record(self) -> bytes:
        inode = self._inode
        base = base_key(inode.localization | LOCALIZE_INODE, inode.obj_id, RECTYPE_INODE, 0)
        raw = self._ctx.tree.find_as_of(base, MAX_TID)
        if raw is None:
            raise CorruptionError(f"inode {inode.obj_id:#x} vanished from the B-tree")
        return raw

    def _end_inode_record(self) -> None:
        end_record(self._ctx, self._tid, self._find_inode_record(), nohistory=self._nohistory)

    def _update_times(self, packed: bytes) -> None:
        """mtime and atime are outside the record's CRC and change in place (`hammer_update_itimes`)."""
        element = unpack_leaf(self._find_inode_record())
        self._ctx.buffers.modify(element.data_offset + INODE_MTIME_OFFSET, packed[INODE_MTIME_OFFSET:])

    def _delete_inode(self) -> None:
        """No name, no open handle, no data left: end the inode and what hangs on it (`hammer_ip_delete_clean`)."""
        ctx, inode = self._ctx, self._inode
        if inode.on_disk:
            localization = inode.localization | LOCALIZE_MISC
            first = pack_key(localization, inode.obj_id, RECTYPE_CLEAN_START, MIN_KEY, 1)
            last = pack_key(localization, inode.obj_id, MAX_RECTYPE, MAX_KEY, MAX_TID)
            for raw in list(ctx.tree.scan_as_of(first, last, MAX_TID)):
                end_record(ctx, self._tid, raw, nohistory=self._nohistory)
            self._end_inode_record()
            inode.on_disk = False
        self._discard_data()
        unfinished.clear(ctx, self._tid, inode)
        ctx.inodes.forget(inode)

    def _discard_data(self) -> None:
        """Give back what was promised for blocks that no longer matter."""
        ctx, taken = self._ctx, self._taken
        for start in taken.blocks:
            ctx.space.dirty_bytes -= block_size(start)
        for record in taken.records.values():
            give_up(ctx, record)
        ctx.space.records -= len(taken.blocks)


def _is_outdated(inode: Inode, start: int, limit: int | None) -> bool:
    """Whether the front end replaced a captured block, or truncated the file in front of it."""
    return start in inode.blocks or start in inode.records or (limit is not None and start >= limit)
