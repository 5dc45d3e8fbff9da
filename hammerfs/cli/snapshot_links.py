"""Snapshot softlinks: `snap-20261122 -> /mnt/@@0x0000000100000030`, in a directory of any file system.

A PFS that is not mounted by itself is named behind the TID: `/mnt/@@0x0000000100000030:00001`.  Each PFS has its own
history, so whoever took such a link for one of the root PFS would give up history that nobody asked about.  The
softlink that stands for a slave reads much the same, `@@0x0000000100000030:00001`, and is no snapshot's.

What a link leads to says for which PFS it keeps which state.  hammer(8) takes the earlier of a link's two times for the
snapshot's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from hammerfs.ondisk.address import Tid

_LINK = re.compile(r"(?s)(.*)@@(0[xX][0-9a-fA-F]+)(?::(\d{5}))?(?:[:/].*)?\Z")

_PFS_LINK_SIZE = len("@@PFS00000")


class SnapshotLink(NamedTuple):
    """One link.

    name -- in its directory, "" where nobody asked for it
    base -- what it leads to without the TID: a path on the file system
    pfs -- the PFS that it names, None when that is the one of the path
    seconds -- when the snapshot was taken, since 1970
    """

    name: str
    base: str
    pfs: int | None
    tid: Tid
    seconds: int

    @property
    def place(self) -> str:
        """What it leads to, as that is now: a path in the PFS that it keeps a state of."""
        return self.base if self.pfs is None else f"{self.base}@@-1:{self.pfs:05d}"


def parse_link(name: str, directory: str, target: str, size: int, seconds: int) -> SnapshotLink | None:
    """A link's meaning, None when it is no snapshot's; `size` is what stat(2) says, in bytes."""
    match = _LINK.match(target)
    if match is None or _stands_for_pfs(target, size):
        return None
    base, tid, pfs = match.groups()
    absolute = base if base.startswith("/") else f"{directory}/{base}"
    return SnapshotLink(name, absolute, None if pfs is None else int(pfs), int(tid, 16), seconds)


def _stands_for_pfs(target: str, size: int) -> bool:
    """Such a link is stored as `@@PFS00001` and has the size of that, whatever it reads as."""
    return target.startswith("@@") and size == _PFS_LINK_SIZE != len(target)


def snapshot_links(directory: str) -> Iterator[SnapshotLink]:
    """The snapshot softlinks in a directory, not below it; OSError when it cannot be read."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.is_symlink():
                continue
            status = entry.stat(follow_symlinks=False)
            seconds = int(min(status.st_ctime, status.st_mtime))
            link = parse_link(entry.name, directory, os.readlink(entry.path), status.st_size, seconds)
            if link is not None:
                yield link
