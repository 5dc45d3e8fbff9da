"""The receiving end of mirroring: a slave PFS brought to where its source was.

The records of a batch come in key order.  What the slave has between two of them, and no skipped range covers, is gone
at the source; the slave marks it deleted at the end of the batch.  Records that the slave lacks are inserted with the
TIDs that they have at the source, those that it has can only get their deletion.  So a batch may be cut off anywhere
and come again from its beginning: what was applied is found applied.

Readers see a slave as of its sync TID.  A batch only adds what is younger, so they notice nothing until the PFS record
names the new TID, and that comes last.  Source: `hammer_mirror.c: hammer_ioc_mirror_write`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hammerfs.btree.node import Key
from hammerfs.errors import StreamError
from hammerfs.fs.rootrecords import pfs_record, save_pfs
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Localization, Offset, Tid, pfs_localization
from hammerfs.ondisk.constants import (
    LOCALIZE_INODE,
    LOCALIZE_MASK,
    LOCALIZE_MISC,
    RECTYPE_CONFIG,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
    VERSION_CRC32C,
    ZONE_META,
)
from hammerfs.ondisk.direntry import pack_entry, unpack_entry
from hammerfs.ondisk.element import (
    BASE_KEY_SIZE,
    LeafElement,
    element_key,
    first_key,
    last_key,
    unpack_leaf,
    with_delete,
)
from hammerfs.ondisk.mirror import Pass, Record, Skip
from hammerfs.ondisk.pfs import PfsData
from hammerfs.ondisk.recordsizes import DATA_TYPES, RECORD_SIZES
from hammerfs.store.blockmap import data_zone
from hammerfs.store.rootvolume import NEXT_TID_MAX

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

_PAUSE_EVERY = 64
"""Changes between two pauses."""


def slave_record(ctx: Context, pfs: int) -> PfsData:
    """A slave's record, for changing; StreamError for what is no slave (any more)."""
    data = pfs_record(ctx, pfs)
    if data is None or data.is_deleted:
        raise StreamError(f"there is no PFS {pfs} in this file system")
    if not data.is_slave:
        raise StreamError(f"PFS {pfs} is no slave; only a slave can be mirrored to")
    return data


def set_sync_tid(ctx: Context, pfs: int, tid: Tid) -> None:
    """Let readers of a slave see it as of `tid`; nothing when they do."""
    data = slave_record(ctx, pfs)
    if data.sync_end_tid != tid:
        data.sync_end_tid = tid
        save_pfs(ctx, pfs, data)


class BatchWriter:
    """Applies one batch to a PFS, record by record.

    end -- the TID that the slave is in sync with afterwards; begin -- nothing older can be inserted
    damaged -- records that came without usable data, and are missing therefore
    """

    def __init__(self, ctx: Context, pfs: int, begin: Tid, end: Tid) -> None:
        if end > NEXT_TID_MAX:
            raise StreamError(f"the mirroring stream ends at the impossible TID {end:016x}")
        self._ctx = ctx
        self._localization: Localization = pfs_localization(pfs)
        self._begin = begin
        self.end = end
        self._at: Key = element_key(first_key(self._localization))
        self._changes = 0
        self.damaged = 0

    def apply(self, record: Record | Pass | Skip) -> Iterator[None]:
        """Apply one record; pauses where others may run, with everything whole.

        StreamError when the record cannot belong here.  NoSpaceError leaves what was applied: the same record may be
        applied again when there is space.
        """
        if isinstance(record, Skip):
            low, high = self._local_key(record.low), self._local_key(record.high)
            self._demand_order(low + b"\0" >= self._at and high >= self._at and low <= high)
            yield from self._end_until(low)
            self._at = high
            return
        leaf = self._local(record)
        key = leaf.packed_key()
        self._demand_order(key >= self._at)
        yield from self._end_until(key)
        if leaf.rec_type != RECTYPE_CONFIG:
            raw = self._ctx.tree.lookup(key)
            if raw is not None:
                self._update(key, raw, leaf)
            elif isinstance(record, Record):
                self._insert(key, leaf, record)
        self._at = key + b"\0"
        if self._changes >= _PAUSE_EVERY:
            self._changes = 0
            yield

    def finish(self) -> Iterator[None]:
        """The batch has been told to be complete: behind its last record there is nothing.

        The original forgets what the source has lost there without history.
        """
        last = element_key(last_key(self._localization))
        yield from self._end_until(last)
        self._at = last

    # --- what arrives ---------------------------------------------------------------------------
    def _demand_order(self, sound: bool) -> None:
        if not sound:
            raise StreamError("the mirroring stream is out of order")

    def _local_key(self, base: bytes) -> Key:
        """The key of a boundary, in this PFS."""
        return element_key(base[:-4] + self._moved(int.from_bytes(base[-4:], "little")).to_bytes(4, "little"))

    def _moved(self, localization: Localization) -> Localization:
        return (localization & LOCALIZE_MASK) | self._localization

    def _local(self, record: Record | Pass) -> LeafElement:
        """The element as it is in this PFS.  A deletion beyond the batch is not yet one."""
        leaf = record.leaf
        if leaf.create_tid > self.end:
            raise StreamError(
                f"the mirroring stream up to TID {self.end:016x} holds a record of TID {leaf.create_tid:016x}"
            )
        leaf = leaf._replace(localization=self._moved(leaf.localization))
        return leaf._replace(delete_tid=0, delete_ts=0) if leaf.delete_tid > self.end or not leaf.delete_tid else leaf

    # --- what is done ---------------------------------------------------------------------------
    def _end_until(self, limit: Key) -> Iterator[None]:
        """End what lives between the present place and `limit`, and is not the slave's own or too young.

        The version before the one at `limit` ends where that begins, lest both be visible at a time.
        """
        tree = self._ctx.tree
        for raw in tree.scan(self._at, limit):
            key = element_key(raw)
            if key >= limit:
                break
            leaf = unpack_leaf(raw)
            if leaf.rec_type != RECTYPE_CONFIG and not leaf.delete_tid and leaf.create_tid < self.end:
                tid = self.end
                if key[:BASE_KEY_SIZE] == limit[:BASE_KEY_SIZE]:
                    tid = min(tid, int.from_bytes(limit[BASE_KEY_SIZE:], "big"))
                self._end_record(key, raw, tid, self._ctx.clock() // 1_000_000)
            self._changes += 1
            if self._changes >= _PAUSE_EVERY:
                self._changes = 0
                self._at = key + b"\0"
                yield

    def _end_record(self, key: Key, raw: bytes, tid: Tid, seconds: int) -> None:
        ctx = self._ctx
        leaf = unpack_leaf(raw)
        ctx.tree.replace(key, with_delete(raw, tid, seconds), tid)
        if leaf.rec_type == RECTYPE_INODE and not leaf.delete_tid:
            ctx.root.inode_count -= 1
        self._remember(tid)

    def _update(self, key: Key, raw: bytes, leaf: LeafElement) -> None:
        """Nothing of a record changes but that it is deleted."""
        if leaf.delete_tid and unpack_leaf(raw).delete_tid != leaf.delete_tid:
            self._end_record(key, raw, leaf.delete_tid, leaf.delete_ts)
            self._changes += 1

    def _insert(self, key: Key, leaf: LeafElement, record: Record) -> None:
        if record.damaged:
            self.damaged += 1
            return
        if leaf.create_tid < self._begin:
            return
        ctx = self._ctx
        zone = self._zone(leaf)
        data, checksum = self._localized(leaf, record.data)
        ctx.space.check_write(len(data))
        offset = self._place(zone, data)
        leaf = leaf._replace(data_offset=offset, data_crc=checksum)
        tid = max(leaf.create_tid, leaf.delete_tid)
        try:
            ctx.tree.insert(key, leaf.pack(), tid)
        except BaseException:
            if data:
                ctx.blocks.forget(offset)
                ctx.blockmap.free(offset, len(data))
            raise
        if leaf.rec_type == RECTYPE_INODE and not leaf.delete_tid:
            ctx.root.inode_count += 1
        self._remember(tid)
        self._changes += 1

    def _remember(self, tid: Tid) -> None:
        """No TID of this file system may be given out again."""
        root = self._ctx.root
        root.next_tid = max(root.next_tid, tid)

    @staticmethod
    def _zone(leaf: LeafElement) -> int:
        """Where the data goes; StreamError for what no file system holds."""
        size = leaf.data_len
        least, most = RECORD_SIZES.get(leaf.rec_type, (1, 0))
        local = leaf.localization & LOCALIZE_MASK
        sound = least <= size <= most and (
            local == LOCALIZE_INODE or (local == LOCALIZE_MISC and leaf.rec_type != RECTYPE_INODE)
        )
        if not sound:
            raise StreamError(
                f"the mirroring stream holds a record of object {leaf.obj_id:#x} of type {leaf.rec_type:#x} "
                f"and localization {leaf.localization:#x} with {size} bytes"
            )
        return data_zone(size) if leaf.rec_type in DATA_TYPES else ZONE_META

    def _localized(self, leaf: LeafElement, data: bytes) -> tuple[bytes, int]:
        """The data as it is in this PFS, and its checksum; one that this volume's version does not know is renewed."""
        ctx = self._ctx
        checksum = leaf.data_crc
        if not crc.record_matches(VERSION_CRC32C, checksum, leaf.rec_type, data):
            raise StreamError(f"the mirroring stream holds a record of object {leaf.obj_id:#x} with damaged data")
        renew = not crc.record_matches(ctx.version, checksum, leaf.rec_type, data)
        if leaf.rec_type == RECTYPE_DIRENTRY:
            entry = unpack_entry(data)
            if entry.localization != self._localization:
                data = pack_entry(entry.obj_id, self._localization, entry.name)
                renew = True
        return data, crc.record_crc(ctx.checksum, leaf.rec_type, data) if renew else checksum

    def _place(self, zone: int, data: bytes) -> Offset:
        """Space for the data, and the data in it."""
        ctx = self._ctx
        if not data:
            return 0
        offset = ctx.blockmap.alloc(zone, len(data))
        if zone == ZONE_META:
            ctx.buffers.modify_noundo(offset, data)
        else:
            ctx.blocks.put(offset, data)
            ctx.blocks.spill()
        return offset
