"""Records in zone 9 and their elements: reading one verified, leaving one to the flusher, inserting one, ending one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError
from hammerfs.fs.recorddata import verify_owner
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Localization, ObjId, Tid, zone_of
from hammerfs.ondisk.constants import BUFMASK, BUFSIZE, INODE_CRC_SIZE, RECTYPE_INODE, ZONE_META
from hammerfs.ondisk.element import LeafElement, element_key, pack_key, record_element, unpack_leaf, with_delete

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.fs.inode import Inode


def read_record(ctx: Context, element: LeafElement) -> bytes:
    """The verified data of a meta-data record; b"" when it has none."""
    size = element.data_len
    if not size:
        return b""
    offset = element.data_offset
    if not 0 < size <= BUFSIZE - (offset & BUFMASK) or zone_of(offset) != ZONE_META:
        raise CorruptionError(f"record with impossible data of {size} bytes", offset=offset)
    data = ctx.buffers.read(offset, size)
    covered = memoryview(data)[:INODE_CRC_SIZE] if element.rec_type == RECTYPE_INODE else data
    if ctx.checksum(covered) != element.data_crc and not crc.matches(ctx.version, element.data_crc, covered):
        raise CorruptionError(f"data of record type {element.rec_type:#x} with a bad CRC", offset=offset)
    return data


def pend_record(ctx: Context, inode: Inode, rec_type: int, key: int, data: bytes | None) -> None:
    """Leave a record to the next flush of its inode; `data` of None deletes it."""
    if (rec_type, key) not in inode.general:
        ctx.space.records += 1
    inode.general[rec_type, key] = data


def drop_pending(ctx: Context, general: dict[tuple[int, int], bytes | None]) -> None:
    """Forget records that no flush needs any more."""
    ctx.space.records -= len(general)
    general.clear()


def insert_record(
    ctx: Context,
    tid: Tid,
    localization: Localization,
    obj_id: ObjId,
    rec_type: int,
    key: int,
    obj_type: int,
    data: bytes,
) -> None:
    """Put a record with its data into zone 9 and its element into the B-tree (back end only)."""
    offset = checksum = 0
    if data:
        offset = ctx.blockmap.alloc(ZONE_META, len(data))
        ctx.buffers.modify_noundo(offset, data)
        checksum = crc.record_crc(ctx.checksum, rec_type, data)
    element = record_element(
        localization, obj_id, rec_type, key, tid, ctx.clock() // 1_000_000, obj_type, offset, len(data), checksum
    )
    ctx.tree.insert(pack_key(localization, obj_id, rec_type, key, tid), element, tid)


def end_record(ctx: Context, tid: Tid, raw: bytes, *, nohistory: bool) -> None:
    """End a live record's life at `tid`: mark it deleted, or remove it with its data when no history is kept.

    A record that was created in the same cycle was never visible to anyone; it leaves no trace either
    (`hammer_delete_at_cursor`, which may not leave create_tid equal to delete_tid).
    """
    element = unpack_leaf(raw)
    key = element_key(raw)
    if nohistory or element.create_tid == tid:
        if element.data_offset:
            # Before anything changes: what is found wrong afterwards would leave half of it done.
            verify_owner(ctx, element)
        ctx.tree.remove(key, tid)
        ctx.inodes.record_vanished(element)
        if element.data_offset:
            ctx.blockmap.free(element.data_offset, element.data_len)
    else:
        ctx.tree.replace(key, with_delete(raw, tid, ctx.clock() // 1_000_000), tid)
    if element.rec_type == RECTYPE_INODE and not element.delete_tid:
        ctx.root.inode_count -= 1
