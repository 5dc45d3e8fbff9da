"""Files whose creation the FIFO holds and no flush has written: which ones may be laid, and what is true of them since.

A new file can be made durable as a REDO_CREATE and the writes behind it (`redolog.py`), where recovery can do with its
name what the front end did: in the state that it starts from, the file's directory is there, and the name is free or
belongs to a file that was removed since.  A name that another file gave up for a second one is no such case: to give
it to the new one would take it from the other, whose second name nobody has made durable.

From then on the name is as good as one on disk.  Whatever takes it away leaves a record (`directory.remove`), and the
next group takes that in with all that has to land together; until then each new range of the FIFO creates the file
again.  When the next file by that name is laid before that, the last one is forgotten: recovery removes it for that.

The directory's new mtime, if no flush has taken it, is an operation of the directory (REDO_TOUCH): so an fsync of it
finds all that it lacks in the FIFO, and the next group takes it in, whatever becomes of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.records import EntryKind, EntryRecord, RecordState
from hammerfs.ondisk.constants import OBJTYPE_REGFILE
from hammerfs.ondisk.creation import Creation, pack_creation

if TYPE_CHECKING:
    from hammerfs.fs.context import Context


def can_tell(inode: Inode) -> bool:
    """Whether a file that no group has captured could be created anew from a record.  No group may be running."""
    data = inode.data
    if inode.on_disk or inode.capture is not None or len(inode.links) != 1 or inode.general:
        return False
    if data.obj_type != OBJTYPE_REGFILE or data.nlinks != 1:
        return False
    (record,) = inode.links
    return record.kind is EntryKind.ADD and record.directory.on_disk and _replaces_the_dead(record)


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
            # Its last name, of those on disk as well: recovery, too, has to be rid of it.
            and len(other.target.links) == 1
        )
        for other in together.pending()
    )


def creation_of(inode: Inode) -> bytes:
    """The payload of the record that creates a file which `can_tell` admits."""
    (record,) = inode.links
    return pack_creation(Creation(record.directory.obj_id, record.name, inode.data))


def tell(inode: Inode) -> EntryRecord:
    """Its creation is laid: from here on only what comes later makes it differ from what the FIFO says."""
    (record,) = inode.links
    record.promised = True
    inode.dirty = Dirty.WRITTEN
    return record


def forget_predecessors(ctx: Context, record: EntryRecord) -> None:
    """A creation was laid: files of the FIFO that had the name before, and were removed, are of no more use."""
    together = record.together
    if together is None:
        return
    for gone in together.pending():
        if gone.never_on_disk:
            together.records.remove(gone)
            gone.state = RecordState.DONE
            gone.together = None
            del gone.directory.deletes[gone.key]
            ctx.space.records -= 1
            target = gone.target
            del target.links[gone]
            assert ctx.redo is not None, "a creation was laid without a FIFO for it"
            ctx.redo.forget(target)
            if not target.opens and not target.links:
                ctx.dirty.discard(target)
                ctx.inodes.forget(target)


def newest_laying(directory: Inode) -> int | None:
    """The journal's laying that completed all that a directory's disk lacks; None when the FIFO lacks some, too.

    No group may be running.
    """
    adds, deletes = directory.adds, directory.deletes
    if not adds or directory.links or directory.general or directory.dirty & ~Dirty.TIMES:
        return None
    newest = 0
    if directory.dirty:
        touched = directory.redo
        if touched is None or not touched.tells_mtime(directory.data.mtime):
            return None
        newest = touched.serial
    for record in adds.values():
        log = record.target.redo
        if log is None or log.birth is not record:
            return None
        newest = max(newest, log.serial)
    if any(gone.name not in adds or gone.target.data.nlinks for gone in deletes.values()):
        return None
    return newest
