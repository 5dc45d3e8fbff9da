"""FUSE node ids: how the kernel names an inode between its requests.

In the mounted view (one PFS, now or as of the `tid=` option) a node id is the object id itself: both are 64 bits wide,
neither is ever used again, and object ids start at 2^32.  So the inodes that nearly all requests are about need no
table, however large the tree is, and FORGET means nothing for them.

Everything else that can be reached through a path, `name@@0x...` and other PFSs, gets a number below 2^32 from a small
table and keeps it until the kernel has forgotten it.  The kernel counts how often it was told of a node, and so does
the table.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final, TypeAlias

from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.ondisk.address import Localization, ObjId, Tid

ROOT_NODE_ID: Final = 1
"""FUSE_ROOT_ID, and the object id of every PFS's root directory (HAMMER_OBJID_ROOT)."""
OBJ_ID_MIN: Final = 1 << 32
"""Node ids from here on are object ids of the mounted view."""

Identity: TypeAlias = tuple[Localization, ObjId, Tid]
"""An inode in one view: which PFS, which object, as of when."""


class NodeIds:
    """Node ids of one mount, in both directions.

    localization, as_of -- the mounted view
    """

    __slots__ = ("_counts", "_identities", "_next", "_node_ids", "as_of", "localization")

    def __init__(self, root: Inode) -> None:
        self.localization = root.localization
        self.as_of = root.as_of
        identity = (root.localization, root.obj_id, root.as_of)
        self._identities: dict[int, Identity] = {ROOT_NODE_ID: identity}
        self._node_ids: dict[Identity, int] = {identity: ROOT_NODE_ID}
        self._counts: dict[int, int] = {}
        self._next = ROOT_NODE_ID + 1

    def __len__(self) -> int:
        """How many inodes outside of the mounted view the kernel knows."""
        return len(self._counts)

    def identity(self, node_id: int) -> Identity:
        """What a node id below OBJ_ID_MIN stands for; ESTALE when it stands for nothing any more."""
        try:
            return self._identities[node_id]
        except KeyError:
            raise FileOperationError(errno.ESTALE) from None

    def peek(self, localization: Localization, obj_id: ObjId, as_of: Tid) -> int:
        """The node id of an inode, without counting; 0 when it is not in the table but would have to be."""
        if obj_id >= OBJ_ID_MIN and as_of == self.as_of and localization == self.localization:
            return obj_id
        return self._node_ids.get((localization, obj_id, as_of), 0)

    def reference(self, localization: Localization, obj_id: ObjId, as_of: Tid) -> int:
        """The node id to tell the kernel, which will give this one reference back by FORGET."""
        if obj_id >= OBJ_ID_MIN and as_of == self.as_of and localization == self.localization:
            return obj_id
        identity = (localization, obj_id, as_of)
        node_id = self._node_ids.get(identity)
        if node_id == ROOT_NODE_ID:
            return node_id
        if node_id is None:
            node_id = self._next
            self._next += 1
            self._node_ids[identity] = node_id
            self._identities[node_id] = identity
            self._counts[node_id] = 0
        self._counts[node_id] += 1
        return node_id

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """The kernel gave back some references: pairs of node id and how many."""
        if not self._counts:
            return
        for node_id, count in forgotten:
            left = self._counts.get(node_id)
            if left is None:
                continue
            if left > count:
                self._counts[node_id] = left - count
                continue
            del self._counts[node_id]
            del self._node_ids[self._identities.pop(node_id)]
