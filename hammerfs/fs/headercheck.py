"""What the volume header says, held against what a mount can read at once, before a mount for writing relies on it.

The header's checksum alone cannot be insisted on: the original's newfs leaves it 0 and its recovery leaves it stale,
and a power cut may tear the header.  But one bit in these fields can cost data that was accepted long after the mount:
TIDs that are given out again mix up history and files, and space that is not there cannot be written to.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hammerfs.btree.node import ROOT_LEFT, ROOT_RIGHT
from hammerfs.errors import CorruptionError
from hammerfs.ondisk.constants import MAX_MASTERS
from hammerfs.ondisk.element import unpack_leaf
from hammerfs.ondisk.volume import NEXT_TID_OFFSET

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger(__name__)

NEXT_TID_MAX: Final = 1 << 62
"""Far beyond what anybody can use up; object ids are TIDs, too, and have to fit a signed field."""


def compare_header(ctx: Context) -> None:
    """Refuse a next TID that was given out before (INV-8), with CorruptionError; count free space by the freemap."""
    next_tid, newest = ctx.root.next_tid, ctx.tree.newest_tid
    name = ctx.volumes.root.device.name
    if next_tid >= NEXT_TID_MAX:
        raise CorruptionError(
            f"impossible next TID {next_tid:016x} in the volume header", offset=NEXT_TID_OFFSET, path=name
        )
    if not ctx.volumes.root.was_intact:
        newest = max(newest, _highest_used(ctx))
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


def _highest_used(ctx: Context) -> int:
    """The highest TID or object id in the B-tree, whose root does not know it after a nomirror mount."""
    highest = 0
    for raw in ctx.tree.scan(ROOT_LEFT, ROOT_RIGHT):
        element = unpack_leaf(raw)
        highest = max(highest, element.create_tid, element.delete_tid, element.obj_id)
    return highest
