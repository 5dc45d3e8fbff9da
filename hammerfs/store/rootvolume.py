"""The root volume's changing fields: counters, B-tree root, allocation points, UNDO FIFO indices, next TID.

The front end and the back end change the values here; `sync` writes them into the header under UNDO when a cycle is
finalized, `point_fifo` sets what needs no UNDO.  The FIFO indices and `vol0_next_tid` are never covered by UNDO
records: the first say how far to undo, the second keeps a TID that was rolled back from being used again (INV-8).
"""

from __future__ import annotations

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import LONG_MASK, Offset, Tid, encode
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    MAX_OBJID,
    MAX_ZONES,
    RECORD_ZONES,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.store.buffers import UndoLog
from hammerfs.store.volumes import VolumeSet

_COUNT_START, _COUNT_END = 148, 152
"""vol_count."""
_COUNTERS_START = 200
NEXT_TID_MAX = MAX_OBJID // 2
"""Object ids are TIDs with a sign; half of their range is more than anyone can use up."""
_COUNTERS_END = 248
"""vol0_stat_bigblocks up to and including vol0_btree_root; vol0_next_tid begins here."""


class RootVolume:
    """In-memory truth of volume 0's header.

    volume_count -- volumes that make up the file system
    free_bigblocks, total_bigblocks, inode_count -- vol0_stat_ counters
    btree_root -- zone-8 offset of the root node
    next_offset -- append point per zone
    next_tid -- highest TID given out
    """

    def __init__(self, volumes: VolumeSet) -> None:
        self._volumes = volumes
        header = volumes.root.header
        self.volume_count = header.vol_count
        self.free_bigblocks = header.vol0_stat_freebigblocks
        self.total_bigblocks = header.vol0_stat_bigblocks
        self.inode_count = header.vol0_stat_inodes
        self.btree_root: Offset = header.vol0_btree_root
        self.next_tid: Tid = header.vol0_next_tid
        self.next_offset = [header.blockmap(zone).next_offset for zone in range(MAX_ZONES)]

    def check(self) -> None:
        """Raise CorruptionError for values that nothing can be written with."""
        what = None
        if not 0 <= self.total_bigblocks <= LONG_MASK // BIGBLOCK_SIZE:
            what = f"a count of {self.total_bigblocks} big-blocks"
        elif not 0 <= self.inode_count <= MAX_OBJID // 2:
            what = f"a count of {self.inode_count} inodes"
        elif self.next_tid > NEXT_TID_MAX:
            what = f"a next TID of {self.next_tid:016x}"
        if what is not None:
            raise CorruptionError(
                f"{what} in the volume header of {self._volumes.root.device.name}, which is impossible"
            )

    @property
    def header(self) -> VolumeHeader:
        """The header as it will be written next."""
        return self._volumes.root.header

    def sync(self, undo: UndoLog) -> None:
        """Bring the header up to date; what changes is logged first."""
        header = self.header
        if header.vol_count != self.volume_count:
            undo.log(encode(ZONE_RAW_VOLUME, 0, _COUNT_START), header.part(_COUNT_START, _COUNT_END))
            header.vol_count = self.volume_count
        before = header.part(_COUNTERS_START, _COUNTERS_END)
        header.vol0_stat_freebigblocks = self.free_bigblocks
        header.vol0_stat_bigblocks = self.total_bigblocks
        header.vol0_stat_inodes = self.inode_count
        header.vol0_btree_root = self.btree_root
        if header.part(_COUNTERS_START, _COUNTERS_END) != before:
            undo.log(encode(ZONE_RAW_VOLUME, 0, _COUNTERS_START), before)
        for zone in RECORD_ZONES:
            entry = header.blockmap(zone)
            if entry.next_offset != self.next_offset[zone]:
                undo.log(encode(ZONE_RAW_VOLUME, 0, entry.base), entry.copy())
                entry.next_offset = self.next_offset[zone]
                entry.update_crc(header.vol_version)

    def point_fifo(self, first_offset: Offset, next_offset: Offset) -> bool:
        """Set the FIFO's indices and the next TID in the header; True when something changed."""
        header = self.header
        entry = header.blockmap(ZONE_UNDO)
        before = entry.copy(), header.vol0_next_tid
        entry.first_offset = first_offset
        entry.next_offset = next_offset
        entry.update_crc(header.vol_version)
        if header.vol0_next_tid < self.next_tid:
            header.vol0_next_tid = self.next_tid
        return before != (entry.copy(), header.vol0_next_tid)
