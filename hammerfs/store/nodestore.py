"""Where the B-tree's nodes live: zone 8, through the meta-data buffers, allocated from the blockmap."""

from __future__ import annotations

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import Offset, zone_of
from hammerfs.ondisk.constants import NODE_SIZE, ZONE_BTREE
from hammerfs.store.blockmap import Blockmap
from hammerfs.store.buffers import MetaBuffers
from hammerfs.store.rootvolume import RootVolume
from hammerfs.store.volumes import VolumeSet


class ZoneNodeStore:
    """The `NodeStore` of a mounted file system."""

    def __init__(self, volumes: VolumeSet, buffers: MetaBuffers, blockmap: Blockmap, root: RootVolume) -> None:
        self._volumes = volumes
        self._buffers = buffers
        self._blockmap = blockmap
        self._root = root

    @property
    def version(self) -> int:
        """The format version, which decides about checksums."""
        return self._volumes.version

    def read_node(self, offset: Offset) -> bytes:
        """The 4096 raw bytes of a node, unverified."""
        if zone_of(offset) != ZONE_BTREE or offset % NODE_SIZE:
            raise CorruptionError("B-tree node reference outside zone 8", offset=offset)
        return self._buffers.read_node(offset)

    def write_node(self, offset: Offset, raw: bytes, fresh: bool) -> None:
        """Put a node's new content into its buffer, under UNDO unless it is fresh."""
        self._buffers.modify_node(offset, raw, fresh)

    def alloc_node(self, group: int, home: Offset) -> Offset:
        """Space for a new node, side by side with the others of its group where that is not 0."""
        if group:
            return self._blockmap.alloc_apart(ZONE_BTREE, NODE_SIZE, group, home)
        return self._blockmap.alloc(ZONE_BTREE, NODE_SIZE)

    def free_node(self, offset: Offset) -> None:
        """Give a node's space back."""
        self._blockmap.free(offset, NODE_SIZE)

    def set_root(self, offset: Offset) -> None:
        """Name the new root; the header follows when the cycle is finalized."""
        self._root.btree_root = offset
