"""Files whose creation the FIFO holds and no flush has written: which ones may be laid, and what is true of them since.

A new file can be made durable as a REDO_CREATE and the writes behind it (`redolog.py`), where recovery can do with its
name what the front end did: in the state that it starts from, the file's directory is there, and the name is free or
belongs to a file that was removed since.  A name that another file gave up for a second one is no such case: to give
it to the new one would take it from the other, whose second name nobody has made durable.

The directory's new mtime is an operation of the directory (REDO_TOUCH): so an fsync of it finds all that it lacks in
the FIFO, and the next group takes it in, whatever becomes of the file.
"""

from __future__ import annotations

from collections.abc import Iterable

from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.records import EntryKind, EntryRecord, RecordState
from hammerfs.ondisk.constants import OBJTYPE_REGFILE
from hammerfs.ondisk.creation import Creation, pack_creation


class Births:
    """All creations in the FIFO's range: by directory and name the newest one."""

    def __init__(self) -> None:
        self._told: dict[Inode, dict[bytes, EntryRecord]] = {}

    def keep(self, records: Iterable[EntryRecord]) -> None:
        """The FIFO's next range begins, with these alone."""
        self._told.clear()
        for record in records:
            self._told.setdefault(record.directory, {})[record.name] = record

    def can_tell(self, inode: Inode) -> bool:
        """Whether a file that no group has captured could be created anew from a record.  No group may be running."""
        data = inode.data
        if inode.on_disk or inode.capture is not None or len(inode.links) != 1 or inode.general:
            return False
        if data.obj_type != OBJTYPE_REGFILE or data.nlinks != 1:
            return False
        (record,) = inode.links
        directory = record.directory
        if record.kind is not EntryKind.ADD or not directory.on_disk or not _replaces_the_dead(record):
            return False
        before = self._told.get(directory, {}).get(record.name)
        return before is None or not before.target.data.nlinks

    def tell(self, inode: Inode) -> EntryRecord:
        """Its creation is laid: from here on only what comes later makes it differ from what the FIFO says."""
        (record,) = inode.links
        self._told.setdefault(record.directory, {})[record.name] = record
        inode.dirty = inode.dirty & ~Dirty.BEYOND_REDO | Dirty.WRITTEN
        return record

    def newest_laying(self, directory: Inode) -> int | None:
        """The journal's laying that completed all that a directory's disk lacks; None when the FIFO lacks some, too.

        No group may be running.
        """
        told, adds, touched = self._told.get(directory), directory.adds, directory.redo
        if not told or len(adds) != len(told) or directory.links or directory.general:
            return None
        if any(gone.name not in told or gone.target.data.nlinks for gone in directory.deletes.values()):
            return None
        if directory.dirty & ~Dirty.TIMES or touched is None or not touched.tells_mtime(directory.data.mtime):
            return None
        newest = touched.serial
        for name, record in told.items():
            log = record.target.redo
            if adds.get(name) is not record or record.state is not RecordState.SETUP or log is None:
                return None
            newest = max(newest, log.serial)
        return newest


def creation_of(inode: Inode) -> bytes:
    """The payload of the record that creates a file which `Births.can_tell` admits."""
    (record,) = inode.links
    return pack_creation(Creation(record.directory.obj_id, record.name, inode.data))


def _replaces_the_dead(record: EntryRecord) -> bool:
    """Whether all that has to land together with a new name is that files without any lose the same one."""
    together = record.together
    if together is None:
        return True
    place = record.directory, record.name
    return all(passed == place for passed in together.passing) and all(
        other is record
        or (
            other.kind is EntryKind.DELETE
            and (other.directory, other.name) == place
            and not other.target.data.nlinks
            and not other.target.is_directory
        )
        for other in together.pending()
    )
