"""In-memory records: directory entries to be added or deleted, and data blocks laid down, both waiting for the flusher.

An entry record ties a directory to a target inode.  What must reach the disk together is kept in an AtomicSet: both
sides of a rename, the entry that a rename replaces, a new entry and the pending deletion of the same name.  The
original orders such records by inode states instead and can tear them apart; see docs/recovery.md.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.ondisk.address import Offset

if TYPE_CHECKING:
    from hammerfs.fs.inode import Inode


class RecordState(Enum):
    """Which side of the border a record is on (`hammer_record_t: flush_state`)."""

    SETUP = "setup"
    """Changed in memory only; the next group that takes it in moves it on."""
    FLUSH = "flush"
    """Captured by the running group; will reach the B-tree as it is."""
    DONE = "done"
    """In the B-tree, or never needed there."""


class EntryKind(Enum):
    """What a record does to its directory."""

    ADD = "add"
    DELETE = "delete"


class AtomicSet:
    """Entry records that must land in one flush group.

    passing -- names that no record tells of any more: a rename gave them to somebody and another took them away
    """

    __slots__ = ("passing", "records")

    def __init__(self) -> None:
        self.records: list[EntryRecord] = []
        self.passing: list[tuple[Inode, bytes]] = []

    def merge(self, other: AtomicSet) -> None:
        """Take over another set's records and names."""
        if other is self:
            return
        for record in other.records:
            record.together = self
        self.records += other.records
        for directory, name in other.passing:
            self.pass_by(directory, name)
        other.passing.clear()

    def pass_by(self, directory: Inode, name: bytes) -> None:
        """Remember that a name was held in between: who takes it next lands together with this set."""
        if (directory, name) not in self.passing:
            self.passing.append((directory, name))
        directory.passing[name] = self

    def settle_passing(self) -> None:
        """Its records are on their way to the disk: from now on those names are like others."""
        for directory, name in self.passing:
            if directory.passing.get(name) is self:
                del directory.passing[name]
        self.passing.clear()

    def pending(self) -> list[EntryRecord]:
        """Its records that no group has captured."""
        return [record for record in self.records if record.state is RecordState.SETUP]


class EntryRecord:
    """One directory entry on its way to disk.

    name, key -- the entry's name and the directory key chosen for it
    kind -- ADD or DELETE
    directory -- the inode that contains the entry
    target -- the inode that the entry refers to
    together -- the records that must land with it, None when it stands alone
    promised -- an addition that may be durable without a flush, or that somebody waits for: what takes it away before
    a group has it has to be on record
    never_on_disk -- a deletion that is this record: it binds, and the B-tree has nothing to delete
    """

    __slots__ = ("directory", "key", "kind", "name", "never_on_disk", "promised", "state", "target", "together")

    def __init__(self, kind: EntryKind, directory: Inode, name: bytes, key: int, target: Inode) -> None:
        self.kind = kind
        self.directory = directory
        self.name = name
        self.key = key
        self.target = target
        self.state = RecordState.SETUP
        self.together: AtomicSet | None = None
        self.promised = self.never_on_disk = False


def bind(records: list[EntryRecord]) -> None:
    """Make records land together, with whatever they are already bound to."""
    together = next((record.together for record in records if record.together is not None), None) or AtomicSet()
    for record in records:
        if record.together is None:
            record.together = together
            together.records.append(record)
        elif record.together is not together:
            together.merge(record.together)


class DataRecord(NamedTuple):
    """A data block in reserved space, not yet in the B-tree: `end` is its key, the file offset where it ends."""

    start: int
    end: int
    data_offset: Offset
    data_crc: int
