"""Objects that should not be there any more: what a crash, or DragonFly, left without a name.

Ours are on record (`unfinished.py`) and go when a file system is mounted.  DragonFly keeps no record; pruning meets
what it left behind (`hammer_prune.c: prune_check_nlinks`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError, FileOperationError
from hammerfs.fs import directory, filedata, namespace, unfinished
from hammerfs.fs.inode import Dirty, FlushState, Inode, block_ceiling
from hammerfs.ondisk.address import Localization, ObjId
from hammerfs.ondisk.constants import MAX_TID, OBJID_ROOT

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger("hammerfs.mount")


def finish_unfinished(ctx: Context) -> None:
    """Delete what lost its last name while open before a crash, and end truncations that were cut short."""
    for localization, obj_id in list(unfinished.scan(ctx)):
        inode = _stray(ctx, localization, obj_id)
        if inode is not None:
            inode.orphaned = True
            _finish(ctx, inode)


def let_go(ctx: Context, localization: Localization, obj_id: ObjId) -> None:
    """Have an object that has no name and is not open deleted by the next flush."""
    inode = _stray(ctx, localization, obj_id)
    if inode is not None and inode.state is FlushState.IDLE and not inode.data.nlinks and not inode.opens:
        _finish(ctx, inode)


def _stray(ctx: Context, localization: Localization, obj_id: ObjId) -> Inode | None:
    """An inode that may be finished off, None when it may not."""
    try:
        inode = ctx.inodes.get(ctx, localization, obj_id, MAX_TID)
        in_use = obj_id == OBJID_ROOT or (inode.is_directory and not directory.is_empty(ctx, inode))
    except FileOperationError:
        return None
    except CorruptionError as error:
        log.warning("object %#x stays unfinished, as it cannot be read: %s", obj_id, error)
        return None
    if in_use:
        log.warning("object %#x stays, though it is noted as deleted: it is a directory in use", obj_id)
        return None
    return inode


def _finish(ctx: Context, inode: Inode) -> None:
    inode.disk_end = (1 << 63) - 1
    if inode.data.nlinks:
        filedata.discard_from(ctx, inode, block_ceiling(inode.data.size))
    else:
        inode.read_only = False
        namespace.abandon(ctx, inode)
    ctx.dirty.mark(inode, Dirty.INODE)
