"""Times of change that the kernel shows of files, where a write has moved ours beyond them.

With its write-back cache the kernel owns mtime and ctime of regular files, and tells them by SETATTR.  A WRITE moves
ours all the same: should the power fail in between, what changed must not look as if it had not.  But of a write that
falls into the same tick of its clock as the one before, the kernel tells nothing, and goes on showing what it told
then.  It has told everything when it closes a file; so what nobody has open any more goes back to what is shown.

When in doubt ours stay: they are too late by milliseconds, where a time that is too old would hide a change.
"""

from __future__ import annotations

from hammerfs.fs.inode import Inode


class ToldTimes:
    """What the kernel shows of files that were written to since it told their times, as mtime and ctime."""

    def __init__(self) -> None:
        self._shown: dict[Inode, tuple[int, int]] = {}

    def writing(self, inode: Inode) -> None:
        """A write is about to move the times.  That of pages that outlived the last handle is told later."""
        if inode.opens and inode.data.nlinks and inode not in self._shown:
            self._shown[inode] = inode.data.mtime, inode.data.ctime

    def told(self, inode: Inode) -> None:
        """The kernel tells something of a file, be it of another change than that by the write."""
        self._shown.pop(inode, None)

    def closed(self, inode: Inode) -> tuple[int, int] | None:
        """A handle was closed: the times to go back to, if it was the last one and ours are others."""
        if inode.opens and inode.data.nlinks:
            return None
        return self._shown.pop(inode, None)
