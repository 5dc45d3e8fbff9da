"""From a name to an object: entries, `.` and `..`, and names that read as a moment (`pfs.py`).

A name that reads as a moment is an ordinary one where an entry has it: other systems may have made such entries.  Here
none is made that would hide a moment, or the root of a PFS, now or later.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from hammerfs.errors import FileOperationError, ReadOnlyError
from hammerfs.fs import directory as names
from hammerfs.fs import pfs
from hammerfs.fs.inode import Inode
from hammerfs.ondisk.address import Tid, pfs_localization
from hammerfs.ondisk.constants import MAX_NAME, MAX_TID, OBJID_ROOT

if TYPE_CHECKING:
    from hammerfs.fs.context import Context


def lookup(ctx: Context, parent: Inode, name: bytes) -> Inode:
    """The object called `name`; understands `.`, `..` and names with `@@`."""
    if not parent.is_directory:
        raise FileOperationError(errno.ENOTDIR)
    if len(name) > MAX_NAME:
        # No kernel asks for one, a client of the control socket may: each moment in a name is a step down.
        raise FileOperationError(errno.ENAMETOOLONG)
    entry = names.find(ctx, parent, name)
    if entry is not None:
        return ctx.inodes.get(ctx, entry.localization, entry.obj_id, parent.as_of)
    if name == b".":
        return parent
    if name == b"..":
        return parent_of(ctx, parent)
    if b"@@" in name:
        at = pfs.parse_at_name(name)
        if at is not None:
            return _lookup_at(ctx, parent, at)
    raise FileOperationError(errno.ENOENT)


def parent_of(ctx: Context, child: Inode) -> Inode:
    """The directory above a directory; a PFS root is its own."""
    if not child.data.parent_obj_id:
        return child
    return ctx.inodes.get(ctx, child.localization, child.data.parent_obj_id, child.as_of)


def _lookup_at(ctx: Context, parent: Inode, at: pfs.AtName) -> Inode:
    if _is_to_come(ctx, at.tid):
        # The present would be cached under the name of a moment that is still to come.
        raise FileOperationError(errno.ENOENT)
    if at.pfs is not None and not at.base:
        if ctx.options.pfs not in (0, at.pfs):
            # Who mounted one PFS gave access to that one.
            raise FileOperationError(errno.ENOENT)
        localization = pfs_localization(at.pfs)
        if pfs.load_pfs(ctx, localization) is None:
            raise FileOperationError(errno.ENOENT)
        return ctx.inodes.get(ctx, localization, OBJID_ROOT, pfs.view_of(ctx, localization, at.tid))
    view = pfs.view_of(ctx, parent.localization, at.tid)
    then = ctx.inodes.get(ctx, parent.localization, parent.obj_id, view)
    return then if at.base in (b"", b".") else lookup(ctx, then, at.base)


def _is_to_come(ctx: Context, tid: Tid) -> bool:
    return ctx.root.next_tid < tid < MAX_TID


def refuse_removal(ctx: Context, directory: Inode, name: bytes) -> None:
    """Say why a name with `@@` that no entry has cannot be removed: EROFS if it leads somewhere, or ENOENT.

    To `rm -f` the latter means that the work is done.
    """
    lookup(ctx, directory, name)
    raise ReadOnlyError("a name of a moment cannot be removed")


def refuse_moment(ctx: Context, directory: Inode, name: bytes) -> None:
    """Raise unless an entry may be made of a name with `@@` that no entry has yet.

    EROFS where the name leads to a moment already, EINVAL where it will or may do so later: by a TID that is still to
    come, or to a PFS that there is not yet.  A moment at which there was no such name stays as it is, so that others'
    files of such names can be unpacked.
    """
    at = pfs.parse_at_name(name)
    if at is None:
        return
    if _leads_somewhere(ctx, directory, name):
        raise ReadOnlyError("the name leads to a moment, which an entry would hide")
    while at is not None:
        if _is_to_come(ctx, at.tid) or (at.pfs is not None and not at.base):
            raise FileOperationError(errno.EINVAL, f"{name!r} is the name of a moment to come")
        at = pfs.parse_at_name(at.base)


def _leads_somewhere(ctx: Context, directory: Inode, name: bytes) -> bool:
    try:
        lookup(ctx, directory, name)
    except FileOperationError:
        return False
    return True
