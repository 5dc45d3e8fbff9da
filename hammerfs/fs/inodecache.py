"""Inodes in memory: found by identity, loaded from the B-tree, forgotten oldest first when nothing needs them.

There is never more than one Inode object for one identity: what the cache let go of, but somebody still holds, comes
back when it is asked for.  Two objects would each know half of what is pending.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from hammerfs.errors import CorruptionError, FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.knownnames import NameCache
from hammerfs.fs.metadata import read_record
from hammerfs.ondisk.address import Localization, ObjId, Tid
from hammerfs.ondisk.constants import (
    INODE_DATA_SIZE,
    LOCALIZE_INODE,
    LOCALIZE_PFS_MASK,
    MAX_FILE_SIZE,
    MAX_TID,
    OBJTYPE_DIRECTORY,
    OBJTYPE_SOCKET,
    RECTYPE_INODE,
)
from hammerfs.ondisk.element import LeafElement, base_key, unpack_leaf, visible_at
from hammerfs.ondisk.inode import InodeData

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger(__name__)


class InodeCache:
    """At most `limit` inodes that could be forgotten, and all that cannot.

    read_only_pfs -- PFSs that became slaves: whoever still knows an inode of their present must not change it
    frozen_pfs -- PFSs of which nothing may change for a while, and which inodes that stopped
    thaws -- how often one of these was let go again
    names -- what the directories among them are known to hold
    """

    def __init__(self, limit: int, names: NameCache) -> None:
        self._limit = limit
        self.names = names
        self.thaws = 0
        self._inodes: dict[tuple[Localization, ObjId, Tid], Inode] = {}
        self._let_go: WeakValueDictionary[tuple[Localization, ObjId, Tid], Inode] = WeakValueDictionary()
        self._held_views: dict[tuple[Localization, ObjId], list[Inode]] = {}
        self.read_only_pfs: set[Localization] = set()
        self.frozen_pfs: dict[Localization, list[Inode]] = {}

    def __len__(self) -> int:
        return len(self._inodes)

    def get(self, ctx: Context, localization: Localization, obj_id: ObjId, as_of: Tid) -> Inode:
        """The inode in that view; FileOperationError(ENOENT) when the view has none."""
        inode = self._inodes.get((localization, obj_id, as_of))
        if inode is None:
            inode = self._let_go.pop((localization, obj_id, as_of), None)
            if inode is None:
                inode = self._load(ctx, localization, obj_id, as_of)
            self.add(inode)
        return inode

    def add(self, inode: Inode) -> None:
        """Remember an inode; may forget others."""
        self._inodes[inode.localization, inode.obj_id, inode.as_of] = inode
        if len(self._inodes) > self._limit:
            self._evict()

    def opened(self) -> list[Inode]:
        """Those with open handles, which are never let go of."""
        return [inode for inode in self._inodes.values() if inode.opens]

    def forget(self, inode: Inode) -> None:
        """Drop an inode that was deleted."""
        key = inode.localization, inode.obj_id, inode.as_of
        self._inodes.pop(key, None)
        self._let_go.pop(key, None)
        self.names.forget(inode)

    def forget_past(self) -> None:
        """Drop all views of the past that nobody holds open: what they show may have been pruned."""
        for key in [key for key, inode in self._inodes.items() if not inode.live and not inode.opens]:
            del self._inodes[key]
        for key in [key for key in self._let_go if key[2] != MAX_TID]:
            self._let_go.pop(key, None)

    def hold_view(self, inode: Inode) -> None:
        """A view of the past was opened: it is told when what it shows vanishes."""
        views = self._held_views.setdefault((inode.localization, inode.obj_id), [])
        if inode not in views:
            views.append(inode)

    def let_view_go(self, inode: Inode) -> None:
        """Nobody holds it open any more; who opens it again sees what history has by then."""
        views = self._held_views[inode.localization, inode.obj_id]
        views.remove(inode)
        if not views:
            del self._held_views[inode.localization, inode.obj_id]
        if inode.pruned:
            self.forget(inode)

    def is_held(self, inode: Inode) -> bool:
        """Whether it is a view of the past that is held open."""
        return inode in self._held_views.get((inode.localization, inode.obj_id), ())

    def record_vanished(self, element: LeafElement) -> None:
        """A record was taken out of the B-tree, history and all: who still shows it must not show a hole instead.

        The inode's own record is in memory for as long as it is held.
        """
        if not self._held_views or element.rec_type == RECTYPE_INODE:
            return
        for inode in self._held_views.get((element.localization & LOCALIZE_PFS_MASK, element.obj_id), ()):
            if not inode.pruned and visible_at(element.create_tid, element.delete_tid, inode.as_of):
                inode.pruned = True
                log.warning(
                    "object %#x is open as of %016x, and some of that was taken out of history: it cannot be read on",
                    inode.obj_id,
                    inode.as_of,
                )

    def freeze(self, localization: Localization) -> None:
        """No inode of a PFS may be changed until `thaw`; what is pending is flushed all the same."""
        assert localization not in self.frozen_pfs, "a frozen PFS was frozen again"
        stopped = [inode for inode in self._of(localization) if not inode.read_only]
        for inode in stopped:
            inode.read_only = True
        self.frozen_pfs[localization] = stopped

    def thaw(self, localization: Localization) -> None:
        """A frozen PFS may change again.  Its inodes are forgotten, as on disk they may be others now."""
        self.thaws += 1
        stopped = self.frozen_pfs.pop(localization)
        for inode in self._of(localization):
            self.names.forget(inode)
            if inode.evictable:
                self.forget(inode)
            elif inode in stopped:
                inode.read_only = False

    def _of(self, localization: Localization) -> list[Inode]:
        known = [*self._inodes.values(), *self._let_go.values()]
        return [inode for inode in known if inode.localization == localization]

    def _evict(self) -> None:
        """Look at the oldest eighth; what is busy moves to the young end, so that a scan never meets it twice."""
        oldest = [key for key, _ in zip(self._inodes, range(self._limit // 8 + 1), strict=False)]
        for key in oldest:
            inode = self._inodes.pop(key)
            if inode.evictable:
                self.names.forget(inode)
                self._let_go[key] = inode
            else:
                self._inodes[key] = inode

    def _load(self, ctx: Context, localization: Localization, obj_id: ObjId, as_of: Tid) -> Inode:
        raw = ctx.tree.find_as_of(base_key(localization | LOCALIZE_INODE, obj_id, RECTYPE_INODE, 0), as_of)
        if raw is None:
            raise FileOperationError(errno.ENOENT)
        element = unpack_leaf(raw)
        if element.data_len != INODE_DATA_SIZE:
            raise CorruptionError(
                f"inode {obj_id:#x} with {element.data_len} bytes of data", offset=element.data_offset
            )
        data = InodeData.unpack(read_record(ctx, element))
        if data.size > MAX_FILE_SIZE or not OBJTYPE_DIRECTORY <= data.obj_type <= OBJTYPE_SOCKET:
            raise CorruptionError(
                f"inode {obj_id:#x} of type {data.obj_type} with {data.size} bytes", offset=element.data_offset
            )
        past = as_of != MAX_TID
        if past or ctx.read_only:
            # Both are updated in place without a new record, so what stands there may be younger than the view.
            data.mtime = data.atime = data.ctime
        elif data.obj_type == OBJTYPE_DIRECTORY:
            # Entries move both times, but only mtime is kept in place: without this ctime would go back.
            data.ctime = max(data.ctime, min(data.mtime, ctx.clock()))
        # Whoever has a name has a link.  To change one without would mean to delete it, and all that hangs on it.
        read_only = past or ctx.read_only or not data.nlinks or localization in self.read_only_pfs
        read_only = read_only or localization in self.frozen_pfs
        return Inode(localization, obj_id, as_of, data, on_disk=True, read_only=read_only)
