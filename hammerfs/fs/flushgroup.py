"""Dirty inodes, flush groups, and what has to land together.

An inode that changes enters SETUP and waits here.  A flush group collects inodes; when the flusher starts running it,
it is captured in one step: from then on the front end changes what the next group will write.  A group that takes
everything is trivially complete.  A group for one fsync takes the closure of its inodes:

- every pending entry record that refers to the inode, because its link count counts them;
- the directory of such a record, when the directory itself is not on disk yet;
- whatever the record is bound to (both halves of a rename, the entry it replaces, moves above a directory's new place);
- for a directory that goes away, the pending removals inside it.

And every group takes whatever got another name since the last one.  Programs replace files by renaming, one after the
other, and what the later ones say is true only with the earlier ones: git's branch names a commit, which is a file that
was renamed before.  So after a crash a move is never seen without those before it, whoever asked for the flush.

Closures follow a visited set, so cycles between directories moved into each other end like any other walk.
Sources: `hammer_inode.c: hammer_setup_parent_inodes`, `hammer.h: struct hammer_flush_group`.
"""

from __future__ import annotations

from collections.abc import Iterable

from hammerfs.fs.inode import Dirty, FlushState, Inode, InodeCapture
from hammerfs.fs.records import EntryRecord, RecordState
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import OBJTYPE_DIRECTORY, XBUFSIZE

TRUNCATED_BYTES_MAX = 8 * XBUFSIZE
"""A longer truncation may take several cycles, which no REDO record can wait for."""


class FlushGroup:
    """Inodes that are flushed as one atomic step.

    seq -- sequence number; groups run in this order
    closed -- to be flushed as soon as its turn comes
    running -- captured; nothing joins any more
    everything -- takes all dirty inodes when it starts to run
    inodes -- those asked for by name; work -- those captured that no slave has taken yet
    total_count -- inodes captured; refs -- those of them that are not in the B-tree yet
    tid -- of every record that it writes
    """

    __slots__ = ("closed", "everything", "inodes", "refs", "running", "seq", "tid", "total_count", "work")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.closed = False
        self.running = False
        self.everything = False
        self.inodes: dict[Inode, None] = {}
        self.total_count = 0
        self.refs = 0
        self.tid: Tid = 0
        self.work: list[Inode] = []


class DirtyInodes:
    """All inodes with changes that no group has captured: what the next group to run will find.

    setup -- these inodes, in the order in which they became dirty
    moved -- those of them that got another name; the next group takes them, whatever it is for
    cut_short -- those of which less than what was captured reached the disk, see `sync_inode`
    changes -- counts them: whoever changes what an inode shows notes it here in the same step
    """

    def __init__(self) -> None:
        self.changes = 0
        self.setup: dict[Inode, None] = {}
        self.moved: dict[Inode, None] = {}
        self.cut_short: set[Inode] = set()

    def mark(self, inode: Inode, bits: int) -> None:
        """Note that an inode differs from disk."""
        self.changes += 1
        inode.dirty |= bits
        if inode.state is FlushState.IDLE:
            inode.state = FlushState.SETUP
            self.setup[inode] = None
        elif inode not in self.setup:
            # In FLUSH: the running group has its capture, this change belongs to the next one.
            self.setup[inode] = None

    def mark_moved(self, inode: Inode) -> None:
        """Note that an inode got another name."""
        self.mark(inode, Dirty.INODE)
        self.moved[inode] = None

    def take(self, inode: Inode) -> bool:
        """A group captures an inode; False when it has no changes."""
        if inode not in self.setup:
            return False
        del self.setup[inode]
        self.moved.pop(inode, None)
        return True

    def discard(self, inode: Inode) -> None:
        """Forget the pending changes of an inode that never needed the disk."""
        self.setup.pop(inode, None)
        self.moved.pop(inode, None)
        inode.dirty = 0
        if inode.state is FlushState.SETUP:
            inode.state = FlushState.IDLE


def removes_much(inode: Inode) -> bool:
    """Whether the pending truncation or deletion of an inode may end more data records than go by in a moment."""
    if not inode.data.nlinks:
        return inode.disk_end > TRUNCATED_BYTES_MAX
    return inode.trunc_off is not None and inode.disk_end - inode.trunc_off > TRUNCATED_BYTES_MAX


def closure(seeds: Iterable[Inode]) -> list[Inode]:
    """`seeds` and every inode whose pending changes must land with theirs."""
    inodes: dict[Inode, None] = {}
    records: set[EntryRecord] = set()
    waiting = list(seeds)
    while waiting:
        inode = waiting.pop()
        if inode in inodes:
            continue
        inodes[inode] = None
        reached = list(inode.links)
        if inode.data.obj_type == OBJTYPE_DIRECTORY and not inode.data.nlinks:
            reached += inode.deletes.values()
        while reached:
            record = reached.pop()
            if record in records or record.state is not RecordState.SETUP:
                continue
            records.add(record)
            waiting.append(record.target)
            if not record.directory.on_disk and record.directory.capture is None:
                waiting.append(record.directory)
            if record.together is not None:
                reached += record.together.records
    return list(inodes)


def touched_directories(inodes: Iterable[Inode]) -> set[Inode]:
    """The directories of all entries that land with `inodes`, where nothing but their times is pending.

    They need not land together.  But a careful program fsyncs the directory next, and then there is nothing to do.
    """
    directories = {record.directory for inode in inodes for record in inode.links}
    return {directory for directory in directories if directory.dirty == Dirty.TIMES}


def capture(inode: Inode, seq: int) -> None:
    """Move an inode's pending changes into a capture for group `seq`, which starts to run."""
    taken = InodeCapture()
    taken.dirty = inode.dirty
    taken.promised = inode.redo is not None and inode.redo.laid > 0
    if inode.dirty & (Dirty.INODE | Dirty.WRITTEN) or not inode.on_disk:
        taken.data = inode.data.pack()
    elif inode.dirty & Dirty.TIMES:
        taken.data = inode.data.pack()
        taken.times_only = True
    taken.size = inode.data.size
    taken.blocks, inode.blocks = inode.blocks, {}
    taken.records, inode.records = inode.records, {}
    taken.truncate_at, inode.trunc_off = inode.trunc_off, None
    if inode.links:
        taken.links = list(inode.links)
        inode.links = {}
        for record in taken.links:
            record.state = RecordState.FLUSH
            # A directory's entries belong to it, though not to its own capture.
            record.directory.last_seq = seq
            if record.together is not None and record.together.passing:
                record.together.settle_passing()
    taken.general, inode.general = inode.general, {}
    if not inode.data.nlinks:
        taken.delete = not inode.opens
        taken.open_orphan = not taken.delete
    inode.dirty = 0
    inode.capture = taken
    inode.last_seq = seq
    inode.state = FlushState.FLUSH
