"""Live deduplication: a block that is about to be laid down may lie on disk already (`hammer_dedup.c`).

A bounded table knows where blocks lie that were read or written of late, by checksum and size.  A checksum proves
nothing, so what is found is read and compared byte for byte.  An equal block is held where it is, as if its place had
been reserved: the blockmap keeps the big-block from being used again, and the flush accounts for one more record there.

A place in the table holds what it held as long as its big-block was not handed out anew; then all of it is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from hammerfs.errors import HammerError
from hammerfs.ondisk.address import Offset, bigblock_of
from hammerfs.ondisk.constants import BUFSIZE, ZONE_LARGE_DATA
from hammerfs.ondisk.recordplace import misplacement

if TYPE_CHECKING:
    from hammerfs.store.blockmap import Blockmap
    from hammerfs.store.datablocks import DataBlocks

BLOCKS_MAX = 1 << 16
"""Blocks known at most: some 20 MB of memory, for 1 to 4 GiB of data."""


class LiveDedup:
    """What is known of blocks on disk.

    found, compared -- blocks that were not stored again; those that were read to see whether they need be
    """

    def __init__(self, blockmap: Blockmap, blocks: DataBlocks, limit: int = BLOCKS_MAX) -> None:
        self._blockmap = blockmap
        self._blocks = blocks
        self._limit = limit
        self._known: OrderedDict[tuple[int, int], Offset] = OrderedDict()
        self._in_bigblock: dict[Offset, set[tuple[int, int]]] = {}
        self.found = self.compared = 0

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, checksum: int, size: int, offset: Offset) -> None:
        """A record refers to a block there, which was read or is going to be written; damage may lead to odd places."""
        if size < BUFSIZE or misplacement(ZONE_LARGE_DATA, offset, size) is not None:
            return
        key = checksum, size
        before = self._known.get(key)
        if before is not None:
            self._known.move_to_end(key)
            if before == offset:
                return
            self._drop(key)
        self._known[key] = offset
        self._in_bigblock.setdefault(bigblock_of(offset), set()).add(key)
        if len(self._known) > self._limit:
            self._drop(next(iter(self._known)))

    def hold_equal(self, checksum: int, data: bytes) -> Offset | None:
        """Where the same bytes lie already, held like a reservation; None when that is not known."""
        key = checksum, len(data)
        offset = self._known.get(key)
        # What is queued may never be written, if its own record is given up.
        if offset is None or self._blocks.holds(offset):
            return None
        self.compared += 1
        try:
            equal = self._blockmap.can_hold(offset, len(data)) and self._blocks.read(offset, len(data)) == data
        except HammerError:
            equal = False
        if not equal:
            self._drop(key)
            return None
        self._known.move_to_end(key)
        self._blockmap.hold(offset, len(data))
        self.found += 1
        return offset

    def forget(self, bigblock: Offset) -> None:
        """A big-block may be written anew."""
        for key in self._in_bigblock.pop(bigblock, ()):
            del self._known[key]

    def _drop(self, key: tuple[int, int]) -> None:
        bigblock = bigblock_of(self._known.pop(key))
        keys = self._in_bigblock[bigblock]
        keys.discard(key)
        if not keys:
            del self._in_bigblock[bigblock]
