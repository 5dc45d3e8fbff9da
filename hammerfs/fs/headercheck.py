"""What the volume header says, held against what a mount can read at once, before a mount for writing relies on it.

No checksum covers these fields: the original leaves the header's own stale, so nobody can insist on it.  But one bit
in them can cost data that was accepted long after the mount: TIDs that are given out again mix up history, and space
that is not there cannot be written to.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.constants import MAX_MASTERS
from hammerfs.ondisk.volume import NEXT_TID_OFFSET

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger(__name__)


def compare_header(ctx: Context) -> None:
    """Refuse a next TID that was given out before (INV-8), with CorruptionError; count free space by the freemap."""
    next_tid, newest = ctx.root.next_tid, ctx.tree.newest_tid
    name = ctx.volumes.root.device.name
    if newest > next_tid | (MAX_MASTERS - 1):
        raise CorruptionError(
            f"the volume header's next TID {next_tid:016x} is below TID {newest:016x} of the B-tree,",
            offset=NEXT_TID_OFFSET,
            path=name,
        )
    counted, free = ctx.root.free_bigblocks, ctx.freemap.free_bigblocks()
    if counted != free:
        log.warning(
            "%s: the volume header counts %d free big-blocks, the freemap %d; the freemap is right", name, counted, free
        )
        ctx.root.free_bigblocks = free
