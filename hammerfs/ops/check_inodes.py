"""Inodes, live entries and PFSs as a check remembers them: arrays, some sixty bytes an inode beside its index.

An inode is remembered in the version that counts: the one visible now (on a slave PFS: visible at its
`sync_end_tid`), else the last one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from hammerfs.ondisk.address import Offset, Tid
from hammerfs.ondisk.element import LeafElement, visible_at
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.pfs import PfsData

NO_INODE = -1


class InodeTable:
    """The inodes of one PFS.

    index -- obj_id to position in the arrays
    as_of -- moment that counts as now: None for a master, `sync_end_tid` for a slave
    destroyed -- nothing counts any more: what is left need not hang together, and goes before the id is used again
    live -- 1 when visible now
    entries, holder -- live directory entries that refer to it, and the directory of the last one
    has_fix -- 1 when a live FIX record (a long symlink) hangs on it
    """

    def __init__(self, as_of: Tid | None, *, destroyed: bool = False) -> None:
        self.as_of = as_of
        self.destroyed = destroyed
        self.index: dict[int, int] = {}
        self.obj_id = array("q")
        self.obj_type = array("B")
        self.cap_flags = array("B")
        self.live = array("B")
        self.has_fix = array("B")
        self.nlinks = array("Q")
        self.size = array("Q")
        self.parent = array("q")
        self.holder = array("q")
        self.entries = array("I")

    def visible(self, element: LeafElement) -> bool:
        """Whether a record counts as existing now."""
        if self.destroyed:
            return False
        if self.as_of is None:
            return element.delete_tid == 0
        return visible_at(element.create_tid, element.delete_tid, self.as_of)

    def put(self, element: LeafElement, inode: InodeData) -> None:
        """Remember an inode version; versions come in the order of their creation."""
        live = self.visible(element)
        at = self.index.get(element.obj_id)
        if at is None:
            self.index[element.obj_id] = len(self.obj_id)
            self.obj_id.append(element.obj_id)
            for column in (self.obj_type, self.cap_flags, self.live, self.has_fix):
                column.append(0)
            for wide in (self.nlinks, self.size, self.parent, self.holder, self.entries):
                wide.append(0)
            at = -1
        elif self.live[at] and not live:
            return
        self.obj_type[at] = inode.obj_type
        self.cap_flags[at] = inode.cap_flags
        self.live[at] = live
        self.nlinks[at] = inode.nlinks
        self.size[at] = inode.size
        self.parent[at] = inode.parent_obj_id

    def find(self, obj_id: int) -> int:
        """Position of an inode of any time, NO_INODE when there was none."""
        return self.index.get(obj_id, NO_INODE)

    def find_live(self, obj_id: int) -> int:
        """Position of an inode visible now, else NO_INODE."""
        at = self.index.get(obj_id, NO_INODE)
        return at if at >= 0 and self.live[at] else NO_INODE


class EntryRow(NamedTuple):
    """A live directory entry: what it refers to, where it is, and where its name can be read again."""

    target: int
    target_localization: int
    obj_type: int
    directory: int
    localization: int
    data_offset: Offset
    data_len: int


class EntryList:
    """All live directory entries, in arrays."""

    def __init__(self) -> None:
        self._columns = (array("q"), array("I"), array("B"), array("q"), array("I"), array("Q"), array("H"))

    def append(self, row: EntryRow) -> None:
        """Remember an entry."""
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[EntryRow]:
        return map(EntryRow._make, zip(*self._columns, strict=True))


class PfsTable:
    """The inode tables of all PFSs, and what the PFS records say; those stand before all inodes of PFSs 1 and up."""

    def __init__(self) -> None:
        self.inodes: dict[int, InodeTable] = {}
        self.records: dict[int, PfsData] = {}
        self.links: set[int] = set()

    def table(self, pfs_id: int) -> InodeTable:
        """The inodes of a PFS."""
        found = self.inodes.get(pfs_id)
        if found is None:
            record = self.records.get(pfs_id)
            as_of = record.sync_end_tid if pfs_id and record is not None and record.is_slave else None
            destroyed = pfs_id != 0 and record is not None and record.is_deleted
            found = self.inodes[pfs_id] = InodeTable(as_of, destroyed=destroyed)
        return found
