"""What was written to the FIFO for fast fsyncs and no flush has committed yet (`hammer_redo.c`).

From its first fsync on, the writes and truncations of a file are noted as REDO operations; a new file's creation and
content are, by that fsync.  It, and later ones, lay those that the FIFO does not hold yet into it, behind one barrier;
recovery runs them again on what UNDO left.  So at any time the FIFO's active range must hold exactly the operations
that the state recovered by UNDO lacks.  Four rules see to it:

- Every group captures all files with operations in the FIFO, so a cycle commits whatever was laid before its capture.
- While a cycle is written but not closed nothing is laid: fsync waits for its end.
- What a file lacks is laid in one step, and each of the records but the last says that more follow.  Those at the end
  of the range after which nothing follows are the beginning of what no fsync was acknowledged for.
- The header that closes a cycle moves first_offset past all that was laid.  What was laid after the capture is lacked
  by the new state too, so it is laid once more behind the new first_offset, and is durable before that header is
  written.  The state before must not see it twice: the copy hides behind a jump of the sequence numbers, which ends the
  range for a recovery that starts at the old first_offset.

So no REDO_SYNC ever points in front of the range it stands in.  TERM records tell what was committed of REDO there;
a flush lays them down as the original does, for whoever reads the FIFO, and no recovery ever depends on one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hammerfs.fs.births import creation_of, tell
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.records import EntryRecord
from hammerfs.ondisk.constants import REDO_CREATE, REDO_TERM_TRUNC, REDO_TERM_WRITE, REDO_TOUCH, REDO_WRITE
from hammerfs.ondisk.fifo import REDO_PAYLOAD_MAX, RedoBody
from hammerfs.store.undo import UndoFifo, redo_write_size

UNLAID_BYTES_MAX = 64 * 1024
"""Bytes of one file that the FIFO lacks beyond which a flush is cheaper than so many records."""
UNLAID_OPERATIONS_MAX = 256
LAID_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of all files that are kept in memory to be laid again; also at most a sixteenth of the FIFO."""
INODES_MAX = 64
"""Files and directories with operations in the FIFO: each of them joins the next group."""


class Operation(NamedTuple):
    """A write of `data` at a file offset, a truncation to it, or the file's creation, of which `data` tells.

    Of a directory: `offset` is its mtime.
    flags -- REDO_WRITE, REDO_TRUNC, REDO_CREATE or REDO_TOUCH
    """

    offset: int
    data: bytes
    flags: int

    @property
    def cost(self) -> int:
        """Bytes of FIFO that it takes, at most."""
        return redo_write_size(len(self.data))


class RedoLog:
    """The operations of one file that its inode record and data on disk lack.

    base_seq -- once this flush group is durable, the disk lacks nothing but operations noted here
    recent -- operations since the last capture, oldest first; laid -- how many of them the FIFO holds
    captured -- those of the running group that it does not hold: if the group is rolled back, they are lacked
    overflowed -- there were too many to note; only a flush makes the file durable now
    serial -- of the journal's laying that included the newest operation
    birth -- the file's only name, while its creation is among `recent` and laid
    born -- how many operations were laid with that; their times are the creation's, those of later ones are not told
    writes -- since the last fsync; writes_before -- between that and the one before it
    """

    __slots__ = (
        "base_seq",
        "birth",
        "born",
        "captured",
        "laid",
        "overflowed",
        "recent",
        "serial",
        "unlaid_bytes",
        "writes",
        "writes_before",
    )

    def __init__(self, base_seq: int) -> None:
        self.base_seq = base_seq
        self.recent: list[Operation] = []
        self.laid = 0
        self.captured: list[Operation] = []
        self.overflowed = False
        self.unlaid_bytes = 0
        self.serial = 0
        self.birth: EntryRecord | None = None
        self.born = 0
        self.writes = 0
        self.writes_before = 0

    @classmethod
    def of_new(cls, inode: Inode, base_seq: int, content: bytes) -> RedoLog:
        """That of a file which is not on disk and has this content: how to create it."""
        log = cls(base_seq)
        log.recent.append(Operation(0, creation_of(inode), REDO_CREATE))
        if content:
            log.note(0, content)
        return log

    def tells_mtime(self, mtime: int) -> bool:
        """Whether the FIFO holds this as the newest one of a directory."""
        return self.laid > 0 and self.recent[-1].offset == mtime

    def note_write(self, offset: int, data: bytes, replaced: bytes | None) -> None:
        """A write of the front end, and what stood in its place, if that is known.

        A database writes pages of which little has changed: pieces that were the same are left out.
        """
        self.writes += 1
        if replaced is None or len(replaced) != len(data) or len(data) <= REDO_PAYLOAD_MAX:
            self.note(offset, data)
            return
        for start, end in _changed_pieces(replaced, data):
            self.note(offset + start, data[start:end])

    def fsynced(self) -> None:
        """The file is fsynced, now."""
        self.writes_before = self.writes
        self.writes = 0

    def is_fsync_next(self) -> bool:
        """Whether the file has been written as often as it was before the last fsync."""
        return self.writes == self.writes_before

    def note(self, offset: int, data: bytes, flags: int = REDO_WRITE) -> None:
        """An operation of the front end."""
        if self.overflowed:
            return
        self.recent.append(Operation(offset, data, flags))
        self.unlaid_bytes += len(data)
        if self.unlaid_bytes > UNLAID_BYTES_MAX or len(self.recent) - self.laid > UNLAID_OPERATIONS_MAX:
            self.overflowed = True
            del self.recent[self.laid :]
            self.captured.clear()
            self.unlaid_bytes = 0

    def unlaid(self) -> list[Operation]:
        """What the FIFO lacks, oldest first."""
        return self.captured + self.recent[self.laid :]

    def capture(self, seq: int, *, beyond_redo: bool) -> None:
        """Flush group `seq` takes everything noted; `beyond_redo`: and changes that no operation describes."""
        if beyond_redo or self.overflowed:
            self.base_seq = seq
            self.overflowed = False
            self.captured.clear()
        else:
            self.captured = self.recent[self.laid :]
        self.recent = []
        self.laid = 0
        self.birth = None
        self.born = 0
        if not self.captured:
            self.unlaid_bytes = 0


def _changed_pieces(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Runs of pieces, of one record's payload each, that differ; the last piece where none does."""
    size = len(new)
    start = -1
    for at in range(0, size, REDO_PAYLOAD_MAX):
        if old[at : at + REDO_PAYLOAD_MAX] != new[at : at + REDO_PAYLOAD_MAX]:
            if start < 0:
                start = at
        elif start >= 0:
            yield start, at
            start = -1
    if start >= 0:
        yield start, size
    elif old == new:
        yield (size - 1) // REDO_PAYLOAD_MAX * REDO_PAYLOAD_MAX, size


class RedoJournal:
    """All operations in the FIFO's active range; one per mount, from version 4 on.

    holders -- inodes with laid operations that no group has captured, directories for their mtime
    used -- whether the range holds REDO at all
    serial -- counts layings
    """

    def __init__(self, undo: UndoFifo) -> None:
        self._undo = undo
        self._limit = min(LAID_BYTES_MAX, undo.capacity // 16)
        self.holders: dict[Inode, None] = {}
        self.used = False
        self.serial = 0
        self._in_group: list[RedoLog] = []
        self._laid_bytes = 0

    def has_room(self, log: RedoLog, inode: Inode) -> bool:
        """Whether a file's operations may be laid."""
        cost = sum(operation.cost for operation in log.unlaid())
        crowded = len(self.holders) >= INODES_MAX and inode not in self.holders
        return not crowded and self._laid_bytes + cost <= self._limit

    def lay(self, inode: Inode, log: RedoLog) -> None:
        """Lay what the FIFO lacks of a file into it, in memory."""
        operations = log.unlaid()
        if not operations:
            return
        self._append(inode, operations)
        if not log.laid and log.recent and log.recent[0].flags == REDO_CREATE:
            log.birth = tell(inode)
            log.born = len(log.recent)
            self._touch(log.birth.directory)
        log.captured.clear()
        log.laid = len(log.recent)
        log.unlaid_bytes = 0
        if log.recent:
            self.holders[inode] = None
        self.serial += 1
        log.serial = self.serial

    def _touch(self, directory: Inode) -> None:
        """Lay the mtime that a new entry gives its directory, unless it is on disk; of several the newest is enough."""
        if not directory.dirty & Dirty.TIMES:
            return
        log = directory.redo
        if log is None:
            log = directory.redo = RedoLog(0)
        log.recent = [Operation(directory.data.mtime, b"", REDO_TOUCH)]
        self._append(directory, log.recent)
        log.laid = 1
        log.serial = self.serial + 1
        self.holders[directory] = None

    def capture(self, inode: Inode, seq: int) -> None:
        """Flush group `seq` has taken an inode."""
        log = inode.redo
        if log is None:
            return
        assert inode.capture is not None
        log.capture(seq, beyond_redo=bool(inode.capture.dirty & Dirty.BEYOND_REDO))
        self.holders.pop(inode, None)
        if log.captured:
            self._in_group.append(log)

    def note_written(self, inode: Inode, offset: int, size: int) -> None:
        """A flush commits a data record of a file with REDO in the FIFO (`hammer_inode.c: TERM_WRITE`)."""
        self._undo.append_redo(RedoBody(inode.obj_id, offset, size, REDO_TERM_WRITE, inode.localization, b""))

    def note_truncated(self, inode: Inode, offset: int) -> None:
        """A flush has ended all data records from `offset` on of such a file (`hammer_inode.c: TERM_TRUNC`)."""
        self._undo.append_redo(RedoBody(inode.obj_id, offset, 0, REDO_TERM_TRUNC, inode.localization, b""))

    def forget(self, inode: Inode) -> None:
        """What the FIFO says of an inode is of no more use: it never reached the disk, and another one has its name."""
        self.holders.pop(inode, None)

    def carry_over(self) -> None:
        """Begin the FIFO's next range, at the end of a written cycle, with what that cycle does not hold.

        The caller makes the FIFO durable before it writes a header with the new first_offset.
        """
        for log in self._in_group:
            log.captured.clear()
        self._in_group.clear()
        self.used = False
        self._laid_bytes = 0
        self._undo.begin_range(hidden=bool(self.holders))
        # A directory's mtime is what it was behind all that was created in it.
        for inode in sorted(self.holders, key=lambda inode: inode.is_directory):
            held = inode.redo
            assert held is not None, "a holder without operations"
            if held.born:
                self._append(inode, held.recent[: held.born])
            if held.laid > held.born:
                self._append(inode, held.recent[held.born : held.laid])

    def _append(self, inode: Inode, operations: list[Operation]) -> None:
        """Lay down operations of a file in one step, so that recovery finds all of them or redoes none."""
        undo = self._undo
        if not self.used:
            self.used = True
            undo.append_redo_sync()
        for number, operation in enumerate(operations, 1):
            offset, data, flags = operation
            more = number < len(operations)
            if flags == REDO_WRITE:
                undo.append_redo_write(inode.obj_id, inode.localization, offset, data, more=more)
            else:
                undo.append_redo(RedoBody(inode.obj_id, offset, len(data), flags, inode.localization, data, more))
            self._laid_bytes += operation.cost
