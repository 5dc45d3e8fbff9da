"""In-memory inodes: what the front end changes and what the flusher captures of it.

An inode is IDLE when memory and disk agree, SETUP when it waits for a flush group, FLUSH while the running group
holds a capture of it.  Capturing moves the pending changes, by reference, into an InodeCapture; what changes
afterwards belongs to the next group.  So a capture costs next to nothing, and the front end never waits for the
flusher (`hammer_inode.c: hammer_flush_inode, hammer_setup_child`, whose interlock flags this replaces).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from hammerfs.ondisk.address import Localization, ObjId, Tid
from hammerfs.ondisk.constants import BUFSIZE as _BUFSIZE
from hammerfs.ondisk.constants import (
    MAX_TID,
    OBJTYPE_DIRECTORY,
    SF_NOHISTORY,
    UF_NOHISTORY,
    XBUFSIZE,
    XDEMARC,
)
from hammerfs.ondisk.inode import InodeData

if TYPE_CHECKING:
    from hammerfs.fs.knownnames import KnownNames
    from hammerfs.fs.records import AtomicSet, DataRecord, EntryRecord
    from hammerfs.fs.redolog import RedoLog


class FlushState(Enum):
    """Where an inode is relative to the border between front end and back end (`hammer_inode_t: flush_state`)."""

    IDLE = "idle"
    SETUP = "setup"
    FLUSH = "flush"


class Dirty:
    """What of an inode differs from disk: bits of a plain int, because they are set on every operation."""

    INODE: Final = 1
    """Anything in the inode data that needs a new inode record, but for what WRITTEN says."""
    TIMES: Final = 2
    """Only mtime or atime, which are updated in place."""
    DATA: Final = 4
    """Blocks, or a truncation."""
    ENTRIES: Final = 8
    """Entry records that refer to this inode."""
    GENERAL: Final = 16
    """Extended attributes or a long symlink target."""
    WRITTEN: Final = 32
    """Size and times as writing and truncating change them; needs a new inode record, too."""
    BEYOND_REDO: Final = INODE | TIMES | ENTRIES | GENERAL
    """What REDO records cannot say (`HAMMER_INODE_MODMASK_NOREDO`)."""


class InodeCapture:
    """What one flush group writes of one inode.

    dirty -- what differed from disk
    data -- packed inode data, or None when the inode record does not change
    times_only -- mtime and atime are updated in place
    blocks, records -- dirty blocks in memory and blocks already laid down, by file offset
    size -- file size that belongs to `blocks`
    truncate_at -- records from this block-aligned offset on are deleted first; None when nothing is truncated
    links -- entry records of this group that refer to the inode
    general -- other records to replace, (rec_type, key) -> data, None to delete
    delete -- the inode goes away altogether
    promised -- part of it is in the FIFO, where fast fsyncs may have acknowledged it: it must not be left half done
    """

    __slots__ = (
        "blocks",
        "data",
        "delete",
        "dirty",
        "general",
        "links",
        "open_orphan",
        "promised",
        "records",
        "size",
        "times_only",
        "truncate_at",
    )

    def __init__(self) -> None:
        self.dirty = 0
        self.data: bytes | None = None
        self.times_only = False
        self.blocks: dict[int, bytearray | bytes] = {}
        self.records: dict[int, DataRecord] = {}
        self.size = 0
        self.truncate_at: int | None = None
        self.links: list[EntryRecord] = []
        self.general: dict[tuple[int, int], bytes | None] = {}
        self.delete = False
        self.open_orphan = False
        self.promised = False


class Inode:
    """One file system object in one view.

    localization -- PFS bits only; as_of -- MAX_TID for now
    data -- attributes as the front end sees them
    state, dirty -- position relative to the flusher
    on_disk -- the inode record is in the B-tree
    blocks -- dirty blocks by file offset, whole blocks each
    records -- blocks laid down, not yet captured
    trunc_off -- block-aligned offset from which on nothing on disk counts any more, None when all does
    disk_end -- no data record in the B-tree ends beyond this
    adds, add_keys -- entries of a directory that are not in the B-tree yet, by name and by key
    deletes -- entries in the B-tree, or promised without it, that are gone already, by key
    passing -- names that it had between two changes that have to land together, see `directory.add`
    missing -- a name that was looked for and is not there, and the key it would get; holds until an entry is added
    known -- names that it is known to have, None when nothing is (`knownnames.py`)
    links -- pending entry records that refer to this inode
    general -- pending non-data records, see InodeCapture
    opens -- open file handles
    pruned -- of the past, held open, and some of its content was taken out of history: it cannot be read any more
    orphaned -- an unfinished record on disk names it
    last_seq -- the newest flush group that may have written it
    redo -- operations for fast fsyncs, None until the first fsync; of a directory, until one of a new file in it
    next_obj_id, stop_obj_id -- object ids set aside for what is created in this directory
    """

    __slots__ = (
        "__weakref__",
        "add_keys",
        "adds",
        "as_of",
        "blocks",
        "capture",
        "data",
        "deletes",
        "dirty",
        "disk_end",
        "general",
        "known",
        "last_seq",
        "links",
        "localization",
        "missing",
        "next_obj_id",
        "obj_id",
        "on_disk",
        "opens",
        "orphaned",
        "passing",
        "pruned",
        "read_only",
        "records",
        "redo",
        "sorted_adds",
        "state",
        "stop_obj_id",
        "trunc_off",
    )

    def __init__(
        self,
        localization: Localization,
        obj_id: ObjId,
        as_of: Tid,
        data: InodeData,
        *,
        on_disk: bool,
        read_only: bool,
    ) -> None:
        self.localization = localization
        self.obj_id = obj_id
        self.as_of = as_of
        self.data = data
        self.on_disk = on_disk
        self.read_only = read_only
        self.state = FlushState.IDLE
        self.dirty = 0
        self.blocks: dict[int, bytearray | bytes] = {}
        self.records: dict[int, DataRecord] = {}
        self.trunc_off: int | None = None
        self.disk_end = (data.size + XBUFSIZE - 1) & -XBUFSIZE if on_disk else 0
        self.adds: dict[bytes, EntryRecord] = {}
        self.add_keys: dict[int, EntryRecord] = {}
        self.deletes: dict[int, EntryRecord] = {}
        self.passing: dict[bytes, AtomicSet] = {}
        self.sorted_adds: list[EntryRecord] | None = None
        self.missing: tuple[bytes, int | None] | None = None
        self.known: KnownNames | None = None
        self.links: dict[EntryRecord, None] = {}
        self.general: dict[tuple[int, int], bytes | None] = {}
        self.capture: InodeCapture | None = None
        self.opens = 0
        self.orphaned = self.pruned = False
        self.last_seq = 0
        self.redo: RedoLog | None = None
        self.next_obj_id = 0
        self.stop_obj_id = 0

    @property
    def live(self) -> bool:
        """Whether this is the present, not a moment in the past."""
        return self.as_of == MAX_TID

    @property
    def is_directory(self) -> bool:
        """Whether entries can be looked up in it."""
        return self.data.obj_type == OBJTYPE_DIRECTORY

    @property
    def nohistory(self) -> bool:
        """Whether its flags ask for no history to be kept."""
        return bool(self.data.uflags & (UF_NOHISTORY | SF_NOHISTORY))

    @property
    def evictable(self) -> bool:
        """Whether forgetting it loses nothing."""
        return (
            self.state is FlushState.IDLE
            and not self.opens
            and not self.dirty
            and self.capture is None
            and not self.links
            and not self.passing
            and not self.orphaned
        )


def block_size(offset: int) -> int:
    """Size of the data block at a file offset (`hammer_blocksize`)."""
    return _BUFSIZE if offset < XDEMARC else XBUFSIZE


def block_start(offset: int) -> int:
    """File offset at which the block containing `offset` starts."""
    return offset & -_BUFSIZE if offset < XDEMARC else offset & -XBUFSIZE


def block_ceiling(offset: int) -> int:
    """`offset` rounded up to the end of a block, 0 for 0."""
    size = block_size(offset)
    return (offset + size - 1) & -size
