"""The path of an object, for log lines about it: from the inode upwards, at a bounded cost, and no error of its own.

An inode names the directory that its last creation or rename put it into, and one of that directory's entries has the
name.  There is none where that name was removed and another hard link is left, or where the entry or anything on the
way up is damaged; then the object keeps the number that it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hammerfs.errors import HammerError
from hammerfs.fs import directory
from hammerfs.fs.inode import Inode
from hammerfs.ondisk.address import Localization, ObjId, Tid, pfs_of
from hammerfs.ondisk.constants import MAX_TID, OBJID_ROOT
from hammerfs.ondisk.direntry import PATH_MAX

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

ELEMENTS_MAX = 10_000
"""Entries looked at for one path, of all its directories together: a few tenths of a second."""


def path_of(
    ctx: Context, root: Inode, localization: Localization, obj_id: ObjId, as_of: Tid
) -> tuple[bytes, ...] | None:
    """The names that lead from `root`, the mounted one, to an object in any view; None when they cannot be told."""
    budget = iter(range(ELEMENTS_MAX))
    names: list[bytes] = []
    seen: set[ObjId] = set()
    size = 0
    try:
        while obj_id != OBJID_ROOT:
            if obj_id in seen:
                return None
            seen.add(obj_id)
            parent_id = ctx.inodes.get(ctx, localization, obj_id, as_of).data.parent_obj_id
            parent = ctx.inodes.get(ctx, localization, parent_id, as_of)
            name = directory.name_of(ctx, parent, obj_id, budget)
            if name is None:
                return None
            size += len(name) + 1
            if size > PATH_MAX:
                return None
            names.append(name)
            obj_id = parent_id
    except HammerError:
        return None
    if (localization, as_of) != (root.localization, root.as_of):
        names.append(_view_name(root, localization, as_of))
    return tuple(reversed(names))


def _view_name(root: Inode, localization: Localization, as_of: Tid) -> bytes:
    """What leads from the mounted root to the root of another view (`FileSystem.lookup`)."""
    moment = b"@@-1" if as_of == MAX_TID else b"@@0x%016x" % as_of
    return moment if localization == root.localization else b"%b:%05d" % (moment, pfs_of(localization))
