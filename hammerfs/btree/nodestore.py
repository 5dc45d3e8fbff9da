"""What the B-tree asks of the floor below: raw nodes in, raw nodes out, space for them, and where the root is."""

from __future__ import annotations

from typing import Protocol

from hammerfs.ondisk.address import Offset


class NodeStore(Protocol):
    """The store as the B-tree sees it.

    The tree changes nodes in memory only; `write_node` and `set_root` are called by `sync()` alone, which is therefore
    the moment when UNDO is generated.  `alloc_node` and `free_node` are called while the tree changes.
    """

    @property
    def version(self) -> int:
        """Volume version, which decides the checksum that nodes are written with."""

    def read_node(self, offset: Offset) -> bytes:
        """The 4096 bytes at a zone-8 offset, not verified; CorruptionError or DeviceError when there are none."""

    def write_node(self, offset: Offset, raw: bytes, fresh: bool) -> None:
        """Replace the 4096 bytes at `offset`; a fresh node was in no synced state before and needs no UNDO."""

    def alloc_node(self, group: int, home: Offset) -> Offset:
        """Space for one more node, as a zone-8 offset aligned to 4096; NoSpaceError when there is none.

        group -- a number that nodes share which should lie side by side (`node.group_of`)
        home -- where one lies that is likely to be of that group
        """

    def free_node(self, offset: Offset) -> None:
        """Give the space of a node back."""

    def set_root(self, offset: Offset) -> None:
        """Make `offset` the root of the tree in the volume header, under UNDO."""
