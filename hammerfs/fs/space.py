"""What was promised and is not on disk yet, and whether there is room to promise more.

Every accepted write and every accepted name must be flushable (INV-7).  So the front end refuses with ENOSPC while the
free big-blocks still cover the worst case of all pending changes: each record may split a B-tree node, each zone may
need a fresh big-block, and each dirty block needs its data space.  Removing may go on below the point where writing
stops, so that a full file system can always be emptied.  Source: `hammer_blockmap.c: _hammer_checkspace`.
"""

from __future__ import annotations

from hammerfs.errors import NoSpaceError
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, NODE_SIZE, RECORD_ZONES
from hammerfs.store.blockmap import Blockmap
from hammerfs.store.rootvolume import RootVolume

_UNDO_PER_RECORD = NODE_SIZE + 10 * 40
"""UNDO bytes of a record that dirties a node of its own: the node, in records of one sector each."""
_RECORDS_MAX = 4096
"""Bound of one flush group: what is captured at one go must not hold up the event loop."""
_RECORDS_MIN = 128


def record_limit(undo_capacity: int) -> int:
    """Pending records that fit one cycle's share of the UNDO FIFO even if each dirties a node of its own."""
    return max(_RECORDS_MIN, min(_RECORDS_MAX, undo_capacity * 3 // 16 // _UNDO_PER_RECORD))


class Space:
    """Promises of one mount.

    records -- pending records: entries, data, attributes; inodes are counted by those that are dirty
    dirty_bytes -- data space that blocks in memory will need
    limit -- pending records at which a flush is due; twice that many make the front end wait
    """

    def __init__(self, blockmap: Blockmap, root: RootVolume, undo_capacity: int) -> None:
        self._blockmap = blockmap
        self._root = root
        self.limit = record_limit(undo_capacity)
        self.records = 0
        self.dirty_bytes = 0
        worst = -(-2 * self.limit * NODE_SIZE // BIGBLOCK_SIZE)
        self._meta_reserve = (worst + len(RECORD_ZONES)) * BIGBLOCK_SIZE
        small = root.total_bigblocks * BIGBLOCK_SIZE // 8
        self._meta_reserve = min(self._meta_reserve, small)
        self._remove_reserve = self._meta_reserve // 2

    @property
    def available(self) -> int:
        """Bytes that new file data may still take."""
        free = self._blockmap.allocatable_bigblocks * BIGBLOCK_SIZE
        return max(0, free - self.dirty_bytes - self._meta_reserve)

    def check_write(self, size: int) -> None:
        """Room for `size` more bytes of data and what describes them; raises NoSpaceError."""
        if self._blockmap.allocatable_bigblocks * BIGBLOCK_SIZE - self.dirty_bytes - size < self._meta_reserve:
            raise NoSpaceError("no space left for data")

    def check_remove(self) -> None:
        """Room to record a removal; raises NoSpaceError."""
        if self._blockmap.allocatable_bigblocks * BIGBLOCK_SIZE - self.dirty_bytes < self._remove_reserve:
            raise NoSpaceError("no space left even for a removal")
