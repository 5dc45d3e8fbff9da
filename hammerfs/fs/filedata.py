"""File contents: dirty blocks in memory, blocks laid down, captures, and the B-tree, in that order of youth.

A block is 16 KiB below the 1 MiB mark of a file and 64 KiB beyond; what is in memory may be shorter, the rest of the
block is zeros.  Memory holds at most a bounded amount: then whole blocks are laid down in reserved space, which needs
no meta-data.  Bytes past the end of a file are zero wherever they are stored. Source: `hammer_vnops.c:
hammer_vop_write, hammer_vop_strategy_write`, `hammer_object.c: hammer_ip_add_bulk`.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from hammerfs.errors import CorruptionError, FileOperationError, PrunedError
from hammerfs.fs.inode import Dirty, Inode, block_ceiling, block_size, block_start
from hammerfs.fs.records import DataRecord
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Localization, Offset
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    HBUFSIZE,
    LOCALIZE_MISC,
    MAX_FILE_SIZE,
    MAX_KEY,
    MAX_TID,
    RECTYPE_DATA,
    REDO_TRUNC,
    XBUFSIZE,
)
from hammerfs.ondisk.element import LEAF, base_key, pack_key
from hammerfs.store.blockmap import aligned, data_zone

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

DATA_END_MAX = MAX_KEY & -XBUFSIZE
"""A data record's key is its block's end, so the block that would end at 2^63 can only be a hole."""
_LAY_DOWN_BLOCKS = 64
"""Dirty blocks of one file in memory before whole ones are laid down."""
_LAY_DOWN_BLOCKS_FSYNCED = 256
"""The same of a file that is fsynced by REDO, as a database: what it writes over and over is laid down once for many
fsyncs, each of which would wait for it.  Random overwrites with fsync within 4 MiB take 0.84 of the time, and of CPU.
"""
_READ_RUN = 1024 * 1024

_Extent: TypeAlias = tuple[int, int, Offset, int]
"""A data record: where it starts and ends in the file, where it lies on disk, its CRC."""


# --- reading ------------------------------------------------------------------------------------
def read(ctx: Context, inode: Inode, offset: int, size: int) -> bytes:
    """Up to `size` bytes from `offset`, fewer at the end of the file."""
    end = min(offset + size, inode.data.size)
    if offset >= end:
        return b""
    if not inode.blocks and not inode.records and inode.capture is None and inode.trunc_off is None:
        return _read_disk(ctx, inode, offset, end)
    return _read_merged(ctx, inode, offset, end)


def _read_merged(ctx: Context, inode: Inode, offset: int, end: int) -> bytes:
    pieces: list[bytes] = []
    disk_from = position = offset
    while position < end:
        start = block_start(position)
        stop = min(start + block_size(start), end)
        block = _pending_block(ctx, inode, start)
        if block is not None:
            if disk_from < position:
                pieces.append(_read_disk(ctx, inode, disk_from, position))
            piece = bytes(block[position - start : stop - start])
            pieces.append(piece.ljust(stop - position, b"\0"))
            disk_from = stop
        position = stop
    if disk_from < end:
        pieces.append(_read_disk(ctx, inode, disk_from, end))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _pending_block(ctx: Context, inode: Inode, start: int) -> bytes | bytearray | None:
    """A block as memory knows it, b"" when a truncation emptied it, None when only the disk knows."""
    block = inode.blocks.get(start)
    if block is not None:
        return block
    record = inode.records.get(start)
    if record is not None:
        return ctx.blocks.read(record.data_offset, record.end - record.start)
    if inode.trunc_off is not None and start >= inode.trunc_off:
        return b""
    capture = inode.capture
    if capture is None:
        return None
    block = capture.blocks.get(start)
    if block is not None:
        return block
    record = capture.records.get(start)
    if record is not None:
        return ctx.blocks.read(record.data_offset, record.end - record.start)
    if capture.truncate_at is not None and start >= capture.truncate_at:
        return b""
    return None


def _extents(ctx: Context, inode: Inode, offset: int, end: int) -> list[_Extent]:
    """Records that overlap a range, ascending."""
    if not inode.on_disk:
        return []
    localization = inode.localization | LOCALIZE_MISC
    only = _whole_block(ctx, inode, localization, offset, end)
    if only is not None:
        return [only]
    low = pack_key(localization, inode.obj_id, RECTYPE_DATA, offset + 1, 1)
    high = pack_key(localization, inode.obj_id, RECTYPE_DATA, min(end + XBUFSIZE, MAX_KEY), MAX_TID)
    found = []
    for raw in ctx.tree.list_as_of(low, high, inode.as_of):
        extent = _extent(raw)
        if extent[0] >= end:
            break
        found.append(extent)
    return found


def _extent(raw: bytes) -> _Extent:
    fields = LEAF.unpack(raw)
    key, data_offset, data_len, data_crc = fields[1], fields[10], fields[11], fields[12]
    if not 0 < data_len <= BIGBLOCK_SIZE or key < data_len:
        raise CorruptionError(f"data record of {data_len} bytes ending at {key}", offset=data_offset)
    return key - data_len, key, data_offset, data_crc


def _whole_block(ctx: Context, inode: Inode, localization: Localization, offset: int, end: int) -> _Extent | None:
    """The record that holds a range within one block, if it ends where that block's should.

    It is found by its key, so that of the leaves with a record's versions, a thousand where a file was written a
    thousand times, no other is read than the one with the version that is looked for.
    """
    start = block_start(offset)
    stop = start + stored_length(start, inode.data.size)
    if end > stop:
        return None
    raw = ctx.tree.find_as_of(base_key(localization, inode.obj_id, RECTYPE_DATA, stop), inode.as_of)
    extent = None if raw is None else _extent(raw)
    return extent if extent is not None and extent[0] <= offset else None


def _read_disk(ctx: Context, inode: Inode, offset: int, end: int) -> bytes:
    """A range as the B-tree has it in this inode's view; holes are zeros.  PrunedError when some were no holes."""
    if inode.pruned:
        raise PrunedError("what this file showed of the past was pruned")
    extents = _extents(ctx, inode, offset, end)
    pieces: list[bytes] = []
    position = offset
    index = 0
    while index < len(extents):
        run = _neighbours(extents, index)
        start = run[0][0]
        if start > position:
            pieces.append(bytes(start - position))
            position = start
        data = _read_run(ctx, inode, run)
        upto = min(start + len(data), end)
        if upto > position:
            # Not a copy when the run is just what was asked for, which is how files are read from start to end.
            pieces.append(data[position - start : upto - start])
            position = upto
        index += len(run)
    if position < end:
        pieces.append(bytes(end - position))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _neighbours(extents: list[_Extent], first: int) -> list[_Extent]:
    """The extents from `first` on that lie side by side in the file and on disk, up to 1 MiB."""
    start, end, place, _ = extents[first]
    distance = place - start
    index = first + 1
    while index < len(extents):
        next_start, next_end, next_place, _ = extents[index]
        if next_start != end or next_place - next_start != distance or next_end - start > _READ_RUN:
            break
        end = next_end
        index += 1
    return extents[first:index]


def _read_run(ctx: Context, inode: Inode, run: list[_Extent]) -> bytes:
    """The content of neighbours, verified."""
    begin, _, first, _ = run[0]
    total = run[-1][1] - begin
    blocks = ctx.blocks
    if len(run) == 1:
        data = blocks.read(first, total)
    elif blocks.pending and any(blocks.holds(extent[2]) for extent in run):
        data = b"".join([blocks.read(place, stop - start) for start, stop, place, _ in run])
    else:
        data = ctx.volumes.read(first, total)
    view = memoryview(data)
    for start, stop, data_offset, data_crc in run:
        piece = view[start - begin : stop - begin]
        if ctx.checksum(piece) != data_crc and not crc.matches(ctx.version, data_crc, piece):
            raise CorruptionError(
                f"data of object {inode.obj_id:#x} at file offset {start} has a bad CRC", offset=data_offset
            )
        if ctx.live_dedup is not None:
            ctx.live_dedup.remember(data_crc, stop - start, data_offset)
    return data


# --- writing ------------------------------------------------------------------------------------
def write(ctx: Context, inode: Inode, offset: int, data: bytes) -> int:
    """Write at `offset`; raises NoSpaceError before anything is changed.  Nothing written changes nothing."""
    size = len(data)
    if not size:
        return 0
    end = offset + size
    if end > DATA_END_MAX:
        raise FileOperationError(errno.EFBIG)
    ctx.space.check_write(size + XBUFSIZE)
    # Before anything changes: a block that cannot be read ends the loop with an error.
    ctx.dirty.mark(inode, Dirty.DATA | Dirty.WRITTEN)
    position = offset
    replaced: bytes | None = None
    while position < end:
        start = block_start(position)
        stop = start + block_size(start)
        upto = min(stop, end)
        chunk = data if upto - position == size else data[position - offset : upto - offset]
        if position == start and (upto == stop or upto >= inode.data.size):
            _put_block(ctx, inode, start, chunk)
        else:
            replaced = _patch_block(ctx, inode, start, position - start, chunk)
        position = upto
    now = ctx.clock()
    inode.data.mtime = inode.data.ctime = now
    if end > inode.data.size:
        inode.data.size = end
    if inode.redo is not None:
        inode.redo.note_write(offset, data, replaced)
    by_redo = inode.redo is not None and not inode.redo.overflowed
    if len(inode.blocks) > (_LAY_DOWN_BLOCKS_FSYNCED if by_redo else _LAY_DOWN_BLOCKS):
        lay_down_full(ctx, inode, filling=start if upto < stop else -1)
    return size


def _put_block(ctx: Context, inode: Inode, start: int, content: bytes | bytearray) -> None:
    """Make `content` a block's dirty content, whatever it was before."""
    if start not in inode.blocks:
        ctx.space.dirty_bytes += block_size(start)
        ctx.space.records += 1
        _drop_record(ctx, inode, start)
    inode.blocks[start] = content


def _patch_block(ctx: Context, inode: Inode, start: int, at: int, chunk: bytes) -> bytes:
    """Change part of a block; returns what stood there, which is shorter where nothing did."""
    block = inode.blocks.get(start)
    if not isinstance(block, bytearray):
        block = bytearray(_content(ctx, inode, start) if block is None else block)
        _put_block(ctx, inode, start, block)
    if len(block) < at:
        block.extend(bytes(at - len(block)))
    replaced = bytes(block[at : at + len(chunk)])
    block[at : at + len(chunk)] = chunk
    return replaced


def _content(ctx: Context, inode: Inode, start: int) -> bytes | bytearray:
    """A block's present content up to the end of the file."""
    end = min(start + block_size(start), inode.data.size)
    if end <= start:
        return b""
    block = _pending_block(ctx, inode, start)
    if block is None:
        return _read_disk(ctx, inode, start, end)
    return block[: end - start]


def _drop_record(ctx: Context, inode: Inode, start: int) -> None:
    record = inode.records.pop(start, None)
    if record is not None:
        give_up(ctx, record)


def give_up(ctx: Context, record: DataRecord) -> None:
    """Take back a block that was laid down and will never be referred to."""
    ctx.blocks.give_up(record.data_offset, partial(ctx.blockmap.release, record.data_offset, record.end - record.start))
    ctx.space.records -= 1


def lay_down_full(ctx: Context, inode: Inode, filling: int = -1) -> None:
    """Lay the file's whole blocks down.

    A block that a writer has not come to the end of stays in memory: one that is shorter, and the one at `filling`,
    whose rest is older.
    """
    for start in sorted(inode.blocks):
        if start == filling or len(inode.blocks[start]) < block_size(start):
            continue
        inode.records[start] = lay_down(ctx, start, inode.blocks[start], block_size(start))
        del inode.blocks[start]
        ctx.space.dirty_bytes -= block_size(start)
    ctx.blocks.spill()


def lay_down(ctx: Context, start: int, content: bytes | bytearray, length: int) -> DataRecord:
    """Reserve space for a block, queue it for writing and describe it; zero-padded to `length`."""
    data = bytes(content) if len(content) == length else bytes(content[:length]).ljust(length, b"\0")
    checksum = ctx.checksum(data)
    if ctx.live_dedup is not None:
        place = ctx.live_dedup.hold_equal(checksum, data)
        if place is not None:
            return DataRecord(start, start + length, place, checksum)
    data_offset = ctx.blockmap.reserve(data_zone(length), length)
    ctx.blocks.put(data_offset, data)
    return DataRecord(start, start + length, data_offset, checksum)


def stored_length(start: int, file_size: int) -> int:
    """Bytes of a block's record: a small file's only block is a fragment, all others are whole."""
    if start == 0 and file_size <= HBUFSIZE:
        return aligned(file_size)
    return block_size(start)


# --- truncating ---------------------------------------------------------------------------------
def truncate(ctx: Context, inode: Inode, size: int) -> None:
    """Set a file's size; data beyond it is gone, a new part is a hole."""
    if size > MAX_FILE_SIZE or size < 0:
        raise FileOperationError(errno.EFBIG if size > 0 else errno.EINVAL)
    old = inode.data.size
    if size < old:
        start = block_start(size)
        keep = size - start
        if keep:
            ctx.space.check_change(block_size(start))
        tail = b"" if not keep else bytes(_content(ctx, inode, start)[:keep])
        is_hole = not keep or (not tail.strip(b"\0") and not _is_stored(ctx, inode, start))
        # From here on nothing is read, so nothing can fail half way.
        discard_from(ctx, inode, block_ceiling(size) if keep else size)
        if not is_hole:
            _put_block(ctx, inode, start, tail)
    inode.data.size = size
    inode.data.mtime = inode.data.ctime = ctx.clock()
    ctx.dirty.mark(inode, Dirty.DATA | Dirty.WRITTEN)
    if inode.redo is not None:
        inode.redo.note(size, b"", REDO_TRUNC)


def _is_stored(ctx: Context, inode: Inode, start: int) -> bool:
    """Whether anything is kept for a block, if only zeros: then a block of zeros has to replace it."""
    return _pending_block(ctx, inode, start) is not None or bool(_extents(ctx, inode, start, start + block_size(start)))


def discard_from(ctx: Context, inode: Inode, offset: int) -> None:
    """Forget everything from a block-aligned offset on, in memory now and on disk with the next flush."""
    for start in [start for start in inode.blocks if start >= offset]:
        del inode.blocks[start]
        ctx.space.dirty_bytes -= block_size(start)
        ctx.space.records -= 1
    for start in [start for start in inode.records if start >= offset]:
        _drop_record(ctx, inode, start)
    if (inode.disk_end > offset or inode.capture is not None) and (inode.trunc_off is None or offset < inode.trunc_off):
        inode.trunc_off = offset
