"""What a crash must not leave undone: inodes without a name that are still open, and truncations too large for a cycle.

HAMMER has no orphan list; the original leaves such inodes behind.  Ours are named by EXT records of the root inode of
PFS 0, with negative keys, which the original neither reads nor minds.  The record goes in with the flush that takes the
last name away (or shortens the file) and out with the flush that finishes the work; a mount finishes what it finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hammerfs.fs.metadata import end_record, insert_record, read_record
from hammerfs.ondisk.address import Localization, ObjId, Tid
from hammerfs.ondisk.constants import (
    LOCALIZE_MISC,
    MAX_TID,
    MIN_KEY,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    RECTYPE_EXT,
)
from hammerfs.ondisk.element import base_key, pack_key, unpack_leaf

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.fs.inode import Inode

_DATA_SIZE = 12


def _key(inode: Inode) -> int:
    """A negative key; two PFSs may share an obj_id, so the PFS id is mixed in and collisions are told by the data."""
    return MIN_KEY | ((inode.obj_id ^ (inode.localization << 31)) & ~(1 << 63))


def note(ctx: Context, tid: Tid, inode: Inode) -> None:
    """Record that work on an inode is unfinished (back end)."""
    if inode.orphaned:
        return
    data = inode.obj_id.to_bytes(8, "little", signed=True) + inode.localization.to_bytes(4, "little")
    insert_record(ctx, tid, LOCALIZE_MISC, OBJID_ROOT, RECTYPE_EXT, _key(inode), OBJTYPE_DIRECTORY, data)
    inode.orphaned = True


def clear(ctx: Context, tid: Tid, inode: Inode) -> None:
    """Take an inode's record out again, without history (back end)."""
    if not inode.orphaned:
        return
    raw = ctx.tree.find_as_of(base_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_EXT, _key(inode)), MAX_TID)
    if raw is not None:
        end_record(ctx, tid, raw, nohistory=True)
    inode.orphaned = False


def scan(ctx: Context) -> Iterator[tuple[Localization, ObjId]]:
    """Inodes that a crash or an unmount left unfinished."""
    low = pack_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_EXT, MIN_KEY, 1)
    high = pack_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_EXT, -1, MAX_TID)
    for raw in ctx.tree.scan_as_of(low, high, MAX_TID):
        data = read_record(ctx, unpack_leaf(raw))
        if len(data) == _DATA_SIZE:
            yield int.from_bytes(data[8:], "little"), int.from_bytes(data[:8], "little", signed=True)
