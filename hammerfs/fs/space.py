"""What was promised and is not on disk yet, and whether there is room to promise more.

Every accepted write and every accepted name must be flushable (INV-7).  So the front end refuses with ENOSPC while the
free big-blocks still cover the worst case of all pending changes: each record may split a B-tree node, each zone may
need a fresh big-block, and each dirty block needs its data space.  Source: `hammer_blockmap.c: _hammer_checkspace`.

The reserve is given out in steps, since with history even a chmod takes space for good: new data and new names stop
first, then changes of what exists, then removals that leave something behind.  The plain removal of a file or
directory is never refused, as it writes nothing that was not there: a full file system can always be emptied.
"""

from __future__ import annotations

from hammerfs.errors import NoSpaceError
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, NODE_SIZE, RECORD_ZONES
from hammerfs.ondisk.fifo import REDO_OVERHEAD
from hammerfs.store.blockmap import Blockmap
from hammerfs.store.rootvolume import RootVolume

_UNDO_PER_RECORD = NODE_SIZE + 10 * 40 + REDO_OVERHEAD
"""FIFO bytes of a record that dirties a node of its own: the node, in records of one sector each, and a TERM."""
_RECORDS_MAX = 4096
"""Bound of one flush group: what is captured at one go must not hold up the event loop."""
_RECORDS_MIN = 128
_RESERVE_MIN = 4 * BIGBLOCK_SIZE
"""A truncation can make both data zones, the B-tree and meta-data take a fresh big-block in one cycle."""


def record_limit(undo_capacity: int) -> int:
    """Pending records that fit one cycle's share of the UNDO FIFO even if each dirties a node of its own."""
    return max(_RECORDS_MIN, min(_RECORDS_MAX, undo_capacity * 3 // 16 // _UNDO_PER_RECORD))


class Space:
    """Promises of one mount.

    records -- pending records: entries, data, attributes; inodes are counted by those that are dirty
    dirty_bytes -- data space that blocks in memory will need
    limit -- pending records at which a flush is due; twice that many make the front end wait
    replaying -- what is asked for was promised before a crash, and is not refused now
    """

    def __init__(self, blockmap: Blockmap, root: RootVolume, undo_capacity: int) -> None:
        self._blockmap = blockmap
        self._root = root
        self.limit = record_limit(undo_capacity)
        self.records = 0
        self.dirty_bytes = 0
        self.replaying = False
        self._meta_reserve = 0
        self.adapt()

    def adapt(self) -> None:
        """Keep as much in reserve as the size of the file system asks for."""
        worst = -(-2 * self.limit * NODE_SIZE // BIGBLOCK_SIZE)
        small = self._root.total_bigblocks * BIGBLOCK_SIZE // 8
        self._meta_reserve = max(min((worst + len(RECORD_ZONES)) * BIGBLOCK_SIZE, small), _RESERVE_MIN)

    @property
    def available(self) -> int:
        """Bytes that new file data may still take."""
        return max(0, self._unpromised - self._meta_reserve)

    @property
    def _unpromised(self) -> int:
        return self._blockmap.allocatable_bigblocks * BIGBLOCK_SIZE - self.dirty_bytes

    def check_write(self, size: int) -> None:
        """Room for `size` more bytes of data and what describes them; raises NoSpaceError."""
        self._demand(size, self._meta_reserve, "no space left for data")

    def check_change(self, size: int = 0) -> None:
        """Room for a changed inode and `size` bytes of what it keeps; raises NoSpaceError."""
        self._demand(size, self._meta_reserve * 3 // 4, "no space left for a change")

    def check_remove(self) -> None:
        """Room for what a removal leaves: the inode of a file with more names; raises NoSpaceError."""
        self._demand(0, self._meta_reserve // 2, "no space left even for a removal")

    def can_move(self, emergency: bool, *, pending: bool) -> bool:
        """Whether maintenance may take space to move something to, which will free more than it takes.

        What is pending was promised its worst case, down to what is left when removals are refused.  When nothing is,
        an emergency may use everything.
        """
        if pending or self.records or self.dirty_bytes:
            return self._unpromised >= self._meta_reserve // 2
        return self._unpromised >= (BIGBLOCK_SIZE if emergency else min(self._meta_reserve // 4, 2 * BIGBLOCK_SIZE))

    def _demand(self, size: int, reserve: int, refusal: str) -> None:
        if self._unpromised - size < reserve and not self.replaying:
            raise NoSpaceError(refusal)
