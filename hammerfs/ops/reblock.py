"""`reblock`: move what lies in sparsely filled big-blocks, so that those become free as a whole (`hammer_reblock.c`).

Space is handed out by appending, so what was freed inside of a big-block cannot be used before all of it is free.
What is moved is read and verified, appended elsewhere, and its record is pointed there in the same cycle.  A crash
finds either place and both whole: the old one is not written again before that cycle is final (INV-1).

Data that several records share is moved for each of them, as by the original; deduplication brings it together again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Flag
from itertools import islice

from hammerfs.errors import CorruptionError, NoSpaceError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.recorddata import verified_data, verify_owner
from hammerfs.fs.work import Done, Phase, Want, Work
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Offset, bigblock_of, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    LOCALIZE_INODE,
    LOCALIZE_MASK,
    LOCALIZE_MISC,
    MAX_OBJID,
    MIN_OBJID,
    NODE_SIZE,
    RECORD_ZONES,
    RECTYPE_CONFIG,
    RECTYPE_DATA,
    RECTYPE_DB,
    RECTYPE_DIRENTRY,
    RECTYPE_EXT,
    RECTYPE_FIX,
    RECTYPE_INODE,
    RECTYPE_PFS,
    RECTYPE_SNAPSHOT,
    ZONE_META,
)
from hammerfs.ondisk.element import LeafElement, element_key, unpack_leaf, with_data
from hammerfs.ops.record_range import FIRST, Position, RecordRange, key_after, position_of

_BATCH = 64
_STRETCH_BYTES = 512 * 1024
"""Bytes read and moved between two yields: some 3 ms."""
_SETTLE_TRIES = 10
"""Cycles to wait for space: what was freed can be used when the cycle is final."""
_EMERGENCY_LEVEL = BIGBLOCK_SIZE * 8 // 10
"""Moving no more than a fifth of a big-block frees it: worth space that is kept for other things otherwise."""


class Parts(Flag):
    """What is moved."""

    INODES = 1
    DIRS = 2
    DATA = 4
    BTREE = 8
    EVERYTHING = INODES | DIRS | DATA | BTREE


_PART_OF = {
    RECTYPE_INODE: Parts.INODES,
    RECTYPE_SNAPSHOT: Parts.INODES,
    RECTYPE_CONFIG: Parts.INODES,
    RECTYPE_EXT: Parts.DIRS,
    RECTYPE_FIX: Parts.DIRS,
    RECTYPE_PFS: Parts.DIRS,
    RECTYPE_DIRENTRY: Parts.DIRS,
    RECTYPE_DATA: Parts.DATA,
    RECTYPE_DB: Parts.DATA,
}


@dataclass
class ReblockOutcome:
    """What a run did.

    position -- where the next run goes on if this one was interrupted
    nodes, records, size -- B-tree nodes, records with data, and bytes of these that were looked at
    nodes_moved, records_moved, size_moved -- those that were moved
    damaged -- records that were left where they are, because they or their data are damaged
    """

    position: Position = FIRST
    interrupted: bool = False
    nodes: int = 0
    nodes_moved: int = 0
    records: int = 0
    records_moved: int = 0
    size: int = 0
    size_moved: int = 0
    damaged: int = 0


def free_level_of(fill_percentage: int) -> int:
    """Free bytes in a big-block from which on its contents are moved."""
    return BIGBLOCK_SIZE - fill_percentage * BIGBLOCK_SIZE // 100


def range_of(pfs: int, parts: Parts, begin: Position = FIRST, all_pfs: bool = False) -> RecordRange:
    """The records that hold such parts: inodes come first in a PFS, everything else behind them."""
    records = parts & ~Parts.BTREE
    lowest, highest = 0, LOCALIZE_MASK
    if records == Parts.INODES:
        lowest = highest = LOCALIZE_INODE
    elif records and not records & Parts.INODES:
        lowest = highest = LOCALIZE_MISC
    first = begin if begin != FIRST else Position(lowest, MIN_OBJID)
    return RecordRange(pfs, first, Position(highest, MAX_OBJID), all_pfs)


def reblock(
    fs: FileSystem,
    reach: RecordRange,
    parts: Parts,
    free_level: int,
    interrupted: Callable[[], bool],
    volume: int | None = None,
) -> Work[ReblockOutcome]:
    """Move `parts` of the records in `reach` out of big-blocks with `free_level` free bytes or more.

    With `volume`, out of those of that volume only.  NoSpaceError when there is no space to move anything to.
    """
    mover = _Mover(fs, parts, free_level, volume)
    outcome = mover.outcome
    outcome.position = reach.first
    key, high = reach.low, reach.high
    yield Phase("reblocking")
    while key <= high:
        yield from mover.room()
        batch = list(islice(fs.ctx.tree.scan(key, high), _BATCH))
        if parts & Parts.BTREE:
            mover.move_nodes(key, element_key(batch[-1]) if batch else high)
        if not batch:
            break
        done = mover.move_records(batch)
        last = element_key(batch[done - 1])
        outcome.position = position_of(last)
        yield Done(done)
        yield Want.PAUSE
        if interrupted():
            outcome.interrupted = True
            break
        key = key_after(last)
    return outcome


class _Mover:
    """Moves records and nodes of one run."""

    def __init__(self, fs: FileSystem, parts: Parts, free_level: int, volume: int | None) -> None:
        self._ctx = fs.ctx
        self._parts = parts
        self._free_level = free_level
        self._volume = volume
        self.outcome = ReblockOutcome()
        self._nodes_until = b""

    # --- space ----------------------------------------------------------------------------------
    def room(self) -> Iterator[Want]:
        """Return when there is space to move something to; NoSpaceError when there will be none."""
        space = self._ctx.space
        emergency = self._free_level >= _EMERGENCY_LEVEL
        for _ in range(_SETTLE_TRIES):
            if space.can_move(emergency, pending=bool(self._ctx.dirty.setup)):
                return
            yield Want.DURABLE
        raise NoSpaceError("no space left to move anything to; pruning gives some")

    def _is_sparse(self, offset: Offset) -> bool:
        """Whether what lies there is to be moved, and can be given back."""
        ctx = self._ctx
        if self._volume is not None and volume_of(offset) != self._volume:
            return False
        entry = ctx.freemap.layer2(bigblock_of(offset))
        # A volume is emptied of all; where data is shared, fewer bytes than none may be free.
        if self._volume is None and entry.bytes_free < self._free_level:
            return False
        return not self._free_level or not ctx.blockmap.is_append_point(offset)

    # --- nodes ----------------------------------------------------------------------------------
    def move_nodes(self, low: bytes, high: bytes) -> None:
        """Move nodes on the way to all leaves between two keys, each leaf once."""
        key: bytes | None = max(low, self._nodes_until)
        while key is not None and key <= high:
            moves = self._ctx.tree.move_nodes(key, self._wants_node)
            self.outcome.nodes += moves.examined
            self.outcome.nodes_moved += moves.moved
            self._nodes_until = moves.behind or b"\xff" * len(high)
            key = moves.behind

    def _wants_node(self, offset: Offset) -> bool:
        if not self._is_sparse(offset):
            return False
        self._ctx.blockmap.verify_allocated(offset, NODE_SIZE)
        return True

    # --- records --------------------------------------------------------------------------------
    def move_records(self, batch: list[bytes]) -> int:
        """Look at records in turn until it is enough for a stretch; how many that were."""
        outcome = self.outcome
        moved_before = outcome.size_moved
        for count, raw in enumerate(batch, 1):
            element = unpack_leaf(raw)
            part = _PART_OF.get(element.rec_type)
            if part is None or not part & self._parts or zone_of(element.data_offset) not in RECORD_ZONES:
                continue
            outcome.records += 1
            outcome.size += element.data_len
            if self._is_sparse(element.data_offset):
                self._move_data(raw, element)
            if outcome.size_moved - moved_before >= _STRETCH_BYTES:
                return count
        return len(batch)

    def _move_data(self, raw: bytes, element: LeafElement) -> None:
        ctx, outcome = self._ctx, self.outcome
        old, size, zone = element.data_offset, element.data_len, zone_of(element.data_offset)
        try:
            verify_owner(ctx, element)
            data = verified_data(self._ctx, element)
        except CorruptionError:
            outcome.damaged += 1
            return
        new = ctx.blockmap.alloc(zone, size)
        if zone == ZONE_META:
            ctx.buffers.modify_noundo(new, data)
        else:
            ctx.blocks.put(new, data)
            ctx.blocks.spill()
        checksum = crc.record_crc(ctx.checksum, element.rec_type, data)
        ctx.tree.replace(element_key(raw), with_data(raw, new, checksum), 0)
        ctx.blockmap.free(old, size)
        outcome.records_moved += 1
        outcome.size_moved += size
