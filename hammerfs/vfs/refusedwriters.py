"""Telling write(2) that there is no space, although the kernel answers it from its cache.

With the write-back cache a write(2) succeeds once its bytes are in the page cache, and what becomes of them is told at
fsync and close only.  A program that just goes on writing to a full file system would go on for ever, and all of it
would be lost.  But before each write(2) the kernel makes sure that it knows the file's attributes.  So when a file's
pages are refused, its attributes are declared unknown, and the question that comes next is refused too: mostly that
of a write(2), which then returns ENOSPC.  If somebody else's stat(2) comes first, that one fails, once; the next pages
are refused again.
"""

from __future__ import annotations

from contextlib import suppress

import pyfuse3


class RefusedWriters:
    """Node ids of open files whose pages found no space since their attributes were last asked for."""

    def __init__(self) -> None:
        self._node_ids: set[int] = set()

    def add(self, node_id: int) -> None:
        """Pages of this file were refused."""
        self._node_ids.add(node_id)
        # Attributes alone: that never waits for dirty pages.  The kernel may have forgotten the inode by now.
        with suppress(OSError):
            pyfuse3.invalidate_inode(pyfuse3.InodeT(node_id), attr_only=True)

    def take(self, node_id: int) -> bool:
        """Whether the question for attributes shall be refused; it is once."""
        if node_id not in self._node_ids:
            return False
        self._node_ids.discard(node_id)
        return True
