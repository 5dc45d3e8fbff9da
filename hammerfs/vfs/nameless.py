"""Objects whose last name is gone, alive for as long as the kernel holds on to them.

Open files are counted by the file system itself, from OPEN to RELEASE.  But a removed directory that is somebody's
working directory, an unlinked FIFO or a descriptor opened with O_PATH are never opened here, and still their users may
ask for attributes.  So whatever loses its last name is kept, as if it were open, until FORGET says that the kernel's
last reference is gone; normally that is at once.
"""

from __future__ import annotations

from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.nodeids import NodeIds


class Nameless:
    """What is kept, by node id."""

    def __init__(self, fs: FileSystem, node_ids: NodeIds) -> None:
        self._fs = fs
        self._node_ids = node_ids
        self._kept: dict[int, Inode] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def settle(self, inode: Inode) -> None:
        """Keep on holding an object, held when a name was taken from it, if that was its last; else let go of it."""
        if not inode.data.nlinks:
            node_id = self._node_ids.peek(inode.localization, inode.obj_id, inode.as_of)
            if node_id and node_id not in self._kept:
                self._kept[node_id] = inode
                return
        self._fs.released(inode)

    def forget(self, node_id: int) -> None:
        """The kernel knows that node no longer."""
        inode = self._kept.pop(node_id, None)
        if inode is not None:
            self._fs.released(inode)

    def forget_all(self) -> None:
        """The session is over, and FORGET does not come at unmount."""
        for node_id in list(self._kept):
            self.forget(node_id)
